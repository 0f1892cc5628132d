"""The few global numbers that predictions are compared by, each beside the first one's; as CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_msp.evaluation.comparison import Comparison
from napari_msp.evaluation.metrics import Metrics, measure_mapped
from napari_msp.files import write_text
from napari_msp.formatting import csv_text


@dataclass(frozen=True)
class Row:
    """One prediction.

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
    "sh_mse [SH units^2]": "sh_mse",
    "sh_rmse [SH units]": "sh_rmse",
    "sh_average_mse [SH units^2]": "sh_average_mse",
    "colour_fa_mse [FA^2]": "colour_fa_mse",
    "fa_mae [FA]": "fa_mae",
    "sh_mse_change [%]": "change_sh",
    "colour_fa_mse_change [%]": "change_colour",
}
"""Header of the CSV and the field beneath it; ASCII, for spreadsheets that guess encodings."""


def summarise(comparison: Comparison) -> list[Row]:
    """Measure every prediction of a comparison; without truth there is nothing to measure.

    Returns
    -------
    One row a prediction in the comparison's order; none without truth.
    """
    truth = comparison.truth
    if truth is None:
        return []
    return rows(
        {
            name: measure_mapped(prediction, truth, comparison.mask)
            for name, prediction in comparison.predictions.items()
        }
    )


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


def write_numbers(path: Path, numbers: Sequence[Row], truth: str) -> None:
    """Write rows as CSV, atomically; see `numbers_csv`.

    Raises
    ------
    UserError
        When the folder cannot be written to.
    """
    write_text(path, numbers_csv(numbers, truth))


def _row(name: str, metrics: Metrics, first: Metrics | None) -> Row:
    return Row(
        name=name,
        voxels=metrics.voxels,
        sh_mse=metrics.sh_mse,
        sh_rmse=metrics.sh_rmse,
        sh_average_mse=metrics.sh_average_mse,
        colour_fa_mse=metrics.colour_fa_mse,
        fa_mae=metrics.fa_mae,
        change_sh=_change(metrics.sh_mse, first.sh_mse) if first else None,
        change_colour=_change(metrics.colour_fa_mse, first.colour_fa_mse) if first else None,
    )


def _change(value: float, first: float) -> float | None:
    return 100 * (value / first - 1) if first > 0 else None
