"""Files of the page "Site effect": tidy tables with data dictionaries, written and read."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.benchmark.results import LARGEST_TABLE, RegionValue, Results
from napari_msp.evaluation.proof.agreement import Identified, ScanAgreement
from napari_msp.evaluation.proof.pages import TARGET, Column, TidyTable
from napari_msp.evaluation.proof.site_effect_numbers import (
    ROLE_WORDS,
    Place,
    Resampled,
    SiteDifference,
    SiteEffects,
    role_of,
)
from napari_msp.evaluation.proof.values import MEANS, QUANTITIES, VOXELS
from napari_msp.evaluation.statistics import Interval, PermutationTest
from napari_msp.foreign_errors import first_reason
from napari_msp.strict_json import read_whole

T = TypeVar("T")

ALL_DATASETS = "all datasets"
"""Dataset of rows that were resampled over datasets, then heads."""

EFFECTS_FILE, PEOPLE_FILE, VALUES_FILE = "site_effect", "identifiability", "regions"
"""File names without their endings."""

PROOF = "proof"
"""Folder in a folder of predictions: their agreement with the target's own scans."""

KINDS = {"mean": "Mean.", "error": "Root mean square against the target's scan."}
"""Kinds of quantities in words."""

WHERE = (
    Column(
        "dataset", "Name of the dataset", levels={ALL_DATASETS: "resampled, then heads in each"}
    ),
    Column("target", "Platform that was predicted, with its shell where there are several"),
    Column("row", "What was compared with the target's scan"),
    Column("role", "What the row stands for", levels=ROLE_WORDS),
)

EFFECTS = (
    *WHERE,
    Column("region", "Name of the region"),
    Column(
        "quantity",
        "What the region's mean is of",
        levels={key: QUANTITIES[key].explanation for key in MEANS},
    ),
    Column("unit", "Of the quantity"),
    Column("subjects", "Number of subjects with both values"),
    Column("target_mean", "Mean over subjects of the target's scans", "see unit"),
    Column("mean", "Mean over subjects of the row", "see unit"),
    Column("bias", "Mean difference, row minus target", "see unit"),
    Column("bias_low", "Lower end of its 95 % confidence interval (Student's t)", "see unit"),
    Column("bias_high", "Upper end of it", "see unit"),
    Column("bias_percent", "Bias over target_mean", "%"),
    Column("bias_percent_low", "Lower end of its 95 % interval", "%"),
    Column("bias_percent_high", "Upper end of it", "%"),
    Column("difference_sd", "Standard deviation of the differences, N - 1", "see unit"),
    Column("limit_low", "Lower limit of agreement, bias - 1.96 difference_sd", "see unit"),
    Column("limit_high", "Upper limit of agreement", "see unit"),
    Column("mean_difference", "Mean absolute difference", "see unit"),
    Column("cv_percent", "Coefficient of variation between scanners, root mean square", "%"),
    Column("icc", "Intraclass correlation ICC(A,1)"),
    Column("icc_low", "Lower end of its 95 % confidence interval"),
    Column("icc_high", "Upper end of it"),
    Column("glass_delta", "Bias over the standard deviation between subjects on the target"),
    Column("variance_kept_percent", "Variance between subjects over that on the target", "%"),
    Column("p_value", "Permutation test of the bias by subject, two-sided, alone"),
    Column("p_corrected", "The same, corrected over regions and quantities of the row (max |t|)"),
    Column("p_smallest", "Smallest p-value that so many subjects can give"),
    Column("change_percent", "Change of mean_difference from that of the input scan", "%"),
    Column("change_low", "Lower end of its 95 % interval over subjects", "%"),
    Column("change_high", "Upper end of it", "%"),
    Column("note", "Why numbers are missing"),
)

PEOPLE = (
    *WHERE,
    Column("through", "What tensors were fitted to: the scan's own signal, or the SH series"),
    Column("subjects", "Number of subjects"),
    Column("quantities", "By how many regions' quantities subjects were compared"),
    Column("right", "Of how many the own target scan is nearest; ties count their share"),
    Column("rate", "right over subjects"),
    Column("right_unbiased", "As right, after the mean over subjects is taken from both"),
    Column("rate_unbiased", "right_unbiased over subjects"),
    Column("chance", "What guessing gives"),
)


VALUES = (
    Column("dataset", "Name of the dataset"),
    Column("target", "Platform that was predicted, with its shell where there are several"),
    Column("subject", "Who was measured"),
    Column("reference", "Why", levels={"scan": "is predicted", "training": "was learned from"}),
    Column(
        "row", "Which image of the subject", levels={TARGET: "what all others are compared with"}
    ),
    Column("region", "Name of the region"),
    Column(
        "quantity",
        "What was measured there",
        levels={
            **{key: f"{each.explanation} {KINDS[each.kind]}" for key, each in QUANTITIES.items()},
            VOXELS: "Number of voxels that were measured.",
        },
    ),
    Column("unit", "Of the quantity"),
    Column("value", "The number", "see unit"),
)


def values_table(values: Results[RegionValue]) -> TidyTable:
    """Return everything that was measured as a tidy table, one value per line."""
    units = {key: each.unit for key, each in QUANTITIES.items()}
    return TidyTable(
        VALUES,
        [
            (
                each.dataset, each.column, each.subject, each.reference, each.method, each.region,
                each.quantity, units.get(each.quantity, ""), each.value,
            )
            for each in values
        ],
    )  # fmt: skip


def effects_table(found: Sequence[SiteEffects], over: Sequence[Resampled]) -> TidyTable:
    """Return all results as a tidy table, one row, region and quantity per line."""
    records = [effect_record(effect) for one in found for effect in one.effects]
    for one in over:
        low, high = one.interval or (None, None)
        known: dict[str, object] = {
            "dataset": ALL_DATASETS, "target": one.column, "row": one.row,
            "role": role_of(one.row), "region": one.region, "quantity": one.quantity,
            "unit": QUANTITIES[one.quantity].unit, "subjects": one.subjects,
            "bias_percent": one.bias,
            "bias_percent_low": low, "bias_percent_high": high,
            "note": f"{one.datasets} datasets" + (one.note and f"; {one.note}"),
        }  # fmt: skip
        records.append(known)
    names = [column.name for column in EFFECTS]
    return TidyTable(EFFECTS, [[each.get(name) for name in names] for each in records])


NUMBERS = {
    "target_mean": "truth_mean", "mean": "mean", "bias": "bias", "difference_sd": "difference_sd",
    "mean_difference": "mean_difference", "cv_percent": "variation", "icc": "icc",
    "glass_delta": "effect", "variance_kept_percent": "variance_kept",
}  # fmt: skip
"""Columns with a number of `ScanAgreement`, by its name there."""

INTERVALS = {"bias": "bias_interval", "limit": "limits", "icc": "icc_interval"}
"""Beginnings of the columns of `ScanAgreement`'s intervals, followed by "_low" and "_high"."""


def effect_record(effect: SiteDifference) -> dict[str, object]:
    """Return a result for a row's quantity in a region, by column; None is unknown."""
    found, test = effect.agreement, effect.test
    intervals = {column: getattr(found, name) for column, name in INTERVALS.items()}
    intervals |= {"bias_percent": found.interval_percent, "change": effect.change_interval}
    known = {
        "dataset": effect.dataset, "target": effect.column, "row": effect.row,
        "role": role_of(effect.row), "region": effect.region, "quantity": effect.quantity,
        "unit": QUANTITIES[effect.quantity].unit, "subjects": found.subjects,
        **{column: getattr(found, name) for column, name in NUMBERS.items()},
        "bias_percent": found.bias_percent, "change_percent": effect.change, "note": effect.note,
        **{f"{name}_{end}": value
           for name, interval in intervals.items()
           for end, value in zip(("low", "high"), interval or (None, None), strict=True)},
        "p_value": test and test.p_value, "p_corrected": test and test.corrected_p_value,
        "p_smallest": test and test.smallest,
    }  # fmt: skip
    return {column.name: known[column.name] for column in EFFECTS}


def people_table(found: Sequence[SiteEffects]) -> TidyTable:
    """Return how well subjects are identified as a tidy table."""
    return TidyTable(
        PEOPLE,
        [
            [
                each.dataset, each.column, row, role_of(row),
                each.through, known.subjects, known.quantities,
                known.right, known.right / known.subjects,
                known.right_unbiased, known.right_unbiased / known.subjects, 1 / known.subjects,
            ]
            for each in found
            for row, known in each.identified.items()
            if known is not None
        ],
    )  # fmt: skip


# --- Reading ----------------------------------------------------------------------------------


def read_site_effect(folder: str | Path) -> list[SiteEffects]:
    """Read back what `evaluate` measured and found, dataset by dataset, target by target."""
    folder = Path(folder)
    values: dict[Where, dict[str, dict[Place, dict[str, float]]]] = {}
    for line, value in _read(folder / f"{VALUES_FILE}.csv", VALUES, lambda e: float(e["value"])):
        if line["reference"] == "scan":
            of_row = values.setdefault(_where(line), {}).setdefault(line["row"], {})
            of_place = of_row.setdefault((line["region"], line["quantity"]), {})
            of_place[line["subject"]] = value
    effects: dict[Where, list[SiteDifference]] = {}
    for line, effect in _read(folder / f"{EFFECTS_FILE}.csv", EFFECTS, _effect):
        if effect is not None:
            effects.setdefault(_where(line), []).append(effect)
    people: dict[Where, dict[str, Identified | None]] = {}
    for line, found in _read(folder / f"{PEOPLE_FILE}.csv", PEOPLE, _IDENTIFIED):
        # A row of both images and maps of the signal counts by its images, which come first.
        people.setdefault(_where(line), {}).setdefault(line["row"], found)
    return [
        SiteEffects(*where, of, effects[where], people.get(where, {}))
        for where, of in values.items()
        if TARGET in of and where in effects
    ]


def site_effect_in(folder: Path) -> Path | None:
    """Find the folder of a site effect: this one, or its `PROOF`; None if there is none."""
    places = (folder, folder / PROOF)
    return next((each for each in places if (each / f"{EFFECTS_FILE}.csv").is_file()), None)


Where = tuple[str, str]
"""Dataset and target."""

Line = Mapping[str, Any]
"""A line of a tidy table by column: words, and numbers or None."""


def _where(line: Line) -> Where:
    return line["dataset"], line["target"]


def _ends(line: Line, name: str) -> Interval | None:
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    return None if low is None or high is None else (low, high)


def _read(path: Path, columns: Sequence[Column], make: Callable[[Line], T]) -> list[tuple[Line, T]]:
    """Read a tidy table, whose numbers are valid or missing; make something of each line."""
    text = read_whole(path, LARGEST_TABLE)
    words = {each.name for each in (*WHERE, *VALUES)} - {"value"} | {"note", "through"}
    try:
        header, *rows = csv.reader(io.StringIO(text.decode(), newline=""))
        if header != [each.name for each in columns]:
            raise ValueError("its columns are others")
        lines = [
            {
                name: each if name in words else float(each) if each else None
                for name, each in zip(header, row, strict=True)
            }
            for row in rows
        ]
        return [(line, make(line)) for line in lines]
    except (ValueError, TypeError, csv.Error) as error:  # not UTF-8, no line, or not a number
        remedy = Advice("compare again")
        raise UserError(
            f"is not a table of the site effect ({first_reason(error)})", path, remedy=remedy
        ) from error


_AGREEMENT = TypeAdapter(ScanAgreement).validate_python
_IDENTIFIED = TypeAdapter(Identified).validate_python
"""Validators: a missing number, or a count that is not whole, is an error."""


def _effect(line: Line) -> SiteDifference | None:
    """Return the effect of one dataset; None for a line combined from several."""
    if line["dataset"] == ALL_DATASETS:
        return None
    found = _AGREEMENT(
        {
            "subjects": line["subjects"],
            **{name: line[column] for column, name in NUMBERS.items()},
            **{name: _ends(line, column) for column, name in INTERVALS.items()},
        }
    )
    test = None
    if line["p_value"] is not None:
        smallest, corrected = float(line["p_smallest"]), float(line["p_corrected"])
        exact = smallest == 2.0 ** (1 - found.subjects)
        test = PermutationTest(found.subjects, line["p_value"], corrected, smallest, exact)
    where = (*_where(line), line["row"], line["region"], line["quantity"])
    change = line["change_percent"], _ends(line, "change")
    return SiteDifference(*where, found, test, *change, line["note"])
