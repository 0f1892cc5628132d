"""Letters at the sides of a picture, against where a marked corner of a head is on the screen."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from patterns import ORIENTATIONS, head, measured, named
from scipy.spatial.transform import Rotation

from napari_msp.signal.maps import sh_average
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.compare.grid_cells import VIEW, GridCells
from napari_msp.ui.compare.viewer_grid import ViewerGrid
from napari_msp.ui.docks import letter
from napari_msp.ui.layers import make_layer, map_layer, refill
from napari_msp.ui.orientation_letters import (
    KEY,
    letters_on,
    reading,
    sides_of,
    state_of,
    words_on,
)

SIDES = ("L", "A", "S")
"""Where the marked corner of a head lies."""


def shown(scan, values, **options):
    return make_layer(map_layer(scan, "SH average", values, limits=(0.0, 1.0), **options))


def marked(image):
    """(X, Y, Z) with ones in the corner that lies to the left, in front and above."""
    middle = (np.array(image.mask.shape) - 1) / 2
    away = np.moveaxis(np.indices(image.mask.shape), 0, -1) - middle
    return ((away @ image.affine[:3, :3].T) * [-1, 1, 1] > 0).all(axis=-1).astype(np.float32)


def middle_of_light(canvas):
    """Where on the canvas the light is, from -1 to 1: downwards and to the right."""
    # The middle half of the canvas: letters stand outside.
    rows, columns = canvas.shape[:2]
    inner = canvas[rows // 8 : -rows // 8, columns // 8 : -columns // 8].min(axis=-1) > 0.9
    assert inner.any()
    return tuple(np.nonzero(inner)[axis].mean() / inner.shape[axis] * 2 - 1 for axis in range(2))


def check_against(viewer, canvas):
    """Look for the light on the sides that the letters name."""
    sides = sides_of(viewer, viewer.layers[-1])
    down, right = middle_of_light(canvas)
    for value, more, less in ((down, sides.bottom, sides.top), (right, sides.right, sides.left)):
        if abs(value) > 0.1:
            assert set(more if value > 0 else less) & set(SIDES), (sides, down, right)
    named = set(sides.left + sides.right) if abs(right) > 0.1 else set()
    named |= set(sides.top + sides.bottom) if abs(down) > 0.1 else set()
    assert named


CAMERAS = {
    (0, 1, 2): [("down", "right"), ("up", "right"), ("down", "left"), ("up", "left")],
    (0, 2, 1): [("up", "left")],
    (1, 0, 2): [("up", "right"), ("down", "right")],
    (1, 2, 0): [("down", "left")],
    (2, 0, 1): [("up", "right"), ("down", "left")],
    (2, 1, 0): [("up", "left")],
}


@pytest.fixture
def small(viewer, qtbot):
    """A smaller window is drawn sooner."""
    viewer.window._qt_window.resize(800, 600)
    qtbot.wait(20)
    letter(viewer)


def look_at_the_corner(viewer):
    """Cut through the marked corner of the only layer."""
    (low, high), size = viewer.layers[0].extent.world, viewer.layers[0].scale
    for axis, at in enumerate((high[0] - size[0] / 2, low[1] + size[1], high[2] - size[2])):
        viewer.dims.set_point(axis, at)
    viewer.reset_view()


@pytest.mark.usefixtures("small")
def test_letters_are_right_for_every_order_of_axes_and_camera(viewer, pixels):
    image = head()
    viewer.add_layer(shown(named(image, "ge_st"), marked(image)))
    for order, orientations in CAMERAS.items():
        viewer.dims.order = order
        for orientation in orientations:
            viewer.scene.camera.orientation2d = orientation
            look_at_the_corner(viewer)
            check_against(viewer, pixels())


def stored(orientation):
    """A head of other lengths and voxels along each axis, stored along other axes."""
    shape = (8, 10, 6)
    affine = np.diag([3.0, 2.5, 4.0, 1.0]) @ nib.orientations.inv_ornt_aff(orientation, shape)
    mask = nib.orientations.apply_orientation(np.ones(shape, dtype=bool), orientation)
    return SHImage(np.zeros((*mask.shape, 28), dtype=np.float32), affine, mask, 1200.0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "numbers", [range(0, 48, 5), pytest.param(range(48), marks=pytest.mark.slow)]
)
def test_letters_are_right_however_a_head_is_stored(viewer, pixels, numbers):
    orders, seen = list(CAMERAS), set()
    for number in numbers:
        image = stored(ORIENTATIONS[number])
        cell = map_layer(named(image, "ge_st"), "SH average", marked(image), limits=(0.0, 1.0))
        if len(viewer.layers):
            refill(viewer.layers[0], cell)  # quicker than a new one
        else:
            viewer.add_layer(make_layer(cell))
        viewer.dims.order = orders[number % 6]
        look_at_the_corner(viewer)
        check_against(viewer, pixels())
        seen.add("".join(each.text for each in letters_on(viewer)))
    assert len(seen) == 6  # the same however it is stored, and another one for each order


@pytest.mark.parametrize("angles", [(0, 0, 0), (35, 20, -50), (10, -130, 75)])
@pytest.mark.usefixtures("small")
def test_letters_follow_a_head_that_is_turned_in_three_dimensions(viewer, pixels, angles):
    cube = named(head(), "ge_st")
    values = np.zeros(cube.sh.mask.shape, dtype=np.float32)
    values[:4, -5:, -2:] = 1
    viewer.add_layer(shown(cube, values))
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    viewer.scene.camera.angles = angles
    sides = sides_of(viewer, viewer.layers[0])
    down, right = middle_of_light(pixels())
    # The light lies towards a side that is named as often as it does on the screen.
    corner = np.array([-6.5 * 4, 7.5 * 4, 1.5 * 4])  # of the light's middle in mm, RAS+
    middle = {"R": corner[0], "L": -corner[0], "A": corner[1], "P": -corner[1]}
    middle |= {"S": corner[2], "I": -corner[2]}
    for value, ahead in ((down, sides.bottom), (right, sides.right)):
        most = max(ahead, key=lambda each: abs(middle[each]))
        if abs(value) > 0.1 and abs(middle[most]) > 20:
            assert (middle[most] > 0) == (value > 0)


def test_every_cell_of_a_grid_has_its_letters_on_the_screen(viewer, pixels):
    grid = ViewerGrid(viewer)
    letter(viewer)
    image = head()
    cells = [
        map_layer(
            named(image, name), "SH average", sh_average(image), limits=(0.0, 0.1), name=name,
            view=VIEW,
        )
        for name in "abcd"
    ]  # fmt: skip
    grid.show(GridCells(cells, 2, None, image, "legend"))
    texts = letters_on(viewer)
    assert "".join(each.text for each in texts) == "APRL" * 4
    picture = pixels()
    for each in texts:
        x, y = round(each.x), round(each.y)
        assert picture[y - 6 : y + 7, x - 6 : x + 7].max() > 0.5, each
    grid.turn_to("sagittal")
    assert "".join(each.text for each in letters_on(viewer)) == "SIAP" * 4
    assert reading(viewer) == ["from the left"]
    grid.leave()


def test_letters_go_with_our_layers_and_are_not_given_to_others(viewer, pixels):
    letter(viewer)
    letter(viewer)  # twice is once
    other = viewer.add_image(np.zeros((5, 20, 20)))
    assert KEY not in viewer.canvas.overlays
    before = pixels()
    ours = viewer.add_layer(shown(measured("ge_st", "front left"), np.zeros((16, 20, 5), "f4")))
    assert KEY in viewer.canvas.overlays
    assert len(letters_on(viewer)) == 4
    ours.visible = False
    assert letters_on(viewer) == words_on(viewer) == []
    viewer.layers.remove(ours)
    assert KEY not in viewer.canvas.overlays
    viewer.layers.selection.active = other
    viewer.reset_view()
    np.testing.assert_array_equal(pixels(), before)


def test_a_layer_that_was_turned_by_hand_has_no_letters(viewer):
    letter(viewer)
    layer = viewer.add_layer(shown(measured("ge_st", "front left"), np.zeros((16, 20, 5), "f4")))
    before = state_of(viewer)
    assert reading(viewer) == ["radiological"]
    layer.scale = (4, -4, 4)
    assert letters_on(viewer) == []
    assert state_of(viewer) != before


def test_whatever_moves_letters_is_noticed(viewer):
    letter(viewer)
    ours = viewer.add_layer(shown(measured("ge_st", "front left"), np.zeros((16, 20, 5), "f4")))
    other = viewer.add_image(np.zeros((5, 20, 20)), name="other")
    viewer.canvas.grid.enabled, viewer.canvas.grid.stride = True, 1

    def rename():
        other.name_overlay.visible, other.name = True, "in\ntwo\nlines"

    changes = (lambda: viewer.layers.move(0, 2), rename)
    for change in changes:
        texts, state = letters_on(viewer), state_of(viewer)
        change()
        assert letters_on(viewer) != texts
        assert state_of(viewer) != state
    assert ours.visible


def test_an_oblique_head_says_so(viewer):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xy", [9, -5], degrees=True).as_matrix()
    image = replace(head(), affine=turn @ head().affine)
    viewer.add_layer(shown(named(image, "ge_st"), np.zeros(image.mask.shape, "f4")))
    words = reading(viewer)
    assert words[-1] == "radiological"
    assert words[0] == "oblique by 10°"  # as its least aligned axis, the third, is
