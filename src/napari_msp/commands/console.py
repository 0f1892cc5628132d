"""Messages of a running command: a bar on a terminal, lines elsewhere, and a log on request."""

import os
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from napari_msp.options import is_first

PLAIN_EVERY = 30.0
"""Seconds between two lines of progress without a terminal, as in a batch system's log."""


def speaks(command: str) -> bool:
    """Return whether this process prints; of several that train together only the first does."""
    return command != "train" or is_first()


def ends() -> list[signal.Signals]:
    """Return the signals by which others end a command: batch systems, and a closed terminal.

    Ignored signals, as under nohup, stay ignored.
    """
    known = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    return [each for each in known if signal.getsignal(each) is not signal.SIG_IGN]


@contextmanager
def handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, object], None]
) -> Iterator[None]:
    """Let signals call a function while the block runs; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def drop_output() -> None:
    """Discard what is still to be printed, as nobody reads it or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Console:
    """Standard output for results, standard error for all else.

    Parameters
    ----------
    quiet
        Whether to print only results, warnings and errors.
    verbose
        Whether to give each step a line of its own.
    log
        File to which everything is appended, with the time.
    """

    def __init__(
        self, quiet: bool = False, verbose: bool = False, log: str | Path | None = None
    ) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._log: TextIO | None = None
        if log is not None:
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            # Closed by __exit__.
            self._log = Path(log).open("a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        self._bar: Any = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._end_bar()
        if self._log is not None:
            if error is not None:
                self.record("".join(traceback.format_exception(error)).rstrip())
            self._log.close()
            self._log = None

    def record(self, text: object) -> None:
        """Write to the log, if there is one; a full disk ends the log, not hours of work."""
        if self._log is None:
            return
        try:
            print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=self._log, flush=True)
        except OSError as error:
            log, self._log = self._log, None
            with suppress(OSError):
                log.close()
            self.warn(
                f"warning: {log.name}: cannot be written ({error.strerror}); logging stops here"
            )

    def result(self, *lines: object) -> None:
        """Print results of the command: names of files, a table."""
        for line in lines:
            self.record(line)
            self._end_bar()
            print(line, flush=True)

    def report(self, line: str) -> None:
        """Print a message for people rather than programs, such as a validation."""
        self.record(line)
        if not self._quiet:
            self._end_bar()
            print(line, flush=True)

    def say(self, line: str) -> None:
        """Print on standard error what is going on."""
        self.record(line)
        if not self._quiet:
            self._complain(line)

    def warn(self, line: str) -> None:
        """Print a doubt on standard error, also when quiet."""
        self.record(line)
        self._complain(f"napari-msp: {line}")

    @property
    def has_bar(self) -> bool:
        """Whether progress is shown as a bar."""
        return not self._verbose and not self._quiet and sys.stderr.isatty()

    @property
    def width(self) -> int | None:
        """Width in characters of the terminal that results go to; None if they go elsewhere."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def progress(self, what: str, done: int, total: int) -> None:
        """Show progress: on a terminal as a bar, elsewhere as a line now and then."""
        now = time.monotonic()
        due = self._verbose or now - self._last >= PLAIN_EVERY
        if due:
            self._last = now
            self.record(f"{what} {done}/{total}")
            if not self._quiet and not self.has_bar:
                self._complain(f"{what} {done}/{total}")
        if self.has_bar:
            self._show_bar(what, done, total)

    def _show_bar(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, leave=False, dynamic_ncols=True, initial=done)
        self._bar.total, self._bar.n = total, done
        self._bar.set_description_str(what, refresh=False)
        self._bar.refresh()

    def _end_bar(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None

    def _complain(self, line: str) -> None:
        with suppress(OSError):  # the terminal was closed, which does not concern the work
            if self._bar is not None:
                self._bar.clear()
            print(line, file=sys.stderr, flush=True)


@contextmanager
def warnings_on(console: Console) -> Iterator[None]:
    """Show Python's warnings as lines of the console while the block runs, each line once.

    Python alone would repeat a doubt about a scan whenever the scan is read again.
    """
    shown = set[str]()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        line = "warning: " + " ".join(str(message).split())
        if line not in shown:
            shown.add(line)
            console.warn(line)

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
