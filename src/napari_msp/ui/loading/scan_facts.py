"""What a person wants to know of a scan before using it, in words."""

import numpy as np
from nibabel.orientations import aff2axcodes

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.lattice import direction_cosines
from napari_msp.signal.fitting import supported_order
from napari_msp.ui.loading.load import identity_of, siblings_of
from napari_msp.ui.loading.scan_choice import ShellFacts

OBLIQUE = 1.0
"""Angle in degrees between voxel and scanner axes from which it is told (our choice)."""


def shells_of(acquisition: Acquisition) -> tuple[ShellFacts, ...]:
    """List the shells of a scan, lowest b-value first."""
    return tuple(
        ShellFacts(
            shell.b_value, len(shell.volumes), supported_order(acquisition.directions(shell))
        )
        for shell in acquisition.gradients.shells
    )


def facts_of(acquisition: Acquisition) -> dict[str, str]:
    """Describe a scan that is open; its voxels are not read."""
    assert acquisition.path is not None
    subject, platform = identity_of(acquisition.path)
    facts = {
        "Head": f"{subject} on {platform}" if platform else subject,
        "Voxels": _voxels(acquisition),
        "Volumes": _volumes(acquisition),
    }
    others = ", ".join(siblings_of(acquisition.path))
    return facts | ({"Also scanned on": others} if others else {})


def _voxels(acquisition: Acquisition) -> str:
    lattice = acquisition.lattice
    counts = " × ".join(str(count) for count in lattice.shape)
    each = [f"{round(float(size), 2):g}" for size in lattice.voxel_sizes]
    sizes = each[0] if len(set(each)) == 1 else " × ".join(each)
    codes = "".join(aff2axcodes(lattice.affine))
    tilt = _tilt(acquisition.grid.affine)
    oblique = f", oblique by {tilt:.0f}°" if tilt >= OBLIQUE else ""
    return f"{counts} of {sizes} mm, stored {codes}{oblique}"


def _tilt(affine: FloatArray) -> float:
    """Give the largest angle between an axis of the grid and the scanner's, in degrees."""
    along = np.abs(np.diag(direction_cosines(affine)))
    return float(np.degrees(np.arccos(np.clip(along.min(), 0, 1))))


def _volumes(acquisition: Acquisition) -> str:
    table = acquisition.gradients
    counts = [(len(table.b0_volumes), 0.0)]
    counts += [(len(shell.volumes), shell.b_value) for shell in table.shells]
    return " + ".join(f"{count} at b = {b_value:.0f}" for count, b_value in counts) + " s/mm²"
