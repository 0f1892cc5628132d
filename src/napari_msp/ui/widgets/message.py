"""What is wrong, in words beside what causes it, with the remedies that are one press away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QPainter, QPainterPath, QPen
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_msp.ui.widgets.colours import colours_of

Severity = Literal["error", "warning", "ok"]

SPOKEN = {"error": "Error", "warning": "Warning", "ok": "In order"}
"""Severities in words, for those who do not see the sign."""


class MessageLine(QWidget):
    """Says one thing, or hides.

    Attributes
    ----------
    action : str
        The text of the action that was pressed.
    """

    action = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.sign = _Sign()
        self.words = readable()
        self.words.setTextFormat(Qt.PlainText)
        self.words.setMinimumWidth(60)  # or a long file name would widen the window
        self.buttons: list[QPushButton] = []
        self._offers = QWidget()
        QHBoxLayout(self._offers).setContentsMargins(0, 0, 0, 0)
        right = QVBoxLayout()
        right.addWidget(self.words)
        right.addWidget(self._offers)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.sign, 0, Qt.AlignTop)
        right.setAlignment(Qt.AlignTop)
        layout.addLayout(right, 1)
        self.clear()

    def show_message(self, severity: Severity, text: str, actions: Sequence[str] = ()) -> None:
        """Say something; an empty text hides the line.

        Parameters
        ----------
        severity
            Which sign and colour it has.
        text
            Plain.
        actions
            Remedies offered as buttons, at most two.
        """
        if not text:
            self.clear()
            return
        self._offer(actions)
        self.sign.show_severity(severity)
        self.words.setText(text)
        self.words.setAccessibleName(f"{SPOKEN[severity]}: {text}")
        self.show()

    def clear(self) -> None:
        """Hide."""
        self._offer(())
        self.words.setText("")
        self.hide()

    @property
    def text(self) -> str:
        """What is said; "" while hidden."""
        return str(self.words.text())

    def _offer(self, actions: Sequence[str]) -> None:
        if len(actions) > 2:
            raise ValueError(f"at most two actions can be offered, not {len(actions)}")
        for button in self.buttons:
            button.hide()
            button.deleteLater()
        self.buttons = [self._button(text) for text in actions]
        self._offers.setVisible(bool(actions))

    def _button(self, text: str) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: self.action.emit(text))
        self._offers.layout().addWidget(button)
        return button


def readable(text: str = "") -> QLabel:
    """Make a label for sentences, which can be copied by mouse and keyboard."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextSelectableByMouse | Qt.TextSelectableByKeyboard)
    return label


class Details(QDialog):
    """What happened in a sentence, and all that a programmer wants to know of it.

    Parameters
    ----------
    parent
        Over which it stands.
    title
        Of the window.
    text, trace
        The sentence, and the rest.
    """

    def __init__(self, parent: QWidget, title: str, text: str, trace: str) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.trace = QPlainTextEdit(trace)
        self.trace.setReadOnly(True)
        self.trace.setLineWrapMode(QPlainTextEdit.NoWrap)
        buttons = QDialogButtonBox(QDialogButtonBox.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        for part in (readable(text), self.trace, buttons):
            layout.addWidget(part)
        self.resize(640, 360)


class _Sign(QWidget):
    """A cross in a disc, an exclamation mark in a triangle, or a tick in a disc."""

    EDGE = 16

    def __init__(self) -> None:
        super().__init__()
        self._severity: Severity = "ok"
        self.setFixedSize(QSize(self.EDGE, self.EDGE))

    def show_severity(self, severity: Severity) -> None:
        self._severity = severity
        self.setAccessibleName(SPOKEN[severity])
        self.update()

    def paintEvent(self, event: Any) -> None:  # noqa: N802
        """Paint the sign."""
        colours = colours_of(self)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        painter.setPen(Qt.NoPen)
        painter.setBrush(getattr(colours, self._severity))
        if self._severity == "warning":
            painter.drawPath(_path([(8, 1), (15.5, 15), (0.5, 15)], closed=True))
        else:
            painter.drawEllipse(QRectF(0.5, 0.5, 15, 15))
        pen = QPen(colours.ground, 1.8)
        pen.setCapStyle(Qt.RoundCap)
        painter.setPen(pen)
        painter.setBrush(Qt.NoBrush)
        for points in _STROKES[self._severity]:
            painter.drawPath(_path(points))


_STROKES: dict[Severity, list[list[tuple[float, float]]]] = {
    "error": [[(5, 5), (11, 11)], [(11, 5), (5, 11)]],
    "warning": [[(8, 6), (8, 10)], [(8, 12.7), (8, 12.8)]],
    "ok": [[(4.5, 8.3), (7, 10.8), (11.5, 5.6)]],
}


def _path(points: Sequence[tuple[float, float]], closed: bool = False) -> QPainterPath:
    path = QPainterPath(QPointF(*points[0]))
    for point in points[1:]:
        path.lineTo(QPointF(*point))
    if closed:
        path.closeSubpath()
    return path
