"""From a blank napari to the paper's Fig. 3 in four clicks, on the real menus and buttons."""

from collections.abc import Iterator

import pytest
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractButton, QApplication, QMenu

from napari_msp.ui import sample_data
from napari_msp.ui.compare.widget import Compare
from napari_msp.ui.harmonize.widget import Harmonize

PATIENCE = 15 * 60_000
"""Milliseconds within which a busy machine ends a job: half a minute of processor time."""


class Clicks(QObject):
    """Counts what reaches buttons and menu entries, whoever sent it; unfolding a menu is free."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[str] = []

    def eventFilter(self, target: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() == QEvent.MouseButtonRelease:
            if isinstance(target, QAbstractButton):
                self.received.append(target.text())
            elif isinstance(target, QMenu):
                entry = target.actionAt(event.position().toPoint())
                if entry is not None and entry.menu() is None:
                    self.received.append(entry.text())
        return False


@pytest.fixture
def clicks() -> Iterator[Clicks]:
    """Everything that is clicked in the whole application."""
    counted = Clicks()
    QApplication.instance().installEventFilter(counted)
    yield counted
    QApplication.instance().removeEventFilter(counted)


def choose(qtbot, window, *path: str) -> None:
    """Choose from the menu bar with the mouse: unfold menu after menu, then click the entry."""
    menu = window.menuBar()
    for title in path:
        entry = next(
            each for each in menu.actions() if each.text().replace("&", "").startswith(title)
        )
        if entry.menu() is None:
            break
        menu = entry.menu()
        menu.popup(window.mapToGlobal(window.rect().center()))
    qtbot.mouseClick(menu, Qt.LeftButton, pos=menu.actionGeometry(entry).center())


def docked(window, kind):
    """The one widget of a kind that is docked."""
    (found,) = window.findChildren(kind)
    return found


@pytest.mark.parametrize("size", ["tiny", pytest.param("full", marks=pytest.mark.slow)])
def test_from_blank_napari_to_figure_3(
    viewer, qtbot, cache_folder, pixels, clicks, monkeypatch, size
):
    monkeypatch.setattr(sample_data, "SIZE", size)
    window = viewer.window._qt_window

    sample = "Travelling heads (simulated)"
    choose(qtbot, window, "File", "Open Sample", "MSP Harmonization", sample)
    assert viewer.layers[-1].name == "sub-01 ge_st · SH average"

    choose(qtbot, window, "Plugins", "MSP Harmonization", "Harmonize")
    harmonize = docked(window, Harmonize)
    button = harmonize.form.button
    qtbot.wait_until(button.isEnabled, timeout=PATIENCE)

    qtbot.mouseClick(button, Qt.LeftButton)
    qtbot.wait_until(lambda: not harmonize.running, timeout=PATIENCE)

    qtbot.mouseClick(harmonize.results.compare, Qt.LeftButton)
    compare = docked(window, Compare)
    qtbot.wait_until(lambda: not compare.comparing.running, timeout=PATIENCE)
    assert len(clicks.received) == 4, clicks.received
    shown = [layer.name for layer in viewer.layers if layer.visible]
    assert shown == [
        "sub-01 prisma_st · SH average",
        "sub-01 DIQT · SH average",
        "sub-01 MSP · SH average",
        "sub-01 ge_st · SH average",
        "sub-01 DIQT · MSE",
        "sub-01 MSP · MSE",
    ]
    assert viewer.canvas.grid.enabled
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (2, 3)
    assert pixels().std() > 0.1
