"""Voxel sizes, and lattices that differ from the ones that networks give."""

from collections.abc import Iterator

import numpy as np

from napari_msp.checking.findings import Finding
from napari_msp.checking.summary import ScanSummary
from napari_msp.data.lattice import SIZE_TOLERANCE, Lattice, scale_between
from napari_msp.errors import UserError


def check_voxel_sizes(where: str, lattice: Lattice) -> Iterator[Finding]:
    """Tell whether voxels are isotropic."""
    sizes = lattice.voxel_sizes
    if np.ptp(sizes) > SIZE_TOLERANCE * sizes.mean():
        told = " × ".join(f"{size:.2f}" for size in sizes)
        yield Finding(
            "error",
            where,
            f"voxels are {told} mm, training needs isotropic ones; resample the scan",
            flag="voxel size",
        )


def check_lattice(source: ScanSummary, target: ScanSummary) -> Iterator[Finding]:
    """Compare a target's lattice with the node-aligned one that a network gives for the input."""
    coarse, found = source.lattice.canonical, target.lattice.canonical
    pair = f"{source.platform} to {target.platform}"
    try:
        scale = scale_between(coarse.voxel_sizes, found.voxel_sizes, pair)
    except UserError as error:
        yield Finding("error", target.where, str(error), flag="voxel size")
        return
    wanted = coarse.refined(scale)
    if found.matches(wanted):
        return
    if found.shape != wanted.shape:
        shapes = (" × ".join(map(str, each.shape)) for each in (found, wanted))
        reason = "it has {} voxels, not {}".format(*shapes)
    else:
        reason = f"its voxels lie up to {found.offset_to(wanted):.2f} voxels away"
    yield Finding(
        "warning",
        target.where,
        f"is not on the lattice that a network of scale {scale} gives for {source.platform} "
        f"({reason}): training resamples it, which smooths it; reslice it from the "
        "original in one step",
        flag="lattice",
    )
