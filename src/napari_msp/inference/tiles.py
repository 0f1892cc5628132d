"""Cut a volume into tiles whose outputs equal those of one untiled pass.

A tile is computed on its core widened by the network's halo and clipped to the volume. Crops never
reach past the volume, so each layer's own padding falls where it does in the whole-image pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from napari_msp.arrays import MaskArray

Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Tile:
    """One piece of the work, in input voxels.

    Attributes
    ----------
    core
        Input voxels whose output this tile gives.
    crop
        Input voxels that it is computed from.
    """

    core: Region
    crop: Region

    def output(self, scale: int, shape: tuple[int, int, int]) -> Region:
        """Output voxels of the core: from its first node up to the next tile's first node."""
        return _region(
            (scale * part.start, min(scale * part.stop, scale * (length - 1) + 1))
            for part, length in zip(self.core, shape, strict=True)
        )

    def within_crop(self, scale: int, shape: tuple[int, int, int]) -> Region:
        """Give the same output voxels, counted from the start of the crop's own output."""
        return _region(
            (part.start - scale * crop.start, part.stop - scale * crop.start)
            for part, crop in zip(self.output(scale, shape), self.crop, strict=True)
        )


def plan_tiles(mask: MaskArray, halo: int, edge: int | None = None) -> list[Tile]:
    """Cover all output voxels near the mask with tiles.

    Parameters
    ----------
    mask
        (X, Y, Z) input voxels whose surroundings are wanted.
    halo
        Input voxels that the network reads around a tile.
    edge
        Edge of a tile's core in voxels; None: one tile for all.

    Returns
    -------
    Tiles in order; those without mask are left out.
    """
    if not mask.any():
        return []
    # An output voxel between two nodes is wanted when either is: look one voxel further.
    bounds = [_bounds(mask, axis) for axis in range(3)]
    starts = [range(low, high, edge or high - low) for low, high in bounds]
    tiles = []
    for corner in product(*starts):
        stops = [
            min(start + (edge or high), high)
            for start, (_, high) in zip(corner, bounds, strict=True)
        ]
        near = _region(
            (a, min(b + 1, n)) for a, b, n in zip(corner, stops, mask.shape, strict=True)
        )
        if mask[near].any():
            core = _region(zip(corner, stops, strict=True))
            tiles.append(Tile(core, _widened(core, halo, mask.shape)))
    return tiles


def _bounds(mask: MaskArray, axis: int) -> tuple[int, int]:
    others = tuple(each for each in range(3) if each != axis)
    inside = np.flatnonzero(mask.any(axis=others))
    return max(int(inside[0]) - 1, 0), min(int(inside[-1]) + 2, mask.shape[axis])


def _widened(core: Region, halo: int, shape: tuple[int, ...]) -> Region:
    return _region(
        (max(part.start - halo, 0), min(part.stop + halo, length))
        for part, length in zip(core, shape, strict=True)
    )


def _region(bounds: "Iterator[tuple[int, int]] | zip[tuple[int, int]]") -> Region:
    x, y, z = (slice(start, stop) for start, stop in bounds)
    return x, y, z
