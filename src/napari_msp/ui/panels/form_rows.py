"""Rows of a form: label, entry, and under the entry what is to be said about it."""

from __future__ import annotations

from dataclasses import dataclass

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_msp.ui.panels.message import MessageLine


@dataclass(frozen=True)
class _Row:
    label: QLabel
    cell: QWidget
    problem: MessageLine
    note: QLabel


class FormRows(QWidget):
    """Rows by name."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, _Row] = {}
        # Qt's form layout cuts off words that take more lines than expected.
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setColumnStretch(1, 1)

    @property
    def names(self) -> list[str]:
        """Names of the rows in order."""
        return list(self._rows)

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
        row = _Row(QLabel(label), QWidget(), MessageLine(), QLabel())
        row.note.setWordWrap(True)
        column = QVBoxLayout(row.cell)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for each in (entry, more, row.problem, row.note):
            if each is not None:
                column.addWidget(each)
        row.cell.setSizePolicy(QSizePolicy.Preferred, QSizePolicy.Minimum)
        row.label.setContentsMargins(0, 4, 0, 0)  # level with the entry's own text
        row.label.setBuddy(entry)
        for each in (row.label, entry):
            each.setToolTip(tooltip)
        entry.setAccessibleName(label.replace("&", ""))
        number = len(self._rows)
        self._layout.addWidget(row.label, number, 0, Qt.AlignTop)
        self._layout.addWidget(row.cell, number, 1, Qt.AlignTop)
        self._rows[name] = row
        self.say(name)

    def enable(self, name: str, enabled: bool) -> None:
        """Let a row be filled in, or not."""
        row = self._rows[name]
        row.label.setEnabled(enabled)
        row.cell.setEnabled(enabled)

    def show_row(self, name: str, visible: bool) -> None:
        """Show a row, or take it away."""
        row = self._rows[name]
        row.label.setVisible(visible)
        row.cell.setVisible(visible)

    def say(self, name: str, problem: str = "", note: str = "", doubt: str = "") -> None:
        """Put words under an entry: what is wrong or doubtful, and what is to be known."""
        row = self._rows[name]
        row.problem.show_message("error" if problem else "warning", problem or doubt)
        row.note.setText(note)
        row.note.setVisible(bool(note))

    def said(self, name: str) -> str:
        """Give the words under an entry: those of its problem, else its note."""
        row = self._rows[name]
        return row.problem.text or str(row.note.text())
