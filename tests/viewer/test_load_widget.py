"""Load acquisition in a real window, from the choice of a file to pixels."""

import shutil
import threading

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.layers import scans_of, shown_by
from napari_msp.ui.shared import shared_by
from napari_msp.ui.widgets.windows import ResizedPicture


@pytest.fixture
def viewer(kept_viewer):
    return kept_viewer


@pytest.fixture
def widget(viewer, open_widget, qtbot):
    opened = open_widget("Load acquisition")
    viewer.window.activate()  # keys go to the active window
    qtbot.wait_until(viewer.window._qt_window.isActiveWindow)
    return opened


@pytest.fixture
def choose(widget, qtbot):
    """Choose a path, and wait until it was looked at."""

    def choose_path(path):
        widget.form.path.choose(path)
        qtbot.wait_until(lambda: widget.form.findings.choice.path == path, timeout=20_000)

    return choose_path


@pytest.fixture
def load(widget, qtbot):
    """Press Load and wait for the end."""

    def press():
        qtbot.mouseClick(widget.form.button, Qt.LeftButton)
        qtbot.wait_until(lambda: not widget.running, timeout=60_000)

    return press


@pytest.fixture
def scan_path(heads):
    return heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz"


@pytest.fixture
def held(monkeypatch):
    """Fitting that goes on until it is let go."""
    from napari_msp import scan as module

    begun, go = threading.Event(), threading.Event()
    fit = module.fit_sh  # type: ignore[attr-defined]

    def wait_and_fit(*arguments, **options) -> SHImage:
        begun.set()
        assert go.wait(30)
        return fit(*arguments, **options)

    monkeypatch.setattr(module, "fit_sh", wait_and_fit)
    yield begun, go
    go.set()


def test_a_file_is_loaded_by_keyboard_alone(viewer, widget, scan_path, qtbot):
    line = widget.form.path.line
    line.setFocus()
    qtbot.keyClicks(line, str(scan_path))
    qtbot.keyClick(line, Qt.Key_Return)
    qtbot.wait_until(lambda: len(viewer.layers) == 3, timeout=60_000)
    qtbot.wait_until(lambda: not widget.running)
    assert [layer.name for layer in viewer.layers] == [
        "sub-01 ge_st · b0",
        "sub-01 ge_st · colour FA",
        "sub-01 ge_st · SH average",
    ]
    assert widget.message.text == "sub-01 ge_st is loaded."
    assert widget.progress.state == "idle"
    assert widget.form.button.isEnabled()


def test_a_scan_of_a_dataset_is_loaded_with_its_siblings(
    viewer, widget, heads, choose, load, qtbot
):
    choose(heads)
    widget.form.subject.setFocus()
    qtbot.keyClick(widget.form.subject, Qt.Key_Down)
    qtbot.wait_until(lambda: widget.form.findings.choice.subject == "sub-02")
    load()
    (record,) = scans_of(viewer.layers)
    assert record.owner == "sub-02 ge_st"
    assert sorted(record.siblings) == ["connectom_sa", "prisma_st"]
    choose(heads / "sub-01/ses-ge/dwi/sub-01_ses-ge_acq-st_dwi.nii.gz")
    load()
    seen = [layer.name for layer in viewer.layers if layer.visible]
    assert seen == ["sub-01 ge_st · SH average"]  # the other head is hidden, not drawn into it


def test_the_mask_is_outlined_in_its_place(viewer, widget, pixels, scan_path, choose, load):
    choose(scan_path)
    widget.form.show_mask.setChecked(True)
    load()
    mask = viewer.layers[-1]
    assert mask.name == "sub-01 ge_st · mask"
    assert viewer.layers.selection.active.name == "sub-01 ge_st · SH average"
    assert not mask.editable
    for layer in viewer.layers[:-1]:
        layer.visible = False
    viewer.reset_view()
    canvas = pixels()
    blue = canvas[..., 2] - canvas[..., 0] > 0.2
    inside = np.asarray(shown_by(mask).scan.sh.mask)
    rows, columns = np.nonzero(blue)
    middle = blue[int(rows.mean()), int(columns.mean())]
    assert blue.any()
    assert not middle  # only the outline is drawn
    box = [np.ptp(each) for each in np.nonzero(inside.any(axis=2))]  # stored LAS: columns, rows
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx((box[1] + 1) / (box[0] + 1), rel=0.1)


def test_the_chosen_shell_and_mask_are_used(viewer, widget, scan, tmp_path, choose, load, qtbot):
    path = scan(b_values=(1000.0, 2500.0)).write(tmp_path)
    mask = path.with_name("sub-01_mask.nii.gz").rename(tmp_path / "chosen.nii.gz")
    choose(path)
    assert "None was found" in widget.form.rows.said("mask")
    widget.form.mask.choose(mask)
    qtbot.wait_until(lambda: widget.form.findings.mask == mask)
    widget.form.shell.setFocus()
    qtbot.keyClick(widget.form.shell, Qt.Key_Down)
    qtbot.wait_until(lambda: widget.form.findings.choice.b_value == 2500)
    load()
    (record,) = scans_of(viewer.layers)
    assert record.sh.b_value == 2500
    assert record.acquisition.mask_path == mask


def test_a_file_that_is_damaged_after_all_is_told_and_mended(
    viewer, widget, scan, tmp_path, choose, load
):
    path = scan().write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # the header is there
    choose(path)
    load()
    assert "sub-01_dwi.nii.gz: its voxels cannot be read" in widget.message.text
    assert str(tmp_path) not in widget.message.text
    assert not viewer.layers
    path.write_bytes(whole)
    load()
    assert widget.message.text == "sub-01 is loaded."
    assert len(viewer.layers) == 3
    shared_by(viewer).take("the review")
    load()
    assert widget.message.text == "sub-01 is loaded. Leave the review to see it."
    shared_by(viewer).release()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "There is not enough memory for this scan"),
        (ZeroDivisionError("oh"), "ZeroDivisionError: oh"),
    ],
)
def test_an_error_ends_in_words_and_a_usable_window(
    viewer, widget, scan_path, choose, load, monkeypatch, error, words
):
    from napari_msp import scan as module

    def fail(*_, **__):
        raise error

    choose(scan_path)
    with monkeypatch.context() as patched:
        patched.setattr(module, "fit_sh", fail)
        load()
    assert widget.message.text.startswith(words)
    assert widget.progress.state == "idle"
    load()
    assert len(viewer.layers) == 3


def test_cancel_leaves_nothing_turning(viewer, widget, scan_path, choose, held, qtbot):
    begun, go = held
    choose(scan_path)
    qtbot.mouseClick(widget.form.button, Qt.LeftButton)
    qtbot.wait_until(begun.is_set, timeout=20_000)
    # The worker is there already; what it reported reaches the window a moment later.
    qtbot.wait_until(lambda: widget.progress.words.text() == "Fitting spherical harmonics")
    assert not widget.form.button.isEnabled()
    qtbot.keyClick(QApplication.focusWidget(), Qt.Key_Escape)
    assert widget.progress.state == "cancelling"
    go.set()
    qtbot.wait_until(lambda: not widget.running, timeout=20_000)
    assert widget.progress.state == "idle"
    assert widget.message.text == "Cancelled; nothing was loaded."
    assert not viewer.layers
    assert widget.form.button.isEnabled()
    assert QApplication.focusWidget() is widget.form.button


def test_closing_the_dock_ends_the_work(viewer, widget, scan_path, choose, held, qtbot):
    begun, go = held
    choose(scan_path)
    qtbot.mouseClick(widget.form.button, Qt.LeftButton)
    qtbot.wait_until(begun.is_set, timeout=20_000)
    viewer.window.remove_dock_widget(widget)
    go.set()
    qtbot.wait(300)
    assert not viewer.layers
    viewer.open(scan_path, plugin="napari-msp")  # the window goes on
    assert len(viewer.layers) == 3


def test_closing_the_viewer_while_it_runs_is_quiet(
    viewer, widget, scan_path, choose, held, qtbot, capfd
):
    begun, go = held
    choose(scan_path)
    qtbot.mouseClick(widget.form.button, Qt.LeftButton)
    qtbot.wait_until(begun.is_set, timeout=20_000)
    viewer.close()
    go.set()
    qtbot.wait(300)
    assert "Traceback" not in capfd.readouterr().err


def test_only_the_last_choice_counts(widget, heads, qtbot):
    for subject in ("sub-01", "sub-02", "sub-03"):
        folder = heads / subject / "ses-ge/dwi"
        widget.form.path.choose(folder / f"{subject}_ses-ge_acq-st_dwi.nii.gz")
    qtbot.wait_until(lambda: widget.form.findings.ready, timeout=20_000)
    qtbot.wait(100)
    assert widget.form.findings.scan.name == "sub-03_ses-ge_acq-st_dwi.nii.gz"


def test_the_simulated_heads_are_one_press_away(viewer, widget, monkeypatch, qtbot):
    opened = []
    monkeypatch.setattr(
        type(viewer), "open_sample", lambda self, *which: opened.append(which), raising=True
    )
    qtbot.mouseClick(widget.form.sample, Qt.LeftButton)
    assert opened == [("napari-msp", "travelling_heads")]


def test_it_fits_its_dock(widget, qtbot):
    qtbot.wait(50)
    assert 300 <= widget.width() <= 420


def test_how_good_a_scan_is_is_said_and_drawn(widget, choose, scan_path, qtbot):
    choose(scan_path)
    qtbot.mouseClick(widget.form.quality, Qt.LeftButton)
    qtbot.wait_until(lambda: not widget.running, timeout=60_000)
    first, numbers = widget.message.text.splitlines()
    assert first == "Nothing stands out."
    assert "CNR of b = 1200: 1" in numbers
    [button] = widget.message.buttons
    qtbot.mouseClick(button, Qt.LeftButton)
    picture = widget.findChild(ResizedPicture)
    qtbot.wait_until(lambda: picture.isVisible())
    assert picture.pixels.width() > 900
    assert picture.windowTitle() == "sub-01 ge_st"
    picture.close()


@pytest.mark.filterwarnings("ignore::napari_msp.data.acquisition.DoubtfulScan")
def test_what_is_left_out_is_told(widget, choose, load, scan_path, tmp_path):
    image = nib.load(scan_path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[..., 7] = 0
    path = tmp_path / "sub-09_dwi.nii.gz"
    nib.Nifti1Image(voxels, image.affine).to_filename(path)
    for ending in ("bval", "bvec"):
        table = scan_path.name.replace("nii.gz", ending)
        shutil.copy(scan_path.with_name(table), tmp_path / f"sub-09_dwi.{ending}")
    mask = tmp_path / "sub-09_mask.nii.gz"
    nib.Nifti1Image(np.ones(voxels.shape[:3], np.uint8), image.affine).to_filename(mask)
    choose(path)
    load()
    assert "left out: volume 7, b = 1200 but empty" in widget.message.text


def test_a_table_that_does_not_fit_its_image_is_told(widget, scan_path, tmp_path, choose, load):
    copies = [tmp_path / scan_path.name, tmp_path / scan_path.name.replace("_dwi", "_mask")]
    for copy in (*copies, copies[0].with_name(scan_path.name.replace(".nii.gz", ".bval"))):
        copy.write_bytes((scan_path.parent / copy.name).read_bytes())
    vectors = np.loadtxt(scan_path.with_name(scan_path.name.replace(".nii.gz", ".bvec")))
    vectors[:, 2:] = vectors[:, :1:-1]
    np.savetxt(tmp_path / scan_path.name.replace(".nii.gz", ".bvec"), vectors)
    choose(copies[0])
    load()
    told = widget.message.text
    assert told.startswith("sub-01 ge_st is loaded. Note: the directions are in reverse order")
    assert "correct the table at its source" in told
