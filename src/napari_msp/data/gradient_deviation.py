"""How far gradients differ from voxel to voxel, where a `grad_dev` lies beside a scan (HCP).

Nothing here uses it: every voxel is taken to feel the gradients of the table. What error that makes
is said.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import NIFTI_SUFFIXES, bare_stem, nifti_stem
from napari_msp.data.lattice import Lattice
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import Advice, UserError

MOST_VOXELS = 20_000
"""Voxels of the mask, evenly taken, over which the error is measured."""


@dataclass(frozen=True)
class Deviation:
    """The error of taking the table's gradients for those that voxels feel.

    Attributes
    ----------
    b_mean, b_95
        Of b, in percent: mean and 95th percentile over voxels, of the mean size over volumes.
    angle_mean, angle_95
        Of the direction, in degrees.
    """

    b_mean: float
    b_95: float
    angle_mean: float
    angle_95: float

    def __str__(self) -> str:
        return (
            f"b is off by {self.b_mean:.1f} % and directions by {self.angle_mean:.1f}° on average, "
            f"in 5 % of voxels by over {self.b_95:.1f} % or {self.angle_95:.1f}°"
        )


def find_deviation(dwi: Path) -> Path | None:
    """Look for `grad_dev` beside an image."""
    names = ("grad_dev", f"{nifti_stem(dwi)}_grad_dev", f"{bare_stem(dwi)}_grad_dev")
    paths = (dwi.parent / (name + suffix) for name in names for suffix in NIFTI_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def read_deviation(path: Path, lattice: Lattice, mask: MaskArray) -> FloatArray:
    """Read (V, 3, 3) matrices of in-mask voxels: a voxel feels (1 + matrix) · gradient.

    HCP's file has nine volumes, one row of the matrix after the other.

    Raises
    ------
    UserError
        When it is another kind of image, or lies elsewhere.
    """
    image = open_nifti(path)
    if len(image.shape) != 4 or image.shape[3] != 9:
        shape = " × ".join(map(str, image.shape))
        raise UserError(f"has {shape} values, not nine volumes", path, remedy=Advice("give HCP's"))
    x, y, z = image.shape[:3]
    if not lattice.matches(Lattice((x, y, z), image.affine)):
        raise UserError("its voxels are not the image's", path, remedy=Advice("resample it"))
    inside = np.argwhere(mask)
    chosen = inside[np.linspace(0, len(inside) - 1, min(len(inside), MOST_VOXELS)).astype(int)]
    values: FloatArray = read_voxels(image, path)[tuple(chosen.T)].astype(float)
    return values[np.isfinite(values).all(axis=1)].reshape(-1, 3, 3)


def measure_deviation(matrices: FloatArray, vectors: FloatArray) -> Deviation:
    """Measure the error over voxels and gradients: b' = |(1 + L) g|² b (HCP).

    Parameters
    ----------
    matrices
        (V, 3, 3), see `read_deviation`.
    vectors
        (N, 3) unit b-vectors along the image's axes, as in FSL's files.
    """
    felt = vectors.T + matrices @ vectors.T  # (V, 3, N)
    lengths = np.linalg.norm(felt, axis=1)
    cosines = np.einsum("vin,ni->vn", felt, vectors) / np.maximum(lengths, 1e-12)
    of_b = 100 * np.abs(lengths**2 - 1).mean(axis=1)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean(axis=1)
    b_95, angle_95 = (float(np.percentile(each, 95)) for each in (of_b, angles))
    return Deviation(float(of_b.mean()), b_95, float(angles.mean()), angle_95)
