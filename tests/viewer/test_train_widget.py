"""Train in a real window with a real child process: from the form to a model, and every bad end."""

import os
import shutil
import signal

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_msp.files import reserved
from napari_msp.learning.events import Checkpointed, Previewed, Step, Stopped
from napari_msp.learning.runs import RunFolder
from napari_msp.ui.grid_fit import LEGEND
from napari_msp.ui.harmonize.models import remembered_models
from napari_msp.ui.layers import shown_by

QUICK = {"kind": "shresnet", "width": 0.1, "crop": 8, "batch": 2, "steps_per_epoch": 4}
LAST = "prisma_st: SHResNet, epoch 1, step 4"


@pytest.fixture
def train(open_widget, cache_folder):
    return open_widget("Train")


@pytest.fixture
def fill(train, heads, tmp_path, qtbot):
    """Fill the form as a person does, for a run of so many epochs."""

    def fill_in(epochs, widget=train, name="run", dataset=heads):
        form = widget.form
        form.entries["dataset"].write(dataset)
        qtbot.waitUntil(lambda: form.heads is not None)
        for field, value in QUICK.items():
            form.entries[field].write(value)
        form.entries["epochs"].write(epochs)
        form.entries["targets"].write(["prisma_st"])
        form.entries["folder"].write(tmp_path / name)
        form.entries["device"].write("cpu")
        return tmp_path / name

    return fill_in


@pytest.fixture
def told(train):
    events = []
    train.run.process.reported.connect(events.append)
    return events


def heard(qtbot, told, kind):
    qtbot.waitUntil(lambda: any(isinstance(each, kind) for each in told))


def at_rest(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.run.running)


def pause_at_the_first_picture(process):
    """So small a run may be over before the window has drawn its beginning."""

    def pause(event):
        if isinstance(event, Previewed) and event.epoch == 0:
            os.kill(process._child.processId(), signal.SIGSTOP)

    return pause


def learning(viewer):
    found = [each for each in viewer.layers if "while learning" in each.name]
    assert len(found) <= 1
    return found[0] if found else None


def closing_leaves_a_checkpoint_and_no_process(close, widget, folder, qtbot):
    child, file = widget.run.process._child.processId(), RunFolder.open(folder).checkpoint_path
    assert not gone(child)
    before = file.stat().st_mtime_ns if file.exists() else 0
    close()
    qtbot.waitUntil(lambda: gone(child))
    assert file.stat().st_mtime_ns > before
    QApplication.processEvents()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_from_the_form_to_a_model_in_harmonize(viewer, train, fill, told, qtbot, pixels):
    viewer.add_image(np.ones((4, 30, 30)))
    folder = fill(epochs=3)
    train.run.process.reported.connect(pause_at_the_first_picture(train.run.process))
    train.train_button.click()
    assert not train.train_button.isEnabled()
    assert not train.form.isEnabled()
    assert train.view.progress.cancel.text() == "S&top"
    # The picture of the untrained network, beside the truth.
    qtbot.waitUntil(lambda: LEGEND in viewer.canvas.overlays)
    assert viewer.canvas.overlays[LEGEND].text == "prisma_st: untrained"
    other, truth, layer = viewer.layers
    assert not other.visible  # or it would stand in a cell of its own
    assert truth.name == "sub-03 prisma_st · SH average"
    assert layer.name == "sub-03 prisma_st while learning · SH average"
    assert layer.data.shape == truth.data.shape
    assert viewer.canvas.grid.enabled
    limits, untrained, seen = layer.contrast_limits, layer.data.copy(), pixels()
    assert limits == truth.contrast_limits

    os.kill(train.run.process._child.processId(), signal.SIGCONT)
    at_rest(qtbot, train)
    qtbot.waitUntil(lambda: "epoch 3" in viewer.canvas.overlays[LEGEND].text)
    assert list(viewer.layers) == [other, truth, layer]  # refreshed in place
    assert layer.contrast_limits == limits
    assert np.abs(layer.data - untrained).max() > 0.01
    changed = np.abs(pixels() - seen)
    left, right = np.array_split(changed[: int(0.9 * len(changed))], 2, axis=1)
    assert right.max() > 0.1 > left.max()  # the prediction's cell changed, the truth's did not
    shown = shown_by(layer).scan.sh
    np.testing.assert_allclose(layer.data.max(), shown.coefficients[..., :6].mean(-1).max())

    history = train.view.history
    assert len(history.steps) == 12
    (_, errors), *_ = history.errors("prisma_st")
    assert len(errors) == 4
    assert "alignment" in train.view.comparisons.text()
    assert train.view.ending.text.startswith("Finished after")
    assert RunFolder.open(folder).state == "finished"
    assert remembered_models() == [folder / "model.safetensors"]
    assert train.train_button.isEnabled()
    assert train.form.request.folder == folder.with_name("run-2")

    train.use_button.click()
    names = [dock for dock in viewer.window.dock_widgets if dock.startswith("Harmonize")]
    harmonize = viewer.window.dock_widgets[names[0]]
    ticked = harmonize.form.models
    qtbot.waitUntil(lambda: [row.label for row in ticked.checked] == ["SHResNet"])
    # The held-out subject's input is there to be tried on, not its truth.
    scan = harmonize.form.scan
    qtbot.waitUntil(lambda: scan.currentText() == "sub-03 ge_st")
    qtbot.waitUntil(lambda: viewer.layers[-1].name == "sub-03 ge_st · SH average")
    assert [each.name for each in viewer.layers if each.visible] == ["sub-03 ge_st · SH average"]
    assert not viewer.canvas.grid.enabled
    assert LEGEND not in viewer.canvas.overlays

    (folder / "model.safetensors").unlink()
    train.come_forward()
    qtbot.waitUntil(train.isEnabled)
    train.use_button.click()
    assert "model.safetensors: is no longer there" in train.message.text


@pytest.mark.slow
def test_stop_and_resume_in_another_window(viewer, train, fill, told, qtbot, open_widget):
    folder = fill(epochs=40)
    train.train_button.click()
    heard(qtbot, told, Step)
    train.view.progress.cancel.click()
    assert train.view.progress.cancel.text() == "Stopping …"
    at_rest(qtbot, train)
    stopped = told[-1]
    assert isinstance(stopped, Stopped)
    assert train.view.ending.text == (
        f"Stopped at step {stopped.step} of 160. Resume goes on from there."
    )
    assert train.resume_button.isEnabled()
    assert not train.use_button.isEnabled()

    viewer.window.remove_dock_widget(train)
    again = open_widget("Train")
    assert again is not train
    assert not again.resume_button.isEnabled()
    again.open_run(folder)
    qtbot.waitUntil(lambda: again.run.folder is not None)
    assert again.view.ending.text.startswith(f"Stopped at step {stopped.step} of 160.")
    assert list(again.view.history.steps) == list(range(1, stopped.step + 1))
    assert again.form.entries["epochs"].read() == 40
    assert again.form.entries["targets"].read() == ("prisma_st",)
    more = []
    again.run.process.reported.connect(more.append)
    again.resume_button.click()
    qtbot.waitUntil(lambda: sum(isinstance(each, Step) for each in more) > 1)
    assert more[0].resumed_at == stopped.step
    assert again.view.history.steps[-1] > stopped.step
    closing_leaves_a_checkpoint_and_no_process(viewer.close, again, folder, qtbot)


@pytest.mark.slow
def test_a_second_run_shows_its_own_truth(viewer, train, fill, heads, tmp_path, qtbot, pixels):
    """The second dataset names its scans as the first does; other layers are there meanwhile."""
    others = [
        viewer.add_image(np.ones((4, 30, 30))),
        viewer.add_labels(np.ones((30, 30), dtype=int)),
        viewer.add_points([[0, 5, 5, 5]]),
    ]
    second = tmp_path / "second"
    shutil.copytree(heads, second)
    for path in second.glob("sub-*/ses-prisma/dwi/*_dwi.nii.gz"):
        image = nib.load(path)
        dark = np.asarray(image.dataobj).copy()
        dark[..., 1:] *= 0.3
        nib.Nifti1Image(dark, image.affine).to_filename(path)
    pictures, paths = [], []
    for dataset, name, number in ((heads, "one", ""), (second, "two", " (2)")):
        train.form.entries["dataset"].write(dataset)
        qtbot.waitUntil(lambda d=dataset: root_of(train.form) == d)
        fill(epochs=1, name=name, dataset=dataset)
        train.train_button.click()
        at_rest(qtbot, train)
        qtbot.waitUntil(lambda: shown_legend(viewer) == LAST)
        qtbot.wait(300)
        seen = [each for each in viewer.layers if each.visible]
        assert [each.name for each in seen] == [
            f"sub-03 prisma_st{number} · SH average",
            "sub-03 prisma_st while learning · SH average",
        ]
        assert not any(each.visible for each in others)
        assert seen[0].contrast_limits == seen[1].contrast_limits
        paths.append(shown_by(seen[0]).scan.acquisition.path)
        truth, prediction = np.array_split(pixels()[40:-80], 2, axis=1)
        for cell in (truth, prediction):
            assert (cell.max(-1) > 0.3).mean() > 0.02  # a brain, not a black cell
        pictures.append(truth)
        viewer.layers.append(viewer.layers.pop(0))  # what a person may do meanwhile
    assert [second in path.parents for path in paths] == [False, True]
    assert learning(viewer) is not None  # one layer, filled anew

    train.use_button.click()
    harmonize = next(
        dock for name, dock in viewer.window.dock_widgets.items() if name.startswith("Harmonize")
    )
    scan = harmonize.form.scan
    qtbot.waitUntil(lambda: scan.currentText() == "sub-03 ge_st")
    chosen = harmonize._scans[harmonize.form.choices.scan]
    assert second in chosen.acquisition.path.parents
    wanted = [tmp_path / "two" / "model.safetensors"]
    qtbot.waitUntil(lambda: ticked_models(harmonize) == wanted)


def ticked_models(harmonize):
    paths = {each.label: each.path for each in harmonize.shelf.models}
    return [paths[row.label] for row in harmonize.form.models.checked]


def root_of(form):
    return None if form.heads is None else form.heads.root


def shown_legend(viewer):
    legend = viewer.canvas.overlays.get(LEGEND)
    return None if legend is None else " ".join(legend.text.replace("\u00a0", " ").split())


@pytest.mark.slow  # without a window: tests/ui/test_train_process.py
def test_a_killed_child_is_told_of_and_the_run_can_go_on(train, fill, told, qtbot):
    folder = fill(epochs=400)
    train.train_button.click()
    heard(qtbot, told, Checkpointed)
    os.kill(train.run.process._child.processId(), signal.SIGKILL)
    at_rest(qtbot, train)
    words = train.view.ending.text
    assert "SIGKILL" in words
    assert "--" not in words  # the form's words, not options
    assert words.endswith("Resume goes on from the last checkpoint.")
    assert train.form.isEnabled()
    assert train.resume_button.isEnabled()
    fill(epochs=5, name="another")
    assert train.train_button.isEnabled()
    with reserved(folder):  # nobody works there any more
        pass


def test_what_is_wrong_is_said_and_the_form_stays_usable(train, fill, told, qtbot, tmp_path):
    form = train.form
    form.entries["dataset"].write(tmp_path / "nowhere")
    qtbot.waitUntil(lambda: "no such folder" in form.first.said("dataset"))
    assert not train.train_button.isEnabled()
    train.open_run(tmp_path)
    qtbot.waitUntil(lambda: "is no run" in train.message.text)

    folder = fill(epochs=1)
    assert train.message.text == ""
    image = next(form.heads.root.glob("sub-01/ses-prisma/dwi/*.bval"))
    kept = image.read_text()
    image.write_text("0 0 oops\n")
    assert not train.heading.hint.isHidden()
    try:
        train.train_button.click()
        assert train.message.text == ""
        assert train.heading.hint.isHidden()  # who trains is no newcomer
        at_rest(qtbot, train)
    finally:
        image.write_text(kept)
    assert train.view.ending.text.startswith("Failed: ")
    assert image.name in train.view.ending.text
    assert RunFolder.open(folder).state == "failed"
    assert train.resume_button.isEnabled()  # once the file is mended
    assert train.form.isEnabled()
    train.what.unfold(True)
    train.open_run(folder)  # in a low window all of it lies below the form
    qtbot.waitUntil(lambda: not train.what.body.isVisible())
    assert train.view.ending.text.startswith("Failed: ")


@pytest.mark.slow
def test_a_layer_that_was_taken_away_stays_away(viewer, train, fill, told, qtbot):
    folder = fill(epochs=400)
    train.train_button.click()
    qtbot.waitUntil(lambda: learning(viewer) is not None)
    viewer.layers.remove(learning(viewer))
    assert LEGEND not in viewer.canvas.overlays
    before = len(told)
    qtbot.waitUntil(lambda: any(isinstance(each, Previewed) for each in told[before:]))
    qtbot.wait(300)
    assert learning(viewer) is None
    closing_leaves_a_checkpoint_and_no_process(
        lambda: viewer.window.remove_dock_widget(train), train, folder, qtbot
    )


def test_simulated_heads_can_be_cancelled(train, qtbot, cache_folder):
    train.form.simulate.click()
    assert not train.form.simulate.isEnabled()
    qtbot.waitUntil(lambda: "sub-01" in train.waiting.words.text())
    train.waiting.cancel.click()
    qtbot.waitUntil(train.form.simulate.isEnabled)
    assert train.waiting.state == "idle"
    assert list(cache_folder.glob("lesson*")) == []
    assert train.form.heads is None
