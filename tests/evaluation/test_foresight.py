"""Predictors of error against definitions, SciPy and heads whose errors are known."""

import numpy as np
import pytest
import scipy.stats
from foresight import (
    auroc,
    edge_distance,
    favourable_sign,
    foresight,
    gradient_magnitude,
    reliability,
)

from napari_msp.data.lattice import Lattice


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def test_a_predictor_that_ranks_as_the_error_does_is_perfect(rng):
    error = rng.gamma(0.5, size=(8, 9, 10))
    mask = rng.random(error.shape) < 0.7
    perfect = foresight(np.where(mask, np.log(error), 1e6), error, mask)
    assert perfect.spearman == pytest.approx(1)
    assert perfect.auroc == 1
    assert perfect.voxels == mask.sum()
    assert foresight(-error, error, mask).auroc == 0
    nothing = foresight(rng.random(error.shape), error, mask)
    assert abs(nothing.spearman) < 0.15
    assert abs(nothing.auroc - 0.5) < 0.2
    assert favourable_sign([perfect, nothing]) == 1
    assert favourable_sign([foresight(-error, error, mask)]) == -1


@pytest.mark.reference("scipy")
def test_auroc_is_mann_and_whitneys_statistic(rng):
    """Scores rounded, so that there are ties."""
    score, positive = np.round(rng.normal(size=300), 1), rng.random(300) < 0.05
    u = scipy.stats.mannwhitneyu(score[positive], score[~positive]).statistic
    assert auroc(score, positive) == pytest.approx(u / positive.sum() / (~positive).sum())
    pairs = score[positive][:, None] - score[~positive][None]
    assert auroc(score, positive) == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)


def test_what_cannot_be_ranked_is_refused(rng):
    error, everywhere = rng.random((3, 3, 3)), np.ones((3, 3, 3), bool)
    with pytest.raises(ValueError, match="vary"):
        foresight(np.ones_like(error), error, everywhere)
    with pytest.raises(ValueError, match="vary"):
        foresight(error, error, ~everywhere)
    with pytest.raises(ValueError, match="finite"):
        foresight(np.full_like(error, np.nan), error, everywhere)


def test_gradient_is_the_slope_of_the_image_in_mm(head, lattice, positions):
    image = head("permuted")
    slopes = np.array([0.01, -0.02, 0.03])
    image.coefficients[:] = (1 + positions(image.lattice) @ slopes)[..., None]
    image.coefficients[~image.mask] = 0
    finer = lattice("RAS").refined(2)
    found = gradient_magnitude(image, finer)
    assert found.shape == finer.shape
    deep = np.square(positions(finer) / [14.0, 18.0, 10.0]).sum(-1) < 1
    np.testing.assert_allclose(found[deep], np.linalg.norm(slopes), rtol=1e-4)
    # The fall to 0 beyond the mask is no slope of the image.
    inside = np.square(positions(finer) / [19.0, 23.0, 16.0]).sum(-1) < 1
    assert found[inside].max() < 2 * np.linalg.norm(slopes)  # the fall itself is 0.2 and more


def test_distance_to_the_edge_is_in_mm():
    mask = np.zeros((7, 9, 5), bool)
    mask[1:6, 1:8, :] = True
    distance = edge_distance(mask, Lattice(mask.shape, np.diag([2.0, 1.0, 3.0, 1.0])))
    assert distance[3, 4, 2] == 4
    assert distance[1, 4, 2] == 2
    assert not distance[~mask].any()


def test_reliability_compares_what_was_said_with_what_came(rng):
    expected = rng.gamma(2.0, size=1000)
    said, came = reliability(expected, 3 * expected).T
    assert (np.diff(said) > 0).all() and len(said) == 10
    np.testing.assert_allclose(came, 3 * said)
    assert said.mean() == pytest.approx(expected.mean())
