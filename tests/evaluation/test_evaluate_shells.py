"""Evaluating several shells: each has the numbers, tests and tables that it has alone."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_msp.data.dataset import open_dataset
from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.analysis import analyse, compare_methods
from napari_msp.evaluation.benchmark.make_plan import make_plan
from napari_msp.evaluation.benchmark.measuring import Measurement
from napari_msp.evaluation.benchmark.results import (
    PatchResult,
    Result,
    Results,
    read_results,
    write_results,
)
from napari_msp.evaluation.report.report import pvalues_csv, summaries_csv
from napari_msp.evaluation.report.tables import Tables
from napari_msp.signal.fitting import fit_sh

SHELLS = {1200: 1.0, 3000: 0.5}
"""By how much the made-up errors of a shell are smaller."""


@pytest.fixture
def both(evaluation):
    """Two shells, one with half the other's errors."""
    rows, patches = evaluation
    return tuple(
        Results(
            replace(row, shell=shell, value=factor * row.value)
            for shell, factor in SHELLS.items()
            for row in part
        )
        for part in (rows, patches)
    )


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_file_has_a_column_of_shells_and_gives_them_back(both, tmp_path):
    kinds: tuple[type[Any], ...] = (Result, PatchResult)
    for results, kind in zip(both, kinds, strict=True):
        write_results(tmp_path / "r.csv", results, kind)
        assert read_results(tmp_path / "r.csv", kind).rows == results.rows
    twice = Result("MSP", "t", "d", 0, "s", "scan", "sh_mse", 1.0, shell=1200)
    assert len(Results([twice, replace(twice, shell=3000)])) == 2
    with pytest.raises(UserError, match="measured twice"):
        Results([twice, twice])


def test_summaries_and_tests_of_a_shell_are_its_own(both, evaluation, described):
    alone = summaries_csv(analyse(evaluation[0], evaluation[1], None), described)
    found = lines(summaries_csv(analyse(both[0], both[1], None), described))
    assert "shell" not in alone.splitlines()[0]
    assert list(found[0])[:3] == ["method", "target", "shell"]
    for shell, factor in SHELLS.items():
        own = [row for row in found if row["shell"] == str(shell)]
        for row, wanted in zip(own, lines(alone), strict=True):
            for name, value in wanted.items():
                if name in ("mean", "sd", "low", "high", "sd_datasets", "sd_seeds") and value:
                    assert float(row[name]) == pytest.approx(factor * float(value))
                else:
                    assert row[name] == value
    tested, found = (
        lines(pvalues_csv(compare_methods(rows, patches, "MSP")))
        for rows, patches in (evaluation, both)
    )
    for shell in SHELLS:
        own = [row for row in found if row["shell"] == str(shell)]
        for row, wanted in zip(own, tested, strict=True):
            # Halving all errors changes no rank and no relative change.
            for name in ("level", "target", "second", "pairs", "comparisons", "p_value"):
                assert row[name] == wanted[name]
            assert float(row["change_percent"]) == pytest.approx(float(wanted["change_percent"]))


def test_tables_name_shells(both, evaluation, described):
    def written(rows, patches):
        return Tables.of(analyse(rows, patches, "MSP"), described).markdown()

    alone, found = written(*evaluation), written(*both)
    assert "b1200" not in alone
    for target in evaluation[0].targets:
        assert f"{target} b1200" in found
        assert f"{target} b3000" in found
    assert "the scans at b = 3000. Change" in found


# --- Which shells ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heads(make_heads, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shells") / "heads"
    return make_heads(root, 4, shape=(6, 6, 6), b_values=(1200.0, 3000.0))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, (1200.0, 3000.0)),
        (3000, (3000,)),
        ([1200], (1200,)),
        ([3000.0, 1200.0], (1200.0, 3000.0)),
    ],
)
def test_all_shells_that_platforms_share_are_measured_or_those_named(heads, asked, expected):
    plan = make_plan([heads], methods=["IQT"], b_value=asked)
    assert plan.b_values == expected
    kept = plan.to_json()["b_value"]
    assert kept == (expected[0] if len(expected) == 1 else expected)


@pytest.mark.parametrize(
    ("asked", "words"), [(2000, "no shell near b = 2000"), ([1200, 1210], "given twice")]
)
def test_shells_that_are_not_there_are_refused(heads, asked, words):
    with pytest.raises(UserError, match=words) as error:
        make_plan([heads], methods=["IQT"], b_value=asked)
    assert error.value.field == "b_value"


def test_every_shell_is_measured_against_its_own_truth(heads, tmp_path):
    plan = make_plan([heads], targets=["prisma_st"], methods=["no harmonization"])
    (each,) = plan.rounds
    job = Measurement(plan, each, "prisma_st", {}, False, 5, tmp_path / "m", "cpu")
    job.run()
    results = job.results(Result)
    assert results.columns == ["prisma_st b1200", "prisma_st b3000"]
    for name in ("measures", "patches"):
        there = job.finished
        (tmp_path / "m" / f"{name}.csv").rename(tmp_path / "away")
        assert there and not job.finished  # what is lost is measured anew
        (tmp_path / "away").rename(tmp_path / "m" / f"{name}.csv")
    asked = replace(plan.asked, biology=True)
    for name, other in (
        ("regions", replace(plan, regions="tissue")),
        ("biology", replace(plan, asked=asked)),
    ):
        more = replace(job, plan=other)
        assert not more.finished
        assert replace(more, repeated=True).finished  # another seed is measured by SH errors alone
        (tmp_path / "m" / f"{name}.csv").touch()
        assert more.finished
    dataset, subject = open_dataset(heads), plan.subjects.test[0]
    for shell in (1200, 3000):
        truth, scan = (
            fit_sh(dataset.acquisition(subject, name), b_value=shell)
            for name in ("prisma_st", "ge_st")
        )
        inside = truth.mask & scan.mask
        by_hand = np.square(truth.coefficients[inside] - scan.coefficients[inside]).mean()
        (row,) = results.select(subject=subject, shell=shell, measure="sh_mse", reference="scan")
        assert row.value == pytest.approx(by_hand, rel=1e-5)
