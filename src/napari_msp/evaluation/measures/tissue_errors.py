"""Errors of what people look at, tissue by tissue."""

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.evaluation.measures.tissue import Tissue
from napari_msp.signal.maps import Maps, direction_average
from napari_msp.signal.rish import rish

DIRECTED_FA = 0.2
"""FA of truth above which a voxel has a principal direction to speak of (our choice)."""


def tissue_errors(
    prediction: Maps, truth: Maps, mask: MaskArray, tissue: Tissue
) -> dict[str, float]:
    """Measure FA, mean diffusivity, RISH, direction and bias, see `MEASURES`.

    Parameters
    ----------
    prediction, truth
        On one lattice.
    mask
        (X, Y, Z) where errors count.
    tissue
        Of truth, on the same lattice.

    Returns
    -------
    By key; nan where no voxel of the tissue lies in the mask.
    """
    white, grey, fluid = (mask & part for part in (tissue.white, tissue.grey, tissue.fluid))
    fa = prediction.tensor.fa, truth.tensor.fa
    md = prediction.tensor.md, truth.tensor.md
    mean = direction_average(prediction.image), direction_average(truth.image)
    predicted, true = rish(prediction.image.coefficients), rish(truth.image.coefficients)
    zero = predicted[..., 0], true[..., 0]
    two = predicted[..., 1], true[..., 1]
    return {
        "fa_error_white": _absolute_percent(*fa, white),
        "fa_error_grey": _absolute_percent(*fa, grey),
        "md_error_white": _absolute_percent(*md, white),
        "md_error_grey": _absolute_percent(*md, grey),
        "md_error_fluid": _absolute_percent(*md, fluid),
        "rish0_error_white": _absolute_percent(*zero, white),
        "rish0_error_grey": _absolute_percent(*zero, grey),
        "rish2_error_white": _absolute_percent(*two, white),
        "direction_error": _angle(
            prediction.tensor.direction,
            truth.tensor.direction,
            white & (truth.tensor.fa > DIRECTED_FA),
        ),
        "bias_white": _signed_percent(*mean, white),
        "bias_grey": _signed_percent(*mean, grey),
        "bias_fluid": _signed_percent(*mean, fluid),
    }


def _absolute_percent(values: FloatArray, truth: FloatArray, where: MaskArray) -> float:
    return _percent(np.abs(values[where].astype(float) - truth[where]), truth[where])


def _signed_percent(values: FloatArray, truth: FloatArray, where: MaskArray) -> float:
    return _percent(values[where].astype(float) - truth[where], truth[where])


def _percent(errors: FloatArray, truth: FloatArray) -> float:
    """Give the mean error in percent of truth's mean."""
    scale = float(truth.mean(dtype=float)) if len(truth) else 0.0
    return 100 * float(errors.mean()) / scale if scale > 0 else float("nan")


def _angle(directions: FloatArray, truth: FloatArray, where: MaskArray) -> float:
    """Give the mean angle in degrees between lines (a direction and its opposite are one)."""
    if not where.any():
        return float("nan")
    cosine = np.abs(np.sum(directions[where].astype(float) * truth[where], axis=-1))
    return float(np.degrees(np.arccos(np.clip(cosine, 0, 1))).mean())
