"""Import of folder trees: what is copied where, and what is refused before anything is written."""

import json
import re
import shutil
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.dataset import open_dataset
from napari_msp.data.importers import import_tree
from napari_msp.data.source_tree import pattern_expression
from napari_msp.errors import Change, Choose, Give, UserError, every

PATTERN = "{subject}/{scanner}/{protocol}/dwi_{subject}_{scanner}_{protocol}_b1200.nii.gz"


def add_scan(tree, made, subject, scanner, protocol, mask="mask.nii.gz"):
    """Write a scan as MUSHAC trees hold them."""
    folder = tree / subject / scanner / protocol
    folder.mkdir(parents=True)
    stem = f"dwi_{subject}_{scanner}_{protocol}_b1200"
    path = made.write(folder, stem="scan")
    for file in sorted(folder.glob("scan_dwi.*")):
        file.rename(folder / file.name.replace("scan_dwi", stem))
    (folder / "scan_mask.nii.gz").rename(folder / mask)
    return path.with_name(f"{stem}.nii.gz")


@pytest.fixture
def tree(tmp_path, scan):
    """Two subjects on two platforms, in the orientation LAS; one has a JSON beside it."""
    root = tmp_path / "tree"
    made = scan("LAS", 30)
    for subject in ("A_01", "B-02"):
        add_scan(root, made, subject, "GE", "ST", mask="mask.nii.gz")
        add_scan(root, made, subject, "Connectom", "SA", mask="brain_mask.nii.gz")
    text = '{"EchoTime": 0.089,\n "Odd": 1}'
    (root / "A_01/GE/ST/dwi_A_01_GE_ST_b1200.json").write_text(text)
    return root


def message(*parts):
    """Match `parts` in this order on one line."""
    return ".*".join(map(re.escape, parts))


def refused(tree, *parts, pattern=PATTERN, **options):
    out = tree.parent / "bids"
    with pytest.raises(UserError, match=message(*parts)) as error:
        import_tree(tree, out, pattern, **options)
    assert "\n" not in str(error.value)
    assert [path.name for path in tree.parent.iterdir()] == ["tree"]  # not even a temporary one
    return error.value


def test_the_dataset_opens_and_holds_the_files_byte_for_byte(tree, tmp_path):
    out = tmp_path / "bids"
    scans = import_tree(tree, out, PATTERN)

    dataset = open_dataset(out)
    assert dataset.subjects == ["sub-A01", "sub-B02"]
    assert dataset.platforms == ["connectom_sa", "ge_st"]
    assert len(scans) == len(dataset.scans) == 4
    for made in scans:
        image = out / made.image
        assert dataset.scans[made.subject, made.platform] == image
        assert image.read_bytes() == made.source.read_bytes()
        assert not image.samefile(made.source)
        assert image.stat().st_nlink == 1
        for ending in ("bval", "bvec"):
            beside = made.source.with_name(made.source.name.replace("nii.gz", ending))
            copy = image.with_name(image.name.replace("nii.gz", ending))
            assert copy.read_bytes() == beside.read_bytes()
        acquisition = dataset.acquisition(made.subject, made.platform)
        assert acquisition.mask_path is not None and made.mask is not None
        assert acquisition.mask_path.read_bytes() == made.mask.read_bytes()
        assert acquisition.mask.sum() == 7 * 6 * 6  # the mask of `scan`, not an estimate


def test_what_describes_the_dataset(tree, tmp_path):
    out = tmp_path / "bids"
    import_tree(tree, out, PATTERN)

    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "raw"
    masks = json.loads((out / "derivatives/brainmask/dataset_description.json").read_text())
    assert masks["DatasetType"] == "derivative"
    assert masks["GeneratedBy"][0]["Name"] == "napari-msp"
    assert (out / "participants.tsv").read_text().split() == [
        "participant_id",
        "sub-A01",
        "sub-B02",
    ]
    assert PATTERN in (out / "README").read_text()
    rows = (out / "code/imported.tsv").read_text().splitlines()
    assert rows[1].split("\t")[0] == "A_01/Connectom/SA/dwi_A_01_Connectom_SA_b1200.nii.gz"
    assert len(rows) == 5


def test_a_sidecar_is_copied_and_never_invented(tree, tmp_path):
    out = tmp_path / "bids"
    import_tree(tree, out, PATTERN)
    known = out / "sub-A01/ses-ge/dwi/sub-A01_ses-ge_acq-st_dwi.json"
    assert known.read_text() == '{"EchoTime": 0.089,\n "Odd": 1}'
    unknown = json.loads((out / "sub-B02/ses-ge/dwi/sub-B02_ses-ge_acq-st_dwi.json").read_text())
    assert unknown == {"ImportedFrom": "B-02/GE/ST/dwi_B-02_GE_ST_b1200.nii.gz"}


def test_a_dry_run_checks_and_writes_nothing(tree, tmp_path):
    out = tmp_path / "bids"
    assert len(import_tree(tree, out, PATTERN, dry_run=True)) == 4
    assert not out.exists()
    bval = tree / "B-02/GE/ST/dwi_B-02_GE_ST_b1200.bval"
    bval.write_text("0 1200")
    refused(tree, bval.name, "has 2 b-values", dry_run=True)


def test_the_input_platform_is_marked_where_it_was_named(tree, tmp_path):
    marked, unmarked = tmp_path / "marked", str(tmp_path / "unmarked")
    import_tree(tree, marked, PATTERN, input="ge_st")
    import_tree(str(tree), unmarked, PATTERN)
    described = [
        json.loads(Path(out, "dataset_description.json").read_text()) for out in (marked, unmarked)
    ]
    assert described[0]["NapariMSP"] == {"InputPlatform": "ge_st"}
    assert "NapariMSP" not in described[1]


def test_labels_that_the_tree_does_not_name_are_given(tmp_path, scan):
    tree = tmp_path / "tree"
    (tree / "p1").mkdir(parents=True)
    scan("RAS", 30).write(tree / "p1")
    scans = import_tree(
        tree, tmp_path / "bids", "{subject}/*_dwi.nii.gz", session="GE", protocol="st"
    )
    assert [(made.subject, made.platform) for made in scans] == [("sub-p1", "ge_st")]


def test_a_repeated_name_must_agree(tree, tmp_path, scan):
    folder = tree / "A_01/GE/ST"
    wrong = folder / "dwi_B-02_GE_ST_b1200.nii.gz"  # another subject's scan in the wrong place
    wrong.write_bytes((folder / "dwi_A_01_GE_ST_b1200.nii.gz").read_bytes())
    scans = import_tree(tree, tmp_path / "bids", PATTERN, dry_run=True)
    assert wrong not in [made.source for made in scans]


def test_a_name_before_a_star_is_a_whole_word() -> None:
    pattern = "{subject}/sub-{subject}_ses-{session}_acq-{protocol}*_dwi.nii.gz"
    read = pattern_expression(pattern, {})
    for rest in ("", "_run-1", "_dir-AP_run-2"):
        found = read.fullmatch(f"01/sub-01_ses-ge_acq-st{rest}_dwi.nii.gz")
        assert found is not None
        assert found.groupdict() == {"subject": "01", "session": "ge", "protocol": "st"}
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "Müller1")
        found = pattern_expression("{subject}*.nii", {"scanner": "ge"}).fullmatch(f"{name}_dwi.nii")
        assert found is not None
        assert found["subject"] == name


def test_what_a_mac_leaves_beside_each_file_is_no_scan(tree, tmp_path):
    for path in [*tree.rglob("*.nii.gz")]:
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    assert len(import_tree(tree, tmp_path / "bids", PATTERN, dry_run=True)) == 4


def test_a_mask_pattern_chooses_among_masks(tree, tmp_path):
    for folder in tree.glob("*/*/*/"):
        other = np.zeros((8, 7, 6), np.uint8)
        other[4] = 1
        image = nib.load(next(folder.glob("dwi*.nii.gz")))
        nib.Nifti1Image(other, image.affine).to_filename(folder / "csf_mask.nii.gz")
    out = tmp_path / "bids"
    import_tree(tree, out, PATTERN, mask="{subject}/{scanner}/{protocol}/csf_*.nii.gz")
    for acquisition in (open_dataset(out).acquisition(s, "ge_st") for s in ("sub-A01", "sub-B02")):
        assert acquisition.mask.sum() == 7 * 6


class TestRefusals:
    def test_no_match_shows_the_first_files(self, tree):
        refused(
            tree,
            "no file fits the pattern",
            "A_01/Connectom/SA/brain_mask.nii.gz",
            pattern="{subject}/{scanner}/{protocol}.nii.gz",
        )

    @pytest.mark.parametrize(
        ("pattern", "problem", "offered"),
        [
            ("{scanner}/{protocol}/dwi.nii.gz", "has no {subject}", ["subject"]),
            ("{subject}/dwi.nii.gz", "has no {scanner} or {protocol}", ["session", "protocol"]),
            ("{subject}/{scanner}/{sequence}.nii.gz", "{sequence} is not a known name", []),
            ("{subject}/{scanner}/{protocol}", "must end in .nii or .nii.gz", []),
        ],
    )
    def test_an_incomplete_pattern(self, tree, pattern, problem, offered):
        error = refused(tree, problem, pattern=pattern)
        assert (error.problem, error.subject, error.field) == (problem, pattern, "pattern")
        given = [each.parameter for each in every(error.remedy) if isinstance(each, Give)]
        assert given == offered

    @pytest.mark.parametrize("ending", ["bval", "bvec"])
    def test_missing_gradients(self, tree, ending):
        missing = tree / f"B-02/GE/ST/dwi_B-02_GE_ST_b1200.{ending}"
        missing.unlink()
        refused(tree, str(missing), "is missing", "put the gradient files next to")

    def test_b_vectors_that_are_no_unit_vectors(self, tree):
        bvec = tree / "B-02/GE/ST/dwi_B-02_GE_ST_b1200.bvec"
        np.savetxt(bvec, 0.5 * np.loadtxt(bvec))
        refused(tree, bvec.name, "unit length")

    def test_a_mask_on_another_lattice(self, tree):
        mask = tree / "B-02/GE/ST/mask.nii.gz"
        nib.Nifti1Image(np.ones((8, 7, 5), np.uint8), np.eye(4)).to_filename(mask)
        error = refused(tree, mask.name, "has another voxel grid", "resample it to the image")
        assert (error.subject, error.field) == (
            str(mask.with_name("dwi_B-02_GE_ST_b1200.nii.gz")),
            "mask",
        )

    def test_several_masks(self, tree):
        folder = tree / "B-02/Connectom/SA"
        shutil.copy(folder / "brain_mask.nii.gz", folder / "nodif_brain_mask.nii.gz")
        error = refused(tree, "several files may be", "brain_mask.nii.gz, nodif_brain_mask.nii.gz")
        assert error.field == "mask"
        assert isinstance(error.remedy, Give)

    def test_a_mask_pattern_that_fits_none(self, tree):
        error = refused(tree, "no masks fit A_01/brain.nii.gz", mask="{subject}/brain.nii.gz")
        assert error.field == "mask"
        assert error.remedy == Change("mask", "another")

    def test_an_image_that_is_cut_short(self, tree):
        image = tree / "B-02/GE/ST/dwi_B-02_GE_ST_b1200.nii.gz"
        image.write_bytes(image.read_bytes()[:-2000])
        refused(tree, str(image), "voxels cannot be read")

    def test_two_scans_of_one_name(self, tree, scan):
        twin = add_scan(tree, scan("LAS", 30), "A01", "GE", "ST")
        refused(tree, "dwi_A_01_GE_ST", "sub-A01_ses-ge_acq-st_dwi", str(twin), "rename")

    def test_an_input_platform_that_was_not_scanned_on(self, tree):
        error = refused(tree, "no scan is from this platform", input="prisma_st")
        assert (error.subject, error.field) == ("prisma_st", "input")
        assert error.remedy == Choose("input", ("connectom_sa", "ge_st"))

    def test_a_missing_tree(self, tree, tmp_path):
        with pytest.raises(UserError, match=message("nowhere", "no such folder")):
            import_tree(tmp_path / "nowhere", tmp_path / "bids", PATTERN)
