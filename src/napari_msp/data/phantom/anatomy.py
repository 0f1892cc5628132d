"""Tissue maps of the template head."""

from functools import lru_cache
from importlib.resources import files

import numpy as np
from scipy.ndimage import map_coordinates

from napari_msp.arrays import FloatArray

ASSET = "icbm152_tissue.npz"
"""Grey matter, white matter and CSF of the ICBM 152 2009a symmetric template (Fonov 2011)."""


@lru_cache(maxsize=1)
def template_tissue() -> tuple[FloatArray, FloatArray, float]:
    """Load the packaged tissue maps.

    Returns
    -------
    fractions
        (3, X, Y, Z) float32 of the right half (x >= 0): grey matter, white matter, CSF; their sum
        is 1 inside the brain and 0 outside.
    origin
        (3,) position of the first voxel centre in MNI mm.
    spacing
        Voxel size in mm.
    """
    resource = files("napari_msp.data.phantom").joinpath("assets", ASSET)
    with resource.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        fractions = archive["fractions"].astype(np.float32) / np.float32(archive["levels"])
        return fractions, archive["origin"], float(archive["spacing"])


def tissue_at(points: FloatArray, csf_gain: float = 1.0) -> FloatArray:
    """Interpolate the tissue fractions at points of template space.

    Parameters
    ----------
    points
        (3, N) in MNI mm.
    csf_gain
        Multiplies the odds of CSF: above 1 gives wider sulci and ventricles.

    Returns
    -------
    (3, N) float32: grey matter, white matter, CSF; they sum to the fraction of brain (0 to 1).
    """
    fractions, origin, spacing = template_tissue()
    voxels = (points - origin[:, None]) / spacing
    voxels[0] = (np.abs(points[0]) - origin[0]) / spacing  # the template is symmetric
    sampled = np.stack(
        [map_coordinates(tissue, voxels, order=1, mode="constant") for tissue in fractions]
    )
    brain = np.minimum(sampled.sum(axis=0), 1)
    sampled[2] *= csf_gain
    sampled *= brain / np.maximum(sampled.sum(axis=0), 1e-6)
    return sampled
