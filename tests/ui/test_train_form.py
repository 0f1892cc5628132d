"""The form of a training run: made from the parameter model, and in words about what is wrong."""

import re
from datetime import date
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QLabel

from napari_msp import packaged
from napari_msp.bids import DESCRIPTION, dataset_description
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import UserError
from napari_msp.files import write_json
from napari_msp.learning.settings import SECTIONS, TrainingSettings
from napari_msp.networks import registry
from napari_msp.ui.preferences import Device
from napari_msp.ui.train.fields import applies, empty_means, form_fields, new_run_folder
from napari_msp.ui.train.form import TrainingForm

PLATFORMS = ("connectom_sa", "ge_st", "prisma_st")


def study(root, missing=(), subjects=3, platforms=PLATFORMS):
    """Scans by name, none of which can be read, predicted from ge_st."""
    about = dataset_description("Study", derivative=False, input_platform="ge_st")
    write_json(root / DESCRIPTION, about)
    subjects = [f"sub-{number:02d}" for number in range(1, subjects + 1)]
    return TravellingHeads(
        root,
        {
            (subject, platform): root / f"{subject}_{platform}.nii.gz"
            for subject in subjects
            for platform in platforms
            if (subject, platform) not in missing
        },
    )


@pytest.fixture
def form(qtbot, tmp_path):
    made = TrainingForm(tmp_path / "cache")
    qtbot.addWidget(made)
    made.show()
    return made


@pytest.fixture
def filled(form, tmp_path):
    root = tmp_path / "study"
    root.mkdir()
    form.show_dataset(study(root))
    return form


def test_every_parameter_has_a_row_with_a_tooltip(form):
    rows = form.first.names + form.others.names
    assert set(rows) == set(TrainingSettings.model_fields) | {"dataset", "folder", "device"}
    for name, info in TrainingSettings.model_fields.items():
        assert info.description in form.entries[name].native.toolTip()
    titles = [each.text() for each in form.others.findChildren(QLabel) if "<b>" in each.text()]
    assert titles == [f"<b>{title.capitalize()}</b>" for title in SECTIONS]


def test_mnemonics_lead_to_entries_and_are_told_apart(form):
    labels = [label for label in form.findChildren(QLabel) if "&" in label.text()]
    keys = [label.text()[label.text().index("&") + 1].lower() for label in labels]
    keys += ["a", "r", "m", "o", "z"]  # buttons: Advanced, Train, Resume, Open run, Use
    assert len(keys) == len(set(keys)) >= 9
    for label in labels:
        assert label.buddy().focusPolicy() & Qt.TabFocus


def test_tab_goes_down_the_form(filled, qtbot):
    filled.advanced.unfold(True)
    filled.resize(340, 1200)
    filled.entries["dataset"].native.line.setFocus()
    heights, names = [], []
    for _ in range(60):
        entry = QApplication.focusWidget()
        heights.append(entry.mapTo(filled, entry.rect().topLeft()).y())
        names.append(entry.accessibleName() or entry.text())
        qtbot.keyClick(entry, Qt.Key_Tab)
        if entry is filled.entries["label"].native:
            break
    assert heights == sorted(heights)
    assert all(names)
    assert "First stage of prisma_st" in names
    assert names[-1] == "Label"


def test_an_empty_form_asks_for_a_dataset_and_wants_no_run(form):
    assert form.request is None
    assert "BIDS folder" in form.first.said("dataset")


def test_a_dataset_fills_the_choices(filled, tmp_path):
    wanted = filled.request
    assert wanted.dataset == tmp_path / "study"
    assert wanted.settings == TrainingSettings(
        kind="msp", input="ge_st", targets=("connectom_sa", "prisma_st"), held_out=("sub-03",)
    )
    assert wanted.device == "auto"
    assert wanted.folder.parent == tmp_path
    assert wanted.folder.name.startswith("study-msp-")
    assert not wanted.folder.exists()


def test_targets_are_the_other_platforms(filled):
    filled.entries["input"].write("prisma_st")
    assert filled.request.settings.targets == ("connectom_sa", "ge_st")
    filled.entries["targets"].write(["ge_st"])
    filled.entries["input"].write("connectom_sa")
    assert filled.request.settings.targets == ("ge_st",)


def test_presets_fill_in_values(filled):
    filled.entries["preset"].write("lecture")
    settings = filled.request.settings
    assert settings == TrainingSettings(preset="lecture").model_copy(
        update={
            "input": "ge_st",
            "targets": ("connectom_sa", "prisma_st"),
            "held_out": ("sub-03",),
        }
    )
    filled.entries["preset"].write("paper")
    settings = filled.request.settings
    assert settings.preset == "paper"
    assert (settings.width, settings.epochs) == (None, None)


def test_a_lecture_predicts_platforms_with_the_inputs_voxels(form, heads):
    form.entries["preset"].write("lecture")
    form.show_dataset(open_dataset(heads))
    assert form.entries["targets"].native.names == ["connectom_sa", "prisma_st"]
    assert form.request.settings.targets == ("prisma_st",)
    form.entries["targets"].write(["connectom_sa"])
    form.entries["preset"].write("paper")
    assert form.request.settings.targets == ("connectom_sa",)
    form.entries["preset"].write("lecture")
    assert form.request.settings.targets == ("prisma_st",)


def test_the_input_is_never_guessed(form, tmp_path):
    heads = study(tmp_path)
    (tmp_path / DESCRIPTION).unlink()
    form.show_dataset(heads)
    assert form.request is None
    assert form.first.said("input") == "choose the platform to predict from"
    form.entries["input"].write("ge_st")
    settings = form.request.settings  # type: ignore[attr-defined]  # there is one now
    assert (settings.input, settings.held_out) == ("ge_st", ("sub-03",))


def test_empty_entries_show_what_the_preset_gives(filled):
    filled.advanced.unfold(True)
    steps, epochs = filled.entries["steps"], filled.entries["epochs"]
    rate = filled.entries["learning_rate"]
    assert (steps.native.text(), epochs.native.text()) == ("3000 (preset)", " ")
    assert rate.native.placeholderText() == "0.0015 (preset)"
    filled.entries["preset"].write("paper")
    assert (steps.native.text(), epochs.native.text()) == (" ", "50 (preset)")
    assert rate.native.placeholderText() == "0.0001 (preset)"
    assert filled.request.settings.epochs is None


def test_validation_subjects_and_minutes_are_asked_for_first(filled):
    assert filled.entries["minutes"].native.placeholderText() == "as long as the steps take"
    filled.entries["validation"].write(["sub-02"])
    filled.entries["minutes"].write("12.5")
    settings = filled.checked.request.settings
    assert (settings.validation, settings.held_out) == (("sub-02",), ("sub-03",))
    assert settings.minutes == 12.5
    others = filled.entries
    shown = [others[name].native.text() for name in ("steps", "patience", "steps_per_epoch")]
    assert shown == ["as many as fit", "5", "a phase is 30 epochs"]
    filled.entries["minutes"].write(None)
    shown = [others[name].native.text() for name in ("steps", "patience", "steps_per_epoch")]
    assert shown == ["9000 at most (preset)", "5", "a phase is 30 epochs"]
    filled.entries["epochs"].write(4)
    shown = [others[name].native.text() for name in ("steps", "patience", "steps_per_epoch")]
    assert shown == [" ", "never ends early", "all voxels about once"]
    filled.entries["epochs"].write(None)
    filled.entries["validation"].write(["sub-03"])
    assert "sub-03 cannot be held out too" in filled.first.said("validation")
    filled.entries["validation"].write(["sub-01", "sub-02"])
    assert "at least one subject" in filled.first.said("held_out")
    filled.entries["preset"].write("lecture")
    assert filled.entries["minutes"].read() is None


def test_a_time_takes_the_place_of_the_lectures_epochs_and_gives_it_back(filled):
    """Epochs are folded away, and nobody gave them."""
    filled.entries["preset"].write("lecture")
    lengths = ("epochs", "unison_epochs", "steps_per_epoch")
    shown = [filled.entries[name].native.text() for name in lengths]
    assert shown == ["3 (preset)", "6 (preset)", "40 (preset)"]
    filled.entries["minutes"].write("1")
    settings = filled.request.settings
    assert (settings.minutes, settings.epochs, settings.unison_epochs) == (1.0, None, None)
    assert (settings.preset, settings.width, settings.steps_per_epoch) == ("lecture", 0.2, None)
    assert filled.entries["steps_per_epoch"].native.text() == "a phase is 30 epochs"
    assert filled.first.said("preset").endswith("Other than lecture: Minutes: 1.")
    filled.entries["minutes"].write(None)
    filled.entries["kind"].write("shresnet")
    settings = filled.request.settings
    assert (settings.preset, settings.epochs, settings.unison_epochs) == ("lecture", 3, None)
    assert settings.first_stages == "preset"
    filled.show_run(TrainingSettings(preset="lecture", input="ge_st"), "cpu")
    filled.entries["minutes"].write("1")
    assert filled.request.settings.minutes == 1


def test_a_time_beside_steps_is_told_where_it_stands(filled):
    filled.entries["steps"].write(400)
    filled.entries["minutes"].write("3")
    assert filled.checked.request is None
    assert "given in steps already" in filled.first.said("minutes")


def test_values_are_typed(filled, qtbot):
    filled.advanced.unfold(True)
    epochs, rate = filled.entries["epochs"].native, filled.entries["learning_rate"].native
    epochs.selectAll()
    qtbot.keyClicks(epochs, "7")
    qtbot.keyClick(epochs, Qt.Key_Tab)
    qtbot.keyClicks(rate, "3e-5")
    assert filled.request.settings.epochs == 7
    assert filled.request.settings.learning_rate == 3e-5


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("learning_rate", "fast", "must be a valid number"),
        ("learning_rate", "2", "must be less than or equal to 1"),
        ("width", "1.5", "must lie in (0, 1], or be 'paper'"),
        ("width", "half", "must be a valid number, or must be 'paper'"),
        ("b_value", "-3", "must be greater than 0"),
    ],
)
def test_what_is_wrong_is_said_under_the_entry(filled, name, value, words):
    filled.advanced.unfold(True)
    filled.entries[name].write(value)
    assert filled.request is None
    assert filled.others.said(name) == words
    filled.entries[name].write(filled.fields[name].default)
    assert filled.request is not None
    assert filled.others.said(name) == ""


def test_a_wrong_value_is_told_before_there_is_a_dataset(form):
    form.entries["width"].write("2")
    assert "must lie in" in form.others.said("width")


def test_the_form_fits_a_narrow_dock(filled):
    filled.advanced.unfold(True)
    assert filled.minimumSizeHint().width() <= 300


def test_missing_scans_are_told(form, tmp_path):
    form.show_dataset(study(tmp_path, missing=[("sub-01", "ge_st"), ("sub-02", "prisma_st")]))
    assert "Without sub-01: no scan on ge_st." in form.first.said("dataset")
    assert form.entries["held_out"].native.names == ["sub-02", "sub-03"]
    form.entries["held_out"].write([])
    assert "Of 2 subjects: prisma_st from 1." in form.first.said("targets")
    assert form.request is not None
    form.entries["held_out"].write(["sub-03"])
    assert "no training subject has a scan on prisma_st" in form.first.said("targets")
    assert form.request is None
    form.entries["targets"].write(["connectom_sa"])
    settings = form.request.settings  # type: ignore[attr-defined]  # there is one now
    assert settings.targets == ("connectom_sa",)


def test_without_steps_people_need_not_be_pairs(form, tmp_path):
    missing = [("sub-01", "prisma_st"), ("sub-02", "ge_st"), ("sub-03", "ge_st")]
    form.show_dataset(study(tmp_path, missing, platforms=("ge_st", "prisma_st")))
    form.entries["held_out"].write([])
    assert "no training subject has a scan on prisma_st" in form.first.said("targets")
    form.entries["steps"].write(0)
    assert form.first.said("targets") == "Of 3 subjects: prisma_st from 2."
    assert form.first.said("dataset") == "3 subjects on 2 platforms."
    assert form.request is not None
    assert form.request.settings.steps == 0


def test_somebody_must_be_left_to_train_on(filled):
    filled.entries["held_out"].write(["sub-01", "sub-02", "sub-03"])
    assert filled.request is None
    assert "at least one subject" in filled.first.said("held_out")
    filled.entries["held_out"].write([])
    assert filled.request is not None
    assert "no errors and no pictures" in filled.first.said("held_out")


def test_a_folder_in_use_is_refused(filled, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    filled.entries["folder"].write(tmp_path / "full")
    assert filled.request is None
    assert "not empty" in filled.first.said("folder")
    # A folder of the user's own choice is not named anew.
    filled.entries["kind"].write("diqt")
    assert "not empty" in filled.first.said("folder")


def test_run_folders_get_new_names(tmp_path):
    day = date(2026, 3, 1)
    first = new_run_folder(tmp_path / "study", "msp", day)
    assert first == tmp_path / "study-msp-2026-03-01"
    first.mkdir()
    assert new_run_folder(tmp_path / "study", "msp", day).name == "study-msp-2026-03-01-2"


@pytest.mark.parametrize(
    ("preset", "kind", "idle"),
    [
        ("fast", "msp", {"decay_every", "voxels_per_head"}),
        ("paper", "msp", {"crop", "augmentation"}),
        (
            "paper",
            "diqt",
            {
                "crop",
                "augmentation",
                "first_stage",
                "unison_steps",
                "unison_epochs",
                "branch_start",
                "first_stages",
                "singles_first",
                "features",
            },
        ),
    ],
)
def test_entries_that_do_not_count_are_disabled_and_not_sent(filled, preset, kind, idle):
    filled.advanced.unfold(True)
    for name in ("crop", "decay_every", "unison_epochs"):
        filled.entries[name].write(5)
    filled.entries["preset"].write(preset)
    filled.entries["kind"].write(kind)
    disabled = {n for n in filled.others.names if not filled.entries[n].native.isEnabled()}
    assert disabled == idle
    settings = filled.request.settings
    assert all(getattr(settings, name) == filled.fields[name].default for name in idle)


def test_what_counts_follows_the_descriptions():
    """Descriptions begin with the preset or kind that a parameter is for."""
    for name, field in form_fields().items():
        text = TrainingSettings.model_fields[name].description or ""
        told = re.match(r"(MSP): |With preset (.+?), ", text)
        those = (told[1] or told[2]).lower().split(" or ") if told else []
        for preset in ("fast", "paper"):
            for kind in ("msp", "diqt"):
                fits = not those or bool({preset, kind} & {*those})
                if name != "preset":
                    assert applies(name, {"preset": preset, "kind": kind}) == fits, field


def test_a_network_of_another_package_is_offered(qtbot, tmp_path, monkeypatch):
    ours = registry._networks()
    mine = EntryPoint("U-Net", "another_package:UNet", registry.GROUP)
    monkeypatch.setattr(registry, "_networks", lambda: {**ours, "u-net": mine})
    form = TrainingForm(tmp_path)
    qtbot.addWidget(form)
    form.show_dataset(study(tmp_path))
    kinds = form.entries["kind"].native
    assert kinds.itemText(kinds.count() - 1) == "U-Net"
    form.entries["kind"].write("u-net")
    assert form.request.settings.kind == "u-net"
    form.entries["kind"].write("msp")
    form.entries["first_stage"].write({"prisma_st": "u-net"})
    assert form.request.settings.first_stage == {"prisma_st": "u-net"}


def test_unison_phases_are_as_long_as_what_is_given():
    values = {"kind": "msp", "preset": "fast"}
    assert empty_means("unison_steps", values) == "3000 (preset)"
    after_singles = values | {"singles_first": "yes"}
    assert empty_means("unison_steps", after_singles) == "2000 (preset)"
    assert empty_means("unison_steps", values | {"steps": 400}) == "400 (preset)"
    assert empty_means("unison_epochs", values | {"epochs": 4}) == "4 (preset)"
    assert empty_means("steps", values | {"epochs": 4}) == ""


def test_two_lengths_are_told_where_they_stand(filled):
    filled.entries["epochs"].write(4)
    filled.entries["steps"].write(400)
    assert filled.request is None
    assert "given in steps already" in filled.others.said("epochs")
    filled.entries["epochs"].write(None)
    assert filled.checked.request.settings.steps == 400


def test_first_stages_are_chosen_for_each_target(filled):
    filled.entries["first_stage"].write({"prisma_st": "diqt"})
    assert filled.request.settings.first_stage == {"prisma_st": "diqt"}
    filled.entries["targets"].write(["connectom_sa"])
    assert filled.request.settings.first_stage == {}


def test_a_typed_folder_is_told_once(form, qtbot, tmp_path):
    edit = form.entries["dataset"].native.line
    with qtbot.waitSignal(form.dataset_named) as told:
        qtbot.keyClicks(edit, str(tmp_path))
    assert told.args == [Path(tmp_path)]
    form.show_dataset_problem(UserError("has no scan", tmp_path))
    form.entries["preset"].write("paper")
    assert form.first.said("dataset") == "has no scan"
    assert form.request is None
    with qtbot.waitSignal(form.dataset_named) as again:  # a share may be there by now
        qtbot.keyClick(edit, Qt.Key_Return)
    assert again.args == told.args


def test_enter_on_the_dataset_that_is_listed_finds_what_is_new(filled, qtbot):
    settings = TrainingSettings(
        kind="msp", preset="paper", input="prisma_st", targets=("ge_st",), epochs=3
    )
    filled.show_run(settings, "cpu")
    filled.entries["held_out"].write(["sub-01", "sub-02"])
    before = filled.request
    with qtbot.waitSignal(filled.dataset_named) as told:
        qtbot.keyClick(filled.entries["dataset"].native.line, Qt.Key_Return)
    assert before is not None
    assert filled.request == before  # while it is looked at
    filled.show_dataset(study(told.args[0], subjects=4))
    assert filled.request == before
    assert filled.entries["held_out"].native.names == [f"sub-0{number}" for number in (1, 2, 3, 4)]
    filled.entries["run"].write(2)  # of the same folder, other scans
    assert filled.request is None


def test_a_remedy_leads_to_its_entry(filled, qtbot):
    filled.lead_to("batch")
    assert filled.advanced.button.isChecked()
    assert QApplication.focusWidget() is filled.entries["batch"].native


def test_nothing_is_trained_while_another_folder_is_typed(filled, qtbot):
    assert filled.request is not None
    edit = filled.entries["dataset"].native.line
    qtbot.keyClicks(edit, "x")
    assert filled.request is None
    with qtbot.assertNotEmitted(filled.dataset_named, wait=600):
        edit.clear()
    assert filled.request is None


def test_a_home_folder_may_be_written_short(filled):
    filled.entries["folder"].write("~/no-such-run")
    assert filled.request.folder == Path.home() / "no-such-run"


def test_a_run_is_shown_as_it_was(filled):
    settings = TrainingSettings(
        kind="msp",
        preset="paper",
        input="prisma_st",
        targets=("ge_st",),
        held_out=("sub-01", "sub-02"),
        first_stage={"ge_st": "cpm"},
        width=0.25,
        epochs=3,
        decay_every=15,
        learning_rate=2e-5,
        seed=4,
        label="ours",
    )
    filled.show_run(settings, "cpu")
    assert filled.request.settings == settings
    assert filled.request.device == "cpu"


def test_devices_are_those_of_the_machine(filled):
    filled.entries["device"].write("cuda")  # as preferences have it
    assert filled.request.device == "cuda"
    missing = Device("cuda", "", "CUDA (NVIDIA GPU): none here")
    filled.show_devices([Device("auto", "cpu", "auto: CPU"), Device("cpu", "cpu", "CPU"), missing])
    box = filled.entries["device"].native
    assert [box.model().item(row).isEnabled() for row in range(3)] == [True, True, False]
    assert filled.request.device == "auto"
    assert filled.first.said("device") == "CUDA (NVIDIA GPU): none here; auto is taken"
    filled.entries["device"].write("cpu")
    assert filled.first.said("device") == ""
    filled.show_run(filled.request.settings, "cuda")
    assert filled.request.device == "auto"
    assert "none here" in filled.first.said("device")


def test_the_wheel_changes_nothing(filled, qtbot):
    """It scrolls the form; entries lie under the mouse by chance."""
    before = filled.request
    for name in ("kind", "input", "epochs", "device"):
        entry = filled.entries[name].native
        centre = QPointF(entry.rect().center())
        event = QWheelEvent(
            centre,
            entry.mapToGlobal(centre),
            QPoint(),
            QPoint(0, -120),
            Qt.NoButton,
            Qt.NoModifier,
            Qt.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(entry, event)
    assert filled.request == before


def test_real_heads_are_read(form, heads):
    form.show_dataset(open_dataset(heads))
    assert form.request.settings.held_out == ("sub-03",)


def test_a_run_starts_from_a_word_or_a_model(filled):
    def settings():
        assert filled.request is not None
        return filled.request.settings

    entry = filled.entries["start_from"]
    choices = entry.native.focusProxy()
    shown = [choices.itemText(row) for row in range(choices.count())]
    assert shown == ["default (nothing)", "nothing", "a model …"]
    assert settings().start_from is None
    entry.write("nothing")
    assert settings().start_from == "nothing"
    entry.write("file")
    assert filled.request is None
    assert "must be nothing, base or the file of a model" in filled.first.said("start_from")
    teaching = packaged.packaged_model("MSP")
    entry.write(str(teaching))
    assert settings().start_from == str(teaching)
    begins = filled.entries["start_from_target"]
    box = begins.stops[1]
    offered = [box.itemText(row) for row in range(box.count())]
    assert offered == ["default", "connectom_sa", "connectom_st", "prisma_st"]
    begins.write({"prisma_st": "connectom_st"})
    assert settings().start_from_target == {"prisma_st": "connectom_st"}
    filled.entries["preset"].write("lecture")
    assert settings().start_from == "nothing"
    filled.entries["preset"].write("fast")
    assert settings().start_from is None


def test_the_packaged_base_is_offered_where_there_is_one(qtbot, tmp_path, monkeypatch):
    base = packaged.packaged_model("MSP")
    monkeypatch.setattr("napari_msp.ui.train.entries.base_model", lambda: base)
    monkeypatch.setattr(packaged, "base_model", lambda: base)
    form = TrainingForm(tmp_path / "cache")
    qtbot.addWidget(form)
    choices = form.entries["start_from"].native.focusProxy()
    shown = [choices.itemText(row) for row in range(choices.count())]
    assert shown[:2] == ["default (base, where it fits)", "base model (packaged)"]
    form.entries["preset"].write("paper")
    assert choices.itemText(0) == "default (nothing)"


# --- What is not as the preset has it ---------------------------------------------------------


def test_a_reopened_lesson_says_so_and_leaves_nothing_to_the_next_dataset(filled, tmp_path):
    lesson = TrainingSettings(preset="lecture").model_copy(
        update={"input": "ge_st", "targets": ("prisma_st",)}
    )
    filled.show_run(lesson, "cpu")
    assert filled.entries["preset"].read() == "lecture"
    assert filled.entries["width"].read() == "0.2"
    told = "It predicts platforms with the input’s voxel size."
    assert filled.first.said("preset") == told
    changed = lesson.model_copy(update={"width": 0.3})
    filled.show_run(changed, "cpu")
    assert filled.entries["preset"].read() == "lecture"
    assert filled.first.said("preset") == f"{told} Other than lecture: Width: 0.3."
    filled.dataset.write(tmp_path / "another")  # as a person does
    assert filled.entries["width"].read() == "0.2"
    assert filled.first.said("preset") == told


def test_a_reopened_lesson_leaves_nothing_to_heads_that_a_button_brings(filled, tmp_path):
    lesson = TrainingSettings(preset="lecture", width=0.3, input="ge_st")
    filled.show_run(lesson, "cpu")
    assert filled.entries["width"].read() == "0.3"
    (tmp_path / "lesson").mkdir()
    filled.show_dataset(study(tmp_path / "lesson"))  # of Simulated heads: no folder was typed
    assert filled.entries["width"].read() == "0.2"
    assert "Other than" not in filled.first.said("preset")


def test_what_a_person_set_is_told_too_and_stays(filled, tmp_path):
    filled.entries["seed"].write(7)
    assert filled.first.said("preset") == "Other than fast: Seed: 7."
    filled.dataset.write(tmp_path / "another")
    assert filled.entries["seed"].read() == 7
