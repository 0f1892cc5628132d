"""What error to expect of a predicted SH image, learned on heads whose truth is known.

Errors follow what is seen in a prediction and its input: how large, steep and bent the image is,
how much signal the scan had, how near the mask's edge is. How much each counts is fitted (our
choice throughout; measured in benchmarks/table1.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from napari_msp.arrays import FloatArray, IntArray, MaskArray, for_each_block
from napari_msp.errors import stop_if
from napari_msp.signal.channels import GridImage, to_stored_order
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import order_slices

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

ROWS = 2048
"""Voxels that are held against their neighbours at a time: few enough for a core's cache."""

PLANES = 64
"""That a smoothing makes at a time: of many more, most would be multiplied by 0."""

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
    inside = np.flatnonzero(mask)
    columns = np.empty((FEATURES, len(inside)), np.float32)  # a feature's voxels side by side
    if not len(inside):
        return columns.T
    energy, around = columns[:-2], columns[3 * ORDERS : 5 * ORDERS]
    _describe(coefficients, mask, inside, columns[: 3 * ORDERS], cancelled)
    columns[5 * ORDERS : 6 * ORDERS] = input_energy.reshape(mask.size, -1)[inside].T
    light = b0.reshape(-1)[inside]
    columns[-2] = np.log(np.maximum(light / max(float(light.mean()), 1e-12), 1e-3))
    blur = _Blur(mask, voxel)

    def look_around(one: slice) -> None:
        stop_if(cancelled)
        if one.start == 0:  # takes as long as all the others
            columns[-1] = np.log(_depth(mask) / voxel)
        else:
            around[one.start - 1] = blur(columns[one.start - 1])

    for_each_block(look_around, 1 + len(around), 1)

    def take_logarithms(voxels: slice) -> None:
        energy[:, voxels] += FLOOR
        np.log(energy[:, voxels], out=energy[:, voxels])

    for_each_block(take_logarithms, len(inside), PORTION)
    return columns.T


def _describe(
    coefficients: FloatArray,
    mask: MaskArray,
    inside: IntArray,
    into: FloatArray,
    cancelled: Poll,
) -> None:
    """Note what in-mask voxels have by order: size, slope and bend, (12, N).

    The slope is the mean squared step to both neighbours, added up over axes; the bend the squared
    Laplacian. The mask's edge is no slope of the prediction's: a voxel without a neighbour in the
    mask is its own.
    """
    by_voxel = coefficients.reshape(mask.size, -1)
    neighbours = _neighbours(mask)

    def describe(rows: slice) -> None:
        stop_if(cancelled)
        own = by_voxel.take(inside[rows], axis=0)
        step, steep, bend = (np.zeros_like(own) for _ in range(3))
        for neighbour in neighbours:
            by_voxel.take(neighbour[rows], axis=0, out=step, mode="clip")
            step -= own
            bend += step
            steep += np.square(step, out=step)
        steep /= 2
        squares = np.square(own, out=own), steep, np.square(bend, out=bend)
        into[:, rows] = np.concatenate([_by_order(each).T for each in squares])

    for_each_block(describe, len(inside), ROWS)


def _neighbours(mask: MaskArray) -> list[IntArray]:
    """Give the flat index of each in-mask voxel's neighbours, or its own where one is outside."""
    index = np.arange(mask.size).reshape(mask.shape)
    found: list[IntArray] = []
    for low, high in NEIGHBOURS:
        for here, there in ((high, low), (low, high)):
            moved = index.copy()
            np.copyto(moved[here], index[there], where=mask[there])
            found.append(moved[mask])
    return found


def _by_order(squares: FloatArray) -> FloatArray:
    """(..., 4) mean over the coefficients of each order 0, 2, 4, 6."""
    shares = np.zeros((squares.shape[-1], ORDERS), squares.dtype)
    for number, part in enumerate(order_slices().values()):
        shares[part, number] = 1 / (part.stop - part.start)
    mean: FloatArray = squares @ shares
    return mean


def energies(coefficients: FloatArray) -> FloatArray:
    """(..., 4) mean square over the coefficients of each order 0, 2, 4, 6."""
    return _by_order(np.square(coefficients, dtype=np.float32))


def smoothed(
    values: FloatArray, mask: MaskArray, voxel: float, cancelled: Poll = None
) -> FloatArray:
    """Average (X, Y, Z, K) values over neighbours in the mask, by a Gaussian of `voxel` voxels.

    Outside the mask the result is 0.
    """
    blur, result = _Blur(mask, voxel), np.zeros_like(values)

    def smooth(one: slice) -> None:
        stop_if(cancelled)
        result[mask, one.start] = blur(values[mask, one.start])

    for_each_block(smooth, values.shape[-1], 1)
    return result


class _Blur:
    """Averages values of a mask's voxels over neighbours in it, by a Gaussian.

    The Gaussian of each axis is a matrix: a product with it takes half the time of a filter.

    Parameters
    ----------
    width
        Of the Gaussian, in voxels.
    """

    def __init__(self, mask: MaskArray, width: float) -> None:
        box = _box(mask)
        self._shape, self._inside = mask[box].shape, np.flatnonzero(mask[box])
        self._matrices = [
            gaussian_filter1d(np.eye(length), width, axis=0)[part, part].astype(np.float32)
            for length, part in zip(mask.shape, box, strict=True)
        ]
        ones = np.ones(len(self._inside), np.float32)
        self._weight = np.maximum(self._spread(ones), 1e-3)

    def __call__(self, values: FloatArray) -> FloatArray:
        """Average (N,) values, in the order of the mask."""
        return self._spread(values) / self._weight

    def _spread(self, values: FloatArray) -> FloatArray:
        image = np.zeros(self._shape, np.float32)
        image.reshape(-1)[self._inside] = values
        for axis, matrix in enumerate(self._matrices):
            # Seen as (…, along the axis, all behind it), which is as it lies in memory.
            lines = image.reshape(-1, len(matrix), int(np.prod(self._shape[axis + 1 :])))
            image = np.empty_like(lines)
            for first in range(0, len(matrix), PLANES):
                rows = slice(first, first + PLANES)
                used = np.flatnonzero(matrix[rows].any(axis=0))
                near = slice(used[0], used[-1] + 1)
                if axis == 2:
                    np.matmul(lines[:, near, 0], matrix[rows, near].T, out=image[:, rows, 0])
                else:
                    np.matmul(matrix[rows, near], lines[:, near], out=image[:, rows])
        spread: FloatArray = image.reshape(-1)[self._inside]
        return spread


def _depth(mask: MaskArray) -> FloatArray:
    """(N,) distance of in-mask voxels to the nearest voxel outside, in voxels."""
    near = mask[_box(mask, around=1)]
    nearest = distance_transform_edt(near, return_distances=False, return_indices=True)
    squares: Any = sum(
        np.square(there[near] - here) for there, here in zip(nearest, np.nonzero(near), strict=True)
    )
    depth: FloatArray = np.sqrt(squares)
    return depth


def _box(mask: MaskArray, around: int = 0) -> tuple[slice, slice, slice]:
    """Give the smallest box that holds a mask, widened by some voxels where the image goes on."""
    found = []
    for axis, length in enumerate(mask.shape):
        others = tuple(each for each in range(3) if each != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        first, last = (inside[0], inside[-1]) if len(inside) else (0, length - 1)
        found.append(slice(max(first - around, 0), min(last + 1 + around, length)))
    x, y, z = found
    return x, y, z


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
        linear = self.weights[1 : 1 + count, None]
        mean, deviation = self.mean[:, None], self.deviation[:, None]

        def expect(part: slice) -> None:
            stop_if(cancelled)
            # A feature's voxels lie side by side, as in what they are made into.
            limited = _limited((features[part].T - mean) / deviation)
            form = self.weights[0] + np.sum((square.T @ limited + linear) * limited, axis=0)
            expected[part] = np.exp(np.minimum(form, np.log(self.largest)))

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
