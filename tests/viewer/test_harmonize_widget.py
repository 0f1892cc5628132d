"""Harmonize in a real window: layers with the right pixels, and a usable window after every end."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPlainTextEdit
from superqt.utils import WorkerBase

from napari_msp.data.dataset import open_dataset
from napari_msp.data.phantom.simulate import simulate
from napari_msp.packaged import packaged_model
from napari_msp.scan_sources import load_scan
from napari_msp.ui.harmonize.models import remember_model
from napari_msp.ui.layers import (
    is_prediction,
    make_layer,
    named_apart,
    scan_layers,
    shown_by,
)
from napari_msp.ui.shared import take_away
from napari_msp.ui.widgets.windows import Sheet

pytestmark = pytest.mark.usefixtures("cache_folder")

SOON, LATER = 20_000, 90_000
"""Milliseconds."""


@pytest.fixture
def viewer(kept_viewer):
    return kept_viewer


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """One simulated head, tiny, on all platforms."""
    folder = tmp_path_factory.mktemp("heads") / "tiny"
    simulate(folder, subjects=1, size="tiny", seed=2026, noise_free=False)
    return open_dataset(folder)


@pytest.fixture(scope="module")
def scan(heads):
    return load_scan(heads.scans["sub-01", "ge_st"])


def add(viewer, record):
    from napari.layers import Layer  # warns, which is an error while tests are collected

    for data in scan_layers(record):
        viewer.add_layer(Layer.create(*data))


@pytest.fixture
def harmonize(viewer, scan, open_widget, qtbot):
    """The widget, ready to be pressed: one scan, both models, one target."""
    add(viewer, scan)
    widget = open_widget("Harmonize")
    qtbot.wait_until(widget.form.button.isEnabled, timeout=SOON)
    return widget


@pytest.fixture
def finish(qtbot):
    """Wait for the end of a run, and check that nothing is left turning."""

    def wait(widget):
        qtbot.wait_until(lambda: not widget.running, timeout=LATER)
        assert not widget.progress.bar.isVisible()
        assert not widget.progress.cancel.isVisible()
        assert widget.form.rows.isEnabled()
        assert widget.form.button.isEnabled()

    return wait


@pytest.fixture
def stuck(monkeypatch):
    """Networks whose convolutions wait until they are let go; the first one says it is there."""
    there, go = threading.Event(), threading.Event()
    real = torch.nn.functional.conv3d

    def slow(*arguments, **options):
        there.set()
        go.wait()
        return real(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "conv3d", slow)
    yield there, go
    go.set()


def failing(monkeypatch, error):
    def conv3d(*arguments, **options):
        raise error

    monkeypatch.setattr(torch.nn.functional, "conv3d", conv3d)


def press(qtbot, button):
    assert button.isVisible()
    qtbot.mouseClick(button, Qt.LeftButton)


def whole(widget):
    """Whether nothing of it lies under an edge."""
    return widget.isVisible() and widget.visibleRegion().boundingRect().size() == widget.size()


def only(harmonize, model="DIQT"):
    """Leave one model ticked."""
    for label, box in harmonize.form.models.boxes.items():
        box.setChecked(label == model)


def predicted(viewer):
    return [layer.name for layer in viewer.layers if is_prediction(shown_by(layer).scan)]


ERRORS, IMAGES = ("SH MSE", "MSE", "expected SH MSE"), ("colour FA", "SH average")
SPREAD = ("disagreement of order 0", "disagreement")
MSP_LAYERS = [f"sub-01 MSP prisma_st · {each}" for each in (*ERRORS, *SPREAD, *IMAGES)]
DIQT_LAYERS = [f"sub-01 DIQT prisma_st · {each}" for each in (*ERRORS, *IMAGES)]


# --- Before -----------------------------------------------------------------------------------


def test_without_a_scan_there_are_two_ways_to_one(viewer, open_widget, qtbot):
    widget = open_widget("Harmonize")
    assert widget.form.empty.isVisible()
    press(qtbot, widget.form.load)
    docks = viewer.window.dock_widgets
    assert "Load acquisition (MSP Harmonization)" in docks


def test_scans_and_models_are_offered(viewer, harmonize, heads, qtbot, tmp_path, monkeypatch):
    """One window for all: opening one takes longer than to look."""
    check_a_model_trained_elsewhere_appears_and_can_be_taken_off(
        harmonize, qtbot, tmp_path, monkeypatch
    )
    check_a_file_that_is_no_model_is_told_of_beside_the_list(harmonize, qtbot, tmp_path)
    check_the_selected_layers_scan_is_chosen(viewer, harmonize, heads)


def check_the_selected_layers_scan_is_chosen(viewer, harmonize, heads):
    add(viewer, load_scan(heads.scans["sub-01", "connectom_st"]))
    assert harmonize.form.scan.currentText() == "sub-01 connectom_st"
    viewer.layers.selection.active = viewer.layers["sub-01 ge_st · b0"]
    assert harmonize.form.scan.currentText() == "sub-01 ge_st"
    assert harmonize.form.models.doubt("MSP") == ""
    viewer.layers.clear()
    assert harmonize.form.empty.isVisible()
    assert not harmonize.form.button.isEnabled()


def check_a_model_trained_elsewhere_appears_and_can_be_taken_off(
    harmonize, qtbot, tmp_path, monkeypatch
):
    path = tmp_path / "run" / "model.safetensors"
    path.parent.mkdir()
    shutil.copy(packaged_model("MSP"), path)
    remember_model(path)
    qtbot.wait_until(lambda: "MSP run" in harmonize.form.models.boxes, timeout=SOON)
    assert harmonize.form.models.boxes["MSP run"].isChecked()
    assert harmonize.form.models.boxes["MSP"].isChecked()
    # Trained anew under its name, which nothing here is told of: what the file holds predicts.
    shutil.copy(packaged_model("DIQT"), path)
    asked = []

    def note(request, control):
        asked.append((request, threading.current_thread() is threading.main_thread()))

    with monkeypatch.context() as patch:
        patch.setattr("napari_msp.ui.harmonize.widget.harmonize_all", note)
        harmonize.run()
        qtbot.wait_until(lambda: not harmonize.running, timeout=SOON)
    ((request, in_window),) = asked
    assert not in_window  # which would stand still while a model is read
    kinds = {each.label: each.model.kind for each in request.passes}
    assert kinds == {"DIQT": "diqt", "MSP": "msp", "MSP run": "diqt"}
    qtbot.wait_until(lambda: "DIQT run" in harmonize.form.models.boxes, timeout=SOON)
    harmonize.form.models.remove_wanted.emit("DIQT run")
    qtbot.wait_until(lambda: "DIQT run" not in harmonize.form.models.boxes, timeout=SOON)


def check_a_file_that_is_no_model_is_told_of_beside_the_list(harmonize, qtbot, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(packaged_model("MSP").read_bytes()[:5000])
    harmonize.shelf.add(path)
    message = harmonize.form.model_message
    qtbot.wait_until(lambda: "broken.safetensors" in message.text, timeout=SOON)
    assert list(harmonize.form.models.boxes) == ["DIQT", "MSP"]
    assert harmonize.form.button.isEnabled()


# --- A run ------------------------------------------------------------------------------------


def rows_of(harmonize):
    """What the table of results says."""
    table = harmonize.results.table
    columns = range(table.columnCount())
    return [[table.item(row, n).text() for n in columns] for row in range(table.rowCount())]


def test_both_models_layers_appear_and_show_something_else(
    viewer, harmonize, qtbot, finish, pixels
):
    before = pixels()
    press(qtbot, harmonize.form.button)
    assert harmonize.progress.cancel.isVisible()
    finish(harmonize)
    assert predicted(viewer) == DIQT_LAYERS + MSP_LAYERS
    assert [each.name for each in viewer.layers if each.visible] == [
        "sub-01 ge_st · SH average",
        "sub-01 DIQT prisma_st · SH average",
        "sub-01 MSP prisma_st · SH average",
    ]
    after = pixels()
    assert after.std() > 0.1
    assert np.abs(after - before).mean() > 0.01
    rows = rows_of(harmonize)
    assert [row[0] for row in rows] == ["DIQT → prisma_st", "MSP → prisma_st"]
    assert all(float(row[1]) > float(row[2]) > 0 and "▼" in row[3] for row in rows)
    assert harmonize.form.scan.currentText() == "sub-01 ge_st"

    # Maps that are hidden at first have something to show, and each something else.
    pictures = [after]
    for name in MSP_LAYERS[:4]:
        for layer in viewer.layers:
            layer.visible = layer.name == name
        shown = pixels()
        assert shown.std() > 0.05
        assert all(np.abs(shown - each).mean() > 0.005 for each in pictures)
        pictures.append(shown)

    viewer.layers.clear()
    assert not harmonize.results.isVisible()


def test_memory_and_precision_are_the_machines(harmonize, qtbot, monkeypatch):
    from napari.settings import get_plugin_settings

    machine = get_plugin_settings("napari-msp").machine
    monkeypatch.setattr(machine, "memory", 1.5)
    monkeypatch.setattr(machine, "precision", "float16")
    asked = []
    monkeypatch.setattr(harmonize, "_start", asked.append)
    press(qtbot, harmonize.form.button)
    (request,) = asked
    assert (request.options.memory, request.options.precision) == (1.5, "float16")


def test_predictions_are_made_again_saved_and_offered_again(
    viewer, harmonize, open_widget, qtbot, finish, tmp_path
):
    """One window for all: a prediction takes longer than to look."""
    check_running_again_fills_the_same_layers(viewer, harmonize, qtbot, finish)
    check_predictions_are_saved_and_not_replaced_unasked(harmonize, qtbot, tmp_path)
    check_predictions_are_offered_again_when_the_dock_was_closed(
        viewer, harmonize, open_widget, qtbot
    )


def check_running_again_fills_the_same_layers(viewer, harmonize, qtbot, finish):
    viewer.window._qt_window.resize(1089, 629)
    qtbot.wait_until(lambda: whole(harmonize.form.button), timeout=SOON)
    only(harmonize)
    press(qtbot, harmonize.form.button)
    finish(harmonize)
    qtbot.wait_until(lambda: whole(harmonize.results.compare), timeout=SOON)
    layer = viewer.layers[DIQT_LAYERS[-1]]
    first = shown_by(layer).scan
    press(qtbot, harmonize.form.button)
    finish(harmonize)
    assert predicted(viewer) == DIQT_LAYERS
    assert shown_by(layer).scan is not first
    assert len(rows_of(harmonize)) == 1


def check_predictions_are_saved_and_not_replaced_unasked(harmonize, qtbot, tmp_path):
    press(qtbot, harmonize.results.save)
    form = harmonize.saving
    form.folder.line.setText(str(tmp_path / "out"))

    def save(button):
        form.message.clear()
        press(qtbot, button)
        qtbot.wait_until(lambda: bool(form.message.text), timeout=SOON)

    save(form.button)
    assert "1 prediction written" in form.message.text
    dwi = tmp_path / "out" / "sub-01_ses-ge_acq-st_desc-prismastDiqt_dwi.nii.gz"
    written = dwi.stat().st_mtime_ns
    qtbot.wait_until(form.button.isEnabled)
    save(form.button)
    assert "there already" in form.message.text
    assert dwi.stat().st_mtime_ns == written
    (replace_button,) = form.message.buttons
    press(qtbot, replace_button)
    qtbot.wait_until(lambda: "written" in form.message.text, timeout=SOON)
    assert dwi.stat().st_mtime_ns > written


def check_predictions_are_offered_again_when_the_dock_was_closed(
    viewer, harmonize, open_widget, qtbot
):
    (result,) = harmonize.layers.results
    take_away(viewer, *(viewer.layers[name] for name in predicted(viewer)))
    harmonize.layers.add(result)
    viewer.window.remove_dock_widget(harmonize)
    assert predicted(viewer) == DIQT_LAYERS  # not the first of them alone
    again = open_widget("Harmonize")
    assert again is not harmonize
    assert rows_of(again) == [["DIQT → prisma_st", "", "not measured", ""]]
    assert again.results.compare.isVisible()
    press(qtbot, again.results.save)
    assert again.saving.names.checked == ["sub-01 DIQT prisma_st"]
    viewer.layers.clear()
    assert not again.results.isVisible()


def test_scans_of_one_name_keep_their_predictions_apart(
    viewer, scan, harmonize, qtbot, finish, tmp_path
):
    elsewhere = replace(scan.acquisition, path=tmp_path / scan.path.name)
    second = replace(scan, acquisition=elsewhere)
    add(viewer, second)
    combo = harmonize.form.scan
    titles = [combo.itemText(number) for number in range(combo.count())]
    assert titles == ["sub-01 ge_st", "sub-01 ge_st (2)"]
    only(harmonize)
    for number in range(2):
        combo.setCurrentIndex(number)
        for said in (harmonize.saving.message.text, harmonize.progress.words.text()):
            assert said == ""  # it was of the other one
        press(qtbot, harmonize.form.button)
        finish(harmonize)
        harmonize.saving.message.show_message("ok", "1 prediction written")
    assert len(predicted(viewer)) == 2 * len(DIQT_LAYERS)
    assert "1 prediction of sub-01 ge_st (2) in" in harmonize.progress.words.text()
    assert predicted(viewer)[-1] == "sub-01 DIQT prisma_st (2) · SH average"
    for layer in [each for each in viewer.layers if shown_by(each).scan is second]:
        viewer.layers.remove(layer)
    assert combo.currentText() == "sub-01 ge_st (2)"  # whose predictions are there yet
    assert harmonize.results.isVisible()
    # Its file is opened again.
    again = replace(second, acquisition=replace(elsewhere))
    for data in named_apart(viewer.layers, scan_layers(again)):
        assert data[1]["name"].startswith("sub-01 ge_st (2) · ")
        viewer.add_layer(make_layer(data))
    assert [combo.itemText(number) for number in range(combo.count())] == titles
    viewer.layers.selection.active = viewer.layers[-1]
    assert combo.currentText() == "sub-01 ge_st (2)"
    assert harmonize.results.isVisible()
    press(qtbot, harmonize.form.button)
    finish(harmonize)
    assert len(predicted(viewer)) == 2 * len(DIQT_LAYERS)
    press(qtbot, harmonize.results.save)
    form = harmonize.saving
    assert form.names.checked == ["sub-01 DIQT prisma_st", "sub-01 DIQT prisma_st (2)"]
    form.folder.line.setText(str(tmp_path / "out"))
    press(qtbot, form.button)
    qtbot.wait_until(lambda: "one at a time" in form.message.text, timeout=SOON)
    assert not (tmp_path / "out").exists()


def test_without_a_truth_there_is_no_error(viewer, scan, open_widget, qtbot, finish):
    add(viewer, replace(scan, path=None, given_subject="sub-01", given_platform="ge_st"))
    widget = open_widget("Harmonize")
    qtbot.wait_until(widget.form.button.isEnabled, timeout=SOON)
    only(widget, "MSP")
    press(qtbot, widget.form.button)
    finish(widget)
    assert predicted(viewer) == MSP_LAYERS[2:]


# --- Every other end --------------------------------------------------------------------------


def test_failures_are_told_of_and_then_it_works(viewer, harmonize, qtbot, finish, monkeypatch):
    """One window for all: opening one takes longer than to fail."""
    only(harmonize)
    check_a_lost_gpu_is_told_of(harmonize, qtbot, finish, monkeypatch)
    check_a_bug_is_told_of_with_its_details(harmonize, qtbot, finish, monkeypatch)
    check_out_of_memory_offers_a_smaller_tile_and_then_works(
        viewer, harmonize, qtbot, finish, monkeypatch
    )


def check_out_of_memory_offers_a_smaller_tile_and_then_works(
    viewer, harmonize, qtbot, finish, monkeypatch
):
    failing(monkeypatch, RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."))
    press(qtbot, harmonize.form.button)
    finish(harmonize)
    assert harmonize.message.text == "Not enough memory."
    assert predicted(viewer) == []
    monkeypatch.undo()
    (smaller,) = harmonize.message.buttons
    assert smaller.text() == "Try a smaller tile"
    press(qtbot, smaller)
    finish(harmonize)
    assert harmonize.form.choices.options.tile == 32
    assert not harmonize.message.isVisible()
    assert predicted(viewer) == DIQT_LAYERS


def press_and_fail(harmonize, qtbot, finish, monkeypatch, error):
    with monkeypatch.context() as patch:
        failing(patch, error)
        press(qtbot, harmonize.form.button)
        finish(harmonize)


def check_a_lost_gpu_is_told_of(harmonize, qtbot, finish, monkeypatch):
    press_and_fail(
        harmonize,
        qtbot,
        finish,
        monkeypatch,
        RuntimeError("CUDA error: device-side assert triggered"),
    )
    assert "GPU failed or disappeared" in harmonize.message.text


def check_a_bug_is_told_of_with_its_details(harmonize, qtbot, finish, monkeypatch):
    press_and_fail(harmonize, qtbot, finish, monkeypatch, KeyError("prisma"))
    assert "KeyError: 'prisma'" in harmonize.message.text
    (details,) = harmonize.message.buttons
    press(qtbot, details)
    shown = harmonize.findChild(Sheet)
    qtbot.wait_until(shown.isVisible)
    assert "conv3d" in shown.findChild(QPlainTextEdit).toPlainText()
    shown.close()


def test_what_was_ready_before_a_failure_is_kept_and_not_done_again(
    viewer, harmonize, qtbot, finish, monkeypatch
):
    real = torch.nn.functional.conv3d

    def fail_later(*arguments, **options):
        if predicted(viewer):
            raise RuntimeError("not enough memory: you tried to allocate 9 GB")
        return real(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "conv3d", fail_later)
    press(qtbot, harmonize.form.button)
    finish(harmonize)
    assert predicted(viewer) == DIQT_LAYERS
    kept = shown_by(viewer.layers[DIQT_LAYERS[-1]]).scan
    monkeypatch.undo()
    press(qtbot, harmonize.message.buttons[0])
    finish(harmonize)
    assert predicted(viewer) == DIQT_LAYERS + MSP_LAYERS
    assert shown_by(viewer.layers[DIQT_LAYERS[-1]]).scan is kept


def test_another_voxel_size_is_refused_until_it_is_allowed(viewer, harmonize, heads, qtbot, finish):
    add(viewer, load_scan(heads.scans["sub-01", "connectom_sa"]))
    only(harmonize)
    assert "For scans of ge_st" in harmonize.form.models.doubt("DIQT")
    press(qtbot, harmonize.form.button)
    finish(harmonize)
    assert "1.20 × 1.20 × 1.20 mm" in harmonize.message.text
    assert "--" not in harmonize.message.text
    press(qtbot, harmonize.message.buttons[0])
    finish(harmonize)
    assert harmonize.form.choices.options.resample
    assert harmonize.form.advanced.isVisible()  # or it would be allowed out of sight
    assert DIQT_LAYERS[-1] in predicted(viewer)
    assert "interpolated" in harmonize.results.notes.text
    combo = harmonize.form.scan
    combo.setCurrentIndex(1 - combo.currentIndex())
    assert not harmonize.form.choices.options.resample  # it was allowed for the other scan
    assert harmonize.progress.words.text() == ""


def test_cancelled_in_the_middle_there_are_no_layers(viewer, harmonize, qtbot, finish, stuck):
    there, go = stuck
    only(harmonize)
    for way in ("button", "escape"):
        there.clear()
        go.clear()
        press(qtbot, harmonize.form.button)
        qtbot.wait_until(there.is_set, timeout=SOON)
        if way == "button":
            press(qtbot, harmonize.progress.cancel)
        else:
            with qtbot.waitActive(harmonize.window()):
                harmonize.window().activateWindow()
            qtbot.keyClick(harmonize.progress.cancel, Qt.Key_Escape)
        assert harmonize.progress.state == "cancelling"
        go.set()
        finish(harmonize)
        assert harmonize.message.text == "Cancelled."
        assert predicted(viewer) == []
    press(qtbot, harmonize.form.button)
    finish(harmonize)
    assert predicted(viewer) == DIQT_LAYERS


@pytest.mark.parametrize("way", ["viewer", "window", "dock"])
def test_closed_while_running_nothing_goes_on(way, viewer, harmonize, qtbot, stuck, capfd):
    there, go = stuck
    press(qtbot, harmonize.form.button)
    qtbot.wait_until(there.is_set, timeout=SOON)
    if way == "viewer":
        viewer.close()
    elif way == "window":
        viewer.window._qt_window.close()
        del viewer.window._qt_window  # gone for the fixture, too
    else:
        viewer.window.remove_dock_widget(harmonize)
    go.set()
    qtbot.wait_until(lambda: not WorkerBase._worker_set, timeout=SOON)
    qtbot.wait(100)
    if way == "dock":
        assert predicted(viewer) == []
        viewer.layers.clear()  # nobody listens any longer
    assert "Traceback" not in capfd.readouterr().err
