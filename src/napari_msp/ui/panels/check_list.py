"""Names of which any number may be ticked."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QWidget

MOST_ROWS = 5
"""Rows that are seen at once; more are scrolled to."""


class CheckList(QListWidget):
    """A list with a box before each name; Space ticks it.

    It is as high as its names need, up to a few rows.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setTabKeyNavigation(False)
        self.itemChanged.connect(self.changed)
        self.set_names(())

    def set_names(self, names: Sequence[str], checked: Sequence[str] = ()) -> None:
        """List names, some of them ticked."""
        before = self.blockSignals(True)
        self.clear()
        for name in names:
            item = QListWidgetItem(name, self)
            item.setFlags(Qt.ItemIsEnabled | Qt.ItemIsSelectable | Qt.ItemIsUserCheckable)
            item.setCheckState(Qt.Checked if name in checked else Qt.Unchecked)
        self.blockSignals(before)
        self.setFixedHeight(self.sizeHint().height())
        self.changed.emit()

    @property
    def names(self) -> list[str]:
        """All names."""
        return [self.item(row).text() for row in range(self.count())]

    @property
    def checked(self) -> list[str]:
        """Ticked names, in the order of the list."""
        items = [self.item(row) for row in range(self.count())]
        return [item.text() for item in items if item.checkState() == Qt.Checked]

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Give room to all names, but not to a whole study."""
        row = self.sizeHintForRow(0) if self.count() else self.fontMetrics().height() + 6
        rows = min(max(1, self.count()), MOST_ROWS)
        return QSize(120, rows * row + 2 * self.frameWidth() + 2)
