"""Agreement of scanners: published tables, sums by hand, and false positives at their rate."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from napari_msp.evaluation.proof.agreement import agreement, identify, intraclass_correlation
from napari_msp.evaluation.statistics import permutation_tests

SHROUT = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
"""Four judges' ratings of six targets, Table 2 of Shrout and Fleiss."""


def test_icc_is_that_of_the_published_table():
    icc, interval = intraclass_correlation(SHROUT)
    assert icc == pytest.approx(0.29, abs=0.005)  # ICC(2,1) there
    # pingouin 0.7.0 gives 0.289764 [0.02, 0.76], and R's psych 0.29 [0.019, 0.761].
    assert icc == pytest.approx(0.289764, abs=1e-6)
    assert interval == pytest.approx((0.0188, 0.7611), abs=5e-4)


def test_icc_of_two_scanners_is_pingouins():
    first = [0.197, 0.341, -0.286, -1.428, -1.215, -1.728, -0.447, 1.403, -1.499, -0.64]
    second = [0.444, 0.227, 0.304, -0.774, -0.67, -0.786, 0.469, 1.565, -0.408, -0.275]
    found = agreement(first, second)
    assert found.icc == pytest.approx(0.764817796392127, abs=1e-12)  # of pingouin 0.7.0
    assert found.icc_interval == pytest.approx((-0.05, 0.95), abs=0.005)  # which rounds these


def test_icc_where_nothing_varies_or_everything_agrees():
    same = np.array([[1.0, 1], [2, 2], [3, 3]])
    assert intraclass_correlation(same) == (1.0, None)
    assert intraclass_correlation(np.ones((4, 2))) == (None, None)
    assert intraclass_correlation(np.full((4, 2), 0.1) * [1, 1 + 1e-16]) == (None, None)
    assert intraclass_correlation(same[:1]) == intraclass_correlation(same[:2]) == (None, None)


@pytest.mark.filterwarnings("error")
def test_three_subjects_who_hardly_agree_have_no_interval_that_is_not_finite():
    icc, interval = intraclass_correlation(np.array([[0.0, 4], [3, 2], [0, 4]]))
    assert icc == pytest.approx(-4 / 7)
    assert interval is None


def test_bland_altman_by_hand_on_ten_numbers():
    found = agreement([12, 11, 14, 10, 13], [10, 10, 12, 11, 12])
    # Differences 2, 1, 2, -1, 1: mean 1, squares about it 1, 0, 1, 4, 0 sum to 6, variance 6/4.
    assert found.bias == pytest.approx(1.0)
    assert found.difference_sd == pytest.approx(np.sqrt(1.5))
    assert found.limits == pytest.approx((1 - 1.96 * 1.224745, 1 + 1.96 * 1.224745))
    # t(4) at 97.5 % is 2.776445; the standard error is √(1.5 / 5).
    assert found.bias_interval == pytest.approx(
        (1 - 2.776445 * np.sqrt(0.3), 1 + 2.776445 * np.sqrt(0.3))
    )
    assert found.mean_difference == pytest.approx(7 / 5)
    assert found.bias_percent == pytest.approx(100 / 11)
    # Target: mean 11, squares 1, 1, 1, 0, 1, variance 1. Values: mean 12, squares 0, 1, 4, 4, 1.
    assert found.effect == pytest.approx(1.0)
    assert found.variance_kept == pytest.approx(250.0)
    shares = [2 / 11, 1 / 10.5, 2 / 13, 1 / 10.5, 1 / 12.5]
    assert found.variation == pytest.approx(100 * np.sqrt(np.square(shares).sum() / 2 / 5))


def test_one_subject_and_constant_maps_have_no_invented_numbers():
    one = agreement([2.0], [1.0])
    assert (one.bias, one.mean_difference) == (1.0, 1.0)
    nothing = (one.limits, one.icc, one.effect, one.bias_interval, one.variance_kept)
    assert nothing == (None,) * 5
    # Two do not say how much subjects differ, as in Table 1; of three it is Student's.
    two = agreement([2.0, 4.0], [1.0, 2.0])
    assert (two.bias_interval, two.limits) == (None, None)
    three = agreement([2.0, 4.0, 4.0], [1.0, 2.0, 3.5])
    student = ttest_1samp([1.0, 2.0, 0.5], 0).confidence_interval()
    assert three.bias_interval == pytest.approx((student.low, student.high))
    constant = agreement([0.5, 0.5, 0.5], [0.1, 0.1, 0.1])
    assert (constant.effect, constant.variance_kept) == (None, None)
    below_0 = agreement([-1.0, 1.0], [-1.0, 1.0])
    assert (below_0.variation, below_0.bias_percent) == (None, None)
    with pytest.raises(ValueError, match="finite"):
        agreement([np.nan], [1.0])


def test_permutations_are_counted_out():
    d = np.array([[1.0], [2], [3], [4], [5], [6]])
    (found,) = permutation_tests(d)
    assert (found.p_value, found.corrected_p_value, found.smallest) == (2 / 64, 2 / 64, 2 / 64)
    (mixed,) = permutation_tests(d * [[1], [1], [1], [1], [1], [-1]])
    # Sums that are as large as 9: of 64 flips those that take away 6 or less from 21.
    away = [sum(c for b, c in enumerate(range(1, 7)) if n >> b & 1) for n in range(64)]
    assert mixed.p_value == sum(abs(21 - 2 * each) >= 9 for each in away) / 64
    assert permutation_tests(d[:5]) == [None]  # too few
    assert permutation_tests(np.zeros((8, 1))) == [None]


def test_whoever_lacks_a_value_is_left_out_of_that_test_alone():
    d = np.random.default_rng(0).normal(1, 1, (8, 2))
    d[:2, 1] = np.nan
    both = permutation_tests(d)
    assert [each.subjects for each in both] == [8, 6]
    assert both[0].p_value == permutation_tests(d[:, :1])[0].p_value
    assert both[1].p_value == permutation_tests(d[2:, 1:])[0].p_value
    assert both[1].corrected_p_value >= both[1].p_value


def test_false_positives_come_at_their_nominal_rate():
    rng = np.random.default_rng(4)
    studies, tested, corrected = 400, 0, 0
    for _ in range(studies):
        shared = rng.normal(size=(8, 1))  # quantities of one brain hang together
        found = permutation_tests(rng.normal(size=(8, 10)) + shared)
        tested += found[0].p_value <= 0.05
        corrected += any(each.corrected_p_value <= 0.05 for each in found)
    # Of 256 flips 12 are the most that make 0.05: 0.047. Two standard deviations are 0.022.
    assert tested / studies == pytest.approx(0.047, abs=0.022)
    assert corrected / studies == pytest.approx(0.047, abs=0.022)


def test_drawn_flips_never_give_a_p_of_0():
    (found,) = permutation_tests(np.full((20, 1), 1.0) + np.arange(20)[:, None] * 1e-3)
    assert 0 < found.p_value <= 0.001
    assert not found.exact
    assert found.p_value >= found.smallest


def test_nearly_constant_differences_give_the_smallest_p_and_not_0():
    rng = np.random.default_rng(3)
    for people in (6, 8, 12, 20):
        for scatter in (0.0, 1e-16, 1e-12, 1e-9, 1e-7, 1e-5):
            d = 0.1 + scatter * rng.normal(size=(people, 5))
            d[0, 4] = np.nan if people > 6 else d[0, 4]
            found = permutation_tests(d)
            assert all(each.p_value == each.smallest for each in found)
            # Flips of who lacks the last value are as good as none: others share its largest |t|.
            assert {each.corrected_p_value / found[0].smallest for each in found} <= {1, 2}
    # |t| of all flips, by scipy.
    d = rng.normal(0.5, 1, (7, 3))
    signs = np.array(list(product((1, -1), repeat=7)))
    flips = np.abs(ttest_1samp(signs[:, :, None] * d, 0, axis=1).statistic)
    for column, each in enumerate(permutation_tests(d)):
        t = flips[0, column] * (1 - 1e-9)
        assert each.p_value == (flips[:, column] >= t).mean()
        assert each.corrected_p_value == (flips.max(axis=1) >= t).mean()


def test_subjects_are_told_apart_by_their_own_scans():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(10, 6))
    assert identify(truth + 0.05 * rng.normal(size=truth.shape), truth).right == 10
    mean = np.tile(truth.mean(axis=0), (10, 1))
    blurred = identify(mean, truth)
    assert blurred.right == 1
    tied = identify(np.zeros((2, 1)), np.array([[1.0], [-1.0]]))
    assert tied.right == 1
    assert identify(truth[:1], truth[:1]) is None
    assert identify(np.ones((3, 1)), np.ones((3, 1))) is None
    truth[0, 0] = np.nan
    assert identify(truth, truth).quantities == 5
