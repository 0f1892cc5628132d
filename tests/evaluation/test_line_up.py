"""It is the prediction that moves, exactly where it can."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.alignment.registration import find_displacement, warn_if_beside
from napari_msp.data.lattice import Lattice, scanner_points
from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.measuring import doubts_of_place
from napari_msp.evaluation.line_up import line_up, on_lattice, placement


@pytest.mark.parametrize("storage", ["LAS", "permuted"])
def test_another_voxel_order_is_undone_bit_for_bit(head, lattice, storage):
    stored, wanted = head(storage), head("RAS")
    moved = on_lattice(stored, lattice("RAS"))
    assert placement(stored.lattice, lattice("RAS")) == "reordered"
    assert moved.coefficients.shape == (22, 26, 12, 28)
    # The head was evaluated in either order, which rounds the last bit of a position.
    np.testing.assert_allclose(moved.coefficients, wanted.coefficients, atol=1e-6)
    assert set(np.unique(moved.coefficients)) == set(np.unique(stored.coefficients))
    assert np.array_equal(moved.mask, wanted.mask)


def test_a_field_linear_in_space_is_interpolated_exactly(head, lattice, positions):
    coarse = head("LAS")
    slope = np.array([0.01, -0.02, 0.03])
    field = (positions(coarse.lattice) @ slope)[..., None] * np.ones(28) + 2
    coarse = replace(
        coarse, coefficients=field.astype(np.float32), mask=np.ones(coarse.mask.shape, dtype=bool)
    )
    fine = Lattice((11, 9, 8), lattice("RAS").affine @ np.diag([0.7, 0.8, 0.9, 1.0]))
    fine.affine[:3, 3] += [5.0, 4.0, 6.0]
    moved = on_lattice(coarse, fine)
    assert moved.mask.all()
    expected = positions(fine) @ slope + 2
    np.testing.assert_allclose(moved.coefficients[..., 5], expected, atol=1e-5)
    assert placement(coarse.lattice, fine).startswith("interpolated linearly from 2.00 × 2.00")


def test_background_does_not_leak_into_the_rim(head, lattice):
    image = head("RAS")
    flat = replace(
        image, coefficients=np.where(image.mask[..., None], 0.5, -9.0).astype(np.float32)
    )
    moved = on_lattice(flat, lattice("RAS").refined(2))
    np.testing.assert_allclose(moved.coefficients[moved.mask], 0.5, atol=1e-5)
    assert not moved.coefficients[~moved.mask].any()


def test_a_finer_image_is_averaged_over_the_coarser_voxels(head, lattice):
    """Interpolation alone would compare every second voxel, with all of its noise."""
    fine = head(lattice("RAS").refined(2))
    noise = np.random.default_rng(0).standard_normal(fine.coefficients.shape)
    fine = replace(fine, coefficients=noise.astype(np.float32) * fine.mask[..., None])
    moved = on_lattice(fine, lattice("RAS"))
    assert moved.coefficients[moved.mask].std() < 0.4


def test_truth_stays_and_the_prediction_comes_to_it(head, lattice):
    truth = head(lattice("RAS").refined(2))
    prediction = head("LAS")
    both = line_up(truth, {"a": prediction})
    assert both.truth.image is truth
    assert both.predictions["a"].image.mask.shape == truth.mask.shape
    assert np.array_equal(both.lattice.affine, truth.affine)
    assert both.placements["a"].startswith("interpolated")
    # Node-aligned: every second voxel of truth's lattice is a voxel of the prediction.
    shared = on_lattice(prediction, lattice("RAS"))
    placed = both.predictions["a"].image.coefficients[::2, ::2, ::2]
    np.testing.assert_allclose(placed[shared.mask], shared.coefficients[shared.mask], atol=1e-5)


def test_all_predictions_are_judged_on_the_same_voxels(head):
    truth, first, second = head(), head(), head()
    first.mask[:, :, 3] = False
    second.mask[:, 10] = False
    both = line_up(truth, {"a": first, "b": second})
    assert not both.mask[:, :, 3].any()
    assert not both.mask[:, 10].any()
    assert both.mask.sum() == (truth.mask & first.mask & second.mask).sum() > 0


def test_a_brain_elsewhere_is_refused_by_name(head):
    truth, prediction = head(), head()
    prediction.mask[:] = False
    prediction.mask[:3, :3, :3] = True
    with pytest.raises(UserError, match="MSP: its brain overlaps"):
        line_up(truth, {"MSP": prediction})
    far = replace(head(), affine=truth.affine + np.array([[0, 0, 0, 900.0]] + [[0] * 4] * 3))
    with pytest.raises(UserError, match="overlaps only 0 % with"):
        line_up(truth, {"far": far})


def test_a_slab_may_be_compared_with_a_whole_brain(head):
    slab = head()
    slab.mask[:, :, :5] = False
    slab.mask[:, :, 8:] = False
    assert np.array_equal(line_up(head(), {"slab": slab}).mask, slab.mask)


def test_of_slabs_what_both_scans_saw_must_agree(head, lattice):
    """A loose mask in a thin field is larger than the brain, but lies on all that it could."""
    whole, wanted = head(), lattice("RAS")
    low = Lattice((*wanted.shape[:2], 3), wanted.affine)
    loose = replace(head(low), mask=np.ones(low.shape, dtype=bool))
    seen = whole.mask[:, :, :3]
    assert 0 < seen.sum() < 0.5 * min(loose.mask.sum(), whole.mask.sum())
    assert line_up(whole, {"slab": loose}).mask.sum() == seen.sum()
    assert line_up(loose, {"whole": whole}).mask.sum() == seen.sum()
    beside = replace(head(low), mask=np.zeros(low.shape, dtype=bool))
    beside.mask[:5] = True
    with pytest.raises(UserError, match="overlaps only 3 % with"):
        line_up(whole, {"slab": beside})


def test_orders_must_agree(head):
    low = head()
    low = replace(low, coefficients=low.coefficients[..., :15])
    with pytest.raises(UserError, match="SH order 4"):
        line_up(head(), {"a": low})


GRID = Lattice((10, 11, 12), np.diag([2.4, 2.4, 2.4, 1.0]))


def moved(change, shape=GRID.shape):
    return Lattice(shape, change @ GRID.affine)


def test_grids_of_one_voxel_size_say_what_tells_them_apart():
    shift, turn = np.eye(4), np.eye(4)
    shift[:3, 3] = (0.9, 0, 1.2)
    turn[:3, :3] = Rotation.from_euler("z", 3, degrees=True).as_matrix()
    sizes = "2.40 mm"
    said = {
        moved(shift): f"its voxels are 1.50 mm off the others (both {sizes})",
        moved(turn): f"its grid is turned by 3.0° (both {sizes})",
        moved(np.eye(4), (10, 11, 14)): "its grid has 10 × 11 × 14 and not 10 × 11 × 12 voxels "
        f"(both {sizes})",
    }
    for lattice, words in said.items():
        assert placement(lattice, GRID) == f"interpolated linearly, as {words}"
    coarse = Lattice((5, 5, 6), np.diag([4.8, 4.8, 4.8, 1.0]))
    assert placement(coarse, GRID) == f"interpolated linearly from 4.80 mm to {sizes}"
    assert placement(GRID, coarse) == f"averaged and interpolated linearly from {sizes} to 4.80 mm"


def turned(affine):
    """Turn a lattice by 4° and shift it by 2.5 mm."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 4, degrees=True).as_matrix()
    moved = turn @ affine
    moved[:3, 3] += [2.0, -1.5, 0.0]
    return moved


def distance(image, affine):
    points, moved = (scanner_points(image.mask, each) for each in (image.affine, affine))
    return float(np.linalg.norm(moved - points, axis=1).mean())


def test_a_truth_that_lies_beside_the_prediction_is_told(head, lattice):
    truth = head("RAS")
    away = replace(truth, affine=turned(truth.affine))
    apart = distance(truth, away.affine)
    both = line_up(truth, {"here": head("LAS"), "beside": away})
    [said] = both.misplaced
    told = r"beside lies ([\d.]+) mm, ([\d.]+) voxels, from the ground .* turn ([\d.]+)°\)"
    mm, voxels, degrees = map(float, re.match(told, said).groups())
    assert (mm, degrees) == pytest.approx((apart, 4.0), abs=0.25)
    assert voxels == pytest.approx(mm / truth.lattice.voxel_sizes.mean(), abs=0.05)
    assert not line_up(None, {"here": truth}).misplaced


def test_voxels_are_the_predictions_own(head, lattice):
    """As `check` takes those of the input: of smaller ones less is too much."""
    coarse = lattice("RAS")
    for own, told in ((coarse, 0), (coarse.refined(2), 1)):  # 2.3 and 1.2 mm
        image = head(own)
        away = image.affine.copy()
        away[0, 3] += 0.87
        both = line_up(head(coarse), {"MSP": replace(image, affine=away)})
        assert len(both.misplaced) == told


@pytest.mark.parametrize(("shift", "told"), [(0.0, 0), (0.9, 0), (1.5, 1), (4.0, 1)])
def test_scans_beside_each_other_are_told_where_a_network_learns(head, shift, told, recwarn):
    """By more than half a voxel of 2.3 mm, as `check` counts, and in its words."""
    image = head()
    away = image.affine.copy()
    away[1, 3] += shift
    warn_if_beside(image, replace(image, affine=away), "sub-01 on prisma_st", "ge_st")
    said = [str(each.message) for each in recwarn]
    assert len(said) == told
    for words in said:
        mm, voxels = re.match(
            r"sub-01 on prisma_st: it lies ([\d.]+) mm, ([\d.]+) voxels, from ge_st on", words
        ).groups()
        assert float(mm) == pytest.approx(shift, abs=0.15)
        assert float(voxels) > 0.5


def test_a_large_head_is_thinned_and_found_where_it_is(head, lattice):
    large = head(lattice("RAS").refined(3))
    assert large.mask.shape == (64, 76, 34)
    found = find_displacement(large, replace(large, affine=turned(large.affine)))
    mean = distance(large, turned(large.affine))
    assert found.mean == pytest.approx(mean, abs=0.1 * large.lattice.voxel_sizes.max())
    assert found.angle == pytest.approx(4.0, abs=0.1)


def test_of_heads_that_are_empty_or_not_alike_nothing_is_told(head):
    one = head()
    empty = replace(one, mask=np.zeros_like(one.mask))
    noise = np.random.default_rng(0).normal(1.4, 0.3, one.coefficients.shape)
    other = replace(one, coefficients=noise.astype(np.float32))
    assert find_displacement(one, empty) is None
    found = find_displacement(one, other)
    assert found is not None
    assert not found.too_far(one.lattice)
    # It may be another head's, unless a prediction is like it: then others are poor.
    [said] = line_up(one, {"a": other, "b": other}).misplaced
    assert said.startswith("the ground truth resembles a and b less than scans of one head")
    assert line_up(one, {"a": other, "good": one}).misplaced == []
    [said] = doubts_of_place({"sub-01": (found, one.lattice)}, "ge_st", "prisma_st")
    assert said.startswith("sub-01 on prisma_st resembles ge_st less than scans of one head")


def test_a_benchmark_names_the_farthest_head(head):
    truth = head("RAS")
    near, far = (
        find_displacement(truth, replace(truth, affine=each))
        for each in (truth.affine, turned(truth.affine))
    )
    assert near is not None
    assert far is not None
    lies = re.escape(far.lies("ge_st", truth.lattice))
    heads = {"sub-01": (near, truth.lattice), "sub-02": (far, truth.lattice)}
    [note] = doubts_of_place(heads, "ge_st", "prisma_st")
    assert re.match(rf"sub-02 on prisma_st {lies}, which counts as error", note)
    farther = replace(far, mean=2 * far.mean)
    [note] = doubts_of_place(heads | {"sub-03": (farther, truth.lattice)}, "ge_st", "prisma_st")
    assert note.startswith("2 of 3 heads are off their input; the farthest, sub-03 on")
    assert doubts_of_place({"sub-01": heads["sub-01"]}, "ge_st", "prisma_st") == []
