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
    images = "DWI, SH image, or map with one number per voxel."
    shared.section(command).path("images IMAGE ...", images)
    measured = shared.section(command, Topic.MEASURED)
    measured.path(
        "--labels IMAGE",
        "Take regions from this image of whole numbers, in the space of the images: an "
        "atlas, a bundle, or what you drew.",
        required=True,
    )
    names = "Name regions by this table. Default: one that lies beside the labels."
    measured.path("--names FILE", names)
    truth = "Measure errors against this image, which is of the same kind."
    measured.path("--truth IMAGE", truth)
    measured.add(
        "--maps MAP ...",
        "Measure these maps of DWIs and SH images. Default: direction_average fa md.",
        ("direction_average", "fa", "md"),
    )
    shared.section(command, Topic.SCANS).add(
        "--shell B",
        "Measure this shell (b-value in s/mm²) of scans with several. Default: the lowest "
        "that all have.",
        kind=float,
        dest="b_value",
    )
    shared.add_option(command, "b0_threshold")
    shared.section(command, Topic.OUTPUT).path(
        "--out FILE.csv",
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
    console.result(*numbers.save(out))
    return 0
