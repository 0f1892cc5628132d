"""The numbers of one prediction against truth, inside the mask."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.evaluation.comparison import MappedImage, line_up
from napari_msp.evaluation.measures.patches import PATCH_SIZE, PatchErrors, patch_errors
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.sh_index import order_slices

UNITS = {
    "sh_mse": "SH units squared (SH of S/S0), mean over voxels and coefficients",
    "sh_rmse": "SH units, root of sh_mse",
    "order_mse": "SH units squared, mean over voxels and the coefficients of one order",
    "relative_sh_mse": "squared error over the variance of truth about its coefficient means; "
    "0 is perfect, 1 is as far off as truth's mean",
    "sh_average_mse": "SH units squared, of the mean of the first six coefficients",
    "fa_mae": "FA, mean absolute error",
    "fa_mse": "FA squared",
    "colour_fa_mse": "FA squared, mean over voxels and the three colours",
    "patch_mse": "SH units squared, one number a patch",
}
"""What the fields of `Metrics` are measured in."""


@dataclass(frozen=True)
class Metrics:
    """Errors of a prediction, over the voxels in both masks. Units are in `UNITS`.

    Attributes
    ----------
    voxels
        Number of voxels measured.
    sh_mse, sh_rmse
        Of all SH coefficients (paper: MSE).
    order_mse
        By SH order.
    relative_sh_mse
        1 - R²; None where truth is constant.
    sh_average_mse, colour_fa_mse
        Of the maps of Fig. 3 (paper: "direction-encoded colour MSE").
    fa_mae, fa_mse
        Of fractional anisotropy through the SH route.
    patches
        Errors of non-overlapping cubes, for paired tests.
    """

    voxels: int
    sh_mse: float
    sh_rmse: float
    order_mse: dict[int, float]
    relative_sh_mse: float | None
    sh_average_mse: float
    fa_mae: float
    fa_mse: float
    colour_fa_mse: float
    patches: PatchErrors

    def to_json(self) -> dict[str, Any]:
        """Give plain numbers, lists and dictionaries."""
        return {
            "voxels": self.voxels,
            "sh_mse": self.sh_mse,
            "sh_rmse": self.sh_rmse,
            "order_mse": {str(order): mse for order, mse in self.order_mse.items()},
            "relative_sh_mse": self.relative_sh_mse,
            "sh_average_mse": self.sh_average_mse,
            "fa_mae": self.fa_mae,
            "fa_mse": self.fa_mse,
            "colour_fa_mse": self.colour_fa_mse,
            "patch_size": self.patches.size,
            "patch_centres": self.patches.centres.tolist(),
            "patch_mse": self.patches.mse.tolist(),
        }


def measure(prediction: SHImage, truth: SHImage, patch_size: int = PATCH_SIZE) -> Metrics:
    """Measure a prediction on truth's own lattice.

    Parameters
    ----------
    prediction
        Resampled to truth's lattice where it lies on another.
    truth
        Taken as it is.
    patch_size
        Edge of a patch in voxels of truth, odd.

    Raises
    ------
    UserError
        When the images do not belong together, or a b-value is unknown.
    """
    both = line_up(truth, {"prediction": prediction})
    return measure_mapped(both.predictions["prediction"], MappedImage(truth), both.mask, patch_size)


def measure_mapped(
    prediction: MappedImage, truth: MappedImage, mask: MaskArray, patch_size: int = PATCH_SIZE
) -> Metrics:
    """Measure a prediction that already lies on truth's lattice.

    Sums are in float64, whatever the images hold.

    Parameters
    ----------
    mask
        (X, Y, Z) where errors count; in both images' masks.
    """
    predicted = prediction.image.coefficients[mask].astype(float)
    true = truth.image.coefficients[mask].astype(float)
    squared = np.square(predicted - true)
    sh_mse = float(squared.mean())
    variance = float(np.square(true - true.mean(axis=0)).mean())
    fa_error = _difference(prediction.fa, truth.fa, mask)
    return Metrics(
        voxels=int(mask.sum()),
        sh_mse=sh_mse,
        sh_rmse=float(np.sqrt(sh_mse)),
        order_mse={
            order: float(squared[:, part].mean())
            for order, part in order_slices(truth.image.order).items()
        },
        relative_sh_mse=sh_mse / variance if variance > 0 else None,
        sh_average_mse=_mse(prediction.sh_average, truth.sh_average, mask),
        fa_mae=float(np.abs(fa_error).mean()),
        fa_mse=float(np.square(fa_error).mean()),
        colour_fa_mse=_mse(prediction.colour_fa, truth.colour_fa, mask),
        patches=patch_errors(
            prediction.image.coefficients, truth.image.coefficients, mask, patch_size
        ),
    )


def _difference(values: FloatArray, truth: FloatArray, mask: MaskArray) -> FloatArray:
    difference: FloatArray = values[mask].astype(float) - truth[mask]
    return difference


def _mse(values: FloatArray, truth: FloatArray, mask: MaskArray) -> float:
    return float(np.square(_difference(values, truth, mask)).mean())
