"""The numbers of predictions against truth, inside the mask; as CSV each beside the first row's."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from napari_msp.arrays import MaskArray
from napari_msp.evaluation.line_up import Comparable, as_maps, line_up
from napari_msp.evaluation.measures.catalogue import MEASURES
from napari_msp.evaluation.measures.pair import PATCH_SIZE, Pair, PatchErrors, Truth
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
    sh_mse, sh_rmse
        Of all SH coefficients (paper: MSE).
    relative_sh_mse
        1 - R²; None where truth is constant.
    sh_average_mse, colour_fa_mse
        Of the maps of Fig. 3 (paper: "direction-encoded colour MSE").
    fa_mae, fa_mse
        Of fractional anisotropy through the SH route.
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
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["order_mse"] = {str(order): mse for order, mse in self.order_mse.items()}
        del content["patches"]
        return {
            **content,
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
    patch_size
        Edge of a patch in voxels of truth, odd.
    """
    true = as_maps(truth)
    both = line_up(true, {"prediction": prediction})
    return measure_mapped(both.predictions["prediction"], true, both.mask, patch_size)


def measure_mapped(
    prediction: Maps, truth: Maps, mask: MaskArray, patch_size: int = PATCH_SIZE
) -> Metrics:
    """Measure a prediction that already lies on truth's lattice.

    Sums are in float64, whatever type the images have. Errors count in the mask, which
    is (X, Y, Z) and within both images' own.
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


IN_CSV = ("sh_mse", "sh_rmse", "sh_average_mse", "colour_fa_mse", "fa_mae")
CHANGES = ("sh_mse", "colour_fa_mse")
"""Measures in the CSV, and those that stand beside the first row's."""


BEFORE = "before"
"""Row of the input: what no harmonization gives."""


def numbers_csv(measured: Mapping[str, Metrics], truth: str, before: Metrics | None = None) -> str:
    """Write a few numbers of each prediction with full precision, in ASCII for any spreadsheet.

    A change is by how many percent an error is above (+) or below (-) that of the first row: the
    input's, called `BEFORE`, where it was measured, else the first prediction's. The field is empty
    for the first itself, and where the first has no error. The last column names the truth.
    """
    return csv_text(_header(), _rows(measured, truth, before))


def numbers_csv_by_shell(
    measured: Mapping[int, tuple[Mapping[str, Metrics], Metrics | None]], truth: str
) -> str:
    """Write `numbers_csv` of several shells, their names in s/mm² in the first column."""
    rows = (
        [shell, *row]
        for shell, (each, before) in measured.items()
        for row in _rows(each, truth, before)
    )
    return csv_text(["shell [s/mm^2]", *_header()], rows)


def _header() -> list[str]:
    units = {key: MEASURES[key].unit.replace("²", "^2") for key in IN_CSV}
    return [
        "prediction",
        "voxels",
        *(f"{key} [{unit}]" for key, unit in units.items()),
        *(f"{key}_change [%]" for key in CHANGES),
        "truth",
    ]


def _rows(
    measured: Mapping[str, Metrics], truth: str, before: Metrics | None
) -> list[list[object]]:
    listed = [*([] if before is None else [(BEFORE, before)]), *measured.items()]
    first = listed[0][1] if listed else None
    rows: list[list[object]] = []
    for name, metrics in listed:
        beside = None if metrics is first else first
        changes = [
            change(getattr(metrics, key), getattr(beside, key)) if beside else None
            for key in CHANGES
        ]
        values = [getattr(metrics, key) for key in IN_CSV]
        rows.append([name, metrics.voxels, *values, *changes, truth])
    return rows


def change(value: float, first: float) -> float | None:
    """Give by how many percent a value is above the first (+) or below; None where that is 0."""
    return 100 * (value / first - 1) if first > 0 else None
