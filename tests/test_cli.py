"""Every command as a user gives it: what it writes, and what it says when the user is wrong."""

import contextlib
import gzip
import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_msp.cli import main

SCAN = "sub-03/ses-ge/dwi/sub-03_ses-ge_acq-st_dwi.nii.gz"
TRUTH = "sub-03/ses-prisma/dwi/sub-03_ses-prisma_acq-st_dwi.nii.gz"
STEM = "sub-03_ses-ge_acq-st_desc-prismastMsp"
KINDS = ("msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned")
SHORT = (
    *("--width", "0.1", "--epochs", "1", "--steps-per-epoch", "1", "--crop", "6"),
    *("--batch", "1", "--device", "cpu"),
)


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    status: int
    stdout: str
    errors: list[str]
    warnings: list[str]


def call(*arguments: object) -> Answer:
    """Run a command in this process; warnings are shown, as they are to a user."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        status = main([str(argument) for argument in arguments])
    lines = [line for line in err.getvalue().splitlines() if line.strip()]
    warned = [line for line in lines if line.startswith("napari-msp: warning: ")]
    return Answer(status, out.getvalue(), [line for line in lines if line not in warned], warned)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, hidden or not."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(folder: Path, *arguments: object) -> str:
    """Run a command that must end with one line, and leave `folder` as it was; give the line."""
    before = contents(folder)
    answer = call(*arguments)
    assert answer.status == 2, answer
    assert len(answer.errors) == 1, answer.errors
    assert answer.errors[0].startswith("napari-msp: ")
    assert answer.stdout == ""
    assert contents(folder) == before
    return answer.errors[0]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def study(tmp_path_factory, make_heads) -> Path:
    """Three small heads in a folder whose name has a blank and an accent; never written to."""
    return make_heads(tmp_path_factory.mktemp("été data") / "heads", shape=(9, 8, 7))


@pytest.fixture(scope="session")
def model(tmp_path_factory, study) -> Path:
    """An MSP for both targets, with sub-03 held out."""
    path = tmp_path_factory.mktemp("models") / "msp.safetensors"
    assert call("train", study, path, "--model", "msp", "--held-out", "sub-03", *SHORT).status == 0
    return path


@pytest.fixture(scope="session")
def harmonized(tmp_path_factory, study, model) -> Path:
    """What `harmonize` wrote for one target."""
    out = tmp_path_factory.mktemp("harmonized")
    answer = call(
        "harmonize", study / SCAN, "--model", model, "--target", "prisma_st", "--out", out
    )
    assert answer.status == 0, answer
    return out


@pytest.fixture
def copy_of_study(study, tmp_path) -> Path:
    """Two heads that a test may spoil."""
    target = tmp_path / "heads"
    for subject in ("sub-01", "sub-02"):
        shutil.copytree(study / subject, target / subject)
    shutil.copy(study / "dataset_description.json", target)
    return target


# --- What each command gives -----------------------------------------------------------------


def test_simulate_check_and_import(tmp_path):
    data, copy = tmp_path / "simulated", tmp_path / "imported"
    answer = call("simulate", data, "--subjects", 2, "--size", "tiny", "--no-twins")
    assert (answer.status, answer.stdout.strip()) == (0, str(data))
    for platform in ("ge_acq-st", "prisma_acq-st", "connectom_acq-st", "connectom_acq-sa"):
        session = platform.split("_")[0]
        stem = f"sub-02/ses-{session}/dwi/sub-02_ses-{platform}"
        for suffix in ("nii.gz", "bval", "bvec", "json"):
            assert (data / f"{stem}_dwi.{suffix}").exists()
        assert (data / f"derivatives/brainmask/{stem}_desc-brain_mask.nii.gz").exists()

    assert call("check", data).status == 0

    pattern = "{subject}/ses-{scanner}/dwi/{subject}_ses-{scanner}_acq-{protocol}_dwi.nii.gz"
    answer = call("import", data, copy, "--pattern", pattern)
    assert answer.status == 0
    assert len(answer.stdout.splitlines()) == 8
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
    names |= {f"{STEM}_model-sh_param-disagreement{what}_dwimap.nii.gz" for what in ("", "0")}
    names |= {f"{STEM}_mask.nii.gz"}
    assert set(contents(harmonized)) == names | {"dataset_description.json"}

    again = ("harmonize", study / SCAN, "--model", model, "--target", "prisma_st")
    line = refused(harmonized, *again, "--out", harmonized)
    assert "--force" in line
    before = nib.load(harmonized / f"{STEM}_dwi.nii.gz").get_fdata()
    for extra in (("--tile", 1), ("--tile", 10**12)):
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
        return (tmp_path / "cohort/cohort.tsv").read_text().splitlines()[1].split("\t")[2]

    assert status_of(0) == "done"
    assert status_of(0) == "skipped"
    weights = {name: value * 1.5 for name, value in load_file(path).items()}
    with safe_open(path, framework="pt") as stored:
        save_file(weights, path, metadata=stored.metadata())
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


def test_a_shell_is_chosen_everywhere(study, model, tmp_path):
    two = _second_shell(study, tmp_path / "two")
    out = tmp_path / "m.safetensors"
    train = ("train", two, out, "--model", "shresnet", "--held-out", "sub-03", *SHORT)
    assert "--shell" in refused(tmp_path, *train)
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
    assert "--shell" in refused(tmp_path, *contest, "--out", tmp_path / "contest")
    assert call(*contest, "--out", tmp_path / "contest", "--shell", 1200).status == 0

    compare = ("compare", "--truth", two / TRUTH, "--prediction", f"A={two / SCAN}")
    assert "--shell" in refused(tmp_path, *compare, "--out", tmp_path / "c")
    assert call(*compare, "--out", tmp_path / "c", "--shell", 2400).status == 0
    for wrong in ("nan", "inf", "0", "-1", "1800"):
        maps = ("maps", two / SCAN, "--out", tmp_path / "x", f"--shell={wrong}")
        assert "1200, 2400" in refused(tmp_path, *maps)


# --- Interruptions ---------------------------------------------------------------------------


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from napari_msp.cli import main; sys.exit(main())"]
        + [str(argument) for argument in arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_leaves_a_checkpoint_and_resumes(number, study, tmp_path):
    path = tmp_path / "m.safetensors"
    settings = (
        *("--model", "shresnet", "--targets", "prisma_st", "--width", "0.1", "--crop", "6"),
        *("--epochs", 1, "--steps-per-epoch", 400, "--batch", 1, "--device", "cpu"),
    )
    run = _start("train", study, path, *settings, "--events")
    assert run.stdout is not None
    lines = []
    for line in run.stdout:
        lines.append(line)
        if json.loads(line)["event"] == "step":
            break
    run.send_signal(number)
    asked = time.monotonic()
    rest, errors = run.communicate(timeout=60)
    events = [json.loads(line) for line in [*lines, *rest.splitlines()]]  # JSON lines only
    assert run.returncode == 130
    assert time.monotonic() - asked < 10
    assert errors == ""
    assert [event["event"] for event in events[-2:]] == ["checkpointed", "stopped"]
    assert [file.name for file in tmp_path.iterdir()] == ["m.checkpoint.safetensors"]

    answer = call("train", study, path, *settings, "--events", "--resume")
    assert answer.status == 0
    resumed = [json.loads(line) for line in answer.stdout.splitlines()]
    assert resumed[0]["resumed_at"] == events[-1]["step"]
    assert resumed[-1]["event"] == "finished"
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.fixture
def interruptible():
    """As in a terminal: a shell has SIGINT ignored by what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["harmonize", "maps", "compare"])
def test_an_interrupt_leaves_nothing(
    command, number, study, model, harmonized, tmp_path, monkeypatch
):
    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)  # the handler runs before that is over

    monkeypatch.setattr("napari_msp.signal.sh_image.write_json", interrupt)
    monkeypatch.setattr("napari_msp.evaluation.compare.write_json", interrupt)
    out = tmp_path / "new" / "folder"
    sh = harmonized / f"{STEM}_model-sh_param-coefficients_dwimap.nii.gz"
    arguments = {
        "harmonize": [study / SCAN, "--model", model, "--target", "all"],
        "maps": [study / SCAN],
        "compare": ["--truth", study / TRUTH, "--prediction", f"A={sh}"],
    }[command]
    answer = call(command, *arguments, "--out", out)
    assert answer.status == 130
    assert answer.errors == ["napari-msp: interrupted"]
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
)
def test_want_of_memory_is_one_line(error, study, model, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("napari_msp.inference.harmonize.predict_on_grid", fail)
    harmonize = ("harmonize", study / SCAN, "--model", model, "--target", "all")
    assert "--tile" in refused(tmp_path, *harmonize, "--out", tmp_path / "out")


def test_a_bug_keeps_its_traceback(study, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("napari_msp.scan.fit_sh", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        call("maps", study / SCAN, "--out", tmp_path / "out")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error_of_the_file_system(study, tmp_path):
    train = ("train", study, tmp_path / "m.safetensors", "--model", "shresnet", *SHORT)
    run = _start(*train, "--steps-per-epoch", 400, "--events")
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.readline()
    run.stdout.close()
    assert run.stderr.read() == ""
    run.stderr.close()
    assert run.wait() == 130


# --- Bad scans -------------------------------------------------------------------------------

Spoil = Callable[[Path], object]


def _bytes(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _header(offset: int, form: str, value: float) -> Spoil:
    def change(packed: bytes) -> bytes:
        raw = bytearray(gzip.decompress(packed))
        struct.pack_into("<" + form, raw, offset, value)
        return gzip.compress(bytes(raw))

    return _bytes(change)


def _voxels(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(path: Path) -> None:
        image = nib.load(path)
        values = change(np.asarray(image.dataobj).astype(float))
        nib.save(nib.Nifti1Image(values, image.affine), path)

    return spoil


def _beside(suffix: str, change: Callable[[str], str]) -> Spoil:
    def spoil(path: Path) -> None:
        file = Path(str(path).replace(".nii.gz", suffix))
        file.write_text(change(file.read_text()))

    return spoil


def _mask(change: Callable[[np.ndarray], np.ndarray], shift: float = 0.0) -> Spoil:
    def spoil(path: Path) -> None:
        file = Path(str(path).replace("_dwi.nii.gz", "_mask.nii.gz"))
        image = nib.load(file)
        affine = image.affine.copy()
        affine[:3, 3] += shift
        nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), affine), file)

    return spoil


def _torn(packed: bytes) -> bytes:
    """Damaged in the middle: zlib's own error, which is no OSError."""
    middle = len(packed) // 2
    return packed[:middle] + bytes(range(256)) + packed[middle + 256 :]


def _at(index: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[index] = value
        return values

    return change


def _few(count: int) -> Callable[[str], str]:
    return lambda text: " ".join(["0"] * (32 - count) + text.split()[32 - count :])


def _rows(*values: str) -> str:
    return "".join(" ".join([value] * 32) + "\n" for value in values)


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


BAD_SCANS: dict[str, tuple[Spoil, str]] = {
    "missing": (Path.unlink, "no such file"),
    "a folder": (_folder_instead, "not a readable NIfTI"),
    "empty": (_bytes(lambda _: b""), "not a readable NIfTI"),
    "gzip of nothing": (_bytes(lambda _: gzip.compress(b"")), "not a readable NIfTI"),
    "text": (_bytes(lambda _: b"hello"), "not a readable NIfTI"),
    "gzip of text": (_bytes(lambda _: gzip.compress(b"hello" * 500)), "not a readable NIfTI"),
    "truncated": (_bytes(lambda packed: packed[: len(packed) // 2]), "cannot be read"),
    "torn": (_bytes(_torn), "cannot be read"),
    "unknown datatype": (_header(70, "h", 999), "not a readable NIfTI"),
    "colours": (_header(70, "h", 128), "not one real number"),
    "offset before the end of the header": (_header(108, "f", -100), "not a readable NIfTI"),
    "offset beyond the end": (_header(108, "f", 1e9), "cannot be read"),
    "no voxel": (_header(42, "h", 0), "so no voxel"),
    "negative axis": (_header(42, "h", -5), "so no voxel"),
    "affine not finite": (_header(280, "f", np.nan), "affine is singular"),
    "affine singular": (_header(280, "f", 0), "affine is singular"),
    "three axes": (_voxels(lambda values: values[..., 0]), "has 3 axes"),
    "five axes": (_voxels(lambda values: values[..., None]), "has 5 axes"),
    "volume missing": (_voxels(lambda values: values[..., :-1]), "b-values"),
    "nan": (_voxels(_at((4, 4, 3, 5), np.nan)), "not finite"),
    "infinite": (_voxels(_at((4, 4, 3, 5), np.inf)), "not finite"),
    "too large for float32": (_voxels(lambda values: values * 1e300), "not finite"),
    "all zero": (_voxels(np.zeros_like), "b=0 image is nowhere above 0"),
    "no b=0 signal": (_voxels(_at((..., slice(0, 2)), 0)), "b=0 image is nowhere above 0"),
    "negative": (_voxels(np.negative), "b=0 image is nowhere above 0"),
    "b-value missing": (_beside(".bval", lambda text: text.rsplit(" ", 1)[0]), "31 b-values"),
    "no b-values": (_beside(".bval", lambda _: ""), "0 b-values"),
    "b-values with a heading": (_beside(".bval", lambda text: "b " + text), "table of numbers"),
    "negative b-value": (_beside(".bval", lambda text: text.replace("1200", "-5", 1)), ".bval"),
    "b-value nan": (_beside(".bval", lambda text: text.replace("1200", "nan", 1)), "finite"),
    "b0 missing": (_beside(".bval", lambda text: text.replace("0", "900", 2)), ".bvec: volume 0"),
    "only b0": (_beside(".bval", _few(0)), "no diffusion-weighted volume"),
    "6 directions": (_beside(".bval", _few(6)), "highest order possible is 2"),
    "12 directions": (_beside(".bval", _few(12)), "highest order possible is 2"),
    "27 directions": (_beside(".bval", _few(27)), "highest order possible is 4"),
    "b-vectors ragged": (_beside(".bvec", lambda text: text.rstrip()[:-12]), ".bvec"),
    "b-vectors of zero": (_beside(".bvec", lambda _: _rows("0", "0", "0")), "length 0"),
    "b-vectors alike": (_beside(".bvec", lambda _: _rows("1", "0", "0")), "hardly differ"),
    "mask empty": (_mask(np.zeros_like), "no voxel is inside"),
    "mask shifted": (_mask(np.asarray, 1.2), "voxels are not the image's"),
    "mask cropped": (_mask(lambda values: values[1:]), "voxels are not the image's"),
    "mask of two volumes": (_mask(lambda values: np.stack([values] * 2, -1)), "three axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SCANS)
@pytest.mark.parametrize("command", ["maps", "harmonize"])
def test_bad_scan_is_one_line(command, name, study, model, tmp_path):
    spoil, complaint = BAD_SCANS[name]
    shutil.copytree((study / SCAN).parent, tmp_path / "dwi")
    path = tmp_path / "dwi" / Path(SCAN).name
    spoil(path)
    options = ["--model", model, "--target", "prisma_st"] if command == "harmonize" else []
    line = refused(tmp_path, command, path, *options, "--out", tmp_path / "new/out")
    assert complaint in line
    assert "sub-03_ses-ge_acq-st_" in line


@pytest.mark.parametrize("keep", ["b-value", "mask shape", "one voxel", "one slice"])
def test_odd_scans_that_are_fine(keep, study, model, tmp_path):
    shutil.copytree((study / SCAN).parent, tmp_path / "dwi")
    path = tmp_path / "dwi" / Path(SCAN).name

    def one_voxel(values: np.ndarray) -> np.ndarray:
        alone = np.zeros_like(values)
        alone[4, 4, 3] = 1
        return alone

    spoil: Spoil = {
        "b-value": _beside(".bval", lambda text: text.replace("1200", "1205", 9)),
        "mask shape": _mask(lambda values: values[..., None] * np.float32(0.5)),
        "one voxel": _mask(one_voxel),
        "one slice": lambda file: (
            _voxels(lambda values: values[:, :, 3:4])(file),
            _mask(lambda values: values[:, :, 3:4])(file),
        ),
    }[keep]
    spoil(path)
    for target in ("prisma_st", "connectom_sa"):
        out = tmp_path / target
        options = ("--model", model, "--target", target, "--out", out)
        answer = call("harmonize", path, *options)
        assert answer.status == 0, answer
        (dwi,) = out.glob("*_dwi.nii.gz")
        assert np.isfinite(nib.load(dwi).get_fdata()).all()
    assert call("maps", path, "--out", tmp_path / "maps").status == 0


def test_read_only_input_is_enough(study, tmp_path):
    shutil.copytree((study / SCAN).parent, tmp_path / "dwi")
    (tmp_path / "dwi").chmod(0o500)
    path = tmp_path / "dwi" / Path(SCAN).name
    before = contents(tmp_path / "dwi")
    assert call("maps", path, "--out", tmp_path / "out").status == 0
    assert contents(tmp_path / "dwi") == before


# --- Bad options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--target", "nowhere"], "choose from connectom_sa, prisma_st"),
        (["--tile", 0], "--tile: 0 voxels"),
        (["--tile=-3"], "--tile: -3 voxels"),
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


def _card(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        with safe_open(path, framework="pt") as stored:
            card = json.loads(stored.metadata()["card"])
        change(card)
        save_file(load_file(path), path, metadata={"card": json.dumps(card)})

    return spoil


def _architecture(**changes: object) -> Callable[[dict], object]:
    return lambda card: card["architectures"]["prisma_st"].update(changes)


BAD_MODELS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "a folder": _folder_instead,
    "empty": _bytes(lambda _: b""),
    "a pickle": _bytes(lambda _: pickle.dumps({"weights": [1.0]})),
    "a torch file": lambda path: torch.save({"weights": torch.ones(1)}, path),
    "cut in its header": _bytes(lambda content: content[:100]),
    "cut in its weights": _bytes(lambda content: content[:-1]),
    "other tensors": lambda path: save_file({"a": torch.ones(1)}, path),
    "no JSON": lambda path: save_file(load_file(path), path, metadata={"card": "[1"}),
    "deep JSON": lambda path: save_file(load_file(path), path, metadata={"card": "[" * 10**5}),
    "a list": lambda path: save_file(load_file(path), path, metadata={"card": "[]"}),
    "another kind": _card(lambda card: card.update(kind="diqt")),
    "a path for a kind": _card(lambda card: card.update(kind="../evil")),
    "width of text": _card(_architecture(width="abc")),
    "no list of singles": _card(_architecture(singles=None)),
    "numbers for singles": _card(_architecture(singles=[1, 2])),
    "infinite b-value": _card(lambda card: card["sh"].update(b_value=float("inf"))),
    "infinite λ": _card(lambda card: card["sh"].update(regularisation_at_30=float("inf"))),
    "infinite voxels": _card(lambda card: card.update(voxel_size=float("inf"))),
    "no gradients": _card(
        lambda card: card["gradients"].update(prisma_st={"b_values": [], "directions": []})
    ),
    "gradient of no length": _card(
        lambda card: card["gradients"]["prisma_st"]["directions"].__setitem__(0, [0, 0, 0])
    ),
    "gradient nan": _card(
        lambda card: card["gradients"]["prisma_st"]["directions"].__setitem__(0, [np.nan] * 3)
    ),
    "negative b": _card(lambda card: card["gradients"]["prisma_st"]["b_values"].__setitem__(0, -1)),
    "subjects no list": _card(lambda card: card["training"].update(subjects=5)),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_model_is_one_line(name, study, model, tmp_path):
    path = tmp_path / "bad.safetensors"
    shutil.copy(model, path)
    BAD_MODELS[name](path)
    fixed = ("--model", path, "--target", "prisma_st")
    out = tmp_path / "out"
    assert str(path) in refused(tmp_path, "harmonize", study / SCAN, *fixed, "--out", out)
    assert str(path) in refused(tmp_path, "evaluate", study, "--models", path, "--out", out)
    assert str(path) in refused(tmp_path, "cohort", study, out, "participant", *fixed)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--held-out", "sub-09"], "sub-09"),
        (["--held-out", "sub-01", "sub-02", "sub-03"], "use fewer --held-out"),
        (["--targets", "nowhere"], "nowhere"),
        (["--input", "ge_st", "--targets", "ge_st"], "ge_st is the input"),
        (["--input", "nowhere"], "nowhere"),
        (["--epochs", 0], "--epochs: "),
        (["--epochs=-1"], "--epochs: "),
        (["--batch", 0], "--batch: "),
        (["--crop", 2], "--crop: "),
        (["--width", "x"], "--width: "),
        (["--width", "nan"], "width"),
        (["--width", 2], "width"),
        (["--learning-rate", 0], "--learning-rate: "),
        (["--learning-rate", "inf"], "--learning-rate: "),
        (["--learning-rate", "1e38"], "--learning-rate: "),
        (["--seed=-1"], "--seed: "),
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
        (lambda study: shutil.rmtree(study / "sub-02/ses-prisma"), "sub-02"),
        (lambda study: _shift(study, "ge", 0, stretch=1.3), "isotropic"),
        (lambda study: _shift(study, "prisma", 0, stretch=0.7), "whole number"),
        (lambda study: _shift(study, "prisma", 500), "does not overlap"),
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


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("BValue", "1200", "BValue"),
        ("BValue", [1200], "BValue"),
        ("BValue", None, "add BValue"),
        ("BValue", -5, "BValue"),
        ("BValue", 3000, "3000"),
        ("LaplaceBeltramiWeight", "x", "LaplaceBeltramiWeight"),
        ("BValueRescaledFrom", "x", "BValueRescaledFrom"),
        ("OrientationEncoding", {"SphericalHarmonicBasis": 5}, "basis 5"),
    ],
)
def test_sidecar_that_lies(field, value, complaint, study, harmonized, tmp_path):
    name = f"{STEM}_model-sh_param-coefficients_dwimap"
    shutil.copy(harmonized / f"{name}.nii.gz", tmp_path)
    sidecar = json.loads((harmonized / f"{name}.json").read_text())
    (tmp_path / f"{name}.json").write_text(json.dumps(sidecar | {field: value}))
    prediction = f"A={tmp_path / name}.nii.gz"
    compare = ("compare", "--truth", study / TRUTH, "--prediction", prediction)
    assert complaint in refused(tmp_path, *compare, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda values: values * 1e20, "divide the signal"),
        (lambda values: values * 0, "overlaps"),
        (lambda values: values * np.nan, "not finite"),
        (lambda values: values[..., :27], "28 volumes"),
    ],
)
def test_sh_image_that_is_none(change, complaint, study, harmonized, tmp_path):
    name = f"{STEM}_model-sh_param-coefficients_dwimap"
    for suffix in ("nii.gz", "json"):
        shutil.copy(harmonized / f"{name}.{suffix}", tmp_path)
    path = tmp_path / f"{name}.nii.gz"
    _voxels(change)(path)
    compare = ("compare", "--truth", study / TRUTH, "--prediction", f"A={path}")
    assert complaint in refused(tmp_path, *compare, "--out", tmp_path / "out")


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
    assert any("CPM" in line and "min left" in line for line in answer.errors)
    table = (tmp_path / "table/table1.md").read_text()
    assert {"| IQT |", "| CPM |"} <= {
        line[: line.index("|", 2) + 1] for line in table.splitlines() if line.startswith("| ")
    }
    page = (tmp_path / "table/report.html").read_text()
    assert "napari-msp" in page and "sub-03" in page
    again = call(*asked, "--out", tmp_path / "table")
    assert again.status == 0
    assert again.errors == [], "nothing is done twice"
    other = (*asked, "--seeds", 3, "--out", tmp_path / "table")
    assert "other seeds" in refused(tmp_path, *other)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--target", "nowhere"], "choose from"),
        (["--target", "all", "--device", "abacus"], "--device: there is no device 'abacus'"),
        (["--target", "all", "--workers", 0], "--workers: 0"),
        (["--target", "all", "--participants", "77"], "sub-77"),
    ],
)
def test_bad_options_of_cohort(options, complaint, study, model, tmp_path):
    cohort = ("cohort", study, tmp_path / "out", "participant", "--model", model)
    assert complaint in refused(tmp_path, *cohort, *options)


@pytest.mark.parametrize(
    "options",
    [["--subjects", 0], ["--subjects=-1"], ["--seed=-1"], ["--misalignment", "nan"],
     ["--misalignment=-1"]],
)  # fmt: skip
def test_bad_options_of_simulate(options, tmp_path):
    refused(tmp_path, "simulate", tmp_path / "out", "--size", "tiny", *options)


def test_simulate_and_import_keep_what_is_there(study, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "not empty" in refused(tmp_path, "simulate", tmp_path, "--size", "tiny")
    pattern = "{subject}/ses-{scanner}/dwi/{subject}_ses-{scanner}_acq-{protocol}_dwi.nii.gz"
    assert "not empty" in refused(tmp_path, "import", study, tmp_path, "--pattern", pattern)
    out = tmp_path / "out"
    assert "no file fits" in refused(
        tmp_path, "import", study, out, "--pattern", "{subject}/{scanner}/{protocol}.nii"
    )
    assert "lacks" in refused(tmp_path, "import", study, out, "--pattern", "{subject}.nii.gz")


def test_unknown_commands_and_options_are_two():
    for arguments in (["nonsense"], ["train"], ["maps", "x.nii.gz"], []):
        with pytest.raises(SystemExit) as stopped, contextlib.redirect_stderr(io.StringIO()):
            main(arguments)
        assert stopped.value.code == 2
