"""Residual misalignment between two scans of one subject."""

from collections.abc import Iterator

import numpy as np

from napari_msp.checking.findings import Finding
from napari_msp.checking.mirrored_vectors import check_mirrored_vectors
from napari_msp.checking.summary import ScanSummary
from napari_msp.data.registration import Displacement, estimate_displacement
from napari_msp.errors import UserError

MISALIGNMENT_LIMIT = 0.5
"""Mean displacement in voxels of the input above which alignment is warned of (our choice)."""

MISALIGNMENT_ACCURACY = 0.3
"""Mean error in mm of the measured displacement on simulated heads with 2.4 mm voxels (measured:
0.05 to 0.23 mm over shifts from 0 to 3 mm and twelve pairs of scans)."""

LEAST_CORRELATION = 0.9
"""Correlation of two aligned scans below which they may not be of one head (our choice; simulated
scans reach 0.99 on one head and 0.87 on two)."""


def check_alignment(source: ScanSummary, target: ScanSummary) -> Iterator[Finding]:
    """Measure how far the head of `target` lies from that of `source`, the input.

    Says nothing when one of them has no images.
    """
    if source.images is None or target.images is None:
        return
    where = f"{target.subject} {target.platform}"
    try:
        found = estimate_displacement(source.images.brain, target.images.brain)
    except UserError as error:
        yield Finding("warning", where, f"alignment with {source.platform}: {error}")
        return
    yield _judge(where, source, found)
    # Fibres are compared voxel by voxel, which means something only where brains overlap.
    yield from check_mirrored_vectors(where, source, target)


def _judge(where: str, source: ScanSummary, found: Displacement) -> Finding:
    if found.correlation < LEAST_CORRELATION:
        return Finding(
            "warning",
            where,
            f"hardly resembles {source.platform} (correlation {found.correlation:.2f} when "
            "aligned); make sure that both are of one subject, and the masks of the brain",
        )
    measured = (
        f"lies {found.mean:.1f} mm from {source.platform} on average "
        f"(shift {np.linalg.norm(found.shift):.1f} mm, turn {found.angle:.1f}°, "
        f"± {MISALIGNMENT_ACCURACY} mm)"
    )
    if found.mean > MISALIGNMENT_LIMIT * float(source.lattice.voxel_sizes.mean()):
        return Finding(
            "warning",
            where,
            f"{measured}, more than {MISALIGNMENT_LIMIT:g} voxel: a network learns that as if "
            "it were the scanner's; register the scans again",
        )
    return Finding("note", where, measured)
