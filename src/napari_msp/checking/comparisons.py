"""Comparisons of scans: each with the input's, and with others of its platform.

A limit for all studies would be wrong for most: masks, noise and contrast differ between protocols.
Within a platform they should not, so each scan is compared with its platform's median.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import numpy as np
import scipy
from scipy.spatial.distance import pdist

from napari_msp.alignment.registration import (
    LEAST_CORRELATION,
    MISALIGNMENT_LIMIT,
    SURE,
    estimate_displacement,
)
from napari_msp.checking.summary import Finding, ScanComparison, ScanSummary, warning
from napari_msp.data.lattice import scale_between
from napari_msp.errors import UserError

# --- Beside the input ------------------------------------------------------------------------

MISALIGNMENT_ACCURACY = 0.3
"""Mean error in mm of the measured displacement on simulated heads with 2.4 mm voxels (measured:
0.05 to 0.23 mm over shifts from 0 to 3 mm and twelve pairs of scans)."""


def compare_with_input(
    source: ScanSummary, target: ScanSummary
) -> tuple[list[Finding], ScanComparison | None]:
    """Measure how far the head of `target` is from that of `source`, the input.

    Returns the findings, and the measurements; None for these if one of them has no images.
    """
    if source.images is None or target.images is None:
        return [], None
    brains = source.images.brain, target.images.brain
    try:
        found = estimate_displacement(*brains)
    except UserError as error:
        problem = f"cannot be aligned with {source.platform}: {error.problem}"
        found_none = Finding("warning", target.name, problem, error.remedy, "not aligned")
        return [found_none], ScanComparison.of(*brains, None)
    comparison = ScanComparison.of(*brains, found)
    return list(_judge(target.name, source.platform, comparison)), comparison


def measured_distance(scan: ScanSummary) -> float | None:
    """Return the mean displacement in voxels of the input; None if it is meaningless.

    It is meaningless for scans that hardly resemble the input.
    """
    comparison = scan.comparison
    if comparison is None or comparison.displacement is None:
        return None
    resembles = comparison.displacement.correlation >= LEAST_CORRELATION
    return comparison.distance if resembles else None


def check_input_position(source: ScanSummary, targets: Sequence[ScanSummary]) -> Iterator[Finding]:
    """Look for an input that alone is displaced, while a subject's other scans agree."""
    compared = [each.comparison for each in targets if measured_distance(each) is not None]
    shifts = [
        each.displacement.shift
        for each in compared
        if each is not None and each.displacement is not None and each.too_far
    ]
    # Independently moved scans are hardly ever this near to each other.
    alike = len(shifts) >= 2 and pdist(shifts).max() <= 2 * MISALIGNMENT_ACCURACY
    if alike and len(shifts) == len(targets):
        problem = (
            f"the scans on all {len(targets)} other platforms agree in position but differ from "
            "this one: the input is misaligned, not they"
        )
        yield warning(source.name, problem, "register it again", "input misaligned")


def _judge(where: str, platform: str, comparison: ScanComparison) -> Iterator[Finding]:
    found = comparison.displacement
    if found is None:
        return
    if found.correlation < SURE:
        how = f"resembles {platform} less than scans of one head do"
        if found.correlation < LEAST_CORRELATION:
            how = f"hardly resembles {platform}"
        problem = f"{how} (correlation {found.correlation:.2f} when aligned)"
        advice = (
            "make sure that both show one subject, have the same corrections, and have brain masks"
        )
        yield warning(where, problem, advice, "unlike input")
    if comparison.too_far:
        accuracy = f", ± {MISALIGNMENT_ACCURACY} mm"
        problem = (
            f"{found.lies(platform, comparison.input_lattice, accuracy)}, more than "
            f"{MISALIGNMENT_LIMIT:g} voxel: a network learns this as a scanner difference"
        )
        yield warning(where, problem, "register the scans again", "misaligned")


def check_lattice(source: ScanSummary, target: ScanSummary) -> Iterator[Finding]:
    """Compare a target's lattice with the node-aligned one that a network outputs for the input."""
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
        own = f"is aligned with {source.platform} but has its own voxel grid"
        yield Finding("note", target.where, f"{own}: training interpolates it, measures do not")
        return
    if found.shape != wanted.shape:
        shapes = (" × ".join(map(str, each.shape)) for each in (found, wanted))
        reason = "it has {} voxels, not {}".format(*shapes)
    else:
        reason = f"its voxels lie up to {found.offset_to(wanted):.2f} voxels away"
    problem = (
        f"is not on the voxel grid that a network of scale {scale} predicts from {source.platform} "
        f"({reason}): training resamples it, which smooths it"
    )
    yield warning(target.where, problem, "reslice it from the original in one step", "lattice")


# --- Among those of its platform ---------------------------------------------------------------

OUTLYING = 3.5
"""Distance from the median, in robust standard deviations (1.4826 median absolute deviations),
from which a scan is an outlier (Iglewicz 1993)."""

FEWEST = 3
"""Scans of a platform from which a median says more than its scans do (our choice)."""


Value = Callable[[ScanSummary], float | None]

Side = Literal["low", "high", "both"]


@dataclass(frozen=True)
class ScanMeasure:
    """A quantity by which the scans of one platform are compared.

    Attributes
    ----------
    side
        Side on which outliers are reported.
    spread
        Smallest robust standard deviation. That of few or very similar scans is too small by
        chance, and differences too small to matter would stand out (our choice).
    relative
        Whether `spread` is a share of the median.
    """

    name: str
    value: Value
    side: Side
    spread: float
    form: str
    remedy: str
    relative: bool = False


def _dice(scan: ScanSummary) -> float | None:
    return scan.comparison.dice if scan.comparison else None


def _correlation(scan: ScanSummary) -> float | None:
    found = scan.comparison.displacement if scan.comparison else None
    return found.correlation if found else None


def _quality(name: str) -> Value:
    read: Value = attrgetter(f"quality.{name}")
    return lambda scan: read(scan) if scan.quality else None


def _first_cnr(scan: ScanSummary) -> float | None:
    return next(iter(scan.quality.cnr.values()), None) if scan.quality else None


AGAIN, STILL = "register the scan again", "correct the scan for motion"
MASK = "look at the mask"
PROCESSED = "look for motion and artefacts, and for processing that the others did not get"
NOISY = "look for noise, motion and artefacts"
OF_ANOTHER = "look for artefacts, and make sure that it is of this subject"
BOTH_MASKS = "look at its mask and the input's, and at the alignment"
GHOSTLY = "have the scanner's ghost correction checked"

ADULTS = 0.1
"""Share by which adults' brains vary in size."""

MEASURES = (
    ScanMeasure("displacement", measured_distance, "high", 0.1, "{:.2f} voxels", AGAIN),
    ScanMeasure("mask overlap", _dice, "low", 0.01, "Dice {:.2f}", BOTH_MASKS),
    ScanMeasure("correlation", _correlation, "low", 0.01, "{:.3f}", OF_ANOTHER),
    ScanMeasure("mask volume", attrgetter("mask_ml"), "both", ADULTS, "{:.0f} ml", MASK, True),
    ScanMeasure("SNR", _quality("snr"), "both", 0.1, "{:.1f}", PROCESSED, relative=True),
    ScanMeasure("NDC", _quality("ndc"), "low", 0.02, "{:.2f}", NOISY),
    ScanMeasure("CNR", _first_cnr, "low", 0.1, "{:.2f}", NOISY, relative=True),
    ScanMeasure("framewise displacement", _quality("framewise"), "high", 0.2, "{:.2f} mm", STILL),
    ScanMeasure("ghost", _quality("ghost"), "high", 0.003, "{:.3f}", GHOSTLY),
)
"""All compared quantities; the smallest spreads are our choice."""


def check_outliers(scans: Sequence[ScanSummary]) -> Iterator[Finding]:
    """Compare each scan with the others of its platform."""
    for of_platform in by_platform(scans).values():
        for measure in MEASURES:
            yield from _outlying(measure, of_platform)


def check_platforms(scans: Sequence[ScanSummary], input_platform: str) -> Iterator[Finding]:
    """Look for platforms that as a whole are displaced from the input."""
    for platform, of_platform in by_platform(scans).items():
        distances = [each for each in map(measured_distance, of_platform) if each is not None]
        if len(distances) >= FEWEST and np.median(distances) > MISALIGNMENT_LIMIT:
            problem = (
                f"is {np.median(distances):.1f} voxels from {input_platform} (median of "
                f"{len(distances)} subjects)"
            )
            advice = "leave the platform out or register it again"
            yield warning(platform, problem, advice, "platform misaligned")


def by_platform(scans: Sequence[ScanSummary]) -> dict[str, list[ScanSummary]]:
    """Group scans by platform, platforms in order."""
    platforms = sorted({scan.platform for scan in scans})
    return {name: [scan for scan in scans if scan.platform == name] for name in platforms}


def _outlying(measure: ScanMeasure, scans: Sequence[ScanSummary]) -> Iterator[Finding]:
    """Compare the scans of one platform by one quantity."""
    known = {scan.name: value for scan in scans if (value := measure.value(scan)) is not None}
    if len(known) < FEWEST:
        return
    values = np.array(list(known.values()))
    median = float(np.median(values))
    least = measure.spread * (median if measure.relative else 1.0)
    reach = OUTLYING * max(float(scipy.stats.median_abs_deviation(values, scale="normal")), least)
    for where, value in known.items():
        below = measure.side != "high" and value < median - reach
        above = measure.side != "low" and value > median + reach
        if below or above:
            limit = median - reach if below else median + reach
            own, usual, most = (measure.form.format(each) for each in (value, median, limit))
            problem = (
                f"{measure.name} stands out on {scans[0].platform}: {own}, median of {len(known)} "
                f"subjects {usual}, limit {most}"
            )
            flag = f"{measure.name} {'low' if below else 'high'}"
            yield warning(where, problem, measure.remedy, flag)
