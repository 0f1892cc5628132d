"""One voxel closely: its coefficients, and its signal all round a plane."""

from functools import lru_cache

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.signal.spherical_harmonics import design_matrix, order_of

DIRECTIONS = {
    "R": (1.0, 0.0, 0.0),
    "L": (-1.0, 0.0, 0.0),
    "A": (0.0, 1.0, 0.0),
    "P": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}
"""Anatomical sides in scanner (RAS+) axes."""

PLANE_SIDES = {"axial": ("L", "A"), "coronal": ("L", "S"), "sagittal": ("P", "S")}
"""What is at the right and on top when a plane is looked at as in Figure 3."""


def signal_profile(
    coefficients: FloatArray, plane: str, count: int = 180
) -> tuple[FloatArray, FloatArray]:
    """Evaluate S/S0 all round a plane.

    Parameters
    ----------
    coefficients
        (..., C) SH coefficients in scanner axes.
    plane
        "axial", "coronal" or "sagittal", in scanner axes.
    count
        Number of angles.

    Returns
    -------
    angles
        (count,) in [0, 2π), counter-clockwise from the right of the picture, see `PLANE_SIDES`.
    signal
        (..., count) S/S0.
    """
    angles, basis = _basis(plane, count, order_of(coefficients.shape[-1]))
    return angles, coefficients @ basis.T


def plane_directions(plane: str, angles: FloatArray) -> FloatArray:
    """(N, 3) unit vectors in scanner axes at (N,) angles of a plane, see `signal_profile`.

    Raises
    ------
    ValueError
        For an unknown plane.
    """
    if plane not in PLANE_SIDES:
        raise ValueError(f"there is no plane {plane!r}; choose from {', '.join(PLANE_SIDES)}")
    right, top = (np.array(DIRECTIONS[side]) for side in PLANE_SIDES[plane])
    directions: FloatArray = np.outer(np.cos(angles), right) + np.outer(np.sin(angles), top)
    return directions


@lru_cache(maxsize=16)  # the basis of a plane is asked for at each move of the mouse
def _basis(plane: str, count: int, order: int) -> tuple[FloatArray, FloatArray]:
    angles = np.arange(count) * (2 * np.pi / count)
    return angles, design_matrix(plane_directions(plane, angles), order)
