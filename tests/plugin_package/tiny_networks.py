"""The smallest network there can be."""

from torch import nn

from napari_msp.networks.base import CHANNELS, FeatureMap, SingleNetwork, SingleOutputs
from napari_msp.networks.layers import Reach, lattice_convolution, scaled_width


class Tiny(SingleNetwork):
    """Two convolutions."""

    kind = "tiny"
    summary = "Two convolutions with a ReLU between."
    feature_layers = ("hidden",)
    cost = 0.1

    def __init__(self, *, target, scales, width="paper", feature_layer=None):
        super().__init__(target=target, scales=scales, width=width, feature_layer=feature_layer)
        features = scaled_width(16, width)
        self.hidden = nn.Sequential(nn.Conv3d(CHANNELS, features, 3, padding=1), nn.ReLU())
        self.final = lattice_convolution(features, CHANNELS, 1, self.scale)
        hidden = Reach().convolve(1)
        self._declare(hidden.move(self.scale), {"hidden": FeatureMap(features, hidden)})

    def body(self, x):
        features = self.hidden(x)
        prediction = self.final(features)
        return SingleOutputs(features, ((self.target, prediction),))
