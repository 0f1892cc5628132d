"""Entries of the training form: one for each parameter and for a run's other needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QSpinBox, QWidget

from napari_msp.packaged import base_model
from napari_msp.ui.preferences import DEVICE_TITLES
from napari_msp.ui.train.fields import PRESET_TITLES, FormField, new_run_folder, unused
from napari_msp.ui.widgets.form import CheckList, fit_into_form, offer, stacked
from napari_msp.ui.widgets.path_field import PathField

DEVICES = {"auto": "auto", **DEVICE_TITLES}

LARGEST = 10**9


class FieldEntry:
    """One field: a widget, and what its value means.

    Parameters
    ----------
    native
        The widget.
    *changes
        Its signals of a change.
    """

    def __init__(self, native: Any, *changes: Any) -> None:
        self.native = native
        self._changes = changes

    def read(self) -> Any:
        """Return the value; None where the preset decides."""

    def write(self, value: Any) -> None:
        """Show a value."""

    def say_empty(self, meaning: str) -> None:
        """Show the meaning of an empty entry."""

    def offer(self, names: Sequence[str]) -> None:
        """Offer names; what was chosen stays chosen where it can."""

    def on_change(self, call: Callable[[], None]) -> None:
        """Call `call` when the value changes."""
        for change in self._changes:
            change.connect(lambda *_: call())


class NameEntry(FieldEntry):
    """One of several names, each with its title."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        box = QComboBox()
        fit_into_form(box)
        super().__init__(box, box.currentIndexChanged)
        offer(box, titles)

    def read(self) -> str | None:
        """Return the chosen name; None where there is none to choose."""
        name: str | None = self.native.currentData()
        return name

    def write(self, value: object) -> None:
        """Choose a name; one that is not offered is ignored."""
        if (row := self.native.findData(value)) >= 0:
            self.native.setCurrentIndex(row)

    def offer(self, names: Sequence[str]) -> None:
        """Offer other names."""
        offer(self.native, names)


class Whole(FieldEntry):
    """A whole number. One below the lowest is shown as empty and means None."""

    def __init__(self, field: FormField) -> None:
        self.optional = field.default is None
        box = QSpinBox()
        box.setRange((field.lowest or 0) - self.optional, LARGEST)
        fit_into_form(box)
        super().__init__(box, box.valueChanged)

    def read(self) -> int | None:
        """Return the number."""
        value = int(self.native.value())
        return None if self.optional and value == self.native.minimum() else value

    def write(self, value: int | None) -> None:
        """Show a number, or an empty entry for None."""
        self.native.setValue(self.native.minimum() if value is None else value)

    def say_empty(self, meaning: str) -> None:
        """Show the meaning in place of the number below the lowest."""
        # An empty text would show that number; a space shows nothing.
        self.native.setSpecialValueText((meaning or " ") if self.optional else "")


class Text(FieldEntry):
    """Text; an empty one means None where the parameter is optional."""

    def __init__(self, field: FormField) -> None:
        self.optional = field.default is None
        line = QLineEdit()
        super().__init__(line, line.textChanged)

    def read(self) -> str | None:
        """Return the text."""
        text = str(self.native.text()).strip()
        return text or (None if self.optional else "")

    def write(self, value: object) -> None:
        """Show a value as text, in which numbers of any size are readable."""
        if isinstance(value, tuple):
            self.native.setText(" ".join(f"{each:g}" for each in value))
        else:
            self.native.setText(f"{value:g}" if isinstance(value, float) else str(value or ""))

    def say_empty(self, meaning: str) -> None:
        """Show the meaning in grey."""
        self.native.setPlaceholderText(meaning)


class Names(FieldEntry):
    """Any number of names."""

    def __init__(self) -> None:
        names = CheckList()
        super().__init__(names, names.changed)

    def read(self) -> tuple[str, ...]:
        """Return the ticked names."""
        return tuple(self.native.checked)

    def write(self, value: Sequence[str]) -> None:
        """Tick names."""
        self.native.set_names(self.native.names, value)

    def offer(self, names: Sequence[str]) -> None:
        """List other names."""
        if list(names) != self.native.names:
            self.native.set_names(names, self.native.checked)


class StartFrom(FieldEntry):
    """Start of the weights: the default, a word, or the file of a model."""

    MODEL = "a model …"
    FILE = "file"

    def __init__(self) -> None:
        words = ({"base": "base model (packaged)"} if base_model() else {}) | {"nothing": "nothing"}
        self._choice = NameEntry({"": "", **words, self.FILE: self.MODEL})
        self._choice.native.setAccessibleName("Start from")
        self._file = PathField("Choose a model to start from", "Models (*.safetensors)")
        self._file.line.setAccessibleName("Model to start from")
        super().__init__(
            QWidget(),
            self._choice.native.currentIndexChanged,
            self._file.changed,
            self._file.line.textEdited,
        )
        stacked(self.native, self._choice.native, self._file)
        self.native.setFocusProxy(self._choice.native)
        self._choice.on_change(self._show_file)
        self._show_file()

    def read(self) -> str | None:
        """Return the word or the path."""
        chosen = self._choice.read()
        return str(self._file.path or "") if chosen == self.FILE else chosen or None

    def write(self, value: str | None) -> None:
        """Choose; a path is shown."""
        if value is None or self._choice.native.findData(value) >= 0:
            self._choice.write(value or "")
        else:
            self._file.choose(value)
            self._choice.write(self.FILE)

    def say_empty(self, meaning: str) -> None:
        """Show the meaning of the default in the first choice."""
        self._choice.native.setItemText(0, f"default ({meaning})")

    def _show_file(self) -> None:
        self._file.setVisible(self._choice.read() == self.FILE)


class PerTarget(FieldEntry):
    """A choice for each of several names; the first choice leaves it to the default."""

    def __init__(self, field: FormField) -> None:
        super().__init__(QWidget())
        self._choices: dict[str, str] = {"": "default", **field.choices}
        begins = field.name == "start_from_target"
        self._spoken = "What {} begins as" if begins else "First stage of {}"
        self._calls: list[Callable[[], None]] = []
        self._boxes: dict[str, NameEntry] = {}
        self._rows = QFormLayout(self.native)
        self._rows.setContentsMargins(0, 0, 0, 0)

    def read(self) -> dict[str, str]:
        """Return the choices by name, without those left to the default."""
        return {name: chosen for name, box in self._boxes.items() if (chosen := box.read())}

    def write(self, value: Mapping[str, str]) -> None:
        """Choose for each name."""
        for name, box in self._boxes.items():
            box.write(value.get(name, ""))

    def offer(self, names: Sequence[str]) -> None:
        """Ask for a choice for each of these names."""
        if list(names) != list(self._boxes):
            self._ask(names)

    def choose_from(self, choices: Sequence[str]) -> None:
        """Offer other choices for each name."""
        offered = {"": "default", **{each: each for each in choices}}
        if offered != self._choices:
            self._choices = offered
            self._ask(list(self._boxes))

    def _ask(self, names: Sequence[str]) -> None:
        chosen = self.read()
        while self._rows.rowCount():
            self._rows.removeRow(0)
        self._boxes = {name: self._box_for(name) for name in names}
        self.write(chosen)

    @property
    def stops(self) -> list[QWidget]:
        """All boxes, at which the Tab key stops."""
        return [each.native for each in self._boxes.values()]

    def on_change(self, call: Callable[[], None]) -> None:
        """Call `call` when something else is chosen."""
        self._calls.append(call)

    def _box_for(self, name: str) -> NameEntry:
        box = NameEntry(self._choices)
        box.native.setAccessibleName(self._spoken.format(name))
        for call in self._calls:
            box.on_change(call)
        self._rows.addRow(name, box.native)
        return box


class Folder(FieldEntry):
    """A folder that is typed, dropped or browsed for.

    Parameters
    ----------
    name
        Name for users who do not see the label.
    """

    def __init__(self, name: str) -> None:
        self.field = PathField(f"{name}: choose a folder")
        super().__init__(self.field, self.field.changed, self.field.line.textEdited)
        self.field.line.setAccessibleName(name)

    @property
    def path(self) -> Path | None:
        """The folder; None while the entry is empty."""
        return self.field.path

    def write(self, value: Path) -> None:
        """Show a folder."""
        self.field.choose(value)


class NewFolder(Folder):
    """A run's folder, named automatically until the user names it.

    Parameters
    ----------
    cache
        Cache folder, for runs whose dataset lies where nothing can be written.
    """

    def __init__(self, cache: Path) -> None:
        super().__init__("Run folder")
        self._cache = cache
        self._offered: Path | None = None

    def offer_one(self, dataset: Path, kind: str) -> None:
        """Offer a new folder beside the dataset, unless the user named one."""
        if self.path != self._offered:
            return
        root = dataset.absolute()
        beside = root if os.access(root.parent, os.W_OK) else self._cache / "runs" / root.name
        self._offered = new_run_folder(beside, kind, date.today())
        self.field.show_path(self._offered)

    def go_on(self) -> None:
        """Offer another folder after the user's own was used."""
        if self.path is not None and self.path != self._offered:
            self.field.show_path(unused(self.path))


def training_entries(fields: Mapping[str, FormField]) -> dict[str, FieldEntry]:
    """Return an entry for each parameter and for the device."""
    return {
        **{name: _ENTRIES[field.sort](field) for name, field in fields.items()},
        "preset": NameEntry(PRESET_TITLES),
        "input": NameEntry({}),
        "start_from": StartFrom(),
        "device": NameEntry(DEVICES),
    }


_ENTRIES: Mapping[Any, Callable[[FormField], FieldEntry]] = {
    Literal: lambda field: NameEntry(field.choices),
    int: Whole,
    float: Text,
    str: Text,
    tuple: lambda _: Names(),
    dict: PerTarget,
}
"""Makers of entries by the type of a parameter."""
