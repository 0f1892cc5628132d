"""Agreement of two scanners on the same people: one number per person, region and quantity.

Everything is paired by subject: `values` are of a scan or prediction, `truth` of the target's own
scans of the same subjects. Numbers that cannot be computed are None, never 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.statistics import (
    CONFIDENCE,
    FOR_INTERVAL,
    Interval,
    students_interval,
)

LIMITS = 1.96
"""Half-width of the limits of agreement in standard deviations (Bland 1986)."""

ROUNDING = 1e-12
"""Spread, relative to the size of values, below which they count as constant."""


# --- One quantity in one region ---------------------------------------------------------------


@dataclass(frozen=True)
class ScanAgreement:
    """Agreement of some subjects' values with those of the target's scans.

    Attributes
    ----------
    truth_mean, mean
        Means over subjects, of the target's scans and of what is compared with them.
    bias
        Mean difference, positive if above the target's scans.
    bias_interval
        Student's interval; None for fewer than `FOR_INTERVAL` subjects, and so are limits.
    difference_sd
        Standard deviation of the differences, with N - 1.
    limits
        Limits of agreement: bias ± 1.96 standard deviations (Bland 1986).
    mean_difference
        Mean absolute difference.
    variation
        Coefficient of variation between scanners in percent: root mean square over subjects of the
        standard deviation of a subject's two values over their mean.
    icc
        Intraclass correlation ICC(A,1): absolute agreement of single scans (McGraw 1996).
    effect
        Bias over the standard deviation between subjects on the target (Glass's Δ): size of the
        scanner's effect relative to the differences between people.
    variance_kept
        Variance between subjects in percent of that of the target's scans. Like `effect`, None for
        fewer than three subjects.
    """

    subjects: int
    truth_mean: float
    mean: float
    bias: float
    bias_interval: Interval | None
    difference_sd: float | None
    limits: Interval | None
    mean_difference: float
    variation: float | None
    icc: float | None
    icc_interval: Interval | None
    effect: float | None
    variance_kept: float | None

    @property
    def bias_percent(self) -> float | None:
        """Bias in percent of the target's mean; None if that is not positive."""
        return 100 * self.bias / self.truth_mean if self.truth_mean > 0 else None

    @property
    def interval_percent(self) -> Interval | None:
        """95 % confidence interval of the bias in percent of the target's mean."""
        if self.bias_interval is None or self.truth_mean <= 0:
            return None
        low, high = (100 * end / self.truth_mean for end in self.bias_interval)
        return low, high


def agreement(values: Sequence[float], truth: Sequence[float]) -> ScanAgreement:
    """Compare (N,) values with those of the same subjects in the target's scans; at least one."""
    a, b = np.asarray(values, dtype=float), np.asarray(truth, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"paired values must be two lists of one length, not {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("values must be finite")
    n, difference = len(a), a - b
    bias = float(difference.mean())
    spread = float(difference.std(ddof=1)) if n > 1 else None
    limits = None
    if spread is not None and n >= FOR_INTERVAL:
        limits = bias - LIMITS * spread, bias + LIMITS * spread
    of_people = _spread(b) if n >= FOR_INTERVAL else None  # two do not show how people differ
    icc, icc_interval = intraclass_correlation(np.column_stack([a, b]))
    return ScanAgreement(
        subjects=n,
        truth_mean=float(b.mean()),
        mean=float(a.mean()),
        bias=bias,
        bias_interval=students_interval(bias, difference - bias),
        difference_sd=spread,
        limits=limits,
        mean_difference=float(np.abs(difference).mean()),
        variation=_variation(a, b),
        icc=icc,
        icc_interval=icc_interval,
        effect=None if of_people is None else bias / of_people,
        variance_kept=None if of_people is None else 100 * float(a.var(ddof=1)) / of_people**2,
    )


def _spread(values: FloatArray) -> float | None:
    """Return the standard deviation between subjects; None for one, and for constant values."""
    if len(values) < 2:
        return None
    spread = float(values.std(ddof=1))
    return spread if spread > ROUNDING * float(np.abs(values).max()) else None


def _variation(first: FloatArray, second: FloatArray) -> float | None:
    means = (first + second) / 2
    if not (means > 0).all():
        return None
    # The standard deviation of two values is their distance over the root of two.
    squares = np.square((first - second) / means) / 2
    return 100 * float(np.sqrt(squares.mean()))


def intraclass_correlation(ratings: FloatArray) -> tuple[float | None, Interval | None]:
    """Return ICC(A,1), for single scans and absolute agreement, with its interval (McGraw 1996).

    Two-way, both subjects and scanners random; Shrout 1979 calls it ICC(2,1).

    Parameters
    ----------
    ratings
        (N, K): N subjects on K scanners.

    Returns
    -------
    The coefficient and its 95 % confidence interval. Both are None for fewer than three subjects
    (of two it may be any number) or where nothing varies; the interval is None where the scanners
    agree to the last bit, or an end is not finite, as with three subjects who hardly agree.
    """
    n, k = ratings.shape
    if n < 3 or k < 2:
        return None, None
    grand = ratings.mean()
    rows, columns = ratings.mean(axis=1), ratings.mean(axis=0)
    of_rows = k * np.square(rows - grand).sum() / (n - 1)
    of_columns = n * np.square(columns - grand).sum() / (k - 1)
    residuals = ratings - rows[:, None] - columns + grand
    error = np.square(residuals).sum() / ((n - 1) * (k - 1))
    tiny = np.square(ROUNDING * np.abs(ratings).max())
    whole = of_rows + (k - 1) * error + k * (of_columns - error) / n
    if whole <= tiny:
        return None, None
    icc = float((of_rows - error) / whole)
    if error <= tiny:
        return icc, None
    ratio = of_columns / error
    known = n * (1 + (k - 1) * icc) - k * icc
    scale = (n - 1) * k**2 * icc**2 * ratio**2 + np.square(known)
    if scale == 0:
        return icc, None
    freedom = (k - 1) * (n - 1) * np.square(k * icc * ratio + known) / scale
    tail = (1 + CONFIDENCE) / 2
    upper = scipy.stats.f.ppf(tail, n - 1, freedom)
    lower = scipy.stats.f.ppf(tail, freedom, n - 1)
    others = k * of_columns + (k * n - k - n) * error
    with np.errstate(over="ignore", invalid="ignore"):
        low = float(n * (of_rows - upper * error) / (upper * others + n * of_rows))
        high = float(n * (lower * of_rows - error) / (others + n * lower * of_rows))
    return icc, (low, high) if np.isfinite([low, high]).all() else None


# --- Who is who -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identified:
    """How well subjects are identified by their predictions.

    Attributes
    ----------
    quantities
        Number of quantities in which they were compared.
    right
        Number of subjects whose own target scan is nearest; ties count fractionally. A site effect
        larger than the differences between people prevents identification.
    right_unbiased
        The same after the mean over subjects was subtracted from both: how distinct people remain
        whatever the site effect.
    """

    subjects: int
    quantities: int
    right: float
    right_unbiased: float


def identify(values: FloatArray, truth: FloatArray) -> Identified | None:
    """Find for each subject the target scan that is nearest in all quantities together.

    As in identification by connectome (Finn 2015), everyone is compared with everyone. In each
    quantity the target scans are ranked by their distance; the one with the lowest mean rank is
    nearest. A quantity that varies wildly, as in a few voxels of fluid, thus cannot decide for all
    (our choice).

    Parameters
    ----------
    values, truth
        (N, K) of the same subjects; quantities that a subject lacks, or in which the target's scans
        do not differ, are left out.

    Returns
    -------
    The counts; None for one subject, or if no quantity is left.
    """
    there = np.isfinite(values).all(axis=0) & np.isfinite(truth).all(axis=0)
    varies = [_spread(column) is not None for column in np.where(np.isfinite(truth), truth, 0).T]
    usable = there & np.array(varies)
    if len(values) < 2 or not usable.any():
        return None
    a, b = values[:, usable], truth[:, usable]
    unbiased = _told_right(a - a.mean(axis=0), b - b.mean(axis=0))
    return Identified(len(values), int(usable.sum()), _told_right(a, b), unbiased)


def _told_right(values: FloatArray, truth: FloatArray) -> float:
    """Count subjects whose own scan has the lowest mean rank; ties count fractionally."""
    ranks = scipy.stats.rankdata(np.abs(values[:, None] - truth[None]), axis=1).mean(axis=-1)
    nearest = ranks <= ranks.min(axis=1, keepdims=True) + 1e-9
    return float(np.where(np.diag(nearest), 1 / nearest.sum(axis=1), 0.0).sum())
