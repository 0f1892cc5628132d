"""`napari-msp`: one thin command per job. Each is one library call; nothing is decided here."""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_msp.errors import Cancelled, UserError

if TYPE_CHECKING:
    from napari_msp.learning.events import EventHandler

USER_ERROR = 2
INTERRUPTED = 130

KINDS = ("msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned")
SINGLE_KINDS = KINDS[1:]

Parsers = Any  # argparse gives its sub-parsers no public type


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit status: 0, 2 after a user's mistake, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    warnings.showwarning = _one_line_warning
    try:
        return run(options)
    except UserError as error:
        return _refuse(str(error))
    except OSError as error:
        name = error.filename or "file system"
        return _refuse(f"{name}: {error.strerror or error}; check space and permissions")
    except (KeyboardInterrupt, Cancelled):
        print("napari-msp: interrupted", file=sys.stderr)
        return INTERRUPTED


def _refuse(message: str) -> int:
    print("napari-msp: " + " ".join(message.split()), file=sys.stderr)
    return USER_ERROR


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print("napari-msp: warning: " + " ".join(str(message).split()), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-msp",
        description="Harmonize diffusion MRI between scanners with Multi-Stage Prediction.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_demo,
        _add_simulate,
        _add_import,
        _add_check,
        _add_train,
        _add_harmonize,
        _add_maps,
        _add_compare,
        _add_evaluate,
        _add_cohort,
    ):
        add(commands)
    return parser


# ------------------------------------------------------------------------------------------- data


def _add_simulate(commands: Parsers) -> None:
    command = commands.add_parser("simulate", help="write simulated travelling heads as BIDS")
    command.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    command.add_argument("--subjects", type=int, default=6, help="heads (default 6)")
    command.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--misalignment", type=float, default=0.0, metavar="MM", help="left between scans"
    )
    command.add_argument("--no-noise", action="store_true", help="scans without noise")
    command.add_argument("--no-twins", action="store_true", help="leave out noise-free twins")
    command.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from napari_msp.data.phantom import simulate

    simulate(
        options.out,
        options.subjects,
        options.size,
        options.seed,
        misalignment=options.misalignment,
        noise=not options.no_noise,
        noise_free=not options.no_twins,
        progress=lambda name, done, total: _progress(f"{name} {done}/{total}"),
    )
    print(options.out)
    return 0


def _add_import(commands: Parsers) -> None:
    command = commands.add_parser("import", help="bring someone's folder tree into BIDS")
    command.add_argument("source", type=Path, metavar="SOURCE")
    command.add_argument("out", type=Path, metavar="OUT", help="BIDS folder to make")
    command.add_argument(
        "--pattern",
        required=True,
        help="where images lie, such as "
        "'{subject}/{scanner}/{protocol}/dwi_{subject}_{scanner}_{protocol}_b1200.nii.gz'",
    )
    command.add_argument("--mask", help="pattern of the masks (default: found beside the images)")
    command.add_argument("--session", help="scanner label, where the tree names none")
    command.add_argument("--protocol", help="protocol label, where the tree names none")
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")
    command.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from napari_msp.data.importers import import_tree

    for scan in import_tree(
        options.source,
        options.out,
        options.pattern,
        mask=options.mask,
        session=options.session,
        protocol=options.protocol,
        dry_run=options.dry_run,
        progress=lambda text, done, total: _progress(f"{text} {done}/{total}"),
    ):
        print(f"{scan.source} -> {options.out / scan.image}")
    return 0


def _add_check(commands: Parsers) -> None:
    command = commands.add_parser("check", help="say everything that is wrong with a dataset")
    command.add_argument("dataset", type=Path, metavar="DATASET")
    command.add_argument("--input", default="ge_st", help="platform to predict from")
    command.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from napari_msp.checking import check_dataset, has_errors, report_text

    findings = check_dataset(options.dataset, input_platform=options.input)
    print(report_text(findings))
    return 1 if has_errors(findings) else 0


# --------------------------------------------------------------------------------------- learning


def _add_train(commands: Parsers) -> None:
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
    command.add_argument("--steps-per-epoch", type=int, help="fast")
    command.add_argument("--learning-rate", type=float)
    command.add_argument(
        "--decay-every", type=int, metavar="EPOCHS", help="paper: 25 (default) or 15"
    )
    command.add_argument(
        "--voxels-per-head", type=int, help="paper: in-mask voxels used (default: every one)"
    )
    command.add_argument("--label", default="", help="what the model is for")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    command.add_argument("--events", action="store_true", help="JSON lines on standard output")
    command.set_defaults(run=_train)


SETTINGS = (
    "kind",
    "preset",
    "input",
    "targets",
    "b_value",
    "held_out",
    "epochs",
    "unison_epochs",
    "batch",
    "crop",
    "steps_per_epoch",
    "learning_rate",
    "decay_every",
    "voxels_per_head",
    "label",
    "seed",
)
"""Options of `train` that go into the settings as they are."""


def _train(options: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from napari_msp.learning.settings import TrainingSettings
    from napari_msp.learning.training import train
    from napari_msp.model_file import first_reason

    try:
        settings = TrainingSettings(
            **{name: getattr(options, name) for name in SETTINGS},
            width=options.width if options.width == "paper" else float(options.width),
            first_stage=_pairs(options.first_stage, "--first-stage", "TARGET=KIND"),  # type: ignore[arg-type]
        )
    except ValidationError as error:
        raise UserError(f"train: {first_reason(error)}; mend the option") from error
    except ValueError as error:
        raise UserError(
            f"--width {options.width}: is no number; give 'paper' or a fraction such as 0.5"
        ) from error
    with _interrupt_flag() as interrupted:
        written = train(
            options.dataset,
            options.out,
            settings,
            device=options.device,
            resume=options.resume,
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
                _progress(
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
def _interrupt_flag() -> Iterator[Callable[[], bool]]:
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


# -------------------------------------------------------------------------------------- inference


def _add_scan_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("dwi", type=Path, metavar="DWI", help="4-D .nii or .nii.gz")
    command.add_argument("--bval", type=Path, help="default: beside the image")
    command.add_argument("--bvec", type=Path, help="default: beside the image")
    command.add_argument("--mask", type=Path, help="default: found, else median_otsu")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--force", action="store_true", help="replace existing files")


def _add_harmonize(commands: Parsers) -> None:
    command = commands.add_parser("harmonize", help="predict another platform's image of a scan")
    _add_scan_options(command)
    command.add_argument("--model", type=Path, required=True, metavar="M.safetensors")
    command.add_argument("--target", required=True, help="platform, or all")
    command.add_argument(
        "--gradients", default="target", help="of the written DWI: target, input or a .bvec file"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    command.add_argument("--tile", type=int, help="edge of a tile in voxels (default: by memory)")
    _add_approximations(command)
    command.set_defaults(run=_harmonize)


def _add_approximations(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--resample", action="store_true", help="interpolate to the model's voxel size"
    )
    command.add_argument(
        "--b-value",
        choices=("rescale",),
        help="rescale: bring the signal to the model's b-value (approximate)",
    )


def _harmonize(options: argparse.Namespace) -> int:
    from napari_msp.inference.outputs import harmonize_to_folder

    if options.tile is not None and options.tile < 1:
        raise UserError(f"--tile {options.tile}: must be at least 1 voxel")
    for path in harmonize_to_folder(
        options.dwi,
        options.model,
        [] if options.target == "all" else [options.target],
        options.out,
        bval=options.bval,
        bvec=options.bvec,
        mask=options.mask,
        gradients=options.gradients,
        device=options.device,
        tile=options.tile,
        resample=options.resample,
        rescale_b_value=options.b_value == "rescale",
        force=options.force,
        progress=lambda done, total: _progress(f"tile {done}/{total}"),
    ):
        print(path)
    return 0


def _add_maps(commands: Parsers) -> None:
    command = commands.add_parser("maps", help="write SH image, SH average, FA and colour FA")
    _add_scan_options(command)
    command.add_argument(
        "--shell", type=float, metavar="B", help="b-value, where there are several"
    )
    command.set_defaults(run=_maps)


def _maps(options: argparse.Namespace) -> int:
    from napari_msp.data.acquisition import load_acquisition
    from napari_msp.signal.map_files import write_maps

    acquisition = load_acquisition(options.dwi, options.bval, options.bvec, options.mask)
    for path in write_maps(acquisition, options.out, b_value=options.shell, force=options.force):
        print(path)
    return 0


# ------------------------------------------------------------------------------------- evaluation


def _add_compare(commands: Parsers) -> None:
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
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from napari_msp.evaluation.compare import compare

    predictions = _pairs(options.prediction, "--prediction", "NAME=IMAGE")
    compare(
        options.truth,
        {name: Path(path) for name, path in predictions.items()},
        options.out,
        input_image=options.input,
        axis=options.axis,
        slice_index=options.slice,
        b_value=options.shell,
    )
    print(options.out / "figure3.png")
    print(options.out / "metrics.json")
    return 0


def _add_evaluate(commands: Parsers) -> None:
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
        progress=_progress,
    )
    for path in result["files"]:
        print(path)
    return 0


def _add_cohort(commands: Parsers) -> None:
    command = commands.add_parser("cohort", help="harmonize every scan of a BIDS dataset")
    command.add_argument("bids_dir", type=Path, metavar="BIDS_DIR")
    command.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    command.add_argument("level", choices=("participant",))
    command.add_argument("--model", type=Path, required=True, metavar="M.safetensors")
    command.add_argument("--target", required=True, help="platform, or all")
    command.add_argument("--participants", nargs="+", metavar="SUBJECT", help="default: all")
    command.add_argument("--platform", help="whose scans (default: the model's input)")
    command.add_argument("--workers", type=int, default=1)
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler")
    command.add_argument("--device", default="auto")
    _add_approximations(command)
    command.add_argument("--force", action="store_true", help="replace existing files")
    command.set_defaults(run=_cohort)


def _cohort(options: argparse.Namespace) -> int:
    from napari_msp.cohort import run_cohort

    results = run_cohort(
        options.bids_dir,
        options.out_dir,
        options.model,
        options.target,
        participants=options.participants,
        platform=options.platform,
        workers=options.workers,
        scheduler=options.scheduler,
        device=options.device,
        resample=options.resample,
        rescale_b_value=options.b_value == "rescale",
        force=options.force,
        progress=lambda result, done, total: _progress(f"{result.scan} {done}/{total}"),
    )
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        print(f"napari-msp: {result.subject} {result.scan}: {result.message}", file=sys.stderr)
    print(options.out_dir / "cohort.tsv")
    return 1 if failed else 0


def _add_demo(commands: Parsers) -> None:
    command = commands.add_parser("demo", help="the main job on simulated heads, in a minute")
    command.add_argument("--headless", action="store_true", help="do not open napari")
    command.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR")
    command.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from napari_msp.demo import run_demo

    result = run_demo(options.out, say=print)
    if not options.headless and _has_display():
        from napari_msp.ui.show import show_demo

        show_demo(result)
    return 0


# ------------------------------------------------------------------------------------------ small


def _pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value):
            raise UserError(f"{option} {text}: must read {form}")
        if name in pairs:
            raise UserError(f"{option} {text}: {name} was given twice; use another name")
        pairs[name] = value
    return pairs


def _progress(text: str) -> None:
    """Write over the same line of a terminal; say nothing to a file."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
