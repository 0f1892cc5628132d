"""Entries of a form: magicgui widgets, made from what the parameter model says of a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magicgui.widgets import ComboBox, FloatSpinBox, LineEdit
from qtpy.QtWidgets import QComboBox, QWidget

from napari_msp.ui.training.fields import FormField
from napari_msp.ui.widgets.form import CheckList, be_narrow, leave_wheel_alone

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

    def on_change(self, call: Callable[[], None]) -> None:
        """Call when the value changes."""
        self.widget.changed.connect(lambda _: call())


class Choice(Entry):
    """One of several names, whose meaning may be told beside them."""

    def __init__(self, names: Sequence[str], meanings: Mapping[str, str] | None = None) -> None:
        meanings = meanings or {}
        super().__init__(ComboBox(choices=[(meanings.get(name, name), name) for name in names]))

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
