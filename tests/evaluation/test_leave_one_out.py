"""Each subject is test once: who teaches it, that a kill loses little; rows from the base."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_msp import packaged
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Change, Give, UserError, every
from napari_msp.evaluation.benchmark.make_plan import RowLeftOut, make_plan
from napari_msp.evaluation.benchmark.methods import (
    SHARED_MSP,
    STATISTICS_ONLY,
    all_methods,
    chosen_methods,
)
from napari_msp.evaluation.benchmark.plan import Plan
from napari_msp.evaluation.benchmark.results import Result, Results, read_results
from napari_msp.evaluation.benchmark.run import Benchmark
from napari_msp.evaluation.benchmark.settings import QUICK, EvaluationSettings, Subjects
from napari_msp.evaluation.benchmark.subjects import MayHaveLearned, NeverTest
from napari_msp.evaluation.benchmark.trainings import TrainingList
from napari_msp.evaluation.evaluate import evaluate
from napari_msp.evaluation.report.methods_section import EvaluationRun, methods_paragraph
from napari_msp.identity import Person
from napari_msp.learning.settings import BASE, TrainingSettings
from napari_msp.learning.train import train
from napari_msp.model_file import load_model

SMALL = replace(
    QUICK, steps=4, first_steps=2, tuning_steps=2, epoch=2, crop=6, batch=1, rates=(1e-3, 3e-3)
)
SHAPE = (7, 6, 6)
TINY = TrainingSettings(
    kind="msp", input="ge_st", steps=1, unison_steps=1, width=0.1, crop=6, batch=1,
    start_from="nothing", first_stages="own", singles_first="no",
)  # fmt: skip
FIRST_STAGE = {"prisma_st": "shresnet", "connectom_sa": "shresnet"}

MakeHeads = Callable[..., Path]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory, make_heads: MakeHeads) -> Path:
    return make_heads(tmp_path_factory.mktemp("folds") / "heads", subjects=2, shape=SHAPE)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, make_heads: MakeHeads) -> Path:
    return make_heads(tmp_path_factory.mktemp("folds") / "four", subjects=4, shape=(4, 4, 4))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, make_heads: MakeHeads) -> Path:
    """A base of two platforms, learned from other people."""
    folder = tmp_path_factory.mktemp("base")
    others = make_heads(folder / "others", subjects=1, shape=SHAPE, directions=32)
    path = folder / "base.safetensors"
    train(others, path, TINY.model_copy(update={"first_stage": FIRST_STAGE}), device="cpu")
    return path


@pytest.fixture
def with_base(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packaged, "base_model", lambda: base)
    return base


def run(plan: Plan, out: Path) -> Results[Result]:
    return Benchmark(plan, out, "cpu", 1, lambda _: None).run().results


# --- Who teaches -----------------------------------------------------------------------------


def test_each_subject_is_test_once_and_the_next_one_validates(four: Path) -> None:
    plan = make_plan([four], methods=["SHResNet"], leave_one_out=True)
    assert plan.folds == (
        Subjects(("sub-03", "sub-04"), ("sub-02",), ("sub-01",)),
        Subjects(("sub-01", "sub-04"), ("sub-03",), ("sub-02",)),
        Subjects(("sub-01", "sub-02"), ("sub-04",), ("sub-03",)),
        Subjects(("sub-02", "sub-03"), ("sub-01",), ("sub-04",)),
    )
    assert plan.subjects == Subjects((), (), ("sub-01", "sub-02", "sub-03", "sub-04"))
    assert plan.rounds[1].folder == "four-seed-0-without-sub-02"


def test_few_subjects_all_teach(heads: Path, make_heads: MakeHeads, tmp_path: Path) -> None:
    plan = make_plan([heads], methods=["SHResNet"], leave_one_out=True)
    assert plan.folds == (
        Subjects(("sub-02",), (), ("sub-01",)),
        Subjects(("sub-01",), (), ("sub-02",)),
    )
    assert plan.rates_in(plan.rounds[0]) == (1.5e-3,), "nobody validates: the preset's rate"
    three = make_heads(tmp_path / "three", subjects=3, shape=(4, 4, 4))
    folds = make_plan([three], methods=["SHResNet"], leave_one_out=True).folds
    assert [fold.training for fold in folds] == [
        ("sub-02", "sub-03"),
        ("sub-01", "sub-03"),
        ("sub-01", "sub-02"),
    ]
    alone = make_heads(tmp_path / "alone", subjects=1, shape=(4, 4, 4))
    with pytest.raises(UserError, match="without sub-01 no subject with all scans is left"):
        make_plan([alone], methods=["SHResNet"], leave_one_out=True)


def test_who_lacks_a_scan_is_measured_but_does_not_teach(
    make_heads: MakeHeads, tmp_path: Path
) -> None:
    root = make_heads(tmp_path / "gaps", subjects=4, shape=(4, 4, 4))
    for path in (root / "sub-02" / "ses-prisma").rglob("*"):
        if path.is_file():
            path.unlink()
    folds = make_plan([root], methods=["SHResNet"], leave_one_out=True).folds
    assert folds[1] == Subjects(("sub-03", "sub-04"), ("sub-01",), ("sub-02",))
    assert all("sub-02" not in (*fold.training, *fold.validation) for fold in folds)


@pytest.mark.parametrize(
    ("options", "field", "complaint"),
    [
        ({"methods": ["IQT"], "train": ["sub-01"]}, "train", "so none can be named"),
        ({"methods": ["IQT"], "validation": "sub-01"}, "validation", "so none can be named"),
        ({"methods": ["no harmonization"]}, "leave_one_out", "nothing is trained without methods"),
        ({"methods": ["IQT"], "test": ["sub-09"]}, "test", "no such subject"),
    ],
)
def test_folds_that_cannot_be(
    heads: Path, options: dict[str, Any], field: str, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as error:
        make_plan([heads], leave_one_out=True, **options)
    assert error.value.field == field


def test_whom_a_model_learned_from_teaches_but_is_never_test(
    four: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(four)
    known = replace(load_model(base))
    monkeypatch.setattr(type(known), "everyone", [dataset.person("sub-03")])
    asked: dict[str, Any] = {"models": [base], "methods": ["SHResNet"], "leave_one_out": True}
    with pytest.warns(NeverTest, match=r"sub-03 trains but is never tested: .*base"):
        plan = make_plan([four], **asked)
    assert [fold.test for fold in plan.folds] == [("sub-01",), ("sub-02",), ("sub-04",)]
    assert plan.folds[1] == Subjects(("sub-01", "sub-03"), ("sub-04",), ("sub-02",))
    asked["methods"] = ["IQT"]  # which chooses nothing: all others teach
    with pytest.warns(NeverTest):
        plan = make_plan([four], **asked)
    assert plan.folds[1] == Subjects(("sub-01", "sub-03", "sub-04"), (), ("sub-02",))
    assert plan.subjects.training == ("sub-03",)
    with pytest.raises(UserError, match="was trained on sub-03"):
        make_plan([four], **asked, test=["sub-03"])


# --- What comes of it ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(heads: Path) -> Plan:
    found = make_plan(
        [heads], methods=["alignment", "SHResNet"], targets="prisma_st", leave_one_out=True
    )
    return replace(found, budget=SMALL)


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results[Result]]:
    out = tmp_path_factory.mktemp("whole")
    return out, run(plan, out)


def test_nobody_is_learned_from_in_the_fold_that_measures_them(
    whole: tuple[Path, Results[Result]], heads: Path
) -> None:
    out, results = whole
    for tested, taught in (("sub-01", "sub-02"), ("sub-02", "sub-01")):
        folder = f"heads-seed-0-without-{tested}"
        (model,) = (out / "trained" / folder).rglob("model.safetensors")
        assert load_model(model).training["subjects"] == [taught]
        alone = read_results(out / "measured" / folder / "prisma_st" / "measures.csv", Result)
        assert alone.names("subject") == [tested]
    rows = results.select(measure="sh_mse", reference="scan", method="alignment")
    assert [row.subject for row in rows] == ["sub-01", "sub-02"]


def test_a_fold_gives_what_its_split_gives(
    whole: tuple[Path, Results[Result]], plan: Plan, tmp_path: Path
) -> None:
    split = replace(plan, folds=(), subjects=plan.folds[1])
    alone = run(split, tmp_path)
    assert alone.rows == whole[1].select(subject="sub-02").rows


class Killed(Exception):
    """Raised in the middle of an evaluation."""


def test_a_kill_loses_at_most_what_was_under_way(
    whole: tuple[Path, Results[Result]], plan: Plan, tmp_path: Path
) -> None:
    done: list[str] = []

    def killed(finished: object) -> None:
        done.append(str(finished))
        if len(done) == 1:
            raise Killed

    with pytest.raises(Killed):
        Benchmark(plan, tmp_path, "cpu", 1, killed).run()
    results = Benchmark(plan, tmp_path, "cpu", 1, lambda each: done.append(str(each))).run()
    assert results.results.rows == whole[1].rows
    assert len(done) == 4, "two trainings and two measurements, each once"


@pytest.mark.slow
def test_an_evaluation_says_what_it_was(heads: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"methods": ["alignment"], "targets": "prisma_st", "device": "cpu"}
    evaluate(heads, tmp_path, **asked, leave_one_out=True)
    measured = read_results(tmp_path / "measures.csv", Result).select(measure="sh_mse")
    (row,) = (
        each
        for each in csv.DictReader((tmp_path / "table1.csv").read_text().splitlines())
        if each["measure"] == "sh_mse"
    )
    assert float(row["mean"]) == pytest.approx(np.mean([each.value for each in measured]))
    assert "folds overlap" in row["note"]
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert [fold["test"] for fold in kept["folds"]] == [["sub-01"], ["sub-02"]]
    with pytest.raises(UserError, match="with other subjects, folds"):
        evaluate(heads, tmp_path, **asked, leave_one_out=True, test="sub-02")


# --- From the base ---------------------------------------------------------------------------


def test_without_a_base_its_rows_are_refused_or_passed_over(
    four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "base_model", lambda: None)
    with pytest.raises(UserError, match="this installation has no base model") as error:
        make_plan([four], methods=["msp, FROM base"])
    assert {type(each) for each in every(error.value.remedy)} == {Change, Give}
    with pytest.warns(RowLeftOut, match="rows that start from the base are left out"):
        plan = make_plan([four], methods="all", leave_one_out=True)
    assert plan.methods == tuple(all_methods())
    assert not [name for name in plan.methods if "from base" in name]


def test_the_base_gives_a_row_for_each_kind_that_it_holds(with_base: Path, four: Path) -> None:
    rows = ("SHResNet, from base", "MSP, from base")
    assert tuple(all_methods())[-2:] == rows
    with pytest.raises(UserError, match="the base holds no such network") as error:
        chosen_methods(["DIQT, from base"])
    assert error.value.remedy is not None
    assert "SHResNet, from base" in str(error.value)
    plan = make_plan([four], methods=rows)
    assert plan.tested == "MSP, from base"
    assert plan.base == with_base
    listed = TrainingList(plan, plan.rounds[0], Path("out"), "cpu", dict.fromkeys(plan.targets, 1))
    trainings = listed.networks(dict.fromkeys(rows, 1e-3))
    for name in rows:
        (training,) = trainings[name]["prisma_st"]
        settings = training.settings
        assert (settings.start_from, settings.width) == (BASE, None)
        steps = [n for n in (settings.epochs, settings.unison_epochs) if n is not None]
        assert [n * plan.budget.epoch for n in steps] == [plan.budget.steps]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no better than statistical alignment")
def test_rows_from_the_base_begin_with_it(with_base: Path, heads: Path, tmp_path: Path) -> None:
    rows = ["SHResNet, from base", "MSP, from base"]
    asked = EvaluationSettings(methods=tuple(rows), leave_one_out=True, test=("sub-01",))
    plan = replace(make_plan([heads], asked), budget=replace(SMALL, steps=2))
    results = run(plan, tmp_path).select(measure="sh_mse", reference="scan")
    assert results.methods == rows
    assert results.names("subject") == ["sub-01"]
    assert {*results.targets} == {"prisma_st", "connectom_sa"}
    for path in tmp_path.rglob("model.safetensors"):
        training = load_model(path).training
        assert training["start"]["name"] == "base"
        assert training["subjects"] == ["sub-02"]


def test_whom_the_base_learned_from_is_never_test(
    with_base: Path, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(four)
    monkeypatch.setattr(type(load_model(with_base)), "everyone", [dataset.person("sub-04")])
    rows = ["SHResNet, from base"]
    assert "sub-04" not in make_plan([four], methods=rows).subjects.test
    with pytest.raises(UserError, match="was trained on sub-04"):
        make_plan([four], methods=rows, test=["sub-04"])
    with pytest.warns(NeverTest, match="sub-04"):
        folds = make_plan([four], methods=rows, leave_one_out=True).folds
    assert all("sub-04" not in (*fold.validation, *fold.test) for fold in folds)


def test_a_name_alone_among_the_bases_people_is_told(
    with_base: Path, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(load_model(with_base)), "everyone", [Person("sub-04")])
    with pytest.warns(MayHaveLearned, match="may have been trained on sub-04"):
        plan = make_plan([four], methods=["SHResNet, from base"], test=["sub-04"])
    assert len(plan.doubts) == 1
    assert "doubts" not in plan.to_json()
    run = EvaluationRun(plan, "", True, None, {four.name: plan.subjects})
    assert plan.doubts[0] in methods_paragraph(run)
    certain = replace(run, plan=replace(plan, doubts=()))
    assert "may have been trained on" not in methods_paragraph(certain)


def test_the_others_of_some_folds_are_told(four: Path) -> None:
    asked: dict[str, Any] = {"methods": ["IQT"], "test": ["sub-03", "sub-01"]}
    plan = make_plan([four], **asked, leave_one_out=True)
    assert [fold.test for fold in plan.folds] == [("sub-03",), ("sub-01",)]
    assert plan.subjects == Subjects(("sub-02", "sub-04"), (), ("sub-03", "sub-01"))


def test_the_base_as_it_is_takes_no_step_and_tells_whose_statistics_it_has(
    with_base: Path, four: Path
) -> None:
    plan = make_plan([four], methods=["BASE, statistics only"], test=["sub-04"])
    assert plan.methods == (STATISTICS_ONLY,)
    listed = TrainingList(plan, plan.rounds[0], Path("out"), "cpu", dict.fromkeys(plan.targets, 1))
    (training,) = listed.networks({})[STATISTICS_ONLY]["prisma_st"]
    assert (training.settings.steps, training.settings.start_from) == (0, BASE)
    assert training.settings.subjects == plan.subjects.training
    assert training.settings.validation == ()
    assert training.weight > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*statistical alignment", "ignore:.*few people")
def test_the_base_as_it_is_is_measured_and_its_people_are_counted(
    with_base: Path, heads: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"methods": [STATISTICS_ONLY], "leave_one_out": True}
    evaluate(heads, tmp_path, **asked, test="sub-02", quick=True, workers=1)
    report = (tmp_path / "report.html").read_text()
    assert "no step of training; people its statistics are of: 1" in report
    (model,) = tmp_path.rglob("model.safetensors")
    assert load_model(model).training["steps"] == 0


def test_shared_first_stages_are_trained_together_from_the_first_step(four: Path) -> None:
    plan = make_plan([four], methods=[SHARED_MSP])
    assert plan.tested == SHARED_MSP
    listed = TrainingList(plan, plan.rounds[0], Path("out"), "cpu", dict.fromkeys(plan.targets, 1))
    best = dict.fromkeys(plan.targets, "SHResNet")
    (training,) = listed.built({}, best, {SHARED_MSP: 1e-3})[SHARED_MSP][plan.targets[0]]
    settings = training.settings
    assert (settings.first_stages, settings.singles_first) == ("shared", "no")
    assert settings.epochs is None
    assert (settings.unison_epochs or 0) * plan.budget.epoch == plan.budget.steps
    (tried,) = listed.trials(SHARED_MSP, 2e-3, best)
    assert (tried.settings.learning_rate, tried.settings.epochs) == (2e-3, None)
