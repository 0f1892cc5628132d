"""A user's preferences on a machine (File > Preferences > MSP Harmonization), and its devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from napari_msp.errors import Advice, UserError
from napari_msp.options import Precision

PLUGIN = "napari-msp"

DEVICE_TITLES = {"cpu": "CPU", "cuda": "CUDA (NVIDIA GPU)", "mps": "MPS (Apple GPU)"}

MISSING_DEVICES = {
    "cuda": "no NVIDIA GPU that torch can use",
    "mps": "only on Macs with Apple silicon",
}


@dataclass(frozen=True)
class Preferences:
    """Settings of this machine.

    Attributes
    ----------
    device
        "auto", "cpu", "cuda" or "mps".
    tile
        Edge of a tile in input voxels; None: as large as memory allows.
    memory
        Memory that a prediction may take, in GiB; None: half of what is free.
    precision
        Precision of convolutions.
    cache
        Folder for simulated heads and other things that can be made again.
    hint
        Whether newcomers are shown the way to the sample.
    """

    device: str
    tile: int | None
    memory: float | None
    precision: Precision
    cache: Path
    hint: bool


def preferences() -> Preferences:
    """Read the settings as they are now."""
    from napari.settings import get_plugin_settings
    from platformdirs import user_cache_path

    machine = get_plugin_settings(PLUGIN).machine
    folder = str(machine.cache_folder).strip()
    return Preferences(
        device=str(machine.device),
        tile=int(machine.tile) or None,
        memory=float(machine.memory) or None,
        precision=cast(Precision, str(machine.precision)),
        cache=Path(folder).expanduser() if folder else user_cache_path(PLUGIN),
        hint=bool(machine.hint),
    )


@contextmanager
def kept_in(cache: Path) -> Iterator[None]:
    """Add to an error of writing in the block how to choose another cache folder."""
    try:
        yield
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        remedy = Advice("choose a cache folder in File > Preferences > MSP Harmonization")
        raise UserError(error.problem, cache, error.field, remedy) from error


def hint_no_more() -> None:
    """Switch the hint for newcomers off; the preferences can bring it back."""
    from napari.settings import get_plugin_settings

    get_plugin_settings(PLUGIN).machine.hint = False


def letter_size() -> int:
    """Return napari's font size, in points."""
    from napari.settings import get_settings

    return int(get_settings().appearance.font_size)


@dataclass(frozen=True)
class Device:
    """A device by name.

    Attributes
    ----------
    kind
        Kind of device: "cpu", "cuda" or "mps"; "" where this machine has none.
    title
        Text for a list; it says why a device cannot be chosen.
    """

    name: str
    kind: str
    title: str


def devices() -> tuple[Device, ...]:
    """Return every device that can be named, the machine's own choice first."""
    from napari_msp.device import DEVICES

    return tuple(_device(name) for name in DEVICES)


def _device(name: str) -> Device:
    from napari_msp.device import choose_device

    try:
        kind = choose_device(name).type
    except UserError:
        return Device(name, "", f"{DEVICE_TITLES[name]}: {MISSING_DEVICES[name]}")
    title = DEVICE_TITLES[kind]
    return Device(name, kind, f"auto: {title}" if name == "auto" else title)
