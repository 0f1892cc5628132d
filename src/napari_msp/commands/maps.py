"""`maps`: SH image, SH average, FA and colour FA of a scan."""

from argparse import ArgumentParser, Namespace

from napari_msp.commands.console import Console
from napari_msp.commands.shared import add_force, add_scan, add_shell

SUMMARY = "write SH image, SH average, FA and colour FA"
EXAMPLE = "napari-msp maps sub-01_dwi.nii.gz --out maps"


def add_options(command: ArgumentParser) -> None:
    """Add the scan and its shell."""
    add_scan(command)
    add_shell(command)
    add_force(command)


def run(options: Namespace, console: Console) -> int:
    """Write the maps."""
    from napari_msp.data.acquisition import load_acquisition
    from napari_msp.signal.map_files import write_maps

    acquisition = load_acquisition(options.dwi, options.bval, options.bvec, options.mask)
    for path in write_maps(acquisition, options.out, b_value=options.b_value, force=options.force):
        console.result(path)
    return 0
