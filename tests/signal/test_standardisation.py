"""Standardisation of coefficients over a platform's subjects."""

import numpy as np
import pytest

from napari_msp.signal.channels import Standardisation, measure_standardisation
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import rotate


@pytest.fixture
def subjects(series):
    """Three SH images with masks of their own and rubbish outside."""
    images = []
    for seed in range(3):
        coefficients = series(5 * 6 * 7, seed=seed).reshape(5, 6, 7, 28) + 0.1
        mask = np.random.default_rng(seed).random((5, 6, 7)) < 0.6
        coefficients[~mask] = 1000
        images.append(SHImage(coefficients.astype(np.float32), np.eye(4), mask))
    return images


def inside(images):
    return np.concatenate([image.coefficients[image.mask] for image in images]).astype(float)


def test_per_channel_is_mean_and_deviation_over_all_in_mask_voxels(subjects):
    measured = measure_standardisation(subjects, per_order=False)
    np.testing.assert_allclose(measured.mean, inside(subjects).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(measured.deviation, inside(subjects).std(axis=0), rtol=1e-5)


def test_per_order_centres_l_0_only_and_shares_the_deviation(subjects):
    measured = measure_standardisation(subjects, per_order=True)
    values = inside(subjects)
    np.testing.assert_allclose(measured.mean[0], values[:, 0].mean(), rtol=1e-5)
    np.testing.assert_array_equal(measured.mean[1:], 0)
    np.testing.assert_allclose(measured.deviation[0], values[:, 0].std(), rtol=1e-5)
    for part in (slice(1, 6), slice(6, 15), slice(15, 28)):
        expected = np.sqrt(np.square(values[:, part]).mean())
        np.testing.assert_allclose(measured.deviation[part], expected, rtol=1e-5)


def test_standardised_channels_have_no_mean_and_unit_spread(subjects):
    measured = measure_standardisation(subjects, per_order=False)
    channels = np.concatenate([measured.apply(image)[image.mask] for image in subjects])
    np.testing.assert_allclose(channels.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(channels.std(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("per_order", [False, True])
def test_outside_the_mask_channels_are_0(subjects, per_order):
    measured = measure_standardisation(subjects, per_order)
    for image in subjects:
        assert (measured.apply(image)[~image.mask] == 0).all()


@pytest.mark.parametrize("per_order", [False, True])
def test_undoing_gives_the_coefficients_back(subjects, per_order):
    measured = measure_standardisation(subjects, per_order)
    for image in subjects:
        back = measured.undo(measured.apply(image))
        np.testing.assert_allclose(
            back[image.mask], image.coefficients[image.mask], rtol=1e-5, atol=1e-6
        )


def test_per_order_commutes_with_rotation_and_per_channel_does_not(subjects, turns):
    image = subjects[0]
    turned = SHImage(rotate(image.coefficients, turns[0]), image.affine, image.mask)

    def gap(per_order):
        measured = measure_standardisation(subjects, per_order)
        after = rotate(measured.apply(image), turns[0])
        return np.abs(measured.apply(turned) - after)[image.mask].max()

    assert gap(per_order=True) < 1e-4
    assert gap(per_order=False) > 0.1


def test_a_rotated_cohort_has_the_same_per_order_measure(subjects, turns):
    turned = [
        SHImage(rotate(image.coefficients, turns[1]), image.affine, image.mask)
        for image in subjects
    ]
    before, after = (measure_standardisation(s, per_order=True) for s in (subjects, turned))
    np.testing.assert_allclose(after.mean, before.mean, rtol=1e-5)
    np.testing.assert_allclose(after.deviation, before.deviation, rtol=1e-5)


def test_images_may_come_one_at_a_time(subjects):
    listed = measure_standardisation(subjects, per_order=False)
    streamed = measure_standardisation(iter(subjects), per_order=False)
    np.testing.assert_array_equal(streamed.mean, listed.mean)


def test_json_is_a_round_trip(subjects):
    measured = measure_standardisation(subjects, per_order=True)
    again = Standardisation.from_json(measured.to_json())
    np.testing.assert_array_equal(again.mean, measured.mean)
    np.testing.assert_array_equal(again.deviation, measured.deviation)


def test_a_constant_channel_does_not_divide_by_0():
    image = SHImage(np.full((2, 2, 2, 28), 0.5, np.float32), np.eye(4), np.ones((2, 2, 2), bool))
    measured = measure_standardisation([image], per_order=False)
    assert np.isfinite(measured.apply(image)).all()


def test_nothing_in_the_mask_is_an_error():
    empty = SHImage(np.ones((2, 2, 2, 28), np.float32), np.eye(4), np.zeros((2, 2, 2), bool))
    with pytest.raises(ValueError, match="no in-mask voxel"):
        measure_standardisation([empty], per_order=False)
