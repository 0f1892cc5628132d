"""The numbers of predictions against truth, inside the mask; as CSV each beside the first one's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.arrays import MaskArray
from napari_msp.evaluation.comparison import Comparable, as_maps, line_up
from napari_msp.evaluation.measures.catalogue import MEASURES
from napari_msp.evaluation.measures.pair import PATCH_SIZE, Pair, PatchErrors, Truth
from napari_msp.files import write_text
from napari_msp.formatting import csv_text
from napari_msp.signal.maps import Maps
from napari_msp.signal.spherical_harmonics import order_slices

MEASURED = (
    "sh_mse",
    "sh_rmse",
    "relative_sh_mse",
    "sh_average_mse",
    "fa_mae",
    "fa_mse",
    "colour_fa_mse",
)
"""Measures of the catalogue, and fields of `Metrics`, that are one number."""

UNITS = {
    **{key: MEASURES[key].described for key in MEASURED},
    "order_mse": "SH units²: as sh_mse, mean over voxels and the coefficients of one order.",
    "patch_mse": "SH units²: as sh_mse, one number a patch.",
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


def measure(prediction: Comparable, truth: Comparable, patch_size: int = PATCH_SIZE) -> Metrics:
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
    true = as_maps(truth)
    both = line_up(true, {"prediction": prediction})
    return measure_mapped(both.predictions["prediction"], true, both.mask, patch_size)


def measure_mapped(
    prediction: Maps, truth: Maps, mask: MaskArray, patch_size: int = PATCH_SIZE
) -> Metrics:
    """Measure a prediction that already lies on truth's lattice.

    Sums are in float64, whatever the images hold.

    Parameters
    ----------
    mask
        (X, Y, Z) where errors count; in both images' masks.
    """
    pair = Pair(prediction, Truth(truth.image, given_maps=truth), mask, patch_size)
    values = {key: MEASURES[key].compute(pair) for key in MEASURED}
    relative = values.pop("relative_sh_mse")
    return Metrics(
        voxels=int(mask.sum()),
        order_mse={
            order: float(pair.squared[:, part].mean())
            for order, part in order_slices(truth.image.order).items()
        },
        relative_sh_mse=relative if np.isfinite(relative) else None,
        patches=pair.patches,
        **values,
    )


@dataclass(frozen=True)
class Row:
    """A prediction's row in the table of a comparison.

    Attributes
    ----------
    name
        Of the prediction.
    voxels
        Number of voxels measured: those in every mask.
    sh_mse, sh_rmse
        Mean squared error of all SH coefficients in SH units squared, and its root.
    sh_average_mse
        Of the SH average, in SH units squared.
    colour_fa_mse
        Of colour FA, mean over the three colours, in FA squared.
    fa_mae
        Mean absolute error of FA.
    change_sh, change_colour
        By how many percent `sh_mse` and `colour_fa_mse` are above (+) or below (-) those of the
        first prediction; None for the first itself, and where the first has no error.
    """

    name: str
    voxels: int
    sh_mse: float
    sh_rmse: float
    sh_average_mse: float
    colour_fa_mse: float
    fa_mae: float
    change_sh: float | None
    change_colour: float | None


COLUMNS: Mapping[str, str] = {
    "prediction": "name",
    "voxels": "voxels",
    **{
        f"{key} [{MEASURES[key].unit.replace('²', '^2')}]": key
        for key in ("sh_mse", "sh_rmse", "sh_average_mse", "colour_fa_mse", "fa_mae")
    },
    "sh_mse_change [%]": "change_sh",
    "colour_fa_mse_change [%]": "change_colour",
}
"""Header of the CSV and the field beneath it; ASCII, for spreadsheets that guess encodings."""


def rows(measured: Mapping[str, Metrics]) -> list[Row]:
    """Set what was measured of each prediction beside the first one's."""
    first = next(iter(measured.values()), None)
    return [
        _row(name, metrics, None if metrics is first else first)
        for name, metrics in measured.items()
    ]


def numbers_csv(numbers: Sequence[Row], truth: str) -> str:
    """Write rows with full precision; a field is empty where there is no number.

    Parameters
    ----------
    numbers
        One row a prediction.
    truth
        What they were measured against, such as a file's name.
    """
    return csv_text(
        [*COLUMNS, "truth"],
        ([*(getattr(row, field) for field in COLUMNS.values()), truth] for row in numbers),
    )


def write_numbers(path: str | Path, numbers: Sequence[Row], truth: str) -> None:
    """Write rows as CSV, atomically; see `numbers_csv`.

    Raises
    ------
    UserError
        When the folder cannot be written to.
    """
    write_text(Path(path), numbers_csv(numbers, truth))


def _row(name: str, metrics: Metrics, first: Metrics | None) -> Row:
    return Row(
        name=name,
        voxels=metrics.voxels,
        sh_mse=metrics.sh_mse,
        sh_rmse=metrics.sh_rmse,
        sh_average_mse=metrics.sh_average_mse,
        colour_fa_mse=metrics.colour_fa_mse,
        fa_mae=metrics.fa_mae,
        change_sh=change(metrics.sh_mse, first.sh_mse) if first else None,
        change_colour=change(metrics.colour_fa_mse, first.colour_fa_mse) if first else None,
    )


def change(value: float, first: float) -> float | None:
    """Give by how many percent a value is above the first (+) or below; None where that is 0."""
    return 100 * (value / first - 1) if first > 0 else None
