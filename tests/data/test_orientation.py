"""Stored order and closest-canonical order."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.lattice import Lattice, direction_cosines

ORIENTATIONS = [
    np.array(list(zip(axes, signs, strict=True)))
    for axes in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


@pytest.mark.reference("nibabel as_closest_canonical")
@pytest.mark.parametrize("kind", ["RAS", "oblique"])
def test_canonical_order_is_nibabels_from_each_of_48(scan, kind):
    made = scan(kind, directions=3)
    assert len(ORIENTATIONS) == 48
    for orientation in ORIENTATIONS:
        image = made.stored_along(orientation).image
        lattice = Lattice(image.shape[:3], image.affine)
        reference = nib.as_closest_canonical(image)
        array = image.get_fdata()

        np.testing.assert_allclose(lattice.canonical.affine, reference.affine, atol=1e-9)
        np.testing.assert_array_equal(lattice.to_canonical(array), reference.get_fdata())
        np.testing.assert_array_equal(lattice.to_stored(lattice.to_canonical(array)), array)


def test_grid_rotation_is_proper_and_the_same_for_all_48(scan):
    made = scan("oblique", directions=3)
    rotations = []
    for orientation in ORIENTATIONS:
        image = made.stored_along(orientation).image
        canonical = Lattice(image.shape[:3], image.affine).canonical
        rotations.append(direction_cosines(canonical.affine))
    assert np.linalg.det(rotations[0]) == pytest.approx(1)
    np.testing.assert_allclose(rotations, np.broadcast_to(rotations[0], (48, 3, 3)), atol=1e-9)
    assert np.abs(rotations[0] - np.eye(3)).max() > 0.1


def test_direction_cosines_leave_voxel_sizes_out(affine):
    cosines = direction_cosines(affine)
    np.testing.assert_allclose(cosines @ cosines.T, np.eye(3), atol=1e-12)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(cosines * sizes, affine[:3, :3], atol=1e-9)


def test_a_sheared_affine_has_near_orthogonal_cosines():
    sheared = np.array([[2.0, 0.1, 0, 1], [0, 2, 0.1, 2], [0, 0, 2, 3], [0, 0, 0, 1]])
    cosines = direction_cosines(sheared)
    np.testing.assert_allclose(cosines @ cosines.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(cosines, np.eye(3), atol=0.06)
