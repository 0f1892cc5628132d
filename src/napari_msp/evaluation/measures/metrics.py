"""Measures of `compare`, and their CSV, with changes from the first row."""

from collections.abc import Mapping

import numpy as np

from napari_msp.arrays import MaskArray
from napari_msp.evaluation.line_up import Comparable, as_maps
from napari_msp.evaluation.measures.catalogue import (
    COMPARED,
    MEASURES,
    measure_by_keys,
    measure_head,
)
from napari_msp.evaluation.measures.pair import Metrics, Pair, Truth
from napari_msp.formatting import csv_text
from napari_msp.signal.maps import Maps

UNITS = {
    **{key: MEASURES[key].described for key in COMPARED},
    "order_mse": "SH units²: as sh_mse, mean over voxels and the coefficients of one order.",
    "patch_mse": "SH units²: as sh_mse, one number a patch.",
}
"""Units and meanings of the numbers in `Metrics.to_json`."""


def measure(prediction: Comparable, truth: Comparable) -> Metrics:
    """Measure a prediction on truth's own lattice, to which it is resampled."""
    true = as_maps(truth)
    return measure_head(prediction, Truth(true.image, given_maps=true), COMPARED)


def measure_mapped(prediction: Maps, truth: Maps, mask: MaskArray) -> Metrics:
    """Measure a prediction that already lies on truth's lattice.

    Sums are computed in float64, whatever type the images have. Errors count in the mask, which
    is (X, Y, Z) and lies within both images' own.
    """
    return measure_by_keys(Pair(prediction, Truth(truth.image, given_maps=truth), mask), COMPARED)


CHANGES = ("sh_mse", "colour_fa_mse")
"""Measures whose change from the first row is written too."""

BEFORE = "before"
"""Row of the unharmonized input."""


def numbers_csv(
    measured: Mapping[str, Metrics],
    truth: str,
    before: Metrics | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    """Return each prediction's numbers as CSV with full precision, in ASCII for any spreadsheet.

    A change is the difference of an error from the first row's in percent of that; the first row is
    the input, called `BEFORE`, if it was measured, else the first prediction. The field is empty
    for the first row itself, and if that has no error. The last column names the truth. `more` has
    the units of further measures beside `COMPARED`.
    """
    return csv_text(_header(more or {}), _rows(measured, truth, before))


def numbers_csv_by_shell(
    measured: Mapping[int, tuple[Mapping[str, Metrics], Metrics | None]],
    truth: str,
    more: Mapping[str, str],
) -> str:
    """Return `numbers_csv` of several shells, with their names in s/mm² in the first column."""
    rows = (
        [shell, *row]
        for shell, (each, before) in measured.items()
        for row in _rows(each, truth, before)
    )
    return csv_text(["shell [s/mm^2]", *_header(more)], rows)


def _header(more: Mapping[str, str]) -> list[str]:
    units = {**{key: MEASURES[key].unit for key in COMPARED}, **more}
    plain = {key: unit.replace("²", "^2") for key, unit in units.items()}
    return [
        "prediction",
        "voxels",
        *(f"{key} [{unit}]" if unit else key for key, unit in plain.items()),
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
            change(metrics.values[key], beside.values[key]) if beside else None for key in CHANGES
        ]
        values = [each if np.isfinite(each) else None for each in metrics.values.values()]
        rows.append([name, metrics.voxels, *values, *changes, truth])
    return rows


def change(value: float, first: float) -> float | None:
    """Return a value's difference from the first in percent of that; None where that is 0."""
    return 100 * (value / first - 1) if first > 0 else None
