"""`import`: someone's folder tree becomes a BIDS dataset."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from napari_msp.commands.console import Console
from napari_msp.commands.shared import add_b0_threshold, add_voxel_size, call

SUMMARY = "turn someone's folder tree into a BIDS dataset"
EXAMPLE = (
    "napari-msp import OLD_TREE HEADS "
    "--pattern '{subject}/{scanner}/{protocol}/dwi_{subject}_{scanner}_{protocol}_b1200.nii.gz'"
)


def add_options(command: ArgumentParser) -> None:
    """Add the tree and how it names things."""
    command.add_argument("source", type=Path, metavar="SOURCE", help="the tree; only read")
    command.add_argument("out", type=Path, metavar="OUT", help="BIDS folder to make")
    command.add_argument(
        "--pattern",
        default="",
        help="where images lie, with {subject}, {scanner} or {session}, and {protocol}; with "
        "--dicom: folders (default: SOURCE is one)",
    )
    command.add_argument(
        "--dicom", action="store_true", help="convert folders of DICOM files, by dcm2niix"
    )
    command.add_argument(
        "--series", help="with --dicom: number or part of the description (default: the only DWI)"
    )
    command.add_argument("--mask", help="pattern of the masks (default: found beside the images)")
    command.add_argument("--subject", help="subject's label, where the tree names none")
    command.add_argument("--session", help="scanner label, where the tree names none")
    command.add_argument("--protocol", help="protocol label, where the tree names none")
    command.add_argument(
        "--input",
        dest="input_platform",
        metavar="PLATFORM",
        help="to predict from; marked in the dataset, so that no other command needs it",
    )
    add_voxel_size(
        command,
        "interpolate scans whose voxels are no cubes to cubes of this edge; auto: of each scan's "
        "smallest",
    )
    add_b0_threshold(command)
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run(options: Namespace, console: Console) -> int:
    """Import the tree, and list what became of it."""
    from napari_msp.data.dicom import Converted, Series, import_dicom
    from napari_msp.data.importers import import_tree
    from napari_msp.errors import Advice, UserError

    def report(converted: Converted, chosen: Series) -> None:
        console.say(f"{converted.folder}:")
        for each in converted.series:
            console.say(f"{'->' if each is chosen else '  '} {each}")

    if options.dicom and options.mask is not None:
        problem = "no masks are looked for among DICOM files"
        raise UserError(problem, options.mask, "mask", Advice("leave it out"))
    if options.series is not None and not options.dicom:
        problem = "chooses among series of DICOM"
        raise UserError(problem, options.series, "series", Advice("leave it out"))
    if options.dicom:
        scans = call(import_dicom, options, report=report, progress=console.progress)
    else:
        scans = call(import_tree, options, progress=console.progress)
    for scan in scans:
        console.result(f"{scan.source} -> {options.out / scan.image}")
    return 0
