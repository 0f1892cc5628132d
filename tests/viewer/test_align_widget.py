"""Align in a real window, from the choice of a dataset to two heads in the viewer."""

import shutil
import threading

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication

from napari_msp.data.dataset import open_dataset
from napari_msp.ui.align import widget as align_widget
from napari_msp.ui.widgets.colours import FocusRing, colours_of


@pytest.fixture
def moved(heads, tmp_path):
    """A head on two platforms; on one of them it lies 2.4 mm further up."""
    root = tmp_path / "heads"
    for session in ("ge", "prisma"):
        shutil.copytree(heads / f"sub-01/ses-{session}", root / f"sub-01/ses-{session}")
    shutil.copy(heads / "dataset_description.json", root)
    for path in (root / "sub-01/ses-prisma/dwi").glob("*.nii.gz"):
        image = nib.load(path)
        affine = image.affine.copy()
        affine[2, 3] += 2.4
        nib.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(path)
    return root


@pytest.fixture
def widget(viewer, open_widget, moved, qtbot):
    opened = open_widget("Align")
    viewer.window.activate()
    qtbot.wait_until(viewer.window._qt_window.isActiveWindow)
    opened.form.dataset.choose(moved)
    qtbot.wait_until(lambda: opened.form.findings.ready)
    return opened


@pytest.fixture
def align(widget, qtbot):
    def press():
        qtbot.mouseClick(widget.form.button, Qt.LeftButton)
        qtbot.wait_until(lambda: not widget.running)

    return press


def test_heads_are_aligned_looked_at_and_taken_to_train(
    viewer, widget, align, moved, cache_folder, monkeypatch, qtbot
):
    assert widget.heading.hint.isVisible()
    align()
    assert not widget.heading.hint.isVisible()
    out = moved.with_name("heads-aligned")
    assert widget.message.text.startswith("1 scan aligned with ge_st, now <0.05 voxels away.")
    assert not widget.form.isVisible()  # folded away, for the table
    widget.moves.table.setFocus()
    # What the keyboard leads to has a ring, and nothing else.
    qtbot.keyClick(widget.moves.table, Qt.Key_Backtab)
    before = QApplication.focusWidget()
    assert [each.parent() for each in widget.findChildren(FocusRing)] == [before]
    qtbot.keyClick(before, Qt.Key_Tab)
    assert widget.moves.table.hasFocus()
    qtbot.wait_until(lambda: before.findChild(FocusRing) is None)
    ring = widget.moves.table.findChild(FocusRing)
    assert ring.geometry() == widget.moves.table.rect()
    assert ring.grab().toImage().pixelColor(1, 20) == colours_of(ring).lit
    qtbot.keyClick(widget.moves.table, Qt.Key_Down)
    qtbot.keyClick(widget.moves.table, Qt.Key_Down)
    qtbot.wait_until(lambda: len(viewer.layers) == 5 and not widget.running)
    assert seen(viewer) == ["sub-01 prisma_st · b0 after"]
    qtbot.mouseClick(widget.moves.views["before"], Qt.LeftButton)
    qtbot.wait_until(lambda: seen(viewer) == ["sub-01 prisma_st · b0 before"])
    widget.moves.board.setChecked(True)
    qtbot.wait_until(lambda: seen(viewer) == ["sub-01 prisma_st · checkerboard before"])
    # The row of the input: its head alone.
    qtbot.keyClick(widget.moves.table, Qt.Key_Up)
    qtbot.wait_until(lambda: len(viewer.layers) == 1 and not widget.running)
    assert seen(viewer) == ["sub-01 ge_st · b0"]
    opened = []

    def open_url(url):
        opened.append(url.toLocalFile())
        return True

    monkeypatch.setattr(QDesktopServices, "openUrl", open_url)
    qtbot.mouseClick(widget.moves.report, Qt.LeftButton)
    assert opened == [str(out / "align.html")]
    widget.train()
    [train] = [each for each in QApplication.allWidgets() if type(each).__name__ == "Train"]
    qtbot.wait_until(lambda: train.form.heads is not None)
    assert train.form.heads.root == out
    assert train.form.heads.scans.keys() == open_dataset(moved).scans.keys()
    # Of a head that cannot be read nothing is seen, also not the one before it.
    damaged = next(out.glob("sub-01/ses-prisma/dwi/*.nii.gz"))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    widget.moves.table.selectRow(1)
    qtbot.wait_until(lambda: "cannot be read" in widget.message.text)
    qtbot.wait_until(lambda: len(viewer.layers) == 0 and not widget.running)


def seen(viewer):
    return [layer.name for layer in viewer.layers if layer.visible]


def test_an_earlier_alignment_is_replaced_after_asking(widget, moved, monkeypatch, qtbot):
    out = widget.form.out.path
    out.mkdir()
    for name in ("dataset_description.json", "align.html", "align.csv"):
        (out / name).touch()
    qtbot.mouseClick(widget.form.button, Qt.LeftButton)
    qtbot.wait_until(lambda: bool(widget.message.buttons))
    assert widget.message.text == "heads-aligned: contains an alignment already."
    asked = []

    def fail(choice, force, control):
        asked.append((choice, force))
        raise MemoryError

    monkeypatch.setattr("napari_msp.ui.align.widget.align_heads", fail)
    qtbot.mouseClick(widget.message.buttons[0], Qt.LeftButton)
    qtbot.wait_until(lambda: "not enough memory" in widget.message.text)
    [(choice, force)] = asked
    assert (choice.dataset, choice.out, force) == (moved, out, True)
    assert widget.form.button.isEnabled()


def test_cancel_stops_soon_and_leaves_nothing(widget, moved, monkeypatch, qtbot):
    from napari_msp.alignment import align as module

    begun, go = threading.Event(), threading.Event()
    estimate = module.estimate_displacement  # type: ignore[attr-defined]

    def wait_and_estimate(*arguments):
        begun.set()
        assert go.wait(30)
        return estimate(*arguments)

    monkeypatch.setattr(module, "estimate_displacement", wait_and_estimate)
    qtbot.mouseClick(widget.form.button, Qt.LeftButton)
    qtbot.wait_until(begun.is_set)
    asked = []
    monkeypatch.setattr(align_widget, "confirmed", lambda *words: asked.append(words[2]))
    assert not widget.may_leave()
    assert asked == ["Scans are being aligned. If you close, nothing is written."]
    qtbot.keyClick(QApplication.focusWidget(), Qt.Key_Escape)
    state = widget.progress.state
    go.set()
    assert state == "cancelling"
    qtbot.wait_until(lambda: not widget.running)
    assert widget.message.text == "Cancelled; nothing was written."
    assert [path.name for path in moved.parent.iterdir()] == ["heads"]
    assert widget.form.button.isEnabled()
    assert widget.may_leave()


def test_a_scan_that_cannot_be_read_is_told_by_name(widget, align, moved):
    path = moved / "sub-01/ses-prisma/dwi/sub-01_ses-prisma_acq-st_dwi.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    align()
    assert "Left out: sub-01 prisma_st" in widget.message.text
    assert "its voxels cannot be read" in widget.moves.words.text
