"""Windows over napari's: questions, details, pictures, help; and the heading that opens help."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QLabel,
    QMessageBox,
    QPlainTextEdit,
    QTextBrowser,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_msp.ui.widgets.form import in_row, push_button, stacked
from napari_msp.ui.widgets.message import Sentences, readable

HINT = "First time here? See what it does on a simulated head, made once and kept."


def confirmed(parent: QWidget, title: str, words: str, act: str) -> bool:
    """Ask before something is stopped; return whether to stop it. Enter and Escape say no.

    Parameters
    ----------
    parent
        Window over which to ask.
    title, words
        Title of the question, and what would be done.
    act
        Text of the button that does it.
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
        Window that it stands over.
    title
        Title of the window.
    size
        Size in pixels.
    *parts
        Widgets from top to bottom; the last has the room that the others leave.
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
    """Show what happened in a sentence, and the traceback for programmers."""
    details = QPlainTextEdit(trace)
    details.setReadOnly(True)
    details.setLineWrapMode(QPlainTextEdit.NoWrap)
    sheet = Sheet(parent, title, (640, 360), readable(text), details)
    sheet.open()
    return sheet


class ResizedPicture(Sheet):
    """A picture that is as large as its window.

    Parameters
    ----------
    parent
        Window that it stands over.
    title
        Title of the window.
    png
        The picture.
    """

    def __init__(self, parent: QWidget, title: str, png: bytes) -> None:
        self.pixels, self.label = QPixmap(), QLabel()
        self.pixels.loadFromData(png)
        self.label.setMinimumSize(320, 200)
        self.label.setAccessibleName(title)
        super().__init__(parent, title, (self.pixels.width(), self.pixels.height()), self.label)

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Fit the picture into the window."""
        super().resizeEvent(event)
        size = self.label.size()
        self.label.setPixmap(self.pixels.scaled(size, Qt.KeepAspectRatio, Qt.SmoothTransformation))


def page_text(name: str) -> str:
    """Return the Markdown of a page of `napari_msp/help`, which the handbook includes, too."""
    return files("napari_msp").joinpath("help", f"{name}.md").read_text(encoding="utf-8")


def show_page(parent: QWidget, name: str) -> None:
    """Show a page, such as "harmonize", over a window, which can be used beside it."""
    text = page_text(name)
    browser = QTextBrowser()
    browser.setOpenExternalLinks(True)
    browser.setMarkdown(text)
    title = text.splitlines()[0].removeprefix("# ")
    Sheet(parent, f"Help: {title}", (600, 640), browser).show()


class Heading(QWidget):
    """The top row of a widget: its help, and a hint for newcomers.

    Parameters
    ----------
    name
        Name of the help page.

    Attributes
    ----------
    sample_wanted
        Emitted when a newcomer wants to see the sample.
    declined
        Emitted when the hint is no longer wanted.
    """

    sample_wanted = Signal()
    declined = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        self.help = QToolButton()
        self.help.setText("Help")
        self.help.setToolTip("<p>What this widget does, step by step.</p>")
        self.help.setAutoRaise(True)
        self.help.clicked.connect(lambda: show_page(self.window(), name))
        self.show_me = push_button("Show me", "<p>Open the simulated head, and Harmonize.</p>")
        self.decline = push_button("Not again", "<p>Never show this hint again.</p>")
        self.hint = QWidget()
        stacked(self.hint, Sentences(HINT), in_row(self.show_me, self.decline))
        self._row = in_row(self.hint, self.help)
        self._row.setStretch(0, 1)
        self._row.setAlignment(self.help, Qt.AlignTop | Qt.AlignRight)
        stacked(self, self._row)
        self.hint.hide()  # until it may be needed
        self.show_me.clicked.connect(self.sample_wanted)
        self.decline.clicked.connect(self.declined)

    def lead(self, title: QWidget) -> None:
        """Put a title beside the help; the hint has the whole width below both."""
        self._row.insertWidget(0, title, 1, Qt.AlignTop | Qt.AlignLeft)
        self.layout().addWidget(self.hint)
