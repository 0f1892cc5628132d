"""`compare` and `evaluate`: predictions against the truth."""

import argparse
from pathlib import Path

from napari_msp.commands.shared import Parsers, name_value_pairs, show_progress


def add_compare(commands: Parsers) -> None:
    """Add the command `compare`."""
    command = commands.add_parser("compare", help="Figure 3 and numbers for one head")
    command.add_argument("--truth", type=Path, metavar="IMAGE", help="target scan or SH image")
    command.add_argument(
        "--prediction", action="append", required=True, metavar="NAME=IMAGE", help="repeatable"
    )
    command.add_argument("--input", type=Path, metavar="IMAGE", help="the scan harmonized")
    command.add_argument("--axis", choices=("axial", "coronal", "sagittal"), default="axial")
    command.add_argument("--slice", type=int, help="index (default: the one that shows most)")
    command.add_argument(
        "--shell", type=float, metavar="B", help="b-value of scans that have several"
    )
    command.add_argument("--figure-format", choices=("png", "pdf", "svg"), default="png")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from napari_msp.evaluation.compare import compare

    predictions = name_value_pairs(options.prediction, "--prediction", "NAME=IMAGE")
    compare(
        options.truth,
        {name: Path(path) for name, path in predictions.items()},
        options.out,
        input_image=options.input,
        axis=options.axis,
        slice_index=options.slice,
        b_value=options.shell,
        figure_format=options.figure_format,
    )
    for name in (f"figure3.{options.figure_format}", "metrics.json", "numbers.csv"):
        print(options.out / name)
    return 0


def add_evaluate(commands: Parsers) -> None:
    """Add the command `evaluate`."""
    command = commands.add_parser("evaluate", help="Table 1 of models over held-out subjects")
    command.add_argument("dataset", type=Path, metavar="DATASET")
    command.add_argument("--models", type=Path, nargs="+", required=True, metavar="M")
    command.add_argument(
        "--subjects", nargs="+", default=(), help="default: those that every model held out"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--device", default="auto")
    command.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from napari_msp.evaluation.held_out import evaluate_models

    result = evaluate_models(
        options.dataset,
        options.models,
        options.out,
        subjects=options.subjects,
        device=options.device,
        progress=show_progress,
    )
    for path in result["files"]:
        print(path)
    return 0
