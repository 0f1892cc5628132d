"""What is wrong, in words beside what causes it, with the remedies that are one press away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from qtpy.QtCore import QEvent, QObject, QPoint, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QStyle,
    QVBoxLayout,
    QWidget,
)
from superqt import QFlowLayout

Severity = Literal["error", "warning", "note", "ok"]

SPOKEN = {"error": "Error", "warning": "Warning", "note": "Note", "ok": "In order"}
"""Severities in words, for those who do not see the sign."""

SIGNS = {
    "error": QStyle.SP_MessageBoxCritical,
    "warning": QStyle.SP_MessageBoxWarning,
    "note": QStyle.SP_MessageBoxInformation,
    "ok": QStyle.SP_DialogApplyButton,
}

LONG_WORD = re.compile(r"[^\s-]{30}")

IN_A_NUMBER = re.compile(
    r" (?=[=<×] \d)|(?<=[=<×]) (?=\d)|(?<=[▲▼]) (?=[+−])"
    r"|(?<=\d) (?=%|°|(?:s|ms|min|h|mm[²³]?|cm|ml|s/mm²|[kMG]i?B|SH units²?)(?![\w-]))"
)
"""Blanks at which no line ends: in "b = 1000 s/mm²", "▼ −63 %"."""

UNBROKEN = "\N{NO-BREAK SPACE}"

SIGN_SIZE = 16
"""Pixels."""


class MessageLine(QWidget):
    """Says one thing, or hides.

    Attributes
    ----------
    action : str
        The text of the action that was pressed.
    said
        Something is said, to be seen.
    """

    action = Signal(str)
    said = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.sign = QLabel()
        self.words = readable()
        self.words.setTextFormat(Qt.PlainText)
        self.words.setMinimumWidth(60)  # or a long file name would widen the window
        self.buttons: list[QPushButton] = []
        self._offers = QWidget()
        QFlowLayout(self._offers).setContentsMargins(0, 0, 0, 0)
        right = QVBoxLayout()
        right.setSpacing(2)
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
        self._show(severity, text, actions)
        if text:
            self.said.emit()

    def clear(self) -> None:
        """Hide the message."""
        self._offer(())
        self.words.setText("")
        self._appear()

    @property
    def text(self) -> str:
        """What is said; "" while hidden."""
        return str(self.words.text())

    def event(self, event: QEvent) -> bool:
        """Appear where it is put."""
        if event.type() == QEvent.ParentChange:
            self._appear()
        return bool(super().event(event))

    def _show(self, severity: Severity, text: str, actions: Sequence[str] = ()) -> None:
        if not text:
            self.clear()
            return
        self._offer(actions)
        self.sign.setPixmap(self.style().standardIcon(SIGNS[severity]).pixmap(SIGN_SIZE))
        self.sign.setAccessibleName(SPOKEN[severity])
        self.words.setText(text)
        self.words.setAccessibleName(f"{SPOKEN[severity]}: {text}")
        self._appear()

    def _appear(self) -> None:
        """Be seen while there are words, once there is a place: alone it would be a window."""
        self.setVisible(bool(self.text) and self.parent() is not None)

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


class Notices(MessageLine):
    """What is wrong with the fields of a form, or worth knowing; what is wrong stands first."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, tuple[Severity, str]] = {}

    def say(self, field: str, severity: Severity, words: str) -> None:
        """Say something of a field in place of what was said of it before; "" for nothing.

        Parameters
        ----------
        field
            As the form calls it.
        """
        before = self._said.pop(field, None)
        if words:
            self._said[field] = severity, words
        ranks = list(SPOKEN)
        said = sorted(self._said.items(), key=lambda each: ranks.index(each[1][0]))
        lines = [f"{name}: {words}" for name, (_, words) in said]
        self._show(said[0][1][0] if said else "note", "\n".join(lines))
        if words and self._said[field] != before:
            self.said.emit()


class MessagePlace(QScrollArea):
    """Words that have a place of one height, whatever is said: what does not fit is scrolled to.

    What was said last is seen, until somebody scrolls.

    Parameters
    ----------
    *parts
        From top to bottom; they take no room while they have nothing to say.
    least, lines
        That are seen at once where the window is low, and where there is room.
    """

    def __init__(self, *parts: QWidget, least: int = 1, lines: int = 1) -> None:
        super().__init__()
        self._least, self._lines = least, lines
        self._last: QWidget | None = None
        self._put: int | None = None  # where the bar was put; None: wherever it is, it may be moved
        self._soon = QTimer(self, singleShot=True, timeout=self._follow)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for part in parts:
            column.addWidget(part)
        column.addStretch()
        for line in inside.findChildren(MessageLine):
            line.said.connect(partial(self.bring, line))
        self.setFrameShape(QFrame.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setWidgetResizable(True)
        self.verticalScrollBar().rangeChanged.connect(self._bound)
        self.setWidget(inside)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the same whatever is said."""
        return QSize(1, self._least * self.fontMetrics().lineSpacing())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the same whatever is said."""
        return QSize(1, self._lines * self.fontMetrics().lineSpacing())

    def bring(self, part: QWidget) -> None:
        """Let a part be seen, once it has its place and as long as nobody scrolls."""
        self._last, self._put = part, None
        self._soon.start()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Keep what was said last in sight while words come or go above it."""
        if event.type() in (QEvent.LayoutRequest, QEvent.Resize):
            self._soon.start()
        return bool(super().eventFilter(watched, event))

    def _bound(self, _: int, high: int) -> None:
        """Know of the bar's own moves, where words are fewer for a moment: nobody scrolled."""
        if self._put is not None and self.verticalScrollBar().value() == self._put:
            self._put = min(self._put, high)
        self._soon.start()

    def _follow(self) -> None:
        bar = self.verticalScrollBar()
        if self._last is None or not self._last.isVisibleTo(self.widget()):
            return
        if self._put is not None and bar.value() != self._put:
            return  # somebody has scrolled
        top = self._last.mapTo(self.widget(), QPoint(0, 0)).y()
        lowest = top + self._last.height() - self.viewport().height()
        bar.setValue(min(top, max(lowest, bar.value())))  # what is too high begins at its beginning
        self._put = bar.value()


class Sentences(QLabel):
    """A label whose words are broken into lines, but not between a number and its unit."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setText(text)

    def setText(self, text: str) -> None:  # noqa: N802 - Qt's name
        """Show a text."""
        super().setText(IN_A_NUMBER.sub(UNBROKEN, text))

    def text(self) -> str:
        """Return it as it was said."""
        return str(super().text()).replace(UNBROKEN, " ")


def readable(text: str = "") -> Sentences:
    """Make a label for sentences, which can be copied by mouse and keyboard.

    It never makes its place wider; where words may be longer than a line, see `breakable`.
    """
    label = Sentences(text)
    label.setMinimumWidth(1)
    label.setTextInteractionFlags(Qt.TextSelectableByMouse | Qt.TextSelectableByKeyboard)
    return label


def breakable(text: str) -> str:
    """Let words longer than a line be broken: Qt breaks lines at blanks and hyphens alone.

    What is copied then holds marks that are not seen: not for paths.
    """
    return LONG_WORD.sub("\\g<0>\N{ZERO WIDTH SPACE}", text)


def confirmed(parent: QWidget, title: str, words: str, act: str) -> bool:
    """Ask before something is stopped; tell whether it is to be. Enter and Escape say no.

    Parameters
    ----------
    parent
        Over which it is asked.
    title, words
        What would be done.
    act
        On the button that does it.
    """
    box = QMessageBox(QMessageBox.Question, title, words, QMessageBox.Cancel, parent)
    button = box.addButton(act, QMessageBox.DestructiveRole)
    box.setDefaultButton(QMessageBox.Cancel)
    box.exec()
    return box.clickedButton() is button


class Sheet(QDialog):
    """A window over another, which can be used beside it, with a button that closes it.

    Parameters
    ----------
    parent
        Over which it stands.
    title
        Of the window.
    size
        In pixels.
    *parts
        From top to bottom; the last has the room that the others leave.
    """

    def __init__(self, parent: QWidget, title: str, size: tuple[int, int], *parts: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WA_DeleteOnClose)
        self.setWindowTitle(title)
        buttons = QDialogButtonBox(QDialogButtonBox.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        for part in (*parts, buttons):
            layout.addWidget(part)
        self.resize(*size)


def show_details(parent: QWidget, title: str, text: str, trace: str) -> QDialog:
    """Show what happened in a sentence, and all that a programmer wants to know of it."""
    details = QPlainTextEdit(trace)
    details.setReadOnly(True)
    details.setLineWrapMode(QPlainTextEdit.NoWrap)
    sheet = Sheet(parent, title, (640, 360), readable(text), details)
    sheet.open()
    return sheet


class Picture(QDialog):
    """A picture in a window of its own, as large as the window.

    Parameters
    ----------
    parent
        Over which it stands.
    title
        Of the window.
    png
        The picture.
    """

    def __init__(self, parent: QWidget, title: str, png: bytes) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WA_DeleteOnClose)
        self.setWindowTitle(title)
        self.pixels = QPixmap()
        self.pixels.loadFromData(png)
        self.label = QLabel()
        self.label.setMinimumSize(320, 200)
        self.label.setAccessibleName(title)
        QVBoxLayout(self).addWidget(self.label)
        self.resize(self.pixels.size())

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """Fit the picture into the window."""
        super().resizeEvent(event)
        size = self.label.size()
        self.label.setPixmap(self.pixels.scaled(size, Qt.KeepAspectRatio, Qt.SmoothTransformation))
