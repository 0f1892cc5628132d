"""Motion between volumes: the position of the head in each volume of a scan, in mm and degrees.

Each volume is rigidly registered to its prediction from the other volumes of its shell (`slices`),
so that the contrast is the same; these are first moved to the head's usual position, iteratively,
like in eddy (Andersson 2016). Coarse, smooth images are used: fast, and accurate to a fraction of a
millimetre, to find volumes that moved, not to correct them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import (
    affine_transform,
    binary_dilation,
    gaussian_filter,
    map_coordinates,
    spline_filter,
)
from scipy.spatial.transform import Rotation

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.checking.slices import LEAST_SHARE, LEAST_VOXELS
from napari_msp.signal.noise import Group

COARSE = 4.5
"""Voxel size in mm to which smaller voxels are averaged (our choice)."""

FEWEST_VOXELS = 20
"""Smallest number of voxels that an axis keeps (our choice)."""

FEWEST_COARSE = 4
"""Coarse voxels along each axis below which motion is not measured (our choice)."""

SMOOTHING = 1.0
"""Standard deviation of the smoothing, in coarse voxels (our choice)."""

MOST_POINTS = 12000
"""Points at which two volumes are compared; more take time and add no accuracy."""

STEPS = 5
"""Gauss-Newton steps of one registration; they settle after three."""

PASSES = 6
"""Largest number of registrations to the still volumes, each without those that moved."""

STILL = 0.25
"""Displacement, in voxels, up to which a volume counts as still (our choice)."""

FAR = 0.6
"""Share of the largest displacement from which volumes are left out in one pass: the neighbours of
a moved volume seem to move by less than half as much (our choice)."""

KEPT_MOVING = 0.2
"""Share of moving volumes from which the still ones may be too few (our choice: up to a sixth of
moved volumes is found exactly)."""

STIFFNESS = (1000.0, 100.0, 100.0, 30.0, 10.0, 3.0)
"""Stiffness of successive fits for a head that kept moving: from nearly the mean of all directions
to one that follows their contrast (our choice)."""

CLEARLY = 0.85
"""Ratio of residuals, to those with still volumes, below which volumes moved back are believed (our
choice; measured: 0.3 to 0.73 where simulated heads kept moving, 0.96 where one lay still and the
fit of b = 3000 was worse than its noise)."""

MOST_GAIN = 2.0
"""Factor between a volume and its prediction from which they are not alike (our choice)."""

TINY = 1e-12
"""Small number that avoids division by zero in noise-free images."""

TOLERANCE = 4.0
"""Robust standard deviations beyond which residuals lose weight (our choice)."""

ERROR_SCALE = 5.0
"""Ratio of observed errors to standard errors, which treat smooth images' residuals as independent
(measured on simulated scans: 3 to 9 in median, five times more where the head kept moving in a
block of 14 slices)."""

SURE = 8.0
"""Multiple of its measurement error from which a displacement is a move, and counts in framewise
displacement. Clean simulated volumes seem to move by up to 2.5 errors at b = 1200, by up to 7.5 at
b = 3000 in a block of 14 slices (our choice)."""

HEAD_RADIUS = 50.0
"""Radius in mm of the sphere on which framewise displacement counts rotations (Power 2012)."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Position of the head in each volume, relative to its usual one in volumes of that kind.

    The only volume of its kind cannot be compared: its numbers are nan. The position of b=0
    relative to a shell is not measured, as contrasts differ by more than heads move.

    Attributes
    ----------
    shifts
        (N, 3) shifts in mm, at the brain's centre, in scanner axes.
    rotations
        (N, 3) rotation vectors in radians, in scanner axes.
    displacements
        (N,) mean distances in mm by which shift and rotation move the brain's voxels.
    errors
        (N,) displacements in mm that a volume that did not move may seem to have.
    framewise
        (N,) framewise displacement in mm from the previous volume: the sum of its absolute shifts
        and of its rotations on a sphere of 50 mm radius (Power 2012). Volumes displaced by less
        than `SURE` errors count as unmoved. nan for the first.
    poses
        (N, 4, 4) the same motions as matrices in scanner coordinates: from a point of the head in
        its usual position to its place in each volume.
    """

    shifts: FloatArray
    rotations: FloatArray
    displacements: FloatArray
    errors: FloatArray
    framewise: FloatArray
    poses: FloatArray

    @property
    def known_framewise(self) -> FloatArray:
        """(M,) framewise displacements of the volumes for which they are known."""
        return self.framewise[np.isfinite(self.framewise)]

    @property
    def lengths(self) -> FloatArray:
        """(N,) lengths of the shifts in mm."""
        return np.asarray(np.linalg.norm(self.shifts, axis=1))

    @property
    def angles(self) -> FloatArray:
        """(N,) angles of the rotations in degrees."""
        return np.asarray(np.degrees(np.linalg.norm(self.rotations, axis=1)))


class ThinSlices:
    """A scan averaged within its slices, for speed.

    Parameters
    ----------
    voxels
        (X, Y, Z, N) signal.
    groups
        All volumes, by kind.
    axis
        Axis along which slices are stacked.
    """

    def __init__(
        self,
        voxels: FloatArray,
        mask: MaskArray,
        affine: FloatArray,
        groups: Sequence[Group],
        axis: int,
    ) -> None:
        self.sizes: FloatArray = np.linalg.norm(affine[:3, :3], axis=0)
        factors = _factors(self.sizes, mask.shape)
        factors[axis] = 1
        volumes = [_averaged(voxels[..., each], factors) for each in range(voxels.shape[3])]
        self.values: FloatArray = np.stack(volumes, axis=-1)
        self.mask: MaskArray = _averaged(mask.astype(np.float32), factors) >= 0.5
        self.affine = _coarser(affine, factors)
        self.groups, self.axis = groups, axis

    def without(self, dropped: MaskArray) -> FloatArray:
        """Return (X, Y, Z, N) values with (K, N) slices replaced by predictions from others."""
        values = self.values.copy()
        slices = np.moveaxis(values, self.axis, 0)
        for group in self.groups:
            for row in np.flatnonzero(dropped[:, group.volumes].any(axis=1)):
                bad = dropped[row, group.volumes]
                expected = slices[row][..., group.volumes] @ group.others(~bad).T
                if np.isfinite(expected).all():
                    slices[row][..., group.volumes[bad]] = expected[..., bad]
        return values

    def gains(
        self, motion: Motion, volume: int, moved: MaskArray, dropped: MaskArray
    ) -> FloatArray:
        """Compare each slice of a moved volume with the others, moved likewise.

        Parameters
        ----------
        moved
            (N,) volumes that are not used for prediction.
        dropped
            (K, N) slices that are not used for prediction.

        Returns
        -------
        (K,) signal over prediction; nan where little brain is expected.
        """
        group = next(each for each in self.groups if volume in each.volumes)
        row = group.others(~moved[group.volumes])[list(group.volumes).index(volume)]
        expected = self.without(dropped)[..., group.volumes] @ row
        to = np.linalg.inv(self.affine) @ np.linalg.inv(motion.poses[volume]) @ self.affine
        there = affine_transform(expected, to[:3, :3], to[:3, 3], order=1, mode="constant")
        mask = self.mask.astype(np.float32)
        counted = affine_transform(mask, to[:3, :3], to[:3, 3], order=1, mode="constant") > 0.9
        other = tuple(each for each in range(3) if each != self.axis)
        counts = counted.sum(axis=other)
        own, expected = (
            np.where(counted, each, 0).sum(axis=other) for each in (self.values[..., volume], there)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            gains = own / expected
        enough = counts >= max(LEAST_VOXELS, LEAST_SHARE * counts.max())
        return np.asarray(np.where(enough, gains, np.nan))


def measure_motion(thin: ThinSlices, dropped: MaskArray) -> Motion:
    """Measure the head's motion from volume to volume.

    Parameters
    ----------
    dropped
        (K, N) slices that dropped out, which would look like motion.
    """
    coarse = _Coarse(thin, thin.without(dropped))
    series = coarse.smoothed()
    count = series.shape[3]
    if min(series.shape[:3]) < FEWEST_COARSE:
        nowhere = np.full((count, 3), np.nan)
        unknown = nowhere[:, 0]
        return Motion(nowhere, nowhere, unknown, unknown, unknown, _still(count))
    poses, errors = _still(count), np.full(count, np.nan)
    still = STILL * float(thin.sizes.mean())
    for group in thin.groups:
        at = group.volumes
        if len(at) > 1:
            poses[at], errors[at] = _poses(coarse, series[..., at], group, still)
    return _described(poses, errors, thin.groups, coarse)


def _still(count: int) -> FloatArray:
    return np.tile(np.eye(4), (count, 1, 1))


def _poses(
    coarse: "_Coarse", series: FloatArray, group: Group, limit: float
) -> tuple[FloatArray, FloatArray]:
    """Register each volume of a group to the others; return poses and their errors in mm.

    If few volumes moved, the still ones give the best predictions. If the head kept moving, hardly
    any are still, and predictions move along. Then volumes are moved back first; the result is used
    if its residual is clearly smaller.
    """
    splines = [spline_filter(each, mode="nearest") for each in np.moveaxis(series, -1, 0)]
    found = _by_still_volumes(coarse, series, splines, group, limit)
    away = coarse.distances(found.poses, found.poses) > limit
    if len(group.penalty) > 1 and away.mean() > KEPT_MOVING:
        other = _by_volumes_brought_back(coarse, splines, group)
        before, after = (_left(coarse, splines, group, each.poses) for each in (found, other))
        found = other if after < CLEARLY * before else found
    return found.poses, ERROR_SCALE * found.errors


@dataclass(frozen=True, eq=False)
class _Laid:
    """(N, 4, 4) poses of a group's volumes, and their (N,) standard errors in mm."""

    poses: FloatArray
    errors: FloatArray


def _by_still_volumes(
    coarse: "_Coarse", series: FloatArray, splines: Sequence[FloatArray], group: Group, limit: float
) -> _Laid:
    """Register volumes to predictions from still volumes.

    Volumes displaced by more than `limit` are no longer used for prediction, the furthest first, so
    that they do not affect others.
    """
    found = _Laid(_still(len(splines)), np.full(len(splines), np.inf))
    kept = np.ones(len(splines), dtype=bool)
    for _ in range(PASSES):
        expected = series @ group.others(kept).T.astype(np.float32)
        found = _laid(coarse, splines, found, expected, coarse.trust(series, expected, kept))
        distances = coarse.distances(found.poses, found.poses[kept])
        far = kept & (distances > max(limit, FAR * distances[kept].max()))
        room = int(kept.sum()) - group.fewest
        if not far.any() or room < 1:
            break
        furthest = np.argsort(np.where(far, -distances, np.inf))[: min(room, int(far.sum()))]
        kept[furthest] = False
    return found


def _by_volumes_brought_back(
    coarse: "_Coarse", splines: Sequence[FloatArray], group: Group
) -> _Laid:
    """Register volumes to predictions from the others, moved back to the head's usual position.

    A flexible fit takes motion that goes along with directions for contrast, a stiff one some
    contrast for motion: the first fits are stiff, and only the remainder is seen by the last ones.
    """
    found = _Laid(_still(len(splines)), np.full(len(splines), np.inf))
    kept = np.ones(len(splines), dtype=bool)
    for stiffness in STIFFNESS:
        back = coarse.brought_back(splines, found.poses)
        expected = back @ group.others(kept, stiffness).T.astype(np.float32)
        found = _laid(coarse, splines, found, expected, coarse.trust(back, expected, kept))
        poses = found.poses @ np.linalg.inv(coarse.usual(found.poses))
        found = _Laid(poses, found.errors)
        if np.isfinite(found.errors).sum() >= group.fewest:
            kept = np.isfinite(found.errors)
    return found


def _laid(
    coarse: "_Coarse",
    splines: Sequence[FloatArray],
    start: _Laid,
    expected: FloatArray,
    trust: FloatArray,
) -> _Laid:
    """Register each volume to its prediction, where there is one."""
    poses, errors = start.poses.copy(), start.errors.copy()
    for place in range(len(splines)):
        if np.isfinite(expected[..., place]).all():
            poses[place], errors[place] = coarse.register(
                splines[place], expected[..., place], poses[place], trust
            )
    return _Laid(poses, errors)


def _left(
    coarse: "_Coarse", splines: Sequence[FloatArray], group: Group, poses: FloatArray
) -> float:
    """Return the mean over volumes of their median difference from their predictions."""
    back = coarse.brought_back(splines, poses)
    apart = np.abs(back - back @ group.others().T.astype(np.float32))
    return float(np.median(apart[tuple(coarse.indices.T)], axis=0).mean())


def _described(
    poses: FloatArray, errors: FloatArray, groups: Sequence[Group], coarse: "_Coarse"
) -> Motion:
    """Express poses as numbers, relative to the usual pose of each kind of volume."""
    relative = poses.copy()
    distances = np.full(len(poses), np.nan)
    lone = np.zeros(len(poses), dtype=bool)
    for group in groups:
        at, lone[group.volumes] = group.volumes, len(group.volumes) == 1
        relative[at] = poses[at] @ np.linalg.inv(coarse.usual(poses[at]))
        distances[at] = coarse.distances(poses[at], poses[at])
    rotations, shifts = _parameters(relative, coarse.centre)
    # Small moves that may not be real would add up.
    sure = np.where((distances < SURE * errors)[:, None, None], np.eye(4), relative)
    turns, moves = _parameters(sure[1:] @ np.linalg.inv(sure[:-1]), coarse.centre)
    framewise = np.full(len(poses), np.nan)
    framewise[1:] = np.abs(moves).sum(axis=1) + HEAD_RADIUS * np.abs(turns).sum(axis=1)
    # The only volume of its kind cannot be compared.
    for values in (shifts, rotations, distances, framewise, framewise[1:]):
        values[lone[: len(values)]] = np.nan
    return Motion(shifts, rotations, distances, errors, framewise, relative)


def _parameters(poses: FloatArray, centre: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (N, 3) rotation vectors in radians, and shifts of a centre in mm."""
    rotations = Rotation.from_matrix(poses[:, :3, :3]).as_rotvec()
    shifts: FloatArray = poses[:, :3, :3] @ centre + poses[:, :3, 3] - centre
    return rotations, shifts


def _pose(rotation: FloatArray, shift: FloatArray, centre: FloatArray) -> FloatArray:
    """Return the (4, 4) matrix of x → R (x - c) + c + t."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(rotation).as_matrix()
    pose[:3, 3] = centre + shift - pose[:3, :3] @ centre
    return pose


class _Coarse:
    """A scan on coarse voxels, and the data for registering its volumes."""

    def __init__(self, thin: ThinSlices, values: FloatArray) -> None:
        factors = np.ones(3, dtype=int)
        factors[thin.axis] = _factors(thin.sizes, thin.mask.shape)[thin.axis]
        self.values = _averaged(values, factors)
        self.affine = _coarser(thin.affine, factors)
        self.inside = binary_dilation(_averaged(thin.mask.astype(np.float32), factors) >= 0.5)
        interior = np.zeros_like(self.inside)
        edge = tuple(slice(1, -1) if count > 6 else slice(None) for count in interior.shape)
        interior[edge] = self.inside[edge]
        every = 1 + int(interior.sum()) // MOST_POINTS
        self.indices = np.argwhere(interior)[::every]
        self.points = self.indices @ self.affine[:3, :3].T + self.affine[:3, 3]
        self.centre: FloatArray = self.points.mean(axis=0)
        self.to_voxel = np.linalg.inv(self.affine)

    def smoothed(self) -> FloatArray:
        """Return (x, y, z, N) smooth volumes."""
        return gaussian_filter(self.values, (SMOOTHING,) * 3 + (0,), truncate=3.0, mode="nearest")

    def brought_back(self, splines: Sequence[FloatArray], poses: FloatArray) -> FloatArray:
        """Return (x, y, z, N) volumes moved to the head's usual position."""
        moves = self.to_voxel @ poses @ self.affine
        back = [
            affine_transform(each, to[:3, :3], to[:3, 3], order=3, mode="nearest", prefilter=False)
            for each, to in zip(splines, moves, strict=True)
        ]
        return np.stack(back, axis=-1)

    def trust(self, series: FloatArray, expected: FloatArray, kept: MaskArray) -> FloatArray:
        """Return a weight for each point: small where volumes are predicted badly."""
        at = tuple(self.indices.T)
        error = np.median(np.abs(series[at] - expected[at])[:, kept], axis=1)
        return np.asarray(1 / (error**2 + np.median(error) ** 2 + TINY))

    def usual(self, poses: FloatArray) -> FloatArray:
        """Return the (4, 4) median of poses."""
        rotations, shifts = _parameters(poses, self.centre)
        return _pose(np.median(rotations, axis=0), np.median(shifts, axis=0), self.centre)

    def distances(self, poses: FloatArray, like: FloatArray) -> FloatArray:
        """Return (N,) mean distances in mm of points moved by poses and by the median of others."""
        relative = poses @ np.linalg.inv(self.usual(like))
        moved = self.points @ (relative[:, :3, :3] - np.eye(3)).swapaxes(1, 2)
        return np.asarray(np.linalg.norm(moved + relative[:, None, :3, 3], axis=2).mean(axis=1))

    def register(
        self, volume: FloatArray, expected: FloatArray, pose: FloatArray, trust: FloatArray
    ) -> tuple[FloatArray, float]:
        """Improve a pose, so that the volume at `pose · x` agrees with the prediction at x.

        `volume` is given by the coefficients of its cubic spline. Least squares over six parameters
        of motion, a gain and an offset; outlying residuals count little.

        Returns
        -------
        The pose, and its standard error as mean displacement in mm; infinite if the two are not
        alike.
        """
        at, points = tuple(self.indices.T), self.points
        slopes = np.stack([np.gradient(expected, axis=axis)[at] for axis in range(3)], axis=1)
        gradient = slopes @ self.to_voxel[:3, :3]  # per mm, along scanner axes
        arms = points - self.centre
        columns: FloatArray = np.column_stack(
            [expected[at], np.ones(len(points)), -gradient, -np.cross(arms, gradient)]
        )
        scale = np.where(np.arange(8) == 1, 1.0, columns.std(axis=0))
        if not (scale > 0).all():
            return pose, np.inf
        columns = columns / scale
        last = np.array(volume.shape)[:, None] - 1
        for step in range(STEPS):
            to = self.to_voxel @ pose
            place = to[:3, :3] @ points.T + to[:3, 3:]
            seen = map_coordinates(volume, place, order=3, mode="nearest", prefilter=False)
            weights: FloatArray = trust * ((place > -0.5) & (place < last + 0.5)).all(axis=0)
            for _ in range(2 if step else 1):
                weighted = columns * weights[:, None]
                solution = np.linalg.lstsq(weighted.T @ columns, weighted.T @ seen, rcond=None)[0]
                residual = np.abs(seen - columns @ solution)
                limit = TOLERANCE * 1.4826 * np.median(residual) + TINY
                weights = weights * np.clip(1 - (residual / limit) ** 2, 0, None) ** 2
            found = solution / scale
            if not 1 / MOST_GAIN < found[0] < MOST_GAIN:
                return pose, np.inf
            change = found[2:] / found[0]
            pose = pose @ _pose(change[3:], change[:3], self.centre)
            if np.abs(change[:3]).max() < 0.005 and np.abs(change[3:]).max() < 1e-4:
                break
        # The variance of weighted least squares, from the actual residuals (White 1980).
        inverse = np.linalg.pinv(weighted.T @ columns)
        spread = weighted * residual[:, None]
        covariance = inverse @ (spread.T @ spread) @ inverse / np.outer(scale, scale)
        variances = np.diag(covariance)[2:] / found[0] ** 2
        levers = np.square(arms).mean(axis=0)
        return pose, float(np.sqrt(variances[:3].sum() + (levers.sum() - levers) @ variances[3:]))


def _factors(sizes: FloatArray, shape: Sequence[int]) -> IntArray:
    """Return how many voxels are averaged along each axis."""
    wanted = np.maximum(np.rint(COARSE / sizes), 1)
    room = np.maximum(np.array(shape) // FEWEST_VOXELS, 1)
    return np.asarray(np.minimum(wanted, room).astype(int))


def _averaged(values: FloatArray, factors: IntArray) -> FloatArray:
    """Average blocks of (X, Y, Z, ...) voxels; incomplete blocks are dropped."""
    counts = [count // factor for count, factor in zip(values.shape, factors, strict=False)]
    kept = tuple(slice(count * factor) for count, factor in zip(counts, factors, strict=True))
    blocks = [n for count, factor in zip(counts, factors, strict=True) for n in (count, factor)]
    return np.asarray(values[kept].reshape(*blocks, *values.shape[3:]).mean(axis=(1, 3, 5)))


def _coarser(affine: FloatArray, factors: IntArray) -> FloatArray:
    """Return the affine of averaged voxels."""
    coarser = affine @ np.diag([*factors, 1.0])
    coarser[:3, 3] += affine[:3, :3] @ ((factors - 1) / 2)
    return coarser
