"""A form whose choice is looked at elsewhere before anything can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_msp.ui.widgets.path_field import PathField, dropped_path


class ExaminedForm(QWidget):
    """The form; what it asks for is its subclass's.

    Whoever shows it looks at what `changed` carries, and gives what was found back by
    `show_findings`; until then nothing can be done.

    Attributes
    ----------
    choice
        What is chosen.
    findings
        What was found last: they have the `choice` that they are of, and say whether it is `ready`.
    paths
        Entries of files; what is dropped on the form goes to the first.
    changed : choice
        Something else was chosen.
    act_wanted
        The button was pressed, by mouse or by Enter; only when what was found is ready.
    """

    changed = Signal(object)
    act_wanted = Signal()

    choice: Any
    findings: Any
    paths: Sequence[PathField] = ()

    def __init__(self) -> None:
        super().__init__()
        self._looking, self._act_then, self._running = False, False, False
        self.setAcceptDrops(True)

    @property
    def can_act(self) -> bool:
        """Whether what is chosen was looked at, and nothing is in the way."""
        return bool(self.findings.ready and not self._running and not self._looking)

    def show_findings(self, findings: Any) -> None:
        """Show what was found, the choices it leaves and what is wrong."""
        self.findings, self.choice, self._looking = findings, findings.choice, False
        self._show()
        self._refresh()
        wanted, self._act_then = self._act_then, False
        if wanted and findings.ready:
            self.act_wanted.emit()

    def set_running(self, running: bool) -> None:
        """Let nothing be changed while it is done."""
        self._running = running
        self._refresh()

    def act(self) -> None:
        """Ask for it to be done; once what was chosen last has been looked at."""
        for path in self.paths:
            path.settle()
        if self._looking:
            self._act_then = True
        elif self.findings.ready and not self._running:
            self.act_wanted.emit()

    def dragEnterEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Welcome files anywhere."""
        if dropped_path(event) and not self._running:
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Take the first file."""
        event.acceptProposedAction()
        self.paths[0].choose(dropped_path(event))

    def _choose(self, choice: Any) -> None:
        self.choice, self._looking = choice, True
        self._refresh()
        self.changed.emit(choice)

    def _show(self) -> None:
        """Bring the entries up to what was found."""
        raise NotImplementedError

    def _refresh(self) -> None:
        """Show what makes sense now."""
        raise NotImplementedError
