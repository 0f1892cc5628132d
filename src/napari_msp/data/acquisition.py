"""One diffusion-weighted acquisition: image, gradient table and brain mask."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.gradients import GradientTable, Shell, read_gradients
from napari_msp.data.lattice import Lattice
from napari_msp.data.masks import estimate_mask, find_mask, read_mask
from napari_msp.data.names import gradient_files
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.data.orientation import CanonicalGrid
from napari_msp.errors import UserError

B_VALUE_TOLERANCE = 0.05
"""Relative difference of b-values that still counts as the same shell (our choice)."""


@dataclass(frozen=True)
class Acquisition:
    """A DWI with its gradient table. Header and table are read at once, voxels when asked for.

    Attributes
    ----------
    image
        The 4-D NIfTI image, voxels in stored order.
    gradients
        One row a volume, directions in scanner (RAS+) axes.
    mask_path
        The mask's file; None: DIPY's `median_otsu` makes one from the b=0 image.
    path
        Where the image lies; None for an acquisition made in memory.
    """

    image: nib.Nifti1Image
    gradients: GradientTable
    mask_path: Path | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        if len(self.image.shape) != 4 or self.image.shape[3] != len(self.gradients):
            raise UserError(
                f"{self.name}: has shape {self.image.shape} but the gradient table has "
                f"{len(self.gradients)} rows; give a 4-D image and its own table"
            )
        if len(self.gradients.b0_volumes) == 0:
            raise UserError(
                f"{self.name}: no volume has b=0; the signal cannot be normalised without one"
            )

    @property
    def name(self) -> str:
        """The file's name for messages."""
        return str(self.path) if self.path is not None else "acquisition"

    @property
    def affine(self) -> FloatArray:
        """(4, 4) voxel-to-scanner affine in mm."""
        affine: FloatArray = self.image.affine
        return affine

    @property
    def lattice(self) -> Lattice:
        """Where its voxels lie, in stored order."""
        x, y, z = self.image.shape[:3]
        return Lattice((x, y, z), self.affine)

    @property
    def grid(self) -> CanonicalGrid:
        """The closest-canonical view of its lattice."""
        return CanonicalGrid(self.lattice.shape, self.affine)

    @cached_property
    def voxels(self) -> FloatArray:
        """(X, Y, Z, N) float32 signal in scanner units.

        Voxels that are not finite are taken as 0 outside a given mask, where some tools write
        them, and refused elsewhere.
        """
        voxels = read_voxels(self.image, self.path)
        odd = ~np.isfinite(voxels).all(axis=-1)
        if odd.any():
            if self.mask_path is None or (odd & self.mask).any():
                raise UserError(f"{self.name}: holds voxels that are not finite; mend the image")
            voxels[odd] = 0
        return voxels

    @cached_property
    def b0(self) -> FloatArray:
        """(X, Y, Z) mean of the b=0 volumes, in scanner units."""
        mean: FloatArray = self.voxels[..., self.gradients.b0_volumes].mean(axis=-1)
        return mean

    @cached_property
    def mask(self) -> MaskArray:
        """(X, Y, Z) brain mask: the given one, the one found, or `median_otsu`'s."""
        if self.mask_path is not None:
            return read_mask(self.mask_path, self.lattice)
        return estimate_mask(self.b0, self.image)

    def shell(self, b_value: float | None = None) -> Shell:
        """Choose a shell.

        Parameters
        ----------
        b_value
            In s/mm², to within 5 %; None takes the only shell there is.

        Raises
        ------
        UserError
            When there is none, when none is near `b_value`, or when the choice is open.
        """
        shells = self.gradients.shells
        if not shells:
            raise UserError(f"{self.name}: holds no diffusion-weighted volume; give a DWI")
        known = ", ".join(f"{shell.b_value:.0f}" for shell in shells)
        if b_value is None:
            if len(shells) > 1:
                raise UserError(
                    f"{self.name}: has several shells (b = {known}); choose one with --shell"
                )
            return shells[0]
        nearest = min(shells, key=lambda shell: abs(shell.b_value - b_value))
        # Turned round so that neither nan nor infinity passes.
        if not abs(nearest.b_value - b_value) <= B_VALUE_TOLERANCE * nearest.b_value:
            raise UserError(
                f"{self.name}: has no shell near b = {b_value:.0f} (it has {known}); "
                "choose one of those with --shell"
            )
        return nearest

    def normalised(self, shell: Shell) -> FloatArray:
        """Give the signal of a shell over the b=0 signal.

        Values are kept in [0, 1], as diffusion can only weaken a signal (our choice, after linear
        RISH harmonisation); voxels without b=0 signal give 0.

        Returns
        -------
        (X, Y, Z, M) float32, dimensionless.
        """
        b0 = self.b0[..., None]
        weighted = self.voxels[..., shell.volumes]
        ratio = np.divide(weighted, b0, out=np.zeros_like(weighted), where=b0 > 0)
        return np.clip(ratio, 0.0, 1.0, out=ratio)

    def directions(self, shell: Shell) -> FloatArray:
        """(M, 3) unit directions of a shell in scanner axes."""
        return self.gradients.directions[shell.volumes]


def load_acquisition(
    dwi: str | Path,
    bval: str | Path | None = None,
    bvec: str | Path | None = None,
    mask: str | Path | None = None,
) -> Acquisition:
    """Open a DWI with its gradient table and mask.

    Parameters
    ----------
    dwi
        4-D .nii or .nii.gz, in any orientation.
    bval, bvec
        FSL gradient files; None: `<stem>.bval` and `<stem>.bvec` beside the image.
    mask
        Brain mask on the image's lattice; None: found beside the image or in the derivatives of
        its BIDS dataset, else made by DIPY's `median_otsu`.

    Returns
    -------
    Acquisition
        Its voxels are read when first asked for.

    Raises
    ------
    UserError
        When a file is missing, malformed, or belongs to another image.
    """
    path = Path(dwi)
    image = open_nifti(path)
    if len(image.shape) != 4:
        raise UserError(f"{path}: has {len(image.shape)} axes; a DWI has four")
    beside = gradient_files(path)
    bval_path = Path(bval) if bval is not None else beside[0]
    bvec_path = Path(bvec) if bvec is not None else beside[1]
    for gradient_file, option in ((bval_path, "--bval"), (bvec_path, "--bvec")):
        if not gradient_file.exists():
            raise UserError(f"{gradient_file}: is missing; give it with {option}")
    gradients = read_gradients(bval_path, bvec_path, image.affine, image.shape[3])
    mask_path = Path(mask) if mask is not None else find_mask(path)
    return Acquisition(image, gradients, mask_path, path)
