"""`run`: execute a training that its folder describes, for a window or a batch system to watch."""

import os
import threading
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext
from typing import TYPE_CHECKING

from napari_msp.commands import shared
from napari_msp.commands.console import Console, drop_output
from napari_msp.commands.train import NOBODY_READS, interrupt_flag
from napari_msp.errors import INTERRUPTED

if TYPE_CHECKING:
    from napari_msp.learning.events import Event

SUMMARY = "Train as a run's folder says, and print JSON lines"
EXAMPLE = "napari-msp run runs/2026-01-31_msp --resume"


def add_options(command: ArgumentParser) -> None:
    """Add the folder, and whether to stop with standard input."""
    where = shared.section(command)
    where.path("folder FOLDER", "Folder that contains run.json.")
    where.add("--resume", "Go on from the checkpoint.")
    where.add(
        "--stop-with-stdin",
        "Stop, with a checkpoint, when standard input ends: when whoever started this closes "
        "the pipe, or dies.",
    )
    where.add("--leave-a-core", "Leave one core to others, such as a window that shows the run.")


def run(options: Namespace, console: Console) -> int:
    """Execute the run."""
    from napari_msp.device import leave_a_core
    from napari_msp.learning.events import Failed
    from napari_msp.learning.runs import RunFolder
    from napari_msp.learning.train import run_in_folder

    watcher = _Watcher()
    beside_others = leave_a_core() if options.leave_a_core else nullcontext()
    with interrupt_flag() as interrupted, beside_others:
        if options.stop_with_stdin:
            threading.Thread(target=watcher.wait_for_end_of_stdin, daemon=True).start()
        try:
            written = run_in_folder(
                RunFolder.open(options.folder),
                resume=options.resume,
                progress=watcher.send,
                cancelled=lambda: interrupted() or watcher.gone.is_set(),
            )
        except Exception as error:
            if not watcher.knows_failure:  # it failed before training began
                watcher.send(Failed.of(error))
            raise
    return 0 if written else INTERRUPTED


class _Watcher:
    """The process that started the run, at the other end of the pipes."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.knows_failure = False

    def send(self, event: "Event") -> None:
        """Print one event. A closed pipe is a request to stop, not a failure of the run."""
        self.knows_failure = event.name == "failed"
        try:
            print(event.to_json(), flush=True)
        except OSError as error:
            if error.errno not in NOBODY_READS:
                raise
            self.gone.set()
            drop_output()

    def wait_for_end_of_stdin(self) -> None:
        """Return when standard input ends; its content does not matter."""
        try:
            # sys.stdin would keep a lock that the interpreter needs at exit.
            while os.read(0, 1024):
                pass
        except OSError:  # there is no standard input
            pass
        self.gone.set()
