"""Which directions the written DWI has: the target's, the input's, or a user's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import GradientTable, read_gradients
from napari_msp.errors import UserError
from napari_msp.inference.harmonize import Prediction


def table_choice(gradients: str, acquisition: Acquisition) -> Callable[[Prediction], GradientTable]:
    """Check a choice of directions; give what makes the gradient table of a prediction.

    Parameters
    ----------
    gradients
        "target", "input", or a .bvec file with its .bval beside it.
    acquisition
        The input.

    Raises
    ------
    UserError
        When it is none of these, or the file cannot be used.
    """
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
