"""Where output voxels lie, and resampling between lattices."""

import tracemalloc

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from napari_msp.data.lattice import (
    FWHM,
    Lattice,
    _linearly,
    averaging_widths,
    interpolate,
    interpolate_in_mask,
    resample,
    resample_mask,
    resample_with_mask,
    scale_between,
    voxel_coordinates,
)
from napari_msp.errors import UserError
from napari_msp.signal.channels import GridImage


def centres(lattice):
    """(X, Y, Z, 3) voxel centres in mm."""
    indices = np.moveaxis(np.indices(lattice.shape), 0, -1)
    return indices @ lattice.affine[:3, :3].T + lattice.affine[:3, 3]


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_refining_keeps_every_centre_and_divides_the_spacing(affine, scale):
    lattice = Lattice((11, 8, 5), affine)
    fine = lattice.refined(scale)
    assert fine.shape == (scale * 10 + 1, scale * 7 + 1, scale * 4 + 1)
    np.testing.assert_allclose(fine.voxel_sizes, lattice.voxel_sizes / scale)
    np.testing.assert_allclose(
        centres(fine)[::scale, ::scale, ::scale], centres(lattice), atol=1e-9
    )


def test_the_papers_patch_becomes_21():
    assert Lattice((11, 11, 11), np.eye(4)).refined(2).shape == (21, 21, 21)


@pytest.mark.parametrize("size", [2.4, 1.0, 3.7])
def test_isotropic_lattice_stays_inside_the_old_one(affine, size):
    lattice = Lattice((9, 8, 7), affine)
    scaled = lattice.scaled_to(size)
    np.testing.assert_allclose(scaled.voxel_sizes, size)
    np.testing.assert_allclose(centres(scaled)[0, 0, 0], centres(lattice)[0, 0, 0], atol=1e-9)
    last = (np.array(scaled.shape) - 1) * size
    extent = (np.array(lattice.shape) - 1) * lattice.voxel_sizes
    assert (last <= extent + 1e-6).all()
    assert (last > extent - size).all()


@pytest.mark.parametrize(
    ("coarse", "fine", "scale"),
    [([2.4] * 3, [1.2] * 3, 2), ([2.4] * 3, [2.4] * 3, 1), ([2.4, 2.4, 2.41], [1.2] * 3, 2)],
)
def test_whole_scales_are_found(coarse, fine, scale):
    assert scale_between(coarse, fine, "a to b") == scale


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [
        ([2.4] * 3, [1.5] * 3),  # no whole number
        ([2.4, 2.4, 3.6], [1.2] * 3),  # whole, but not the same
        ([1.75, 1.75, 2.5], [1.2] * 3),
        ([1.2] * 3, [2.4] * 3),  # the target is coarser
        ([0.1] * 3, [2.4] * 3),
    ],
)
def test_other_scales_are_refused_with_the_mend(coarse, fine):
    with pytest.raises(UserError, match=r"ge_st to x: .*resample"):
        scale_between(coarse, fine, "ge_st to x")


def test_matching_allows_rounding_but_no_shift(affine):
    lattice = Lattice((40, 40, 40), affine)
    rounded = affine.astype(np.float32).astype(float)
    assert lattice.matches(Lattice((40, 40, 40), rounded))
    assert not lattice.matches(Lattice((40, 40, 41), affine))
    shifted = affine.copy()
    shifted[:3, 3] += 0.1 * affine[:3, 0]
    assert not lattice.matches(Lattice((40, 40, 40), shifted))
    stretched = affine @ np.diag([1.01, 1, 1, 1])  # a third of a voxel at the far end
    assert not lattice.matches(Lattice((40, 40, 40), stretched))


@pytest.mark.reference("float64 interpolation")
@pytest.mark.parametrize("angle", [0.3, 0])
def test_resampling_is_trilinear(affine, angle):
    rng = np.random.default_rng(0)
    source = Lattice((7, 8, 9), affine)
    # A turned lattice with other voxels, well inside the source; parallel axes go another way.
    turn = Rotation.from_euler("z", angle).as_matrix()
    inside = np.eye(4)
    inside[:3, :3] = turn * 0.7
    inside[:3, 3] = [3, 1.3, 1.1]
    target = Lattice((4, 5, 6), affine @ inside)
    array = rng.normal(size=(*source.shape, 3)).astype(np.float32)

    points = np.moveaxis(np.indices(target.shape), 0, -1) @ inside[:3, :3].T + inside[:3, 3]
    by_hand = RegularGridInterpolator([np.arange(n) for n in source.shape], array.astype(float))
    np.testing.assert_allclose(resample(array, source, target), by_hand(points), atol=2e-6)


def test_resampling_to_itself_and_back_from_nodes_changes_nothing(affine):
    lattice = Lattice((6, 5, 4), affine)
    array = np.random.default_rng(0).normal(size=lattice.shape).astype(np.float32)
    np.testing.assert_array_equal(resample(array, lattice, lattice), array)
    fine = resample(array, lattice, lattice.refined(2))
    np.testing.assert_array_equal(fine[::2, ::2, ::2], array)
    np.testing.assert_array_equal(resample(fine, lattice.refined(2), lattice), array)


def test_outside_the_source_is_0(affine):
    lattice = Lattice((4, 4, 4), affine)
    shifted = affine.copy()
    shifted[:3, 3] += 2 * affine[:3, 0]
    moved = resample(np.ones((4, 4, 4)), lattice, Lattice((4, 4, 4), shifted))
    np.testing.assert_array_equal(moved[:2], 1)
    np.testing.assert_array_equal(moved[2:], 0)


@pytest.mark.parametrize("step", [0.5, 0.75, 1.6])
def test_parallel_axes_are_interpolated_as_turned_ones_are(affine, step):
    # Within a rounding of float32, also where 0 lies around the source.
    source = Lattice((5, 6, 7), affine)
    beyond = np.diag([step, step, 1.0, 1.0])
    beyond[:3, 3] = [-2.3, 0.4, -1.7]
    target = Lattice((13, 9, 12), affine @ beyond)
    array = np.random.default_rng(0).normal(size=source.shape).astype(np.float32)
    points = voxel_coordinates(source, target)
    expected = map_coordinates(array, points, order=1, mode="grid-constant")
    np.testing.assert_allclose(resample(array, source, target), expected, atol=3e-7)


def test_parallel_axes_take_the_memory_of_a_few_planes():
    source, target = (Lattice((n, n, n), np.diag([48 / n] * 3 + [1.0])) for n in (40, 48))
    values = np.ones(source.shape, dtype=np.float32)
    tracemalloc.start()
    moved = _linearly(source, target)(values)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1.5 * moved.nbytes  # the result and ten planes of it, of twice the precision


def test_going_to_coarser_voxels_averages_over_them():
    """Interpolation alone would take every second voxel, with all of its noise."""
    fine = Lattice((24, 22, 20), np.diag([1.2, 1.2, 1.2, 1.0]))
    noise = np.random.default_rng(0).standard_normal((*fine.shape, 2)).astype(np.float32)
    noise[..., 1] = 3
    mask = np.ones(fine.shape, bool)
    mask[:2] = False
    image = GridImage(noise * mask[..., None], mask, fine)
    coarse = image.resampled(fine.scaled_to(2.4))
    inside = coarse.coefficients[coarse.mask]
    assert inside[:, 0].std() < 0.3
    np.testing.assert_allclose(inside[:, 1], 3, rtol=1e-5)
    np.testing.assert_array_equal(image.resampled(fine).coefficients, image.coefficients)
    assert not averaging_widths(fine, fine.refined(2)).any()
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    turned = Lattice((9, 9, 9), turn @ np.diag([2.4, 2.4, 2.4, 1.0]))
    np.testing.assert_allclose(averaging_widths(fine, turned) * FWHM, np.sqrt(3), rtol=1e-6)
    tall = Lattice((9, 9, 9), np.diag([3.0, 1.2, 1.2, 1.0])[[1, 0, 2, 3]])  # its x is fine's y
    np.testing.assert_allclose(averaging_widths(fine, tall) > 0, [False, True, False])


def test_no_background_leaks_through_the_masks_edge(affine):
    lattice = Lattice((8, 8, 8), affine)
    mask = np.linalg.norm(np.indices(lattice.shape) - 3.5, axis=0) < 3
    array = np.where(mask[..., None], [5.0, -2.0], 0).astype(np.float32)
    fine = lattice.refined(2)
    inside = resample_mask(mask, lattice, fine)
    result, _ = resample_with_mask(array, mask, lattice, fine)
    np.testing.assert_allclose(result[inside], np.tile([5, -2], (inside.sum(), 1)), rtol=1e-5)
    assert resample(array, lattice, fine)[inside].min(axis=0)[0] < 4  # plain interpolation leaks


def test_a_mask_and_its_mirror_image_are_resampled_alike(affine):
    lattice = Lattice((8, 7, 6), affine)
    fine = lattice.refined(2)
    mask = np.random.default_rng(3).random(lattice.shape) < 0.4
    mirrored = resample_mask(mask[::-1], lattice, fine)[::-1]
    np.testing.assert_array_equal(resample_mask(mask, lattice, fine), mirrored)
    np.testing.assert_array_equal(resample_mask(mask, lattice, fine)[::2, ::2, ::2], mask)


def a_linear_function(lattice):
    """(X, Y, Z, 2) of the position in mm."""
    slopes = np.array([[0.3, -0.2], [0.1, 0.05], [-0.4, 0.7]])
    return (centres(lattice) @ slopes + [2.0, -1.0]).astype(np.float32)


@pytest.mark.parametrize("size", [2.0, 2.4, 1.7])
def test_splines_reproduce_a_linear_function_away_from_the_edge(affine, size):
    tall = Lattice((14, 13, 11), affine @ np.diag([1, 1, 2, 1]))
    cubes = tall.scaled_to(size)
    wanted = a_linear_function(cubes)
    deep = tuple(
        slice(int(4 * step), int((n - 5) * step) + 1)  # a spline's mirror fades with each voxel
        for n, step in zip(tall.shape, tall.voxel_sizes / size, strict=True)
    )
    everywhere = np.ones(tall.shape, dtype=bool)
    by_mask = interpolate_in_mask(
        a_linear_function(tall), everywhere, tall, cubes, np.ones(cubes.shape, dtype=bool)
    )
    for found in (interpolate(a_linear_function(tall), tall, cubes), by_mask):
        np.testing.assert_allclose(found[deep], wanted[deep], atol=0.02)
    linear = resample(a_linear_function(tall), tall, cubes)
    np.testing.assert_allclose(linear, wanted, atol=1e-4)


def test_rounded_headers_add_no_plane_and_lose_none():
    """As NIfTI keeps affines in single precision."""
    for angles in np.random.default_rng(0).uniform(-20, 20, (40, 3)):
        affine = np.eye(4)
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        affine[:3, :3] = (turn * [2.0, 2.0, 2.5]).astype(np.float32)
        lattice = Lattice((112, 112, 57), affine)
        assert lattice.scaled_to(2, covering=True).shape == (112, 112, 71)
        assert lattice.scaled_to(1).shape == (223, 223, 141)


def test_splines_in_a_mask_know_nothing_of_the_background(affine):
    lattice = Lattice((9, 8, 7), affine)
    mask = np.linalg.norm(np.indices(lattice.shape).T - [4, 3.5, 3], axis=-1).T < 3
    array = np.where(mask[..., None], [5.0, -2.0], np.nan).astype(np.float32)
    fine = lattice.refined(2)
    wanted = np.ones(fine.shape, dtype=bool)
    wanted[0] = False
    found = interpolate_in_mask(array, mask, lattice, fine, wanted)
    np.testing.assert_allclose(found[wanted], np.tile([5, -2], (wanted.sum(), 1)), rtol=1e-5)
    assert not found[0].any()


@pytest.mark.parametrize("order", [[1, 2, 0], [2, 1, 0], [0, 2, 1]])
def test_splines_in_a_mask_do_not_depend_on_how_it_is_stored(order):
    """Many voxels outside a ball are equally near to several inside."""
    affine = np.diag([2.4, 2.4, 2.4, 1.0])
    lattice = Lattice((9, 8, 7), affine)
    mask = np.linalg.norm(np.indices(lattice.shape).T - [4, 3.5, 3], axis=-1).T < 3
    array = np.random.default_rng(0).normal(size=(*lattice.shape, 2)).astype(np.float32)
    to = lattice.refined(2)
    wanted = np.ones(to.shape, dtype=bool)
    expected = interpolate_in_mask(array, mask, lattice, to, wanted)

    def turned(each: Lattice) -> Lattice:
        x, y, z = (each.shape[axis] for axis in order)
        return Lattice((x, y, z), each.affine[:, [*order, 3]])

    found = interpolate_in_mask(
        array.transpose(*order, 3),
        mask.transpose(order),
        turned(lattice),
        turned(to),
        wanted.transpose(order),
    )
    np.testing.assert_allclose(found, expected.transpose(*order, 3), atol=1e-6)
