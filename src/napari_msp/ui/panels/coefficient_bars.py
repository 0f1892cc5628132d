"""SH coefficients as bars, each order on an axis of its own: a lower order dwarfs the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

from napari_msp.arrays import FloatArray
from napari_msp.signal.sh_index import ORDER, order_slices
from napari_msp.ui.panels.scales import Scale
from napari_msp.ui.widgets.colours import Colours

TITLE = "SH coefficients in SH units"

GROUP = 0.82
"""Share of a coefficient's place that its bars take."""


class CoefficientBars(pg.GraphicsLayoutWidget):
    """One bar a coefficient and image, in a plot for each order: l = 0 and 2 above 4 and 6."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("SH coefficients of the voxel")
        self.setMinimumHeight(210)
        self.ci.layout.setContentsMargins(0, 4, 0, 0)
        self.ci.layout.setSpacing(4)
        self.setAntialiasing(True)
        self.setFocusPolicy(Qt.NoFocus)
        self._title = self.addLabel(row=0, col=0, colspan=2, justify="left")
        self._plots = [
            _OrderPlot(self.addPlot(row=1 + number // 2, col=number % 2), order, part)
            for number, (order, part) in enumerate(order_slices(ORDER).items())
        ]

    def show_coefficients(self, coefficients: Sequence[FloatArray]) -> None:
        """Show (28,) coefficients of every image; none: no bars."""
        for plot in self._plots:
            plot.show(coefficients)

    def paint(self, colours: Colours, bars: Sequence[QColor]) -> None:
        """Take over a theme, and a colour for each image that follows."""
        self.setBackground(colours.ground)
        self._title.setText(TITLE, color=colours.faint)
        for plot in self._plots:
            plot.paint(colours, bars)


class _OrderPlot:
    """Bars of the coefficients of one order."""

    def __init__(self, plot: Any, order: int, part: slice) -> None:
        self._plot, self._part = plot, part
        self._places = np.arange(-order, order + 1)
        self._scale = Scale()
        self._bars: list[Any] = []
        plot.setMouseEnabled(False, False)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setXRange(-order - 0.5, order + 0.5, padding=0)
        left, bottom = plot.getAxis("left"), plot.getAxis("bottom")
        left.setWidth(46)
        left.setStyle(maxTickLevel=0)
        left.enableAutoSIPrefix(False)
        bottom.setStyle(tickLength=0)
        bottom.setTicks([[(0, f"l = {order}")]])
        self._zero = pg.InfiniteLine(0, angle=0)
        plot.addItem(self._zero)

    def show(self, coefficients: Sequence[FloatArray]) -> None:
        parts = [each[self._part] for each in coefficients]
        for number, bars in enumerate(self._bars):
            bars.setVisible(number < len(parts))
            if number < len(parts):
                bars.setOpts(height=parts[number])
        if parts and self._scale.fit(float(np.abs(parts).max())):
            top = self._scale.top
            # The mean over directions is not below 0, all others may be.
            self._plot.setYRange(0 if len(self._places) == 1 else -top, top, padding=0.04)

    def paint(self, colours: Colours, bars: Sequence[QColor]) -> None:
        self._zero.setPen(colours.line)
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setPen(colours.line)
            axis.setTextPen(colours.text)
        for old in self._bars:
            self._plot.removeItem(old)
        width = GROUP / max(1, len(bars))
        first = self._places - GROUP / 2 + width / 2
        self._bars = [
            pg.BarGraphItem(
                x=first + number * width,
                height=np.zeros(len(first)),
                width=width,
                brush=colour,
                pen=None,
            )
            for number, colour in enumerate(bars)
        ]
        for each in self._bars:
            self._plot.addItem(each)
