"""Statistics: paired tests as in the paper, permutations, effect sizes, intervals, agreement.

Tests are Wilcoxon's signed-rank test with Bonferroni's correction. Intervals are over subjects:
Student's t for a few, else a bootstrap with fixed random numbers, so that a table's stay the same.
Raters agree by Cohen's kappa of each two, Fleiss' of three or more: 0 by chance, 1 fully.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from napari_msp.arrays import FloatArray
from napari_msp.formatting import counted

EXACT_LIMIT = 50
"""Largest number of pairs for an exact null distribution; for more it is taken as normal."""

LEVEL = 0.05
"""Level below which a corrected p-value is called significant."""

CONFIDENCE = 0.95

RESAMPLES = 5000
"""Draws of a bootstrap (our choice)."""

FOR_INTERVAL = 3
"""Smallest number of subjects for an interval: two do not show how subjects differ (ours)."""

FOR_BOOTSTRAP = 6
"""Smallest number of subjects for a bootstrap, which is too narrow for few: the one of two holds
the mean half the time. For fewer subjects the interval is Student's (our choice)."""

FEWEST = 6
"""Smallest number of subjects for a test: five give no p below 0.06 (our choice)."""

EXACT_SUBJECTS = 12
"""Largest number of subjects whose sign flips are all counted; else `FLIPS` are drawn (ours)."""

FLIPS = 10_000

ROUNDING = 1e-12
"""Relative difference below which two sums count as equal."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon's signed-rank test of two lists of paired errors.

    Attributes
    ----------
    unequal
        Number of pairs whose errors differ; only they enter the test.
    p_value
        Two-sided p-value, not corrected; None if no pair differs, so that there is nothing to test.
    corrected_p_value
        The same after Bonferroni; None if `p_value` is, or as long as nothing was corrected.
    median_difference
        Median of first minus second error, in the errors' unit; None without pairs.
    rank_biserial
        Effect size (W⁺ - W⁻) / (W⁺ + W⁻) in [-1, 1], from the sums of ranks where the first is
        larger and where it is smaller; -1: smaller in every pair.
    """

    pairs: int
    unequal: int
    p_value: float | None
    corrected_p_value: float | None
    median_difference: float | None
    rank_biserial: float | None
    note: str


def wilcoxon(
    first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray
) -> PairedTest:
    """Test whether paired errors differ: Wilcoxon's signed-rank test, two-sided.

    Pairs without difference are left out (Wilcoxon's own rule); tied differences share their mean
    rank. Up to `EXACT_LIMIT` pairs, the distribution over all sign flips of these ranks is counted,
    so that ties are exact too; above, it is normal with the tie-corrected variance Σ rank² / 4 and
    no continuity correction.

    Parameters
    ----------
    first, second
        (N,) errors of the same samples in the same order.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"paired errors must be two lists of one length, not {a.shape}, {b.shape}")
    difference = a - b
    if not np.isfinite(difference).all():
        raise ValueError("errors must be finite")
    median = float(np.median(difference)) if len(difference) else None
    moved = difference[difference != 0]
    if len(moved) == 0:
        note = "no pair differs" if len(difference) else "no pairs"
        return PairedTest(len(difference), 0, None, None, median, None, note)
    ranks = scipy.stats.rankdata(np.abs(moved))
    positive = float(ranks[moved > 0].sum())
    total = float(ranks.sum())
    p_value = _exact(ranks, positive) if len(moved) <= EXACT_LIMIT else _normal(ranks, positive)
    effect, note = (2 * positive - total) / total, _power_note(len(moved), 1)
    return PairedTest(len(difference), len(moved), p_value, None, median, effect, note)


def bonferroni(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Multiply every p-value by the number of possible tests, up to 1 (Bonferroni).

    The note says if this number of pairs could not reach `LEVEL` whatever their values.
    """
    family = sum(test.p_value is not None for test in tests)
    return [
        test
        if test.p_value is None
        else replace(
            test,
            corrected_p_value=min(1.0, test.p_value * family),
            note=_power_note(test.unequal, family),
        )
        for test in tests
    ]


def _exact(ranks: FloatArray, positive: float) -> float:
    """Return the share of the ranks' sign flips that lie as far from the middle as `positive`."""
    # Mean ranks end in .0 or .5: doubled they are whole, and can index a table.
    doubled = np.round(2 * ranks).astype(int)
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] = ways[rank:] + ways[: len(ways) - rank]
    reached = round(2 * positive)
    low, high = ways[: reached + 1].sum(), ways[reached:].sum()
    return float(min(1.0, 2 * min(low, high) / ways.sum()))


def _normal(ranks: FloatArray, positive: float) -> float:
    deviation = np.sqrt(np.square(ranks).sum() / 4)
    return float(2 * scipy.stats.norm.sf(abs(positive - ranks.sum() / 2) / deviation))


def _power_note(pairs: int, family: int) -> str:
    """Return a note if no outcome of this number of pairs can reach `LEVEL`."""
    smallest = family * 2.0 ** (1 - pairs)
    if smallest <= LEVEL:
        return ""
    few = f"{counted(pairs, 'unequal pair')} {'is' if pairs == 1 else 'are'} too few"
    return f"{few}: the smallest p-value that can come of it is {min(1.0, smallest):.2g}"


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the interval of the mean of one value per subject, see `interval_name`.

    None for fewer than `FOR_INTERVAL` subjects.
    """
    if len(values) < FOR_INTERVAL:
        return None
    if len(values) < FOR_BOOTSTRAP:
        return students_interval(float(np.mean(values)), np.asarray(values) - np.mean(values))
    return _middle(_drawn_means(values)[0])


def change_interval(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """Return the interval of `relative_change` in percent, see `ratio_interval`.

    None for fewer than `FOR_INTERVAL` subjects, and if a value of `second` is not above 0.
    """
    ends = ratio_interval(first, second) if min(second, default=0) > 0 else None
    return None if ends is None else (100 * (ends[0] - 1), 100 * (ends[1] - 1))


def ratio_interval(
    first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray
) -> Interval | None:
    """Return the interval of the ratio of two means, drawn by subject: pairs stay together.

    Both have one value per subject, in the same order. Student's interval, for few subjects, is
    linear in what each adds. See `interval_name`; None for fewer than `FOR_INTERVAL` subjects.
    """
    if len(first) < FOR_BOOTSTRAP:
        a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
        ratio = float(a.mean() / b.mean())
        return students_interval(ratio, (a - ratio * b) / b.mean())
    above, below = _drawn_means(first, second)
    return _middle(above / below)


def students_interval(estimate: float, deviations: FloatArray) -> Interval | None:
    """Return Student's interval of an estimate; None for fewer than `FOR_INTERVAL` subjects.

    Deviations are (N,) differences of the subjects' own values from the estimate.
    """
    n = len(deviations)
    if n < FOR_INTERVAL:
        return None
    error = float(np.sqrt(np.square(deviations).sum() / (n * (n - 1))))
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return estimate - reach, estimate + reach


def interval_name(subjects: Iterable[int], of: str = "subjects") -> str:
    """Return the name of intervals over these subject counts, say "95 % bootstrap interval"."""
    counts = [each for each in subjects if each >= FOR_INTERVAL]
    if not counts:
        return f"no interval of fewer than {FOR_INTERVAL} {of}"
    if min(counts) >= FOR_BOOTSTRAP:
        return "95 % bootstrap interval"
    if max(counts) < FOR_BOOTSTRAP:
        return "95 % interval, Student's t"
    return f"95 % interval: bootstrap, of fewer than {FOR_BOOTSTRAP} {of} Student's t"


def relative_change(
    first: Sequence[float] | float, second: Sequence[float] | float
) -> float | None:
    """Return how far the mean of `first` exceeds `second`'s in percent; None where that is 0."""
    if not np.mean(second) > 0:
        return None
    return float(100 * (np.mean(first) / np.mean(second) - 1))


def _drawn_means(*samples: Sequence[float] | FloatArray) -> FloatArray:
    """Return (S, RESAMPLES) means of samples whose subjects are redrawn, alike for all samples."""
    n = len(samples[0])
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    return np.array([np.asarray(each, dtype=float)[drawn].mean(axis=1) for each in samples])


def _middle(estimates: FloatArray) -> Interval:
    """Return the ends of the middle 95 % of a bootstrap's estimates."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(low), float(high)


def nested_interval(datasets: Sequence[Sequence[float]]) -> Interval | None:
    """Return the interval of the mean of datasets' means, drawing datasets, then their subjects.

    Each dataset has one value per subject. See `interval_name`, for numbers of datasets; None for
    fewer than `FOR_INTERVAL`: they do not show how datasets differ.
    """
    if len(datasets) < FOR_INTERVAL:
        return None
    if len(datasets) < FOR_BOOTSTRAP:
        own = np.array([np.mean(values) for values in datasets])
        return students_interval(float(own.mean()), own - own.mean())
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(datasets), size=(RESAMPLES, len(datasets)))
    means = np.empty(drawn.shape)
    for number, values in enumerate(datasets):
        of = drawn == number
        subjects = rng.integers(len(values), size=(int(of.sum()), len(values)))
        means[of] = np.asarray(values, dtype=float)[subjects].mean(axis=1)
    return _middle(means.mean(axis=1))


# --- Tests ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PermutationTest:
    """A permutation test by subject.

    Attributes
    ----------
    p_value
        Two-sided p-value of this quantity alone.
    corrected_p_value
        The same, corrected by the largest |t| of all quantities tested together (Westfall 1993,
        Nichols 2002).
    smallest
        Smallest p-value that this number of subjects can give.
    exact
        Whether all sign flips were counted.
    """

    subjects: int
    p_value: float
    corrected_p_value: float
    smallest: float
    exact: bool


def permutation_tests(differences: FloatArray) -> list[PermutationTest | None]:
    """Test whether paired differences are 0 on average, by flipping the signs of whole subjects.

    Without an effect, a subject's two values are exchangeable, in all quantities at once. The
    statistic is Student's t. The correction for multiple tests allows for correlated quantities:
    each |t| is compared with the largest |t| of all under every flip.

    Parameters
    ----------
    differences
        (N, K): N subjects, K quantities tested together; nan where a subject has no value.

    Returns
    -------
    list
        A test per quantity; None for fewer than `FEWEST` subjects, or if all differences are 0, so
        that there is nothing to test.
    """
    there = np.isfinite(differences)
    counts = there.sum(axis=0)
    d = np.where(there, differences, 0.0)
    tested = (counts >= FEWEST) & (np.abs(d).max(axis=0, initial=0.0) > 0)
    found: list[PermutationTest | None] = [None] * differences.shape[1]
    if not tested.any():
        return found
    d, counts = d[:, tested], counts[tested]
    taking_part = d[there[:, tested].any(axis=1)]
    signs, exact = _sign_flips(len(taking_part))
    sums = np.abs(signs @ taking_part)
    # For one quantity |t| grows with the sum. Equal up to rounding counts as reached.
    reached = sums >= sums[0] - ROUNDING * np.abs(taking_part).sum(axis=0)
    flipped = _t(sums, taking_part, counts)
    largest = flipped.max(axis=1)
    for column, where in enumerate(np.flatnonzero(tested)):
        smallest = max(2.0 ** (1 - int(counts[column])), 0.0 if exact else 1 / len(signs))
        p_value = max(float(reached[:, column].mean()), smallest)
        above = float((largest >= flipped[0, column] * (1 - 1e-9)).mean())
        # The correction never lowers a p-value, whatever rounding does to a huge |t|.
        found[where] = PermutationTest(
            int(counts[column]), p_value, max(above, p_value), smallest, exact
        )
    return found


def _sign_flips(subjects: int) -> tuple[FloatArray, bool]:
    """Return (F, N) signs, the first of which change nothing: all there are, or drawn ones.

    Opposite signs give the same |t|, so one of the two stands for both.
    """
    if subjects <= EXACT_SUBJECTS:
        numbers = np.arange(2 ** (subjects - 1))[:, None]
        return np.where(numbers >> np.arange(subjects) & 1, -1.0, 1.0), True
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, subjects))
    signs[0] = 1.0
    return signs, False


def _t(sums: FloatArray, d: FloatArray, counts: FloatArray) -> FloatArray:
    """Return (F, K) |t| of flipped differences with these sums; nan is 0 in `d`."""
    squares = np.square(d).sum(axis=0)  # flips change no square
    left = 1 - np.square(sums) / (counts * squares)
    # All differences equal and of one sign: the clearest case, without a division by 0.
    return np.asarray(np.sqrt((counts - 1) * (1 / np.maximum(left, ROUNDING) - 1)))


# --- Agreement of raters -------------------------------------------------------------------------

CONFIDENT = 1.959964
"""Half-width of a 95 % interval in standard errors."""

NO_ERROR = 1e-6
"""Error below which it is 0 but for rounding, and means nothing."""


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance, with its large-sample error (Fleiss, Cohen and Everitt 1969).

    `value` is None if nothing is rated, or all verdicts are the same; `error` if it is unknown.
    `observed` and `expected` are the shares of agreement, seen and by chance.
    """

    value: float | None
    error: float | None
    observed: float
    expected: float
    count: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval, within [-1, 1].

        Without disagreement the large-sample error is 0, for two ratings as for a thousand: the low
        end is then that of the share of agreement (Clopper and Pearson), at the same chance. There
        is none with full disagreement, nor for two predictions with some.
        """
        if self.value is None or self.error is None:
            return None
        if math.isclose(self.observed, 1):
            share = (0.05 / 2) ** (1 / self.count)
            return max(-1.0, (share - self.expected) / (1 - self.expected)), 1.0
        if self.error < NO_ERROR or self.count < FOR_INTERVAL:
            return None
        low, high = (self.value + sign * CONFIDENT * self.error for sign in (-1, 1))
        return max(-1.0, low), min(1.0, high)


def cohens_kappa(table: FloatArray | Sequence[Sequence[float]], weighted: bool = False) -> Kappa:
    """Return the kappa of two raters (Cohen 1960).

    Parameters
    ----------
    table
        (C, C) counts: the first rater chose the row's and the second the column's category.
    weighted
        Whether half-way apart counts half (linear weights), for ordered categories.

    Examples
    --------
    >>> round(cohens_kappa([[20, 5], [10, 15]]).value, 3)
    0.4
    """
    counts = np.asarray(table, dtype=float)
    total, size = counts.sum(), len(counts)
    if total == 0:
        return Kappa(None, None, 0.0, 0.0, 0)
    shares = counts / total
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    places = np.arange(size)
    weights = 1 - np.abs(places[:, None] - places) / max(1, size - 1) if weighted else np.eye(size)
    observed = float((weights * shares).sum())
    expected = float((weights * np.outer(rows, columns)).sum())
    if math.isclose(expected, 1):
        return Kappa(None, None, observed, expected, int(total))
    value = (observed - expected) / (1 - expected)
    # Fleiss, Cohen and Everitt 1969: weights' means over the other rater's categories.
    of_rows, of_columns = weights @ columns, rows @ weights
    deviations = weights - (of_rows[:, None] + of_columns) * (1 - value)
    variance = (shares * deviations**2).sum() - (value - expected * (1 - value)) ** 2
    error = math.sqrt(max(0.0, float(variance)) / total) / (1 - expected)
    return Kappa(value, error, observed, expected, int(total))


def fleiss_kappa(counts: FloatArray | Sequence[Sequence[float]]) -> Kappa:
    """Return the kappa of several raters (Fleiss 1971).

    (N, C) counts: how many raters, the same number for each, put each item into each category.
    """
    given = np.asarray(counts, dtype=float)
    if given.size == 0:
        return Kappa(None, None, 0.0, 0.0, 0)
    raters = given.sum(axis=1)
    if raters.min() != raters.max() or raters[0] < 2:
        raise ValueError("each must be rated by the same number of raters, two or more")
    number = float(raters[0])
    observed = float(((given**2).sum(axis=1) - number).mean() / (number * (number - 1)))
    expected = float(np.square(given.sum(axis=0) / given.sum()).sum())
    if math.isclose(expected, 1):
        return Kappa(None, None, observed, expected, len(given))
    value = (observed - expected) / (1 - expected)
    return Kappa(value, None, observed, expected, len(given))
