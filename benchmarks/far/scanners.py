"""Scanners of the far sets: directions, point spreads, gradients as felt, coils and noise."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from napari_msp.arrays import FloatArray


@dataclass(frozen=True)
class Scanner:
    """A scanner and its protocol.

    Attributes
    ----------
    name
        Of the platform, `<session>_<acquisition>`.
    scale
        1, or 2 for half the voxel size.
    directions, b0_volumes
        Numbers of volumes.
    turn
        Seed of the rotation of the directions.
    echo
        In ms.
    blur
        Deviation of the point spread along x, y, z, in mm.
    window
        Part of k-space that was read along each axis; below 1 it blurs and rings.
    b_scale
        True over nominal b-value in the middle.
    bow
        How much the gradients change towards the edges: relative, at 40 mm.
    snr
        White matter's signal at b = 0 over the noise of one channel.
    coils
        Channels whose squares are added; with 1 noise is Rician.
    shading
        How much the coil sees less of one side than of the other: relative, at 40 mm.
    """

    name: str
    scale: int
    directions: int
    b0_volumes: int
    turn: int
    echo: float
    blur: tuple[float, float, float]
    window: float
    b_scale: float
    bow: float
    snr: float
    coils: int
    shading: float


def spiral(count: int, turn: int) -> FloatArray:
    """Give (count, 3) unit vectors along a spiral on the half-sphere, turned at random."""
    step = np.arange(count) + 0.5
    height = 1 - step / count
    angle = step * np.pi * (1 + np.sqrt(5))
    ring = np.sqrt(1 - height**2)
    points = np.column_stack([ring * np.cos(angle), ring * np.sin(angle), height])
    turned: FloatArray = Rotation.random(random_state=turn).apply(points)
    return turned


def felt(scanner: Scanner, points: FloatArray, b_value: float, direction: FloatArray) -> FloatArray:
    """Give (3, N) root of b times direction, as a spin feels it.

    Each gradient grows or shrinks with the square of the distance along its own axis, and tilts in
    proportion to what the two axes have in common.
    """
    relative = points / np.float32(40.0)
    wanted = (np.sqrt(b_value * scanner.b_scale) * direction).astype(np.float32)
    grown = wanted[:, None] * (1 + np.float32(scanner.bow) * relative**2)
    tilt = np.float32(scanner.bow) * relative[[1, 2, 0]] * relative[[2, 0, 1]]
    together: FloatArray = grown + wanted[[2, 0, 1], None] * tilt
    return together


def spread_along(
    fine: FloatArray, wanted: FloatArray, blur: float, width: float, window: float
) -> FloatArray:
    """Give the (wanted, fine) matrix of the point spread along one axis; rows sum to 1.

    Parameters
    ----------
    fine, wanted
        Coordinates in mm.
    blur
        Deviation of a Gaussian.
    width
        Of a voxel.
    window
        Part of k-space that was read.
    """
    step = blur / 8
    line = step * np.arange(-400, 401)
    kernel = np.exp(-0.5 * (line / blur) ** 2)
    if window < 1:
        # A smaller k-space, filtered by half a cosine, makes this of a point.
        reach = width / window
        edge = np.clip(line / (4 * reach), -0.5, 0.5)
        kernel = np.convolve(kernel, np.sinc(line / reach) * np.cos(np.pi * edge), mode="same")
    kernel = np.interp(wanted[:, None] - fine[None], line, kernel, left=0, right=0)
    matrix: FloatArray = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def imaged(volume: FloatArray, matrices: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
    """Apply one matrix along each axis."""
    x, y, z = matrices
    seen: FloatArray = np.einsum(
        "ai,ijk,bj,ck->abc", x, volume, y, z, optimize=["einsum_path", (0, 1), (0, 2), (0, 1)]
    )
    return seen


def noisy(images: FloatArray, sigma: float, coils: int, random: np.random.Generator) -> FloatArray:
    """Add the noise of a root of a sum of squares; with one coil it is Rician."""
    squares = np.zeros_like(images)
    for coil in range(coils):
        for part in range(2):
            noise = np.float32(sigma) * random.standard_normal(images.shape, dtype=np.float32)
            squares += (noise + images if coil == part == 0 else noise) ** 2
    return np.sqrt(squares)


def drawn(random: np.random.Generator, spacing: float) -> tuple[Scanner, ...]:
    """Draw a set's four scanners: an old one, two newer ones, and one with half the voxel size."""

    def scanner(
        name: str, blur: tuple[float, float], snr: tuple[float, float], **more: int
    ) -> Scanner:
        width = spacing / more.get("scale", 1)
        spread = np.clip(random.uniform(*blur) * random.uniform(0.75, 1.3, 3), 0.2, None)
        options = {"scale": 1, "directions": int(random.integers(30, 46)), "b0_volumes": 3} | more
        return Scanner(
            name=name,
            turn=int(random.integers(1_000_000)),
            echo=float(random.uniform(65, 100)),
            blur=(float(spread[0]), float(spread[1]), float(spread[2])),
            window=float(random.choice([1.0, 0.75])) if width > 2 else 1.0,
            b_scale=float(random.normal(1, 0.04)),
            bow=float(random.normal(0, 0.04)),
            snr=float(random.uniform(*snr)),
            coils=int(random.choice([1, 1, 4])),
            shading=float(random.uniform(-0.4, 0.4)),
            **options,
        )

    old = (0.45 * spacing, 0.65 * spacing)
    new = (0.18 * spacing, 0.34 * spacing)
    return (
        scanner("old_st", old, (14.0, 21.0)),
        scanner("new_st", new, (20.0, 30.0)),
        scanner("strong_st", new, (22.0, 34.0)),
        scanner(
            "strong_sa", (0.14 * spacing, 0.26 * spacing), (12.0, 18.0), scale=2, directions=45
        ),
    )
