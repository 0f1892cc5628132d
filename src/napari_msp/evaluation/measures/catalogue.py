"""What is measured on every head: names, units, and what each number says."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Measure:
    """One column of a table of errors.

    Attributes
    ----------
    key
        Its name in `HeadMeasures.values`.
    label
        For heads of tables.
    unit
        Of its values.
    explanation
        One sentence.
    signed
        Whether it has a sign and nearest 0 is best; otherwise lower is better.
    headline
        Whether it stands in the short table.
    """

    key: str
    label: str
    unit: str
    explanation: str
    signed: bool = False
    headline: bool = False


SQUARED = "SH units²"
PERCENT = "% of truth's mean"

_ALL = (
    Measure(
        "patch_mse",
        "patch MSE",
        SQUARED,
        "Mean over patches (cubes of 11 voxels unless said otherwise, that do not overlap, "
        "centred in the mask) of the squared error of the SH coefficients of S/S0.",
        headline=True,
    ),
    Measure(
        "sh_mse",
        "SH MSE",
        SQUARED,
        "Squared error of the SH coefficients of S/S0, mean over voxels and coefficients.",
        headline=True,
    ),
    Measure(
        "robust_mse",
        "aligned SH MSE",
        SQUARED,
        "SH MSE after a residual rigid motion of up to a voxel is undone on the prediction, with "
        "both images smoothed by half a voxel.",
        headline=True,
    ),
    Measure(
        "colour_fa_mse",
        "colour FA MSE",
        "FA²",
        "Squared error of the principal direction's colour times FA, mean over three colours.",
    ),
    Measure(
        "fa_error_white",
        "FA error, white",
        PERCENT,
        "Mean absolute error of fractional anisotropy in white matter.",
        headline=True,
    ),
    Measure(
        "fa_error_grey",
        "FA error, grey",
        PERCENT,
        "Mean absolute error of fractional anisotropy in grey matter.",
    ),
    Measure(
        "md_error_white",
        "MD error, white",
        PERCENT,
        "Mean absolute error of mean diffusivity in white matter.",
        headline=True,
    ),
    Measure(
        "md_error_grey",
        "MD error, grey",
        PERCENT,
        "Mean absolute error of mean diffusivity in grey matter.",
    ),
    Measure(
        "md_error_fluid",
        "MD error, fluid",
        PERCENT,
        "Mean absolute error of mean diffusivity in fluid.",
    ),
    Measure(
        "rish0_error_white",
        "RISH 0 error, white",
        PERCENT,
        "Mean absolute error of the energy of SH order 0 in white matter.",
    ),
    Measure(
        "rish0_error_grey",
        "RISH 0 error, grey",
        PERCENT,
        "Mean absolute error of the energy of SH order 0 in grey matter.",
    ),
    Measure(
        "rish2_error_white",
        "RISH 2 error, white",
        PERCENT,
        "Mean absolute error of the energy of SH order 2 in white matter (grey has next to none).",
    ),
    Measure(
        "direction_error",
        "direction error",
        "degrees",
        "Mean angle between principal directions in white matter where truth's FA is above 0.2.",
        headline=True,
    ),
    Measure(
        "bias_white",
        "bias, white",
        PERCENT,
        "Mean signed error of the direction-averaged S/S0 in white matter; against noise-free "
        "truth, the Rician bias that is left.",
        signed=True,
        headline=True,
    ),
    Measure(
        "bias_grey",
        "bias, grey",
        PERCENT,
        "Mean signed error of the direction-averaged S/S0 in grey matter.",
        signed=True,
    ),
    Measure(
        "bias_fluid",
        "bias, fluid",
        PERCENT,
        "Mean signed error of the direction-averaged S/S0 in fluid, whose signal is the weakest.",
        signed=True,
    ),
    Measure(
        "mask_eroded",
        "mask eroded",
        "% of SH MSE",
        "Change of the SH MSE when the outermost voxels of the mask are left out.",
        signed=True,
    ),
    Measure(
        "mask_dilated",
        "mask dilated",
        "% of SH MSE",
        "Change of the SH MSE when voxels next to the mask count that only one of the images "
        "calls brain, the other being 0 there.",
        signed=True,
    ),
)

MEASURES: Mapping[str, Measure] = MappingProxyType({each.key: each for each in _ALL})
"""By key, in the order of a table's columns."""
