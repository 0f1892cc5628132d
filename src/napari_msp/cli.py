"""`napari-msp`: one thin command per job. Each is one library call; nothing is decided here."""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from napari_msp.commands import data, evaluation, inference, run_folder, training
from napari_msp.commands.shared import INTERRUPTED
from napari_msp.errors import Cancelled
from napari_msp.inference.failures import explain

USER_ERROR = 2
"""Exit status after a user's mistake, or when memory or a GPU fails."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit status: 0, 2 after a user's mistake, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    warnings.showwarning = _one_line_warning
    try:
        with _terminable():
            return run(options)
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except (KeyboardInterrupt, Cancelled):
        print("napari-msp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        failure = explain(error)
        if failure.kind == "unexpected":
            raise  # a bug keeps its traceback
        print(f"napari-msp: {failure.message}", file=sys.stderr)
        return USER_ERROR


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, which batch systems send, end a command as Ctrl-C does: tidily."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print("napari-msp: warning: " + " ".join(str(message).split()), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-msp",
        description="Harmonize diffusion MRI between scanners with Multi-Stage Prediction.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        inference.add_demo,
        data.add_simulate,
        data.add_import,
        data.add_check,
        training.add_train,
        run_folder.add_run,
        inference.add_harmonize,
        inference.add_maps,
        evaluation.add_compare,
        evaluation.add_evaluate,
        evaluation.add_calibrate,
        inference.add_cohort,
    ):
        add(commands)
    return parser
