"""Load acquisition, given a folder of DICOM: the series are offered, and one is opened."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from qtpy.QtWidgets import QComboBox

from dicom_files import B_VALUES, voxels, write_series, write_session
from napari_msp.data import dicom
from napari_msp.ui.load.examine import LoadChoice, LoadFindings, examine
from napari_msp.ui.load.form import AcquisitionForm


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with two DWIs and a localiser."""
    folder = write_session(tmp_path_factory.mktemp("exported") / "session", more=False)
    write_series(folder, 9, "DTI repeated", voxels(seed=1), B_VALUES)
    write_series(folder, 1, "localizer", voxels(1))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_first_dwi_is_opened_and_the_others_offered(exported, cache):
    found = examine(LoadChoice(exported), cache=cache)
    assert [each.number for each in found.series] == [5, 9]
    assert found.choice.series == found.series[0].stem
    assert found.scan is not None
    assert cache in found.scan.parents
    assert "path" not in found.problems
    assert found.doubts["series"].startswith("dcm2niix: Warning: ")  # no scanner wrote these files
    assert examine(LoadChoice(exported), cache=cache).doubts == found.doubts


def test_another_one_is_chosen(exported, cache):
    wanted = examine(LoadChoice(exported), cache=cache).series[1].stem
    found = examine(LoadChoice(exported, series=wanted), cache=cache)
    assert found.choice.series == wanted
    assert found.scan is not None
    assert found.scan.name.startswith("9_DTI")


def test_series_of_one_number_are_each_opened(cache, tmp_path):
    folder = write_session(tmp_path / "in", more=False)
    write_series(folder / "second", 5, "DTI of another day", voxels(seed=1), B_VALUES)
    found = examine(LoadChoice(folder), cache=cache)
    assert [each.number for each in found.series] == [5, 5]
    for series in found.series:
        chosen = examine(LoadChoice(folder, series=series.stem), cache=cache)
        assert chosen.scan == series.path
        again = examine(replace(chosen.choice, b_value=3000), cache=cache)  # whatever is looked at
        assert again.scan == series.path


def test_where_the_chosen_series_has_gone_the_others_stay_on_offer(exported, cache):
    found = examine(LoadChoice(exported, series="7_gone"), cache=cache)
    assert "has no series 7_gone" in found.problems["series"]
    assert [each.number for each in found.series] == [5, 9]


def test_a_folder_is_converted_once(exported, cache, monkeypatch):
    examine(LoadChoice(exported), cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(dicom, "convert", lambda *_: pytest.fail("converted again"))
        assert examine(LoadChoice(exported), cache=cache).scan is not None


def test_a_folder_that_changed_is_converted_again(exported, cache, tmp_path):
    copy = tmp_path / "session"
    shutil.copytree(exported, copy)
    assert len(examine(LoadChoice(copy), cache=cache).series) == 2
    write_series(copy, 11, "DTI third", voxels(seed=2), B_VALUES)
    # A broken one is not offered, and not kept quiet: it may be the one that is wanted.
    write_series(copy, 12, "DTI fourth", voxels(seed=3), B_VALUES, lost=(2,))
    found = examine(LoadChoice(copy), cache=cache)
    assert [each.number for each in found.series] == [5, 9, 11]
    assert found.doubts["series"].startswith("broken: 12 DTI fourth: ")


def test_what_is_wrong_is_said_at_the_path(cache, tmp_path):
    write_series(tmp_path / "in", 1, "localizer", voxels(1))
    found = examine(LoadChoice(tmp_path / "in"), cache=cache)
    assert found.scan is None
    assert "has no DWI series" in found.problems["series"]
    (tmp_path / "file").touch()
    problem = examine(LoadChoice(tmp_path / "in"), cache=tmp_path / "file").problems["path"]
    assert problem.endswith("choose a cache folder in File > Preferences > MSP Harmonization")


def test_the_form_lists_the_series(exported, cache, qtbot):
    form = AcquisitionForm()
    qtbot.addWidget(form)
    asked: list[LoadChoice] = []
    form.changed.connect(asked.append)
    form.path.choose(exported)
    form.show_findings(examine(asked[-1], cache=cache))
    box: QComboBox = form.series
    stems = [each.stem for each in form.findings.series]
    assert [box.itemData(row) for row in range(box.count())] == stems
    assert box.currentText().startswith("5 DTI b1200/3000")
    box.setCurrentIndex(1)
    box.activated.emit(1)
    assert asked[-1] == LoadChoice(exported, series=stems[1])
    form.show_findings(examine(asked[-1], cache=cache))
    assert box.currentText().startswith("9 DTI repeated")
    form.show_findings(replace(form.findings, choice=LoadChoice(exported, series="7_gone")))
    assert (box.count(), box.currentText()) == (len(stems), "")  # none of them is opened
    form.show_findings(LoadFindings())
    assert not box.isVisibleTo(form)
