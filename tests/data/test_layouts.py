"""Folder layouts of public data sets and pipelines: which table and mask belong to an image."""

import codecs
import gzip
import shutil
import subprocess
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_msp.bids import DESCRIPTION, INPUT_MARK, read_metadata
from napari_msp.checking.dataset import check
from napari_msp.commands.shared import OptionWords
from napari_msp.data.acquisition import DoubtfulScan, OtherMask, TableFound, load_acquisition
from napari_msp.data.companions import PassedOver, find_gradients, is_scan, look_for_mask
from napari_msp.data.dataset import input_platform, open_dataset
from napari_msp.errors import Choose, Give, UserError, every
from napari_msp.files import write_json
from napari_msp.learning.heads import (
    gradients_of,
    mean_b0_weighting,
    prepare_study,
    with_platforms,
)
from napari_msp.learning.settings import TrainingSettings
from napari_msp.scan_sources import load_scan
from napari_msp.strict_json import read_json
from napari_msp.ui.load.examine import LoadChoice, examine

SHAPE = (4, 3, 5)

X_TO_THE_LEFT = np.diag([-1.0, 1, 1])
"""The image's axes: it is stored as LAS."""

TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
"""A quarter turn: what eddy does to b-vectors here, so that they cannot be taken for the others."""


@pytest.fixture
def lay(tmp_path: Path, scan: Callable[..., Any]) -> Callable[..., Path]:
    """Write files of a small scan under given names, by what each of them is."""
    made = scan("LAS", 30, shape=SHAPE)
    vectors = made.directions @ X_TO_THE_LEFT  # as FSL's axes are
    elsewhere = made.mask.affine.copy()
    elsewhere[0, 3] += 40

    def write(kind: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "dwi":
                nib.save(made.image, path)
            case "b0":
                nib.save(made.image.slicer[..., :2], path)
            case "mask":
                nib.save(made.mask, path)
            case "mask elsewhere":
                nib.save(nib.Nifti1Image(np.asarray(made.mask.dataobj), elsewhere), path)
            case "bval":
                np.savetxt(path, made.b_values[None], fmt="%g")
            case "zeros":
                np.savetxt(path, np.zeros((1, 2)), fmt="%g")
            case "no vectors":
                np.savetxt(path, np.zeros((3, 2)), fmt="%g")
            case "bvec":
                np.savetxt(path, vectors.T, fmt="%.9f")
            case "turned":
                np.savetxt(path, (vectors @ TURN.T).T, fmt="%.9f")
            case "mrtrix":
                np.savetxt(path, np.c_[made.directions, made.b_values], header="by hand")
            case "json":
                write_json(path, {"EchoTime": 0.08})

    def lay_out(files: dict[str, str]) -> Path:
        for name, kind in files.items():
            write(kind, tmp_path / name)
        return tmp_path

    return lay_out


DWI = {"dwi.nii.gz": "dwi", "dwi.bval": "bval", "dwi.bvec": "bvec"}
RAW = "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st"
PREP = "derivatives/qsiprep/sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_space-ACPC"

LAYOUTS: dict[str, tuple[dict[str, str], str, str, str, str | None]] = {
    # name: (files, image, bval, bvec, mask)
    "beside": (DWI, "dwi.nii.gz", "dwi.bval", "dwi.bvec", None),
    "HCP": (
        {
            "100307/T1w/Diffusion/data.nii.gz": "dwi",
            "100307/T1w/Diffusion/bvals": "bval",
            "100307/T1w/Diffusion/bvecs": "bvec",
            "100307/T1w/Diffusion/nodif_brain_mask.nii.gz": "mask",
            "100307/T1w/Diffusion/nodif_brain.nii.gz": "mask",
        },
        "100307/T1w/Diffusion/data.nii.gz",
        "100307/T1w/Diffusion/bvals",
        "100307/T1w/Diffusion/bvecs",
        "100307/T1w/Diffusion/nodif_brain_mask.nii.gz",
    ),
    "eddy's output": (
        {
            "dwi.nii.gz": "dwi",
            "dwi.bval": "bval",
            "dwi.bvec": "bvec",
            "eddy_corrected.nii.gz": "dwi",
            "eddy_corrected.eddy_rotated_bvecs": "turned",
            "eddy_corrected.eddy_output_mask.nii.gz": "mask",
            "nodif_brain_mask.nii.gz": "mask",
        },
        "eddy_corrected.nii.gz",
        "dwi.bval",
        "eddy_corrected.eddy_rotated_bvecs",
        "nodif_brain_mask.nii.gz",
    ),
    "eddy's table before the original's": (
        {"e.nii.gz": "dwi", "e.bval": "bval", "e.bvec": "bvec", "e.eddy_rotated_bvecs": "turned"},
        "e.nii.gz",
        "e.bval",
        "e.eddy_rotated_bvecs",
        None,
    ),
    "TRACULA": (
        {
            "diff/dmri/data.nii.gz": "dwi",
            "diff/dmri/bvals": "bval",
            "diff/dmri/bvecs": "bvec",
            "diff/dlabel/diff/lowb_brain_mask.nii.gz": "mask",
            "diff/dlabel/diff/aparc+aseg_mask.nii.gz": "mask",
            "diff/dlabel/diff/White-Matter_mask.nii.gz": "mask",
        },
        "diff/dmri/data.nii.gz",
        "diff/dmri/bvals",
        "diff/dmri/bvecs",
        "diff/dmri/../dlabel/diff/lowb_brain_mask.nii.gz",
    ),
    "QSIPrep, ACPC": (
        {
            f"{PREP}_desc-preproc_dwi.nii.gz": "dwi",
            f"{PREP}_desc-preproc_dwi.bval": "bval",
            f"{PREP}_desc-preproc_dwi.bvec": "bvec",
            f"{PREP}_desc-preproc_dwi.b": "mrtrix",
            f"{PREP}_desc-brain_mask.nii.gz": "mask",
            f"{PREP}_dwiref.nii.gz": "b0",
        },
        f"{PREP}_desc-preproc_dwi.nii.gz",
        f"{PREP}_desc-preproc_dwi.bval",
        f"{PREP}_desc-preproc_dwi.bvec",
        f"{PREP}_desc-brain_mask.nii.gz",
    ),
    "QSIPrep, the scan's mask among others": (
        {
            f"{PREP}_run-1_desc-preproc_dwi.nii.gz": "dwi",
            f"{PREP}_run-1_desc-preproc_dwi.bval": "bval",
            f"{PREP}_run-1_desc-preproc_dwi.bvec": "bvec",
            f"{PREP}_run-1_desc-brain_mask.nii.gz": "mask",
            f"{PREP}_run-2_desc-brain_mask.nii.gz": "mask",
            f"{PREP.replace('ACPC', 'T1w')}_run-1_desc-brain_mask.nii.gz": "mask",
            f"{PREP}_run-1_desc-lesion_mask.nii.gz": "mask",
            f"{PREP}_run-1_label-WM_mask.nii.gz": "mask",
        },
        f"{PREP}_run-1_desc-preproc_dwi.nii.gz",
        f"{PREP}_run-1_desc-preproc_dwi.bval",
        f"{PREP}_run-1_desc-preproc_dwi.bvec",
        f"{PREP}_run-1_desc-brain_mask.nii.gz",
    ),
    "dMRIPrep": (
        {
            "sub-02/dwi/sub-02_desc-preproc_dwi.nii.gz": "dwi",
            "sub-02/dwi/sub-02_desc-preproc_dwi.bval": "bval",
            "sub-02/dwi/sub-02_desc-preproc_dwi.bvec": "bvec",
            "sub-02/dwi/sub-02_desc-brain_mask.nii.gz": "mask",
        },
        "sub-02/dwi/sub-02_desc-preproc_dwi.nii.gz",
        "sub-02/dwi/sub-02_desc-preproc_dwi.bval",
        "sub-02/dwi/sub-02_desc-preproc_dwi.bvec",
        "sub-02/dwi/sub-02_desc-brain_mask.nii.gz",
    ),
    "PNL, dMRIharmonization": (
        {
            "sub-1/ses-1/dwi/sub-1_ses-1_desc-XcUnEd_dwi.nii.gz": "dwi",
            "sub-1/ses-1/dwi/sub-1_ses-1_desc-XcUnEd_dwi.bval": "bval",
            "sub-1/ses-1/dwi/sub-1_ses-1_desc-XcUnEd_dwi.bvec": "bvec",
            "sub-1/ses-1/dwi/sub-1_ses-1_desc-dwiXcUnEd_mask.nii.gz": "mask",
        },
        "sub-1/ses-1/dwi/sub-1_ses-1_desc-XcUnEd_dwi.nii.gz",
        "sub-1/ses-1/dwi/sub-1_ses-1_desc-XcUnEd_dwi.bval",
        "sub-1/ses-1/dwi/sub-1_ses-1_desc-XcUnEd_dwi.bvec",
        "sub-1/ses-1/dwi/sub-1_ses-1_desc-dwiXcUnEd_mask.nii.gz",
    ),
    "a prediction beside its scan": (
        {
            f"{RAW}_mask.nii.gz": "mask",
            f"{RAW}_desc-bMsp_dwi.nii.gz": "dwi",
            f"{RAW}_desc-bMsp_dwi.bval": "bval",
            f"{RAW}_desc-bMsp_dwi.bvec": "bvec",
            f"{RAW}_desc-bMsp_mask.nii.gz": "mask",
        },
        f"{RAW}_desc-bMsp_dwi.nii.gz",
        f"{RAW}_desc-bMsp_dwi.bval",
        f"{RAW}_desc-bMsp_dwi.bvec",
        f"{RAW}_desc-bMsp_mask.nii.gz",
    ),
    "BIDS, one table at the root": (
        {f"{RAW}_dwi.nii.gz": "dwi", "dwi.bval": "bval", "dwi.bvec": "bvec"},
        f"{RAW}_dwi.nii.gz",
        "dwi.bval",
        "dwi.bvec",
        None,
    ),
    "BIDS, the nearest level wins": (
        {
            f"{RAW}_dwi.nii.gz": "dwi",
            "dwi.bval": "zeros",
            "dwi.bvec": "no vectors",
            "sub-01/sub-01_acq-st_dwi.bval": "zeros",
            "sub-01/ses-ge/sub-01_ses-ge_dwi.bval": "bval",
            "sub-01/ses-ge/sub-01_ses-ge_dwi.bvec": "bvec",
            "sub-01/ses-ge/sub-01_ses-ge_acq-sa_dwi.bval": "zeros",
        },
        f"{RAW}_dwi.nii.gz",
        "sub-01/ses-ge/sub-01_ses-ge_dwi.bval",
        "sub-01/ses-ge/sub-01_ses-ge_dwi.bvec",
        None,
    ),
    "BIDS, values and vectors of two levels": (
        {
            f"{RAW}_dwi.nii.gz": "dwi",
            "acq-st_dwi.bval": "bval",
            f"{RAW}_dwi.bvec": "bvec",
            f"derivatives/strip/{RAW}_desc-synthstrip_mask.nii.gz": "mask",
        },
        f"{RAW}_dwi.nii.gz",
        "acq-st_dwi.bval",
        f"{RAW}_dwi.bvec",
        f"derivatives/strip/{RAW}_desc-synthstrip_mask.nii.gz",
    ),
    "a word of the user's own in the names": (
        {
            "sub-01_again_dwi.nii.gz": "dwi",
            "sub-01_again_dwi.bval": "bval",
            "sub-01_again_dwi.bvec": "bvec",
            "sub-01_again_mask.nii.gz": "mask",
            "sub-01_dwi.nii.gz": "dwi",
            "sub-01_dwi.bval": "bval",
            "sub-01_dwi.bvec": "bvec",
            "sub-01_mask.nii.gz": "mask",
        },
        "sub-01_again_dwi.nii.gz",
        "sub-01_again_dwi.bval",
        "sub-01_again_dwi.bvec",
        "sub-01_again_mask.nii.gz",
    ),
    "a mask of another space is not the raw scan's": (
        {
            f"{RAW}_dwi.nii.gz": "dwi",
            f"{RAW}_dwi.bval": "bval",
            f"{RAW}_dwi.bvec": "bvec",
            f"{PREP}_desc-brain_mask.nii.gz": "mask",
        },
        f"{RAW}_dwi.nii.gz",
        f"{RAW}_dwi.bval",
        f"{RAW}_dwi.bvec",
        None,
    ),
    "capitals": (
        {"DWI.NII.GZ": "dwi", "DWI.BVAL": "bval", "DWI.BVEC": "bvec", "DWI_MASK.NII.GZ": "mask"},
        "DWI.NII.GZ",
        "DWI.BVAL",
        "DWI.BVEC",
        "DWI_MASK.NII.GZ",
    ),
    "plural endings": (
        {"a.nii": "dwi", "a.bvals": "bval", "a.bvecs": "bvec", "a_brain_mask.nii": "mask"},
        "a.nii",
        "a.bvals",
        "a.bvecs",
        "a_brain_mask.nii",
    ),
    "MRtrix3's table": (
        {"dwi.nii.gz": "dwi", "dwi.b": "mrtrix", "mask.nii.gz": "mask"},
        "dwi.nii.gz",
        "dwi.b",
        "dwi.b",
        "mask.nii.gz",
    ),
    "two processing steps share a mask": (
        {
            "dwi.nii.gz": "dwi",
            "dwi.bval": "bval",
            "dwi.bvec": "bvec",
            "eddy.nii.gz": "dwi",
            "eddy.eddy_rotated_bvecs": "turned",
            "dwi_mask.nii.gz": "mask",
        },
        "eddy.nii.gz",
        "dwi.bval",
        "eddy.eddy_rotated_bvecs",
        "dwi_mask.nii.gz",
    ),
    "a lesion is no brain": (
        DWI | {"dwi_lesion_mask.nii.gz": "mask", "wm_mask.nii.gz": "mask"},
        "dwi.nii.gz",
        "dwi.bval",
        "dwi.bvec",
        None,
    ),
    "the mask that fits": (
        DWI | {"brain_mask.nii.gz": "mask elsewhere", "nodif_brain_mask.nii.gz": "mask"},
        "dwi.nii.gz",
        "dwi.bval",
        "dwi.bvec",
        "nodif_brain_mask.nii.gz",
    ),
    "a mask that may belong to another scan": (
        DWI | {"b.nii.gz": "dwi", "b.bval": "bval", "b.bvec": "bvec", "brain_mask.nii.gz": "mask"},
        "dwi.nii.gz",
        "dwi.bval",
        "dwi.bvec",
        None,
    ),
    "the same mask in two formats": (
        DWI | {"dwi_mask.nii.gz": "mask", "dwi_mask.nii": "mask"},
        "dwi.nii.gz",
        "dwi.bval",
        "dwi.bvec",
        "dwi_mask.nii.gz",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_belongs_to_an_image(
    lay: Callable[..., Path], scan: Callable[..., Any], layout: str
) -> None:
    files, image, bval, bvec, mask = LAYOUTS[layout]
    root = lay(files)
    path = root / image

    found = find_gradients(path)
    assert (found.bval, found.bvec) == (root / bval, root / bvec)
    assert look_for_mask(path).path == (None if mask is None else root / mask)
    assert is_scan(path)

    acquisition = load_acquisition(path)  # every job decides alike
    assert acquisition.mask_path == (None if mask is None else root / mask)
    turn = X_TO_THE_LEFT @ TURN @ X_TO_THE_LEFT if files[bvec] == "turned" else np.eye(3)
    expected = scan("LAS", 30, shape=SHAPE).directions @ turn.T
    np.testing.assert_allclose(acquisition.gradients.directions, expected, atol=1e-6)
    window = examine(LoadChoice(path=path))
    assert window.problems == {}
    assert window.mask == acquisition.mask_path


class TestSaid:
    """What a person might not expect is said, and what nobody can know is asked."""

    def test_the_table_that_was_taken(self, lay: Callable[..., Path]) -> None:
        files = {"e.nii.gz": "dwi", "e.bval": "bval", "e.bvec": "bvec"}
        root = lay(files | {"e.eddy_rotated_bvecs": "turned"})
        [note] = load_acquisition(root / "e.nii.gz").said(TableFound)
        assert "e.eddy_rotated_bvecs" in note and "not e.bvec" in note
        assert "eddy turned" in examine(LoadChoice(path=root / "e.nii.gz")).doubts["bvec"]
        assert load_acquisition(root / "e.nii.gz", bvec=root / "e.bvec").first_doubts == ()
        shutil.copy(lay({"m.nii.gz": "mask"}) / "m.nii.gz", root / "e_mask.nii.gz")
        with pytest.warns(TableFound, match="e.eddy_rotated_bvecs, which eddy turned"):
            written = load_scan(root / "e.nii.gz").save(root / "maps")
        said = read_json(Path(str(written[0]).replace("nii.gz", "json")))["Inputs"]
        assert [each.partition(":")[0] for each in said] == ["brain mask", "b-vectors"]

    def test_masks_that_were_not_taken(self, lay: Callable[..., Path]) -> None:
        root = lay(DWI | {"brain_mask.nii.gz": "mask elsewhere"})
        [doubt] = load_acquisition(root / "dwi.nii.gz").first_doubts
        assert isinstance(doubt, OtherMask)
        assert doubt.words == "brain_mask.nii.gz has another voxel grid"
        assert "another voxel grid" in examine(LoadChoice(path=root / "dwi.nii.gz")).doubts["mask"]

    def test_several_masks_that_fit_equally(self, lay: Callable[..., Path]) -> None:
        root = lay(DWI | {"nodif_brain_mask.nii.gz": "mask", "bet_brain_mask.nii.gz": "mask"})
        with pytest.raises(UserError, match=r"several files .*bet_brain.*nodif_brain") as error:
            load_acquisition(root / "dwi.nii.gz")
        assert (error.value.field, error.value.remedy) == ("mask", Give("mask", "one"))
        assert "mask" in examine(LoadChoice(path=root / "dwi.nii.gz")).problems

    def test_a_mask_of_the_scans_own_name_must_lie_on_it(self, lay: Callable[..., Path]) -> None:
        root = lay(DWI | {"dwi_mask.nii.gz": "mask elsewhere", "brain_mask.nii.gz": "mask"})
        with pytest.raises(UserError, match=r"dwi_mask.nii.gz: its voxel grid is not the image's"):
            _ = load_acquisition(root / "dwi.nii.gz").mask

    def test_two_tables_of_one_level(self, lay: Callable[..., Path]) -> None:
        tables = {"dwi.bval": "bval", "acq-st_dwi.bval": "bval", "dwi.bvec": "bvec"}
        root = lay({f"{RAW}_dwi.nii.gz": "dwi"} | tables)
        with pytest.raises(UserError, match=r"several .bval files apply") as error:
            load_acquisition(root / f"{RAW}_dwi.nii.gz")
        assert error.value.field == "bval"
        assert "bval" in examine(LoadChoice(path=root / f"{RAW}_dwi.nii.gz")).problems

    def test_a_folders_table_is_only_of_what_has_as_many_volumes(
        self, lay: Callable[..., Path]
    ) -> None:
        root = lay({"data.nii.gz": "dwi", "bvals": "bval", "bvecs": "bvec", "b0.nii.gz": "b0"})
        lay({"nodif_brain_mask.nii.gz": "mask"})
        scans = [path.name for path in sorted(root.glob("*.nii.gz")) if is_scan(path)]
        assert scans == ["data.nii.gz"]


# --- Tables and formats -----------------------------------------------------------------------


def rewritten(path: Path, how: str) -> None:
    """Write a table as other programs do."""
    text = path.read_text()
    match how:
        case "commas":
            path.write_text(text.replace(" ", ","))
        case "commas and blanks":
            path.write_text(text.replace(" ", ", "))
        case "semicolons":
            path.write_text(text.replace(" ", ";"))
        case "tabs, Windows":
            path.write_bytes(text.replace(" ", "\t").replace("\n", "\r\n").encode())
        case "byte-order mark":
            path.write_bytes(codecs.BOM_UTF8 + text.encode())
        case "UTF-16":
            path.write_text(text, encoding="utf-16")
        case "columns":
            np.savetxt(path, np.loadtxt(path).T, fmt="%.9f")
        case "blank lines":
            path.write_text("\n" + text.replace("\n", "\n\n"))


@pytest.mark.parametrize(
    "how",
    [
        "commas",
        "commas and blanks",
        "semicolons",
        "tabs, Windows",
        "byte-order mark",
        "UTF-16",
        "columns",
        "blank lines",
    ],
)
def test_tables_as_other_programs_write_them(lay: Callable[..., Path], how: str) -> None:
    root = lay(DWI)
    expected = load_acquisition(root / "dwi.nii.gz").gradients
    for name in ("dwi.bval", "dwi.bvec"):
        rewritten(root / name, how)
    found = load_acquisition(root / "dwi.nii.gz").gradients
    np.testing.assert_array_equal(found.b_values, expected.b_values)
    np.testing.assert_allclose(found.directions, expected.directions, atol=1e-12)


def test_a_table_of_mrtrix3_given_by_either_name(lay: Callable[..., Path]) -> None:
    root = lay(DWI | {"elsewhere/other.b": "mrtrix"})
    expected = load_acquisition(root / "dwi.nii.gz").gradients
    for name in ("bval", "bvec"):
        given: dict[str, Any] = {name: root / "elsewhere/other.b"}
        found = load_acquisition(root / "dwi.nii.gz", **given)
        np.testing.assert_allclose(found.gradients.directions, expected.directions, atol=1e-8)
    (root / "elsewhere/other.b").write_text("1 2 3")
    with pytest.raises(UserError, match="not a table with x, y, z and b"):
        load_acquisition(root / "dwi.nii.gz", root / "elsewhere/other.b")


@pytest.mark.parametrize("ending", [".img", ".hdr"])
def test_nifti_in_two_files(lay: Callable[..., Path], ending: str) -> None:
    root = lay(DWI)
    image = nib.load(root / "dwi.nii.gz")
    nib.Nifti1Pair(np.asarray(image.dataobj), image.affine).to_filename(root / "pair.img")
    for name in ("bval", "bvec"):
        shutil.copy(root / f"dwi.{name}", root / f"pair.{name}")
    found = load_acquisition(root / f"pair{ending}")
    np.testing.assert_array_equal(found.voxels, np.asarray(image.dataobj))
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-6)


def test_analyze_is_refused_as_nobody_knows_its_left(lay: Callable[..., Path]) -> None:
    root = lay(DWI)
    nib.Spm99AnalyzeImage(np.zeros((4, 3, 5, 2), np.int16), np.eye(4)).to_filename(root / "a.img")
    with pytest.raises(UserError, match="does not state left and right"):
        load_acquisition(root / "a.img", root / "dwi.bval", root / "dwi.bvec")


class TestMRtrixImages:
    @pytest.fixture
    def root(self, lay: Callable[..., Path]) -> Path:
        return lay(DWI | {"dwi_mask.nii.gz": "mask", "b0.nii.gz": "b0"})

    def convert(self, root: Path, source: str, target: str, *options: str) -> Path:
        command = ["mrconvert", "-quiet", source, target, *options]
        subprocess.run(command, cwd=root, check=True)
        return root / target

    @pytest.mark.parametrize("ending", ["mif", "mif.gz", "mih"])
    def test_its_header_says_whether_it_is_a_scan(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"image.{ending}"
        for scheme in ("dw_scheme: 0,0,0,0\n", "comments: no dw_scheme\n"):
            image = f"mrtrix image\ndim: 3,3,3,1\n{scheme}END\ndw_scheme: 0,0,0,0\n".encode()
            path.write_bytes(gzip.compress(image) if ending.endswith("gz") else image)
            assert is_scan(path) == scheme.startswith("dw_scheme")

    @pytest.mark.reference("MRtrix mrconvert")
    @pytest.mark.parametrize("ending", ["mif", "mif.gz", "mih"])
    @pytest.mark.parametrize("strides", ["1,2,3,4", "-2,3,1,4", "2,3,4,1"])
    def test_an_image_with_its_table(self, root: Path, ending: str, strides: str) -> None:
        expected = load_acquisition(root / "dwi.nii.gz")
        table = ("-fslgrad", "dwi.bvec", "dwi.bval")
        (root / "x").mkdir()
        path = self.convert(root, "dwi.nii.gz", f"x/dwi.{ending}", *table, "-strides", strides)
        self.convert(root, "dwi_mask.nii.gz", "x/dwi_mask.mif")
        found = load_acquisition(path)
        assert is_scan(path)
        assert found.mask_path == root / "x/dwi_mask.mif"
        np.testing.assert_allclose(
            found.gradients.directions, expected.gradients.directions, atol=1e-6
        )
        np.testing.assert_allclose(found.gradients.b_values, expected.gradients.b_values, atol=0.1)
        centre = np.array([2, 1, 3, 1.0])
        there = np.linalg.solve(found.affine, expected.affine @ centre).round().astype(int)[:3]
        np.testing.assert_array_equal(found.voxels[tuple(there)], expected.voxels[2, 1, 3])
        assert found.mask[tuple(there)] == expected.mask[2, 1, 3]
        assert found.mask.sum() == expected.mask.sum()

    def test_without_a_table_in_the_header(self, root: Path) -> None:
        path = self.convert(root, "dwi.nii.gz", "bare.mif")
        with pytest.raises(UserError, match=r"bare.bval: is missing"):
            load_acquisition(path)
        assert len(load_acquisition(path, root / "dwi.bval", root / "dwi.bvec").gradients) == 32

    def test_where_mrtrix3_is_missing(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.convert(root, "dwi.nii.gz", "bare.mif")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(UserError, match="only MRtrix3 reads; install MRtrix3, or convert it"):
            load_acquisition(path, root / "dwi.bval", root / "dwi.bvec")

    def test_a_damaged_one(self, root: Path) -> None:
        (root / "odd.mif").write_bytes(b"mrtrix image\ndim: 3\n")
        with pytest.raises(UserError, match=r"odd.mif: is not a readable MRtrix3 image"):
            load_acquisition(root / "odd.mif", root / "dwi.bval", root / "dwi.bvec")


# --- Datasets ---------------------------------------------------------------------------------


def bids(*scans: str, mask: bool = True) -> dict[str, str]:
    """Files of BIDS scans by the paths of their stems."""
    files = {}
    for each in scans:
        stem = each.removesuffix("_dwi")
        kinds = {"_dwi.nii.gz": "dwi", "_dwi.bval": "bval", "_dwi.bvec": "bvec"}
        files |= {stem + ending: kind for ending, kind in kinds.items()}
        files |= {f"{stem}_mask.nii.gz": "mask"} if mask else {}
    return files


def b0_pair(stem: str) -> dict[str, str]:
    return {
        f"{stem}_dwi.nii.gz": "b0",
        f"{stem}_dwi.bval": "zeros",
        f"{stem}_dwi.bvec": "no vectors",
    }


DATASETS: dict[str, tuple[dict[str, str], int | None, dict[tuple[str, str], str]]] = {
    # name: (files, run, {(subject, platform): image})
    "session and protocol": (
        bids("sub-1/ses-ge/dwi/sub-1_ses-ge_acq-st"),
        None,
        {("sub-1", "ge_st"): "sub-1/ses-ge/dwi/sub-1_ses-ge_acq-st_dwi.nii.gz"},
    ),
    "session alone": (
        bids("sub-1/ses-ge/dwi/sub-1_ses-ge"),
        None,
        {("sub-1", "ge"): "sub-1/ses-ge/dwi/sub-1_ses-ge_dwi.nii.gz"},
    ),
    "protocol alone": (
        bids("sub-1/dwi/sub-1_acq-a", "sub-1/dwi/sub-1_acq-b"),
        None,
        {
            ("sub-1", "a"): "sub-1/dwi/sub-1_acq-a_dwi.nii.gz",
            ("sub-1", "b"): "sub-1/dwi/sub-1_acq-b_dwi.nii.gz",
        },
    ),
    "AP with a PA of b=0": (
        bids("sub-1/ses-a/dwi/sub-1_ses-a_dir-AP") | b0_pair("sub-1/ses-a/dwi/sub-1_ses-a_dir-PA"),
        None,
        {("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_dir-AP_dwi.nii.gz"},
    ),
    "AP with a PA without a table": (
        bids("sub-1/ses-a/dwi/sub-1_ses-a_dir-AP")
        | {"sub-1/ses-a/dwi/sub-1_ses-a_dir-PA_dwi.nii.gz": "b0"},
        None,
        {("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_dir-AP_dwi.nii.gz"},
    ),
    "a PA of b=0 under a protocol of its own": (
        bids("sub-1/ses-a/dwi/sub-1_ses-a_acq-b1000")
        | b0_pair("sub-1/ses-a/dwi/sub-1_ses-a_acq-b0_dir-PA"),
        None,
        {("sub-1", "a_b1000"): "sub-1/ses-a/dwi/sub-1_ses-a_acq-b1000_dwi.nii.gz"},
    ),
    "the second run, where there are two": (
        bids(
            "sub-1/ses-a/dwi/sub-1_ses-a_run-01",
            "sub-1/ses-a/dwi/sub-1_ses-a_run-02",
            "sub-2/ses-a/dwi/sub-2_ses-a",
        ),
        2,
        {
            ("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_run-02_dwi.nii.gz",
            ("sub-2", "a"): "sub-2/ses-a/dwi/sub-2_ses-a_dwi.nii.gz",
        },
    ),
    "one run needs no choice": (
        bids("sub-1/ses-a/dwi/sub-1_ses-a_run-1"),
        None,
        {("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_run-1_dwi.nii.gz"},
    ),
    "derivatives as a dataset": (
        bids("sub-1/ses-a/dwi/sub-1_ses-a_space-ACPC_desc-preproc"),
        None,
        {("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_space-ACPC_desc-preproc_dwi.nii.gz"},
    ),
    "preprocessed among other versions": (
        bids(
            "sub-1/ses-a/dwi/sub-1_ses-a_space-T1w_desc-preproc",
            "sub-1/ses-a/dwi/sub-1_ses-a_space-T1w_desc-denoised",
        ),
        None,
        {("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_space-T1w_desc-preproc_dwi.nii.gz"},
    ),
    "the plain one among versions": (
        bids("sub-1/ses-a/dwi/sub-1_ses-a", "sub-1/ses-a/dwi/sub-1_ses-a_res-hi_desc-preproc"),
        None,
        {("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_dwi.nii.gz"},
    ),
    "two formats of one scan": (
        bids("sub-1/ses-a/dwi/sub-1_ses-a") | {"sub-1/ses-a/dwi/sub-1_ses-a_dwi.nii": "dwi"},
        None,
        {("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_dwi.nii.gz"},
    ),
    "an inherited table": (
        {"sub-1/ses-a/dwi/sub-1_ses-a_dwi.nii.gz": "dwi", "dwi.bval": "bval", "dwi.bvec": "bvec"},
        None,
        {("sub-1", "a"): "sub-1/ses-a/dwi/sub-1_ses-a_dwi.nii.gz"},
    ),
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_scans_of_a_dataset(lay: Callable[..., Path], dataset: str) -> None:
    files, run, expected = DATASETS[dataset]
    root = lay(files)
    found = open_dataset(root, run=run)
    assert found.scans == {identity: root / image for identity, image in expected.items()}
    images = set(root.rglob("*_dwi.nii*"))
    assert set(found.passed_over) == images - set(found.scans.values())
    for subject, platform in found.scans:
        assert found.acquisition(subject, platform).gradients.shells
    if run is None:
        assert set(examine(LoadChoice(path=root)).dataset.scans) == set(expected)


def test_what_was_passed_over_is_said(lay: Callable[..., Path]) -> None:
    pair = {}
    for subject in ("sub-1", "sub-2"):
        stem = f"{subject}/ses-a/dwi/{subject}_ses-a"
        pair |= bids(f"{stem}_dir-AP") | b0_pair(f"{stem}_dir-PA")
    root = lay(pair)
    [note] = open_dataset(root).notes
    first = root / "sub-1/ses-a/dwi/sub-1_ses-a_dir-PA_dwi.nii.gz"
    assert note.startswith(f"{first} and 1 more: left out, as it has only b=0 volumes")
    with pytest.warns(PassedOver, match="left out"):
        open_dataset(root).tell()
    found = [each.message() for each in check(root, input="a", alignment=False).findings]
    assert sum("only b=0 volumes" in each for each in found) == 2


def test_a_scan_in_other_units_is_refused_and_not_passed_over(lay: Callable[..., Path]) -> None:
    scans = [f"sub-{n}/ses-{s}/dwi/sub-{n}_ses-{s}" for n in (1, 2) for s in "ab"]
    root = lay(bids(*scans))
    bval = root / f"{scans[-1]}_dwi.bval"
    np.savetxt(bval, np.loadtxt(bval)[None] / 1000, fmt="%g")
    findings = check(root, input="a", alignment=False).findings
    errors = [each.message() for each in findings if each.severity == "error"]
    assert sum("looks like ms/µm²" in each for each in errors) == 1
    assert not any("left out" in each.message() for each in findings)
    assert open_dataset(root).has("sub-2", "b")
    settings = TrainingSettings(kind="shresnet", input="a", targets=("b",), held_out=())
    with pytest.raises(UserError, match="looks like ms/µm²"):
        prepare_study(open_dataset(root), settings)


def test_a_model_remembers_that_b0_images_are_at_60(lay: Callable[..., Path]) -> None:
    root = lay(bids(*(f"sub-{n}/ses-a/dwi/sub-{n}_ses-a" for n in (1, 2))))
    bval = root / "sub-1/ses-a/dwi/sub-1_ses-a_dwi.bval"
    np.savetxt(bval, np.maximum(np.loadtxt(bval), 60)[None], fmt="%g")
    dataset = replace(open_dataset(root), b0_threshold=60)
    with pytest.warns(DoubtfulScan, match="b = 60 counts as b=0"):
        assert gradients_of(dataset, "sub-1", "a", [1200.0]).b0_weighting == 60
    assert mean_b0_weighting(dataset, ["sub-1", "sub-2"], "a") == 30


class TestChoices:
    def test_runs_are_never_merged(self, lay: Callable[..., Path]) -> None:
        stem = "sub-1/ses-a/dwi/sub-1_ses-a"
        root = lay(bids(f"{stem}_run-1", f"{stem}_run-02"))
        with pytest.raises(UserError, match="sub-1 on a was scanned 2 times") as error:
            open_dataset(root)
        assert (error.value.field, error.value.remedy) == ("run", Choose("run", ("1", "2")))

    def test_parts_of_one_acquisition_are_no_repetitions(self, lay: Callable[..., Path]) -> None:
        stem = "sub-1/ses-a/dwi/sub-1_ses-a"
        root = lay(bids(f"{stem}_run-1", f"{stem}_run-2"))
        bvec = root / f"{stem}_run-2_dwi.bvec"
        np.savetxt(bvec, np.roll(np.loadtxt(bvec), 1, axis=0))
        with pytest.raises(UserError, match="has runs 1, 2 whose gradient tables differ") as error:
            open_dataset(root)
        join, choose = every(error.value.remedy)
        assert "first join the parts" in join.phrase()
        assert choose == Choose("run", ("1", "2"))
        first = open_dataset(root, first_run=True)
        assert list(first.runs["sub-1", "a"]) == ["1", "2"]

    def test_the_window_takes_the_first_run_and_offers_the_others(
        self, lay: Callable[..., Path]
    ) -> None:
        stem = "sub-1/ses-a/dwi/sub-1_ses-a"
        alone = "sub-2/ses-a/dwi/sub-2_ses-a"
        root = lay(bids(f"{stem}_run-1", f"{stem}_run-02", f"{alone}_run-3"))
        first = examine(LoadChoice(path=root))
        assert first.scan == root / f"{stem}_run-1_dwi.nii.gz"
        assert (first.choice.run, first.runs, first.problems) == ("1", ("1", "2"), {})
        second = examine(LoadChoice(root, "sub-1", "a", run="2"), first.dataset)
        assert second.scan == root / f"{stem}_run-02_dwi.nii.gz"
        other = examine(LoadChoice(root, "sub-2", "a"), first.dataset)
        assert other.scan == root / f"{alone}_run-3_dwi.nii.gz"
        assert other.runs == ()

    def test_the_first_run_may_have_no_number(self, lay: Callable[..., Path]) -> None:
        stem = "sub-1/ses-a/dwi/sub-1_ses-a"
        root = lay(bids(stem, f"{stem}_run-2"))
        with pytest.raises(UserError, match="sub-1 on a was scanned 2 times") as error:
            open_dataset(root)
        assert error.value.remedy == Choose("run", ("1", "2"))
        first, second = (open_dataset(root, run=run).scans["sub-1", "a"].name for run in (1, 2))
        assert (first, second) == ("sub-1_ses-a_dwi.nii.gz", "sub-1_ses-a_run-2_dwi.nii.gz")

    def test_a_name_that_contradicts_its_folders(self, lay: Callable[..., Path]) -> None:
        wrong = ["sub-2/ses-b/dwi/sub-1_ses-b", "sub-1/ses-a/dwi/sub-1_ses-c"]
        root = lay(bids("sub-1/ses-a/dwi/sub-1_ses-a", "sub-2/ses-a/dwi/sub-02_ses-a", *wrong))
        dataset = open_dataset(root)
        assert set(dataset.scans) == {("sub-1", "a"), ("sub-02", "a")}
        assert set(dataset.passed_over) == {root / f"{each}_dwi.nii.gz" for each in wrong}
        findings = check(root, input="a", alignment=False).findings
        told = [each for each in findings if "left out" in each.problem]
        assert [each.severity for each in told] == ["error", "error"]
        assert sorted(each.problem.partition("(")[2] for each in told) == [
            "is in the folder ses-a but named ses-c)",
            "is in the folder sub-2 but named sub-1)",
        ]
        with pytest.warns(DoubtfulScan, match="is in the folder sub-2 but named sub-1"):
            load_acquisition(root / f"{wrong[0]}_dwi.nii.gz")

    def test_a_run_that_nobody_has(self, lay: Callable[..., Path]) -> None:
        root = lay(bids("sub-1/ses-a/dwi/sub-1_ses-a_run-1"))
        with pytest.raises(UserError, match="is not run 3"):
            open_dataset(root, run=3)

    def test_both_directions_of_a_whole_scan(self, lay: Callable[..., Path]) -> None:
        stem = "sub-1/ses-a/dwi/sub-1_ses-a"
        root = lay(bids(f"{stem}_dir-AP", f"{stem}_dir-PA"))
        with pytest.raises(UserError, match=r"has several scans .*dir-AP.*dir-PA"):
            open_dataset(root)

    def test_check_goes_on_to_the_others(self, lay: Callable[..., Path]) -> None:
        twice = "sub-1/ses-a/dwi/sub-1_ses-a"
        both = "sub-2/ses-a/dwi/sub-2_ses-a"
        root = lay(
            bids(f"{twice}_run-1", f"{twice}_run-2", f"{both}_dir-AP", f"{both}_dir-PA")
            | bids("sub-3/ses-a/dwi/sub-3_ses-a")
        )
        checked = check(root, alignment=False)
        assert [row["subject"] for row in checked.rows] == ["sub-3"]
        problems = [each.problem for each in checked.findings if each.severity == "error"]
        assert any("sub-1 on a was scanned 2 times" in each for each in problems)
        assert any("sub-2 on a has several scans" in each for each in problems)

    def test_of_several_scans_nothing_but_that_is_said(self, lay: Callable[..., Path]) -> None:
        both, other = "sub-1/ses-a/dwi/sub-1_ses-a", "sub-1/ses-b/dwi/sub-1_ses-b"
        alone = [f"sub-2/ses-{each}/dwi/sub-2_ses-{each}" for each in "ab"]
        root = lay(bids(f"{both}_dir-AP", f"{both}_dir-PA", other, *alone))
        findings = check(root, input="b", alignment=False).findings
        [error] = [each for each in findings if "several scans" in each.problem]
        assert error.severity == "error"
        assert not [each for each in findings if "left out" in each.problem]
        assert not [each for each in findings if "has no scan" in each.problem]

    @pytest.mark.parametrize("named", [True, False])
    def test_an_input_of_which_all_have_several_is_not_called_missing(
        self, lay: Callable[..., Path], named: bool
    ) -> None:
        both, other = "sub-1/ses-a/dwi/sub-1_ses-a", "sub-1/ses-b/dwi/sub-1_ses-b"
        root = lay(bids(f"{both}_dir-AP", f"{both}_dir-PA", other))
        if not named:
            write_json(root / DESCRIPTION, {"NapariMSP": {INPUT_MARK: "a"}})
        findings = check(root, input="a" if named else None, alignment=False).findings
        several = [each.problem for each in findings if "a has several scans" in each.problem]
        assert len(several) == 2
        assert several[1].endswith("platforms are not compared with it")
        assert not [each for each in findings if "input platform" in each.problem]
        with pytest.raises(UserError, match="has no scan on c"):
            check(root, input="c")

    def test_one_platform_without_a_choice_does_not_hide_the_others(
        self, lay: Callable[..., Path]
    ) -> None:
        a, b, c = (f"sub-1/ses-{each}/dwi/sub-1_ses-{each}" for each in "abc")
        root = lay(bids(f"{a}_dir-AP", f"{a}_dir-PA", b, c))
        assert load_scan(root / f"{b}_dwi.nii.gz").siblings == {"c": root / f"{c}_dwi.nii.gz"}

    def test_the_window_offers_the_others(self, lay: Callable[..., Path]) -> None:
        both, alone = "sub-1/ses-a/dwi/sub-1_ses-a", "sub-2/ses-a/dwi/sub-2_ses-a"
        root = lay(bids(f"{both}_dir-AP", f"{both}_dir-PA", alone))
        first = examine(LoadChoice(path=root))
        assert first.scan == root / f"{alone}_dwi.nii.gz"
        for found in (first, examine(first.choice, first.dataset)):
            assert found.ready
            assert "sub-1 on a has several scans" in found.doubts["path"]
        theirs = examine(LoadChoice(path=root / "sub-1"))
        assert not theirs.ready
        assert "sub-1 on a has several scans" in theirs.problems["path"]

    def test_a_subjects_folder_is_told_of_its_dataset(self, lay: Callable[..., Path]) -> None:
        root = lay(bids("sub-1/ses-a/dwi/sub-1_ses-a"))
        for inside in ("sub-1", "sub-1/ses-a/dwi"):
            with pytest.raises(UserError, match="the dataset that contains it") as error:
                open_dataset(root / inside)
            assert str(root) in str(error.value.remedy)

    def test_parts_of_a_complex_signal_are_no_scans(self, lay: Callable[..., Path]) -> None:
        stem = "sub-1/ses-a/dwi/sub-1_ses-a"
        root = lay(bids(f"{stem}_part-mag", f"{stem}_part-phase", f"{stem}_part-real"))
        dataset = open_dataset(root)
        assert list(dataset.scans.values()) == [root / f"{stem}_part-mag_dwi.nii.gz"]
        assert len(dataset.passed_over) == 2

    def test_names_without_a_platform_are_one_platform(self, lay: Callable[..., Path]) -> None:
        root = lay(bids("sub-1/dwi/sub-1", "sub-2/dwi/sub-2_dir-AP"))
        dataset = open_dataset(root)
        assert sorted(dataset.scans) == [("sub-1", "unnamed"), ("sub-2", "unnamed")]
        [note] = dataset.notes
        assert "one platform, unnamed, as each names neither session (ses-)" in note
        with pytest.raises(UserError, match="as each names neither session") as refusal:
            with_platforms(dataset, TrainingSettings(input="unnamed"))
        assert "name the platform" in str(refusal.value)
        checked = check(root)
        assert len(checked.scans) == 2
        said = [each.message(OptionWords(ArgumentParser())) for each in checked.findings]
        assert sum("neither session (ses-) nor protocol (acq-)" in each for each in said) == 1
        assert any("name the platform with `napari-msp import`" in each for each in said)

    def test_one_that_names_none_among_others_is_passed_over(
        self, lay: Callable[..., Path]
    ) -> None:
        root = lay(bids("sub-1/dwi/sub-1", "sub-2/ses-a/dwi/sub-2_ses-a"))
        dataset = open_dataset(root)
        assert list(dataset.scans) == [("sub-2", "a")]
        [note] = dataset.notes
        assert "sub-1_dwi.nii.gz: left out, as it names neither session (ses-)" in note

    def test_scans_in_derivatives_are_named(self, lay: Callable[..., Path]) -> None:
        root = lay(bids("derivatives/qsiprep/sub-1/ses-a/dwi/sub-1_ses-a_desc-preproc"))
        with pytest.raises(UserError) as error:
            open_dataset(root)
        assert f"give {root / 'derivatives/qsiprep'}" in str(error.value)
        assert any(True for _ in every(error.value.remedy))


def test_sidecars_are_inherited_field_by_field(lay: Callable[..., Path]) -> None:
    root = lay({f"{RAW}_dwi.nii.gz": "dwi"})
    write_json(root / "dwi.json", {"EchoTime": 0.1, "Far": 1})
    write_json(root / "sub-01/ses-ge/sub-01_ses-ge_dwi.json", {"EchoTime": 0.2, "Near": 2})
    write_json(root / "acq-sa_dwi.json", {"Other": 3})
    write_json(root / f"{RAW}_dwi.json", {"Own": 4})
    known = read_metadata(root / f"{RAW}_dwi.nii.gz")
    assert known == {"EchoTime": 0.2, "Far": 1, "Near": 2, "Own": 4}


def test_one_platform_leaves_no_choice(tmp_path: Path, scan: Callable[..., Any]) -> None:
    folder = tmp_path / "sub-01" / "ses-ge" / "dwi"
    folder.mkdir(parents=True)
    scan().write(folder, stem="sub-01_ses-ge_acq-st")
    assert input_platform(open_dataset(tmp_path)) == "ge_st"
    with pytest.raises(UserError):
        input_platform(open_dataset(tmp_path), targets=("ge_st",))
