"""What a user gives wrongly is one line, and nothing is written."""

import contextlib
import io
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import SCAN, SHORT, TRUTH, call, refused

from napari_msp.cli import main


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--target", "nowhere"], "choose from connectom_sa, prisma_st"),
        (["--device", "abacus"], "--device: there is no device 'abacus'"),
        (["--device", "cpu:x"], "--device: there is no device 'cpu:x'"),
        (["--device", ""], "--device"),
        (["--gradients", "nowhere.bvec"], "--gradients: nowhere.bvec"),
        (["--gradients", ""], "--gradients"),
        (["--gradients", "/"], "--gradients: /"),
        (["--mask", "nowhere.nii.gz"], "nowhere.nii.gz"),
        (["--bval", "nowhere.bval"], "--bval"),
        (["--bvec", "nowhere.bvec"], "--bvec"),
    ],
)
def test_bad_options_of_harmonize(options, complaint, study, model, tmp_path):
    fixed = ["--model", model, "--target", "prisma_st", "--out", tmp_path / "out"]
    assert complaint in refused(tmp_path, "harmonize", study / SCAN, *fixed, *options)


def test_an_empty_path_is_not_this_folder(tmp_path, monkeypatch, capsys):
    """As an unset variable of a shell leaves."""
    monkeypatch.chdir(tmp_path)
    scan = ["harmonize", "a.nii.gz", "--out", "out", "--target", "ge_st"]
    rest = ["heads", "--out", "out"]
    for name, arguments in {
        "--out": ["maps", "a.nii.gz", "--out", ""],
        "DWI": ["maps", "", "--out", "out"],
        "--model": [*scan, "--model", " "],
        "--models": ["evaluate", *rest, "--models", "m.safetensors", ""],
        "--regions": ["evaluate", *rest, "--regions="],
        "--start-from": ["train", "heads", "m.safetensors", "--start-from", ""],
        "--input": ["train", "heads", "m.safetensors", "--input", ""],
    }.items():
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert f"argument {name}: must not be empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/nowhere"])
def test_out_that_cannot_be_written(out, study, model, tmp_path):
    (tmp_path / "file").write_text("mine")
    scan, folder = study / SCAN, tmp_path / out
    sh = ("--model", model, "--target", "prisma_st", "--out", folder)
    for arguments in (
        ("harmonize", scan, *sh),
        ("maps", scan, "--out", folder),
        ("train", study, folder / "m.safetensors", "--model", "shresnet", *SHORT),
        ("cohort", study, folder, "participant", *sh[:-2]),
    ):
        assert str(folder) in refused(tmp_path, *arguments)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--held-out", "sub-09"], "no subject sub-09"),
        (["--held-out", "sub-01", "sub-02", "sub-03"], "use fewer --held-out"),
        (["--targets", "nowhere"], "no platform nowhere"),
        (["--input", "ge_st", "--targets", "ge_st"], "ge_st is the input"),
        (["--input", "nowhere"], "has no scan on nowhere"),
        (["--steps", 5], "--epochs: the length is given in steps already"),
        (["--minutes", 2], "--minutes: the length is given in epochs already"),
        (["--patience", 2], "--patience: needs validation subjects"),
        (["--validation", "sub-09"], "choose from sub-01, sub-02, sub-03 with --validation"),
        (["--validation", "sub-01", "sub-02", "sub-03"], "use fewer --validation"),
        (["--validation", "sub-03", "--held-out", "sub-03"], "--validation: sub-03 cannot be held"),
        (["--device", "abacus"], "--device: there is no device 'abacus'"),
        (["--device", "cpu:7"], "--device: this machine has no cpu:7"),
        (["--first-stage", "prisma_st=diqt"], "msp"),
        (["--model", "msp", "--first-stage", "prisma_st=foo"], "--first-stage: "),
        (["--model", "msp", "--first-stage", "prisma_st"], "TARGET=KIND"),
        (["--model", "msp", "--first-stage", "ge_st=diqt"], "ge_st"),
        (["--resume"], "train from the start instead"),
        (["--shell", 3000], "1200"),
    ],
)
def test_bad_options_of_train(options, complaint, study, tmp_path):
    path = tmp_path / "m.safetensors"
    answer = refused(tmp_path, "train", study, path, "--model", "shresnet", *SHORT, *options)
    assert complaint in answer


def test_train_refuses_a_bad_name_at_once(study, tmp_path, monkeypatch):
    def too_late(*_: object) -> None:
        raise AssertionError("the dataset was loaded first")

    monkeypatch.setattr("napari_msp.learning.train.prepare_study", too_late)
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("m.pt", "folder.safetensors"):
        train = ("train", study, tmp_path / name, "--model", "shresnet", *SHORT)
        assert name in refused(tmp_path, *train)


def _shift(folder: Path, session: str, millimetres: float, stretch: float = 1.0) -> None:
    for path in folder.glob(f"*/ses-{session}/dwi/*.nii.gz"):
        image = nib.load(path)
        affine = image.affine @ np.diag([1, 1, stretch, 1])
        affine[:3, 3] += millimetres
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def _without_ge(folder: Path) -> None:
    for path in folder.glob("*/ses-ge"):
        shutil.rmtree(path)


def _rename_b(folder: Path, subject: str, b_value: str) -> None:
    for path in folder.glob(f"{subject}/ses-ge/dwi/*.bval"):
        path.write_text(path.read_text().replace("1200", b_value))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda study: _shift(study, "ge", 0, stretch=1.3), "import --voxel-size auto"),
        (lambda study: _shift(study, "prisma", 0, stretch=0.7), "whole number"),
        (lambda study: _shift(study, "prisma", 500), "its brain overlaps only 0 %"),
        (lambda study: next(study.glob("sub-01/ses-ge/dwi/*.bvec")).unlink(), "bvec"),
        (_without_ge, "ge_st"),
        (shutil.rmtree, "no such folder"),
    ],
)  # fmt: skip
def test_bad_dataset_is_one_line_of_train(spoil, complaint, copy_of_study, tmp_path):
    spoil(copy_of_study)
    path = tmp_path / "m.safetensors"
    train = ("train", copy_of_study, path, "--input", "ge_st", "--model", "shresnet", *SHORT)
    assert complaint in refused(tmp_path, *train)


def test_the_odd_b_value_is_blamed_not_the_others(study, tmp_path):
    shutil.copytree(study, tmp_path / "heads")
    _rename_b(tmp_path / "heads", "sub-02", "2000")
    path = tmp_path / "m.safetensors"
    train = ("train", tmp_path / "heads", path, "--model", "shresnet", *SHORT)
    assert "sub-02_ses-ge_acq-st_dwi.nii.gz: has b = 2000" in refused(tmp_path, *train)


def test_held_out_subject_without_input_is_said(study, tmp_path):
    shutil.copytree(study, tmp_path / "heads")
    shutil.rmtree(tmp_path / "heads/sub-03/ses-ge")
    path = tmp_path / "m.safetensors"
    train = ("train", tmp_path / "heads", path, "--model", "shresnet", *SHORT)
    assert "sub-03" in refused(tmp_path, *train, "--held-out", "sub-03")


@pytest.mark.parametrize("name", ["=", "=x.nii.gz", " =x.nii.gz", "A=", "x.nii.gz", "A=no.nii.gz"])
def test_bad_name_of_a_prediction(name, study, tmp_path):
    compare = ("compare", "--truth", study / TRUTH, "--prediction", name)
    refused(tmp_path, *compare, "--out", tmp_path / "out")


def test_models_that_a_table_cannot_tell_apart(study, model, tmp_path):
    shutil.copy(model, tmp_path / model.name)
    evaluate = ("evaluate", study, "--out", tmp_path / "out", "--models", model)
    assert "rename one" in refused(tmp_path, *evaluate, tmp_path / model.name)
    assert "trained on sub-01" in refused(tmp_path, *evaluate, "--subjects", "sub-01")
    shutil.copy(model, tmp_path / "MSP.safetensors")
    assert "a method" in refused(tmp_path, *evaluate, tmp_path / "MSP.safetensors")


def test_evaluate_trains_what_no_file_covers(study, model, tmp_path):
    quick = ("--quick", "--steps", 40, "--width", 0.1, "--crop", 6, "--batch", 1)
    asked = ["evaluate", study, "--methods", "IQT", "cpm", "--models", model, *quick]
    asked += ["--train", "sub-01", "--validation", "sub-02", "--workers", 1]
    answer = call(*asked, "--out", tmp_path / "table")
    # sub-02 is for validation here, but the model learned from it.
    assert (answer.status, answer.errors[0].count("was trained on sub-02")) == (2, 1)
    asked = [each for each in asked if each not in ("--models", model)]
    answer = call(*asked, "--out", tmp_path / "table")
    assert answer.status == 0, answer
    assert any("CPM" in line and " left" in line for line in answer.errors)
    table = (tmp_path / "table/table1.md").read_text()
    assert {"| IQT |", "| CPM |"} <= {
        line[: line.index("|", 2) + 1] for line in table.splitlines() if line.startswith("| ")
    }
    page = (tmp_path / "table/report.html").read_text()
    assert "napari-msp" in page and "sub-03" in page
    again = call(*asked, "--out", tmp_path / "table")
    assert again.status == 0
    # Nothing is trained or measured twice; figures and report are made of what was.
    done = [line.partition("] ")[2].partition(";")[0] for line in again.errors]
    assert done == ["drawing figures", "writing the report", "wrote the report"]
    other = (*asked, "--seeds", 3, "--out", tmp_path / "table")
    assert "other seeds" in refused(tmp_path, *other)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--target", "nowhere"], "choose from"),
        (["--target", "all", "--device", "abacus"], "--device: there is no device 'abacus'"),
        (["--target", "all", "--participants", "77"], "sub-77"),
    ],
)
def test_bad_options_of_cohort(options, complaint, study, model, tmp_path):
    cohort = ("cohort", study, tmp_path / "out", "participant", "--model", model)
    assert complaint in refused(tmp_path, *cohort, *options)


def test_simulate_and_import_keep_what_is_there(study, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "not empty" in refused(tmp_path, "simulate", tmp_path, "--size", "tiny")
    pattern = "{subject}/ses-{scanner}/dwi/{subject}_ses-{scanner}_acq-{protocol}_dwi.nii.gz"
    assert "not empty" in refused(tmp_path, "import", study, tmp_path, "--pattern", pattern)


def test_unknown_commands_and_options_are_two():
    for arguments in (["nonsense"], ["train"], ["maps", "x.nii.gz"], []):
        with pytest.raises(SystemExit) as stopped, contextlib.redirect_stderr(io.StringIO()):
            main(arguments)
        assert stopped.value.code == 2
