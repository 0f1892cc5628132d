"""Global errors of predictions, each beside the first one's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QStackedLayout,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_msp.evaluation.metrics import Row
from napari_msp.formatting import power_of_ten
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.widgets.colours import Colours, colours_of

NOTHING = "No numbers: errors can be measured only against a ground truth."

SHORTEST_NAME, LONGEST_NAME = "prediction", "sub-01 MSP prisma_st"
"""Texts as wide as the column of names is at least and, for names that are wider, need not be."""

MARGIN = 12
"""Pixels beside a name."""

SAME = 0.05
"""A change below this many percent is called none."""


@dataclass(frozen=True)
class _Error:
    """One of the errors that the table has two columns for; its header takes the power of ten."""

    title: str
    header: str
    unit: str
    terms: tuple[str, ...]
    value: Callable[[Row], float]
    change: Callable[[Row], float | None]


_ERRORS = (
    _Error(
        "SH MSE",
        "SH MSE\n{}\nSH units²",
        "SH units²",
        ("SH MSE",),
        lambda r: r.sh_mse,
        lambda r: r.change_sh,
    ),
    _Error(
        "colour-FA MSE",
        "colour-FA\nMSE\n{} FA²",
        "FA²",
        ("MSE", "colour FA"),
        lambda r: r.colour_fa_mse,
        lambda r: r.change_colour,
    ),
)


class NumbersTable(QWidget):
    """A row a prediction: its errors in one power of ten, and what they are to the first one's.

    Ctrl+C copies the chosen rows, or all, with full precision for a spreadsheet.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[Row] = []
        self.words = QLabel(NOTHING)
        self.words.setWordWrap(True)
        self.words.setAlignment(Qt.AlignLeft | Qt.AlignTop)
        self.table = _Table(self.copy)
        self._stack = QStackedLayout(self)
        self._stack.setContentsMargins(0, 0, 0, 0)
        self._stack.addWidget(self.words)
        self._stack.addWidget(self.table)
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Fixed)
        self.set_rows(())

    def set_rows(self, rows: Sequence[Row], nothing: str = NOTHING) -> None:
        """Show rows.

        Parameters
        ----------
        rows
            One a prediction; the first is the one that others are compared with.
        nothing
            What is said where there are none.
        """
        self._rows = list(rows)
        self.words.setText(nothing)
        self._stack.setCurrentWidget(self.table if self._rows else self.words)
        self.table.setRowCount(len(self._rows))
        for column, (text, tip) in enumerate(_headers(self._rows)):
            header = QTableWidgetItem(text)
            header.setToolTip(tip)
            self.table.setHorizontalHeaderItem(column, header)
        for number, row in enumerate(self._rows):
            for column, (text, tip) in enumerate(_cells(row, self._rows)):
                item = QTableWidgetItem(text)
                item.setToolTip(tip)
                side = Qt.AlignLeft if column == 0 else Qt.AlignRight
                item.setTextAlignment(side | Qt.AlignVCenter)
                self.table.setItem(number, column, item)
        self._colour()
        self.updateGeometry()

    def copy(self) -> None:
        """Put the chosen rows, or all of them, on the clipboard."""
        chosen = sorted({index.row() for index in self.table.selectedIndexes()})
        rows = [self._rows[number] for number in chosen] or self._rows
        QApplication.clipboard().setText(as_tsv(rows))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Be as high as the rows need."""
        return self.table.whole() if self._rows else self.words.sizeHint()

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Never cut a number off."""
        return self.sizeHint()

    def changeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Follow the theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.PaletteChange, QEvent.StyleChange):
            self._colour()

    def _colour(self) -> None:
        colours = colours_of(self)
        for number, row in enumerate(self._rows):
            for error, column in zip(_ERRORS, (2, 4), strict=True):
                item = self.table.item(number, column)
                if item is not None:
                    item.setForeground(_colour_of(error.change(row), colours))


class _Table(QTableWidget):
    """A table to read: rows are chosen whole and copied by the keyboard."""

    def __init__(self, copy: Callable[[], None]) -> None:
        super().__init__(0, 1 + 2 * len(_ERRORS))
        self._copy = copy
        self.setAccessibleName("Global errors of the predictions")
        self.setEditTriggers(QAbstractItemView.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectRows)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeToContents)
        self.horizontalHeader().setSectionResizeMode(0, QHeaderView.Stretch)
        self.horizontalHeader().setHighlightSections(False)

    def whole(self) -> QSize:
        """Give the size at which nothing is cut off but long names."""
        header = self.horizontalHeader()
        numbers = sum(header.sectionSizeHint(column) for column in range(1, header.count()))
        height = header.sizeHint().height() + self.verticalHeader().length()
        edge = 2 * self.frameWidth() + 2
        return QSize(numbers + self._name_width() + edge, height + edge)

    def _name_width(self) -> int:
        """Give the width at which names are read whole, or nearly."""
        width = self.fontMetrics().horizontalAdvance
        names = [self.item(row, 0).text() for row in range(self.rowCount())]
        widest = max(map(width, [SHORTEST_NAME, *names]))
        return int(min(widest, width(LONGEST_NAME))) + MARGIN

    def event(self, event: Any) -> bool:
        """Keep Ctrl+C from the window's own shortcuts while the table has the focus."""
        if event.type() == QEvent.ShortcutOverride and event.matches(QKeySequence.Copy):
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Copy rows, not a cell."""
        if event.matches(QKeySequence.Copy):
            self._copy()
        else:
            super().keyPressEvent(event)


def as_tsv(rows: Sequence[Row]) -> str:
    """Write rows with full precision, tabs between the columns."""
    titles = [
        title
        for error in _ERRORS
        for title in (f"{error.title} [{error.unit}]", f"{error.title} change [%]")
    ]
    lines = [["prediction", *titles]]
    for row in rows:
        numbers = [number for e in _ERRORS for number in (e.value(row), e.change(row))]
        lines.append([row.name, *("" if n is None else repr(n) for n in numbers)])
    return "".join("\t".join(line) + "\n" for line in lines)


def _headers(rows: Sequence[Row]) -> list[tuple[str, str]]:
    first = escape(rows[0].name) if rows else "the first prediction"
    change = (
        f"<p>Error above (▲) or below (▼) that of {first}, in percent of it. Less is better.</p>"
    )
    headers = [("prediction", "")]
    for error in _ERRORS:
        exponent = _exponent(error, rows)
        power = power_of_ten(exponent)
        meaning = "".join(tooltip(term) for term in error.terms)
        headers += [(error.header.format(power), meaning), ("change\n%", change)]
    return headers


def _cells(row: Row, rows: Sequence[Row]) -> list[tuple[str, str]]:
    measured = f"{row.voxels} voxels, those in all masks"
    cells = [(row.name, row.name)]
    for error in _ERRORS:
        value, change = error.value(row), error.change(row)
        shown = value / 10.0 ** _exponent(error, rows)
        cells.append((f"{shown:.2f}", f"{value:.4g} {error.unit} over {measured}"))
        cells.append(_change(change, rows[0].name, is_first=row is rows[0]))
    return cells


def _change(change: float | None, first: str, *, is_first: bool) -> tuple[str, str]:
    if is_first:
        return "–", "The first prediction: the others are compared with it."
    if change is None:
        return "–", f"{first} has no error to compare with."
    if abs(change) < SAME:
        return "0.0", f"As large as that of {first}."
    if change < 0:
        return f"▼ −{-change:.1f}", f"{-change:.1f} % less error than {first}"
    return f"▲ +{change:.1f}", f"{change:.1f} % more error than {first}"


def _exponent(error: _Error, rows: Sequence[Row]) -> int:
    """Give the power of ten in which the smallest error is 1 to 10."""
    positive = [error.value(row) for row in rows if error.value(row) > 0]
    return math.floor(math.log10(min(positive))) if positive else 0


def _colour_of(change: float | None, colours: Colours) -> Any:
    if change is None or abs(change) < SAME:
        return colours.text
    return colours.ok if change < 0 else colours.warning
