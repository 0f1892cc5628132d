"""Open one of the plugin's widgets from another."""

from typing import Any

from napari_msp.ui.preferences import PLUGIN


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
