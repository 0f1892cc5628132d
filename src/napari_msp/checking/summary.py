"""What is kept of a checked scan, for comparing it with others."""

from dataclasses import dataclass

import numpy as np

from napari_msp.alignment.registration import BrainImage, Displacement
from napari_msp.arrays import FloatArray
from napari_msp.checking.quality import ScanQuality
from napari_msp.checking.turns import TurnEvidence
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice


@dataclass(frozen=True)
class HeadImages:
    """What the scans of one subject are aligned by.

    Attributes
    ----------
    brain
        Its images that tell how it lies.
    tensors
        (X, Y, Z, 6): xx, yy, zz, xy, xz, yz in scanner axes, times b; 0 outside the mask.
    """

    brain: BrainImage
    tensors: FloatArray


@dataclass(frozen=True, eq=False)
class TableInFile:
    """A gradient table in the axes of its .bvec file, and what the scan alone says of it.

    Attributes
    ----------
    b_values, vectors
        (N,) in s/mm² and (N, 3), each volume with the row that is its own.
    to_scanner
        (3, 3) orthogonal: from the axes of the file to the scanner's.
    slip
        What had put rows on other volumes, in words; empty when they were right.
    coherence
        What the scan's own fibres say about turns; None without enough of them.
    complete
        Whether it has a row for every volume of the file, so that it can stand for the file's.
    """

    b_values: FloatArray
    vectors: FloatArray
    to_scanner: FloatArray
    slip: str = ""
    coherence: TurnEvidence | None = None
    complete: bool = True


@dataclass(frozen=True)
class Comparison:
    """A scan beside the input scan of its subject.

    Attributes
    ----------
    dice
        Overlap of both masks on the input's lattice, from 0 to 1.
    displacement
        From the input's head to the scan's; None when it cannot be measured.
    input_lattice
        The input's, in closest-canonical order.
    """

    dice: float
    displacement: Displacement | None
    input_lattice: Lattice

    @property
    def shift(self) -> FloatArray | None:
        """(3,) shift of the brain's centre to the right, front and top, in voxels of the input."""
        if self.displacement is None:
            return None
        shift: FloatArray = np.linalg.solve(
            self.input_lattice.affine[:3, :3], self.displacement.shift
        )
        return shift

    @property
    def distance(self) -> float | None:
        """Mean displacement of the brain, by shift and turn, in voxels of the input."""
        if self.displacement is None:
            return None
        return self.displacement.mean / float(self.input_lattice.voxel_sizes.mean())


@dataclass(frozen=True)
class ScanSummary:
    """What later comparisons need of one scan; its voxels are let go.

    Attributes
    ----------
    where
        Its file, relative to the dataset.
    lattice
        In stored order.
    images
        None when they are not wanted, cannot be made, or are needed no longer.
    mask_voxels, mask_ml, quality, table
        None when the voxels or the mask cannot be read.
    comparison
        None for the input itself, and when there is nothing to compare.
    aligned
        Whether its affine was moved so that its head lies on the input's.
    """

    subject: str
    platform: str
    where: str
    lattice: Lattice
    gradients: GradientTable
    images: HeadImages | None = None
    mask_voxels: int | None = None
    mask_ml: float | None = None
    quality: ScanQuality | None = None
    comparison: Comparison | None = None
    table: TableInFile | None = None
    aligned: bool = False

    @property
    def name(self) -> str:
        """Subject and platform, such as "sub-01 prisma_st"."""
        return f"{self.subject} {self.platform}"
