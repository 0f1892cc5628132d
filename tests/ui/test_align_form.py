"""What Align asks for, and what its answers come to; nothing is aligned."""

import inspect
import shutil

import pytest
from qtpy.QtCore import Qt

import napari_msp as msp
from napari_msp.alignment.report import REPORT, TABLE
from napari_msp.bids import DESCRIPTION
from napari_msp.ui.align.aligning import LABELS, REPLACED, AlignChoice, examine
from napari_msp.ui.align.form import AlignForm


@pytest.fixture
def form(qtbot):
    form = AlignForm()
    form.wanted = []
    form.changed.connect(lambda choice: form.show_findings(examine(choice, form.known)))
    form.act_wanted.connect(lambda: form.wanted.append(form.findings.choice))
    form.show_findings(examine(AlignChoice()))
    qtbot.addWidget(form)
    form.show()
    qtbot.waitExposed(form)
    return form


def test_it_asks_for_what_the_library_takes():
    own = {"force", "progress", "cancelled"}  # what Replace and the progress row are for
    assert set(LABELS) == set(inspect.signature(msp.align).parameters) - own


def test_it_says_what_to_choose_while_it_is_empty(form):
    assert "BIDS folder" in form.rows.said("dataset")
    assert not form.button.isVisible()


def test_a_dataset_fills_in_the_rest(form, heads, qtbot):
    form.dataset.choose(heads)
    assert form.rows.said("dataset") == "3 subjects on 3 platforms."
    assert form.input.currentText() == "ge_st"
    assert form.out.path == heads.with_name(f"{heads.name}-aligned")
    for each in (form.dataset, form.out):  # whole, where the line is too short for it
        assert each.line.toolTip() == str(each.path)
    qtbot.mouseClick(form.button, Qt.LeftButton)
    [wanted] = form.wanted
    assert wanted == AlignChoice(heads, form.out.path, "ge_st")


def test_enter_after_a_path_fills_the_form_and_only_the_next_begins(form, heads, qtbot):
    form.dataset.line.setFocus()
    form.dataset.line.setText(str(heads))
    qtbot.keyClick(form.dataset.line, Qt.Key_Return)
    assert form.choice.dataset == heads
    assert form.wanted == []
    qtbot.keyClick(form.dataset.line, Qt.Key_Return)
    assert len(form.wanted) == 1


def test_stretch_is_undone_in_images_alone(form, heads):
    form.dataset.choose(heads)
    assert not form.affine.isEnabled()
    form.resample.click()
    form.affine.setCurrentIndex(1)
    form.affine.activated.emit(1)
    assert form.choice.affine
    form.resample.click()
    assert not form.affine.isEnabled()
    assert form.affine.currentIndex() == 0  # as it will be done


@pytest.mark.parametrize(
    ("typed", "value", "problem"),
    [
        ("auto", "auto", ""),
        ("2,5", 2.5, ""),
        ("wide", "wide", "wide is not a valid voxel size"),
        ("-1", -1.0, "-1 mm is not a valid"),
    ],
)
def test_cubes(form, heads, qtbot, typed, value, problem):
    form.dataset.choose(heads)
    form.section.unfold(True)
    qtbot.keyClicks(form.voxel_size, typed)
    form.voxel_size.editingFinished.emit()
    assert form.choice.voxel_size == value
    assert problem in form.others.said("voxel_size")
    assert form.findings.ready is not bool(problem)
    assert form.resample.isChecked()  # it comes with it
    assert not form.resample.isEnabled()


def test_a_named_folder_stays_and_an_offered_one_follows(form, heads, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(heads, copy)
    form.dataset.choose(heads)
    form.dataset.choose(copy)
    assert form.out.path == tmp_path / "copy-aligned"
    form.input.setCurrentText("prisma_st")
    form.input.activated.emit(form.input.currentIndex())
    gone = (copy / "sub-02").rename(tmp_path / "sub-02")
    form.dataset.choose(copy)  # again: what lies there has changed
    assert form.rows.said("dataset") == "2 subjects on 3 platforms."
    assert form.input.currentText() == "prisma_st"
    gone.rename(copy / "sub-02")
    form.out.choose(tmp_path / "mine")
    form.dataset.choose(heads)
    assert form.out.path == tmp_path / "mine"


def test_what_is_in_the_way_is_told(form, heads, tmp_path):
    form.dataset.choose(heads)
    (tmp_path / "mine.txt").write_text("keep")
    form.out.choose(tmp_path)
    assert "exists and is not empty" in form.rows.said("out")
    assert not form.button.isEnabled()
    form.out.choose(heads)
    assert "is the dataset itself" in form.rows.said("out")
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    for name in (DESCRIPTION, REPORT, TABLE):
        (earlier / name).touch()
    form.out.choose(earlier)
    assert form.rows.said("out") == REPLACED
    assert form.button.isEnabled()


def test_an_unmarked_input_is_asked_for(form, heads, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(heads, copy)
    (copy / DESCRIPTION).unlink()
    form.dataset.choose(copy)
    assert "Choose the platform" in form.rows.said("input")
    assert not form.button.isEnabled()
    form.input.setCurrentText("prisma_st")
    form.input.activated.emit(form.input.currentIndex())
    assert form.findings.ready
    shutil.rmtree(copy / "sub-02/ses-prisma")
    form.show_findings(examine(form.choice))
    assert form.rows.said("input") == "sub-02 will be left out: no scan on prisma_st."


def test_a_folder_without_scans_is_told_where_it_was_named(form, tmp_path):
    form.dataset.choose(tmp_path)
    assert form.rows.said("dataset")
    assert not form.button.isEnabled()


def test_one_platform_is_nothing_to_align(form, heads, tmp_path):
    copy = tmp_path / "copy"
    for subject in ("sub-01", "sub-02"):
        shutil.copytree(heads / subject / "ses-ge", copy / subject / "ses-ge")
    form.dataset.choose(copy)
    assert "All scans are on ge_st" in form.rows.said("dataset")
    assert not form.button.isEnabled()
    form.voxel_size.setText("auto")
    form.voxel_size.editingFinished.emit()
    assert form.button.isEnabled()  # the input can still be interpolated


def test_another_dataset_has_runs_of_its_own(form, heads, tmp_path):
    form.dataset.choose(heads)
    form.run.setText("1")
    form.run.editingFinished.emit()
    assert form.choice.run == "1"
    copy = tmp_path / "copy"
    shutil.copytree(heads, copy)
    form.dataset.choose(copy)
    assert (form.choice.run, form.run.text()) == (None, "")
