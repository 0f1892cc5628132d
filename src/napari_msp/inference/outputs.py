"""Write predictions as files that keep the input's BIDS entities."""

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.gradients import GradientTable, read_gradients, write_gradients
from napari_msp.data.nifti import nifti_stem, write_nifti
from napari_msp.errors import UserError
from napari_msp.files import sha256, staged_folder, write_json
from napari_msp.inference.harmonize import Prediction, harmonize
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
    """Harmonize one scan and write DWI, SH image, first stage and disagreement for each target.

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
    chosen = list(targets) or model.targets
    stems = {target: output_stem(Path(dwi), target, model.kind) for target in chosen}
    for target, stem in stems.items():
        model.single(target)  # an unknown target is an error before the first one is computed
        written = out / f"{stem}_dwi.nii.gz"
        if written.exists() and not force:
            raise UserError(f"{written}: exists already; replace it with --force")
    # Checked before the network runs: a bad table must not cost an hour.
    table_of = _table_choice(gradients, acquisition)
    with staged_folder(out) as stage:
        for target in chosen:
            prediction = harmonize(
                model,
                acquisition,
                target,
                progress=progress,
                cancelled=cancelled,
                device=device,
                tile=tile,
                resample=resample,
                rescale_b_value=rescale_b_value,
            )
            provenance = _provenance(model, acquisition, prediction, gradients)
            _write_prediction(
                stage / stems[target],
                prediction,
                table_of(prediction),
                acquisition.image,
                provenance,
            )
        if describe and not (out / DESCRIPTION).exists():
            write_json(stage / DESCRIPTION, derivative_description("harmonized scans"))
    return [out / f"{stem}_dwi.nii.gz" for stem in stems.values()]


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


def derivative_description(what: str) -> dict[str, Any]:
    """Give the dataset_description.json of a derivative dataset."""
    return {
        "Name": f"napari-msp: {what}",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "napari-msp", "Version": importlib.metadata.version("napari-msp")}
        ],
    }


def _write_prediction(
    stem: Path,
    prediction: Prediction,
    table: GradientTable,
    like: nib.Nifti1Image,
    provenance: dict[str, Any],
) -> None:
    def named(suffix: str) -> Path:
        return stem.with_name(stem.name + suffix)

    affine = prediction.sh.affine
    write_nifti(named("_dwi.nii.gz"), predicted_signal(prediction, table), affine, like=like)
    with_b0 = GradientTable(
        np.concatenate([[0.0], table.b_values]),
        np.concatenate([np.zeros((1, 3)), table.directions]),
    )
    write_gradients(with_b0, named("_dwi.bval"), named("_dwi.bvec"), affine)
    write_json(named("_dwi.json"), provenance)
    write_nifti(named("_mask.nii.gz"), prediction.sh.mask, affine, like=like)
    write_sh(
        named("_model-sh_param-coefficients_dwimap.nii.gz"), prediction.sh, provenance, like=like
    )
    if prediction.first_stage is not None:
        write_sh(
            named("FirstStage_model-sh_param-coefficients_dwimap.nii.gz"),
            prediction.first_stage,
            provenance,
            like=like,
        )
    if prediction.disagreement is not None:
        name = named("_model-sh_param-disagreement_dwimap.nii.gz")
        write_nifti(name, prediction.disagreement, affine, like=like)


def _table_choice(
    gradients: str, acquisition: Acquisition
) -> Callable[[Prediction], GradientTable]:
    if gradients == "target":
        return lambda prediction: prediction.gradients
    if gradients == "input":
        return lambda prediction: _at_b_value(
            _nearest_shell(acquisition, prediction), prediction.sh.b_value
        )
    bvec = Path(gradients)
    if not bvec.is_file():
        raise UserError(
            f"--gradients {gradients}: is neither 'target', 'input' nor a .bvec file; choose one"
        )
    given = read_gradients(bvec.with_suffix(".bval"), bvec, acquisition.affine)
    weighted = given.directions[np.linalg.norm(given.directions, axis=1) > 0]
    if len(weighted) == 0:
        raise UserError(f"{bvec}: holds no diffusion direction; give one with some")
    return lambda prediction: _at_b_value(weighted, prediction.sh.b_value)


def _nearest_shell(acquisition: Acquisition, prediction: Prediction) -> FloatArray:
    wanted = prediction.sh.rescaled_from or prediction.sh.b_value or 0.0
    shells = acquisition.gradients.shells
    return acquisition.directions(min(shells, key=lambda each: abs(each.b_value - wanted)))


def _at_b_value(directions: FloatArray, b_value: float | None) -> GradientTable:
    return GradientTable(np.full(len(directions), b_value or 0.0), directions)


def _provenance(
    model: Model, acquisition: Acquisition, prediction: Prediction, gradients: str
) -> dict[str, Any]:
    return {
        "Description": f"{prediction.target} as predicted from {model.card.input}",
        "Sources": [acquisition.path.name if acquisition.path else "in memory"],
        "Model": {
            "File": model.path.name if model.path else "in memory",
            "Sha256": sha256(model.path) if model.path and model.path.is_file() else None,
            "Kind": model.kind,
            "Label": model.card.label,
            "Alpha": model.card.alpha,
            "TrainingSubjects": model.training.get("subjects"),
            "Versions": model.card.versions,
        },
        "FirstVolume": "the input's b=0 image, interpolated; its TE is not harmonized",
        "Gradients": gradients,
        "Approximations": list(prediction.approximations),
        "GeneratedBy": f"napari-msp {importlib.metadata.version('napari-msp')}",
    }
