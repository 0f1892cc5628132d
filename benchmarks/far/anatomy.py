"""Three kinds of head: a folded ball, tissue of random fields, and rings of fibres in a shell.

Distances are in mm, positions relative to the middle of the head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.special import expit

from napari_msp.arrays import FloatArray

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What lies in each voxel of a fine grid.

    Attributes
    ----------
    grey, white, fluid
        (X, Y, Z) fractions; their sum is the fraction of brain.
    bundles
        Weight (X, Y, Z) and direction (3, X, Y, Z) of each fibre population; the weights of a voxel
        sum to at most 1, the rest of its white matter has no direction.
    """

    grey: FloatArray
    white: FloatArray
    fluid: FloatArray
    bundles: tuple[tuple[FloatArray, FloatArray], ...]

    @property
    def brain(self) -> FloatArray:
        """(X, Y, Z) fraction of brain."""
        brain: FloatArray = self.grey + self.white + self.fluid
        return brain


class Space:
    """A fine grid around the middle of the head, and random fields on it.

    Parameters
    ----------
    shape, spacing
        Of the grid.
    random
        Where everything is drawn from.
    """

    def __init__(self, shape: Shape, spacing: float, random: np.random.Generator) -> None:
        self.shape, self.spacing, self.random = shape, spacing, random
        axes = [spacing * (np.arange(n) - (n - 1) / 2) for n in shape]
        self.points: FloatArray = np.stack(np.meshgrid(*axes, indexing="ij"))

    def field(self, length: float) -> FloatArray:
        """Draw a smooth random field of mean 0 and deviation 1; `length` is how far it reaches."""
        sigma = length / self.spacing
        pad = int(3 * sigma)
        white = self.random.standard_normal([n + 2 * pad for n in self.shape])
        smooth = gaussian_filter(white, sigma, mode="wrap", truncate=3)
        inner = smooth[tuple(slice(pad, pad + n) for n in self.shape)]
        field: FloatArray = inner / smooth.std()
        return field

    def directions(self, length: float) -> FloatArray:
        """Draw a smooth field of unit vectors."""
        return unit(np.stack([self.field(length) for _ in range(3)]))

    def warped(self, amplitude: float, length: float) -> FloatArray:
        """Give the grid's points, displaced smoothly."""
        moved: FloatArray = self.points + amplitude * np.stack(
            [self.field(length) for _ in range(3)]
        )
        return moved


def unit(vectors: FloatArray) -> FloatArray:
    """Give (3, …) vectors the length 1."""
    scaled: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=0), 1e-9)
    return scaled


def shared(
    weights: Sequence[FloatArray], directions: Sequence[FloatArray]
) -> tuple[tuple[FloatArray, FloatArray], ...]:
    """Scale the weights of populations so that they sum to at most 1 in a voxel."""
    total = np.maximum(np.sum(weights, axis=0), 1.0)
    return tuple(
        ((weight / total).astype(np.float32), direction.astype(np.float32))
        for weight, direction in zip(weights, directions, strict=True)
    )


def tube(points: FloatArray, knots: FloatArray, radius: float) -> tuple[FloatArray, FloatArray]:
    """Lay a tube along a smooth curve: its weight at each point, and the curve's direction there.

    Parameters
    ----------
    points
        (3, X, Y, Z).
    knots
        (K, 3) that the curve runs through.
    radius
        Distance over which the weight falls to a half, about.
    """
    curve = make_interp_spline(np.linspace(0, 1, len(knots)), knots, k=3)
    along = np.linspace(0, 1, 160)
    tangent = curve.derivative()(along)
    distance, nearest = cKDTree(curve(along)).query(points.reshape(3, -1).T)
    weight = np.exp(-((distance / radius) ** 4)).reshape(points.shape[1:])
    return weight, unit(tangent[nearest].T).reshape(points.shape)


def folded(space: Space) -> Anatomy:
    """Give a ball with a folded ribbon of cortex, two horns of fluid, cores and winding tubes."""
    random = space.random
    points = space.warped(1.5, 10.0) / random.normal(1, 0.05, (3, 1, 1, 1))
    radius = np.linalg.norm(points, axis=0)
    hull = expit((35.0 - radius) / 0.5)
    depth = 32.5 - radius + 2.8 * space.field(4.5) + 1.8 * space.field(2.5)
    within = expit(depth / 0.5) * hull
    ribbon = random.uniform(2.6, 3.6)
    deep = expit((depth - ribbon) / 0.5) * hull
    horns = np.zeros(space.shape)
    for side in (-1.0, 1.0):
        knots = np.array([[5, -16, -3], [6, -7, 4], [5, 3, 6], [7, 12, 3], [10, 15, -4]])
        knots = knots * [side, 1, 1] + random.normal(0, 1.2, (5, 3))
        horns = np.maximum(horns, tube(points, knots, random.uniform(2.5, 4.5))[0])
    cores = np.zeros(space.shape)
    for side in (-1.0, 1.0):
        centre = np.array([14 * side, 2, -4]) + random.normal(0, 1.5, 3)
        away = (points - centre[:, None, None, None]) / np.array([4.5, 8, 6])[:, None, None, None]
        cores = np.maximum(cores, expit((1 - np.linalg.norm(away, axis=0)) / 0.1))
    fluid = np.maximum(hull - within, horns * deep)
    grey = np.maximum(within - deep, cores * deep) * (1 - horns)
    white = np.clip(hull - fluid - grey, 0, None)

    weights, directions = [], []
    for _ in range(9):
        ends = unit(random.standard_normal((3, 2))).T * random.uniform(20, 30, (2, 1))
        middle = random.normal(0, 9, (2, 3))
        weight, direction = tube(points, np.vstack([ends[:1], middle, ends[1:]]), 5.0)
        weights.append(weight * random.uniform(0.7, 1.0))
        directions.append(direction)
    outwards = unit(-np.array(np.gradient(gaussian_filter(depth, 2.0))))
    weights.append(np.full(space.shape, 0.25))
    directions.append(outwards)
    return _anatomy(grey, white, fluid, shared(weights, directions))


def fields(space: Space) -> Anatomy:
    """Give a block cut out of something endless: sheets of grey, lakes of fluid, two flows."""
    hull = expit((31.0 - np.abs(space.warped(2.5, 8.0)).max(axis=0)) / 0.5)
    sheets = np.exp(-((space.field(5.0) / 0.35) ** 4))
    lakes = expit((space.field(5.0) - 1.5) / 0.08)
    fluid = lakes * hull
    grey = sheets * hull * (1 - lakes)
    white = np.clip(hull - fluid - grey, 0, None)
    share = expit(3.0 * space.field(8.0))
    dense = 0.35 + 0.6 * expit(2.5 * space.field(7.0))
    first, second = space.directions(13.0), space.directions(9.0)
    return _anatomy(
        grey, white, fluid, shared([share * dense, (1 - share) * dense], [first, second])
    )


def rings(space: Space) -> Anatomy:
    """Give a smooth shell of cortex around rings of fibres that cross, with branching canals."""
    random = space.random
    points = space.warped(2.2, 9.0) / (1 + random.normal(0, 0.04, (3, 1, 1, 1)))
    radius = np.linalg.norm(points, axis=0)
    hull = expit((34.0 - radius) / 0.5)
    shell = random.uniform(3.0, 4.5)
    inner = expit((31.5 - shell - radius) / 0.5)
    fluid = expit((34.0 - radius) / 0.5) - expit((31.5 - radius) / 0.5)
    for _ in range(4):
        knots = np.cumsum(random.normal(0, 9, (4, 3)), axis=0)
        fluid = np.maximum(fluid, 0.95 * tube(points, knots, random.uniform(1.8, 3.5))[0] * hull)
    grey = (hull - inner) * (1 - fluid)
    for _ in range(6):
        centre = random.normal(0, 12, 3)[:, None, None, None]
        ball = expit((random.uniform(2.5, 5.0) - np.linalg.norm(points - centre, axis=0)) / 0.5)
        grey = np.maximum(grey, ball * hull * (1 - fluid))
    grey = np.minimum(grey, hull - fluid)
    white = np.clip(hull - fluid - grey, 0, None)
    weights, directions = [], []
    for _ in range(5):
        axis = unit(random.standard_normal(3))
        centre = random.normal(0, 5, 3)[:, None, None, None]
        away = points - centre
        height = np.tensordot(axis, away, axes=1)
        around = unit(np.cross(axis, away, axisb=0, axisc=0))
        reach = np.linalg.norm(away, axis=0)
        band = np.exp(-((height / random.uniform(5, 9)) ** 4))
        band *= np.exp(-(((reach - random.uniform(8, 22)) / random.uniform(4, 8)) ** 4))
        weights.append(band * random.uniform(0.6, 1.0))
        directions.append(around)
    weights.append(np.full(space.shape, 0.2))
    directions.append(space.directions(15.0))
    return _anatomy(grey, white, fluid, shared(weights, directions))


def _anatomy(
    grey: FloatArray,
    white: FloatArray,
    fluid: FloatArray,
    bundles: tuple[tuple[FloatArray, FloatArray], ...],
) -> Anatomy:
    return Anatomy(
        grey.astype(np.float32), white.astype(np.float32), fluid.astype(np.float32), bundles
    )


ANATOMIES: dict[str, Callable[[Space], Anatomy]] = {
    "folded": folded,
    "fields": fields,
    "rings": rings,
}
"""Every kind by name."""
