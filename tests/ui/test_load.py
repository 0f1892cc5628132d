"""Scans of files, and what is found out about a scan before it is loaded."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.bids import sidecar_path
from napari_msp.checking.summary import Finding
from napari_msp.data.acquisition import DoubtfulScan
from napari_msp.errors import Cancelled, UserError
from napari_msp.files import write_json
from napari_msp.provenance import Provenance
from napari_msp.scan_sources import load_scan
from napari_msp.signal.fitting import LowerOrder, fit_sh
from napari_msp.signal.sh_image import write_sh
from napari_msp.ui.compare.choices import OnDisk
from napari_msp.ui.layers import scan_layers
from napari_msp.ui.load.examine import LoadChoice, examine
from napari_msp.ui.load.widget import mask_made
from napari_msp.ui.reading import read_scan

# --- Scans -----------------------------------------------------------------------------------


def test_a_bids_scan_is_named_by_its_entities(heads):
    folder = heads / "sub-02/ses-ge/dwi"
    found = load_scan(folder / "sub-02_ses-ge_acq-st_dwi.nii.gz")
    assert (found.subject, found.name, found.owner) == ("sub-02", "ge_st", "sub-02 ge_st")
    assert found.acquisition is not None
    np.testing.assert_array_equal(found.sh.coefficients, fit_sh(found.acquisition).coefficients)
    assert {name: path.name for name, path in found.siblings.items()} == {
        "connectom_sa": "sub-02_ses-connectom_acq-sa_dwi.nii.gz",
        "prisma_st": "sub-02_ses-prisma_acq-st_dwi.nii.gz",
    }
    assert all(path.is_file() for path in found.siblings.values())


def test_of_a_repeated_scan_the_run_of_the_same_number_is_the_sibling(heads, tmp_path):
    shutil.copytree(heads, tmp_path / "heads")
    for path in (tmp_path / "heads/sub-02").glob("ses-[gp]*/dwi/*_dwi.*"):
        for run in (1, 2):
            shutil.copy(path, path.with_name(path.name.replace("_dwi", f"_run-{run}_dwi")))
        path.unlink()
    folder = tmp_path / "heads/sub-02/ses-ge/dwi"
    for run in (1, 2):
        found = load_scan(folder / f"sub-02_ses-ge_acq-st_run-{run}_dwi.nii.gz")
        assert found.siblings["prisma_st"].name == f"sub-02_ses-prisma_acq-st_run-{run}_dwi.nii.gz"
        assert OnDisk(found, "prisma_st").owner == f"sub-02 prisma_st (run {run}, on disk)"
        assert OnDisk(found, "connectom_sa").owner == "sub-02 connectom_sa (on disk)"
    other = next((tmp_path / "heads/sub-02").glob("ses-connectom/dwi/*_dwi.nii.gz"))
    first = load_scan(other).siblings["prisma_st"]
    assert first.name == "sub-02_ses-prisma_acq-st_run-1_dwi.nii.gz"


def test_another_scan_is_named_by_its_file(scan, tmp_path):
    found = load_scan(scan().write(tmp_path, stem="patient 7"))
    assert (found.subject, found.name, found.owner) == ("patient 7", "", "patient 7")
    assert not found.siblings


def test_a_bids_name_outside_a_dataset_has_no_siblings(scan, tmp_path):
    path = scan().write(tmp_path, stem="sub-01_ses-ge_acq-st")
    assert load_scan(path).siblings == {}
    assert load_scan(path).owner == "sub-01 ge_st"


def test_what_a_table_is_doubted_for_stays_with_the_scan(scan, tmp_path, monkeypatch):
    mirrored = Finding("warning", "sub-01", "y is mirrored")
    monkeypatch.setattr("napari_msp.ui.reading.doubts_of", lambda acquisition: [mirrored])
    read = read_scan(load_scan(scan().write(tmp_path)), lambda words: None)
    assert any("y is mirrored" in each for each in read.acquisition.said())
    assert any("y is mirrored" in each for each in read.notes)


def test_what_is_being_done_is_told_and_can_be_ended(scan, tmp_path):
    path = scan().write(tmp_path)
    told = []
    read_scan(load_scan(path), told.append)
    assert told == [
        "Reading sub-01_dwi.nii.gz",
        "Comparing gradients with fibres",
        "Fitting spherical harmonics",
    ]

    def refuse(words):
        if "Fitting" in words:
            raise Cancelled

    with pytest.raises(Cancelled):
        read_scan(load_scan(path), refuse)


def test_the_shell_is_the_one_that_was_chosen(scan, tmp_path):
    path = scan(b_values=(1000.0, 2500.0)).write(tmp_path)
    assert load_scan(path, 2500).sh.b_value == 2500
    with pytest.raises(UserError, match="several shells"):
        _ = load_scan(path).sh


@pytest.mark.parametrize(
    ("stem", "sidecar", "owner", "label"),
    [
        (
            "sub-01_ses-ge_acq-st_desc-prismastMsp_model-sh_param-coefficients_dwimap",
            Provenance("prisma_st", "ge_st", title="MSP").to_sidecar(),
            "sub-01 MSP prisma_st",
            "MSP",
        ),
        (
            "sub-01_ses-ge_acq-st_desc-prismastMspFirstStage_model-sh_param-coefficients_dwimap",
            Provenance("prisma_st", "ge_st", "first", "MSP").to_sidecar(),
            "sub-01 MSP prisma_st first stage",
            "MSP",
        ),
        ("sub-01_ses-ge_acq-st_model-sh_param-coefficients_dwimap", {}, "sub-01 ge_st", ""),
        ("sub-01_ses-ge_acq-st_desc-mine_dwimap", {}, "sub-01 ge_st mine", ""),
        ("white-matter", {}, "white-matter", ""),
    ],
)
def test_sh_images_are_named_by_entities_and_sidecar(stem, sidecar, owner, label, scan, tmp_path):
    image = fit_sh(scan().load(tmp_path))
    path = tmp_path / f"{stem}.nii.gz"
    write_sh(path, image, sidecar)
    found = load_scan(path)
    assert (found.owner, found.label) == (owner, label)
    np.testing.assert_array_equal(found.sh.coefficients, image.coefficients)


def test_an_sh_image_without_b_value_says_how_to_mend_it(scan, tmp_path):
    path = tmp_path / "a_dwimap.nii.gz"
    write_sh(path, fit_sh(scan().load(tmp_path)), {"BValue": None})
    with pytest.raises(UserError, match=r"add BValue to .*a_dwimap\.json"):
        load_scan(path)


# --- What is found out -----------------------------------------------------------------------


@pytest.fixture
def path(scan, tmp_path) -> Path:
    return scan(b_values=(1200.0,)).write(tmp_path)


def test_a_scan_is_described(path):
    found = examine(LoadChoice(path))
    assert found.ready
    assert found.scan == path
    assert found.choice.b_value == 1200
    assert [str(shell) for shell in found.shells] == ["b = 1200 s/mm², 60 directions"]
    assert found.mask == path.with_name("sub-01_mask.nii.gz")
    assert found.description == {
        "Head": "sub-01",
        "Voxels": "8 × 7 × 6 of 2 × 2 × 2.5 mm, stored LAS",
        "Volumes": "2 at b = 0 + 60 at b = 1200 s/mm²",
    }


def test_what_is_no_subject_is_called_a_scan(scan, tmp_path):
    found = examine(LoadChoice(scan().write(tmp_path, stem="5_DTI")))
    assert found.description["Scan"] == "5_DTI"


def test_an_oblique_scan_is_said_to_be(scan, tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = 2 * Rotation.from_euler("z", 20, degrees=True).as_matrix()
    facts = examine(LoadChoice(scan(affine).write(tmp_path))).description
    assert facts["Voxels"] == "8 × 7 × 6 of 2 mm, stored RAS, oblique by 20°"


def test_a_dataset_lists_its_scans(heads):
    found = examine(LoadChoice(heads))
    assert found.ready
    assert found.dataset.subjects == ["sub-01", "sub-02", "sub-03"]
    assert (found.choice.subject, found.choice.platform) == ("sub-01", "ge_st")  # marked as input
    other = examine(LoadChoice(heads, "sub-03", "ge_st"), found.dataset)
    assert other.dataset is found.dataset
    assert other.scan.name == "sub-03_ses-ge_acq-st_dwi.nii.gz"
    assert other.description["Head"] == "sub-03 on ge_st"
    assert other.description["Also scanned on"] == "connectom_sa, prisma_st"


def test_a_folder_within_a_dataset_chooses_what_lies_in_it(heads):
    found = examine(LoadChoice(heads / "sub-02/ses-prisma"))
    assert (found.choice.subject, found.choice.platform) == ("sub-02", "prisma_st")
    assert len(found.dataset.scans) == 9


def test_a_folder_of_one_scan_is_that_scan(path):
    found = examine(LoadChoice(path.parent))
    assert (found.scan, found.choice.path, found.problems) == (path, path.parent, {})


def test_a_platform_that_the_subject_has_not_is_replaced(make_heads, tmp_path):
    heads = make_heads(tmp_path / "heads", subjects=2, shape=(5, 5, 5))
    shutil.rmtree(heads / "sub-02/ses-prisma")
    found = examine(LoadChoice(heads, "sub-02", "prisma_st"))
    assert (found.choice.subject, found.choice.platform) == ("sub-02", "ge_st")
    (heads / "dataset_description.json").write_text("{}")
    found = examine(LoadChoice(heads, "sub-02", "prisma_st"))
    assert (found.choice.subject, found.choice.platform) == ("sub-02", "connectom_sa")


def test_of_several_shells_the_lowest_that_will_do_is_offered(scan, tmp_path):
    path = scan(b_values=(700.0, 1000.0, 2500.0)).write(tmp_path)
    table = np.loadtxt(path.with_name("sub-01_dwi.bval"))
    table[(table == 700) & (np.cumsum(table == 700) > 12)] = 1000  # 12 directions are left of 700
    np.savetxt(path.with_name("sub-01_dwi.bval"), table[None])
    found = examine(LoadChoice(path))
    assert [(shell.b_value, len(shell.volumes)) for shell in found.shells] == [
        (700, 12),
        (1000, 108),
        (2500, 60),
    ]
    assert found.choice.b_value == 1000
    assert found.ready
    few = examine(LoadChoice(path, b_value=700))
    assert few.ready
    assert few.doubts == {
        "b_value": "Shown at SH order 2, as 12 directions support; networks need 28"
    }


@pytest.mark.parametrize(("count", "order"), [(27, 4), (15, 4), (14, 2), (6, 2)])
def test_a_shell_of_few_directions_is_shown_at_the_order_that_it_supports(
    scan, tmp_path, count, order
):
    path = scan(directions=count).write(tmp_path)
    found = examine(LoadChoice(path))
    assert found.ready
    assert found.doubts["b_value"].startswith(f"Shown at SH order {order}, as {count} directions")
    with pytest.warns(LowerOrder, match=f"order {order}: enough for maps, not for networks"):
        loaded = read_scan(load_scan(path, found.choice.b_value), lambda _: None)
    assert loaded.sh.order == order
    names = [options["name"] for _, options, _ in scan_layers(loaded, ["SH average", "colour FA"])]
    assert names == ["sub-01 · b0", "sub-01 · colour FA", "sub-01 · SH average"]


@pytest.mark.parametrize(
    ("b_values", "said"),
    [
        ([700] * 5, "B = 700 has 5 directions, but maps need 6 for SH order 2"),
        ([*range(500, 1500, 50)], "B-values run from 500 to 1450 s/mm² without a gap and form no"),
    ],
)
def test_what_is_no_shell_for_maps_is_refused_where_it_is_chosen(scan, tmp_path, b_values, said):
    path = scan(directions=45, b_values=(2500.0,)).write(tmp_path)
    table = np.loadtxt(path.with_name("sub-01_dwi.bval"))
    table[2 : 2 + len(b_values)] = b_values
    np.savetxt(path.with_name("sub-01_dwi.bval"), table[None])
    whole = examine(LoadChoice(path))
    assert whole.ready
    assert whole.choice.b_value == 2500
    few = examine(LoadChoice(path, b_value=whole.shells[0].b_value))
    assert not few.ready
    assert few.problems["b_value"].startswith(said)


def test_a_doubtful_scheme_can_be_used(scan, spread_out, tmp_path):
    directions = spread_out(30)
    directions = np.concatenate([directions[:16]] * 2)
    found = examine(LoadChoice(scan(directions=directions).write(tmp_path)))
    assert found.ready
    assert "determine SH order 4 only" in found.doubts["b_value"]


def problems_of(path, **choice):
    found = examine(LoadChoice(path, **choice))
    assert not found.ready
    for words in found.problems.values():
        assert "--" not in words  # no options of the command line
        assert str(path.parent) not in words  # files go by their names
        assert "\n" not in words
    return found.problems


def test_missing_gradient_files_are_missed_each_at_its_field(path):
    path.with_name("sub-01_dwi.bvec").unlink()
    said = "sub-01_dwi.bvec: is missing; put it next to the image, or give it with “b-vectors”"
    assert problems_of(path) == {"bvec": said}
    path.with_name("sub-01_dwi.bval").unlink()
    assert list(problems_of(path)) == ["bval", "bvec"]
    with pytest.raises(UserError, match=r"bval: is missing; .*bvec: is missing; put it next to"):
        load_scan(path, bval=path.with_name("sub-01_dwi.bval"))


def test_the_form_doubts_what_loading_doubts(scan, tmp_path):
    path = scan().write(tmp_path, stem="sub-01_ses-ge_acq-st")
    folder = tmp_path / "sub-02/dwi"
    folder.mkdir(parents=True)
    for each in tmp_path.glob("sub-01*"):
        each.rename(folder / each.name)
    with pytest.warns(DoubtfulScan, match="is in the folder sub-02") as told:
        load_scan(folder / path.name)
    [doubt] = told
    assert examine(LoadChoice(folder / path.name)).doubts == {"path": doubt.message.words}


def test_b_values_chosen_as_b_vectors_are_told_there(path):
    problems = problems_of(path, bvec=path.with_name("sub-01_dwi.bval"))
    assert list(problems) == ["bvec"]
    assert problems["bvec"].startswith("sub-01_dwi.bval: has 1 row of 62 numbers; give the b-vec")


def test_gradient_files_may_lie_elsewhere(path, tmp_path):
    moved = {}
    (tmp_path / "tables").mkdir()
    for name in ("bval", "bvec"):
        moved[name] = tmp_path / "tables" / f"x.{name}"
        path.with_name(f"sub-01_dwi.{name}").rename(moved[name])
    assert examine(LoadChoice(path, **moved)).ready
    found = load_scan(path, bval=moved["bval"], bvec=moved["bvec"])
    assert found.sh.b_value == 1200


@pytest.mark.parametrize(
    ("name", "text", "field", "words"),
    [
        ("bval", "0 0 1200", "bval", "has 3 b-values but the image has 62 volumes"),
        ("bval", "b-values", "bval", "is not a table of numbers"),
        ("bval", "1200 " * 62, "bvec", "but a direction of length 0"),
        ("bvec", "1 0 0", "bvec", "give 3 rows"),
    ],
)
def test_a_wrong_gradient_file_is_told_at_its_field(path, name, text, field, words):
    path.with_name(f"sub-01_dwi.{name}").write_text(text)
    problems = problems_of(path)
    assert list(problems) == [field]
    assert words in problems[field]


def test_a_scan_without_b0_is_told_at_the_b_values(path):
    bval, bvec = (path.with_name(f"sub-01_dwi.{name}") for name in ("bval", "bvec"))
    np.savetxt(bval, np.full((1, 62), 1200))
    np.savetxt(bvec, np.repeat([[1.0], [0], [0]], 62, axis=1))
    assert "no volume has b=0" in problems_of(path)["bval"]


def test_a_mask_of_another_lattice_is_told_at_the_mask(path, tmp_path):
    other = tmp_path / "other_mask.nii.gz"
    nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_filename(other)
    words = problems_of(path, mask=other)["mask"]
    assert words.startswith("other_mask.nii.gz: its voxel grid is not the image's")


def test_a_mask_can_be_empty_or_missing(path, tmp_path):
    image = nib.load(path.with_name("sub-01_mask.nii.gz"))
    empty = nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine)
    empty.to_filename(tmp_path / "empty.nii.gz")
    assert "no voxel is inside" in problems_of(path, mask=tmp_path / "empty.nii.gz")["mask"]
    assert "there is no such file" in problems_of(path, mask=tmp_path / "gone.nii.gz")["mask"]


def test_several_masks_leave_the_choice_to_the_field(make_heads, tmp_path):
    heads = make_heads(tmp_path / "heads", subjects=1, shape=(5, 5, 5))
    folder = heads / "sub-01/ses-ge/dwi"
    mask = folder / "sub-01_ses-ge_acq-st_mask.nii.gz"
    for name in ("one", "two"):
        there = heads / "derivatives" / name / "sub-01/ses-ge/dwi"
        there.mkdir(parents=True)
        shutil.copy(mask, there / "sub-01_ses-ge_acq-st_desc-brain_mask.nii.gz")
    mask.unlink()
    scan = folder / "sub-01_ses-ge_acq-st_dwi.nii.gz"
    assert "give one with “Mask”" in problems_of(scan)["mask"]
    assert examine(
        LoadChoice(scan, mask=there / "sub-01_ses-ge_acq-st_desc-brain_mask.nii.gz")
    ).ready


def test_what_is_no_scan_is_told_at_the_path(path, tmp_path):
    image = nib.load(path)
    nib.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine).to_filename(
        tmp_path / "b0.nii.gz"
    )
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "broken.nii.gz").write_bytes(b"not an image")
    (tmp_path / "empty").mkdir()
    assert "has 3 axes" in problems_of(tmp_path / "b0.nii.gz")["path"]
    assert "is no image that can be read" in problems_of(tmp_path / "notes.txt")["path"]
    assert "is not a readable NIfTI" in problems_of(tmp_path / "broken.nii.gz")["path"]
    assert "there is no such file or folder" in problems_of(tmp_path / "gone.nii.gz")["path"]
    assert "choose one scan's file instead" in problems_of(tmp_path / "empty")["path"]


def test_nothing_chosen_is_no_problem():
    found = examine(LoadChoice())
    assert not found.problems
    assert not found.ready


def test_a_sidecar_that_cannot_be_read_is_told_before_a_scan_is_loaded(scan, tmp_path):
    path = scan().write(tmp_path)
    assert examine(LoadChoice(path)).doubts == {}
    sidecar_path(path).write_text("{")
    assert examine(LoadChoice(path)).doubts["bval"].startswith("its sidecar is not valid JSON (")


def test_a_sidecar_that_is_not_json_is_a_user_error(scan, tmp_path):
    path = tmp_path / "a_dwimap.nii.gz"
    write_sh(path, fit_sh(scan().load(tmp_path)))
    write_json(sidecar_path(path), {"Model": "text", "BValue": 1200})
    assert load_scan(path).label == ""
    sidecar_path(path).write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_scan(path)


def test_a_path_that_looks_like_an_option_is_shown_as_it_is(tmp_path):
    found = examine(LoadChoice(tmp_path / "scan --mask --shell.nii.gz"))
    assert found.problems["path"].startswith("scan --mask --shell.nii.gz: there is no such file")


def test_a_mask_that_was_made_is_told_of(path):
    path.with_name("sub-01_mask.nii.gz").unlink()
    [said] = mask_made(load_scan(path))
    assert said.startswith("It has no brain mask, so one was made: ")
    assert "% of the field" in said
