"""Boxes that leave the wheel alone and fit into a narrow form."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QWidget

SHORTEST = 4
"""Letters that a box to choose from has room for at least."""


def leave_wheel_alone(widget: QWidget) -> None:
    """Let the wheel scroll the form instead of changing what happens to lie under the mouse."""
    if isinstance(widget, QComboBox | QAbstractSpinBox):
        widget.setFocusPolicy(Qt.StrongFocus)
        widget.installEventFilter(_Passing(widget))


def be_narrow(widget: QWidget) -> None:
    """Let a box be as narrow as the form, however long its words are."""
    if isinstance(widget, QComboBox):
        widget.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        widget.setMinimumContentsLength(SHORTEST)
    if isinstance(widget, QComboBox | QAbstractSpinBox):
        widget.setMinimumWidth(1)


class _Passing(QObject):
    """Passes the wheel on."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() == QEvent.Wheel:
            event.ignore()
            return True
        return False
