"""Make records of files: scans with the SH fitted to them, and SH images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from napari_msp.bids import dataset_root, nifti_stem, sidecar_path, subject_and_platform
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import UserError
from napari_msp.files import read_json
from napari_msp.networks.registry import title
from napari_msp.scan import load_scan as load_any
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count
from napari_msp.ui.records import Record

Say = Callable[[str], None]
"""Told what is being done, in words; whatever it raises ends the work."""


def load_scan(
    path: str | Path,
    b_value: float | None = None,
    mask: str | Path | None = None,
    bval: str | Path | None = None,
    bvec: str | Path | None = None,
    say: Say = lambda words: None,
) -> Record:
    """Open a scan and fit SH to it.

    Parameters
    ----------
    path, bval, bvec, mask
        As for `load_acquisition`.
    b_value
        Shell to use, in s/mm²; None: the only one.
    say
        See `Say`.

    Raises
    ------
    UserError
        When a file is missing or malformed, or several shells leave the choice open.
    """
    return record_of(load_acquisition(path, bval, bvec, mask), b_value, say)


def record_of(
    acquisition: Acquisition, b_value: float | None = None, say: Say = lambda words: None
) -> Record:
    """Fit SH to a scan that is open; see `load_scan`."""
    path = Path(acquisition.name)
    acquisition.shell(b_value)  # a choice that cannot be made is an error before the voxels
    say(f"Reading {path.name}")
    _ = acquisition.voxels
    if acquisition.mask_path is None:
        say("Making a brain mask with median_otsu")
    _ = acquisition.mask
    say("Fitting spherical harmonics")
    image = fit_sh(acquisition, b_value=b_value)
    subject, platform = identity_of(path)
    return Record(subject, platform, image, acquisition, siblings_of(path))


def load_sh(path: str | Path) -> Record:
    """Read an SH image, named by its BIDS entities and by what its sidecar says of a model.

    Raises
    ------
    UserError
        When the file is no SH image in MRtrix3's basis, or its b-value is unknown.
    """
    path = Path(path)
    sidecar = read_json(sidecar_path(path)) if sidecar_path(path).exists() else {}
    entities = dict(part.split("-", 1) for part in nifti_stem(path).split("_") if "-" in part)
    model = sidecar.get("Model")
    kind = str(model.get("Kind", "")) if isinstance(model, Mapping) else ""
    subject = f"sub-{entities['sub']}" if "sub" in entities else _bare(path)
    label = title(kind)
    return Record(
        subject,
        _name_of_sh(label, sidecar, entities),
        load_any(path).sh,
        label=label,
    )


def usual_shell(acquisition: Acquisition) -> float | None:
    """Give the shell that is shown unasked: the lowest with enough directions for the SH order.

    Returns
    -------
    Its b-value in s/mm²; None where no shell will do, so that whoever uses it is told why.
    """
    shells = acquisition.gradients.shells
    enough = [each for each in shells if len(each.volumes) >= coefficient_count(ORDER)]
    return enough[0].b_value if enough else None


def identity_of(scan: Path) -> tuple[str, str]:
    """Name a scan's subject and platform; its file's stem and "" where the name does not tell."""
    return subject_and_platform(scan) or (_bare(scan), "")


def siblings_of(path: Path) -> dict[str, Path]:
    """Find scans of the same subject on other platforms, in the BIDS dataset of a scan."""
    identity, root = subject_and_platform(path), dataset_root(path)
    if identity is None or root is None:
        return {}
    subject, own = identity
    try:
        scans = open_dataset(root, subject).scans
    except UserError:  # the scan lies somewhere else in the dataset
        return {}
    return {platform: scan for (_, platform), scan in sorted(scans.items()) if platform != own}


def _bare(path: Path) -> str:
    return nifti_stem(path).removesuffix("_dwi")


def _name_of_sh(label: str, sidecar: Mapping[str, Any], entities: Mapping[str, str]) -> str:
    """Name an SH image: "MSP prisma_st" for a prediction, else the platform or description."""
    target, predicted, _ = str(sidecar.get("Description", "")).partition(" as predicted from ")
    description = entities.get("desc", "")
    if label and predicted:
        stage = " first stage" if description.endswith("FirstStage") else ""
        return f"{label} {target}{stage}"
    platform = "_".join(entities[key] for key in ("ses", "acq") if key in entities)
    return f"{platform} {description}".strip()
