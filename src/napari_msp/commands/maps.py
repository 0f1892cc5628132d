"""`maps`: the SH image of a scan and every map that is looked at."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands.console import Console
from napari_msp.commands.shared import add_force, add_scan, add_shell

SUMMARY = "write SH image, SH average, colour FA, FA, mean diffusivity and fibre direction"
EXAMPLE = "napari-msp maps sub-01_dwi.nii.gz --out maps"


def add_options(command: ArgumentParser) -> None:
    """Add the scan and its shell."""
    add_scan(command)
    add_shell(command)
    add_force(command)


def run(options: Namespace, console: Console) -> int:
    """Write the maps."""
    from napari_msp.scan import open_scan

    scan = open_scan(
        options.dwi, options.b_value, bval=options.bval, bvec=options.bvec, mask=options.mask
    )
    for path in scan.save(options.out, force=options.force):
        console.result(path)
    return 0
