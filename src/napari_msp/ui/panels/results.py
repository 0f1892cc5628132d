"""What came of a run, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_msp.ui.glossary import tooltip
from napari_msp.ui.widgets.message import MessageLine, readable


class Results(QWidget):
    """A line for each prediction; hidden while there is none.

    Signals
    -------
    compare_wanted, save_wanted
        A button was pressed.
    """

    compare_wanted = Signal()
    save_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.lines = readable()
        self.lines.setTextFormat(Qt.PlainText)
        self.lines.setToolTip(tooltip("SH MSE"))
        self.notes = MessageLine()
        self.compare = QPushButton("&Compare")
        self.compare.setToolTip("Show the predictions beside the truth, as in Fig. 3.")
        self.save = QPushButton("Save as &NIfTI …")
        self.save.setToolTip("Write DWI, SH image and maps as files.")
        self.compare.clicked.connect(self.compare_wanted)
        self.save.clicked.connect(self.save_wanted)
        buttons = QHBoxLayout()
        buttons.addWidget(self.compare)
        buttons.addWidget(self.save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.lines)
        layout.addWidget(self.notes)
        layout.addLayout(buttons)
        self.show_results((), ())

    def show_results(self, lines: Sequence[str], notes: Sequence[str]) -> None:
        """Show a line for each prediction, and what a person must know of them."""
        self.lines.setText("\n".join(lines))
        self.notes.show_message("warning", "\n".join(notes))
        self.setVisible(bool(lines))
