"""The crosshair: set by a click, drawn in every cell, kept by whatever is shown."""

import numpy as np
import pytest
from patterns import head, measured, named, predicted
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_msp.signal.maps import sh_average
from napari_msp.ui.compare.grid_cells import VIEW, GridCells
from napari_msp.ui.compare.viewer_grid import ViewerGrid
from napari_msp.ui.crosshair import crosshair_of, lines_on
from napari_msp.ui.docks import letter
from napari_msp.ui.layers import make_layer, map_layer
from napari_msp.ui.orientation_letters import cells_of


@pytest.fixture
def canvas(viewer, qtbot):
    viewer.window._qt_window.resize(900, 700)
    letter(viewer)
    crosshair_of(viewer)
    native = viewer.window._qt_viewer.canvas.native
    qtbot.wait(20)
    return native


def press(canvas, x, y, to=None):
    spot = QPoint(round(x), round(y))
    QTest.qWait(200)  # until the window has its places
    QTest.mousePress(canvas, Qt.LeftButton, Qt.NoModifier, spot)
    if to is not None:
        for part in (0.5, 1):
            QTest.mouseMove(canvas, spot + part * (QPoint(*to) - spot))
            QTest.qWait(20)
    QTest.mouseRelease(canvas, Qt.LeftButton, Qt.NoModifier, QPoint(*to) if to else spot)
    QTest.qWait(20)


def blue(picture):
    """Pixels in the crosshair's colour."""
    from napari_msp.ui.canvas_drawing import CROSSHAIR  # loads napari's drawing

    return np.abs(picture - np.array(CROSSHAIR[:3]) * CROSSHAIR[3]).max(axis=-1) < 0.2


def grid_of(*names):
    image = head()
    cells = [
        map_layer(
            named(image, name), "SH average", sh_average(image), limits=(0.0, 0.1), name=name,
            view=VIEW,
        )
        for name in names
    ]  # fmt: skip
    return GridCells(cells, 2, None, image, "legend")


def test_a_click_sets_it_in_every_cell_and_plane(viewer, canvas, pixels):
    grid = ViewerGrid(viewer)
    grid.show(grid_of(*"abcd"))
    first, *_ = cells_of(viewer)
    x, y = first.left + first.width / 2 + 20, first.top + first.height / 2 - 15
    press(canvas, x, y)
    assert crosshair_of(viewer).shown
    camera = viewer.scene.camera
    point = crosshair_of(viewer).point
    # In the middle of the voxel that was clicked, of 4 mm.
    assert point[2] == pytest.approx(camera.center[2] + 20 / camera.zoom, abs=2.3)
    assert point[1] == pytest.approx(camera.center[1] - 15 / camera.zoom, abs=2.3)
    right, down = (round((point[n] - camera.center[n]) * camera.zoom) for n in (2, 1))
    lit = blue(pixels())
    for cell in cells_of(viewer):
        i = round(cell.top + cell.height / 2 + down)
        j = round(cell.left + cell.width / 2 + right)
        assert lit[i - 1 : i + 2, round(cell.left) + 30 : j - 30].any(axis=0).mean() > 0.8
        assert not lit[i - 4 : i + 5, j - 4 : j + 5].any()  # the voxel itself stays free
    grid.turn_to("sagittal")
    assert crosshair_of(viewer).point == point
    assert viewer.dims.point[2] == point[2]  # the slice is cut there
    ends = lines_on(viewer, list(cells_of(viewer)))
    assert len(ends) == 4 * 8
    grid.leave()  # nothing is left that could be pointed at
    assert len(viewer.layers) == 0


def test_dragging_moves_the_picture_and_not_the_crosshair(viewer, canvas):
    ViewerGrid(viewer).show(grid_of("a", "b"))
    before = viewer.scene.camera.center
    press(canvas, 200, 200, to=(260, 230))
    assert not crosshair_of(viewer).shown
    assert viewer.scene.camera.center != before


def test_layers_that_are_painted_on_keep_their_clicks(viewer, canvas):
    values = np.zeros((16, 20, 5), np.float32)
    viewer.add_layer(make_layer(map_layer(measured("ge_st", "front left"), "SH average", values)))
    labels = viewer.add_labels(np.zeros((5, 20, 16), int), scale=(4, 4, 4))
    labels.mode = "paint"
    viewer.reset_view()
    press(canvas, 300, 300)
    assert not crosshair_of(viewer).shown
    labels.mode = "pan_zoom"
    press(canvas, 300, 300)
    assert crosshair_of(viewer).shown


def test_it_outlives_entering_and_leaving_a_comparison(viewer, open_widget, qtbot):
    scan = measured("ge_st", "front left")
    made = predicted("MSP", "front right", source=scan)
    for each in (scan, made):
        values = sh_average(each.sh)
        viewer.add_layer(make_layer(map_layer(each, "SH average", values)))
    where = (8.0, -10.0, 14.0)
    crosshair_of(viewer).put(where)
    compare = open_widget("Compare")
    compare.compare_predictions([made])
    qtbot.wait_until(lambda: not compare.comparing.running and compare.grid.active)
    assert crosshair_of(viewer).point == pytest.approx(where)
    compare.form.maps.setCurrentText("colour FA")
    qtbot.wait_until(lambda: not compare.comparing.running)
    assert crosshair_of(viewer).point == pytest.approx(where)
    compare.tabs.setCurrentIndex(2)
    crosshair_of(viewer).put((4.0, 6.0, -10.0))
    qtbot.wait_until(lambda: "mm" in compare.voxel.panel.position.text())
    # In the viewer rows run to the back and columns to the left.
    assert compare.voxel.panel.position.text().startswith("R 10.0 · P 6.0 · S 4.0")
    compare.leave()
    assert crosshair_of(viewer).point == pytest.approx((4.0, 6.0, -10.0))


def test_it_goes_with_the_last_head(viewer, canvas, qtbot):
    grid = ViewerGrid(viewer)
    grid.show(grid_of("a", "b"))
    crosshair_of(viewer).put((4.0, 6.0, -10.0))
    grid.show(grid_of("a", "b", "c"))  # all layers are other ones
    qtbot.wait(20)
    assert crosshair_of(viewer).shown
    viewer.layers.clear()
    qtbot.wait(20)
    assert not crosshair_of(viewer).shown


@pytest.mark.parametrize("index", [1, 3])
def test_entering_a_comparison_keeps_slice_and_plane(viewer, index):
    image = head()
    viewer.add_layer(make_layer(map_layer(named(image, "x"), "SH average", sh_average(image))))
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 5 * index)
    at = viewer.dims.point[1]
    grid = ViewerGrid(viewer)
    grid.show(grid_of("a", "b"))
    assert grid.plane == "coronal"
    assert viewer.dims.point[1] == at
    grid.leave()
    assert viewer.dims.point[1] == at
