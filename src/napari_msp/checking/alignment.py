"""Residual misalignment between two scans of one subject."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial.distance import pdist

from napari_msp.checking.findings import Finding
from napari_msp.checking.overlap import dice
from napari_msp.checking.registration import Displacement, estimate_displacement
from napari_msp.checking.summary import Comparison, ScanSummary
from napari_msp.errors import UserError

MISALIGNMENT_LIMIT = 0.5
"""Mean displacement in voxels of the input above which alignment is warned of (our choice)."""

MISALIGNMENT_ACCURACY = 0.3
"""Mean error in mm of the measured displacement on simulated heads with 2.4 mm voxels (measured:
0.05 to 0.23 mm over shifts from 0 to 3 mm and twelve pairs of scans)."""

LEAST_CORRELATION = 0.9
"""Correlation of two aligned scans below which they may not be of one head (our choice; simulated
scans reach 0.99 on one head and 0.87 on two)."""


def compare_with_input(
    source: ScanSummary, target: ScanSummary
) -> tuple[list[Finding], Comparison | None]:
    """Measure how far the head of `target` lies from that of `source`, the input.

    Returns
    -------
    The findings, and what was measured; None when one of them has no images.
    """
    if source.images is None or target.images is None:
        return [], None
    overlap = dice(source.images, target.images)
    lattice = source.lattice.canonical
    try:
        found = estimate_displacement(source.images.brain, target.images.brain)
    except UserError as error:
        message = f"alignment with {source.platform}: {error}"
        told = Finding("warning", target.name, message, flag="not aligned")
        return [told], Comparison(overlap, None, lattice)
    comparison = Comparison(overlap, found, lattice)
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
    """Tell when a subject's other scans all lie alike, and the input alone lies elsewhere.

    Parameters
    ----------
    source
        The input.
    targets
        The subject's other scans, compared with it.
    """
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
        yield Finding(
            "warning",
            source.name,
            f"the scans on all {len(targets)} other platforms lie alike, away from this one: the "
            "input is off, not they; register it again",
            flag="input misaligned",
        )


def _judge(where: str, platform: str, comparison: Comparison) -> Iterator[Finding]:
    found, distance = comparison.displacement, comparison.distance
    if found is None or distance is None:
        return
    if found.correlation < LEAST_CORRELATION:
        yield Finding(
            "warning",
            where,
            f"hardly resembles {platform} (correlation {found.correlation:.2f} when "
            "aligned); make sure that both are of one subject, and the masks of the brain",
            flag="unlike input",
        )
    elif distance > MISALIGNMENT_LIMIT:
        yield Finding(
            "warning",
            where,
            f"{_measured(found, distance, platform)}, more than {MISALIGNMENT_LIMIT:g} voxel: a "
            "network learns that as if it were the scanner's; register the scans again",
            flag="misaligned",
        )


def _measured(found: Displacement, distance: float, platform: str) -> str:
    return (
        f"lies {found.mean:.1f} mm, {distance:.2f} voxels, from {platform} on average "
        f"(shift {np.linalg.norm(found.shift):.1f} mm, turn {found.angle:.1f}°, "
        f"± {MISALIGNMENT_ACCURACY} mm)"
    )
