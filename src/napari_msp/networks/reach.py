"""How far a feature map looks: exact receptive fields across lattices.

Lattice s of an image of n voxels holds s(n-1)+1 voxels an axis; voxel s·i of it lies on image voxel
i (a "node"). Which image voxels a voxel of lattice s depends on is the same for every node, up to
a shift, so s intervals describe a whole feature map: one for each position between two nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd


@dataclass(frozen=True)
class Reach:
    """The image voxels a feature map depends on, along one axis (all axes are alike).

    Attributes
    ----------
    scale : int
        Lattice of the feature map.
    intervals : tuple of (int, int)
        ``intervals[r]`` is the first and last image voxel, relative to node i, that voxel
        ``scale·i + r`` depends on; r = 0 … scale-1.
    """

    scale: int = 1
    intervals: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def halo(self) -> int:
        """Image voxels needed on either side of nodes [a, b) for fine voxels [scale·a, scale·b)."""
        return max(max(-low, high) for low, high in self.intervals)

    def convolve(self, radius: int = 1) -> Reach:
        """Reach after a convolution that reads `radius` voxels of this lattice on either side."""
        return Reach(
            self.scale,
            tuple(self._joined(range(r - radius, r + radius + 1)) for r in range(self.scale)),
        )

    def up(self, factor: int) -> Reach:
        """Reach after a transposed convolution with stride `factor` and kernel 2·factor-1."""
        # Fine voxel j reads coarse p with |j - factor·p| < factor: its neighbours, or itself.
        fine = self.scale * factor
        return Reach(fine, tuple(self._joined({j // factor, -(-j // factor)}) for j in range(fine)))

    def down(self, factor: int) -> Reach:
        """Reach after a convolution with stride `factor` and kernel 2·factor-1."""
        return self.convolve(factor - 1).stride(factor)

    def stride(self, factor: int) -> Reach:
        """Reach after keeping every `factor`-th voxel, the first one included."""
        return Reach(
            self.scale // factor,
            tuple(self._joined([j * factor]) for j in range(self.scale // factor)),
        )

    def move(self, scale: int) -> Reach:
        """Reach after `lattice_convolution` to lattice `scale`."""
        if scale == self.scale:
            return self.convolve(1)
        common = gcd(self.scale, scale)
        reach = self if common == self.scale else self.down(self.scale // common)
        return reach if common == scale else reach.up(scale // common)

    def resample(self, scale: int) -> Reach:
        """Reach after linear resampling to lattice `scale`."""
        common = gcd(self.scale, scale)
        return self.up(scale // common).stride(self.scale // common)

    def join(self, other: Reach) -> Reach:
        """Reach of a map that reads two maps of one lattice at the same voxel."""
        if other.scale != self.scale:
            raise ValueError(f"lattices {self.scale} and {other.scale} cannot be joined")
        return Reach(
            self.scale,
            tuple(
                (min(a[0], b[0]), max(a[1], b[1]))
                for a, b in zip(self.intervals, other.intervals, strict=True)
            ),
        )

    def _joined(self, positions: Iterable[int]) -> tuple[int, int]:
        """Interval that the voxels at `positions` (of this lattice, from a node) need together."""
        lows, highs = [], []
        for position in positions:
            node, between = divmod(position, self.scale)
            low, high = self.intervals[between]
            lows.append(low + node)
            highs.append(high + node)
        return min(lows), max(highs)
