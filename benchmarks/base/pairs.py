"""Blocks of simulated heads, each seen by an input scanner and by target scanners of its own.

Heads and signal are those of `napari_msp.data.phantom`. What differs from block to block is drawn
here: shape, pose and tissue of the head, size of the voxels, b-value, and for each platform echo
time, point spread, gradient field, true b-value, noise and directions. Targets are kept without
noise: what a network should predict is the mean of what it cannot know.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.head import along_axes, grid_of, make_head
from napari_msp.data.phantom.platforms import (
    B_VALUE,
    PLATFORMS,
    SPACING,
    GradientField,
    Platform,
)
from napari_msp.data.phantom.scan import (
    MARGIN,
    PURE_WHITE,
    SignalModel,
    acquire,
    add_noise,
    point_spreads,
)
from napari_msp.data.phantom.subjects import CENTRE, Pose, Subject, aligned, draw_subject
from napari_msp.files import atomic_path
from napari_msp.signal.channels import (
    GridImage,
    Standardisation,
    into_grid,
    measure_standardisation,
)
from napari_msp.signal.fitting import fit_sh

Variety = Literal["nominal", "near", "random"]
"""The phantom's own four platforms for every head, scanners drawn near these, or any scanners."""

EDGE = 31
"""Input voxels along an axis of a block."""

INPUTS = 2
"""Input scanners that look at each block, over the same targets."""

TARGETS = {"base_st": 1, "base_st2": 1, "base_sa": 2}
"""Targets of the base and their lattice scales."""

SPACINGS: dict[Variety, tuple[float, float]] = {
    "nominal": (SPACING, SPACING),
    "near": (2.0, 2.6),
    "random": (1.8, 2.8),
}
"""Voxel size of the input in mm."""

B_VALUES: dict[Variety, tuple[float, float]] = {
    "nominal": (B_VALUE, B_VALUE),
    "near": (1000.0, 2000.0),
    "random": (1000.0, 3000.0),
}
"""In s/mm²."""

TISSUE: dict[Variety, float] = {"nominal": 0.0, "near": 0.5, "random": 1.0}
"""How far tissue lies from the usual, relative to the widest."""

LEAST_BRAIN = 0.45
"""Part of a block that must be brain, or another place is drawn."""


@dataclass(frozen=True, eq=False)
class Channels:
    """A block on one platform, as a network sees it.

    Attributes
    ----------
    values
        (28, X, Y, Z) float16, standardised by orders; 0 outside the mask.
    mask
        (X, Y, Z).
    mean, deviation
        (28,) by which they were standardised, measured on the scan with its noise.
    """

    values: FloatArray
    mask: MaskArray
    mean: FloatArray
    deviation: FloatArray


@dataclass(frozen=True, eq=False)
class Block:
    """A block of a head on all its platforms.

    Attributes
    ----------
    inputs
        With noise, one for each input scanner.
    targets
        Without noise, by name.
    """

    inputs: list[Channels]
    targets: dict[str, Channels]

    def save(self, path: Path) -> None:
        """Write all arrays to one file."""
        parts = {f"input{number}": each for number, each in enumerate(self.inputs)} | self.targets
        arrays = {
            f"{name}/{field}": getattr(part, field)
            for name, part in parts.items()
            for field in ("values", "mask", "mean", "deviation")
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Block":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:

            def part(name: str) -> Channels:
                fields = ("values", "mask", "mean", "deviation")
                return Channels(*(arrays[f"{name}/{field}"] for field in fields))

            inputs = [part(f"input{number}") for number in range(INPUTS)]
            return cls(inputs, {name: part(name) for name in TARGETS})


def make_block(seed: int, index: int, variety: Variety) -> Block:
    """Simulate one block; the same one however many others there are."""
    rng = np.random.default_rng([seed, index, 77])
    drawn = variety != "nominal"
    person = draw_subject(seed, index)
    pose, spacing, b_value = aligned(), SPACING, B_VALUE
    if drawn:
        person = _varied(person, rng, TISSUE[variety])
        pose = Pose(Rotation.random(random_state=rng).as_matrix(), np.zeros(3))
        spacing = rng.uniform(*SPACINGS[variety])
        low, high = B_VALUES[variety]
        b_value = float(rng.choice([rng.uniform(low, 1500), rng.uniform(low, high)]))
    with threadpool_limits(1, user_api="blas"):
        for _ in range(20):
            lattice = _place(pose, spacing, rng)
            fine = grid_of(lattice.refined(2)).extended(MARGIN)
            head = make_head(person, pose, fine)
            if head.brain.sum() > LEAST_BRAIN * np.prod(fine.shape):
                break
        inputs, targets = _platforms(rng, variety) if drawn else _nominal()

        def seen(platform: Platform, number: int, *, noisy: bool) -> Channels:
            own = lattice if platform.scale == 1 else lattice.refined(2)
            model = SignalModel(head, person.tissue, platform.echo_time, platform.repetition_time)
            table = platform.table((b_value,))
            images = acquire(platform, model, table, own)
            spreads = point_spreads(platform, model, own)
            white = along_axes(head.volume(head.white), spreads)
            mask = along_axes(head.volume(head.brain), spreads) > 0.5
            pure = white > PURE_WHITE
            b0 = images[..., int(table.b0_volumes[0])]
            sigma = float(b0[pure if pure.sum() > 50 else mask].mean() / platform.snr)
            noise = add_noise(images, sigma, [seed, index, number])
            scan = _fitted(noise, table, own, mask)
            statistics = measure_standardisation([scan], per_order=True)
            return _channels(scan if noisy else _fitted(images, table, own, mask), statistics)

        return Block(
            [seen(each, 10 + number, noisy=True) for number, each in enumerate(inputs)],
            {
                name: seen(each, number, noisy=False)
                for number, (name, each) in enumerate(targets.items())
            },
        )


def _channels(image: GridImage, statistics: Standardisation) -> Channels:
    values = np.moveaxis(statistics.apply(image), -1, 0).astype(np.float16)
    return Channels(values, image.mask, statistics.mean, statistics.deviation)


def _fitted(
    images: FloatArray, table: GradientTable, lattice: Lattice, mask: MaskArray
) -> GridImage:
    image = nib.Nifti1Image(images, lattice.affine)
    return into_grid(fit_sh(Acquisition(image, table, given_mask=mask, every_volume=True)))


def _place(pose: Pose, spacing: float, rng: np.random.Generator) -> Lattice:
    """Centre a block somewhere in the brain."""
    inside = CENTRE + rng.uniform(-1, 1, 3) * np.array([38.0, 48.0, 34.0])
    centre = pose.from_head(inside[:, None])[:, 0]
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = centre - spacing * (EDGE - 1) / 2
    return Lattice((EDGE, EDGE, EDGE), affine)


def _varied(person: Subject, rng: np.random.Generator, far: float) -> Subject:
    """Draw a head farther from the template, and tissue farther from the usual (our choice)."""
    usual = person.tissue
    return replace(
        person,
        stretch=person.stretch * rng.uniform(0.85, 1.15, 3),
        wave_amplitudes=person.wave_amplitudes * rng.uniform(0.5, 1.3),
        csf_gain=person.csf_gain * float(np.exp(rng.normal(0, 0.4))),
        tissue=replace(
            usual,
            axial_diffusivity=2.0e-3 + far * rng.uniform(-0.5e-3, 0.5e-3),
            intra_fraction=0.55 + far * rng.uniform(-0.2, 0.2),
            grey_diffusivity=0.8e-3 + far * rng.uniform(-0.2e-3, 0.2e-3),
            t2_intra=usual.t2_intra * (1 + far * rng.uniform(-0.25, 0.3)),
            t2_extra=usual.t2_extra * (1 + far * rng.uniform(-0.25, 0.3)),
            t2_grey=usual.t2_grey * (1 + far * rng.uniform(-0.2, 0.25)),
        ),
    )


def _nominal() -> tuple[list[Platform], dict[str, Platform]]:
    return [PLATFORMS[0]] * INPUTS, dict(zip(TARGETS, PLATFORMS[1:], strict=True))


def _platforms(
    rng: np.random.Generator, variety: Variety
) -> tuple[list[Platform], dict[str, Platform]]:
    """Draw scanners: inputs that blur more than targets, always or more often than not (ours)."""
    near = variety == "near"
    change = 0.06 if near else 0.1

    def draw(
        name: str, blur: tuple[float, float], snr: tuple[float, float], **more: int
    ) -> Platform:
        width = rng.uniform(*blur)
        spread = width * rng.uniform(0.7, 1.4, 3)
        return Platform(
            name=name,
            manufacturer="",
            model="",
            scheme=int(rng.integers(1, 9)),
            directions=int(rng.choice([30, 32, 45, 60, 64])),
            echo_time=rng.uniform(60, 110),
            repetition_time=rng.uniform(4000, 9000),
            blur=(float(spread[0]), float(spread[1]), float(spread[2])),
            b_scale=rng.uniform(1 - change, 1 + change),
            gradient_field=GradientField(*rng.uniform(-0.04, 0.04, 2)),
            snr=rng.uniform(*snr),
            gain=1.0,
            orientation="RAS",
            **more,
        )

    old = ((1.0, 1.6), (14.0, 22.0)) if near else ((0.4, 1.7), (12.0, 35.0))
    new = ((0.4, 0.7), (20.0, 32.0)) if near else ((0.25, 1.0), (18.0, 40.0))
    inputs = [draw("input_st", *old) for _ in range(INPUTS)]
    targets = {
        "base_st": draw("base_st", *new),
        "base_st2": draw("base_st2", *new),
        "base_sa": draw("base_sa", (0.25, 0.8), (10.0, 25.0), scale=2),
    }
    return inputs, targets


def block_path(folder: Path, variety: Variety, index: int) -> Path:
    """Say where a block lies."""
    return folder / variety / f"{index:04d}.npz"


def make_blocks(folder: Path, variety: Variety, count: int, seed: int) -> list[Path]:
    """Make the blocks that are not there yet; give the paths of all."""
    paths = [block_path(folder, variety, index) for index in range(count)]
    for index, path in enumerate(paths):
        if not path.exists():
            make_block(seed, index, variety).save(path)
    return paths
