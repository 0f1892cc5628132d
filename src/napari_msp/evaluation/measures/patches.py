"""Errors of non-overlapping patches: the samples of the paired tests."""

from dataclasses import dataclass

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray

PATCH_SIZE = 11
"""Edge of a patch in voxels (paper, for targets on the input's lattice)."""


@dataclass(frozen=True)
class PatchErrors:
    """Mean squared SH error of each patch.

    Attributes
    ----------
    centres
        (P, 3) voxel indices of the patch centres.
    mse
        (P,) mean over in-mask voxels and coefficients, in SH units squared.
    size
        Edge in voxels.
    """

    centres: IntArray
    mse: FloatArray
    size: int


def patch_errors(
    prediction: FloatArray, truth: FloatArray, mask: MaskArray, size: int = PATCH_SIZE
) -> PatchErrors:
    """Cut the mask's bounding box into cubes and measure each cube whose centre is in the mask.

    That the centre must be in the mask is the paper's rule. That cubes do not overlap is our
    choice: overlapping ones would be counted several times in a test. A cube at the edge of the
    volume is cut off there; voxels outside the mask never count.

    Parameters
    ----------
    prediction, truth
        (X, Y, Z, C) coefficients on one lattice.
    mask
        (X, Y, Z) where errors count.
    size
        Edge of a cube in voxels, odd.

    Raises
    ------
    ValueError
        For an even or non-positive size.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a patch needs a centre voxel: its size must be odd, not {size}")
    starts = [_starts(np.asarray(mask.any(axis=other)), size) for other in ((1, 2), (0, 2), (0, 1))]
    centres: list[tuple[int, int, int]] = []
    errors: list[float] = []
    for x in starts[0]:
        for y in starts[1]:
            for z in starts[2]:
                half = size // 2
                centre = (int(x) + half, int(y) + half, int(z) + half)
                if any(c >= n for c, n in zip(centre, mask.shape, strict=True)):
                    continue
                if not mask[centre]:
                    continue
                cube = (slice(x, x + size), slice(y, y + size), slice(z, z + size))
                inside = mask[cube]
                difference = prediction[cube][inside].astype(float) - truth[cube][inside]
                centres.append(centre)
                errors.append(float(np.square(difference).mean()))
    return PatchErrors(np.array(centres, dtype=int).reshape(-1, 3), np.array(errors), size)


def _starts(occupied: MaskArray, size: int) -> IntArray:
    """Give the first voxels of the cubes that cover the occupied stretch of one axis."""
    where = np.flatnonzero(occupied)
    if len(where) == 0:
        return where
    return np.arange(where[0], where[-1] + 1, size)
