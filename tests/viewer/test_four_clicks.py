"""From a blank napari to the paper's Fig. 3 in four clicks, on the real menus and buttons."""

import pytest
from qtpy.QtCore import Qt

from napari_msp.ui.compare.widget import Compare
from napari_msp.ui.harmonize.widget import Harmonize

MINUTE = 60_000


def choose(window, *path: str) -> None:
    """Choose from the menu bar as a person does: open menu after menu, then press."""
    actions = window.menuBar().actions()
    for title in path:
        action = next(each for each in actions if each.text().replace("&", "").startswith(title))
        if action.menu() is not None:
            action.menu().aboutToShow.emit()
            actions = action.menu().actions()
    action.trigger()


def docked(window, kind):
    """The one widget of a kind that is docked."""
    (found,) = window.findChildren(kind)
    return found


@pytest.mark.slow
def test_from_blank_napari_to_figure_3(viewer, qtbot, cache_folder, pixels):
    window = viewer.window._qt_window
    clicks = 0

    choose(window, "File", "Open Sample", "Travelling heads (simulated)")
    clicks += 1
    assert viewer.layers[-1].name == "sub-01 ge_st · SH average"

    choose(window, "Plugins", "MSP Harmonization", "Harmonize")
    clicks += 1
    harmonize = docked(window, Harmonize)
    button = harmonize.form.button
    qtbot.wait_until(button.isEnabled, timeout=MINUTE)

    qtbot.mouseClick(button, Qt.LeftButton)
    clicks += 1
    qtbot.wait_until(lambda: not harmonize.running, timeout=3 * MINUTE)

    qtbot.mouseClick(harmonize.results.compare, Qt.LeftButton)
    clicks += 1
    compare = docked(window, Compare)
    qtbot.wait_until(lambda: not compare.comparing.running, timeout=MINUTE)
    assert clicks <= 4
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
