"""Who is learned from, what is trained on equal terms, and that an interrupted run goes on."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import warnings
from dataclasses import dataclass, replace
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from napari_msp.data.companions import PassedOver
from napari_msp.errors import Advice, Cancelled, Change, Unexpected, UserError, every
from napari_msp.evaluation.benchmark.make_plan import make_plan
from napari_msp.evaluation.benchmark.measuring import Measurement
from napari_msp.evaluation.benchmark.methods import (
    BEST_SINGLE,
    FIRST_STAGE,
    KEYS,
    MEAN_OF_SINGLES,
    MORE_WEIGHTS,
    MSP,
    all_methods,
    chosen_methods,
    from_base,
    key_of,
)
from napari_msp.evaluation.benchmark.plan import Plan, keep_plan
from napari_msp.evaluation.benchmark.results import FLOOR, PatchResult, Result
from napari_msp.evaluation.benchmark.run import Benchmark
from napari_msp.evaluation.benchmark.settings import QUICK, Budget, EvaluationSettings, Subjects
from napari_msp.evaluation.benchmark.trainings import TrainingList, matched_width, weights_of_msp
from napari_msp.evaluation.evaluate import evaluate
from napari_msp.files import reserved, sha256
from napari_msp.inference.prepare import NotForScans
from napari_msp.learning.schedule import recipe_for
from napari_msp.model_file import kept_model, load_model
from napari_msp.networks import msp as networks
from napari_msp.networks.registry import build_single
from napari_msp.packaged import packaged_model
from napari_msp.processes import (
    NEARLY,
    JobProgress,
    OnPart,
    Progress,
    _work,
    do_all,
    without_script,
)

TARGETS = ("prisma_st", "connectom_sa")
SCALES = {"prisma_st": 1, "connectom_sa": 2}
SMALL = replace(QUICK, width=0.1, steps=4, first_steps=2, tuning_steps=2, epoch=2, crop=6, batch=1)


@pytest.fixture(scope="module")
def heads(tmp_path_factory, make_heads) -> Path:
    return make_heads(tmp_path_factory.mktemp("benchmark") / "heads", shape=(9, 8, 7))


SHOWN = ("no harmonization", "IQT", "SHResNet", MORE_WEIGHTS, MEAN_OF_SINGLES, MSP)


@pytest.fixture(scope="module")
def plan(heads) -> Plan:
    """Two learning rates are tried."""
    budget = replace(SMALL, rates=(1e-3, 3e-3))
    chosen = replace(make_plan([heads], methods=SHOWN, targets=TARGETS), budget=budget)
    assert chosen.subjects == Subjects(("sub-01",), ("sub-02",), ("sub-03",))
    return chosen


@pytest.fixture(scope="module")
def done(plan, tmp_path_factory):
    out = tmp_path_factory.mktemp("done")
    lines: list[str] = []
    outcome = Benchmark(plan, out, "cpu", 1, lambda each: lines.append(str(each))).run()
    return out, outcome, lines


# --- Plans -----------------------------------------------------------------------------------


def test_every_subject_has_one_part(make_heads, tmp_path):
    root = make_heads(tmp_path / "many", subjects=6, shape=(4, 4, 4))
    names = [f"sub-{n:02d}" for n in range(1, 7)]
    subjects = make_plan([root], methods=["SHResNet"]).subjects
    assert sorted(subjects.all) == names
    assert subjects.test == ("sub-04", "sub-05", "sub-06")
    asked = make_plan([root], methods=["SHResNet"], test=["sub-01"], train=["sub-06"]).subjects
    assert (asked.training, asked.test) == (("sub-06",), ("sub-01",))
    assert not {"sub-01", "sub-06"} & set(asked.validation)


def test_who_lacks_a_scan_is_not_learned_from(make_heads, tmp_path):
    root = make_heads(tmp_path / "gaps", subjects=4, shape=(4, 4, 4))
    shutil.rmtree(root / "sub-01" / "ses-prisma")
    asked: dict[str, Any] = {"methods": ["SHResNet"], "test": ["sub-04"]}
    assert make_plan([root], **asked).subjects == Subjects(("sub-02",), ("sub-03",), ("sub-04",))
    with pytest.raises(UserError, match=r"sub-01 has no scan on prisma_st") as error:
        make_plan([root], **asked, train=["sub-01"])
    assert (error.value.subject, error.value.field) == (str(root), "train")
    with pytest.raises(UserError, match=r"no test subject has a scan on prisma_st"):
        make_plan([root], methods=["SHResNet"], test=["sub-01"])


def test_a_dataset_is_called_by_its_folder_however_it_is_given(heads, monkeypatch):
    monkeypatch.chdir(heads / "sub-01")
    plan = make_plan([".."], methods=["DIQT"], targets=["prisma_st", "prisma_st"])
    assert plan.rounds[0].name == f"{heads.name} seed 0"
    assert plan.targets == ("prisma_st",)


def test_folders_of_whom_nobody_asked_for_need_not_be_readable(heads, monkeypatch):
    listed = Path.iterdir

    def iterdir(folder: Path) -> Any:
        if folder.name == "sub-02":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    untrained: dict[str, Any] = {"methods": ["no harmonization"]}
    with pytest.warns(PassedOver, match=r"sub-02: left out, as it cannot be read"):
        plan = make_plan([heads], **untrained, test=["sub-01", "sub-03"])
    assert plan.open(heads).subjects == ["sub-01", "sub-03"]
    teaching = {"methods": ["IQT"], "test": ["sub-01"]}  # by all others
    for asked in (untrained, {**untrained, "test": ["sub-01", "sub-02"]}, teaching):
        with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
            make_plan([heads], **asked)


def test_a_run_that_is_the_repeated_scan_is_not_told_as_left_out(make_heads, tmp_path):
    root = make_heads(tmp_path / "runs", subjects=2, shape=(4, 4, 4))
    for path in [*root.rglob("sub-*_ses-prisma_*")]:
        for run in (1, 2):
            where, end = path.name.rsplit("_", 1)
            shutil.copy(path, path.with_name(f"{where}_run-{run}_{end}"))
        path.unlink()
    asked: dict[str, Any] = {"methods": ["no harmonization"], "targets": ["prisma_st"], "run": 1}
    with pytest.warns(PassedOver, match=r"run-2_dwi.nii.gz and 1 more: left out, as it is not run"):
        make_plan([root], **asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PassedOver)
        make_plan([root], **asked, regions="tissue")


@pytest.mark.parametrize(
    ("options", "field", "complaint"),
    [
        ({}, "methods", "there is nothing to evaluate"),
        ({"methods": ["MSPP"]}, "methods", "no such method"),
        ({"methods": ["MSP"], "test": ["sub-09"]}, "test", "no such subject"),
        ({"methods": ["MSP"], "test": ["sub-01"], "train": ["sub-01"]}, "test", "name it once"),
        ({"methods": ["MSP"], "targets": ["ge_st"], "input": "ge_st"}, "targets", "choose from"),
        ({"methods": ["MSP"], "targets": ["ge_st"]}, "input", "choose from connectom_sa"),
        ({"methods": ["MSP"], "input": "old_st"}, "input", "has no scan on old_st"),
        ({"methods": ["MSP"], "test": ["sub-01", "sub-02", "sub-03"]}, None, "no subject is left"),
        ({"methods": ["MSP"], "seeds": [0, 1000]}, "seeds", "1000"),
        ({"methods": ["MSP"], "seeds": [-1]}, "seeds", "-1"),
        ({"methods": "all", "targets": "prisma_st"}, "methods", "two targets or more"),
        ({"methods": ["IQT"], "b_value": 3000.0}, None, "b_value|--shell"),
    ],
)
def test_plans_that_cannot_be(heads, options, field, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        make_plan([heads], **options)
    assert field in (error.value.field, None)


def test_a_model_is_refused_before_anything_is_trained(done, heads, tmp_path):
    out, _, _ = done
    model = out / "trained" / f"{heads.name}-seed-0" / "SHResNet" / "model.safetensors"
    with pytest.raises(UserError, match=r"nothing is trained without methods") as error:
        make_plan([heads], models=[model], train=["sub-01"])
    assert error.value.field == "train"
    with pytest.raises(UserError, match=r"trained at b = \d+, not 3000"):
        make_plan([heads], models=[model], b_value=3000.0)
    coarse = shutil.copytree(heads, tmp_path / "coarse")
    scan = coarse / "sub-03" / "ses-ge" / "dwi" / "sub-03_ses-ge_acq-st_dwi.nii.gz"
    image = nib.load(scan)
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine @ np.diag([1.5, 1, 1, 1])), scan)
    with pytest.raises(UserError, match=r"sub-03.*voxels are 3.60 × 2.40 × 2.40 mm"):
        make_plan([coarse], models=[model])


def test_people_are_told_apart_not_names(done, heads, make_heads, tmp_path):
    out, _, _ = done
    model = out / "trained" / f"{heads.name}-seed-0" / "SHResNet" / "model.safetensors"
    # It was trained on sub-01, and sub-02 chose its weights.
    assert make_plan([heads], models=[model]).subjects.test == ("sub-03",)
    other = make_heads(tmp_path / "other", shape=(9, 8, 7), directions=32)
    assert make_plan([other], models=[model]).subjects.test == ("sub-01", "sub-02", "sub-03")
    copy = shutil.copytree(heads, tmp_path / "copy")
    assert make_plan([copy], models=[model]).subjects.test == ("sub-03",)
    with pytest.raises(UserError, match=r"was trained on sub-01;") as error:
        make_plan([copy], models=[model], test=["sub-01"])
    assert (error.value.subject, error.value.field) == (str(model), "test")
    with pytest.raises(UserError, match="sub-01 has the same scans as sub-01 of") as error:
        make_plan([heads, copy], methods=["alignment"])
    assert error.value.field == "datasets"


def test_one_process_at_a_time(heads, tmp_path):
    with reserved(tmp_path), pytest.raises(UserError, match="another process is working on it"):
        evaluate(heads, tmp_path, methods=SHOWN, device="cpu")


def test_methods_keep_the_tables_order():
    assert chosen_methods(["msp", "IQT", "diqt"]) == ("IQT", "DIQT", "MSP")
    assert chosen_methods(["all"]) == tuple(all_methods())


def test_budgets():
    assert Budget().with_changes(steps=1200).first_steps == 200
    for change in ({"steps": 250}, {"steps": 100}, {"width": 0.0}, {"batch": 0}, {"crop": 2}):
        with pytest.raises(UserError) as error:
            Budget().with_changes(**change)
        assert error.value.field == next(iter(change))


def test_settings_are_plain_or_keywords(heads, tmp_path):
    plain: dict[str, Any] = {"methods": "alignment", "targets": ["prisma_st"]}
    settings = EvaluationSettings(**plain, quick=True, steps=80)
    assert settings.methods == ("alignment",)
    assert settings.budget.steps == 80
    told: list[JobProgress] = []
    files = evaluate(
        heads,
        str(tmp_path),
        settings,
        device="cpu",
        targets="connectom_sa",
        progress=told.append,
    )
    after_jobs = ["drawing figures", "writing the report", "wrote the report"]  # what takes long
    jobs = [each.job for each in told]
    assert list(dict.fromkeys(jobs))[-3:] == after_jobs
    drawn = sum(path.suffix == ".png" for path in files)
    assert jobs.count("drawing figures") > drawn  # before and after each: there it can be cancelled
    assert [each.share for each in told] == sorted(each.share for each in told)
    assert told[jobs.index("drawing figures") - 1].share < 0.9
    assert told[-1].share == 1
    assert "connectom_sa" in (tmp_path / "table1.csv").read_text()
    assert all(path.exists() for path in files)
    with pytest.raises(Cancelled):
        evaluate(heads, tmp_path, settings, targets="connectom_sa", cancelled=lambda: True)
    with pytest.raises(UserError) as error:
        evaluate(heads, tmp_path, settings, workers=0)
    assert error.value.field == "workers"


def test_rounds_are_a_cross(plan, tmp_path):
    crossed = replace(plan, datasets=(tmp_path / "a", tmp_path / "b"))
    crossed = replace(crossed, asked=replace(plan.asked, seeds=(3, 4, 3)))
    assert [r.name for r in crossed.rounds] == ["a seed 3", "a seed 4", "b seed 3"]


def test_another_evaluation_in_the_same_folder_is_refused(plan, tmp_path):
    keep_plan(plan, tmp_path / "plan.json")
    keep_plan(plan, tmp_path / "plan.json")
    other = replace(plan, budget=replace(plan.budget, steps=8))
    with pytest.raises(UserError, match="other budget"):
        keep_plan(other, tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["budget"]["steps"] == 4


def test_a_model_for_simulated_heads_is_planned_with_a_word(heads):
    with pytest.warns(NotForScans, match="for simulated heads only") as told:
        planned = make_plan([heads], models=[packaged_model("MSP")])
    assert planned.unfit == tuple(str(each.message) for each in told)
    assert f"the scans of {heads.name} are not known to be simulated" in planned.unfit[0]
    assert planned.doubts == ()
    assert "unfit" not in planned.to_json()


def test_a_model_that_was_trained_anew_is_another_evaluation(plan, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"before")
    given = replace(plan, asked=replace(plan.asked, models=(file,)))
    keep_plan(given, tmp_path / "plan.json")
    keep_plan(given, tmp_path / "plan.json")
    file.write_bytes(b"after")
    with pytest.raises(UserError, match="other models"):
        keep_plan(given, tmp_path / "plan.json")


def test_a_corrected_scan_is_another_evaluation(plan, heads, tmp_path, monkeypatch):
    read: list[str] = []

    def counted(path):
        read.append(path.name)
        return sha256(path)

    module = "napari_msp.evaluation.benchmark.plan"
    monkeypatch.setattr(f"{module}.SETTLED", 0)  # files were written a moment ago
    monkeypatch.setattr(f"{module}.sha256", counted)
    own = tmp_path / "heads"
    shutil.copytree(heads, own)
    here = replace(plan, datasets=(own,))
    keep_plan(here, tmp_path / "plan.json")
    assert len(read) >= len(here.subjects.all) * len((here.input, *here.targets))
    read.clear()
    keep_plan(here, tmp_path / "plan.json")
    assert not read, "what has not changed is not read again"
    folder = own / "sub-02" / "ses-prisma" / "dwi"
    (table,), (image,) = (folder.glob(f"*acq-st_dwi.{end}") for end in ("bvec", "nii.gz"))
    content, before = image.read_bytes(), image.stat()
    image.write_bytes(content[:4] + bytes([content[4] ^ 1]) + content[5:])  # gzip's own time
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` leaves it
    with pytest.raises(UserError, match=r"with other scans \(sub-02 on prisma_st\)"):
        keep_plan(here, tmp_path / "plan.json")
    assert read == [image.name]
    image.write_bytes(content)
    keep_plan(here, tmp_path / "plan.json")
    rows = np.loadtxt(table)
    rows[0] *= -1
    np.savetxt(table, rows)
    with pytest.raises(UserError, match=r"with other scans \(sub-02 on prisma_st\)"):
        keep_plan(here, tmp_path / "plan.json")
    (tmp_path / "digests.json").write_text("[")
    with pytest.raises(UserError, match="with other scans"):
        keep_plan(here, tmp_path / "plan.json")


def test_a_plan_of_an_earlier_version_is_not_called_another(plan, tmp_path):
    path = tmp_path / "plan.json"
    keep_plan(plan, path)
    content = json.loads(path.read_text())
    for version, said in (("0.0.9", "begun by napari-msp 0.0.9, whose"), (None, "earlier version")):
        path.write_text(json.dumps(content | {"version": version}))
        with pytest.raises(UserError, match=said):
            keep_plan(plan, path)
    path.write_text(json.dumps(content | {"measures": content["measures"][1:]}))
    with pytest.raises(UserError, match="was begun here, with other measures"):  # one is new
        keep_plan(plan, path)


def test_a_model_that_was_trained_anew_is_read_anew(tmp_path):
    path = tmp_path / "mine.safetensors"
    shutil.copy2(packaged_model("MSP"), path)
    before, known = kept_model(path), path.stat()
    assert kept_model(path) is before
    shutil.copy2(packaged_model("MSP"), tmp_path / "other")
    (tmp_path / "other").replace(path)  # as large, and as old by its own word
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert kept_model(path) is not before


def test_files_call_a_row_by_its_key_whatever_its_title(heads, tmp_path, monkeypatch):
    """So that an evaluation goes on after a title was worded anew."""
    monkeypatch.setitem(KEYS, "IQT", "patches")
    plan = make_plan([heads], methods=["IQT"], targets=["prisma_st"])
    keep_plan(plan, tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["methods"] == ["patches"]
    job = Measurement(plan, plan.rounds[0], "prisma_st", {}, False, 5, tmp_path, "cpu")
    job.run()
    lines = (tmp_path / "measures.csv").read_text().splitlines()[1:]
    assert {line.partition(",")[0] for line in lines} == {"patches"}
    assert job.results(Result).methods == job.results(PatchResult).methods == ["IQT"]
    # Evaluations were begun with these names: they are not to change.
    assert key_of(from_base("IQT")) == "patches, from base"
    assert {*KEYS.values()} == {
        "patches", "first stage alone", "best single", "single, as many weights", "mean of singles",
        "MSP, shared first stages", "base, statistics only", "noise-free twin (floor)",
        "target's own scan", "target's scan", "repeated scan (floor)", "smoothed input (trivial)",
    }  # fmt: skip


# --- Equal terms -----------------------------------------------------------------------------


def test_everybody_has_the_same_steps_on_the_same_subjects(plan, tmp_path):
    everything = replace(plan, methods=tuple(all_methods()))
    listed = TrainingList(everything, plan.rounds[0], tmp_path, "cpu", SCALES)
    rates = dict.fromkeys(all_methods(), 1e-3)
    best = dict.fromkeys(TARGETS, "SHResNet")
    first = listed.networks(rates)
    built = listed.built(first, best, rates)
    for method, by_target in {**first, **built}.items():
        for training in (t for trainings in by_target.values() for t in trainings):
            settings = training.settings
            epochs = (settings.epochs or 0) + (settings.unison_epochs or 0)
            steps = epochs * (settings.steps_per_epoch or 0)
            assert steps == (2 if method == FIRST_STAGE else 4), method
            assert set(settings.subjects) == {"sub-01", "sub-02"}
            assert (settings.validation, settings.held_out) == (("sub-02",), ())
            assert settings.patience == plan.budget.patience
            assert recipe_for(settings).augment
    assert built[BEST_SINGLE] == first["SHResNet"]
    members = built[MEAN_OF_SINGLES]["prisma_st"]
    assert len(members) == len(TARGETS)
    assert len({member.settings.seed for member in members}) == len(members)
    assert members[0] == first["SHResNet"]["prisma_st"][0]


@pytest.mark.parametrize("kind", ["shresnet", "cnn-rish", "diqt"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_control_holds_as_many_weights(kind, target):
    stage = {"prisma_st": "shresnet", "connectom_sa": kind}
    wanted = weights_of_msp(stage, target, SCALES, 0.15)
    singles = {
        name: build_single(each, target=name, scales=SCALES, width=0.15)
        for name, each in stage.items()
    }
    msp = networks.MSP(singles, target, width=0.15)
    assert wanted == sum(p.numel() for p in msp.parameters())
    width = matched_width(stage[target], target, SCALES, wanted)
    wide = build_single(stage[target], target=target, scales=SCALES, width=width)
    assert 1 <= sum(p.numel() for p in wide.parameters()) / wanted < 1.15


# --- Jobs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Write:
    """A job that can be sent to another process."""

    path: Path
    weight: float = 1.0
    name: str = "write"

    @property
    def finished(self) -> bool:
        return self.path.exists()

    def run(self, tell: OnPart = lambda words, share: None) -> None:
        tell("half", 0.5)
        if self.path.name == "bad":
            raise UserError("is bad", remedy=Advice("do it well"))
        if self.path.name == "bug":
            raise ZeroDivisionError("a bug")
        begun = self.path.with_suffix(".begun")
        if self.path.name == "killed" or (self.path.name == "once" and not begun.exists()):
            begun.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.path.name == "long":
            time.sleep(600)
        self.path.write_text("done")


def test_a_process_does_not_import_the_script_that_called(monkeypatch):
    """Which would run again in each, as a script without `if __name__ == "__main__"` does."""
    script = sys.modules["__main__"]
    monkeypatch.setattr(script, "__spec__", None)
    monkeypatch.setattr(script, "__file__", "study.py", raising=False)
    assert "init_main_from_path" in get_preparation_data("worker")
    with without_script():
        assert not {"init_main_from_path", "init_main_from_name"} & {
            *get_preparation_data("worker")
        }
    assert sys.modules["__main__"] is script


def test_a_worker_has_one_thread(monkeypatch):
    # Torch's and BLAS's, by which blocks are shared out: the other cores are other workers'.
    threads = []

    class Look:
        def run(self):
            threads.append(max(each.num_threads for each in blas.lib_controllers))

    class Pipe:
        jobs = iter([Look()])
        send = staticmethod(lambda answer: answers.append(answer))

        def recv(self):
            for job in self.jobs:
                return job
            raise EOFError

    answers: list[object] = []
    for name in ("torch.set_num_threads", "signal.signal", "threading.Thread"):
        monkeypatch.setattr(name, mock.MagicMock())
    blas = ThreadpoolController().select(user_api="blas")
    with blas.limit(limits=2):
        _work(Pipe())  # type: ignore[arg-type]
    assert threads == [1]
    assert answers == [(None, "")]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_jobs_are_done_once_and_a_failure_is_raised(workers, tmp_path):
    jobs = [Write(tmp_path / str(n), weight=n + 1) for n in range(3)]
    jobs[0].path.write_text("before")
    reports: list[JobProgress] = []
    progress = Progress(reports.append, 6.0)
    do_all(jobs, workers, progress)
    assert [job.path.read_text() for job in jobs] == ["before", "done", "done"]
    told = [(report.job, report.share) for report in reports]
    if workers == 1:  # who is elsewhere tells of whole jobs alone
        assert told == [("half", 2.5 / 6), ("write", 4 / 6), ("half", 5 / 6), ("write", NEARLY)]
    else:
        assert [words for words, _ in told] == ["write", "write"]
    progress.total = 10.0
    progress.begin("drawing figures", 2.0)
    progress.begin("writing the report", 1.0)
    progress.total = 3.0  # less than there was to do
    progress.begin("more", 1.0)
    progress.end("wrote the report")
    assert [str(each) for each in reports[-4:]] == [
        "[ 60%] drawing figures; less than a minute left",
        "[ 80%] writing the report; less than a minute left",
        "[ 99%] more; less than a minute left",
        "[100%] wrote the report; done",
    ]
    Progress(reports.append, 1440.0).begin("nothing is done yet", 0.0)
    assert reports[-1].minutes_left == 2
    assert str(JobProgress("a", 0.5, 0.2)) == "[ 50%] a; less than a minute left"
    assert str(JobProgress("a", 0.5, 2.4)) == "[ 50%] a; about 2 min left"
    with pytest.raises(UserError, match="do it well"):
        do_all([Write(tmp_path / "bad")], workers, progress)
    assert multiprocessing.active_children() == [], "nobody is waited for at the end"


@pytest.mark.slow
def test_a_killed_process_is_reported_with_the_remedy(tmp_path):
    jobs = [Write(tmp_path / "killed", name="SHResNet"), Write(tmp_path / "long", weight=2)]
    with (
        pytest.warns(UserWarning, match=r"SHResNet: .*\(signal 9\); the job is begun once more"),
        pytest.raises(UserError, match="ended from outside 2 times") as error,
    ):
        do_all(jobs, 2, Progress(print, 1.0))
    assert error.value.subject == "SHResNet"
    assert Change("workers", "fewer") in every(error.value.remedy)
    assert not (tmp_path / "long").exists(), "the other was waited for"


@pytest.mark.slow
def test_what_one_killed_process_did_is_done_by_another(tmp_path):
    jobs = [Write(tmp_path / name) for name in ("once", "a", "b", "c")]
    reports: list[JobProgress] = []
    with pytest.warns(UserWarning, match="once more"):
        do_all(jobs, 2, Progress(reports.append, 4.0))
    assert all(job.finished for job in jobs)
    assert len(reports) == 4


def test_a_bug_in_another_process_keeps_its_traceback(tmp_path):
    with pytest.raises(Unexpected, match="ZeroDivisionError: a bug") as error:
        do_all([Write(tmp_path / "bug")], 2, Progress(print, 1.0))
    assert "in run" in "".join(error.value.__notes__)


# --- A whole benchmark -----------------------------------------------------------------------


def test_all_methods_are_measured_for_every_target(done):
    _, outcome, _ = done
    results = outcome.results.select(measure="sh_mse", reference="scan")
    assert tuple(results.methods) == SHOWN
    for method in SHOWN:
        rows = results.select(method=method)
        assert [(row.target, row.subject) for row in rows] == [(t, "sub-03") for t in TARGETS]
    assert FLOOR not in results.methods  # these heads have no noise-free twins


def test_nobody_validates_where_nothing_is_chosen_and_few_are_left(heads):
    few = ["sub-02", "sub-03"]
    asked: list[dict[str, Any]] = [{}, {"train": ["sub-01"]}]
    for given in asked:
        subjects = make_plan([heads], methods=["alignment"], test=few, **given).subjects
        assert subjects == Subjects(("sub-01",), (), tuple(few))
        with pytest.raises(UserError, match="no subject is left") as error:
            make_plan([heads], methods=["SHResNet"], test=few, **given)
        assert "leave_one_out=True" in error.value.phrase()


def test_a_baseline_alone_learns_and_is_measured(heads, tmp_path):
    plan = make_plan([heads], methods=["alignment"], targets=["prisma_st"])
    lines: list[str] = []
    outcome = Benchmark(plan, tmp_path, "cpu", 1, lambda each: lines.append(str(each))).run()
    assert plan.subjects.training == ("sub-01",)
    assert outcome.results.methods == ["alignment"]
    assert [line[:6] for line in lines] == ["[ 99%]"]  # its report is to come


def test_a_head_that_lies_beside_its_input_is_noted(make_heads, tmp_path):
    root = make_heads(tmp_path / "heads", shape=(14, 13, 12))
    for path in root.glob("sub-03/ses-prisma/dwi/*.nii.gz"):
        image = nib.load(path)
        moved = image.affine.copy()
        moved[0, 3] += 4
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), moved), path)
    plan = make_plan([root], methods=["no harmonization"], targets=["prisma_st"])
    job = Measurement(plan, plan.rounds[0], "prisma_st", {}, False, 5, tmp_path / "m", "cpu")
    job.run()
    [note] = job.notes()
    assert note.startswith("sub-03 on prisma_st lies ")
    assert "from ge_st on average" in note


def test_a_repeated_round_measures_networks_alone_and_alike(done, plan, tmp_path):
    _, outcome, _ = done
    by_target = outcome.trainings[plan.rounds[0]]["SHResNet"]["prisma_st"]
    repeated = Measurement(
        plan=plan,
        round=plan.rounds[0],
        target="prisma_st",
        answers={"SHResNet": tuple(training.model for training in by_target)},
        repeated=True,
        patch_size=11,
        folder=tmp_path,
        device="cpu",
    )
    repeated.run()
    assert repeated.finished
    results, patches = repeated.results(Result), repeated.results(PatchResult)
    in_full = outcome.results.select(method="SHResNet", target="prisma_st")
    assert {row.measure: row.value for row in results} == {
        row.measure: row.value for row in in_full if row.measure in ("sh_mse", "patch_mse")
    }
    assert [row.value for row in patches] == [
        row.value for row in outcome.patches.select(method="SHResNet", target="prisma_st")
    ]


def test_rows_are_what_their_models_predict(done, heads):
    from napari_msp import fit_sh, harmonize
    from napari_msp.data.dataset import open_dataset

    _, outcome, _ = done
    dataset = open_dataset(heads)
    scan = dataset.acquisition("sub-03", "ge_st")
    truth = fit_sh(dataset.acquisition("sub-03", "prisma_st"))
    trained = outcome.trainings[next(iter(outcome.trainings))]
    for method in (MSP, MEAN_OF_SINGLES, MORE_WEIGHTS):
        models = [load_model(t.model) for t in trained[method]["prisma_st"]]
        predicted = np.mean(
            [harmonize(m, scan, "prisma_st").sh.coefficients for m in models], axis=0, dtype=float
        )
        squares = np.square(predicted[truth.mask] - truth.coefficients[truth.mask])
        row = outcome.results.select(
            method=method, target="prisma_st", seed=0, measure="sh_mse", reference="scan"
        ).rows[0]
        assert row.value == pytest.approx(squares.mean(), rel=1e-5)


def test_choices_are_made_on_validation_subjects(done):
    _, outcome, _ = done
    tried = {(t.method, t.rate): t.error for t in outcome.trials}
    for method in dict.fromkeys(name for name, _ in tried):
        for by_target in outcome.trainings.values():
            rate = by_target[method]["prisma_st"][0].settings.learning_rate
            assert tried[method, rate] == min(e for (m, _), e in tried.items() if m == method)
    counts = {m: sum(name == m for name, _ in tried) for m, _ in tried}
    assert set(counts.values()) == {2}, "every network has as many trials"
    for trained in outcome.trainings.values():
        for target, (chosen, *_) in trained[MEAN_OF_SINGLES].items():
            errors = {
                name: trained[name][target][0].errors()[target]
                for name in ("DIQT", "CNN-RISH", "SHResNet")
            }
            assert chosen == trained[min(errors, key=lambda name: errors[name])][target][0]


def test_given_models_are_measured_once_and_predict_a_target(done, plan, heads, tmp_path):
    _, outcome, _ = done
    trained = outcome.trainings[plan.rounds[0]][MORE_WEIGHTS]["prisma_st"][0].model
    file = shutil.copy(trained, tmp_path / "mine.safetensors")
    crossed = make_plan([heads], models=[file], seeds=[0, 1], test=["sub-03"])
    results = Benchmark(crossed, tmp_path / "out", "cpu", 1, print).run().results
    assert results.select(method="mine").names("seed") == [0]
    with pytest.raises(UserError, match=r"mine.*predicts prisma_st, but none of connectom_sa"):
        make_plan([heads], models=[file], targets=["connectom_sa"])


def test_nothing_is_learned_from_test_subjects(done):
    out, _, _ = done
    models = list(out.rglob("model.safetensors"))
    assert len(models) > 15
    for path in models:
        training = load_model(path).training
        assert training["subjects"] == ["sub-01"]
        assert training["validation"] == ["sub-02"]


def test_an_interrupted_benchmark_goes_on(done, plan):
    out, before, lines = done
    assert len(lines) > 15
    lost = before.trainings[plan.rounds[0]][MSP]["prisma_st"][0].folder
    weights = (lost / "model.safetensors").read_bytes()
    (lost / "model.safetensors").unlink()
    for path in (out / "measured").rglob("*.csv"):
        path.unlink()
    again: list[str] = []
    after = Benchmark(plan, out, "cpu", 1, lambda each: again.append(str(each))).run()
    assert len(again) == 1 + len(TARGETS)  # one training, two measurements
    assert weights[-1000:] == (lost / "model.safetensors").read_bytes()[-1000:]
    assert after.results.rows == before.results.rows
