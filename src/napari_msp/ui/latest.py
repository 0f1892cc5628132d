"""Of many pieces of work only the newest matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_msp.ui.jobs import Control, Job

Work = Callable[[Control], Any]


class Latest(QObject):
    """Does one piece of work at a time; of those asked for meanwhile only the last one.

    Signals
    -------
    progressed : object
        Whatever the work reports.
    warned : str
        What it warns of.
    done : object
        The result of work that nothing newer has replaced.
    failed : Failure
        The same for its failure.
    rested
        Nothing is left to do, after either or after a cancellation.
    """

    progressed = Signal(object)
    warned = Signal(str)
    done = Signal(object)
    failed = Signal(object)
    rested = Signal()

    def __init__(self, parent: QObject | None = None, *, finish: bool = False) -> None:
        """Make one; `finish` lets work that was replaced end and tell its result nevertheless."""
        super().__init__(parent)
        self._finish = finish
        self._job: Job | None = None
        self._next: Work | None = None
        self._stopped = False

    @property
    def running(self) -> bool:
        """Whether something is being done."""
        return self._job is not None

    def ask(self, work: Work) -> None:
        """Do this as soon as possible."""
        self._stopped = False
        if self._job is None:
            self._start(work)
            return
        self._next = work
        if not self._finish:
            self._job.cancel()

    def stop(self) -> None:
        """Do nothing more, and tell of nothing that still comes."""
        self._next, self._stopped = None, True
        if self._job is not None:
            self._job.cancel()

    def _start(self, work: Work) -> None:
        self._job = job = Job(work, self)
        job.progressed.connect(self._tell_progress)
        job.warned.connect(self._tell_warning)
        job.done.connect(self._tell_done)
        job.failed.connect(self._tell_failed)
        job.ended.connect(self._go_on)
        job.start()

    @property
    def _counts(self) -> bool:
        return not self._stopped and (self._next is None or self._finish)

    def _tell_progress(self, told: object) -> None:
        if self._counts:
            self.progressed.emit(told)

    def _tell_warning(self, words: str) -> None:
        if self._counts:
            self.warned.emit(words)

    def _tell_done(self, result: object) -> None:
        if self._counts:
            self.done.emit(result)

    def _tell_failed(self, failure: object) -> None:
        if self._counts:
            self.failed.emit(failure)

    def _go_on(self) -> None:
        if self._job is not None:
            self._job.deleteLater()
        self._job, work = None, self._next
        self._next = None
        if work is None:
            self.rested.emit()
        else:
            self._start(work)
