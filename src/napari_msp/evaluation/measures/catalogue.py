"""What is measured on every head: names, units, what each number says, and how it is computed.

One entry is one measure. `compare` and `evaluate` read the same catalogue; Table 1 shows those that
have a group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.evaluation.comparison import Comparable
from napari_msp.evaluation.measures.aligned_error import aligned_error
from napari_msp.evaluation.measures.pair import PATCH_SIZE, Pair, PatchErrors, Truth
from napari_msp.evaluation.measures.tissue import (
    Tissue,
    absolute_percent,
    mean_angle,
    signed_percent,
)
from napari_msp.signal.maps import Maps, direction_average
from napari_msp.signal.sh_image import SHImage

DIRECTED_FA = 0.2
"""FA of truth above which a voxel has a principal direction to speak of (our choice)."""


@dataclass(frozen=True)
class Measure:
    """One column of a table of errors.

    Attributes
    ----------
    key
        Its name in files and in `HeadMeasures.values`.
    label
        For heads of tables.
    unit
        Of its values.
    explanation
        One sentence.
    compute
        Gives its value for a prediction on its truth; nan where there is nothing to measure, such
        as a tissue that the image does not contain.
    group
        Heading in the report; "" for the measure that opens it, None for what Table 1 leaves out.
    better
        Which value is best.
    """

    key: str
    label: str
    unit: str
    explanation: str
    compute: Callable[[Pair], float]
    group: str | None = None
    better: Literal["lowest", "nearest 0"] = "lowest"

    @property
    def described(self) -> str:
        """Unit and explanation in a line."""
        return f"{self.unit}: {self.explanation}" if self.unit else self.explanation


SQUARED = "SH units²"
PERCENT = "% of truth's mean"

ERRORS = "Other squared errors"
MAPS = "Diffusion maps, by tissue"
BIAS = "Bias by tissue"
MASK = "Sensitivity to the mask"


def _patch_mse(pair: Pair) -> float:
    mse = pair.patches.mse
    return float(mse.mean()) if len(mse) else float("nan")


def _sh_mse(pair: Pair) -> float:
    return float(pair.squared.mean())


def _relative(pair: Pair) -> float:
    true = pair.truth.image.coefficients[pair.mask].astype(float)
    variance = float(np.square(true - true.mean(axis=0)).mean())
    return _sh_mse(pair) / variance if variance > 0 else float("nan")


def _mse_of(map_of: Callable[[Maps], FloatArray]) -> Callable[[Pair], float]:
    return lambda pair: float(np.square(_map_error(pair, map_of)).mean())


def _map_error(pair: Pair, map_of: Callable[[Maps], FloatArray]) -> FloatArray:
    return pair.difference(map_of(pair.prediction), map_of(pair.truth.mapped))


def _percent_of(
    map_of: Callable[[Maps], FloatArray],
    tissue: str,
    error: Callable[[FloatArray, FloatArray, MaskArray], float] = absolute_percent,
) -> Callable[[Pair], float]:
    """Measure the error of a map in one kind of tissue, in percent of truth's mean."""
    return lambda pair: error(
        map_of(pair.prediction),
        map_of(pair.truth.mapped),
        pair.mask & getattr(pair.truth.tissue, tissue),
    )


def _fa(mapped: Maps) -> FloatArray:
    return mapped.tensor.fa


def _md(mapped: Maps) -> FloatArray:
    return mapped.tensor.md


def _mean_signal(mapped: Maps) -> FloatArray:
    return direction_average(mapped.image)


def _rish_error(order: int, tissue: str) -> Callable[[Pair], float]:
    return lambda pair: absolute_percent(
        pair.rish[..., order // 2],
        pair.truth.rish[..., order // 2],
        pair.mask & getattr(pair.truth.tissue, tissue),
    )


def _direction_error(pair: Pair) -> float:
    true = pair.truth.mapped.tensor
    where = pair.mask & pair.truth.tissue.white & (true.fa > DIRECTED_FA)
    return mean_angle(pair.prediction.tensor.direction, true.direction, where)


_ALL = (
    Measure(
        "patch_mse",
        "patch MSE",
        SQUARED,
        "Mean over patches (cubes of 11 voxels unless said otherwise, that do not overlap, "
        "centred in the mask) of the squared error of the SH coefficients of S/S0.",
        _patch_mse,
        ERRORS,
    ),
    Measure(
        "sh_mse",
        "SH MSE",
        SQUARED,
        "Squared error of the SH coefficients of S/S0, mean over voxels and coefficients.",
        _sh_mse,
        "",
    ),
    Measure(
        "robust_mse",
        "aligned SH MSE",
        SQUARED,
        "SH MSE after a residual rigid motion of up to a voxel is undone on the prediction, with "
        "both images smoothed by half a voxel.",
        lambda pair: aligned_error(pair.prediction.image, pair.truth.smoothed, pair.mask),
        ERRORS,
    ),
    Measure(
        "colour_fa_mse",
        "colour FA MSE",
        "FA²",
        "Squared error of the principal direction's colour times FA, mean over three colours.",
        _mse_of(lambda mapped: mapped["colour_fa"]),
        ERRORS,
    ),
    Measure(
        "fa_error_white",
        "FA error, white",
        PERCENT,
        "Mean absolute error of fractional anisotropy in white matter.",
        _percent_of(_fa, "white"),
        MAPS,
    ),
    Measure(
        "fa_error_grey",
        "FA error, grey",
        PERCENT,
        "Mean absolute error of fractional anisotropy in grey matter.",
        _percent_of(_fa, "grey"),
        MAPS,
    ),
    Measure(
        "md_error_white",
        "MD error, white",
        PERCENT,
        "Mean absolute error of mean diffusivity in white matter.",
        _percent_of(_md, "white"),
        MAPS,
    ),
    Measure(
        "md_error_grey",
        "MD error, grey",
        PERCENT,
        "Mean absolute error of mean diffusivity in grey matter.",
        _percent_of(_md, "grey"),
        MAPS,
    ),
    Measure(
        "md_error_fluid",
        "MD error, fluid",
        PERCENT,
        "Mean absolute error of mean diffusivity in fluid.",
        _percent_of(_md, "fluid"),
        MAPS,
    ),
    Measure(
        "rish0_error_white",
        "RISH 0 error, white",
        PERCENT,
        "Mean absolute error of the energy of SH order 0 in white matter.",
        _rish_error(0, "white"),
        MAPS,
    ),
    Measure(
        "rish0_error_grey",
        "RISH 0 error, grey",
        PERCENT,
        "Mean absolute error of the energy of SH order 0 in grey matter.",
        _rish_error(0, "grey"),
        MAPS,
    ),
    Measure(
        "rish2_error_white",
        "RISH 2 error, white",
        PERCENT,
        "Mean absolute error of the energy of SH order 2 in white matter (grey has next to none).",
        _rish_error(2, "white"),
        MAPS,
    ),
    Measure(
        "direction_error",
        "direction error",
        "degrees",
        "Mean angle between principal directions in white matter where truth's FA is above 0.2.",
        _direction_error,
        MAPS,
    ),
    Measure(
        "bias_white",
        "bias, white",
        PERCENT,
        "Mean signed error of the direction-averaged S/S0 in white matter; against noise-free "
        "truth, the Rician bias that is left.",
        _percent_of(_mean_signal, "white", signed_percent),
        BIAS,
        better="nearest 0",
    ),
    Measure(
        "bias_grey",
        "bias, grey",
        PERCENT,
        "Mean signed error of the direction-averaged S/S0 in grey matter.",
        _percent_of(_mean_signal, "grey", signed_percent),
        BIAS,
        better="nearest 0",
    ),
    Measure(
        "bias_fluid",
        "bias, fluid",
        PERCENT,
        "Mean signed error of the direction-averaged S/S0 in fluid, whose signal is the weakest.",
        _percent_of(_mean_signal, "fluid", signed_percent),
        BIAS,
        better="nearest 0",
    ),
    Measure(
        "mask_eroded",
        "mask eroded",
        "% of SH MSE",
        "Change of the SH MSE when the outermost voxels of the mask are left out.",
        lambda pair: pair.change_of_mse(pair.eroded),
        MASK,
        better="nearest 0",
    ),
    Measure(
        "mask_dilated",
        "mask dilated",
        "% of SH MSE",
        "Change of the SH MSE when voxels next to the mask count that only one of the images "
        "calls brain, the other being 0 there.",
        lambda pair: pair.change_of_mse(pair.dilated),
        MASK,
        better="nearest 0",
    ),
    Measure(
        "sh_rmse",
        "SH RMSE",
        "SH units",
        "Root of the SH MSE.",
        lambda pair: float(np.sqrt(_sh_mse(pair))),
    ),
    Measure(
        "relative_sh_mse",
        "relative SH MSE",
        "",
        "SH MSE over the variance of truth about its coefficient means: 0 is perfect, 1 is as far "
        "off as truth's mean.",
        _relative,
    ),
    Measure(
        "sh_average_mse",
        "SH average MSE",
        SQUARED,
        "Squared error of the mean of the first six coefficients.",
        _mse_of(lambda mapped: mapped["sh_average"]),
    ),
    Measure(
        "fa_mae",
        "FA error",
        "FA",
        "Mean absolute error of fractional anisotropy.",
        lambda pair: float(np.abs(_map_error(pair, lambda mapped: mapped["fa"])).mean()),
    ),
    Measure(
        "fa_mse",
        "FA MSE",
        "FA²",
        "Squared error of fractional anisotropy.",
        _mse_of(lambda mapped: mapped["fa"]),
    ),
)

MEASURES: Mapping[str, Measure] = MappingProxyType({each.key: each for each in _ALL})
"""By key, in the order of a table's columns."""

IN_TABLE = tuple(each.key for each in _ALL if each.group is not None)
"""Keys of what `measure_head` measures for Table 1."""


@dataclass(frozen=True, eq=False)
class HeadMeasures:
    """What was measured.

    Attributes
    ----------
    values
        By key of `MEASURES`, in that order; nan where there is nothing to measure.
    patches
        SH errors patch by patch; `patch_mse` is their mean.
    """

    values: dict[str, float]
    patches: PatchErrors


def measure_sh(
    prediction: Comparable, truth: SHImage | Truth, *, patch_size: int = PATCH_SIZE
) -> HeadMeasures:
    """Measure the SH errors alone, `sh_mse` and `patch_mse`: as `measure_head`, in no time."""
    truth = truth if isinstance(truth, Truth) else Truth(truth)
    return _measured(Pair.of(prediction, truth, patch_size), ("patch_mse", "sh_mse"))


def measure_head(
    prediction: Comparable,
    truth: SHImage | Truth,
    tissue: Tissue | None = None,
    *,
    patch_size: int = PATCH_SIZE,
) -> HeadMeasures:
    """Measure a prediction on truth's own lattice, inside both masks.

    On one core, a head of 63 × 39 × 27 voxels takes about a second, and half a second more for a
    truth that is met for the first time.

    Parameters
    ----------
    prediction
        Resampled to truth's lattice where it lies on another. Maps are computed once for all truths
        on its lattice.
    truth
        Never resampled. A `Truth` computes what belongs to it once for all predictions.
    tissue
        On truth's lattice; None: that of the `Truth`, or found from the image.
    patch_size
        Edge of a patch in voxels of truth, odd. The paper has 11 for a target on the input's
        lattice and 19 for one of half the spacing, which is nearly the same length.

    Raises
    ------
    UserError
        When the images do not belong together, or a b-value is unknown.
    ValueError
        For an even patch size, or tissue of another shape.
    """
    if not isinstance(truth, Truth):
        truth = Truth(truth, tissue)
    elif tissue is not None:
        truth = replace(truth, given_tissue=tissue)
    return _measured(Pair.of(prediction, truth, patch_size), IN_TABLE)


def _measured(pair: Pair, keys: tuple[str, ...]) -> HeadMeasures:
    return HeadMeasures({key: MEASURES[key].compute(pair) for key in keys}, pair.patches)
