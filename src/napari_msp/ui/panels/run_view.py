"""A training run as it goes, or as it went."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_msp.learning.events import Event, Started, Step
from napari_msp.learning.run_folder import RunFolder
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.panels.curves import TrainingCurves
from napari_msp.ui.training.run_history import RunHistory
from napari_msp.ui.training.run_words import against_alignment, what_is_trained
from napari_msp.ui.widgets.message import MessageLine, Severity
from napari_msp.ui.widgets.progress import ProgressRow

CURVES_HEIGHT = 540
"""In pixels: all three are seen at once in a window of usual height."""


class RunView(QWidget):
    """Shows one run: what it is, how far, how well, and how it ended.

    `open` a run, tell it every event by `add`, and how it ended by `end`.

    Signals
    -------
    stop_wanted
        The run shall stop; it goes on until `end`.
    action : str
        A mend under the ending was pressed.
    """

    stop_wanted = Signal()
    action = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._folder: RunFolder | None = None
        self.what, self.comparisons = _label(), _label()
        self.comparisons.setToolTip(tooltip("SH MSE") + tooltip("statistical alignment"))
        self.progress = ProgressRow(
            cancel="S&top", cancelling="Stopping …", means="Keeps a checkpoint to go on from"
        )
        self.progress.cancel.setToolTip("Stops after this step and keeps a checkpoint.")
        self.progress.cancel_wanted.connect(self.stop_wanted)
        self.ending = MessageLine()
        self.ending.action.connect(self.action)
        self.curves = TrainingCurves()
        self.curves.setFixedHeight(CURVES_HEIGHT)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for each in (self.what, self.progress, self.ending, self.comparisons):
            column.addWidget(each)
        column.addWidget(self.curves, 1)

    @property
    def history(self) -> RunHistory:
        """What the run has told."""
        return self.curves.history

    def open(self, folder: RunFolder, events: Iterable[Event] = ()) -> None:
        """Show a run in place of another, with what has happened in it."""
        self._folder = folder
        self.curves.clear()
        self.ending.clear()
        self.progress.reset()
        self._tell()
        for event in events:
            self.curves.add_event(event)
        self._tell()

    def begin(self, words: str) -> None:
        """Show that the run goes on."""
        self.ending.clear()
        self.progress.start(words)

    def add(self, event: Event) -> None:
        """Hear of an event of the run."""
        self.curves.add_event(event)
        started = self.history.started
        if isinstance(event, Step) and started is not None:
            self.progress.report(
                event.step, started.steps, f"Learning, epoch {event.epoch}", event.time_left
            )
        elif isinstance(event, Started):
            self.progress.report(event.resumed_at, event.steps, "Predicting the held-out subjects")
        if not isinstance(event, Step):
            self._tell()

    def end(self, severity: Severity, words: str, actions: tuple[str, ...] = ()) -> None:
        """Say how the run ended."""
        self.progress.end()
        self.ending.show_message(severity, words, actions)

    def warn(self, words: str) -> None:
        """Say what is amiss with a run that is none the worse for it."""
        self.ending.show_message("warning", words)

    def _tell(self) -> None:
        """Say what the curves do not."""
        assert self._folder is not None
        history = self.history
        self.what.setText(what_is_trained(self._folder, history.started))
        self.comparisons.setText(against_alignment(history))
        self.comparisons.setVisible(bool(self.comparisons.text()))
        self.curves.setVisible(history.started is not None)


def _label() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setMinimumWidth(1)
    label.setTextInteractionFlags(Qt.TextSelectableByMouse)
    return label
