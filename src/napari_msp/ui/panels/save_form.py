"""Where predictions are written, which of them, and on which gradient table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_msp.ui.glossary import tooltip
from napari_msp.ui.widgets.form import CheckList, FormRows, leave_wheel_alone
from napari_msp.ui.widgets.message import MessageLine

REPLACE = "Replace them"

TABLES = {"target": "of the target", "input": "of the input scan", "file": "from a file …"}
"""Where the directions of the written DWI come from."""


@dataclass(frozen=True)
class SaveChoices:
    """What the form says.

    Attributes
    ----------
    names
        Of the predictions to be written.
    folder
        Where to.
    gradients
        "target", "input" or a .bvec file.
    """

    names: tuple[str, ...]
    folder: str
    gradients: str


class SaveForm(QWidget):
    """The form.

    Signals
    -------
    save_wanted
        Save was pressed; only when the form is filled in.
    replace_wanted
        Files that are in the way may be replaced.
    closed
        The form is no longer wanted.
    """

    save_wanted = Signal()
    replace_wanted = Signal()
    closed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.names = CheckList()
        self.folder = _PathEntry("Choose a folder")
        self.table = QComboBox()
        for name, title in TABLES.items():
            self.table.addItem(title, name)
        leave_wheel_alone(self.table)
        self.bvec = _PathEntry("Choose a gradient table", "FSL directions (*.bvec *.bvecs)")
        self.message = MessageLine()
        self.save = QPushButton("&Save")
        self.close_button = QPushButton("Close")
        self._running = False
        self._lay_out()
        self._connect()
        self._refresh()

    def set_names(self, names: Sequence[str]) -> None:
        """List predictions; those that are new are ticked."""
        kept = [name for name in names if name not in self.names.names]
        self.names.set_names(names, [*self.names.checked, *kept])

    def set_running(self, running: bool) -> None:
        """Let nothing be changed while files are written."""
        self._running = running
        self._refresh()

    @property
    def choices(self) -> SaveChoices:
        """What the form says now."""
        table = str(self.table.currentData())
        return SaveChoices(
            names=tuple(self.names.checked),
            folder=self.folder.text,
            gradients=self.bvec.text if table == "file" else table,
        )

    def _lay_out(self) -> None:
        self.rows = FormRows()
        self.rows.add("names", "Predictions", self.names, "Each is written as files of its own.")
        self.rows.add(
            "folder", "F&older", self.folder, "Made when it is missing; its other files stay."
        )
        self.rows.add("table", "&Gradients", self.table, tooltip("gradients"), more=self.bvec)
        buttons = QHBoxLayout()
        buttons.addWidget(self.save)
        buttons.addWidget(self.close_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.rows)
        layout.addLayout(buttons)
        layout.addWidget(self.message)

    def _connect(self) -> None:
        self.names.changed.connect(self._refresh)
        self.folder.changed.connect(self._refresh)
        self.bvec.changed.connect(self._refresh)
        self.table.currentIndexChanged.connect(lambda _: self._refresh())
        self.save.clicked.connect(self.save_wanted)
        self.close_button.clicked.connect(self.closed)
        self.message.action.connect(lambda _: self.replace_wanted.emit())

    def _refresh(self) -> None:
        self.bvec.setVisible(self.table.currentData() == "file")
        said = self.choices
        complete = all((said.names, said.folder, said.gradients))
        self.rows.setEnabled(not self._running)
        self.save.setEnabled(complete and not self._running)


class _PathEntry(QWidget):
    """A path that is typed, or chosen in a dialog.

    Parameters
    ----------
    title
        Of the dialog.
    pattern
        Which files it shows; empty: it chooses folders.
    """

    changed = Signal()

    def __init__(self, title: str, pattern: str = "") -> None:
        super().__init__()
        self._title, self._pattern = title, pattern
        self.line = QLineEdit()
        self.line.textChanged.connect(self.changed)
        browse = QPushButton("Browse …")
        browse.setAccessibleName(title)
        browse.clicked.connect(self._browse)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(browse)
        self.setFocusProxy(self.line)

    @property
    def text(self) -> str:
        """The path."""
        return str(self.line.text()).strip()

    def _browse(self) -> None:
        if self._pattern:
            chosen, _ = QFileDialog.getOpenFileName(self, self._title, self.text, self._pattern)
        else:
            chosen = QFileDialog.getExistingDirectory(self, self._title, self.text)
        if chosen:
            self.line.setText(chosen)
