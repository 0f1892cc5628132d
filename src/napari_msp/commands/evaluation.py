"""`compare`, `evaluate` and `calibrate`: predictions against the truth."""

import argparse
from pathlib import Path

from napari_msp.commands.shared import Parsers, name_value_pairs
from napari_msp.errors import UserError


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
    command = commands.add_parser("evaluate", help="Table 1: methods and models on held-out heads")
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
    command.add_argument(
        "--input", default="", help="platform to predict from (default: the models', or ge_st)"
    )
    command.add_argument(
        "--targets", nargs="+", default=(), help="default: the models', or all other platforms"
    )
    for option, use in (
        ("--train", "learned from"),
        ("--validation", "choose learning rates and single networks"),
        ("--test", "measured (default: those that no model has seen)"),
    ):
        command.add_argument(option, nargs="+", default=(), metavar="SUBJECT", help=use)
    command.add_argument("--subjects", nargs="+", dest="test", help="the same as --test")
    command.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="of the training, on the first dataset"
    )
    command.add_argument(
        "--shell", type=float, metavar="B", help="b-value, where scans have several"
    )
    command.add_argument("--quick", action="store_true", help="only see that it runs")
    command.add_argument("--width", type=float, help="fraction of the networks' full width")
    command.add_argument("--steps", type=int, help="of training for each target, whole hundreds")
    command.add_argument("--crop", type=int, help="edge of a crop in voxels")
    command.add_argument("--batch", type=int, help="crops a step")
    command.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="turn crops by grid symmetries (default)",
    )
    command.add_argument("--workers", type=int, help="processes (default: as many as cores)")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--device", default="auto")
    command.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    import shlex
    import sys

    from napari_msp.evaluation.benchmark.settings import EvaluationSettings
    from napari_msp.evaluation.evaluate import evaluate

    files = evaluate(
        options.datasets,
        options.out,
        EvaluationSettings(
            methods=options.methods,
            models=options.models,
            input=options.input,
            targets=options.targets,
            train=options.train,
            validation=options.validation,
            test=options.test,
            seeds=options.seeds,
            b_value=options.shell,
            quick=options.quick,
            width=options.width,
            steps=options.steps,
            crop=options.crop,
            batch=options.batch,
            augment=options.augment,
        ),
        command=shlex.join(["napari-msp", *sys.argv[1:]]),
        device=options.device,
        workers=options.workers,
        on_progress=lambda finished: print(finished, file=sys.stderr, flush=True),
    )
    for path in files:
        print(path)
    return 0


def add_calibrate(commands: Parsers) -> None:
    """Add the command `calibrate`."""
    command = commands.add_parser(
        "calibrate", help="teach a model what error to expect of it, on subjects held out"
    )
    command.add_argument("model", type=Path, metavar="M.safetensors")
    command.add_argument("dataset", type=Path, metavar="DATASET", help="BIDS folder")
    command.add_argument(
        "--subjects", nargs="+", default=(), help="default: those that it has not learned from"
    )
    command.add_argument("--out", type=Path, required=True, metavar="M.safetensors")
    command.add_argument("--force", action="store_true", help="replace --out, if need be MODEL")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    command.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> int:
    import sys

    from napari_msp.data.dataset import open_dataset
    from napari_msp.evaluation.calibration import calibrate_model
    from napari_msp.files import refuse_unwritable
    from napari_msp.model_file import check_model_name, load_model, save_model

    check_model_name(options.out)
    if options.out.exists() and not options.force:
        raise UserError(f"{options.out}: exists already; replace it with --force")
    refuse_unwritable(options.out)
    calibrated = calibrate_model(
        load_model(options.model),
        open_dataset(options.dataset),
        options.subjects,
        device=options.device,
        on_progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    save_model(options.out, calibrated)
    print(options.out)
    return 0
