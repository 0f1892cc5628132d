"""Choose the device that torch computes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from napari_msp.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> torch.device:
    """Give a torch device by name.

    Parameters
    ----------
    name
        "auto" takes CUDA, else MPS (Apple), else the CPU. "cuda:1" names one of several GPUs.

    Raises
    ------
    UserError
        When this machine has no such device.
    """
    kind, colon, number = name.partition(":")
    if kind not in DEVICES or (colon and not number.isdecimal()):
        raise UserError(f"--device {name}: is unknown; choose from {', '.join(DEVICES)}")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind == "auto":
        return torch.device(next(each for each in ("cuda", "mps", "cpu") if available[each]))
    many = torch.cuda.device_count() if kind == "cuda" else 1
    if not available[kind] or int(number or 0) >= many:
        raise UserError(f"--device {name}: this machine has none; use --device auto")
    return torch.device(name)


@contextmanager
def borrowed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Keep a network on `device` while the block runs, then give the device's memory back.

    Whoever holds the model afterwards (a viewer, for hours) holds no memory of a GPU.
    """
    network.to(device)
    try:
        yield
    finally:
        network.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()
