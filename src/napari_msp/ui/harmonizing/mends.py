"""What can be done when a run fails: the command line's mends, in words of the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_msp.errors import DeviceLost, OutOfMemory, Unexpected, UserError
from napari_msp.ui.harmonizing.work import Request

FIRST_TILE, SMALLEST_TILE = 32, 8
"""Edges in input voxels: tried first where memory decided before, and not gone below."""

DETAILS = "Details …"


@dataclass(frozen=True)
class Mend:
    """Something to press.

    Attributes
    ----------
    text
        Of the button.
    field, value
        What of the request changes.
    """

    text: str
    field: str
    value: Any


def mends(error: UserError, request: Request, device: str) -> tuple[Mend, ...]:
    """Give what may help, the most promising first.

    Parameters
    ----------
    request
        What failed.
    device
        Kind of device that it ran on, such as "cuda".
    """
    if type(error) is UserError:
        return _allowances(str(error))
    on_cpu = Mend("Use the CPU", "device", "cpu")
    elsewhere = () if device == "cpu" else (on_cpu,)
    if isinstance(error, OutOfMemory):
        smaller = request.tile // 2 if request.tile else FIRST_TILE
        tiles = (Mend("Try a smaller tile", "tile", smaller),) if smaller >= SMALLEST_TILE else ()
        return tiles + elsewhere
    return elsewhere if isinstance(error, DeviceLost) else ()


def in_words(error: UserError, request: Request) -> str:
    """Say what went wrong, without the options of the command line."""
    message = str(error)
    acquisition = request.scan.acquisition
    if acquisition is not None and acquisition.path is not None:
        message = message.replace(str(acquisition.path), acquisition.path.name)
    problem, _, mend = message.rpartition("; ")
    words = problem if problem and "--" in mend else message
    if type(error) is not UserError:
        words = error.problem
    if words.split()[0].isalpha():  # else it is a file's name
        words = words[0].upper() + words[1:]
    words = words.removesuffix(".") + "."
    if isinstance(error, Unexpected):
        words += " This is a bug; its details help to mend it."
    return words


def _allowances(message: str) -> tuple[Mend, ...]:
    """Offer what the message names as an option of the command line."""
    if "--resample" in message:
        return (Mend("Allow interpolation and run again", "resample", True),)
    if "--b-value rescale" in message:
        return (Mend("Allow rescaling and run again", "rescale_b_value", True),)
    return ()
