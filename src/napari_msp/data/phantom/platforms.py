"""The four platforms: gradient coils, gradient tables, scanners, protocols and lattices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.subjects import CENTRE
from napari_msp.errors import Choose, UserError

FIELD_RADIUS = 100.0
"""Distance from the isocentre, in mm, at which the coefficients are stated."""

ISOCENTRE = CENTRE
"""The head is centred in the scanner, in MNI mm."""


@dataclass(frozen=True)
class GradientField:
    """Third-order gradient non-linearity (Bammer 2003).

    A transverse coil makes B ∝ x + c · x (4z² - x² - y²) / R², a longitudinal coil
    B ∝ z + c · z (2z² - 3x² - 3y²) / R²: the lowest solid harmonics that the symmetry of the coils
    allows. Their derivatives say what gradient a spin feels.

    Attributes
    ----------
    transverse, longitudinal
        The coefficients c at R = 100 mm.
    """

    transverse: float
    longitudinal: float

    def tensor(self, points: FloatArray) -> FloatArray:
        """Return the (3, 3, N) matrix that turns a nominal gradient into the one at each point.

        Parameters
        ----------
        points
            (3, N) scanner positions in mm.
        """
        x, y, z = (points - ISOCENTRE.astype(points.dtype)[:, None]) / FIELD_RADIUS
        c, d = self.transverse, self.longitudinal
        felt = np.empty((3, 3, points.shape[1]), dtype=points.dtype)
        felt[0, 0] = 1 + c * (4 * z**2 - 3 * x**2 - y**2)
        felt[1, 1] = 1 + c * (4 * z**2 - x**2 - 3 * y**2)
        felt[2, 2] = 1 + d * (6 * z**2 - 3 * x**2 - 3 * y**2)
        felt[0, 1] = felt[1, 0] = -2 * c * x * y
        felt[2, 0] = 8 * c * x * z
        felt[2, 1] = 8 * c * y * z
        felt[0, 2] = -6 * d * x * z
        felt[1, 2] = -6 * d * y * z
        return felt


REPULSION_STEPS = 400
"""Gradient-descent steps of the directions; the energy of 60 has settled after 300."""


@lru_cache(maxsize=16)
def spread_directions(count: int, seed: int) -> FloatArray:
    """Spread directions over the half-sphere by electrostatic repulsion (Jones 1999).

    Each direction stands for a pair of antipodal charges. Scanners of different makes have
    different sets: `seed` chooses the starting points and so the set.

    Returns
    -------
    (count, 3) unit vectors with z >= 0.
    """
    rng = np.random.default_rng([seed, count])
    points = rng.standard_normal((count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    reach = np.sqrt(2 * np.pi / count)  # typical distance between neighbours
    for step in range(REPULSION_STEPS):
        force = np.zeros_like(points)
        for sign in (1.0, -1.0):
            apart = points[:, None] - sign * points[None]
            distance = np.linalg.norm(apart, axis=-1)
            np.fill_diagonal(distance, np.inf)
            force += (apart / distance[..., None] ** 3).sum(axis=1)
        force -= (force * points).sum(axis=1, keepdims=True) * points
        length = 0.1 * reach * (1 - step / REPULSION_STEPS)
        points += length * force / np.abs(force).max()
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    points *= np.where(points[:, 2:] < 0, -1.0, 1.0)
    points.flags.writeable = False  # shared by the cache
    return points


def gradient_table(count: int, seed: int, b_value: float, b0_volumes: int) -> GradientTable:
    """Make one shell with b=0 volumes interleaved, the first volume being one.

    Parameters
    ----------
    count
        Diffusion-weighted volumes.
    seed
        Chooses the set of directions.
    b_value
        Nominal b-value in s/mm².
    b0_volumes
        Number of b=0 volumes, spread evenly over the scan.
    """
    total = count + b0_volumes
    b0 = np.round(np.linspace(0, total - 1, b0_volumes + 1)[:-1]).astype(int)
    weighted = np.setdiff1d(np.arange(total), b0)
    b_values, directions = np.zeros(total), np.zeros((total, 3))
    b_values[weighted] = b_value
    directions[weighted] = spread_directions(count, seed)
    return GradientTable(b_values, directions)


NEXT_SHELL = 100
"""Difference between the seeds of one platform's shells; the platforms' own differ by less."""

B_VALUE = 1200.0
"""Nominal b-value of every platform in s/mm² (Tax 2019)."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A scanner and its protocol: the standard one, where nothing else is said.

    Attributes
    ----------
    name
        `<session>_<acquisition>`.
    scale
        Voxels for each 2.4 mm along an axis: 1, or 2 for 1.2 mm voxels.
    scheme
        Seed of the set of directions; every scanner has its own.
    echo_time, repetition_time
        Times in ms.
    blur
        Standard deviation of the point spread along x, y, z in mm, beside the voxel's own box.
        Phase encoding runs along y, where T2* decay during the echo-planar readout blurs most.
    b_scale
        True b-value over nominal b-value at the isocentre.
    gradient_field
        Gradient non-linearity that the gradient table does not know of.
    snr
        Mean white-matter b=0 signal over the noise of one channel.
    gain
        Image units per unit of proton density.
    orientation
        Order in which voxels are stored, as nibabel's axis codes.
    """

    name: str
    manufacturer: str
    model: str
    scale: int = 1
    directions: int = 30
    b0_volumes: int = 4
    scheme: int
    echo_time: float = 89.0
    repetition_time: float = 7200.0
    blur: tuple[float, float, float]
    b_scale: float
    gradient_field: GradientField
    snr: float
    gain: float
    orientation: str

    @property
    def number(self) -> int:
        """Position among `PLATFORMS`; part of the random seeds."""
        return [platform.name for platform in PLATFORMS].index(self.name)

    def table(self, b_values: Sequence[float] = (B_VALUE,)) -> GradientTable:
        """Return the nominal gradient table, directions in scanner axes.

        Each further shell follows the first, with its own directions and without b=0 volumes, so
        the first shell is the same with and without others.

        Parameters
        ----------
        b_values
            b-values of the shells, in s/mm².
        """
        tables = [
            gradient_table(
                self.directions,
                self.scheme + NEXT_SHELL * number,
                b_value,
                0 if number else self.b0_volumes,
            )
            for number, b_value in enumerate(b_values)
        ]
        return GradientTable(
            np.concatenate([table.b_values for table in tables]),
            np.concatenate([table.directions for table in tables]),
        )


# Voxel size, directions, echo and repetition times: Tax 2019 (cross-scanner benchmark) as
# used by Blumberg 2019. Blur, b-scale, gradient coefficients, SNR and gain are our choice:
# the blur between 0.2 and 0.7 voxels of echo-planar readouts, b-scales within the few per cent of
# phantom studies of gradient calibration, gradient errors within those of Bammer 2003 (largest for
# the 300 mT/m coil, Setsompop 2013), the oldest scanner the noisiest.
CONNECTOM = Platform(
    name="connectom_st",
    manufacturer="Siemens",
    model="Connectom 3T",
    scheme=33,
    blur=(0.4, 0.6, 0.3),
    b_scale=1.03,
    gradient_field=GradientField(transverse=-0.035, longitudinal=0.020),
    snr=30.0,
    gain=2000.0,
    orientation="RAS",
)

PLATFORMS: tuple[Platform, ...] = (
    Platform(
        name="ge_st",
        manufacturer="GE",
        model="Signa Excite HDx 3T",
        scheme=11,
        blur=(1.2, 1.8, 0.9),
        b_scale=0.92,
        gradient_field=GradientField(transverse=0.020, longitudinal=-0.015),
        snr=18.0,
        gain=3000.0,
        orientation="LAS",
    ),
    Platform(
        name="prisma_st",
        manufacturer="Siemens",
        model="Prisma 3T",
        scheme=22,
        blur=(0.5, 0.8, 0.4),
        b_scale=1.0,
        gradient_field=GradientField(transverse=-0.012, longitudinal=0.010),
        snr=26.0,
        gain=1500.0,
        orientation="RAS",
    ),
    CONNECTOM,
    replace(
        CONNECTOM,
        name="connectom_sa",
        scale=2,
        directions=60,
        b0_volumes=6,
        scheme=44,
        echo_time=68.0,
        repetition_time=5400.0,
        snr=14.0,
    ),
)

INPUT_PLATFORM = PLATFORMS[0].name
"""Platform to predict the others from: the oldest scanner."""


def platform_named(name: str) -> Platform:
    """Look a platform up.

    Examples
    --------
    >>> platform_named("connectom_sa").scale
    2
    """
    return {platform.name: platform for platform in PLATFORMS}[name]


SPACING = 2.4
"""Voxel size of the standard protocol in mm (Tax 2019)."""

SIZES: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    # A block of the right hemisphere with callosum, ventricle, corona radiata and cortex.
    "tiny": ((32, 20, 14), (-4.8, -34.0, 10.0)),
    # A slab through basal ganglia, ventricles and centrum semiovale.
    "small": ((66, 82, 16), (-78.0, -115.2, 1.2)),
    # The whole brain.
    "full": ((66, 82, 68), (-78.0, -115.2, -76.8)),
}
"""Shape of the 2.4 mm lattice and centre of its first voxel in mm (RAS+), for each size."""


def lattice_for(size: str, platform: Platform) -> Lattice:
    """Return a platform's lattice in RAS+ order."""
    if size not in SIZES:
        raise UserError("there is no such size", size, "size", Choose("size", tuple(SIZES)))
    shape, origin = SIZES[size]
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = origin
    standard = Lattice(shape, affine)
    return standard if platform.scale == 1 else standard.refined(platform.scale)
