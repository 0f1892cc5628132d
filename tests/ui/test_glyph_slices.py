"""Glyphs of a slice: the right voxels, turned as the plane is, for every stored orientation."""

from itertools import permutations, product

import numpy as np
import pytest

from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import fitting_matrix, spread_directions
from napari_msp.ui.compare.glyphs import SliceLook, draw_slice

DIRECTIONS = spread_directions(60)
FIT = fitting_matrix(DIRECTIONS, 6, 1e-4)
SHAPE = (4, 5, 6)
SIZE = 2.0


def along(direction):
    unit = np.array(direction) / np.linalg.norm(direction)
    return FIT @ np.exp(-1200 * (0.3e-3 + 1.4e-3 * np.square(DIRECTIONS @ unit)))


def stored(order=(0, 1, 2), flips=(1, 1, 1), turn=None):
    """A head of fibres to the front in which one voxel's run aslant; where that is, in RAS mm."""
    turn = np.eye(3) if turn is None else turn
    series = np.tile(along(turn @ [0, 1.0, 0]), (*SHAPE, 1))
    odd = (3, 1, 4)
    series[odd] = along(turn @ [2.0, 0, 1])
    affine = np.eye(4)
    affine[:3, :3] = turn * SIZE
    values, mask = series.astype(np.float32), np.ones(SHAPE, bool)
    values, mask = values.transpose(*order, 3), mask.transpose(order)
    affine = affine[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip < 0:
            values, mask = np.flip(values, axis), np.flip(mask, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
    return SHImage(values, affine, mask), (turn @ odd) * SIZE


def slope(drawing, row, column):
    """Of a glyph's longer axis on its layer's tile, down over right."""
    (high, wide), picture = drawing.size, drawing.picture
    tile = picture[row * high : (row + 1) * high, column * wide : (column + 1) * wide, 3] / 255
    down, right = np.mgrid[:high, :wide] - (high - 1) / 2
    spread = np.cov(np.stack([right.ravel(), down.ravel()]), aweights=tile.ravel())
    axis = np.linalg.eigh(spread)[1][:, 1]
    return axis[1] / axis[0] if axis[0] else np.inf


CASES = [
    (order, flips)
    for number, (order, flips) in enumerate(
        product(permutations(range(3)), product((1, -1), repeat=3))
    )
    if number % 5 == 0
]


@pytest.mark.parametrize(("order", "flips"), CASES)
def test_a_voxel_is_found_and_seen_from_the_front(order, flips):
    image, (x, y, z) = stored(order, flips)
    # The viewer's own axes are mm to S, P and L; coronal planes have rows upwards.
    drawing = draw_slice(image, SliceLook((1, 0, 2), up=True), (z, -y, -x), (50, 50), "odf", 24)
    assert drawing is not None
    assert drawing.count == SHAPE[0] * SHAPE[2]
    row, column = int(z / SIZE), int(SHAPE[0] - 1 - x / SIZE)
    assert drawing.first == (0, 0)
    # It leads up and to the patient's right, which is at the left, by half; rows run upwards.
    assert slope(drawing, row, column) == pytest.approx(-0.5, abs=0.05)
    high, wide = drawing.size
    tile = drawing.picture[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
    solid = np.flatnonzero((tile[..., 3] > 230).any(axis=0))
    for end in (solid[0], solid[-1]):  # what leads to the right is red
        red, green, blue = tile[tile[:, end, 3] > 230, end, :3].mean(axis=0)
        assert red > blue > green


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("leftwards", [False, True])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_rolled_and_mirrored_axes_turn_glyphs_with_them(order, up, leftwards):
    image, (x, y, z) = stored()
    place = np.array([z, -y, -x])
    drawing = draw_slice(image, SliceLook(order, up, leftwards), tuple(place), (50, 50), "odf", 24)
    assert drawing is not None
    first = {0: 0.0, 1: -(SHAPE[1] - 1) * SIZE, 2: -(SHAPE[0] - 1) * SIZE}
    row, column = (round((place[axis] - first[axis]) / SIZE) for axis in order[1:])
    fibre = np.array([1.0, 0, -2])  # along S, P and L
    down, right = fibre[list(order[1:])]
    found = slope(drawing, row, column)
    if down and right:
        assert found == pytest.approx(down / right, abs=0.05)
    else:
        assert (abs(found) < 0.1) == bool(right)


def test_an_oblique_head_is_seen_along_its_own_grid():
    angle = np.radians(12)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    image, _ = stored(turn=turn)
    straight, (x, y, z) = stored()
    look, place = SliceLook((1, 0, 2), up=True), (z, -y, -x)
    oblique, upright = (draw_slice(each, look, place, (50, 50), "odf", 24)
                        for each in (image, straight))  # fmt: skip
    assert oblique is not None
    assert upright is not None
    alpha = oblique.picture[..., 3].astype(int) - upright.picture[..., 3]
    assert np.abs(alpha).mean() < 3  # the same glyphs, which are coloured by the scanner's axes
    assert np.abs(oblique.picture[..., :3].astype(int) - upright.picture[..., :3]).max() > 20


def test_only_what_is_within_reach_and_inside_is_drawn():
    image, (x, y, z) = stored()
    drawing = draw_slice(image, SliceLook((0, 1, 2)), (z, -y, -x), (2.5, 2.5), "signal", 12)
    assert drawing is not None
    assert drawing.first == (SHAPE[1] - 1 - 2, 0)
    assert drawing.picture.shape == (3 * 12, 2 * 12, 4)
    assert draw_slice(image, SliceLook((0, 1, 2)), (99.0, -y, -x), (9, 9), "odf", 12) is None
    bare = SHImage(image.coefficients, image.affine, np.zeros_like(image.mask))
    assert draw_slice(bare, SliceLook((0, 1, 2)), (z, -y, -x), (9, 9), "odf", 12) is None
