"""What a network has to beat: methods that learn without one."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from napari_msp.evaluation.baselines.alignment import StatisticalAlignment
from napari_msp.evaluation.baselines.alignment_by_region import RegionalAlignment
from napari_msp.evaluation.baselines.alignment_by_voxel import VoxelAlignment
from napari_msp.evaluation.baselines.baseline import Baseline
from napari_msp.evaluation.baselines.interpolation import Interpolation
from napari_msp.evaluation.baselines.linear_rish import LinearRISH
from napari_msp.evaluation.baselines.patch_regression import PatchRegression

BASELINES: Final[Mapping[str, Callable[[], Baseline]]] = MappingProxyType(
    {
        Interpolation.name: Interpolation,
        StatisticalAlignment.name: StatisticalAlignment,
        RegionalAlignment.name: RegionalAlignment,
        VoxelAlignment.name: VoxelAlignment,
        LinearRISH.name: LinearRISH,
        PatchRegression.name: PatchRegression,
    }
)
"""What makes each of them, by its name and in the order of a table."""

__all__ = [
    "BASELINES",
    "Baseline",
    "Interpolation",
    "LinearRISH",
    "PatchRegression",
    "RegionalAlignment",
    "StatisticalAlignment",
    "VoxelAlignment",
]
