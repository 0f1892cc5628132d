"""Training in a process of its own: it takes no time from the window, and dies alone."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qtpy.QtCore import QCoreApplication, QObject, QProcess, QProcessEnvironment, Signal

from napari_msp.errors import INTERRUPTED
from napari_msp.learning.events import Event, Failed, parse_event

PATIENCE = 3000
"""Milliseconds that the application waits, when it ends, for a checkpoint to be written."""

REMEMBERED = 20_000
"""Characters of what a child complains of that are kept."""


@dataclass(frozen=True)
class Ending:
    """How training ended.

    Attributes
    ----------
    outcome
        "finished": the model is written. "stopped": somebody asked for it. "failed": all else.
    message
        Why it failed, in one line; empty otherwise.
    details
        All that the process complained of, such as a traceback; mostly empty.
    """

    outcome: Literal["finished", "stopped", "failed"]
    message: str = ""
    details: str = ""


class TrainingProcess(QObject):
    """Executes runs, one at a time, by `napari-msp run` in a child process.

    When it is destroyed, the child stops with a checkpoint, as it does when the application dies.

    Parameters
    ----------
    parent
        Its owner.
    """

    told = Signal(object)
    """An `Event` of the run."""

    ended = Signal(object)
    """The `Ending`, once for each start."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._child: _Child | None = None
        self._heard = _Heard()

    @property
    def running(self) -> bool:
        """Tell whether a run is under way."""
        return self._child is not None

    @property
    def process_id(self) -> int:
        """Give the system's number of the child; 0 when none runs."""
        return int(self._child.processId()) if self._child is not None else 0

    def start(self, folder: Path, resume: bool = False) -> None:
        """Execute the run of a folder.

        Parameters
        ----------
        folder
            See `napari_msp.learning.runs`.
        resume
            Go on from its checkpoint.

        Raises
        ------
        RuntimeError
            When a run is under way.
        """
        if self._child is not None:
            raise RuntimeError("a run is under way")
        self._heard = _Heard()
        self._child = child = _Child()
        child.readyReadStandardOutput.connect(self._listen)
        child.readyReadStandardError.connect(self._listen)
        child.errorOccurred.connect(self._fail_to_start)
        child.finished.connect(self._end)
        self.destroyed.connect(child.end_soon)
        child.execute(folder, resume)

    def stop(self) -> None:
        """Ask the run to stop; it ends within a step, with a checkpoint."""
        if self._child is not None:
            self._child.end_soon()

    def kill(self) -> None:
        """End the run at once; what was learned since the last checkpoint is lost."""
        if self._child is not None:
            self._heard.killed = True
            self._child.kill()

    def _listen(self) -> None:
        child, heard = self._child, self._heard
        if child is None:
            return
        heard.complaints += bytes(child.readAllStandardError()).decode(errors="replace")
        heard.complaints = heard.complaints[-REMEMBERED:]
        for line in heard.lines(bytes(child.readAllStandardOutput())):
            try:
                event = parse_event(line)
            except ValueError:  # some library prints
                heard.complaints += line + "\n"
                continue
            heard.last = event
            self.told.emit(event)

    def _end(self, code: int, status: QProcess.ExitStatus) -> None:
        self._listen()
        crashed = status == QProcess.ExitStatus.CrashExit
        self._child = None
        self.ended.emit(self._heard.ending(code, crashed))

    def _fail_to_start(self, error: QProcess.ProcessError) -> None:
        if self._child is not None and error == QProcess.ProcessError.FailedToStart:
            reason = self._child.errorString()
            self._child.deleteLater()
            self._child = None
            self.ended.emit(Ending("failed", f"training cannot be started: {reason}"))


class _Heard:
    """What came out of a child so far."""

    def __init__(self) -> None:
        self.last: Event | None = None
        self.complaints = ""
        self.killed = False
        self._unfinished = b""

    def lines(self, chunk: bytes) -> list[str]:
        """Give the lines that a chunk of output completes."""
        *complete, self._unfinished = (self._unfinished + chunk).split(b"\n")
        return [line.decode(errors="replace") for line in complete]

    def ending(self, code: int, crashed: bool) -> Ending:
        """Tell how the child ended, by its exit status and what it said last."""
        details = self.complaints.strip()
        if not crashed and code == 0:
            return Ending("finished", details=details)
        if self.killed or (not crashed and code == INTERRUPTED):
            return Ending("stopped", details=details)
        return Ending("failed", self._reason(code, crashed), details)

    def _reason(self, code: int, crashed: bool) -> str:
        if isinstance(self.last, Failed):
            return str(self.last.error)
        if crashed:
            return (
                f"training was ended from outside ({_signal_name(code)}), most likely for want of "
                "memory; train with a smaller --batch or --crop"
            )
        lines = [line for line in self.complaints.splitlines() if line.strip()]
        if lines:
            return lines[-1].removeprefix("napari-msp: ")
        return f"training ended without a word (exit status {code})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"exit status {number}"


class _Child(QProcess):
    """The process. It belongs to the application, so that it may outlive its watcher and end well.

    A QProcess that is destroyed kills.
    """

    def __init__(self) -> None:
        application = QCoreApplication.instance()
        super().__init__(application)
        application.aboutToQuit.connect(self._end_with_application)
        self.finished.connect(self.deleteLater)

    def execute(self, folder: Path, resume: bool) -> None:
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONIOENCODING", "utf-8")
        self.setProcessEnvironment(environment)
        # -P: what lies in the folder that the window was started from is not to be imported.
        command = ["-P", "-m", "napari_msp", "run", str(folder)]
        command += ["--stop-with-stdin", "--leave-a-core"]
        self.start(sys.executable, [*command, "--resume"] if resume else command)

    def end_soon(self, *_: object) -> None:
        """Let it write a checkpoint and end."""
        self.closeWriteChannel()

    def _end_with_application(self) -> None:
        self.end_soon()
        self.waitForFinished(PATIENCE)
