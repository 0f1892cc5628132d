"""Who a scan is of: the same dataset and label, or a shared digest of what was scanned."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_msp.checking.dataset import check_copies
from napari_msp.cohort import run_cohort
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import UserError
from napari_msp.identity import (
    CopiedScan,
    Person,
    file_digest,
    known_among,
    may_be_same,
    person_of,
    same_person,
    same_scan,
)
from napari_msp.learning.heads import prepare_study
from napari_msp.learning.settings import TrainingSettings
from napari_msp.packaged import packaged_model
from napari_msp.scan_sources import load_scan

SCAN = "{0}/ses-{1}/dwi/{0}_ses-{1}_acq-{2}_dwi.nii.gz"


def scan_of(root: Path, subject: str, session: str = "ge", protocol: str = "st") -> Path:
    return root / SCAN.format(subject, session, protocol)


def test_sessions_of_a_dataset_are_one_person(heads: Path) -> None:
    old, new = (person_of(scan_of(heads, "sub-01", session)) for session in ("ge", "prisma"))
    assert old.scans != new.scans
    assert same_person(old, new) is True


def test_subjects_of_a_dataset_are_people_of_their_own(heads: Path) -> None:
    people = [person_of(scan_of(heads, subject)) for subject in ("sub-01", "sub-02")]
    assert same_person(*people) is False


def test_two_datasets_have_a_sub_01_each(
    heads: Path, make_heads: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_heads(tmp_path / "other", subjects=1, shape=(12, 12, 11))
    here, there = (open_dataset(root).person("sub-01") for root in (heads, other))
    assert here.label == there.label
    assert same_person(here, there) is False
    assert not may_be_same(here, there)
    assert not known_among(here, [there])


@pytest.mark.filterwarnings("ignore::napari_msp.inference.prepare.NotForScans")  # a teaching model
def test_a_subject_that_is_a_copy_of_another_is_told(
    heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_msp.cohort.harmonize_scan", lambda *_, **__: None)
    root = tmp_path / "heads"
    shutil.copytree(heads, root)
    for session, protocol in (("ge", "st"), ("prisma", "st"), ("connectom", "sa")):
        copied = scan_of(root, "sub-01", session, protocol)
        shutil.copy(copied, scan_of(root, "sub-03", session, protocol))
    dataset = open_dataset(root)
    [found] = check_copies(dataset)
    assert found.where == "sub-03"
    assert "has the same image as sub-01" in found.problem
    with pytest.warns(CopiedScan, match="sub-03 has the same scan as sub-01"):
        prepare_study(dataset, TrainingSettings())
    with pytest.raises(UserError, match="they share a scan"):
        prepare_study(dataset, TrainingSettings(held_out=("sub-03",)))
    with pytest.warns(CopiedScan, match=r"sub-03/.* is the same image as sub-01/"):
        run_cohort(root, tmp_path / "out", packaged_model("DIQT"), "all")


def test_a_scan_that_is_the_same_on_two_platforms_is_told(heads: Path, tmp_path: Path) -> None:
    root = tmp_path / "heads"
    shutil.copytree(heads, root)
    image = nib.load(scan_of(root, "sub-02"))
    copy = scan_of(root, "sub-02", "prisma")  # compressed anew
    nib.Nifti1Image(np.asarray(image.dataobj), image.affine).to_filename(copy)
    dataset = open_dataset(root)
    [found] = check_copies(dataset)
    assert (found.severity, found.where) == ("error", "sub-02 prisma_st")
    assert "same image as the scan on ge_st" in found.problem
    with pytest.warns(CopiedScan, match="sub-02 has the same scan on prisma_st as on ge_st"):
        prepare_study(dataset, TrainingSettings())
    prepare_study(dataset, TrainingSettings(input="ge_st", targets=("connectom_sa",)))  # no doubt


def test_shells_and_parts_of_one_scan_are_no_copies(tmp_path: Path) -> None:
    """They share the b=0 images, at the end too."""
    voxels = np.random.default_rng(0).random((3, 3, 3, 6)).astype(np.float32)
    shell = voxels.copy()
    shell[..., 1:-1] *= 0.8
    paths = {}
    part = voxels[..., [0, 1, 5]]
    made = {"whole": voxels, "again": voxels, "shell": shell, "part": part}
    for name, image in made.items():
        paths[name] = tmp_path / f"{name}_dwi.nii.gz"
        nib.Nifti1Image(image, np.eye(4)).to_filename(paths[name])
    assert len({file_digest(path) for path in paths.values()}) == 1
    same = {name for name, path in paths.items() if same_scan(paths["whole"], path)}
    assert same == {"whole", "again"}


def test_a_scan_under_another_name_is_the_same_persons(heads: Path, tmp_path: Path) -> None:
    """Copied into another dataset, compressed anew, under another label."""
    image = nib.load(scan_of(heads, "sub-01"))
    copy = scan_of(tmp_path / "other", "sub-77", "philips")
    copy.parent.mkdir(parents=True)
    nib.Nifti1Image(np.asarray(image.dataobj), image.affine).to_filename(copy)
    here, there = person_of(scan_of(heads, "sub-01")), person_of(copy)
    assert here.label != there.label
    assert same_person(here, there) is True
    assert known_among(there, [Person("sub-05", "elsewhere"), here])


def test_a_moved_dataset_keeps_its_people(heads: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(heads, moved)
    here, there = (open_dataset(root).person("sub-02") for root in (heads, moved))
    assert here.dataset != there.dataset
    assert same_person(here, there) is True


def test_derivatives_are_of_the_study_that_they_lie_in(heads: Path) -> None:
    preprocessed = heads / "derivatives" / "prep" / SCAN.format("sub-01", "ge", "st")
    assert same_person(person_of(preprocessed), person_of(scan_of(heads, "sub-01"))) is True


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Person("sub-01"), Person("sub-01"), True),
        (Person("sub-01"), Person("sub-02"), False),
        (Person(""), Person("sub-02"), True),
        (Person("sub-01"), Person("sub-01", "a"), True),
    ],
)
def test_names_decide_where_nothing_else_is_known(
    first: Person, second: Person, expected: bool
) -> None:
    assert same_person(first, second) is None
    assert may_be_same(first, second) is expected


def test_nobody_is_known_among_those_without_a_name() -> None:
    assert not known_among(Person(), [Person("sub-01")])
    assert not known_among(Person("sub-01"), [Person()])


def test_a_person_is_read_back_and_odd_fields_are_unknown(heads: Path) -> None:
    person = person_of(scan_of(heads, "sub-01"))
    assert Person.from_json(person.to_json()) == person
    for odd in (None, [], {"Label": 3, "Dataset": [], "Scans": "abc"}, {"Scans": [1, "x"]}):
        assert Person.from_json(odd).label == ""
    assert Person.from_json({"Scans": [1, "x"]}).scans == {"x"}


def test_what_shows_nothing_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "flat_dwi.nii.gz"
    nib.Nifti1Image(np.zeros((4, 4, 4, 2), dtype=np.float32), np.eye(4)).to_filename(path)
    assert file_digest(path) == ""
    assert file_digest(tmp_path / "gone.nii") == ""
    path.write_bytes(path.read_bytes()[:-30])
    assert file_digest(path) in ("", file_digest(path))


def test_a_scan_knows_its_person_by_all_scans_of_the_dataset(heads: Path) -> None:
    scan = load_scan(scan_of(heads, "sub-01"))
    assert scan.person == open_dataset(heads).person("sub-01")
    assert len(scan.person.scans) == 3
