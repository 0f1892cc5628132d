"""Entries of the training form: one for each parameter, and for what a run needs besides."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

from magicgui.widgets import ComboBox, Container, FileEdit

from napari_msp.ui.diagram.parts import TITLES
from napari_msp.ui.panels.entries import (
    Choice,
    Entry,
    Names,
    Text,
    Whole,
)
from napari_msp.ui.training.check import new_run_folder, unused
from napari_msp.ui.training.fields import PRESET_TITLES, PRESETS, FormField
from napari_msp.ui.widgets.form import be_narrow, leave_wheel_alone

DEVICES = ("auto", "cpu", "cuda", "mps")


class PerTarget(Entry):
    """A choice for each of several names, of which the first is to leave it to the default."""

    def __init__(self, field: FormField) -> None:
        self.choices = field.choices
        super().__init__(Container(labels=True))
        self.widget.margins = (0, 0, 0, 0)

    def read(self) -> dict[str, str]:
        """Give what was chosen, where something was."""
        return {each.name: each.value for each in self.widget if each.value}

    def write(self, value: dict[str, str]) -> None:
        """Choose."""
        for each in self.widget:
            each.value = value.get(each.name, "")

    def offer(self, names: Sequence[str]) -> None:
        """Ask for each of these names."""
        chosen = self.read()
        if list(names) == [each.name for each in self.widget]:
            return
        self.widget.clear()
        choices = [("default", ""), *((each, each) for each in self.choices)]
        for name in names:
            box = ComboBox(name=name, label=name, choices=choices)
            leave_wheel_alone(box.native)
            be_narrow(box.native)
            box.native.setAccessibleName(f"First stage of {name}")
            self.widget.append(box)
        self.write(chosen)


class Folder(Entry):
    """A folder that is typed or browsed for.

    Parameters
    ----------
    name
        For those who do not see its label.
    new
        Whether it shall be a new one.
    """

    def __init__(self, name: str, new: bool = False) -> None:
        super().__init__(FileEdit(mode="w" if new else "d"))
        self.widget.choose_btn.text = "Browse…"
        self.widget.line_edit.native.setAccessibleName(name)
        self.widget.choose_btn.native.setAccessibleName(f"{name}: browse")
        self.native.setFocusProxy(self.widget.line_edit.native)

    @property
    def text(self) -> str:
        """What stands there."""
        return str(self.widget.line_edit.value).strip()

    @property
    def path(self) -> Path | None:
        """The folder; None while nothing stands there."""
        return Path(self.text).expanduser() if self.text else None


class RunFolder(Folder):
    """A run's folder, named by itself until the user names it.

    Parameters
    ----------
    cache
        Where runs are kept when the dataset's own place cannot be written to.
    """

    def __init__(self, cache: Path) -> None:
        super().__init__("Run folder", new=True)
        self._cache, self._offered = cache, ""

    def offer_one(self, dataset: Path, kind: str) -> None:
        """Name a new folder beside the dataset, unless the user named one."""
        if self.text != self._offered:
            return
        root = dataset.absolute()
        beside = root if os.access(root.parent, os.W_OK) else self._cache / "runs" / root.name
        self._offered = str(new_run_folder(beside, kind, date.today()))
        self.write(self._offered)

    def go_on(self) -> None:
        """Name another one after the user's own was used."""
        if self.path is not None and self.text != self._offered:
            self.write(unused(self.path))


def training_entries(fields: Mapping[str, FormField]) -> dict[str, Entry]:
    """Make an entry for each parameter and for the device."""
    return {
        **{name: _entry_for(field) for name, field in fields.items()},
        "preset": Choice(tuple(PRESETS), PRESET_TITLES),
        "kind": Choice(fields["kind"].choices, TITLES),
        "input": Choice(()),
        "device": Choice(DEVICES),
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
