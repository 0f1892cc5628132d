"""Read a scan step by step, so that a person sees what is done and can stop it."""

from __future__ import annotations

from collections.abc import Callable

from napari_msp.data.acquisition import Acquisition
from napari_msp.scan import Scan
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count

Say = Callable[[str], None]
"""Gets what is being done, in words; whatever it raises ends the work."""


def read_scan(scan: Scan, say: Say) -> Scan:
    """Read a scan's voxels, make its mask and fit SH to it, which else happens when asked for."""
    acquisition = scan.acquisition
    if acquisition is None:
        return scan
    acquisition.shell(scan.shell)  # a choice that cannot be made is an error before the voxels
    say(f"Reading {acquisition.name if scan.path is None else scan.path.name}")
    _ = acquisition.voxels
    if acquisition.mask_path is None:
        say("Making a brain mask with median_otsu")
    _ = acquisition.mask
    say("Fitting spherical harmonics")
    _ = scan.sh
    return scan


def usual_shell(acquisition: Acquisition) -> float | None:
    """Give the shell that is shown unasked: the lowest with enough directions for the SH order.

    Returns
    -------
    Its b-value in s/mm²; None where no shell will do, so that whoever uses it is told why.
    """
    shells = acquisition.gradients.shells
    enough = [each for each in shells if len(each.volumes) >= coefficient_count(ORDER)]
    return enough[0].b_value if enough else None
