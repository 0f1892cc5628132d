"""Semi-real heads: a real scan, seen through simulated scanners.

    python benchmarks/semireal.py DWI OUT [--mask MASK] [--seed 0]

What it needs: one DWI as NIfTI with its .bval and .bvec beside it, a b=0 volume and one shell of 30
directions or more, over at least 60 mm along every axis (a slab of 24 slices of 2.5 mm does), and
its echo time. Nothing of it is kept in this repository, and nothing here knows where it lies.

The scan is fitted with spherical harmonics of orders 0 to 4, which is what some thirty directions
with near-duplicates among them determine, and cut into six blocks. Each block is then scanned anew:
the directions, point spread, gradient field, echo time and noise are those of the first three
scanners that a far set draws (`benchmarks/far`), on their common lattice. OUT becomes a
travelling-heads dataset whose subjects are the blocks, with noise-free twins. What that is worth:
anatomy and its texture are real; scanners, relaxation and noise are not; the scan's own noise
counts as anatomy; and six blocks of one person are no six people: what is learned from one block
may fit the next better than it would fit somebody else.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from far.scanners import Scanner, drawn, felt, imaged, noisy, spread_along
from far.sets import Scan, table_of
from far.writing import start_dataset, write_scan

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.lattice import Lattice, resample_with_mask
from napari_msp.errors import Advice, UserError
from napari_msp.files import new_folder
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import tensor_maps
from napari_msp.signal.spherical_harmonics import design_matrix

ORDER = 4
SPACING = 2.4
"""Of the input and the targets in mm."""

EDGE, BEYOND = 21, 3
"""Voxels of a block along an axis, and fine voxels around it that the point spread sees."""

BLOCKS = 6
LEAST_BRAIN = 0.3
"""Part of a block that must be brain."""

FREE_WATER, TISSUE_MD = 3.0e-3, 0.9e-3
"""Mean diffusivities between which a voxel goes from tissue to fluid, in mm²/s (our choice)."""

T2_FLUID, T2_WHITE, T2_GREY = 1500.0, 72.0, 92.0
"""In ms (our choice); tissue lies between the last two by its FA."""

GAIN = 1000.0
"""Image units of white matter at b = 0, about."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """A real scan on a fine lattice.

    Attributes
    ----------
    lattice
        Where its voxels lie.
    mask
        (X, Y, Z).
    coefficients
        (X, Y, Z, 15) of the signal over b = 0.
    unweighted
        (X, Y, Z) signal at b = 0, about 1 in white matter.
    fluid
        (X, Y, Z) part of that signal which is fluid's.
    t2
        (X, Y, Z) of the rest, in ms.
    b_value, echo
        Of the scan, in s/mm² and ms.
    """

    lattice: Lattice
    mask: FloatArray
    coefficients: FloatArray
    unweighted: FloatArray
    fluid: FloatArray
    t2: FloatArray
    b_value: float
    echo: float

    def block(self, start: FloatArray) -> "Tissue":
        """Cut out what a block needs, from a voxel on."""
        size = 2 * EDGE - 1 + 2 * BEYOND
        where = tuple(slice(int(first), int(first) + size) for first in start)
        affine = self.lattice.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ start
        return Tissue(
            Lattice((size, size, size), affine),
            self.mask[where],
            self.coefficients[where],
            self.unweighted[where],
            self.fluid[where],
            self.t2[where],
            self.b_value,
            self.echo,
        )

    def at_b0(self, echo: float) -> tuple[FloatArray, FloatArray]:
        """Give what tissue and fluid give without weighting at another echo time."""
        later = echo - self.echo
        solid = self.unweighted * (1 - self.fluid) * np.exp(-later / self.t2)
        return solid, self.unweighted * self.fluid * np.exp(-later / T2_FLUID)

    def left(self, direction: FloatArray, b_felt: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Give what is left of both under a gradient.

        What is measured at the scan's b-value is taken to fall exponentially around it.

        Parameters
        ----------
        direction
            (3,) in scanner axes.
        b_felt
            (X, Y, Z) b-value.
        """
        measured = self.coefficients @ design_matrix(direction[None], ORDER)[0]
        free = np.exp(-self.b_value * FREE_WATER)
        solid = (measured - self.fluid * free) / np.maximum(1 - self.fluid, 0.05)
        solid = np.clip(solid, 0.02, 1.0)
        return solid ** (b_felt / self.b_value), np.exp(-b_felt * FREE_WATER)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dwi", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--echo-time", type=float, default=58.0, help="of the scan, in ms")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tissue = read_tissue(options.dwi, options.mask, options.echo_time)
    write_heads(options.out, tissue, options.seed)


def read_tissue(dwi: Path, mask: Path | None, echo: float) -> Tissue:
    """Fit a scan and bring it to a lattice of half the spacing, along the scanner's axes.

    Raises
    ------
    UserError
        When it is too small for a block.
    """
    scan = load_acquisition(dwi, mask=mask)
    image = fit_sh(scan, order=ORDER)
    tensor = tensor_maps(image)
    b0 = np.asarray(scan.image.dataobj[..., int(scan.gradients.b0_volumes[0])], np.float32)
    white = image.mask & (tensor.fa > 0.4) & (tensor.md < TISSUE_MD)
    fluid = np.clip((tensor.md - TISSUE_MD) / (FREE_WATER - TISSUE_MD), 0, 1)
    t2 = T2_GREY + (T2_WHITE - T2_GREY) * np.clip(tensor.fa / 0.5, 0, 1)
    maps = np.stack([b0 / np.median(b0[white]), fluid, t2], axis=-1)
    every = np.concatenate([image.coefficients, maps], axis=-1).astype(np.float32)

    fine = fine_lattice(image.lattice)
    values, inside = resample_with_mask(every, image.mask, image.lattice, fine)
    values[~inside] = 0
    size = 2 * EDGE - 1 + 2 * BEYOND
    if min(fine.shape) < size:
        wanted = SPACING / 2 * size
        remedy = Advice(f"give a scan of at least {wanted:.0f} mm along every axis")
        raise UserError("is too small to cut blocks from", dwi, remedy=remedy)
    return Tissue(
        lattice=fine,
        mask=inside.astype(np.float32),
        coefficients=values[..., :-3],
        unweighted=values[..., -3],
        fluid=values[..., -2],
        t2=np.where(inside, values[..., -1], T2_GREY),
        b_value=float(image.b_value or 0.0),
        echo=echo,
    )


def fine_lattice(lattice: Lattice) -> Lattice:
    """Give a lattice of half the spacing along the scanner's axes that covers another one."""
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in lattice.shape])).reshape(3, -1)
    points = lattice.affine[:3, :3] @ corners + lattice.affine[:3, 3:]
    low, high = points.min(axis=1), points.max(axis=1)
    step = SPACING / 2
    shape = tuple(int(n) for n in (high - low) // step + 1)
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = low
    return Lattice((shape[0], shape[1], shape[2]), affine)


def places(tissue: Tissue) -> list[FloatArray]:
    """Give the first voxel of each block: on a regular pattern, those with most brain.

    Raises
    ------
    UserError
        When there are too few.
    """
    size = 2 * EDGE - 1 + 2 * BEYOND
    apart = size - 2 * BEYOND  # so that no two blocks share a voxel
    inside = np.argwhere(tissue.mask > 0)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    axes = []
    for first, last, length in zip(low, high, tissue.mask.shape, strict=True):
        count = int(min(-(-(last - first) // apart), (length - size) // apart + 1))
        begin = (first + last - count * apart) // 2 - BEYOND
        begin = int(np.clip(begin, 0, length - size - apart * (count - 1)))
        axes.append([begin + apart * number for number in range(count)])
    found = [np.array(each) for each in np.stack(np.meshgrid(*axes), -1).reshape(-1, 3)]

    def brain(start: FloatArray) -> float:
        return float(tissue.block(start).mask.mean())

    best = sorted(found, key=brain, reverse=True)[:BLOCKS]
    if len(best) < BLOCKS or brain(best[-1]) < LEAST_BRAIN:
        remedy = Advice("give a scan of more of the brain")
        raise UserError(f"it has no {BLOCKS} blocks that are mostly brain", "scan", remedy=remedy)
    return best


def seen(tissue: Tissue, scanner: Scanner, random: np.random.Generator) -> Scan:
    """Scan a block."""
    spacing = SPACING
    middle = tissue.lattice.affine[:3, 3] + SPACING / 4 * (np.array(tissue.lattice.shape) - 1)
    wanted = spacing * (np.arange(EDGE) - (EDGE - 1) / 2)
    fine = SPACING / 2 * (np.arange(tissue.lattice.shape[0]) - (tissue.lattice.shape[0] - 1) / 2)
    x, y, z = (spread_along(fine, wanted, blur, spacing, scanner.window) for blur in scanner.blur)
    table = table_of(scanner, tissue.b_value)
    solid, fluid = tissue.at_b0(scanner.echo)
    points = np.stack(np.meshgrid(fine, fine, fine, indexing="ij")).reshape(3, -1)
    images = np.empty((EDGE, EDGE, EDGE, len(table)), np.float32)
    for volume, (b_value, direction) in enumerate(
        zip(table.b_values, table.directions, strict=True)
    ):
        signal = solid + fluid
        if b_value > 0:
            gradient = felt(scanner, points.astype(np.float32), b_value, direction)
            b_felt = np.square(gradient).sum(axis=0).reshape(signal.shape)
            left = tissue.left(direction, b_felt)
            signal = solid * left[0] + fluid * left[1]
        images[..., volume] = imaged((tissue.mask * signal).astype(np.float32), (x, y, z))
    side = 1 + np.float32(scanner.shading) * (wanted / 40.0).astype(np.float32)
    images = np.maximum(images, 0) * side[:, None, None, None] * np.float32(GAIN)
    mask = imaged(tissue.mask, (x, y, z)) > 0.5
    sigma = float(np.median(images[..., 0][mask]) / scanner.snr)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = middle + wanted[0]
    dwi = np.rint(noisy(images, sigma, scanner.coils, random))
    return Scan(scanner, dwi, images, table, mask, Lattice((EDGE, EDGE, EDGE), affine))


def heads(tissue: Tissue, seed: int) -> Iterator[list[Scan]]:
    """Scan every block on the input and on both targets of its voxel size."""
    scanners = drawn(np.random.default_rng([seed, 1]), SPACING)[:3]
    for number, start in enumerate(places(tissue)):
        random = np.random.default_rng([seed, 2, number])
        yield [seen(tissue.block(start), scanner, random) for scanner in scanners]


def write_heads(out: Path, tissue: Tissue, seed: int) -> None:
    """Write the dataset; it appears under its name when it is complete."""
    about = f"a real scan through simulated scanners, seed {seed}; its blocks stand for subjects"
    with new_folder(out) as folder:
        for number, scans in enumerate(heads(tissue, seed)):
            if number == 0:
                start_dataset(folder, about, scans[0].scanner.name, "SEMI-REAL")
            for scan in scans:
                write_scan(folder, f"sub-{number + 1:02d}", scan)


if __name__ == "__main__":
    main()
