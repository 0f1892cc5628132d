"""One subject on one platform: tissue signal, gradients as felt, point spread, noise.

White matter is, for each fibre population, a stick (intra-axonal) and a zeppelin (extra-axonal);
grey matter a nearly isotropic zeppelin along the cortex's radius; CSF free water; diseased tissue
isotropic. Every compartment has its own proton density, T1 and T2.
"""

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
from napari_msp.data.phantom.changes import HeadChange, bundles_after, head_after, subject_after
from napari_msp.data.phantom.head import (
    WORKERS,
    SimulatedHead,
    along_axes,
    grid_of,
    make_head,
    point_spread,
)
from napari_msp.data.phantom.platforms import (
    B_VALUE,
    PLATFORMS,
    Platform,
    lattice_for,
    platform_named,
)
from napari_msp.data.phantom.subjects import Pose, Subject, Tissue, aligned, draw_pose, draw_subject

MARGIN = 4
"""Fine voxels simulated beyond the field of view, so that the point spread sees across its edge."""

PURE_WHITE = 0.8
"""White-matter fraction of the voxels in which SNR is defined."""

DENSITY_WHITE, DENSITY_GREY, DENSITY_FLUID = 0.70, 0.82, 1.0
"""Proton density relative to water (Mezer 2013)."""

DENSITY_DISEASED, T1_DISEASED = 0.9, 1700.0
"""Proton density relative to water and T1 in ms: as swollen grey matter's (our choice)."""

T1_WHITE, T1_GREY, T1_FLUID = 1080.0, 1820.0, 4300.0
"""T1 in ms at 3 T (Stanisz 2005; CSF: Lu 2005)."""

FLUID_DIFFUSIVITY = 3.0e-3
"""Free water at body temperature in mm²/s (Pierpaoli 1996)."""

GREY_ANISOTROPY = 0.12
"""Excess of radial over mean diffusivity in cortex, relative (McNab 2013: weakly radial)."""


def stick_and_zeppelin(
    tissue: Tissue, coherence: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return axial and radial diffusivities of both compartments after orientation dispersion.

    A dispersed compartment is replaced by its mean diffusion tensor, which is exact to first
    order in b (our choice; it saves an integral over orientations for each voxel). At b = 3000 it
    leaves a fanning bundle a little less signal than the integral would.

    Returns
    -------
    Intra-axonal axial and radial, extra-axonal axial and radial diffusivity in mm²/s, each with
    the shape of `coherence`.
    """
    along = tissue.axial_diffusivity
    across = (1 - tissue.intra_fraction) * along  # tortuosity (Szafer 1995)
    beside = (1 - coherence) / 2
    return (
        along * coherence,
        along * beside,
        across + (along - across) * coherence,
        across + (along - across) * beside,
    )


def zeppelin(
    b_squared: FloatArray, b_along: FloatArray, axial: FloatArray, radial: FloatArray
) -> FloatArray:
    """Return the signal of an axially symmetric tensor.

    Parameters
    ----------
    b_squared
        b-value felt, in s/mm².
    b_along
        b-value times the squared cosine to the tensor's axis.
    axial, radial
        Diffusivities in mm²/s.
    """
    return np.asarray(np.exp(-b_squared * radial - b_along * (axial - radial)))


def weighting(density: float, t1: float, t2: float, echo: float, repetition: float) -> float:
    """Return the signal of a spin echo without diffusion weighting; times in ms."""
    return density * float((1 - np.exp(-repetition / t1)) * np.exp(-echo / t2))


class SignalModel:
    """The signal of one head under one echo and repetition time.

    Parameters
    ----------
    echo, repetition
        Times in ms.
    """

    def __init__(self, head: SimulatedHead, tissue: Tissue, echo: float, repetition: float) -> None:
        self.head = head
        times = (echo, repetition)
        f = tissue.intra_fraction
        self._intra = f * weighting(DENSITY_WHITE, T1_WHITE, tissue.t2_intra, *times)
        self._extra = (1 - f) * weighting(DENSITY_WHITE, T1_WHITE, tissue.t2_extra, *times)
        self._grey = weighting(DENSITY_GREY, T1_GREY, tissue.t2_grey, *times) * head.grey
        self._fluid = weighting(DENSITY_FLUID, T1_FLUID, tissue.t2_fluid, *times) * head.fluid
        self._diseased = [
            (
                weighting(DENSITY_DISEASED, T1_DISEASED, each.t2, *times) * each.fraction,
                np.float32(each.diffusivity),
            )
            for each in head.diseased
        ]
        self._grey_axial = np.asarray(tissue.grey_diffusivity * (1 + GREY_ANISOTROPY), np.float32)
        radial = tissue.grey_diffusivity * (1 - GREY_ANISOTROPY / 2)
        self._grey_radial = np.asarray(radial, np.float32)
        self._populations = [
            (
                fibres,
                head.white[fibres.index] * fibres.weight,
                [np.asarray(d, np.float32) for d in stick_and_zeppelin(tissue, fibres.coherence)],
            )
            for fibres in head.fibres
        ]

    def without_weighting(self) -> FloatArray:
        """Return the (N,) signal at b = 0."""
        white = (self._intra + self._extra) * self.head.white
        signal: FloatArray = white + self._grey + self._fluid
        for diseased, _ in self._diseased:
            signal += diseased
        return signal

    def weighted(self, felt: FloatArray) -> FloatArray:
        """Return the signal under a diffusion gradient.

        Parameters
        ----------
        felt
            (3, N) direction times the square root of the b-value that each voxel feels.

        Returns
        -------
        (N,) float32.
        """
        b = np.einsum("in,in->n", felt, felt)
        signal: FloatArray = self._fluid * np.exp(-b * np.float32(FLUID_DIFFUSIVITY))
        b_radial = np.square(np.einsum("in,in->n", felt, self.head.radial))
        signal += self._grey * zeppelin(b, b_radial, self._grey_axial, self._grey_radial)
        for diseased, diffusivity in self._diseased:
            signal += diseased * np.exp(-b * diffusivity)
        for fibres, share, (stick_a, stick_r, zeppelin_a, zeppelin_r) in self._populations:
            here = fibres.index
            b_here = b[here]
            along = np.square(np.einsum("in,in->n", felt[:, here], fibres.direction))
            signal[here] += share * (
                np.float32(self._intra) * zeppelin(b_here, along, stick_a, stick_r)
                + np.float32(self._extra) * zeppelin(b_here, along, zeppelin_a, zeppelin_r)
            )
        return signal


def point_spreads(
    platform: Platform, model: SignalModel, lattice: Lattice
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the matrices that take the fine grid to the platform's voxels."""
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
        return np.asarray(np.hypot(images[..., number] + real, imaginary))

    with ThreadPoolExecutor(WORKERS) as pool:
        for number, image in enumerate(pool.map(volume, range(images.shape[-1]))):
            noisy[..., number] = image
    return noisy


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """A simulated acquisition in the platform's order of voxels, its table in scanner axes.

    Attributes
    ----------
    dwi
        (X, Y, Z, N) float32 with noise, in whole image units.
    noise_free
        (X, Y, Z, N) float32 of the same imaging chain without noise or rounding.
    sigma
        Noise of one channel in image units.
    pose
        Position of the head: its residual misalignment.
    """

    subject: Subject
    platform: Platform
    dwi: FloatArray
    noise_free: FloatArray
    table: GradientTable
    mask: MaskArray
    lattice: Lattice
    sigma: float
    pose: Pose

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.dwi.shape))
        return f"SimulatedScan(sub-{self.subject.label} {self.platform.name}, {shape})"


def simulate_subject(
    subject: int,
    platforms: tuple[Platform, ...] = PLATFORMS,
    size: str = "small",
    seed: int = 0,
    *,
    b_value: Sequence[float] = (B_VALUE,),
    misalignment: float = 0.0,
    changes: Sequence[HeadChange] = (),
    run: int = 1,
) -> Iterator[SimulatedScan]:
    """Scan one subject on several platforms; the head is made once.

    Parameters
    ----------
    subject
        Index from 0 (sub-01).
    platforms
        Platforms to scan on, in the order in which scans are wanted.
    size
        "tiny", "small" or "full".
    seed
        Seed of the whole dataset, from which subject and noise follow.
    b_value
        b-values of the shells, in s/mm².
    misalignment
        Residual shift of every scan but the first platform's, in mm (see `draw_pose`).
    changes
        Changes to this head: weaker bundles, lesions, atrophy, age.
    run
        Number of the repetition: later ones are the same head repositioned, with other noise.

    Raises
    ------
    UserError
        When there is no such size or bundle.
    """
    person = subject_after(changes, draw_subject(seed, subject))
    fine = grid_of(lattice_for(size, platform_named("connectom_sa"))).extended(MARGIN)
    bundles = bundles_after(changes, person.tissue)
    head = None
    for platform in platforms:
        pose = pose_of(seed, subject, platform, misalignment, run)
        if misalignment and platform.number:
            head = None
        # BLAS threads would compete with those of `acquire` for the cores, and their other order
        # of sums would make the last bit differ from machine to machine.
        with threadpool_limits(1, user_api="blas"):
            if head is None:
                head = head_after(changes, make_head(person, pose, fine, bundles), person, pose)
            scan = _scan(head, person, platform, size, b_value, seed, pose, run)
        yield scan


def pose_of(seed: int, subject: int, platform: Platform, misalignment: float, run: int = 1) -> Pose:
    """Return a head's position in the scan of a platform; on the first platform it is not moved."""
    if not misalignment or not platform.number:
        return aligned()
    stream = [seed, subject, _stream(1, run), platform.number]
    return draw_pose(misalignment, np.random.default_rng(stream))


def _stream(number: int, run: int) -> int:
    """Return the number of a stream of random numbers; later runs have their own."""
    return number if run == 1 else 10 * number + run


def _scan(
    head: SimulatedHead,
    subject: Subject,
    platform: Platform,
    size: str,
    b_values: Sequence[float],
    seed: int,
    pose: Pose,
    run: int = 1,
) -> SimulatedScan:
    lattice = lattice_for(size, platform)
    model = SignalModel(head, subject.tissue, platform.echo_time, platform.repetition_time)
    table = platform.table(b_values)
    noise_free = acquire(platform, model, table, lattice)
    spreads = point_spreads(platform, model, lattice)
    white = along_axes(head.volume(head.white), spreads)
    brain = along_axes(head.volume(head.brain), spreads)
    b0 = noise_free[..., int(table.b0_volumes[0])]
    sigma = float(b0[white > PURE_WHITE].mean() / platform.snr)
    dwi = add_noise(noise_free, sigma, [seed, subject.index, _stream(2, run), platform.number])
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
        pose=pose,
    )
