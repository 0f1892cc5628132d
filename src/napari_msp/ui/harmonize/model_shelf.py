"""Keep a form's models and devices in line with this machine's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QFileSystemWatcher, QObject, QTimer

from napari_msp.ui.background import Control, Latest
from napari_msp.ui.harmonize.form import HarmonizeForm
from napari_msp.ui.harmonize.model_choice import ModelRow
from napari_msp.ui.harmonize.models import (
    Device,
    ListedModel,
    ModelList,
    devices,
    forget_model,
    list_file,
    read_models,
    remember_model,
)
from napari_msp.ui.phrasing import HARMONIZE_LABELS, FormWords, said
from napari_msp.ui.preferences import preferences

if TYPE_CHECKING:
    from napari_msp.errors import UserError

WORDS = FormWords(HARMONIZE_LABELS)

PAUSE = 200
"""Milliseconds that the list of models must rest before it is read again."""


class ModelShelf(QObject):
    """Reads models in a thread, at once and whenever the list of models changes.

    Parameters
    ----------
    form
        Where they are listed, and who asks for more.
    """

    def __init__(self, form: HarmonizeForm, parent: QObject) -> None:
        super().__init__(parent)
        self._form = form
        self._list = ModelList()
        self._devices: tuple[Device, ...] = ()
        self._wanted: Path | None = None
        self._reading = Latest(self, finish=True)
        self._reading.done.connect(self._show)
        self._reading.failed.connect(self._fail)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(PAUSE)
        self._soon.timeout.connect(self.read)
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(self._soon.start)
        form.remove_wanted.connect(self.remove)

    @property
    def models(self) -> tuple[ListedModel, ...]:
        """Models that are listed."""
        return self._list.models

    @property
    def device_kinds(self) -> Mapping[str, str]:
        """What each device that can be named computes on, such as {"auto": "cuda", …}."""
        return {device.name: device.kind for device in self._devices}

    def read(self) -> None:
        """Read the models anew; those that did not change cost nothing."""
        folder = list_file().parent
        with suppress(OSError):  # where it cannot be made nothing is remembered either
            folder.mkdir(parents=True, exist_ok=True)
        if str(folder) not in self._watcher.directories():
            self._watcher.addPath(str(folder))
        known = self._list
        self._reading.ask(lambda control: _read(known))

    def add(self, path: str | Path) -> None:
        """Put a file on the list; what is wrong with one stands beside the list."""
        self._form.model_message.clear()
        known = self._list
        self._reading.ask(lambda control: _add(Path(path), known, control))

    def use(self, path: str | Path) -> None:
        """Tick one model alone, as soon as it is listed."""
        self._wanted = Path(path).absolute()
        self.read()

    def remove(self, label: str) -> None:
        """Take a model off the list."""
        forget_model(next(each.path for each in self.models if each.label == label))
        self.read()

    def stop(self) -> None:
        """Read no more."""
        self._soon.stop()
        self._reading.stop()

    def _show(self, read: tuple[ModelList, tuple[Device, ...]]) -> None:
        models, devices = read
        if not self._devices:
            self._form.set_devices(devices, preferences().device)
        self._devices = devices
        if _stamps(models) != _stamps(self._list):
            ticked = {row.label for row in self._form.models.checked}
            old = {each.path: each.label in ticked for each in self.models}
            # What is new on a list that is looked at is wanted; at first only the packaged ones.
            checked = [
                each.label
                for each in models.models
                if old.get(each.path, bool(old) or each.packaged)
            ]
            self._list = models
            self._form.set_models([_row(each) for each in models.models], checked)
        self._tick_wanted()
        if models.problems:
            words = "\n".join(said(each, WORDS) for each in models.problems)
            self._form.model_message.show_message("warning", words)

    def _tick_wanted(self) -> None:
        labels = [each.label for each in self.models if each.path == self._wanted]
        if labels:
            self._wanted = None
            self._form.set_models([_row(each) for each in self.models], labels)

    def _fail(self, error: UserError) -> None:
        self._form.model_message.show_message("error", said(error, WORDS))


def _read(known: ModelList) -> tuple[ModelList, tuple[Device, ...]]:
    return read_models(known), devices()


def _add(path: Path, known: ModelList, control: Control) -> Any:
    from napari_msp.model_file import load_model

    load_model(path)  # one that cannot be read is not remembered
    control.check()
    remember_model(path)
    return _read(known)


def _stamps(models: ModelList) -> list[tuple[str, Path, tuple[int, int]]]:
    return [(each.label, each.path, each.stamp) for each in models.models]


def _row(listed: ListedModel) -> ModelRow:
    card = listed.model.card
    subjects = len(listed.model.training.get("subjects", []))
    about = (
        f"<p><b>{listed.path.name}</b><br>Trained on {subjects} subjects.<br>"
        f"Input voxels of {card.voxel_size:.2g} mm, b = {card.sh.b_value:.0f} s/mm².</p>"
    )
    return ModelRow(
        listed.label,
        card.input,
        tuple(listed.model.targets),
        card.label,
        about,
        removable=not listed.packaged,
    )
