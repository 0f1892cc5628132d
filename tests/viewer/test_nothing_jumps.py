"""Nothing moves under the mouse when something is said: before and after, in both window sizes."""

import pytest
from qtpy.QtCore import QPoint
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QAbstractButton, QLabel, QPushButton

LONG = (
    "The scan sub-01_ses-ge_acq-st_dwi.nii.gz has voxels of 2.5 mm, the model was trained at "
    "2.4 mm: interpolate to its voxel size, or choose another model."
)
SIZES = [(1089, 629), (1600, 1000)]


def places(widget):
    """Where buttons are that can be pressed now, on the screen."""
    return {
        each: (each.mapToGlobal(QPoint(0, 0)).y(), each.width())
        for each in widget.findChildren(QAbstractButton)
        if each.isVisible() and each.text()
    }


def moved(widget, before, qtbot):
    qtbot.wait(80)
    after = places(widget)
    return {
        each.text(): (place, after.get(each)) for each, place in before.items()
        if after.get(each) != place
    }  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_buttons_of_harmonize_stay(viewer, open_widget, qtbot, size):
    viewer.window._qt_window.resize(*size)
    widget = open_widget("Harmonize")
    qtbot.wait_until(lambda: bool(widget.form.models.checked), timeout=60_000)
    widget.results.show_results("sub-01 ge_st", ["MSP → prisma_st: SH MSE 2.5e-4"], ())
    # What is in use stays, and what is above what is said.
    widget.form.add.setFocus()
    QCursor.setPos(widget.form.add.mapToGlobal(widget.form.add.rect().center()))
    qtbot.wait(200)
    before = places(widget)
    for text in ("Reading", LONG):
        widget.form.model_message.show_message("warning", text)
        widget.form.model_message.clear()
        widget.results.show_results("sub-01 ge_st", [LONG] * 2, [text])
        assert moved(widget, before, qtbot) == {}
    upper = {each: place for each, place in before.items() if each.text() not in BELOW}
    for text in ("Reading", LONG):
        widget.progress.start(text)
        assert moved(widget, upper, qtbot) == {}
        running = places(widget)
        widget.progress.end(text)
        running = {each: place for each, place in running.items() if each.text() != "Cancel"}
        assert moved(widget, running, qtbot) == {}  # nor what is below, when the bar goes
        widget.progress.end()
        for kind in ("error", "warning"):
            widget.message.show_message(kind, text, ["Help yourself"])
            assert moved(widget, upper, qtbot) == {}
        widget.message.clear()


def test_a_pressed_button_that_is_switched_off_stays(qtbot):
    from napari_msp.ui.docks import Pane

    first, second = QPushButton("Work"), QPushButton("far below")
    gap = QLabel()
    gap.setMinimumHeight(900)
    pane = Pane(first, gap, second)
    qtbot.addWidget(pane)
    pane.resize(300, 200)
    pane.show()
    qtbot.wait_until(lambda: pane.verticalScrollBar().maximum() > 0)
    pane.activateWindow()
    first.setFocus()
    first.clicked.connect(lambda: first.setEnabled(False))
    first.click()
    qtbot.wait(50)
    assert pane.verticalScrollBar().value() == 0


BELOW = ("&Compare", "Save as &NIfTI …")
"""Under what a run says."""
