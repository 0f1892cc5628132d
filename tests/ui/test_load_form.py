"""The form of Load acquisition, by mouse and keyboard, with nothing behind it."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication

from napari_msp.ui.load.examine import LoadChoice, examine
from napari_msp.ui.load.form import AcquisitionForm
from napari_msp.ui.widgets.path_field import PAUSE


@pytest.fixture
def form(qtbot):
    form = AcquisitionForm()
    form.asked = []
    form.loads = []
    form.changed.connect(form.asked.append)
    form.act_wanted.connect(lambda: form.loads.append(form.findings.scan))
    qtbot.addWidget(form)
    form.resize(370, 700)
    form.show()
    qtbot.waitExposed(form)
    return form


@pytest.fixture
def path(scan, tmp_path) -> Path:
    return scan().write(tmp_path)


def look(form):
    """Do what a coordinator does, at once."""
    form.show_findings(examine(form.asked[-1], form.known))


def visible(form):
    parts = {
        "subject": form.subject,
        "shell": form.shell,
        "mask": form.mask,
        "tables": form.section,
        "facts": form.description,
        "load": form.button,
        "teaching": form.teaching,
        "sample": form.sample,
    }
    return {name for name, part in parts.items() if part.isVisible()}


def drop(form, widget, *paths):
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    buttons = (Qt.LeftButton, Qt.NoModifier)
    enter = QDragEnterEvent(QPoint(5, 5), Qt.CopyAction, mime, *buttons)
    QApplication.sendEvent(widget, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(widget, QDropEvent(QPointF(5, 5), Qt.CopyAction, mime, *buttons))


def test_it_teaches_while_it_is_empty(form, qtbot):
    assert visible(form) == {"teaching", "sample"}
    with qtbot.waitSignal(form.sample.clicked):
        qtbot.mouseClick(form.sample, Qt.LeftButton)


def test_a_scan_that_was_found_can_be_loaded(form, path, qtbot):
    form.path.choose(path)
    assert form.asked == [LoadChoice(path)]
    assert not form.button.isEnabled()  # nobody has looked yet
    look(form)
    assert visible(form) == {"shell", "mask", "tables", "facts", "load"}
    assert form.shell.currentText() == "b = 1200 s/mm², 60 directions"
    assert not form.shell.isEnabled()  # there is no other
    assert form.rows.said("mask") == "sub-01_mask.nii.gz was found"
    assert "8 × 7 × 6 of 2 × 2 × 2.5 mm" in form.description.text()
    assert not form.section.button.isChecked()
    qtbot.mouseClick(form.button, Qt.LeftButton)
    assert form.loads == [path]


def test_a_mask_that_will_be_made_is_announced(form, path):
    path.with_name("sub-01_mask.nii.gz").unlink()
    form.path.choose(path)
    look(form)
    assert "None was found" in form.rows.said("mask")
    assert "one is made from the image" in form.rows.said("mask")
    assert form.button.isEnabled()


def test_a_mask_that_is_passed_over_is_told_of(form, path):
    mask = nib.load(path.with_name("sub-01_mask.nii.gz"))
    moved = nib.Nifti1Image(np.asarray(mask.dataobj), np.diag([3.0, 3.0, 3.0, 1.0]))
    moved.to_filename(path.with_name("brain_mask.nii.gz"))
    own = path.with_name("sub-01_mask.nii.gz").rename(path.with_name("kept.nii.gz"))
    form.path.choose(path)
    look(form)
    assert form.rows.said("mask") == "brain_mask.nii.gz has another voxel grid"
    own.rename(path.with_name("b0_mask.nii.gz"))
    form.path.choose(path)
    look(form)
    assert form.rows.said("mask") == "brain_mask.nii.gz has another voxel grid"


def test_a_repeated_scan_offers_its_runs(form, scan, tmp_path, qtbot):
    folder = tmp_path / "sub-1/ses-a/dwi"
    folder.mkdir(parents=True)
    for run in ("1", "2"):
        scan().write(folder, stem=f"sub-1_ses-a_run-{run}")
    form.path.choose(tmp_path)
    look(form)
    assert form.run.isVisible()
    assert form.rows.said("run") == "Scanned 2 times; it is sub-1_ses-a_run-1_dwi.nii.gz"
    form.run.setFocus()
    qtbot.keyClick(form.run, Qt.Key_Down)
    assert form.asked[-1] == LoadChoice(tmp_path, "sub-1", "a", run="2")
    look(form)
    assert form.findings.scan == folder / "sub-1_ses-a_run-2_dwi.nii.gz"
    assert "run-2" in form.rows.said("run")
    form.path.choose(folder / "sub-1_ses-a_run-1_dwi.nii.gz")
    look(form)
    assert not form.run.isVisible()


def test_a_folder_offers_its_subjects_and_platforms(form, heads, qtbot):
    form.path.choose(heads)
    look(form)
    assert "subject" in visible(form)
    form.subject.setFocus()
    qtbot.keyClick(form.subject, Qt.Key_Down)
    assert form.asked[-1] == LoadChoice(heads, "sub-02", "ge_st")
    look(form)
    form.platform.setFocus()
    qtbot.keyClick(form.platform, Qt.Key_Down)
    look(form)
    assert form.findings.scan.name == "sub-02_ses-prisma_acq-st_dwi.nii.gz"


def test_a_folder_that_is_chosen_again_is_listed_anew(form, heads, tmp_path, qtbot):
    folder = tmp_path / "copy"
    shutil.copytree(heads, folder)
    last = (folder / "sub-03").rename(tmp_path / "sub-03")
    form.path.choose(folder)
    look(form)
    form.subject.setFocus()
    qtbot.keyClick(form.subject, Qt.Key_Down)
    look(form)
    last.rename(folder / "sub-03")
    form.path.choose(folder)  # by Browse, or dropped
    look(form)
    assert [form.subject.itemText(row) for row in range(3)] == ["sub-01", "sub-02", "sub-03"]
    assert form.choice.subject == "sub-02"


def test_enter_loads_no_scan_of_several_that_nobody_has_seen_chosen(form, heads, qtbot):
    wanted = []
    form.act_wanted.connect(lambda: wanted.append(form.findings.choice))
    form.path.line.setText(str(heads))
    qtbot.keyClick(form.path.line, Qt.Key_Return)
    look(form)
    assert wanted == []
    qtbot.keyClick(form.path.line, Qt.Key_Return)
    assert [(each.subject, each.platform) for each in wanted] == [("sub-01", "ge_st")]
    # The path of one scan leaves nothing to choose.
    form.path.line.setText(str(form.findings.scan))
    qtbot.keyClick(form.path.line, Qt.Key_Return)
    look(form)
    assert len(wanted) == 2


def test_enter_looks_again_at_what_was_not_there(form, scan, tmp_path, qtbot):
    path = tmp_path / "later" / "sub-01_dwi.nii.gz"
    form.path.choose(path)
    look(form)
    assert "no such file" in form.rows.said("path")
    path.parent.mkdir()
    scan().write(path.parent)
    qtbot.keyClick(form.path.line, Qt.Key_Return)
    look(form)
    assert form.findings.ready


def test_a_platform_without_a_scan_cannot_be_chosen(form, make_heads, tmp_path):
    heads = make_heads(tmp_path / "heads", subjects=1, shape=(5, 5, 5))
    other = heads / "sub-02/ses-new/dwi"
    other.mkdir(parents=True)
    (other / "sub-02_ses-new_acq-st_dwi.nii.gz").touch()
    form.path.choose(heads)
    look(form)
    enabled = [form.platform.model().item(row).isEnabled() for row in range(4)]
    assert [form.platform.itemText(row) for row in range(4)][2] == "new_st"
    assert enabled == [True, True, False, True]


def test_another_shell_can_be_chosen(form, scan, tmp_path, qtbot):
    path = scan(b_values=(1000.0, 2500.0)).write(tmp_path)
    form.path.choose(path)
    look(form)
    assert form.shell.isEnabled()
    form.shell.setFocus()
    qtbot.keyClick(form.shell, Qt.Key_Down)
    assert form.asked[-1].b_value == 2500
    look(form)
    assert form.shell.currentText() == "b = 2500 s/mm², 60 directions"


def test_problems_stand_at_their_fields_and_are_seen(form, path):
    path.with_name("sub-01_dwi.bvec").unlink()
    form.path.choose(path)
    look(form)
    assert form.files.said("bvec").startswith("sub-01_dwi.bvec: is missing")
    assert form.files.isVisible()  # the section has opened itself
    assert not form.files.said("bval")
    assert not form.button.isEnabled()
    form.act()
    assert not form.loads


def test_a_mended_problem_is_gone(form, path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere/table.bvec"
    path.with_name("sub-01_dwi.bvec").rename(moved)
    form.path.choose(path)
    look(form)
    form.bvec.choose(moved)
    assert form.asked[-1] == LoadChoice(path, bvec=moved)
    look(form)
    assert not form.files.said("bvec")
    assert form.button.isEnabled()
    form.path.choose(path.parent / "gone.nii.gz")  # another scan has another table
    assert form.asked[-1].bvec is None
    look(form)
    assert "there is no such file" in form.rows.said("path")
    assert form.bvec.path is None


def test_a_mask_can_be_given_and_taken_back(form, path, tmp_path):
    form.path.choose(path)
    look(form)
    form.mask.choose(tmp_path / "sub-01_mask.nii.gz")
    look(form)
    assert form.rows.said("mask") == ""
    form.mask.choose("")
    look(form)
    assert form.rows.said("mask") == "sub-01_mask.nii.gz was found"


def test_enter_loads_what_was_typed_once_it_was_looked_at(form, path, qtbot):
    form.path.line.setFocus()
    qtbot.keyClicks(form.path.line, str(path))
    assert not form.asked
    qtbot.keyClick(form.path.line, Qt.Key_Return)
    assert form.asked == [LoadChoice(path)]
    assert not form.loads
    look(form)
    assert form.loads == [path]


def test_enter_on_a_problem_loads_nothing_now_or_later(form, path, qtbot):
    form.path.line.setFocus()
    qtbot.keyClicks(form.path.line, str(path.parent / "gone.nii.gz"))
    qtbot.keyClick(form.path.line, Qt.Key_Return)
    look(form)
    form.path.choose(path)
    look(form)
    assert not form.loads


def test_a_typed_path_counts_after_a_pause(form, path, qtbot):
    qtbot.keyClicks(form.path.line, f"  '{path}' ")
    qtbot.wait_until(lambda: form.asked == [LoadChoice(path)], timeout=PAUSE * 10)


def test_files_can_be_dropped_anywhere(form, path, heads):
    drop(form, form, path.with_suffix("").with_suffix(".bval"), path)
    assert form.asked == [LoadChoice(path)]  # the image of all that was dropped
    look(form)
    drop(form, form.path.line, heads)
    assert form.asked[-1] == LoadChoice(heads)
    look(form)
    drop(form, form.mask.line, path)
    assert form.asked[-1].mask == path


def test_nothing_can_be_changed_while_a_scan_is_loaded(form, path):
    form.path.choose(path)
    look(form)
    form.set_running(True)
    assert not form.path.isEnabled()
    assert not form.button.isEnabled()
    form.act()
    assert not form.loads
    form.set_running(False)
    assert form.button.isEnabled()


def test_the_keyboard_goes_from_top_to_bottom(form, scan, heads, qtbot):
    form.path.choose(heads)
    look(form)
    form.path.line.setFocus()
    order = []
    while (focus := QApplication.focusWidget()) not in order:
        order.append(focus)
        qtbot.keyClick(focus, Qt.Key_Tab)
    tops = [each.mapTo(form, QPoint(0, 0)).y() for each in order]
    assert tops == sorted(tops)
    assert {form.path.line, form.subject, form.platform, form.mask.line, form.button} < set(order)


def test_everything_has_a_name_and_is_explained(form):
    for part in (form.path, form.subject, form.platform, form.shell, form.mask, form.bval):
        assert part.accessibleName()
        assert len(part.toolTip()) > 40


@pytest.mark.parametrize("width", [300, 370])
def test_words_are_not_cut_off(form, path, width, qtbot):
    path.with_name("sub-01_mask.nii.gz").unlink()
    form.path.choose(path)
    look(form)
    form.resize(width, 700)
    qtbot.wait(20)
    assert form.description.height() >= form.description.heightForWidth(form.description.width())
    assert form.minimumSizeHint().width() <= width
    form.show_findings(replace(form.findings, description={"Head": 90 * "x"}))
    assert form.minimumSizeHint().width() <= width
    assert form.description.heightForWidth(width) > 2 * form.fontMetrics().height()
