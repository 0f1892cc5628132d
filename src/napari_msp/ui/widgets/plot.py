"""Plots in the window's colours that always show everything: they cannot be dragged or zoomed."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import Qt

from napari_msp.ui.widgets.colours import Colours


class StillPlot(pg.PlotWidget):
    """A plot that cannot be dragged or zoomed, and leaves keys and wheel to its surroundings."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        keep_still(self)
        self.setFocusPolicy(Qt.NoFocus)
        self.setFrameShape(self.Shape.NoFrame)

    def wheelEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Leave the wheel to the widget around the plot."""
        event.ignore()

    def heightForWidth(self, width: int) -> int:  # noqa: N802 - Qt's name
        """Ask for the least height, where the size policy asks so: the usual hint is too high."""
        return int(self.minimumHeight())

    def paint_frame(self, colours: Colours) -> None:
        """Take the colours of a theme."""
        self.setBackground(colours.ground)
        paint_axes(self, colours)


def keep_still(plot: Any) -> None:
    """Let a plot show everything, whatever the mouse does, and write numbers unscaled."""
    plot.setMouseEnabled(False, False)
    plot.setMenuEnabled(False)
    plot.hideButtons()
    for side in ("left", "bottom", "top"):  # before labels are set, else it scales again
        plot.getAxis(side).enableAutoSIPrefix(False)


def paint_axes(plot: Any, colours: Colours) -> None:
    """Draw the left and the lower axis of a plot in a theme's colours."""
    for side in ("left", "bottom"):
        axis = plot.getAxis(side)
        axis.setPen(colours.line)
        axis.setTextPen(colours.text)
