"""Means over subjects, their intervals and spreads: by hand, and against SciPy."""

import warnings

import numpy as np
import pytest
import scipy.stats

from napari_msp.evaluation.benchmark.analysis import summarise
from napari_msp.evaluation.benchmark.results import FLOOR, Result, Results
from napari_msp.evaluation.statistics import change_interval, mean_interval, relative_change

# Two subjects; the first dataset with three seeds, the second with the first seed only.
VALUES = {
    ("one", 0): (1.0, 3.0),
    ("one", 1): (2.0, 4.0),
    ("one", 2): (6.0, 8.0),
    ("two", 0): (10.0, 12.0),
}


def cross(gain=1.0, method="MSP", values=VALUES):
    return [
        Result(method, "t", dataset, seed, subject, "scan", "m", gain * value)
        for (dataset, seed), pair in values.items()
        for subject, value in zip(("sub-01", "sub-02"), pair, strict=True)
    ]


def test_a_subject_counts_once_however_often_it_was_predicted():
    summary = summarise(Results(cross()))["MSP", "t", "scan", "m"]
    subjects = [3.0, 5.0, 10.0, 12.0]  # averaged over seeds first
    assert summary.subjects == 4
    assert summary.mean == pytest.approx(7.5)
    assert summary.deviation == pytest.approx(np.std(subjects, ddof=1))
    assert summary.interval == mean_interval(subjects)


def test_spreads_are_taken_where_runs_can_be_compared():
    summary = summarise(Results(cross()))["MSP", "t", "scan", "m"]
    assert (summary.datasets, summary.seeds) == (2, 3)
    assert summary.dataset_spread == pytest.approx(np.std([2, 11], ddof=1))  # at seed 0
    assert summary.seed_spread == pytest.approx(np.std([2, 3, 7], ddof=1))  # on dataset "one"


def test_spreads_do_not_hang_on_the_order_of_runs():
    turned = dict(reversed(VALUES.items()))
    one, other = (summarise(Results(cross(values=v))) for v in (VALUES, turned))
    key = ("MSP", "t", "scan", "m")
    assert one[key].dataset_spread == other[key].dataset_spread
    assert one[key].seed_spread == other[key].seed_spread


def test_one_run_has_no_spread_and_one_subject_no_interval():
    summary = summarise(Results(cross()[:1]))["MSP", "t", "scan", "m"]
    assert summary.mean == 1
    for nothing in (
        summary.deviation,
        summary.interval,
        summary.dataset_spread,
        summary.seed_spread,
    ):
        assert nothing is None


def test_the_best_is_nearest_to_zero_and_no_floor():
    rows = cross() + cross(-0.5, "biased") + cross(0.1, FLOOR)
    best = {key[0]: summary.best for key, summary in summarise(Results(rows)).items()}
    assert best == {"MSP": False, "biased": True, FLOOR: False}


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
    assert low < relative_change(list(first), list(second)) < high
    assert -10.7 < low < high < -9.3
    draws = np.random.default_rng(7).integers(0, 12, (4000, 12))
    ratios = 100 * (first[draws].mean(axis=1) / second[draws].mean(axis=1) - 1)
    assert (low, high) == pytest.approx(np.percentile(ratios, [2.5, 97.5]), abs=0.05)


def test_constant_values_have_an_interval_without_width():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
        assert change_interval([1.0, 1.0], [2.0, 2.0]) == (-50.0, -50.0)
