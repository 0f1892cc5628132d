"""The signal round a plane, as seen in the picture: sides stand where the picture has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

from napari_msp.arrays import FloatArray
from napari_msp.signal.profile import PLANE_SIDES, signal_profile
from napari_msp.ui.panels.scales import Scale
from napari_msp.ui.widgets.colours import Colours

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}

RINGS = (0.5, 1.0)
"""Shares of the scale at which there are rings; the outer one has the number."""

REACH = 1.28
"""Half the picture's width; the scale ends at 1."""

ANGLES = np.linspace(0, 2 * np.pi, 121)


class PolarProfile(pg.PlotWidget):
    """A closed curve for every image: the distance from the middle is S/S₀."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Signal profile of the voxel in the plane of the slice")
        self.setMinimumHeight(170)
        self.setFocusPolicy(Qt.NoFocus)
        self._scale = Scale()
        self._plane = ""
        self._curves: list[Any] = []
        plot = self.getPlotItem()
        plot.setMouseEnabled(False, False)
        plot.setMenuEnabled(False)
        plot.hideButtons()
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
        self._title.setPos(-REACH, REACH)
        for item in (*self._grid, *self._letters, self._end, self._title):
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
        """Take over a theme, and a colour and line width for each image that follows."""
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
        self._title.setText(f"S/S₀, {plane}")
