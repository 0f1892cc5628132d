"""A real napari window on a (virtual) screen, and its pixels."""

import gc
import os

# No settings of whoever runs the tests are read or written.
os.environ["NAPARI_CONFIG"] = ""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication, QWidget

PLUGIN = "napari-msp"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of napari, of Qt and of drivers are not ours to mend."""
    for item in items:
        if "viewer" in str(item.path.parent.name):
            item.add_marker(pytest.mark.filterwarnings("default"), append=False)


@pytest.fixture(scope="session")
def napari_there() -> None:
    """Import napari, of which nothing is garbage: it collects garbage whenever layers are moved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("napari.qt")
    gc.collect()
    gc.freeze()


@contextmanager
def window(qapp: QApplication) -> Iterator:
    """A blank viewer in a window of fixed size, closed afterwards."""
    import napari

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = napari.Viewer(show=False)
    made.window._qt_window.resize(1400, 900)
    made.window._qt_window.show()
    while not made.window._qt_window.isVisible():
        qapp.processEvents()
    yield made
    if hasattr(made.window, "_qt_window"):
        made.close()
    qapp.processEvents()


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
