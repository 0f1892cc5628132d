"""`evaluate`: Table 1, methods and models on subjects that none of them has seen."""

import os
import shlex
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path

from napari_msp.commands.console import Console
from napari_msp.commands.shared import add_device, add_input, add_out, add_shell
from napari_msp.errors import Advice, UserError

SUMMARY = "Table 1: methods and models on held-out heads"
EXAMPLE = (
    "napari-msp evaluate heads --models msp.safetensors --out table\n"
    "napari-msp evaluate heads --methods all --quick --out quick"
)

BUDGET = ("width", "steps", "crop", "batch", "augment")
"""Options that go into the budget of every training as they are."""


def add_options(command: ArgumentParser) -> None:
    """Add who competes, on whom, and for how long."""
    command.add_argument("datasets", type=Path, nargs="+", metavar="DATASET", help="BIDS folders")
    command.add_argument(
        "--models", type=Path, nargs="+", default=(), metavar="M", help="trained files"
    )
    command.add_argument(
        "--methods",
        nargs="+",
        default=(),
        metavar="NAME",
        help="trained here, on training subjects only: 'all', or names as in the table",
    )
    add_input(command)
    command.add_argument(
        "--targets",
        nargs="+",
        default=(),
        metavar="PLATFORM",
        help="default: the models', or all other platforms",
    )
    for names, parameter, use in (
        (("--train",), "training", "learned from"),
        (("--validation",), "validation", "choose learning rates and single networks"),
        (("--test", "--subjects"), "test", "measured (default: those that no model has seen)"),
    ):
        command.add_argument(
            *names, dest=parameter, nargs="+", default=(), metavar="SUBJECT", help=use
        )
    command.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="of the training, on the first dataset",
    )
    add_shell(command)
    command.add_argument("--quick", action="store_true", help="only see that it runs")
    command.add_argument("--width", type=float, help="fraction of the networks' full width")
    command.add_argument("--steps", type=int, help="of training for each target, in whole hundreds")
    command.add_argument("--crop", type=int, metavar="VOXELS", help="edge of a crop")
    command.add_argument("--batch", type=int, metavar="N", help="crops a step")
    command.add_argument(
        "--augment",
        action=BooleanOptionalAction,
        default=None,
        help="turn crops by grid symmetries (default)",
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: as many as cores)"
    )
    add_device(command)
    add_out(command, "DIR", "folder")


def run(options: Namespace, console: Console) -> int:
    """Evaluate."""
    from napari_msp.device import choose_device
    from napari_msp.evaluation.contest.plan import QUICK, Budget
    from napari_msp.evaluation.contest.planning import make_plan
    from napari_msp.evaluation.evaluate import evaluate

    asked = {name: value for name in BUDGET if (value := getattr(options, name)) is not None}
    if options.workers is not None and options.workers < 1:
        raise UserError(
            f"{options.workers} is too few", field="workers", remedy=Advice("give 1 or more")
        )
    plan = make_plan(
        options.datasets,
        methods=options.methods,
        models=options.models,
        source=options.input,
        targets=options.targets,
        training=options.training,
        validation=options.validation,
        test=options.test,
        seeds=options.seeds,
        b_value=options.b_value,
        budget=(QUICK if options.quick else Budget()).with_changes(**asked),
    )
    on_cpu = choose_device(options.device).type == "cpu"
    trained = len(options.methods) > 0
    for path in evaluate(
        plan,
        options.out,
        command=shlex.join(["napari-msp", *sys.argv[1:]]),
        device=options.device,
        workers=options.workers or ((os.cpu_count() or 1) if on_cpu and trained else 1),
        tell=console.say,
    ):
        console.result(path)
    return 0
