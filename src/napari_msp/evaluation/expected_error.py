"""What error to expect of a prediction, learned on validation heads where the truth is known.

Disagreement is one number for 28 coefficients. Taken order by order, beside how large and how
steep the prediction is, it foretells more.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.inference.harmonize import Prediction
from napari_msp.signal.sh_index import order_slices

FLOOR = 1e-9
"""Added before a logarithm is taken, in SH units squared: far below any error (our choice)."""

REACH = 3.0
"""Features are held within this many deviations of their mean: a parabola ends nowhere."""

RIDGE = 1e-5
"""Weight of the squared coefficients, relative to the number of voxels (our choice)."""


def error_features(prediction: Prediction) -> FloatArray:
    """Describe every voxel of a prediction by what goes with its error.

    Parameters
    ----------
    prediction
        Of `harmonize(..., keep_stages=True)`.

    Returns
    -------
    (X, Y, Z, 12) or, where there are no branches, (X, Y, Z, 8): for the orders 0, 2, 4, 6 the
    logarithms of the mean square over coefficients of the prediction, then of its slope in one
    voxel, then of the disagreement (variance of the P-1 terms of eq. (1)). On the prediction's
    own lattice.
    """
    image = prediction.sh
    # The mask's edge is no slope of the prediction's, so a step across it counts as none.
    slope = np.zeros_like(image.coefficients)
    for axis in range(3):
        slope += _squared_slope(image.coefficients, image.mask, axis)
    channels = [np.square(image.coefficients), slope]
    if prediction.branches and prediction.first_stage is not None:
        terms = [prediction.first_stage, *prediction.branches.values()]
        channels.append(np.var([term.coefficients for term in terms], axis=0))
    orders = order_slices(image.order).values()
    return np.stack(
        [np.log(each[..., part].mean(axis=-1) + FLOOR) for each in channels for part in orders],
        axis=-1,
    )


@dataclass(frozen=True)
class ErrorModel:
    """The logarithm of the squared error as a quadratic form of features.

    Attributes
    ----------
    mean, deviation
        (F,) of the features that it was fitted on.
    weights
        (1 + F + F(F+1)/2,) of 1, the features and their products.
    """

    mean: FloatArray
    deviation: FloatArray
    weights: FloatArray

    def __call__(self, features: FloatArray) -> FloatArray:
        """Give the squared error to expect, its geometric mean, for (..., F) features."""
        return np.asarray(np.exp(_terms((features - self.mean) / self.deviation) @ self.weights))

    def to_json(self) -> dict[str, Any]:
        """Give plain lists."""
        return {
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "weights": self.weights.tolist(),
        }


def fit_error_model(features: FloatArray, squared_error: FloatArray) -> ErrorModel:
    """Fit by ridge regression.

    Parameters
    ----------
    features
        (N, F) in-mask voxels of the validation heads, never of those that are reported.
    squared_error
        (N,) their squared errors in SH units squared.
    """
    mean, deviation = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    terms = _terms((features - mean) / deviation)
    gram = terms.T @ terms + RIDGE * len(terms) * np.eye(terms.shape[1])
    weights = np.linalg.solve(gram, terms.T @ np.log(squared_error + FLOOR))
    return ErrorModel(mean, deviation, weights)


def _squared_slope(values: FloatArray, mask: MaskArray, axis: int) -> FloatArray:
    """Average the squared steps to both neighbours along an axis; steps over the edge are 0."""
    values, mask = np.moveaxis(values, axis, 0), np.moveaxis(mask, axis, 0)
    step = np.square(np.diff(values, axis=0)) * (mask[1:] & mask[:-1])[..., None]
    total = np.zeros_like(values)
    total[1:] += step / 2
    total[:-1] += step / 2
    return np.moveaxis(total, 0, axis)


def _terms(features: FloatArray) -> FloatArray:
    held = np.clip(features, -REACH, REACH)
    first, second = np.triu_indices(held.shape[-1])
    ones = np.ones((*held.shape[:-1], 1))
    return np.concatenate([ones, held, held[..., first] * held[..., second]], axis=-1)
