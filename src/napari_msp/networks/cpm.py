"""CPM: a pose machine whose stages are platforms."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_msp.networks.base import CHANNELS, FeatureMap, Role, SingleNetwork, SingleOutputs
from napari_msp.networks.layers import Reach, lattice_convolution, rectifier, scaled_width


class CPMStage(nn.Module):
    """One stage: from image features and the previous stage's beliefs to a platform.

    Parameters
    ----------
    width : int
        Channels of the image features and of the stage's own layers.
    scale : int
        Lattice of the platform the stage predicts.
    belief_scale : int, optional
        Lattice of the beliefs; None for the first stage, which has none.
    channels : int
        Channels of a platform's image.
    """

    def __init__(
        self, width: int, scale: int, belief_scale: int | None, channels: int = CHANNELS
    ) -> None:
        super().__init__()
        self.beliefs: nn.Module | None = None
        inputs = width
        if belief_scale is not None:
            self.beliefs = nn.Sequential(
                lattice_convolution(channels, width, belief_scale, 1), rectifier()
            )
            inputs = 2 * width
        self.layers = nn.Sequential(
            nn.Conv3d(inputs, width, 3, padding=1),
            rectifier(),
            nn.Conv3d(width, width, 3, padding=1),
            rectifier(),
        )
        self.final = lattice_convolution(width, channels, 1, scale)

    def forward(self, image: Tensor, beliefs: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the stage's prediction (lattice of its platform) and feature map (lattice 1)."""
        read = image
        if self.beliefs is not None:
            read = torch.cat((image, self.beliefs(beliefs)), dim=1)
        features = self.layers(read)
        return self.final(features), features


class CPM(SingleNetwork):
    """A sequence of stages, each predicting one platform from the image and the previous stage.

    Source: Wei 2016 (convolutional pose machines); as a multi-task baseline in Blumberg 2019.

    Documented: stage t sees the image features and the beliefs of stage t-1; there is a loss at
    every stage; here each stage predicts one platform and the last one the target.

    Our choice: two 3³ convolutions with ReLU make the image features, shared by all stages; each
    stage has two more and a final layer; 48 channels throughout. Everything runs on lattice 1:
    beliefs on another lattice are brought down by a strided convolution, and a stage of scale k > 1
    ends in a transposed one. z is the input of the last stage's final layer ("stage", on lattice
    1); the shared image features are the alternative ("image"). Stages follow the order of
    `scales`, the target last.
    """

    kind: ClassVar[str] = "cpm"
    summary: ClassVar[str] = "Multi-task: each stage predicts one platform, the last the target."
    role: ClassVar[Role] = "multi-task"
    takes_all: ClassVar[bool] = True
    feature_layers: ClassVar[tuple[str, ...]] = ("image", "stage")

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        features = scaled_width(48, self.width)
        self.image = nn.Sequential(
            nn.Conv3d(self.channels, features, 3, padding=1),
            rectifier(),
            nn.Conv3d(features, features, 3, padding=1),
            rectifier(),
        )
        lattices = list(self.scales.values())
        self.stages = nn.ModuleList(
            CPMStage(features, scale, before, self.channels)
            for scale, before in zip(lattices, [None, *lattices[:-1]], strict=True)
        )

        image = read = Reach().convolve(2)
        for scale in lattices:
            stage = read.convolve(2)
            output = stage.move(scale)
            read = image.join(output.move(1))
        self._declare(
            output, {"image": FeatureMap(features, image), "stage": FeatureMap(features, stage)}
        )

    def body(self, x: Tensor) -> SingleOutputs:
        """Run the network; see `SingleNetwork.run`."""
        image = self.image(x)
        beliefs = None
        supervised: list[tuple[str, Tensor]] = []
        for platform, stage in zip(self.scales, self.stages, strict=True):
            beliefs, features = stage(image, beliefs)
            supervised.append((platform, beliefs))
        chosen = image if self.feature_layer == "image" else features
        return SingleOutputs(chosen, tuple(supervised))
