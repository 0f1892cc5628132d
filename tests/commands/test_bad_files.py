"""Scans, models and images that cannot be used are one line, and nothing is written."""

import gzip
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import SCAN, STEM, TRUTH, call, contents, refused
from safetensors import safe_open
from safetensors.torch import load_file, save_file

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
    "cut in its header": (_bytes(lambda packed: packed[:100]), "not a readable NIfTI"),
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
    "nan": (_voxels(_at((4, 4, 3, 5), np.nan)), "NaN or infinite"),
    "infinite": (_voxels(_at((4, 4, 3, 5), np.inf)), "NaN or infinite"),
    "too large for float32": (_voxels(lambda values: values * 1e300), "NaN or infinite"),
    "all zero": (_voxels(np.zeros_like), "b=0 image has no value above 0"),
    "no b=0 signal": (_voxels(_at((..., slice(0, 2)), 0)), "b=0 image has no value above 0"),
    "negative": (_voxels(np.negative), "b=0 image has no value above 0"),
    "b-value missing": (_beside(".bval", lambda text: text.rsplit(" ", 1)[0]), "31 b-values"),
    "b0 missing": (_beside(".bval", lambda text: text.replace("0", "900", 2)), ".bvec: volume 0"),
    "only b0": (_beside(".bval", _few(0)), "no diffusion-weighted volume"),
    "b-vectors ragged": (_beside(".bvec", lambda text: text.rstrip()[:-12]), ".bvec"),
    "b-vectors alike": (_beside(".bvec", lambda _: _rows("1", "0", "0")), "hardly differ"),
    "mask empty": (_mask(np.zeros_like), "no voxel is inside"),
    "mask shifted": (_mask(np.asarray, 1.2), "voxel grid is not the image's"),
    "mask cropped": (_mask(lambda values: values[1:]), "voxel grid is not the image's"),
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


@pytest.mark.parametrize(("directions", "order"), [(6, 2), (12, 2), (15, 4), (27, 4)])
def test_few_directions_are_enough_for_maps_alone(directions, order, study, model, tmp_path):
    scan = tmp_path / "dwi" / Path(SCAN).name
    shutil.copytree((study / SCAN).parent, scan.parent)
    kept = slice(0, 2 + directions)
    _voxels(lambda values: values[..., kept])(scan)
    for ending in (".bval", ".bvec"):
        table = scan.with_name(scan.name.replace(".nii.gz", ending))
        np.savetxt(table, np.atleast_2d(np.loadtxt(table))[:, kept], fmt="%.9g")
    predict = ("harmonize", scan, "--model", model, "--target", "prisma_st")
    line = refused(tmp_path, *predict, "--out", tmp_path / "out")
    assert f"highest possible order is {order}" in line
    answer = call("maps", scan, "--out", tmp_path / "maps")
    assert answer.status == 0
    assert any(f"SH have order {order}" in line for line in answer.warnings)


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


# --- Models and SH images ----------------------------------------------------------------------


def _card(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        with safe_open(path, framework="pt") as stored:
            card = json.loads(stored.metadata()["card"])
        change(card)
        save_file(load_file(path), path, metadata={"card": json.dumps(card)})

    return spoil


BAD_MODELS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "a folder": _folder_instead,
    "a pickle": _bytes(lambda _: pickle.dumps({"weights": [1.0]})),
    "cut in its header": _bytes(lambda content: content[:100]),
    "other tensors": lambda path: save_file({"a": torch.ones(1)}, path),
    "deep JSON": lambda path: save_file(load_file(path), path, metadata={"card": "[" * 10**5}),
    "another kind": _card(lambda card: card.update(kind="diqt")),
}
"""Of each kind one; what else can be wrong with a card is refused by the same reader."""


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
        ("OrientationEncoding", {"Reference": "lps"}, "its axes are lps"),
        ("OrientationEncoding", {"Type": "tensor"}, "its orientation encoding is tensor"),
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
        (lambda values: values * np.nan, "NaN or infinite"),
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
