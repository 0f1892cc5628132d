"""HNED: one stream of convolutions with a side output for every platform."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_msp.networks.base import FeatureMap, Role, SingleNetwork, SingleOutputs
from napari_msp.networks.layers import (
    LinearResampling,
    PointConvolution,
    Reach,
    lattice_convolution,
    rectifier,
    scaled_width,
)


class HNED(SingleNetwork):
    """One stream of convolutions, side outputs at several depths, fused by a 1³ convolution.

    Source: Xie 2015 (holistically nested edge detection); as a multi-task baseline in
    Blumberg 2019.

    Documented: one stream; side outputs at several depths, each supervised; a 1×1 convolution fuses
    them, and the fusion is supervised too. Here each side output predicts a platform.

    Our choice: a block of two 3³ convolutions with ReLU for each platform, in the order of
    `scales`, the target's the deepest; 64 channels; no pooling, as the image must keep its voxels.
    A side output is a 3³ convolution, at scale k > 1 a transposed one. For the fusion the side
    outputs are resampled linearly to the target's lattice. z is what the final (fusing) layer
    reads: the 28 channels of every side output on the target's lattice ("sides"); the last feature
    map of the stream, on lattice 1, is the other choice ("stream").
    """

    kind: ClassVar[str] = "hned"
    summary: ClassVar[str] = "Multi-task: side outputs predict the platforms and are fused."
    role: ClassVar[Role] = "multi-task"
    cost: ClassVar[float] = 1.2
    takes_all: ClassVar[bool] = True
    feature_layers: ClassVar[tuple[str, ...]] = ("stream", "sides")

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        features = scaled_width(64, self.width)
        self.blocks = nn.ModuleList()
        self.sides = nn.ModuleList()
        self.resamplings = nn.ModuleList()
        stream = Reach()
        aligned: list[Reach] = []
        for depth, scale in enumerate(self.scales.values()):
            self.blocks.append(
                nn.Sequential(
                    nn.Conv3d(features if depth else self.channels, features, 3, padding=1),
                    rectifier(),
                    nn.Conv3d(features, features, 3, padding=1),
                    rectifier(),
                )
            )
            self.sides.append(lattice_convolution(features, self.channels, 1, scale))
            self.resamplings.append(LinearResampling(scale, self.scale))
            stream = stream.convolve(2)
            aligned.append(stream.move(scale).resample(self.scale))
        stacked = self.channels * len(self.scales)
        self.final = PointConvolution(stacked, self.channels)

        joined = aligned[0]
        for reach in aligned[1:]:
            joined = joined.join(reach)
        self._declare(
            joined, {"stream": FeatureMap(features, stream), "sides": FeatureMap(stacked, joined)}
        )

    def body(self, x: Tensor) -> SingleOutputs:
        """Run the network; see `SingleNetwork.run`."""
        supervised: list[tuple[str, Tensor]] = []
        aligned: list[Tensor] = []
        for platform, block, side, resampling in zip(
            self.scales, self.blocks, self.sides, self.resamplings, strict=True
        ):
            x = block(x)
            output = side(x)
            supervised.append((platform, output))
            aligned.append(resampling(output))
        stacked = torch.cat(aligned, dim=1)
        prediction = self.final(stacked)
        supervised.append((self.target, prediction))
        features = x if self.feature_layer == "stream" else stacked
        return SingleOutputs(features, tuple(supervised))
