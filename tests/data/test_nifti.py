"""Reading images whole; writing them: what headers keep, that no half-written file is met."""

import gzip
import sys
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.nifti import open_nifti, read_voxels, write_nifti
from napari_msp.errors import UserError
from napari_msp.files import atomic_path, write_json
from napari_msp.strict_json import read_json


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_floats_are_stored_as_they_are(tmp_path, affine, suffix):
    array = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    path = tmp_path / f"sh{suffix}"
    write_nifti(path, array, affine)
    image = nib.load(path)
    assert image.get_data_dtype() == np.float32
    assert image.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_array_equal(read_voxels(open_nifti(path)), array)
    for stored in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert stored[1] == 1
        np.testing.assert_allclose(stored[0], affine, atol=1e-5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6), (4, 5, 6, 7), (4, 5, 6, 1, 3)])
def test_scaled_integers_are_read_as_nibabel_reads_them(shape, suffix, tmp_path):
    stored = np.random.default_rng(1).integers(-900, 900, size=shape).astype(">i2")
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(stored, np.eye(4), header)
    image.header.set_slope_inter(0.37, 12.5)
    image.to_filename(tmp_path / f"scan{suffix}")
    found = read_voxels(open_nifti(tmp_path / f"scan{suffix}"))
    expected = nib.load(tmp_path / f"scan{suffix}").get_fdata()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.ptp(found) > 300


@pytest.mark.parametrize("shape", [(9, 8, 7), (9, 8, 7, 6)])
def test_a_flipped_bit_of_a_compressed_file_is_never_read(shape, tmp_path):
    """Voxels alone do not show it: the file's checksum stands behind them."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 900, size=shape).astype(np.int16)
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / "whole.nii.gz")
    whole, damaged = (tmp_path / "whole.nii.gz").read_bytes(), tmp_path / "damaged.nii.gz"
    copies = [whole[:-4], whole[:-8] + b"\0" + whole[-7:]]
    for place in rng.integers(400, len(whole), size=30):
        copies.append(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    for copy in copies:
        damaged.write_bytes(copy)
        with pytest.raises(UserError, match=r"cannot be read|not a readable NIfTI"):
            read_voxels(open_nifti(damaged), damaged)
    np.testing.assert_array_equal(read_voxels(open_nifti(tmp_path / "whole.nii.gz")), voxels)


def test_reading_takes_no_second_image_of_memory(tmp_path):
    shape = (20, 20, 20, 50)
    nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)).to_filename(tmp_path / "scan.nii.gz")
    image = open_nifti(tmp_path / "scan.nii.gz")
    tracemalloc.start()
    try:
        voxels = read_voxels(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert voxels.nbytes < peak < 1.25 * voxels.nbytes  # the stored integers are half as much


def test_masks_are_stored_as_bytes(tmp_path):
    mask = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    write_nifti(tmp_path / "mask.nii.gz", mask, np.eye(4))
    assert nib.load(tmp_path / "mask.nii.gz").get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read_voxels(open_nifti(tmp_path / "mask.nii.gz")) > 0, mask)


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 0), (0, 1), (3, 3)])
def test_codes_are_those_of_the_input(tmp_path, affine, codes):
    like = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), affine)
    like.set_sform(affine, codes[0])
    like.set_qform(affine, codes[1])
    like.to_filename(tmp_path / "input.nii.gz")
    like = nib.load(tmp_path / "input.nii.gz")

    write_nifti(tmp_path / "out.nii.gz", np.ones((3, 3, 3), np.float32) / 3, like.affine, like)

    image = nib.load(tmp_path / "out.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == codes
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert image.get_data_dtype() == np.float32  # not rounded under the input's int16


def test_a_qform_that_differs_from_the_sform_is_kept(tmp_path, affine):
    like = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), affine)
    like.set_sform(affine, 4)  # to a template, say
    scanner = np.diag([2.0, 2.0, 2.5, 1.0])
    scanner[:3, 3] = [5, 6, 7]
    like.set_qform(scanner, 1)
    halved = np.diag([0.5, 0.5, 0.5, 1])
    for grid in (np.eye(4), halved):  # the input's lattice, and a finer one
        write_nifti(tmp_path / "out.nii.gz", np.ones((3, 3, 3), np.float32), affine @ grid, like)
        image = nib.load(tmp_path / "out.nii.gz")
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 1)
        np.testing.assert_allclose(image.get_sform(), affine @ grid, atol=1e-5)
        np.testing.assert_allclose(image.get_qform(), scanner @ grid, atol=1e-5)


def test_a_sheared_sform_is_kept(tmp_path):
    sheared = np.array([[2.0, 0.3, 0, 1], [0, 2, 0.1, 2], [0, 0, 2, 3], [0, 0, 0, 1]])
    write_nifti(tmp_path / "out.nii.gz", np.zeros((3, 3, 3), np.float32), sheared)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii.gz").affine, sheared, atol=1e-6)


class TestAtomicWriting:
    def test_nothing_is_left_of_a_failure(self, tmp_path):
        with pytest.raises(RuntimeError), atomic_path(tmp_path / "out.nii.gz") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError
        assert list(tmp_path.iterdir()) == []

    def test_an_older_file_survives_a_failure(self, tmp_path):
        path = tmp_path / "out.json"
        write_json(path, {"kept": True})
        with pytest.raises(RuntimeError), atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError
        assert read_json(path) == {"kept": True}
        assert list(tmp_path.iterdir()) == [path]

    def test_success_leaves_only_the_file_and_makes_its_folder(self, tmp_path):
        path = tmp_path / "new/folder/out.nii.gz"
        with atomic_path(path) as temporary:
            assert temporary.name.endswith(".nii.gz")
            assert not path.exists()
            temporary.write_bytes(b"whole")
        assert path.read_bytes() == b"whole"
        assert list(path.parent.iterdir()) == [path]

    def test_a_folder_that_cannot_be_made_is_a_user_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot write here"):
            write_json(tmp_path / "file/out.json", {})


@pytest.mark.parametrize("missing", [False, True])
def test_compressed_files_say_nothing_but_their_image(missing, tmp_path, monkeypatch):
    """Equal images are equal files, whoever compresses; gzip reads what isal wrote."""
    if missing:
        monkeypatch.setitem(sys.modules, "isal", None)
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    array = np.random.default_rng(0).normal(size=(9, 8, 7, 3)).astype(np.float32)
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}.nii.gz", array, np.eye(4))
    write_nifti(tmp_path / "plain.nii", array, np.eye(4))
    packed = (tmp_path / "a.nii.gz").read_bytes()
    assert packed == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "plain.nii").read_bytes()
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii.gz").get_fdata(), array)


def test_a_unit_that_nifti_does_not_know_is_none(tmp_path, affine):
    path = tmp_path / "image.nii"
    nib.Nifti1Image(np.ones((2, 2, 2), np.float32), affine).to_filename(path)
    whole = bytearray(path.read_bytes())
    whole[123] = 7
    path.write_bytes(whole)
    np.testing.assert_allclose(open_nifti(path).affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.nii", gzip.compress(bytes(400)), "is compressed, but .* rename it to \\.nii\\.gz"),
        (
            "a.nii.gz",
            (348).to_bytes(4, "little") + bytes(400),
            "is not compressed, .* rename it to",
        ),
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1", "not downloaded; fetch it"),
        ("a.nii.gz", b"/annex/objects/MD5E-s1--a.nii.gz", "not downloaded; fetch it"),
        ("a.nii.gz", None, "is a link to a missing file; fetch it"),
        ("a.nii.gz", b"nothing", "is not a readable NIfTI image"),
    ],
)
def test_what_is_no_image_by_its_name_is_told_by_its_first_bytes(name, content, said, tmp_path):
    if content is None:
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        open_nifti(tmp_path / name)
