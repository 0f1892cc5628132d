"""Work that does not freeze the window: in threads, or in the window's own thread bit by bit.

Where a user waits for it, a row or a dialog shows how far it is and offers to cancel it.
"""

from __future__ import annotations

import atexit
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from qtpy.QtCore import QEventLoop, QObject, Qt, QThread, QTimer, Signal
from qtpy.QtWidgets import QApplication, QDialog, QVBoxLayout, QWidget
from superqt.utils import FunctionWorker, QSignalThrottler

from napari_msp.errors import Cancelled, Poll, Unexpected
from napari_msp.foreign_errors import explain
from napari_msp.ui.reading import Control, Report, Result, Work
from napari_msp.ui.widgets.message import MessageLine
from napari_msp.ui.widgets.progress import ProgressRow

BREATH = 20
"""Milliseconds left to the window between two changes (our choice)."""

PATIENCE = 0.3
"""Seconds before a dialog is shown."""

BETWEEN = 2.0
"""Seconds within which the next of several files dropped together arrives (our choice)."""

AT_THE_END = 60_000
"""Milliseconds that a program, when it ends, waits for its threads at most (our choice)."""

Call = Callable[[Any], object]
"""Takes the result of some work, or the error that ended it."""

READERS = frozenset(["napari_msp", "nibabel", "dipy"])
"""Packages whose warnings concern the work itself."""


class _Signals(QObject):
    """A signal from the worker thread, which must outlive a job that is destroyed during work."""

    told = Signal(str, object)


class BackgroundJob(QObject):
    """A runner of one piece of work at a time in a worker thread, each with exactly one ending.

    Signals arrive in the thread of the job. After `run`, exactly one of `done` (with the result),
    `failed` (with a `UserError`; an unforeseen one has its traceback as a note) and `cancelled` is
    emitted, and then `ended`.

    Parameters
    ----------
    parent
        Owner; when it is destroyed the work is cancelled, and nothing is emitted.
    done, failed
        Called with what `done` and `failed` are emitted with.

    Attributes
    ----------
    outcome
        How the work ended: "done", "failed" or "cancelled", and its result or error. It is known
        until `ended` has been emitted: a scan that was loaded is not kept for longer.
    """

    progressed = Signal(object)
    warned = Signal(str)
    done = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    ended = Signal()

    def __init__(
        self, parent: QObject | None = None, done: Call | None = None, failed: Call | None = None
    ) -> None:
        super().__init__(parent)
        self._worker: Any = None
        self.outcome: tuple[str, Any] = "cancelled", None
        for signal, call in ((self.done, done), (self.failed, failed)):
            if call is not None:
                signal.connect(call)

    @property
    def running(self) -> bool:
        """Whether work goes on, or its ending is being reported."""
        return self._worker is not None

    def run(self, work: Work) -> None:
        """Begin work, which is called with a `Control` and must not touch Qt."""
        line = _Signals()
        # The application, when it ends, waits for these workers and asks them to quit, which here
        # is the same as being cancelled.
        worker: Any = FunctionWorker(_run, work, line, lambda: worker.abort_requested)
        line.told.connect(self._hear)  # a method, so that it is called in our own thread
        worker.warned.connect(partial(_pass_warning, line))
        self.destroyed.connect(worker.quit)
        self._worker = worker
        worker.start()

    def cancel(self) -> None:
        """Ask the work to stop; `cancelled` follows when it has."""
        if self._worker is not None:
            self._worker.quit()

    stop = cancel

    def _hear(self, signal: str, told: object) -> None:
        if signal in ("progressed", "warned"):
            self._tell(getattr(self, signal), told)
        else:
            self._end(signal, told)

    def _end(self, ending: str, result: object) -> None:
        self.destroyed.disconnect(self._worker.quit)
        self.outcome = ending, result
        self._tell(getattr(self, ending), *([] if ending == "cancelled" else [result]))
        self._worker = None
        self.ended.emit()
        self.outcome = "cancelled", None

    def _tell(self, signal: Any, *told: object) -> None:
        signal.emit(*told)


def _pass_warning(line: _Signals, warning: tuple[Any, ...]) -> None:
    """Pass on a warning if it is about the work: those of the whole process are caught."""
    message, category, file = warning[:3]
    ours = category.__module__.split(".")[0] == "napari_msp"
    if ours or (issubclass(category, UserWarning) and not READERS.isdisjoint(Path(file).parts)):
        line.told.emit("warned", str(message))


def _run(work: Work, line: _Signals, cancelled: Poll) -> None:
    """Do the work and report how it ended. Nothing is raised: a worker may swallow it."""
    result: object = None
    try:
        result = work(Control(cancelled, partial(line.told.emit, "progressed")))
        ending = "cancelled" if cancelled() else "done"
    except Cancelled:
        ending = "cancelled"
    except Exception as error:
        ending, result = "failed", explain(error)
        if isinstance(result, Unexpected):
            result.add_note(traceback.format_exc())
    with suppress(RuntimeError):  # the process ends, and Qt's half of the line is gone
        line.told.emit(ending, None if ending == "cancelled" else result)


@atexit.register
def _end_with_python() -> None:
    """Ask all work to stop, and wait until it has.

    The application does so when its windows are closed. A script ends without that, and a thread
    that then finds its Qt half deleted would abort the process.
    """
    with suppress(RuntimeError):  # a worker that cannot be stopped
        FunctionWorker.await_workers(AT_THE_END)


class Latest(BackgroundJob):
    """A job that does one piece of work at a time; of those asked for meanwhile only the last.

    Nothing is emitted for work that was replaced by newer work or stopped.

    Parameters
    ----------
    *of_job
        Parent and calls, as for `BackgroundJob`.
    finish
        Let replaced work run to its end and deliver its result.

    Attributes
    ----------
    rested
        Emitted when nothing is left to do.
    """

    rested = Signal()

    def __init__(self, *of_job: Any, finish: bool = False) -> None:
        super().__init__(*of_job)
        self._finish = finish
        self._next: Work | None = None
        self._stopped = False

    def ask(self, work: Work) -> None:
        """Do this work as soon as possible."""
        self._stopped = False
        if not self.running:
            self.run(work)
            return
        self._next = work
        if not self._finish:
            self.cancel()

    def stop(self) -> None:
        """Start nothing more, and emit nothing that is still to come."""
        self._next, self._stopped = None, True
        self.cancel()

    def _tell(self, signal: Any, *told: object) -> None:
        if not self._stopped and (self._next is None or self._finish):
            super()._tell(signal, *told)

    def _end(self, ending: str, result: object) -> None:
        super()._end(ending, result)
        work, self._next = self._next, None
        if work is None:
            self.rested.emit()
        else:
            self.run(work)


def show_on(row: ProgressRow, job: Latest) -> None:
    """Let a row that is started with a text show how far work is, and stop it."""
    row.cancel_wanted.connect(job.stop)
    job.progressed.connect(lambda told: row.show_step(*told) if isinstance(told, Report) else None)
    job.rested.connect(row.end)


class Starter(Protocol):
    """A form whose button starts work; nothing in it is changed while the work runs."""

    button: Any

    def set_running(self, running: bool) -> None:
        """Switch the form off or on."""


class JobRow(ProgressRow):
    """A progress row that runs a form's work, shows its `Report` reports, and cancels it.

    Parameters
    ----------
    form
        Form that starts the work. Its button gets the focus back from Cancel.
    message
        Line that tells how work ended; what it says is removed when work begins.

    Attributes
    ----------
    job
        The job that does the work.
    warnings
        Warnings of the latest work, in words.
    reported : object
        A report of the work that is no `Report`.
    """

    reported = Signal(object)

    def __init__(self, form: Starter | None, message: MessageLine) -> None:
        super().__init__()
        self.job, self.warnings = BackgroundJob(self), list[str]()
        self._form, self._message = form, message
        self.job.progressed.connect(self._take)
        self.job.warned.connect(lambda words: self.warnings.append(words))
        self.job.ended.connect(self._finish)
        self.cancel_wanted.connect(self.job.cancel)

    def run(
        self,
        work: Work,
        words: str = "Starting",
        *,
        done: Call,
        failed: Call,
        cancelled: Callable[[], str] = lambda: "Cancelled.",
    ) -> None:
        """Begin work; one of the functions is called when it has ended and the form is on again.

        Parameters
        ----------
        work, words
            The work, which must not touch Qt, and the text that stands for its first report.
        done, failed
            Called with its result, or with its error.
        cancelled
            Returns what to say when it was cancelled.
        """
        self._done, self._failed, self._cancelled = done, failed, cancelled
        self.warnings = []
        self._message.clear()
        if self._form is not None:
            self._form.set_running(True)
        self.start(words)
        self.cancel.setFocus()  # the pressed button lost the focus, and Escape would do nothing
        self.job.run(work)

    def _finish(self) -> None:
        # Pressing Cancel switches it off, so it loses the focus.
        held = self.cancel.hasFocus() or self.state == "cancelling"
        self.end()
        if self._form is not None:
            self._form.set_running(False)
            if held:
                self._form.button.setFocus()
        ending, result = self.job.outcome
        if ending == "done":
            self._done(result)
        elif ending == "failed":
            self._failed(result)
        else:
            self._message.show_message("warning", self._cancelled())

    def _take(self, report: object) -> None:
        if isinstance(report, Report):
            self.show_step(*report)
        else:
            self.reported.emit(report)


def paced(parent: QObject, pause: int, call: Callable[[], object]) -> QSignalThrottler:
    """Return a throttler: a call is made at once, and then every `pause` milliseconds at most."""
    pace = QSignalThrottler(parent=parent)
    pace.setTimeout(pause)
    pace.triggered.connect(call)
    return pace


class OneByOne(QObject):
    """A queue of changes to the window: between them it is repainted and takes input.

    Each change is made in the window's own thread, after a pause.

    Parameters
    ----------
    parent
        Owner; when it is destroyed nothing more is done.
    pause
        Milliseconds before each change.

    Attributes
    ----------
    rested
        Emitted when everything is done.
    """

    rested = Signal()

    def __init__(self, parent: QObject, pause: int = BREATH) -> None:
        super().__init__(parent)
        self._waiting: deque[Callable[[], object]] = deque()
        self._timer = QTimer(self, interval=pause, timeout=self._do_one)

    @property
    def busy(self) -> bool:
        """Whether a change is still waiting."""
        return bool(self._waiting)

    def add(self, *changes: Callable[[], object]) -> None:
        """Make these changes after all that already wait."""
        self._waiting.extend(changes)
        if self._waiting:
            self._timer.start()

    def stop(self) -> None:
        """Make none of the changes that wait."""
        self._timer.stop()
        self._waiting.clear()

    def finish(self) -> None:
        """Make all changes that wait, at once."""
        while self._waiting:
            self._do_one()

    def _do_one(self) -> None:
        self._waiting.popleft()()
        if not self._waiting:
            self._timer.stop()
            self.rested.emit()


def wait_for(work: Callable[[Control], Result], words: str) -> Result:
    """Do work in a thread while a dialog shows how far it is and offers to cancel it.

    The window is repainted meanwhile but takes no input, so nothing is started twice. Each of
    several files dropped together is waited for by itself: they share one dialog, and cancelling
    ends them all. Where there is no window the work is simply done.

    Parameters
    ----------
    work
        The work, which reports a `Report` now and then.
    words
        Text that is shown first.

    Raises
    ------
    Cancelled
        When it was cancelled; whatever the work raises is raised as well.
    """
    window = _window()
    if window is None:
        return work(Control(lambda: False, lambda report: None))
    if isinstance(window, _Waiting):  # the dialog of the file before
        window = window.parentWidget()
    dialog = window.findChild(_Waiting) or _Waiting(window)
    dialog.begin(words)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, Control(dialog.cancelled, dialog.reported.emit))
        future.add_done_callback(lambda _: dialog.ended.emit())
        if not dialog.isVisible():
            wait([future], PATIENCE)
        if not future.done():
            dialog.wait(future.done)
    dialog.rest()
    return future.result()


class _Waiting(QDialog):
    """The dialog of `wait_for`; after its work it stays hidden, ready for the next dropped file."""

    reported = Signal(object)
    ended = Signal()

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.setWindowModality(Qt.ApplicationModal)
        self.setMinimumWidth(480)
        self.row, self._number, self._loop = ProgressRow(), 0, QEventLoop(self)
        QVBoxLayout(self).addWidget(self.row)
        self._hiding = QTimer(self, singleShot=True, timeout=self._put_away)
        self._over = QTimer(self, singleShot=True, timeout=self._expire)
        self.reported.connect(self._show)
        self.ended.connect(self._loop.quit)

    def begin(self, words: str) -> None:
        """Begin with the next file, unless all were cancelled.

        Raises
        ------
        Cancelled
            Again for each further file of those dropped together.
        """
        self._hiding.stop()
        self._over.stop()
        if self.cancelled():
            self.rest()
            raise Cancelled
        self._number += 1
        more = f": file {self._number}" if self._number > 1 else ""
        self.setWindowTitle(f"MSP Harmonization{more}")
        self.row.start(words)

    def wait(self, done: Callable[[], bool]) -> None:
        """Show the dialog until the work has ended."""
        self.show()
        while not done():
            self._loop.exec()

    def rest(self) -> None:
        """Hide the dialog; among several files a little later: napari shows it before it asks."""
        if self._number == 1 or self.cancelled():
            self.hide()
        else:
            self._hiding.start(round(1000 * PATIENCE))
        self._over.start(round(1000 * (PATIENCE if self.cancelled() else BETWEEN)))

    def _put_away(self) -> None:
        """Hide the dialog after the last file; a cancel since then does not reach later files."""
        self.hide()
        if self.cancelled():
            self._over.start(round(1000 * PATIENCE))

    def _expire(self) -> None:
        """Delete this dialog, so that the next work gets another."""
        self.hide()
        self.setParent(None)
        self.deleteLater()

    def _show(self, step: Report) -> None:
        """Show a step, with the height that its text needs."""
        self.row.show_step(*step)
        self.adjustSize()

    def reject(self) -> None:
        """Let Escape and the close button cancel the work; the dialog waits for its end."""
        self.row.request_cancel()

    def cancelled(self) -> bool:
        """Return whether the work should stop."""
        return self.row.state == "cancelling"


def _window() -> Any:
    """Return the window to wait in; None without one, or outside the window's own thread."""
    application = QApplication.instance()
    if application is None or QThread.currentThread() is not application.thread():
        return None
    windows = [each for each in application.topLevelWidgets() if each.isVisible()]
    return application.activeWindow() or next(iter(windows), None)
