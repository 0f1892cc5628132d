"""Each baseline recovers the difference that it can describe."""

from dataclasses import replace

import numpy as np
import pytest

from napari_msp.evaluation.baselines.alignment import (
    RegionalAlignment,
    StatisticalAlignment,
    VoxelAlignment,
)
from napari_msp.evaluation.baselines.base import (
    WIDTH,
    Interpolation,
    baseline_class,
    baseline_names,
)
from napari_msp.evaluation.baselines.linear_rish import WIDTHS, LinearRISH
from napari_msp.evaluation.line_up import on_lattice

LEARNED = [baseline_class(name) for name in baseline_names() if name != Interpolation.name]
ALIGNMENTS = [StatisticalAlignment, RegionalAlignment, VoxelAlignment]


def with_coefficients(image, coefficients, **changes):
    masked = np.where(image.mask[..., None], coefficients, 0).astype(np.float32)
    return replace(image, coefficients=masked, **changes)


def noisy(image, seed):
    noise = np.random.default_rng(seed).normal(0, 0.1, image.coefficients.shape)
    return with_coefficients(image, image.coefficients + noise)


def error(prediction, truth):
    assert np.array_equal(prediction.mask, truth.mask)
    return np.square(prediction.coefficients - truth.coefficients)[truth.mask].mean()


@pytest.fixture
def training(head):
    return [noisy(head("RAS"), 2), noisy(head("LAS"), 3)]


def test_the_order_of_a_table():
    assert list(baseline_names()) == [
        "no harmonization",
        "alignment",
        "alignment by region",
        "alignment by voxel",
        "ComBat",
        "linear RISH",
        "IQT",
    ]
    assert all(baseline_class(name)().name == name for name in baseline_names())
    assert all(baseline_class(name).summary.endswith(".") for name in baseline_names())


def test_interpolation_changes_nothing_but_the_lattice(head, lattice, training):
    image, target = head(), lattice("RAS").refined(2)
    predicted = Interpolation().fit(training, training).predict(image, target)
    assert np.array_equal(predicted.coefficients, on_lattice(image, target).coefficients)
    assert predicted.b_value == image.b_value


@pytest.mark.parametrize("baseline", LEARNED)
def test_the_order_of_calls(baseline, lattice, head, training):
    with pytest.raises(RuntimeError, match="fit"):
        baseline().predict(head(), lattice("RAS"))
    with pytest.raises(ValueError, match="pairs"):
        baseline().fit(training, training[:1])
    with pytest.raises(ValueError, match="pairs"):
        baseline().fit([], [])


@pytest.mark.parametrize("baseline", [*ALIGNMENTS, LinearRISH])
def test_equal_platforms_leave_an_image_as_it_is(baseline, head, lattice, training):
    fine = lattice("RAS").refined(2)
    predicted = baseline().fit(training, training).predict(head("permuted"), fine)
    wanted = on_lattice(head("permuted"), fine)
    np.testing.assert_allclose(predicted.coefficients, wanted.coefficients, atol=2e-5)


@pytest.mark.parametrize("subjects", [1, 2])
@pytest.mark.parametrize("baseline", ALIGNMENTS)
def test_alignment_recovers_a_gain_and_offset_per_coefficient(baseline, subjects, head, training):
    rng = np.random.default_rng(4)
    gain, offset = rng.uniform(0.5, 2, 28), rng.normal(0, 0.2, 28)
    inputs = training[:subjects]
    targets = [
        with_coefficients(image, image.coefficients * gain + offset, regularisation=0.012)
        for image in inputs
    ]
    new = with_coefficients(head(), 3 * head().coefficients)  # has other statistics of its own
    predicted = baseline().fit(inputs, targets).predict(new, new.lattice)
    expected = new.coefficients[new.mask] * gain + offset
    np.testing.assert_allclose(predicted.coefficients[new.mask], expected, atol=5e-5)
    assert not predicted.coefficients[~new.mask].any()
    assert predicted.regularisation == 0.012
    assert predicted.b_value == 1200.0


# --- By region -------------------------------------------------------------------------------


@pytest.fixture
def tissues(head):
    """Two heads with a dark core, an isotropic shell and an anisotropic outer shell, and these."""
    image = head()
    points = np.argwhere(image.mask)
    depth = np.full(image.mask.shape, np.inf)
    depth[image.mask] = np.linalg.norm((points - points.mean(axis=0)) / [9, 11, 5], axis=1)
    kinds = [depth < 0.5, (depth >= 0.5) & (depth < 0.8), (depth >= 0.8) & image.mask]
    base = np.zeros_like(image.coefficients)
    for kind, (signal, anisotropy) in zip(kinds, [(0.3, 0), (1.4, 0), (1.5, 0.4)], strict=True):
        base[kind, 0], base[kind, 3] = signal, anisotropy
    rng = np.random.default_rng(6)
    heads = [with_coefficients(image, base + rng.normal(0, 0.03, base.shape)) for _ in range(2)]
    return heads, kinds


def by_kind(image, kinds, gains):
    return with_coefficients(
        image,
        sum(gain * image.coefficients * k[..., None] for gain, k in zip(gains, kinds, strict=True)),
    )


def test_regional_alignment_recovers_a_gain_per_tissue(tissues):
    (first, second), kinds = tissues
    gains = (1.5, 0.7, 1.2)
    baseline = RegionalAlignment().fit([first], [by_kind(first, kinds, gains)])
    predicted = baseline.predict(second, second.lattice)
    wanted = by_kind(second, kinds, gains)
    np.testing.assert_allclose(predicted.coefficients, wanted.coefficients, atol=1e-5)


def test_regions_reach_a_finer_target(tissues):
    (first, second), kinds = tissues
    gains = (1.5, 0.7, 1.2)
    fine = first.lattice.refined(2)
    target = on_lattice(by_kind(first, kinds, gains), fine)
    predicted = RegionalAlignment().fit([first], [target]).predict(second, fine)
    whole = StatisticalAlignment().fit([first], [target]).predict(second, fine)
    wanted = on_lattice(by_kind(second, kinds, gains), fine)
    assert error(predicted, wanted) < 0.1 * error(whole, wanted)


def test_a_region_of_few_voxels_takes_the_whole_image(tissues):
    (first, _), kinds = tissues
    speck = np.zeros_like(first.mask)
    speck[tuple(np.argwhere(kinds[0])[:3].T)] = True
    inside = speck | kinds[1] | kinds[2]
    image = with_coefficients(replace(first, mask=inside), first.coefficients)
    baseline = RegionalAlignment().fit([image], [with_coefficients(image, 2 * image.coefficients)])
    predicted = baseline.predict(first, first.lattice)  # has many voxels of that kind
    np.testing.assert_allclose(predicted.coefficients, 2 * first.coefficients, atol=1e-4)


# --- By place --------------------------------------------------------------------------------


def gain_by_place(image, positions, middle):
    """A gain that rises by 1.5 % a mm from left to right, measured from the head's middle."""
    return with_coefficients(
        image, image.coefficients * (1 + 0.015 * (positions(image.lattice) - middle)[..., :1])
    )


def away(image, shift):
    affine = image.affine.copy()
    affine[:3, 3] += shift
    return replace(image, affine=affine)


@pytest.mark.parametrize("baseline", [VoxelAlignment, LinearRISH])
def test_gains_by_place_are_recovered_wherever_heads_lie(baseline, head, positions, training):
    targets = [gain_by_place(image, positions, 0.0) for image in training]
    shift = np.array([31.0, -18.0, 7.0])
    new = away(head(), shift)
    wanted = gain_by_place(new, positions, shift)
    overall = StatisticalAlignment if baseline is VoxelAlignment else Interpolation
    moved = [[away(image, -2 * shift) for image in each] for each in (training, targets)]
    predicted = baseline().fit(*moved).predict(new, new.lattice)
    whole = overall().fit(*moved).predict(new, new.lattice)
    assert error(predicted, wanted) < 0.25 * error(whole, wanted)


@pytest.mark.parametrize("baseline", [VoxelAlignment, LinearRISH])
def test_where_nobody_has_brain_the_whole_image_decides(baseline, head, positions, training):
    front = [replace(i, mask=i.mask & (positions(i.lattice)[..., 1] > 12)) for i in training]
    inputs = [with_coefficients(image, image.coefficients) for image in front]
    targets = [with_coefficients(image, 1.3 * image.coefficients) for image in inputs]
    predicted = baseline().fit(inputs, targets).predict(head(), head().lattice)
    np.testing.assert_allclose(predicted.coefficients, 1.3 * head().coefficients, atol=1e-4)


# --- Linear RISH -----------------------------------------------------------------------------


def test_linear_rish_recovers_a_scale_per_order(head, training):
    scale = np.repeat([0.9, 1.3, 0.6, 2.0], [1, 5, 9, 13])
    targets = [
        with_coefficients(image, image.coefficients * scale, b_value=1190.0) for image in training
    ]
    predicted = LinearRISH().fit(training, targets).predict(head(), head().lattice)
    np.testing.assert_allclose(predicted.coefficients, head().coefficients * scale, atol=1e-5)
    assert predicted.b_value == 1190.0


def test_linear_rish_smooths_little_where_heads_agree_and_much_where_they_do_not(head, positions):
    def scaled(image, seed):
        """Give the target's scan: scales that change within 5 mm, alike in everybody or not."""
        field = np.sin(positions(image.lattice) @ np.array([1.2, 0.9, 0.7]) + seed)[..., None]
        return with_coefficients(image, image.coefficients * (1 + 0.3 * field))

    inputs = [noisy(head(), seed) for seed in range(3)]
    alike = LinearRISH().fit(inputs, [scaled(image, 0.0) for image in inputs])
    unlike = LinearRISH().fit(inputs, [scaled(i, 2.1 * n) for n, i in enumerate(inputs)])
    assert alike.width == min(WIDTHS)
    assert unlike.width == WIDTH
    assert LinearRISH().fit(inputs[:1], inputs[:1]).width == WIDTH


def test_linear_rish_cannot_turn_or_shift(head, training):
    flipped = [with_coefficients(image, -image.coefficients) for image in training]
    predicted = LinearRISH().fit(training, flipped).predict(head(), head().lattice)
    np.testing.assert_allclose(predicted.coefficients, head().coefficients, atol=1e-6)


def test_no_place_is_scaled_by_far_more_than_the_brain(head, positions, training):
    def flared(image):
        left = positions(image.lattice)[..., :1] < -9
        return with_coefficients(image, image.coefficients * np.where(left, 20.0, 1.0))

    baseline = LinearRISH().fit(training, [flared(image) for image in training])
    image = head()
    predicted = baseline.predict(image, image.lattice)
    scales = predicted.coefficients[image.mask, 0] / image.coefficients[image.mask, 0]
    assert scales.min() * 3 < scales.max() < scales.min() * 4.001
