"""Which models and devices there are to choose from. No Qt.

Models are the packaged ones, then files that were added or trained.

The latter are a list of paths in the cache folder. Whoever finishes a model calls `remember_model`;
every open Harmonize sees that the list changed and reads it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_msp.errors import UserError, explain
from napari_msp.files import read_json, write_json
from napari_msp.networks.registry import title
from napari_msp.packaged import packaged_models
from napari_msp.ui.preferences import preferences

if TYPE_CHECKING:
    from napari_msp.model_file import Model

LONGEST_LIST = 20
"""Models that are remembered; older ones can be added again."""

DEVICE_TITLES = {"cpu": "CPU", "cuda": "CUDA (NVIDIA GPU)", "mps": "MPS (Apple GPU)"}

MISSING_DEVICES = {
    "cuda": "no NVIDIA GPU that torch can use",
    "mps": "only on Macs with Apple silicon",
}


@dataclass(frozen=True, eq=False)
class ListedModel:
    """A model that can be chosen.

    Attributes
    ----------
    label
        Names it, and the layers that it makes: "MSP", "MSP my-study".
    path
        Its file.
    model
        As it was read.
    packaged
        Whether it comes with napari-msp, so that it cannot be taken off the list.
    stamp
        Size and time of the file when it was read: tells a file that was written again.
    """

    label: str
    path: Path
    model: Model
    packaged: bool
    stamp: tuple[int, int]


@dataclass(frozen=True)
class ModelList:
    """What can be chosen, and what could not be read."""

    models: tuple[ListedModel, ...] = ()
    problems: tuple[UserError, ...] = ()


def list_file() -> Path:
    """Give the file that remembers added and trained models."""
    return preferences().cache / "models.json"


def remembered_models() -> list[Path]:
    """Give the added and trained models that are still there, the newest first."""
    # A list that is missing or damaged can be made again.
    with suppress(UserError):
        listed = read_json(list_file()).get("models", [])
        return [path for each in listed if (path := Path(str(each))).is_file()]
    return []


def remember_model(path: str | Path) -> None:
    """Put a model on the list that Harmonize offers; one that is there already becomes the newest.

    Raises
    ------
    UserError
        When the cache folder cannot be written to.
    """
    path = Path(path).absolute()
    _write([path, *(each for each in remembered_models() if each != path)])


def forget_model(path: Path) -> None:
    """Take a model off the list; its file stays."""
    _write([each for each in remembered_models() if each != path])


def read_models(known: ModelList = ModelList()) -> ModelList:
    """Read every model that can be chosen; takes seconds the first time, as torch is loaded.

    Parameters
    ----------
    known
        What was read before; files that did not change are not read again.
    """
    from napari_msp.model_file import load_model

    packaged = {path: title for title, path in packaged_models().items()}
    added = [path for path in remembered_models() if path not in packaged]
    before = {(each.path, each.stamp): each.model for each in known.models}
    read: dict[Path, tuple[Model, tuple[int, int]]] = {}
    problems = []
    for path in [*packaged, *added]:
        try:
            stamp = _stamp(path)
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


@dataclass(frozen=True)
class Device:
    """A device by name.

    Attributes
    ----------
    kind
        What it computes on: "cpu", "cuda" or "mps"; empty where this machine has none.
    title
        For a list; it says why a device cannot be chosen.
    """

    name: str
    kind: str
    title: str

    @property
    def usable(self) -> bool:
        """Whether this machine has it."""
        return bool(self.kind)


def devices() -> tuple[Device, ...]:
    """Give every device that can be named, the machine's own choice first."""
    from napari_msp.device import DEVICES

    return tuple(_device(name) for name in DEVICES)


def _labels(
    paths: Sequence[Path], read: Mapping[Path, tuple[Model, tuple[int, int]]]
) -> dict[Path, str]:
    """Name added models by kind, and by file where the list has another of that kind."""
    kinds = [model.kind for model, _ in read.values()]
    labels = {}
    for path in paths:
        kind = read[path][0].kind
        name = title(kind)
        labels[path] = name if kinds.count(kind) == 1 else f"{name} {_own_name(path, paths)}"
    return labels


def _own_name(path: Path, paths: Sequence[Path]) -> str:
    """Give a file's stem, with as many folders before it as tell it from the others."""
    parts = _parts(path)
    others = [_parts(each) for each in paths if each != path]
    for depth in range(1, len(parts)):
        if all(other[-depth:] != parts[-depth:] for other in others):
            return " ".join(parts[-depth:])
    return " ".join(parts)


def _parts(path: Path) -> tuple[str, ...]:
    # A run's model is always called "model"; its folder names it.
    return path.parts[:-1] if path.stem == "model" else (*path.parts[:-1], path.stem)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _write(paths: Sequence[Path]) -> None:
    write_json(list_file(), {"models": [str(path) for path in paths[:LONGEST_LIST]]})


def _device(name: str) -> Device:
    from napari_msp.device import choose_device

    try:
        kind = choose_device(name).type
    except UserError:
        return Device(name, "", f"{DEVICE_TITLES[name]}: {MISSING_DEVICES[name]}")
    title = DEVICE_TITLES[kind]
    return Device(name, kind, f"auto: {title}" if name == "auto" else title)
