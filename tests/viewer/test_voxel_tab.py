"""The voxel under a real mouse."""

import numpy as np
import pytest
from patterns import SHAPE, SIZE, head, measured, predicted, tissue
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

VOXEL = (4, 15, 2)
"""Stored; in the front left square of the prediction, and outside the truth's."""


@pytest.fixture(scope="module")
def viewer(viewer_of_all):
    return viewer_of_all


@pytest.fixture(scope="module")
def widget(viewer):
    scan = measured("ge_st", "back left")
    truth = measured("prisma_st", "front right")
    _, widget = viewer.window.add_plugin_dock_widget("napari-msp", "Compare")
    made = predicted("MSP", "front left", scan)
    widget._given = (truth, made)
    widget._list()
    widget.form.choose("sub-01 prisma_st", ["sub-01 MSP prisma_st"])
    return widget


@pytest.fixture
def compare(widget, qtbot):
    """A comparison, as at first: another test may have left it, or turned the head."""
    if not widget.grid.active:
        widget.show_comparison()
        qtbot.wait_until(lambda: not widget.comparing.running)
    widget.form.planes.setCurrentText("axial")
    widget.tabs.setCurrentIndex(2)
    qtbot.wait(50)
    assert not widget.voxel.hold.isChecked()
    return widget


@pytest.fixture
def point(viewer, compare):
    """Where a stored voxel is on the canvas, in the cell of a column of the first row."""

    def at(voxel, column: int) -> QPoint:
        height, width = viewer.canvas.viewbox_size(viewer.layers)
        x, y, _ = head().affine[:3, :3] @ voxel + head().affine[:3, 3]
        _, row, across = viewer.scene.camera.center
        zoom = viewer.scene.camera.zoom
        left = column * (width + viewer.canvas.grid.spacing)
        return QPoint(
            round(left + width / 2 + (-x - across) * zoom), round(height / 2 + (-y - row) * zoom)
        )

    return at


@pytest.fixture
def move(viewer, qtbot):
    def to(point: QPoint) -> None:
        canvas = viewer.window._qt_viewer.canvas.native
        QTest.mouseMove(canvas, point)
        qtbot.wait(150)

    return to


def shown(compare):
    """Coefficients by the name of their trace."""
    return {trace.name: trace.coefficients for trace in compare.voxel.panel._traces}


def test_it_follows_the_mouse_in_every_cell(viewer, compare, point, move):
    panel = compare.voxel.panel
    for column in (0, 1):
        move(point((1, 1, 2), column))
        move(point(VOXEL, column))
        assert "voxel 4 15 2" in panel.position.text()
        traces = shown(compare)
        assert list(traces) == ["truth prisma_st", "MSP", "input ge_st"]
        np.testing.assert_array_equal(traces["truth prisma_st"], tissue("dark"))
        np.testing.assert_array_equal(traces["MSP"], tissue("bright"))
        np.testing.assert_array_equal(traces["input ge_st"], tissue("dark"))
    # x runs to the right of the patient, so low x lies on the left.
    mm = (np.array(VOXEL) - (np.array(SHAPE) - 1) / 2) * SIZE
    assert f"L {-mm[0]:.1f}" in panel.position.text()
    assert f"A {mm[1]:.1f}" in panel.position.text()
    assert "x, y, z: {:.1f}, {:.1f}, {:.1f} mm".format(*mm) in panel.position.text()


def test_outside_the_brain_it_says_so(compare, point, move):
    move(point(VOXEL, 0))
    move(point((0, 10, 2), 0))
    assert compare.voxel.panel.position.text() == "Outside the brain."


def test_a_voxel_can_be_held(viewer, compare, point, move, qtbot):
    canvas = viewer.window._qt_viewer.canvas.native
    move(point(VOXEL, 0))
    QTest.mouseClick(canvas, Qt.LeftButton, Qt.ShiftModifier, point(VOXEL, 0))
    qtbot.wait(50)
    assert compare.voxel.hold.isChecked()
    move(point((8, 10, 2), 0))
    assert "voxel 4 15 2" in compare.voxel.panel.position.text()
    compare.voxel.hold.setChecked(False)
    move(point((9, 10, 2), 0))
    assert "voxel 9 10 2" in compare.voxel.panel.position.text()


def test_the_profile_lies_in_the_shown_plane(viewer, compare):
    compare.voxel._position = (0.0, -10.0, 10.0)
    compare.voxel.look()
    assert compare.voxel.panel._plane == "axial"
    compare.form.planes.setCurrentText("coronal")
    assert compare.voxel.panel._plane == "coronal"
    viewer.dims.roll()  # napari's own button
    assert compare.form.planes.currentText() == compare.grid.plane == "sagittal"
    assert compare.voxel.panel._plane == "sagittal"


def test_after_leaving_the_mouse_is_free(viewer, compare, point, move):
    assert len(viewer.mouse_move_callbacks) == 1
    pressed = len(viewer.mouse_drag_callbacks)
    compare.leave()
    assert not viewer.mouse_move_callbacks
    assert len(viewer.mouse_drag_callbacks) == pressed - 1
