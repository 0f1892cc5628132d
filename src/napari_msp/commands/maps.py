"""`maps`: write the SH image, SH average, FA and other maps of a scan."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands import shared
from napari_msp.commands.console import Console

SUMMARY = "Write the SH image, SH average, FA and other maps of a scan"
EXAMPLE = "napari-msp maps sub-01_dwi.nii.gz --out maps"


def add_options(command: ArgumentParser) -> None:
    """Add the scan and its shells."""
    shared.add_scan(command)
    shared.add_option(command, "b0_threshold")
    shared.add_shells(command, "Write maps of these shells (b-values in s/mm²). Default: all.")
    shared.add_force(
        command, "existing files; the scan's maps of other shells in that folder go, too"
    )


def run(options: Namespace, console: Console) -> int:
    """Write the maps."""
    from napari_msp.data.acquisition import load_acquisition
    from napari_msp.scan_sources import as_scan

    acquisition = shared.call(load_acquisition, options)
    scan = as_scan(acquisition, options.b_value)
    console.result(*scan.save(options.out, force=options.force))
    return 0
