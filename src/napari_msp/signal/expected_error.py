"""What error to expect of a predicted SH image, learned on heads whose truth is known.

Errors follow what is seen in a prediction and its input: how large, steep and bent the image is,
how much signal the scan had, how near the mask's edge is. How much each counts is fitted (our
choice throughout; measured in benchmarks/table1.md).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from napari_msp.arrays import FloatArray, MaskArray, for_each_block
from napari_msp.errors import stop_if
from napari_msp.signal.channels import GridImage, to_stored_order
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import order_slices, rish

FEATURES = 26
"""Six kinds of energy by SH order, b=0 signal and distance to the mask's edge."""

FLOOR = 1e-9
"""Added before a logarithm is taken, in SH units squared: far below any error (our choice)."""

REACH = 3.0
"""Features are kept within this many deviations of their mean: a parabola ends nowhere."""

FAR = 6.0
"""Deviations from the mean beyond which a feature is unlike all that was calibrated on: half a
percent of a simulated head's voxels have such a one (our choice)."""

RIDGE = 1e-5
"""Weight of the squared coefficients, relative to the number of voxels (our choice)."""

PORTION = 16384
"""Voxels whose products of features are in memory at a time."""

ORDERS = 4
"""The SH orders 0, 2, 4 and 6."""

NEIGHBOURS = tuple(
    ((slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),))
    for axis in range(3)
)
"""Along each axis, all voxels that have a next one, and these."""

PLANES = 8
"""Of an image that are described at a time: few enough for a core's cache."""

Poll = Callable[[], bool] | None


def error_features(
    coefficients: FloatArray,
    mask: MaskArray,
    input_energy: FloatArray,
    b0: FloatArray,
    voxel: float,
    cancelled: Poll = None,
) -> FloatArray:
    """Describe every in-mask voxel of a prediction by what goes with its error.

    Parameters
    ----------
    coefficients
        (X, Y, Z, 28) the prediction.
    mask
        (X, Y, Z).
    input_energy
        (X, Y, Z, 4) of the scan that was harmonized, see `energies`, smoothed over a voxel.
    b0
        (X, Y, Z) mean b=0 image, in any unit.
    voxel
        An input voxel's edge in voxels of the prediction.
    cancelled
        Polled between the coefficients.

    Returns
    -------
    (N, 26) float32 logarithms: for the orders 0, 2, 4, 6 each the mean square over coefficients of
    the prediction, of its slope, of its bend (Laplacian), the first two smoothed over an input
    voxel, and the input's energy; then b0 over its mean, and the distance to the mask's edge.
    """
    seen = np.empty((*mask.shape, 3 * ORDERS), np.float32)
    size, slope, bend = np.split(seen, 3, axis=-1)

    def describe(planes: slice) -> None:
        stop_if(cancelled)
        near = slice(max(planes.start - 1, 0), planes.stop + 1)  # steps lead to the next plane
        own = slice(planes.start - near.start, planes.stop - near.start)
        # A coefficient's voxels side by side: three passes are made of them.
        values = np.ascontiguousarray(np.moveaxis(coefficients[near], -1, 0))
        joined = [mask[near][low] & mask[near][high] for low, high in NEIGHBOURS]
        size[planes] = energies(coefficients[planes])
        for number, part in enumerate(order_slices().values()):
            steep, bent = (np.zeros(values.shape[1:], np.float32) for _ in range(2))
            for channel in range(part.start, part.stop):
                a_slope, a_bend = _squared_slope_and_bend(values[channel], joined)
                steep += a_slope / (part.stop - part.start)
                bent += a_bend / (part.stop - part.start)
            slope[planes, ..., number], bend[planes, ..., number] = steep[own], bent[own]

    for_each_block(describe, len(mask), PLANES)
    smooth = smoothed(seen[..., : 2 * ORDERS], mask, voxel, cancelled)
    where = np.flatnonzero(mask)
    features = np.empty((len(where), FEATURES), np.float32)
    by_voxel = [each.reshape(mask.size, -1) for each in (seen, smooth, input_energy)]

    def note(voxels: slice) -> None:
        stop_if(cancelled)
        inside = [each[where[voxels]] for each in by_voxel]
        np.log(np.concatenate(inside, axis=1) + FLOOR, out=features[voxels, :-2])

    for_each_block(note, len(where), PORTION)
    features[:, -2] = np.log(np.maximum(b0[mask] / max(float(b0[mask].mean()), 1e-12), 1e-3))
    features[:, -1] = np.log(distance_transform_edt(mask)[mask] / voxel)
    return features


def energies(coefficients: FloatArray) -> FloatArray:
    """(X, Y, Z, 4) mean square over the coefficients of each order 0, 2, 4, 6."""
    counts = [part.stop - part.start for part in order_slices().values()]
    return np.divide(rish(coefficients), counts, dtype=np.float32)


def smoothed(
    values: FloatArray, mask: MaskArray, voxel: float, cancelled: Poll = None
) -> FloatArray:
    """Average (X, Y, Z, K) values over neighbours in the mask, by a Gaussian of `voxel` voxels."""
    weight = np.maximum(gaussian_filter(mask.astype(np.float32), voxel), 1e-3)
    result = np.zeros_like(values)

    def smooth(one: slice) -> None:
        stop_if(cancelled)
        result[..., one.start] = gaussian_filter(values[..., one.start] * mask, voxel) / weight

    for_each_block(smooth, values.shape[-1], 1)
    return result


@dataclass(frozen=True)
class ErrorModel:
    """The logarithm of the squared error as a quadratic form of features.

    Attributes
    ----------
    mean, deviation
        (F,) of the features that it was fitted on.
    weights
        (1 + F + F(F+1)/2,) of 1, the features and their products.
    largest
        That was expected of any voxel that it was fitted on: no more is ever expected, as the form
        grows without bound where features go together as they never did.
    """

    mean: FloatArray
    deviation: FloatArray
    weights: FloatArray
    largest: float = np.inf

    def __call__(self, features: FloatArray, cancelled: Poll = None) -> FloatArray:
        """Give (N,) mean squared errors to expect for (N, F) features, `largest` at most."""
        count = len(self.mean)
        square = np.zeros((count, count))  # as a matrix: no product of two features is ever stored
        square[np.triu_indices(count)] = self.weights[1 + count :]
        expected = np.zeros(len(features), dtype=np.float32)

        def expect(part: slice) -> None:
            stop_if(cancelled)
            limited = _limited((features[part] - self.mean) / self.deviation)
            linear = limited @ self.weights[1 : 1 + count]
            form = linear + np.sum(limited @ square * limited, axis=1)
            expected[part] = np.exp(np.minimum(self.weights[0] + form, np.log(self.largest)))

        for_each_block(expect, len(features), PORTION)
        return expected

    def outside(self, features: FloatArray, expected: FloatArray) -> MaskArray:
        """(N,) whether voxels are unlike those that it was fitted on: what is expected is a guess.

        Parameters
        ----------
        features
            (N, F).
        expected
            What the model gave for them: at the bound nothing is known but that it is large.
        """
        beyond: MaskArray = expected >= self.largest * (1 - 1e-6)

        def look(part: slice) -> None:
            far = np.abs(features[part] - self.mean) > FAR * self.deviation
            beyond[part] |= far.any(axis=1)

        for_each_block(look, len(features), PORTION)
        return beyond

    def to_json(self) -> dict[str, Any]:
        """Give plain lists."""
        return {
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "weights": self.weights.tolist(),
            "largest": self.largest,
        }


def fit_error_model(features: FloatArray, squared_error: FloatArray) -> ErrorModel:
    """Fit the logarithms by ridge regression, then the level, so that means are met.

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
        terms = _terms(_limited((features[part] - mean) / deviation))
        gram += terms.T @ terms
        products += terms.T @ np.log(squared_error[part] + FLOOR)
    weights = np.linalg.solve(gram, products)
    # A mean of logarithms lies below the logarithm of the mean.
    geometric = ErrorModel(mean, deviation, weights)(features)
    level = (squared_error.mean(dtype=float) + FLOOR) / geometric.mean(dtype=float)
    weights[0] += np.log(level)
    return ErrorModel(mean, deviation, weights, float(geometric.max() * level))


def number_of_weights(features: int) -> int:
    """Count the terms of a quadratic form with its linear and constant part."""
    return 1 + features + features * (features + 1) // 2


def _portions(length: int) -> Iterator[slice]:
    for start in range(0, length, PORTION):
        yield slice(start, start + PORTION)


def _squared_slope_and_bend(
    values: FloatArray, joined: Sequence[MaskArray]
) -> tuple[FloatArray, FloatArray]:
    """Give the mean squared step to both neighbours, added up over axes, and the squared Laplacian.

    The mask's edge is no slope of the prediction's, so a step across it counts as none: `joined`
    says for each axis between which neighbours there is one.
    """
    slope, bend = np.zeros_like(values), np.zeros_like(values)
    for (low, high), counts in zip(NEIGHBOURS, joined, strict=True):
        step = (values[high] - values[low]) * counts
        half = np.square(step) / 2
        slope[high] += half
        slope[low] += half
        bend[high] -= step
        bend[low] += step
    return slope, np.square(bend)


def _limited(standardised: FloatArray) -> FloatArray:
    return np.clip(standardised, -REACH, REACH)


def _terms(values: FloatArray) -> FloatArray:
    first, second = np.triu_indices(values.shape[-1])
    ones = np.ones((len(values), 1))
    return np.concatenate([ones, values, values[:, first] * values[:, second]], axis=-1)


def features_of(
    source: GridImage, sh: SHImage, b0: FloatArray, cancelled: Poll = None
) -> FloatArray:
    """Describe the in-mask voxels of a prediction, see `error_features`.

    Parameters
    ----------
    source
        The SH image that was harmonized, on the model's grid.
    sh, b0
        Of the prediction, in stored order.
    cancelled
        Polled again and again.

    Returns
    -------
    (N, 26) float32, voxels in the order of `sh.mask`.
    """
    smooth = smoothed(energies(source.coefficients), source.mask, 1.0, cancelled)
    lattice = sh.lattice.canonical
    on_target = GridImage(smooth, source.mask, source.lattice).resampled(lattice)
    energy = to_stored_order(on_target.coefficients, lattice, sh.affine)[0]
    voxel = float(source.lattice.voxel_sizes.mean() / lattice.voxel_sizes.mean())
    return error_features(sh.coefficients, sh.mask, energy, b0, voxel, cancelled)


def expected_error(
    model: ErrorModel, source: GridImage, sh: SHImage, b0: FloatArray, cancelled: Poll = None
) -> tuple[FloatArray, float]:
    """Give what error to expect of a prediction, and how much of that is a guess.

    Parameters
    ----------
    model
        As a calibration fitted it for the target.
    source, sh, b0, cancelled
        As for `features_of`.

    Returns
    -------
    (X, Y, Z) float32 squared error to expect, in SH units squared; 0 outside the mask. The share of
    voxels that are outside of what the model was fitted on.
    """
    expected = np.zeros(sh.mask.shape, dtype=np.float32)
    features = features_of(source, sh, b0, cancelled)
    expected[sh.mask] = model(features, cancelled)
    outside = model.outside(features, expected[sh.mask])
    return expected, float(outside.mean()) if len(outside) else 0.0
