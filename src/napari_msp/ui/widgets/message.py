"""Messages beside what causes them, with the remedies that are one press away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Literal

from qtpy.QtCore import QEvent, QObject, QPoint, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QStyle,
    QVBoxLayout,
    QWidget,
)
from superqt import QFlowLayout

Severity = Literal["error", "warning", "note", "ok"]

SPOKEN = {"error": "Error", "warning": "Warning", "note": "Note", "ok": "In order"}
"""Severities in words, for users who do not see the sign, from the gravest to the mildest."""

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
"""Blanks at which no line ends, as in "b = 1000 s/mm²" or "▼ −63 %"."""

UNBROKEN = "\N{NO-BREAK SPACE}"

SIGN_SIZE = 16
"""Edge of the sign, in pixels."""


class MessageLine(QWidget):
    """A line for one message; hidden while there is none.

    Attributes
    ----------
    action : str
        Emitted with the text of the action that was pressed.
    said
        Emitted when there is a message to be seen.
    """

    action = Signal(str)
    said = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.sign = QLabel()
        self.words = readable()
        self.words.setTextFormat(Qt.PlainText)
        self.words.setMinimumWidth(60)  # else a long file name would widen the window
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
        """Show a message; an empty text hides the line.

        Parameters
        ----------
        severity
            Severity, which selects sign and colour.
        text
            Plain text.
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
        """The message; "" while hidden."""
        return str(self.words.text())

    def event(self, event: QEvent) -> bool:
        """Appear when placed into a widget."""
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
        """Be visible while there is a text and a parent: alone it would be a window."""
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
    """Errors in a form's fields, and notes on them; errors stand first."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, tuple[Severity, str]] = {}

    def say(self, field: str, severity: Severity, words: str) -> None:
        """Replace what is said about a field; "" for nothing.

        Parameters
        ----------
        field
            The form's name of the field.
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
    """Messages in a place of fixed height: what does not fit is scrolled to.

    The latest message is visible until the user scrolls.

    Parameters
    ----------
    *parts
        Widgets from top to bottom; they take no room while they have nothing to say.
    least, lines
        Lines that are visible at once: in a low window, and where there is room.
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
        """Ask for the same height whatever the text."""
        return QSize(1, self._least * self.fontMetrics().lineSpacing())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the same height whatever the text."""
        return QSize(1, self._lines * self.fontMetrics().lineSpacing())

    def bring(self, part: QWidget) -> None:
        """Let a part be seen, once it has its place and until the user scrolls."""
        self._last, self._put = part, None
        self._soon.start()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Keep the latest message in sight while text comes or goes above it.

        A scroll area is a filter of the widget that it scrolls, by Qt's own doing.
        """
        if event.type() in (QEvent.LayoutRequest, QEvent.Resize):
            self._soon.start()
        return bool(super().eventFilter(watched, event))

    def _bound(self, _: int, high: int) -> None:
        """Track the bar's own moves while the text is short for a moment: nobody scrolled."""
        if self._put is not None and self.verticalScrollBar().value() == self._put:
            self._put = min(self._put, high)
        self._soon.start()

    def _follow(self) -> None:
        bar = self.verticalScrollBar()
        if self._last is None or not self._last.isVisibleTo(self.widget()):
            return
        if self._put is not None and bar.value() != self._put:
            return  # the user has scrolled
        top = self._last.mapTo(self.widget(), QPoint(0, 0)).y()
        lowest = top + self._last.height() - self.viewport().height()
        bar.setValue(min(top, max(lowest, bar.value())))  # one too high is shown from its top
        self._put = bar.value()


class Sentences(QLabel):
    """A label whose text is broken into lines, but not between a number and its unit."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setText(text)

    def setText(self, text: str) -> None:  # noqa: N802 - Qt's name
        """Show a text."""
        super().setText(IN_A_NUMBER.sub(UNBROKEN, text))

    def text(self) -> str:
        """Return the text as it was set."""
        return str(super().text()).replace(UNBROKEN, " ")


def readable(text: str = "") -> Sentences:
    """Make a label for sentences, which can be copied by mouse and keyboard.

    It never makes its place wider; for words longer than a line, see `breakable`.
    """
    label = Sentences(text)
    label.setMinimumWidth(1)
    label.setTextInteractionFlags(Qt.TextSelectableByMouse | Qt.TextSelectableByKeyboard)
    return label


def breakable(text: str) -> str:
    """Let words longer than a line be broken: Qt breaks lines at blanks and hyphens alone.

    Copied text then holds invisible marks, so do not use it for paths.
    """
    return LONG_WORD.sub("\\g<0>\N{ZERO WIDTH SPACE}", text)
