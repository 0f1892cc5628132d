"""What is kept of a checked scan, for comparing it with others."""

from dataclasses import dataclass

from napari_msp.arrays import FloatArray
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.data.registration import BrainImage


@dataclass(frozen=True)
class HeadImages:
    """What the scans of one subject are aligned by.

    Attributes
    ----------
    brain
        Mean diffusion image.
    tensors
        (X, Y, Z, 6): xx, yy, zz, xy, xz, yz in scanner axes, times b; 0 outside the mask.
    """

    brain: BrainImage
    tensors: FloatArray


@dataclass(frozen=True)
class ScanSummary:
    """What later comparisons need of one scan; its voxels are let go.

    Attributes
    ----------
    subject, platform
        Whose scan it is, and from where.
    where
        Its file, relative to the dataset.
    lattice
        In stored order.
    gradients
        Its whole table.
    images
        None when they are not wanted, cannot be made, or are needed no longer.
    """

    subject: str
    platform: str
    where: str
    lattice: Lattice
    gradients: GradientTable
    images: HeadImages | None
