"""Curves of a training run: its loss, the error on subjects not learned from, and α."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QColor, QFont, QFontMetrics
from qtpy.QtWidgets import QLabel

from napari_msp.arrays import FloatArray
from napari_msp.formatting import SH_MSE_EXPONENT
from napari_msp.networks.registry import MULTI_STAGE
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.train.history import RunHistory, phase_title, smoothed
from napari_msp.ui.widgets.colours import Colours, Themed, colours_of, mixed, resized
from napari_msp.ui.widgets.form import stacked
from napari_msp.ui.widgets.message import readable
from napari_msp.ui.widgets.plot import StillPlot

if TYPE_CHECKING:
    from napari_msp.learning.events import Event

INTERVAL = 100
"""Minimum milliseconds between two pictures."""

SH_UNIT = 10.0**SH_MSE_EXPONENT
"""SH units² in which held-out errors are shown."""

MARKS = (("o", "●"), ("s", "■"), ("t1", "▲"), ("d", "◆"), ("t", "▼"), ("+", "✚"))
"""Marks of targets: for pyqtgraph, and as letters."""

ALPHA_HEIGHT = 96
"""Height in pixels."""

ERROR_TITLE = "{} SH MSE (10⁻⁵ SH units²)"

DOTS = "┈┈"
"""Symbol of errors on validation subjects beside those on held-out ones."""

DASHES = "╌╌"
"""Symbol of the line to beat."""

MARKED = 30
"""Number of points up to which each has its full mark."""

LEFT = 42
"""Pixels for the numbers at the left, so that plots above one another line up."""

RIGHT = 8
"""Pixels behind the last step."""

TINY = 1e-12
"""Smallest number that a logarithmic plot shows."""

TICK_ROOM = 22
"""Pixels for one number on a logarithmic axis."""


class TrainingCurves(Themed):
    """The curves of one run: call `add_event` for each event, `clear` before another run."""

    def __init__(self) -> None:
        super().__init__()
        self.history = RunHistory()
        self._timer = QTimer(self, singleShot=True, interval=INTERVAL, timeout=self._draw)
        self.now, self.phases, self.targets = _words(), _words(), _words()
        self.loss, self.errors, self.alpha = LossPlot(), ErrorPlot(), AlphaPlot()
        self._error_title = _title(ERROR_TITLE.format("Held-out"), "SH MSE")
        self._alpha_title = _title("α of equation (1)", "α")
        self._arrange()
        self.restyle()

    def add_event(self, event: Event) -> None:
        """Add one event; the picture follows at most ten times a second."""
        self.history.add(event)
        self._draw_soon()

    def clear(self) -> None:
        """Show no run."""
        self.history = RunHistory()
        self._draw()

    def showEvent(self, event: Any) -> None:  # noqa: N802
        """Draw what happened while the curves were hidden."""
        super().showEvent(event)
        self.restyle()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """Check again whether names fit."""
        super().resizeEvent(event)
        self._draw_soon()

    def _draw_soon(self) -> None:
        if self.isVisible() and not self._timer.isActive():
            self._timer.start()

    def restyle(self) -> None:
        """Adopt colours and font, and draw."""
        for plot in (self.loss, self.errors, self.alpha):
            plot.restyle(colours_of(self), self.font())
        self._draw()

    def _draw(self) -> None:
        colours, history = colours_of(self), self.history
        for plot in (self.loss, self.errors, self.alpha):
            plot.begin(history, colours)
        numbered = self.loss.show_run(history, colours)
        self.errors.show_run(history, colours)
        self.alpha.show_run(history, colours)
        self._error_title.setText(
            f"<small><b>{ERROR_TITLE.format(history.measured_on)}</b></small>"
        )
        self.now.setText(_small(_now(history)))
        key = (f"{number} {name}".replace(" ", "&nbsp;") for number, name in enumerate(numbered, 1))
        self.phases.setText(_small("; ".join(key)))
        self.targets.setText(_small(key_to_targets(history, colours) or _why_no_errors(history)))
        self._show_what_there_is()

    def _show_what_there_is(self) -> None:
        history = self.history
        with_alpha = bool(np.isfinite(history.alphas).any())
        with_alpha |= history.started is not None and history.started.kind == MULTI_STAGE
        with_errors = bool(history.targets) or history.started is None
        for widget, shown in (
            (self.phases, bool(self.phases.text())),
            (self.errors, with_errors),
            (self._error_title, with_errors),
            (self.targets, bool(self.targets.text())),
            (self.alpha, with_alpha),
            (self._alpha_title, with_alpha),
        ):
            widget.setVisible(shown)
        lowest = self.alpha if with_alpha else self.errors if with_errors else self.loss
        for plot in (self.loss, self.errors, self.alpha):
            plot.show_steps(plot is lowest)

    def _arrange(self) -> None:
        terms = ("statistical alignment", "held-out subject", "validation subject")
        self.targets.setToolTip("".join(map(tooltip, terms)))
        self.loss.setAccessibleName("Loss against step")
        self.errors.setAccessibleName("Held-out SH MSE against step")
        self.alpha.setAccessibleName("α against step")
        loss_title = _title("Loss (MSE, summed over a phase’s outputs)", "loss")
        above = (self.now, loss_title, self.loss, self.phases)
        below = (self._error_title, self.errors, self.targets, self._alpha_title, self.alpha)
        layout = stacked(self, *above, *below)
        layout.setSpacing(1)
        for plot in (self.loss, self.errors):
            layout.setStretchFactor(plot, 5)


def _words() -> QLabel:
    label = readable()
    label.setTextFormat(Qt.RichText)
    return label


def _small(text: str) -> str:
    return f"<small>{text}</small>" if text else ""


def _title(text: str, term: str) -> QLabel:
    label = QLabel(f"<small><b>{text}</b></small>")
    label.setToolTip(tooltip(term))
    return label


def _now(history: RunHistory) -> str:
    last, started = history.last, history.started
    if last is None and history.broken_off:
        return "The run ended before its first step."
    if last is None:
        return "Nothing is trained yet." if started is None else "The run begins …"
    of_all = f" of {started.steps}" if started is not None else ""
    words = f"{phase_title(last.phase)}, step {last.step}{of_all}: loss {last.loss:.3g}"
    return words if last.alpha is None else f"{words}, α {last.alpha:.2f}"


def _why_no_errors(history: RunHistory) -> str:
    if history.started is None or history.started.held_out or history.started.validation:
        return ""
    return "No subject is held out: how the model does on a new person is not measured."


# --- One plot over the steps of a run --------------------------------------------------------


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers between two positive ones, for a logarithmic axis.

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

    def tickValues(self, low: float, high: float, size: float) -> list[Any]:  # noqa: N802
        """Return the logarithms of round numbers."""
        ticks = round_ticks(10**low, 10**high, max(2, int(size // TICK_ROOM)))
        return [(None, [log10(tick) for tick in ticks])]

    def tickStrings(self, values: list[float], scale: float, spacing: Any) -> list[str]:  # noqa: N802
        """Return the numbers themselves."""
        return [f"{10**value:.3g}" for value in values]


class Plot(StillPlot):
    """A plot with steps along its lower edge.

    Parameters
    ----------
    logarithmic
        Whether its vertical axis is.
    """

    def __init__(self, *, logarithmic: bool) -> None:
        axes = {"left": LogAxis("left")} if logarithmic else {}
        super().__init__(axisItems=axes)
        self._logarithmic = logarithmic
        item = self.getPlotItem()
        item.setContentsMargins(0, 2, RIGHT, 0)
        item.setDownsampling(auto=True, mode="peak")
        for side in ("left", "bottom", "top"):
            self.getAxis(side).setStyle(tickLength=0 if side == "top" else -4)
        self.getAxis("left").setWidth(LEFT)
        self.showGrid(y=True, alpha=0.15)

    def begin(self, history: RunHistory, colours: Colours) -> None:
        """Draw nothing but the steps, and a line where each phase but the first begins."""
        self.clear()
        pen = pg.mkPen(mixed(colours.ground, colours.text, 0.35), width=1)
        for border in history.borders[1:]:
            self._add(pg.InfiniteLine(border, angle=90, pen=pen))
        self.setXRange(*steps_shown(history), padding=0)

    def draw(self, x: FloatArray, y: FloatArray, **look: Any) -> None:
        """Draw a curve; its look (pen, symbol …) has pyqtgraph's names."""
        self._add(pg.PlotDataItem(x, self._heights(y), antialias=True, connect="finite", **look))

    def draw_level(self, height: float, colour: str) -> None:
        """Draw a dashed horizontal line."""
        pen = pg.mkPen(colour, width=1, dash=[5, 4])
        self._add(pg.InfiniteLine(self._heights(np.array(height)), angle=0, pen=pen))

    def show_heights(self, heights: FloatArray) -> None:
        """Fit the axis to heights; where there are none, it has no numbers either."""
        shown = self._heights(heights)
        self.getAxis("left").setStyle(showValues=len(shown) > 0)
        if len(shown):
            low, high = float(shown.min()), float(shown.max())
            # About ± 10 % around a single number.
            margin = max(0.1 * (high - low), 0.04 if self._logarithmic else 0.05)
            self.setYRange(low - margin, high + margin, padding=0)

    def name_phases(self, names: Sequence[str], borders: Sequence[float]) -> bool:
        """Write the phases' names above the plot.

        Parameters
        ----------
        names
            Names of the phases, of one or more lines.
        borders
            Borders of the phases, one more than names.

        Returns
        -------
        False when there are numbers instead, because the names need more room.
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
        """Show or hide the numbers of steps: the lowest of several plots has them."""
        self.getAxis("bottom").setStyle(showValues=shown)
        self.getAxis("bottom").setHeight(2.7 * self.fontMetrics().height() if shown else 5)
        self.setLabel("bottom", "step" if shown else None)

    def restyle(self, colours: Colours, font: QFont) -> None:
        """Adopt the colours and the font of a theme."""
        self.setBackground(colours.ground)
        for side in ("left", "bottom", "top"):
            axis = self.getAxis(side)
            axis.setPen(pg.mkPen(mixed(colours.ground, colours.text, 0.3)))
            axis.setTextPen(pg.mkPen(colours.faint))
            axis.setTickFont(resized(font, 0.85))

    def _heights(self, values: FloatArray) -> FloatArray:
        return np.log10(np.maximum(values, TINY)) if self._logarithmic else values

    def _add(self, item: Any) -> None:
        self.addItem(item, ignoreBounds=True)


# --- Loss, errors and α ----------------------------------------------------------------------


def steps_shown(history: RunHistory) -> tuple[float, float]:
    """Return the first and the last step that plots show, never nearer than 10."""
    steps = history.steps
    if not len(steps):
        return 0.0, 10.0
    start = steps[0] - 1
    return start, max(start + 10, steps[-1] + 0.02 * (steps[-1] - start))


class LossPlot(Plot):
    """Every loss, faint, and their running mean within each phase."""

    def __init__(self) -> None:
        super().__init__(logarithmic=True)

    def show_run(self, history: RunHistory, colours: Colours) -> list[str]:
        """Draw; return the phases that are only numbered, because their names need more room."""
        every = history.losses
        raw = history.by_phase(every)
        smooth = [(steps, smoothed(losses)) for steps, losses in raw]
        faint = mixed(colours.ground, colours.lit, 0.4)
        last = [(steps[-1:], losses[-1:]) for steps, losses in smooth[-1:]]
        self.draw(*_joined(raw), pen=pg.mkPen(faint, width=1))
        self.draw(*_joined(smooth), pen=pg.mkPen(colours.lit, width=2))
        self.draw(*_joined(last), pen=None, **_marks("o", 7, colours.lit))
        self.show_heights(every)
        broken = [phase_title(phase.name, "\n") for phase in history.phases]
        fit = self.name_phases(broken, [*history.borders, steps_shown(history)[1]])
        return [] if fit else [phase_title(phase.name) for phase in history.phases]


class ErrorPlot(Plot):
    """Error of each target on subjects not learned from, and that of statistical alignment."""

    def __init__(self) -> None:
        super().__init__(logarithmic=True)

    def show_run(self, history: RunHistory, colours: Colours) -> None:
        """Draw a line for every phase of a target, with the target's colour and mark."""
        heights: list[FloatArray] = [np.empty(0)]
        for number, target in enumerate(history.targets):
            colour, symbol = _colour(number, colours), MARKS[number % len(MARKS)][0]
            for steps, errors in history.errors(target):
                size = 8 if len(steps) <= MARKED else 4
                look = {"pen": pg.mkPen(colour, width=2), **_marks(symbol, size, colour)}
                self.draw(steps, errors / SH_UNIT, **look)
                heights.append(errors / SH_UNIT)
            for steps, errors in history.validation(target):
                pen = pg.mkPen(colour, width=1, style=Qt.DotLine)
                self.draw(steps, errors / SH_UNIT, pen=pen)
                heights.append(errors / SH_UNIT)
            if target in history.aligned:
                level = history.aligned[target] / SH_UNIT
                self.draw_level(level, colour)
                heights.append(np.array([level]))
        self.show_heights(np.concatenate(heights))


class AlphaPlot(Plot):
    """α of equation (1), which is raised in the unison phases."""

    def __init__(self) -> None:
        super().__init__(logarithmic=False)
        self.getAxis("left").setTicks([[(0, "0"), (0.5, "0.5"), (1, "1")]])
        self.setFixedHeight(ALPHA_HEIGHT)

    def show_run(self, history: RunHistory, colours: Colours) -> None:
        """Draw α over the steps of a run."""
        line = _joined(history.by_phase(history.alphas))
        self.draw(*line, pen=pg.mkPen(colours.lit, width=2))
        self.show_heights(np.array([-0.1, 1.1]))


def key_to_targets(history: RunHistory, colours: Colours) -> str:
    """Return the mark of each target, and what the dashed lines are, as rich text."""
    entries = [
        f'<span style="color:{_colour(number, colours)}">{MARKS[number % len(MARKS)][1]}</span>'
        f"&nbsp;{target}"
        for number, target in enumerate(history.targets)
    ]
    if any(True for target in history.targets for _ in history.validation(target)):
        entries.append(f"{DOTS} validation subjects: end the run".replace(" ", "&nbsp;"))
    if history.aligned:
        last = f"{DASHES} statistical alignment: the line to beat"
        entries.append(last.replace(" ", "&nbsp;"))
    return "&nbsp;&nbsp; ".join(entries)


def _marks(symbol: str, size: int, colour: QColor | str) -> dict[str, Any]:
    pen, brush = pg.mkPen(colour), pg.mkBrush(colour)
    return {"symbol": symbol, "symbolSize": size, "symbolPen": pen, "symbolBrush": brush}


def _colour(number: int, colours: Colours) -> str:
    return str(colours.series[number % len(colours.series)].name())


def _joined(parts: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Join curves, with gaps between them; none is empty."""
    xs = [np.append(x, x[-1]) for x, _ in parts]
    ys = [np.append(y, np.nan) for _, y in parts]
    return np.concatenate([[], *xs]), np.concatenate([[], *ys])
