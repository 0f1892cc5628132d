"""`import`: turn a folder tree into a BIDS dataset."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console
from napari_msp.options import Topic

SUMMARY = "Turn a folder tree, or DICOM, into a BIDS dataset"
EXAMPLE = (
    "napari-msp import OLD_TREE HEADS "
    "--pattern '{subject}/{scanner}/{protocol}/dwi_{subject}_{scanner}_{protocol}_b1200.nii.gz'"
)


def add_options(command: ArgumentParser) -> None:
    """Add the tree and its naming scheme."""
    shared.section(command).path("source SOURCE", "Tree of folders, which is only read.")
    shared.section(command).path("out OUT", "BIDS folder to make.")
    scans, output = shared.section(command, Topic.SCANS), shared.section(command, Topic.OUTPUT)
    scans.add(
        "--pattern PATTERN",
        "Find images by this path, with {subject}, {scanner} or {session}, {protocol}, {run}. "
        "With --dicom it leads to folders. Default with --dicom: SOURCE is the folder.",
        "",
    )
    scans.add("--dicom", "Convert folders of DICOM files, by dcm2niix.")
    scans.add(
        "--series SERIES",
        "With --dicom, take the series with this number, or with this in its description. "
        "FOLDER=SERIES is for one folder of the pattern, and FOLDER=none leaves it out; both can "
        "be given several times. Default: the only DWI.",
        action="append",
    )
    for option, what in (("--bval", "b-values"), ("--bvec", "b-vectors"), ("--mask", "masks")):
        found = f"Find {what} by this pattern. Default: those beside the images."
        scans.add(f"{option} PATTERN", found)
    for name, what in (
        ("subject", "the subject"),
        ("session", "the scanner"),
        ("protocol", "the protocol"),
    ):
        label = f"Use this label for {what} if the tree names none."
        scans.add(f"--{name} {name.upper()}", label)
    scans.add(
        "--input PLATFORM",
        "Mark this platform in the dataset as the one to predict from, so that no other "
        "command needs to be told.",
    )
    shared.add_option(command, "b0_threshold")
    shared.add_voxel_size(
        command,
        "Interpolate scans whose voxels are not cubes to cubes of this edge; auto: of each scan's "
        "smallest edge.",
    )
    output.add("--dry-run", "Only say what would be done.")


def run(options: Namespace, console: Console) -> int:
    """Import the tree, and list the results."""
    from napari_msp.data.dicom import Converted, Series
    from napari_msp.data.importers import ImportSettings, import_dicom, import_tree
    from napari_msp.errors import Advice, UserError

    def report(converted: Converted, chosen: Series) -> None:
        console.say(f"{converted.folder}:")
        for each in converted.series:
            console.say(f"{'->' if each is chosen else '  '} {each}")
        for lost in converted.lost:
            console.say(f"   {lost}")

    if options.series is not None and not options.dicom:
        problem = "applies only to DICOM files"
        raise UserError(problem, options.series[0], "series", Advice("leave it out"))
    given = {"settings": shared.call(ImportSettings, options), "progress": console.progress}
    if options.dicom:
        scans = shared.call(import_dicom, options, report=report, **given)
    else:
        scans = shared.call(import_tree, options, **given)
    for scan in scans:
        console.result(f"{scan.source} -> {options.out / scan.image}")
    return 0
