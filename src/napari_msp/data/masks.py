"""Brain masks: read as their tool meant them, estimated where there is none, checked for doubts."""

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
    label,
    median_filter,
)

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.bids import read_sidecar
from napari_msp.data.lattice import Lattice, how_far_apart, resample_mask, scanner_points
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import Advice, Doubt, Give, UserError

PROBABLE = 0.5
"""Probability from which a voxel is inside."""

ROUNDING = 1e-3
"""Amount by which interpolation may leave a mask's value below 0 or above 1."""

MOST_LABELS_OF_A_BYTE = 60
"""Number of distinct values, up to 100 or 255, above which they are grey levels: no atlas of labels
that low has so many (our choice; FreeSurfer's aseg has 45)."""

ESTIMATED_MARK = "Estimated"
"""Field of a mask's sidecar that says that this package estimated it."""

ESTIMATED = "estimated by Otsu's threshold on the mean b=0 and weighted images"

CLEANING = 2
"""Voxels eroded to separate the mask from eyes and scalp (MRtrix3's default)."""

HEAD_FIELD = 150.0
"""Field of view, in mm along each axis, from which it contains a whole brain (our choice)."""

BRAIN_VOLUMES = (600.0, 2200.0)
"""Range in ml of a whole adult head's brain mask (our choice)."""

MOST_SIGNAL_OUTSIDE = 0.25
"""Brain-like b=0 signal outside a mask, as a share of the mask, that eyes, scalp and muscle explain
(our choice: 0.02 to 0.04 around good masks, 0.9 and more around halves)."""

SMALLEST_OVERLAP = 0.5
"""Share of the smaller brain, within both fields of view, that must overlap with the other brain of
the same head (our choice)."""

MOST_APART = 5.0
"""Distance in mm that masks may leave between two centres of one head's brain (our choice).

Sessions have other lattices, but scans of one head are registered before they are compared.
"""

NOT_REGISTERED = "they are not registered, or one is cut off"


class NotRegistered(Doubt):
    """Two scans of one head are not aligned with each other."""


NEXT_TO_NONE = 1 / 15
"""Share of the bright voxels' b=0 signal below which a voxel is background (our choice)."""

LEAST_AIR = 0.01
"""Share of a field of view that must be air for outside signal to mean something (our choice)."""

MOST_BACKGROUND_INSIDE = 0.1
"""Share of a mask that may lack b=0 signal (our choice)."""

MOST_AT_A_SIDE = 0.05
"""Share of a side of the field of view that a whole head's mask may touch (our choice)."""


@dataclass(frozen=True, eq=False, repr=False)
class BrainMask:
    """A brain mask and its origin.

    Attributes
    ----------
    origin
        In words: a file and how its values were read, or how the mask was made.
    estimated
        Whether it was estimated from the image because none was found.
    doubts
        Doubts about an estimated mask, in words that follow "the mask".
    """

    inside: MaskArray
    origin: str
    estimated: bool = False
    doubts: tuple[str, ...] = ()

    @property
    def sidecar(self) -> dict[str, Any]:
        """Sidecar fields of an estimated mask; empty for any other."""
        doubts = [f"the brain mask, which was estimated, {each}" for each in self.doubts]
        return {ESTIMATED_MARK: True, "Warnings": doubts} if self.estimated else {}

    def __repr__(self) -> str:
        return f"<BrainMask of {int(self.inside.sum())} voxels, {self.origin}>"


# --- Reading ----------------------------------------------------------------------------------


def read_mask(path: str | Path, lattice: Lattice) -> BrainMask:
    """Read a mask that must lie on `lattice`, in any voxel order."""
    path = Path(path)
    image = open_nifti(path)
    brain = check_mask(read_voxels(image, path), lattice, str(path), image.affine)
    with suppress(UserError):  # an unreadable sidecar says nothing about the mask
        if read_sidecar(path).get(ESTIMATED_MARK) is True:
            return replace(brain, origin=f"{brain.origin}, which an earlier run estimated")
    return brain


def check_mask(
    values: FloatArray | MaskArray, lattice: Lattice, name: str, affine: FloatArray | None = None
) -> BrainMask:
    """Return a mask after checking that it belongs to an image.

    Values of 0 and another one are a mask; whole numbers are labels, of which all above 0 are
    inside where there is a 0; fractions up to 1 are probabilities, inside from 0.5 on.

    Parameters
    ----------
    values
        (X, Y, Z) mask, or with further axes of length 1.
    affine
        (4, 4) affine of the mask; None: the image's own.

    Raises
    ------
    UserError
        When it is on another lattice, is empty, or holds values that are none of these.
    """
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        problem = f"a mask has three axes, but this one has {values.ndim}"
        raise UserError(problem, name, "mask", Advice("give another mask"))
    own = Lattice.of(values.shape, lattice.affine if affine is None else affine)
    orientation = orientation_to(own, lattice)
    if orientation is None:
        raise _elsewhere(own, lattice, name)
    inside, meaning = _inside(np.asarray(values, dtype=np.float32), name)
    if not inside.any():
        raise UserError("no voxel is inside", name, "mask", Advice("give a mask of the brain"))
    moved: MaskArray = np.ascontiguousarray(apply_orientation(inside, orientation))
    return BrainMask(moved, f"{Path(name).name}{meaning}")


def _elsewhere(mask: Lattice, image: Lattice, name: str) -> UserError:
    """Return the error that a mask's voxels are not the image's, with a remedy.

    Tools that know only one of the image's two affines, or write one where it has none, make masks
    whose voxels are the image's though their header says otherwise: resampling such a mask would
    move it.
    """
    remedy, how = "resample it to the image", ": its header mirrors and moves it"
    if mask.shape != image.shape:
        shapes = (" × ".join(map(str, each.shape)) for each in (mask, image))
        how = f" ({' against '.join(shapes)})"
    elif apart := how_far_apart(mask, image):
        how = f": its header puts it {apart} away"
        if aff2axcodes(mask.affine) == aff2axcodes(image.affine):
            drawn = "if it was drawn on this image, copy the image's header to it"
            remedy = f"{drawn}, otherwise {remedy}"
    problem = f"its voxel grid is not the image's{how}"
    return UserError(problem, name, "mask", Advice(remedy))


def orientation_to(mask: Lattice, image: Lattice) -> FloatArray | None:
    """Return how to reorder voxels so that they become those of another lattice.

    Returns
    -------
    nibabel's orientation of the mask's axes along the image's; None where the two have other
    voxels.
    """
    orientation: FloatArray = io_orientation(np.linalg.inv(image.affine) @ mask.affine)
    if np.isnan(orientation).any():
        return None
    shape = (mask.shape[axis] for axis in np.argsort(orientation[:, 0]))
    moved = Lattice.of(shape, mask.affine @ inv_ornt_aff(orientation, mask.shape))
    return orientation if image.matches(moved) else None


def _inside(values: FloatArray, name: str) -> tuple[MaskArray, str]:
    """Return which voxels are inside, and in words how values were read; empty for 0 and 1."""
    if not np.isfinite(values).all():
        problem = "has NaN or infinite voxels"
        raise UserError(problem, name, "mask", Advice("write 0 where there is no brain"))
    above = values[values > ROUNDING]
    if values.min() < -ROUNDING:
        problem = f"has negative values (down to {values.min():g})"
    elif not above.size or above.min() == above.max():
        scaled = above.size and ROUNDING < above[0] < PROBABLE
        return values > ROUNDING, f" (0 and {above[0]:g}, which is inside)" if scaled else ""
    elif above.size == values.size and above.min() >= 1:
        reach = f"from {above.min():g} to {above.max():g}"
        problem = f"has values {reach} and no 0, so nothing is outside"
    elif (above == np.round(above)).all():
        distinct = np.unique(above).size
        if above.max() not in (100, 255) or distinct <= MOST_LABELS_OF_A_BYTE:
            return values > 0, f" (its {distinct} labels above 0 are inside)"
        problem = f"has {distinct} values up to {above.max():g}, which may be probabilities"
    elif above.max() <= 1 + ROUNDING:
        return values >= PROBABLE, f" (probabilities, inside from {PROBABLE:g} on)"
    else:
        problem = f"has values up to {above.max():g} that are neither labels nor probabilities"
    raise UserError(problem, name, "mask", Advice("write 1 inside and 0 outside"))


# --- Making -----------------------------------------------------------------------------------


def estimate_mask(images: Sequence[FloatArray], affine: FloatArray, name: str) -> BrainMask:
    """Estimate a brain mask from the images.

    Union of what is above Otsu's threshold in each image, as MRtrix3's `dwi2mask` does (Otsu
    1979, Tournier 2019): CSF is bright at b=0 and tissue in weighted images, so that no threshold
    can fall between the two in all of them. Then the largest piece, with thin bridges cut and
    holes filled.

    Parameters
    ----------
    images
        (X, Y, Z) mean of the b=0 volumes, and of each shell's volumes.
    """
    from skimage.filters import threshold_otsu

    found = np.zeros(images[0].shape, dtype=bool)
    for image in images:
        smooth = median_filter(image, 3)
        if smooth.min() < smooth.max():
            found |= smooth > float(threshold_otsu(smooth))
    found = median_filter(found, 3)
    # An object that the border cuts off continues beyond it.
    core = largest_piece(binary_erosion(found, iterations=CLEANING, border_value=True))
    found = binary_dilation(core, iterations=CLEANING + 1, mask=found) if core.any() else found
    found = binary_fill_holes(largest_piece(found))
    if not found.any():
        raise UserError("no brain was found in it", name, "mask", Give("mask", "a brain mask"))
    doubts = tuple(mask_doubts(found, images[0], affine))
    return BrainMask(found, ESTIMATED, estimated=True, doubts=doubts)


def largest_piece(mask: MaskArray) -> MaskArray:
    """Keep the largest connected piece of a mask."""
    pieces, count = label(mask)
    if count < 2:
        return mask
    return np.asarray(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax())


# --- Doubting ---------------------------------------------------------------------------------


def with_signal(
    inside: MaskArray, b0: FloatArray, voxels: FloatArray, weighted: IntArray, name: str
) -> MaskArray:
    """Return a mask without the voxels that have no signal at b=0, or in all weighted volumes.

    Parameters
    ----------
    b0, voxels, weighted
        (X, Y, Z) mean b=0 image, (X, Y, Z, N) signal, and the indices of its weighted volumes.
    name
        Name of the scan, for messages.

    Raises
    ------
    UserError
        When no voxel is left.
    """
    bright = inside & (b0 > 0)
    silent = bright.copy()
    for volume in weighted:
        silent &= ~(voxels[..., volume] > 0)
        if not silent.any():
            break
    mask: MaskArray = bright & ~silent if len(weighted) else bright
    if not mask.any():
        images = "weighted images have" if bright.any() else "b=0 image has"
        problem = f"its {images} no value above 0 inside the mask"
        raise UserError(problem, name, "mask", Advice("check the image and its mask"))
    return mask


def lost_in(inside: MaskArray, mask: MaskArray) -> str:
    """Write how many voxels `with_signal` left out of a mask; empty if none."""
    count, all_ = int((inside & ~mask).sum()), int(inside.sum())
    share = f"{100 * count / all_:.1f} %" if count > all_ / 2000 else "under 0.1 %"
    said = f"{count:,} of {all_:,} voxels of the mask ({share}) "
    return f"{said}have no signal and are left out" if count else ""


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
    """Return the voxels that are in the masks of both scans of one head.

    Parameters
    ----------
    mask, moved
        (X, Y, Z) masks on `lattice`; the second was resampled from `source`.
    whose, other, field
        Scan and comparison that the error mentions, and the parameter that it names.

    Raises
    ------
    UserError
        When the brains hardly overlap: they are not one head in one position.
    """
    inside = mask & moved
    # Only the part that both scans see counts: slabs of a head may share a few slices.
    seen = resample_mask(np.ones(source.shape, dtype=bool), source, lattice)
    share = inside.sum() / max(1, min(int((mask & seen).sum()), int(moved.sum())))
    if share < SMALLEST_OVERLAP:
        problem = f"its brain overlaps only {100 * share:.0f} % with {other}"
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
    """Write how large a mask is: "1,432 ml, 31 % of the field"."""
    return f"{volume_of(mask, affine):,.0f} ml, {100 * mask.mean():.0f} % of the field"


def mask_doubts(mask: MaskArray, b0: FloatArray, affine: FloatArray) -> Iterator[str]:
    """Yield what makes a mask implausible as a brain's, in words that follow "the mask".

    Volume and border are looked at where the field contains a whole head; slabs, small fields and
    little simulated heads have no usual volume, and are cut off by the field.
    """
    field = np.array(mask.shape) * Lattice((1, 1, 1), affine).voxel_sizes
    volume = volume_of(mask, affine)
    if (field >= HEAD_FIELD).all():
        low, high = BRAIN_VOLUMES
        if not low <= volume <= high:
            yield f"has {volume:,.0f} ml, but an adult brain has {low:,.0f} to {high:,.0f}"
        at_a_side = max(
            float(np.take(mask, end, axis=axis).mean())
            for axis in np.argsort(np.abs(affine[2, :3]))[:2]  # the neck may leave below
            for end in (0, -1)
        )
        if at_a_side > MOST_AT_A_SIDE:
            yield f"touches {100 * at_a_side:.0f} % of one side of the field of view"
    usual = float(np.median(b0[mask]))
    if usual <= 0:
        return  # a scan without b=0 signal is refused elsewhere
    outside = int((b0[~mask] > usual / 2).sum()) / int(mask.sum())
    # If the field of view shows no air at all, what else it shows is not known.
    if outside > MOST_SIGNAL_OUTSIDE and (b0 < NEXT_TO_NONE * usual).mean() > LEAST_AIR:
        yield f"leaves out a region as bright at b=0 as inside ({100 * outside:.0f} % of its size)"
    if background := background_inside(mask, b0):
        yield background


def background_inside(mask: MaskArray, b0: FloatArray) -> str:
    """Write how much background is in a mask, in words that follow "the mask"; empty if little."""
    bright = float(np.percentile(b0[mask], 95))
    share = float((b0[mask] < NEXT_TO_NONE * bright).mean())
    few = share <= MOST_BACKGROUND_INSIDE
    return "" if few else f"has almost no b=0 signal in {100 * share:.0f} % of its voxels"
