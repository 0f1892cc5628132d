"""Placement of heads in a viewer: its axes and planes, the order of voxels, a lattice's place.

Layers are in closest-canonical order with a diagonal scale: an axis-permuted affine can abort the
viewer. Places in a viewer are in mm along `AXES`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from napari_msp.arrays import AnyArray, FloatArray
from napari_msp.data.lattice import Lattice

AXES = ("S", "P", "L")
"""Directions in which indices grow: slices upwards, rows to the back, columns to the patient's
left, so that a head is seen as in Fig. 3 and by radiologists, from its feet."""

ORDERS = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""The order of S, P and L for each plane: slider, rows, columns."""


def spatial(order: Sequence[int]) -> tuple[int, int, int]:
    """Return the order of S, P and L alone: they are the last of the viewer's axes.

    Other layers may have more axes, such as time. A viewer without layers has only two.
    """
    extra = len(order) - 3
    known = [axis - extra for axis in order if axis >= extra]
    first, second, third = [axis for axis in range(3) if axis not in known] + known
    return first, second, third


def is_upright(order: tuple[int, ...]) -> bool:
    """Return whether rows have to grow upwards; else heads would be upside down."""
    return spatial(order)[1] == 0


def to_shown(values: AnyArray, lattice: Lattice) -> AnyArray:
    """Reorder (X, Y, Z, …) from stored order to that of `AXES`."""
    canonical = lattice.to_canonical(values)
    shown: AnyArray = np.flip(np.moveaxis(canonical, (0, 1, 2), (2, 1, 0)), axis=(1, 2))
    return shown


def from_shown(data: AnyArray, lattice: Lattice) -> AnyArray:
    """Reorder a layer's data to the stored order of its lattice; undoes `to_shown`."""
    canonical = np.moveaxis(np.flip(data, axis=(1, 2)), (2, 1, 0), (0, 1, 2))
    stored: AnyArray = lattice.to_stored(canonical)
    return stored


def shown_affine(lattice: Lattice) -> FloatArray:
    """Return the (4, 4) affine from a layer's voxels, in `to_shown`'s order, to scanner axes."""
    last = np.array(lattice.canonical.shape) - 1
    to_canonical = np.zeros((4, 4))
    to_canonical[[2, 1, 0, 3], [0, 1, 2, 3]] = 1, -1, -1, 1
    to_canonical[:2, 3] = last[:2]
    affine: FloatArray = lattice.canonical.affine @ to_canonical
    return affine


def sizes_shown(lattice: Lattice) -> FloatArray:
    """Return the (3,) voxel sizes in mm, along `AXES`."""
    return lattice.canonical.voxel_sizes[::-1]


def corner(lattice: Lattice) -> FloatArray:
    """Return the (3,) place of the centre of a layer's first voxel, in mm.

    Lattices with parallel axes, of whatever spacing, are aligned by it.
    """
    canonical = lattice.canonical
    cosines = canonical.affine[:3, :3] / canonical.voxel_sizes
    first = canonical.affine[:3, 3] @ cosines
    last = first + (np.array(canonical.shape) - 1) * canonical.voxel_sizes
    return np.array([first[2], -last[1], -last[0]])


def in_voxels(place: ArrayLike, lattice: Lattice) -> FloatArray:
    """Return a place in a layer's voxels, (3,), counted from 0 at the centre of the first one."""
    voxels: FloatArray = (np.asarray(place, dtype=float) - corner(lattice)) / sizes_shown(lattice)
    return voxels


def in_mm(voxels: ArrayLike, lattice: Lattice) -> FloatArray:
    """Return the place of a layer's voxel, (3,) in mm; undoes `in_voxels`."""
    place: FloatArray = corner(lattice) + np.asarray(voxels) * sizes_shown(lattice)
    return place


def stored_index(place: ArrayLike, lattice: Lattice) -> tuple[int, ...] | None:
    """Return the stored voxel at a place; None beyond the lattice."""
    shown = np.round(in_voxels(place, lattice))
    if (shown < 0).any() or (shown >= lattice.canonical.shape[::-1]).any():
        return None
    voxel = np.linalg.inv(lattice.affine) @ shown_affine(lattice) @ [*shown, 1]
    return tuple(int(each) for each in np.round(voxel[:3]))
