"""The motion, rigid or affine, between two scans of one head.

Co-registered scans are never quite aligned, and a network learns the remaining motion as if it were
a difference between scanners. The image compared is the direction-averaged, b0-normalised signal:
T2, proton density and coil sensitivity cancel in it. Its logarithm is the mean diffusivity times
the b-value, so platforms differ by little more than a gain (of the b-value, which varies over the
head with the gradient coils) and an offset, which are estimated along with the motion.

Least squares on this image are nearer to the truth than mutual information, and never failed where
DIPY's `AffineRegistration` did (`benchmarks/alignment.py`).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.linalg import expm
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import Shell
from napari_msp.data.lattice import Lattice, scanner_points, smooth_in_mask
from napari_msp.data.masks import (
    MOST_APART,
    NOT_REGISTERED,
    NotRegistered,
    centres_apart,
)
from napari_msp.errors import Advice, UserError
from napari_msp.signal.channels import GridImage
from napari_msp.signal.sh_image import SHImage

SMOOTHING = 0.5
"""Gaussian smoothing before comparing, as a multiple of the coarser voxel size (our choice); it
makes the point spreads of both scans more similar."""

COARSE_SMOOTHING = 1.5
"""Smoothing of the first pass, which widens the range from which the second one converges."""

LEAST_WEIGHT = 0.75
"""Share of the smoothing that must come from the brain for a voxel to be compared (our choice)."""

LEAST_RATIO = 0.02
"""Floor of S/S0 before the logarithm; free water at b = 1200 is near 0.03."""

LEAST_VOXELS = 500
"""Number of voxels that both brains must share: six parameters need more than a few (ours)."""

MOST_VOXELS = 40_000
"""Largest number of voxels compared; more take time and add no accuracy (our choice)."""

SURE = 0.95
"""Correlation from which two scans count as one head: the first start is trusted and no other one
tried (our choice: simulated scans reach 0.98 to 0.99 on one head and 0.87 to 0.94 on two; parts of
a real one 0.97 after other smoothing, 0.95 after a stretch by 6 %)."""

SEARCH_SMOOTHING = 3.0
"""Smoothing while many starts are compared, as a multiple of the coarser voxel size."""

SEARCH_TURN = 25.0
"""Angle in degrees by which starts are turned about each axis, in both directions (our choice)."""

SEARCH_VOXELS = 2000
"""Number of voxels in which starts are compared."""

STARTS = 3
"""Number of best starts that are refined to the end (our choice)."""

LEAST_OVERLAP = 0.5
"""Share of the smaller brain that must overlap the other brain in a start (our choice)."""

MISALIGNMENT_LIMIT = 0.5
"""Mean displacement above which a warning is issued (our choice), in voxels of the input, or of a
prediction that is compared: see `Displacement.in_voxels`."""

LEAST_CORRELATION = 0.9
"""Correlation of two aligned scans below which the motion is meaningless (our choice)."""

QUICK = 40
"""Voxels along an axis that suffice for a quick position, to a tenth of a voxel (our choice)."""

Freedom = Literal["rigid", "affine"]
"""Degrees of freedom: shift and turn; or stretch and shear, too."""

MOTION = {"rigid": 6, "affine": 12}
"""Parameters of a motion: shift in mm, rotation vector in radians, logarithm of the stretch."""

PARAMETER_SCALE = np.array([1.0, 1.0, 1.0, 0.02, 0.02, 0.02, *[0.02] * 6])
"""Changes of parameters with like effects: 0.02 rad move a point 50 mm from the centre by 1 mm."""

GAIN_REACH = 50.0
"""Distance in mm over which the gain changes by its slope: half a brain."""


@dataclass(frozen=True, eq=False)
class BrainImage:
    """The images of a head from which its position is measured.

    `weighted` and `b0` are (X, Y, Z) direction averages of a shell and of b=0, valid in the mask
    only.
    """

    weighted: FloatArray
    b0: FloatArray
    mask: MaskArray
    lattice: Lattice

    @property
    def values(self) -> FloatArray:
        """(X, Y, Z) -log of S/S0, b times the mean diffusivity; 0 outside the mask."""
        ratio = np.divide(self.weighted, self.b0, out=np.ones_like(self.b0), where=self.mask)
        return np.asarray(-np.log(np.clip(ratio, LEAST_RATIO, 1.0)))

    @property
    def points(self) -> FloatArray:
        """(N, 3) scanner coordinates of the mask's voxels, in mm."""
        return scanner_points(self.mask, self.lattice.affine)


@dataclass(frozen=True, eq=False)
class Displacement:
    """A motion of scanner coordinates, x → R S (x - c) + c + t.

    Attributes
    ----------
    rotation
        (3, 3) proper rotation R.
    shift
        (3,) shift at the centre, in mm.
    centre
        (3,) scanner coordinates in mm: the centre of the fixed brain.
    mean
        Distance in mm by which it moves the fixed brain's voxels, on average.
    correlation
        Pearson's r of the smoothed images once the motion is undone: low if the scans are not of
        one head, or not of similar contrast; then the motion is meaningless.
    stretch
        (3, 3) symmetric S; the identity for a rigid motion.
    """

    rotation: FloatArray
    shift: FloatArray
    centre: FloatArray
    mean: float
    correlation: float
    stretch: FloatArray = field(default_factory=lambda: np.eye(3))

    @property
    def angle(self) -> float:
        """Angle of the rotation in degrees."""
        return float(np.degrees(Rotation.from_matrix(self.rotation).magnitude()))

    def in_voxels(self, lattice: Lattice) -> float:
        """Return the mean distance in mean edges of a lattice's voxels."""
        return self.mean / float(lattice.voxel_sizes.mean())

    def too_far(self, lattice: Lattice) -> bool:
        """Return whether a head is too far from its place in an image on `lattice`."""
        alike = self.correlation >= LEAST_CORRELATION
        return alike and self.in_voxels(lattice) > MISALIGNMENT_LIMIT

    def lies(self, origin: str, lattice: Lattice, accuracy: str = "") -> str:
        """Write how far a head lies from its place in another image, called `origin`.

        Such as "lies 4.9 mm, 2.04 voxels, from ge_st on average (shift 3.1 mm, turn 4.0°)".
        """
        shift = float(np.linalg.norm(self.shift))
        return (
            f"lies {self.mean:.1f} mm, {self.in_voxels(lattice):.2f} voxels, from {origin} on "
            f"average (shift {shift:.1f} mm, turn {self.angle:.1f}°{accuracy})"
        )

    @property
    def matrix(self) -> FloatArray:
        """(4, 4) matrix of the motion, in scanner coordinates in mm."""
        linear = self.rotation @ self.stretch
        matrix = np.eye(4)
        matrix[:3, :3] = linear
        matrix[:3, 3] = self.centre + self.shift - linear @ self.centre
        return matrix

    def apply(self, points: FloatArray) -> FloatArray:
        """Move (N, 3) scanner points in mm."""
        linear = self.rotation @ self.stretch
        return np.asarray((points - self.centre) @ linear.T + self.centre + self.shift)

    def mean_over(self, points: FloatArray) -> float:
        """Return the mean distance in mm by which (N, 3) points move."""
        return float(np.linalg.norm(self.apply(points) - points, axis=1).mean())


def brain_image(acquisition: Acquisition, shell: Shell) -> BrainImage:
    """Average the directions of a shell."""
    total = np.zeros(acquisition.lattice.shape, dtype=np.float32)
    for volume in shell.volumes:  # one at a time: memory may not hold a copy of the whole shell
        total += acquisition.voxels[..., volume]
    mean = total / len(shell.volumes)
    return BrainImage(mean, acquisition.b0, acquisition.mask, acquisition.lattice)


def find_displacement(
    fixed: SHImage | GridImage, moving: SHImage | GridImage
) -> Displacement | None:
    """Estimate where the head of `fixed` lies in `moving`, like `estimate_displacement`.

    Large images are thinned first, so that it takes a second.

    Returns
    -------
    The displacement; None if it cannot be measured, as too little is shared.
    """
    brains = _quick_brain(fixed), _quick_brain(moving)
    if not all(each.mask.any() for each in brains):
        return None
    try:
        return estimate_displacement(*brains)
    except UserError:  # reported where the brains are aligned
        return None


def warn_if_beside(
    fixed: SHImage | GridImage, moving: SHImage | GridImage, whose: str, other: str
) -> None:
    """Warn if two scans of one head are not aligned to each other.

    Parameters
    ----------
    fixed
        Scan whose voxels are the unit of the distance, as the input's are for `check`.
    whose, other
        Names of the moving scan, such as "sub-01 on prisma_st", and of the fixed one, "ge_st".

    Warns
    -----
    NotRegistered
        Beyond `MISALIGNMENT_LIMIT`; or, if that cannot be measured, when the brains' centres are
        `MOST_APART` mm apart.
    """
    half = MISALIGNMENT_LIMIT / 2 * float(fixed.lattice.voxel_sizes.mean())
    brains = _quick_brain(fixed), _quick_brain(moving)
    if _lie_together(*brains, half):
        return
    found = find_displacement(fixed, moving)
    if found is None or found.correlation < LEAST_CORRELATION:
        apart = centres_apart(fixed.mask, fixed.lattice.affine, moving.mask, moving.lattice.affine)
        if apart <= MOST_APART:
            return
        said = f"its brain is {apart:.1f} mm from that on {other}: {NOT_REGISTERED}"
    elif not found.too_far(fixed.lattice):
        return
    else:
        lies = found.lies(other, fixed.lattice)
        said = f"it {lies}: networks learn this as a scanner difference; register the scans"
    warnings.warn(NotRegistered(said, whose), stacklevel=3)


def _quick_brain(image: SHImage | GridImage) -> BrainImage:
    """Make a brain image from the direction average, of all voxels or of some."""
    every = [max(1, round(count / QUICK)) for count in image.mask.shape]
    thin = tuple(slice(None, None, step) for step in every)
    mask = image.mask[thin]
    mean = image.coefficients[..., 0][thin] / np.sqrt(4 * np.pi)
    affine = image.lattice.affine @ np.diag([*every, 1.0])
    return BrainImage(mean, np.ones_like(mean), mask, Lattice.of(mask.shape, affine))


def _lie_together(fixed: BrainImage, moving: BrainImage, limit: float) -> bool:
    """Return whether one step of least squares shows that heads coincide; False proves nothing.

    It takes a tenth of the time of measuring the displacement.

    Parameters
    ----------
    limit
        Distance in mm, well below what matters: near 0 one step ends almost where many would.
    """
    if not (fixed.mask.any() and moving.mask.any()):
        return False
    size = float(max(fixed.lattice.voxel_sizes.max(), moving.lattice.voxel_sizes.max()))
    centre = fixed.points.mean(axis=0)
    pair = _Pair(fixed, moving, centre, COARSE_SMOOTHING * size, lambda: None)
    motion, correlation = pair.step()
    moved = Displacement(_rotation(motion), motion[:3], centre, 0.0, correlation)
    return correlation >= SURE and moved.mean_over(fixed.points) <= limit


def estimate_displacement(
    fixed: BrainImage,
    moving: BrainImage,
    freedom: Freedom = "rigid",
    poll: Callable[[], None] = lambda: None,
) -> Displacement:
    """Estimate where the head of `fixed` lies in `moving`.

    Least squares over motion, gain and offset, inside both brains, first on strongly and then on
    lightly smoothed images. If the result does not look like one head, other starts are tried:
    brains centre on centre, and turned.

    Parameters
    ----------
    fixed, moving
        Images of similar contrast, on any lattices.
    poll
        Called repeatedly; may raise, to stop.

    Returns
    -------
    Displacement
        A point p of the head in `fixed` lies at `apply(p)` in `moving`.

    Raises
    ------
    UserError
        When the brains share too little to compare, from every start.
    """
    size = float(max(fixed.lattice.voxel_sizes.max(), moving.lattice.voxel_sizes.max()))
    centre = fixed.points.mean(axis=0)
    coarse = _Pair(fixed, moving, centre, COARSE_SMOOTHING * size, poll)
    fine = _Pair(fixed, moving, centre, SMOOTHING * size, poll)

    def tried(starts: Iterable[FloatArray]) -> Iterator[tuple[FloatArray, float]]:
        for start in starts:
            with suppress(UserError):
                yield coarse.refine(start)

    found = list(tried([np.zeros(6)]))
    if not found or found[0][1] < SURE:
        search = _Pair(fixed, moving, centre, SEARCH_SMOOTHING * size, poll)
        found += tried(search.starts(moving.points.mean(axis=0) - centre))
    # Without any, the fine comparison raises the error.
    start = max(found, key=lambda each: each[1])[0] if found else np.zeros(6)
    motion, correlation = fine.refine(start)
    if freedom == "affine":
        motion, correlation = fine.refine(np.concatenate([motion, np.zeros(6)]))
    best = Displacement(_rotation(motion), motion[:3], centre, 0.0, correlation, _stretch(motion))
    return replace(best, mean=best.mean_over(fixed.points))


class _Pair:
    """Two heads, equally smoothed, that are compared under many motions.

    Parameters
    ----------
    centre
        (3,) fixed point of rotations, in mm.
    width
        Standard deviation of the smoothing, in mm.
    """

    def __init__(
        self,
        fixed: BrainImage,
        moving: BrainImage,
        centre: FloatArray,
        width: float,
        poll: Callable[[], None],
    ) -> None:
        target, inside = _smoothed(fixed, width)
        source, source_inside = _smoothed(moving, width)
        brains = (source_inside, moving.lattice), (inside, fixed.lattice)
        volumes = [mask.sum() * lattice.voxel_sizes.prod() for mask, lattice in brains]
        self.smaller = min(1.0, float(volumes[0] / max(volumes[1], 1.0)))
        points = scanner_points(inside, fixed.lattice.affine)
        self.every = 1 + len(points) // MOST_VOXELS
        self.points, self.wanted = points[:: self.every], target[inside][:: self.every]
        self.centre, self.poll = centre, poll
        self.splines = spline_filter(source, order=3, mode="mirror")
        self.inside = source_inside.astype(np.float32)
        self.to_voxel = np.linalg.inv(moving.lattice.affine)

    def refine(self, start: FloatArray) -> tuple[FloatArray, float]:
        """Improve a motion; return it with the remaining correlation."""
        # The voxels are chosen once: otherwise the cost could fall by losing voxels.
        shared = self._shared(self.points, start)
        if shared.sum() * self.every < LEAST_VOXELS:
            remedy = Advice("check that both scans show one head and both masks show the brain")
            raise UserError("the brains overlap too little to compare", remedy=remedy)
        points, wanted = self.points[shared], self.wanted[shared]
        deviation = float(wanted.std())
        if deviation == 0:
            problem = "the brain is uniform, nothing shows its position"
            raise UserError(problem, remedy=Advice("check the image"))
        reach = (points - self.centre) / GAIN_REACH
        size = len(start)

        def residuals(parameters: FloatArray) -> FloatArray:
            self.poll()
            gain, offset, slope = parameters[size], parameters[size + 1], parameters[size + 2 :]
            values = self._values(points, parameters[:size])
            return np.asarray(((gain + reach @ slope) * values + offset - wanted) / deviation)

        result = least_squares(
            residuals,
            np.concatenate([start, [1.0, 0.0, 0.0, 0.0, 0.0]]),
            x_scale=np.concatenate([PARAMETER_SCALE[:size], np.ones(5)]),
            loss="soft_l1",
            max_nfev=30,
        )
        found: FloatArray = result.x[:size]
        return found, _correlation(self._values(points, found), wanted)

    def step(self) -> tuple[FloatArray, float]:
        """Return the motion after one step of least squares, and the correlation before it."""
        still = np.zeros(MOTION["rigid"])
        thin = slice(None, None, 1 + len(self.points) // SEARCH_VOXELS)
        shared = self._shared(self.points[thin], still)
        points, wanted = self.points[thin][shared], self.wanted[thin][shared]
        if shared.sum() * self.every * thin.step < LEAST_VOXELS:
            return still, 0.0
        values = self._values(points, still)
        steps = 0.1 * np.diag(PARAMETER_SCALE[: len(still)])
        slopes = [(self._values(points, each) - values) / each.sum() for each in steps]
        lit = values[:, None] * np.column_stack([np.ones(len(points)), points - self.centre])
        design = np.column_stack([*slopes, lit, np.ones(len(points))])
        solution = np.linalg.lstsq(design, wanted - values, rcond=None)[0]
        return solution[: len(still)], _correlation(values, wanted)

    def starts(self, shift: FloatArray) -> list[FloatArray]:
        """Return the likeliest motions to start from, the best first.

        `shift` is (3,), from the fixed brain's centre to the moving one's, in mm.
        """
        turns = np.radians(SEARCH_TURN) * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
        thin = slice(None, None, 1 + len(self.points) // SEARCH_VOXELS)
        points, wanted = self.points[thin], self.wanted[thin]
        scored = []
        for moved in (np.zeros(3), shift):
            for turn in turns:
                self.poll()
                start = np.concatenate([moved, turn])
                shared = self._shared(points, start)
                if shared.sum() <= LEAST_OVERLAP * self.smaller * len(points):
                    continue
                score = _correlation(self._values(points[shared], start), wanted[shared])
                scored.append((score, start))
        scored.sort(key=lambda each: -each[0])
        return [start for _, start in scored[:STARTS]]

    def _at(self, points: FloatArray, motion: FloatArray) -> FloatArray:
        linear = _rotation(motion) @ _stretch(motion)
        moved = (points - self.centre) @ linear.T + self.centre + motion[:3]
        return np.asarray(self.to_voxel[:3, :3] @ moved.T + self.to_voxel[:3, 3:])

    def _shared(self, points: FloatArray, motion: FloatArray) -> MaskArray:
        return np.asarray(map_coordinates(self.inside, self._at(points, motion), order=1) > 0.99)

    def _values(self, points: FloatArray, motion: FloatArray) -> FloatArray:
        at = self._at(points, motion)
        found = map_coordinates(self.splines, at, order=3, mode="mirror", prefilter=False)
        return np.asarray(found)


def _smoothed(image: BrainImage, width: float) -> tuple[FloatArray, MaskArray]:
    """Smooth both signals between in-mask voxels only, so that no background leaks in.

    A point spread acts on signals, not on their ratio: if smoothed before the division, two scans
    of different sharpness become alike.

    Parameters
    ----------
    width
        Standard deviation in mm.

    Returns
    -------
    (X, Y, Z) float64, -log of S/S0, continued smoothly beyond the mask; and the mask without its
    outermost millimetres, where the smoothing had values on one side only.
    """
    deviations = width / image.lattice.voxel_sizes
    weighted, weight = smooth_in_mask(image.weighted.astype(float), image.mask, deviations)
    b0, _ = smooth_in_mask(image.b0.astype(float), image.mask, deviations)
    ratio = np.divide(weighted, b0, out=np.ones_like(b0), where=b0 > 0)
    return -np.log(np.clip(ratio, LEAST_RATIO, 1.0)), weight > LEAST_WEIGHT


def _correlation(values: FloatArray, wanted: FloatArray) -> float:
    """Return Pearson's r; 0 if one of them is uniform."""
    if len(values) < 2 or values.std() == 0 or wanted.std() == 0:
        return 0.0
    return float(np.corrcoef(values, wanted)[0, 1])


def _rotation(motion: FloatArray) -> FloatArray:
    return np.asarray(Rotation.from_rotvec(motion[3:6]).as_matrix())


def _stretch(motion: FloatArray) -> FloatArray:
    if len(motion) == MOTION["rigid"]:
        return np.eye(3)
    xx, yy, zz, xy, xz, yz = motion[6:]
    return np.asarray(expm(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])))
