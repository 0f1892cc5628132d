"""Look at one lattice's voxels on another, voxel by voxel: nothing is interpolated."""

from dataclasses import dataclass

import numpy as np

from napari_msp.arrays import AnyArray, IntArray, MaskArray
from napari_msp.data.lattice import Lattice, voxel_coordinates


@dataclass(frozen=True, eq=False)
class Nearest:
    """For every voxel of one lattice the nearest voxel of another.

    Attributes
    ----------
    indices
        (3, X, Y, Z) voxel indices, kept inside the source.
    inside
        (X, Y, Z) whether the source reaches there.
    """

    indices: IntArray
    inside: MaskArray

    @classmethod
    def between(cls, source: Lattice, target: Lattice) -> "Nearest":
        """Find the nearest voxel of `source` for each voxel of `target`."""
        points = np.round(voxel_coordinates(source, target)).astype(int)
        last = np.array(source.shape).reshape(3, 1, 1, 1) - 1
        kept = np.clip(points, 0, last)
        return cls(kept, np.asarray((kept == points).all(axis=0)))

    def take(self, values: AnyArray) -> AnyArray:
        """Give (X, Y, Z) or (X, Y, Z, C) values of the source on the target; 0 beyond it."""
        x, y, z = self.indices
        taken: AnyArray = values[x, y, z]
        taken[~self.inside] = 0
        return taken
