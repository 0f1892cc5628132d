"""What error is expected, against laws that are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from napari_msp.signal.expected_error import error_features, expected_error, fit_error_model
from napari_msp.signal.sh_image import SHImage


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.fixture
def image(rng) -> SHImage:
    """A ball of smooth coefficients."""
    at = np.moveaxis(np.indices((12, 13, 11)), 0, -1) - 5.5
    coefficients = np.cos(at @ rng.normal(0, 0.1, (3, 28)) + 0.3) / np.sqrt(1 + np.arange(28))
    mask = np.linalg.norm(at, axis=-1) < 5.2
    values = np.where(mask[..., None], coefficients, 0).astype(np.float32)
    return SHImage(values, np.eye(4), mask)


def test_error_model_finds_a_law_and_tells_it_on_new_voxels(rng):
    features = rng.normal(-8, [1.0, 2.0, 0.5], (8000, 3))
    law = np.exp(features[:, 0] - 0.3 * (features[:, 1] + 8) ** 2)
    error = law * rng.gamma(5.0, 0.2, len(law))
    model = fit_error_model(features[:4000], error[:4000])
    inside = (np.abs(features[4000:] + 8) < [2.9, 5.8, 1.4]).all(axis=1)
    said, true = model(features[4000:])[inside], law[4000:][inside]
    # The geometric mean of that gamma distribution lies a tenth below its mean.
    np.testing.assert_allclose(np.median(said / true), 0.9, atol=0.03)
    assert np.corrcoef(np.log(said), np.log(true))[0, 1] > 0.999
    # Far outside what was seen the parabola is not followed.
    far, near = model(np.array([[-8.0, 500.0, -8.0], [-8.0, -2.0, -8.0]]))
    assert far >= 0.5 * near


def test_features_are_orders_of_prediction_slope_and_spread(image):
    inside = image.mask
    spread = np.zeros((*inside.shape, 4), dtype=np.float32)
    spread[..., 1] = 0.1
    features = error_features(image, spread)
    assert features.shape == (inside.sum(), 12)
    np.testing.assert_allclose(np.exp(features[:, 9]), 0.01, rtol=1e-3)
    np.testing.assert_allclose(np.exp(features[:, [8, 10, 11]]), 1e-9, rtol=0.1)
    for number, part in enumerate((slice(0, 1), slice(1, 6), slice(6, 15), slice(15, 28))):
        np.testing.assert_allclose(
            np.exp(features[:, number]),
            np.square(image.coefficients[inside][:, part]).mean(axis=1),
            rtol=1e-3,
            atol=2e-9,
        )
    # No step across the mask's edge counts.
    assert np.exp(features[:, 4]).max() < 0.1 < np.exp(features[:, 0]).min()
    np.testing.assert_array_equal(error_features(image), features[:, :8])


def test_slopes_are_mean_squared_steps_to_both_neighbours(image):
    ramp = np.zeros_like(image.coefficients)
    ramp[..., 0] = np.arange(ramp.shape[0])[:, None, None] * 0.5
    ramp[~image.mask] = 0
    core = binary_erosion(image.mask)[image.mask]
    slopes = np.exp(error_features(replace(image, coefficients=ramp))[:, 4])
    np.testing.assert_allclose(slopes[core], 0.25, rtol=1e-4)


def test_expected_errors_stand_at_their_voxels(image):
    features = error_features(image)
    model = fit_error_model(features, np.exp(features[:, 0]))
    expected = expected_error(model, image, None)
    assert expected.shape == image.mask.shape
    assert (expected[~image.mask] == 0).all()
    off = expected[image.mask] / np.exp(features[:, 0]) - 1
    assert np.quantile(np.abs(off), 0.9) < 0.05  # features beyond REACH are held there


def test_it_can_be_ended(image):
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        error_features(image, check=stop)
