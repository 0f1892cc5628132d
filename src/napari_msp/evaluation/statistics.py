"""Statistics of errors: paired tests as in the paper, permutations, effect sizes, intervals.

Tests are Wilcoxon's signed-rank test with Bonferroni's correction. Intervals are over subjects:
Student's t of a few, else a bootstrap with fixed random numbers: one table, one interval.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from napari_msp.arrays import FloatArray
from napari_msp.formatting import counted

EXACT_LIMIT = 50
"""Up to this many pairs the null distribution is counted out, above it is taken as normal."""

LEVEL = 0.05
"""Level below which a corrected p-value is called significant."""

CONFIDENCE = 0.95

RESAMPLES = 5000
"""Draws of a bootstrap (our choice)."""

FOR_INTERVAL = 3
"""Subjects from whom there is an interval: two do not say how much subjects differ (our choice)."""

FOR_BOOTSTRAP = 6
"""Subjects from whom it is a bootstrap's, which of a few is no wider than they are: the one of
two has the mean in it half the time. Of fewer it is Student's (our choice)."""

FEWEST = 6
"""Subjects without whom nothing is tested: five give no p below 0.06 (our choice)."""

EXACT_SUBJECTS = 12
"""Up to so many subjects all sign flips are counted; beyond, `FLIPS` are drawn (our choice)."""

FLIPS = 10_000

ROUNDING = 1e-12
"""Part of a sum below which two are taken as equal."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon's signed-rank test of two lists of paired errors.

    Attributes
    ----------
    unequal
        Those whose errors differ; only they enter the test.
    p_value
        Two-sided, not corrected; None where no pair differs: there is nothing to test.
    corrected_p_value
        After Bonferroni; None where `p_value` is, or while nothing was corrected.
    median_difference
        Median of first minus second error, in the errors' unit; None without pairs.
    rank_biserial
        Effect size (W⁺ - W⁻) / (W⁺ + W⁻) in [-1, 1], of sums of ranks where the first is larger and
        where it is smaller; -1: in every pair.
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

    Pairs without difference are left out (Wilcoxon's own rule), tied differences share their mean
    rank. Up to `EXACT_LIMIT` pairs the distribution over all sign flips of these very ranks is
    counted, so ties are exact too; above, it is normal with the tie-corrected variance
    Σ rank² / 4 and no continuity correction.

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
    return PairedTest(
        len(difference),
        len(moved),
        p_value,
        None,
        median,
        (2 * positive - total) / total,
        _power_note(len(moved), 1),
    )


def bonferroni(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Multiply every p-value by the number of tests that were possible, up to 1 (Bonferroni).

    The note says where so few pairs could not have reached `LEVEL` whatever their values.
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
    """Count the sign flips of the ranks that lie as far from the middle as `positive`."""
    # Mean ranks end in .0 or .5: doubled they are whole and can index a table.
    doubled = np.round(2 * ranks).astype(int)
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1
    for rank in doubled:
        with_rank = np.zeros_like(ways)
        with_rank[rank:] = ways[: len(ways) - rank]
        ways += with_rank
    reached = round(2 * positive)
    low, high = ways[: reached + 1].sum(), ways[reached:].sum()
    return float(min(1.0, 2 * min(low, high) / ways.sum()))


def _normal(ranks: FloatArray, positive: float) -> float:
    deviation = np.sqrt(np.square(ranks).sum() / 4)
    return float(2 * scipy.stats.norm.sf(abs(positive - ranks.sum() / 2) / deviation))


def _power_note(pairs: int, family: int) -> str:
    """Say when no outcome of so few pairs can reach `LEVEL`."""
    smallest = family * 2.0 ** (1 - pairs)
    if smallest <= LEVEL:
        return ""
    few = f"{counted(pairs, 'unequal pair')} {'is' if pairs == 1 else 'are'} too few"
    return f"{few}: the smallest p-value that can come of it is {min(1.0, smallest):.2g}"


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Interval of the mean of one value a subject, see `interval_name`.

    None for fewer than `FOR_INTERVAL` subjects.
    """
    if len(values) < FOR_INTERVAL:
        return None
    if len(values) < FOR_BOOTSTRAP:
        return students_interval(float(np.mean(values)), np.asarray(values) - np.mean(values))
    return _middle(_drawn_means(values)[0])


def change_interval(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """Interval of `relative_change` in percent, see `ratio_interval`.

    None for fewer than `FOR_INTERVAL` subjects, and where a value of `second` is not above 0.
    """
    ends = ratio_interval(first, second) if min(second, default=0) > 0 else None
    return None if ends is None else (100 * (ends[0] - 1), 100 * (ends[1] - 1))


def ratio_interval(
    first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray
) -> Interval | None:
    """Interval of the ratio of two means, drawn subject by subject: pairs stay together.

    Student's, of few subjects, is linear in what each of them adds. Both have one value a subject,
    in one order. See `interval_name`; None for fewer than `FOR_INTERVAL` subjects.
    """
    if len(first) < FOR_BOOTSTRAP:
        a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
        ratio = float(a.mean() / b.mean())
        return students_interval(ratio, (a - ratio * b) / b.mean())
    above, below = _drawn_means(first, second)
    return _middle(above / below)


def students_interval(estimate: float, deviations: FloatArray) -> Interval | None:
    """Give Student's interval of an estimate; None for fewer than `FOR_INTERVAL` subjects.

    Deviations are (N,): by how much each subject's own value differs from the estimate.
    """
    n = len(deviations)
    if n < FOR_INTERVAL:
        return None
    error = float(np.sqrt(np.square(deviations).sum() / (n * (n - 1))))
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return estimate - reach, estimate + reach


def interval_name(subjects: Iterable[int], of: str = "subjects") -> str:
    """Name the intervals of so many subjects each, such as "95 % bootstrap interval"."""
    counts = [each for each in subjects if each >= FOR_INTERVAL]
    if not counts:
        return f"no interval of fewer than {FOR_INTERVAL} {of}"
    if min(counts) >= FOR_BOOTSTRAP:
        return "95 % bootstrap interval"
    if max(counts) < FOR_BOOTSTRAP:
        return "95 % interval, Student's t"
    return f"95 % interval: bootstrap, of fewer than {FOR_BOOTSTRAP} {of} Student's t"


def relative_change(first: Sequence[float], second: Sequence[float]) -> float | None:
    """By how many percent the mean of `first` exceeds that of `second`; None where that is 0."""
    if not np.mean(second) > 0:
        return None
    return float(100 * (np.mean(first) / np.mean(second) - 1))


def _drawn_means(*samples: Sequence[float] | FloatArray) -> FloatArray:
    """(S, RESAMPLES) means of samples whose subjects are drawn anew, the same for all samples."""
    n = len(samples[0])
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    return np.array([np.asarray(each, dtype=float)[drawn].mean(axis=1) for each in samples])


def _middle(estimates: FloatArray) -> Interval:
    """Give the ends between which the middle 95 % of a bootstrap's estimates lie."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(low), float(high)


def nested_interval(datasets: Sequence[Sequence[float]]) -> Interval | None:
    """Interval of the mean of datasets' means, where datasets are drawn first, then their subjects.

    Each dataset has one value a subject. See `interval_name`, of so many datasets; None for fewer
    than `FOR_INTERVAL`: they do not say how datasets differ.
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
        Two-sided, of this quantity alone.
    corrected_p_value
        By the largest |t| of all that were tested together (Westfall 1993, Nichols 2002).
    smallest
        The smallest p-value that so few subjects can give.
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

    Without an effect a subject's two values may be exchanged, in all quantities at once. The
    statistic is Student's t. The correction for testing many allows for how they hang together:
    it compares each |t| with the largest |t| of all under every flip.

    Parameters
    ----------
    differences
        (N, K): N subjects, K quantities tested together; nan where a subject has none.

    Returns
    -------
    list
        One a quantity; None for fewer than `FEWEST` subjects, or where no difference differs
        from 0: there is nothing to test.
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
    # Of one quantity |t| grows with the sum. Equal up to rounding counts as reached.
    reached = sums >= sums[0] - ROUNDING * np.abs(taking_part).sum(axis=0)
    flipped = _t(sums, taking_part, counts)
    largest = flipped.max(axis=1)
    for column, where in enumerate(np.flatnonzero(tested)):
        smallest = max(2.0 ** (1 - int(counts[column])), 0.0 if exact else 1 / len(signs))
        p_value = max(float(reached[:, column].mean()), smallest)
        above = float((largest >= flipped[0, column] * (1 - 1e-9)).mean())
        # All testing together gives no smaller one, whatever rounding does to a huge |t|.
        found[where] = PermutationTest(
            int(counts[column]), p_value, max(above, p_value), smallest, exact
        )
    return found


def _sign_flips(subjects: int) -> tuple[FloatArray, bool]:
    """Give (F, N) signs, of which the first change nothing: all there are, or drawn ones.

    Of two that are each other's opposites, and so have one |t|, one stands for both.
    """
    if subjects <= EXACT_SUBJECTS:
        numbers = np.arange(2 ** (subjects - 1))[:, None]
        return np.where(numbers >> np.arange(subjects) & 1, -1.0, 1.0), True
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, subjects))
    signs[0] = 1.0
    return signs, False


def _t(sums: FloatArray, d: FloatArray, counts: FloatArray) -> FloatArray:
    """(F, K) |t| of flipped differences that have these sums; nan is 0 in `d`."""
    squares = np.square(d).sum(axis=0)  # flips change no square
    left = 1 - np.square(sums) / (counts * squares)
    # All differences equal and of one sign: as clear as flips can say, and no division by 0.
    return np.asarray(np.sqrt((counts - 1) * (1 / np.maximum(left, ROUNDING) - 1)))
