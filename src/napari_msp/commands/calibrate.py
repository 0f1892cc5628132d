"""`calibrate`: teach a model what error to expect of it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from napari_msp.commands.console import Console
from napari_msp.commands.shared import (
    PEOPLE,
    add_b0_threshold,
    add_device,
    add_force,
    add_names,
    add_out,
    add_run,
    call,
    section,
)
from napari_msp.errors import Overwrite, UserError

SUMMARY = "Teach a model, on held-out subjects, what error to expect of it"
EXAMPLE = "napari-msp calibrate msp.safetensors heads --out msp-calibrated.safetensors"


def add_options(command: ArgumentParser) -> None:
    """Add the model and the subjects."""
    command.add_argument("model", type=Path, metavar="M.safetensors", help="Trained model.")
    command.add_argument(
        "dataset", type=Path, metavar="DATASET", help="BIDS folder of travelling heads."
    )
    people = section(command, PEOPLE)
    whom = "Measure the model's errors on these. Default: those that it has not learned from."
    add_names(people, "--subjects", "SUBJECT", whom)
    add_run(command)
    add_device(command)
    add_b0_threshold(command)
    add_out(command, "M.safetensors", "Write the calibrated model to this file.")
    add_force(command, "the file of --out, even if it is the model itself")


def run(options: Namespace, console: Console) -> int:
    """Fit the expected error, and write the calibrated model."""
    from napari_msp.evaluation.calibration import calibrate
    from napari_msp.files import refuse_unwritable
    from napari_msp.model_file import check_model_name

    check_model_name(options.out)
    if options.out.exists() and not options.force:
        raise UserError("exists already", options.out, "out", Overwrite())
    refuse_unwritable(options.out)
    calibrated = call(calibrate, options, on_progress=console.say)
    calibrated.save(options.out)
    console.result(options.out)
    return 0
