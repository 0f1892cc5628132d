"""Well-spread gradient directions."""

from functools import lru_cache

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.gradients import GradientTable

STEPS = 400
"""Gradient-descent steps; the energy of 60 directions has settled after 300."""


@lru_cache(maxsize=16)
def spread_directions(count: int, seed: int) -> FloatArray:
    """Spread directions over the half-sphere by electrostatic repulsion (Jones 1999).

    Each direction stands for a pair of antipodal charges. Scanners of different makes have
    different sets: `seed` chooses the starting points and so the set.

    Parameters
    ----------
    count
        Number of directions.
    seed
        Any whole number.

    Returns
    -------
    (count, 3) unit vectors with z >= 0.
    """
    rng = np.random.default_rng([seed, count])
    points = rng.standard_normal((count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    reach = np.sqrt(2 * np.pi / count)  # typical distance between neighbours
    for step in range(STEPS):
        force = np.zeros_like(points)
        for sign in (1.0, -1.0):
            apart = points[:, None] - sign * points[None]
            distance = np.linalg.norm(apart, axis=-1)
            np.fill_diagonal(distance, np.inf)
            force += (apart / distance[..., None] ** 3).sum(axis=1)
        force -= (force * points).sum(axis=1, keepdims=True) * points
        length = 0.1 * reach * (1 - step / STEPS)
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
        In s/mm².
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
