"""The form of a training run, made from the parameter model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QWidget

from napari_msp.data.dataset import TravellingHeads
from napari_msp.errors import UserError
from napari_msp.learning.settings import (
    OTHER_LENGTHS,
    PRESETS,
    TrainingSettings,
    same_lattice,
)
from napari_msp.ui.phrasing import said
from napari_msp.ui.preferences import Device
from napari_msp.ui.train.entries import (
    FieldEntry,
    Folder,
    NewFolder,
    PerTarget,
    training_entries,
)
from napari_msp.ui.train.fields import (
    DATASET_DECIDES,
    SHOWN_FIRST,
    WORDS,
    Checked,
    TrainingRequest,
    applies,
    check,
    deviations,
    empty_means,
    form_fields,
    likely_input,
    model_to_start_from,
    other_sections,
    platforms_to_begin_as,
    under_its_entry,
)
from napari_msp.ui.widgets.form import FormRows, Section, offer, push_button, stacked
from napari_msp.ui.widgets.message import Notices

TIPS = {
    "dataset": "Folder with sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii.gz of people who were "
    "scanned on every platform.",
    "simulate": "Make a few small heads on four platforms, and keep them in the cache folder: "
    "enough for a lesson.",
    "folder": "Train writes everything of the run there: settings, curves, checkpoint and model. "
    "You can open it again.",
    "device": "Where the networks compute. auto takes CUDA, else MPS (Apple), else the CPU.",
}


class TrainingForm(QWidget):
    """The form that asks for a dataset, for what to train on it, and for a run folder.

    Its owner opens the dataset that `dataset_named` carries and returns it by `show_dataset`.

    Parameters
    ----------
    cache
        Cache folder, for runs whose dataset lies where nothing can be written.
    device
        Device chosen at first.
    """

    changed = Signal()
    dataset_named = Signal(object)

    def __init__(self, cache: Path, device: str = "auto") -> None:
        super().__init__()
        self.heads: TravellingHeads | None = None
        self._dataset_problem = ""
        self._writing = False
        self._from_run = False
        self._devices: dict[str, Device] = {}
        self._no_device = ""
        self.checked = Checked()
        self.fields = form_fields()
        self.dataset, self.folder = Folder("Dataset"), NewFolder(cache)
        self.entries: dict[str, FieldEntry] = {
            "dataset": self.dataset,
            "folder": self.folder,
            **training_entries(self.fields),
        }
        self.simulate = push_button("Simulated heads", TIPS["simulate"])
        # In the order in which Tab goes through them.
        self.notices = Notices()
        self.first, self.others = self._first_rows(), self._other_rows()
        self.advanced = Section("&Advanced", self.others)
        stacked(self, self.first, self.advanced).addStretch()
        self._connect()
        self._choose_device(device)
        self.entries["preset"].write(self.fields["preset"].default)
        self._take_preset()

    @property
    def request(self) -> TrainingRequest | None:
        """The run that the form describes; None while something is wrong or missing."""
        return self.checked.request

    @property
    def run(self) -> int | None:
        """Number of the run to use, where a scan was repeated; None: no choice."""
        chosen: int | None = self.entries["run"].read()
        return chosen

    def show_dataset(self, heads: TravellingHeads) -> None:
        """Offer a dataset's platforms and subjects; choices made for this dataset stay."""
        again = self.heads is not None and self.heads.root == heads.root
        if not again:
            self._forget_run()
        with self._at_once():
            self.heads, self._dataset_problem = heads, ""
            self.dataset.field.show_path(heads.root)
            if not again:
                for name in DATASET_DECIDES:
                    self.entries[name].offer(())
            chosen = self.entries["input"].read()
            source = chosen if chosen in heads.platforms else likely_input(heads)
            self.entries["input"].offer(heads.platforms if source else ["", *heads.platforms])
            self.entries["input"].write(source)
            self._offer_names()
            if not again:
                self._take_targets()
                self.entries["held_out"].write(heads.subjects[1:][-1:])

    def show_dataset_problem(self, error: UserError) -> None:
        """Say why the named folder is no dataset."""
        own = error.subject == str(self.dataset.path)
        words = under_its_entry(error) if own else said(error, WORDS)
        self.heads, self._dataset_problem = None, words
        self._update()

    def show_run(self, settings: TrainingSettings, device: str) -> None:
        """Fill the form with a run's settings; its dataset is shown already."""
        with self._at_once():
            self.entries["preset"].write(settings.preset)
            self._take_preset()
            for name in ("kind", "input"):
                self.entries[name].write(getattr(settings, name))
            self._offer_names()
            for name in self.fields:
                value = getattr(settings, name)
                of_preset = name in OTHER_LENGTHS and value == self._preset.get(name)
                if name != "preset" and not of_preset and (name != "targets" or value):
                    self.entries[name].write(value)
            self._choose_device(device)
        self._from_run = True

    def show_devices(self, devices: Sequence[Device]) -> None:
        """List devices; one that this machine lacks cannot be chosen."""
        self._devices = {each.name: each for each in devices}
        without = [each.name for each in devices if not each.kind]
        box, chosen = self.entries["device"].native, str(self.entries["device"].read())
        offer(box, {each.name: each.title for each in devices}, chosen, without)
        self._choose_device(chosen)

    def _choose_device(self, wanted: str) -> None:
        """Choose a device; "auto" in place of one that this machine lacks, with a note."""
        known = self._devices.get(wanted)
        missing = known is not None and not known.kind
        self._no_device = f"{known.title}; auto is taken" if known and missing else ""
        self.entries["device"].write("auto" if missing else wanted)
        self._update()

    def lead_to(self, name: str) -> None:
        """Show an entry, and give it the keyboard's focus."""
        if name in self.others.names:
            self.advanced.unfold(True)
        # Like the Tab key, this selects the entry's text.
        self.entries[name].native.setFocus(Qt.TabFocusReason)

    def next_folder(self) -> None:
        """Offer another folder than the present one, which is in use now."""
        self.folder.go_on()
        self._update()

    @property
    def _preset(self) -> Mapping[str, Any]:
        return PRESETS[self.entries["preset"].read()]

    def _values(self) -> dict[str, Any]:
        """Return the parameters that are set and count."""
        values = {name: self.entries[name].read() for name in self.fields}
        return {
            name: value
            for name, value in values.items()
            if value is not None and applies(name, values)
        }

    def _first_rows(self) -> FormRows:
        rows = FormRows(self.notices)
        rows.add("dataset", "&Dataset", self.dataset.native, TIPS["dataset"], self.simulate)
        for name in SHOWN_FIRST:
            rows.add(name, *self._row(name))
        rows.add("folder", "Ru&n folder", self.folder.native, TIPS["folder"])
        rows.add("device", "Device", self.entries["device"].native, TIPS["device"])
        return rows

    def _other_rows(self) -> FormRows:
        rows = FormRows(self.notices)
        for title, names in other_sections().items():
            rows.head(title)
            for name in names:
                rows.add(name, *self._row(name))
        return rows

    def _row(self, name: str) -> tuple[str, QWidget, str]:
        field = self.fields[name]
        return field.label, self.entries[name].native, field.tooltip

    def _connect(self) -> None:
        for name, entry in self.entries.items():
            if name not in ("dataset", "preset", "run"):
                entry.on_change(self._update)
        self.entries["preset"].on_change(self._take_preset)
        self.dataset.on_change(self._forget_other)
        self.entries["run"].on_change(self._take_run)
        self.dataset.field.changed.connect(self._name_dataset)

    def _forget_other(self) -> None:
        """Wait for another dataset, unless Enter was pressed on the one that is listed."""
        if self.heads is None or self.dataset.path != self.heads.root:
            self.forget_dataset()

    def forget_dataset(self) -> None:
        """Wait for another dataset; nothing is trained on the one before under its name."""
        if self._writing:
            return
        self.heads, self._dataset_problem = None, ""
        self._forget_run()
        self._update()

    def _forget_run(self) -> None:
        """Go back to the preset: the settings of the run that was shown are not wanted here."""
        if self._from_run:
            self._from_run = False
            self._take_preset()

    def _name_dataset(self) -> None:
        if self.dataset.path is not None:
            self.dataset_named.emit(self.dataset.path)

    def _take_run(self) -> None:
        """Have the dataset listed again: other scans are meant."""
        if not self._writing:
            self.forget_dataset()
            self._name_dataset()

    def _take_preset(self) -> None:
        """Replace the values by the preset's.

        Its lengths are what empty entries stand for: another length replaces them.
        """
        preset = self._preset
        with self._at_once():
            for name in ("minutes", *self.others.names):
                usual = {} if name in OTHER_LENGTHS else preset
                self.entries[name].write(usual.get(name, self.fields[name].default))
            if "kind" in preset:
                self.entries["kind"].write(preset["kind"])
            self.entries["start_from"].write(preset.get("start_from"))
            self._take_targets()

    def _take_targets(self) -> None:
        """Tick the targets of a lecture."""
        source = self.entries["input"].read()
        if self.heads is not None and source and self.entries["preset"].read() == "lecture":
            with suppress(UserError):  # the run reports a scan that cannot be read
                self.entries["targets"].write(same_lattice(self.heads, source))

    def _offer_names(self) -> None:
        """Offer other platforms than the input as targets, and subjects that have its scan."""
        if self.heads is None:
            return
        source, targets = self.entries["input"].read(), self.entries["targets"]
        stages = self.entries["first_stage"]
        assert isinstance(stages, PerTarget)
        others = [platform for platform in self.heads.platforms if platform != source]
        if others != targets.native.names:
            all_ticked = targets.read() == tuple(targets.native.names)
            targets.offer(others)
            if all_ticked:
                targets.write(others)
        scanned = [e for e in self.heads.subjects if not source or self.heads.has(e, source)]
        for name in ("held_out", "validation", "subjects"):
            self.entries[name].offer(scanned)
        stages.offer(targets.read())
        self.entries["start_from_target"].offer(targets.read())
        boxes = [self.entries["subjects"].native, *stages.stops]
        for before, after in pairwise(boxes):
            QWidget.setTabOrder(before, after)

    def _said_of_preset(self, values: Mapping[str, Any]) -> str:
        """Return which settings differ from the preset, wherever they are folded away."""
        preset = self.entries["preset"].read()
        names = [
            name
            for name in ("start_from", "minutes", *self.others.names)
            if name not in DATASET_DECIDES and applies(name, values)
        ]
        shown = [
            f"{self.fields[name].spoken}: {_told(values.get(name))}"
            for name in deviations(values, preset, names)
        ]
        few = "It predicts platforms with the input’s voxel size." if preset == "lecture" else ""
        other = f"Other than {preset}: {', '.join(shown).removesuffix('.')}." if shown else ""
        return " ".join(filter(None, (few, other)))

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Write several entries, then check the form once."""
        outermost, self._writing = not self._writing, True
        try:
            yield
        finally:
            self._writing = not outermost
        self._update()

    def _update(self) -> None:
        """Update entries that depend on others, and check the form."""
        if self._writing:
            return
        self._writing = True
        self._offer_names()
        if self.heads is not None:
            self.folder.offer_one(self.heads.root, str(self.entries["kind"].read()))
        self._writing = False
        values = self._values()
        for name in self.others.names:
            self.others.enable(name, applies(name, values))
        for name in ("minutes", *self.others.names):
            self.entries[name].say_empty(empty_means(name, values))
        self.entries["start_from"].say_empty(empty_means("start_from", values))
        begun = self.entries["start_from_target"]
        assert isinstance(begun, PerTarget)
        begun.choose_from(platforms_to_begin_as(model_to_start_from(values)))
        device = str(self.entries["device"].read())
        self.checked = check(values, self.heads, device, self.folder.path)
        problems = {"dataset": self._dataset_problem, **self.checked.problems}
        notes = {**self.checked.notes, "preset": self._said_of_preset(values)}
        notes["device"] = self._no_device if device == "auto" else ""
        for rows in (self.first, self.others):
            for name in rows.names:
                problem = problems.get(name, "")
                rows.say(name, problem, "" if problem else notes.get(name, ""))
        self.changed.emit()


def _told(value: Any) -> str:
    """Return a setting's value as text."""
    if value is None or value in ((), "", {}):
        return "left to the run"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else f"{value}"
