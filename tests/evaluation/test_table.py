"""Table 1, its tests, and the report."""

import csv
import io
import re

import numpy as np
import pytest

from napari_msp.errors import UserError
from napari_msp.evaluation.evaluate import evaluate_predictions
from napari_msp.evaluation.metrics import measure
from napari_msp.evaluation.records import ErrorRecord, ErrorTable, paired, patch_records
from napari_msp.evaluation.table import (
    compare_models,
    summarise,
    table_csv,
    table_markdown,
)

ERRORS = {
    ("DIQT", "prisma_st"): {"sub-01": [0.0060, 0.0064], "sub-02": [0.0070, 0.0080]},
    ("MSP", "prisma_st"): {"sub-01": [0.0050, 0.0055], "sub-02": [0.0058, 0.0073]},
    ("DIQT", "connectom_sa"): {"sub-01": [0.040, 0.041], "sub-02": [0.050, 0.046]},
    ("<b>|RISH", "connectom_sa"): {"sub-01": [0.030, 0.043], "sub-02": [0.047, 0.045]},
}


def records():
    return [
        ErrorRecord(model, target, subject, str(number), error)
        for (model, target), subjects in ERRORS.items()
        for subject, errors in subjects.items()
        for number, error in enumerate(errors)
    ]


def test_cells_are_mean_and_deviation():
    cells = summarise(ErrorTable(records()))
    cell = cells["MSP", "prisma_st"]
    mean = (0.0050 + 0.0055 + 0.0058 + 0.0073) / 4
    squares = sum((e - mean) ** 2 for e in (0.0050, 0.0055, 0.0058, 0.0073))
    assert cell.mean == pytest.approx(mean)
    assert cell.deviation == pytest.approx((squares / 3) ** 0.5)
    assert cell.samples == 4
    assert cell.best
    assert not cells["DIQT", "prisma_st"].best
    assert cells["<b>|RISH", "connectom_sa"].best
    assert ("MSP", "connectom_sa") not in cells


def test_cells_over_subjects_average_each_first():
    cell = summarise(ErrorTable(records()), "subject")["DIQT", "prisma_st"]
    assert cell.samples == 2
    assert cell.mean == pytest.approx((0.0062 + 0.0075) / 2)
    assert cell.deviation == pytest.approx(abs(0.0062 - 0.0075) / 2**0.5)


def test_csv_holds_the_numbers_in_full():
    errors = ErrorTable(records())
    cells = summarise(errors)
    rows = list(csv.DictReader(io.StringIO(table_csv(errors, cells))))
    assert [row["model"] for row in rows] == ["DIQT", "MSP", "<b>|RISH"]
    assert float(rows[1]["prisma_st mean"]) == cells["MSP", "prisma_st"].mean
    assert float(rows[0]["connectom_sa sd"]) == cells["DIQT", "connectom_sa"].deviation
    assert (rows[1]["prisma_st best"], rows[0]["prisma_st best"]) == ("1", "0")
    assert rows[1]["connectom_sa mean"] == ""


def test_markdown_marks_the_best_in_a_common_unit():
    errors = ErrorTable(records())
    text = table_markdown(errors, summarise(errors), compare_models(errors, "patch"))
    assert "1e-4 SH units²" in text
    assert "| DIQT | 68.5 (8.7) | 442.5 (46.5) |" in text
    assert "| MSP | **59.0 (9.9)** | – |" in text
    assert "**412.5 (76.8)**" in text
    assert "| prisma_st | DIQT | MSP | patch | 4 |" in text
    columns = [line.replace("\\|", "").count("|") for line in text.splitlines() if "RISH" in line]
    assert columns[0] == 4  # the name's own bar is escaped


def test_pairs_are_matched_by_name_not_by_place():
    first = {"a": 1.0, "b": 2.0, "c": 3.0}
    assert paired(first, {"c": 30.0, "x": 9.0, "a": 10.0}) == ([1.0, 3.0], [10.0, 30.0])


def test_tests_are_corrected_over_the_whole_table():
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 2, 10)
    many = [
        ErrorRecord(model, target, "sub-01", str(i), float(base[i] * gain))
        for model, gain in (("a", 1.0), ("b", 1.1), ("c", 1.2))
        for target in ("s", "t")
        for i in range(10)
    ]
    every = compare_models(ErrorTable(many), "patch")
    assert [(t.target, t.first, t.second) for t in every] == [
        (target, *pair) for target in "st" for pair in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    assert every[0].test.p_value == 2 / 2**10
    assert every[0].test.corrected_p_value == 6 * 2 / 2**10
    against = compare_models(ErrorTable(many), "patch", reference="c")
    assert len(against) == 4
    assert against[0].test.corrected_p_value == 4 * 2 / 2**10


def test_patch_records_pair_between_models(head):
    metrics = measure(head(), head())
    made = patch_records("MSP", "prisma_st", "sub-01", metrics)
    assert len(made) == len(metrics.patches.mse) > 1
    assert len({record.patch for record in made}) == len(made)


def test_everything_is_written(tmp_path):
    picture = tmp_path / "figure3.png"
    picture.write_bytes(b"\x89PNG bytes")
    out = tmp_path / "out"
    result = evaluate_predictions(records(), out, figures={"sub-01 <axial>": picture})
    assert {path.name for path in out.iterdir()} == {
        "table1.csv", "table1.md", "pvalues.csv", "report.html",
    }  # fmt: skip
    assert result["mean"]["MSP"] == {"prisma_st": pytest.approx(0.0059)}
    rows = list(csv.DictReader((out / "pvalues.csv").read_text().splitlines()))
    assert [(row["target"], row["level"], row["pairs"]) for row in rows] == [
        ("prisma_st", "patch", "4"),
        ("connectom_sa", "patch", "4"),
        ("prisma_st", "subject", "2"),
        ("connectom_sa", "subject", "2"),
    ]
    assert float(rows[0]["p_value"]) == 2 / 2**4
    assert float(rows[0]["corrected_p_value"]) == 2 * 2 / 2**4
    assert "too few" in rows[2]["note"]


def test_the_report_needs_no_other_file_and_trusts_no_name(tmp_path):
    picture = tmp_path / "figure3.png"
    picture.write_bytes(b"\x89PNG bytes")
    evaluate_predictions(records(), tmp_path, figures={"sub-01 <axial>": picture})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64,iVBORyBieXRlcw" in page
    assert "<figcaption>sub-01 &lt;axial&gt;</figcaption>" in page
    assert "&lt;b&gt;|RISH" in page
    assert "<b>" not in page
    assert '<td class="best">59.0 (9.9)</td>' in page
    assert "2 held-out subjects: sub-01, sub-02" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "Methods" in page
    assert "Limits" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [], "nothing was measured"),
        (lambda r: [*r, r[0]], "measured twice"),
        (lambda r: [*r, ErrorRecord("a", "b", "c", "d", float("nan"))], "not finite"),
    ],
)
def test_broken_records_leave_nothing_behind(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        evaluate_predictions(change(records()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_figure_or_reference_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png: the figure cannot be read"):
        evaluate_predictions(records(), tmp_path / "out", figures={"x": tmp_path / "gone.png"})
    with pytest.raises(UserError, match="HNED was not measured; choose from DIQT, MSP"):
        evaluate_predictions(records(), tmp_path / "out", reference="HNED")
    assert not (tmp_path / "out").exists()
