"""`import`: someone's folder tree becomes a BIDS dataset."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from napari_msp.commands.console import Console

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
        required=True,
        help="where images lie, with {subject}, {scanner} or {session}, and {protocol}",
    )
    command.add_argument("--mask", help="pattern of the masks (default: found beside the images)")
    command.add_argument("--session", help="scanner label, where the tree names none")
    command.add_argument("--protocol", help="protocol label, where the tree names none")
    command.add_argument(
        "--input",
        dest="input_platform",
        metavar="PLATFORM",
        help="to predict from; marked in the dataset, so that no other command needs it",
    )
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run(options: Namespace, console: Console) -> int:
    """Import."""
    from napari_msp.data.importers import import_tree

    for scan in import_tree(
        options.source,
        options.out,
        options.pattern,
        mask=options.mask,
        session=options.session,
        protocol=options.protocol,
        input_platform=options.input_platform,
        dry_run=options.dry_run,
        progress=console.progress,
    ):
        console.result(f"{scan.source} -> {options.out / scan.image}")
    return 0
