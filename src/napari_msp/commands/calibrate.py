"""`calibrate`: fit a model's expected error."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.errors import Overwrite, UserError
from napari_msp.options import Topic

SUMMARY = "Teach a model, on held-out subjects, what error to expect of it"
EXAMPLE = "napari-msp calibrate msp.safetensors heads --out msp-calibrated.safetensors"


def add_options(command: ArgumentParser) -> None:
    """Add the model and the subjects."""
    shared.section(command).path("model M.safetensors", "Trained model.")
    shared.section(command).path("dataset DATASET", "BIDS folder of travelling heads.")
    whom = "Measure the model's errors on these. Default: those that it has not learned from."
    shared.section(command, Topic.PEOPLE).add("--subjects SUBJECT ...", whom, ())
    shared.add_run(command)
    shared.add_option(command, "device")
    shared.add_option(command, "b0_threshold")
    shared.add_out(command, "M.safetensors", "Write the calibrated model to this file.")
    shared.add_force(command, "the file of --out, even if it is the model itself")


def run(options: Namespace, console: Console) -> int:
    """Fit the expected error, and write the calibrated model."""
    from napari_msp.evaluation.calibration import calibrate
    from napari_msp.files import refuse_unwritable
    from napari_msp.model_file import check_model_name

    check_model_name(options.out)
    if options.out.exists() and not options.force:
        raise UserError("exists already", options.out, "out", Overwrite())
    refuse_unwritable(options.out)
    calibrated = shared.call(calibrate, options, progress=lambda words, *_: console.say(words))
    calibrated.save(options.out)
    console.result(options.out)
    return 0
