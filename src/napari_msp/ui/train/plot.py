"""One plot over the steps of a run, in the colours of its theme."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor, log10
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QFont, QFontMetrics

from napari_msp.arrays import FloatArray
from napari_msp.ui.widgets.colours import Colours, mixed, resized

LEFT = 42
"""Pixels for the numbers at the left, so that plots above one another line up."""

RIGHT = 8
"""Pixels behind the last step."""

TINY = 1e-12
"""Smallest number that a logarithmic plot shows."""

TICK_ROOM = 22
"""Pixels for one number on a logarithmic axis."""


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Choose about `count` round numbers between two positive ones, for a logarithmic axis.

    >>> round_ticks(28, 64, 4)
    [30.0, 40.0, 50.0, 60.0]
    >>> round_ticks(0.02, 7, 4)
    [0.1, 1.0]
    >>> round_ticks(0.02, 7, 9)
    [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    """
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    if high < 10 * low:
        return _evenly(low, high, count)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{m}e{d}") for d in decades for m in mantissas]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= count:
            break
    return ticks


def _evenly(low: float, high: float, count: int) -> list[float]:
    exponent = floor(log10((high - low) / count))
    for step in (float(f"{m}e{exponent}") for m in (1, 2, 5, 10)):
        ticks = [float(f"{k * step:.6g}") for k in range(ceil(low / step), floor(high / step) + 1)]
        if len(ticks) <= count:
            break
    return ticks


class LogAxis(pg.AxisItem):
    """Left axis of a plot in logarithmic mode."""

    def __init__(self) -> None:
        super().__init__("left")

    def tickValues(self, low: float, high: float, size: float) -> list[Any]:  # noqa: N802
        """Give logarithms of round numbers."""
        ticks = round_ticks(10**low, 10**high, max(2, int(size // TICK_ROOM)))
        return [(None, [log10(tick) for tick in ticks])]

    def tickStrings(self, values: list[float], scale: float, spacing: Any) -> list[str]:  # noqa: N802
        """Write the numbers themselves."""
        return [f"{10**value:.3g}" for value in values]


class Plot(pg.PlotWidget):
    """Has steps along its lower edge, and cannot be dragged or zoomed: it always shows all.

    Parameters
    ----------
    logarithmic
        Whether the height is.
    """

    def __init__(self, *, logarithmic: bool) -> None:
        axes = {"left": LogAxis()} if logarithmic else {}
        super().__init__(axisItems=axes)
        self._logarithmic = logarithmic
        self._borders: list[pg.InfiniteLine] = []
        self._level_lines: list[pg.InfiniteLine] = []
        self.setMenuEnabled(False)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.setFocusPolicy(Qt.NoFocus)
        self.setFrameShape(self.Shape.NoFrame)
        item = self.getPlotItem()
        item.setContentsMargins(0, 2, RIGHT, 0)
        for side in ("left", "bottom", "top"):
            self.getAxis(side).enableAutoSIPrefix(False)
            self.getAxis(side).setStyle(tickLength=0 if side == "top" else -4)
        self.getAxis("left").setWidth(LEFT)
        self.showGrid(y=True, alpha=0.15)

    def add_line(self) -> pg.PlotDataItem:
        """Add a curve without points."""
        curve = pg.PlotDataItem(antialias=True, connect="finite")
        self.addItem(curve)
        return curve

    def draw(self, curve: pg.PlotDataItem, x: FloatArray, y: FloatArray, **look: Any) -> None:
        """Give a curve its points and its look (pen, symbol … as pyqtgraph calls them)."""
        curve.setData(x, self._heights(y), **look)

    def show_range(self, x: tuple[float, float], heights: FloatArray) -> None:
        """Show steps from here to there, and all of these heights."""
        shown = self._heights(heights)
        self.setXRange(*x, padding=0)
        if len(shown):
            low, high = float(shown.min()), float(shown.max())
            # About ± 10 % around a single number.
            margin = max(0.1 * (high - low), 0.04 if self._logarithmic else 0.05)
            self.setYRange(low - margin, high + margin, padding=0)

    def mark_phases(self, starts: Sequence[float], colour: QColor) -> None:
        """Draw a vertical line where each phase begins, but the first."""
        _lines_at(self, self._borders, starts[1:], 90, [pg.mkPen(colour, width=1)] * len(starts))

    def mark_levels(self, levels: Sequence[float], colours: Sequence[str]) -> None:
        """Draw dashed horizontal lines."""
        pens = [pg.mkPen(colour, width=1, dash=[5, 4]) for colour in colours]
        heights = self._heights(np.array(levels, dtype=float))
        _lines_at(self, self._level_lines, heights.tolist(), 0, pens)

    def name_phases(self, names: Sequence[str], borders: Sequence[float]) -> bool:
        """Write the phases' names above the plot.

        Parameters
        ----------
        names
            May have several lines.
        borders
            One more than names.

        Returns
        -------
        False when numbers stand there, because the names want more room.
        """
        axis = self.getAxis("top")
        font = QFontMetrics(axis.style["tickFont"] or self.font())
        scale = max(1.0, self.width() - LEFT - RIGHT) / max(1e-9, borders[-1] - borders[0])
        rooms = [scale * (end - start) for start, end in pairwise(borders)]
        wanted = [max(map(font.horizontalAdvance, name.split("\n"))) + 4 for name in names]
        fit = all(want <= room for want, room in zip(wanted, rooms, strict=True))
        shown = names if fit else [str(number + 1) for number in range(len(names))]
        middles = [(start + end) / 2 for start, end in pairwise(borders)]
        axis.setTicks([list(zip(middles, shown, strict=True))])
        self.showAxis("top", bool(names))
        axis.setHeight(font.height() * (2 if fit else 1) + 4)
        return fit

    def show_steps(self, shown: bool) -> None:
        """Write steps under the plot; one of several above one another has them."""
        self.getAxis("bottom").setStyle(showValues=shown)
        self.getAxis("bottom").setHeight(2.7 * self.fontMetrics().height() if shown else 5)
        self.setLabel("bottom", "step" if shown else None)

    def restyle(self, colours: Colours, font: QFont) -> None:
        """Take the colours and the font of a theme."""
        self.setBackground(colours.ground)
        for side in ("left", "bottom", "top"):
            axis = self.getAxis(side)
            axis.setPen(pg.mkPen(mixed(colours.ground, colours.text, 0.3)))
            axis.setTextPen(pg.mkPen(colours.faint))
            axis.setTickFont(resized(font, 0.85))

    def wheelEvent(self, event: Any) -> None:  # noqa: N802
        """Leave the wheel to whatever the plot lies in."""
        event.ignore()

    def _heights(self, values: FloatArray) -> FloatArray:
        return np.log10(np.maximum(values, TINY)) if self._logarithmic else values


def _lines_at(
    plot: Plot,
    lines: list[pg.InfiniteLine],
    places: Sequence[float],
    angle: int,
    pens: Sequence[object],
) -> None:
    """Have as many lines as places, each at its own."""
    while len(lines) > len(places):
        plot.removeItem(lines.pop())
    while len(lines) < len(places):
        lines.append(pg.InfiniteLine(angle=angle, movable=False))
        plot.addItem(lines[-1], ignoreBounds=True)
    for line, place, pen in zip(lines, places, pens, strict=False):
        line.setValue(place)
        line.setPen(pen)
