"""Work that somebody waits for: a row that shows a job, and a dialog where napari itself waits.

What opens a file or sample data must give napari the layers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from qtpy.QtCore import Qt, QThread, Signal
from qtpy.QtWidgets import QApplication, QDialog, QVBoxLayout, QWidget

from napari_msp.ui.background import Control, Job, Step, Work
from napari_msp.ui.widgets.progress import ProgressRow

PATIENCE = 0.3
"""Seconds for which nothing is shown."""

Result = TypeVar("Result")


class JobRow(ProgressRow):
    """A progress row that runs a job, shows its `Step` reports, and cancels it.

    Attributes
    ----------
    reported : object
        What the work reports that is no `Step`.
    done : object
        Its result.
    failed : UserError
        What went wrong.
    cancelled
        It has stopped.
    ended
        After any of these three; whoever uses the row then brings it to rest by `end`.
    """

    reported = Signal(object)
    done = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    ended = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._job: Job | None = None
        self.cancel_wanted.connect(self.stop)

    @property
    def running(self) -> bool:
        """Whether the work goes on."""
        return self._job is not None

    def run(self, work: Work, words: str = "Starting") -> None:
        """Begin work, for the first report of which these words stand."""
        self.start(words)
        self.cancel.setFocus()  # the button that was pressed has lost it; Escape would go astray
        self._job = job = Job(work, self)
        job.progressed.connect(self._take)
        job.done.connect(self.done)
        job.failed.connect(self.failed)
        job.cancelled.connect(self.cancelled)
        job.ended.connect(self._forget)
        job.start()

    def stop(self) -> None:
        """Ask the work to stop."""
        if self._job is not None:
            self._job.cancel()

    def _take(self, report: object) -> None:
        if isinstance(report, Step):
            self.show_step(report.words, report.done, report.total)
        else:
            self.reported.emit(report)

    def _forget(self) -> None:
        if self._job is not None:
            self._job.deleteLater()
        self._job = None
        self.ended.emit()


def wait_for(work: Callable[[Control], Result], words: str) -> Result:
    """Do work in a thread while a dialog shows how far it is and offers to cancel it.

    The window is repainted meanwhile but takes no input, so nothing is started twice. Where there
    is no window the work is simply done.

    Parameters
    ----------
    work
        Reports a `Step` now and then.
    words
        What is shown first.

    Raises
    ------
    Cancelled
        When it was cancelled; and whatever the work raises.
    """
    window = _window()
    if window is None:
        return work(Control(lambda: False, lambda report: None))
    dialog = _Waiting(words, window)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, Control(lambda: dialog.cancelled, dialog.reported.emit))
        future.add_done_callback(lambda _: dialog.ended.emit())
        wait([future], PATIENCE)
        if not future.done():
            dialog.exec()
    dialog.deleteLater()
    return future.result()


class _Waiting(QDialog):
    """Closes when the work has ended, by itself or because it was cancelled."""

    reported = Signal(object)
    ended = Signal()

    def __init__(self, words: str, window: QWidget) -> None:
        super().__init__(window)
        self.cancelled = False
        self.setWindowTitle("MSP Harmonization")
        self.setWindowModality(Qt.ApplicationModal)
        self.setMinimumWidth(420)
        self.row = ProgressRow()
        self.row.start(words)
        QVBoxLayout(self).addWidget(self.row)
        self.row.cancel_wanted.connect(self._cancel)
        self.reported.connect(self._show_step)
        self.ended.connect(self.accept)

    def reject(self) -> None:
        """Let Escape and the close button cancel the work; the dialog waits for its end."""
        self.row.request_cancel()

    def _show_step(self, step: Step) -> None:
        self.row.show_step(step.words, step.done, step.total)

    def _cancel(self) -> None:
        self.cancelled = True


def _window() -> Any:
    """Give the window to wait in; None without one, or in a thread that is not the window's."""
    application = QApplication.instance()
    if application is None or QThread.currentThread() is not application.thread():
        return None
    windows = [each for each in application.topLevelWidgets() if each.isVisible()]
    return application.activeWindow() or next(iter(windows), None)
