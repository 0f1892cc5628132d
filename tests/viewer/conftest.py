"""A real napari window on a (virtual) screen, and its pixels."""

import gc
import os
import re

# No settings of whoever runs the tests are read or written.
os.environ["NAPARI_CONFIG"] = ""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication, QWidget

PLUGIN = "napari-msp"
SIZE = (1400, 900)
PASSING = {"layers", "cursor", "tooltip", "status", "help", "mouse_over_canvas"}
"""Of a viewer: what follows from layers, or from where the mouse is."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of napari, of Qt and of drivers are not ours to mend."""
    for item in items:
        if "viewer" in str(item.path.parent.name):
            item.add_marker(pytest.mark.filterwarnings("default"), append=False)


@pytest.fixture(scope="session")
def napari_there(qapp: QApplication) -> None:
    """Import napari, of which nothing is garbage, and let it look for garbage among what is new."""
    if qapp.platformName() == "offscreen":  # as tests/ui draws, in one process with these
        pytest.fail("its canvas would stay blank: run tests/viewer alone, on a screen", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("napari.qt")
        canvas: Any = import_module("napari._vispy.canvas")
    gc.collect()
    gc.freeze()
    # It looks through all there is whenever layers move, for the sake of drivers on Windows.
    canvas.gc = SimpleNamespace(collect=lambda: gc.collect(1))


@contextmanager
def window(qapp: QApplication) -> Iterator:
    """A blank viewer in a window of fixed size, closed afterwards."""
    import napari

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = napari.Viewer(show=False)
    made.window._qt_window.resize(*SIZE)
    made.window._qt_window.show()
    while not made.window._qt_window.isVisible():
        qapp.processEvents()
    yield made
    if is_open(made):
        made.close()
    qapp.processEvents()


def is_open(viewer) -> bool:
    """Whether nobody has closed a viewer."""
    return hasattr(viewer.window, "_qt_window")


@pytest.fixture
def viewer(qapp: QApplication, qtbot: QtBot, napari_there: None) -> Iterator:
    """A blank viewer in a window of fixed size, closed afterwards."""
    with window(qapp) as made:
        yield made


@pytest.fixture(scope="module")
def viewer_of_all(qapp: QApplication, napari_there: None) -> Iterator:
    """One viewer for all tests of a file, which look at the same layers."""
    with window(qapp) as made:
        yield made


def state(viewer) -> str:
    """All that a viewer holds beside its layers, who listens to the mouse, and to which keys."""
    held = viewer.model_dump(exclude=PASSING)
    held["canvas"]["size"] = viewer.window._qt_window.size()  # the canvas has what docks leave
    keys = sorted({str(key) for key in viewer.keymap} - {"Shift+X"})  # the crosshair's, for good
    listening = len(viewer.mouse_move_callbacks), len(viewer.mouse_wheel_callbacks)
    return re.sub(r"(\d)\.0\b", r"\1", repr((held, keys, listening)))  # 10.0 is 10


class Kept:
    """The window that one test leaves to the next, where it can be made blank again.

    Parameters
    ----------
    qapp
        Qt's application.
    """

    def __init__(self, qapp: QApplication) -> None:
        self._qapp, self._open = qapp, ExitStack()
        self._viewer: Any = None
        self._new, self._overlays = "", set[str]()

    def lend(self) -> Any:
        """Give a blank viewer."""
        if self._viewer is None:
            self._viewer = self._open.enter_context(window(self._qapp))
            self._new = state(self._viewer)
            self._overlays = set(self._viewer.canvas.overlays)
        return self._viewer

    def take_back(self) -> None:
        """Make the viewer blank; close it where it is not as a new one then."""
        viewer = self._viewer
        if is_open(viewer):
            viewer.window.remove_dock_widget("all")
            viewer.layers.clear()
            viewer.dims.ndisplay = 2
            overlays = viewer.canvas.overlays
            for name in set(overlays) - self._overlays:
                del overlays[name]
            for part in (viewer.dims, viewer.scene.camera, viewer.canvas.grid, *overlays.values()):
                part.reset()
            viewer.dims.axis_labels = tuple(str(-n) for n in range(viewer.dims.ndim, 0, -1))
            self._qapp.processEvents()
        if not (is_open(viewer) and state(viewer) == self._new):
            self.close()

    def close(self) -> None:
        """Close the window, if one is open."""
        self._viewer = None
        self._open.close()


@pytest.fixture(scope="module")
def kept(qapp: QApplication, napari_there: None) -> Iterator[Kept]:
    """One window for the tests of a file that leave no trace in it."""
    made = Kept(qapp)
    yield made
    made.close()


@pytest.fixture
def kept_viewer(kept: Kept, qtbot: QtBot) -> Iterator:
    """A blank viewer in a window that the test before had, which is there at once."""
    yield kept.lend()
    kept.take_back()


@pytest.fixture
def model():
    """What a viewer holds, without its window: it is there at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from napari.components import ViewerModel
        from npe2 import PluginManager

        PluginManager.instance().discover()  # a window does so when it is made
        return ViewerModel()


@pytest.fixture
def cache_folder(viewer, tmp_path) -> Iterator[Path]:
    """An empty cache folder, set as a person sets it in the preferences."""
    from napari.settings import get_plugin_settings

    machine = get_plugin_settings(PLUGIN).machine
    before, folder = machine.cache_folder, tmp_path / "cache"
    machine.cache_folder = str(folder)
    yield folder
    machine.cache_folder = before


@pytest.fixture
def open_widget(viewer, qtbot: QtBot) -> Callable[[str], QWidget]:
    """Open one of the plugin's widgets as the Plugins menu does."""

    def open_one(name: str) -> QWidget:
        _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, name)
        qtbot.wait(10)
        return widget

    return open_one


@pytest.fixture
def pixels(viewer, qtbot: QtBot) -> Callable[[], np.ndarray]:
    """The canvas as it is on the screen: (rows, columns, 3) in [0, 1]."""

    def grab() -> np.ndarray:
        qtbot.wait(50)  # let it draw
        return viewer.screenshot(canvas_only=True, flash=False)[..., :3] / 255

    return grab
