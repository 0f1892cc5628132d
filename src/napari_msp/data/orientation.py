"""Voxel order and grid axes: stored order, closest-canonical order, direction cosines."""

from dataclasses import dataclass

import numpy as np
from nibabel.affines import voxel_sizes as nib_voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from napari_msp.arrays import AnyArray, FloatArray

CANONICAL = np.array([[0, 1], [1, 1], [2, 1]])
"""nibabel's code for axes that run to the right, anterior and superior."""


def direction_cosines(affine: FloatArray) -> FloatArray:
    """Give the orthogonal matrix whose columns are the voxel axes in scanner axes.

    Its determinant has the sign of the affine's. A sheared affine (after an affine registration,
    say) gives the nearest orthogonal matrix.

    Parameters
    ----------
    affine
        (4, 4) voxel-to-scanner affine in mm.

    Returns
    -------
    (3, 3) orthogonal matrix.
    """
    linear = np.asarray(affine, dtype=float)[:3, :3]
    left, _, right = np.linalg.svd(linear / np.linalg.norm(linear, axis=0))
    cosines: FloatArray = left @ right
    return cosines


@dataclass(frozen=True)
class CanonicalGrid:
    """The closest-canonical (RAS+) view of an image stored in any order.

    Convolutions live in voxel axes, so networks always see this order, whatever the file holds.

    Attributes
    ----------
    shape
        Spatial shape in stored order.
    stored_affine
        (4, 4) affine of the stored order.
    """

    shape: tuple[int, int, int]
    stored_affine: FloatArray

    @property
    def affine(self) -> FloatArray:
        """(4, 4) affine of the canonical order."""
        stored = io_orientation(self.stored_affine)
        moved: FloatArray = self.stored_affine @ inv_ornt_aff(stored, self.shape)
        return moved

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """Spatial shape in canonical order."""
        lengths = dict(zip(io_orientation(self.stored_affine)[:, 0], self.shape, strict=True))
        return lengths[0], lengths[1], lengths[2]

    @property
    def rotation(self) -> FloatArray:
        """(3, 3) proper rotation from the grid's axes to the scanner's."""
        return direction_cosines(self.affine)

    def to_canonical(self, array: AnyArray) -> AnyArray:
        """Reorder the first three axes from stored to canonical order."""
        return reorder(array, io_orientation(self.stored_affine))

    def to_stored(self, array: AnyArray) -> AnyArray:
        """Reorder the first three axes from canonical to stored order."""
        back = ornt_transform(CANONICAL, io_orientation(self.stored_affine))
        return reorder(array, back)


def reorder(array: AnyArray, orientation: FloatArray) -> AnyArray:
    """Permute and flip the first three axes by a nibabel orientation, into contiguous memory."""
    moved: AnyArray = np.ascontiguousarray(apply_orientation(array, orientation))
    return moved


def voxel_sizes(affine: FloatArray) -> FloatArray:
    """Voxel sizes in mm along the three voxel axes, shape (3,)."""
    sizes: FloatArray = nib_voxel_sizes(affine)
    return sizes
