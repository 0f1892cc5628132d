"""Entries of the training form: a magicgui widget for each parameter and for what a run needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox, FloatSpinBox, LineEdit
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_msp.ui.train.fields import PRESET_TITLES, FormField, new_run_folder, unused
from napari_msp.ui.widgets.form import CheckList, be_narrow, leave_wheel_alone
from napari_msp.ui.widgets.path_field import PathField

DEVICES = ("auto", "cpu", "cuda", "mps")

LARGEST = 10**9


class Entry:
    """One field: a widget, and what its value means.

    Parameters
    ----------
    widget
        Of magicgui; it has a `value`, `changed` and `native`.
    """

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self.native: QWidget = widget.native
        for each in (self.native, *self.native.findChildren(QComboBox)):
            leave_wheel_alone(each)
            be_narrow(each)

    def read(self) -> Any:
        """Give the value; None where the preset decides."""
        return self.widget.value

    def write(self, value: Any) -> None:
        """Show a value."""
        self.widget.value = value

    def say_empty(self, meaning: str) -> None:
        """Show what an empty entry stands for."""

    def offer(self, names: Sequence[str]) -> None:
        """Give names to choose from; those that were chosen stay so where they can."""

    @property
    def names(self) -> list[str]:
        """Names to choose from."""
        return []

    @property
    def stops(self) -> list[QWidget]:
        """Where the Tab key stops."""
        return [self.native]

    def on_change(self, call: Callable[[], None]) -> None:
        """Call when the value changes."""
        self.widget.changed.connect(lambda _: call())


class Choice(Entry):
    """One of several names, each with what is shown for it."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        super().__init__(ComboBox(choices=[(shown, name) for name, shown in titles.items()]))

    def offer(self, names: Sequence[str]) -> None:
        """Choose from other names."""
        self.widget.choices = list(names)

    def write(self, value: Any) -> None:
        """Choose; a name that is not offered is passed over."""
        if value in self.widget.choices:
            self.widget.value = value


class Whole(Entry):
    """A whole number. One below the lowest is shown as empty and means None."""

    def __init__(self, field: FormField) -> None:
        lowest = field.lowest or 0
        self.optional = field.default is None
        # magicgui's spin box of whole numbers cannot show words in place of one.
        super().__init__(FloatSpinBox(min=lowest - self.optional, max=LARGEST, step=1))
        self.native.setDecimals(0)

    def read(self) -> int | None:
        """Give the number."""
        value = int(self.widget.value)
        return None if self.optional and value == self.widget.min else value

    def write(self, value: int | None) -> None:
        """Show a number, or that there is none."""
        self.widget.value = self.widget.min if value is None else value

    def say_empty(self, meaning: str) -> None:
        """Show it in place of the number below the lowest."""
        # An empty text would show that number; a space shows nothing.
        self.native.setSpecialValueText((meaning or " ") if self.optional else "")


class Text(Entry):
    """Text; an empty one means None where the parameter is optional."""

    def __init__(self, field: FormField) -> None:
        self.optional = field.default is None
        super().__init__(LineEdit())

    def read(self) -> str | None:
        """Give the text."""
        text = str(self.widget.value).strip()
        return text or (None if self.optional else "")

    def write(self, value: object) -> None:
        """Show a value as text: numbers of any size are readable in it."""
        if isinstance(value, tuple):
            self.widget.value = " ".join(f"{each:g}" for each in value)
        else:
            self.widget.value = f"{value:g}" if isinstance(value, float) else str(value or "")

    def say_empty(self, meaning: str) -> None:
        """Show it in grey."""
        self.native.setPlaceholderText(meaning)


class Names(Entry):
    """Any number of names."""

    def __init__(self) -> None:
        self.native = CheckList()

    @property
    def names(self) -> list[str]:
        """All that are listed."""
        return list(self.native.names)

    def read(self) -> tuple[str, ...]:
        """Give the ticked names."""
        return tuple(self.native.checked)

    def write(self, value: Sequence[str]) -> None:
        """Tick names."""
        self.native.set_names(self.native.names, value)

    def offer(self, names: Sequence[str]) -> None:
        """List other names."""
        if list(names) != self.native.names:
            self.native.set_names(names, self.native.checked)

    def on_change(self, call: Callable[[], None]) -> None:
        """Call when a name is ticked or not."""
        self.native.changed.connect(call)


class PerTarget(Entry):
    """A choice for each of several names, of which the first is to leave it to the default."""

    def __init__(self, field: FormField) -> None:
        self._choices = field.choices
        self._calls: list[Callable[[], None]] = []
        self._boxes: dict[str, QComboBox] = {}
        self.native = QWidget()
        # magicgui's container fixes the labels' width before the window's font is known.
        self._rows = QFormLayout(self.native)
        self._rows.setContentsMargins(0, 0, 0, 0)

    def read(self) -> dict[str, str]:
        """Give what was chosen, where something was."""
        return {name: box.currentData() for name, box in self._boxes.items() if box.currentData()}

    def write(self, value: Mapping[str, str]) -> None:
        """Choose."""
        for name, box in self._boxes.items():
            box.setCurrentIndex(max(0, box.findData(value.get(name, ""))))

    def offer(self, names: Sequence[str]) -> None:
        """Ask for each of these names."""
        if list(names) == list(self._boxes):
            return
        chosen = self.read()
        while self._rows.rowCount():
            self._rows.removeRow(0)
        self._boxes = {name: self._box_for(name) for name in names}
        self.write(chosen)

    @property
    def stops(self) -> list[QWidget]:
        """Every box."""
        return list(self._boxes.values())

    def on_change(self, call: Callable[[], None]) -> None:
        """Call when something else is chosen."""
        self._calls.append(call)

    def _box_for(self, name: str) -> QComboBox:
        box = QComboBox()
        box.addItem("default", "")
        for choice, shown in self._choices.items():
            box.addItem(shown, choice)
        leave_wheel_alone(box)
        be_narrow(box)
        box.setAccessibleName(f"First stage of {name}")
        box.currentIndexChanged.connect(self._report_change)
        self._rows.addRow(name, box)
        return box

    def _report_change(self) -> None:
        for call in self._calls:
            call()


class Folder(Entry):
    """A folder that is typed, dropped or browsed for.

    Parameters
    ----------
    name
        For those who do not see its label.
    """

    def __init__(self, name: str) -> None:
        self.field = PathField(f"{name}: choose a folder")
        self.native = self.field
        self.field.line.setAccessibleName(name)

    @property
    def path(self) -> Path | None:
        """The folder; None while nothing stands there."""
        return self.field.path

    def write(self, value: Path) -> None:
        """Show a folder."""
        self.field.choose(value)

    def on_change(self, call: Callable[[], None]) -> None:
        """Call when there is another folder, and with every letter that is typed."""
        self.field.changed.connect(call)
        self.field.line.textEdited.connect(lambda _: call())


class NewFolder(Folder):
    """A run's folder, named by itself until the user names it.

    Parameters
    ----------
    cache
        Where runs are kept when the dataset's own place cannot be written to.
    """

    def __init__(self, cache: Path) -> None:
        super().__init__("Run folder")
        self._cache = cache
        self._offered: Path | None = None

    def offer_one(self, dataset: Path, kind: str) -> None:
        """Name a new folder beside the dataset, unless the user named one."""
        if self.path != self._offered:
            return
        root = dataset.absolute()
        beside = root if os.access(root.parent, os.W_OK) else self._cache / "runs" / root.name
        self._offered = new_run_folder(beside, kind, date.today())
        self.field.show_path(self._offered)

    def go_on(self) -> None:
        """Name another one after the user's own was used."""
        if self.path is not None and self.path != self._offered:
            self.field.show_path(unused(self.path))


def training_entries(fields: Mapping[str, FormField]) -> dict[str, Entry]:
    """Make an entry for each parameter and for the device."""
    return {
        **{name: _entry_for(field) for name, field in fields.items()},
        "preset": Choice(PRESET_TITLES),
        "input": Choice({}),
        "device": Choice({each: each for each in DEVICES}),
    }


def _entry_for(field: FormField) -> Entry:
    """Make the entry that a parameter asks for."""
    makers: dict[str, Callable[[], Entry]] = {
        "choice": lambda: Choice(field.choices),
        "whole": lambda: Whole(field),
        "number": lambda: Text(field),
        "text": lambda: Text(field),
        "names": Names,
        "per target": lambda: PerTarget(field),
    }
    return makers[field.sort]()
