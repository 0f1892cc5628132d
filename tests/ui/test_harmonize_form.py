"""The form of Harmonize, its results and its saving: what they say, and what they ask for."""

from types import SimpleNamespace
from typing import cast

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QWidget

from napari_msp.options import DESCRIBED, Options
from napari_msp.ui.harmonize.form import HarmonizeForm, ModelRow, first_target
from napari_msp.ui.harmonize.results import ResultLayers, ResultRows, notes_on
from napari_msp.ui.harmonize.save import REPLACE, Saving
from napari_msp.ui.preferences import Device
from napari_msp.ui.widgets.form import Section


def scan(platform, *siblings):
    acquisition = SimpleNamespace(said=lambda: ())
    there = dict.fromkeys(siblings)
    return SimpleNamespace(platform=platform, siblings=there, acquisition=acquisition, path=None)


SCANS = {
    "sub-01 ge_st": scan("ge_st", "prisma_st"),
    "sub-01 prisma_st": scan("prisma_st"),
    "mine": scan(""),
}
DEVICES = [
    Device("auto", "cpu", "auto: CPU"),
    Device("cpu", "cpu", "CPU"),
    Device("cuda", "", "CUDA: none here"),
]


def model(label, targets=("connectom_st", "prisma_st"), **options):
    return ModelRow(label, "ge_st", targets, "For teaching.", "<p>Facts.</p>", **options)


MODELS = [
    model("DIQT", ("prisma_st", "connectom_st"), removable=False),
    model("MSP", ("connectom_sa", "prisma_st"), removable=False),
    model("MSP mine", ("fetal_xx",), removable=True),
]


@pytest.fixture
def form(qtbot):
    made = HarmonizeForm()
    qtbot.addWidget(made)
    made.show()
    return made


@pytest.fixture
def filled(form):
    form.set_scans(SCANS, 0)
    form.set_models(MODELS, ["DIQT", "MSP"])
    form.set_devices(DEVICES, "auto")
    return form


def test_without_a_scan_it_says_so_and_offers_two_ways(form, qtbot):
    form.set_models(MODELS, ["MSP"])
    assert form.empty.isVisible()
    assert not form.scan.isVisible()
    assert not form.button.isEnabled()
    assert form.rows.said("scan") == "Load a scan first."
    with qtbot.waitSignal(form.load.clicked):
        form.load.click()
    with qtbot.waitSignal(form.sample.clicked):
        form.sample.click()


def test_what_all_models_are_for_is_said_once(filled):
    said = [row.about.text() for row in filled.models._rows]
    assert said[-1].endswith("\nAll for teaching.")
    assert [each for each in said if "teaching" in each] == said[-1:]
    assert all("teaching" in box.accessibleDescription() for box in filled.models.boxes.values())


def test_with_a_scan_and_models_it_is_ready(filled):
    assert not filled.empty.isVisible()
    assert filled.button.isEnabled()
    assert not any(map(filled.rows.said, ("scan", "model")))
    said = filled.choices
    assert said.scan == 0
    assert said.passes == (("DIQT", "prisma_st"), ("MSP", "prisma_st"))
    assert said.options == Options()


def test_until_models_are_read_it_waits(form):
    form.set_scans(SCANS, 0)
    assert not form.button.isEnabled()
    assert form.rows.said("model") == "Reading the models …"
    assert form.models.waiting.isVisible()
    form.set_models(MODELS, ["MSP"])
    assert form.button.isEnabled()
    assert not form.models.waiting.isVisible()


def test_targets_are_those_of_the_ticked_models(filled):
    assert filled.targets.names == ["prisma_st", "connectom_st", "connectom_sa"]
    filled.targets.set_names(filled.targets.names, ["connectom_st", "prisma_st"])
    filled.models.boxes["DIQT"].setChecked(False)
    assert filled.targets.names == ["connectom_sa", "prisma_st"]
    assert filled.targets.checked == ["prisma_st"]
    filled.models.boxes["MSP"].setChecked(False)
    assert filled.targets.names == []
    assert filled.rows.said("model") == "Tick a model."
    assert not filled.button.isEnabled()


def test_without_a_target_it_says_so(filled):
    filled.targets.set_names(filled.targets.names, [])
    assert filled.rows.said("target") == "Tick a target."
    assert not filled.button.isEnabled()


def test_only_what_a_model_predicts_is_asked_of_it(filled):
    filled.targets.set_names(filled.targets.names, ["prisma_st", "connectom_sa"])
    assert filled.choices.passes == (
        ("DIQT", "prisma_st"),
        ("MSP", "connectom_sa"),
        ("MSP", "prisma_st"),
    )


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["connectom_sa", "connectom_st", "prisma_st"], ["prisma_st"]),
        (["connectom_sa", "connectom_st"], ["connectom_st"]),
        (["a", "b"], ["a"]),
        ([], []),
    ],
)
def test_the_papers_target_is_ticked_at_first(names, first):
    assert first_target(names, "ge_st") == first


def test_a_model_for_another_platform_is_marked_and_still_allowed(filled):
    assert filled.models.doubt("MSP") == ""
    filled.scan.setCurrentIndex(1)
    assert filled.models.doubt("MSP") == "For scans of ge_st; this is prisma_st."
    assert filled.models.boxes["MSP"].isEnabled()
    assert filled.button.isEnabled()
    filled.scan.setCurrentIndex(2)
    assert filled.models.doubt("MSP") == ""


def test_it_says_where_the_truth_is_known(filled):
    assert filled.rows.said("target") == "Truth is known for prisma_st."
    filled.targets.set_names(filled.targets.names, ["connectom_st"])
    assert filled.rows.said("target") == ""


def test_a_device_that_is_not_there_cannot_be_chosen(filled):
    assert not filled.device.model().item(2).isEnabled()
    assert filled.device.itemText(2) == "CUDA: none here"
    filled.set_devices(DEVICES, "cuda")
    assert filled.choices.options.device == "auto"
    assert filled.notices.text.startswith("Device: CUDA: none here; auto is taken.")
    filled.set_devices(DEVICES, "cpu")
    assert filled.choices.options.device == "cpu"
    assert filled.rows.said("device") == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [("device", "cpu"), ("tile", 16), ("resample", True), ("rescale_b_value", True)],
)
def test_choices_can_be_filled_in(filled, field, value):
    filled.set_option(field, value)
    assert getattr(filled.choices.options, field) == value


def test_what_was_allowed_for_one_scan_is_neither_kept_nor_shown_for_the_next(filled):
    filled.allow({"resample": True})
    assert filled.choices.options.resample
    assert filled.section.button.isChecked()
    filled.ask_again()
    assert not filled.choices.options.resample
    assert not filled.section.button.isChecked()


def test_no_tile_means_as_memory_allows(filled):
    filled.set_option("tile", None)
    assert filled.advanced.tile.text() == "as memory allows"
    for name, entry in filled.advanced.entries.items():
        assert DESCRIBED[name].text in entry.toolTip()


def test_enter_begins_when_all_is_there(filled, qtbot):
    with qtbot.waitActive(filled):
        filled.activateWindow()
    filled.targets.setFocus()
    with qtbot.waitSignal(filled.run_wanted):
        qtbot.keyClick(filled.targets, Qt.Key_Return)
    filled.targets.set_names(filled.targets.names, [])
    with qtbot.assertNotEmitted(filled.run_wanted):
        qtbot.keyClick(filled.targets, Qt.Key_Return)


def test_the_tabulator_goes_from_top_to_bottom(filled):
    filled.findChild(Section).unfold(True)
    stops, each = [], filled.nextInFocusChain()
    while each is not filled:
        if each.focusPolicy() & Qt.TabFocus and each.isVisible():
            stops.append(each)
        each = each.nextInFocusChain()
    places = [stop.mapTo(filled, stop.rect().topLeft()) for stop in stops]
    boxes = list(filled.models.boxes.values())
    assert {*boxes, filled.scan, filled.targets, filled.advanced.tile, filled.button} < set(stops)
    # What stands in one row counts from the left.
    assert places == sorted(places, key=lambda place: (round(place.y() / 12), place.x()))


def test_while_it_runs_nothing_can_be_changed(filled):
    filled.set_running(True)
    assert not filled.button.isEnabled()
    assert not filled.targets.isEnabled()
    assert not filled.add.isEnabled()
    filled.set_running(False)
    assert filled.button.isEnabled()
    assert filled.targets.isEnabled()


def test_added_models_can_be_removed_and_packaged_ones_not(filled, qtbot):
    assert [row.remove.isVisible() for row in filled.models._rows] == [False, False, True]
    with qtbot.waitSignal(filled.models.remove_wanted) as told:
        filled.models._rows[2].remove.click()
    assert told.args == ["MSP mine"]


def test_everything_has_a_name_for_screen_readers_and_a_tooltip(filled):
    for entry in (filled.scan, filled.targets, filled.device, filled.advanced.tile):
        assert entry.accessibleName()
        assert entry.toolTip()


ROW = ("MSP → prisma_st", "83.0", "31.0", "▼ −63")


def test_results_are_hidden_until_there_are_some(qtbot):
    results = ResultRows(QWidget())
    qtbot.addWidget(results)
    results.show_results("", (), ())
    assert results.isHidden()
    results.show_results("sub-01 ge_st", [ROW], ["doubtful"])
    assert results.scan.text() == "Made from sub-01 ge_st:"
    assert not results.isHidden()
    assert results.notes.text == "doubtful"
    results.table.copy()
    titles, row = QApplication.clipboard().text().splitlines()
    assert titles.split("\t") == ["prediction", "before", "SH MSE 10⁻⁵ SH units²", "change %"]
    assert tuple(row.split("\t")) == ROW
    with qtbot.waitSignal(results.compare.clicked):
        results.compare.click()
    with qtbot.waitSignal(results.save.clicked):
        results.save.click()


def test_notes_are_said_once_and_of_whom():
    def made(label, *notes):
        return SimpleNamespace(prediction=SimpleNamespace(label=label), notes=notes)

    both = made("DIQT", "is resampled", "13 % are odd"), made("MSP", "is resampled", "MSP errs")
    assert notes_on(both) == ["• is resampled", "• DIQT: 13 % are odd", "• MSP errs"]
    assert notes_on(both[:1] * 2) == ["• is resampled", "• 13 % are odd"]
    assert notes_on([made("MSP", "is resampled")]) == ["is resampled"]
    assert notes_on([]) == []


@pytest.fixture
def saving(qtbot, tmp_path):
    """Two predictions that can be saved, and folders that hold files of their names."""

    def prediction(stem):
        def save(folder, gradients, force):
            assert force
            (folder / f"{stem}_dwi.nii.gz").write_text(f"from {gradients}")

        source = SimpleNamespace(path=tmp_path / "scan.nii.gz")
        made = SimpleNamespace(owner=stem, file_stem=stem, label="MSP", model="", source=source)
        made.save = save
        return SimpleNamespace(prediction=made)

    layers = SimpleNamespace(results=[prediction("one"), prediction("two")], new=prediction)
    for name in ("asked", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one_dwi.nii.gz").write_text("kept")
    widget = Saving(cast(ResultLayers, layers))
    qtbot.addWidget(widget)
    widget.list_results()
    widget.folder.line.setText(str(tmp_path / "asked"))
    return widget


def test_a_list_grows_with_its_letters(filled):
    targets = filled.targets
    font = targets.font()
    font.setPointSize(30)
    targets.setFont(font)
    assert targets.height() >= targets.count() * targets.sizeHintForRow(0)


def test_saving_wants_a_folder_and_a_prediction(saving):
    assert saving.button.isEnabled()
    saving.folder.line.setText("")
    assert not saving.button.isEnabled()
    saving.folder.line.setText("/tmp/out")
    assert saving.names.checked == ["one", "two"]
    saving.names.set_names(saving.names.names, [])
    assert not saving.button.isEnabled()


def test_a_table_from_a_file_wants_the_file(saving):
    assert saving.gradients == "target"
    assert saving.bvec.isHidden()
    saving.table.setCurrentIndex(saving.table.findData("file"))
    assert not saving.bvec.isHidden()
    assert not saving.button.isEnabled()
    saving.bvec.line.setText("/tmp/mine.bvec")
    assert saving.gradients == "/tmp/mine.bvec"
    assert saving.button.isEnabled()


def test_new_predictions_are_ticked_and_old_ones_stay_as_they_were(saving):
    saving.names.set_names(saving.names.names, ["two"])
    saving._layers.results.append(saving._layers.new("three"))
    saving.list_results()
    assert saving.names.checked == ["two", "three"]


def press_and_wait(qtbot, saving, button):
    button.click()
    qtbot.wait_until(lambda: bool(saving.message.text))


@pytest.mark.parametrize("what", ["folder", "ticks", "table", "layers", "Close"])
def test_what_was_asked_about_is_asked_no_more_when_something_else_is_chosen(
    saving, qtbot, tmp_path, what
):
    press_and_wait(qtbot, saving, saving.button)
    assert [button.text() for button in saving.message.buttons] == [REPLACE]
    if what == "folder":
        saving.folder.line.setText(str(tmp_path / "other"))
    elif what == "ticks":
        saving.names.item(0).setCheckState(Qt.Unchecked)
    elif what == "table":
        saving.table.setCurrentIndex(1)
    elif what == "layers":
        saving._layers.results[0] = saving._layers.new("one")  # predicted again
        saving.list_results()
    else:
        saving.close_button.click()
    assert (saving.message.text, saving.message.buttons) == ("", [])


def test_only_what_was_asked_about_is_replaced(saving, qtbot, tmp_path):
    press_and_wait(qtbot, saving, saving.button)
    saving.list_results()  # as when another layer is selected
    (button,) = saving.message.buttons
    qtbot.wait_until(lambda: not saving.progress.job.running)
    button.click()
    qtbot.wait_until(lambda: "2 predictions written" in saving.message.text)
    assert (tmp_path / "asked" / "one_dwi.nii.gz").read_text() == "from target"
    assert [each.read_text() for each in (tmp_path / "other").iterdir()] == ["kept"]


def test_what_was_written_before_a_failure_is_said(saving, qtbot, tmp_path):
    def fail(*_, **__):
        raise FileNotFoundError(2, "No such file or directory", "/gone/scan.nii.gz")

    _, second = saving._layers.results
    second.prediction.save = fail
    (tmp_path / "asked" / "one_dwi.nii.gz").unlink()
    saving._layers.results[0].prediction.save = lambda *_, **__: None
    press_and_wait(qtbot, saving, saving.button)
    assert saving.message.text == (
        "scan.nii.gz: No such file or directory; check that it still exists. "
        "1 prediction written before."
    )
