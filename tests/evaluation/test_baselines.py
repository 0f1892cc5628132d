"""Each baseline recovers exactly the difference that it can describe."""

from dataclasses import replace

import numpy as np
import pytest

from napari_msp.evaluation.alignment import on_lattice
from napari_msp.evaluation.baselines import Interpolation, LinearRISH, StatisticalAlignment


def with_coefficients(image, coefficients, **changes):
    masked = np.where(image.mask[..., None], coefficients, 0).astype(np.float32)
    return replace(image, coefficients=masked, **changes)


@pytest.fixture
def training(head):
    rng = np.random.default_rng(2)
    return [
        with_coefficients(image, image.coefficients + rng.normal(0, 0.1, image.coefficients.shape))
        for image in (head("RAS"), head("LAS"))
    ]


def test_interpolation_changes_nothing_but_the_lattice(head, lattice, training):
    image, target = head(), lattice("RAS").refined(2)
    predicted = Interpolation().fit(training, training).predict(image, target)
    assert np.array_equal(predicted.coefficients, on_lattice(image, target).coefficients)
    assert predicted.b_value == image.b_value


def test_statistical_alignment_recovers_a_gain_and_offset_per_coefficient(head, training):
    rng = np.random.default_rng(4)
    gain, offset = rng.uniform(0.5, 2, 28), rng.normal(0, 0.2, 28)
    targets = [
        with_coefficients(image, image.coefficients * gain + offset, regularisation=0.012)
        for image in training
    ]
    new = with_coefficients(head(), 3 * head().coefficients)  # has other statistics of its own
    predicted = StatisticalAlignment().fit(training, targets).predict(new, new.lattice)
    expected = new.coefficients[new.mask] * gain + offset
    np.testing.assert_allclose(predicted.coefficients[new.mask], expected, atol=2e-5)
    assert not predicted.coefficients[~new.mask].any()
    assert predicted.regularisation == 0.012


def test_linear_rish_recovers_a_scale_per_order(head, training):
    scale = np.repeat([0.9, 1.3, 0.6, 2.0], [1, 5, 9, 13])
    targets = [
        with_coefficients(image, image.coefficients * scale, b_value=1190.0) for image in training
    ]
    predicted = LinearRISH().fit(training, targets).predict(head(), head().lattice)
    np.testing.assert_allclose(predicted.coefficients, head().coefficients * scale, atol=1e-5)
    assert predicted.b_value == 1190.0


def test_linear_rish_cannot_turn_or_shift(head, training):
    flipped = [with_coefficients(image, -image.coefficients) for image in training]
    predicted = LinearRISH().fit(training, flipped).predict(head(), head().lattice)
    np.testing.assert_allclose(predicted.coefficients, head().coefficients, atol=1e-6)


@pytest.mark.parametrize("baseline", [StatisticalAlignment, LinearRISH])
def test_the_target_lattice_and_the_order_of_calls(baseline, head, lattice, training):
    with pytest.raises(RuntimeError, match="fit"):
        baseline().predict(head(), lattice("RAS"))
    with pytest.raises(ValueError, match="pairs"):
        baseline().fit(training, training[:1])
    with pytest.raises(ValueError, match="pairs"):
        baseline().fit([], [])
    fine = lattice("RAS").refined(2)
    predicted = baseline().fit(training, training).predict(head("permuted"), fine)
    wanted = on_lattice(head("permuted"), fine)
    np.testing.assert_allclose(predicted.coefficients, wanted.coefficients, atol=2e-5)
