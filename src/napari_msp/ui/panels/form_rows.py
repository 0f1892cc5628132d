"""Rows of a form: label, entry, and under the entry what is to be said about it."""

from __future__ import annotations

from dataclasses import dataclass

from qtpy.QtWidgets import QFormLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

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
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setFieldGrowthPolicy(QFormLayout.AllNonFixedFieldsGrow)

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
        row.cell.setSizePolicy(QSizePolicy.Preferred, QSizePolicy.Maximum)
        row.label.setBuddy(entry)
        for each in (row.label, entry):
            each.setToolTip(tooltip)
        entry.setAccessibleName(label.replace("&", ""))
        self._layout.addRow(row.label, row.cell)
        self._rows[name] = row
        self.say(name)

    def enable(self, name: str, enabled: bool) -> None:
        """Let a row be filled in, or not."""
        row = self._rows[name]
        row.label.setEnabled(enabled)
        row.cell.setEnabled(enabled)

    def say(self, name: str, problem: str = "", note: str = "") -> None:
        """Put words under an entry: what is wrong with it, and what is to be known."""
        row = self._rows[name]
        row.problem.show_message("error", problem)
        row.note.setText(note)
        row.note.setVisible(bool(note))

    def said(self, name: str) -> str:
        """Give the words under an entry: those of its problem, else its note."""
        row = self._rows[name]
        return row.problem.text or str(row.note.text())
