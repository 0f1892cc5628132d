"""The form of Harmonize: which scan, models, targets, and options."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QResizeEvent, QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QLabel,
    QPushButton,
    QSpinBox,
    QToolButton,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_msp.options import DESCRIBED, Options
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.phrasing import HARMONIZE_LABELS as LABELS
from napari_msp.ui.widgets.colours import Themed, colours_of
from napari_msp.ui.widgets.form import (
    CheckList,
    FormRows,
    Section,
    fit_into_form,
    in_row,
    offer,
    on_enter,
    push_button,
    stacked,
)
from napari_msp.ui.widgets.message import MessageLine, Notices, Sentences

if TYPE_CHECKING:
    from napari_msp.scan import Scan
    from napari_msp.ui.preferences import Device

LARGEST_TILE = 512
"""Largest edge of a tile, in input voxels."""


@dataclass(frozen=True)
class HarmonizeChoice:
    """The form's answers.

    Attributes
    ----------
    scan
        Number of the scan in the list.
    passes
        Label of a model and a target that it predicts, model by model.
    options
        Options of the run.
    maps
        Titles of the maps that become layers.
    """

    scan: int
    passes: tuple[tuple[str, str], ...]
    options: Options
    maps: tuple[str, ...]


class HarmonizeForm(QWidget):
    """The form of Harmonize.

    Attributes
    ----------
    run_wanted
        Emitted when the button or Enter was pressed and `problem` is empty.
    """

    run_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._scans: list[Scan] = []
        self._allowed: list[str] = []
        self._running, self._no_device = False, ""
        self.empty = QWidget()
        self.load = QPushButton("L&oad acquisition …")
        self.sample = QPushButton("Open sim&ulated heads")
        self.scan = QComboBox()
        self.models = ModelChoice()
        self.model_message = MessageLine()
        self.targets = CheckList()
        self.device = QComboBox()
        self.advanced = Advanced()
        self.section = Section("Advance&d", self.advanced)
        self.button = push_button(
            "Harmoni&ze", "Predict every ticked target with every ticked model (Enter)."
        )
        self.notices = Notices()
        self._lay_out()
        self._connect()
        self._refresh()

    def set_scans(self, scans: Mapping[str, Scan], chosen: int) -> None:
        """List the loaded scans by their titles."""
        self._scans = list(scans.values())
        offer(self.scan, list(scans), list(scans)[chosen] if scans else "")
        for number, scan in enumerate(self._scans):
            self.scan.setItemData(number, str(scan.path or ""), Qt.ToolTipRole)
        self._refresh()

    def set_models(self, models: Sequence[ModelRow], checked: Collection[str]) -> None:
        """List the models."""
        self.models.set_models(models, checked)
        # Else Tab would reach the newest last.
        stops = [self.scan, *self.models.stops, self.add, self.targets, self.device]
        for one, other in pairwise(stops):
            QWidget.setTabOrder(one, other)

    def set_devices(self, devices: Sequence[Device], chosen: str) -> None:
        """List devices; of those that this machine lacks none can be chosen, which is said."""
        without = [device.name for device in devices if not device.kind]
        titles = {device.name: device.title for device in devices}
        missing = chosen in without
        offer(self.device, titles, "auto" if missing else chosen, without)
        self._no_device = f"{titles[chosen]}; auto is taken." if missing else ""
        self._refresh()

    def set_option(self, name: str, value: Any) -> None:
        """Fill in one of the options."""
        if name == "device":
            self.device.setCurrentIndex(self.device.findData(value))
        else:
            self.advanced.set(name, value)

    def allow(self, values: Mapping[str, Any]) -> None:
        """Fill in options that the user was asked about, for this scan, and unfold them."""
        now = self.choices.options
        self._allowed = [
            name for name, yes in values.items() if yes is True and not getattr(now, name)
        ]
        for name, value in values.items():
            self.set_option(name, value)
        if not values.keys() <= {"device"}:
            self.section.unfold(True)

    def ask_again(self) -> None:
        """Undo what was allowed for another scan, and what was unfolded to show it."""
        if self._allowed:
            self.section.unfold(False)
        for name in self._allowed:
            self.set_option(name, False)
        self._allowed = []

    def set_running(self, running: bool) -> None:
        """Let nothing be changed while work goes on."""
        self._running = running
        self._refresh()

    def run(self) -> None:
        """Ask for the run, if it can begin."""
        if self.button.isEnabled():
            self.run_wanted.emit()

    @property
    def choices(self) -> HarmonizeChoice:
        """The present answers."""
        wanted = self.targets.checked
        return HarmonizeChoice(
            scan=self.scan.currentIndex(),
            passes=tuple(
                (model.label, target)
                for model in self.models.checked
                for target in model.targets
                if target in wanted
            ),
            options=Options(
                device=str(self.device.currentData() or "auto"), **self.advanced.values
            ),
            maps=tuple(self.advanced.maps.checked),
        )

    @property
    def _missing(self) -> tuple[str, str]:
        """What the run cannot begin without: a field, and words; empty when it can."""
        if not self._scans:
            return "scan", "Load a scan first."
        if not self.models.boxes:
            return "model", "Reading the models …"
        if not self.models.checked:
            return "model", "Tick a model."
        return ("", "") if self.choices.passes else ("target", "Tick a target.")

    def _lay_out(self) -> None:
        self.add = push_button(
            "Add &model …", "Open a model file (.safetensors), such as one that Train wrote."
        )
        fit_into_form(self.scan, self.device)
        words = Sentences("No diffusion-weighted scan is loaded yet.")
        stacked(self.empty, words, self.load, self.sample)
        self.rows = FormRows(self.notices)
        self.rows.add("scan", "&Acquisition", self.scan, tooltip("acquisition"), self.empty)
        self.rows.add("model", LABELS["model"], self.models, tooltip("model"), self.add)
        self.rows.add("target", LABELS["target"], self.targets, tooltip("target"))
        self.rows.add("device", LABELS["device"], self.device, tooltip("device"))
        stacked(self, self.rows, self.section, self.button)

    def _connect(self) -> None:
        self.scan.currentIndexChanged.connect(lambda _: self._refresh())
        self.device.currentIndexChanged.connect(lambda _: self._refresh())
        self.models.changed.connect(self._refresh)
        self.targets.changed.connect(self._refresh)
        self.button.clicked.connect(self.run)
        on_enter(self, self.run)

    def _refresh(self) -> None:
        """Update targets, doubts and the button to scan and models."""
        chosen = self.scan.currentIndex()
        scan = self._scans[chosen] if 0 <= chosen < len(self._scans) else None
        self.empty.setVisible(not self._scans)
        self.scan.setVisible(bool(self._scans))
        self.models.mark(scan.platform if scan else "")
        self._list_targets()
        known = set(scan.siblings).intersection(self.targets.checked) if scan else ()
        doubts = scan.acquisition.said() if scan and scan.acquisition else ()
        truth = f"Truth is known for {', '.join(sorted(known))}." if known else ""
        no_device = self._no_device if self.device.currentData() == "auto" else ""
        field, words = self._missing
        missing = {} if self._running else {field: words}
        self.rows.say("scan", note=missing.get("scan", ""), doubt="\n".join(doubts))
        self.rows.say("model", note=missing.get("model", ""))
        self.rows.say("target", note=missing.get("target", truth))
        self.rows.say("device", doubt=no_device)
        path = str(scan.path or "") if scan else ""
        self.scan.setToolTip(path or "A scan whose layers are in the viewer.")
        for part in (self.rows, self.section):
            part.setEnabled(not self._running)
        self.button.setEnabled(not self._running and not words)

    def _list_targets(self) -> None:
        models = self.models.checked
        names = list(dict.fromkeys(target for model in models for target in model.targets))
        if names == self.targets.names:
            return
        kept = [name for name in self.targets.checked if name in names]
        first = first_target(names, models[0].input if models else "")
        with signals_blocked(self.targets):
            self.targets.set_names(names, kept or first)


class Advanced(QWidget):
    """Options with a good default.

    Attributes
    ----------
    entries
        Entries by the names of fields of `Options`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tile = QSpinBox()
        self.tile.setRange(0, LARGEST_TILE)
        self.tile.setSpecialValueText("as memory allows")
        self.tile.setSuffix(" voxels")
        fit_into_form(self.tile)
        boxes = {name: QCheckBox(LABELS[name]) for name in ("resample", "rescale_b_value")}
        self.entries: dict[str, QSpinBox | QCheckBox] = {"tile": self.tile, **boxes}
        self.maps = CheckList()
        rows = FormRows(Notices())
        rows.add("tile", LABELS["tile"], self.tile, tooltip("tile"))
        for name, entry in self.entries.items():
            entry.setToolTip(f"<p>{escape(DESCRIBED[name].text, quote=False)}</p>{entry.toolTip()}")
        maps = QLabel("Maps that become layers")
        column = stacked(self, rows, *boxes.values(), maps, self.maps)
        column.setContentsMargins(12, 0, 0, 0)

    @property
    def values(self) -> dict[str, Any]:
        """The entries' values, by the names of fields."""
        return {
            name: entry.isChecked() if isinstance(entry, QCheckBox) else entry.value() or None
            for name, entry in self.entries.items()
        }

    def set(self, name: str, value: Any) -> None:
        """Fill in an entry."""
        entry = self.entries[name]
        if isinstance(entry, QCheckBox):
            entry.setChecked(value)
        else:
            entry.setValue(value or 0)


def first_target(names: Sequence[str], platform: str) -> list[str]:
    """Return the target that is ticked at first: of the input's protocol, on another scanner.

    Parameters
    ----------
    names
        Targets: "<scanner>_<protocol>". Where several fit, the scanner with the fewest protocols
        counts: in the paper's data Prisma, not Connectom.
    platform
        Input platform of the models.
    """
    scanners = [name.partition("_")[0] for name in names]
    protocol = platform.partition("_")[2]

    def far(name: str) -> tuple[bool, int]:
        scanner, _, own = name.partition("_")
        return own != protocol, scanners.count(scanner)

    return sorted(names, key=far)[:1]


# --- Models ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelRow:
    """A model, as the form lists it.

    Attributes
    ----------
    label
        Name of the model, different from all others'.
    input, targets
        Platforms that it reads and predicts.
    purpose
        Purpose in a sentence; may be empty.
    about
        Text for the tooltip: training subjects, voxel size, b-value.
    removable
        Whether it can be removed from the list.
    """

    label: str
    input: str
    targets: tuple[str, ...]
    purpose: str
    about: str
    removable: bool


class ModelChoice(QWidget):
    """A check box for each model.

    Attributes
    ----------
    changed
        Emitted when another set of models is ticked.
    remove_wanted : str
        Emitted with the label of a model to remove from the list.
    """

    changed = Signal()
    remove_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[_ModelRow] = []
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
        routes = [f"From {each.input} to {', '.join(each.targets)}" for each in models]
        said = zip(_once(routes), _once([each.purpose for each in models]), strict=True)
        self._rows = [
            _ModelRow(model, model.label in checked, "\n".join(filter(None, about)))
            for model, about in zip(models, said, strict=True)
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
        """Show at each model whether it was trained for scans of another platform.

        Parameters
        ----------
        platform
            Platform of the scan; empty where it is unknown.
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
        """Widgets at which the Tab key stops, in order."""
        return [each for row in self._rows for each in (row.box, row.remove)]

    def doubt(self, label: str) -> str:
        """Return what speaks against using a model for this scan; empty if nothing does."""
        return next(str(row.words.text()) for row in self._rows if row.model.label == label)


class _ModelRow(Themed):
    """One model: its box, its platforms, its purpose, and what speaks against it."""

    INDENT = 22

    def __init__(self, model: ModelRow, checked: bool, about: str) -> None:
        super().__init__()
        self.model = model
        route = f"{model.input} → {', '.join(model.targets)}"
        self.box = QCheckBox()
        self.box.setMinimumWidth(1)  # a long name is shortened, and widens nothing
        self.box.setAccessibleName(model.label)
        self.box.setChecked(checked)
        self.box.setAccessibleDescription(f"{route}. {model.purpose}")
        self.remove = QToolButton()
        self.remove.setText("Remove")
        self.remove.setAutoRaise(True)
        self.remove.setAccessibleName(f"Remove {model.label}")
        self.remove.setToolTip("Take this model off the list; its file stays.")
        self.remove.setVisible(model.removable)
        self.about = _words(about)
        self.words = _words("")
        top = in_row(self.box, self.remove)
        top.setStretch(0, 1)
        stacked(self, top, self.about, self.words).setSpacing(1)
        self.setToolTip(model.about)

    def warn(self, text: str) -> None:
        self.words.setText(text)
        self.words.setVisible(bool(text))

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Leave out the middle of a name that does not fit: names differ at either end."""
        super().resizeEvent(event)
        beside = self.INDENT + self.remove.sizeHint().width() * self.model.removable
        room = self.width() - beside - self.INDENT // 2
        name = self.fontMetrics().elidedText(self.model.label, Qt.ElideMiddle, room)
        self.box.setText(name.replace("&", "&&"))

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Adopt the theme's colours, which are known only now."""
        self.restyle()
        super().showEvent(event)

    def restyle(self) -> None:
        """Write in the theme's colours."""
        colours = colours_of(self)
        self.about.setStyleSheet(f"color: {colours.faint.name()}")
        self.about.setVisible(bool(self.about.text()))
        self.words.setStyleSheet(f"color: {colours.warning.name()}")


def _once(texts: list[str]) -> list[str]:
    """Return what is the same of all models with the last one only, to save height."""
    if len(texts) < 2 or not texts[0] or len(set(texts)) > 1:
        return texts
    return [*[""] * (len(texts) - 1), f"All {texts[0][0].lower()}{texts[0][1:]}"]


def _words(text: str) -> QLabel:
    label = Sentences(text)
    label.setTextFormat(Qt.PlainText)
    label.setIndent(_ModelRow.INDENT)  # a margin would be lost when a style is set
    return label
