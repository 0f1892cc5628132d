"""The networks: five single networks, the MSP that combines them, and a registry."""

from .base import CHANNELS, ORDER_SLICES, SingleNetwork, SingleOutputs
from .cnn_rish import CNNRISH
from .cpm import CPM
from .diqt import DIQT
from .hned import HNED
from .msp import MSP, StageOutputs
from .registry import NETWORKS, build, build_single
from .shresnet import SHResNet

__all__ = [
    "CHANNELS",
    "CNNRISH",
    "CPM",
    "DIQT",
    "HNED",
    "MSP",
    "NETWORKS",
    "ORDER_SLICES",
    "SHResNet",
    "SingleNetwork",
    "SingleOutputs",
    "StageOutputs",
    "build",
    "build_single",
]
