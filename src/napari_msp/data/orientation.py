"""Which side of a head is where: letters for directions, and for the sides of a picture.

Letters are those of radiology: R and L the patient's right and left, A anterior, P posterior, S
superior, I inferior. They follow from an affine alone, whose world is RAS+ as NIfTI defines it.
"""

from dataclasses import dataclass

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import direction_cosines

LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
"""What lies towards lower and higher x, y and z of RAS+."""

ASIDE = 0.34
"""Share of a unit vector along an axis from which on it is named: 20 degrees (our choice)."""


def side_of(direction: FloatArray) -> str:
    """Name the side that a direction leads to, such as "A", or "AS" between two.

    The nearest axis comes first; another one follows where the direction leads 20 degrees and more
    towards it, as in DICOM's patient orientation.

    Parameters
    ----------
    direction
        (3,) in RAS+; its length does not matter, but for 0, which leads nowhere: "".
    """
    length = float(np.linalg.norm(direction))
    if length == 0:
        return ""
    parts = np.asarray(direction, dtype=float) / length
    # Rounded, or rounding would decide between axes that are equally near.
    nearest = sorted(range(3), key=lambda axis: -round(float(abs(parts[axis])), 6))
    named = [axis for axis in nearest if abs(parts[axis]) >= ASIDE]
    return "".join(LETTERS[axis][int(parts[axis] > 0)] for axis in named)


def obliquity(affine: FloatArray) -> float:
    """Give the largest angle between an axis of an array and the scanner's nearest, in degrees."""
    nearest = np.abs(direction_cosines(affine)).max(axis=0).min()
    return float(np.degrees(np.arccos(np.clip(nearest, 0, 1))))


@dataclass(frozen=True)
class Sides:
    """What lies at the four sides of a picture.

    Attributes
    ----------
    left, right, top, bottom
        As `side_of` names them.
    convention
        How the picture is to be read: "radiological" (the patient's left is at the right),
        "neurological" (at the left); where left and right are not beside each other "from the
        left" (of the patient's, one looks) or "left is above".
    """

    left: str
    right: str
    top: str
    bottom: str
    convention: str


def picture_sides(affine: FloatArray, right: FloatArray, down: FloatArray) -> Sides:
    """Tell what lies at the sides of a picture of an array.

    Parameters
    ----------
    affine
        (4, 4) voxel-to-scanner affine of the array.
    right, down
        (3,) where the picture's right and its lower edge lie, along the axes of the array.
    """
    cosines = direction_cosines(affine)
    across, below = cosines @ np.asarray(right, float), cosines @ np.asarray(down, float)
    towards_us = np.cross(across, -below)
    return Sides(
        side_of(-across),
        side_of(across),
        side_of(-below),
        side_of(below),
        _convention(float(across[0]), float(below[0]), float(towards_us[0])),
    )


def _convention(across: float, below: float, towards_us: float) -> str:
    """Say how to read a picture from where the patient's right lies."""
    most = max(abs(across), abs(below), abs(towards_us))
    if abs(across) >= most - 1e-6:
        return "radiological" if across < 0 else "neurological"
    if abs(towards_us) >= most - 1e-6:
        return f"from the {'right' if towards_us > 0 else 'left'}"
    return f"left is {'above' if below > 0 else 'below'}"
