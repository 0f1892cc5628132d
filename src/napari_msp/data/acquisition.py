"""One diffusion-weighted acquisition: image, gradient table and brain mask."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import mask_sidecar, sidecar_path, source_uri
from napari_msp.data.beside import find_gradients, look_for_mask, one_table
from napari_msp.data.gradients import SHELL_GAP, GradientTable, Shell, Table, read_gradients
from napari_msp.data.lattice import CanonicalGrid, Lattice
from napari_msp.data.masks import (
    ESTIMATED_MARK,
    BrainMask,
    check_mask,
    coverage,
    estimate_mask,
    read_mask,
)
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels, write_nifti
from napari_msp.errors import Advice, Choose, Give, UserError, either
from napari_msp.files import write_json

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable as DipyGradientTable

B_VALUE_TOLERANCE = 0.05
"""Relative difference of b-values that still counts as the same shell (our choice)."""


class EstimatedMask(UserWarning):
    """A brain mask was made from the image, as none was found."""


class TableFound(UserWarning):
    """A gradient table was found where a person might expect another."""


@dataclass(frozen=True, eq=False, repr=False)
class Acquisition:
    """A DWI with its gradient table. Header and table are read at once, voxels when asked for.

    Attributes
    ----------
    image
        The 4-D NIfTI image, voxels in stored order.
    gradients
        One row a volume, directions in scanner (RAS+) axes.
    mask_path
        The mask's file; None: one is made, see `estimate_mask`.
    path
        Where the image lies; None for an acquisition made in memory.
    given_mask
        (X, Y, Z) the mask of an acquisition whose mask is in no file.
    notes
        Where its gradient table was found, where a person might expect another, in words.
    other_masks
        Masks that were passed over, and why, in words.
    """

    image: nib.Nifti1Image
    gradients: GradientTable
    mask_path: Path | None = None
    path: Path | None = None
    given_mask: MaskArray | None = None
    notes: tuple[str, ...] = ()
    other_masks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        size = " × ".join(str(each) for each in self.image.shape[:3])
        return f"<Acquisition {self.name}: {size} voxels, {self.gradients!r}>"

    def __post_init__(self) -> None:
        if len(self.image.shape) != 4 or self.image.shape[3] != len(self.gradients.b_values):
            raise UserError(
                f"has shape {self.image.shape} but the gradient table has "
                f"{len(self.gradients.b_values)} rows",
                self.name,
                "bval",
                Advice("give a 4-D image and its own table"),
            )
        if len(self.gradients.b0_volumes) == 0:
            problem = "no volume has b=0, and without one the signal cannot be normalised"
            raise UserError(problem, self.name, "bval", Advice("give a scan that has one"))

    @cached_property
    def name(self) -> str:
        """The file's name for messages."""
        return str(self.path) if self.path is not None else "acquisition"

    @cached_property
    def affine(self) -> FloatArray:
        """(4, 4) voxel-to-scanner affine in mm."""
        affine: FloatArray = self.image.affine
        return affine

    @cached_property
    def lattice(self) -> Lattice:
        """Where its voxels lie, in stored order."""
        x, y, z = self.image.shape[:3]
        return Lattice((x, y, z), self.affine)

    @property
    def grid(self) -> CanonicalGrid:
        """The closest-canonical view of its lattice."""
        return CanonicalGrid(self.lattice.shape, self.affine)

    @property
    def has_mask(self) -> bool:
        """Whether a mask was given or found, so that none needs to be made."""
        return self.mask_path is not None or self.given_mask is not None

    @cached_property
    def voxels(self) -> FloatArray:
        """(X, Y, Z, N) float32 signal in scanner units.

        Voxels that are not finite are taken as 0 outside a given mask, where some tools write
        them, and refused elsewhere.
        """
        voxels = read_voxels(self.image, self.path)
        odd = ~np.isfinite(voxels).all(axis=-1)
        if odd.any():
            if not self.has_mask or (odd & self.mask).any():
                remedy = Advice("repair the image")
                raise UserError("has voxels that are not finite", self.name, remedy=remedy)
            voxels[odd] = 0
        return voxels

    @cached_property
    def b0(self) -> FloatArray:
        """(X, Y, Z) mean of the b=0 volumes, in scanner units."""
        mean: FloatArray = self.voxels[..., self.gradients.b0_volumes].mean(axis=-1)
        return mean

    @cached_property
    def brain(self) -> BrainMask:
        """The brain mask and how it is known: the given one, the one found, or one that is made.

        Warns
        -----
        EstimatedMask
            When it is made, with its size and what is odd about it.
        """
        if self.given_mask is not None:
            return BrainMask(self.given_mask, "given in memory")
        if self.mask_path is not None:
            return read_mask(self.mask_path, self.lattice)
        weighted = [self.voxels[..., shell.volumes] for shell in self.gradients.shells]
        images = [self.b0, *(volumes.mean(axis=-1) for volumes in weighted)]
        brain = estimate_mask(images, self.affine, self.name)
        said = [
            f"{self.name}: has no brain mask, so one was {brain.origin}",
            coverage(brain.inside, self.affine),
            *(f"it {doubt}" for doubt in brain.doubts),
            *self.other_masks,
        ]
        warnings.warn("; ".join(said), EstimatedMask, stacklevel=2)
        return brain

    @property
    def mask(self) -> MaskArray:
        """(X, Y, Z) brain mask."""
        return self.brain.inside

    @property
    def mask_doubts(self) -> tuple[str, ...]:
        """What is odd about a mask that was made, in words for a sidecar."""
        return tuple(f"the brain mask, which was estimated, {each}" for each in self.brain.doubts)

    def save_estimated_mask(self, folder: Path, stem: str) -> None:
        """Write a mask that was made as `<stem>_desc-brain_mask.nii.gz`, so that it can be seen.

        A given or found one is where it was, and is not written.
        """
        if not self.brain.estimated:
            return
        path = folder / f"{stem}_desc-brain_mask.nii.gz"
        write_nifti(path, self.mask, self.affine, like=self.image)
        said = f"{self.brain.origin}: {coverage(self.mask, self.affine)}"
        more = {"Warnings": list(self.mask_doubts), ESTIMATED_MARK: True}
        write_json(sidecar_path(path), mask_sidecar(said, [source_uri(self.path)], **more))

    @property
    def provenance(self) -> tuple[str, ...]:
        """Which mask and gradient table were used, in words, for a sidecar."""
        brain = self.brain
        mask = f"brain mask: {brain.origin}, {coverage(brain.inside, self.affine)}"
        return (mask, *self.other_masks, *self.notes)

    def tell_notes(self) -> None:
        """Warn of what a person might not expect of its gradient table, before it is used.

        Warns
        -----
        TableFound
        """
        for note in self.notes:
            warnings.warn(f"{self.name}: {note}", TableFound, stacklevel=3)

    def shell(self, b_value: float | None = None) -> Shell:
        """Choose a shell.

        Parameters
        ----------
        b_value
            In s/mm², to within 5 %; None takes the only shell there is.

        Raises
        ------
        UserError
            When there is none, when none is near `b_value`, when the choice is open, or when
            b-values run on from one to the next.
        """
        return _a_shell(self._shell(b_value), self.name)

    def shells(self, b_values: float | Sequence[float] | None = None) -> list[Shell]:
        """Choose shells, lowest b-value first.

        Parameters
        ----------
        b_values
            One or several in s/mm², each to within 5 %; None takes all there are.

        Raises
        ------
        UserError
            As `shell`, or when two of them are of one shell.
        """
        if b_values is None:
            if not self.gradients.shells:
                self._shell(None)  # raises, with the reason
            return [_a_shell(shell, self.name) for shell in self.gradients.shells]
        wanted = [b_values] if isinstance(b_values, int | float) else list(b_values)
        chosen = sorted((self.shell(each) for each in wanted), key=lambda shell: shell.b_value)
        for one, other in pairwise(chosen):
            if one.name == other.name:
                remedy = Choose("b_value", tuple(each.name for each in self.gradients.shells))
                raise UserError(f"b = {one.name} was given twice", self.name, "b_value", remedy)
        return chosen

    def _shell(self, b_value: float | None) -> Shell:
        shells = self.gradients.shells
        if not shells:
            raise UserError(
                "has no diffusion-weighted volume", self.name, remedy=Advice("give a DWI")
            )
        known = ", ".join(f"{shell.b_value:.0f}" for shell in shells)
        choose = Choose("b_value", tuple(round(shell.b_value) for shell in shells))
        if b_value is None:
            if len(shells) > 1:
                raise UserError(f"has several shells (b = {known})", self.name, "b_value", choose)
            return shells[0]
        nearest = self.gradients.nearest_shell(b_value)
        assert nearest is not None
        # Also refuses nan and infinity.
        if not abs(nearest.b_value - b_value) <= B_VALUE_TOLERANCE * nearest.b_value:
            problem = f"has no shell near b = {b_value:.0f} (it has {known})"
            raise UserError(problem, self.name, "b_value", choose)
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


def _a_shell(shell: Shell, name: str) -> Shell:
    """Refuse a group of b-values that is no shell."""
    if shell.chained:
        problem = (
            f"its b-values run from {shell.lowest:.0f} to {shell.highest:.0f} s/mm² without a gap "
            "and are no shell"
        )
        remedy = Advice(f"give a scan whose shells lie more than {SHELL_GAP:.0f} s/mm² apart")
        raise UserError(problem, name, "bval", remedy)
    return shell


def load_acquisition(
    dwi: str | Path | nib.Nifti1Image,
    bval: Table | None = None,
    bvec: Table | None = None,
    mask: str | Path | MaskArray | nib.Nifti1Image | None = None,
    *,
    gradients: "DipyGradientTable | None" = None,
) -> Acquisition:
    """Open a DWI with its gradient table and mask.

    Parameters
    ----------
    dwi
        4-D .nii or .nii.gz in any orientation, or an image in memory.
    bval, bvec
        FSL gradient files, or arrays as in them: (N,) in s/mm², and (N, 3) or (3, N) along
        the image's axes; or one table of MRtrix3's, as either. None: found, see
        `beside.find_gradients`.
    mask
        Brain mask on the image's lattice, as a file, an image or a (X, Y, Z) array; None: found,
        see `beside.look_for_mask`, else made, see `masks.estimate_mask`.
    gradients
        A DIPY gradient table instead of `bval` and `bvec`, its b-vectors along the image's axes as
        DIPY reads them from FSL's files.

    Returns
    -------
    Acquisition
        Its voxels are read when first asked for.

    Raises
    ------
    UserError
        When a file is missing, malformed, or belongs to another image.
    """
    path: Path | None = None
    if isinstance(dwi, str | Path):
        path = Path(dwi)
        image = open_nifti(path)
    else:
        image = dwi
    name = "acquisition" if path is None else str(path)
    if len(image.shape) != 4:
        remedy = Advice("give another image")
        raise UserError(f"has {len(image.shape)} axes, a DWI has four", name, remedy=remedy)
    if gradients is not None:
        bval, bvec = gradients.bvals, gradients.bvecs
    files = None if path is None else find_gradients(path, image)
    bval, bvec = one_table(bval, bvec)
    table = read_gradients(
        _existing(bval, None if files is None else files.bval, "bval", name),
        _existing(bvec, None if files is None else files.bvec, "bvec", name),
        image.affine,
        image.shape[3],
    )
    notes = () if files is None or bvec is not None or not files.note else (files.note,)
    lattice = lattice_of(image)
    if mask is None and path is not None:
        found = look_for_mask(path, lattice)
        others = found.passed_over
        return Acquisition(image, table, found.path, path, notes=notes, other_masks=others)
    if mask is None or isinstance(mask, str | Path):
        return Acquisition(image, table, None if mask is None else Path(mask), path, notes=notes)
    if isinstance(mask, np.ndarray):
        inside = check_mask(mask, lattice, "mask").inside
    else:
        inside = check_mask(np.asarray(mask.dataobj), lattice, "mask", mask.affine).inside
    return Acquisition(image, table, None, path, inside, notes)


def _existing(given: Table | None, beside: Path | None, field: str, name: str) -> Table:
    """Give a gradient table that is there: the given one, else the file beside the image."""
    table = beside if given is None else given
    if table is None:
        raise UserError(f"has no {field}", name, field, Give(field))
    if isinstance(table, str | Path) and not Path(table).exists():
        remedy = either(Advice("put it beside the image"), Give(field))
        raise UserError("is missing", table, field, remedy)
    return table
