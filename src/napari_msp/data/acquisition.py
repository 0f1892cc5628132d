"""One diffusion-weighted acquisition: image, gradient table and brain mask."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.bids import mask_sidecar, name_doubts, sidecar_path
from napari_msp.data.companions import find_gradients, look_for_mask
from napari_msp.data.contradictions import (
    deviation_doubt,
    file_doubts,
    find_deviation,
    header_doubts,
    no_b0,
    refuse_too_few,
    table_doubts,
    with_directionless,
    wrapped_doubt,
)
from napari_msp.data.gradient_files import (
    Table,
    existing_table,
    from_dipy,
    one_table,
    read_gradients,
    stated_b0,
)
from napari_msp.data.gradients import GradientTable, Shell, chosen_shell, chosen_shells
from napari_msp.data.lattice import Lattice
from napari_msp.data.masks import (
    BrainMask,
    background_inside,
    check_mask,
    coverage,
    estimate_mask,
    lost_in,
    read_mask,
    with_signal,
)
from napari_msp.data.nifti import as_nifti, check_four_axes, open_nifti, read_voxels, write_nifti
from napari_msp.data.volumes import OddVolume, clipped_doubt, in_words, judge_volumes
from napari_msp.errors import Advice, Doubt, UserError, collected, together
from napari_msp.files import write_json
from napari_msp.provenance import source_uri

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable as DipyGradientTable

MOST_WITHOUT_SIGNAL = 0.001
"""Share of in-mask voxels that may lack signal before a warning is issued (our choice)."""


class DoubtfulScan(Doubt):
    """A scan contradicts itself, or parts of it were left out."""


class EstimatedMask(Doubt):
    """A brain mask was made from the image, as none was found."""


class OtherMask(Doubt):
    """A mask that may be the scan's was not taken."""


class TableFound(Doubt):
    """The gradient table that was found may not be the one that the user expects."""


@dataclass(frozen=True, eq=False)
class Reading:
    """The voxels as read, without the volumes that are not what the table says.

    Attributes
    ----------
    voxels
        (X, Y, Z, N) float32 signal of the volumes in use, in scanner units. Voxels that are not
        finite count as 0 outside a given mask, where some tools write them.
    gradients, left_out
        Their table, and the other volumes.
    doubts
        Doubts about the volumes.
    deviation
        Text on an unused `grad_dev` (HCP) beside the image; empty if there is none.
    """

    voxels: FloatArray
    gradients: GradientTable
    left_out: tuple[OddVolume, ...]
    doubts: tuple[Doubt, ...]
    deviation: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Acquisition:
    """A DWI with its gradient table. Header and table are read at once, voxels on first use.

    A volume that is not what the table says (a trace image with b = 0, say) is left out: only
    `image` and `given_gradients` contain it. Which these are is known once the voxels are read.

    What is doubtful is collected in `doubts`; reading warns of nothing. Functions that compute with
    a scan, such as `fit_sh`, have it `tell` them.

    Attributes
    ----------
    image
        The 4-D NIfTI image, voxels in stored order.
    given_gradients
        The table: one row per volume of the image, directions in scanner (RAS+) axes.
    mask_path
        The mask's file; None: a mask is made, see `estimate_mask`.
    path
        The image's file; None for an acquisition made in memory.
    given_mask
        (X, Y, Z) mask that is in no file.
    first_doubts
        Doubts from before the voxels are read: about header, table and other files.
    every_volume
        Whether to keep all volumes, whatever they look like; odd ones are still reported.
    given_name
        Name for messages if there is no path.
    """

    image: nib.Nifti1Image
    given_gradients: GradientTable
    mask_path: Path | None = None
    path: Path | None = None
    given_mask: MaskArray | None = None
    first_doubts: tuple[Doubt, ...] = ()
    every_volume: bool = False
    given_name: str = "acquisition"
    # What reading it gave and its mask, if it was read before; and the doubts told, which all
    # acquisitions made from it share.
    _known: tuple[Reading, BrainMask] | None = None
    _told: set[str] = field(default_factory=set)

    def __repr__(self) -> str:
        size = " × ".join(map(str, self.image.shape[:3]))
        return f"<Acquisition {self.name}: {size} voxels, {self.given_gradients!r}>"

    def __post_init__(self) -> None:
        table = self.given_gradients
        if len(self.image.shape) != 4 or self.image.shape[3] != len(table.b_values):
            problem = f"has shape {self.image.shape} but the gradient table has {len(table)} rows"
            remedy = Advice("give a 4-D image and the gradient table that belongs to it")
            raise UserError(problem, self.name, "bval", remedy)
        if self.given_mask is not None:
            check_mask(np.asarray(self.given_mask), self.lattice, "mask")
        if len(table.b0_volumes) == 0:
            raise no_b0(table, self.name)

    @cached_property
    def name(self) -> str:
        """Name for messages: the file's path, else the given name."""
        return str(self.path) if self.path is not None else self.given_name

    @property
    def affine(self) -> FloatArray:
        """(4, 4) voxel-to-scanner affine in mm."""
        return np.asarray(self.image.affine)

    @cached_property
    def lattice(self) -> Lattice:
        """Lattice of its voxels, in stored order."""
        return Lattice.of(self.image.shape, self.affine)

    @property
    def has_mask(self) -> bool:
        """Whether a mask was given or found."""
        return self.mask_path is not None or self.given_mask is not None

    @property
    def voxels(self) -> FloatArray:
        """(X, Y, Z, N) float32 signal of the volumes in use, in scanner units."""
        return self.reading.voxels

    @property
    def gradients(self) -> GradientTable:
        """Gradient table of the volumes in use; reads the voxels.

        It is the table as given if they cannot be read.
        """
        try:
            return self.reading.gradients
        except UserError as error:
            if error.field is None:  # asking for the voxels raises it
                return self.given_gradients
            raise

    @property
    def volumes(self) -> IntArray:
        """Indices in the image of the volumes in use."""
        left_out = [each.volume for each in self.left_out]
        return np.setdiff1d(np.arange(self.image.shape[3]), left_out)

    @property
    def left_out(self) -> tuple[OddVolume, ...]:
        """Volumes that are not what the table says; reads the voxels."""
        return self.reading.left_out

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """All doubts and omissions; reads voxels and mask."""
        return (*self.first_doubts, *self.reading.doubts, *self.about_mask)

    def said(self, kind: type[Doubt] = DoubtfulScan) -> tuple[str, ...]:
        """Return its doubts of a kind, in words; reads voxels and mask."""
        return tuple(each.words for each in self.doubts if isinstance(each, kind))

    def tell(self, doubts: Iterable[Doubt] | None = None) -> None:
        """Warn of doubts, each once however often the scan is used.

        Parameters
        ----------
        doubts
            Some of its doubts; None: all except where its table was found.
        """
        if doubts is None:
            doubts = (each for each in self.doubts if not isinstance(each, TableFound))
        for doubt in doubts:
            if str(doubt) not in self._told:
                self.mark_told([doubt])
                warnings.warn(doubt, stacklevel=3)

    def mark_told(self, doubts: Iterable[Doubt]) -> None:
        """Let doubts count as told."""
        self._told.update(map(str, doubts))

    @cached_property
    def reading(self) -> Reading:
        """The voxels with their table, read once."""
        if self._known is not None:
            return self._known[0]
        table = self.given_gradients
        voxels = read_voxels(self.image, self.name)
        verdict = judge_volumes(voxels, table)
        odd = with_directionless(verdict.odd, table)
        of_values = wrapped_doubt(self.image, voxels), clipped_doubt(voxels, table)
        doubts = [*filter(None, of_values), *verdict.doubts]
        if odd and self.every_volume:
            doubts.insert(0, f"kept as asked: {in_words(odd, table)}")
            odd = []
        if odd:
            doubts.insert(0, f"left out: {in_words(odd, table)}")
            kept = np.setdiff1d(np.arange(len(table)), [each.volume for each in odd])
            refuse_too_few(table, kept, odd, self.name)
            for place, volume in enumerate(kept):  # in place: memory may not hold another copy
                voxels[..., place] = voxels[..., volume]
            voxels, table = voxels[..., : len(kept)], table.taken(kept)
        not_finite = ~np.isfinite(voxels).all(axis=-1)
        if not_finite.any():
            within = not_finite & self.brain.inside if self.has_mask else not_finite
            if within.any():
                first = ", ".join(map(str, np.argwhere(within)[0]))
                where = "in the mask " if self.has_mask else ""
                problem = f"has NaN or infinite voxels: {int(within.sum()):,} {where}(the first"
                remedy = Advice("repair the image, or give a mask that leaves them out")
                raise UserError(f"{problem} is {first})", self.name, remedy=remedy)
            voxels[not_finite] = 0
        deviation = ""
        path = None if self.path is None else find_deviation(self.path)
        if path is not None:
            # An estimated mask would need the voxels, which are only now being read.
            b0 = table.b0_volumes
            brain = self.brain.inside if self.has_mask else voxels[..., b0].mean(axis=-1) > 0
            deviation = deviation_doubt(path, self.lattice, brain, table)
        doubts += [deviation] if deviation else []
        doubtful = tuple(DoubtfulScan(doubt, self.name) for doubt in doubts)
        return Reading(voxels, table, tuple(odd), doubtful, deviation)

    def with_gradients(self, table: GradientTable) -> "Acquisition":
        """Return the same voxels and mask with another table for the volumes in use."""
        return replace(self, _known=(replace(self.reading, gradients=table), self.brain))

    def doubted(self, doubts: Sequence[str]) -> "Acquisition":
        """Return the same voxels and mask with more doubts, which count as told."""
        more = tuple(DoubtfulScan(doubt, self.name) for doubt in doubts)
        self.mark_told(more)
        reading = replace(self.reading, doubts=(*self.reading.doubts, *more))
        return replace(self, _known=(reading, self.brain))

    @cached_property
    def b0(self) -> FloatArray:
        """(X, Y, Z) mean of the b=0 volumes, in scanner units."""
        return np.asarray(self.voxels[..., self.gradients.b0_volumes].mean(axis=-1))

    @cached_property
    def brain(self) -> BrainMask:
        """The brain mask and its origin: given, found, or else estimated."""
        if self.given_mask is not None:
            inside = check_mask(np.asarray(self.given_mask), self.lattice, "mask").inside
            return BrainMask(inside, "given in memory")
        if self._known is not None:
            return self._known[1]
        if self.mask_path is not None:
            return read_mask(self.mask_path, self.lattice)
        weighted = [self.voxels[..., shell.volumes] for shell in self.gradients.shells]
        images = [self.b0, *(volumes.mean(axis=-1) for volumes in weighted)]
        return estimate_mask(images, self.affine, self.name)

    @cached_property
    def mask(self) -> MaskArray:
        """(X, Y, Z) brain mask without voxels that have no signal at b=0, or in all other volumes.

        Such voxels occur where the field of view ends or a slice was lost: nothing is known there.

        Raises
        ------
        UserError
            When no voxel is left.
        """
        table = self.gradients
        weighted = np.setdiff1d(np.arange(len(table)), table.b0_volumes)
        return with_signal(self.brain.inside, self.b0, self.voxels, weighted, self.name)

    @cached_property
    def about_mask(self) -> tuple[Doubt, ...]:
        """Doubts about the mask; an estimated one is always doubtful."""
        brain, name = self.brain, self.name
        lacking = 1 - float(self.mask.sum() / brain.inside.sum())
        silent = self.without_signal if lacking > MOST_WITHOUT_SIGNAL else ""
        found = [DoubtfulScan(silent, name)] if silent else []
        if brain.estimated:
            size, doubts = coverage(brain.inside, self.affine), (f"it {e}" for e in brain.doubts)
            made = "; ".join([f"has no brain mask, so one was {brain.origin}", size, *doubts])
            return (EstimatedMask(made, name), *found)
        if background := background_inside(self.mask, self.b0):
            whose = "is it this scan's brain mask?"
            found.append(DoubtfulScan(f"the mask {background}: {whose}", name))
        return tuple(found)

    @property
    def without_signal(self) -> str:
        """Text on how many voxels of the mask have no signal; empty if all have."""
        return lost_in(self.brain.inside, self.mask)

    def save_estimated_mask(self, folder: Path, stem: str) -> None:
        """Write an estimated mask as `<stem>_desc-brain_mask.nii.gz`, so that it can be looked at.

        A given or found mask is not written.
        """
        if self.brain.estimated:
            path = folder / f"{stem}_desc-brain_mask.nii.gz"
            write_nifti(path, self.brain.inside, self.affine, like=self.image)
            said = f"{self.brain.origin}: {coverage(self.brain.inside, self.affine)}"
            about = mask_sidecar(said, [source_uri(self.path)], **self.brain.sidecar)
            write_json(sidecar_path(path), about)

    @property
    def provenance(self) -> tuple[str, ...]:
        """Texts for a sidecar on the mask and gradient table that were used."""
        brain = self.brain
        mask = f"brain mask: {brain.origin}, {coverage(brain.inside, self.affine)}"
        said = (mask, self.without_signal, *self.said(OtherMask), *self.said(TableFound))
        return tuple(filter(None, said))

    def shell(self, b_value: float | None = None) -> Shell:
        """Choose a shell, to within 5 % of a b-value in s/mm²; None: the only shell.

        Raises
        ------
        UserError
            When no shell is near it, there are several to choose from, or b-values form no shells.
        """
        return chosen_shell(self.gradients, b_value, self.name)

    def shells(self, b_values: float | Sequence[float] | None = None) -> list[Shell]:
        """Choose shells, lowest b-value first, like `shell`, but no two the same; None: all."""
        return chosen_shells(self.gradients, b_values, self.name)

    def given_shell(self, b_value: float | None = None) -> Shell:
        """Choose a shell of the table as given, numbering the image's volumes; reads no voxels."""
        return chosen_shell(self.given_gradients, b_value, self.name)

    def given_shells(self, b_values: float | Sequence[float] | None = None) -> list[Shell]:
        """Choose shells of the table as given, see `given_shell`."""
        return chosen_shells(self.given_gradients, b_values, self.name)

    def directions(self, shell: Shell) -> FloatArray:
        """Return (M, 3) unit directions of a shell in scanner axes."""
        return self.gradients.directions[shell.volumes]


def load_acquisition(
    dwi: str | Path | nib.Nifti1Image,
    bval: Table | None = None,
    bvec: Table | None = None,
    mask: str | Path | MaskArray | nib.Nifti1Image | None = None,
    *,
    gradients: "DipyGradientTable | None" = None,
    b0_threshold: float | None = None,
) -> Acquisition:
    """Open a DWI with its gradient table and mask.

    Parameters
    ----------
    dwi
        4-D .nii or .nii.gz in any orientation, or an image in memory.
    bval, bvec
        FSL gradient files, or arrays like theirs: (N,) in s/mm², and (N, 3) or (3, N) along the
        image's axes; or an MRtrix3 table, given as either. None: searched, see
        `companions.find_gradients`.
    mask
        Brain mask on the image's lattice: a file, an image or an (X, Y, Z) array. None: searched,
        see `companions.look_for_mask`, else estimated, see `masks.estimate_mask`.
    gradients
        A DIPY gradient table instead of `bval` and `bvec`, with b-vectors along the image's axes,
        as DIPY reads them from FSL files.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0; None: 50, or what a prediction's sidecar says.

    Returns
    -------
    Acquisition
        The acquisition; its voxels are read on first use.

    Raises
    ------
    UserError
        When a file is missing, malformed, or belongs to another image.

    Warns
    -----
    DoubtfulScan
        When header or table contradict themselves. What the voxels show is told where they are
        used, such as by `fit_sh`.
    """
    opened = open_unmasked(dwi, bval, bvec, gradients=gradients, b0_threshold=b0_threshold)
    made = with_mask(opened, mask)
    made.tell(each for each in made.first_doubts if isinstance(each, DoubtfulScan))
    return made


def open_unmasked(
    dwi: str | Path | nib.Nifti1Image,
    bval: Table | None = None,
    bvec: Table | None = None,
    *,
    gradients: "DipyGradientTable | None" = None,
    b0_threshold: float | None = None,
) -> Acquisition:
    """Open a scan as `load_acquisition` does, but look for no mask and warn of nothing."""
    path = Path(dwi) if isinstance(dwi, str | Path) else None
    name = "acquisition" if path is None else str(path)
    image = as_nifti(dwi, name) if path is None else open_nifti(path)
    check_four_axes(image, name)
    if gradients is not None:
        if bval is not None or bvec is not None:
            remedy = Advice("give only one of them")
            raise UserError("has both a gradient table and b-values", name, remedy=remedy)
        bval, bvec = from_dipy(gradients, name)
    files = None if path is None else find_gradients(path, image)
    bval, bvec = one_table(bval, bvec)
    found = (None, None) if files is None else (files.bval, files.bvec)
    tables: list[Table] = []
    missing: list[UserError] = []
    for given, beside, parameter in zip((bval, bvec), found, ("bval", "bvec"), strict=True):
        with collected(missing):
            tables.append(existing_table(given, beside, parameter, name))
    if missing:
        raise together(missing)
    bval_table, bvec_table = tables
    if b0_threshold is None and path is not None:
        b0_threshold = stated_b0(path)
    table = read_gradients(bval_table, bvec_table, image.affine, image.shape[3], b0_threshold)
    of_image, of_table = [*header_doubts(image)], [*table_doubts(table)]
    if path is not None:
        of_image += name_doubts(path)
        of_table += file_doubts(path, table, image.affine, given=bval is not None)
    doubts: list[Doubt] = [DoubtfulScan(each, name, "path") for each in of_image]
    doubts += [DoubtfulScan(each, name, "bval") for each in of_table]
    if files is not None and files.note and bvec is None:
        doubts.append(TableFound(files.note, name, "bvec"))
    return Acquisition(image, table, path=path, first_doubts=tuple(doubts))


def with_mask(
    acquisition: Acquisition, mask: str | Path | MaskArray | nib.Nifti1Image | None = None
) -> Acquisition:
    """Return an acquisition with a mask, given or searched as by `load_acquisition`."""
    if mask is None and acquisition.path is not None:
        found = look_for_mask(acquisition.path, acquisition.lattice)
        others = (OtherMask(each, acquisition.name, "mask") for each in found.passed_over)
        doubts = (*acquisition.first_doubts, *others)
        return replace(acquisition, mask_path=found.path, first_doubts=doubts)
    if isinstance(mask, str | Path):
        return replace(acquisition, mask_path=Path(mask))
    if isinstance(mask, nib.spatialimages.SpatialImage):
        voxels = np.asarray(mask.dataobj)
        mask = check_mask(voxels, acquisition.lattice, "mask", mask.affine).inside
    return replace(acquisition, given_mask=mask)
