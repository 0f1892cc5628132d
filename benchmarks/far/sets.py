"""The six sets: which anatomy, which signal, which scanners; and one head of a set."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from far.anatomy import ANATOMIES, Anatomy, Space
from far.changes import Change
from far.scanners import Scanner, drawn, felt, imaged, noisy, spiral, spread_along
from far.signals import MODELS, SignalModel, Tissue
from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice

EDGE = 31
"""Voxels along an axis of a scan on the first three platforms."""

BEYOND = 4
"""Fine voxels around them, so that the point spread sees across the edge."""

HEADS = 6
"""Heads of a set: four to learn from, two to measure on."""

GAIN = 1200.0
"""Image units for each unit of signal."""


@dataclass(frozen=True)
class FarSet:
    """Travelling heads of one world.

    Attributes
    ----------
    name
        Also of its folder.
    anatomy, signal
        Names in `ANATOMIES` and `MODELS`.
    b_value
        In s/mm².
    spacing
        Voxel size of the first three platforms in mm.
    seed
        Everything else follows from it.
    """

    name: str
    anatomy: str
    signal: str
    b_value: float
    spacing: float
    seed: int

    @property
    def scanners(self) -> tuple[Scanner, ...]:
        """The input's scanner, then the targets'."""
        return drawn(np.random.default_rng([self.seed, 1]), self.spacing)


CHOOSING = (
    FarSet("amber", "folded", "sticks", 1200.0, 2.4, 811),
    FarSet("basalt", "fields", "kurtosis", 1000.0, 2.4, 812),
    FarSet("cobalt", "rings", "gamma", 2000.0, 2.4, 813),
)
"""By these a base is chosen."""

MEASURING = (
    FarSet("flint", "rings", "sticks", 1200.0, 2.4, 911),
    FarSet("garnet", "folded", "kurtosis", 1000.0, 2.2, 912),
    FarSet("jasper", "fields", "gamma", 1500.0, 2.4, 913),
)
"""On these the chosen one is measured; nothing may be chosen by them."""

SETS = {each.name: each for each in CHOOSING + MEASURING}
"""All sets by name."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One head on one platform.

    Attributes
    ----------
    scanner
        Which platform.
    dwi, noise_free
        (X, Y, Z, N) with noise in whole image units, and the same without.
    table
        As the scanner states it.
    mask
        (X, Y, Z).
    lattice
        Where the voxels lie.
    """

    scanner: Scanner
    dwi: FloatArray
    noise_free: FloatArray
    table: GradientTable
    mask: MaskArray
    lattice: Lattice


def make_head(
    which: FarSet, number: int, edge: int = EDGE, change: Change | None = None
) -> Iterator[Scan]:
    """Scan one head on all platforms of its set.

    Parameters
    ----------
    which
        The set.
    number
        From 0; the head is the same however many others there are.
    edge
        Voxels an axis; fewer cut a block out of the middle of another head.
    change
        What differs from the set's head; None: nothing.
    """
    random = np.random.default_rng([which.seed, 2, number])
    fine = 2 * edge - 1 + 2 * BEYOND
    space = Space((fine, fine, fine), which.spacing / 2, random)
    anatomy = ANATOMIES[which.anatomy](space)
    if change is not None:
        anatomy = change(anatomy, space.spacing)
    model = MODELS[which.signal].drawn(random)
    with threadpool_limits(1, user_api="blas"):
        for scanner in which.scanners:
            yield _scan(which, scanner, space, anatomy, model, random)


def _scan(
    which: FarSet,
    scanner: Scanner,
    space: Space,
    anatomy: Anatomy,
    model: SignalModel,
    random: np.random.Generator,
) -> Scan:
    coarse = (space.shape[0] - 2 * BEYOND + 1) // 2
    spacing = which.spacing / scanner.scale
    count = scanner.scale * (coarse - 1) + 1
    wanted = spacing * (np.arange(count) - (count - 1) / 2)
    fine = space.points[0, :, 0, 0]
    x, y, z = (spread_along(fine, wanted, blur, spacing, scanner.window) for blur in scanner.blur)
    table = table_of(scanner, which.b_value)
    tissue = Tissue(anatomy, model, scanner.echo)
    points = space.points.reshape(3, -1)[:, tissue.inside].astype(np.float32)
    unweighted = imaged(tissue.unweighted(), (x, y, z))
    images = np.empty((count, count, count, len(table)), np.float32)
    for volume, (b_value, direction) in enumerate(
        zip(table.b_values, table.directions, strict=True)
    ):
        if b_value == 0:
            images[..., volume] = unweighted
        else:
            gradient = felt(scanner, points, b_value, direction)
            images[..., volume] = imaged(tissue.weighted(gradient), (x, y, z))
    side = 1 + np.float32(scanner.shading) * (wanted / 40.0).astype(np.float32)
    images = np.maximum(images, 0) * side[:, None, None, None] * np.float32(GAIN)
    mask = imaged(anatomy.brain, (x, y, z)) > 0.5
    white = imaged(anatomy.white, (x, y, z)) > 0.7
    sigma = float(images[..., 0][white & mask].mean() / scanner.snr)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = wanted[0]
    dwi = np.rint(noisy(images, sigma, scanner.coils, random))
    return Scan(scanner, dwi, images, table, mask, Lattice((count, count, count), affine))


def table_of(scanner: Scanner, b_value: float) -> GradientTable:
    """Give a scanner's table: b=0 volumes first, then one shell."""
    count = scanner.b0_volumes
    directions = np.vstack([np.zeros((count, 3)), spiral(scanner.directions, scanner.turn)])
    b_values = np.r_[np.zeros(count), np.full(scanner.directions, b_value)]
    return GradientTable(b_values, directions)
