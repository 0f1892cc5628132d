"""Packaged pages of the handbook, the button that opens one, and the hint for newcomers."""

from __future__ import annotations

from importlib.resources import files

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QTextBrowser, QToolButton, QWidget

from napari_msp.ui.widgets.form import in_row, push_button, stacked
from napari_msp.ui.widgets.message import Sentences, Sheet

HINT = "First time here? See what it does on a simulated head, made once and kept."


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
