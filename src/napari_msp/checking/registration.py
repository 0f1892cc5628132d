"""Rigid displacement between two scans of one head.

Co-registered scans are never quite aligned, and a network learns the rest as if it were a
difference between scanners. What is left is measured on the direction-averaged, b0-normalised
signal: T2, proton density and coil sensitivity cancel in it. Its logarithm is the mean diffusivity
times the b-value, so that platforms differ by little more than a gain (of the b-value) and an
offset, which are estimated along with the motion.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import Shell
from napari_msp.data.lattice import Lattice
from napari_msp.data.masks import smooth_in_mask
from napari_msp.errors import Advice, UserError

SMOOTHING = 0.5
"""Gaussian smoothing before comparing, as a multiple of the coarser voxel size (our choice); it
brings the point spreads of both scans nearer to each other."""

COARSE_SMOOTHING = 1.5
"""Smoothing of the first pass, which widens the range from which the second one converges."""

LEAST_WEIGHT = 0.75
"""Share of the smoothing that must come from the brain where voxels are compared (our choice)."""

LEAST_RATIO = 0.02
"""Floor of S/S0 before the logarithm; free water at b = 1200 lies near 0.03."""

LEAST_VOXELS = 500
"""Voxels that both brains must share: six parameters want more than a few (our choice)."""

MOST_VOXELS = 40_000
"""Voxels compared at most; more add time and nothing to the accuracy (our choice)."""

PARAMETER_SCALE = np.array([1.0, 1.0, 1.0, 0.02, 0.02, 0.02, 1.0, 1.0])
"""Shift (mm), rotation (rad), gain and offset that matter alike: 0.02 rad moves a point 50 mm from
the centre by 1 mm."""


@dataclass(frozen=True, eq=False)
class BrainImage:
    """A scalar image of one head.

    Attributes
    ----------
    values
        (X, Y, Z), meaningful inside the mask only.
    mask
        (X, Y, Z).
    lattice
        Where the voxels lie.
    """

    values: FloatArray
    mask: MaskArray
    lattice: Lattice


@dataclass(frozen=True, eq=False)
class Displacement:
    """A rigid motion of scanner coordinates, x → R (x - c) + c + t.

    Attributes
    ----------
    rotation
        (3, 3) proper rotation.
    shift
        (3,) in mm, at the centre.
    centre
        (3,) scanner coordinates in mm: the centre of the fixed brain.
    mean
        Distance in mm by which it moves the fixed brain's voxels, averaged over them.
    correlation
        Pearson's r of the smoothed images once the motion is undone: low when the scans are not
        of one head, or not of like contrast, and then the motion means nothing.
    """

    rotation: FloatArray
    shift: FloatArray
    centre: FloatArray
    mean: float
    correlation: float

    @property
    def angle(self) -> float:
        """Angle of the rotation in degrees."""
        return float(np.degrees(Rotation.from_matrix(self.rotation).magnitude()))

    def apply(self, points: FloatArray) -> FloatArray:
        """Move (N, 3) scanner points in mm."""
        moved: FloatArray = (points - self.centre) @ self.rotation.T + self.centre + self.shift
        return moved


def mean_diffusion_image(acquisition: Acquisition, shell: Shell) -> BrainImage:
    """Give -log of the direction-averaged S/S0 of a shell, b times the mean diffusivity.

    Voxels without b=0 signal are left out of the mask.
    """
    total = np.zeros(acquisition.lattice.shape, dtype=np.float32)
    for volume in shell.volumes:  # one at a time: a copy of the whole shell may not fit
        total += acquisition.voxels[..., volume]
    mean = total / len(shell.volumes)
    mask = acquisition.mask & (acquisition.b0 > 0)
    ratio = np.divide(mean, acquisition.b0, out=np.ones_like(mean), where=mask)
    return BrainImage(-np.log(np.clip(ratio, LEAST_RATIO, 1.0)), mask, acquisition.lattice)


def estimate_displacement(fixed: BrainImage, moving: BrainImage) -> Displacement:
    """Estimate where the head of `fixed` lies in `moving`.

    Least squares over three rotations, three shifts, gain and offset, inside both brains, first
    on strongly and then on lightly smoothed images.

    Parameters
    ----------
    fixed, moving
        Images of like contrast, on any lattices.

    Returns
    -------
    Displacement
        A point p of the head in `fixed` lies at `apply(p)` in `moving`.

    Raises
    ------
    UserError
        When the brains share too little to compare.
    """
    motion: FloatArray = np.zeros(6)
    size = float(max(fixed.lattice.voxel_sizes.max(), moving.lattice.voxel_sizes.max()))
    brain = _scanner_points(fixed.lattice, fixed.mask)
    centre = brain.mean(axis=0)
    correlation = 0.0
    for smoothing in (COARSE_SMOOTHING, SMOOTHING):
        motion, correlation = _refine(motion, fixed, moving, centre, smoothing * size)
    found = Displacement(_rotation(motion), motion[:3], centre, 0.0, correlation)
    return replace(found, mean=float(np.linalg.norm(found.apply(brain) - brain, axis=1).mean()))


def _refine(
    motion: FloatArray, fixed: BrainImage, moving: BrainImage, centre: FloatArray, width: float
) -> tuple[FloatArray, float]:
    """Improve shift and rotation vector, (6,) in mm and radians, on images smoothed by `width` mm.

    Returns
    -------
    The motion, and the correlation that it leaves.
    """
    target, inside = _smoothed(fixed, width)
    source, source_inside = _smoothed(moving, width)
    coefficients = spline_filter(source, order=3, mode="mirror")
    points = _scanner_points(fixed.lattice, inside)
    every = 1 + len(points) // MOST_VOXELS
    points, wanted = points[::every], target[inside][::every]
    to_voxel = np.linalg.inv(moving.lattice.affine)

    def at(parameters: FloatArray) -> FloatArray:
        moved = (points - centre) @ _rotation(parameters).T + centre + parameters[:3]
        coordinates: FloatArray = to_voxel[:3, :3] @ moved.T + to_voxel[:3, 3:]
        return coordinates

    def moved_values(parameters: FloatArray) -> FloatArray:
        values: FloatArray = map_coordinates(
            coefficients, at(parameters), order=3, mode="mirror", prefilter=False
        )
        return values

    # The voxels that count are chosen once: otherwise the cost could fall by losing voxels.
    shared = map_coordinates(source_inside.astype(np.float32), at(motion), order=1) > 0.99
    if shared.sum() * every < LEAST_VOXELS:
        raise UserError(
            "the brains overlap too little to compare", remedy=Advice("register the scans first")
        )
    points, wanted = points[shared], wanted[shared]
    deviation = float(wanted.std())
    if deviation == 0:
        raise UserError(
            "the brain is uniform, nothing shows its position", remedy=Advice("check the image")
        )

    def residuals(parameters: FloatArray) -> FloatArray:
        gain, offset = parameters[6:]
        difference: FloatArray = (gain * moved_values(parameters) + offset - wanted) / deviation
        return difference

    start = np.concatenate([motion, [1.0, 0.0]])
    result = least_squares(residuals, start, x_scale=PARAMETER_SCALE, loss="soft_l1", max_nfev=30)
    found: FloatArray = result.x[:6]
    values = moved_values(found)
    correlation = float(np.corrcoef(values, wanted)[0, 1]) if values.std() > 0 else 0.0
    return found, correlation


def _smoothed(image: BrainImage, width: float) -> tuple[FloatArray, MaskArray]:
    """Smooth between in-mask voxels only, so that no background leaks in.

    Parameters
    ----------
    width
        Standard deviation in mm.

    Returns
    -------
    (X, Y, Z) float64, continued smoothly beyond the mask, and the mask without its outermost
    millimetres, in which the smoothing saw one side only.
    """
    deviations = width / image.lattice.voxel_sizes
    values, weight = smooth_in_mask(image.values.astype(float), image.mask, deviations)
    return values, weight > LEAST_WEIGHT


def _rotation(motion: FloatArray) -> FloatArray:
    matrix: FloatArray = Rotation.from_rotvec(motion[3:6]).as_matrix()
    return matrix


def _scanner_points(lattice: Lattice, mask: MaskArray) -> FloatArray:
    """(N, 3) scanner coordinates of a mask's voxels."""
    indices = np.argwhere(mask)
    points: FloatArray = indices @ lattice.affine[:3, :3].T + lattice.affine[:3, 3]
    return points
