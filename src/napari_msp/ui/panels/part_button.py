"""A value in a diagram that can be asked for."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QPainter, QPen
from qtpy.QtWidgets import QAbstractButton, QWidget

from napari_msp.ui.diagram.drawing import Node
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.panels.diagram_boxes import Fonts, paint_box
from napari_msp.ui.widgets.colours import colours_of, mixed

RING = 3
"""Pixels around the box for the focus ring."""


class PartButton(QAbstractButton):
    """Paints a node, with a ring when it has the focus; checked is lit.

    Space and Enter press it, arrow keys go to the next or the previous one.
    """

    def __init__(self, node: Node, parent: QWidget) -> None:
        super().__init__(parent)
        self._node = node
        self.setCheckable(True)
        self.setCursor(Qt.PointingHandCursor)
        self.setFocusPolicy(Qt.StrongFocus)
        self.setToolTip(tooltip(node.term) + f"<p>{node.says}. Click to show it.</p>")
        self.setAccessibleName(node.says)

    def place(self, box: QRectF) -> None:
        """Lie around a box."""
        self.setGeometry(box.toAlignedRect().adjusted(-RING, -RING, RING, RING))

    def nextCheckState(self) -> None:  # noqa: N802
        """Stay as it is: what is lit is decided by what is shown, not by the click."""

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802
        """Let Enter press the button, as Space does."""
        if event.key() in (Qt.Key_Return, Qt.Key_Enter):
            self.click()
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: Any) -> None:  # noqa: N802
        """Paint the box."""
        parent = self.parentWidget()
        colours, fonts = colours_of(parent), Fonts.of(parent.font())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        box = QRectF(self.rect()).adjusted(RING, RING, -RING, -RING)
        fill = colours.lit if self.isChecked() else colours.box
        if self.underMouse():
            fill = mixed(fill, colours.text, 0.12)
        border = colours.lit if self.isChecked() else colours.line
        text = colours.ground if self.isChecked() else colours.text
        paint_box(painter, box, self._node, fonts, fill=fill, border=border, text=text)
        if self.hasFocus():
            painter.setBrush(Qt.NoBrush)
            painter.setPen(QPen(colours.text, 1.6))
            ring = QRectF(self.rect()).adjusted(1, 1, -1, -1)
            painter.drawRoundedRect(ring, ring.height() / 2, ring.height() / 2)
