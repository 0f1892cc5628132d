"""Cohorts: one bad subject does not stop the others, and what is finished is not done again."""

import csv
import json
import re
import socket
import sys
import threading
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dask_jobs import means
from with_job import run_cohort

from napari_msp import cohort
from napari_msp.cli import main
from napari_msp.cohort import CohortResult, summarise_cohort
from napari_msp.cohort.cluster import Cluster
from napari_msp.data.acquisition import load_acquisition
from napari_msp.device import free_memory
from napari_msp.errors import Cancelled, Doubt, Overwrite, RunJob, UserError, either
from napari_msp.files import sha256
from napari_msp.image_files import ImageFile
from napari_msp.inference.outputs import checksums, harmonize_to_folder
from napari_msp.inference.prepare import NotForScans
from napari_msp.model_file import Model, ModelNetwork, load_model, save_model
from napari_msp.networks.registry import build_single
from napari_msp.options import Options
from napari_msp.packaged import packaged_model
from napari_msp.provenance import Provenance

pytestmark = pytest.mark.filterwarnings("ignore::napari_msp.identity.CopiedScan")  # all are one

TARGET, SECOND = "prisma_st", "connectom_st"

OF_SUB_01 = (("pre", ""), ("ge", "_acq-st"))


def message(*parts):
    return ".*".join(map(re.escape, parts))


@pytest.fixture
def bids(tmp_path, scan):
    """Three subjects with one scan each; that of sub-02 has lost its b-vectors."""
    root = tmp_path / "bids"
    made = scan(np.diag([2.4, 2.4, 2.4, 1.0]), 30)
    for subject in ("sub-01", "sub-02", "sub-03"):
        folder = root / subject / "ses-ge/dwi"
        folder.mkdir(parents=True)
        made.write(folder, stem=f"{subject}_ses-ge_acq-st")
    (root / "sub-02/ses-ge/dwi/sub-02_ses-ge_acq-st_dwi.bvec").unlink()
    return root


@pytest.fixture
def model(one_target_model):
    return one_target_model


@pytest.fixture
def model_of_two(one_target_model):
    """The same, with a second target."""
    model = load_model(one_target_model)
    path = one_target_model.with_name("two.safetensors")
    second = build_single("shresnet", target=SECOND, scales={SECOND: 1}, width=0.1)
    changes = {
        name: {**getattr(model.card, name), SECOND: getattr(model.card, name)[TARGET]}
        for name in ("scales", "standardisation", "gradients")
    }
    changes["architectures"] = {**model.card.architectures, SECOND: second.config()}
    networks = {TARGET: model.single(TARGET), SECOND: second}
    save_model(path, Model(model.card.model_copy(update=changes), ModelNetwork(networks, 1.0)))
    return path


def table_of(out):
    with (out / "cohort.tsv").open() as file:
        return {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}


def read_checksums(dwi):
    try:
        return checksums(load_acquisition(dwi))
    except UserError:  # not every scan here could be harmonized
        return {}


class Recorder:
    """A job that writes a little of what `harmonize_to_folder` does, and fails where it is told."""

    def __init__(self, failures=None):
        self.failures = failures or {}
        self.calls = []

    def __call__(self, dwi, model, targets, out, **options):
        self.calls.append((dwi, model, targets, out, options))
        subject = dwi.name.split("_")[0]
        if subject in self.failures:
            raise self.failures[subject]
        out.mkdir(parents=True, exist_ok=True)
        for target in targets:
            stem = f"{ImageFile.predicted(dwi, target, 'shresnet').stem}_dwi"
            (out / f"{stem}.nii.gz").write_bytes(b"image")
            made = Provenance(
                target,
                "ge_st",
                model_file=model.name,
                model_sha256=sha256(model),
                gradients=options["gradients"],
                checksums=read_checksums(dwi),
                options=options["options"].recorded(),
            )
            (out / f"{stem}.json").write_text(json.dumps(made.to_sidecar()))

    @property
    def subjects(self):
        return [call[0].name.split("_")[0] for call in self.calls]


def test_a_model_for_simulated_heads_says_so_once(bids, model, tmp_path, monkeypatch):
    trained = load_model(model)
    card = trained.card.model_copy(update={"simulated_only": True})
    save_model(model, Model(card, trained.network))

    def job(dwi, *_, **__):
        warnings.warn(NotForScans("of a simulated-only model", dwi), stacklevel=1)
        warnings.warn("of this scan", UserWarning, stacklevel=1)
        truth = dwi.with_name("sub-01_ses-prisma_acq-st_dwi.nii.gz")
        warnings.warn(Doubt("of another scan", truth), stacklevel=1)

    monkeypatch.setattr(cohort, "harmonize_scan", job)
    with pytest.warns(NotForScans, match="for simulated heads only, and the scans of bids") as told:
        results = run_cohort(bids, tmp_path / "out", model, TARGET)
    assert len([each for each in told if each.category is NotForScans]) == 1
    assert [each.doubts for each in results] == 3 * [(Doubt("of this scan"),)]


class TestCopies:
    """Whose scans are looked into for copies before anything runs."""

    @pytest.fixture
    def looked(self, monkeypatch):
        seen = []

        def digest(dwi):
            seen.append(dwi.name[:6])
            return ""

        monkeypatch.setattr(cohort, "file_digest", digest)
        return seen

    def test_a_link_to_nothing_is_one_failed_row(self, bids, model, tmp_path):
        dwi = bids / "sub-02/ses-ge/dwi/sub-02_ses-ge_acq-st_dwi.nii.gz"
        dwi.unlink()
        dwi.symlink_to("annex/object")
        gone = UserError("there is no such file", dwi)
        results = run_cohort(bids, tmp_path / "out", model, TARGET, job=Recorder({"sub-02": gone}))
        assert [each.status for each in results] == ["done", "failed", "done"]

    def test_finished_scans_are_not_looked_into_again(self, bids, model, tmp_path, looked):
        for expected in (["sub-01", "sub-03"], []):
            run_cohort(
                bids, tmp_path / "out", model, TARGET, participants=["01", "03"], job=Recorder()
            )
            assert looked == expected
            looked.clear()

    def test_images_of_mrtrix_are_not_converted_for_it(self, bids, model, tmp_path, looked):
        for dwi in bids.glob("sub-*/ses-ge/dwi/*.nii.gz"):
            dwi.rename(dwi.with_name(dwi.name.replace(".nii.gz", ".mif")))
        with suppress(UserError):
            run_cohort(bids, tmp_path / "out", model, TARGET, job=Recorder())
        assert not looked


class TestWithAStub:
    def test_what_the_job_is_asked(self, bids, model, tmp_path):
        job = Recorder()
        out = tmp_path / "out"
        run_cohort(
            bids,
            out,
            model,
            TARGET,
            participants=["01"],
            options=Options("cpu", 16, resample=True),
            job=job,
        )
        [(dwi, given, targets, folder, options)] = job.calls
        assert dwi == bids / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
        assert given == model
        assert targets == (TARGET,)
        assert folder == out / "sub-01/ses-ge/dwi"
        assert options == {
            "options": Options("cpu", 16, resample=True),
            "gradients": "target",
            "force": False,
            "describe": False,
            "cancelled": None,
            "review_maps": True,
        }

    def test_a_bad_subject_does_not_stop_the_others(self, bids, model, tmp_path):
        failures = {
            "sub-01": UserError("is odd", "scan", remedy=Overwrite()),
            "sub-02": RuntimeError("out\nof"),
        }
        told = []
        results = run_cohort(
            bids,
            tmp_path / "out",
            model,
            TARGET,
            job=Recorder(failures),
            progress=lambda result, done, total: told.append((result.subject, done, total)),
        )
        assert [(r.subject, r.status, r.message()) for r in results] == [
            ("sub-01", "failed", "scan: is odd; replace it with force=True"),
            ("sub-02", "failed", "RuntimeError: out of"),
            ("sub-03", "done", ""),
        ]
        rows = table_of(tmp_path / "out")
        assert {subject: row["status"] for subject, row in rows.items()} == {
            "sub-01": "failed",
            "sub-02": "failed",
            "sub-03": "done",
        }
        assert rows["sub-01"]["message"] == "scan: is odd; replace it"
        assert told == [("sub-01", 1, 3), ("sub-02", 2, 3), ("sub-03", 3, 3)]

    def test_a_second_run_does_only_what_is_left(self, bids, model, tmp_path):
        out = tmp_path / "out"
        run_cohort(bids, out, model, TARGET, job=Recorder({"sub-02": UserError("odd")}))
        again = Recorder()
        results = run_cohort(bids, out, model, TARGET, job=again)
        assert again.subjects == ["sub-02"]
        assert [result.status for result in results] == ["skipped", "done", "skipped"]
        assert [row["status"] for row in table_of(out).values()] == ["skipped", "done", "skipped"]

        forced = Recorder()
        run_cohort(bids, out, model, TARGET, force=True, job=forced)
        assert forced.subjects == ["sub-01", "sub-02", "sub-03"]

    def test_runs_beside_each_other_share_a_table(self, bids, model, tmp_path):
        """As the jobs of an array do, one subject each."""
        out = tmp_path / "out"

        def beside(*given, **options):
            run_cohort(bids, out, model, TARGET, participants=["02"], job=Recorder())
            Recorder()(*given, **options)

        run_cohort(bids, out, model, TARGET, participants=["01"], job=beside)
        assert [*table_of(out)] == ["sub-01", "sub-02"]
        assert not list(out.glob("*.lock"))

    def test_what_was_made_otherwise_is_neither_finished_nor_replaced(self, bids, model, tmp_path):
        stem = f"{bids}/sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st"
        out = tmp_path / "out"

        def run(**options):
            [result] = run_cohort(bids, out, model, TARGET, participants=["01"], **options)
            return result

        assert run().status == "done"
        # Numbers hang neither on the device nor on tiles.
        assert run(device="cpu", tile=40, workers=1).status == "skipped"
        dwi, bvec, mask = (
            Path(stem + each) for each in ("_dwi.nii.gz", "_dwi.bvec", "_mask.nii.gz")
        )

        def spoil(path):
            image = nib.load(path)
            voxels = np.asarray(image.dataobj).copy()
            voxels[4, 4, 4] = 0
            nib.save(nib.Nifti1Image(voxels, image.affine), path)

        def train_anew(path):
            trained = load_model(path)
            card = trained.card.model_copy(update={"label": "x"})
            save_model(path, Model(card, trained.network))

        for path, change, how in (
            (dwi, spoil, "from another image"),
            (bvec, lambda path: np.savetxt(path, np.loadtxt(path)[[0, 2, 1]]), "gradient table"),
            (mask, spoil, "from another mask"),
            (model, train_anew, "by another model (model.safetensors)"),
        ):
            kept = path.read_bytes()
            change(path)
            stale = run()
            assert stale.status == "failed"
            assert "exists already, made " in stale.message()
            assert f"{how}; make it again with force=True" in stale.message()
            path.write_bytes(kept)
            assert run().status == "skipped", how
        assert "with other options (Resample, Lattice)" in run(resample=True).message()
        assert run(resample=True, force=True).status == "done"
        assert run(resample=True).status == "skipped"

    def test_targets_have_rows_of_their_own_and_only_those_left_are_asked_for(
        self, bids, model_of_two, tmp_path
    ):
        out = tmp_path / "out"

        def run(target, job):
            [result] = run_cohort(bids, out, model_of_two, target, participants=["01"], job=job)
            rows = [line.split("\t") for line in (out / "cohort.tsv").read_text().splitlines()[1:]]
            assert all(row[4] == "0.0" for row in rows if row[3] == "skipped")
            return result.status, {row[2]: (row[3], row[5]) for row in rows}

        assert run(TARGET, Recorder()) == ("done", {TARGET: ("done", "n/a")})
        odd = Recorder({"sub-01": UserError("odd")})
        expected = {TARGET: ("skipped", "n/a"), SECOND: ("failed", "odd")}
        assert run([TARGET, SECOND], odd) == ("failed", expected)
        assert [call[2] for call in odd.calls] == [(SECOND,)]
        # A target alone leaves what became of the other.
        result = CohortResult(
            "sub-01", "a", ("x", "y"), "done", 2.0, earlier={"x": (Doubt("odd"),)}
        )
        assert [result.on(each).seconds for each in ("x", "y")] == [0.0, 2.0]
        job = Recorder()
        assert run(SECOND, job) == ("done", expected | {SECOND: ("done", "n/a")})
        assert run(SECOND, job)[1][SECOND] == ("skipped", "n/a")
        assert len(summarise_cohort(out).skipped) == 2

    def test_an_image_that_is_gone_is_not_finished(self, bids, model, tmp_path):
        out = tmp_path / "out"
        run_cohort(bids, out, model, TARGET, job=Recorder())
        next(out.glob("sub-03/**/*.nii.gz")).unlink()
        job = Recorder()
        run_cohort(bids, out, model, TARGET, job=job)
        assert job.subjects == ["sub-03"]

    def test_the_platform_is_chosen_among_several(self, bids, model, tmp_path):
        """The model's input platform, unless another one is asked for."""
        folder = bids / "sub-01/ses-philips/dwi"
        folder.mkdir(parents=True)
        (folder / "sub-01_ses-philips_acq-st_dwi.nii.gz").write_bytes(b"")
        job = Recorder()
        run_cohort(bids, tmp_path / "a", model, TARGET, participants=["01"], job=job)
        assert job.calls[0][0].parent.parent.name == "ses-ge"

        job = Recorder()
        results = run_cohort(bids, tmp_path / "b", model, TARGET, platform="philips_st", job=job)
        assert job.calls[0][0].parent == folder
        assert [result.status for result in results] == ["done", "failed", "failed"]
        assert "no DWI on philips_st" in results[1].message()

    def test_what_no_scan_can_have_is_refused_at_once(self, bids, model, tmp_path):
        out = tmp_path / "out"
        with pytest.raises(UserError) as refusal:
            run_cohort(bids, out, model, TARGET, platform="nowhere", job=Recorder())
        assert refusal.value.field == "platform"
        with pytest.raises(UserError) as refusal:
            run_cohort(bids, out, model, TARGET, gradients=str(tmp_path / "gone.bvec"))
        assert refusal.value.field == "gradients"
        assert not out.exists()

    def test_nothing_is_written_among_the_scans(self, bids, model):
        (bids / "dataset_description.json").write_text("{}")
        before, job = sorted(bids.rglob("*")), Recorder()
        for out in (bids, bids / "sub-01", bids / "sub-01/ses-ge/new"):
            with pytest.raises(UserError, match="contains the scans to be harmon") as refusal:
                run_cohort(bids, out, model, TARGET, job=job)
            assert refusal.value.field == "out_dir"
            scan = next(bids.rglob("*_dwi.nii.gz"))
            with pytest.raises(UserError, match="contains the scans to be harmon"):
                harmonize_to_folder(scan, model, [TARGET], out)
        assert (sorted(bids.rglob("*")), job.calls) == (before, [])
        run_cohort(bids, bids / "derivatives/msp", model, TARGET, participants=["01"], job=job)

    def test_a_packaged_model_goes_by_its_name(self, bids, tmp_path):
        job = Recorder()
        with pytest.warns(NotForScans, match="for simulated heads only"):
            run_cohort(bids, tmp_path, "msp-teaching", "prisma_st", participants=["01"], job=job)
        assert job.calls[0][1] == packaged_model("MSP").resolve()

    def test_what_another_run_finished_meanwhile_is_no_failure(self, bids, model, tmp_path):
        made = Recorder()

        def later(*scan, **options):
            made(*scan, **options)
            raise UserError("exists already", scan[0], remedy=Overwrite())

        for force, status in ((False, "skipped"), (True, "failed")):
            options: dict[str, Any] = {"job": later, "force": force, "participants": ["01"]}
            [result] = run_cohort(bids, tmp_path / "out", model, TARGET, **options)
            assert result.status == status

    def test_what_cannot_be_read_again_stops_nobody_else(self, bids, model, tmp_path, monkeypatch):
        asked: list[Path] = []

        def unfinished(task):
            asked.append(task.dwi)
            if asked.count(task.dwi) > 1:
                raise PermissionError("denied")
            return task.targets

        monkeypatch.setattr("napari_msp.cohort.jobs.unfinished", unfinished)
        occupied = UserError("exists already", "an image", remedy=Overwrite())
        job = Recorder({"sub-01": occupied, "sub-03": OSError("gone")})
        results = run_cohort(bids, tmp_path, model, TARGET, job=job)
        told = {each.subject: each.message() for each in results if each.scan}
        assert "exists already" in told["sub-01"]
        assert "gone" in told["sub-03"]
        assert [path.name[:6] for path in asked if "sub-02" not in path.name] == [
            "sub-01", "sub-01", "sub-03",
        ]  # fmt: skip

    def test_sessions_narrow_the_choice(self, bids, model, tmp_path):
        folder = bids / "sub-01/ses-philips/dwi"
        folder.mkdir(parents=True)
        (folder / "sub-01_ses-philips_acq-st_dwi.nii.gz").write_bytes(b"")
        job = Recorder()
        out = tmp_path / "out"
        asked: dict[str, Any] = {
            "participants": ["01"],
            "sessions": ["ses-philips"],
            "platform": "philips_st",
        }
        run_cohort(bids, out, model, TARGET, **asked, job=job)
        assert job.calls[0][0].parent == folder
        with pytest.raises(UserError) as refusal:
            run_cohort(bids, out, model, TARGET, sessions=["nowhere"], job=job)
        assert refusal.value.field == "sessions"

    def test_reasons_are_said_in_words_of_every_front_end(self, bids, model, tmp_path):
        out = tmp_path / "out"
        remedy = either(Overwrite(), RunJob("cohort", "begin again"))
        job = Recorder({"sub-02": UserError("is there", remedy=remedy)})
        (_, result, _) = run_cohort(bids, out, model, TARGET, job=job)
        said = table_of(out)["sub-02"]["message"]
        assert said == "is there; begin again with `napari-msp cohort`"
        assert "replace it with force=True, or" in result.message()

    def test_scans_without_session(self, tmp_path, model, scan):
        folder = tmp_path / "bids/sub-7/dwi"
        folder.mkdir(parents=True)
        scan().write(folder, stem="sub-7")
        job = Recorder()
        run_cohort(tmp_path / "bids", tmp_path / "out", model, TARGET, job=job)
        assert job.calls[0][3] == tmp_path / "out/sub-7/dwi"

    def test_all_targets_are_the_models(self, bids, model, tmp_path):
        job = Recorder()
        run_cohort(bids, tmp_path / "out", model, "all", participants=["01"], job=job)
        assert job.calls[0][2] == (TARGET,)

    def test_cancelling_keeps_what_is_finished(self, bids, model, tmp_path):
        job = Recorder()
        with pytest.raises(Cancelled):
            run_cohort(
                bids, tmp_path / "out", model, TARGET, cancelled=lambda: bool(job.calls), job=job
            )
        assert job.subjects == ["sub-01"]
        assert list(table_of(tmp_path / "out")) == ["sub-01"]

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            ({"participants": ["04"]}, ["bids", "has no sub-04"]),
            ({"workers": 0}, ["workers=: 0 is too few"]),
            ({"model": Path("nowhere.safetensors")}, ["nowhere.safetensors", "no such file"]),
            ({"bids_dir": Path("nowhere")}, ["nowhere", "no such folder"]),
        ],
    )
    def test_refusals(self, bids, model, tmp_path, change, parts):
        job = Recorder()
        arguments = {
            "bids_dir": bids,
            "out_dir": tmp_path / "out",
            "model": model,
            "target": TARGET,
        } | change
        with pytest.raises(UserError) as refusal:
            run_cohort(**arguments, job=job)
        assert re.search(message(*parts), refusal.value.phrase())
        assert job.calls == []
        assert not (tmp_path / "out").exists()


class TestForReal:
    def test_the_files_are_those_of_harmonize(self, bids, model, tmp_path, monkeypatch):
        read = []

        def counted(path):
            read.append(path)
            return load_model(path)

        monkeypatch.setattr("napari_msp.model_file.load_model", counted)
        out = tmp_path / "out"
        results = run_cohort(bids, out, model, TARGET)
        assert read == [model]  # not for every scan
        assert [result.status for result in results] == ["done", "failed", "done"]
        assert "standard deviations from the training subjects" in results[0].message()  # a warning
        assert re.search(message("sub-02_ses-ge_acq-st_dwi.bvec", "missing"), results[1].message())

        dwi = bids / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
        with pytest.warns(UserWarning, match="standard deviations from the training"):
            [alone] = harmonize_to_folder(dwi, load_model(model), [TARGET], tmp_path / "alone")
        written = out / "sub-01/ses-ge/dwi" / alone.name
        np.testing.assert_array_equal(nib.load(written).get_fdata(), nib.load(alone).get_fdata())
        # One derivative dataset: described at its root.
        assert [path.parent for path in out.rglob("dataset_description.json")] == [out]
        assert not list(out.glob("sub-02/**/*.nii.gz"))

        again = run_cohort(bids, out, model, TARGET)
        assert [result.status for result in again] == ["skipped", "failed", "skipped"]
        assert [result.message() for result in again] == [result.message() for result in results]

        bval = Path(str(written).replace(".nii.gz", ".bval"))
        bval.unlink()
        again = run_cohort(bids, out, model, TARGET, participants=["01"])
        assert (again[0].status, bval.exists()) == ("done", True)
        whole = written.read_bytes()
        written.write_bytes(whole[: len(whole) // 2])  # a copy that broke off
        again = run_cohort(bids, out, model, TARGET, participants=["01"])
        assert again[0].message() == (
            f"{written}: is not as large as when it was written; make it again with force=True"
        )
        assert len(written.read_bytes()) == len(whole) // 2

        trained = load_model(model)
        card = trained.card.model_copy(update={"label": "trained anew"})
        save_model(model, Model(card, trained.network))
        run_cohort(bids, out, model, TARGET, participants=["01"], force=True)
        assert read == [model, model]
        sidecar = json.loads(Path(str(written).replace(".nii.gz", ".json")).read_text())
        assert Provenance.from_sidecar(sidecar).model_sha256 == sha256(model)


def test_a_worker_that_comes_after_the_check_is_looked_at(monkeypatch):
    there = iter([["first"], ["first", "second"]])
    looked_at = []

    def troubles(self: Cluster, workers: list[str]) -> list[UserError]:
        looked_at.append(workers)
        return []

    monkeypatch.setattr(Cluster, "_who_works", lambda self: next(there))
    monkeypatch.setattr(Cluster, "_troubles", troubles)
    cluster = Cluster(SimpleNamespace(dashboard_link=""), "tcp://somewhere", (), print)
    cluster.check()
    cluster.introduce()
    cluster._look()
    assert looked_at == [["first"], ["second"]]


@pytest.mark.slow
class TestOnDask:
    def test_processes_of_its_own(self, bids, model, tmp_path):
        pytest.importorskip("distributed")
        out, said = tmp_path / "out", list[str]()
        with socket.socket() as usual:
            with suppress(OSError):  # somebody has Dask's usual port for its dashboard already
                usual.bind(("127.0.0.1", 8787))
                usual.listen()
            results = run_cohort(bids, out, model, TARGET, workers=2, tell=said.append)
        (line,) = said
        watch = "dashboard http://127.0.0.1:" if find_spec("bokeh") else "no dashboard"
        assert re.match(rf"Dask scheduler tcp://\S+: 2 workers; {watch}", line)
        assert [result.status for result in results] == ["done", "failed", "done"]
        assert "is missing" in results[1].message()
        assert len(list(out.glob("sub-*/ses-ge/dwi/*Shresnet_dwi.nii.gz"))) == 2
        assert [row["status"] for row in table_of(out).values()] == ["done", "failed", "done"]

    def test_its_processes_share_the_memory_and_use_it_again(self, bids, model, tmp_path):
        pytest.importorskip("distributed")
        out, free = tmp_path / "out", free_memory() / 2**30
        run_cohort(bids, out, model, TARGET, workers=2, job=means)
        found = [json.loads(path.read_text()) for path in out.rglob("means.json")]
        assert len(found) == 3
        for each in found:
            assert 0 < each["memory"] < 0.3 * free  # a quarter, were none taken
            assert not each["profiled"]
            if sys.platform == "linux":  # other C libraries are left as they are
                assert each["MiB cleared"] < 24  # 64 as Dask starts workers

    def test_a_running_scheduler(self, bids, model, tmp_path):
        distributed = pytest.importorskip("distributed")
        threads = set()

        def job(dwi, model, targets, out, **options):
            threads.add(threading.get_ident())
            if "sub-03" in dwi.name:
                raise UserError("odd")

        with distributed.LocalCluster(
            n_workers=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster:
            results = run_cohort(
                bids, tmp_path / "out", model, TARGET, scheduler=cluster.scheduler_address, job=job
            )
        assert [result.status for result in results] == ["done", "done", "failed"]
        assert threading.get_ident() not in threads


class TestChosenScans:
    """What is no scan of its own, and scans that were repeated, in the datasets of others."""

    @pytest.fixture
    def write(self, tmp_path, scan):
        made = scan(np.diag([2.4, 2.4, 2.4, 1.0]), 30)

        def write(*stems):
            for stem in stems:
                path = tmp_path / "bids" / stem
                path.parent.mkdir(parents=True, exist_ok=True)
                made.write(path.parent, stem=path.name)
            return tmp_path / "bids"

        return write

    def chosen(self, root, model, tmp_path, **options):
        job = Recorder()
        results = run_cohort(root, tmp_path / "out", model, TARGET, job=job, **options)
        return [call[0].relative_to(root).name for call in job.calls], results

    def test_the_reversed_b0_is_passed_over_and_told_of(self, write, model, tmp_path):
        root = write("sub-1/dwi/sub-1_dir-AP", "sub-1/dwi/sub-1_dir-PA")
        reversed_ = root / "sub-1/dwi/sub-1_dir-PA_dwi.nii.gz"
        nib.save(nib.load(reversed_).slicer[..., :2], reversed_)
        (root / "sub-1/dwi/sub-1_dir-PA_dwi.bval").write_text("0 0")
        with pytest.warns(UserWarning, match="dir-PA_dwi.nii.gz: left out, as it has only b=0"):
            assert self.chosen(root, model, tmp_path)[0] == ["sub-1_dir-AP_dwi.nii.gz"]

    def test_runs_are_chosen(self, write, model, tmp_path):
        root = write("sub-1/dwi/sub-1_run-1", "sub-1/dwi/sub-1_run-2", "sub-2/dwi/sub-2")
        names, results = self.chosen(root, model, tmp_path)
        assert names == ["sub-2_dwi.nii.gz"]
        assert results[0].reason is not None
        assert results[0].reason.field == "run"
        assert "scanned 2 times" in results[0].message()
        with pytest.warns(UserWarning, match="is not run 2"):
            names, _ = self.chosen(root, model, tmp_path, run=2, force=True)
        assert names == ["sub-1_run-2_dwi.nii.gz", "sub-2_dwi.nii.gz"]

    def test_derivatives_of_a_pipeline(self, write, model, tmp_path):
        stem = "sub-1/ses-x/dwi/sub-1_ses-x_space-ACPC"
        root = write(f"{stem}_desc-preproc", f"{stem}_desc-denoised")
        with pytest.warns(UserWarning, match="another version"):
            names, _ = self.chosen(root, model, tmp_path)
        assert names == ["sub-1_ses-x_space-ACPC_desc-preproc_dwi.nii.gz"]

    def test_a_dataset_without_the_models_platform_says_what_there_is(self, write, model, tmp_path):
        root = write("sub-1/ses-01/dwi/sub-1_ses-01", "sub-1/ses-02/dwi/sub-1_ses-02")
        with pytest.raises(UserError, match="has no scan on ge_st; choose from 01, 02") as error:
            self.chosen(root, model, tmp_path)
        assert error.value.field == "platform"
        names, _ = self.chosen(root, model, tmp_path, platform="02")
        assert names == ["sub-1_ses-02_dwi.nii.gz"]


class TestGroup:
    """What became of everybody, as the level `group` says."""

    TABLE = (
        "participant_id\tscan\ttarget\tstatus\tseconds\tmessage\n"
        "sub-01\ta\tx\tdone\t1.0\tn/a\n"
        "sub-02\tb\tx\tdone\t1.0\tits mean signal is odd\n"
        "sub-03\tc\tx\tfailed\t0.0\thas no bvec\n"
        "sub-04\td\tx\tskipped\t0.0\tn/a\n"
        "sub-05\td\tx\tskipped\t0.0\tits mask is odd\n"
    )

    def test_it_counts_and_names_who_wants_a_look(self, tmp_path):
        (tmp_path / "cohort.tsv").write_text(self.TABLE)
        summary = summarise_cohort(tmp_path)
        assert list(summary.lines()) == [
            "2 subjects harmonized, 2 finished earlier, 1 failed; 2 with a warning",
            "sub-03 failed: has no bvec",
            "sub-02 warning: its mean signal is odd",
            "sub-05 warning: its mask is odd",
        ]

    def test_of_a_thousand_it_names_the_first(self, tmp_path):
        rows = [f"sub-{number:04d}\ta\tx\tfailed\t0.0\todd" for number in range(1000)]
        head, *_ = self.TABLE.splitlines()
        (tmp_path / "cohort.tsv").write_text("\n".join([head, *rows]))
        counts, *named, last = summarise_cohort(tmp_path).lines()
        assert "1000 failed" in counts
        assert named == [f"sub-{number:04d} failed: odd" for number in range(20)]
        assert last == "and 980 more failed: see cohort.tsv"

    def test_of_several_targets_it_counts_predictions(self, tmp_path):
        text = self.TABLE + 'sub-03\tc\ty\tdone\t1.0\t"quoted" is a word\n'
        (tmp_path / "cohort.tsv").write_text(text)
        first, *others = summarise_cohort(tmp_path).lines()
        assert first.startswith("3 predictions harmonized, 2 finished earlier, 1 failed")
        assert 'sub-03 (y) warning: "quoted" is a word' in others

    def test_a_cohort_that_was_run(self, bids, model, tmp_path):
        out = tmp_path / "out"
        run_cohort(bids, out, model, TARGET, participants=["01"], job=Recorder())
        assert list(summarise_cohort(out).done) == ["sub-01"]

    def test_what_earlier_runs_say_of_others_stays(self, bids, model, tmp_path):
        out = tmp_path / "out"
        for participant in ("03", "02", "01"):
            run_cohort(bids, out, model, TARGET, participants=[participant], job=Recorder())
        assert list(table_of(out)) == ["sub-01", "sub-02", "sub-03"]
        assert list(summarise_cohort(out).done) == ["sub-01", "sub-02", "sub-03"]
        (out / "cohort.tsv").write_text("no table")
        with pytest.warns(UserWarning, match="is not a table of a cohort, and is replaced"):
            run_cohort(bids, out, model, TARGET, participants=["01"], job=Recorder())
        assert list(table_of(out)) == ["sub-01"]

    def test_a_second_session_leaves_what_became_of_the_first(self, bids, model, tmp_path):
        """A failure of the first is not hidden by the second, which goes into the same folder."""
        out = tmp_path / "out"
        header, *_ = self.TABLE.splitlines()
        out.mkdir()
        pre, ge = (f"sub-01/ses-{s}/dwi/sub-01_ses-{s}{a}_dwi.nii.gz" for s, a in OF_SUB_01)
        rows = [f"sub-01\t{each}\t{TARGET}\tfailed\t0.0\tno bvec" for each in (pre, ge)]
        rows += [f"sub-02\tn/a\t{TARGET}\tfailed\t0.0\thas no DWI"]
        (out / "cohort.tsv").write_text("\n".join([header, *rows]) + "\n")
        run_cohort(bids, out, model, TARGET, job=Recorder())
        lines = [line.split("\t") for line in (out / "cohort.tsv").read_text().splitlines()[1:]]
        assert [line[0] for line in lines] == 2 * ["sub-01"] + ["sub-02", "sub-03"]
        summary = summarise_cohort(out)
        assert summary.failed == {f"sub-01 ({Path(pre).name})": "no bvec"}
        assert next(summary.lines()).startswith("3 scans harmonized, 0 finished earlier, 1 failed")

    @pytest.mark.parametrize("text", ["", "a\tb\n1\t2\n", "x\ny\n", TABLE.replace("done", "odd")])
    def test_a_table_that_is_none(self, text, tmp_path):
        (tmp_path / "cohort.tsv").write_text(text)
        if text == "":  # nobody was harmonized: nothing is wrong with that
            assert summarise_cohort(tmp_path).done == {}
            return
        with pytest.raises(UserError, match="is not a table of a cohort") as error:
            summarise_cohort(tmp_path)
        assert error.value.field == "out_dir"

    def test_no_table(self, tmp_path):
        with pytest.raises(UserError, match="run_cohort"):
            summarise_cohort(tmp_path)

    def test_on_the_command_line(self, tmp_path, capsys):
        (tmp_path / "cohort.tsv").write_text(self.TABLE)
        assert main(["cohort", str(tmp_path), str(tmp_path), "group"]) == 1
        assert "1 failed" in capsys.readouterr().out

    def test_participants_need_a_model(self, tmp_path, capsys):
        assert main(["cohort", str(tmp_path), str(tmp_path), "participant"]) == 2
        assert "--model" in capsys.readouterr().err


def test_the_screen_says_what_is_doubtful_of_each_subject(bids, model, tmp_path, capsys):
    whose = ["--participant-label", "01", "03"]
    how = ["--model", str(model), "--target", TARGET]
    status = main(["cohort", str(bids), str(tmp_path / "out"), "participant", *how, *whose])
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert status == 0
    assert len(said) == 2
    for subject, line in zip(("sub-01", "sub-03"), said, strict=True):
        scan = f"{subject}/ses-ge/dwi/{subject}_ses-ge_acq-st_dwi.nii.gz"
        assert line.startswith(f"napari-msp: warning: {scan}: ")
        assert "standard deviations from the training subjects" in line
        assert str(bids) not in line  # the scan is named once
