"""Cut anatomical slices: canonical order, radiological side, cropped to the brain.

The patient's left is on the right of the image, as is usual in radiology, for every stored
orientation; letters on the figure say so. Images on other lattices keep their own voxels.
For any other picture, `picture_sides` names its sides.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_msp.arrays import AnyArray, FloatArray, MaskArray
from napari_msp.data.lattice import Lattice, direction_cosines
from napari_msp.errors import Choose, Give, UserError

MARGIN = 0.07
"""Margin around the brain, as a share of its larger side, for letters and scale bar (ours)."""

NEARLY_LARGEST = 0.95
"""Share of the largest brain area from which on slices count as equally full (our choice)."""


@dataclass(frozen=True)
class Plane:
    """Layout of an anatomical plane, in closest-canonical (RAS+) axes.

    Attributes
    ----------
    normal, across, down
        Canonical axes: through the slice, along its rows, along its columns. Both of the last two
        run from high index to low, since right, anterior and superior are on top or at the left.
    letters
        Letters at the left, right, top and bottom of the image.
    """

    normal: int
    across: int
    down: int
    letters: str


PLANES = {
    "axial": Plane(2, 0, 1, "RLAP"),
    "coronal": Plane(1, 0, 2, "RLSI"),
    "sagittal": Plane(0, 1, 2, "APSI"),
}


@dataclass(frozen=True)
class Slice:
    """One slice of a lattice, with the crop that all panels share.

    Attributes
    ----------
    axis
        Name of the plane in `PLANES`.
    index
        Index along the plane's normal, in closest-canonical order.
    rows, columns
        Crop of the image; it may extend beyond the volume, where images are black.
    """

    lattice: Lattice
    axis: str
    index: int
    rows: slice
    columns: slice

    @cached_property
    def letters(self) -> str:
        """Letters at the left, right, top and bottom of the image."""
        return PLANES[self.axis].letters

    @cached_property
    def size(self) -> tuple[float, float]:
        """Width and height of the cropped image in mm."""
        plane = PLANES[self.axis]
        sizes = self.lattice.canonical.voxel_sizes
        width = (self.columns.stop - self.columns.start) * float(sizes[plane.across])
        height = (self.rows.stop - self.rows.start) * float(sizes[plane.down])
        return width, height

    def cut(self, array: AnyArray) -> AnyArray:
        """Cut the slice's image out of a map.

        Parameters
        ----------
        array
            (X, Y, Z) or (X, Y, Z, C) in stored order.

        Returns
        -------
        (rows, columns) or (rows, columns, C), first row at the top, first column at the left.
        """
        image = _flat(self.lattice.to_canonical(array), self.axis, self.index)
        room = [
            (max(0, -part.start), max(0, part.stop - count))
            for part, count in zip((self.rows, self.columns), image.shape[:2], strict=True)
        ]
        padded: AnyArray = np.pad(image, room + [(0, 0)] * (image.ndim - 2))
        (above, _), (before, _) = room
        return padded[
            self.rows.start + above : self.rows.stop + above,
            self.columns.start + before : self.columns.stop + before,
        ]


def slice_position(lattice: Lattice, axis: str, index: int) -> str:
    """Return where the middle of a `Slice` lies in the scanner, such as "S 24.4 mm"."""
    grid, normal = lattice.canonical, PLANES[axis].normal
    at = (np.array(grid.shape) - 1) / 2
    at[normal] = index
    place = float((grid.affine @ [*at, 1.0])[normal])
    return f"{'RAS'[normal] if place >= 0 else 'LPI'[normal]} {abs(place):.1f} mm"


def choose_slice(
    mask: MaskArray, lattice: Lattice, axis: str = "axial", index: int | None = None
) -> Slice:
    """Choose a slice and crop it to the brain.

    Parameters
    ----------
    mask
        (X, Y, Z) on `lattice`, in stored order.
    axis
        "axial", "coronal" or "sagittal".
    index
        Index in closest-canonical order, so that it counts from the right, back or bottom; None: of
        the slices with (nearly) the largest brain area, the one closest to the brain's middle.
    """
    if axis not in PLANES:
        raise UserError(f"there is no {axis!r}", field="axis", remedy=Choose("axis", tuple(PLANES)))
    canonical = lattice.to_canonical(mask)
    normal = PLANES[axis].normal
    areas = canonical.sum(axis=tuple({0, 1, 2} - {normal}))
    occupied = np.flatnonzero(areas)
    if len(occupied) == 0:
        raise UserError("has no voxel inside, so there is nothing to show", "mask")
    if index is None:
        full = np.flatnonzero(areas >= NEARLY_LARGEST * areas.max())
        middle = (occupied[0] + occupied[-1]) / 2
        index = int(full[np.abs(full - middle).argmin()])
    elif index not in occupied:
        remedy = Give("slice_index", f"one from {occupied[0]} to {occupied[-1]}")
        raise UserError(f"{axis} slice {index} shows no brain", field="slice_index", remedy=remedy)
    brain = _flat(canonical, axis, index)
    sizes = lattice.canonical.voxel_sizes[[PLANES[axis].down, PLANES[axis].across]]
    rows, columns = _crop(brain, sizes)
    return Slice(lattice, axis, index, rows, columns)


def _flat(canonical: AnyArray, axis: str, index: int) -> AnyArray:
    # Taking the normal away leaves the across axis first and the down axis second.
    plane: AnyArray = np.take(canonical, index, axis=PLANES[axis].normal)
    return np.asarray(np.swapaxes(plane, 0, 1)[::-1, ::-1])


def _crop(brain: MaskArray, sizes: FloatArray) -> tuple[slice, slice]:
    """Return rows and columns of the brain with the margin; `sizes` are a pixel's in mm."""
    occupied = [np.flatnonzero(brain.any(axis=other)) for other in (1, 0)]
    counts = np.array([where[-1] + 1 - where[0] for where in occupied])
    margins = np.ceil(MARGIN * (counts * sizes).max() / sizes).astype(int)
    rows, columns = (
        slice(int(where[0] - margin), int(where[-1] + 1 + margin))
        for where, margin in zip(occupied, margins, strict=True)
    )
    return rows, columns


# --- Which side of a head is where ------------------------------------------------------------

# Letters are those of radiology: R and L the patient's right and left, A anterior, P posterior, S
# superior, I inferior. They follow from an affine alone, whose world is RAS+ as NIfTI defines it.

LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
"""Letters of the sides at lower and higher x, y and z of RAS+."""

ASIDE = 0.34
"""Component of a unit vector from which on its axis is named: 20 degrees (our choice)."""


def side_of(direction: FloatArray) -> str:
    """Return the side that a direction points to, such as "A", or "AS" between two.

    The nearest axis comes first; another one follows if the direction points 20 degrees or more
    towards it, as in DICOM's patient orientation. It is (3,) in RAS+, of any length; of 0: "".
    """
    length = float(np.linalg.norm(direction))
    if length == 0:
        return ""
    parts = np.asarray(direction, dtype=float) / length
    # Rounded, as rounding errors would otherwise decide between axes that are equally near.
    nearest = sorted(range(3), key=lambda axis: -round(float(abs(parts[axis])), 6))
    named = [axis for axis in nearest if abs(parts[axis]) >= ASIDE]
    return "".join(LETTERS[axis][int(parts[axis] > 0)] for axis in named)


def obliquity(affine: FloatArray) -> float:
    """Return the largest angle between an array's axis and the nearest scanner axis, in degrees."""
    nearest = np.abs(direction_cosines(affine)).max(axis=0).min()
    return float(np.degrees(np.arccos(np.clip(nearest, 0, 1))))


@dataclass(frozen=True)
class Sides:
    """Anatomical sides at the four edges of a picture.

    Attributes
    ----------
    left, right, top, bottom
        Letters, see `side_of`.
    convention
        How the picture is viewed: "radiological" (the patient's left is at the right) or
        "neurological" (at the left); if left and right are not side by side, "from the left" (as
        seen from the patient's left) or "left is above".
    """

    left: str
    right: str
    top: str
    bottom: str
    convention: str


def picture_sides(affine: FloatArray, right: FloatArray, down: FloatArray) -> Sides:
    """Return the anatomical sides at the edges of a picture of an array.

    Parameters
    ----------
    affine
        (4, 4) voxel-to-scanner affine of the array.
    right, down
        (3,) directions of the picture's right and lower edges, along the axes of the array.
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
    """Return how a picture is viewed, from the components of its axes along patient right."""
    most = max(abs(across), abs(below), abs(towards_us))
    if abs(across) >= most - 1e-6:
        return "radiological" if across < 0 else "neurological"
    if abs(towards_us) >= most - 1e-6:
        return f"from the {'right' if towards_us > 0 else 'left'}"
    return f"left is {'above' if below > 0 else 'below'}"
