"""The judgement of one prediction: verdict, tags and a note, with what is known of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QLineEdit,
    QPushButton,
    QWidget,
)
from superqt import QFlowLayout
from superqt.utils import signals_blocked

from napari_msp.ui.review.keys import key_of, tag_keys
from napari_msp.ui.review.session import KnownNumber
from napari_msp.ui.widgets.colours import Themed, colours_of
from napari_msp.ui.widgets.form import fit_into_form, in_row, offer, push_button, stacked
from napari_msp.ui.widgets.message import Sentences

VERDICTS: Mapping[str, tuple[str, str]] = {
    "pass": ("Pass", "Can be used"),
    "doubtful": ("Doubtful", "Undecided, or needs a second opinion"),
    "fail": ("Fail", "Cannot be used"),
}
"""Text of the button and its meaning, by verdict."""

NARROW = "QPushButton { padding: 2px 5px; }"
"""Style of the many buttons of tags: few rows of them leave room for the list of predictions."""

TONES = {"pass": "ok", "fail": "warning", "doubtful": "lit", "made again": "warning"}


class Judging(Themed):
    """A summary of one prediction, and the buttons that rate, tag and note it.

    Attributes
    ----------
    title, known
        Summary of the prediction, to be placed where it does not move the buttons.
    command : str
        Emitted when a button asks for a command of `keys.COMMANDS`.
    tagged : str
        Emitted with a tag that is to be set or removed.
    noted : str
        Emitted with the text of a note.
    note_left
        Emitted when the note no longer takes keys.
    """

    command = Signal(str)
    tagged = Signal(str)
    noted = Signal(str)
    note_left = Signal()

    def __init__(self, maps: Mapping[str, str], planes: Sequence[str]) -> None:
        super().__init__()
        self._entry: tuple[str, str, Sequence[KnownNumber], Sequence[str]] = "", "", (), ()
        self.title, self.known = Sentences(), Sentences()
        self.title.setTextFormat(Qt.RichText)
        self.known.setTextFormat(Qt.RichText)
        self.verdicts = {
            name: _key_button(text, key_of(name), meaning)
            for name, (text, meaning) in VERDICTS.items()
        }
        self.tags: dict[str, QPushButton] = {}
        self._tags = QWidget()
        self._tags.setStyleSheet(NARROW)
        self._tag_rows = QFlowLayout(self._tags)
        self._tag_rows.setContentsMargins(0, 0, 0, 0)
        self._tag_rows.setHorizontalSpacing(2)
        self._tag_rows.setVerticalSpacing(2)
        self.note = _Note()
        self.note.setPlaceholderText("note (Enter to write, Enter to keep, Escape to drop)")
        self.note.setAccessibleName("Note")
        self.maps, self.planes, self.shells = QComboBox(), QComboBox(), QComboBox()
        self.shells.setVisible(False)
        offer(self.maps, maps)
        self.planes.addItems(list(planes))
        self.outline = QCheckBox("outline (L)")
        self.outline.setChecked(True)
        self.go_on = QCheckBox("rate and go on")
        self.go_on.setChecked(True)
        self.go_on.setToolTip("<p>After each rating, show the next unrated prediction.</p>")
        self.undo = push_button("&Undo", "<p>Take the last rating back (Backspace).</p>")
        self.keys = push_button("&Keys …", "<p>Show all keys (?).</p>")
        self.report = push_button(
            "Repor&t", "<p>Write a page of all predictions and ratings, and open it (Shift+R).</p>"
        )
        self.proof = push_button(
            "Site &effect …",
            "<p>Measure how far these predictions are from the target’s own scans.</p>",
        )
        fit_into_form(self.maps, self.shells, self.planes)
        self._lay_out()
        self._connect()

    def offer_tags(self, tags: Mapping[str, str]) -> None:
        """Offer tags to set, with the keys of those that have one."""
        for button in self.tags.values():
            button.hide()
            button.deleteLater()
        keys = {tag: key for key, tag in tag_keys(list(tags)).items()}
        self.tags = {}
        for tag, meaning in tags.items():
            button = QPushButton(f"{keys[tag]}  {tag}" if tag in keys else tag)
            button.setCheckable(True)
            button.setToolTip(f"<p>{escape(meaning or tag)}</p>")
            button.setFocusPolicy(Qt.TabFocus)
            button.clicked.connect(lambda _, tag=tag: self.tagged.emit(tag))
            self._tag_rows.addWidget(button)
            self.tags[tag] = button

    def show_entry(
        self,
        title: str,
        state: str,
        numbers: Sequence[KnownNumber],
        warnings: Sequence[str],
    ) -> None:
        """Show the title, state, numbers and warnings of the current entry."""
        self._entry = title, state, numbers, warnings
        self.restyle()

    def show_rating(self, verdict: str, tags: Sequence[str], note: str) -> None:
        """Show verdict, tags and note of the current entry; "" for no verdict."""
        for name, button in self.verdicts.items():
            button.setChecked(name == verdict)
        for tag, button in self.tags.items():
            button.setChecked(tag in tags)
        if not self.writing:
            self.note.setText(note)
            self.note.kept = note

    def show_look(self, shown: str, plane: str, outline: bool) -> None:
        """Show map, plane and outline in their entries; nothing is emitted."""
        self.maps.setCurrentIndex(max(0, self.maps.findData(shown)))
        self.planes.setCurrentText(plane)
        with signals_blocked(self.outline):
            self.outline.setChecked(outline)

    def show_shells(self, shells: Sequence[int | None], shown: int | None) -> None:
        """Offer the b-values of a prediction that has several; nothing is emitted."""
        offer(self.shells, {each: f"b = {each}" for each in shells}, shown)
        self.shells.setVisible(len(shells) > 1)

    def write_note(self) -> None:
        """Let the note take keys."""
        self.note.setFocus()
        self.note.selectAll()

    @property
    def writing(self) -> bool:
        """Whether the note takes keys."""
        return self.window().focusWidget() is self.note

    def finish_note(self) -> None:
        """Keep the note as written, before anything else is done."""
        self.note.keep()
        if self.writing:
            self.note_left.emit()

    def allow(self, allowed: bool, shown: bool = True) -> None:
        """Allow or forbid judging; an entry that cannot be shown can never pass."""
        for each in (*self.verdicts.values(), self._tags, self.note):
            each.setEnabled(allowed)
        self.verdicts["pass"].setEnabled(allowed and shown)

    def restyle(self) -> None:
        """Write in the theme's colours."""
        title, state, numbers, warnings = self._entry
        colours = colours_of(self)
        tone = getattr(colours, TONES.get(state, "faint")).name()
        self.title.setText(
            f"<b>{escape(breakable(title))}</b> &nbsp; <span style='color:{tone}'>"
            f"{escape(state)}</span>"
        )
        warning = colours.warning.name()
        parts = [
            f"<span style='color:{warning}'><b>{escape(each.words)}</b></span>"
            if each.word
            else escape(each.words)
            for each in numbers
        ]
        lines = [" &nbsp;·&nbsp; ".join(parts)] if parts else []
        lines += [f"<span style='color:{warning}'>{escape(each)}</span>" for each in warnings]
        self.known.setText("<br>".join(lines))

    def _lay_out(self) -> None:
        verdicts = in_row(*self.verdicts.values(), self.undo)
        view = in_row(self.maps, self.shells, self.planes, self.outline)
        for place, share in enumerate((4, 3, 3)):  # of which the names of maps are the longest
            view.setStretch(place, share)
        others = QWidget()
        row = QFlowLayout(others)
        row.setContentsMargins(0, 0, 0, 0)
        for each in (self.go_on, self.keys, self.report, self.proof):
            row.addWidget(each)
        stacked(self, verdicts, self._tags, self.note, view, others).setSpacing(6)

    def _connect(self) -> None:
        others = {"undo": self.undo, "keys": self.keys, "report": self.report}
        for name, button in {**self.verdicts, **others, "site effect": self.proof}.items():
            button.clicked.connect(lambda _, name=name: self.command.emit(name))
        self.outline.toggled.connect(lambda _: self.command.emit("outline"))
        self.note.done.connect(self.noted)
        self.note.left.connect(self.note_left)


class _Note(QLineEdit):
    """A line that takes all keys until Enter, which keeps the text, or Escape, which drops it."""

    done = Signal(str)
    left = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.kept = ""

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Stop taking keys on Enter and Escape."""
        if event.key() in (Qt.Key_Return, Qt.Key_Enter):
            self.keep()
            self.left.emit()
        elif event.key() == Qt.Key_Escape:
            self.setText(self.kept)
            self.left.emit()
        else:
            super().keyPressEvent(event)

    def focusOutEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Keep the text when the focus goes elsewhere."""
        super().focusOutEvent(event)
        self.keep()

    def event(self, event: QEvent) -> bool:
        """Keep all keys from shortcuts while the note is written."""
        if event.type() == QEvent.ShortcutOverride:
            event.accept()
            return True
        return bool(super().event(event))

    def keep(self) -> None:
        """Emit the text if it changed."""
        if self.text() != self.kept:
            self.kept = self.text()
            self.done.emit(self.kept)


def breakable(text: str) -> str:
    """Let long words go on in the next line: they would widen the widget.

    >>> breakable("sub-01 → prisma_st"), breakable(40 * "a").count("\u200b")
    ('sub-01 → prisma_st', 2)
    """
    return re.sub(r"\S{16}(?=\S)", lambda part: f"{part[0]}\u200b", text)


def _key_button(text: str, key: str, meaning: str) -> QPushButton:
    button = push_button(f"{text}  ({key})", f"<p>{meaning}.</p>")
    button.setCheckable(True)
    button.setFocusPolicy(Qt.TabFocus)
    return button
