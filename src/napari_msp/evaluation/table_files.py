"""The tables as files: every number as CSV, and Markdown for people."""

import csv
import io
from collections.abc import Iterable, Sequence

from napari_msp.evaluation.benchmark.analysis import MethodTest, Summaries
from napari_msp.evaluation.benchmark.results import Result, Results
from napari_msp.evaluation.pvalue_table import pvalue_tables
from napari_msp.evaluation.table1 import Measures, headline_tables, other_tables

SUMMARY_COLUMNS = (
    "method", "target", "reference", "measure", "unit", "subjects", "datasets", "seeds", "mean",
    "sd", "low", "high", "sd_datasets", "sd_seeds", "best",
)  # fmt: skip
"""`low` and `high` end the 95 % bootstrap interval of the mean over subjects."""

TEST_COLUMNS = (
    "level", "reference", "target", "first", "second", "pairs", "unequal", "first_mean",
    "second_mean", "change_percent", "low_percent", "high_percent", "rank_biserial",
    "median_difference", "p_value", "comparisons", "corrected_p_value", "note",
)  # fmt: skip
"""`low` and `high` end the 95 % bootstrap interval of the change over subjects."""


def summaries_csv(summaries: Summaries, measures: Measures) -> str:
    """Write table1.csv: a row a method, target, truth and measure, with full precision."""
    return _csv(
        SUMMARY_COLUMNS,
        (
            (
                s.method, s.target, s.reference, s.measure, measures[s.measure].unit,
                s.subjects, s.datasets, s.seeds, s.mean, s.deviation,
                *(s.interval or (None, None)), s.dataset_spread, s.seed_spread, int(s.best),
            )
            for s in summaries.values()
        ),
    )  # fmt: skip


def pvalues_csv(tests: Sequence[MethodTest]) -> str:
    """Write pvalues.csv: a row a test, with full precision."""
    return _csv(
        TEST_COLUMNS,
        (
            (
                t.level, t.reference, t.target, t.first, t.second, t.test.pairs, t.test.unequal,
                t.first_mean, t.second_mean, t.change, *(t.interval or (None, None)),
                t.test.rank_biserial, t.test.median_difference, t.test.p_value, t.comparisons,
                t.test.corrected_p_value, t.test.note,
            )
            for t in tests
        ),
    )  # fmt: skip


def tables_markdown(
    results: Results[Result],
    summaries: Summaries,
    tests: Sequence[MethodTest],
    measures: Measures,
) -> str:
    """Write table1.md: headline, other measures, tests."""
    parts = ["# Table 1"]
    parts += [table.markdown() for table in headline_tables(results, summaries, measures)]
    for title, tables in other_tables(results, summaries, measures).items():
        parts += [f"## {title}", *(table.markdown() for table in tables)]
    if tests:
        parts += ["## Tests", *(table.markdown() for table in pvalue_tables(tests))]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _csv(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return stream.getvalue()
