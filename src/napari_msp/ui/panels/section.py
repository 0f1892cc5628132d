"""A part of a form that can be folded away."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QToolButton, QVBoxLayout, QWidget


class Section(QWidget):
    """A title that shows and hides what is under it, by mouse and by keyboard.

    Parameters
    ----------
    title
        May hold a mnemonic.
    body
        What is folded away.
    unfolded
        Whether it is seen at first.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, body: QWidget, unfolded: bool = False) -> None:
        super().__init__()
        self.body = body
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonTextBesideIcon)
        self.button.toggled.connect(self._fold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(body)
        self.button.setChecked(unfolded)
        self._fold(unfolded)

    def unfold(self, unfolded: bool) -> None:
        """Show or hide the body."""
        self.button.setChecked(unfolded)

    @property
    def unfolded(self) -> bool:
        """Whether the body is shown."""
        return bool(self.button.isChecked())

    def _fold(self, unfolded: bool) -> None:
        self.button.setArrowType(Qt.DownArrow if unfolded else Qt.RightArrow)
        self.body.setVisible(unfolded)
        self.toggled.emit(unfolded)
