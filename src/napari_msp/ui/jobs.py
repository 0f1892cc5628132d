"""Work in a thread, with exactly one ending: done, failed or cancelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import FunctionWorker

from napari_msp.errors import Cancelled


@dataclass(frozen=True)
class Control:
    """What work is given; both are called in the worker thread.

    Attributes
    ----------
    cancelled
        Says whether somebody asked the work to stop.
    report
        Takes whatever the work has to tell.
    """

    cancelled: Callable[[], bool]
    report: Callable[[Any], None]

    def check(self) -> None:
        """End the work here when it was cancelled.

        Raises
        ------
        Cancelled
            To be let through.
        """
        if self.cancelled():
            raise Cancelled


class _Line(QObject):
    """What the thread speaks into. It outlives a job that is destroyed while its work goes on."""

    reported = Signal(object)
    warned = Signal(str)
    ended = Signal(str, object)


class Job(QObject):
    """One piece of work in a worker thread.

    Signals arrive in the thread of the job. After `start` exactly one of `done` (with the result),
    `failed` (with a `Failure`) and `cancelled` comes, and then `ended`.

    Parameters
    ----------
    work
        Called once with a `Control`. Qt must not be touched in it.
    parent
        When it is destroyed the work is cancelled, and nobody is told.
    """

    progressed = Signal(object)
    warned = Signal(str)
    done = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    ended = Signal()

    def __init__(self, work: Callable[[Control], Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.running = False
        line = _Line()
        # The application waits for these workers when it ends, and asks them to quit: the same as
        # being cancelled.
        worker: Any = FunctionWorker(_run, work, line, lambda: worker.abort_requested)
        line.reported.connect(self.progressed)
        line.warned.connect(self.warned)
        line.ended.connect(self._end)
        worker.warned.connect(lambda told: line.warned.emit(str(told[0])))
        self.destroyed.connect(worker.quit)
        self._worker = worker

    def start(self) -> None:
        """Begin."""
        self.running = True
        self._worker.start()

    def cancel(self) -> None:
        """Ask the work to stop; `cancelled` follows when it has."""
        self._worker.quit()

    def _end(self, ending: str, result: object) -> None:
        self.running = False
        if ending == "done":
            self.done.emit(result)
        elif ending == "failed":
            self.failed.emit(result)
        else:
            self.cancelled.emit()
        self.ended.emit()


def _run(work: Callable[[Control], Any], line: _Line, cancelled: Callable[[], bool]) -> None:
    """Do the work and tell how it ended. Nothing is raised: a worker may swallow it."""
    try:
        result = work(Control(cancelled, line.reported.emit))
    except Cancelled:
        line.ended.emit("cancelled", None)
    except Exception as error:
        from napari_msp.inference.failures import explain  # loads torch, which takes seconds

        line.ended.emit("failed", explain(error))
    else:
        line.ended.emit("cancelled" if cancelled() else "done", None if cancelled() else result)
