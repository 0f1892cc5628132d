"""DIQT: deep image quality transfer with reversible stacks."""

from __future__ import annotations

from typing import ClassVar, Unpack

from torch import Tensor, nn

from napari_msp.networks.base import (
    CommonArguments,
    Config,
    FeatureMap,
    SingleNetwork,
    SingleOutputs,
)
from napari_msp.networks.layers import Reach, lattice_convolution, scaled_width
from napari_msp.networks.reversible import ReversibleStack


class DIQT(SingleNetwork):
    """Reversible stacks between convolutions; z, on lattice 1, is the last stack's output.

    Source: Blumberg 2018 (deeper image quality transfer).

    Documented: RevNet(28) → 3³ convolution → 50, ReLU → RevNet(50) → 1³ convolution → 100, ReLU →
    RevNet(100) → 3³ convolution; four blocks a stack; residuals BN-ReLU-1³, BN-ReLU-3³,
    BN-ReLU-1³ on half the channels.

    Our choice: padding 1 instead of valid convolutions, and at scale k > 1 a transposed convolution
    as the final layer instead of the shuffle of k³·28 channels, so that the output lattice is
    node-aligned. The 28 input channels (28 a shell that is taken at once) are never reduced by
    `width`.

    Parameters
    ----------
    depth : int
        Blocks a stack. Each adds 2 voxels of reach a stack.
    plain : bool
        Do without the memory trick; see `ReversibleStack`. Not part of the architecture, so not
        of `config`.
    """

    kind: ClassVar[str] = "diqt"
    title: ClassVar[str] = "DIQT"
    summary: ClassVar[str] = "Reversible stacks between convolutions: deep image quality transfer."
    cost: ClassVar[float] = 2.2
    takes_all: ClassVar[bool] = True
    feature_layers: ClassVar[tuple[str, ...]] = (
        "stack1",
        "convolution1",
        "stack2",
        "convolution2",
        "stack3",
    )

    def __init__(
        self, *, depth: int = 4, plain: bool = False, **common: Unpack[CommonArguments]
    ) -> None:
        super().__init__(**common)
        self.depth = depth
        first, second = scaled_width(50, self.width), scaled_width(100, self.width)
        self.stages = nn.ModuleDict(
            {
                "stack1": ReversibleStack(self.channels, depth, plain),
                "convolution1": nn.Sequential(
                    nn.Conv3d(self.channels, first, 3, padding=1), nn.ReLU()
                ),
                "stack2": ReversibleStack(first, depth, plain),
                "convolution2": nn.Sequential(nn.Conv3d(first, second, 1), nn.ReLU()),
                "stack3": ReversibleStack(second, depth, plain),
            }
        )
        self.final = lattice_convolution(second, self.channels, 1, self.scale)

        stack1 = Reach().convolve(2 * depth)
        convolution1 = stack1.convolve(1)
        stack2 = convolution1.convolve(2 * depth)
        stack3 = stack2.convolve(2 * depth)
        self._declare(
            stack3.move(self.scale),
            {
                "stack1": FeatureMap(self.channels, stack1),
                "convolution1": FeatureMap(first, convolution1),
                "stack2": FeatureMap(first, stack2),
                "convolution2": FeatureMap(second, stack2),
                "stack3": FeatureMap(second, stack3),
            },
        )
        if self.feature_layer == "stack3":
            self.near_reaches = Reach().move(self.scale), Reach()

    def body(self, x: Tensor) -> SingleOutputs:
        """Run the network; see `SingleNetwork.run`."""
        features = x
        for name, stage in self.stages.items():
            x = stage(x)
            if name == self.feature_layer:
                features = x
        prediction = self.final(x)
        return SingleOutputs(prediction, features, ((self.target, prediction),))

    def far_layers(self, x: Tensor) -> Tensor:
        """Run all stacks."""
        for stage in self.stages.values():
            x = stage(x)
        return x

    def near_layers(self, far: Tensor) -> SingleOutputs:
        """Run the final layer."""
        prediction = self.final(far)
        return SingleOutputs(prediction, far, ((self.target, prediction),))

    def options(self) -> Config:
        """Return the number of blocks a stack."""
        return {"depth": self.depth}
