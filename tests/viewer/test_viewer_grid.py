"""Cells in a grid: fitted, upright, on the right slice, and the camera left to whoever moves it."""

from dataclasses import replace

import numpy as np
import pytest
from patterns import Canvas, head, named

from napari_msp.evaluation.figures.slices import choose_slice
from napari_msp.learning.events import Previewed
from napari_msp.signal.maps import sh_average
from napari_msp.ui.compare.grid_cells import VIEW, GridCells
from napari_msp.ui.compare.viewer_grid import ViewerGrid
from napari_msp.ui.docks import letter
from napari_msp.ui.grid_fit import COLOUR_BAR, LEGEND, LEGEND_SIZE, SMALLEST, brain_extent, frame
from napari_msp.ui.layers import lattice_of, map_layer, shown_by
from napari_msp.ui.orientation_letters import cells_of, letters_on
from napari_msp.ui.shared import take_away
from napari_msp.ui.train.preview_layers import PreviewLayers, PreviewPicture
from napari_msp.ui.viewer_axes import ORDERS


@pytest.fixture
def viewer(kept_viewer):
    return kept_viewer


def grid_cells(*images, columns=2, bar=None, names=None):
    names = names or [f"image {n}" for n in range(len(images))]
    cells = [
        map_layer(
            named(image, name),
            "SH average",
            sh_average(image),
            limits=(0.0, 0.1),
            name=name,
            view=VIEW,
        )
        for name, image in zip(names, images, strict=True)
    ]
    return GridCells(cells, columns, bar, images[0], "legend")


@pytest.fixture
def grid(viewer):
    made = ViewerGrid(viewer)
    yield made
    if viewer.layers:
        made.leave()


def test_cells_take_heads_of_other_sizes_without_being_made_anew(viewer, grid):
    first = grid.show(grid_cells(head(), head()))
    other = head(scale=2)
    assert grid.show(grid_cells(other, other), carry=True) == first
    for layer in first:
        assert layer.data.shape == other.mask.shape[::-1]
        assert lattice_of(layer).matches(other.lattice)


def stored(image, axes: str):
    """The same head stored along other axes."""
    import nibabel as nib

    wanted = nib.orientations.axcodes2ornt(axes)
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted)
    inverse = nib.orientations.inv_ornt_aff(change, image.mask.shape)
    return replace(
        image,
        coefficients=nib.orientations.apply_orientation(image.coefficients, change),
        mask=nib.orientations.apply_orientation(image.mask, change),
        affine=image.affine @ inverse,
    )


def test_brains_fill_their_cells_and_stay_clear_of_names(viewer, grid, pixels):
    grid.show(grid_cells(*[head(rest="bright")] * 4, bar=3))
    canvas = Canvas(viewer, pixels())
    for place in ((0, 0), (0, 1), (1, 1)):  # in the other one lies the scale bar
        cell = canvas.cell(*place)
        white = cell.min(axis=-1) > 0.9
        # Letters are white too, but nowhere as wide as a brain.
        rows = np.flatnonzero(white.sum(axis=1) > cell.shape[1] / 3)
        columns = np.flatnonzero(white[rows].all(axis=0))
        assert rows[0] >= 30
        assert rows[-1] < cell.shape[0] - 40
        filled = max(len(rows) / cell.shape[0], len(columns) / cell.shape[1])
        assert filled > 0.6


def test_boxes_are_as_large_as_what_is_written_in_them(viewer, pixels):
    from napari_msp.ui.canvas_drawing import show_legend

    red = np.tile((1.0, 0.0, 0.0), (20, 20, 1))
    layer = viewer.add_image(red, rgb=True, name="a name · of it")
    viewer.scene.camera.zoom = 200
    show_legend(viewer, "two lines of words,\nof which one is longer than the other")
    layer.name_overlay.visible = True
    for size in (SMALLEST, LEGEND_SIZE):
        viewer.canvas.overlays[LEGEND].font_size = layer.name_overlay.font_size = size
        picture = pixels()
        half = picture.shape[0] // 2
        for part in (picture[:half], picture[half:]):
            on_red, text = np.argwhere(part[..., 0] < 0.5), np.argwhere(part[..., 2] > 0.3)
            room = np.concatenate([text.min(0) - on_red.min(0), on_red.max(0) - text.max(0)])
            assert room.min() >= 0
            assert room.max() <= 14


@pytest.mark.parametrize("cell", [(200, 500), (500, 200), (300, 300), (30, 30)])
@pytest.mark.parametrize("upright", [True, False])
def test_a_frame_holds_the_brain(cell, upright):
    flat, tall = (10.0, 50.0), (-100.0, 60.0)
    brain = np.array([*((tall, flat) if upright else (flat, tall)), (10.0, 150.0)])
    centre, zoom = frame(cell, brain, (1, 0, 2) if upright else (0, 1, 2), 12, 22)
    ends = [(-1 if upright else 1) * (end - centre[0]) * zoom for end in tall]
    top, bottom = (cell[0] / 2 + end for end in sorted(ends))
    left, right = (cell[1] / 2 + (end - centre[1]) * zoom for end in brain[2])
    assert zoom > 0
    if min(cell) >= 200:
        assert 30 <= top < bottom <= cell[0] - 40
        assert 8 - 1e-6 <= left < right <= cell[1] - 8 + 1e-6


@pytest.mark.parametrize("size", [(1400, 900), (800, 500)])
def test_letters_at_the_sides_stand_in_the_middle_of_heads(viewer, grid, qtbot, size):
    letter(viewer)
    viewer.window._qt_window.resize(*size)
    qtbot.wait(50)
    grid.show(grid_cells(*[head()] * 4, bar=3))
    (cell, *_), camera = cells_of(viewer), viewer.scene.camera
    first, last = brain_extent(head())[1]
    middle = cell.top + cell.height / 2 + ((first + last) / 2 - camera.center[1]) * camera.zoom
    top, bottom, *sides = letters_on(viewer)[:4]
    assert [each.y for each in sides] == pytest.approx([middle] * 2, abs=2)
    ends = [
        cell.top + cell.height / 2 + (end - camera.center[1]) * camera.zoom for end in (first, last)
    ]
    assert ends[0] - top.y == pytest.approx(bottom.y - ends[1], abs=2)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SLA"])
def test_the_shown_slice_is_counted_as_the_figure_counts(grid, axes):
    # A head whose largest slice is another one in each direction, not in the middle.
    image = stored(head(), axes)
    mask = np.zeros_like(image.lattice.to_canonical(image.mask))
    mask[2:9, 3:5, 1:3], mask[6, 2:12, 1:4], mask[3:8, 4, 0:5] = True, True, True
    image = replace(image, mask=image.lattice.to_stored(mask))
    grid.show(grid_cells(image, image))
    for plane in ("axial", "coronal", "sagittal"):
        grid.turn_to(plane)
        assert grid.plane == plane
        assert grid.index == choose_slice(image.mask, image.lattice, plane).index
        axis, index = grid.where
        layer = grid.layers[0]
        seen, wanted = layer._slice.image.view, np.take(np.asarray(layer.data), index, axis=axis)
        np.testing.assert_array_equal(np.sort(seen.ravel()), np.sort(wanted.ravel()))


def test_heads_stand_upright_in_every_plane(viewer, grid, pixels):
    image = head()
    image.coefficients[:, :, :2] = 0  # the lower part is dark
    image.mask[:, :, :2] = False
    full = head(rest="bright")
    full.coefficients[:, :, :3] = image.coefficients[:, :, :3]
    grid.show(grid_cells(full, full))
    for plane in ("coronal", "sagittal"):
        grid.turn_to(plane)
        cell = Canvas(viewer, pixels()).cell(0, 0).mean(-1)
        middle = cell[:, cell.shape[1] // 2]
        bright = np.flatnonzero(middle > 0.9)
        dim = np.flatnonzero((middle > 0.05) & (middle < 0.9))
        assert bright.mean() < cell.shape[0] / 2
        assert len(dim) == 0 or bright.mean() < dim.mean()


def test_cells_fit_the_window_until_somebody_moves_the_camera(viewer, grid, qtbot):
    grid.show(grid_cells(*[head()] * 4))
    before = viewer.scene.camera.zoom
    viewer.window._qt_window.resize(900, 600)
    qtbot.wait_until(lambda: viewer.scene.camera.zoom < before)
    viewer.scene.camera.zoom = 3.0
    grid.show(grid_cells(*[head("front left")] * 4))
    assert viewer.scene.camera.zoom == 3.0
    size = viewer.canvas.size
    viewer.window._qt_window.resize(1400, 900)
    qtbot.wait_until(lambda: viewer.canvas.size != size)
    assert viewer.scene.camera.zoom == 3.0


def test_contrast_that_a_person_chose_is_kept_for_new_values(grid):
    layers = grid.show(grid_cells(head(), head()))
    layers[1].contrast_limits = (0.0, 0.05)
    again = grid.show(grid_cells(head("front left"), head("front left")))
    assert again[1] is layers[1]
    assert tuple(layers[1].contrast_limits) == (0.0, 0.05)
    np.testing.assert_array_equal(
        np.sort(layers[1].data.ravel()), np.sort(sh_average(head("front left")).ravel())
    )


def test_own_names_are_given_back(viewer, grid):
    data, options, _ = map_layer(
        named(head(), "x"),
        "SH average",
        sh_average(head()),
    )
    viewer.add_image(data, **(options | {"name": "image 0"}))
    layers = grid.show(grid_cells(head(), head()))
    assert layers[0].name == "image 0"
    assert viewer.layers[0].name == "image 0 (hidden)"
    grid.leave()
    assert [layer.name for layer in viewer.layers] == ["image 0"]


def test_cells_that_were_moved_in_the_list_of_layers_stand_in_their_places_again(viewer, grid):
    first = grid.show(grid_cells(head(), head()))
    viewer.layers.move(0, 2)
    again = grid.show(grid_cells(head(), head()))
    assert [*viewer.layers] == again
    assert not set(again) & set(first)
    grid.leave()


def test_names_of_hidden_layers_are_given_to_refilled_cells_too(viewer, grid):
    data, options, _ = map_layer(named(head(), "x"), "SH average", sh_average(head()))
    viewer.add_image(data, **(options | {"name": "other"}))
    grid.show(grid_cells(head(), head()))
    layers = grid.show(grid_cells(head(), head(), names=["other", "image 1"]))
    assert [layer.name for layer in layers] == ["other", "image 1"]
    grid.leave()
    assert [layer.name for layer in viewer.layers] == ["other"]


def test_a_scale_bar_and_a_legend_are_drawn_and_taken_away(viewer, grid, pixels):
    grid.show(grid_cells(*[head()] * 4))
    foot = pixels()[-40:]
    width = foot.shape[1]
    assert (foot[:, : width // 4].max(-1) > 0.5).sum() > 100
    assert (foot[:, width // 3 : 2 * width // 3].max(-1) > 0.5).sum() > 30
    bar, zoom = viewer.canvas.overlays.scale_bar, viewer.scene.camera.zoom
    assert bar.length == max(each for each in (50, 20, 10, 5, 2, 1) if each * zoom < 112)
    for zoom, length in ((1.5, 50), (3, 20), (10, 10), (40, 2), (500, 1)):  # not onto the legend
        viewer.scene.camera.zoom = zoom
        assert bar.length == length
        if zoom <= 3:  # it is drawn as long as it says
            lit = np.flatnonzero((pixels()[-14:, : width // 3].max(-1) > 0.5).any(axis=0))
            assert length * zoom - 3 < np.ptp(lit) < length * zoom + 12
    grid.leave()
    assert not viewer.canvas.overlays.scale_bar.visible
    assert "napari_msp_legend" not in viewer.canvas.overlays


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_layer_with_time_may_be_there_before_and_come_during(viewer, grid, when, pixels):
    image = head("front left", rest="bright")
    cells = grid_cells(image, image)

    def planes():
        for plane in ORDERS:
            grid.turn_to(plane)
            assert grid.plane == plane
            # How much is bright: that time's slider makes the canvas lower, changes little.
            lit = float((pixels().mean(-1) > 0.5).mean())
            yield grid.index, grid.layers[0]._slice.image.view, lit

    grid.show(cells)
    expected = list(planes())
    if when == "before":
        grid.leave()
    else:
        grid.turn_to("coronal")
    time = viewer.add_image(np.ones((3, 20, 20, 20)), name="time", opacity=0)
    if when == "before":
        viewer.dims.set_point(0, 2)
        grid.show(cells)
    else:
        assert grid.plane == "coronal"
        assert not time.visible
    for (index, seen, lit), wanted in zip(planes(), expected, strict=True):
        assert index == wanted[0]
        np.testing.assert_array_equal(seen, wanted[1])
        assert lit == pytest.approx(wanted[2], rel=0.15)
    viewer.dims.roll()  # time itself may be among the axes that are shown
    assert grid.plane in ORDERS
    grid.leave()
    assert time.visible
    assert viewer.dims.order == (0, 1, 2, 3)
    if when == "before":
        assert viewer.dims.point[0] == 2


def test_deleting_a_layer_with_time_meanwhile_gives_the_order_back(viewer, grid):
    data, options, _ = map_layer(
        named(head(), "x"),
        "SH average",
        sh_average(head()),
    )
    viewer.add_image(data, **options)
    time = viewer.add_image(np.ones((3, 20, 20, 20)))
    viewer.dims.order = (0, 2, 1, 3)
    point = viewer.dims.point
    grid.show(grid_cells(head(), head()))
    viewer.layers.remove(time)
    grid.turn_to("sagittal")
    grid.leave()
    assert viewer.dims.order == (1, 0, 2)
    assert viewer.dims.point == point[1:]


def test_deleting_every_layer_is_survived(viewer, grid):
    grid.show(grid_cells(head(), head()))
    viewer.layers.clear()
    grid.turn_to("sagittal")
    assert grid.plane in ORDERS
    grid.leave()
    assert len(viewer.layers) == 0


def test_an_opened_eye_waits_until_the_grid_is_left(viewer, pixels):
    told = []
    grid = ViewerGrid(viewer, told.append)
    data, options, _ = map_layer(
        named(head(), "x"),
        "SH average",
        sh_average(head()),
    )
    hidden = [
        viewer.add_image(data, **(options | {"name": name, "visible": False}))
        for name in ("image 0", "other")
    ]
    grid.show(grid_cells(*[head()] * 4))
    before = pixels()
    hidden[0].visible = True
    assert not hidden[0].visible
    assert told == ["Leave the comparison to see “image 0”."]
    np.testing.assert_array_equal(pixels(), before)
    grid.leave()
    assert [layer.visible for layer in hidden] == [True, False]
    hidden[1].visible = True
    assert hidden[1].visible
    assert len(told) == 1


def test_names_that_cells_took_for_a_while_are_given_back_as_they_were(viewer, grid):
    data, options, _ = map_layer(named(head(), "x"), "SH average", sh_average(head()))
    own = viewer.add_image(data, **(options | {"name": "image 0"}))
    grid.show(grid_cells(head(), head(), names=["image 0", "one"]))
    assert own.name == "image 0 (hidden)"
    grid.show(grid_cells(head(), head(), names=["two", "three"]))  # into the same layers
    assert own.name == "image 0"
    grid.show(grid_cells(head(), head(), names=["image 0", "one"]))
    late = viewer.add_image(data, **(options | {"name": "one"}))
    assert late.name == "one (hidden)"
    own.name = "mine"
    grid.leave()
    assert (own.name, late.name) == ("mine", "one")


def test_the_colour_bar_is_that_of_a_cell_that_is_seen(viewer, grid):
    cells = grid.show(grid_cells(*[head()] * 4, bar=3))
    overlays = viewer.canvas.overlays
    assert overlays[COLOUR_BAR].layer is cells[3]
    viewer.layers.remove(cells[3])
    assert overlays[COLOUR_BAR].layer is cells[2]
    cells[0].contrast_limits = (0.0, 0.05)
    assert tuple(overlays[COLOUR_BAR].layer.contrast_limits) == (0.0, 0.05)
    for each in cells[:3]:
        each.visible = False
    assert COLOUR_BAR not in overlays
    cells[1].visible = True
    assert overlays[COLOUR_BAR].layer is cells[1]


def test_a_copy_of_a_cell_is_a_persons_own(viewer, grid, pixels):
    from napari.layers._layer_actions import _duplicate_layer

    cells = grid.show(grid_cells(*[head()] * 4))
    before = pixels()
    viewer.layers.selection = {cells[1]}
    _duplicate_layer(viewer.layers)
    copy = next(layer for layer in viewer.layers if layer not in cells)
    assert shown_by(copy).view == VIEW
    assert not copy.visible
    np.testing.assert_array_equal(pixels(), before)
    grid.show(grid_cells(*[head()] * 2))
    grid.leave()
    assert list(viewer.layers) == [copy]
    assert copy.visible


def test_only_one_has_the_viewer_and_pictures_of_a_training_wait(viewer, grid):
    def learn(epoch):
        layer = map_layer(
            named(head("front left"), "learning"), "SH average", sh_average(head()), view="train"
        )
        event = Previewed("shresnet prisma_st", epoch, epoch, "prisma_st", "no.nii.gz")
        previews._plan(PreviewPicture(event, head(), layer, None))
        settle()

    def settle():
        while previews._changes.busy:
            previews._changes._do_one()

    review, said = ViewerGrid(viewer, owner="the review"), []
    cells = review.show(grid_cells(*[head()] * 4))
    legend, shape = viewer.canvas.overlays[LEGEND].text, viewer.canvas.grid.shape
    assert grid.show(grid_cells(head(), head())) == []
    assert grid.refusal == "Leave the review first: the comparison needs the whole canvas."
    previews = PreviewLayers(viewer, "sub-01", {}, viewer.window._qt_window)
    previews.kept_out.connect(said.append)
    learn(0)
    assert said == ["the review"]
    assert review.unseen(range(4)) == ""
    assert [layer.visible for layer in viewer.layers] == [True] * 4 + [False]
    assert (viewer.canvas.overlays[LEGEND].text, viewer.canvas.grid.shape) == (legend, shape)
    cells[1].visible = False  # by a person
    assert "hidden" in review.unseen((0, 1))
    review.hide()
    assert not any(layer.visible for layer in cells)
    assert [each.visible for each in review.show(grid_cells(*[head()] * 4))] == [
        True,
        False,
        True,
        True,
    ]
    review.leave()
    assert said == ["the review", ""]
    settle()  # no other preview comes
    assert viewer.layers[0].visible
    assert viewer.canvas.grid.shape == (-1, 2)
    assert viewer.canvas.overlays[LEGEND].text == "prisma_st: untrained"
    learn(1)
    assert viewer.canvas.overlays[LEGEND].text == "prisma_st: SHResNet, epoch 1, step 1"
    review.show(grid_cells(*[head()] * 4))
    assert said == ["the review", "", "the review"]
    review.leave()
    settle()
    assert viewer.canvas.overlays[LEGEND].text == "prisma_st: SHResNet, epoch 1, step 1"
    review.show(grid_cells(*[head()] * 4))
    viewer.layers.remove(previews._own[0])  # by a person, while the canvas is another's
    review.leave()
    learn(2)
    assert not viewer.canvas.grid.enabled
    assert viewer.canvas.background_color_override is None
    assert LEGEND not in viewer.canvas.overlays
    previews.stop()


def test_what_drew_cells_is_deleted_in_the_canvas_own_context(viewer, grid, qtbot, monkeypatch):
    """In another one, some drivers crash at the next draw where no image is left to be drawn."""
    from qtpy.QtGui import QOpenGLContext
    from vispy.gloo.glir import GlirProgram

    native, delete, contexts = viewer.window._qt_viewer.canvas.native, GlirProgram.delete, []

    def deleted(program):
        contexts.append(QOpenGLContext.currentContext())
        delete(program)

    monkeypatch.setattr(GlirProgram, "delete", deleted)
    grid.show(grid_cells(head(), head()))
    viewer.add_points(np.zeros((2, 3)), name="lesion")
    qtbot.wait(100)
    contexts.clear()
    grid.leave()
    assert contexts
    assert all(context is native.context() for context in contexts)
    qtbot.wait(100)
    image = viewer.add_image(np.ones((4, 5, 6)))
    qtbot.wait(100)
    contexts.clear()
    take_away(viewer, image, image)
    assert contexts
    assert all(context is native.context() for context in contexts)
    qtbot.wait(100)
