"""Which devices this machine has, in words."""

from dataclasses import dataclass

from napari_msp.device import DEVICES, choose_device
from napari_msp.errors import UserError

TITLES = {"cpu": "CPU", "cuda": "CUDA (NVIDIA GPU)", "mps": "MPS (Apple GPU)"}

MISSING = {
    "cuda": "no NVIDIA GPU that torch can use",
    "mps": "only on Macs with Apple silicon",
}


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


def devices() -> tuple[Device, ...]:
    """Give every device that can be named, the machine's own choice first."""
    return tuple(_device(name) for name in DEVICES)


def _device(name: str) -> Device:
    try:
        kind = choose_device(name).type
    except UserError:
        return Device(name, "", f"{TITLES[name]}: {MISSING[name]}")
    return Device(name, kind, f"auto: {TITLES[kind]}" if name == "auto" else TITLES[name])
