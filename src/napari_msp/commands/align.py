"""`align`: the heads of each subject laid on each other."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from napari_msp.commands.console import Console
from napari_msp.commands.shared import (
    OptionWords,
    add_b0_threshold,
    add_force,
    add_input,
    add_names,
    add_run,
    add_voxel_size,
    call,
)

SUMMARY = "lay each subject's scans on the input platform's head"
EXAMPLE = "napari-msp align heads aligned\nnapari-msp align heads aligned --resample --voxel-size 2"

LEFT_OUT = 1
"""Exit status when a scan could not be aligned."""


def add_options(command: ArgumentParser) -> None:
    """Add what is aligned, and how."""
    command.add_argument("dataset", type=Path, metavar="DATASET", help="BIDS folder; only read")
    command.add_argument("out", type=Path, metavar="OUT", help="BIDS folder to make")
    add_input(command)
    add_run(command)
    add_b0_threshold(command)
    add_names(command, "--subjects", "sub-01", "which ones (default: all)")
    command.add_argument(
        "--affine", action="store_true", help="undo stretch and shear too; needs --resample"
    )
    command.add_argument(
        "--resample",
        action="store_true",
        help="interpolate images onto the input's lattice (default: affines alone are changed)",
    )
    add_voxel_size(
        command, "interpolate the input too, to cubes of this edge; auto: of its smallest edge"
    )
    add_force(command, "an earlier alignment")


def run(options: Namespace, console: Console) -> int:
    """Align the dataset, and report what is doubtful."""
    from napari_msp.alignment.align import align
    from napari_msp.alignment.report import table_text
    from napari_msp.checking.findings import has_errors, report_text

    done = call(align, options, progress=console.progress)
    console.result(table_text(done))
    if done.findings:
        console.report(report_text(done.findings, OptionWords(options.parser)))
    console.result(done.report)
    return LEFT_OUT if has_errors(done.findings) else 0
