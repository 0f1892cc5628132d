"""The list of predictions, one per row with its measures, and the entries that filter it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt, Signal
from qtpy.QtGui import QColor, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QTableView,
)
from superqt.utils import signals_blocked

from napari_msp.formatting import counted
from napari_msp.review.measures import FEWEST, MEASURES
from napari_msp.review.predictions import Entry
from napari_msp.ui.review.judging import TONES
from napari_msp.ui.review.session import STATES, Session, unusual_words
from napari_msp.ui.widgets.colours import Colours, Themed, colours_of
from napari_msp.ui.widgets.form import fit_into_form, in_row, offer, stacked

PADDING = 6
"""Pixels of a row above and below its letters."""

FEWEST_ROWS = 3
"""Rows that are visible at least."""

MARK = {"pass": "✓", "fail": "✗", "doubtful": "?", "made again": "↻", "unrated": "·"}
"""Sign before the word that says the same."""

NOTHING = "–"

NO_RISK = f"“–”: not known, as fewer than {FEWEST} predictions of a kind cannot show what is usual."

TARGET = 2
"""Column of targets; one alone is named with every entry below the list."""

ALL_STATES, ALL_TARGETS = "all", "all targets"


@dataclass(frozen=True)
class ListCell:
    """The content of a cell.

    Attributes
    ----------
    text, tip
        Text and tooltip.
    tone
        "warning", "ok", "faint", or "" for the usual colour.
    right
        Whether it is aligned right, as numbers are.
    """

    text: str
    tip: str = ""
    tone: str = ""
    right: bool = False


class EntryList(Themed):
    """The table of predictions, with the entries that filter it above.

    Attributes
    ----------
    chosen : int
        Emitted with the row to look at next.
    narrowed : str, str, str
        Emitted with the state, the target and the text of names to which the list is to be
        restricted; "" for all.
    sorted : int, bool
        Emitted with the column to sort by, and whether the largest comes first.
    """

    chosen = Signal(int)
    narrowed = Signal(str, str, str)
    sorted = Signal(int, bool)

    def __init__(self) -> None:
        super().__init__()
        self.states, self.targets, self.text = QComboBox(), QComboBox(), _Search()
        self.states.setAccessibleName("State")
        self.targets.setAccessibleName("Target")
        self.text.setPlaceholderText("name or note ( / )")
        self.text.setAccessibleName("Only names and notes with")
        self.text.setClearButtonEnabled(True)
        fit_into_form(self.states, self.targets)
        self.model, self.table = _Model(), _Table()
        self.table.setModel(self.model)
        row = in_row(self.states, self.targets, self.text)
        row.setStretch(0, 2)
        row.setStretch(1, 3)
        row.setStretch(2, 3)
        stacked(self, row, self.table)
        self.setFocusProxy(self.table)
        self.table.selectionModel().currentRowChanged.connect(self._choose)
        self.states.activated.connect(lambda _: self._narrow())
        self.targets.activated.connect(lambda _: self._narrow())
        self.text.textChanged.connect(lambda _: self._narrow())
        header = self.table.horizontalHeader()
        header.sortIndicatorChanged.connect(
            lambda column, order: self.sorted.emit(column, order == Qt.DescendingOrder)
        )

    def offer(self, states: Mapping[Any, str], targets: Sequence[str]) -> None:
        """Offer states, by their names, and targets to restrict the list to."""
        offer(self.states, {"": ALL_STATES, **states}, "")
        offer(self.targets, [ALL_TARGETS, *targets], ALL_TARGETS)
        self.targets.setVisible(len(targets) > 1)
        with signals_blocked(self.text):
            self.text.clear()
        with signals_blocked(self.table.horizontalHeader()):
            self.table.horizontalHeader().setSortIndicator(-1, Qt.AscendingOrder)

    def fill(self, headers: Sequence[ListCell], rows: Sequence[Sequence[ListCell]]) -> None:
        """Show rows under headers."""
        with signals_blocked(self.table.selectionModel()):
            same = list(headers) == list(self.model.headers)
            self.model.fill(headers, rows)
        for column in range(len(headers)):
            tells = any(row[column].text not in ("", NOTHING) for row in rows) or not rows
            one = column == TARGET and self.targets.count() == 2  # all, and one
            self.table.setColumnHidden(column, one or not tells)
        if not same:
            self.table.fit_columns()

    def select(self, row: int | None) -> None:
        """Mark a row, without a signal, and scroll to it."""
        selection = self.table.selectionModel()
        with signals_blocked(selection):
            if row is None:
                self.table.clearSelection()
            else:
                self.table.selectRow(row)
        self.table.viewport().update()
        if row is not None:
            self.table.scrollTo(self.model.index(row, 0), QAbstractItemView.EnsureVisible)

    def restyle(self) -> None:
        """Adopt the theme's colours."""
        self.model.colours = colours_of(self)
        self.table.viewport().update()

    def _choose(self, index: QModelIndex, before: QModelIndex) -> None:
        if index.isValid():
            self.chosen.emit(index.row())

    def _narrow(self) -> None:
        target = self.targets.currentText() if self.targets.currentIndex() > 0 else ""
        self.narrowed.emit(self.states.currentData() or "", target, self.text.text().strip())


class _Search(QLineEdit):
    """A search line that keeps Enter to itself; passed on, it would begin a note."""

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Pass on keys that do nothing in a line, except Enter."""
        super().keyPressEvent(event)
        if event.key() in (Qt.Key_Return, Qt.Key_Enter):
            event.accept()


class _Model(QAbstractTableModel):
    """The Qt model of the rows of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: Sequence[ListCell] = ()
        self.rows: list[Sequence[ListCell]] = []
        self.colours: Colours | None = None

    def fill(self, headers: Sequence[ListCell], rows: Sequence[Sequence[ListCell]]) -> None:
        self.beginResetModel()
        self.headers, self.rows = headers, list(rows)
        self.endResetModel()

    def rowCount(self, parent: Any = None) -> int:  # noqa: N802 - Qt's name
        return len(self.rows)

    def columnCount(self, parent: Any = None) -> int:  # noqa: N802 - Qt's name
        return len(self.headers)

    def headerData(self, section: int, orientation: Any, role: Any) -> Any:  # noqa: N802 - Qt's
        if orientation == Qt.Horizontal and section < len(self.headers):
            header = self.headers[section]
            return {Qt.DisplayRole: header.text, Qt.ToolTipRole: header.tip}.get(role)
        return None

    def data(self, index: QModelIndex, role: Any) -> Any:
        cell = self.rows[index.row()][index.column()]
        if role == Qt.DisplayRole:
            return cell.text
        if role == Qt.ToolTipRole:
            return cell.tip or cell.text
        if role == Qt.TextAlignmentRole:
            return int((Qt.AlignRight if cell.right else Qt.AlignLeft) | Qt.AlignVCenter)
        if role == Qt.ForegroundRole and cell.tone and self.colours is not None:
            return QColor(getattr(self.colours, cell.tone))
        return None


class _Table(QTableView):
    """A table whose rows are selected whole; it passes on all keys that do not scroll."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Predictions")
        self.setEditTriggers(QAbstractItemView.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectRows)
        self.setSelectionMode(QAbstractItemView.SingleSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollPerPixel)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.ElideMiddle)  # long names differ at their end
        self.setSortingEnabled(False)
        self.verticalHeader().hide()
        lines = self.verticalHeader()
        lines.setSectionResizeMode(QHeaderView.Fixed)
        lines.setMinimumSectionSize(0)
        lines.setDefaultSectionSize(self.fontMetrics().height() + PADDING)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setDefaultAlignment(Qt.AlignLeft | Qt.AlignVCenter)

    def fit_columns(self) -> None:
        """Make every column as wide as its first rows need, and the first as its widest state."""
        self.resizeColumnsToContents()
        widest = max(self.fontMetrics().horizontalAdvance(f"{MARK[each]} {each}") for each in MARK)
        self.setColumnWidth(0, max(self.columnWidth(0), widest + 3 * PADDING))

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Pass keys on, unless they scroll."""
        if event.key() in (Qt.Key_PageUp, Qt.Key_PageDown, Qt.Key_Home, Qt.Key_End):
            super().keyPressEvent(event)
        else:
            event.ignore()

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Show a few rows however low the window is."""
        lines = FEWEST_ROWS * self.verticalHeader().defaultSectionSize()
        bar = self.horizontalScrollBar().sizeHint().height()
        return QSize(120, int(self.horizontalHeader().sizeHint().height() + lines + bar + 4))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for no more: the layout gives the list what is free."""
        return self.minimumSizeHint()


def key_name(event: Any) -> str:
    """Return the name of a key event's key in napari's notation, such as "Shift+H"."""
    modifiers, name = event.modifiers(), QKeySequence(event.key()).toString()
    name = "Enter" if name == "Return" else name
    held = {"Ctrl": Qt.ControlModifier, "Alt": Qt.AltModifier, "Meta": Qt.MetaModifier}
    if len(name) > 1 or name.isalpha():  # the names of others include it already
        held["Shift"] = Qt.ShiftModifier
    return "+".join([*(each for each, flag in held.items() if modifiers & flag), name])


# --- What stands in a row ----------------------------------------------------------------------


def headers_of(session: Session) -> list[ListCell]:
    """Return the headers of the columns, while names are hidden only those that give none away."""
    headers = [ListCell("state"), ListCell("subject")]
    if session.blind is not None:
        return headers
    headers += [
        ListCell("target"),
        ListCell(
            "risk",
            "<p>How unusual a prediction is altogether. It sorts the list; it is not a "
            f"probability.</p><p>{NO_RISK}</p>",
        ),
        ListCell(
            "unusual", "<p>Measures that lie far from the others’ median, on the bad side.</p>"
        ),
    ]
    return headers + [
        ListCell(each.title, f"<p>{each.described}{f' In {each.unit}.' if each.unit else ''}</p>")
        for each in MEASURES.values()
    ]


def row_of(session: Session, entry: Entry) -> list[ListCell]:
    """Return what is known of a prediction, column by column."""
    words = STATES[session.state(entry)]
    tone = TONES.get(words, "faint")
    cells = [
        ListCell(f"{MARK[words]} {words}", session.note_of(entry), tone),
        ListCell(session.subject(entry)),
    ]
    if session.blind is not None:
        return cells
    numbers = {each.key: each for each in session.numbers(entry)}
    unusual = unusual_words(list(numbers.values()))
    warned = f"{counted(len(entry.warnings), 'warning')}" if entry.warnings else ""
    told = ", ".join(filter(None, (unusual, warned)))
    risky = "warning" if told else ""
    cells += [
        ListCell(session.target(entry)),
        ListCell(entry.risk_text, told or NO_RISK, risky, right=True),
        ListCell(told, "\n".join((told, *entry.warnings)), risky),
    ]
    for key in MEASURES:
        known = numbers.get(key)
        if known is None:
            cells.append(ListCell(NOTHING, "not known", "faint", right=True))
        else:
            marked = f"{known.value} {known.word}".strip()
            cells.append(ListCell(marked, known.words, "warning" if known.word else "", right=True))
    return cells


def sorted_by(session: Session, column: int) -> Callable[[Entry], Any] | None:
    """Return the key by which a column is sorted; None: the first order."""
    fixed: list[Callable[[Entry], Any]] = [
        lambda entry: list(STATES).index(session.state(entry)),
        session.subject,
        session.target,
        lambda entry: entry.risk,
        lambda entry: len(entry.outlying),
    ]
    if column < 0:
        return None
    if column < len(fixed):
        return fixed[column]
    key = list(MEASURES)[column - len(fixed)]
    return lambda entry: entry.numbers.get(key, float("-inf"))
