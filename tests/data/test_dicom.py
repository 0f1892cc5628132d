"""Folders of DICOM, written here by pydicom, converted by dcm2niix."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_files import (
    B_VALUES,
    DIRECTIONS,
    VOXEL,
    voxels,
    write_enhanced,
    write_series,
    write_session,
)
from napari_msp.data import dicom, importers
from napari_msp.data.acquisition import load_acquisition
from napari_msp.data.dicom import convert, kept_conversion, looks_like_dicom
from napari_msp.data.importers import DicomWarning, import_dicom
from napari_msp.data.source_tree import series_of
from napari_msp.errors import Advice, Choose, Doubt, Either, Give, UserError, choice_in, every

pytestmark = pytest.mark.filterwarnings("ignore::napari_msp.data.importers.DicomWarning")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_session(tmp_path_factory.mktemp("dicom") / "session")


@pytest.fixture(scope="module")
def imported(session: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "heads"
    (scan,) = import_dicom(session, out, subject="01", session="GE", protocol="ST")
    assert scan.source == session
    assert (scan.subject, scan.platform) == ("sub-01", "ge_st")
    return out / scan.image


def test_voxels_lie_where_the_scanner_put_them(imported):
    image = nib.load(imported)
    stored = np.asarray(image.dataobj)
    # DICOM's first voxel: 9 mm to the right and 7 mm in front of the origin, 5 mm below it.
    to_scanner = np.diag([-VOXEL[0], -VOXEL[1], VOXEL[2], 1.0])
    to_scanner[:3, 3] = [9.0, 7.0, -5.0]
    expected = voxels()
    for place in [(0, 0, 0), (9, 0, 0), (0, 7, 0), (0, 0, 5), (3, 4, 2)]:
        point = to_scanner @ [*place, 1]
        index = tuple(np.round(np.linalg.solve(image.affine, point)[:3]).astype(int))
        np.testing.assert_array_equal(stored[index], expected[place])


def test_directions_are_the_scanners(imported):
    acquisition = load_acquisition(imported)
    np.testing.assert_array_equal(acquisition.gradients.b_values, B_VALUES)
    weighted = B_VALUES > 0
    expected = DIRECTIONS[weighted] * [-1, -1, 1]  # left, posterior → right, anterior
    found = acquisition.gradients.directions[weighted]
    np.testing.assert_allclose(np.abs(np.sum(found * expected, axis=1)), 1, atol=1e-6)


def test_nothing_names_the_person(imported):
    for path in imported.parents[3].rglob("*"):
        if path.suffix in (".json", ".tsv", "") and path.is_file():
            text = path.read_text()
            assert "Doe" not in text
            assert "secret" not in text
            assert "2020" not in text
    assert b"Doe" not in nib.load(imported).header.binaryblock


def test_series_are_told_apart(session, tmp_path):
    made = convert(session, tmp_path)
    flaws = {each.number: each.flaw for each in made.series}
    assert list(flaws) == [1, 5, 6, 7]
    assert flaws[5] == ""
    assert flaws[1] == "one volume"
    assert flaws[6].startswith("no b-values: not diffusion, or only b=0")
    assert "the scanner computed (ADC)" in flaws[7]
    assert str(made.usable[0]) == (
        "5 DTI b1200/3000: 2 × 2 × 2.5 mm, 14 volumes, 2 at b = 0, 8 at b = 1200, 4 at b = 3000"
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with two DWIs."""
    folder = write_session(tmp_path_factory.mktemp("two") / "session", more=False)
    write_series(folder, 9, "DTI repeated", voxels(seed=1), B_VALUES)
    write_series(folder, 1, "localizer", voxels(1))
    return folder


def test_of_two_the_choice_is_the_users(two, tmp_path):
    with pytest.raises(UserError) as error:
        import_dicom(two, tmp_path / "out", subject="01", session="ge", protocol="st")
    assert error.value.subject == str(two)
    assert error.value.field == "series"
    assert error.value.remedy == Choose("series", ("5", "9"))
    assert "9 DTI repeated" in error.value.problem
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wanted", [9, "9", "repeated", "DTI repeated", "REPEAT"])
def test_a_series_is_chosen(wanted, two, tmp_path):
    assert convert(two, tmp_path).choose(wanted).number == 9


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (1, "series 1 localizer is not a usable DWI: one volume"),
        ("local", "series 1 localizer is not a usable DWI: one volume"),
        (3, "has no series 3"),
        ("dti", "has several matching series"),
        ("T1", "has no series T1"),
    ],
)
def test_a_series_that_will_not_do(wanted, problem, two, tmp_path):
    with pytest.raises(UserError) as error:
        convert(two, tmp_path).choose(wanted)
    assert error.value.problem.startswith(problem)
    assert error.value.remedy == Choose("series", ("5", "9"))


def test_which_series_a_folder_gives():
    folders = {"a": Path("t/a"), "b/x": Path("t/b/x")}
    assert series_of(folders, None) == {Path("t/a"): None, Path("t/b/x"): None}
    assert series_of(folders, 6) == {Path("t/a"): "6", Path("t/b/x"): "6"}
    assert series_of(folders, ["b/x=b=3", "b=1"]) == {Path("t/a"): "b=1", Path("t/b/x"): "b=3"}
    assert series_of(folders, ["a=none"]) == {Path("t/b/x"): None}
    with pytest.raises(UserError, match="leaves out every folder"):
        series_of(folders, "none")
    with pytest.raises(UserError, match="5, 6: name several series for every folder"):
        series_of(folders, [5, 6])
    with pytest.raises(UserError, match="c/x=6: is for c/x, which is not a folder") as error:
        series_of(folders, "c/x=6")
    assert error.value.remedy == Choose("series", ("b/x=6",))


def test_a_tree_of_sessions(tmp_path):
    for subject in ("anna", "ben"):
        write_session(tmp_path / "tree" / subject / "GE" / "st", more=False)
    # One was repeated, one has no DWI, others are no DICOM: all are named at once, with what helps
    # for each alone of the first few.
    write_series(tmp_path / "tree" / "ben" / "GE" / "st", 9, "again", voxels(seed=1), B_VALUES)
    write_series(tmp_path / "tree" / "cleo" / "GE" / "st", 1, "localizer", voxels(1))
    for subject in ("dora", "eve"):
        (tmp_path / "tree" / subject / "GE" / "st").mkdir(parents=True)
    out = tmp_path / "heads"
    tree = tmp_path / "tree", out, "{subject}/{scanner}/{protocol}"
    shown = r"several matching series.*cleo/GE/st: has no.*dora/GE/st: contains no DICOM.*; and 1 "
    told = pytest.warns(DicomWarning, match="eve/GE/st: contains no DICOM")
    with told, pytest.raises(UserError, match=shown) as error:
        import_dicom(*tree)
    assert list(every(error.value.remedy)) == [
        Choose("series", ("ben/GE/st=5", "ben/GE/st=9")),
        Give("series", "ben/GE/st=none"),
        Advice("give a folder with a DWI"),
        Give("series", "cleo/GE/st=none"),
        Advice("give the folder of DICOM files from the scanner or archive"),
        Give("series", "dora/GE/st=none"),
    ]
    reported = []
    scans = import_dicom(
        *tree,
        series=["DTI", "ben/GE/st=9", *(f"{who}/GE/st=none" for who in ("cleo", "dora", "eve"))],
        report=lambda made, chosen: reported.append((made.folder, chosen.number)),
    )
    assert [each.subject for each in scans] == ["sub-anna", "sub-ben"]
    assert {each.platform for each in scans} == {"ge_st"}
    assert [number for _, number in reported] == [5, 9]
    table = (out / "code" / "imported.tsv").read_text().splitlines()
    # Folders of DICOM are often called after people.
    assert table[1].startswith("series 5 DTI b1200/3000\tsub-anna/ses-ge")
    assert "anna/GE" not in (out / "README").read_text() + "".join(table)
    assert json.loads((out / "dataset_description.json").read_text())["Name"] == "heads"
    assert "which dcm2niix converted" in (out / "README").read_text()
    assert "byte for byte" not in (out / "README").read_text()


def test_dry_run_writes_nothing(session, tmp_path):
    out = tmp_path / "out"
    scans = import_dicom(session, out, subject="1", session="a", protocol="b", dry_run=True)
    assert len(scans) == 1
    assert not out.exists()


def empty(folder: Path) -> None:
    folder.mkdir()


def text(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")


def localiser(folder: Path) -> None:
    write_series(folder, 1, "localizer", voxels(1))


def b0_alone(folder: Path) -> None:
    write_series(folder, 1, "b0", voxels(3), np.zeros(3))


def truncated(folder: Path) -> None:
    write_series(folder, 5, "DTI", voxels(1), np.zeros(1))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (empty, "contains no DICOM image"),
        (text, "contains no DICOM image"),
        (localiser, "has no DWI series"),
        (b0_alone, "has no DWI series"),
        (truncated, ""),
    ],
)
def test_folders_without_a_dwi(write: Callable[[Path], None], problem, tmp_path):
    write(tmp_path / "in")
    with pytest.raises(UserError) as error:
        import_dicom(tmp_path / "in", tmp_path / "out", subject="1", session="a", protocol="b")
    assert error.value.problem.startswith(problem)
    assert error.value.subject == str(tmp_path / "in")
    assert error.value.remedy is not None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("pattern", "labels", "field"),
    [
        ("", {}, "subject"),
        ("", {"subject": "1"}, "session"),
        ("", {"mask": "{subject}_mask.nii.gz"}, "mask"),
        ("{subject}", {}, "pattern"),
        ("{subject}/x", {"session": "a", "protocol": "b"}, "pattern"),
        ("/absolute/{subject}", {"session": "a", "protocol": "b"}, "pattern"),
        ("{subject}/dwi.nii.gz", {"session": "a", "protocol": "b"}, "pattern"),
    ],
)
def test_patterns_that_lead_nowhere(pattern, labels, field, session, tmp_path):
    with pytest.raises(UserError) as error:
        import_dicom(session, tmp_path / "out", pattern, **labels)
    assert error.value.field == field
    assert error.value.remedy is not None
    assert not (tmp_path / "out").exists()


def test_without_dcm2niix_it_says_how_to_get_it(session, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match="needs dcm2niix") as error:
        convert(session, tmp_path)
    assert isinstance(error.value.remedy, Either)
    assert "napari-msp[dicom]" in str(error.value)


def test_an_old_dcm2niix_on_the_path_is_told_of_once(tmp_path, monkeypatch):
    program = tmp_path / "dcm2niix"
    program.write_text("#!/bin/sh\necho v1.0.20220505\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.warns(Doubt, match="is version 1.0.20220505, but 1.0.20260416 or later is needed"):
        assert dicom._program() == str(program)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dicom._program() == str(program)


def test_the_oldest_dcm2niix_is_that_of_the_extras():
    about = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert set(re.findall(r"dcm2niix>=1\.0\.(\d+)", about)) == {dicom.LEAST_VERSION}


def test_what_dcm2niix_warns_of_is_passed_on(tmp_path, monkeypatch):
    folder = write_session(tmp_path / "in", more=False)
    made = convert(folder, tmp_path)
    warned = dicom.Converted(folder, made.series, ("Warning: odd",))
    monkeypatch.setattr("napari_msp.data.importers.convert", lambda *_: warned)
    with pytest.warns(DicomWarning, match="dcm2niix: Warning: odd"):
        import_dicom(folder, tmp_path / "out", subject="1", session="a", protocol="b")


def test_a_slice_lost_inside_every_volume_is_no_scan(tmp_path):
    """dcm2niix writes the five that are left as if they lay side by side."""
    write_series(tmp_path / "in", 5, "DTI", voxels(), B_VALUES, lost=(2,))
    write_series(tmp_path / "in", 8, "whole", voxels(seed=1), B_VALUES, suffix="w")
    with pytest.raises(UserError) as error:
        import_dicom(
            tmp_path / "in", tmp_path / "out", subject="1", session="a", protocol="b", series=5
        )
    assert "slices are missing inside it: export it again" in error.value.problem
    assert not (tmp_path / "out").exists()
    first, again = (kept_conversion(tmp_path / "in", tmp_path / "cache") for _ in range(2))
    assert first == again
    assert [each.number for each in again.usable] == [8]
    assert any("missing" in line for line in again.warnings)
    # Nor is the other one the only DWI: the broken one may be meant.
    with pytest.raises(
        UserError, match=r"1 usable DWI \(8 whole: .* 1 broken one \(5 DTI: "
    ) as error:
        again.choose()
    assert choice_in(error.value.remedy) == Choose("series", ("8",))
    assert again.choose("8").number == 8


def test_a_slice_lost_in_files_of_a_volume_each_is_no_scan_either(tmp_path):
    write_enhanced(tmp_path / "in", 5, voxels(), B_VALUES)
    assert convert(tmp_path / "in", tmp_path).choose().shape == (10, 8, 6, 14)
    # A file whose header cannot be read is told by its number alone.
    (tmp_path / "in" / "V007.dcm").write_bytes(bytes(1000))
    made = kept_conversion(tmp_path / "in", tmp_path / "cache")
    assert made.choose().shape == (10, 8, 6, 13)
    assert "5 DTI: 1 file missing or broken (number 8)" in made.warnings
    write_enhanced(tmp_path / "in", 5, voxels(), B_VALUES, lost=(2,))
    (series,) = kept_conversion(tmp_path / "in", tmp_path / "cache").series
    assert series.flaw == "slices are missing inside it: export it again"


@pytest.mark.parametrize("lost", [(0,), (5,)])
def test_slices_cut_off_an_end_are_told_alone(lost, tmp_path):
    write_series(tmp_path / "in", 5, "DTI", voxels(), B_VALUES, lost=lost)
    with pytest.warns(DicomWarning, match=r"images may be missing, .* but found 5\."):
        import_dicom(tmp_path / "in", tmp_path / "out", subject="1", session="a", protocol="b")


def test_a_series_that_dcm2niix_gives_up_is_not_left_unsaid(session, tmp_path):
    made = convert(session, tmp_path)
    made = dicom.Converted(session, made.series[:1], ("Error: Converted 6 of 191 files",))
    with pytest.raises(UserError, match="; dcm2niix: Error: Converted 6 of 191 files"):
        made.choose()


def test_a_file_that_ends_early_is_named(tmp_path):
    write_series(tmp_path / "in", 5, "DTI", voxels(), B_VALUES)
    path = max((tmp_path / "in").iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"File not large enough.*{path.name}") as error:
        convert(tmp_path / "in", tmp_path)
    assert "copy it again" in str(error.value.remedy)
    # Beside a whole DWI dcm2niix makes no image of it, so that the whole one seems to be the only.
    write_series(tmp_path / "in", 9, "whole", voxels(seed=1), B_VALUES)
    for _ in range(2):
        made = kept_conversion(tmp_path / "in", tmp_path / "cache")
        assert [each.number for each in made.series] == [9]
        with pytest.raises(UserError, match=rf"5: a DWI, 84 of 84 files .*{path.name}") as error:
            made.choose()
        assert choice_in(error.value.remedy) == Choose("series", ("9",))
        assert made.choose(9).number == 9


def test_what_was_told_before_an_error_is_not_lost(session, tmp_path, monkeypatch):
    def fail(*given):
        (image,) = given[-1]
        warnings.warn(Doubt("odd", image), stacklevel=2)
        raise UserError("is no scan", image)

    monkeypatch.setattr(importers, "_imported", fail)
    said = pytest.warns(UserWarning, match=rf"^{re.escape(str(session))}: odd")
    with said, pytest.raises(UserError) as error:
        import_dicom(session, tmp_path / "out", subject="1", session="a")
    assert error.value.subject == str(session)


def test_slices_are_missed_though_another_session_has_a_series_of_that_number(tmp_path):
    write_series(tmp_path / "in" / "a", 5, "DTI", voxels(), B_VALUES, lost=(2,))
    write_series(tmp_path / "in" / "b", 5, "T2", voxels(1))
    made = convert(tmp_path / "in", tmp_path)
    flaws = {each.description: each.flaw for each in made.series}
    assert flaws["DTI"] == "slices are missing inside it: export it again"
    with pytest.raises(UserError) as error:
        made.choose()
    assert "export the DWI again" in str(error.value.remedy)


def test_b_values_that_were_removed_with_the_names_are_thought_of(tmp_path):
    write_series(tmp_path / "in", 5, "DTI", voxels())
    (series,) = convert(tmp_path / "in", tmp_path).series
    assert "whose b-values (private fields) anonymisation removed" in series.flaw


def test_a_full_disk_is_named(session, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    said = subprocess.CompletedProcess([], 1, "Error: Converted 14 of 60 files", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    with pytest.raises(UserError, match="the disk is full") as error:
        convert(session, tmp_path)
    assert error.value.subject == str(tmp_path.parent)


def test_phase_beside_magnitude_is_no_dwi(tmp_path):
    """Philips exports both in one series, and dcm2niix writes an image of each."""
    write_series(tmp_path / "in", 5, "DTI", voxels(), B_VALUES)
    kind = ("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "SE")
    write_series(tmp_path / "in", 5, "DTI", voxels(seed=1), B_VALUES, kind=kind, suffix="p")
    made = convert(tmp_path / "in", tmp_path)
    assert sorted(each.flaw for each in made.series) == [
        "",
        "phase of the signal, not its magnitude",
    ]
    assert made.choose(5) == made.choose() == made.usable[0]


def test_series_of_one_number_go_by_their_images(tmp_path):
    """As of two people in one folder: no number could choose."""
    for seed in (0, 1):
        write_series(tmp_path / "in", 5, "DTI", voxels(seed=seed), B_VALUES, suffix=f"s{seed}")
    made = convert(tmp_path / "in", tmp_path)
    with pytest.raises(UserError, match="are they all from one session") as error:
        made.choose()
    choices = error.value.remedy.choices
    assert len(set(choices)) == 2
    assert {made.choose(each).path.name for each in choices} == {
        each.path.name for each in made.usable
    }


def test_dicom_is_known_by_its_content(session, tmp_path):
    assert looks_like_dicom(session)
    text(tmp_path / "text")
    assert not looks_like_dicom(tmp_path / "text")


def test_a_folder_that_leads_to_an_archive_is_not_walked_to_its_end(tmp_path, monkeypatch):
    names = [f"{number}.txt" for number in range(dicom.FIRST_FILES)]
    for name in names:
        (tmp_path / name).touch()

    def walk(folder):
        yield folder, [], names
        raise AssertionError("went on")

    monkeypatch.setattr(dicom, "walk", walk)
    assert not looks_like_dicom(tmp_path)
