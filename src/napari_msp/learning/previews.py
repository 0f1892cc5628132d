"""Pictures of a network at work: what it predicts now, as a file that a viewer can show."""

from pathlib import Path

from napari_msp.learning.study import Study
from napari_msp.signal.grid_frame import GridImage, out_of_grid, to_stored_order
from napari_msp.signal.sh_image import SHImage, write_sh
from napari_msp.signal.spherical_harmonics import REGULARISATION_AT_30


def write_preview(folder: Path, study: Study, target: str, prediction: GridImage) -> Path:
    """Write the first held-out subject's prediction over the one before.

    It is what `harmonize` would give for that subject: in the input's stored order, coefficients
    in scanner axes, on the lattice of the prediction.

    Parameters
    ----------
    folder
        Made when missing.
    study
        Whose first held-out subject was predicted.
    target
        Predicted platform.
    prediction
        In grid axes.

    Returns
    -------
    `<folder>/<subject>_<target>.nii.gz`.
    """
    head = study.held_out[0]
    lattice = prediction.lattice
    coefficients, affine = out_of_grid(prediction.coefficients, lattice, head.stored_affine)
    mask, _ = to_stored_order(prediction.mask, lattice, head.stored_affine)
    table = study.gradients[target].table()
    image = SHImage(
        coefficients,
        affine,
        mask,
        b_value=float(table.b_values.mean()),
        regularisation=REGULARISATION_AT_30 * len(table) / 30,
    )
    path = folder / f"{head.subject}_{target}.nii.gz"
    write_sh(path, image)
    return path
