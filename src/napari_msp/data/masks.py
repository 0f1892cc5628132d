"""Read a brain mask as its tool meant it, make one where there is none, and say what is odd."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    binary_fill_holes,
    gaussian_filter,
    label,
    median_filter,
)

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import read_sidecar
from napari_msp.data.lattice import Lattice, how_far_apart, resample_mask, scanner_points
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import Advice, Doubt, Give, UserError

PROBABLE = 0.5
"""From which probability on a voxel is inside."""

ROUNDING = 1e-3
"""How far below 0 or above 1 interpolation may leave a mask's value."""

MOST_LABELS_OF_A_BYTE = 60
"""More distinct values than this, up to 100 or 255, are grey levels: no atlas of so few labels is
that dense (our choice; FreeSurfer's aseg has 45)."""

ESTIMATED_MARK = "Estimated"
"""Field of a mask's sidecar: this package made it."""

ESTIMATED = "estimated by Otsu's threshold on the mean b=0 and weighted images"

CLEANING = 2
"""Voxels that are shaved off to cut the mask from eyes and scalp (MRtrix3's default)."""

HEAD_FIELD = 150.0
"""A field of view of at least this, in mm along every axis, contains a whole brain (our choice)."""

BRAIN_VOLUMES = (600.0, 2200.0)
"""Volumes in ml that the brain mask of a whole adult head may have (our choice)."""

MOST_SIGNAL_OUTSIDE = 0.25
"""Brain-like b=0 signal outside a mask, as a share of the mask, that eyes, scalp and muscle explain
(our choice: 0.02 to 0.04 round good masks, 0.9 and more round halves)."""

SMALLEST_OVERLAP = 0.5
"""Share of the smaller brain, in the field of view of both scans, that must lie in the other one of
a head (our choice)."""

MOST_APART = 5.0
"""Millimetres between the centres of two brains of one head that masks may leave (our choice).

Sessions have other lattices, but scans of one head are registered before they are compared.
"""

NOT_REGISTERED = "they are not registered, or one is cut off"


class NotRegistered(Doubt):
    """Two scans of one head do not lie on each other."""


NEXT_TO_NONE = 1 / 15
"""b=0 signal below this share of the bright voxels' is background (our choice)."""

LEAST_AIR = 0.01
"""Share of a field that must be air for signal outside the mask to mean something (our choice)."""

MOST_BACKGROUND_INSIDE = 0.1
"""Share of a mask that may lack b=0 signal (our choice)."""

MOST_AT_A_SIDE = 0.05
"""Share of a side of the field that the mask of a whole head may touch (our choice)."""


@dataclass(frozen=True, eq=False, repr=False)
class BrainMask:
    """Where there is brain, and how that is known.

    Attributes
    ----------
    origin
        In words: a file and how its values were read, or how it was made.
    estimated
        Whether it was made from the image for want of one.
    doubts
        What is odd about one that was made, in words that go on after "the mask".
    """

    inside: MaskArray
    origin: str
    estimated: bool = False
    doubts: tuple[str, ...] = ()

    @property
    def sidecar(self) -> dict[str, Any]:
        """What the sidecar of one that was made says of that; empty for any other."""
        doubts = [f"the brain mask, which was estimated, {each}" for each in self.doubts]
        return {ESTIMATED_MARK: True, "Warnings": doubts} if self.estimated else {}

    def __repr__(self) -> str:
        return f"<BrainMask of {int(self.inside.sum())} voxels, {self.origin}>"


# --- Reading ----------------------------------------------------------------------------------


def read_mask(path: str | Path, lattice: Lattice) -> BrainMask:
    """Read a mask that must lie on `lattice`, in whatever order its voxels are stored."""
    path = Path(path)
    image = open_nifti(path)
    brain = check_mask(read_voxels(image, path), lattice, str(path), image.affine)
    with suppress(UserError):  # a sidecar that cannot be read says nothing of the mask
        if read_sidecar(path).get(ESTIMATED_MARK) is True:
            return replace(brain, origin=f"{brain.origin}, which an earlier run estimated")
    return brain


def check_mask(
    values: FloatArray | MaskArray, lattice: Lattice, name: str, affine: FloatArray | None = None
) -> BrainMask:
    """Return where there is brain, after checking that a mask belongs to an image.

    Values of 0 and another one are a mask; whole numbers are labels, of which all above 0 are
    inside where there is a 0; fractions up to 1 are probabilities, inside from 0.5 on.

    Parameters
    ----------
    values
        (X, Y, Z), or with further axes of length 1.
    affine
        (4, 4) of the mask; None: the image's own.

    Raises
    ------
    UserError
        When it lies elsewhere, is empty, or holds values that are none of these.
    """
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise UserError(
            f"a mask has three axes, this has {values.ndim}", name, "mask", Advice("give another")
        )
    x, y, z = values.shape
    own = Lattice((x, y, z), lattice.affine if affine is None else affine)
    orientation = orientation_to(own, lattice)
    if orientation is None:
        raise _elsewhere(own, lattice, name)
    inside, meaning = _inside(np.asarray(values, dtype=np.float32), name)
    if not inside.any():
        raise UserError("no voxel is inside", name, "mask", Advice("give a mask of the brain"))
    moved: MaskArray = np.ascontiguousarray(apply_orientation(inside, orientation))
    return BrainMask(moved, f"{Path(name).name}{meaning}")


def _elsewhere(mask: Lattice, image: Lattice, name: str) -> UserError:
    """Say how a mask's voxels miss an image's, and what helps.

    Tools that know only one of the image's two affines, or write one where it has none, make masks
    whose voxels are the image's though their header says otherwise: resampling such a mask would
    move it.
    """
    remedy = "resample it to the image"
    if mask.shape != image.shape:
        shapes = (" × ".join(map(str, each.shape)) for each in (mask, image))
        problem = f"its voxels are not the image's ({' against '.join(shapes)})"
    elif apart := how_far_apart(mask, image):
        problem = f"its voxels are not the image's: as many, but by its header {apart} away"
        if aff2axcodes(mask.affine) == aff2axcodes(image.affine):
            remedy = f"if it was drawn on this image, copy the image's header to it, else {remedy}"
    else:
        problem = "its voxels are not the image's: by its header they are a mirror image elsewhere"
    return UserError(problem, name, "mask", Advice(remedy))


def orientation_to(mask: Lattice, image: Lattice) -> FloatArray | None:
    """Say how voxels are to be reordered so that they are another lattice's.

    Returns
    -------
    nibabel's orientation of the mask's axes along the image's; None where the two have other
    voxels.
    """
    orientation: FloatArray = io_orientation(np.linalg.inv(image.affine) @ mask.affine)
    if np.isnan(orientation).any():
        return None
    x, y, z = (mask.shape[axis] for axis in np.argsort(orientation[:, 0]))
    moved = Lattice((x, y, z), mask.affine @ inv_ornt_aff(orientation, mask.shape))
    return orientation if image.matches(moved) else None


def _inside(values: FloatArray, name: str) -> tuple[MaskArray, str]:
    """Say which values are inside, and in words how they were understood; nothing where usual."""
    if not np.isfinite(values).all():
        problem = "has voxels that are not finite"
        raise UserError(problem, name, "mask", Advice("write 0 where there is no brain"))
    if values.min() < -ROUNDING:
        problem = f"has negative values (down to {values.min():g})"
        raise UserError(problem, name, "mask", Advice("write 1 inside and 0 outside"))
    above = values[values > ROUNDING]
    if not above.size or above.min() == above.max():
        scaled = above.size and ROUNDING < above[0] < PROBABLE
        return values > ROUNDING, f" (0 and {above[0]:g}, which is inside)" if scaled else ""
    if above.size == values.size and above.min() >= 1:
        problem = f"has values from {above.min():g} to {above.max():g} and no 0, so nothing outside"
        raise UserError(problem, name, "mask", Advice("write 1 inside and 0 outside"))
    if (above == np.round(above)).all():
        distinct = np.unique(above).size
        if above.max() in (100, 255) and distinct > MOST_LABELS_OF_A_BYTE:
            problem = f"has {distinct} values up to {above.max():g}, which may be probabilities"
            raise UserError(problem, name, "mask", Advice("write 1 inside and 0 outside"))
        return values > 0, f" (its {distinct} labels above 0 are inside)"
    if above.max() <= 1 + ROUNDING:
        return values >= PROBABLE, f" (probabilities, inside from {PROBABLE:g} on)"
    problem = f"has values up to {above.max():g} that are neither labels nor probabilities"
    raise UserError(problem, name, "mask", Advice("write 1 inside and 0 outside"))


# --- Making -----------------------------------------------------------------------------------


def estimate_mask(images: Sequence[FloatArray], affine: FloatArray, name: str) -> BrainMask:
    """Segment the brain where there is no mask.

    Union of what is above Otsu's threshold in each image, as MRtrix3's `dwi2mask` does (Otsu
    1979, Tournier 2019): CSF is bright at b=0 and tissue in weighted images, so that no threshold
    can fall between the two in all of them. Then the largest piece, with thin bridges cut and
    holes filled.

    Parameters
    ----------
    images
        (X, Y, Z) mean of the b=0 volumes, and of each shell's.
    """
    from skimage.filters import threshold_otsu

    found = np.zeros(images[0].shape, dtype=bool)
    for image in images:
        smooth = median_filter(image, 3)
        if smooth.min() < smooth.max():
            found |= smooth > float(threshold_otsu(smooth))
    found = median_filter(found, 3)
    # What a border cuts off goes on beyond it.
    core = largest_piece(binary_erosion(found, iterations=CLEANING, border_value=True))
    found = binary_dilation(core, iterations=CLEANING + 1, mask=found) if core.any() else found
    found = binary_fill_holes(largest_piece(found))
    if not found.any():
        raise UserError("no brain was found in it", name, "mask", Give("mask", "one"))
    doubts = tuple(mask_doubts(found, images[0], affine))
    return BrainMask(found, ESTIMATED, estimated=True, doubts=doubts)


def largest_piece(mask: MaskArray) -> MaskArray:
    """Keep the largest connected piece of a mask."""
    pieces, count = label(mask)
    if count < 2:
        return mask
    largest: MaskArray = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return largest


# --- Doubting ---------------------------------------------------------------------------------


def volume_of(mask: MaskArray, affine: FloatArray) -> float:
    """Return the volume of a mask in ml."""
    return int(mask.sum()) * abs(float(np.linalg.det(affine[:3, :3]))) / 1000


def centres_apart(mask: MaskArray, affine: FloatArray, other: MaskArray, of: FloatArray) -> float:
    """Measure the distance between the centres of two brains in mm."""
    first, second = (scanner_points(*each).mean(axis=0) for each in ((mask, affine), (other, of)))
    return float(np.linalg.norm(first - second))


def common_mask(
    mask: MaskArray,
    lattice: Lattice,
    moved: MaskArray,
    source: Lattice,
    *,
    whose: str | Path,
    other: str,
    field: str | None = None,
) -> MaskArray:
    """Return the voxels in both masks of one head's scans.

    Parameters
    ----------
    mask, moved
        (X, Y, Z) on `lattice`; the second was brought there from `source`.
    whose, other, field
        Scan, what it is compared with, and parameter that the error names.

    Raises
    ------
    UserError
        When the brains hardly overlap: they are not one head in one position.
    """
    inside = mask & moved
    # Where one of them saw nothing nobody can tell: slabs of a head may share a few slices.
    seen = resample_mask(np.ones(source.shape, dtype=bool), source, lattice)
    share = inside.sum() / max(1, min(int((mask & seen).sum()), int(moved.sum())))
    if share < SMALLEST_OVERLAP:
        problem = f"its brain overlaps by {100 * share:.0f} % with {other}"
        remedy = Advice("give scans of one head, registered to each other")
        raise UserError(problem, whose, field, remedy)
    return inside


def dice(one: MaskArray, other: MaskArray) -> float:
    """Return the Dice overlap of two masks on one lattice: 1 if equal, nan if both are empty.

    Twice the shared voxels over the sum of both.
    """
    both = int(one.sum()) + int(other.sum())
    return 2 * float((one & other).sum()) / both if both else float("nan")


def coverage(mask: MaskArray, affine: FloatArray) -> str:
    """Say how large a mask is: "1,432 ml, 31 % of the field"."""
    return f"{volume_of(mask, affine):,.0f} ml, {100 * mask.mean():.0f} % of the field"


def mask_doubts(mask: MaskArray, b0: FloatArray, affine: FloatArray) -> Iterator[str]:
    """Say what makes a mask implausible as a brain's, in words that go on after "the mask".

    Volume and border are looked at where the field contains a whole head; slabs, small fields and
    little simulated heads have no usual volume, and are cut off by the field.
    """
    field = np.array(mask.shape) * Lattice((1, 1, 1), affine).voxel_sizes
    volume = volume_of(mask, affine)
    if (field >= HEAD_FIELD).all():
        low, high = BRAIN_VOLUMES
        if not low <= volume <= high:
            yield f"has {volume:,.0f} ml, an adult's brain {low:,.0f} to {high:,.0f}"
        at_a_side = max(
            float(np.take(mask, end, axis=axis).mean())
            for axis in np.argsort(np.abs(affine[2, :3]))[:2]  # the neck may leave below
            for end in (0, -1)
        )
        if at_a_side > MOST_AT_A_SIDE:
            yield f"touches {100 * at_a_side:.0f} % of a side of the field"
    usual = float(np.median(b0[mask]))
    if usual <= 0:
        return  # a scan without b=0 signal is refused elsewhere
    outside = int((b0[~mask] > usual / 2).sum()) / int(mask.sum())
    # Where the field shows no air at all, nobody can tell what else is in it.
    if outside > MOST_SIGNAL_OUTSIDE and (b0 < NEXT_TO_NONE * usual).mean() > LEAST_AIR:
        yield f"leaves out b=0 signal as strong as inside, {100 * outside:.0f} % of its own size"
    if background := background_inside(mask, b0):
        yield background


def background_inside(mask: MaskArray, b0: FloatArray) -> str:
    """Say how much background a mask contains, in words that go on after it; empty if little."""
    bright = float(np.percentile(b0[mask], 95))
    share = float((b0[mask] < NEXT_TO_NONE * bright).mean())
    few = share <= MOST_BACKGROUND_INSIDE
    return "" if few else f"contains {100 * share:.0f} % of voxels with next to no b=0 signal"


# --- Smoothing -------------------------------------------------------------------------------


def smooth_in_mask(
    values: FloatArray, mask: MaskArray, width: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Smooth between in-mask voxels only, by a Gaussian, so that no background leaks in.

    Parameters
    ----------
    width
        Standard deviation in voxels, one or one an axis.

    Returns
    -------
    smoothed
        (X, Y, Z), continued beyond the mask, and far from it the mean inside.
    weight
        (X, Y, Z) share of the Gaussian that lies in the mask.
    """
    mean = values[mask].mean(dtype=float)
    offset = np.where(mask, values - mean, 0).astype(values.dtype)
    weight = gaussian_filter(mask.astype(values.dtype), width, mode="constant")
    # Far outside the weights vanish; there the mean stands in.
    smoothed = mean + gaussian_filter(offset, width, mode="constant") / (weight + 1e-6)
    return smoothed.astype(values.dtype, copy=False), weight
