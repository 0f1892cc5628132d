"""SHResNet: a residual network that processes the SH orders separately."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_msp.networks.base import Config, FeatureMap, SingleNetwork, SingleOutputs
from napari_msp.networks.layers import Reach, lattice_convolution, rectifier, scaled_width

ORDERS = (0, 2, 4, 6)
FEATURES_PER_COEFFICIENT = 3


class OrderBlock(nn.Module):
    """Residual block in which every order has its own conv-ReLU-conv-ReLU-conv.

    Parameters
    ----------
    widths : list of int
        Channels of each order.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths = widths
        self.orders = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(w, w, 3, padding=1),
                rectifier(),
                nn.Conv3d(w, w, 3, padding=1),
                rectifier(),
                nn.Conv3d(w, w, 3, padding=1),
            )
            for w in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, sum(widths), X, Y, Z) to the same shape."""
        parts = torch.split(x, self.widths, dim=1)
        return x + torch.cat(
            [order(part) for order, part in zip(self.orders, parts, strict=True)], dim=1
        )


class SHResNet(SingleNetwork):
    """Convolution, residual blocks by order, convolution, global skip, output convolution.

    Source: Koppers 2018.

    Documented: 3³ convolution; residual blocks in which every order l has its own
    conv-ReLU-conv-ReLU-conv, concatenated and added to the block's input; convolution; global skip;
    output convolution. No ReLU ends it: SH coefficients are signed.

    Our choice: two blocks; three features per coefficient, 3(2l+1) for order l rounded up to an
    even number (88 in all), so that the networks have about as many parameters as DIQT; the global
    skip starts at the first convolution's output; at scale k > 1 a transposed convolution is
    between the skip and the output convolution, so the skip is added on lattice 1 and z is on
    lattice k. Shells processed at once share the features of an order.

    Parameters
    ----------
    blocks : int
        Number of residual blocks.
    """

    kind: ClassVar[str] = "shresnet"
    summary: ClassVar[str] = "Residual blocks that treat the SH orders apart."
    takes_all: ClassVar[bool] = True
    feature_layers: ClassVar[tuple[str, ...]] = ("stem", "blocks", "skip", "last")

    def __init__(self, *, blocks: int = 2, **common: Any) -> None:
        super().__init__(**common)
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, not {blocks}")
        widths = [
            scaled_width(FEATURES_PER_COEFFICIENT * (2 * order + 1), self.width) for order in ORDERS
        ]
        features = sum(widths)
        self.stem = nn.Conv3d(self.channels, features, 3, padding=1)
        self.blocks = nn.Sequential(*(OrderBlock(widths) for _ in range(blocks)))
        self.convolution = nn.Conv3d(features, features, 3, padding=1)
        self.up: nn.Module = nn.Identity()
        if self.scale > 1:
            self.up = lattice_convolution(features, features, 1, self.scale)
        self.final = nn.Conv3d(features, self.channels, 3, padding=1)

        stem = Reach().convolve(1)
        through = stem.convolve(3 * blocks)
        skip = through.convolve(1)
        last = skip.up(self.scale)
        self._declare(
            last.convolve(1),
            {
                "stem": FeatureMap(features, stem),
                "blocks": FeatureMap(features, through),
                "skip": FeatureMap(features, skip),
                "last": FeatureMap(features, last),
            },
        )
        if self.feature_layer in ("skip", "last"):
            up = Reach().up(self.scale)
            z = up if self.feature_layer == "last" else Reach()
            self.near_reaches = up.convolve(1), z

    def body(self, x: Tensor) -> SingleOutputs:
        """Run the network; see `SingleNetwork.run`."""
        stem = self.stem(x)
        blocks = self.blocks(stem)
        skip = self.convolution(blocks) + stem
        last = self.up(skip)
        prediction = self.final(last)
        features = {"stem": stem, "blocks": blocks, "skip": skip, "last": last}[self.feature_layer]
        return SingleOutputs(features, ((self.target, prediction),))

    def far_layers(self, x: Tensor) -> Tensor:
        """Run everything up to the global skip."""
        stem = self.stem(x)
        far: Tensor = self.convolution(self.blocks(stem)) + stem
        return far

    def near_layers(self, far: Tensor) -> SingleOutputs:
        """Go to the target's lattice, and run the output convolution."""
        last = self.up(far)
        prediction = self.final(last)
        features = last if self.feature_layer == "last" else far
        return SingleOutputs(features, ((self.target, prediction),))

    def options(self) -> Config:
        """Return the number of residual blocks."""
        return {"blocks": len(self.blocks)}
