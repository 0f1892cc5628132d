"""`align`: register the scans of each subject with each other."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.options import Topic

SUMMARY = "Align each subject's scans with that subject's scan on the input platform"
EXAMPLE = "napari-msp align heads aligned\nnapari-msp align heads aligned --resample --voxel-size 2"

LEFT_OUT = 1
"""Exit status when a scan could not be aligned."""


def add_options(command: ArgumentParser) -> None:
    """Add the dataset and options of the alignment."""
    shared.section(command).path("dataset DATASET", "BIDS folder, which is only read.")
    shared.section(command).path("out OUT", "BIDS folder to make.")
    shared.add_input(command)
    shared.add_run(command)
    shared.add_option(command, "b0_threshold")
    scans, output = shared.section(command, Topic.SCANS), shared.section(command, Topic.OUTPUT)
    scans.add("--subjects sub-01 ...", "Align these subjects. Default: all.", ())
    output.add("--affine", "Undo stretch and shear, too; needs --resample.")
    output.add(
        "--resample",
        "Interpolate images onto the input's voxel grid. Default: change only affines.",
    )
    shared.add_voxel_size(
        command,
        "Interpolate the input, too, to cubes of this edge; auto: of its smallest edge.",
    )
    shared.add_force(command, "an earlier alignment")


def run(options: Namespace, console: Console) -> int:
    """Align the dataset, and report doubts."""
    from napari_msp.alignment.align import align
    from napari_msp.alignment.report import table_text
    from napari_msp.checking.summary import has_errors, report_text

    done = shared.call(align, options, progress=console.progress)
    console.result(table_text(done))
    if done.findings:
        console.report(report_text(done.findings, shared.OptionWords(options.parser)))
    console.result(done.report)
    return LEFT_OUT if has_errors(done.findings) else 0
