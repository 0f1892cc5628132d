"""What all of the plugin's widgets have in common: they stand in docks."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QWidget

from napari_msp.ui.preferences import PLUGIN


class Docked(QWidget):
    """A widget that lets go of the viewer when its dock is closed."""

    def leave(self) -> None:
        """Stop what goes on, and let go of the viewer."""
        raise NotImplementedError

    def event(self, event: QEvent) -> bool:
        """Leave when the dock was closed, which takes this widget out of its window."""
        if event.type() == QEvent.ParentChange and self.parent() is None:
            self.leave()
        return bool(super().event(event))

    def on_escape(self, act: Callable[[], object]) -> None:
        """Do something when Escape is pressed anywhere in this widget."""
        escape = QShortcut(QKeySequence(Qt.Key_Escape), self)
        escape.setContext(Qt.WidgetWithChildrenShortcut)
        escape.activated.connect(act)


def open_widget(viewer: Any, name: str) -> Any:
    """Open a widget as a tab beside those that are docked, in front; give it.

    Stacked docks would leave each too little room for what it has to say.

    Parameters
    ----------
    viewer
        A napari viewer.
    name
        As the menu has it, such as "Compare".
    """
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
    dock.show()
    dock.raise_()
    return widget
