"""Wilcoxon's test against every sign flip, against SciPy, and against a published example."""

import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.stats

from napari_msp.evaluation.statistics import (
    bonferroni,
    change_interval,
    interval_name,
    mean_interval,
    nested_interval,
    relative_change,
    wilcoxon,
)


def by_enumeration(difference):
    """Two-sided p-value over all 2ⁿ signs, from the definition."""
    moved = [d for d in difference if d != 0]
    size = [abs(d) for d in moved]
    ranks = [sum(o < s for o in size) + (sum(o == s for o in size) + 1) / 2 for s in size]
    observed = sum(r for r, d in zip(ranks, moved, strict=True) if d > 0)
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign)
        for signs in product((0, 1), repeat=len(ranks))
    ]
    low = sum(s <= observed for s in sums)
    high = sum(s >= observed for s in sums)
    return observed, min(1.0, 2 * min(low, high) / len(sums))


@pytest.mark.parametrize(
    "difference",
    [
        [1, 2, 3, 4, 5, 6, 7, -8],
        [1, 1, 2, -2, 3, 0, 0, 4, 4, -4],  # ties and pairs without difference
        [5, 5, 5, 5, 5, 5],
        [-0.5, 2.5, 2.5, -1.0, 0.25],
    ],
)
def test_small_samples_are_exact_with_ties_and_zeros(difference):
    first = np.array(difference, dtype=float)
    test = wilcoxon(first, np.zeros(len(first)))
    positive, p_value = by_enumeration(difference)
    ranks = test.unequal * (test.unequal + 1) / 2
    assert test.rank_biserial == pytest.approx((2 * positive - ranks) / ranks)
    assert test.p_value == pytest.approx(p_value, rel=1e-12)
    assert test.unequal == sum(d != 0 for d in difference)
    assert test.median_difference == np.median(difference)


@pytest.mark.reference("Hollander & Wolfe 1973")
def test_the_depression_scores_of_hollander_and_wolfe():
    # The example of R's wilcox.test: V = 40, one-sided p = 0.01953.
    before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    test = wilcoxon(before, after)
    assert test.p_value == pytest.approx(2 * 0.01953, abs=1e-5)
    assert test.rank_biserial == pytest.approx((40 - 5) / 45)


@pytest.mark.reference("SciPy")
@pytest.mark.parametrize("pairs", [7, 25, 50, 51, 300])
def test_agrees_with_scipy(pairs):
    rng = np.random.default_rng(pairs)
    first, second = rng.normal(0.1, 1, pairs), rng.normal(0, 1, pairs)
    method: Any = "exact" if pairs <= 50 else "asymptotic"
    expected = scipy.stats.wilcoxon(first, second, method=method, correction=False)
    assert wilcoxon(first, second).p_value == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.reference("SciPy")
def test_agrees_with_scipy_on_many_ties():
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 5, 200).astype(float), rng.integers(0, 6, 200).astype(float)
    method: Any = "asymptotic"  # as SciPy calls it today, its stubs not yet
    expected = scipy.stats.wilcoxon(first, second, method=method, correction=False)
    assert wilcoxon(first, second).p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_the_effect_points_to_the_smaller_error():
    assert wilcoxon([1, 2, 3], [2, 4, 6]).rank_biserial == -1
    assert wilcoxon([2, 4, 6], [1, 2, 3]).rank_biserial == 1


def test_nothing_to_test_is_said_and_is_no_p_value():
    same = wilcoxon([1.0, 2.0], [1.0, 2.0])
    assert (same.p_value, same.rank_biserial, same.note) == (None, None, "no pair differs")
    assert same.median_difference == 0
    none = wilcoxon([], [])
    assert (none.p_value, none.median_difference, none.note) == (None, None, "no pairs")
    assert bonferroni([same])[0].corrected_p_value is None


def test_too_few_pairs_are_called_so():
    five = wilcoxon([1, 2, 3, 4, 5], [0] * 5)
    assert five.p_value == 2 / 2**5
    assert "5 unequal pairs are too few" in five.note
    assert "1 unequal pair is too few" in wilcoxon([1.0], [2.0]).note
    assert "0.062" in five.note
    assert wilcoxon([1, 2, 3, 4, 5, 6], [0] * 6).note == ""


def test_bonferroni_counts_the_tests_that_were_made():
    tests = [
        wilcoxon(np.arange(1.0, 9), np.zeros(8)),  # p = 2/256
        wilcoxon([3, -1, 2, -4], [0] * 4),
        wilcoxon([1.0], [1.0]),  # nothing to test, does not count
    ]
    corrected = bonferroni(tests)
    assert corrected[0].corrected_p_value == 2 * 2 / 256
    assert corrected[1].corrected_p_value == 1
    assert corrected[2].corrected_p_value is None
    six = wilcoxon([1, 2, 3, 4, 5, 6], [0] * 6)
    assert "too few" in bonferroni([six, six])[0].note  # 2 · 2/64 > 0.05


@pytest.mark.parametrize(("first", "second"), [([1, 2], [1]), ([np.nan], [1.0])])
def test_unpaired_or_broken_errors_are_refused(first, second):
    with pytest.raises(ValueError, match=r"one length|finite"):
        wilcoxon(first, second)


def test_too_few_have_no_interval():
    assert [mean_interval([]), mean_interval([1, 2]), nested_interval([])] == [None] * 3


@pytest.mark.reference("SciPy")
def test_the_interval_of_a_mean_is_near_students():
    values = np.random.default_rng(3).normal(5, 1, 200)
    interval = mean_interval(list(values))
    assert interval is not None
    low, high = interval
    expected = scipy.stats.t.interval(0.95, 199, values.mean(), scipy.stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.02)
    assert (low, high) == mean_interval(list(values))  # the random numbers are fixed


def test_the_interval_of_a_change_keeps_pairs_together():
    # Subjects differ by far more than methods: unpaired draws would give some ±20 %.
    second = np.geomspace(1, 4, 12)
    first = second * 0.9 * np.random.default_rng(0).uniform(0.99, 1.01, 12)
    interval = change_interval(list(first), list(second))
    assert interval is not None
    low, high = interval
    change = relative_change(list(first), list(second))
    assert change is not None
    assert low < change < high
    assert -10.7 < low < high < -9.3
    draws = np.random.default_rng(7).integers(0, 12, (4000, 12))
    ratios = 100 * (first[draws].mean(axis=1) / second[draws].mean(axis=1) - 1)
    assert (low, high) == pytest.approx(np.percentile(ratios, [2.5, 97.5]), abs=0.05)


def test_no_change_is_relative_to_no_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert relative_change([1.0, 2.0], [0.0, 0.0]) is None
        assert change_interval([1.0, 2.0], [0.0, 0.0]) is None
        assert relative_change([1.0, 2.0], [0.0, 1.0]) == 200
        assert change_interval([1.0, 2.0], [0.0, 1.0]) is None  # some draws have no error


def test_constant_values_have_an_interval_without_width():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
        assert change_interval([1.0] * 3, [2.0] * 3) == (-50.0, -50.0)
        assert change_interval([1.0] * 6, [2.0] * 6) == (-50.0, -50.0)


@pytest.mark.reference("SciPy")
@pytest.mark.parametrize("count", [3, 5])
def test_a_few_subjects_have_students_interval_which_holds_what_it_says(count):
    values = np.random.default_rng(1).normal(5, 1, (2000, count))
    found = np.array([mean_interval(list(each)) for each in values])
    expected = scipy.stats.t.interval(
        0.95, count - 1, values.mean(axis=1), scipy.stats.sem(values, axis=1)
    )
    np.testing.assert_allclose(found.T, np.array(expected))
    # A bootstrap of three holds the mean in three of four studies at most.
    assert np.mean((found[:, 0] < 5) & (found[:, 1] > 5)) == pytest.approx(0.95, abs=0.015)
    second = np.random.default_rng(2).normal(50, 5, (2000, count))
    first = 0.8 * second + values - 5
    found = np.array(
        [change_interval(list(a), list(b)) for a, b in zip(first, second, strict=True)]
    )
    assert np.mean((found[:, 0] < -20) & (found[:, 1] > -20)) == pytest.approx(0.95, abs=0.015)
    sets = [[each - 1, each + 1] for each in values[0]]
    assert nested_interval(sets) == pytest.approx(mean_interval(list(values[0])))


def test_two_subjects_have_no_interval():
    assert mean_interval([46.3, 71.3]) is None
    assert change_interval([46.3, 71.3], [150.0, 200.0]) is None
    assert nested_interval([[1.0, 2.0], [3.0, 5.0]]) is None
    assert interval_name([2]) == "no interval of fewer than 3 subjects"
    assert interval_name([2, 4]) == "95 % interval, Student's t"
    assert interval_name([10]) == "95 % bootstrap interval"
    for given in ([4, 9], iter([4, 9])):  # as cells of a table are gone through
        assert "bootstrap, of fewer than 6 heads Student's t" in interval_name(given, "heads")
    assert interval_name(iter([10])) == "95 % bootstrap interval"
