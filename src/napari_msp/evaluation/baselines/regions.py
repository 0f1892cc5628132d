"""Three kinds of tissue, told apart by the input image alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2, vq

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.signal.rish import rish
from napari_msp.signal.sh_image import SHImage

FLUID, GREY, WHITE = range(3)
"""Labels of the regions: CSF, grey and white matter. A voxel goes by what fills most of it."""

OUTSIDE = -1
"""Label of voxels outside the mask."""

START = {FLUID: (5, 25), GREY: (50, 25), WHITE: (50, 90)}
"""Percentiles of signal and anisotropy at which k-means starts for each label (our choice)."""


@dataclass(frozen=True)
class Regions:
    """A rule that divides a brain by signal and anisotropy.

    Attributes
    ----------
    spread
        (2,) deviations of the two features, which make them count alike.
    centres
        (3, 2) features of each label's typical voxel, over `spread`.
    """

    spread: FloatArray
    centres: FloatArray

    def labels(self, image: SHImage) -> IntArray:
        """Give (X, Y, Z) labels of the nearest centre; `OUTSIDE` outside the mask."""
        labels = np.full(image.mask.shape, OUTSIDE)
        labels[image.mask] = vq(_features(image) / self.spread, self.centres)[0]
        return labels


def find_regions(images: Sequence[SHImage]) -> Regions:
    """Cluster the training subjects' voxels by k-means with three centres (our choice).

    The features are the coefficient of order 0 and the root of the RISH of order 2: fluid has
    little signal left, white matter is anisotropic. Neither changes as a head turns.

    Parameters
    ----------
    images
        Of the input platform.
    """
    features = np.concatenate([_features(image) for image in images])
    spread = np.maximum(features.std(axis=0), np.finfo(float).tiny)
    start = [
        [np.percentile(features[:, axis], share) for axis, share in enumerate(START[label])]
        for label in (FLUID, GREY, WHITE)
    ]
    centres, _ = kmeans2(features / spread, np.array(start) / spread, minit="matrix")
    return Regions(spread, centres)


def _features(image: SHImage) -> FloatArray:
    """(N, 2) signal and anisotropy of the in-mask voxels."""
    coefficients = image.coefficients[image.mask].astype(float)
    return np.stack([coefficients[:, 0], np.sqrt(rish(coefficients)[:, 1])], axis=-1)
