"""What error to expect of a predicted SH image, learned on heads whose truth is known.

Disagreement is one number for 28 coefficients. Taken order by order, beside how large and how
steep the prediction is, it foretells more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.sh_index import order_slices

FLOOR = 1e-9
"""Added before a logarithm is taken, in SH units squared: far below any error (our choice)."""

REACH = 3.0
"""Features are held within this many deviations of their mean: a parabola ends nowhere."""

RIDGE = 1e-5
"""Weight of the squared coefficients, relative to the number of voxels (our choice)."""

PORTION = 65536
"""Voxels whose products of features are in memory at a time."""

Check = Callable[[], None]


def error_features(
    image: SHImage, disagreement: FloatArray | None = None, check: Check = lambda: None
) -> FloatArray:
    """Describe every in-mask voxel of a prediction by what goes with its error.

    Parameters
    ----------
    image
        What was predicted.
    disagreement
        (X, Y, Z, 4) of the orders 0, 2, 4, 6 in SH units, where terms can disagree.
    check
        Called between the coefficients; may raise to end the work.

    Returns
    -------
    (N, 12) or, without disagreement, (N, 8) float32: for each order the logarithms of the mean
    square over coefficients of the prediction, then of its slope in one voxel, then of the
    disagreement.
    """
    orders = order_slices(image.order).values()
    sizes, slopes = [], []
    for part in orders:
        size = np.zeros(image.mask.sum(), dtype=np.float32)
        slope = np.zeros_like(size)
        for channel in range(part.start, part.stop):  # one at a time: images are large
            check()
            values = image.coefficients[..., channel]
            size += np.square(values[image.mask])
            slope += _squared_slope(values, image.mask)[image.mask]
        sizes.append(size / (part.stop - part.start))
        slopes.append(slope / (part.stop - part.start))
    squares = [*sizes, *slopes]
    if disagreement is not None:
        squares += list(np.square(disagreement[image.mask]).T)
    return np.log(np.stack(squares, axis=-1) + FLOOR)


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

    def __call__(self, features: FloatArray, check: Check = lambda: None) -> FloatArray:
        """Give (N,) squared errors to expect, their geometric mean, for (N, F) features."""
        expected = np.zeros(len(features), dtype=np.float32)
        for part in _portions(len(features)):
            check()
            terms = _terms((features[part] - self.mean) / self.deviation)
            expected[part] = np.exp(terms @ self.weights)
        return expected

    def to_json(self) -> dict[str, Any]:
        """Give plain lists."""
        return {
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "weights": self.weights.tolist(),
        }


def expected_error(
    model: ErrorModel,
    image: SHImage,
    disagreement: FloatArray | None,
    check: Check = lambda: None,
) -> FloatArray:
    """Give the squared error to expect in each voxel.

    Parameters
    ----------
    model
        Fitted on features with disagreement, if there is one, else without.
    image, disagreement, check
        As for `error_features`.

    Returns
    -------
    (X, Y, Z) float32 in SH units squared, mean over coefficients; 0 outside the mask.
    """
    expected = np.zeros(image.mask.shape, dtype=np.float32)
    expected[image.mask] = model(error_features(image, disagreement, check), check)
    return expected


def fit_error_model(features: FloatArray, squared_error: FloatArray) -> ErrorModel:
    """Fit by ridge regression.

    Parameters
    ----------
    features
        (N, F) in-mask voxels of the validation heads, never of those that are reported.
    squared_error
        (N,) their squared errors in SH units squared.
    """
    mean = features.mean(axis=0, dtype=float)
    deviation = np.maximum(features.std(axis=0, dtype=float), 1e-6)
    count = number_of_weights(features.shape[1])
    gram, products = RIDGE * len(features) * np.eye(count), np.zeros(count)
    for part in _portions(len(features)):
        terms = _terms((features[part] - mean) / deviation)
        gram += terms.T @ terms
        products += terms.T @ np.log(squared_error[part] + FLOOR)
    return ErrorModel(mean, deviation, np.linalg.solve(gram, products))


def number_of_weights(features: int) -> int:
    """Count the terms of a quadratic form with its linear and constant part."""
    return 1 + features + features * (features + 1) // 2


def _portions(length: int) -> Iterator[slice]:
    for start in range(0, length, PORTION):
        yield slice(start, start + PORTION)


def _squared_slope(values: FloatArray, mask: MaskArray) -> FloatArray:
    """Add up over axes the mean squared step to both neighbours.

    The mask's edge is no slope of the prediction's, so a step across it counts as none.
    """
    total = np.zeros_like(values)
    for axis in range(values.ndim):
        summed = np.moveaxis(total, axis, 0)  # a view
        along, inside = np.moveaxis(values, axis, 0), np.moveaxis(mask, axis, 0)
        step = np.square(np.diff(along, axis=0)) * (inside[1:] & inside[:-1])
        summed[1:] += step / 2
        summed[:-1] += step / 2
    return total


def _terms(features: FloatArray) -> FloatArray:
    held = np.clip(features, -REACH, REACH)
    pairs: tuple[IntArray, IntArray] = np.triu_indices(held.shape[-1])
    ones = np.ones((len(held), 1))
    return np.concatenate([ones, held, held[:, pairs[0]] * held[:, pairs[1]]], axis=-1)
