"""What is kept of a checked scan, and how its lattice, mask and head lie beside the input's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist

from napari_msp.alignment.registration import (
    LEAST_CORRELATION,
    MISALIGNMENT_LIMIT,
    BrainImage,
    Displacement,
    estimate_displacement,
)
from napari_msp.arrays import FloatArray
from napari_msp.checking.findings import Finding
from napari_msp.checking.quality import ScanQuality
from napari_msp.checking.turns import TurnEvidence
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice, resample_mask, scale_between
from napari_msp.data.masks import dice
from napari_msp.errors import Advice, UserError


@dataclass(frozen=True)
class HeadImages:
    """What the scans of one subject are aligned by.

    Attributes
    ----------
    tensors
        (X, Y, Z, 6): xx, yy, zz, xy, xz, yz in scanner axes, times b; 0 outside the mask. None
        where directions do not determine them.
    """

    brain: BrainImage
    tensors: FloatArray | None


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
    """A scan beside the input scan of its subject, whose lattice is in closest-canonical order.

    `dice` is the overlap of both masks; `displacement`, from the input's head to the scan's, is
    None when it cannot be measured.
    """

    dice: float
    displacement: Displacement | None
    input_lattice: Lattice

    @classmethod
    def of(cls, fixed: BrainImage, moving: BrainImage, found: Displacement | None) -> "Comparison":
        """Compare a brain with the input's, from which it was `found` displaced."""
        mask = resample_mask(moving.mask, moving.lattice, fixed.lattice)
        return cls(dice(fixed.mask, mask), found, fixed.lattice.canonical)

    @property
    def shift(self) -> FloatArray | None:
        """(3,) shift of the brain's centre to the right, front and top, in voxels of the input."""
        if self.displacement is None:
            return None
        return np.asarray(
            np.linalg.solve(self.input_lattice.affine[:3, :3], self.displacement.shift)
        )

    @property
    def distance(self) -> float | None:
        """Mean displacement of the brain, by shift and turn, in voxels of the input."""
        if self.displacement is None:
            return None
        return self.displacement.in_voxels(self.input_lattice)


@dataclass(frozen=True)
class ScanSummary:
    """What later comparisons need of one scan, its lattice as stored; its voxels are let go.

    Attributes
    ----------
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


# --- Beside the input ------------------------------------------------------------------------

MISALIGNMENT_ACCURACY = 0.3
"""Mean error in mm of the measured displacement on simulated heads with 2.4 mm voxels (measured:
0.05 to 0.23 mm over shifts from 0 to 3 mm and twelve pairs of scans)."""


def compare_with_input(
    source: ScanSummary, target: ScanSummary
) -> tuple[list[Finding], Comparison | None]:
    """Measure how far the head of `target` lies from that of `source`, the input.

    Gives the findings, and what was measured; None when one of them has no images.
    """
    if source.images is None or target.images is None:
        return [], None
    brains = source.images.brain, target.images.brain
    try:
        found = estimate_displacement(*brains)
    except UserError as error:
        problem = f"cannot be aligned with {source.platform}: {error.problem}"
        found_none = Finding("warning", target.name, problem, error.remedy, "not aligned")
        return [found_none], Comparison.of(*brains, None)
    comparison = Comparison.of(*brains, found)
    return list(_judge(target.name, source.platform, comparison)), comparison


def measured_distance(scan: ScanSummary) -> float | None:
    """Give the mean displacement in voxels of the input, where it means something.

    That of scans that hardly resemble the input does not.
    """
    comparison = scan.comparison
    if comparison is None or comparison.displacement is None:
        return None
    resembles = comparison.displacement.correlation >= LEAST_CORRELATION
    return comparison.distance if resembles else None


def check_input_position(source: ScanSummary, targets: Sequence[ScanSummary]) -> Iterator[Finding]:
    """Look for an input that alone lies elsewhere, while a subject's other scans lie alike."""
    shifts = [
        target.comparison.displacement.shift
        for target in targets
        if (measured_distance(target) or 0.0) > MISALIGNMENT_LIMIT
        and target.comparison is not None
        and target.comparison.displacement is not None
    ]
    # Two scans that were moved independently hardly ever lie this near to each other.
    alike = len(shifts) >= 2 and pdist(shifts).max() <= 2 * MISALIGNMENT_ACCURACY
    if alike and len(shifts) == len(targets):
        problem = (
            f"the scans on all {len(targets)} other platforms lie alike, away from this one: the "
            "input is off, not they"
        )
        remedy = Advice("register it again")
        yield Finding("warning", source.name, problem, remedy, "input misaligned")


def _judge(where: str, platform: str, comparison: Comparison) -> Iterator[Finding]:
    found, distance = comparison.displacement, comparison.distance
    if found is None or distance is None:
        return
    if found.correlation < LEAST_CORRELATION:
        problem = f"hardly resembles {platform} (correlation {found.correlation:.2f} when aligned)"
        remedy = Advice("make sure that both are of one subject, and the masks of the brain")
        yield Finding("warning", where, problem, remedy, "unlike input")
    elif distance > MISALIGNMENT_LIMIT:
        accuracy = f", ± {MISALIGNMENT_ACCURACY} mm"
        problem = (
            f"{found.lies(platform, comparison.input_lattice, accuracy)}, more than "
            f"{MISALIGNMENT_LIMIT:g} voxel: a network learns that as if it were the scanner's"
        )
        yield Finding("warning", where, problem, Advice("register the scans again"), "misaligned")


def check_lattice(source: ScanSummary, target: ScanSummary) -> Iterator[Finding]:
    """Compare a target's lattice with the node-aligned one that a network gives for the input."""
    coarse, found = source.lattice.canonical, target.lattice.canonical
    pair = f"{source.platform} to {target.platform}"
    try:
        scale = scale_between(coarse.voxel_sizes, found.voxel_sizes, pair)
    except UserError as error:
        yield Finding("error", target.where, f"{pair}: {error.problem}", error.remedy, "voxel size")
        return
    wanted = coarse.refined(scale)
    if found.matches(wanted):
        return
    if target.aligned:
        problem = (
            f"lies on {source.platform} by its affine, on voxels of its own: training interpolates "
            "it, measures do not"
        )
        yield Finding("note", target.where, problem)
        return
    if found.shape != wanted.shape:
        shapes = (" × ".join(map(str, each.shape)) for each in (found, wanted))
        reason = "it has {} voxels, not {}".format(*shapes)
    else:
        reason = f"its voxels lie up to {found.offset_to(wanted):.2f} voxels away"
    problem = (
        f"is not on the lattice that a network of scale {scale} gives for {source.platform} "
        f"({reason}): training resamples it, which smooths it"
    )
    remedy = Advice("reslice it from the original in one step")
    yield Finding("warning", target.where, problem, remedy, "lattice")
