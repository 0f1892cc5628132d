"""The grids that heads are simulated on, and linear maps between them, one axis after another."""

from dataclasses import dataclass

import numpy as np
from scipy.special import erf

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.platforms import Platform
from napari_msp.errors import Choose, UserError

SPACING = 2.4
"""Voxel size of the standard protocol in mm (Tax 2019)."""

SIZES: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    # A block of the right hemisphere with callosum, ventricle, corona radiata and cortex.
    "tiny": ((32, 20, 14), (-4.8, -34.0, 10.0)),
    # A slab through basal ganglia, ventricles and centrum semiovale.
    "small": ((66, 82, 16), (-78.0, -115.2, 1.2)),
    # The whole brain.
    "full": ((66, 82, 68), (-78.0, -115.2, -76.8)),
}
"""Shape of the 2.4 mm lattice and centre of its first voxel in mm (RAS+), for each size."""


def lattice_for(size: str, platform: Platform) -> Lattice:
    """Give a platform's lattice in RAS+ order.

    Raises
    ------
    UserError
        When there is no such size.
    """
    if size not in SIZES:
        raise UserError("there is no such size", size, "size", Choose("size", tuple(SIZES)))
    shape, origin = SIZES[size]
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = origin
    standard = Lattice(shape, affine)
    return standard if platform.scale == 1 else standard.refined(platform.scale)


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice along the scanner's axes, described by one coordinate vector an axis.

    Attributes
    ----------
    axes
        Voxel centres along x, y, z in mm.
    """

    axes: tuple[FloatArray, FloatArray, FloatArray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        x, y, z = (len(axis) for axis in self.axes)
        return x, y, z

    @property
    def spacing(self) -> float:
        """Distance of neighbouring voxels in mm."""
        return float(self.axes[0][1] - self.axes[0][0])

    def points(self) -> FloatArray:
        """(3, N) float32 positions of all voxels, last axis fastest."""
        grid = np.meshgrid(*self.axes, indexing="ij")
        return np.stack([axis.ravel() for axis in grid]).astype(np.float32)

    def extended(self, voxels: int) -> "Grid":
        """Add voxels on every side."""
        x, y, z = (
            axis[0] + self.spacing * np.arange(-voxels, len(axis) + voxels) for axis in self.axes
        )
        return Grid((x, y, z))

    def thinned(self) -> "Grid":
        """Keep every other voxel."""
        x, y, z = (axis[::2] for axis in self.axes)
        return Grid((x, y, z))


def grid_of(lattice: Lattice) -> Grid:
    """Describe a lattice in RAS+ order by its axes."""
    sizes = np.diag(lattice.affine)[:3]
    x, y, z = (
        start + size * np.arange(count)
        for start, size, count in zip(lattice.affine[:3, 3], sizes, lattice.shape, strict=True)
    )
    return Grid((x, y, z))


def point_spread(source: FloatArray, target: FloatArray, width: float, blur: float) -> FloatArray:
    """Give the matrix of a point spread along one axis.

    The kernel is a box (the voxel, or with `width` 0 a point) convolved with a Gaussian; each row
    sums to 1, so that a constant stays one.

    Parameters
    ----------
    source, target
        Coordinates of the samples before and after, in mm.
    width
        Box width in mm.
    blur
        Standard deviation of the Gaussian in mm.

    Returns
    -------
    (len(target), len(source)) float32.
    """
    apart = target[:, None] - source[None]
    if width > 0:
        scale = np.sqrt(2) * blur
        weights = erf((apart + width / 2) / scale) - erf((apart - width / 2) / scale)
    else:
        weights = np.exp(-0.5 * (apart / blur) ** 2)
    matrix: FloatArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def along_axes(
    volume: FloatArray, matrices: tuple[FloatArray, FloatArray, FloatArray]
) -> FloatArray:
    """Apply one matrix along each axis of (X, Y, Z); z first, as it shrinks a slab the least."""
    along_x, along_y, along_z = matrices
    done = volume @ along_z.T
    done = np.matmul(along_y, done)
    mixed: FloatArray = np.tensordot(along_x, done, axes=1)
    return mixed
