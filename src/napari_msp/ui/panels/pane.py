"""A column of panels in a dock: scrolled up and down where the window is low, never sideways."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

USUAL_WIDTH = 370
"""In pixels, for lines that are read easily."""


class Pane(QScrollArea):
    """As wide as its widest part needs at least.

    Parameters
    ----------
    parts
        From top to bottom.
    """

    def __init__(self, *parts: QWidget) -> None:
        super().__init__()
        inside = QWidget()
        column = QVBoxLayout(inside)
        for part in parts:
            column.addWidget(part)
        column.addStretch(1)
        self.setFrameShape(QFrame.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setWidgetResizable(True)
        self.setWidget(inside)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Leave room for the bar that scrolls."""
        width = (
            self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        )
        return QSize(width, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Show everything where there is room."""
        width = max(USUAL_WIDTH, self.minimumSizeHint().width())
        return QSize(width, self.widget().sizeHint().height())
