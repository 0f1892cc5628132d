"""Interpolation of scans whose voxels are not cubes, once, to a lattice of cubes.

The cubes lie along the scan's own axes, so b-vectors stay as they are, and share its first voxel
centre, like all lattices here: if an edge is a whole multiple of the cubes', every voxel of the
scan becomes a cube unchanged. Their edge is the voxel's smallest unless another is given: only then
does interpolating back lose nothing (`benchmarks/cubes.md`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.lattice import Lattice, averaging_widths, interpolate, resample_mask
from napari_msp.data.nifti import write_nifti
from napari_msp.errors import Doubt, Give, RunJob, UserError, either
from napari_msp.formatting import counted

Auto = Literal["auto"]

OF_SLICES = ("SliceTiming", "SliceThickness", "SpacingBetweenSlices")
"""Sidecar fields that do not hold for cubes."""

LARGEST_EDGE = 10.0
"""Largest edge in mm; a larger number is a mistake (our choice)."""

EFFECT = (
    "cubes add no detail: the image stays blurred along the long edge, neighbouring cubes share "
    "noise, and SH coefficients and FA are less exact than in a scan acquired with such cubes"
)
"""Text on the effect of interpolating to cubes, shown wherever that is done."""


MAKE_CUBES = either(
    RunJob("import", "interpolate the scans to cubic voxels", "voxel_size", "auto"),
    RunJob("align", "do so while aligning the heads", "voxel_size", "auto"),
)
"""Remedy where cubes are needed."""


class Interpolated(Doubt):
    """Scans whose voxels are not cubes were interpolated to cubes."""


def cubes_for(lattice: Lattice, voxel_size: float | Auto) -> Lattice | None:
    """Return the lattice of cubes over a scan's lattice; None if its voxels are cubes already.

    Parameters
    ----------
    voxel_size
        Edge in mm; "auto": the voxel's smallest edge.

    Examples
    --------
    >>> cubes_for(Lattice((80, 80, 30), np.diag([2.0, 2.0, 4.0, 1.0])), "auto")
    <Lattice of 80 × 80 × 59 voxels of 2 × 2 × 2 mm>
    """
    edge = edge_of(lattice, voxel_size)
    return None if lattice.isotropic else lattice.scaled_to(edge, covering=True)


def edge_of(lattice: Lattice, voxel_size: float | Auto) -> float:
    """Return the cubes' edge in mm; see `cubes_for`."""
    check_voxel_size(voxel_size)
    return float(lattice.voxel_sizes.min()) if isinstance(voxel_size, str) else voxel_size


def check_voxel_size(voxel_size: float | Auto) -> None:
    """Refuse a value that is neither an edge in mm nor "auto"."""
    fine = voxel_size == "auto" if isinstance(voxel_size, str) else 0 < voxel_size <= LARGEST_EDGE
    if not fine:
        given = voxel_size if isinstance(voxel_size, str) else f"{voxel_size:g} mm"
        remedy = Give("voxel_size", f"auto or a size up to {LARGEST_EDGE:g} mm")
        raise UserError(f"{given} is not a valid voxel size", field="voxel_size", remedy=remedy)


def interpolated_voxels(
    acquisition: Acquisition,
    source: Lattice,
    target: Lattice,
    poll: Callable[[], None] = lambda: None,
) -> tuple[FloatArray, FloatArray]:
    """Interpolate all volumes by cubic splines; negative values, which no magnitude has, become 0.

    Before going to coarser voxels, finer ones are averaged, see `averaging_widths`.

    Parameters
    ----------
    source
        Lattice of the scan's voxels: as its file says, or moved by a registration.
    target
        Lattice of the result.
    poll
        Called before each volume; may raise to end the work.

    Returns
    -------
    (X, Y, Z, N) float32, and (X, Y, Z) the share of volumes with a negative value.
    """
    voxels = np.empty((*target.shape, len(acquisition.gradients)), dtype=np.float32)
    widths = averaging_widths(source, target)
    for volume in range(voxels.shape[-1]):  # one at a time: double precision needs memory
        poll()
        one = acquisition.voxels[..., volume]
        if widths.any():
            one = gaussian_filter(one, widths, mode="nearest")
        voxels[..., volume] = interpolate(one, source, target)
    negative = voxels < 0
    voxels[negative] = 0
    return voxels, negative.mean(axis=-1)


def write_cubes(acquisition: Acquisition, target: Lattice, dwi: Path, mask: Path | None) -> None:
    """Write a scan and its mask (if any, by nearest voxel) on another lattice.

    Parameters
    ----------
    acquisition
        The scan; volumes that reading leaves out are written too, so that the gradient table still
        fits the image.
    target
        Lattice from `cubes_for`.
    dwi, mask
        NIfTI files to write, with sform and qform as in the scan.
    """
    whole = replace(acquisition, every_volume=True)
    voxels, _ = interpolated_voxels(whole, acquisition.lattice, target)
    write_nifti(dwi, voxels, target.affine, like=acquisition.image)
    if mask is not None:
        inside = resample_mask(acquisition.mask, acquisition.lattice, target)
        write_nifti(mask, inside, target.affine, like=acquisition.image)


def describe_cubes(known: Mapping[str, Any], source: Lattice, target: Lattice) -> dict[str, Any]:
    """Return a scan's sidecar with the interpolation described and the slices' fields removed."""
    still = {name: value for name, value in known.items() if name not in OF_SLICES}
    return still | description(source, target)


def description(source: Lattice, target: Lattice) -> dict[str, Any]:
    """Describe the interpolation of an image in BIDS sidecar fields."""
    return {
        "ResampledFrom": [round(float(each), 4) for each in source.voxel_sizes],
        "ResampledTo": round(float(target.voxel_sizes[0]), 4),
        "Resampling": "averaged by a Gaussian where voxels become coarser (FWHM² = new² - old²), "
        "then interpolated by cubic splines to cubes (edges in mm) along the same axes, "
        f"with the first voxel's centre shared; mask by the nearest voxel; {EFFECT}",
    }


def interpolation(pairs: Iterable[tuple[Lattice, Lattice] | None]) -> str:
    """Write how many scans became cubes, from what to what; empty if none did.

    >>> tall = Lattice((4, 4, 4), np.diag([2.0, 2.0, 4.0, 1.0]))
    >>> interpolation([None, (tall, tall.scaled_to(2))])
    '1 scan of 2.00 × 2.00 × 4.00 mm interpolated to 2.00 mm'
    """
    counts = Counter(
        f"{before.edges} interpolated to {after.voxel_sizes[0]:.2f} mm"
        for before, after in filter(None, pairs)
    )
    return ", ".join(f"{counted(n, 'scan')} of {what}" for what, n in counts.items())
