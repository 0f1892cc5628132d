"""Eq. (1) again for another α, from the stages that a prediction kept: no network is run.

ŷ²_T = (1-α) ŷ¹_T + α/(P-1) · (Σ_{i≠T} N_iT(z_i) + ŷ¹_T)

The terms are mixed in SH units. That is exact: bringing standardised channels back is affine, the
same for all terms of one target, and the weights of eq. (1) sum to one.
"""

from dataclasses import replace

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.errors import UserError
from napari_msp.inference.harmonize import Prediction
from napari_msp.signal.sh_image import SHImage


def at_alpha(prediction: Prediction, alpha: float) -> SHImage:
    """Give the prediction that the model would have made with another α.

    Parameters
    ----------
    prediction
        Of an MSP, made with `keep_stages`.
    alpha
        0: the first stage, ŷ¹_T. 1: the mean of the P-1 terms.

    Returns
    -------
    SHImage
        The first stage itself for α = 0, and `prediction.sh` itself for the model's own α.

    Raises
    ------
    UserError
        When the model has no stages.
    ValueError
        When the stages were not kept, or α lies outside [0, 1].
    """
    first = _first_stage(prediction, alpha)
    if alpha == prediction.alpha:
        return prediction.sh
    if alpha == 0:
        return first
    weight = alpha / (len(prediction.branches) + 1)
    mixed = first.coefficients * np.float32(1 - alpha + weight)
    for branch in prediction.branches.values():
        mixed += np.float32(weight) * branch.coefficients
    return replace(first, coefficients=mixed)


def contribution(prediction: Prediction, platform: str, alpha: float) -> FloatArray:
    """Give what one branch adds to the first stage: α/(P-1) · (N_iT(z_i) - ŷ¹_T).

    The first stage and the contributions of all branches add up to the prediction at that α.

    Parameters
    ----------
    prediction, alpha
        As for `at_alpha`.
    platform
        Platform i of the branch, one of `prediction.branches`.

    Returns
    -------
    (X, Y, Z, 28) float32 in SH units; 0 outside the mask.

    Raises
    ------
    UserError
        When the model has no stages.
    ValueError
        When the stages were not kept, there is no such branch, or α lies outside [0, 1].
    """
    first = _first_stage(prediction, alpha)
    if platform not in prediction.branches:
        known = ", ".join(prediction.branches) or "none"
        raise ValueError(f"there is no branch of {platform!r}; the branches are {known}")
    difference = prediction.branches[platform].coefficients - first.coefficients
    difference *= np.float32(alpha / (len(prediction.branches) + 1))
    return difference


def _first_stage(prediction: Prediction, alpha: float) -> SHImage:
    """Give ŷ¹_T, after checking that it can be mixed."""
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    if prediction.first_stage is None:
        raise UserError(
            f"prediction of {prediction.target}: its model has no stages to mix; take one of kind "
            "msp"
        )
    # Terms that disagree are there exactly when there are branches.
    if prediction.disagreement is not None and not prediction.branches:
        raise ValueError("the stages were not kept; harmonize with keep_stages=True")
    return prediction.first_stage
