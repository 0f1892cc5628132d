"""Recovered effects against arithmetic and SciPy's bootstrap."""

import numpy as np
import pytest
import scipy.stats
from recovery import platform_difference, recovery


def test_a_scaled_effect_is_recovered_by_its_scale():
    true = np.array([-0.03, -0.02, -0.025, -0.04])
    result = recovery(true, 0.8 * true)
    assert (result.ratio, result.low, result.high) == pytest.approx((0.8, 0.8, 0.8))
    assert result.to_json()["heads"] == 4


@pytest.mark.reference("scipy")
def test_interval_is_scipys_percentile_bootstrap():
    rng = np.random.default_rng(1)
    true = rng.normal(-0.03, 0.004, 9)
    recovered = 0.9 * true + rng.normal(0, 0.004, 9)
    result = recovery(true, recovered)
    ours = result.low, result.high
    assert result.ratio == pytest.approx(recovered.mean() / true.mean())
    reference = scipy.stats.bootstrap(
        (recovered, true),
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
    ).confidence_interval
    assert ours == pytest.approx(tuple(reference), abs=0.1 * (result.high - result.low))


@pytest.mark.parametrize(
    "effects", [([0.1], [0.1]), ([0.1, -0.1], [0.1, 0.2]), ([0.1, 0.2], [np.nan, 0.1])]
)
def test_without_an_effect_there_is_no_ratio(effects):
    with pytest.raises(ValueError, match="effect"):
        recovery(*effects)


def test_platform_difference_is_measured_in_the_region():
    rng = np.random.default_rng(2)
    truth = rng.random((10, 10, 10))
    region = np.zeros(truth.shape, bool)
    region[2:8] = True
    target, rescan = (truth + rng.normal(0, 0.02, truth.shape) for _ in range(2))
    shifted = truth + 0.1
    shifted[~region] = 99
    result = platform_difference(shifted, truth, target, rescan, region)
    assert result.before == pytest.approx(np.hypot(0.1, 0.02), rel=0.05)
    assert result.after == pytest.approx(0.02, rel=0.1)
    assert result.rescan == pytest.approx(0.02 * np.sqrt(2), rel=0.1)
    assert result.bias_before == pytest.approx(0.1, abs=0.005)
    assert abs(result.bias_after) < 0.005
    assert set(result.to_json()) == {
        "before", "after", "rescan", "bias_before", "bias_after", "bias_rescan"
    }  # fmt: skip
