"""A training run as it goes, or as it went."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_msp.formatting import short
from napari_msp.learning.events import Event, Failed, Finished, Started, Step, Stopped
from napari_msp.learning.runs import RunFolder, State
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.model_diagram.drawing import TITLES
from napari_msp.ui.train.curves import TrainingCurves
from napari_msp.ui.train.fields import form_fields
from napari_msp.ui.train.history import RunHistory
from napari_msp.ui.widgets.message import MessageLine, Severity
from napari_msp.ui.widgets.progress import ProgressRow
from napari_msp.ui.words import in_words

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


NO_MEMORY = "not enough memory; choose a smaller batch or crop (Advanced), or the CPU as device"

FROM_CHECKPOINT = "Resume goes on from the last checkpoint."

ANEW = "Resume begins anew."


def what_is_trained(folder: RunFolder, started: Started | None) -> str:
    """Say such as "MSP from ge_st, preset fast, on cpu: 3 subjects, sub-04 held out"."""
    settings = folder.settings
    device = folder.device if started is None else started.device
    words = f"{TITLES[settings.kind]} from {settings.input}, preset {settings.preset}, on {device}"
    if started is None:
        return words
    held_out = ", ".join(started.held_out) or "nobody"
    return (
        f"{words}: {len(started.subjects)} subjects, {held_out} held out, "
        f"{started.parameters:,} weights"
    )


def against_alignment(history: RunHistory) -> str:
    """Give each target's latest held-out error beside alignment's, the line to beat.

    Returns
    -------
    A table as rich text, with rows such as "prisma_st 3.9e-4 5.2e-4 25 % better"; empty as long as
    there is no error.
    """
    rows = []
    for target in history.targets:
        latest = [errors[-1] for _, errors in history.errors(target)]
        if latest:
            aligned = history.aligned.get(target)
            rows.append([target, short(latest[-1]), *_beside(latest[-1], aligned)])
    if not rows:
        return ""
    table = [["SH MSE", "now", "alignment", ""], *rows]
    return "<table>" + "".join(f"<tr>{_cells(row)}</tr>" for row in table) + "</table>"


def how_it_stands(state: State, history: RunHistory, last: Event | None, resumable: bool) -> str:
    """Say what has become of a run that nobody executes.

    Parameters
    ----------
    state, resumable
        Of its folder.
    history, last
        What happened in it, and its last event.
    """
    step = history.last.step if history.last else 0
    of_all = f" of {history.started.steps:,}" if history.started else ""
    goes_on = " Resume goes on from there." if resumable else f" {ANEW}"
    match last:
        case Finished(seconds=seconds):
            return f"Finished after {_duration(seconds)} of training."
        case Stopped(step=at):
            return f"Stopped at step {at:,}{of_all}.{goes_on}"
        case Failed(error=error):
            return failed(str(error), resumable)
    if state == "finished":
        return "Finished."
    if state == "new" and not history.started:
        return "Not begun."
    where = (
        f"Ended from outside after step {step:,}{of_all}, most likely when the machine went down."
    )
    return where + (" " + FROM_CHECKPOINT if resumable else goes_on)


def failed(message: str, resumable: bool) -> str:
    """Say why a run failed, and whether it can go on."""
    words = NO_MEMORY if message.startswith("not enough memory") else in_form_words(message)
    words = words.rstrip(".")
    return f"Failed: {words}. {FROM_CHECKPOINT if resumable else ANEW}"


def in_form_words(message: str) -> str:
    """Name the form's fields instead of the command line's options."""
    labels = {name: field.label.replace("&", "") for name, field in form_fields().items()}
    fields = {f"--{name.replace('_', '-')}": label for name, label in labels.items()}
    more = {"--device": "Device", "--shell": labels["b_value"], "--resume": "Resume"}
    return in_words(message, fields | more)


def _beside(error: float, aligned: float | None) -> tuple[str, str]:
    """Give alignment's error, and what the network gains over it."""
    if not aligned:
        return "", ""
    gain = round(100 * (1 - error / aligned))
    words = f"{abs(gain)} % {'better' if gain > 0 else 'worse'}" if gain else "no better"
    return short(aligned), words


def _cells(row: list[str]) -> str:
    whole = [each.replace(" ", "&nbsp;") for each in row]
    return "".join(f'<td style="padding-right: 6px">{each}</td>' for each in whole)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
