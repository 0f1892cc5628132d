"""Layers that move feature maps between lattices, their reach, and the rule for widths.

Lattice s of an image of n voxels an axis has s(n-1)+1 voxels: the first voxel centre is shared
and the spacing divided by s. A kernel of 2k-1 with stride k and padding k-1 keeps that exact for
every factor k; for k = 2 it is the kernel 3, stride 2, padding 1 of the paper's code.

Voxel s·i of lattice s lies on image voxel i (a "node"). Which image voxels a voxel of lattice s
depends on is the same for every node, up to a shift, so s intervals describe how far a feature map
looks: one for each position between two nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Width = Literal["paper"] | float


def scaled_width(full: int, width: Width) -> int:
    """Return the number of channels at a reduced width: even, at least 2.

    Parameters
    ----------
    full : int
        Channels at full width.
    width : "paper" or float
        "paper" for full width, or a fraction in (0, 1].

    Raises
    ------
    ValueError
        If `width` is neither.
    """
    fraction = 1.0 if width == "paper" else width
    if isinstance(fraction, str) or not 0.0 < fraction <= 1.0:
        raise ValueError(f'width must be "paper" or a fraction in (0, 1], not {width!r}')
    return max(2, 2 * round(full * fraction / 2))


def full_precision(x: Tensor) -> torch.autocast:
    """Return a context in which mixed precision is off on the device of `x`."""
    return torch.autocast(device_type=x.device.type, enabled=False)


def lattice_convolution(inputs: int, outputs: int, source: int, target: int) -> nn.Module:
    """Build the convolution that takes a feature map from one lattice to another.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    source, target : int
        Lattices. Equal ones get a 3³ convolution with padding 1; a multiple gets one transposed
        or one strided convolution (kernel 2k-1, stride k, padding k-1); any other pair, such as
        2 → 3, goes down to their common lattice and up from there, by two convolutions.

    Returns
    -------
    nn.Module
        Maps (B, inputs, s(n-1)+1, …) to (B, outputs, t(n-1)+1, …).
    """
    if source == target:
        return nn.Conv3d(inputs, outputs, 3, padding=1)
    common = gcd(source, target)
    if common == source:
        k = target // source
        return nn.ConvTranspose3d(inputs, outputs, 2 * k - 1, stride=k, padding=k - 1)
    if common == target:
        k = source // target
        return nn.Conv3d(inputs, outputs, 2 * k - 1, stride=k, padding=k - 1)
    return nn.Sequential(
        lattice_convolution(inputs, outputs, source, common),
        lattice_convolution(outputs, outputs, common, target),
    )


def rectifier() -> nn.ReLU:
    """Build the ReLU after a convolution or batch norm whose output nothing else reads.

    It works in place: one image less to allocate and to traverse per layer.
    """
    return nn.ReLU(inplace=True)


class PointConvolution(nn.Conv3d):
    """A convolution with a 1³ kernel.

    It is a matrix product if a voxel's channels are adjacent in memory. With several threads torch
    computes it so itself; with one (a cohort's workers, processes that share a training) torch's
    implementation takes four times as long, and returns the channels in another layout.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, X, Y, Z) to (B, outputs, X, Y, Z)."""
        beside = x.is_contiguous(memory_format=torch.channels_last_3d)
        if torch.get_num_threads() > 1 or x.device.type != "cpu" or not beside:
            return super().forward(x)
        found = functional.linear(x.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias)
        return found.permute(0, 4, 1, 2, 3)


class LinearResampling(nn.Module):
    """Exact node-aligned linear resampling between lattices; it has no weights.

    Up is a transposed convolution with a fixed triangular kernel, down keeps every k-th voxel.
    Unlike with `interpolate`, a voxel's value does not depend on the size of the crop.

    Parameters
    ----------
    source, target : int
        Lattices.
    """

    kernel: Tensor

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        common = gcd(source, target)
        self.factor = target // common
        self.step = source // common
        k = self.factor
        line = 1.0 - torch.arange(1 - k, k).abs() / k
        cube = line[:, None, None] * line[:, None] * line
        self.register_buffer("kernel", cube[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Resample (B, C, s(n-1)+1, …) to (B, C, t(n-1)+1, …), in full precision."""
        k = self.factor
        if k > 1:
            channels = x.shape[1]
            kernels = self.kernel.expand(channels, -1, -1, -1, -1)
            with full_precision(x):
                x = functional.conv_transpose3d(
                    x, kernels, stride=k, padding=k - 1, groups=channels
                )
        if self.step > 1:
            x = x[..., :: self.step, :: self.step, :: self.step]
        return x


@dataclass(frozen=True)
class Reach:
    """The image voxels that a feature map depends on, along one axis (all axes are alike): exact.

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
        """Return the reach after a convolution that reads `radius` voxels on either side."""
        return Reach(
            self.scale,
            tuple(self._joined(range(r - radius, r + radius + 1)) for r in range(self.scale)),
        )

    def up(self, factor: int) -> Reach:
        """Return the reach after a transposed convolution: stride `factor`, kernel 2·factor-1."""
        # Fine voxel j reads coarse p with |j - factor·p| < factor: its neighbours, or itself.
        fine = self.scale * factor
        return Reach(fine, tuple(self._joined({j // factor, -(-j // factor)}) for j in range(fine)))

    def down(self, factor: int) -> Reach:
        """Return the reach after a convolution with stride `factor` and kernel 2·factor-1."""
        return self.convolve(factor - 1).stride(factor)

    def stride(self, factor: int) -> Reach:
        """Return the reach after keeping every `factor`-th voxel, including the first."""
        return Reach(
            self.scale // factor,
            tuple(self._joined([j * factor]) for j in range(self.scale // factor)),
        )

    def move(self, scale: int) -> Reach:
        """Return the reach after `lattice_convolution` to lattice `scale`."""
        if scale == self.scale:
            return self.convolve(1)
        common = gcd(self.scale, scale)
        reach = self if common == self.scale else self.down(self.scale // common)
        return reach if common == scale else reach.up(scale // common)

    def resample(self, scale: int) -> Reach:
        """Return the reach after linear resampling to lattice `scale`."""
        common = gcd(self.scale, scale)
        return self.up(scale // common).stride(self.scale // common)

    def join(self, other: Reach) -> Reach:
        """Return the reach of a map that reads two maps of one lattice at the same voxel."""
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
        """Return the interval that the voxels at `positions` (relative to a node) need together."""
        lows, highs = [], []
        for position in positions:
            node, between = divmod(position, self.scale)
            low, high = self.intervals[between]
            lows.append(low + node)
            highs.append(high + node)
        return min(lows), max(highs)
