"""Every command on scans of two shells: all of them, or those that `--shell` names."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import SCAN, SHORT, STEM, TRUTH, call, contents, refused

from napari_msp.model_file import load_model
from napari_msp.scan_sources import load_scan


@pytest.fixture(scope="module")
def heads(tmp_path_factory, make_heads) -> Path:
    """Three small heads of two shells."""
    root = tmp_path_factory.mktemp("both") / "heads"
    return make_heads(root, shape=(9, 8, 7), b_values=(1200.0, 3000.0))


@pytest.fixture(scope="module")
def joint(tmp_path_factory, heads) -> Path:
    """An MSP that takes both shells at once, with sub-02 and sub-03 held out."""
    path = tmp_path_factory.mktemp("joint") / "msp.safetensors"
    held_out = ("--held-out", "sub-02", "sub-03")
    answer = call("train", heads, path, "--trunk", "all", *held_out, *SHORT)
    assert answer.status == 0, answer
    return path


def names(shell: int, what: str = "coefficients", end: str = "") -> str:
    return f"{STEM}{end}B{shell}_model-sh_param-{what}_dwimap.nii.gz"


def test_training_takes_all_shells_or_those_named(heads, joint, tmp_path):
    assert load_model(joint).card.sh.b_values == (1200, 3000)
    short = ("--model", "shresnet", "--targets", "prisma_st", *SHORT)
    for asked, expected in (((3000,), (3000,)), ((3000, 1200), (1200, 3000))):
        out = tmp_path / f"{len(asked)}.safetensors"
        assert call("train", heads, out, *short, "--shell", *asked).status == 0
        model = load_model(out)
        assert model.card.sh.b_values == expected
    for wrong in ((1200, 2000), ("nan",), (1200, 1200), ("many",)):
        said = refused(
            tmp_path, "train", heads, tmp_path / "x.safetensors", *short, "--shell", *wrong
        )
        assert "--shell" in said


def test_harmonize_writes_all_shells(heads, joint, tmp_path):
    model = ("--model", joint, "--target", "prisma_st")
    answer = call("harmonize", heads / SCAN, *model, "--out", tmp_path / "out")
    assert answer.status == 0, answer
    files = contents(tmp_path / "out")
    for shell in (1200, 3000):
        assert {names(shell), names(shell, end="FirstStage")} <= set(files)
        assert {names(shell, "disagreement"), names(shell, "disagreement0")} <= set(files)
        assert load_scan(tmp_path / "out" / names(shell)).b_value == shell
    table = np.loadtxt(tmp_path / "out" / f"{STEM}_dwi.bval")
    assert list(np.unique(table)) == [0, 1200, 3000]
    assert nib.load(tmp_path / "out" / f"{STEM}_dwi.nii.gz").shape[3] == 61
    again = ("harmonize", heads / SCAN, *model)
    assert "--force" in refused(tmp_path, *again, "--out", tmp_path / "out")
    for asked in ((1200,), (1200, 2000)):
        refused(tmp_path, *again, "--out", tmp_path / "no", "--shell", *asked)
    chosen = call(*again, "--out", tmp_path / "both", "--shell", 3000, 1200)
    assert chosen.status == 0
    written = contents(tmp_path / "both")
    assert written.keys() == files.keys()
    for name, content in written.items():
        if name.endswith(".json"):  # says what was asked for
            one, other = json.loads(content), json.loads(files[name])
            for notes, shells in ((one, [1200, 3000]), (other, None)):
                assert notes.get("Options", {}).pop("BValues", shells) == shells
            assert one == other
        else:
            assert content == files[name]


def test_a_model_of_one_shell_takes_its_own_and_says_what_it_leaves(heads, tmp_path):
    path = tmp_path / "one.safetensors"
    short = ("--model", "shresnet", "--targets", "prisma_st", *SHORT)
    assert call("train", heads, path, *short, "--shell", 1200).status == 0
    run = ("harmonize", heads / SCAN, "--model", path, "--target", "prisma_st", "--out")
    answer = call(*run, tmp_path / "out")
    assert answer.status == 0
    assert "b = 3000 of the scan is not predicted (the model knows b = 1200)" in " ".join(
        answer.warnings
    )
    (sidecar,) = (tmp_path / "out").glob("*_dwi.json")
    assert "b = 3000 of the scan is not predicted" in sidecar.read_text()
    said = refused(tmp_path, *run, tmp_path / "no", "--shell", 3000)
    assert "the model was trained at 1200" in said
    assert "--b-value rescale" in said
    answer = call(*run, tmp_path / "r", "--shell", 3000, "--b-value", "rescale")
    assert answer.status == 0
    assert "signal of b = 3000 rescaled to 1200 s/mm²" in " ".join(answer.warnings)


def test_a_cohort_gets_all_shells(heads, joint, tmp_path):
    answer = call(
        *("cohort", heads, tmp_path / "out", "participant", "--model", joint),
        *("--target", "prisma_st", "--participant-label", "03"),
    )
    assert answer.status == 0, answer
    found = [path.name for path in (tmp_path / "out").rglob("*param-coefficients_dwimap.nii.gz")]
    assert {names(1200), names(3000)} <= set(found)


def test_maps_are_written_by_shell(heads, tmp_path):
    def written():
        return {name: each for name, each in contents(tmp_path).items() if "dwimap" in name}

    assert call("maps", heads / SCAN, "--out", tmp_path).status == 0
    every = written()
    assert call("maps", heads / SCAN, "--out", tmp_path, "--shell", 3000, "--force").status == 0
    alone = written()  # those of both shells are gone
    assert len(every) == 2 * len(alone)
    for name, content in alone.items():
        assert every[name.replace("_model", "_desc-b3000_model")] == content


@pytest.mark.slow
def test_errors_are_expected_evaluated_and_compared_by_shell(heads, joint, tmp_path):
    calibrated = tmp_path / "c.safetensors"
    answer = call("calibrate", joint, heads, "--out", calibrated, "--subjects", "sub-02")
    assert answer.status == 0, answer
    assert set(load_model(calibrated).card.expected_error) == {
        f"{target} b{shell}" for target in ("prisma_st", "connectom_sa") for shell in (1200, 3000)
    }
    out = tmp_path / "out"
    run = ("harmonize", heads / SCAN, "--model", calibrated, "--target", "prisma_st")
    assert call(*run, "--out", out).status == 0
    expected = [nib.load(out / names(b, "expectederror")).get_fdata() for b in (1200, 3000)]
    assert (expected[0] != expected[1]).any()

    evaluate = ("evaluate", heads, "--models", joint, "--test", "sub-03")
    for out_of, asked in (("all", ()), ("one", ("--shell", 3000))):
        answer = call(*evaluate, "--out", tmp_path / out_of, *asked)
        assert answer.status == 0, answer
    both, alone = (
        list(csv.DictReader((tmp_path / each / "table1.csv").read_text().splitlines()))
        for each in ("all", "one")
    )
    assert {row["shell"] for row in both} == {"1200", "3000"}
    assert [row for row in both if row.pop("shell") == "3000"] == alone

    pair = ("--prediction", f"A={out / names(3000)}", "--input", heads / SCAN)
    compare = ("compare", "--truth", heads / TRUTH, *pair)
    assert call(*compare, "--out", tmp_path / "compared", "--shell", 3000).status == 0
    answer = call(*compare, "--out", tmp_path / "alike")  # what the prediction has
    assert answer.status == 0
    assert any("b = 1200 of" in each for each in answer.warnings)
    said = refused(tmp_path, *compare, "--out", tmp_path / "no", "--shell", 1200)
    assert "b = 3000" in said

    metrics = json.loads((tmp_path / "compared" / "metrics.json").read_text())
    truth, found = (load_scan(path, 3000).sh for path in (heads / TRUTH, out / names(3000)))
    inside = truth.mask & found.mask
    by_hand = np.square(truth.coefficients[inside] - found.coefficients[inside]).mean()
    assert metrics["predictions"]["A"]["sh_mse"] == pytest.approx(by_hand, rel=1e-4)


def test_shells_are_compared_each(heads, joint, tmp_path):
    out = tmp_path / "out"
    run = ("harmonize", heads / SCAN, "--model", joint, "--target", "prisma_st")
    assert call(*run, "--out", out).status == 0
    images = [f"SH={out / names(shell)}" for shell in (1200, 3000)]
    images.append(f"DWI={out / f'{STEM}_dwi.nii.gz'}")
    compare = ["compare", "--truth", heads / TRUTH, "--input", heads / SCAN]
    for image in images:
        compare += ["--prediction", image]
    answer = call(*compare, "--out", tmp_path / "compared")
    assert answer.status == 0, answer
    figures = {f"figure3_b{shell}.png" for shell in (1200, 3000)}
    assert set(contents(tmp_path / "compared")) == {*figures, "metrics.json", "numbers.csv"}
    metrics = json.loads((tmp_path / "compared" / "metrics.json").read_text())["shells"]
    for shell in (1200, 3000):
        truth, found = (load_scan(path, shell).sh for path in (heads / TRUTH, out / names(shell)))
        inside = truth.mask & found.mask
        by_hand = np.square(truth.coefficients[inside] - found.coefficients[inside]).mean()
        said = metrics[str(shell)]["predictions"]
        assert said["SH"]["sh_mse"] == pytest.approx(by_hand, rel=1e-4)
    assert "--shell" in refused(tmp_path, *compare, "--out", tmp_path / "no", "--shell", 700)
