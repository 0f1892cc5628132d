"""The error to expect of a predicted SH image, learned on heads whose truth is known.

Errors follow features of a prediction and its input: how large, steep and curved the image is, how
much signal the scan had, how near the mask's edge is. Their weights are fitted (our choice
throughout; measured in benchmarks/table1.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from napari_msp.arrays import FloatArray, IntArray, MaskArray, for_each_block
from napari_msp.data.lattice import resample
from napari_msp.errors import Poll, stop_if
from napari_msp.signal.channels import GridImage, to_stored_order
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import order_slices

FEATURES = 26
"""Six kinds of energy by SH order, b=0 signal and distance to the mask's edge."""

FLOOR = 1e-9
"""Added before a logarithm is taken, in SH units squared: far below any error (our choice)."""

REACH = 3.0
"""Deviations from the mean to which features are clipped: a parabola grows without bound."""

FAR = 6.0
"""Deviations from the mean beyond which a feature is unlike all calibration data: half a percent of
a simulated head's voxels have such a feature (our choice)."""

RIDGE = 1e-5
"""Weight of the squared coefficients, relative to the number of voxels (our choice)."""

PORTION = 16384
"""Number of voxels whose products of features are in memory at a time."""

ORDERS = 4
"""The SH orders 0, 2, 4 and 6."""

ROWS = 2048
"""Number of voxels compared with their neighbours at a time: more would not fit a core's cache."""

PLANES = 32
"""Number of planes that a smoothing makes at a time: of many more, most are multiplied by 0."""


def error_features(
    coefficients: FloatArray,
    mask: MaskArray,
    input_energy: FloatArray,
    b0: FloatArray,
    voxel: float,
    cancelled: Poll | None = None,
) -> FloatArray:
    """Describe every in-mask voxel of a prediction by features that go with its error.

    Parameters
    ----------
    coefficients
        (X, Y, Z, 28) coefficients of the prediction.
    mask
        (X, Y, Z) mask, with N voxels inside.
    input_energy
        (4, N) energies of the harmonized scan, see `energies`, smoothed over a voxel.
    b0
        (X, Y, Z) mean b=0 image, in any unit.
    voxel
        Edge of an input voxel in voxels of the prediction.
    cancelled
        Polled between the parts.

    Returns
    -------
    (N, 26) float32 logarithms: for the orders 0, 2, 4, 6 each the mean square over coefficients of
    the prediction, of its slope, of its bend (Laplacian), the first two smoothed over an input
    voxel, and the input's energy; then b0 over its mean, and the distance to the mask's edge.
    """
    inside = np.flatnonzero(mask)
    columns = np.empty((FEATURES, len(inside)), np.float32)  # a feature's voxels are adjacent
    if not len(inside):
        return columns.T
    energy, around = columns[:-2], columns[3 * ORDERS : 5 * ORDERS]
    describe = _description(coefficients, mask, inside, columns[: 3 * ORDERS])

    def look(block: slice) -> None:
        stop_if(cancelled)
        if block.start == 0:  # takes as long as half of the others, and cannot be divided
            columns[-1] = np.log(_depth(mask) / voxel)
        else:
            describe(slice((block.start - 1) * ROWS, block.start * ROWS))

    for_each_block(look, 1 + -(-len(inside) // ROWS), 1)
    blur = Blur(mask, voxel)

    def look_around(one: slice) -> None:
        stop_if(cancelled)
        around[one.start] = blur(columns[one.start])

    for_each_block(look_around, len(around), 1)
    columns[5 * ORDERS : 6 * ORDERS] = input_energy
    light = b0.reshape(-1)[inside]
    columns[-2] = np.log(np.maximum(light / max(float(light.mean()), 1e-12), 1e-3))

    def take_logarithms(voxels: slice) -> None:
        energy[:, voxels] += FLOOR
        np.log(energy[:, voxels], out=energy[:, voxels])

    for_each_block(take_logarithms, len(inside), PORTION)
    return columns.T


def _description(
    coefficients: FloatArray, mask: MaskArray, inside: IntArray, into: FloatArray
) -> Callable[[slice], None]:
    """Return a function that writes size, slope and bend by order, (12, N), of in-mask voxels.

    The slope is the mean squared step to both neighbours, summed over axes; the bend is the squared
    Laplacian. The mask's edge counts as no slope: a missing neighbour is replaced by the voxel
    itself.
    """
    by_voxel = coefficients.reshape(mask.size, -1)
    away, there = _neighbours(mask)

    def describe(rows: slice) -> None:
        index = inside[rows]
        own = by_voxel.take(index, axis=0)
        steep, bend, step = np.zeros_like(own), np.zeros_like(own), np.empty_like(own)
        # One neighbour at a time: all of them would not fit a core's cache.
        for neighbour in index + away * there.take(index, axis=1):
            by_voxel.take(neighbour, axis=0, out=step, mode="clip")  # "raise" copies once more
            step -= own
            bend += step
            steep += np.square(step, out=step)
        steep /= 2
        squares = np.square(own, out=own), steep, np.square(bend, out=bend)
        into[:, rows] = np.concatenate([_by_order(each).T for each in squares])

    return describe


def _neighbours(mask: MaskArray) -> tuple[IntArray, MaskArray]:
    """Return the memory offsets of the six neighbours, (6, 1), and which of them are in the mask.

    The latter is (6, X·Y·Z).
    """
    around = np.pad(mask, 1)
    moves = [move for axis in np.eye(3, dtype=int) for move in (-axis, axis)]
    there = [
        around[tuple(slice(1 + a, 1 + a + n) for a, n in zip(move, mask.shape, strict=True))]
        for move in moves
    ]
    steps = np.array([mask.shape[1] * mask.shape[2], mask.shape[2], 1])
    return np.array(moves) @ steps[:, None], np.reshape(there, (6, -1))


def _by_order(squares: FloatArray) -> FloatArray:
    """Return the (..., 4) mean over the coefficients of each order 0, 2, 4, 6."""
    return np.asarray(squares @ _shares(squares.shape[-1]))


@cache
def _shares(count: int) -> FloatArray:
    """Return the (C, 4) weight of each coefficient in the mean of each order."""
    shares = np.zeros((count, ORDERS), np.float32)
    for number, part in enumerate(order_slices().values()):
        shares[part, number] = 1 / (part.stop - part.start)
    return shares


def energies(coefficients: FloatArray) -> FloatArray:
    """Return the (..., 4) mean square over the coefficients of each order 0, 2, 4, 6."""
    return _by_order(np.square(coefficients, dtype=np.float32))


class Blur:
    """A Gaussian average of in-mask values over in-mask neighbours.

    The Gaussian of each axis is a matrix: a product with it takes half the time of a filter.

    Parameters
    ----------
    width
        Standard deviation of the Gaussian, in voxels.
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
            # Viewed as (…, along the axis, everything behind it), as it lies in memory.
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
        return image.reshape(-1)[self._inside]


def _depth(mask: MaskArray) -> FloatArray:
    """Return the (N,) distance of in-mask voxels to the nearest voxel outside, in voxels."""
    near = mask[_box(mask, around=1)]
    nearest = distance_transform_edt(near, return_distances=False, return_indices=True)
    at: tuple[IntArray, ...] = np.indices(near.shape, np.int32, sparse=True)
    for there, here in zip(nearest, at, strict=True):
        there -= here  # all in place: fresh memory takes longer than the sums
        np.square(there, out=there)
    squares = nearest[0]
    squares += nearest[1]
    squares += nearest[2]
    return np.asarray(np.sqrt(squares[near]))


def _box(mask: MaskArray, around: int = 0) -> tuple[slice, slice, slice]:
    """Return the smallest box around a mask, widened by some voxels within the image."""
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
        (F,) mean and deviation of the features that it was fitted on.
    weights
        (1 + F + F(F+1)/2,) weights of 1, the features and their products.
    largest
        Largest error expected of any voxel that it was fitted on. No larger one is ever expected,
        as the form grows without bound for unusual combinations of features.
    """

    mean: FloatArray
    deviation: FloatArray
    weights: FloatArray
    largest: float = np.inf

    def __call__(self, features: FloatArray, cancelled: Poll | None = None) -> FloatArray:
        """Return (N,) expected mean squared errors for (N, F) features, `largest` at most."""
        return self.judge(features, cancelled)[0]

    def judge(
        self, features: FloatArray, cancelled: Poll | None = None
    ) -> tuple[FloatArray, MaskArray]:
        """Return the result of `__call__`, and (N,) whether each is a guess.

        It is a guess for voxels unlike those that the model was fitted on, and at the bound, where
        it is only known that the error is large.
        """
        count = len(self.mean)
        # In single precision, like the features: it takes half the time.
        weights = self.weights.astype(np.float32)
        square = np.zeros((count, count), np.float32)  # products of two features are never stored
        square[np.triu_indices(count)] = weights[1 + count :]
        expected, guessed = np.empty(len(features), np.float32), np.empty(len(features), bool)
        linear = weights[1 : 1 + count, None]
        mean, deviation = (each.astype(np.float32)[:, None] for each in (self.mean, self.deviation))

        def expect(part: slice) -> None:
            stop_if(cancelled)
            # A feature's voxels are adjacent, as in the arrays made from them.
            values = features[part].T - mean
            values /= deviation
            far = np.maximum(values.max(axis=0), -values.min(axis=0)) > FAR
            form = square.T @ (limited := _limited(values))
            form += linear
            form *= limited
            found = weights[0] + form.sum(axis=0)
            expected[part] = np.exp(np.minimum(found, np.log(self.largest)))
            guessed[part] = far | (expected[part] >= self.largest * (1 - 1e-6))

        for_each_block(expect, len(features), PORTION)
        return expected, guessed

    def to_json(self) -> dict[str, Any]:
        """Return the values as plain lists."""
        return {
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "weights": self.weights.tolist(),
            "largest": self.largest,
        }


def fit_error_model(features: FloatArray, squared_error: FloatArray) -> ErrorModel:
    """Fit the logarithms by ridge regression, then shift them so that the mean error is right.

    Parameters
    ----------
    features
        (N, F) features of in-mask voxels of validation heads, never of heads that are reported.
    squared_error
        (N,) squared errors in SH units squared.
    """
    mean = features.mean(axis=0, dtype=float)
    deviation = np.maximum(features.std(axis=0, dtype=float), 1e-6)
    count = number_of_weights(features.shape[1])
    gram, products = RIDGE * len(features) * np.eye(count), np.zeros(count)
    for start in range(0, len(features), PORTION):
        part = slice(start, start + PORTION)
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


def _limited(standardised: FloatArray) -> FloatArray:
    return np.clip(standardised, -REACH, REACH)


def _terms(values: FloatArray) -> FloatArray:
    first, second = np.triu_indices(values.shape[-1])
    ones = np.ones((len(values), 1))
    return np.concatenate([ones, values, values[:, first] * values[:, second]], axis=-1)


def features_of(
    source: GridImage, sh: SHImage, b0: FloatArray, cancelled: Poll | None = None
) -> FloatArray:
    """Describe the in-mask voxels of a prediction, see `error_features`.

    Parameters
    ----------
    source
        The harmonized SH image, on the model's grid.
    sh, b0
        The prediction and its b=0 image, in stored order.
    cancelled
        Polled repeatedly.

    Returns
    -------
    (N, 26) float32, voxels in the order of `sh.mask`.
    """
    lattice = sh.lattice.canonical

    def on_target(values: FloatArray) -> FloatArray:
        """Return (N,) values of the scan, given as (X, Y, Z), in the prediction's mask."""
        moved = resample(values, source.lattice, lattice)
        return to_stored_order(moved, lattice, sh.affine)[0][sh.mask]

    share = np.maximum(on_target(source.mask.astype(np.float32)), 1e-6)
    own, blur = energies(source.coefficients[source.mask]), Blur(source.mask, 1.0)
    energy = np.empty((ORDERS, len(share)), np.float32)

    def smooth(one: slice) -> None:
        stop_if(cancelled)
        image = np.zeros(source.mask.shape, np.float32)
        image[source.mask] = blur(own[:, one.start])
        energy[one.start] = on_target(image) / share

    for_each_block(smooth, ORDERS, 1)
    voxel = float(source.lattice.voxel_sizes.mean() / lattice.voxel_sizes.mean())
    return error_features(sh.coefficients, sh.mask, energy, b0, voxel, cancelled)


def expected_error(
    model: ErrorModel, source: GridImage, sh: SHImage, b0: FloatArray, cancelled: Poll | None = None
) -> tuple[FloatArray, float]:
    """Return the expected error of a prediction, and the share of it that is a guess.

    Parameters
    ----------
    model
        The target's model, as a calibration fitted it.
    source, sh, b0, cancelled
        As for `features_of`.

    Returns
    -------
    (X, Y, Z) float32 expected squared error, in SH units squared; 0 outside the mask. The share of
    voxels outside the range that the model was fitted on.
    """
    expected = np.zeros(sh.mask.shape, dtype=np.float32)
    expected[sh.mask], guessed = model.judge(features_of(source, sh, b0, cancelled), cancelled)
    return expected, float(guessed.mean()) if len(guessed) else 0.0
