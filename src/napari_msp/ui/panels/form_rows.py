"""Rows of a form: label, entry, and under the entry what is to be said about it."""

from __future__ import annotations

from dataclasses import dataclass

from qtpy.QtWidgets import QFormLayout, QLabel, QVBoxLayout, QWidget

from napari_msp.ui.panels.colours import colours_of


@dataclass(frozen=True)
class _Row:
    label: QLabel
    cell: QWidget
    words: QLabel


class FormRows(QWidget):
    """Rows by name."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, _Row] = {}
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setFieldGrowthPolicy(QFormLayout.AllNonFixedFieldsGrow)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def add(
        self, name: str, label: str, entry: QWidget, tooltip: str, more: QWidget | None = None
    ) -> None:
        """Append a row.

        Parameters
        ----------
        name
            To speak of it.
        label
            With a mnemonic that leads to the entry.
        entry, more
            What is filled in, and what belongs under it.
        tooltip
            Of label and entry.
        """
        cell, words, title = QWidget(), QLabel(), QLabel(label)
        words.setWordWrap(True)
        words.hide()
        column = QVBoxLayout(cell)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for each in (entry, more, words):
            if each is not None:
                column.addWidget(each)
        title.setBuddy(entry)
        for each in (title, entry):
            each.setToolTip(tooltip)
        entry.setAccessibleName(label.replace("&", ""))
        self._layout.addRow(title, cell)
        self._rows[name] = _Row(title, cell, words)

    def enable(self, name: str, enabled: bool) -> None:
        """Let a row be filled in, or not."""
        row = self._rows[name]
        row.label.setEnabled(enabled)
        row.cell.setEnabled(enabled)

    def say(self, name: str, problem: str = "", note: str = "") -> None:
        """Put words under an entry: what is wrong with it, or else what is to be known."""
        words = self._rows[name].words
        colours = colours_of(self)
        colour = colours.error if problem else colours.faint
        words.setStyleSheet(f"color: {colour.name()}")
        words.setText(problem or note)
        words.setVisible(bool(problem or note))

    def said(self, name: str) -> str:
        """Give the words under an entry."""
        return str(self._rows[name].words.text())
