"""What each command writes."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import KINDS, SCAN, SHORT, STEM, TRUTH, call, contents, refused
from safetensors.torch import load_file

from napari_msp.model_file import load_model


def test_simulate_check_and_import(tmp_path):
    data, copy = tmp_path / "simulated", tmp_path / "imported"
    answer = call("simulate", data, "--subjects", 1, "--size", "tiny", "--no-twins")
    assert (answer.status, answer.stdout.strip()) == (0, str(data))
    for platform in ("ge_acq-st", "prisma_acq-st", "connectom_acq-st", "connectom_acq-sa"):
        session = platform.split("_")[0]
        stem = f"sub-01/ses-{session}/dwi/sub-01_ses-{platform}"
        for suffix in ("nii.gz", "bval", "bvec", "json"):
            assert (data / f"{stem}_dwi.{suffix}").exists()
        assert (data / f"derivatives/brainmask/{stem}_desc-brain_mask.nii.gz").exists()

    assert not (data / "sub-02").exists()
    assert [each.name for each in (data / "derivatives").iterdir()] == ["brainmask"]

    assert call("check", data).status == 0

    pattern = "{subject}/ses-{scanner}/dwi/{subject}_ses-{scanner}_acq-{protocol}_dwi.nii.gz"
    answer = call("import", data, copy, "--pattern", pattern)
    assert answer.status == 0
    assert len(answer.stdout.splitlines()) == 4
    name = "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"
    assert (copy / name).read_bytes() == (data / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_train_each_kind_and_harmonize_with_it(kind, study, tmp_path):
    path = tmp_path / "model.safetensors"
    targets = ["--targets", "prisma_st", *(["connectom_sa"] if kind == "msp" else [])]
    answer = call("train", study, path, "--model", kind, "--held-out", "sub-03", *targets, *SHORT)
    assert answer.status == 0, answer
    assert list(contents(tmp_path)) == ["model.safetensors"]
    out = tmp_path / "out"
    answer = call("harmonize", study / SCAN, "--model", path, "--target", "all", "--out", out)
    assert answer.status == 0, answer
    assert len(answer.stdout.split("\n")) - 1 == len(targets) - 1
    for line in answer.stdout.splitlines():
        assert Path(line).is_file()


def test_names_of_what_harmonize_writes(harmonized, model, study, tmp_path):
    sh = "model-sh_param-coefficients_dwimap"
    names = {f"{STEM}_dwi.{suffix}" for suffix in ("nii.gz", "bval", "bvec", "json")}
    names |= {f"{STEM}{stage}_{sh}.{suffix}" for stage in ("", "FirstStage") for suffix in
              ("nii.gz", "json")}  # fmt: skip
    names |= {
        f"{STEM}_model-sh_param-disagreement{what}_dwimap.{suffix}"
        for what in ("", "0")
        for suffix in ("nii.gz", "json")
    }
    names |= {f"{STEM}_mask.nii.gz", f"{STEM}_mask.json"}
    describing = {"dataset_description.json", "README", ".bidsignore"}
    found = {name for name in contents(harmonized) if not name.startswith("review")}
    assert found == names | describing

    again = ("harmonize", study / SCAN, "--model", model, "--target", "prisma_st")
    line = refused(harmonized, *again, "--out", harmonized)
    assert "--force" in line
    before = nib.load(harmonized / f"{STEM}_dwi.nii.gz").get_fdata()
    for extra in (("--tile", 4), ("--tile", 10**12)):
        out = tmp_path / str(extra[1])
        assert call(*again, "--out", out, *extra).status == 0
        tiled = nib.load(out / f"{STEM}_dwi.nii.gz").get_fdata()
        np.testing.assert_allclose(tiled, before, atol=1e-5 * np.ptp(before))


def test_a_calibrated_model_writes_what_error_to_expect(model, study, tmp_path):
    out = tmp_path / "calibrated.safetensors"
    assert call("calibrate", model, study, "--out", out).status == 0
    again = ("calibrate", model, study, "--out")
    assert "--force" in refused(tmp_path, *again, out)
    other = tmp_path / "other.safetensors"
    assert "trained on sub-01" in refused(tmp_path, *again, other, "--subjects", "sub-01")
    asked = ("--target", "prisma_st", "--out", tmp_path / "out")
    assert call("harmonize", study / SCAN, "--model", out, *asked).status == 0
    maps = tmp_path / "out" / f"{STEM}_model-sh_param-expectederror_dwimap.nii.gz"
    inside = nib.load(tmp_path / "out" / f"{STEM}_mask.nii.gz").get_fdata() > 0
    np.testing.assert_array_equal(nib.load(maps).get_fdata() > 0, inside)


def test_maps(study, tmp_path):
    answer = call("maps", study / SCAN, "--out", tmp_path / "maps")
    assert answer.status == 0
    written = {Path(line).name for line in answer.stdout.splitlines()}
    assert written == {
        f"sub-03_ses-ge_acq-st_model-{model}_param-{name}_dwimap.nii.gz"
        for model, name in (
            ("sh", "coefficients"),
            ("sh", "average"),
            ("tensor", "fa"),
            ("tensor", "colourfa"),
            ("tensor", "md"),
            ("tensor", "direction"),
        )
    }
    assert all(Path(line).exists() for line in answer.stdout.splitlines())


def test_compare(study, harmonized, tmp_path):
    sh = harmonized / f"{STEM}_model-sh_param-coefficients_dwimap.nii.gz"
    answer = call(
        "compare", "--truth", study / TRUTH, "--prediction", f"MSP={sh}", "--prediction",
        f"$^_ 日={sh}", "--input", study / SCAN, "--out", tmp_path / "out",
    )  # fmt: skip
    assert answer.status == 0, answer
    assert (tmp_path / "out/figure3.png").read_bytes()[1:4] == b"PNG"
    numbers = json.loads((tmp_path / "out/metrics.json").read_text())
    assert set(numbers["predictions"]) == {"MSP", "$^_ 日"}
    assert numbers["predictions"]["MSP"]["sh_mse"] > 0


def test_evaluate_and_cohort(study, model, tmp_path):
    answer = call("evaluate", study, "--models", model, "--out", tmp_path / "table")
    assert answer.status == 0, answer
    written = set(contents(tmp_path / "table"))
    assert {"table1.csv", "table1.md", "report.html"} <= written
    assert {"figure3_sub-03_prisma_st.png", "figure3_sub-03_connectom_sa.png"} <= written
    assert "data:image/png;base64" in (tmp_path / "table/report.html").read_text()

    cohort = ("cohort", study, tmp_path / "cohort", "participant", "--model", model)
    answer = call(*cohort, "--target", "prisma_st", "--participants", "03", "sub-03")
    assert answer.status == 0, answer
    dwi = tmp_path / "cohort/sub-03/ses-ge/dwi" / f"{STEM}_dwi.nii.gz"
    assert dwi.exists()
    rows = (tmp_path / "cohort/cohort.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["participant_id", "sub-03"]


def test_cohort_knows_a_model_trained_anew_under_an_old_name(study, model, tmp_path):
    path = tmp_path / "m.safetensors"
    shutil.copy(model, path)
    cohort = ["cohort", study, tmp_path / "cohort", "participant", "--model", path]
    cohort += ["--target", "prisma_st", "--participants", "sub-03"]

    def status_of(exit_status: int) -> str:
        assert call(*cohort).status == exit_status
        return (tmp_path / "cohort/cohort.tsv").read_text().splitlines()[1].split("\t")[3]

    assert status_of(0) == "done"
    assert status_of(0) == "skipped"
    anew = load_model(path)
    with torch.no_grad():
        for weights in anew.network.parameters():
            weights.mul_(1.5)
    anew.save(path)
    assert status_of(1) == "failed"  # the old images are not overwritten unasked
    cohort += ["--force"]
    assert status_of(0) == "done"


def test_relative_paths_links_and_uncompressed_images(study, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("sub-03 ü")
    folder.mkdir()
    nib.save(nib.load(study / SCAN), folder / "scan.nii")
    mask = (study / SCAN).with_name("sub-03_ses-ge_acq-st_mask.nii.gz")
    (folder / "scan_mask.nii.gz").symlink_to(mask)
    for suffix in ("bval", "bvec"):
        (folder / f"scan.{suffix}").symlink_to(str(study / SCAN).replace("nii.gz", suffix))
    answer = call(
        "harmonize", folder / "scan.nii", "--model", model, "--target", "prisma_st", "--out", "o"
    )
    assert answer.status == 0, answer
    assert (tmp_path / "o/scan_desc-prismastMsp_dwi.nii.gz").exists()


def test_mask_of_a_linked_image_is_found(study, tmp_path):
    """DataLad stores images elsewhere; names count where the link is."""
    store, dwi = tmp_path / "annex", tmp_path / "bids [1]/sub-03/ses-ge/dwi"
    for folder in (store, dwi):
        folder.mkdir(parents=True)
    for suffix in ("nii.gz", "bval", "bvec"):
        name = SCAN.replace("nii.gz", suffix)
        shutil.copy(study / name, store / suffix)
        (dwi / Path(name).name).symlink_to(store / suffix)
    folder = tmp_path / "bids [1]/derivatives/brainmask/sub-03/ses-ge/dwi"
    folder.mkdir(parents=True)
    mask = folder / "sub-03_ses-ge_acq-st_desc-brain_mask.nii.gz"
    shutil.copy((study / SCAN).with_name("sub-03_ses-ge_acq-st_mask.nii.gz"), mask)
    assert call("maps", dwi / Path(SCAN).name, "--out", tmp_path / "o").status == 0
    average = tmp_path / "o/sub-03_ses-ge_acq-st_model-sh_param-average_dwimap.nii.gz"
    inside = nib.load(mask).get_fdata() > 0
    np.testing.assert_array_equal(nib.load(average).get_fdata() != 0, inside)


# --- Several shells --------------------------------------------------------------------------


def _second_shell(study: Path, folder: Path) -> Path:
    """The study with another shell in front of every scan's own: S² / S0, at twice the b-value."""
    shutil.copytree(study, folder)
    for path in folder.glob("*/*/dwi/*_dwi.nii.gz"):
        image, stem = nib.load(path), str(path).removesuffix(".nii.gz")
        values = np.asarray(image.dataobj)
        b0, weighted = values[..., :2], values[..., 2:]
        other = weighted**2 / b0[..., :1]
        joined = np.concatenate([b0, other, weighted], axis=-1)
        nib.save(nib.Nifti1Image(joined, image.affine), path)
        b_values, b_vectors = np.loadtxt(stem + ".bval"), np.loadtxt(stem + ".bvec")
        np.savetxt(
            stem + ".bval", np.concatenate([b_values[:2], 2 * b_values[2:], b_values[2:]])[None]
        )
        np.savetxt(stem + ".bvec", np.concatenate([b_vectors, b_vectors[:, 2:]], axis=1))
    return folder


@pytest.mark.slow
def test_a_shell_is_chosen_everywhere(study, model, tmp_path):
    two = _second_shell(study, tmp_path / "two")
    out = tmp_path / "m.safetensors"
    train = ("train", two, out, "--model", "shresnet", "--held-out", "sub-03", *SHORT)
    assert "1200, 2400" in refused(tmp_path, *train, "--shell", 1200, 3000)
    assert call(*train, "--shell", 1200).status == 0
    single = tmp_path / "single.safetensors"
    assert call("train", study, single, *train[3:]).status == 0
    one, other = load_file(out), load_file(single)
    assert all(torch.equal(one[name], other[name]) for name in other)

    evaluated = {}
    for name, data in (("one", study), ("two", two)):
        answer = call("evaluate", data, "--models", single, "--out", tmp_path / name)
        assert answer.status == 0, answer
        evaluated[name] = (tmp_path / name / "table1.csv").read_text()
    assert evaluated["one"] == evaluated["two"]
    contest = ("evaluate", two, "--methods", "alignment", "--targets", "prisma_st", "--quick")
    assert call(*contest, "--out", tmp_path / "contest", "--shell", 1200).status == 0
    assert not (tmp_path / "contest" / "figure2_b2400.png").exists()

    compare = ("compare", "--truth", two / TRUTH, "--prediction", f"A={two / SCAN}")
    assert call(*compare, "--out", tmp_path / "each").status == 0
    shells = json.loads((tmp_path / "each" / "metrics.json").read_text())["shells"]
    assert list(shells) == ["1200", "2400"]
    assert call(*compare, "--out", tmp_path / "c", "--shell", 2400).status == 0
    assert "shells" not in json.loads((tmp_path / "c" / "metrics.json").read_text())
    for wrong in ("nan", "inf", "0", "-1", "1800"):
        maps = ("maps", two / SCAN, "--out", tmp_path / "x", f"--shell={wrong}")
        assert "1200, 2400" in refused(tmp_path, *maps)
