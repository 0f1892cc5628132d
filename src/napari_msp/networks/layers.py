"""Layers that move feature maps between lattices, and the width rule.

Lattice s of an image of n voxels an axis holds s(n-1)+1 voxels: the first voxel centre is shared
and the spacing divided by s. A kernel of 2k-1 with stride k and padding k-1 keeps that exact for
every factor k; for k = 2 it is the kernel 3, stride 2, padding 1 of the paper's code.
"""

from __future__ import annotations

from math import gcd
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Width = Literal["paper"] | float


def scaled_width(full: int, width: Width) -> int:
    """Channels at a reduced width: an even number, at least 2.

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
    """Context in which mixed precision is off on the device of `x`."""
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
        2 → 3, goes down to the lattice both share and up from there, by two convolutions.

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


class LinearResampling(nn.Module):
    """Exact node-aligned linear resampling between lattices; nothing is learned.

    Up is a transposed convolution with a fixed triangular kernel, down keeps every k-th voxel.
    Unlike `interpolate`, a voxel's value does not depend on the size of the crop it is computed in.

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
        """Resample (B, C, s(n-1)+1, …) to (B, C, t(n-1)+1, …)."""
        k = self.factor
        if k > 1:
            channels = x.shape[1]
            kernels = self.kernel.expand(channels, -1, -1, -1, -1)
            x = functional.conv_transpose3d(x, kernels, stride=k, padding=k - 1, groups=channels)
        if self.step > 1:
            x = x[..., :: self.step, :: self.step, :: self.step]
        return x
