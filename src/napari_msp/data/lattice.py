"""Voxel lattices: voxel order and grid axes, and the output lattices that follow from inputs.

Every network is node-aligned: a target of scale k turns n voxels of an axis into k·(n-1)+1, the
first voxel centre is shared and the spacing divided by k. Nothing else in the package may decide
where an output voxel lies.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Literal

import numpy as np
from nibabel.affines import voxel_sizes as nib_voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from napari_msp.arrays import AnyArray, FloatArray, IntArray, MaskArray, for_each_block
from napari_msp.errors import RunJob, UserError

SIZE_TOLERANCE = 0.02
"""Relative difference of voxel sizes that still counts as rounding (our choice)."""

POSITION_TOLERANCE = 0.05
"""Distance, in voxels, within which two voxel centres are one (our choice)."""

ON_IT = 1e-4
"""Distance, in voxels, within which a position is on a voxel: headers are rounded."""

PARALLEL = 1e-6
"""Lean of an axis over its length, in voxels, that still counts as parallel: rounding."""

CANONICAL = np.array([[0, 1], [1, 1], [2, 1]])
"""nibabel's code for axes that point right, anterior and superior."""


PLANES = 8
"""Number of an image's planes that a thread copies at a time."""


def direction_cosines(affine: FloatArray) -> FloatArray:
    """Return the orthogonal matrix whose columns are the voxel axes in scanner axes.

    Its determinant has the sign of the affine's. A sheared affine (after an affine registration,
    say) gives the nearest orthogonal matrix.
    """
    linear = np.asarray(affine, dtype=float)[:3, :3]
    left, _, right = np.linalg.svd(linear / np.linalg.norm(linear, axis=0))
    return np.asarray(left @ right)


def reorder(array: AnyArray, orientation: FloatArray) -> AnyArray:
    """Permute and flip the first three axes by a nibabel orientation, into contiguous memory."""
    moved: AnyArray = apply_orientation(array, orientation)
    if moved.flags.c_contiguous:
        return moved
    result = np.empty_like(moved, order="C")

    def copy(planes: slice) -> None:
        result[planes] = moved[planes]

    for_each_block(copy, len(moved), PLANES)
    return result


def voxel_sizes(affine: FloatArray) -> FloatArray:
    """Return the voxel sizes in mm along the three voxel axes, shape (3,)."""
    return np.asarray(nib_voxel_sizes(affine))


@dataclass(frozen=True, eq=False)
class Lattice:
    """A regular grid of voxel centres.

    Attributes
    ----------
    affine
        (4, 4) voxel-to-scanner affine in mm.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    @classmethod
    def of(cls, shape: Iterable[int], affine: FloatArray) -> "Lattice":
        """Return the lattice of an image's first three axes; missing ones have length 1."""
        x, y, z = (*map(int, shape), 1, 1)[:3]
        return cls((x, y, z), affine)

    @cached_property
    def voxel_sizes(self) -> FloatArray:
        """(3,) spacing in mm."""
        return voxel_sizes(self.affine)

    @property
    def isotropic(self) -> bool:
        """Whether voxels are cubes, but for rounding."""
        sizes = self.voxel_sizes
        return bool(np.ptp(sizes) <= SIZE_TOLERANCE * sizes.mean())

    def has_voxels_of(self, size: float | FloatArray) -> bool:
        """Return whether voxels have this size in mm, or (3,) sizes, but for rounding."""
        return bool(np.abs(self.voxel_sizes / size - 1).max() <= SIZE_TOLERANCE)

    @property
    def edges(self) -> str:
        """Voxel sizes as text, such as "2.00 × 2.00 × 4.00 mm"."""
        return " × ".join(f"{size:.2f}" for size in self.voxel_sizes) + " mm"

    @property
    def size_in_words(self) -> str:
        """One edge of cubes, such as "2.40 mm"; else all edges."""
        return f"{self.voxel_sizes.mean():.2f} mm" if self.isotropic else self.edges

    @cached_property
    def canonical(self) -> "Lattice":
        """The same voxels in closest-canonical (RAS) order, the order in which networks see images.

        Convolutions act along voxel axes, so the order must not depend on the file.
        """
        stored = io_orientation(self.affine)
        lengths = dict(zip(stored[:, 0], self.shape, strict=True))
        affine = self.affine @ inv_ornt_aff(stored, self.shape)
        return Lattice((lengths[0], lengths[1], lengths[2]), affine)

    def to_canonical(self, array: AnyArray) -> AnyArray:
        """Reorder the first three axes from stored to canonical order."""
        return reorder(array, io_orientation(self.affine))

    def to_stored(self, array: AnyArray) -> AnyArray:
        """Reorder the first three axes from canonical to stored order."""
        return reorder(array, ornt_transform(CANONICAL, io_orientation(self.affine)))

    def refined(self, scale: int) -> "Lattice":
        """Return the node-aligned lattice with `scale` times the density.

        >>> Lattice((11, 11, 11), np.eye(4)).refined(2).shape
        (21, 21, 21)
        """
        shape = (scale * (n - 1) + 1 for n in self.shape)
        return Lattice.of(shape, self.affine @ np.diag([1 / scale] * 3 + [1.0]))

    def __repr__(self) -> str:
        shape, sizes = " × ".join(map(str, self.shape)), sizes_text(self.voxel_sizes)
        return f"<Lattice of {shape} voxels of {sizes} mm>"

    def matches(self, other: "Lattice") -> bool:
        """Return whether both have the same voxels, to within `POSITION_TOLERANCE`."""
        return self.shape == other.shape and self.offset_to(other) <= POSITION_TOLERANCE

    def offset_to(self, other: "Lattice") -> float:
        """Return the largest distance between equal voxel indices at the corners, in own voxels."""
        corners = self.corners()
        apart = (np.linalg.inv(self.affine) @ other.affine @ corners.T).T - corners
        return float(np.abs(apart[:, :3]).max())

    def corners(self) -> FloatArray:
        """Return (8, 4) voxel indices of the corners, each followed by a 1."""
        corners = np.array(list(np.ndindex(2, 2, 2)), dtype=float) * (np.array(self.shape) - 1)
        return np.column_stack([corners, np.ones(8)])

    def scaled_to(self, size: float, *, covering: bool = False) -> "Lattice":
        """Return an isotropic lattice of `size` mm over the same extent, sharing the first centre.

        The last centre lies at or before the old last one, so no voxel is extrapolated; with
        `covering`, at or behind it, so that all old centres are covered.
        """
        steps = (np.array(self.shape) - 1) * self.voxel_sizes / size
        whole = np.ceil(steps - ON_IT) if covering else np.floor(steps + ON_IT)
        return Lattice.of(whole + 1, self.affine @ np.diag([*(size / self.voxel_sizes), 1.0]))


def sizes_text(sizes: FloatArray) -> str:
    """Write voxel sizes, such as "2 × 2 × 2.5"."""
    return " × ".join(f"{size:g}" for size in np.round(sizes.astype(float), 3))


def how_far_apart(first: Lattice, second: Lattice) -> str:
    """Write how far voxels of the same index are apart on two lattices; empty for mirror images.

    Such as "up to 11.0 mm and 20.0°, voxels 2 × 2 × 2 against 2 × 2 × 3 mm".
    """
    turn = direction_cosines(first.affine) @ direction_cosines(second.affine).T
    if np.linalg.det(turn) < 0:
        return ""
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    corners = first.corners()
    apart = np.linalg.norm(((first.affine - second.affine) @ corners.T)[:3], axis=0).max()
    sizes = sizes_text(first.voxel_sizes), sizes_text(second.voxel_sizes)
    spacing = f", voxels {sizes[0]} against {sizes[1]} mm" if sizes[0] != sizes[1] else ""
    return f"up to {apart:.1f} mm and {angle:.1f}°{spacing}"


def scale_between(coarse: FloatArray, fine: FloatArray, what: str) -> int:
    """Return the integer k by which the spacing of `fine` divides that of `coarse`.

    Parameters
    ----------
    coarse, fine
        (3,) voxel sizes in mm.
    what
        Name of the pair in the error, such as "ge_st to connectom_sa".

    Raises
    ------
    UserError
        When the ratio is not one whole number for all axes.
    """
    ratios = np.asarray(coarse, dtype=float) / np.asarray(fine, dtype=float)
    scale = round(float(ratios.mean()))
    if scale < 1 or np.abs(ratios / max(scale, 1) - 1).max() > SIZE_TOLERANCE:
        problem = (
            f"voxels are {sizes_text(np.asarray(fine))} mm, the input's "
            f"{sizes_text(np.asarray(coarse))} mm: not a whole number of times smaller"
        )
        remedy = RunJob("align", "bring the scans to voxels that fit", "resample")
        raise UserError(problem, what, remedy=remedy)
    return scale


def resample(array: FloatArray, source: Lattice, target: Lattice) -> FloatArray:
    """Interpolate linearly from one lattice to another; outside the source the result is 0.

    Parameters
    ----------
    array
        (X, Y, Z) or (X, Y, Z, C) values on `source`.

    Returns
    -------
    float32 array with the target's shape and the same channels.
    """
    if source.shape == target.shape and np.array_equal(source.affine, target.affine):
        return array.astype(np.float32)
    interpolated = _linearly(source, target)
    channels = array.reshape(*source.shape, -1)
    result = np.empty((*target.shape, channels.shape[-1]), dtype=np.float32)

    def fill(one: slice) -> None:
        result[..., one.start] = interpolated(channels[..., one.start])

    for_each_block(fill, channels.shape[-1], at_once=1)
    return result.reshape(*target.shape, *array.shape[3:])


def _linearly(source: Lattice, target: Lattice) -> Callable[[FloatArray], FloatArray]:
    """Return a function that interpolates (X, Y, Z) values linearly, per axis if axes agree."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    steps = to_source[:3, :3] * (np.array(target.shape) - 1)
    if np.abs(steps - np.diag(np.diag(steps))).max() > PARALLEL:
        points = voxel_coordinates(source, target)
        return partial(map_coordinates, coordinates=points, order=1, mode="grid-constant", cval=0.0)
    planes = [
        _rounded(to_source[axis, axis] * np.arange(length) + to_source[axis, 3])
        for axis, length in enumerate(target.shape)
    ]
    return partial(_along_axes, planes=planes)


def _along_axes(values: FloatArray, planes: Sequence[FloatArray]) -> FloatArray:
    """Interpolate (X, Y, Z) values along one axis after another, with 0 around them.

    Planes of the first axis are done one by one: besides the float32 result a thread needs the
    memory of a few planes.
    """
    result = np.empty([len(each) for each in planes], dtype=np.float32)

    @lru_cache(maxsize=2)
    def plane(x: int) -> FloatArray:
        if not 0 <= x < len(values):
            return np.zeros(result.shape[1:])
        return _along(_along(values[x].astype(float), planes[2], 1), planes[1], 0)

    positions = np.clip(planes[0], -1, len(values))
    for place, position in enumerate(positions):
        before = int(np.floor(position))
        share = position - before
        result[place] = plane(before) * (1 - share) + plane(before + 1) * share
    return result


def _along(values: FloatArray, positions: FloatArray, axis: int) -> FloatArray:
    """Interpolate (Y, Z) values along an axis, with 0 around them."""
    positions = np.clip(positions, -1, values.shape[axis])
    before = np.floor(positions).astype(int)
    share = (positions - before).reshape([-1 if each == axis else 1 for each in range(2)])
    # By hand, as `np.pad` takes longer than everything else here.
    padded = np.zeros([n + 3 if each == axis else n for each, n in enumerate(values.shape)])
    padded[(slice(None),) * axis + (slice(1, -2),)] = values
    between: FloatArray = padded.take(before + 1, axis) * (1 - share)
    between += padded.take(before + 2, axis) * share
    return between


FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian, in standard deviations."""


def averaging_widths(source: Lattice, target: Lattice) -> FloatArray:
    """Return the Gaussian that makes voxels as wide as coarser ones, (3,) deviations in voxels.

    Interpolation alone would pick single voxels, with all of their noise, and alias finer detail.
    Widths add as variances: FWHM² = target² - source². 0 along axes that do not become coarser.
    """
    steps = np.linalg.inv(source.affine) @ target.affine
    ratios = np.linalg.norm(steps[:3, :3], axis=1)
    coarser = ratios > 1 + SIZE_TOLERANCE
    return np.asarray(np.where(coarser, np.sqrt(np.maximum(ratios**2 - 1, 0)), 0) / FWHM)


def interpolate(array: FloatArray, source: Lattice, target: Lattice) -> FloatArray:
    """Interpolate by cubic splines from one lattice to another; outside the source the result is 0.

    Sharper than `resample`, but it may overshoot beside an edge.

    Parameters
    ----------
    array
        (X, Y, Z) or (X, Y, Z, C) on `source`.

    Returns
    -------
    float32 array with the target's shape and the same channels.
    """
    points = voxel_coordinates(source, target)
    last = np.array(source.shape).reshape(3, 1, 1, 1) - 1
    inside = ((points >= -0.5) & (points <= last + 0.5)).all(axis=0)
    channels = array.reshape(*source.shape, -1)
    result = np.zeros((*target.shape, channels.shape[-1]), dtype=np.float32)
    for channel in range(channels.shape[-1]):
        result[inside, channel] = map_coordinates(
            channels[..., channel], points[:, inside], order=3, mode="mirror"
        )
    return result.reshape(*target.shape, *array.shape[3:])


def resample_mask(mask: MaskArray, source: Lattice, target: Lattice) -> MaskArray:
    """Return for each target voxel the mask value of its nearest source voxel.

    A target voxel midway between two source voxels is inside when either is, so a mask and its
    mirror image are resampled alike.
    """
    return _nearly_inside(resample(mask.astype(np.float32), source, target))


def _nearly_inside(share: FloatArray) -> MaskArray:
    return share >= 0.5 - 1e-3


def resample_with_mask(
    array: FloatArray, mask: MaskArray, source: Lattice, target: Lattice
) -> tuple[FloatArray, MaskArray]:
    """Interpolate linearly between in-mask voxels only, so that no background leaks in.

    Before going to coarser voxels, finer ones are averaged, see `averaging_widths`.

    Parameters
    ----------
    array
        (X, Y, Z, C) on `source`.
    mask
        (X, Y, Z) on `source`.

    Returns
    -------
    The values on `target`, and the mask as `resample_mask` makes it.
    """
    weights = mask.astype(np.float32)
    total = resample(weights, source, target)
    widths = averaging_widths(source, target)
    if widths.any() and mask.any():
        array = smooth_in_mask(array.astype(np.float32, copy=False), mask, widths)[0]
    values = resample(array * weights[..., None], source, target)
    values /= np.maximum(total, 1e-6)[..., None]
    return values, _nearly_inside(total)


def interpolate_in_mask(
    array: FloatArray,
    mask: MaskArray,
    source: Lattice,
    target: Lattice,
    wanted: MaskArray,
    order: Literal[1, 3] = 3,
) -> FloatArray:
    """Interpolate by splines from in-mask voxels only, to all wanted voxels.

    Voxels outside the mask take the value of the nearest one inside, so that no background leaks
    in and no wanted voxel stays empty. Of several equally near ones it is the first in canonical
    order, however the image is stored.

    Parameters
    ----------
    array
        (X, Y, Z) or (X, Y, Z, C) on `source`.
    mask
        (X, Y, Z) on `source`; not empty.
    wanted
        (X, Y, Z) on `target`.
    order
        Order of the splines: 3, or 1 for linear interpolation, which never overshoots.

    Returns
    -------
    float32 array with the target's shape and the same channels; 0 where nothing was wanted.
    """
    array, mask = source.to_canonical(array), source.to_canonical(mask)
    wanted = target.to_canonical(wanted)
    source, here = source.canonical, target.canonical
    nearest = distance_transform_edt(
        ~mask, sampling=source.voxel_sizes, return_distances=False, return_indices=True
    )
    last = np.array(source.shape)[:, None] - 1
    points = np.clip(voxel_coordinates(source, here)[:, wanted], 0, last)
    channels = array.reshape(*source.shape, -1)
    result = np.zeros((*here.shape, channels.shape[-1]), dtype=np.float32)
    for channel in range(channels.shape[-1]):
        filled = channels[..., channel][tuple(nearest)]
        result[wanted, channel] = map_coordinates(filled, points, order=order, mode="mirror")
    return target.to_stored(result.reshape(*here.shape, *array.shape[3:]))


def smooth_in_mask(
    values: FloatArray, mask: MaskArray, width: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Smooth with a Gaussian between in-mask voxels only, so that no background leaks in.

    Parameters
    ----------
    values
        (X, Y, Z) or (X, Y, Z, C); each channel is smoothed by itself.
    width
        Standard deviation in voxels: one for all axes, or one per axis.

    Returns
    -------
    Smoothed values of the same shape, continued beyond the mask, far from it the mean inside; and
    the (X, Y, Z) share of the Gaussian that lies in the mask.
    """
    weight = gaussian_filter(mask.astype(values.dtype), width, mode="constant")
    channels = values.reshape(*mask.shape, -1)
    smoothed = np.empty_like(channels)

    def smooth(one: slice) -> None:
        channel = channels[..., one.start]
        mean = channel[mask].mean(dtype=float)
        offset = np.where(mask, channel - mean, 0).astype(values.dtype)
        spread = gaussian_filter(offset, width, mode="constant")
        # Far outside the weights vanish; the mean is used there.
        smoothed[..., one.start] = mean + spread / (weight + 1e-6)

    for_each_block(smooth, channels.shape[-1], 1)
    return smoothed.reshape(values.shape), weight


def voxel_coordinates(source: Lattice, target: Lattice) -> FloatArray:
    """Return (3, X, Y, Z) positions of the target's voxel centres in voxels of `source`."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    indices = np.indices(target.shape, dtype=float)
    # `@`, as tensordot and dot clear their result under Python's lock: a window would freeze.
    points: FloatArray = (to_source[:3, :3] @ indices.reshape(3, -1)).reshape(indices.shape)
    points += to_source[:3, 3].reshape(3, 1, 1, 1)
    return _rounded(points)


def _rounded(positions: FloatArray) -> FloatArray:
    """Snap positions to the voxel that they are at, lest rounding push one off the edge."""
    nearest = np.round(positions)
    return np.where(np.abs(positions - nearest) < ON_IT, nearest, positions)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest voxel of one lattice for each voxel of another: nothing is interpolated.

    (3, X, Y, Z) `indices` are clipped to the source; `inside` says where the source reaches.
    """

    indices: IntArray
    inside: MaskArray

    @classmethod
    def between(cls, source: Lattice, target: Lattice) -> "Nearest":
        """Find the nearest voxel of `source` for each voxel of `target`."""
        points = np.round(voxel_coordinates(source, target)).astype(int)
        kept = np.clip(points, 0, np.array(source.shape).reshape(3, 1, 1, 1) - 1)
        return cls(kept, np.asarray((kept == points).all(axis=0)))

    def take(self, values: AnyArray) -> AnyArray:
        """Return (X, Y, Z) or (X, Y, Z, C) source values on the target; 0 beyond the source."""
        x, y, z = self.indices
        taken: AnyArray = values[x, y, z]
        taken[~self.inside] = 0
        return taken


def scanner_points(mask: MaskArray, affine: FloatArray) -> FloatArray:
    """Return (N, 3) scanner coordinates of a mask's voxels in mm."""
    return np.asarray(np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3])
