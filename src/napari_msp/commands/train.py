"""`train`: train a model, report progress, stop when asked."""

import errno
import signal
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args, get_origin

from napari_msp.commands import shared
from napari_msp.commands.console import Console, ends, handled
from napari_msp.errors import INTERRUPTED
from napari_msp.formatting import counted, listed, sh_mse
from napari_msp.options import Topic

if TYPE_CHECKING:
    from napari_msp.learning.events import Event, EventHandler, Finished, StartedFrom, Validated

SUMMARY = "Train a model on travelling heads"
EXAMPLE = (
    "napari-msp train heads msp.safetensors --model msp --width 0.2 --minutes 10 --held-out sub-04"
)

NOBODY_READS = (errno.EPIPE, errno.EINVAL, errno.EIO)
"""Errors of a pipe or terminal whose other end is closed; EINVAL on Windows."""

METAVARS = shared.METAVARS | {
    "input": "PLATFORM",
    "targets": "PLATFORM",
    "held_out": "SUBJECT",
    "validation": "SUBJECT",
    "subjects": "SUBJECT",
    "first_stage": "TARGET=KIND",
    "width": "paper|W",
    "minutes": "M",
    "start_from": "nothing|base|MODEL.safetensors",
    "start_from_target": "NEW=OLD",
    "label": "TEXT",
}
"""Placeholders of values in the help; N for numbers that are not listed."""


def add_options(command: ArgumentParser) -> None:
    """Add data, model and an option for every setting of a training."""
    shared.section(command).path("dataset DATASET", "BIDS folder of travelling heads.")
    shared.section(command).path("out OUT.safetensors", "Model to write.")
    _add_settings(command)
    shared.add_option(command, "device")
    output = shared.section(command, Topic.OUTPUT)
    output.add("--resume", "Go on from the checkpoint.")
    shared.add_force(command, "a model or, without --resume, a checkpoint that exists")
    output.add("--events", "Print JSON lines to standard output.")


def run(options: Namespace, console: Console) -> int:
    """Train, and write the model."""
    from napari_msp.learning.settings import TrainingSettings
    from napari_msp.learning.train import train

    names = TrainingSettings.model_fields
    given = {name: value for name, value in vars(options).items() if name in names}
    for name in ("first_stage", "start_from_target"):
        if name in given:
            given[name] = shared.pairs(given[name], name, METAVARS[name])
    report = _print_json if options.events else _reporter(console)
    try:
        with interrupt_flag() as interrupted:
            written = shared.call(
                train,
                options,
                progress=to_a_reader(report),
                cancelled=interrupted,
                **given,
            )
    except BrokenPipeError:
        console.warn("stopped, as nobody reads its output any more; continue with --resume")
        raise
    return 0 if written else INTERRUPTED


def _add_settings(command: ArgumentParser) -> None:
    """Add an option for each setting; those not given are left to the preset.

    Values stay text: the settings parse and check them.
    """
    from napari_msp.learning.settings import SECTIONS, TrainingSettings, choices_of

    for topic, name in ((topic, name) for topic, names in SECTIONS.items() for name in names):
        field = TrainingSettings.model_fields[name]
        kinds = [field.annotation, *get_args(field.annotation)]
        many = any(get_origin(kind) in (tuple, list, dict) for kind in kinds)
        choices = None if many else choices_of(name) or None
        value = "" if choices else f" {METAVARS.get(name, 'N')}{' ...' * many}"
        what = (field.description or "").replace("%", "%%")
        if field.default not in (None, "") and isinstance(field.default, int | str):
            what += f" Default: {field.default}."
        shared.section(command, topic).add(
            shared.flag(name) + value,
            what,
            SUPPRESS,
            dest=name,
            choices=choices,
        )


def _print_json(event: Any) -> None:
    print(event.to_json(), flush=True)


def _reporter(console: Console) -> "EventHandler":
    """Return a function that reports a run's events to people."""
    from napari_msp.learning import events

    steps = 0

    def report(event: events.Event) -> None:
        nonlocal steps
        match event:
            case events.Started():
                steps = event.steps
                console.report(
                    f"{event.kind}, preset {event.preset}, from {event.start}, on {event.device}"
                    + (f" in {event.processes} processes: " if event.processes > 1 else ": ")
                    + f"{counted(len(event.subjects), 'subject')}, "
                    + (f"validated on {', '.join(event.validation)}, " if event.validation else "")
                    + f"{len(event.held_out)} held out, {event.parameters:,} weights, "
                    + ("at most " if event.validation else "")
                    + f"{event.steps:,} steps"
                    + (f", going on at step {event.resumed_at:,}" if event.resumed_at else "")
                )
                for each in event.advice:
                    console.report(each)
            case events.StartedFrom():
                _tell_start(console, event)
            case events.Step():
                alpha = "" if event.alpha is None else f", α {event.alpha:.2f}"
                console.progress(
                    f"{event.phase}, epoch {event.epoch}: loss {event.loss:.4f}{alpha}",
                    event.step,
                    steps,
                )
            case events.Validated():
                console.report(f"{event.phase}, epoch {event.epoch}: {_errors(event)}")
            case events.Shortened():
                steps = event.steps
                console.report(
                    f"{event.phase}, epoch {event.epoch}: nothing is gained on the validation "
                    f"subjects any more; the run ends at step {event.steps:,} now, or before"
                )
            case events.Stopped():
                console.result(
                    f"stopped after step {event.step:,}; continue with --resume ({event.path})"
                )
            case events.Finished():
                for words, phases in event.endings.items():
                    console.report(f"{listed(phases)}: {words}")
                if event.errors or event.validation:
                    console.report(f"in the model: {_errors(event)}")
                console.result(f"{event.path} ({event.seconds:,.0f} s of training)")

    return report


def _errors(event: "Validated | Finished") -> str:
    """Return the errors on subjects outside the training."""
    return "; ".join(
        f"{who} SH MSE {', '.join(f'{name} {sh_mse(value)}' for name, value in of.items())}"
        for who, of in (("validation", event.validation), ("held-out", event.errors))
        if of
    )


def _tell_start(console: Console, event: "StartedFrom") -> None:
    """Report what the weights start from; doubts are warned of separately."""
    for note in event.notes:
        console.report(note)
    for target, error in event.errors.items():
        console.report(
            f"{target}, before the first step: SH MSE {sh_mse(error)} on training heads, "
            f"{sh_mse(event.aligned[target])} by statistical alignment"
        )


def to_a_reader(tell: "EventHandler") -> "EventHandler":
    """Wrap a handler so that a closed terminal raises the same error as a closed pipe."""

    def report(event: "Event") -> None:
        try:
            tell(event)
        except OSError as error:
            if error.errno in NOBODY_READS:
                raise BrokenPipeError(error.errno, error.strerror) from error
            raise

    return report


@contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request to stop; a second Ctrl-C interrupts.

    SIGHUP is the end of a terminal; if it is ignored, as under nohup, it stays so. Launchers of
    several processes send further SIGTERMs for the same request, which are ignored.
    """
    asked = False

    def ask(number: int, _: object) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    with handled((signal.SIGINT, *ends()), ask):
        yield lambda: asked
