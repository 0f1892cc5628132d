"""The three plots of a training run, each drawn from the run's history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtGui import QColor

from napari_msp.arrays import FloatArray
from napari_msp.ui.diagram.parts import TITLES
from napari_msp.ui.panels.plot import Plot
from napari_msp.ui.training.run_history import RunHistory, smoothed, thinned
from napari_msp.ui.widgets.colours import Colours, mixed

POINTS = 1200
"""Of one curve; more would not be seen."""

SH_UNIT = 1e-5
"""Held-out errors are shown in this many SH units²."""

MARKS = (("o", "●"), ("s", "■"), ("t1", "▲"), ("d", "◆"), ("t", "▼"), ("+", "✚"))
"""Marks of targets: for pyqtgraph, and as letters."""

ALPHA_HEIGHT = 96
"""Pixels."""

DASHES = "╌╌"
"""The line to beat, as letters."""

MARKED = 30
"""Points up to which each has its full mark."""


def steps_shown(history: RunHistory) -> tuple[float, float]:
    """Give the first and the last step that plots show, never nearer than 10."""
    steps = history.steps
    if not len(steps):
        return 0.0, 10.0
    start = steps[0] - 1
    return start, max(start + 10, steps[-1] + 0.02 * (steps[-1] - start))


class LossPlot(Plot):
    """Every loss, faint, and their running mean within each phase."""

    def __init__(self) -> None:
        super().__init__(logarithmic=True)
        self._raw, self._smooth, self._latest = (self.add_line() for _ in range(3))

    def show_run(self, history: RunHistory, colours: Colours) -> list[str]:
        """Draw; give the phases that are only numbered, because their names want more room."""
        raw, smooth = [], []
        all_steps, all_losses = history.steps, history.losses
        for phase in history.phases:
            part = slice(phase.start, phase.stop)
            steps, losses = all_steps[part], all_losses[part]
            points = POINTS * len(steps) // len(all_steps) + 2
            raw.append(thinned(steps, losses, points))
            smooth.append(thinned(steps, smoothed(losses), points))
        faint = mixed(colours.ground, colours.lit, 0.4)
        self.draw(self._raw, *_joined(raw), pen=pg.mkPen(faint, width=1))
        self.draw(self._smooth, *_joined(smooth), pen=pg.mkPen(colours.lit, width=2))
        last = [(steps[-1:], losses[-1:]) for steps, losses in smooth[-1:]]
        self.draw(self._latest, *_joined(last), pen=None, **_marks("o", 7, colours.lit))
        self.show_range(steps_shown(history), history.losses)
        return self._name_phases(history)

    def _name_phases(self, history: RunHistory) -> list[str]:
        names = [in_words(phase.name) for phase in history.phases]
        borders = [history.steps[phase.start] - 0.5 for phase in history.phases]
        fit = self.name_phases(
            [name.replace(" ", "\n", 1) for name in names], [*borders, steps_shown(history)[1]]
        )
        return [] if fit else names


class ErrorPlot(Plot):
    """Error of each target on the held-out subjects, and what statistical alignment gives."""

    def __init__(self) -> None:
        super().__init__(logarithmic=True)
        self._lines: list[pg.PlotDataItem] = []

    def show_run(self, history: RunHistory, colours: Colours) -> None:
        """Draw a line for every phase of a target, with the target's colour and mark."""
        for line in self._lines:
            self.removeItem(line)
        self._lines = []
        heights: list[FloatArray] = []
        for number, target in enumerate(history.targets):
            colour, symbol = _colour(number, colours), MARKS[number % len(MARKS)][0]
            for steps, errors in history.errors(target):
                size = 8 if len(steps) <= MARKED else 4
                look = {"pen": pg.mkPen(colour, width=2), **_marks(symbol, size, colour)}
                self._lines.append(self.add_line())
                self.draw(self._lines[-1], steps, errors / SH_UNIT, **look)
                heights.append(errors / SH_UNIT)
        levels = {target: error / SH_UNIT for target, error in history.aligned.items()}
        numbers = [history.targets.index(target) for target in levels]
        self.mark_levels(list(levels.values()), [_colour(each, colours) for each in numbers])
        every = np.concatenate([*heights, np.array([*levels.values()], dtype=float)])
        self.show_range(steps_shown(history), every)


class AlphaPlot(Plot):
    """α of equation (1), which is raised in the unison phases."""

    def __init__(self) -> None:
        super().__init__(logarithmic=False)
        self._line = self.add_line()
        self.getAxis("left").setTicks([[(0, "0"), (0.5, "0.5"), (1, "1")]])
        self.setFixedHeight(ALPHA_HEIGHT)

    def show_run(self, history: RunHistory, colours: Colours) -> None:
        """Draw."""
        steps, alphas = history.steps, history.alphas
        parts = [slice(phase.start, phase.stop) for phase in history.phases]
        line = _joined([thinned(steps[part], alphas[part], POINTS) for part in parts])
        self.draw(self._line, *line, pen=pg.mkPen(colours.lit, width=2))
        self.show_range(steps_shown(history), np.array([-0.1, 1.1]))


def key_to_targets(history: RunHistory, colours: Colours) -> str:
    """Say which mark is which target, with its latest error and the one to beat, as rich text."""
    entries = []
    for number, target in enumerate(history.targets):
        mark = MARKS[number % len(MARKS)][1]
        latest = [f"{errors[-1] / SH_UNIT:.3g}" for _, errors in history.errors(target)][-1:]
        words = [mark, target, *latest]
        if target in history.aligned:
            words.append(f"({DASHES}&nbsp;{history.aligned[target] / SH_UNIT:.3g})")
        entry = "&nbsp;".join(words)
        for sign in (mark, DASHES):
            entry = entry.replace(
                sign, f'<span style="color:{_colour(number, colours)}">{sign}</span>'
            )
        entries.append(entry)
    if history.aligned:
        last = f"{DASHES} statistical alignment: the line to beat"
        entries.append(last.replace(" ", "&nbsp;"))
    return "&nbsp;&nbsp; ".join(entries)


def in_words(phase: str) -> str:
    """Name a phase with its network's title, such as "SHResNet prisma_st"."""
    kind, _, target = phase.partition(" ")
    return f"{TITLES.get(kind, kind)} {target}"


def _marks(symbol: str, size: int, colour: QColor | str) -> dict[str, Any]:
    pen, brush = pg.mkPen(colour), pg.mkBrush(colour)
    return {"symbol": symbol, "symbolSize": size, "symbolPen": pen, "symbolBrush": brush}


def _colour(number: int, colours: Colours) -> str:
    return str(colours.series[number % len(colours.series)].name())


def _joined(parts: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Put curves behind one another with gaps between them."""
    gap = np.array([np.nan])
    pieces = [(np.append(x, gap), np.append(y, gap)) for x, y in parts]
    if not pieces:
        return np.empty(0), np.empty(0)
    xs, ys = zip(*pieces, strict=True)
    return np.concatenate(xs), np.concatenate(ys)
