"""Exact rotation of SH series, RISH and bases."""

import numpy as np
import pytest
from dipy.core.sphere import Sphere
from dipy.reconst.shm import sh_to_sf
from sh_bases import BASES, convert_basis

from napari_msp.signal.spherical_harmonics import (
    coefficient_count,
    design_matrix,
    grid_symmetries,
    order_of,
    order_slices,
    rish,
    rotate,
    rotation_matrix,
    scale_orders,
)

SYMMETRIES = grid_symmetries()
DIPY_NAMES = {
    "mrtrix3": ("tournier07", False),
    "tournier07_legacy": ("tournier07", True),
    "descoteaux07": ("descoteaux07", False),
    "descoteaux07_legacy": ("descoteaux07", True),
}


def dipy_values(coefficients, directions, basis="mrtrix3"):
    """Evaluate series with DIPY, in any of its bases."""
    kind, legacy = DIPY_NAMES[basis]
    order = order_of(coefficients.shape[-1])
    sphere = Sphere(xyz=directions)
    return sh_to_sf(coefficients, sphere, sh_order_max=order, basis_type=kind, legacy=legacy)


@pytest.mark.reference("DIPY sh_to_sf")
@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_a_rotated_series_is_the_rotated_function(series, turns, spread_out, order):
    coefficients, directions = series(5, order), spread_out(50)
    for turn in turns:
        rotated = dipy_values(rotate(coefficients, turn), directions)
        function = dipy_values(coefficients, directions @ turn)  # rows of Rᵀ u
        np.testing.assert_allclose(rotated, function, atol=1e-10)


def test_a_fibre_turns_with_the_rotation(turns, spread_out):
    directions = spread_out(200)
    fit = np.linalg.pinv(design_matrix(directions, 6))
    fibre = np.array([0.0, 0.6, 0.8])
    for turn in turns:
        along = fit @ np.exp(-2 * np.square(directions @ fibre))
        expected = fit @ np.exp(-2 * np.square(directions @ (turn @ fibre)))
        np.testing.assert_allclose(rotate(along, turn), expected, atol=0.01)


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda s: np.array2string(s.ravel()))
def test_grid_symmetries_are_exact(series, spread_out, symmetry):
    coefficients, directions = series(3), spread_out(40)
    np.testing.assert_allclose(
        design_matrix(directions) @ rotate(coefficients, symmetry).T,
        design_matrix(directions @ symmetry) @ coefficients.T,
        atol=1e-12,
    )


def test_the_48_symmetries_are_all_there():
    assert len({tuple(symmetry.ravel()) for symmetry in SYMMETRIES}) == 48
    for symmetry in SYMMETRIES:
        np.testing.assert_array_equal(symmetry @ symmetry.T, np.eye(3))
    assert sum(np.linalg.det(symmetry) > 0 for symmetry in SYMMETRIES) == 24
    np.testing.assert_array_equal(SYMMETRIES[0], np.eye(3))


def test_symmetries_that_keep_the_z_axis_move_coefficients_without_arithmetic(series):
    coefficients = series(10).astype(np.float32)
    exact = 0
    for symmetry in SYMMETRIES:
        matrix = rotation_matrix(symmetry)
        if np.isin(matrix, (-1, 0, 1)).all():
            exact += 1
            assert abs(symmetry[2, 2]) == 1
            moved = rotate(coefficients, symmetry)
            np.testing.assert_array_equal(np.sort(np.abs(moved)), np.sort(np.abs(coefficients)))
            np.testing.assert_array_equal(rotate(moved, symmetry.T), coefficients)
    assert exact == 16


def test_the_identity_gives_every_bit_back(series):
    coefficients = series(100).astype(np.float32)
    coefficients[0, 0] = -0.0
    assert rotate(coefficients, np.eye(3)).tobytes() == coefficients.tobytes()


def test_rotations_compose(series, turns):
    first, second, third, _ = turns
    coefficients = series(20)
    step_by_step = rotate(rotate(rotate(coefficients, first), second), third)
    np.testing.assert_allclose(
        step_by_step, rotate(coefficients, third @ second @ first), atol=1e-12
    )
    np.testing.assert_allclose(
        rotate(rotate(coefficients, first), first.T), coefficients, atol=1e-12
    )


def test_a_reflection_is_a_rotation_and_an_inversion(series, turns):
    coefficients = series(20)
    np.testing.assert_allclose(
        rotate(coefficients, -turns[0]), rotate(coefficients, turns[0]), atol=1e-12
    )
    mirror = np.diag([-1.0, 1, 1])
    changed = np.abs(rotate(coefficients, mirror) + coefficients) < 1e-12
    assert changed.all(axis=0).sum() == 12  # of the 28 coefficients change their sign


def test_the_matrix_is_orthogonal_and_keeps_orders_apart(turns):
    matrix = rotation_matrix(turns[0])
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(28), atol=1e-12)
    orders = np.repeat([0, 2, 4, 6], [1, 5, 9, 13])
    assert (matrix[orders[:, None] != orders] == 0).all()


@pytest.mark.parametrize("wrong", [2 * np.eye(3), np.zeros((3, 3)), np.ones((3, 3))])
def test_what_is_no_rotation_is_refused(wrong):
    with pytest.raises(ValueError, match="orthogonal"):
        rotation_matrix(wrong)


def test_float32_stays_float32(series, turns):
    assert rotate(series(2).astype(np.float32), turns[0]).dtype == np.float32
    assert rotate(series(2).astype(np.float32), SYMMETRIES[5]).dtype == np.float32


class TestRish:
    def test_is_the_energy_of_each_order(self, series):
        coefficients = series(7)
        parts = [slice(0, 1), slice(1, 6), slice(6, 15), slice(15, 28)]
        by_hand = [np.square(coefficients[:, part]).sum(axis=1) for part in parts]
        np.testing.assert_allclose(rish(coefficients), np.stack(by_hand, axis=1))
        assert list(order_slices(6).values()) == parts

    def test_does_not_notice_a_rotation(self, series, turns):
        coefficients = series(50)
        for turn in (*turns, *SYMMETRIES):
            np.testing.assert_allclose(
                rish(rotate(coefficients, turn)), rish(coefficients), rtol=1e-10
            )

    def test_is_the_functions_energy(self, series, spread_out):
        coefficients = series(3)
        dense = spread_out(200)
        energy = 4 * np.pi * np.square(design_matrix(dense) @ coefficients.T).mean(axis=0)
        np.testing.assert_allclose(rish(coefficients).sum(axis=1), energy, rtol=0.01)

    def test_scaling_orders_scales_their_energy(self, series):
        coefficients, ratios = series(6), np.array([1.0, 0.5, 2.0, 0.0])
        scaled = rish(scale_orders(coefficients, np.broadcast_to(ratios, (6, 4))))
        np.testing.assert_allclose(scaled, rish(coefficients) * ratios**2)


# DIPY says of its own default that it will be replaced.
@pytest.mark.filterwarnings("ignore:The legacy:PendingDeprecationWarning")
@pytest.mark.reference("DIPY sh_to_sf")
@pytest.mark.parametrize("target", BASES)
@pytest.mark.parametrize("source", BASES)
def test_converted_coefficients_are_the_same_function(series, spread_out, source, target):
    coefficients, directions = series(5), spread_out(50)
    converted = convert_basis(coefficients, source, target)
    np.testing.assert_allclose(
        dipy_values(converted, directions, target),
        dipy_values(coefficients, directions, source),
        atol=1e-10,
    )
    if source != target:
        assert np.abs(converted - coefficients).max() > 0.01


def test_conversion_keeps_shape_and_names_the_bases_it_knows(series):
    image = series(24).reshape(2, 3, 4, 28)
    assert convert_basis(image, "mrtrix3", "descoteaux07").shape == image.shape
    with pytest.raises(ValueError, match="'fsl'; choose from mrtrix3, "):
        convert_basis(image, "fsl", "mrtrix3")


@pytest.mark.parametrize("count", [2, 27, 29])
def test_counts_that_no_order_has_are_refused(count):
    with pytest.raises(ValueError, match="no number of coefficients"):
        order_of(count)
    assert order_of(coefficient_count(6)) == 6
