"""Subjects: heads that differ in shape and in tissue."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from napari_msp.arrays import FloatArray

WAVES = 10
"""Plane waves that make up a subject's deformation (our choice)."""

WAVELENGTHS = (55.0, 130.0)
"""Their wavelengths in mm: longer than a gyrus, shorter than a lobe is long (our choice)."""

WAVE_AMPLITUDE = 1.0
"""Standard deviation of one wave's displacement in mm (our choice).

Ten waves displace by 2.2 mm root mean square an axis and shear tissue by less than a third,
so the map keeps its folds apart and stays invertible.
"""

CENTRE = np.array([0.0, -18.0, 8.0])
"""Middle of the brain in MNI mm; every head stays centred here, as a technician would see to."""

VENTRICLES = np.array([0.0, -15.0, 15.0])
"""Centre of the lateral ventricles in MNI mm."""

VENTRICLE_REACH = np.array([22.0, 34.0, 18.0])
"""Distance along each axis, in mm, over which a change of ventricle size fades (our choice)."""

INVERSION_STEPS = 6
"""Fixed-point steps that invert the deformation to better than 0.01 mm."""


@dataclass(frozen=True)
class Tissue:
    """Properties of water in one subject's tissue.

    Diffusivities in mm²/s, T2 in ms.

    Attributes
    ----------
    axial_diffusivity
        Along fibres, inside and outside axons: 2.0e-3 (between the 1.7e-3 of NODDI, Zhang 2012,
        and the 2.25e-3 that Dhital 2019 measured inside axons).
    intra_fraction
        Share of intra-axonal water in white matter: 0.55 (Zhang 2012 finds 0.5 to 0.7). The
        perpendicular diffusivity outside axons follows by tortuosity, (1 - fraction) · axial
        (Szafer 1995).
    grey_diffusivity
        Mean diffusivity of grey matter: 0.75e-3 (Pierpaoli 1996 finds 0.7e-3 to 0.8e-3).
    t2_intra, t2_extra
        85 and 60 ms: intra-axonal water relaxes more slowly (Veraart 2018), and their mixture at
        TE 60 to 90 ms looks like the 70 to 80 ms of white matter at 3 T (Stanisz 2005, Wansapura
        1999).
    t2_grey
        99 ms at 3 T (Stanisz 2005).
    t2_fluid
        2000 ms (MacKay 1994; at TE < 100 ms its exact value hardly matters).
    """

    axial_diffusivity: float = 2.0e-3
    intra_fraction: float = 0.55
    grey_diffusivity: float = 0.75e-3
    t2_intra: float = 85.0
    t2_extra: float = 60.0
    t2_grey: float = 99.0
    t2_fluid: float = 2000.0


@dataclass(frozen=True, eq=False)
class Subject:
    """One simulated person; `index` is 0 for sub-01.

    Attributes
    ----------
    stretch
        (3,) size of the head relative to the template along x, y, z.
    wave_vectors, wave_amplitudes, wave_phases
        (K, 3) in rad/mm, (K, 3) in mm, (K,) in rad.
    ventricle_growth
        Relative widening of the ventricles; negative for narrow ones.
    csf_gain
        Odds of CSF relative to the template: the width of the sulci.
    """

    index: int
    stretch: FloatArray
    wave_vectors: FloatArray
    wave_amplitudes: FloatArray
    wave_phases: FloatArray
    ventricle_growth: float
    csf_gain: float
    tissue: Tissue

    @property
    def label(self) -> str:
        """BIDS subject label without the prefix: "01", "02" ..."""
        return f"{self.index + 1:02d}"

    def to_template(self, points: FloatArray) -> FloatArray:
        """Map (3, N) points of the subject's head in mm to template space."""
        return points / self.stretch[:, None].astype(points.dtype) + self._displacement(points)

    def from_template(self, points: FloatArray) -> FloatArray:
        """Map (3, N) template points to the subject's head; inverts `to_template`."""
        here = points * self.stretch[:, None].astype(points.dtype)
        for _ in range(INVERSION_STEPS):
            here = (points - self._displacement(here)) * self.stretch[:, None].astype(points.dtype)
        return here

    def _displacement(self, points: FloatArray) -> FloatArray:
        moved = np.zeros_like(points)
        for vector, amplitude, phase in zip(
            self.wave_vectors, self.wave_amplitudes, self.wave_phases, strict=True
        ):
            wave = np.sin(vector.astype(points.dtype) @ points + points.dtype.type(phase))
            wave -= points.dtype.type(np.sin(vector @ CENTRE + phase))
            moved += amplitude.astype(points.dtype)[:, None] * wave
        away = points - VENTRICLES.astype(points.dtype)[:, None]
        reach = VENTRICLE_REACH.astype(points.dtype)[:, None]
        near = np.exp(-0.5 * np.sum((away / reach) ** 2, axis=0))
        grown: FloatArray = moved - self.ventricle_growth * near * away
        return grown.astype(points.dtype, copy=False)


def draw_subject(seed: int, index: int) -> Subject:
    """Draw subject `index`, the same one however many others there are.

    The spreads are our choice: head size 3 %, ventricles and sulci as among healthy adults,
    tissue 2 to 4 % (the between-subject spread of diffusivities and T2 in adults).

    Examples
    --------
    >>> draw_subject(0, 3).label
    '04'
    """
    rng = np.random.default_rng([seed, index, 0])
    directions = rng.standard_normal((WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = rng.uniform(*WAVELENGTHS, WAVES)
    amplitudes = rng.normal(0, WAVE_AMPLITUDE, (WAVES, 3))
    typical = Tissue()
    return Subject(
        index=index,
        stretch=rng.normal(1, 0.02) * rng.normal(1, 0.015, 3),
        wave_vectors=2 * np.pi * directions / lengths[:, None],
        wave_amplitudes=amplitudes,
        wave_phases=rng.uniform(0, 2 * np.pi, WAVES),
        ventricle_growth=rng.uniform(-0.12, 0.28),
        csf_gain=float(np.exp(rng.normal(0, 0.2))),
        tissue=Tissue(
            axial_diffusivity=typical.axial_diffusivity * rng.normal(1, 0.02),
            intra_fraction=typical.intra_fraction + rng.normal(0, 0.015),
            grey_diffusivity=typical.grey_diffusivity * rng.normal(1, 0.03),
            t2_intra=typical.t2_intra * rng.normal(1, 0.04),
            t2_extra=typical.t2_extra * rng.normal(1, 0.04),
            t2_grey=typical.t2_grey * rng.normal(1, 0.03),
        ),
    )


@dataclass(frozen=True, eq=False)
class Pose:
    """Position of the head in one scan, relative to where co-registration assumes it.

    Attributes
    ----------
    rotation
        (3, 3) proper rotation about the scanner's isocentre.
    shift
        (3,) in mm.
    """

    rotation: FloatArray
    shift: FloatArray

    @property
    def turn(self) -> FloatArray:
        """(3,) rotation vector in degrees, in scanner axes."""
        return np.asarray(Rotation.from_matrix(self.rotation).as_rotvec(degrees=True))

    def to_head(self, points: FloatArray) -> FloatArray:
        """Map (3, N) scanner points to the head."""
        rotation, shift = (each.astype(points.dtype) for each in (self.rotation, self.shift))
        return np.asarray(rotation.T @ (points - shift[:, None]))

    def from_head(self, points: FloatArray) -> FloatArray:
        """Map (3, N) head points to the scanner."""
        rotation, shift = (each.astype(points.dtype) for each in (self.rotation, self.shift))
        return np.asarray(rotation @ points + shift[:, None])


def aligned() -> Pose:
    """Return the pose of a perfectly co-registered scan."""
    return Pose(np.eye(3), np.zeros(3))


def draw_pose(misalignment: float, rng: np.random.Generator) -> Pose:
    """Draw a residual misalignment.

    Parameters
    ----------
    misalignment
        Length of the shift in mm; the head also turns so far that a point 60 mm from the centre
        moves as much again (our choice).
    """
    shift, axis = rng.standard_normal((2, 3))
    shift *= misalignment / np.linalg.norm(shift)
    axis *= misalignment / 60.0 / np.linalg.norm(axis)
    return Pose(Rotation.from_rotvec(axis).as_matrix(), shift)
