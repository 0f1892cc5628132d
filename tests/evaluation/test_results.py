"""The long table of results: selecting, grouping, and the way to a file and back."""

from dataclasses import replace
from typing import Any

import pytest

from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.results import (
    PatchResult,
    Result,
    Results,
    read_results,
    write_results,
)

ROW = Result("MSP", "prisma_st", "heads", 0, "sub-01", "scan", "sh_mse", 0.1 + 0.2)


def test_names_come_in_order_of_first_appearance(evaluation):
    results, _ = evaluation
    assert results.methods[0] == "alignment"
    assert results.targets == ["prisma_st", "connectom_sa"]
    assert results.names("measure") == ["sh_mse", "fa_error_white", "bias_fluid", "brand_new"]
    assert results.names("dataset") == ["heads-1", "heads-2", "heads-3"]
    assert results.names("seed") == [0, 1, 2]
    # Six in each dataset, under the same names.
    assert len(results.groups("dataset", "subject")) == 18
    assert results.references == ["scan", "noise-free"]


def test_select_takes_rows_with_all_values(evaluation):
    results, _ = evaluation
    part = results.select(method="MSP", seed=2, measure="sh_mse", reference="scan")
    assert len(part) == 12
    assert {row.dataset for row in part} == {"heads-1"}
    assert len(results.select(method="MSP").select(method="SHResNet")) == 0
    assert results.select() is results


def test_groups_hold_every_row_once(evaluation):
    results, _ = evaluation
    groups = results.groups("dataset", "seed")
    assert list(groups)[:2] == [("heads-1", 0), ("heads-1", 1)]
    assert sum(len(part) for part in groups.values()) == len(results)


def test_samples_are_averaged_over_what_does_not_name_them():
    rows = [replace(ROW, seed=0, value=1.0), replace(ROW, seed=1, value=4.0)]
    assert Results(rows).sample_means("dataset", "subject") == {("heads", "sub-01"): 2.5}


def test_a_file_gives_back_the_same_numbers(tmp_path, evaluation):
    kinds: tuple[type[Any], ...] = (Result, PatchResult)
    for name, results, kind in zip("ab", evaluation, kinds, strict=True):
        path = tmp_path / f"{name}.csv"
        write_results(path, results, kind)
        assert read_results(path, kind).rows == results.rows
    awkward = Results([replace(ROW, method='a,"b"\nc')])
    write_results(tmp_path / "c.csv", awkward, Result)
    assert read_results(tmp_path / "c.csv", Result).rows == awkward.rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, replace(ROW, value=2.0)], "measured twice"),
        ([replace(ROW, value=float("nan"))], "not finite"),
    ],
)
def test_broken_rows_are_refused_by_name(rows, message):
    with pytest.raises(UserError, match=f"MSP, prisma_st, .*{message}"):
        Results(rows)


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "\xff", "FULL,x\n", "FULL"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "measures.csv"
    header = "method,target,dataset,seed,subject,reference,measure,value\n"
    bad = header + "MSP,p,h,zero,s,scan,sh_mse,1\n"
    path.write_text(content.replace("FULL,x", header + "MSP").replace("FULL", bad), "latin-1")
    with pytest.raises(UserError, match="is not a table of results"):
        read_results(path, Result)
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path / "gone.csv", Result)
