"""Image quality transfer by linear regression from patches."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
from scipy.linalg import solve
from scipy.ndimage import distance_transform_edt

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.data.lattice import direction_cosines, scale_between
from napari_msp.evaluation.baselines.base import LearnedBaseline
from napari_msp.signal.channels import (
    GridImage,
    Standardisation,
    into_grid,
    measure_standardisation,
    out_of_grid,
    to_stored_order,
)
from napari_msp.signal.sh_image import SHImage

PENALTY = 1e-3
"""Ridge penalty per voxel on standardised coefficients (our choice): small, for patches of few
subjects; errors on simulated heads change by no more than 2 % between 1e-5 and 1e-2."""

PORTION = 4096
"""Number of voxels whose patches are in memory at a time."""

NEIGHBOURS = np.array(list(product(range(3), repeat=3)))
"""(27, 3) voxels of a patch, counted from its corner."""


class PatchRegression(LearnedBaseline):
    """Predict the target's voxels around an input voxel linearly from the 3³ patch around it.

    This is the global linear form of image quality transfer (Alexander 2014; without its regression
    trees). Predictors are the standardised coefficients of the patch, outputs those of the target
    voxels less than an input voxel away: (2k - 1)³ for a target k times as fine. A target voxel
    between input voxels is thus predicted from each of them, and the mean is taken: this is our
    choice, as is the continuation of the image beyond the brain by the nearest voxel in it.
    Standardised coefficients are in grid axes, as patches are.
    """

    name = "IQT"
    summary = "Image quality transfer: ridge regression from 3³ voxels."

    _scale: int
    _source: Standardisation
    _target: Standardisation
    _weights: FloatArray

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Regress on all patches whose target voxels all lie in the target's mask.

        Raises
        ------
        UserError
            When a target's voxel size is not a whole fraction of its input's.
        """
        self._scale = scale_between(
            inputs[0].lattice.voxel_sizes, targets[0].lattice.voxel_sizes, "input to target"
        )
        pairs = [self._on_one_grid(*pair) for pair in zip(inputs, targets, strict=True)]
        self._source = measure_standardisation((image for image, _ in pairs), per_order=False)
        self._target = measure_standardisation((target for _, target in pairs), per_order=False)
        portions = (portion for pair in pairs for portion in self._training_patches(*pair))
        self._weights = ridge_regression(portions, PENALTY)

    def _map(self, image: SHImage) -> SHImage:
        """Predict on the input's lattice, refined by the scale."""
        grid = into_grid(image)
        lattice = grid.lattice.refined(self._scale)
        mask = grid.resampled_mask(lattice)
        border = self._scale - 1
        around = [n + 2 * border for n in lattice.shape]
        total = np.zeros((*around, image.coefficients.shape[-1]), dtype=np.float32)
        times = np.zeros((*around, 1), dtype=np.float32)
        channels = _continued(self._source.apply(grid), grid)
        for voxels in _portions(grid):
            predicted = with_constant(_patches(channels, voxels)) @ self._weights
            by_place = predicted.reshape(len(voxels), -1, total.shape[-1])
            for number, places in enumerate(np.moveaxis(self._places(voxels), 1, 0)):
                at = tuple((places + border).T)
                total[at] += by_place[:, number]
                times[at] += 1
        inner = (slice(border, -border or None),) * 3
        mean = self._target.undo(total[inner] / np.maximum(times[inner], 1))
        stored, affine = out_of_grid(np.where(mask[..., None], mean, 0), lattice, image.affine)
        return SHImage(stored, affine, to_stored_order(mask, lattice, image.affine)[0])

    def _on_one_grid(self, image: SHImage, target: SHImage) -> tuple[GridImage, GridImage]:
        """Bring both to canonical order and the input's axes, the target to the refined lattice."""
        grid = into_grid(image)
        truth = into_grid(target, direction_cosines(grid.lattice.affine))
        lattice = grid.lattice.refined(self._scale)
        return grid, truth if truth.lattice.matches(lattice) else truth.resampled(lattice)

    def _training_patches(
        self, image: GridImage, target: GridImage
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield (rows, 27·C) patches and (rows, (2k - 1)³·C) outputs, standardised."""
        border = self._scale - 1
        channels = _continued(self._source.apply(image), image)
        truth = self._target.apply(target)
        inside = np.pad(target.mask, border)
        for voxels in _portions(image):
            complete = inside[tuple(np.moveaxis(self._places(voxels) + border, -1, 0))].all(axis=1)
            places = np.moveaxis(self._places(voxels[complete]), -1, 0)
            outputs = truth[tuple(places)].reshape(places.shape[1], -1)
            yield _patches(channels, voxels[complete]), outputs

    def _places(self, voxels: IntArray) -> IntArray:
        """Return (N, (2k - 1)³, 3) voxels of the refined lattice around (N, 3) input voxels."""
        steps = np.array(list(product(range(1 - self._scale, self._scale), repeat=3)))
        return np.asarray(self._scale * voxels[:, None] + steps)


def _portions(image: GridImage) -> list[IntArray]:
    """Return (N, 3) in-mask voxels, in portions that fit in memory."""
    voxels = np.argwhere(image.mask)
    return [voxels[start : start + PORTION] for start in range(0, len(voxels), PORTION)]


def _continued(channels: FloatArray, image: GridImage) -> FloatArray:
    """Continue channels beyond the mask, and the lattice by a voxel, by the nearest in-mask voxel.

    Zeros there would look like tissue of another kind.
    """
    nearest = distance_transform_edt(
        ~np.pad(image.mask, 1), return_distances=False, return_indices=True
    )
    return np.asarray(channels[tuple(np.asarray(nearest) - 1)])


def _patches(continued: FloatArray, voxels: IntArray) -> FloatArray:
    """Return (N, 27·C) patches around (N, 3) voxels, from channels with a border of one voxel."""
    at = voxels[:, None] + NEIGHBOURS
    return np.asarray(continued[tuple(np.moveaxis(at, -1, 0))].reshape(len(voxels), -1))


def ridge_regression(
    portions: Iterable[tuple[FloatArray, FloatArray]], penalty: float
) -> FloatArray:
    """Regress several outputs on predictors and a constant.

    Minimises |X W - Y|² + n · penalty · |W|², without the constant's row of W. Only X'X and X'Y are
    kept, in float64, so that memory does not grow with the number n of rows.

    Parameters
    ----------
    portions
        (rows, P) predictors with their (rows, Q) outputs.
    penalty
        Penalty for predictors of variance 1.

    Returns
    -------
    (P + 1, Q) float32 weights; the last row is the constant's.
    """
    rows = 0
    squares, products = np.zeros((0, 0)), np.zeros((0, 0))
    for predictors, outputs in portions:
        extended = with_constant(predictors)
        if rows == 0:
            squares = np.zeros((extended.shape[1],) * 2)
            products = np.zeros((extended.shape[1], outputs.shape[1]))
        squares += extended.T @ extended
        products += extended.T @ outputs
        rows += len(outputs)
    if rows == 0:
        raise ValueError("there is no row to learn a regression from")
    squares[np.diag_indices(len(squares) - 1)] += rows * penalty
    return np.asarray(solve(squares, products, assume_a="pos"), dtype=np.float32)


def with_constant(predictors: FloatArray) -> FloatArray:
    """Append a column of ones to (rows, P) predictors."""
    return np.concatenate([predictors, np.ones_like(predictors[:, :1])], axis=1)
