"""Plots of one voxel: bars of its SH coefficients, and its signal round a plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QSizePolicy

from napari_msp.arrays import FloatArray
from napari_msp.signal.spherical_harmonics import ORDER, PLANE_SIDES, order_slices, signal_profile
from napari_msp.ui.widgets.colours import Colours
from napari_msp.ui.widgets.plot import StillPlot, keep_still, paint_axes

TITLE = "SH coefficients in SH units"

GROUP = 0.82
"""Share of a coefficient's place that its bars take."""

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}

RINGS = (0.5, 1.0)
"""Shares of the scale at which there are rings; the outer one has the number."""

REACH = 1.28
"""Half the picture's width; the scale ends at 1."""

ANGLES = np.linspace(0, 2 * np.pi, 121)


class CoefficientBars(pg.GraphicsLayoutWidget):
    """One bar per coefficient and image, with a plot for each order: l = 0 and 2 above 4 and 6.

    Each order has an axis of its own, as a lower order dwarfs the next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("SH coefficients of the voxel")
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Ignored)  # as high as there is room
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
        """Adopt a theme, and a colour for each image that follows."""
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
        keep_still(plot)
        plot.setXRange(-order - 0.5, order + 0.5, padding=0)
        left, bottom = plot.getAxis("left"), plot.getAxis("bottom")
        left.setWidth(46)
        left.setStyle(maxTickLevel=0)
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
            # The mean over directions is never negative, all others may be.
            self._plot.setYRange(0 if len(self._places) == 1 else -top, top, padding=0.04)

    def paint(self, colours: Colours, bars: Sequence[QColor]) -> None:
        self._zero.setPen(colours.line)
        paint_axes(self._plot, colours)
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


class PolarProfile(StillPlot):
    """A closed curve for every image: the distance from the middle is S/S₀.

    Sides of the body stand where the picture has them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Signal profile of the voxel in the plane of the slice")
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Ignored)
        self._scale = Scale()
        self._plane = ""
        self._curves: list[Any] = []
        plot = self.getPlotItem()
        plot.hideAxis("left")
        plot.hideAxis("bottom")
        plot.setAspectLocked(True)
        plot.setRange(xRange=(-REACH, REACH), yRange=(-REACH, REACH), padding=0)
        self._grid = [
            *(pg.PlotCurveItem(r * np.cos(ANGLES), r * np.sin(ANGLES)) for r in RINGS),
            pg.PlotCurveItem([-1, 1], [0, 0]),
            pg.PlotCurveItem([0, 0], [-1, 1]),
        ]
        self._end = pg.TextItem(anchor=(0, 1))
        self._letters = [pg.TextItem(anchor=(0.5, 0.5)) for _ in range(4)]
        self._end.setPos(np.sqrt(0.5), np.sqrt(0.5))
        for letter, at in zip(self._letters, ((1, 0), (0, 1), (-1, 0), (0, -1)), strict=True):
            letter.setPos(1.13 * at[0], 1.13 * at[1])
        self._title = pg.TextItem(anchor=(0, 0))
        self._title.setParentItem(plot.vb)  # in its corner, clear of the letters
        for item in (*self._grid, *self._letters, self._end):
            plot.addItem(item, ignoreBounds=True)

    def show_signal(self, coefficients: Sequence[FloatArray], plane: str) -> None:
        """Show the signal of (28,) coefficients of every image in a plane; none: no curves."""
        if plane != self._plane:
            self._turn_to(plane)
        if len(coefficients):
            angles, signal = signal_profile(np.stack(list(coefficients)), plane, 120)
            if self._scale.fit(float(signal.max())):
                self._end.setText(f"{self._scale.top:.3g}")
            # A series can fall below 0, where there is no signal.
            radius = np.maximum(signal, 0) / self._scale.top
            closed = np.concatenate([radius, radius[:, :1]], axis=1)
            turns = np.append(angles, angles[0])
            across, up = closed * np.cos(turns), closed * np.sin(turns)
        for number, curve in enumerate(self._curves):
            curve.setVisible(number < len(coefficients))
            if number < len(coefficients):
                curve.setData(across[number], up[number])

    def paint(self, colours: Colours, curves: Sequence[QColor], widths: Sequence[float]) -> None:
        """Adopt a theme, and a colour and line width for each image that follows."""
        self.setBackground(colours.ground)
        for item in self._grid:
            item.setPen(colours.box)
        for text in (self._end, self._title):
            text.setColor(colours.faint)
        for letter in self._letters:
            letter.setColor(colours.text)
        plot = self.getPlotItem()
        for old in self._curves:
            plot.removeItem(old)
        self._curves = [
            pg.PlotCurveItem(pen=pg.mkPen(colour, width=width), antialias=True)
            for colour, width in zip(curves, widths, strict=True)
        ]
        for curve in self._curves:
            plot.addItem(curve)

    def _turn_to(self, plane: str) -> None:
        self._plane = plane
        right, top = PLANE_SIDES[plane]
        for letter, side in zip(
            self._letters, (right, top, OPPOSITE[right], OPPOSITE[top]), strict=True
        ):
            letter.setText(side)
        self._title.setText(f"S/S₀\n{plane}")


class Scale:
    """The upper end of an axis: a round number that holds as long as values fit it."""

    def __init__(self) -> None:
        self.top = 0.0

    def fit(self, largest: float) -> bool:
        """Move the end if `largest` is above it or below half of it; return whether it moved."""
        wanted = rounded_up(largest)
        if self.top / 2 < wanted <= self.top:
            return False
        self.top = wanted
        return True


def rounded_up(value: float) -> float:
    """Return the least number of one digit (1, 2, 3, 4, 6 or 8) that is not below `value`.

    >>> round(rounded_up(0.43), 9)
    0.6
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 2, 3, 4, 6, 8, 10) if step * power >= value * (1 - 1e-9)
    )
