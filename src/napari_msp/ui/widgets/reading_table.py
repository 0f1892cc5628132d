"""A table of numbers to read: rows are selected whole, and copied by the keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QEvent, QRect, QSize, Qt
from qtpy.QtGui import QKeySequence, QPalette
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHeaderView,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
)
from superqt.utils import signals_blocked

MARGIN = 12
"""Pixels beside a name."""

Text = tuple[str, str]
"""Text of a cell, and its tooltip."""


class _Rows(QStyledItemDelegate):
    """A delegate that writes a name too long for its column above the numbers, on its own line.

    Every cell of the row writes its part: a selected cell would cover what another wrote there.
    """

    def initStyleOption(self, option: Any, index: Any) -> None:  # noqa: N802 - Qt's name
        super().initStyleOption(option, index)
        if self.parent().is_high(index.row()):
            option.text = f"\N{LINE SEPARATOR}{option.text}" if index.column() else ""

    def paint(self, painter: Any, option: Any, index: Any) -> None:
        super().paint(painter, option, index)
        table, first = self.parent(), index.siblingAtColumn(0)
        if not table.is_high(index.row()):
            return
        known = QStyleOptionViewItem(option)
        super().initStyleOption(known, first)
        left, metrics = table.columnViewportPosition(0) + MARGIN // 4, option.fontMetrics
        room = table.viewport().width() - MARGIN
        high = metrics.lineSpacing()
        line = QRect(left, option.rect.center().y() - high, room, high)
        is_chosen = bool(option.state & QStyle.State_Selected)
        painter.save()
        painter.setClipRect(option.rect)
        painter.setPen(
            known.palette.color(QPalette.HighlightedText if is_chosen else QPalette.Text)
        )
        painter.drawText(line, Qt.AlignLeft, metrics.elidedText(first.data(), Qt.ElideMiddle, room))
        painter.restore()


class ReadingTable(QTableWidget):
    """A column of names, and columns of numbers; the table is as high as its rows.

    Parameters
    ----------
    name
        Name of the table, for users who do not see it.
    widths
        Texts whose widths are the least and the largest width of the column of names.
    fewest_rows
        Number of rows for which room is needed; the rest is scrolled to, or seen where there is
        room. None: all.
    """

    def __init__(
        self,
        name: str,
        widths: tuple[str, str],
        fewest_rows: int | None = None,
    ) -> None:
        super().__init__()
        self._widths, self._fewest_rows = widths, fewest_rows
        self._copied: Sequence[Sequence[object]] = ((),)
        self._filled: tuple[Sequence[Text], Sequence[Sequence[Text]]] = (), ()
        self._high: list[int] = []
        self.setAccessibleName(name)
        self.setEditTriggers(QAbstractItemView.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectRows)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        scrolled = Qt.ScrollBarAlwaysOff if fewest_rows is None else Qt.ScrollBarAsNeeded
        self.setVerticalScrollBarPolicy(scrolled)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeToContents)
        self.horizontalHeader().setHighlightSections(False)
        self.horizontalHeader().sectionResized.connect(
            lambda column, _, width: self._fit_rows(width) if column == 0 else None
        )
        self.setItemDelegate(_Rows(self))
        high = QSizePolicy.Fixed if fewest_rows is None else QSizePolicy.Preferred
        policy = QSizePolicy(QSizePolicy.Expanding, high)
        policy.setHeightForWidth(fewest_rows is not None)
        self.setSizePolicy(policy)

    def fill(
        self,
        headers: Sequence[Text],
        rows: Sequence[Sequence[Text]],
        copied: Sequence[Sequence[object]],
    ) -> None:
        """Show rows under headers; a row of one cell is a title over those below it.

        Where headers and names stay the same, only changed cells are rewritten: an atlas has
        hundreds of rows.

        Parameters
        ----------
        headers, rows
            What is shown.
        copied
            What is copied, with full precision: titles of columns, and a line for each row that is
            no title.
        """
        self._copied = copied
        known, self._filled = self._filled, (headers, rows)
        if known[0] == headers and [row[0] for row in known[1]] == [row[0] for row in rows]:
            self._fill_again(known[1])
            return
        self.clearSpans()
        self.setColumnCount(len(headers))
        self.setRowCount(len(rows))
        self.horizontalHeader().setSectionResizeMode(0, QHeaderView.Stretch)
        for column, (text, tip) in enumerate(headers):
            header = QTableWidgetItem(text)
            header.setToolTip(tip)
            header.setTextAlignment(Qt.AlignCenter if column else Qt.AlignLeft | Qt.AlignVCenter)
            self.setHorizontalHeaderItem(column, header)
        for number, row in enumerate(rows):
            is_title = len(row) == 1 < len(headers)
            if is_title:
                self.setSpan(number, 0, 1, len(headers))
            for column, (text, tip) in enumerate(row):
                item = QTableWidgetItem(text)
                item.setToolTip(tip)
                side = Qt.AlignLeft if column == 0 else Qt.AlignRight
                item.setTextAlignment(side | Qt.AlignVCenter)
                font = item.font()
                font.setBold(is_title)
                item.setFont(font)
                self.setItem(number, column, item)
        self._fit_rows(self.columnWidth(0))

    def _fit_rows(self, width: int) -> None:
        """Make rows higher whose names do not fit into a column of `width` pixels."""
        metrics, room = self.fontMetrics(), width - MARGIN
        one, self._high = self.verticalHeader().defaultSectionSize(), []
        for number, row in enumerate(self._filled[1]):
            long = len(row) > 1 and metrics.horizontalAdvance(row[0][0]) > room
            two = max(one, 2 * metrics.lineSpacing() + MARGIN // 2)
            self.setRowHeight(number, two if long else one)
            self._high += [number] if long else []
        self.updateGeometry()

    def is_high(self, row: int) -> bool:
        """Return whether a row's name has a line of its own."""
        return row in self._high

    def _fill_again(self, before: Sequence[Sequence[Text]]) -> None:
        with signals_blocked(self.model()):  # else columns are measured again for each
            for number, (row, known) in enumerate(zip(self._filled[1], before, strict=True)):
                for column, (now, old) in enumerate(zip(row, known, strict=True)):
                    if now != old:
                        item = self.item(number, column)
                        item.setText(now[0])
                        item.setToolTip(now[1])
        last = self.model().index(self.rowCount() - 1, self.columnCount() - 1)
        self.model().dataChanged.emit(self.model().index(0, 0), last)

    def chosen_rows(self) -> list[int]:
        """Return the numbers of the selected rows, from the top."""
        return sorted({index.row() for index in self.selectedIndexes()})

    def copy(self) -> None:
        """Put the selected rows, or all, on the clipboard; a title stands for those below it."""
        chosen, title, lines = self.chosen_rows(), -1, iter(self._copied)
        kept = [next(lines)]
        for number, row in enumerate(self._filled[1]):
            if len(row) == 1:
                title = number
                continue
            line = next(lines)
            if not chosen or number in chosen or title in chosen:
                kept.append(line)
        texts = (["" if each is None else str(each) for each in line] for line in kept)
        QApplication.clipboard().setText("".join("\t".join(line) + "\n" for line in texts))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size at which only long names are cut off."""
        width = self._width_from(1) + self._name_width()
        if self.rowCount() > self._needed_rows:
            width += self.verticalScrollBar().sizeHint().width()
        return QSize(width, self._height_of(self.rowCount()))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Never cut a row off, a number or the first column's title."""
        return QSize(self._width_from(0), self._height_of(self._needed_rows))

    def heightForWidth(self, width: int) -> int:  # noqa: N802 - Qt's name
        """Ask for the rows that are needed: beside text that wraps, Qt ignores the least height."""
        return self._height_of(self._needed_rows)

    def _width_from(self, first: int) -> int:
        header = self.horizontalHeader()
        return self._edge + sum(
            int(header.sectionSizeHint(n)) for n in range(first, header.count())
        )

    @property
    def _needed_rows(self) -> int:
        rows = int(self.rowCount())
        return min(rows, self._fewest_rows or rows)

    @property
    def _edge(self) -> int:
        return 2 * int(self.frameWidth()) + 2

    def _height_of(self, count: int) -> int:
        rows = sum(self.rowHeight(row) for row in range(count))
        return int(self.horizontalHeader().sizeHint().height() + rows + self._edge)

    def _name_width(self) -> int:
        """Return the width at which names can be read whole, or nearly."""
        advance = self.fontMetrics().horizontalAdvance
        shortest, longest = map(advance, self._widths)
        whole = max((advance(row[0][0]) for row in self._filled[1] if len(row) > 1), default=0)
        return int(min(max(shortest, whole) + MARGIN, longest + 2 * MARGIN))

    def event(self, event: Any) -> bool:
        """Keep Ctrl+C from the window's own shortcuts while the table has the focus."""
        if event.type() == QEvent.ShortcutOverride and event.matches(QKeySequence.Copy):
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Copy rows, not a cell."""
        if event.matches(QKeySequence.Copy):
            self.copy()
        else:
            super().keyPressEvent(event)
