"""Training in a process of its own: it takes no time from the window and cannot crash it."""

from __future__ import annotations

import atexit
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qtpy.QtCore import QCoreApplication, QObject, QProcess, QProcessEnvironment, Signal

from napari_msp.errors import (
    INTERRUPTED,
    Advice,
    Change,
    OutOfMemory,
    Unexpected,
    UserError,
    either,
)
from napari_msp.learning.events import Event, Failed, parse_event

PATIENCE = 10_000
"""Milliseconds that the application, when it ends, waits at most for a checkpoint to be written: a
busy machine takes some seconds."""

REMEMBERED = 20_000
"""Number of characters that are kept of a child's complaints."""


@dataclass(frozen=True)
class Ending:
    """The end of a training.

    Attributes
    ----------
    outcome
        "finished": the model is written. "stopped": this was asked for. "failed": all else.
    error
        Error if it failed; None otherwise.
    details
        Other output of the process, such as a traceback; mostly empty.
    """

    outcome: Literal["finished", "stopped", "failed"]
    error: UserError | None = None
    details: str = ""


class TrainingProcess(QObject):
    """A runner of one training at a time, by `napari-msp run` in a child process.

    When it is destroyed, the child stops with a checkpoint, as it does when the application dies.

    Parameters
    ----------
    parent
        Its owner.
    """

    reported = Signal(object)
    """Emitted with an `Event` of the run."""

    ended = Signal(object)
    """Emitted with the `Ending`, once for each start."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._child: _Child | None = None
        self._last: Event | None = None
        self._complaints = ""

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._child is not None

    def start(self, folder: Path, resume: bool = False) -> None:
        """Execute the run of a folder.

        Parameters
        ----------
        folder
            Folder of the run, see `napari_msp.learning.runs`.
        resume
            Go on from its checkpoint.

        Raises
        ------
        RuntimeError
            If a run is under way.
        """
        if self._child is not None:
            raise RuntimeError("a run is under way")
        self._last, self._complaints = None, ""
        self._child = child = _Child()
        child.readyReadStandardOutput.connect(self._read)
        child.readyReadStandardError.connect(self._read)
        child.errorOccurred.connect(self._fail_to_start)
        child.finished.connect(self._end)
        self.destroyed.connect(child.end_soon)
        child.execute(folder, resume)

    def stop(self) -> None:
        """Ask the run to stop; it ends within a step, with a checkpoint."""
        if self._child is not None:
            self._child.end_soon()

    def _read(self) -> None:
        child = self._child
        if child is None:
            return
        self._complain(bytes(child.readAllStandardError()))
        while child.canReadLine():
            line = bytes(child.readLine())
            try:
                event = parse_event(line.decode(errors="replace"))
            except ValueError:  # printed by some library
                self._complain(line)
                continue
            self._last = event
            self.reported.emit(event)

    def _complain(self, text: bytes) -> None:
        """Keep output that is no event."""
        self._complaints = (self._complaints + text.decode(errors="replace"))[-REMEMBERED:]

    def _end(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read()
        self._child = None
        self.ended.emit(self._ending(code, status == QProcess.ExitStatus.CrashExit))

    def _fail_to_start(self, error: QProcess.ProcessError) -> None:
        if self._child is not None and error == QProcess.ProcessError.FailedToStart:
            reason = self._child.errorString()
            self._child.forget()
            self._child = None
            remedy = Advice("install napari-msp anew")
            self.ended.emit(
                Ending("failed", UserError(f"training cannot be started: {reason}", remedy=remedy))
            )

    def _ending(self, code: int, crashed: bool) -> Ending:
        """Return how the child ended, by its exit status and its last event."""
        details = self._complaints.strip()
        if crashed or code not in (0, INTERRUPTED):
            return Ending("failed", self._reason(code, crashed), details)
        return Ending("finished" if code == 0 else "stopped", details=details)

    def _reason(self, code: int, crashed: bool) -> UserError:
        if isinstance(self._last, Failed):
            return self._last.error
        if crashed:
            return OutOfMemory(
                f"training was ended from outside ({_signal_name(code)}), most likely for want of "
                "memory",
                remedy=either(Change("batch", "a smaller"), Change("crop", "a smaller")),
            )
        lines = [line for line in self._complaints.splitlines() if line.strip()]
        if lines:  # it broke down before it could report anything
            return Unexpected(lines[-1])
        return Unexpected(f"training ended without a word (exit status {code})")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"exit status {number}"


class _Child(QProcess):
    """The process. The application owns it, so that it may outlive its watcher and end well.

    A QProcess that is destroyed kills its process.
    """

    def __init__(self) -> None:
        application = QCoreApplication.instance()
        super().__init__(application)
        application.aboutToQuit.connect(self._end_with_application)
        # A window that was opened from Python ends without it; Qt would then kill the process.
        atexit.register(self._end_with_application)
        self.finished.connect(self.forget)

    def execute(self, folder: Path, resume: bool) -> None:
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONIOENCODING", "utf-8")
        self.setProcessEnvironment(environment)
        # -P: import nothing from the folder in which the window was started.
        command = ["-P", "-m", "napari_msp", "run", str(folder)]
        command += ["--stop-with-stdin", "--leave-a-core"]
        self.start(sys.executable, [*command, "--resume"] if resume else command)

    def end_soon(self, *_: object) -> None:
        """Let the process write a checkpoint and end."""
        self.closeWriteChannel()

    def _end_with_application(self) -> None:
        self.end_soon()
        self.waitForFinished(PATIENCE)

    def forget(self, *_: object) -> None:
        """Clean up after a process that has ended."""
        atexit.unregister(self._end_with_application)
        self.deleteLater()
