"""`harmonize`: predict the image that another platform would have given of a scan."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console

SUMMARY = "Predict the image that another platform would have given of a scan"
EXAMPLE = "napari-msp harmonize dwi.nii.gz --model msp.safetensors --target all --out out"

ALL_TARGETS = "all"


def add_options(command: ArgumentParser) -> None:
    """Add the scan, the model and options for running it."""
    shared.add_scan(command)
    shared.add_model(command)
    shared.add_inference_options(command)
    shared.add_review_maps(command)
    shared.add_force(command)


def run(options: Namespace, console: Console) -> int:
    """Harmonize the scan, and write the prediction."""
    from napari_msp.inference.outputs import harmonize_to_folder

    for path in shared.call(
        harmonize_to_folder,
        options,
        targets=[] if options.target == ALL_TARGETS else [options.target],
        options=shared.inference_options(options),
        progress=lambda done, total: console.progress("tile", done, total),
    ):
        console.result(path)
    return 0
