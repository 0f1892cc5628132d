"""The imaging chain: gradients as they are felt, point spread, noise."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.gradients import B0_MAXIMUM, GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.platforms import Platform
from napari_msp.data.phantom.sampling import along_axes, grid_of, point_spread
from napari_msp.data.phantom.tissue import SignalModel

WORKERS = 2
"""Volumes simulated at a time (numpy lets threads run side by side)."""


def point_spreads(
    platform: Platform, model: SignalModel, lattice: Lattice
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give the matrices that take the fine grid to the platform's voxels."""
    fine = model.head.grid
    target = grid_of(lattice)
    # A voxel of the fine grid's own size is already averaged by being sampled there.
    width = target.spacing if target.spacing > 1.5 * fine.spacing else 0.0
    x, y, z = (
        point_spread(source, wanted, width, blur)
        for source, wanted, blur in zip(fine.axes, target.axes, platform.blur, strict=True)
    )
    return x, y, z


def acquire(
    platform: Platform, model: SignalModel, table: GradientTable, lattice: Lattice
) -> FloatArray:
    """Image a head without noise.

    Returns
    -------
    (X, Y, Z, N) float32 in image units, on `lattice` (RAS+ order).
    """
    spreads = point_spreads(platform, model, lattice)
    field = platform.gradient_field.tensor(model.head.points)
    images = np.empty((*lattice.shape, len(table)), dtype=np.float32)

    def volume(number: int) -> FloatArray:
        b_value = table.b_values[number]
        if b_value <= B0_MAXIMUM:
            values = model.without_weighting()
        else:
            strength = np.sqrt(b_value * platform.b_scale)
            gradient = (strength * table.directions[number]).astype(np.float32)
            values = model.weighted(np.einsum("ijn,j->in", field, gradient))
        imaged = along_axes(model.head.volume(values), spreads)
        return imaged * np.float32(platform.gain)

    first_b0 = int(table.b0_volumes[0])
    numbers = [n for n in range(len(table)) if n == first_b0 or n not in table.b0_volumes]
    with ThreadPoolExecutor(WORKERS) as pool:
        for number, image in zip(numbers, pool.map(volume, numbers), strict=True):
            images[..., number] = image
    images[..., table.b0_volumes] = images[..., first_b0, None]
    return images


def add_noise(images: FloatArray, sigma: float, seed: list[int]) -> FloatArray:
    """Add Rician noise: the magnitude of a signal with Gaussian noise in two channels.

    Parameters
    ----------
    images
        (X, Y, Z, N) noise-free.
    sigma
        Standard deviation of each channel in image units.
    seed
        Each volume draws from its own stream, [*seed, volume].

    Returns
    -------
    (X, Y, Z, N) float32.
    """
    noisy = np.empty_like(images)

    def volume(number: int) -> FloatArray:
        rng = np.random.default_rng([*seed, number])
        real, imaginary = sigma * rng.standard_normal((2, *images.shape[:3]), dtype=np.float32)
        magnitude: FloatArray = np.hypot(images[..., number] + real, imaginary)
        return magnitude

    with ThreadPoolExecutor(WORKERS) as pool:
        for number, image in enumerate(pool.map(volume, range(images.shape[-1]))):
            noisy[..., number] = image
    return noisy
