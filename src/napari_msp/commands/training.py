"""`train`: learn a model, tell what happens, stop when asked."""

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_msp.commands.shared import INTERRUPTED, Parsers, name_value_pairs, show_progress
from napari_msp.errors import UserError, first_reason

if TYPE_CHECKING:
    from napari_msp.learning.events import EventHandler

KINDS = ("msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned")


def add_train(commands: Parsers) -> None:
    """Add the command `train`."""
    command = commands.add_parser("train", help="train a model from travelling heads")
    command.add_argument("dataset", type=Path, metavar="DATASET", help="BIDS folder")
    command.add_argument("out", type=Path, metavar="OUT.safetensors")
    command.add_argument("--model", dest="kind", choices=KINDS, required=True)
    command.add_argument("--preset", choices=("paper", "fast"), default="fast")
    command.add_argument("--input", default="ge_st", help="platform to predict from")
    command.add_argument("--targets", nargs="+", default=(), help="default: all other platforms")
    command.add_argument(
        "--shell", type=float, dest="b_value", metavar="B", help="b-value, where there are several"
    )
    command.add_argument(
        "--held-out", nargs="+", default=(), metavar="SUBJECT", help="never learned from"
    )
    command.add_argument(
        "--subjects", nargs="+", default=(), metavar="SUBJECT", help="default: all there are"
    )
    command.add_argument(
        "--first-stage",
        nargs="+",
        default=(),
        metavar="TARGET=KIND",
        help="msp: single network of a target (default: shresnet; diqt for a finer target)",
    )
    command.add_argument("--width", default="paper", help="'paper', or a fraction of full width")
    command.add_argument("--epochs", type=int, help="of each phase")
    command.add_argument("--unison-epochs", type=int, help="msp: of each unison phase")
    command.add_argument("--batch", type=int, help="patches or crops a step")
    command.add_argument("--crop", type=int, help="fast: edge of a crop in voxels")
    command.add_argument("--steps-per-epoch", type=int, help="of each epoch (default: every voxel about once)")
    command.add_argument("--learning-rate", type=float)
    command.add_argument(
        "--decay-every", type=int, metavar="EPOCHS", help="paper: 25 (default) or 15"
    )
    command.add_argument(
        "--voxels-per-head", type=int, help="paper: in-mask voxels used (default: every one)"
    )
    command.add_argument(
        "--augmentation",
        choices=("preset", "symmetries", "none"),
        default="preset",
        help="fast: turn crops by grid symmetries (as the preset does)",
    )
    command.add_argument(
        "--branch-start",
        choices=("preset", "nothing", "input", "first stage"),
        default="preset",
        help="msp: what branches start from",
    )
    command.add_argument("--label", default="", help="what the model is for")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    command.add_argument("--force", action="store_true", help="replace a model or a checkpoint")
    command.add_argument("--events", action="store_true", help="JSON lines on standard output")
    command.set_defaults(run=_train)


SETTINGS = (
    "kind",
    "preset",
    "input",
    "targets",
    "b_value",
    "held_out",
    "subjects",
    "epochs",
    "unison_epochs",
    "batch",
    "crop",
    "steps_per_epoch",
    "learning_rate",
    "decay_every",
    "voxels_per_head",
    "augmentation",
    "branch_start",
    "label",
    "seed",
)
"""Options of `train` that go into the settings as they are."""


def _train(options: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from napari_msp.learning.settings import TrainingSettings
    from napari_msp.learning.train import train

    try:
        settings = TrainingSettings(
            **{name: getattr(options, name) for name in SETTINGS},
            width=options.width if options.width == "paper" else float(options.width),
            first_stage=name_value_pairs(options.first_stage, "--first-stage", "TARGET=KIND"),
        )
    except ValidationError as error:
        raise UserError(f"train: {first_reason(error)}; mend the option") from error
    except ValueError as error:
        raise UserError(
            f"--width {options.width}: is no number; give 'paper' or a fraction such as 0.5"
        ) from error
    with interrupt_flag() as interrupted:
        written = train(
            options.dataset,
            options.out,
            settings,
            device=options.device,
            resume=options.resume,
            force=options.force,
            on_event=_json_line if options.events else _narrator(),
            stop_requested=interrupted,
        )
    return 0 if written else INTERRUPTED


def _json_line(event: Any) -> None:
    print(event.to_json(), flush=True)


def _narrator() -> "EventHandler":
    """Tell a run's events to a person."""
    from napari_msp.learning import events

    def tell(event: events.Event) -> None:
        match event:
            case events.Started():
                print(
                    f"{event.kind}, preset {event.preset}, on {event.device}: "
                    f"{len(event.subjects)} subjects, {len(event.held_out)} held out, "
                    f"{event.parameters:,} weights, {event.steps:,} steps"
                    + (f", going on at step {event.resumed_at:,}" if event.resumed_at else "")
                )
            case events.Step():
                alpha = "" if event.alpha is None else f", α {event.alpha:.2f}"
                show_progress(
                    f"{event.phase}, epoch {event.epoch}, step {event.step:,}: loss "
                    f"{event.loss:.4f}{alpha}, {event.throughput:,.0f} voxels/s, "
                    f"{event.time_left:,.0f} s left"
                )
            case events.Validated():
                errors = ", ".join(f"{name} {value:.3e}" for name, value in event.errors.items())
                print(f"{event.phase}, epoch {event.epoch}: held-out SH MSE {errors}")
            case events.Stopped():
                print(f"stopped after step {event.step:,}; continue with --resume ({event.path})")
            case events.Finished():
                print(f"{event.path} ({event.seconds:,.0f} s)")

    return tell


@contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; a second Ctrl-C interrupts."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
