"""What interpolating a scan to cubes costs: which edge, which interpolation, which place.

    python benchmarks/cubes.py [--heads 2]

scans blocks of simulated heads in voxels that are not cubes, with noise and without, brings them to
cubes in every way that comes into question, and writes `benchmarks/cubes.md`. A minute a head.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import GradientTable
from napari_msp.data.lattice import Lattice, interpolate, resample, resample_mask
from napari_msp.data.phantom.head import along_axes, grid_of, make_head, point_spread
from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.scan import SignalModel, add_noise
from napari_msp.data.phantom.subjects import aligned, draw_subject
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import fractional_anisotropy

SCANS = ((2.0, 2.0, 4.0), (2.0, 2.0, 3.0), (1.5, 1.5, 3.0))
"""Voxels in mm, as clinical protocols have them."""

EXTENT, ORIGIN = (60.0, 44.0, 40.0), (-4.0, -34.0, 6.0)
FINE, MARGIN, SEED = 1.0, 6, 1701
NOISE = 17.5
"""Of one channel at voxels of 8 mm³, where white matter's b=0 is some 350; over the volume."""

Move = Callable[[FloatArray, Lattice, Lattice], FloatArray]
WAYS: dict[str, Move] = {"linear": resample, "cubic": interpolate}
RESULTS = Path(__file__).with_suffix(".md")

TEXT = """\
# Cubes out of voxels that are not cubes

Written by `python benchmarks/cubes.py --heads {heads}`.

`import --voxel-size auto` interpolates to cubes with the scan's smallest edge, by cubic splines,
and shares the first voxel's centre. This page shows why.

- **Smallest edge.** Nothing is lost where the long edge is a whole multiple of it (*back* is 0),
  and little elsewhere. Larger cubes seem closer to their truth, because they lie near slices that
  were scanned and leave out what is between; but what comes back from them has lost more.
- **Cubic splines.** Linear interpolation never loses less, though it averages more noise.
- **First centre.** The other place changes little.

With cubes of the smallest edge, *clean* is larger than for the scan as it is. The difference is
detail between slices that was never scanned: no interpolation restores it.

The table has the root mean squared error over the mask in 10⁻³, of SH coefficients and of FA, for
blocks of simulated heads ({heads}):

- *noisy*, *clean*: the interpolated scan, with its noise and without, against a noise-free one with
  the resolution of the scan's smallest edge along all axes, at the centres of the cubes.
- *back*: interpolated to cubes and back to the scan's voxels, without noise, against the scan.
- *first*: the cubes share the first voxel's centre. *centred*: their extent is centred on the
  scan's.

| voxels | edge | interpolation | place | noisy SH | FA | clean SH | FA | back SH | FA |
| --- | --: | --- | --- | --: | --: | --: | --: | --: | --: |
{rows}
"""


def lattice_of(sizes: Iterable[float]) -> Lattice:
    """Give voxels of these sizes that fill the block."""
    edges = np.array(list(sizes))
    x, y, z = (round(extent / edge) for extent, edge in zip(EXTENT, edges, strict=True))
    affine = np.diag([*edges, 1.0])
    affine[:3, 3] = np.array(ORIGIN) + edges / 2
    return Lattice((x, y, z), affine)


def centred(lattice: Lattice, size: float) -> Lattice:
    """Give cubes round the same centre as the voxels, over at least their extent."""
    step = size / lattice.voxel_sizes
    count = np.ceil(np.array(lattice.shape) / step - 1e-6)
    x, y, z = (int(each) for each in count)
    change = np.diag([*step, 1.0])
    change[:3, 3] = ((np.array(lattice.shape) - 1) - (count - 1) * step) / 2
    return Lattice((x, y, z), lattice.affine @ change)


class Scanner:
    """One head, to be scanned in voxels of any size.

    Parameters
    ----------
    subject
        Index of the head.
    """

    def __init__(self, subject: int) -> None:
        self.platform = platform_named("ge_st")
        person = draw_subject(SEED, subject)
        grid = grid_of(lattice_of([FINE] * 3)).extended(MARGIN)
        self.head = make_head(person, aligned(), grid)
        times = self.platform.echo_time, self.platform.repetition_time
        model = SignalModel(self.head, person.tissue, *times)
        self.table = self.platform.table()
        field = self.platform.gradient_field.tensor(self.head.points)
        felt = (
            np.einsum("ijn,j->in", field, np.sqrt(b) * direction).astype(np.float32)
            for b, direction in zip(self.table.b_values, self.table.directions, strict=True)
            if b > 0
        )
        signals = [model.without_weighting(), *map(model.weighted, felt)]
        self.signals = [self.head.volume(each) for each in signals]

    def scan(self, lattice: Lattice, width: Iterable[float], noise: float = 0) -> Acquisition:
        """Image the head at voxel centres, by boxes of a width along each axis, in mm."""
        axes = zip(
            self.head.grid.axes, grid_of(lattice).axes, width, self.platform.blur, strict=True
        )
        x, y, z = (point_spread(fine, wanted, box, blur) for fine, wanted, box, blur in axes)
        imaged = [along_axes(each, (x, y, z)) for each in self.signals]
        weighted = iter(imaged[1:])
        volumes = [next(weighted) if b > 0 else imaged[0] for b in self.table.b_values]
        voxels = 1000 * np.stack(volumes, axis=-1).astype(np.float32)
        if noise:
            voxels = add_noise(voxels, noise, [SEED, 2])
        brain = along_axes(self.head.volume(self.head.brain), (x, y, z)) > 0.5
        return in_memory(voxels, lattice, brain, self.table)


def in_memory(
    voxels: FloatArray, lattice: Lattice, mask: MaskArray, table: GradientTable
) -> Acquisition:
    """Give an acquisition of which no volume is doubted."""
    image = nib.Nifti1Image(voxels, lattice.affine)
    return Acquisition(image, table, given_mask=mask, every_volume=True)


def moved(scan: Acquisition, lattice: Lattice, move: Move) -> Acquisition:
    """Interpolate a scan, volume by volume."""
    volumes = [move(scan.voxels[..., n], scan.lattice, lattice) for n in range(len(scan.gradients))]
    mask = resample_mask(scan.mask, scan.lattice, lattice)
    return in_memory(np.maximum(np.stack(volumes, axis=-1), 0), lattice, mask, scan.gradients)


def errors(scan: Acquisition, truth: Acquisition) -> list[float]:
    """Give root mean squared errors of SH coefficients and of FA, of scans on one lattice.

    The outermost voxels are left out: what lies beyond the block is not known to interpolation.
    """
    inside = scan.mask & truth.mask
    edge = np.zeros_like(inside)
    edge[2:-2, 2:-2, 2:-2] = True
    inside &= edge
    sh = fit_sh(scan).coefficients[inside] - fit_sh(truth).coefficients[inside]
    fa = fractional_anisotropy(scan)[inside] - fractional_anisotropy(truth)[inside]
    return [float(np.sqrt(np.square(each).mean())) for each in (sh, fa)]


def rows_of(
    scanner: Scanner, sizes: tuple[float, ...]
) -> Iterable[tuple[tuple[str, ...], list[float]]]:
    """Measure every way for one kind of voxels."""
    lattice = lattice_of(sizes)
    noise = NOISE * 8 / float(np.prod(sizes))
    noisy, clean = scanner.scan(lattice, sizes, noise), scanner.scan(lattice, sizes)
    name, small = " × ".join(f"{each:g}" for each in sizes), min(sizes)
    truth = scanner.scan(lattice, [small] * 3)
    as_it_is = [*errors(noisy, truth), *errors(clean, truth), 0.0, 0.0]
    yield (name, "as it is", "", ""), as_it_is
    for edge in (small, float(np.prod(sizes) ** (1 / 3)), max(sizes)):
        places = {
            "first": lattice.scaled_to(edge, covering=True),
            "centred": centred(lattice, edge),
        }
        for place, cubes in places.items():
            truth = scanner.scan(cubes, [small] * 3)
            for how, move in WAYS.items():
                interpolated, without = moved(noisy, cubes, move), moved(clean, cubes, move)
                back = errors(moved(without, lattice, move), clean)
                found = [*errors(interpolated, truth), *errors(without, truth), *back]
                yield (name, f"{edge:.2f}", how, place), found


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=2)
    heads = parser.parse_args().heads
    found: dict[tuple[str, ...], list[list[float]]] = {}
    for subject in range(heads):
        scanner = Scanner(subject)
        for sizes in SCANS:
            for key, values in rows_of(scanner, sizes):
                found.setdefault(key, []).append(values)
    lines = [
        "| " + " | ".join([*key, *(f"{1000 * v:.1f}" for v in np.mean(values, axis=0))]) + " |"
        for key, values in found.items()
    ]
    RESULTS.write_text(TEXT.format(heads=heads, rows="\n".join(lines)))


if __name__ == "__main__":
    main()
