"""A file or folder that is typed, dropped, or chosen in a dialog, and forms that begin with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QFileDialog, QGridLayout, QLineEdit, QPushButton, QWidget

from napari_msp.bids import NIFTI_SUFFIXES
from napari_msp.ui.widgets.form import FormRows

PAUSE = 500
"""Milliseconds without a key after which a typed path counts."""

NIFTI = "NIfTI images (*.nii.gz *.nii)"


class PathField(QWidget):
    """A line for a path, with buttons to browse.

    Parameters
    ----------
    title
        Title of the dialog, such as "Choose a mask".
    pattern
        Files that the dialog shows, in Qt's notation; empty: only folders can be chosen.
    folders
        Whether a folder may be chosen, too; the buttons are then under the line.

    Attributes
    ----------
    changed
        Emitted when the path changed, or Enter was pressed: what lies there may have changed.
    """

    changed = Signal()

    def __init__(self, title: str, pattern: str = "", folders: bool = False) -> None:
        super().__init__()
        self._title, self._pattern = title, pattern
        self._folder_title = "Choose a folder" if pattern else title
        self._emitted: str | None = ""
        self.line = _Line()
        self.line.dropped.connect(self.choose)
        self.file = QPushButton("F&ile …" if folders else "Browse …")
        self.file.setAccessibleName(title)
        self.file.clicked.connect(self._browse_file if pattern else self._browse_folder)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        if folders:
            self.folder = QPushButton("F&older …")
            self.folder.setAccessibleName("Choose a folder")
            self.folder.clicked.connect(self._browse_folder)
            layout.addWidget(self.line, 0, 0, 1, 2)
            layout.addWidget(self.file, 1, 0)
            layout.addWidget(self.folder, 1, 1)
        else:
            layout.addWidget(self.line, 0, 0)
            layout.addWidget(self.file, 0, 1)
        self.setFocusProxy(self.line)
        self._pause = QTimer(self, singleShot=True, interval=PAUSE, timeout=self.settle)
        self.line.textChanged.connect(self.line.setToolTip)  # the line may be too short for it
        self.line.textEdited.connect(lambda _: self._pause.start())
        self.line.editingFinished.connect(self.settle)
        self.line.returnPressed.connect(self.look_again)

    @property
    def path(self) -> Path | None:
        """The path that is shown; None where the line is empty."""
        text = str(self.line.text()).strip().strip("'\"")
        return Path(text).expanduser() if text else None

    def show_path(self, path: Path | None) -> None:
        """Show a path, without a signal."""
        self._pause.stop()
        self._emitted = "" if path is None else str(path)
        if path != self.path:
            self.line.setText(self._emitted)  # its end, which distinguishes files, stays visible

    def choose(self, path: str | Path) -> None:
        """Take a path as if it had been typed, with Enter."""
        self.line.setText(str(path))
        self.look_again()

    def settle(self) -> None:
        """Emit `changed` now if the path was not emitted yet."""
        self._pause.stop()
        now = "" if self.path is None else str(self.path)
        if now != self._emitted:
            self._emitted = now
            self.changed.emit()

    def look_again(self) -> None:
        """Emit `changed`, also where the path is the same."""
        self._emitted = None
        self.settle()

    def _browse_file(self) -> None:
        start = str(self.path or "")
        chosen, _ = QFileDialog.getOpenFileName(self, self._title, start, self._pattern)
        if chosen:
            self.choose(chosen)

    def _browse_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, self._folder_title, str(self.path or ""))
        if chosen:
            self.choose(chosen)


class FileForm(QWidget):
    """A form with entries of files, which can be dropped anywhere on it while no work runs.

    Attributes
    ----------
    paths
        Entries of paths; a dropped file goes to the first.
    rows, button
        Rows of entries, and the button that acts.
    act_wanted
        Emitted when the button or Enter was pressed and nothing is in the way.
    """

    act_wanted = Signal()

    paths: Sequence[PathField] = ()
    rows: FormRows
    button: QPushButton

    def __init__(self) -> None:
        super().__init__()
        self._running = False
        self.setAcceptDrops(True)

    def settle(self) -> None:
        """Let the latest typed text count now."""
        for path in self.paths:
            path.settle()

    def act(self) -> None:
        """Ask to act, if that can be done with the latest typed text."""
        self.settle()
        if self.button.isEnabled():
            self.act_wanted.emit()

    def check(self) -> None:
        """Say what is wrong, and enable what can be done."""
        raise NotImplementedError

    def say(self, field: str, problem: str) -> None:
        """Say what is wrong with a field, or with the first one where there is no such field."""
        self.check()
        self.rows.say(field if field in self.rows.names else self.rows.names[0], problem)

    def dragEnterEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Accept files anywhere."""
        if dropped_path(event) and not self._running:
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Take the first file."""
        event.acceptProposedAction()
        self.paths[0].choose(dropped_path(event))


class ExaminedForm(FileForm):
    """A form whose choice is examined elsewhere before it can be acted on.

    Subclasses define the entries.

    Its owner examines what `changed` carries, and reports the findings by `show_findings`; until
    then the form cannot act.

    Attributes
    ----------
    choice
        Present choice.
    findings
        Latest findings: they have the `choice` that they are of, and say whether it is `ready`.
    anew
        Whether the files may have changed since, so that nothing known before counts.
    changed : choice
        Emitted when something else was chosen.
    """

    changed = Signal(object)

    choice: Any
    findings: Any

    def __init__(self) -> None:
        super().__init__()
        self.anew = self._looking = self._act_then = False

    @property
    def can_act(self) -> bool:
        """Whether the choice was examined, and nothing is in the way."""
        return bool(self.findings.ready and not self._running and not self._looking)

    def show_findings(self, findings: Any) -> None:
        """Show findings, the choices they leave and what is wrong."""
        self.findings, self.choice = findings, findings.choice
        self.anew = self._looking = False
        self._show()
        self._refresh()
        wanted, self._act_then = self._act_then, False
        if wanted and findings.ready:
            self.act_wanted.emit()

    def set_running(self, running: bool) -> None:
        """Let nothing be changed while the work runs."""
        self._running = running
        self._refresh()

    def act(self) -> None:
        """Ask to act, once the latest choice has been examined."""
        self.settle()
        if self._looking:
            self._act_then = True
        elif self.can_act:
            self.act_wanted.emit()
        elif not self._running:
            self._choose(self.choice, anew=True)  # the obstacle may have gone

    def _choose(self, choice: Any, anew: bool = False) -> None:
        self.choice, self._looking, self.anew = choice, True, self.anew or anew
        self._refresh()
        self.changed.emit(choice)

    def _show(self) -> None:
        """Update the entries to the findings."""
        raise NotImplementedError

    def _refresh(self) -> None:
        """Show what makes sense now."""
        raise NotImplementedError


class _Line(QLineEdit):
    """A line that takes dropped files as paths, not as URLs."""

    dropped = Signal(str)

    def dragEnterEvent(self, event: Any) -> None:  # noqa: N802
        """Accept files."""
        if dropped_path(event):
            event.acceptProposedAction()
        else:
            super().dragEnterEvent(event)

    def dropEvent(self, event: Any) -> None:  # noqa: N802
        """Take the first file."""
        path = dropped_path(event)
        if path:
            event.acceptProposedAction()
            self.dropped.emit(path)
        else:
            super().dropEvent(event)


def dropped_path(event: Any) -> str:
    """Return the file or folder that a drag carries; "" for anything else. Images come first."""
    paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
    images = [path for path in paths if path.endswith(NIFTI_SUFFIXES)]
    return str(next(iter([*images, *paths]), ""))
