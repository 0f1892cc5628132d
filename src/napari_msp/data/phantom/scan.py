"""One subject on one platform, in memory: gradients as they are felt, point spread, noise."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from threadpoolctl import threadpool_limits

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.gradients import B0_MAXIMUM, GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.changes import Change, bundles_after, head_after
from napari_msp.data.phantom.grids import along_axes, grid_of, lattice_for, point_spread
from napari_msp.data.phantom.head import Head, make_head
from napari_msp.data.phantom.platforms import PLATFORMS, Platform, platform_named
from napari_msp.data.phantom.signal import SignalModel
from napari_msp.data.phantom.subjects import Subject, aligned, draw_pose, draw_subject

MARGIN = 4
"""Fine voxels simulated beyond the field of view, so that the point spread sees across its edge."""

PURE_WHITE = 0.8
"""White-matter fraction of the voxels in which SNR is defined."""

WORKERS = 2
"""Volumes simulated at a time (numpy lets threads run side by side)."""


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """A simulated acquisition.

    Attributes
    ----------
    subject, platform
        Who, on what.
    dwi
        (X, Y, Z, N) float32 with noise, in whole image units.
    noise_free
        (X, Y, Z, N) float32 of the same imaging chain without noise or rounding.
    table
        The gradient table as the scanner states it, in scanner axes.
    mask
        (X, Y, Z) brain mask.
    lattice
        Where the voxels lie; stored in the platform's own orientation.
    sigma
        Noise of one channel in image units.
    shift
        (3,) residual misalignment of this scan in mm.
    """

    subject: Subject
    platform: Platform
    dwi: FloatArray
    noise_free: FloatArray
    table: GradientTable
    mask: MaskArray
    lattice: Lattice
    sigma: float
    shift: FloatArray

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.dwi.shape))
        return f"SimulatedScan(sub-{self.subject.label} {self.platform.name}, {shape})"


def simulate_scan(
    subject: int,
    platform: str,
    size: str = "small",
    seed: int = 0,
    *,
    misalignment: float = 0.0,
    changes: Sequence[Change] = (),
    noise_seed: int | None = None,
) -> SimulatedScan:
    """Scan one subject on one platform.

    Parameters
    ----------
    subject
        Index from 0 (sub-01).
    platform
        "ge_st", "prisma_st", "connectom_st" or "connectom_sa".
    size
        "tiny", "small" or "full".
    seed
        Of the whole dataset; subject and noise follow from it.
    misalignment
        Residual shift of every scan but the first platform's, in mm (see `draw_pose`).
    changes
        What is made different in this head: weaker bundles, lesions.
    noise_seed
        Of the noise alone, for a second scan of the same head; None: `seed`.

    Raises
    ------
    UserError
        When there is no such size or bundle.
    """
    return next(
        simulate_subject(
            subject,
            (platform_named(platform),),
            size,
            seed,
            misalignment=misalignment,
            changes=changes,
            noise_seed=noise_seed,
        )
    )


def simulate_subject(
    subject: int,
    platforms: tuple[Platform, ...] = PLATFORMS,
    size: str = "small",
    seed: int = 0,
    *,
    misalignment: float = 0.0,
    changes: Sequence[Change] = (),
    noise_seed: int | None = None,
) -> Iterator[SimulatedScan]:
    """Scan one subject on several platforms; as `simulate_scan`, but the head is made once."""
    person = draw_subject(seed, subject)
    fine = grid_of(lattice_for(size, platform_named("connectom_sa"))).extended(MARGIN)
    bundles = bundles_after(changes, person.tissue)
    head = None
    for platform in platforms:
        pose = aligned()
        if misalignment and platform.number:
            pose = draw_pose(
                misalignment, np.random.default_rng([seed, subject, 1, platform.number])
            )
            head = None
        # Threads of the BLAS would fight with those of `acquire` for the cores, and what they add
        # up in another order would differ in the last bit from machine to machine.
        with threadpool_limits(1, user_api="blas"):
            if head is None:
                head = head_after(changes, make_head(person, pose, fine, bundles), person, pose)
            noise = seed if noise_seed is None else noise_seed
            scan = _scan(head, person, platform, size, noise, pose.shift)
        yield scan


def _scan(
    head: Head, subject: Subject, platform: Platform, size: str, noise_seed: int, shift: FloatArray
) -> SimulatedScan:
    lattice = lattice_for(size, platform)
    model = SignalModel(head, subject.tissue, platform.echo_time, platform.repetition_time)
    table = platform.table()
    noise_free = acquire(platform, model, table, lattice)
    spreads = point_spreads(platform, model, lattice)
    white = along_axes(head.volume(head.white), spreads)
    brain = along_axes(head.volume(head.brain), spreads)
    b0 = noise_free[..., int(table.b0_volumes[0])]
    sigma = float(b0[white > PURE_WHITE].mean() / platform.snr)
    dwi = add_noise(noise_free, sigma, [noise_seed, subject.index, 2, platform.number])
    np.rint(dwi, out=dwi)

    stored = axcodes2ornt(tuple(platform.orientation))
    change = ornt_transform(io_orientation(lattice.affine), stored)
    affine = lattice.affine @ inv_ornt_aff(change, lattice.shape)
    return SimulatedScan(
        subject=subject,
        platform=platform,
        dwi=apply_orientation(dwi, change),
        noise_free=apply_orientation(noise_free, change),
        table=table,
        mask=apply_orientation(brain > 0.5, change),
        lattice=Lattice(lattice.shape, affine),
        sigma=sigma,
        shift=shift,
    )


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
