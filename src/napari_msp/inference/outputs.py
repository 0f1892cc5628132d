"""Write predictions as files that keep the input's BIDS entities."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.bids import nifti_stem
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.gradients import GradientTable, write_gradients
from napari_msp.data.nifti import write_nifti
from napari_msp.errors import UserError
from napari_msp.files import staged_folder, write_json
from napari_msp.inference.harmonize import Prediction, predict_target
from napari_msp.inference.output_gradients import table_choice
from napari_msp.inference.prepared_input import prepare_input
from napari_msp.inference.provenance import derivative_description, provenance
from napari_msp.inference.whole_image import Progress
from napari_msp.model_file import Model, load_model
from napari_msp.signal.fitting import evaluate
from napari_msp.signal.sh_image import write_sh

DESCRIPTION = "dataset_description.json"


def harmonize_to_folder(
    dwi: str | Path,
    model: Model | str | Path,
    targets: Sequence[str],
    out: str | Path,
    *,
    bval: str | Path | None = None,
    bvec: str | Path | None = None,
    mask: str | Path | None = None,
    gradients: str = "target",
    device: str = "auto",
    tile: int | None = None,
    resample: bool = False,
    rescale_b_value: bool = False,
    force: bool = False,
    describe: bool = True,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[Path]:
    """Harmonize one scan and write DWI, SH image, first stage and how sure it is, by target.

    Parameters
    ----------
    dwi, bval, bvec, mask
        As for `load_acquisition`.
    model
        A model or its file.
    targets
        Platforms to predict; empty: all of the model's.
    out
        Folder; BIDS entities of the input are kept in the names.
    gradients
        Directions of the written DWI: "target", "input", or a .bvec file with its .bval beside it.
    force
        Replace files that are there already.
    describe
        Write dataset_description.json where there is none.
    device, tile, resample, rescale_b_value, progress, cancelled
        As for `harmonize`.

    Returns
    -------
    The DWI of each target.

    Raises
    ------
    UserError
        Before anything is written.
    """
    model = model if isinstance(model, Model) else load_model(model)
    acquisition = load_acquisition(dwi, bval, bvec, mask)
    out = Path(out)
    stems = {}
    for target in list(targets) or model.targets:
        model.single(target)  # an unknown target is an error before the first one is computed
        stems[target] = _free_stem(out, acquisition, target, model, force)
    # Checked before the network runs: a bad table must not cost an hour.
    table_of = table_choice(gradients, acquisition)
    prepared = prepare_input(model, acquisition, resample=resample, rescale_b_value=rescale_b_value)
    with _staged(out, describe) as stage:
        for target, stem in stems.items():
            prediction = predict_target(
                model,
                prepared,
                target,
                progress=progress,
                cancelled=cancelled,
                device=device,
                tile=tile,
            )
            sidecar = provenance(model, acquisition, prediction, gradients)
            _write(stage / stem, prediction, table_of(prediction), acquisition, sidecar)
    return [out / f"{stem}_dwi.nii.gz" for stem in stems.values()]


def save_prediction(
    prediction: Prediction,
    model: Model,
    acquisition: Acquisition,
    out: str | Path,
    *,
    gradients: str = "target",
    force: bool = False,
    describe: bool = True,
) -> list[Path]:
    """Write a prediction that is in memory: the files that `harmonize_to_folder` writes for it.

    Parameters
    ----------
    prediction
        What `harmonize` gave.
    model, acquisition
        What it was made with; the acquisition has a path, which names the files.
    out, gradients, force, describe
        As for `harmonize_to_folder`.

    Returns
    -------
    The prediction's files, the DWI first.

    Raises
    ------
    UserError
        Before anything is written.
    """
    out = Path(out)
    stem = _free_stem(out, acquisition, prediction.target, model, force)
    table = table_choice(gradients, acquisition)(prediction)
    sidecar = provenance(model, acquisition, prediction, gradients)
    with _staged(out, describe) as stage:
        _write(stage / stem, prediction, table, acquisition, sidecar)
        names = [path.name for path in stage.iterdir()]
    dwi = f"{stem}_dwi.nii.gz"
    return [out / name for name in sorted(names, key=lambda name: (name != dwi, name))]


def output_stem(dwi: Path, target: str, kind: str) -> str:
    """Name what is predicted from a scan.

    >>> output_stem(Path("sub-01_ses-ge_acq-st_dwi.nii.gz"), "connectom_sa", "msp")
    'sub-01_ses-ge_acq-st_desc-connectomsaMsp'
    """
    bare = nifti_stem(dwi).removesuffix("_dwi")
    label = "".join(c for c in target if c.isalnum())
    network = "".join(c for c in kind if c.isalnum()).capitalize()
    return f"{bare}_desc-{label}{network}"


def predicted_signal(prediction: Prediction, table: GradientTable) -> FloatArray:
    """Give the DWI: the b=0 image, then the predicted signal along a table's directions.

    Returns
    -------
    (X, Y, Z, 1 + N) float32 in the input's scanner units; 0 outside the mask. S/S0 is kept in
    [0, 1].
    """
    ratio = np.clip(evaluate(prediction.sh, table.directions), 0, 1)
    return np.concatenate([prediction.b0[..., None], ratio * prediction.b0[..., None]], axis=-1)


def _free_stem(out: Path, acquisition: Acquisition, target: str, model: Model, force: bool) -> str:
    """Name the files of a target, which must not be there already unless forced."""
    if acquisition.path is None:
        raise UserError(
            f"{acquisition.name}: was made in memory, so its prediction has no name; write it to a "
            "file and load it from there"
        )
    stem = output_stem(acquisition.path, target, model.kind)
    written = out / f"{stem}_dwi.nii.gz"
    if written.exists() and not force:
        raise UserError(f"{written}: exists already; replace it with --force")
    return stem


@contextmanager
def _staged(out: Path, describe: bool) -> Iterator[Path]:
    """Give a folder whose files move into `out` together, with a description where it has none."""
    with staged_folder(out) as stage:
        yield stage
        if describe and not (out / DESCRIPTION).exists():
            write_json(stage / DESCRIPTION, derivative_description("harmonized scans"))


def _write(
    stem: Path,
    prediction: Prediction,
    table: GradientTable,
    acquisition: Acquisition,
    sidecar: dict[str, Any],
) -> None:
    def named(suffix: str) -> Path:
        return stem.with_name(stem.name + suffix)

    affine, like = prediction.sh.affine, acquisition.image
    write_nifti(named("_dwi.nii.gz"), predicted_signal(prediction, table), affine, like=like)
    with_b0 = GradientTable(
        np.concatenate([[0.0], table.b_values]),
        np.concatenate([np.zeros((1, 3)), table.directions]),
    )
    write_gradients(with_b0, named("_dwi.bval"), named("_dwi.bvec"), affine)
    write_json(named("_dwi.json"), sidecar)
    write_nifti(named("_mask.nii.gz"), prediction.sh.mask, affine, like=like)
    coefficients = "_model-sh_param-coefficients_dwimap.nii.gz"
    write_sh(named(coefficients), prediction.sh, sidecar, like=like)
    if prediction.first_stage is not None:
        write_sh(named("FirstStage" + coefficients), prediction.first_stage, sidecar, like=like)
    for what, values in (
        ("disagreement", prediction.disagreement),
        ("disagreement0", prediction.order_0_disagreement),
        ("expectederror", prediction.expected_error),
    ):
        if values is not None:
            name = named(f"_model-sh_param-{what}_dwimap.nii.gz")
            write_nifti(name, values, affine, like=like)
