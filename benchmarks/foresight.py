"""Whether a map that needs no truth, such as disagreement, foretells where a prediction errs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.stats import rankdata, spearmanr

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice, resample
from napari_msp.signal.maps import sh_average
from napari_msp.signal.sh_image import SHImage

WORST = 0.05
"""Share of the voxels, those of the largest error, that a warning should find (our choice)."""


@dataclass(frozen=True)
class Foresight:
    """How well a predictor of error foretold the error in one head.

    Attributes
    ----------
    spearman
        Rank correlation with the squared error over the mask.
    auroc
        Area under the ROC curve for the `WORST` voxels: the chance that one of them has a larger
        predictor than one of the others.
    voxels
        Number of voxels.
    """

    spearman: float
    auroc: float
    voxels: int

    def to_json(self) -> dict[str, Any]:
        """Give plain numbers."""
        return {"spearman": self.spearman, "auroc": self.auroc, "voxels": self.voxels}


def foresight(predictor: FloatArray, squared_error: FloatArray, mask: MaskArray) -> Foresight:
    """Compare a predictor of error with the error, over the voxels of a mask.

    Parameters
    ----------
    predictor
        (X, Y, Z), large where a large error is expected; only its ranks matter.
    squared_error
        (X, Y, Z) mean over coefficients, see `squared_error`.
    mask
        (X, Y, Z).

    Raises
    ------
    ValueError
        When a value in the mask is not finite, or the predictor or the error is constant there.
    """
    said, true = predictor[mask].astype(float), squared_error[mask].astype(float)
    if not (np.isfinite(said).all() and np.isfinite(true).all()):
        raise ValueError("predictor and error must be finite inside the mask")
    if len(true) == 0 or np.ptp(said) == 0 or np.ptp(true) == 0:
        raise ValueError("predictor and error must vary inside the mask")
    worst = true > np.quantile(true, 1 - WORST)
    return Foresight(float(spearmanr(said, true).statistic), auroc(said, worst), len(true))


def auroc(score: FloatArray, positive: MaskArray) -> float:
    """Area under the ROC curve from ranks (Mann & Whitney's U); ties count half.

    Parameters
    ----------
    score
        (N,).
    positive
        (N,), neither all nor none.
    """
    found, others = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(score)[positive].sum()
    return float((ranks - found * (found + 1) / 2) / (found * others))


def favourable_sign(foresights: Sequence[Foresight]) -> int:
    """Give the sign under which a predictor foretells error: 1, or -1 where small warns.

    Chosen on validation heads, so that a trivial predictor gets its best chance.
    """
    return 1 if np.mean([each.spearman for each in foresights]) >= 0 else -1


def gradient_magnitude(image: SHImage, lattice: Lattice) -> FloatArray:
    """Slope of an image's SH average, interpolated to another lattice: a trivial predictor.

    Beyond the mask the nearest voxel's value goes on, so that the mask's edge is no slope.

    Parameters
    ----------
    image
        The input scan's SH image.
    lattice
        Of the prediction.

    Returns
    -------
    (X, Y, Z) float32 in SH units per mm.
    """
    sizes = image.lattice.voxel_sizes
    nearest = distance_transform_edt(
        ~image.mask, sampling=sizes, return_distances=False, return_indices=True
    )
    average = sh_average(image)[tuple(nearest)]
    slope = np.linalg.norm(np.gradient(average, *sizes), axis=0)
    return resample(slope, image.lattice, lattice)


def edge_distance(mask: MaskArray, lattice: Lattice) -> FloatArray:
    """(X, Y, Z) distance in mm to the nearest voxel outside the mask: a trivial predictor."""
    return np.asarray(distance_transform_edt(mask, sampling=lattice.voxel_sizes))


def reliability(expected: FloatArray, squared_error: FloatArray, groups: int = 10) -> FloatArray:
    """Compare what was expected with what came, from the most trusted tenth to the least.

    Parameters
    ----------
    expected, squared_error
        (N,) in-mask voxels.

    Returns
    -------
    (groups, 2) mean expected and mean true squared error.
    """
    parts = np.array_split(np.argsort(expected, kind="stable"), groups)
    return np.array([[expected[p].mean(), squared_error[p].mean()] for p in parts], dtype=float)
