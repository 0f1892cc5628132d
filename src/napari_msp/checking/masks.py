"""Masks that are missing, or not of a brain."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes, label

from napari_msp.arrays import MaskArray
from napari_msp.checking.findings import Finding

SMALLEST_HOLE = 10
"""Voxels that the mask's holes must have in all to be worth a warning (our choice)."""

LEAST_CONNECTED = 0.98
"""Share of the mask that its largest piece must hold (our choice)."""


def check_mask_given(where: str, mask_path: Path | None) -> Iterator[Finding]:
    """Tell whether a mask was found."""
    if mask_path is None:
        message = "has no mask: median_otsu makes one for each run; add one to derivatives"
        yield Finding("warning", where, message, flag="no mask")


def check_mask(where: str, mask: MaskArray) -> Iterator[Finding]:
    """Tell whether a mask is one piece without holes, as a brain is."""
    if mask.all():
        yield Finding(
            "warning",
            where,
            "the mask holds every voxel, background too; make one of the brain",
            flag="mask full",
        )
    holes = int(binary_fill_holes(mask).sum() - mask.sum())
    if holes >= SMALLEST_HOLE:
        yield Finding(
            "warning",
            where,
            f"the mask has holes ({holes} voxels), nothing is computed in them; fill them",
            flag="mask holes",
        )
    pieces, count = label(mask)
    if count > 1:
        largest = np.bincount(pieces.ravel())[1:].max() / mask.sum()
        if largest < LEAST_CONNECTED:
            yield Finding(
                "warning",
                where,
                f"the mask is in {count} pieces, the largest holds {100 * largest:.0f} %; keep one",
                flag="mask pieces",
            )
