"""A subject's head on a fine grid: tissue fractions and fibre populations."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import erf

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.bundles import BUNDLES, Bundle, streamlines_of
from napari_msp.data.phantom.subjects import Pose, Subject

WORKERS = min(4, os.cpu_count() or 1)
"""Number of bundles drawn, or volumes simulated, at a time (NumPy lets threads run in parallel)."""


@dataclass(frozen=True, eq=False)
class ScannerGrid:
    """A lattice along the scanner's axes: voxel centres along x, y, z in mm."""

    axes: tuple[FloatArray, FloatArray, FloatArray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        x, y, z = (len(axis) for axis in self.axes)
        return x, y, z

    @property
    def spacing(self) -> float:
        """Distance of neighbouring voxels in mm."""
        return float(self.axes[0][1] - self.axes[0][0])

    def points(self) -> FloatArray:
        """Return (3, N) float32 positions of all voxels, last axis fastest."""
        grid = np.meshgrid(*self.axes, indexing="ij")
        return np.stack([axis.ravel() for axis in grid]).astype(np.float32)

    def extended(self, voxels: int) -> "ScannerGrid":
        """Add voxels on every side."""
        x, y, z = (
            axis[0] + self.spacing * np.arange(-voxels, len(axis) + voxels) for axis in self.axes
        )
        return ScannerGrid((x, y, z))

    def thinned(self) -> "ScannerGrid":
        """Keep every other voxel."""
        x, y, z = (axis[::2] for axis in self.axes)
        return ScannerGrid((x, y, z))


def grid_of(lattice: Lattice) -> ScannerGrid:
    """Describe a lattice in RAS+ order by its axes."""
    sizes = np.diag(lattice.affine)[:3]
    x, y, z = (
        start + size * np.arange(count)
        for start, size, count in zip(lattice.affine[:3, 3], sizes, lattice.shape, strict=True)
    )
    return ScannerGrid((x, y, z))


def point_spread(source: FloatArray, target: FloatArray, width: float, blur: float) -> FloatArray:
    """Return the matrix of a point spread along one axis.

    The kernel is a box (the voxel, or with `width` 0 a point) convolved with a Gaussian; each row
    sums to 1, so that a constant stays one.

    Parameters
    ----------
    source, target
        Coordinates of the samples before and after, in mm.
    width
        Box width in mm.
    blur
        Standard deviation of the Gaussian in mm.

    Returns
    -------
    (len(target), len(source)) float32.
    """
    apart = target[:, None] - source[None]
    if width > 0:
        scale = np.sqrt(2) * blur
        weights = erf((apart + width / 2) / scale) - erf((apart - width / 2) / scale)
    else:
        weights = np.exp(-0.5 * (apart / blur) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def along_axes(
    volume: FloatArray, matrices: tuple[FloatArray, FloatArray, FloatArray]
) -> FloatArray:
    """Apply one matrix along each axis of (X, Y, Z); z first, as it shrinks a slab the least."""
    along_x, along_y, along_z = matrices
    done = volume @ along_z.T
    done = np.matmul(along_y, done)
    return np.asarray(np.tensordot(along_x, done, axes=1))


ASSET = "icbm152_tissue.npz"
"""Grey matter, white matter and CSF of the ICBM 152 2009a symmetric template (Fonov 2011)."""


@lru_cache(maxsize=1)
def template_tissue() -> tuple[FloatArray, FloatArray, float]:
    """Load the packaged tissue maps.

    Returns
    -------
    fractions
        (3, X, Y, Z) float32 of the right half (x >= 0): grey matter, white matter, CSF; their sum
        is 1 inside the brain and 0 outside.
    origin
        (3,) position of the first voxel centre in MNI mm.
    spacing
        Voxel size in mm.
    """
    resource = files("napari_msp.data.phantom").joinpath("assets", ASSET)
    with resource.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        fractions = archive["fractions"].astype(np.float32) / np.float32(archive["levels"])
        return fractions, archive["origin"], float(archive["spacing"])


def tissue_at(points: FloatArray, csf_gain: float = 1.0) -> FloatArray:
    """Interpolate the tissue fractions at points of template space.

    Parameters
    ----------
    points
        (3, N) in MNI mm.
    csf_gain
        Multiplies the odds of CSF: above 1 gives wider sulci and ventricles.

    Returns
    -------
    (3, N) float32: grey matter, white matter, CSF; they sum to the fraction of brain (0 to 1).
    """
    fractions, origin, spacing = template_tissue()
    voxels = (points - origin[:, None]) / spacing
    voxels[0] = (np.abs(points[0]) - origin[0]) / spacing  # the template is symmetric
    sampled = np.stack(
        [map_coordinates(tissue, voxels, order=1, mode="constant") for tissue in fractions]
    )
    brain = np.minimum(sampled.sum(axis=0), 1)
    sampled[2] *= csf_gain
    sampled *= brain / np.maximum(sampled.sum(axis=0), 1e-6)
    return sampled


CROSSINGS = 3
"""Bundles that one voxel can have; the weakest of more are dropped (our choice)."""

BUNDLE_BLUR = 1.6
"""Standard deviation in mm that turns streamlines into smooth densities (our choice)."""

RADIAL_DENSITY = 0.25
"""Share of short fibres between cortex and depth, relative to a bundle's core (our choice)."""

RADIAL_COHERENCE = 0.75
"""Mean squared cosine of those fibres: they fan and bend around sulci (our choice)."""

RADIAL_BLUR = 3.5
"""Standard deviation in mm of the white-matter map whose gradient points to the cortex."""

GRID_MARGIN = 6.0
"""Streamlines farther than this from the grid, in mm of template space, are not drawn."""

LEAST_DENSITY = 0.03
"""A bundle that is thinner than this is left out of a voxel."""


@dataclass(frozen=True, eq=False)
class Fibres:
    """One fibre population in some of the head's voxels.

    Attributes
    ----------
    index
        (M,) positions in the head's list of voxels, each at most once.
    weight
        (M,) share of the voxel's white matter.
    direction
        (3, M) unit vectors in scanner axes.
    coherence
        (M,) mean squared cosine about that direction.
    """

    index: IntArray
    weight: FloatArray
    direction: FloatArray
    coherence: FloatArray


@dataclass(frozen=True, eq=False)
class Diseased:
    """Isotropic diseased tissue in a head.

    Attributes
    ----------
    fraction
        (N,) fraction of each voxel.
    diffusivity
        Diffusivity in mm²/s.
    t2
        T2 in ms.
    """

    fraction: FloatArray
    diffusivity: float
    t2: float


@dataclass(frozen=True, eq=False)
class SimulatedHead:
    """The content of each voxel of a fine grid.

    Attributes
    ----------
    inside
        (N,) flat indices of voxels of brain; all other arrays follow this list.
    points
        (3, N) their scanner positions in mm.
    grey, white, fluid
        (N,) fractions; with those of `diseased` they sum to the fraction of brain.
    fibres
        Populations of the white matter; their weights sum to 1 in a voxel.
    radial
        (3, N) unit vectors from depth to cortex, or zero.
    diseased
        Tissue of lesions, in place of healthy tissue.
    """

    grid: ScannerGrid
    inside: IntArray
    points: FloatArray
    grey: FloatArray
    white: FloatArray
    fluid: FloatArray
    fibres: tuple[Fibres, ...]
    radial: FloatArray
    diseased: tuple[Diseased, ...] = ()

    @property
    def brain(self) -> FloatArray:
        """(N,) fraction of brain."""
        brain: FloatArray = self.grey + self.white + self.fluid
        for tissue in self.diseased:
            brain = brain + tissue.fraction
        return brain

    def volume(self, values: FloatArray) -> FloatArray:
        """Put (N,) values into a (X, Y, Z) volume; outside the brain it is 0."""
        volume = np.zeros(self.grid.shape, dtype=np.float32)
        volume.reshape(-1)[self.inside] = values
        return volume


def make_head(
    subject: Subject, pose: Pose, grid: ScannerGrid, bundles: tuple[Bundle, ...] = BUNDLES
) -> SimulatedHead:
    """Lay a subject's anatomy and bundles onto a grid.

    Parameters
    ----------
    bundles
        `BUNDLES`, where the coherence of some may differ.
    """
    points = grid.points()
    template = subject.to_template(pose.to_head(points))
    tissue = tissue_at(template, subject.csf_gain)
    inside = np.flatnonzero(tissue.sum(axis=0) > 0.01)
    radial = _radial_directions(tissue[1].reshape(grid.shape), grid)[:, inside]
    grey, white, fluid = tissue[:, inside]
    return SimulatedHead(
        grid=grid,
        inside=inside,
        points=points[:, inside],
        grey=grey,
        white=white,
        fluid=fluid,
        fibres=_fibres(subject, pose, grid, bundles, inside, white > 0.02, radial),
        radial=radial,
    )


def _radial_directions(white: FloatArray, grid: ScannerGrid) -> FloatArray:
    """Point from deep white matter to the cortex, in every voxel; (3, X·Y·Z) unit vectors."""
    depth = gaussian_filter(white, RADIAL_BLUR / grid.spacing, mode="nearest", truncate=3)
    gradient = np.array(np.gradient(depth, grid.spacing)).reshape(3, -1)
    length = np.linalg.norm(gradient, axis=0)
    return np.asarray(-gradient / np.maximum(length, 1e-6), dtype=np.float32)


def _fibres(
    subject: Subject,
    pose: Pose,
    grid: ScannerGrid,
    bundles: tuple[Bundle, ...],
    inside: IntArray,
    in_white: MaskArray,
    radial: FloatArray,
) -> tuple[Fibres, ...]:
    """Find the strongest bundles of each voxel and share the white matter among them."""
    # Density, direction and coherence of a voxel's strongest bundles, the strongest first.
    strongest = np.zeros((CROSSINGS, 5, len(inside)), dtype=np.float32)
    draw = partial(_drawn, subject=subject, pose=pose, grid=grid, inside=inside, in_white=in_white)
    with ThreadPoolExecutor(WORKERS) as pool:
        drawn = list(pool.map(draw, range(len(bundles)), bundles))
    for bundle, found in zip(bundles, drawn, strict=True):
        if found is None:
            continue
        voxels, strength, along = found
        new = np.stack([strength, *along, np.full(len(voxels), bundle.coherence, "f4")])
        for slot in strongest:
            # The displaced bundle moves one slot down.
            old = slot[:, voxels]
            stronger = new[0] > old[0]
            slot[:, voxels] = np.where(stronger, new, old)
            new = np.where(stronger, old, new)
    total = strongest[:, 0].sum(axis=0) + RADIAL_DENSITY
    populations = []
    for each in strongest:
        voxels = np.flatnonzero(each[0] > 0)
        density, along, coherence = each[0, voxels], each[1:4][:, voxels], each[4, voxels]
        populations.append(Fibres(voxels, density / total[voxels], along, coherence))
    voxels = np.flatnonzero(in_white)
    coherence = np.full(len(voxels), RADIAL_COHERENCE, np.float32)
    short = Fibres(voxels, RADIAL_DENSITY / total[voxels], radial[:, voxels], coherence)
    return (*populations, short)


def _drawn(
    number: int,
    bundle: Bundle,
    *,
    subject: Subject,
    pose: Pose,
    grid: ScannerGrid,
    inside: IntArray,
    in_white: MaskArray,
) -> tuple[IntArray, FloatArray, FloatArray] | None:
    """Draw a bundle on the grid.

    Returns
    -------
    voxels
        (M,) positions in `inside` where the bundle counts.
    strength
        (M,) the bundle's own times its density, which is 1 in its core.
    direction
        (3, M) unit mean direction.

    None when the bundle does not pass through the grid.
    """
    streamlines = streamlines_of(number)
    near = _near(streamlines.middle, subject, pose, grid)
    if not near.any():
        return None
    half = streamlines.piece[:, near] / 2
    middle = streamlines.middle[:, near]
    first, last = (
        pose.from_head(subject.from_template(end)) for end in (middle - half, middle + half)
    )
    piece = last - first

    # Counting on every other voxel is fine enough: the blur that follows is as wide as its spacing.
    coarse = grid.thinned()
    origin = np.array([axis[0] for axis in coarse.axes], dtype=np.float32)
    voxel = ((first + last) / 2 - origin[:, None]) / np.float32(coarse.spacing)
    corner = np.floor(voxel).astype(int)
    shape = np.array(coarse.shape)
    keep = ((corner >= 0) & (corner < shape[:, None] - 1)).all(axis=0)
    if not keep.any():
        return None
    corner, voxel, piece = corner[:, keep], voxel[:, keep], piece[:, keep]
    share = voxel - corner
    length = np.linalg.norm(piece, axis=0)
    drawn = np.zeros((4, int(shape.prod())))
    for step in np.ndindex(2, 2, 2):
        chosen = np.where(np.array(step)[:, None], share, 1 - share)
        weight = chosen.prod(axis=0)
        flat = np.ravel_multi_index(tuple(corner + np.array(step)[:, None]), coarse.shape)
        for channel, value in enumerate((length, *piece)):
            drawn[channel] += np.bincount(flat, weight * value, minlength=drawn.shape[1])

    x, y, z = (
        point_spread(source, target, 0.0, BUNDLE_BLUR)
        for source, target in zip(coarse.axes, grid.axes, strict=True)
    )

    def smooth(values: FloatArray) -> FloatArray:
        volume = values.reshape(coarse.shape).astype(np.float32)
        return along_axes(volume, (x, y, z)).reshape(-1)

    core = streamlines.core_length * coarse.spacing**3
    density = 1 - np.exp(-2 * smooth(drawn[0])[inside] / core)
    strength = bundle.strength * density
    voxels = np.flatnonzero((strength > LEAST_DENSITY) & in_white)
    there = inside[voxels]
    mean = np.stack([smooth(channel)[there] for channel in drawn[1:]])
    direction = mean / np.maximum(np.linalg.norm(mean, axis=0), 1e-9)
    return voxels, strength[voxels], direction


def _near(points: FloatArray, subject: Subject, pose: Pose, grid: ScannerGrid) -> MaskArray:
    """Return which template points may be on the grid, without inverting the deformation."""
    ends = np.array([(axis[0], axis[-1]) for axis in grid.axes])
    steps = np.array([[x, y, z] for x in range(5) for y in range(5) for z in range(5)]).T / 4
    surface = ends[:, :1] + steps * (ends[:, 1:] - ends[:, :1])
    reached = subject.to_template(pose.to_head(surface))
    low, high = reached.min(axis=1) - GRID_MARGIN, reached.max(axis=1) + GRID_MARGIN
    return np.asarray(((points >= low[:, None]) & (points <= high[:, None])).all(axis=0))
