"""Simulated scans as a dataset that is gone afterwards; what the scripts beside this one share."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.phantom.scan import SimulatedScan
from napari_msp.data.phantom.simulate import write_scan
from napari_msp.errors import UserError
from napari_msp.model_file import Model, load_model
from napari_msp.packaged import packaged_model
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.sh_image import SHImage


@contextmanager
def dataset_of(scans: Iterable[SimulatedScan]) -> Iterator[TravellingHeads]:
    """Write scans with their noise-free twins to a temporary folder and open it."""
    with TemporaryDirectory() as folder:
        for scan in scans:
            write_scan(Path(folder), scan)
        yield open_dataset(folder)


def models_of(paths: Sequence[Path]) -> dict[str, Model]:
    """Open models by file name; without paths, the packaged MSP."""
    return {path.stem: load_model(path) for path in paths or [packaged_model("MSP")]}


def truth_of(study: TravellingHeads, subject: str, target: str) -> SHImage:
    """Fit the noise-free twin of a subject's scan on a target."""
    twin = study.noise_free(subject, target)
    if twin is None:
        raise UserError(f"{study.root}: {subject} has no noise-free twin; simulate with twins")
    return fit_sh(twin)
