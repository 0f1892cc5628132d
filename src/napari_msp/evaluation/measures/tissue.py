"""White matter, grey matter and fluid, found from a truth, and errors in a part of the voxels."""

from dataclasses import dataclass

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.signal.maps import TensorMaps

WHITE_FA = 0.25
"""White matter is more anisotropic than this (our choice)."""

GREY_FA = 0.15
"""Grey matter is less anisotropic than this (our choice)."""

TISSUE_MD = 1.1e-3
"""Tissue has a lower mean diffusivity, in mm²/s; between lies what is part fluid (our choice)."""

FLUID_MD = 2.0e-3
"""Fluid has a higher mean diffusivity, in mm²/s (our choice)."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """Voxels of each kind, (X, Y, Z); a mixed voxel is of none.

    Attributes
    ----------
    white, grey, fluid
        No voxel is in two of them.
    """

    white: MaskArray
    grey: MaskArray
    fluid: MaskArray


def tissue_of(maps: TensorMaps, mask: MaskArray) -> Tissue:
    """Label the voxels of a truth by its FA and mean diffusivity, through the SH route.

    Use noise-free truth where there is one: noise raises the FA of grey matter.

    On three simulated heads of size tiny, without noise, against the fractions that they are made
    of: more than half of the voxel is of its kind in 95 to 97 % of those called white, and in 98 to
    99 % of grey and of fluid. Of the voxels with more than 80 % of a kind, 95 to 98 % of white
    are found, 89 to 99 % of grey and all of fluid; from noisy scans of 1.2 mm, 77 to 80 % of grey.
    """
    solid = mask & (maps.md < TISSUE_MD)
    return Tissue(
        white=solid & (maps.fa > WHITE_FA),
        grey=solid & (maps.fa < GREY_FA),
        fluid=mask & (maps.md > FLUID_MD),
    )


def percent_error(
    values: FloatArray, truth: FloatArray, where: MaskArray, signed: bool = False
) -> float:
    """Give the mean error in percent of truth's mean, absolute or signed; nan without a voxel."""
    true = truth[where]
    errors = values[where].astype(float) - true
    scale = float(true.mean(dtype=float)) if len(true) else 0.0
    if scale <= 0:
        return float("nan")
    return 100 * float((errors if signed else np.abs(errors)).mean()) / scale


def mean_angle(directions: FloatArray, truth: FloatArray, where: MaskArray) -> float:
    """Give the mean angle in degrees between lines (a direction and its opposite are one)."""
    if not where.any():
        return float("nan")
    cosine = np.abs(np.sum(directions[where].astype(float) * truth[where], axis=-1))
    return float(np.degrees(np.arccos(np.clip(cosine, 0, 1))).mean())
