"""`evaluate`: Table 1, methods and models on subjects that none of them has seen."""

import shlex
import sys
from argparse import Action, ArgumentParser, BooleanOptionalAction, Namespace
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_msp.commands.console import Console
from napari_msp.commands.shared import (
    add_b0_threshold,
    add_device,
    add_input,
    add_names,
    add_out,
    add_regions,
    add_run,
    add_shells,
    call,
    model_file,
    pairs,
)

if TYPE_CHECKING:
    from napari_msp.evaluation.benchmark.jobs import Finished

SUMMARY = "Table 1: methods and models on held-out heads"
EXAMPLE = (
    "napari-msp evaluate heads --models msp.safetensors --out table\n"
    "napari-msp evaluate heads --methods all --quick --out quick\n"
    "napari-msp evaluate heads --methods DIQT MSP --leave-one-out --out each\n"
    "napari-msp evaluate heads --models msp.safetensors --methods 'linear RISH' --fibres --biology "
    "--out effects\n"
    "napari-msp evaluate heads --predictions MSP=harmonized RISH=other --regions atlas.nii.gz "
    "--out proof"
)


def add_options(command: ArgumentParser) -> None:
    """Add who competes, on whom, and for how long."""
    command.add_argument("datasets", type=Path, nargs="+", metavar="DATASET", help="BIDS folders")
    command.add_argument(
        "--models", type=model_file, nargs="+", default=(), metavar="M", help="trained files"
    )
    of_rows = "trained here, on training subjects only: 'all', or names as in the table"
    add_names(command, "--methods", "NAME", of_rows)
    command.add_argument(
        "--list-methods",
        action=_ListMethods,
        nargs=0,
        help="say of each method what it is, what it needs and gives back, and end",
    )
    command.add_argument(
        "--predictions",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FOLDER",
        help="finished ones of any method, rows of this name: sub-<label>/…_dwi.nii.gz",
    )
    add_regions(command, "default with --predictions")
    add_input(command)
    add_names(command, "--targets", "PLATFORM", "default: the models', or all other platforms")
    for names, parameter, use in (
        (("--train",), "train", "learned from"),
        (("--validation",), "validation", "choose learning rates and single networks"),
        (("--test", "--subjects"), "test", "measured (default: those that no model has seen)"),
    ):
        command.add_argument(
            *names, dest=parameter, nargs="+", default=(), metavar="SUBJECT", help=use
        )
    command.add_argument(
        "--leave-one-out",
        action="store_true",
        help="each subject is test once, by what the others teach: for few heads",
    )
    command.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="of the training, on the first dataset",
    )
    add_shells(command, "to measure (default: the models', else all that platforms share)")
    add_b0_threshold(command)
    add_run(command)
    command.add_argument(
        "--fibres",
        action="store_true",
        help="measure fibre peaks too, by constrained spherical deconvolution",
    )
    command.add_argument(
        "--bundle",
        action="store_true",
        help="track the left-right fibres too, and compare the voxels that they visit",
    )
    command.add_argument(
        "--biology",
        action="store_true",
        help="put a weaker bundle, a lesion, atrophy and years into simulated test heads, and see "
        "what part of each is predicted",
    )
    command.add_argument("--quick", action="store_true", help="only see that it runs")
    command.add_argument("--width", type=float, help="fraction of the networks' full width")
    command.add_argument(
        "--steps",
        type=int,
        help="of training for each target, at most, in whole hundreds (default: 3000)",
    )
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


class _ListMethods(Action):
    """Prints every method and ends, as --version does."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        """Print them; what a package adds is among them."""
        from napari_msp.evaluation.benchmark.methods import all_methods

        for method in all_methods().values():
            print(f"{method.name}\n    {method.explanation.rstrip('.')}.")
            print(f"    needs {method.needs}; gives back {method.gives}")
        parser.exit()


def run(options: Namespace, console: Console) -> int:
    """Evaluate, and write the report."""
    from napari_msp.evaluation.benchmark.settings import EvaluationSettings
    from napari_msp.evaluation.evaluate import evaluate

    asked = {field.name: getattr(options, field.name) for field in fields(EvaluationSettings)}
    asked["predictions"] = pairs(options.predictions, "predictions", "NAME=FOLDER")
    settings = EvaluationSettings(**asked)

    def show(finished: "Finished") -> None:
        if console.has_bar:
            console.progress(finished.job, round(100 * finished.share), 100)
        else:
            console.say(str(finished))

    command = shlex.join(["napari-msp", *sys.argv[1:]])
    for path in call(evaluate, options, settings=settings, command=command, on_progress=show):
        console.result(path)
    return 0
