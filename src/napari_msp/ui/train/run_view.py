"""The view of a training run: what it is, how far and how well it goes, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_msp.errors import UserError
from napari_msp.formatting import SQUARED_ERROR, NumberFormat, counted, duration, listed, sh_mse
from napari_msp.learning.events import Event, Failed, Finished, Started, StartedFrom, Step, Stopped
from napari_msp.learning.runs import CHECKPOINT_ENDING, RunFolder, State
from napari_msp.networks.registry import title
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.phrasing import said
from napari_msp.ui.train.curves import TrainingCurves
from napari_msp.ui.train.fields import LABELS, WORDS, at_hand, entry_that_helps
from napari_msp.ui.train.history import RunHistory, phase_title
from napari_msp.ui.train.preview_layers import ANOTHER_HEAD
from napari_msp.ui.widgets.form import stacked
from napari_msp.ui.widgets.message import MessageLine, Severity, readable
from napari_msp.ui.widgets.progress import ProgressRow
from napari_msp.ui.widgets.windows import show_details

CURVES_HEIGHT = 540
"""Height in pixels: all three are visible at once in a window of usual height."""

DETAILS = "Details …"

FROM_CHECKPOINT = "Resume goes on from the last checkpoint."

ANEW = "Resume begins anew."

CHANGED = "Train begins another run with what was changed. "


class RunView(QWidget):
    """The view of a run: progress, errors, curves and warnings.

    `open` a run, `add` every event of it, and show its end by `show_standing` or `show_failure`.

    Attributes
    ----------
    entry_wanted : str
        Emitted with the name of a form's entry that is to be changed.
    """

    entry_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._folder: RunFolder | None = None
        self._details = ""
        self._entries: dict[str, str] = {}
        self.what, self.comparisons = readable(), readable()
        self.comparisons.setToolTip(tooltip("SH MSE") + tooltip("statistical alignment"))
        self.progress = ProgressRow(
            cancel="S&top", cancelling="Stopping …", means="Keeps a checkpoint to go on from"
        )
        self.progress.cancel.setToolTip("Stop after this step and keep a checkpoint.")
        self.ending, self.unseen = MessageLine(), MessageLine()
        self.ending.action.connect(self._act)
        self.curves = TrainingCurves()
        self.curves.setFixedHeight(CURVES_HEIGHT)
        # `progress` and `ending` are shown elsewhere, so that curves and Stop stay in place.
        stacked(self, self.curves, self.comparisons, self.what)

    @property
    def history(self) -> RunHistory:
        """Events of the run."""
        return self.curves.history

    def open(self, folder: RunFolder, events: Iterable[Event] = ()) -> None:
        """Show a run in place of another, with its events so far."""
        self._folder = folder
        self.curves.clear()
        self.ending.clear()
        self.progress.end()
        for event in events:
            self.curves.add_event(event)
        self._describe()

    def begin(self, words: str) -> None:
        """Show that the run goes on."""
        self.ending.clear()
        self.progress.start(words)

    def add(self, event: Event) -> None:
        """Record an event of the run."""
        self.curves.add_event(event)
        started = self.history.started
        if isinstance(event, Step) and started is not None:
            self.progress.report(
                event.step, started.steps, f"Learning, epoch {event.epoch}", event.time_left
            )
        elif isinstance(event, Started):
            self.progress.report(event.resumed_at, event.steps, "Predicting whole heads")
        if not isinstance(event, Step):
            self._describe()

    def show_standing(self, folder: RunFolder, last: Event | None) -> None:
        """Show the state of a run that is not executed, by its last event."""
        if isinstance(last, Failed) and folder.state == "failed":
            self.show_failure(last.error, folder.resumable)
            return
        signs: dict[State, Severity] = {"finished": "ok", "failed": "error"}
        words = how_it_stands(folder.state, self.history, last, folder.resumable)
        self.progress.end()
        self.ending.show_message(signs.get(folder.state, "warning"), words)

    def show_failure(self, error: UserError, resumable: bool, details: str = "") -> None:
        """Say why the run failed; offer the entry that helps, and the details."""
        entry = entry_that_helps(error.remedy)
        self._entries = {f"Change “{LABELS[entry]}”": entry} if entry else {}
        self._details = details
        # One line of details is the reason itself.
        actions = [*self._entries, *([DETAILS] if "\n" in details else [])]
        self.progress.end()
        self.ending.show_message("error", failed(error, resumable), actions)

    def warn(self, words: str) -> None:
        """Show a warning about something that does not harm the run."""
        self.ending.show_message("warning", words)

    def say_unseen(self, owner: str) -> None:
        """Say who has the canvas, so that pictures are hidden; "" when they are visible."""
        words = f"Pictures of the training wait: leave {owner} to see them." if owner else ""
        if owner == ANOTHER_HEAD:
            words = "A head was opened: show pictures of the training in the layer list again."
        self.unseen.show_message("note", words)

    def _act(self, action: str) -> None:
        if action == DETAILS:
            show_details(self, "Train", self.ending.text, self._details)
        else:
            self.entry_wanted.emit(self._entries[action])

    def _describe(self) -> None:
        """Say what the curves do not."""
        assert self._folder is not None
        history = self.history
        words = [what_is_trained(self._folder, history.started), *how_it_began(history.begun)]
        self.what.setText("\n".join(words))
        self.comparisons.setText(against_alignment(history))
        self.comparisons.setVisible(bool(self.comparisons.text()))
        self.curves.setVisible(history.started is not None)


def what_is_trained(folder: RunFolder, started: Started | None) -> str:
    """Return such as "MSP from ge_st of heads, preset fast, on cpu: 3 subjects, sub-04 held out".

    Validation subjects are named where there are any.
    """
    settings = folder.settings
    device = folder.device if started is None else started.device
    whose = f"{settings.input} of {folder.dataset.name}"
    words = f"{title(settings.kind)} from {whose}, preset {settings.preset}, on {device}"
    if started is None:
        return words
    held_out = ", ".join(started.held_out) or "nobody"
    judges = f"validated on {', '.join(started.validation)}, " if started.validation else ""
    words = (
        f"{words}: {counted(len(started.subjects), 'subject')}, {judges}{held_out} held out, "
        f"{started.parameters:,} weights"
    )
    return "\n".join([words, *(each[:1].upper() + each[1:] + "." for each in started.advice)])


def how_it_began(begun: StartedFrom | None) -> list[str]:
    """Return what the weights began as, how good that was, and doubts about it."""
    if begun is None:
        return []
    before = [
        f"{target} {sh_mse(error)} ({sh_mse(begun.aligned[target])} aligned)"
        for target, error in begun.errors.items()
    ]
    words = [f"Starts from {begun.model}: {'; '.join(begun.notes)}."] if begun.notes else []
    if before:
        words.append(f"Before the first step, SH MSE on training heads: {', '.join(before)}.")
    return words + [f"Doubtful: {each}." for each in begun.doubts]


def against_alignment(history: RunHistory) -> str:
    """Return each target's error beside alignment's, the line to beat.

    It is the latest error; after the end, that of the kept weights.

    Returns
    -------
    A table as rich text, with rows such as "prisma_st 39.0 52.0 25 % better"; empty while there is
    no error.
    """
    kept = {target: history.kept(target) for target in history.targets}
    shown = {}
    for target, error in kept.items():
        latest = [errors[-1] for _, errors in history.errors(target)]
        known = error if error is not None else latest[-1] if latest else None
        if known is not None:
            shown[target] = known
    if not shown:
        return ""
    display = NumberFormat.of([*shown.values(), *history.aligned.values()], SQUARED_ERROR)
    rows = []
    for target, error in shown.items():
        aligned = history.aligned.get(target)
        beside = "" if not aligned else display.text(aligned)
        rows.append([target, display.text(error), beside, _gain(error, aligned)])
    of_what = "now" if None in kept.values() else "kept"
    table = [[f"SH MSE, {display.unit('')}", of_what, "alignment", ""], *rows]
    return "<table>" + "".join(f"<tr>{_cells(row)}</tr>" for row in table) + "</table>"


def how_it_stands(state: State, history: RunHistory, last: Event | None, resumable: bool) -> str:
    """Return the state of a run that is not executed, as text.

    Parameters
    ----------
    state, resumable
        State of its folder, and whether it can be resumed.
    history, last
        Its events, and the last one.
    """
    step = history.last.step if history.last else 0
    of_all = f" of {history.started.steps:,}" if history.started else ""
    goes_on = " Resume goes on from there." if resumable else f" {ANEW}"
    match last:
        case Finished(seconds=seconds, endings=endings):
            own = [
                f"{listed([phase_title(phase) for phase in phases])}: {words}."
                for words, phases in endings.items()
            ]
            return " ".join([f"Finished after {duration(seconds)} of training.", *own])
        case Stopped(step=at):
            return f"Stopped at step {at:,}{of_all}.{goes_on}"
        case Failed():
            return failed(last.error, resumable)
    if state == "finished":
        return "Finished."
    if state == "new" and not history.started:
        return "Not begun."
    where = (
        f"Ended from outside after step {step:,}{of_all}, most likely when the machine went down."
    )
    return where + (" " + FROM_CHECKPOINT if resumable else goes_on)


def failed(error: UserError, resumable: bool) -> str:
    """Return why a run failed, in the form's words, and whether it can go on."""
    helpful = type(error)(error.problem, error.subject, error.field, at_hand(error.remedy))
    words = said(helpful, WORDS).rstrip(".")
    another = CHANGED if entry_that_helps(error.remedy) else ""
    if str(error.subject).endswith(CHECKPOINT_ENDING):  # Resume would fail as it did
        return f"Failed: {words}."
    return f"Failed: {words}. {another}{FROM_CHECKPOINT if resumable else ANEW}"


def _gain(error: float, aligned: float | None) -> str:
    """Return the gain of the network over alignment, as text."""
    if not aligned:
        return ""
    gain = round(100 * (1 - error / aligned))
    return f"{abs(gain)} % {'better' if gain > 0 else 'worse'}" if gain else "no better"


def _cells(row: list[str]) -> str:
    whole = [each.replace(" ", "&nbsp;") for each in row]
    return "".join(f'<td style="padding-right: 6px">{each}</td>' for each in whole)
