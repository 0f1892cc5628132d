"""`maps`: write the SH image, SH average, FA and other maps of a scan."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands.console import Console
from napari_msp.commands.shared import add_b0_threshold, add_force, add_scan, add_shells

SUMMARY = "Write the SH image, SH average, FA and other maps of a scan"
EXAMPLE = "napari-msp maps sub-01_dwi.nii.gz --out maps"


def add_options(command: ArgumentParser) -> None:
    """Add the scan and its shells."""
    add_scan(command)
    add_b0_threshold(command)
    add_shells(command, "Write maps of these shells (b-values in s/mm²). Default: all.")
    add_force(command, "existing files; the scan's maps of other shells in that folder go, too")


def run(options: Namespace, console: Console) -> int:
    """Write the maps."""
    from napari_msp.data.acquisition import load_acquisition
    from napari_msp.scan_sources import as_scan

    acquisition = load_acquisition(
        options.dwi, options.bval, options.bvec, options.mask, b0_threshold=options.b0_threshold
    )
    for path in as_scan(acquisition, options.b_value).save(options.out, force=options.force):
        console.result(path)
    return 0
