"""The networks: five single networks, the MSP that combines them, and a registry."""

from napari_msp.networks.base import CHANNELS, ORDER_SLICES, SingleNetwork, SingleOutputs
from napari_msp.networks.cnn_rish import CNNRISH
from napari_msp.networks.cpm import CPM
from napari_msp.networks.diqt import DIQT
from napari_msp.networks.hned import HNED
from napari_msp.networks.msp import MSP, StageOutputs
from napari_msp.networks.registry import NETWORKS, Network, build, build_single
from napari_msp.networks.shresnet import SHResNet

__all__ = [
    "CHANNELS",
    "CNNRISH",
    "CPM",
    "DIQT",
    "HNED",
    "MSP",
    "NETWORKS",
    "ORDER_SLICES",
    "Network",
    "SHResNet",
    "SingleNetwork",
    "SingleOutputs",
    "StageOutputs",
    "build",
    "build_single",
]
