"""`napari-msp`: one thin command per job. Each is one library call; nothing is decided here."""

import io
import os
import shlex
import sys
import time
import traceback
from argparse import PARSER, Action, ArgumentError, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from napari_msp.commands import (
    align,
    calibrate,
    check,
    cohort,
    compare,
    completion,
    demo,
    evaluate,
    harmonize,
    import_,
    maps,
    regions,
    review,
    run,
    simulate,
    train,
)
from napari_msp.commands.console import Console, drop_output, ends, handled, speaks, warnings_on
from napari_msp.commands.shared import Command, OptionWords, add_console_options
from napari_msp.errors import INTERRUPTED, Cancelled, ToldElsewhere, Unexpected
from napari_msp.foreign_errors import explain, shortened

COMMANDS: dict[str, Command] = {
    "demo": demo,
    "simulate": simulate,
    "import": import_,
    "check": check,
    "align": align,
    "train": train,
    "run": run,
    "harmonize": harmonize,
    "maps": maps,
    "compare": compare,
    "regions": regions,
    "evaluate": evaluate,
    "calibrate": calibrate,
    "cohort": cohort,
    "review": review,
    "completion": completion,
}

USER_ERROR = 2
"""Exit status after a user's mistake, or if memory or a GPU fails."""

SPINS = "1000"
"""Number of checks that a waiting torch thread makes before it sleeps: GNU OpenMP's own value if
there are more threads than cores. It cannot know that other programs use the cores: with its usual
300,000 checks the waiting thread keeps the other one from the core that it needs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 2 after a user's mistake, 130 when interrupted.

    `check`, `cohort` and `review` return 1 if what they examined is not in order.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _wait_without_spinning()
    _open_closed_streams()
    _show_what_cannot_be_encoded()
    chosen = next((each for each in arguments if not each.startswith("-")), "")
    try:
        options, left = build_parser(chosen).parse_known_args(arguments)
        if left:  # reported by the command's own parser, whose help lists its options
            options.parser.error(f"unrecognized arguments: {' '.join(left)}")
    except OSError as error:  # the version was asked for, and the output is closed
        print(f"napari-msp: {explain(error).phrase()}", file=sys.stderr)
        _leave_output_that_is_full()
        return USER_ERROR
    log = options.log if speaks(options.command) else None
    try:
        with (
            Console(options.quiet, options.verbose, log) as console,
            warnings_on(console),
            handled(ends(), _interrupt),
        ):
            console.record(shlex.join(["napari-msp", *arguments]))
            return COMMANDS[options.command].run(options, console)
    except BrokenPipeError:  # the reader of the output has gone
        drop_output()
        return INTERRUPTED
    except (KeyboardInterrupt, Cancelled):
        with suppress(OSError):  # a terminal that was closed
            print("napari-msp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        failure = explain(error)
        if isinstance(failure, ToldElsewhere):
            return _let_first_speak()
        if isinstance(failure, Unexpected):
            raise  # a bug keeps its traceback
        if options.verbose:
            traceback.print_exc()
        print(f"napari-msp: {failure.phrase(OptionWords(options.parser))}", file=sys.stderr)
        _leave_output_that_is_full()
        return USER_ERROR


def _let_first_speak() -> int:
    """Return the exit status after a delay: launchers end all processes when one has failed."""
    time.sleep(2)
    return USER_ERROR


def build_parser(chosen: str | None = None) -> ArgumentParser:
    """Build the parser.

    Parameters
    ----------
    chosen
        The only command whose options are needed, as some take long to list; None: all.
    """
    parser = _Parser(
        prog="napari-msp",
        description="Harmonize diffusion MRI between scanners with Multi-Stage Prediction.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="Print the version and end.")
    parser.silent = not speaks(chosen or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            help=f"{command.SUMMARY}.",
            description=f"{command.SUMMARY}.",
            epilog="\n  ".join(["example:", *command.EXAMPLE.splitlines()]),
            formatter_class=_Help,
        )
        added.set_defaults(parser=added)
        added.silent = parser.silent
        if chosen in (None, name):
            command.add_options(added)
            add_console_options(added)
    return parser


def _wait_without_spinning() -> None:
    """Leave cores to other programs while threads wait; read once, when torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:  # or it would have no effect
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _open_closed_streams() -> None:
    """Discard output if a daemon closed standard output or standard error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, _Nowhere())


class _Nowhere(io.TextIOBase):
    """A stream that discards whatever is written."""

    def write(self, text: str) -> int:
        return len(text)


def _show_what_cannot_be_encoded() -> None:
    """Let a terminal that lacks Greek characters show a code for α instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_output_that_is_full() -> None:
    """Drop what standard output cannot take: Python would complain again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()


class _Parser(ArgumentParser):
    """Reports a wrong option in one line, like all other errors.

    A `silent` one leaves that to the first of several processes.
    """

    silent = False

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, add_help=False)
        self.add_argument("-h", "--help", action="help", help="Print this help and end.")

    def _get_values(self, action: Action, arg_strings: list[str]) -> Any:
        """Refuse an empty value, as an unset variable gives: as a path it would be this folder."""
        if action.nargs != PARSER and not all(each.strip() for each in arg_strings):
            raise ArgumentError(action, "must not be empty")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        if self.silent:
            self.exit(_let_first_speak())
        self.exit(USER_ERROR, f"napari-msp: {shortened(message)}; see {self.prog} --help\n")


class _Help(RawDescriptionHelpFormatter):
    """Shows only required arguments in the usage line; the rest is in the sections below."""

    def add_usage(
        self, usage: str | None, actions: Iterable[Action], groups: Any, prefix: str | None = None
    ) -> None:
        """Add the line."""
        needed = [each for each in actions if each.required]
        options = Action([], "options", metavar="[OPTIONS]")
        super().add_usage(usage, [*needed, options], groups, prefix)


class _Version(Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        from napari_msp import __version__

        print(f"napari-msp {__version__}")
        parser.exit()


def _interrupt(*_: object) -> None:
    """Let SIGTERM from batch systems and SIGHUP from terminals end a command as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":  # for debuggers; the entry point calls `main`
    sys.exit(main())
