"""What shall be harmonized, with which models, to which platforms, and how."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QPushButton, QSpinBox, QWidget
from superqt.utils import signals_blocked

from napari_msp.options import Options
from napari_msp.ui.harmonize.model_choice import ModelChoice, ModelRow
from napari_msp.ui.harmonize.models import Device
from napari_msp.ui.phrasing import HARMONIZE_LABELS as LABELS
from napari_msp.ui.widgets.form import (
    CheckList,
    Section,
    fit_into_form,
    labelled,
    offer,
    on_enter,
    push_button,
    stacked,
    wrapped,
)
from napari_msp.ui.widgets.message import MessageLine

LARGEST_TILE = 512
"""Edge in input voxels."""


@dataclass(frozen=True)
class ScanRow:
    """A scan that is loaded.

    Attributes
    ----------
    title
        Such as "sub-01 ge_st".
    platform
        Empty where nobody knows.
    truths
        Platforms on which the same head was scanned, so that errors can be measured.
    doubts
        What is doubtful about it, in words.
    path
        Where it lies; empty in memory.
    """

    title: str
    platform: str
    truths: frozenset[str] = frozenset()
    doubts: tuple[str, ...] = ()
    path: str = ""


@dataclass(frozen=True)
class Choices:
    """What the form says.

    Attributes
    ----------
    scan
        Its number in the list.
    passes
        Label of a model and a target that it predicts, model by model.
    options
        How.
    maps
        Titles of those that become layers.
    """

    scan: int
    passes: tuple[tuple[str, str], ...]
    options: Options
    maps: tuple[str, ...]


class HarmonizeForm(QWidget):
    """The form.

    Attributes
    ----------
    run_wanted
        Harmonize was pressed, by mouse or by Enter; only when `problem` is empty.
    """

    run_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._scans: list[ScanRow] = []
        self._running = False
        self.empty = QWidget()
        self.load = QPushButton("L&oad acquisition …")
        self.sample = QPushButton("Open &simulated heads")
        self.scan = QComboBox()
        self.models = ModelChoice()
        self.model_message = MessageLine()
        self.targets = CheckList()
        self.device = QComboBox()
        self.advanced = Advanced()
        self.button = push_button(
            "Harmoni&ze", "Predict every ticked target with every ticked model (Enter)."
        )
        self.note, self.why_not, self.doubts = wrapped(), wrapped(), MessageLine()
        self._lay_out()
        self._connect()
        self._refresh()

    def set_scans(self, scans: Sequence[ScanRow], chosen: int) -> None:
        """List the scans that are loaded."""
        self._scans = list(scans)
        titles = [scan.title for scan in scans]
        offer(self.scan, titles, titles[chosen] if titles else "")
        for number, scan in enumerate(scans):
            self.scan.setItemData(number, scan.path, Qt.ToolTipRole)
        self._refresh()

    def set_models(self, models: Sequence[ModelRow], checked: Collection[str]) -> None:
        """List the models there are."""
        self.models.set_models(models, checked)
        stops = [self.add, *self.models.stops, self.targets]  # else the newest would come last
        for one, other in pairwise(stops):
            QWidget.setTabOrder(one, other)

    def set_devices(self, devices: Sequence[Device], chosen: str) -> None:
        """List devices; one that this machine has not cannot be chosen."""
        self.device.clear()
        for row, device in enumerate(devices):
            self.device.addItem(device.title, device.name)
            self.device.model().item(row).setEnabled(bool(device.kind))
        usable = [device.name for device in devices if device.kind]
        self.set_option("device", chosen if chosen in usable else "auto")

    def set_option(self, name: str, value: Any) -> None:
        """Fill in one of the options."""
        if name == "device":
            self.device.setCurrentIndex(self.device.findData(value))
        elif name == "tile":
            self.advanced.tile.setValue(value or 0)
        else:
            getattr(self.advanced, name).setChecked(value)

    def set_running(self, running: bool) -> None:
        """Let nothing be changed while work goes on."""
        self._running = running
        self._refresh()

    def run(self) -> None:
        """Ask for the run, if it can begin."""
        if self.button.isEnabled():
            self.run_wanted.emit()

    @property
    def choices(self) -> Choices:
        """What the form says now."""
        wanted = self.targets.checked
        return Choices(
            scan=self.scan.currentIndex(),
            passes=tuple(
                (model.label, target)
                for model in self.models.checked
                for target in model.targets
                if target in wanted
            ),
            options=Options(
                device=str(self.device.currentData() or "auto"),
                tile=self.advanced.tile.value() or None,
                resample=self.advanced.resample.isChecked(),
                rescale_b_value=self.advanced.rescale_b_value.isChecked(),
            ),
            maps=tuple(self.advanced.maps.checked),
        )

    @property
    def problem(self) -> str:
        """Why it cannot begin, in words; empty when it can."""
        if not self._scans:
            return "Load a scan first."
        if not self.models.boxes:
            return "Reading the models …"
        if not self.models.checked:
            return "Tick a model."
        return "" if self.choices.passes else "Tick a target."

    def _lay_out(self) -> None:
        self.add = push_button(
            "Add &model …", "Open a model file (.safetensors), such as one that Train wrote."
        )
        self.note.setToolTip("The same head was scanned there, so errors can be measured.")
        fit_into_form(self.scan, self.device)
        words = wrapped("No diffusion-weighted scan is loaded yet.")
        stacked(self.empty, words, self.load, self.sample)
        # No form layout: it does not give broken lines their height.
        self.parts = QWidget()
        stacked(
            self.parts,
            labelled("&Acquisition", self.scan, "acquisition", beside=self.scan),
            self.empty,
            labelled(LABELS["model"], self.models, "model", beside=self.add),
            self.models,
            labelled(LABELS["target"], self.targets, "target"),
            self.targets,
            labelled(LABELS["device"], self.device, "device", beside=self.device),
            Section("Advance&d", self.advanced),
        )
        self.words = QWidget()
        stacked(self.words, self.why_not, self.doubts, self.note, self.model_message)
        stacked(self, self.parts, self.button)

    def _connect(self) -> None:
        self.scan.currentIndexChanged.connect(lambda _: self._refresh())
        self.models.changed.connect(self._refresh)
        self.targets.changed.connect(self._refresh)
        self.button.clicked.connect(self.run)
        on_enter(self, self.run)

    def _refresh(self) -> None:
        """Bring targets, doubts and the button in line with scan and models."""
        chosen = self.scan.currentIndex()
        scan = self._scans[chosen] if 0 <= chosen < len(self._scans) else None
        self.empty.setVisible(not self._scans)
        self.scan.setVisible(bool(self._scans))
        self.models.mark(scan.platform if scan else "")
        self._list_targets()
        known = scan.truths & set(self.targets.checked) if scan else set()
        self.note.setText(f"Truth is known for {', '.join(sorted(known))}." if known else "")
        self.note.setVisible(bool(known))
        doubts = "\n".join(scan.doubts) if scan else ""
        if doubts != self.doubts.text:  # else they would be said anew
            self.doubts.show_message("warning", doubts)
        path = scan.path if scan else ""
        self.scan.setToolTip(path or "A scan whose layers are in the viewer.")
        self.parts.setEnabled(not self._running)
        self.button.setEnabled(not self._running and not self.problem)
        self.why_not.setText("" if self._running else self.problem)
        self.why_not.setVisible(bool(self.why_not.text()))

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
    """What has a good default."""

    def __init__(self) -> None:
        super().__init__()
        self.tile = QSpinBox()
        self.tile.setRange(0, LARGEST_TILE)
        self.tile.setSpecialValueText("as memory allows")
        self.tile.setSuffix(" voxels")
        fit_into_form(self.tile)
        self.resample = QCheckBox(LABELS["resample"])
        self.resample.setToolTip(
            "<p>A model is valid for one voxel size. With this, the SH image of a scan with other "
            "voxels is interpolated linearly first, which smooths it; predictions go back to the "
            "scan's voxels.</p>"
        )
        self.rescale_b_value = QCheckBox(LABELS["rescale_b_value"])
        self.rescale_b_value.setToolTip(
            "<p>A model is valid for one b-value. With this, the signal of a scan with another "
            "b-value is brought there by (S/S0)^(b_model/b): exact for mono-exponential decay, "
            "approximate in tissue.</p>"
        )
        self.maps = CheckList()
        tile = labelled(LABELS["tile"], self.tile, "tile", beside=self.tile)
        maps = QLabel("Maps that become layers")
        column = stacked(self, tile, self.resample, self.rescale_b_value, maps, self.maps)
        column.setContentsMargins(12, 0, 0, 0)


def first_target(names: Sequence[str], platform: str) -> list[str]:
    """Give the target that is ticked at first: of the input's protocol, on another scanner.

    Parameters
    ----------
    names
        Targets: "<scanner>_<protocol>". Where several will do, the scanner with the fewest
        protocols counts: in the paper's data Prisma, not Connectom.
    platform
        Input of the models.
    """
    scanners = [name.partition("_")[0] for name in names]
    protocol = platform.partition("_")[2]

    def far(name: str) -> tuple[bool, int]:
        scanner, _, own = name.partition("_")
        return own != protocol, scanners.count(scanner)

    return sorted(names, key=far)[:1]
