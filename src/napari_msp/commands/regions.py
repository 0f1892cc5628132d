"""`regions`: what images are in regions of a head, and how far they are off there."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from napari_msp.commands.console import Console
from napari_msp.commands.shared import add_b0_threshold, call
from napari_msp.errors import Advice, UserError

SUMMARY = "mean, deviation, volume and error of images in each region"
EXAMPLE = (
    "napari-msp regions predicted_dwimap.nii.gz ge_dwi.nii.gz --labels atlas_dseg.nii.gz "
    "--truth prisma_dwi.nii.gz --out regions.csv"
)


def add_options(command: ArgumentParser) -> None:
    """Add the images, the labels and what is measured."""
    command.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="DWI, SH image, or a map of one number a voxel",
    )
    command.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="IMAGE",
        help="whole numbers, in the space of the images: an atlas, a bundle, what was drawn",
    )
    command.add_argument(
        "--names", type=Path, metavar="FILE", help="of the labels (default: a table beside them)"
    )
    command.add_argument(
        "--truth", type=Path, metavar="IMAGE", help="what the images should be, of their kind"
    )
    command.add_argument(
        "--maps",
        nargs="+",
        default=("direction_average", "fa", "md"),
        metavar="MAP",
        help="of DWIs and SH images (default: direction_average fa md)",
    )
    command.add_argument(
        "--shell",
        dest="b_value",
        type=float,
        metavar="B",
        help="b-value in s/mm² of scans with several (default: the lowest that all have)",
    )
    add_b0_threshold(command)
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE.csv",
        help="the numbers, and beside them FILE_histograms.csv (default: numbers are printed)",
    )


def run(options: Namespace, console: Console) -> int:
    """Measure maps by region, and write the numbers."""
    from napari_msp.evaluation.region_numbers import measure_regions

    out = options.out
    if out is not None and out.suffix.lower() != ".csv":
        raise UserError("is no CSV file", out, "out", Advice("give a name that ends in .csv"))
    numbers = call(measure_regions, options)
    for note in numbers.notes:
        console.warn(note)
    if out is None:
        console.result(numbers.csv().rstrip())
        return 0
    for path in numbers.save(out):
        console.result(path)
    return 0
