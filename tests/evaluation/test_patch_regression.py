"""Linear IQT against least squares by hand, and on maps that it can describe."""

from dataclasses import replace

import numpy as np
import pytest

from napari_msp.data.lattice import Lattice
from napari_msp.errors import UserError
from napari_msp.evaluation.baselines.patch_regression import (
    PENALTY,
    PatchRegression,
    ridge_regression,
)
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import rotate

CHANNELS = 6  # of order 2: small enough for least squares by hand
SHAPE = (13, 12, 11)
AFFINE = np.array([[2.0, 0, 0, -11], [0, 2.0, 0, 5], [0, 0, 2.0, 1], [0, 0, 0, 1]])


def image_of(coefficients, affine=AFFINE, mask=None):
    mask = np.ones(coefficients.shape[:3], dtype=bool) if mask is None else mask
    values = np.where(mask[..., None], coefficients, 0).astype(np.float32)
    return SHImage(values, affine, mask, 1200.0, 0.006)


def random_image(seed, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return image_of(rng.normal(0.5, 1, (*shape, CHANNELS)) * rng.uniform(0.5, 2, CHANNELS))


def patches_by_hand(coefficients):
    """(voxels, 27 · C) neighbourhoods; the border is repeated."""
    padded = np.pad(coefficients.astype(float), ((1, 1),) * 3 + ((0, 0),), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), axis=(0, 1, 2))
    return np.moveaxis(windows, 3, -1).reshape(-1, 27 * coefficients.shape[-1])


@pytest.mark.reference("numpy lstsq")
def test_ridge_is_least_squares_with_the_penalty_as_rows():
    rng = np.random.default_rng(1)
    X, Y = rng.normal(2, 1, (200, 12)), rng.normal(size=(200, 5))
    portions = [(X[:30], Y[:30]), (X[30:30], Y[30:30]), (X[30:], Y[30:])]
    rows = np.sqrt(200 * 0.3) * np.eye(12, 13)
    augmented = np.concatenate([np.c_[X, np.ones(200)], rows])
    wanted = np.linalg.lstsq(augmented, np.concatenate([Y, np.zeros((12, 5))]), rcond=None)[0]
    np.testing.assert_allclose(ridge_regression(portions, 0.3), wanted, atol=1e-6)
    with pytest.raises(ValueError, match="no row"):
        ridge_regression([], 0.3)


@pytest.mark.reference("numpy lstsq")
def test_on_one_lattice_it_is_least_squares_on_patches():
    image, new = random_image(2), random_image(3)
    rng = np.random.default_rng(4)
    # A difference that no linear map undoes, so that the answer is the regression's own.
    target = image_of(np.abs(image.coefficients) + rng.normal(0, 0.3, image.coefficients.shape))
    predicted = PatchRegression().fit([image], [target]).predict(new, new.lattice)

    values = image.coefficients.astype(float)
    mean, deviation = values.mean(axis=(0, 1, 2)), values.std(axis=(0, 1, 2))
    X = patches_by_hand((values - mean) / deviation)
    Y = target.coefficients.reshape(-1, CHANNELS).astype(float)
    spread = Y.std(axis=0)
    rows = np.sqrt(PENALTY * len(X)) * np.eye(X.shape[1], X.shape[1] + 1)
    left = np.concatenate([np.c_[X, np.ones(len(X))], rows])
    right = np.concatenate([Y / spread, np.zeros((X.shape[1], CHANNELS))])
    weights = np.linalg.lstsq(left, right, rcond=None)[0] * spread
    patches = patches_by_hand((new.coefficients - mean) / deviation)
    wanted = np.c_[patches, np.ones(len(patches))] @ weights
    np.testing.assert_allclose(predicted.coefficients.reshape(-1, CHANNELS), wanted, atol=1e-4)


def fine_truth(image):
    """A linear map of patches to twice the density: blurred, mixed and lifted by 0.1."""
    lattice = image.lattice.refined(2)
    mixing = np.random.default_rng(9).normal(0, 1, (CHANNELS, CHANNELS))
    values = np.zeros((*lattice.shape, CHANNELS))
    values[::2, ::2, ::2] = image.coefficients @ mixing
    for axis in range(3):
        at = np.moveaxis(values, axis, 0)
        at[1::2] = 0.3 * at[:-1:2] + 0.7 * at[2::2]  # not symmetric: the sides must not be swapped
    return image_of(values + 0.1, lattice.affine)


def test_a_linear_map_to_twice_the_density_is_recovered():
    images = [random_image(seed) for seed in (5, 6)]
    new = random_image(7)
    baseline = PatchRegression().fit(images, [fine_truth(image) for image in images])
    wanted = fine_truth(new)
    predicted = baseline.predict(new, wanted.lattice)
    assert predicted.mask.all()
    difference = predicted.coefficients - wanted.coefficients
    assert np.abs(difference).max() < 0.02 * wanted.coefficients.std()


def test_neither_storage_nor_the_turn_of_the_grid_matters():
    images = [random_image(seed) for seed in (5, 6)]
    new = random_image(7)
    baseline = PatchRegression().fit(images, [fine_truth(image) for image in images])
    wanted = baseline.predict(new, new.lattice.refined(2)).coefficients

    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    flipped = image_of(new.coefficients[::-1], AFFINE @ flip)
    predicted = baseline.predict(flipped, flipped.lattice.refined(2))
    np.testing.assert_allclose(predicted.coefficients[::-1], wanted, atol=1e-5)

    turn = np.eye(4)
    turn[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    turned = image_of(rotate(new.coefficients, turn[:3, :3]), turn @ AFFINE)
    predicted = baseline.predict(turned, turned.lattice.refined(2))
    np.testing.assert_allclose(
        predicted.coefficients, rotate(wanted, turn[:3, :3]), atol=1e-4 * np.abs(wanted).max()
    )


def test_voxels_outside_the_brain_are_never_read():
    rng = np.random.default_rng(8)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:-3, 1:-2, 3:] = True
    image = random_image(2)
    inside = image_of(image.coefficients, mask=mask)
    noise = 50 * rng.normal(size=image.coefficients.shape)
    dirty = replace(inside, coefficients=np.where(mask[..., None], image.coefficients, noise))
    lattice = Lattice(SHAPE, AFFINE).refined(2)
    truth = fine_truth(image)
    clean = PatchRegression().fit([inside], [truth]).predict(inside, lattice)
    same = PatchRegression().fit([dirty], [truth]).predict(dirty, lattice)
    np.testing.assert_allclose(same.coefficients, clean.coefficients, atol=1e-5)
    assert not clean.coefficients[~clean.mask].any()


def test_voxels_that_are_no_whole_fraction_are_refused():
    image = random_image(2)
    other = Lattice(SHAPE, AFFINE @ np.diag([0.7, 0.7, 0.7, 1]))
    with pytest.raises(UserError, match="not a whole number of times smaller"):
        PatchRegression().fit([image], [image_of(image.coefficients, other.affine)])
