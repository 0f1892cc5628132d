"""Table 1 as files, and the report."""

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure

from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Cancelled, UserError
from napari_msp.evaluation.benchmark.analysis import (
    MethodTest,
    Summaries,
    compare_methods,
    summarise,
)
from napari_msp.evaluation.benchmark.methods import Method
from napari_msp.evaluation.benchmark.plan import Plan
from napari_msp.evaluation.benchmark.results import FLOOR, Result, Results, read_results
from napari_msp.evaluation.benchmark.settings import QUICK, EvaluationSettings, Subjects
from napari_msp.evaluation.proof.pages import PageFigure, ProofPage
from napari_msp.evaluation.report.description import _scans, _trained
from napari_msp.evaluation.report.methods_section import EvaluationRun, methods_paragraph
from napari_msp.evaluation.report.report import write_report
from napari_msp.formatting import NumberFormat
from napari_msp.model_file import load_model
from napari_msp.packaged import packaged_model

NAMES = ("sub-00", "sub-01", "sub-02", "sub-03", "sub-04", "sub-05")
PLAN = Plan(
    asked=EvaluationSettings(seeds=(0, 1, 2)),
    datasets=(Path("heads-1"), Path("heads-2"), Path("heads-3")),
    input="ge_st",
    targets=("prisma_st", "connectom_sa"),
    subjects=Subjects(("sub-90", "sub-91"), ("sub-92",), NAMES),
    methods=("SHResNet", "MSP"),
    budget=QUICK,
    b_values=(1200.0,),
)
RUN = EvaluationRun(
    PLAN,
    command="napari-msp evaluate heads-1 --out table & <more>",
    splits={f"heads-{i}": PLAN.subjects for i in (1, 2, 3)},
    simulated=True,
    tested="MSP",
    methods={
        "ComBat": Method("ComBat", "Each coefficient's shift.", "travelling heads, 2 or more"),
        "MSP": Method("MSP", "Multi-Stage Prediction."),
    },
    training=[{"method": "MSP", "parameters": 123456, "seconds": 61.25, "rate": 12345.6}],
    versions={"torch": "2.13.0"},
)


@pytest.fixture(scope="module")
def written(tmp_path_factory, evaluation, described) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "figure.png").write_bytes(b"\x89PNG bytes")
    files = write_report(
        evaluation[0],
        evaluation[1],
        RUN,
        {"sub-01 <axial>": folder / "figure.png"},
        folder / "out",
        described,
    )
    assert {path.name for path in files} == {path.name for path in (folder / "out").iterdir()}
    return folder / "out"


@pytest.fixture(scope="module")
def summaries(evaluation) -> Summaries:
    return summarise(evaluation[0])


@pytest.fixture(scope="module")
def tests(evaluation) -> list[MethodTest]:
    return compare_methods(evaluation[0], evaluation[1], "MSP")


def rows(path: Path) -> list[Mapping[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_table1_holds_every_number_in_full(written, summaries):
    table = rows(written / "table1.csv")
    assert len(table) == len(summaries)
    for row in table:
        summary = summaries[row["method"], row["target"], row["reference"], row["measure"]]
        assert float(row["mean"]) == summary.mean
        assert (float(row["low"]), float(row["high"])) == summary.interval
        assert float(row["sd_seeds"]) == summary.seed_spread
    assert {row["unit"] for row in table} == {"SH units²", "%", ""}


def test_the_rows_beneath_lie_beside_it(written, evaluation):
    results, _ = evaluation
    assert read_results(written / "measures.csv", Result).rows == results.rows


def test_pvalues_hold_every_test(written, tests):
    table = rows(written / "pvalues.csv")
    assert [float(row["p_value"]) for row in table] == [test.test.p_value for test in tests]
    assert [float(row["change_percent"]) for row in table] == [test.change for test in tests]
    assert {row["low_percent"] for row in table if row["level"] == "patch"} == {""}


def test_markdown_shows_the_best_and_the_floor(written, summaries):
    text = (written / "table1.md").read_text(encoding="utf-8")
    summary = summaries["MSP", "prisma_st", "scan", "sh_mse"]
    low, high = summary.interval
    assert (
        f"**{summary.mean * 1e5:.1f} ({summary.deviation * 1e5:.1f})** [{low * 1e5:.1f}, "
        f"{high * 1e5:.1f}] ± {summary.dataset_spread * 1e5:.1f} ± {summary.seed_spread * 1e5:.1f}"
    ) in text
    assert "SH MSE against the scans, in 10⁻⁵ SH units²: mean (sd) over 18 subjects" in text
    assert "over 18 subjects [95 % bootstrap interval] ± sd of the means" in text
    first, second = text.split("SH MSE against the noise-free twins")
    assert f"| {FLOOR} |" in first
    assert first.index("| MSP |") < first.index(f"| {FLOOR} |")
    assert f"| {FLOOR} |" not in second
    assert "as in the paper, not independent (n = 54)" in text
    assert "## More measures\n\nBrand-new measure" in text
    assert "−" in text.split("Bias in fluid")[1].split("\n")[4]


def test_every_markdown_row_has_its_table_s_columns(written):
    width = None
    for line in (written / "table1.md").read_text(encoding="utf-8").splitlines():
        columns = line.replace("\\|", "").count("|")
        assert columns == (width or columns) or not columns
        width = columns or None
    assert "<b>\\|single" in (written / "table1.md").read_text(encoding="utf-8")


class Balanced(HTMLParser):
    """Fails at a closing tag that closes nothing; gathers ids, links and sources."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.named: dict[str, list[str]] = {"id": [], "href": [], "src": []}

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name in self.named:
                self.named[name].append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_other_file(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert sorted(parser.named["href"]) == sorted(f"#{name}" for name in parser.named["id"])
    assert parser.named["src"] == [
        "data:image/png;base64,iVBORyBieXRlcw=="[:22] + "iVBORyBieXRlcw=="
    ]
    assert not re.search(r"url\(|@import", page)


def test_the_page_trusts_no_name(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;|single" in page
    assert "<b>|single" not in page
    assert "<figcaption>sub-01 &lt;axial&gt;</figcaption>" in page
    assert "--out table &amp; &lt;more&gt;</pre>" in page


def test_the_page_says_what_a_reader_must_know(written, tests):
    page = (written / "report.html").read_text(encoding="utf-8")
    assert "4 methods, 2 target platforms, 18 simulated test heads, 3 datasets, 3 training" in page
    assert "lowest mean SH MSE on 2 of 2 targets" in page
    assert "<td>123 456</td><td>61.2</td><td>12 346</td>" in page
    assert "torch 2.13.0" in page
    assert "<td>travelling heads, 2 or more</td><td>image</td>" in page
    assert "<li>A low squared error favours smooth images; look at the figures too.</li>" in page
    assert methods_paragraph(RUN, tests) in unescape(page)


def test_the_methods_paragraph_is_written_from_the_facts(tests):
    text = methods_paragraph(RUN, tests)
    assert "3 datasets of simulated travelling heads" in text
    assert "predicted the image of prisma_st and connectom_sa (b = 1200 s/mm²)" in text
    assert "2 for training, 1 for validation and 6 for test" in text
    assert "MSP (Multi-Stage Prediction)" in text
    assert "3 seeds on the first dataset and run with the first seed on the others; all" in text
    assert "over the 6 comparisons of a truth" in text
    assert "noise-free twin" in text
    plain = replace(
        RUN,
        simulated=False,
        splits={"mine": Subjects(("a",), (), ("b",))},
        plan=replace(PLAN, asked=EvaluationSettings()),
    )
    text = methods_paragraph(plain)
    assert "without intervals: fewer than 3 subjects do not" in text
    chosen = replace(plain, splits={"mine": Subjects(("a",), ("v",), ("b",))})
    assert "1 for validation and 1 for test; every choice was made" in methods_paragraph(chosen)
    baselines = replace(chosen, training=())  # which choose nothing
    assert "1 for training and 1 for test; 1 for validation was not used" in (
        methods_paragraph(baselines)
    )
    folds = (Subjects(("a",), ("v",), ("b",)),) * 3
    left_out = replace(baselines, plan=replace(plain.plan, folds=folds))
    assert "every choice" not in methods_paragraph(baselines) + methods_paragraph(left_out)
    assert "every choice" in methods_paragraph(replace(left_out, training=RUN.training))
    few = replace(plain, splits={"mine": Subjects(("a",), (), ("b", "c", "d"))})
    assert "95 % intervals of Student's t over the 3 subjects" in methods_paragraph(few)
    assert "noise-free" not in text
    assert "repeated" not in text
    assert "averaged over training seeds" not in text  # of one seed, or where nothing is trained
    assert "each first averaged over training seeds" in methods_paragraph(RUN)
    alone = Subjects((), (), NAMES)
    asked = replace(
        PLAN, subjects=replace(alone, test=NAMES + tuple(f"sub-9{n}" for n in range(10)))
    )
    some = replace(RUN, plan=asked, splits={"study": alone}, training=())
    assert "6 of 16 subjects, who have a scan on prisma_st or connectom_sa, were measured" in (
        methods_paragraph(some)
    )
    assert "every choice" not in text
    assert "comparisons" not in text


def test_scans_are_described_from_the_least_to_the_most_of_all(make_heads, tmp_path):
    datasets = [
        open_dataset(make_heads(tmp_path / name, shape=(6, 6, 6), directions=count))
        for name, count in (("a", 30), ("b", 22))
    ]
    path = datasets[1].scans["sub-01", "ge_st"]
    image = nib.load(path)
    image.set_sform(image.affine @ np.diag([1.1, 1, 1, 1]))
    nib.save(image, path)
    next(path.parent.glob("*.bval")).unlink()
    plan: Any = SimpleNamespace(
        input="ge_st",
        targets=("prisma_st", "nowhere"),
        subjects=Subjects(("sub-01",), (), ("sub-02", "sub-09")),
        b_values=(1200.0,),
    )
    size = "2.40 × 2.40 × 2.40 mm"
    alike = f"with voxels of {size}, 22 to 30 directions"
    for order in (datasets, datasets[::-1]):
        assert _scans(order, plan) == {"ge_st": alike, "prisma_st": alike}  # one has no table
    wide = datasets[1].scans["sub-02", "ge_st"]
    image.to_filename(wide)
    for order in (datasets, datasets[::-1]):
        found = _scans(order, plan)["ge_st"]
        assert found == f"with voxels of {size} to 2.64 × 2.40 × 2.40 mm, 22 to 30 directions"


def test_a_given_model_is_described_by_what_its_card_says():
    model = load_model(packaged_model("MSP"))

    def said(**training: Any) -> str:
        card = model.card.model_copy(update={"training": training})
        return _trained(replace(model, card=card)).split(", SHA")[0]

    assert said(**model.training) == (
        "a trained MSP, first stages shared by all targets, learned from 6 subjects in 3,000 steps "
        "from base, preset fast, width 0.28, seed 1"
    )
    nothing = "a trained MSP, first stages shared by all targets"
    assert said() == nothing
    for odd in (None, "base", [1], 3.5):
        assert said(start=odd, settings=odd, steps=odd) == nothing
        assert said(settings={"width": [odd], "seed": [odd]}) == nothing
    assert said(settings={"width": "full"}) == nothing
    assert said(steps=1200) == f"{nothing}, learned in 1,200 steps from nothing"
    assert said(steps=1200, start={"name": ""}) == f"{nothing}, learned in 1,200 steps"
    assert said(steps=1200, start=None) == f"{nothing}, learned in 1,200 steps"


def test_without_a_tested_method_there_are_no_tests(tmp_path, evaluation, described):
    results, patches = (part.select(dataset="heads-2", target="prisma_st") for part in evaluation)
    write_report(results, patches, replace(RUN, tested=None), {}, tmp_path, described)
    assert rows(tmp_path / "pvalues.csv") == []
    assert '<h2 id="tests">' not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_is_missing_leaves_nothing_behind(tmp_path, evaluation, described):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="CPM: was not measured"):
        write_report(evaluation[0], evaluation[1], replace(RUN, tested="CPM"), {}, out, described)
    with pytest.raises(UserError, match="nothing was measured"):
        write_report(Results([]), Results([]), RUN, {}, out, described)
    assert not out.exists()


def test_it_is_cancelled_between_two_figures(tmp_path, evaluation, described):
    out, asked = tmp_path / "out", []

    def go_on():
        asked.append(True)
        if len(asked) == 2:
            raise Cancelled

    page = ProofPage("Site effect", drawings=[PageFigure(each, "Bias", Figure()) for each in "abc"])
    with pytest.raises(Cancelled):
        write_report(
            evaluation[0], evaluation[1], RUN, {}, out, described, pages=[page], go_on=go_on
        )
    assert len(asked) == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("values", "text"),
    [([3e-4, 5e-4], "5.00"), ([0.3, 0.5], "0.500"), ([3.0, 5.0], "5.00"), ([30.0, 50.0], "50.0")],
)
def test_numbers_are_scaled_to_be_read(values, text):
    assert NumberFormat.of(values).text(values[1]) == text


def test_folds_that_overlap_give_values_and_no_tests(tmp_path, evaluation, described):
    folds = tuple(Subjects(tuple(n for n in NAMES if n != each), (), (each,)) for each in NAMES)
    splits = dict.fromkeys(RUN.splits, Subjects((), (), NAMES))
    run = replace(RUN, splits=splits, plan=replace(PLAN, folds=folds))
    write_report(evaluation[0], evaluation[1], run, {}, tmp_path, described)
    results = evaluation[0]
    for row in rows(tmp_path / "table1.csv"):
        cell = results.select(
            **{name: row[name] for name in ("method", "target", "reference", "measure")}
        )
        each = list(cell.sample_means("dataset", "subject").values())
        assert float(row["mean"]) == pytest.approx(sum(each) / len(each), rel=1e-12)
        assert (row["low"], row["high"], row["subjects"]) == ("", "", str(len(each)))
        assert "folds overlap" in row["note"]
    pairs = rows(tmp_path / "pvalues.csv")
    assert {row["level"] for row in pairs} == {"subject"}
    assert {row["p_value"] + row["corrected_p_value"] + row["low_percent"] for row in pairs} == {""}
    assert all("folds overlap" in row["note"] for row in pairs)
    text = (tmp_path / "table1.md").read_text()
    for word in ("bootstrap", "Wilcoxon", "Bold: p"):
        assert word not in text
    assert "## Each subject" in text
    assert "| heads-1 sub-00 | heads-1 sub-01 |" in text
    first = results.select(
        method="MSP", target="prisma_st", measure="sh_mse", reference="scan", subject="sub-00"
    ).select(dataset="heads-1")
    mean = sum(row.value for row in first) / len(first)
    assert f"| MSP | {1e5 * mean:.1f} |" in text
    page = unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "In each dataset, each of 6 subjects was test once (leave-one-out)" in page
    assert "neither intervals nor p-values" in page
    assert "Fold of sub-00" in page
    assert "bootstrap" not in page


def test_a_doubt_stands_on_top_and_in_the_limits(evaluation, described, tmp_path):
    results, patches = (part.select(dataset="heads-2") for part in evaluation)
    nobody = {"heads-2": Subjects((), (), NAMES)}
    notes = ["b1000, sub-01: has b = 1000", "another"]
    known, unfit = ("MSP: it knows sub-01",), ("m is for simulated heads only",)
    plan = replace(PLAN, doubts=known, unfit=unfit)
    doubtful = replace(RUN, plan=plan, splits=nobody, notes=notes)
    write_report(results, patches, doubtful, {}, tmp_path, described)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index("<b>MSP: it knows sub-01.</b>") < page.index("<h2")
    assert page.index("has b = 1000, and 1 more under") < page.index("<h2")
    assert "<li>another</li>" in page
    assert "it knows sub-01. Measure only people whom" in page
    assert "m is for simulated heads only. Measure a model that learned from scans" in page
    assert "6 subjects were measured; nobody was learned from here." in methods_paragraph(doubtful)
