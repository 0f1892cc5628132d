"""Import of the trees of public data sets and pipelines, and of other formats."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_msp.checking.dataset import check
from napari_msp.data.acquisition import DoubtfulScan, TableFound, load_acquisition
from napari_msp.data.companions import PassedOver
from napari_msp.data.cubes import Interpolated
from napari_msp.data.dataset import open_dataset
from napari_msp.data.importers import import_tree
from napari_msp.errors import Give, UserError, every
from napari_msp.files import write_json
from napari_msp.strict_json import read_json


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "tree"


@pytest.fixture
def put(tree: Path, scan: Callable[..., Any]) -> Callable[..., Path]:
    """Write a small scan: image, table and mask under names of their own, or none."""
    made = scan("LAS", 30, shape=(4, 3, 5))

    def write(image: str, bval: str = "", bvec: str = "", mask: str = "") -> Path:
        path = tree / image
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write(tree, stem="scan").unlink()
        nib.save(made.image, path)
        for name, given in (("dwi.bval", bval), ("dwi.bvec", bvec), ("mask.nii.gz", mask)):
            if given:
                shutil.move(tree / f"scan_{name}", path.parent / given)
            else:
                (tree / f"scan_{name}").unlink()
        return path

    return write


def imported(tree: Path, pattern: str, **options: Any) -> dict[tuple[str, str], Path]:
    """Import a tree and list the dataset; every scan opens, with a mask that was brought along."""
    out = tree.parent / "bids"
    import_tree(tree, out, pattern, **options)
    dataset = open_dataset(out)
    for subject, platform in dataset.scans:
        acquisition = dataset.acquisition(subject, platform)
        assert acquisition.mask.sum() == 3 * 2 * 5
        assert len(acquisition.shell().volumes) == 30
    return {identity: path.relative_to(out) for identity, path in dataset.scans.items()}


def test_one_pattern_takes_compressed_images_and_others(
    tree: Path, put: Callable[..., Path]
) -> None:
    put("a/ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec", "ge_dwi_mask.nii.gz")
    put("b/ge_dwi.nii", "ge_dwi.bval", "ge_dwi.bvec", "ge_dwi_mask.nii.gz")
    put("c/ge_dwi.NII.GZ", "ge_dwi.bval", "ge_dwi.bvec", "ge_dwi_mask.nii.gz")
    expected = {
        ("sub-a", "ge"): Path("sub-a/ses-ge/dwi/sub-a_ses-ge_dwi.nii.gz"),
        ("sub-b", "ge"): Path("sub-b/ses-ge/dwi/sub-b_ses-ge_dwi.nii"),
        ("sub-c", "ge"): Path("sub-c/ses-ge/dwi/sub-c_ses-ge_dwi.nii.gz"),
    }
    assert imported(tree, "{subject}/{scanner}_dwi.nii") == expected
    shutil.rmtree(tree.parent / "bids")
    mask = "{subject}/{scanner}_dwi_mask.nii"
    assert imported(tree, "{subject}/{scanner}_dwi.nii.gz", mask=mask) == expected


def test_linked_folders_are_gone_into(tree: Path, put: Callable[..., Path]) -> None:
    put("elsewhere/dwi.nii.gz", "dwi.bval", "dwi.bvec", "mask.nii.gz")
    farm = tree.parent / "farm"
    (farm / "s1").mkdir(parents=True)
    (farm / "s1/ge").symlink_to(tree / "elsewhere")
    (farm / "s2").symlink_to(farm / "s1")
    (farm / "s1/itself").symlink_to(farm)  # it ends all the same
    found = imported(farm, "{subject}/{scanner}/dwi.nii.gz", mask="{subject}/{scanner}/mask.nii.gz")
    assert sorted(found) == [("sub-s1", "ge"), ("sub-s2", "ge")]


def test_hcp(tree: Path, put: Callable[..., Path]) -> None:
    for subject in ("100307", "100408"):
        folder = f"{subject}/T1w/Diffusion"
        put(f"{folder}/data.nii.gz", "bvals", "bvecs", "nodif_brain_mask.nii.gz")
    assert imported(tree, "{subject}/T1w/Diffusion/data.nii.gz", session="hcp") == {
        (f"sub-{each}", "hcp"): Path(f"sub-{each}/ses-hcp/dwi/sub-{each}_ses-hcp_dwi.nii.gz")
        for each in ("100307", "100408")
    }


def test_derivatives_of_qsiprep(tree: Path, put: Callable[..., Path]) -> None:
    stem = "sub-1_ses-ge_acq-st_space-ACPC_desc-preproc_dwi"
    put(
        f"sub-1/ses-ge/dwi/{stem}.nii.gz",
        f"{stem}.bval",
        f"{stem}.bvec",
        "sub-1_ses-ge_acq-st_space-ACPC_desc-brain_mask.nii.gz",
    )
    pattern = "{subject}/{session}/dwi/{subject}_{session}_acq-{protocol}_space-ACPC_*_dwi.nii.gz"
    assert imported(tree, pattern) == {
        ("sub-1", "ge_st"): Path("sub-1/ses-ge/dwi/sub-1_ses-ge_acq-st_dwi.nii.gz")
    }


def test_a_table_above_the_tree_comes_along(tree: Path, put: Callable[..., Path]) -> None:
    put("sub-1/ses-a/dwi/sub-1_ses-a_dwi.nii.gz", "../../dwi.bval", "../../dwi.bvec",
        "sub-1_ses-a_mask.nii.gz")  # fmt: skip
    out = tree.parent / "bids"
    import_tree(tree / "sub-1/ses-a", out, "dwi/*_dwi.nii.gz", subject="1", session="a")
    assert "\t../dwi.bvec\n" in (out / "code/imported.tsv").read_text()


def test_eddys_b_vectors_are_imported(tree: Path, put: Callable[..., Path]) -> None:
    put("a/e.nii.gz", "dwi.bval", "e.eddy_rotated_bvecs", "nodif_brain_mask.nii.gz")
    with pytest.warns(TableFound, match=r"e\.eddy_rotated_bvecs, which eddy turned"):
        [path] = imported(tree, "{subject}/e.nii.gz", session="x").values()
    copied = (tree.parent / "bids" / path).with_name("sub-a_ses-x_dwi.bvec")
    assert copied.read_bytes() == (tree / "a/e.eddy_rotated_bvecs").read_bytes()
    assert "\ta/e.eddy_rotated_bvecs\n" in (tree.parent / "bids/code/imported.tsv").read_text()


def test_an_image_of_b0_alone_is_passed_over(tree: Path, put: Callable[..., Path]) -> None:
    stem = "sub-1/ses-a/dwi/sub-1_ses-a_dir-"
    put(f"{stem}AP_dwi.nii.gz", "sub-1_ses-a_dir-AP_dwi.bval", "sub-1_ses-a_dir-AP_dwi.bvec",
        "sub-1_ses-a_dir-AP_mask.nii.gz")  # fmt: skip
    image = nib.load(tree / f"{stem}AP_dwi.nii.gz").slicer[..., :2]
    nib.save(image, tree / f"{stem}PA_dwi.nii.gz")
    (tree / f"{stem}PA_dwi.bval").write_text("0 0")
    (tree / f"{stem}PA_dwi.bvec").write_text("0 0\n0 0\n0 0")
    with pytest.warns(PassedOver, match=r"dir-PA_dwi.nii.gz: is left out: it has only b=0 volumes"):
        found = imported(tree, "{subject}/{session}/dwi/*_dwi.nii.gz")
    assert list(found) == [("sub-1", "a")]


def test_runs_stay_apart(tree: Path, put: Callable[..., Path]) -> None:
    for stem in ("ge_1", "ge_2"):
        table = f"{stem}_dwi.bval", f"{stem}_dwi.bvec"
        put(f"p/{stem}_dwi.nii.gz", *table, f"{stem}_mask.nii.gz")
    out = tree.parent / "bids"
    import_tree(tree, out, "{subject}/{scanner}_{run}_dwi.nii.gz")
    second = open_dataset(out, run=2).scans["sub-p", "ge"]
    assert second == out / "sub-p/ses-ge/dwi/sub-p_ses-ge_run-2_dwi.nii.gz"


def test_a_pattern_takes_scans_with_and_without_a_run(tree: Path, put: Callable[..., Path]) -> None:
    for stem in ("sub-a_ses-ge_run-1", "sub-a_ses-ge_run-2", "sub-b_ses-ge"):
        table = f"{stem}_dwi.bval", f"{stem}_dwi.bvec"
        put(f"p/{stem}_dwi.nii.gz", *table, f"{stem}_mask.nii.gz")
    pattern = "p/sub-{subject}_ses-{session}*_dwi.nii.gz"
    made = import_tree(tree, tree.parent / "bids", pattern, dry_run=True)
    names = [scan.image.name.removesuffix("_dwi.nii.gz") for scan in made]
    assert names == ["sub-a_ses-ge_run-1", "sub-a_ses-ge_run-2", "sub-b_ses-ge"]


def test_nifti_in_two_files_becomes_one(tree: Path, put: Callable[..., Path]) -> None:
    path = put("p/ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec", "ge_mask.nii.gz")
    image = nib.load(path)
    voxels = np.asarray(image.dataobj)
    nib.Nifti1Pair(voxels, image.affine).to_filename(path.with_name("ge_dwi.img"))
    path.unlink()
    [made] = imported(tree, "{subject}/{scanner}_dwi.img").values()
    written = nib.load(tree.parent / "bids" / made)
    np.testing.assert_array_equal(np.asarray(written.dataobj), voxels)
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-6)


@pytest.mark.reference("MRtrix mrconvert")
def test_an_image_of_mrtrix3_becomes_nifti_with_fsls_table(
    tree: Path, put: Callable[..., Path]
) -> None:
    path = put("p/ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec", "ge_mask.nii.gz")
    expected = load_acquisition(path)
    voxels = sorted(expected.voxels.ravel())
    table = ["-fslgrad", "ge_dwi.bvec", "ge_dwi.bval", "-strides", "2,-3,1,4"]
    command = ["mrconvert", "-quiet", "ge_dwi.nii.gz", "ge_dwi.mif.gz", *table]
    subprocess.run(command, cwd=path.parent, check=True)
    for name in ("ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec"):
        path.with_name(name).unlink()
    [made] = imported(tree, "{subject}/{scanner}_dwi.mif").values()
    found = load_acquisition(tree.parent / "bids" / made)
    np.testing.assert_allclose(found.gradients.directions, expected.gradients.directions, atol=1e-6)
    assert sorted(found.voxels.ravel()) == voxels


def test_a_table_with_commas_is_written_as_bids_has_it(
    tree: Path, put: Callable[..., Path]
) -> None:
    path = put("p/ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec", "ge_mask.nii.gz")
    expected = load_acquisition(path).gradients
    for name in ("ge_dwi.bval", "ge_dwi.bvec"):
        table = path.with_name(name)
        table.write_text("\ufeff" + table.read_text().replace(" ", ", "), encoding="utf-8")
    [made] = imported(tree, "{subject}/{scanner}_dwi.nii.gz").values()
    bvec = (tree.parent / "bids" / made).with_name("sub-p_ses-ge_dwi.bvec")
    np.testing.assert_allclose(np.loadtxt(bvec).T * [-1, 1, 1], expected.directions, atol=1e-7)


def test_what_a_scan_inherits_comes_along(tree: Path, put: Callable[..., Path]) -> None:
    name = "sub-1_ses-a"
    path = put(f"sub-1/ses-a/dwi/{name}_dwi.nii.gz", "t.bval", "t.bvec", f"{name}_mask.nii.gz")
    for ending in ("bval", "bvec"):
        shutil.move(path.with_name(f"t.{ending}"), tree / f"dwi.{ending}")
    write_json(tree / "dwi.json", {"EchoTime": 0.08})
    write_json(path.with_name(f"{name}_dwi.json"), {"Own": 1})
    [made] = imported(tree, "{subject}/{session}/dwi/*_dwi.nii.gz").values()
    sidecar = (tree.parent / "bids" / made).with_name(f"{name}_dwi.json")
    assert read_json(sidecar) == {"EchoTime": 0.08, "Own": 1}


@pytest.mark.parametrize(
    ("moved", "patterns"),
    [
        (("bval", "bvec"), ("bval", "bvec")),
        (("bvec",), ("bvec",)),
        (("bval", "bvec"), ("b",)),  # of MRtrix3, which is both
    ],
)
def test_tables_of_another_folder_have_patterns(
    tree: Path, put: Callable[..., Path], moved: tuple[str, ...], patterns: tuple[str, ...]
) -> None:
    """As TractoFlow leaves them."""
    pattern = "{subject}/Resample_DWI/{subject}__resampled.nii.gz"
    stem = "s1__resampled"
    path = put(f"s1/Resample_DWI/{stem}.nii.gz", f"{stem}.bval", f"{stem}.bvec", "mask.nii.gz")
    table = load_acquisition(path).gradients
    (tree / "s1" / "Eddy").mkdir()
    for ending in moved:
        path.with_name(f"{stem}.{ending}").rename(tree / "s1" / "Eddy" / f"s1__eddy.{ending}")
    np.savetxt(tree / "s1" / "Eddy" / "s1__eddy.b", np.c_[table.directions, table.b_values])
    with pytest.raises(UserError, match="is missing") as error:
        import_tree(tree, tree.parent / "bids", pattern, session="ge")
    gives = [each.parameter for each in every(error.value.remedy) if isinstance(each, Give)]
    assert gives == [moved[0]]
    fields = {"b": "bval"}
    given = {fields.get(each, each): f"{{subject}}/Eddy/{{subject}}__*.{each}" for each in patterns}
    with pytest.raises(
        UserError, match=r"no files of b-vectors fit s1/none\.bvec, but exactly one is needed"
    ):
        import_tree(tree, tree.parent / "bids", pattern, session="a", bvec="{subject}/none.bvec")
    [made] = imported(tree, pattern, session="ge", **given).values()
    found = load_acquisition(tree.parent / "bids" / made).gradients
    np.testing.assert_allclose(found.directions, table.directions, atol=1e-6)


@pytest.mark.parametrize("field", ["pattern", "mask", "bval"])
def test_a_pattern_starts_in_the_tree(tree: Path, put: Callable[..., Path], field: str) -> None:
    put("p/ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec", "ge_mask.nii.gz")
    given: dict[str, Any] = {
        "pattern": "{subject}/{scanner}_dwi.nii.gz",
        "mask": "{subject}/{scanner}_mask.nii.gz",
        "bval": "{subject}/{scanner}_dwi.bval",
    }
    inside = given[field]
    for odd in (str(tree / inside), f"/elsewhere/{inside}"):
        with pytest.raises(UserError, match=re.escape(odd) + ": is an absolute path") as error:
            import_tree(tree, tree.parent / "bids", **(given | {field: odd}))
        assert error.value.field == field
        what = f"{inside if odd.startswith(str(tree)) else 'a path'} relative to {tree}"
        assert error.value.remedy == Give(field, what)
    with pytest.raises(UserError, match="is empty") as error:
        import_tree(tree, tree.parent / "bids", **(given | {field: " "}))
    assert error.value.field == field


@pytest.mark.parametrize("mask", ["**x/{subject}.nii.gz", "../../../../../*/x.nii"])
def test_an_odd_mask_pattern_is_an_error(tree: Path, put: Callable[..., Path], mask: str) -> None:
    put("p/ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec", "ge_mask.nii.gz")
    with pytest.raises(UserError) as error:
        import_tree(tree, tree.parent / "bids", "{subject}/{scanner}_dwi.nii.gz", mask=mask)
    assert error.value.field == "mask"


class TestGradDev:
    """HCP's `grad_dev` is brought along, so that it is still said that it is not used."""

    FOLDER = "100307/T1w/Diffusion"
    IMAGE = Path("sub-100307/ses-hcp/dwi/sub-100307_ses-hcp_dwi.nii.gz")

    @pytest.fixture
    def of_hcp(self, tree: Path, put: Callable[..., Path]) -> Path:
        path = put(f"{self.FOLDER}/data.nii.gz", "bvals", "bvecs", "nodif_brain_mask.nii.gz")
        image = nib.load(path)
        values = np.broadcast_to(np.diag([0.02, 0.02, 0.02]).ravel(), (*image.shape[:3], 9))
        nib.save(
            nib.Nifti1Image(values.astype(np.float32), image.affine),
            path.with_name("grad_dev.nii.gz"),
        )
        return path

    def imported(self, tree: Path, **options: Any) -> Path:
        out = tree.parent / "bids"
        with pytest.warns(DoubtfulScan, match="grad_dev"):
            import_tree(tree, out, "{subject}/T1w/Diffusion/data.nii.gz", session="hcp", **options)
        return out

    def test_it_lies_beside_the_scan_and_the_error_is_said_again(
        self, tree: Path, of_hcp: Path
    ) -> None:
        out = self.imported(tree)
        copied = out / self.IMAGE.with_name("sub-100307_ses-hcp_grad_dev.nii.gz")
        assert copied.read_bytes() == of_hcp.with_name("grad_dev.nii.gz").read_bytes()
        said = f"{copied.name} is not used: without it, b is off by 4.0 %"  # 1.02² − 1
        assert said in load_acquisition(out / self.IMAGE).reading.deviation
        assert "b is off by 4.0 %" in str(
            [each.message() for each in check(out, input="hcp").findings]
        )
        known = read_json(out / self.IMAGE.with_name("sub-100307_ses-hcp_dwi.json"))
        assert known["GradientDeviation"]["Used"] is False
        assert "b is off by 4.0 %" in known["GradientDeviation"]["Description"]
        assert "grad_dev" in (out / ".bidsignore").read_text()
        assert "grad_dev is next to 1 scan;" in (out / "README").read_text()

    def test_of_scans_that_become_cubes_it_becomes_cubes_too(
        self, tree: Path, of_hcp: Path
    ) -> None:
        for path in of_hcp.parent.glob("*.nii.gz"):
            image = nib.load(path)
            tall = image.affine @ np.diag([1, 1, 2, 1])
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), tall), path)
        with pytest.warns(Interpolated):
            out = self.imported(tree, voxel_size="auto")
        said = load_acquisition(out / self.IMAGE).reading.deviation
        assert "not used: without it, b is off by 4.0 %" in said


@pytest.mark.parametrize(
    ("name", "label"),
    [("P_01", "P01"), ("Zürich", "Zurich"), ("sub-07", "07"), ("S 3 (pilot)", "S3pilot")],
)
def test_labels_are_what_bids_allows(
    tree: Path, put: Callable[..., Path], name: str, label: str
) -> None:
    put(f"{name}/ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec", "ge_dwi_mask.nii.gz")
    assert list(imported(tree, "{subject}/{scanner}_dwi.nii")) == [(f"sub-{label}", "ge")]


def test_the_readme_says_what_was_done_to_which_files(tree: Path, put: Callable[..., Path]) -> None:
    put("a/ge_dwi.nii.gz", "ge_dwi.bval", "ge_dwi.bvec", "ge_dwi_mask.nii.gz")
    out = tree.parent / "bids"
    import_tree(tree, out, "{subject}/{scanner}_dwi.nii")
    said = (out / "README").read_text()
    assert said.splitlines()[3].startswith("1 scan of 1 subject, imported by")
    assert "Nothing was resampled.\nImages and masks in NIfTI are the same byte for byte." in said
    assert "converted to NIfTI" not in said


def test_maps_that_dcm2niix_writes_beside_a_scan_are_passed_over(
    tree: Path, put: Callable[..., Path]
) -> None:
    path = put("5_DTI.nii.gz", "5_DTI.bval", "5_DTI.bvec", "5_DTI_mask.nii.gz")
    nib.save(nib.load(path).slicer[..., 0], tree / "5_DTI_ADC.nii.gz")
    with pytest.warns(PassedOver, match=r"5_DTI_ADC.nii.gz: is left out: it is one volume"):
        found = imported(tree, "*DTI*.nii.gz", subject="1", session="x", mask="*_mask.nii.gz")
    assert list(found) == [("sub-1", "x")]


def test_a_scan_that_lost_its_table_is_not_passed_over(
    tree: Path, put: Callable[..., Path]
) -> None:
    put("a/dwi.nii.gz", "dwi.bval", "dwi.bvec", "dwi_mask.nii.gz")
    put("b/dwi.nii.gz", "", "", "dwi_mask.nii.gz")
    with pytest.raises(UserError, match=r"b/dwi.bval: is missing"):
        import_tree(tree, tree.parent / "bids", "{subject}/dwi.nii.gz", session="x")
