"""Letters for the sides of a picture, from an affine alone."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.figures.slices import obliquity, picture_sides, side_of
from napari_msp.ui.viewer_axes import shown_affine, to_shown

ORIENTATIONS = [
    np.column_stack([order, flips])
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]
"""All 48, as nibabel writes them."""

SHAPE = (4, 5, 6)

PICTURES = list(permutations(range(3)))


def stored(orientation, turn=None):
    """(4, 4) affine of a head that is stored along other axes, and its shape."""
    linear = np.eye(4)
    linear[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag([2.0, 2.5, 3.0])
    back = nib.orientations.inv_ornt_aff(orientation, SHAPE)
    shape = nib.orientations.apply_orientation(np.zeros(SHAPE), orientation).shape
    return linear @ back, shape


@pytest.mark.parametrize("degrees", [0, 12])
@pytest.mark.parametrize("number", range(48))
def test_a_voxel_in_front_on_the_left_above_is_where_the_letters_say(number, degrees):
    turn = Rotation.from_euler("xyz", [degrees, -degrees, degrees / 2], degrees=True).as_matrix()
    affine, shape = stored(ORIENTATIONS[number], turn)
    lattice = Lattice(shape, affine)
    indices = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3)
    # The corner of the head that lies farthest to the left, the front and the top.
    marked = indices[np.argmax((indices @ affine[:3, :3].T) @ np.array([-1.0, 1.0, 1.0]))]
    volume = np.zeros(shape)
    volume[tuple(marked)] = 1
    layer = to_shown(volume, lattice)
    place = np.argwhere(layer)[0]
    np.testing.assert_allclose(
        shown_affine(lattice) @ [*place, 1], affine @ [*marked, 1], atol=1e-9
    )
    for _, rows, columns in PICTURES:
        down, right = np.eye(3)[rows], np.eye(3)[columns]
        sides = picture_sides(shown_affine(lattice), right, down)
        at_right = place[columns] > 0
        at_foot = place[rows] > 0
        assert (sides.right if at_right else sides.left) in "LAS"
        assert (sides.bottom if at_foot else sides.top) in "LAS"
        assert (sides.left if at_right else sides.right) in "RPI"
        assert (sides.top if at_foot else sides.bottom) in "RPI"


@pytest.mark.parametrize(
    ("right", "down", "convention", "letters"),
    [
        ((-1, 0, 0), (0, -1, 0), "radiological", "RLAP"),
        ((1, 0, 0), (0, -1, 0), "neurological", "LRAP"),
        ((-1, 0, 0), (0, 0, -1), "radiological", "RLSI"),
        ((0, -1, 0), (0, 0, -1), "from the left", "APSI"),
        ((0, 1, 0), (0, 0, -1), "from the right", "PASI"),
        ((0, 1, 0), (1, 0, 0), "left is above", "PALR"),
        ((0, 1, 0), (-1, 0, 0), "left is below", "PARL"),
    ],
)
def test_how_a_picture_is_to_be_read(right, down, convention, letters):
    sides = picture_sides(np.eye(4), np.array(right), np.array(down))
    assert sides.convention == convention
    assert (sides.left + sides.right + sides.top + sides.bottom) == letters


@pytest.mark.parametrize(
    ("degrees", "expected"), [(0, "A"), (19, "A"), (21, "AS"), (44, "AS"), (46, "SA"), (71, "S")]
)
def test_a_direction_between_two_axes_has_two_letters(degrees, expected):
    angle = np.radians(degrees)
    assert side_of(np.array([0.0, np.cos(angle), np.sin(angle)])) == expected
    turn = Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn
    assert obliquity(affine) == pytest.approx(min(degrees, 90 - degrees), abs=1e-4)


def test_what_leads_nowhere_has_no_letter():
    assert side_of(np.zeros(3)) == ""
