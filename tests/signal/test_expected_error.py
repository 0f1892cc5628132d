"""What error is expected, against laws that are known."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from napari_msp.errors import Cancelled
from napari_msp.signal.expected_error import (
    FEATURES,
    Blur,
    energies,
    error_features,
    fit_error_model,
)

ORDERS = (slice(0, 1), slice(1, 6), slice(6, 15), slice(15, 28))
SLOPE, BEND, SLOPE_AROUND, INPUT = 4, 8, 16, 20


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.fixture
def mask() -> np.ndarray:
    return np.linalg.norm(np.moveaxis(np.indices((12, 13, 11)), 0, -1) - 5.5, axis=-1) < 5.2


@pytest.fixture
def image(mask, rng) -> np.ndarray:
    """(12, 13, 11, 28) smooth coefficients in a ball."""
    at = np.moveaxis(np.indices(mask.shape), 0, -1)
    waves = np.cos(at @ rng.normal(0, 0.1, (3, 28)) + 0.3) / np.sqrt(1 + np.arange(28))
    return np.where(mask[..., None], waves, 0).astype(np.float32)


@pytest.fixture
def describe(mask):
    """Describe an image whose input was as large in every order, and evenly bright."""

    def features(image, b0=None, voxel=1.0):
        bright = np.full(mask.shape, 700.0) if b0 is None else b0
        return error_features(image, mask, np.full((4, mask.sum()), 0.01), bright, voxel)

    return features


def test_error_model_finds_a_law_and_tells_it_on_new_voxels(rng):
    features = rng.normal(-8, [1.0, 2.0, 0.5], (8000, 3))
    law = np.exp(features[:, 0] - 0.3 * (features[:, 1] + 8) ** 2)
    error = law * rng.gamma(5.0, 0.2, len(law))
    model = fit_error_model(features[:4000], error[:4000])
    inside = (np.abs(features[4000:] + 8) < [2.9, 5.8, 1.4]).all(axis=1)
    said, true = model(features[4000:])[inside], law[4000:][inside]
    # That gamma distribution's mean is 1; the mean of its logarithms lies a tenth lower.
    np.testing.assert_allclose(np.median(said / true), 1, atol=0.03)
    assert np.corrcoef(np.log(said), np.log(true))[0, 1] > 0.999
    # Far outside what was seen the parabola is not followed.
    far, near = model(np.array([[-8.0, 500.0, -8.0], [-8.0, -2.0, -8.0]]))
    assert far >= 0.5 * near


def test_no_more_is_expected_than_was_of_any_voxel_before(rng):
    """Of two features that went together one alone is far off the law, and a far one is told."""
    shared = rng.normal(0, 1.0, (4000, 1))
    features = np.concatenate([shared, shared + rng.normal(0, 0.01, (4000, 1))], axis=1)
    error = np.exp(3 * (features[:, 0] - features[:, 1]) / 0.01 + features[:, 0])
    model = fit_error_model(features, error)
    assert model.largest == pytest.approx(model(features).max(), rel=1e-6)
    new = np.array([[0.0, 0.0], [2.0, -2.0], [0.0, 6.5]])
    expected, guessed = model.judge(new)
    assert expected[1] == pytest.approx(model.largest, rel=1e-6)
    assert guessed.tolist() == [False, True, True]


def test_sizes_are_mean_squares_by_order(image, mask, describe):
    features = describe(image)
    assert features.shape == (mask.sum(), FEATURES)
    for number, part in enumerate(ORDERS):
        by_hand = np.square(image[mask][:, part]).mean(axis=1)
        np.testing.assert_allclose(np.exp(features[:, number]), by_hand, rtol=1e-3, atol=2e-9)
        np.testing.assert_allclose(energies(image)[mask][:, number], by_hand, rtol=1e-5)
    np.testing.assert_allclose(features[:, INPUT : INPUT + 4], np.log(0.01), rtol=1e-5)


def test_slopes_and_bends_of_a_ramp_and_a_parabola(mask, describe):
    """No step across the mask's edge counts."""
    x = np.arange(mask.shape[0], dtype=np.float32)[:, None, None]
    core = binary_erosion(mask)[mask]
    for values, slope, bend in ((0.5 * x, 0.25, 0.0), (0.1 * (x - 5) ** 2, None, 0.04)):
        image = np.zeros((*mask.shape, 28), dtype=np.float32)
        image[..., 0] = np.where(mask, values, 0)
        found = np.exp(describe(image))
        if slope is not None:
            np.testing.assert_allclose(found[core, SLOPE], slope, rtol=1e-4)
            np.testing.assert_allclose(found[core, SLOPE_AROUND], slope, rtol=0.35)
        np.testing.assert_allclose(found[core, BEND], bend, rtol=1e-3, atol=1e-8)
        assert found[:, SLOPE].max() < 1.2
        np.testing.assert_allclose(found[:, SLOPE + 1 : SLOPE + 4], 0, atol=1e-8)


def test_brightness_and_distance(image, mask, describe, rng):
    b0 = rng.uniform(100, 900, mask.shape)
    features = describe(image, b0, voxel=2.0)
    np.testing.assert_allclose(np.exp(features[:, -2]), b0[mask] / b0[mask].mean(), rtol=1e-5)
    distance = distance_transform_edt(mask)[mask]
    np.testing.assert_allclose(np.exp(features[:, -1]), distance / 2, rtol=1e-5)
    # The unit of b0 is of no matter, and a voxel without signal is no infinity.
    np.testing.assert_allclose(describe(image, 7 * b0, 2.0), features, rtol=1e-4, atol=1e-5)
    assert np.isfinite(describe(image, np.zeros(mask.shape))).all()


def test_what_is_even_stays_so_when_smoothed(mask):
    even = np.full(mask.sum(), 3.0, np.float32)
    np.testing.assert_allclose(Blur(mask, 1.0)(even), 3.0, rtol=1e-4)


@pytest.mark.parametrize("width", [1.0, 2.0])
def test_smoothing_is_a_filter_of_what_lies_in_the_mask(width, rng):
    """Longer along an axis than what is smoothed at a time, and at the image's ends too."""
    values = rng.uniform(1, 2, (150, 9, 11)).astype(np.float32)
    mask = np.zeros(values.shape, dtype=bool)
    mask[3:, :7] = rng.random((147, 7, 11)) < 0.7
    weight = np.maximum(gaussian_filter(mask.astype(float), width), 1e-3)
    by_hand = gaussian_filter(values.astype(float) * mask, width) / weight
    np.testing.assert_allclose(Blur(mask, width)(values[mask]), by_hand[mask], rtol=2e-6)


def test_what_lies_empty_around_a_head_changes_nothing(image, mask, rng):
    b0, energy = rng.uniform(100, 900, mask.shape), energies(image[mask]).T
    alone = error_features(image, mask, energy, b0, 1.0)
    inside = (slice(9, 21), slice(8, 21), slice(None))
    wide = [np.zeros((30, 28, 11, *each.shape[3:]), each.dtype) for each in (image, b0)]
    around = np.zeros((30, 28, 11), dtype=bool)
    for place, each in zip([*wide, around], (image, b0, mask), strict=True):
        place[inside] = each
    found = error_features(wide[0], around, energy, wide[1], 1.0)
    smooth = slice(SLOPE_AROUND - 4, INPUT)  # which knows the image's ends
    np.testing.assert_allclose(
        np.delete(found, smooth, axis=1), np.delete(alone, smooth, axis=1), rtol=1e-6
    )
    assert error_features(image, mask & False, energy[:, :0], b0, 1.0).shape == (0, FEATURES)


def test_it_can_be_ended(image, mask):
    with pytest.raises(Cancelled):
        error_features(image, mask, energies(image[mask]).T, image[..., 0], 1.0, lambda: True)
