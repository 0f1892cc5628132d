"""Models to choose from, any number of them, each with what it is for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QLabel, QToolButton, QWidget

from napari_msp.ui.widgets.colours import Themed, colours_of
from napari_msp.ui.widgets.form import in_row, stacked, wrapped


@dataclass(frozen=True)
class ModelRow:
    """What is shown of a model.

    Attributes
    ----------
    label
        Its name, different from all others'.
    input, targets
        Platforms.
    purpose
        What it is for, in a sentence; may be empty.
    about
        For the tooltip: training subjects, voxel size, b-value.
    removable
        Whether it can be taken off the list.
    """

    label: str
    input: str
    targets: tuple[str, ...]
    purpose: str
    about: str
    removable: bool


class ModelChoice(QWidget):
    """A box to tick for each model.

    Attributes
    ----------
    changed
        Another set of models is ticked.
    remove_wanted : str
        The label of a model that shall be taken off the list.
    """

    changed = Signal()
    remove_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[_Row] = []
        self._platform = ""
        self.waiting = QLabel("Reading the models …")
        self._layout = stacked(self, self.waiting)
        self._layout.setSpacing(6)

    def set_models(self, models: Sequence[ModelRow], checked: Collection[str]) -> None:
        """List models, some of them ticked."""
        self.waiting.hide()
        for row in self._rows:
            row.hide()
            row.deleteLater()
        said = [model.purpose for model in models]
        if len(said) > 1 and said[0] and len(set(said)) == 1:  # once: a low window has little room
            said = [*[""] * (len(said) - 1), f"All {said[0][0].lower()}{said[0][1:]}"]
        self._rows = [
            _Row(model, model.label in checked, purpose)
            for model, purpose in zip(models, said, strict=True)
        ]
        for row in self._rows:
            self._layout.addWidget(row)
            row.box.toggled.connect(self.changed)
            row.remove.clicked.connect(
                lambda _=False, label=row.model.label: self.remove_wanted.emit(label)
            )
        self.mark(self._platform)
        self.changed.emit()

    def mark(self, platform: str) -> None:
        """Say at each model whether it was trained for scans of another platform.

        Parameters
        ----------
        platform
            Of the scan; empty where nobody knows.
        """
        self._platform = platform
        for row in self._rows:
            other = bool(platform) and platform != row.model.input
            row.warn(f"For scans of {row.model.input}; this is {platform}." if other else "")

    @property
    def checked(self) -> tuple[ModelRow, ...]:
        """Ticked models, in the order of the list."""
        return tuple(row.model for row in self._rows if row.box.isChecked())

    @property
    def boxes(self) -> dict[str, QCheckBox]:
        """The box of each model, by its label."""
        return {row.model.label: row.box for row in self._rows}

    @property
    def stops(self) -> list[QWidget]:
        """What the tabulator key leads to, in order."""
        return [each for row in self._rows for each in (row.box, row.remove)]

    def doubt(self, label: str) -> str:
        """Give what is said against using a model for this scan; empty when nothing."""
        return next(str(row.words.text()) for row in self._rows if row.model.label == label)


class _Row(Themed):
    """One model: its box, where it leads, what it is for, and what speaks against it."""

    INDENT = 22

    def __init__(self, model: ModelRow, checked: bool, purpose: str) -> None:
        super().__init__()
        self.model = model
        route = f"{model.input} → {', '.join(model.targets)}"
        self.box = QCheckBox(model.label.replace("&", "&&"))
        self.box.setChecked(checked)
        self.box.setAccessibleDescription(f"{route}. {model.purpose}")
        self.remove = QToolButton()
        self.remove.setText("Remove")
        self.remove.setAutoRaise(True)
        self.remove.setAccessibleName(f"Remove {model.label}")
        self.remove.setToolTip("Take this model off the list; its file stays.")
        self.remove.setVisible(model.removable)
        self.about = _words(f"{route}\n{purpose}".strip())
        self.words = _words("")
        top = in_row(self.box, self.remove)
        top.setStretch(0, 1)
        stacked(self, top, self.about, self.words).setSpacing(1)
        self.setToolTip(model.about)

    def warn(self, text: str) -> None:
        self.words.setText(text)
        self.words.setVisible(bool(text))

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Take the theme's colours, which are known only now."""
        self.restyle()
        super().showEvent(event)

    def restyle(self) -> None:
        """Write in the theme's colours."""
        colours = colours_of(self)
        self.about.setStyleSheet(f"color: {colours.faint.name()}")
        self.words.setStyleSheet(f"color: {colours.warning.name()}")


def _words(text: str) -> QLabel:
    label = wrapped(text)
    label.setTextFormat(Qt.PlainText)
    label.setContentsMargins(_Row.INDENT, 0, 0, 0)
    return label
