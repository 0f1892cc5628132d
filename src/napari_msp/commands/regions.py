"""`regions`: measure images in regions of a head, and their errors there."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.errors import Advice, UserError
from napari_msp.options import Topic

SUMMARY = "Measure mean, deviation, volume and error of images in each region"
EXAMPLE = (
    "napari-msp regions predicted_dwimap.nii.gz ge_dwi.nii.gz --labels atlas_dseg.nii.gz "
    "--truth prisma_dwi.nii.gz --out regions.csv"
)


def add_options(command: ArgumentParser) -> None:
    """Add the images, the labels and the maps to measure."""
    shared.add_path(
        command, "images", "IMAGE", "DWI, SH image, or map with one number per voxel.", nargs="+"
    )
    scans, measured = (
        shared.section(command, Topic.SCANS),
        shared.section(command, Topic.MEASURED),
    )
    shared.add_path(
        measured,
        "--labels",
        "IMAGE",
        "Take regions from this image of whole numbers, in the space of the images: an "
        "atlas, a bundle, or what you drew.",
        required=True,
    )
    shared.add_path(
        measured,
        "--names",
        "FILE",
        "Name regions by this table. Default: one that lies beside the labels.",
    )
    shared.add_path(
        measured,
        "--truth",
        "IMAGE",
        "Measure errors against this image, which is of the same kind.",
    )
    measured.add_argument(
        "--maps",
        nargs="+",
        default=("direction_average", "fa", "md"),
        metavar="MAP",
        help="Measure these maps of DWIs and SH images. Default: direction_average fa md.",
    )
    scans.add_argument(
        "--shell",
        dest="b_value",
        type=float,
        metavar="B",
        help="Measure this shell (b-value in s/mm²) of scans with several. Default: the lowest "
        "that all have.",
    )
    shared.add_b0_threshold(command)
    shared.add_path(
        shared.section(command, Topic.OUTPUT),
        "--out",
        "FILE.csv",
        "Write the numbers to this file, and FILE_histograms.csv beside it. Default: print "
        "the numbers.",
    )


def run(options: Namespace, console: Console) -> int:
    """Measure maps by region, and write the numbers."""
    from napari_msp.evaluation.region_numbers import measure_regions

    out = options.out
    if out is not None and out.suffix.lower() != ".csv":
        raise UserError("is no CSV file", out, "out", Advice("give a name that ends in .csv"))
    numbers = shared.call(measure_regions, options)
    for note in numbers.notes:
        console.warn(note)
    if out is None:
        console.result(numbers.csv().rstrip())
        return 0
    for path in numbers.save(out):
        console.result(path)
    return 0
