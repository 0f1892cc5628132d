"""One row a subject and platform: what was measured of the scan, and what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.checking.findings import Finding
from napari_msp.checking.gradients import nearest_shell
from napari_msp.checking.summary import Comparison, ScanSummary
from napari_msp.signal.fitting import condition_number, supported_order
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ScanRow:
    """One scan. What was not measured, or does not apply to the input platform, is None.

    Attributes
    ----------
    subject, platform
        Whose scan it is, and from where.
    voxel_xyz_mm, shape_xyz
        Spacing and number of voxels, in closest-canonical order.
    b0_volumes
        How many.
    b_value, directions
        Of the shell nearest to the input's b-value, in s/mm², and how many.
    sh_order
        Highest SH order that the scheme supports.
    condition
        Condition number of the SH design matrix at order 6; None with too few directions.
    mask_voxels, mask_ml
        Size of the mask.
    snr
        Of the b=0 volumes inside the mask.
    dice
        Overlap of its mask with the input's, on the input's lattice.
    shift_mm, shift_voxels, shift_xyz_voxels
        How far the brain's centre lies from the input's: in mm, in voxels of the input, and to the
        right, front and top in voxels of the input.
    rotation_degrees
        By how much the head is turned against the input's.
    displacement_voxels
        Mean over the brain of how far shift and rotation move it, in voxels of the input.
    correlation
        Of both scans when aligned.
    flags
        What is wrong, in a word or two each; the findings say more.
    """

    subject: str
    platform: str
    voxel_xyz_mm: Triple | None = None
    shape_xyz: tuple[int, int, int] | None = None
    b0_volumes: int | None = None
    b_value: float | None = None
    directions: int | None = None
    sh_order: int | None = None
    condition: float | None = None
    mask_voxels: int | None = None
    mask_ml: float | None = None
    snr: float | None = None
    dice: float | None = None
    shift_mm: float | None = None
    shift_voxels: float | None = None
    shift_xyz_voxels: Triple | None = None
    rotation_degrees: float | None = None
    displacement_voxels: float | None = None
    correlation: float | None = None
    flags: tuple[str, ...] = ()


def unusable_row(subject: str, platform: str) -> ScanRow:
    """Give the row of a scan that could not be opened."""
    return ScanRow(subject, platform, flags=("unusable",))


def scan_row(scan: ScanSummary, b_value: float | None, findings: Sequence[Finding]) -> ScanRow:
    """Give the row of a scan.

    Parameters
    ----------
    b_value
        The input platform's, in s/mm²; None takes the lowest shell.
    findings
        All of the dataset's; the flags of those on the scan or its platform are taken.
    """
    lattice, places = scan.lattice.canonical, (scan.name, scan.where, scan.platform)
    flags = [finding.flag for finding in findings if finding.flag and finding.where in places]
    row = ScanRow(
        subject=scan.subject,
        platform=scan.platform,
        voxel_xyz_mm=_triple(lattice.voxel_sizes),
        shape_xyz=lattice.shape,
        b0_volumes=len(scan.gradients.b0_volumes),
        flags=tuple(dict.fromkeys(flags)),
    )
    row = _with_scheme(row, scan, b_value)
    if scan.brain is not None:
        brain = scan.brain
        row = replace(row, mask_voxels=brain.voxels, mask_ml=brain.volume, snr=brain.snr)
    return row if scan.comparison is None else _with_comparison(row, scan.comparison)


def _with_scheme(row: ScanRow, scan: ScanSummary, b_value: float | None) -> ScanRow:
    shell = nearest_shell(scan.gradients, b_value)
    if shell is None:
        return row
    directions = scan.gradients.directions[shell.volumes]
    enough = len(directions) >= coefficient_count(ORDER)
    return replace(
        row,
        b_value=shell.b_value,
        directions=len(directions),
        sh_order=supported_order(directions),
        condition=condition_number(directions, ORDER) if enough else None,
    )


def _with_comparison(row: ScanRow, comparison: Comparison) -> ScanRow:
    row = replace(row, dice=comparison.dice)
    found, shift = comparison.displacement, comparison.shift
    if found is None or shift is None:
        return row
    return replace(
        row,
        shift_mm=float(np.linalg.norm(found.shift)),
        shift_voxels=float(np.linalg.norm(shift)),
        shift_xyz_voxels=_triple(shift),
        rotation_degrees=found.angle,
        displacement_voxels=comparison.distance,
        correlation=found.correlation,
    )


def _triple(values: FloatArray) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z
