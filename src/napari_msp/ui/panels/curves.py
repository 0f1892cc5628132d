"""A training run as it goes: its loss, the error on held-out subjects, and α."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_msp.ui.glossary import tooltip
from napari_msp.ui.panels.run_plots import (
    AlphaPlot,
    ErrorPlot,
    LossPlot,
    in_words,
    key_to_targets,
)
from napari_msp.ui.training.run_history import RunHistory
from napari_msp.ui.widgets.colours import colours_of, mixed

if TYPE_CHECKING:
    from napari_msp.learning.events import Event

INTERVAL = 100
"""Milliseconds between two pictures, at least."""


class TrainingCurves(QWidget):
    """Draws one run: `add_event` for each event as it comes, `clear` before another run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.history = RunHistory()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(INTERVAL)
        self._timer.timeout.connect(self._draw)
        self.now, self.phases, self.targets = _words(), _words(), _words()
        self.loss, self.errors, self.alpha = LossPlot(), ErrorPlot(), AlphaPlot()
        self._error_title = _title("Held-out SH MSE (10⁻⁵ SH units²)", "SH MSE")
        self._alpha_title = _title("α of equation (1)", "α")
        self._arrange()
        self._restyle()

    def add_event(self, event: Event) -> None:
        """Take one event; the picture follows at most ten times a second."""
        self.history.add(event)
        self._draw_soon()

    def clear(self) -> None:
        """Forget the run."""
        self.history = RunHistory()
        self._draw()

    def showEvent(self, event: Any) -> None:  # noqa: N802
        """Draw what was told while nobody looked."""
        super().showEvent(event)
        self._restyle()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """See again whether names fit."""
        super().resizeEvent(event)
        self._draw_soon()

    def changeEvent(self, event: Any) -> None:  # noqa: N802
        """Follow the theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.FontChange, QEvent.StyleChange, QEvent.PaletteChange):
            self._restyle()

    def _draw_soon(self) -> None:
        if self.isVisible() and not self._timer.isActive():
            self._timer.start()

    def _restyle(self) -> None:
        for plot in (self.loss, self.errors, self.alpha):
            plot.restyle(colours_of(self), self.font())
        self._draw()

    def _draw(self) -> None:
        colours, history = colours_of(self), self.history
        steps = history.steps
        starts = [steps[phase.start] - 0.5 for phase in history.phases]
        for plot in (self.loss, self.errors, self.alpha):
            plot.mark_phases(starts, mixed(colours.ground, colours.text, 0.35))
        numbered = self.loss.show_run(history, colours)
        self.errors.show_run(history, colours)
        self.alpha.show_run(history, colours)
        self.now.setText(_small(_now(history)))
        key = (f"{number} {name}".replace(" ", "&nbsp;") for number, name in enumerate(numbered, 1))
        self.phases.setText(_small("; ".join(key)))
        self.targets.setText(_small(key_to_targets(history, colours) or _why_no_errors(history)))
        self._show_what_there_is()

    def _show_what_there_is(self) -> None:
        history = self.history
        with_alpha = bool(np.isfinite(history.alphas).any())
        with_alpha |= history.started is not None and history.started.kind == "msp"
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
        self.targets.setToolTip(tooltip("statistical alignment") + tooltip("held-out subject"))
        self.loss.setAccessibleName("Loss against step")
        self.errors.setAccessibleName("Held-out SH MSE against step")
        self.alpha.setAccessibleName("α against step")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        for widget, stretch in (
            (self.now, 0),
            (_title("Loss (MSE of standardised SH coefficients)", "loss"), 0),
            (self.loss, 5),
            (self.phases, 0),
            (self._error_title, 0),
            (self.errors, 5),
            (self.targets, 0),
            (self._alpha_title, 0),
            (self.alpha, 0),
        ):
            layout.addWidget(widget, stretch)


def _words() -> QLabel:
    label = QLabel()
    label.setTextFormat(Qt.RichText)
    label.setWordWrap(True)
    label.setMinimumWidth(1)
    label.setTextInteractionFlags(Qt.TextSelectableByMouse)
    return label


def _small(text: str) -> str:
    return f"<small>{text}</small>" if text else ""


def _title(text: str, term: str) -> QLabel:
    label = QLabel(f"<small><b>{text}</b></small>")
    label.setToolTip(tooltip(term))
    return label


def _now(history: RunHistory) -> str:
    last, started = history.last, history.started
    if last is None:
        return "Nothing is trained yet." if started is None else "The run begins …"
    of_all = f" of {started.steps}" if started is not None else ""
    told = f"{in_words(last.phase)}, step {last.step}{of_all}: loss {last.loss:.3g}"
    return told if last.alpha is None else f"{told}, α {last.alpha:.2f}"


def _why_no_errors(history: RunHistory) -> str:
    if history.started is None or history.started.held_out:
        return ""
    return "No subject is held out: how the model does on a new person is not measured."
