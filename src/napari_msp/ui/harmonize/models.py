"""Models and devices to choose from, and the form kept in line with them.

Models are the packaged ones, then files that were added or trained. The latter are a list of paths
in the cache folder. Code that finishes a model calls `remember_model`; every open Harmonize sees
that the list changed and reads it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QFileSystemWatcher, QObject, QTimer

from napari_msp.errors import UserError
from napari_msp.files import version_of, write_json
from napari_msp.foreign_errors import explain
from napari_msp.formatting import counted
from napari_msp.networks.registry import title
from napari_msp.packaged import packaged_models
from napari_msp.strict_json import read_json
from napari_msp.ui.background import Latest
from napari_msp.ui.harmonize.form import ModelRow
from napari_msp.ui.phrasing import HARMONIZE_WORDS, said
from napari_msp.ui.preferences import Device, devices, kept_in, preferences
from napari_msp.ui.reading import Control

if TYPE_CHECKING:
    from napari_msp.model_file import Model
    from napari_msp.ui.harmonize.form import HarmonizeForm
    from napari_msp.ui.harmonize.run import Request

PAUSE = 200
"""Milliseconds that the list of models must rest before it is read again."""

LONGEST_LIST = 20
"""Number of models that are remembered; older ones can be added again."""

DATE = r"\d{4}-\d\d-\d\d(-\d+)?$"
"""Pattern of the end of a run's folder: its date, and a number if there were several."""


@dataclass(frozen=True)
class ListedModel:
    """A model that can be chosen.

    Attributes
    ----------
    label
        Name of the model and in its layers: "MSP", "MSP my-study".
    path
        File of the model.
    model
        Model as it was read.
    packaged
        Whether it comes with napari-msp, so that it cannot be removed from the list.
    stamp
        Version of the file when it was read, which reveals that it was rewritten.
    """

    label: str
    path: Path
    model: Model = field(compare=False)
    packaged: bool
    stamp: tuple[int, ...]

    @property
    def is_current(self) -> bool:
        """Whether its file is unchanged since it was read, or gone: the model can still be used."""
        return not self.path.is_file() or version_of(self.path) == self.stamp

    def as_of_now(self) -> Model:
        """Return the model that its file holds now, read again if the file was rewritten.

        Raises
        ------
        UserError
            If it can no longer be read.
        """
        from napari_msp.model_file import load_model

        return self.model if self.is_current else load_model(self.path)


def with_models_of_now(request: Request, listed: Sequence[ListedModel]) -> Request:
    """Update a request to what the models' files hold now; slow if one was rewritten.

    Raises
    ------
    UserError
        If one of them can no longer be read.
    """
    wanted = {each.label for each in request.passes}
    models = {each.label: each.as_of_now() for each in listed if each.label in wanted}
    passes = (replace(each, model=models.get(each.label, each.model)) for each in request.passes)
    return replace(request, passes=tuple(passes))


@dataclass(frozen=True)
class ModelList:
    """Models to choose from, and errors of those that could not be read."""

    models: tuple[ListedModel, ...] = ()
    problems: tuple[UserError, ...] = ()


def list_file() -> Path:
    """Return the file that lists added and trained models."""
    return preferences().cache / "models.json"


def remembered_models() -> list[Path]:
    """Return the added and trained models that are still there, the newest first."""
    # A list that is missing or damaged can be made again.
    with suppress(UserError):
        listed = read_json(list_file()).get("models", [])
        return [path for each in listed if (path := Path(str(each))).is_file()]
    return []


def remember_model(path: str | Path) -> None:
    """Put a model on Harmonize's list; one that is there already becomes the newest.

    Raises
    ------
    UserError
        If the cache folder cannot be written to.
    """
    path = Path(path).absolute()
    _write([path, *(each for each in remembered_models() if each != path)])


def forget_model(path: Path) -> None:
    """Remove a model from the list; its file stays."""
    _write([each for each in remembered_models() if each != path])


def read_models(known: ModelList = ModelList()) -> ModelList:
    """Read every model that can be chosen; takes seconds the first time, as torch is loaded.

    Parameters
    ----------
    known
        Models that were read before; unchanged files are not read again.
    """
    from napari_msp.model_file import load_model

    packaged = {path: title for title, path in packaged_models().items()}
    added = [path for path in remembered_models() if path not in packaged]
    before = {(each.path, each.stamp): each.model for each in known.models}
    read: dict[Path, tuple[Model, tuple[int, ...]]] = {}
    problems = []
    for path in [*packaged, *added]:
        try:
            stamp = version_of(path)
            read[path] = before.get((path, stamp)) or load_model(path), stamp
        except (UserError, OSError) as error:
            problems.append(explain(error))
    labels = {**_labels([path for path in added if path in read], read), **packaged}
    return ModelList(
        tuple(
            ListedModel(labels[path], path, model, path in packaged, stamp)
            for path, (model, stamp) in read.items()
        ),
        tuple(problems),
    )


class ModelShelf(QObject):
    """A reader of models in a thread, at once and whenever the list of models changes.

    Parameters
    ----------
    form
        Form that lists them and asks for more.

    Attributes
    ----------
    devices
        Devices that can be named; empty until they are known.
    """

    def __init__(self, form: HarmonizeForm, parent: QObject) -> None:
        super().__init__(parent)
        self._form = form
        self._list = ModelList()
        self.devices: tuple[Device, ...] = ()
        self._wanted: Path | None = None
        self._reading = Latest(self, self._show, self._fail, finish=True)
        self._soon = QTimer(self, singleShot=True, interval=PAUSE, timeout=self.read)
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(self._soon.start)
        form.models.remove_wanted.connect(self.remove)

    @property
    def models(self) -> tuple[ListedModel, ...]:
        """Models on the list."""
        return self._list.models

    def read(self) -> None:
        """Read the models again; unchanged ones cost nothing."""
        folder = list_file().parent
        with suppress(OSError):  # without the folder nothing is remembered anyway
            folder.mkdir(parents=True, exist_ok=True)
        if str(folder) not in self._watcher.directories():
            self._watcher.addPath(str(folder))
        known = self._list
        self._reading.ask(lambda control: _read(known))

    def add(self, path: str | Path) -> None:
        """Put a file on the list; an error is shown beside the list."""
        self._form.model_message.clear()
        known = self._list
        self._reading.ask(lambda control: _add(Path(path), known, control))

    def use(self, path: str | Path) -> None:
        """Tick one model alone, as soon as it is listed."""
        self._wanted = Path(path).absolute()
        self.read()

    def remove(self, label: str) -> None:
        """Remove a model from the list."""
        forget_model(next(each.path for each in self.models if each.label == label))
        self.read()

    def _show(self, read: tuple[ModelList, tuple[Device, ...]]) -> None:
        models, devices = read
        if not self.devices:
            self._form.set_devices(devices, preferences().device)
        self.devices = devices
        wanted = [each.label for each in models.models if each.path == self._wanted]
        if wanted or models.models != self.models:
            ticked = {row.label for row in self._form.models.checked}
            old = {each.path: each.label in ticked for each in self.models}
            # A model that is new on the list is ticked; at first only the packaged ones are.
            checked = wanted or [
                each.label
                for each in models.models
                if old.get(each.path, bool(old) or each.packaged)
            ]
            self._list = models
            self._form.set_models([_row(each) for each in models.models], checked)
        if wanted:
            self._wanted = None
        if models.problems:
            words = "\n".join(said(each, HARMONIZE_WORDS) for each in models.problems)
            self._form.model_message.show_message("warning", words)

    def _fail(self, error: UserError) -> None:
        self._form.model_message.show_message("error", said(error, HARMONIZE_WORDS))


def _read(known: ModelList) -> tuple[ModelList, tuple[Device, ...]]:
    return read_models(known), devices()


def _add(path: Path, known: ModelList, control: Control) -> Any:
    from napari_msp.model_file import load_model

    load_model(path)  # one that cannot be read is not remembered
    control.check()
    remember_model(path)
    return _read(known)


def _row(listed: ListedModel) -> ModelRow:
    card = listed.model.card
    subjects = counted(len(listed.model.training.get("subjects", [])), "subject")
    learned = "Statistics of" if "statistics" in listed.model.training else "Trained on"
    b_values = " and ".join(f"{each:.0f}" for each in card.sh.b_values)
    about = (
        f"<p><b>{listed.path.name}</b><br>{learned} {subjects}.<br>"
        f"Input voxels of {card.voxel_size:.2g} mm, b = {b_values} s/mm²."
        + "<br>First stages are shared by all targets." * (card.first_stages == "shared")
        + "".join(f"<br>Started from {each.get('name')}." for each in listed.model.ancestors[:1])
        + "</p>"
    )
    return ModelRow(
        listed.label,
        card.input,
        tuple(listed.model.targets),
        card.label,
        about,
        removable=not listed.packaged,
    )


def _labels(
    paths: Sequence[Path], read: Mapping[Path, tuple[Model, tuple[int, ...]]]
) -> dict[Path, str]:
    """Return names of added models: the kind, and the file if the list has others of that kind."""
    kinds = [model.kind for model, _ in read.values()]
    labels = {}
    for path in paths:
        kind = read[path][0].kind
        name = title(kind)
        own = partial(re.sub, f"-{kind}-{DATE}", "")  # of a run's folder, as Train proposes it
        labels[path] = name if kinds.count(kind) == 1 else f"{name} {_own_name(path, paths, own)}"
    return labels


def _own_name(path: Path, paths: Sequence[Path], short: Callable[[str], str]) -> str:
    """Return a file's stem, with as many folders before it as distinguish it from the others."""
    parts = _parts(path)
    others = [_parts(each) for each in paths if each != path]
    if short(parts[-1]) not in [short(other[-1]) for other in others]:
        return short(parts[-1])
    for depth in range(1, len(parts)):
        if all(other[-depth:] != parts[-depth:] for other in others):
            return " ".join(parts[-depth:])
    return " ".join(parts)


def _parts(path: Path) -> tuple[str, ...]:
    # A run's model is always called "model"; its folder names it.
    return path.parts[:-1] if path.stem == "model" else (*path.parts[:-1], path.stem)


def _write(paths: Sequence[Path]) -> None:
    with kept_in(list_file().parent):
        write_json(list_file(), {"models": [str(path) for path in paths[:LONGEST_LIST]]})
