"""Table 1 of the paper: rows are models, columns are targets, cells are mean (sd) of errors."""

import csv
import io
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from napari_msp.evaluation.records import ErrorTable, Samples, paired
from napari_msp.evaluation.statistics import PairedTest, bonferroni, wilcoxon


@dataclass(frozen=True)
class Cell:
    """One model on one target.

    Attributes
    ----------
    mean, deviation
        Of the errors, in SH units squared; deviation with N - 1, 0 for one sample.
    samples
        How many.
    best
        Whether no other model has a lower mean on this target.
    """

    mean: float
    deviation: float
    samples: int
    best: bool


Cells = dict[tuple[str, str], Cell]
"""By model and target."""


@dataclass(frozen=True)
class NamedTest:
    """A paired test with what it compared.

    Attributes
    ----------
    target, first, second
        Platform and the two models.
    level
        "patch" (as the paper) or "subject".
    test
        Its numbers, Bonferroni corrected over all tests of its level.
    """

    target: str
    first: str
    second: str
    level: str
    test: PairedTest


def summarise(errors: ErrorTable, level: str = "patch") -> Cells:
    """Compute the cells from patch errors, or from each subject's mean."""
    means: dict[tuple[str, str], Samples] = {
        (model, target): samples
        for model in errors.models
        for target in errors.targets
        if (samples := _samples(errors, model, target, level))
    }
    lowest = {
        target: min(float(np.mean(list(s.values()))) for (_, t), s in means.items() if t == target)
        for target in errors.targets
    }
    cells: Cells = {}
    for (model, target), samples in means.items():
        values = np.array(list(samples.values()))
        mean = float(values.mean())
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        cells[model, target] = Cell(mean, deviation, len(values), mean == lowest[target])
    return cells


def compare_models(errors: ErrorTable, level: str, reference: str | None = None) -> list[NamedTest]:
    """Test models against each other on the samples that both have, target by target.

    Parameters
    ----------
    level
        "patch" or "subject".
    reference
        Test this model against each other one; None: every pair. Fewer tests cost less in the
        correction, but the reference must be chosen before the errors are seen.
    """
    named: list[tuple[str, str, str]] = []
    tests: list[PairedTest] = []
    for target in errors.targets:
        for first, second in combinations(errors.models, 2):
            if reference is not None and reference not in (first, second):
                continue
            one = _samples(errors, first, target, level)
            other = _samples(errors, second, target, level)
            if one and other:
                named.append((target, first, second))
                tests.append(wilcoxon(*paired(one, other)))
    return [
        NamedTest(*names, level, test) for names, test in zip(named, bonferroni(tests), strict=True)
    ]


def common_exponent(cells: Cells) -> int:
    """Give the power of ten that makes the smallest mean at least 10, as the paper's numbers are.

    >>> common_exponent({("msp", "prisma_st"): Cell(0.0059, 0.001, 8, True)})
    -4
    """
    positive = [cell.mean for cell in cells.values() if cell.mean > 0]
    return int(np.floor(np.log10(min(positive)))) - 1 if positive else 0


def cell_text(cell: Cell | None, exponent: int) -> str:
    """Write "mean (sd)" in units of 10^exponent; a dash where there is no cell."""
    if cell is None:
        return "–"
    scale = 10.0**exponent
    return f"{cell.mean / scale:.1f} ({cell.deviation / scale:.1f})"


def p_text(value: float | None) -> str:
    """Write a p-value; a dash where there is none."""
    if value is None:
        return "–"
    return "< 1e-5" if value < 1e-5 else f"{value:.2g}"


def table_csv(errors: ErrorTable, cells: Cells) -> str:
    """Write the table with full precision, in SH units squared."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [f"{t} {what}" for t in errors.targets for what in ("mean", "sd", "n", "best")]
    writer.writerow(["model", *columns])
    for model in errors.models:
        row: list[str | float] = [model]
        for target in errors.targets:
            cell = cells.get((model, target))
            row += (
                ["", "", "", ""]
                if cell is None
                else [repr(cell.mean), repr(cell.deviation), cell.samples, int(cell.best)]
            )
        writer.writerow(row)
    return stream.getvalue()


def table_markdown(errors: ErrorTable, cells: Cells, tests: list[NamedTest]) -> str:
    """Write the table for people, the best of each column in bold, with the tests beneath."""
    exponent = common_exponent(cells)
    lines = [
        f"SH MSE in units of 1e{exponent} SH units², mean (sd) over patches; lowest mean in bold.",
        "",
        "| model | " + " | ".join(_escaped(target) for target in errors.targets) + " |",
        "|---" * (len(errors.targets) + 1) + "|",
    ]
    for model in errors.models:
        row = [_escaped(model)]
        for target in errors.targets:
            cell = cells.get((model, target))
            text = cell_text(cell, exponent)
            row.append(f"**{text}**" if cell is not None and cell.best else text)
        lines.append("| " + " | ".join(row) + " |")
    if tests:
        lines += [
            "",
            "Wilcoxon signed-rank on paired errors, two-sided, Bonferroni corrected. The effect is "
            "the rank-biserial correlation: negative where the first model errs less.",
            "",
            "| target | first | second | samples | n | p corrected | effect | note |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += ["| " + " | ".join(map(_escaped, row_of(test))) + " |" for test in tests]
    return "\n".join(lines) + "\n"


def row_of(named: NamedTest) -> list[str]:
    """Write a test as cells: target, models, level, n, corrected p, effect size, note."""
    test = named.test
    effect = "–" if test.rank_biserial is None else f"{test.rank_biserial:+.2f}"
    return [
        named.target,
        named.first,
        named.second,
        named.level,
        str(test.unequal),
        p_text(test.corrected_p_value),
        effect,
        test.note,
    ]


def paired_csv(tests: list[NamedTest]) -> str:
    """Write the tests with full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fields = list(PairedTest(0, 0, 0.0, None, None, None).to_json())
    writer.writerow(["target", "first", "second", "level", *fields])
    for named in tests:
        numbers = named.test.to_json()
        row = ["" if numbers[field] is None else numbers[field] for field in fields]
        writer.writerow([named.target, named.first, named.second, named.level, *row])
    return stream.getvalue()


def _samples(errors: ErrorTable, model: str, target: str, level: str) -> Samples:
    if level == "patch":
        return errors.patches(model, target)
    if level == "subject":
        return errors.heads(model, target)
    raise ValueError(f"there is no level {level!r}; choose patch or subject")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
