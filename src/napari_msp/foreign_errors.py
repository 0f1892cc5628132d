"""Errors of torch, of pydantic and of the system, turned into errors of this package."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from napari_msp.errors import (
    Advice,
    Change,
    ComputeOnCPU,
    DeviceLost,
    OutOfMemory,
    Unexpected,
    UserError,
    either,
)

if TYPE_CHECKING:
    from pydantic import ValidationError


def explain(error: BaseException) -> UserError:
    """Say what went wrong as an error of this package.

    Returns
    -------
    The error itself where it is a `UserError`; `OutOfMemory`, `DeviceLost`, a `UserError` for what
    the file system refuses, and `Unexpected` for everything else.
    """
    if isinstance(error, UserError):
        return error
    if _is_memory(error):
        smaller = [Change(each, "a smaller") for each in ("tile", "batch", "crop")]
        elsewhere = [ComputeOnCPU()] if _says(error, OUT_OF_GPU_MEMORY) else []
        return OutOfMemory("not enough memory", remedy=either(*smaller, *elsewhere))
    if isinstance(error, OSError):
        advice = "check space and permissions"
        if isinstance(error, FileNotFoundError):
            advice = "see whether it is still there"
        elif error.errno == errno.ENAMETOOLONG:
            advice = "choose a shorter name"
        return UserError(
            error.strerror or _line(error),
            str(error.filename or "file system"),
            remedy=Advice(advice),
        )
    if _is_device(error):
        return DeviceLost(
            f"the GPU failed or is gone ({_line(error)})",
            remedy=either(ComputeOnCPU(), Advice("start the program again")),
        )
    return Unexpected(f"{type(error).__name__}: {_line(error)}")


def unreadable(path: str | Path, error: OSError, field: str | None = None) -> UserError:
    """Return what to raise where something cannot be read: what is not one's own is not damaged."""
    denied = isinstance(error, PermissionError)
    remedy = "ask its owner for the right to read it" if denied else "check the path"
    return UserError(f"cannot be read ({error.strerror})", path, field, Advice(remedy))


OUT_OF_GPU_MEMORY = (
    "out of memory",  # CUDA, MPS
    "alloc_failed",  # cuDNN, cuBLAS
)
"""What torch says, in a RuntimeError, when a GPU's memory is wanting."""

OUT_OF_MEMORY = (
    *OUT_OF_GPU_MEMORY,
    "allocate memory",  # torch's allocator on Linux, the system
    "not enough memory",  # torch's allocator elsewhere
    "bad_alloc",  # C++
)
"""What it says when any is."""

DEVICE_LOST = (
    "cuda error",
    "cuda driver",
    "nvidia driver",
    "device-side",
    "no cuda-capable device",
    "no cuda gpus",
    "cudnn",
    "cublas",
    "hip error",
    "mps backend",
    "metal",
)
"""What torch says, in a RuntimeError, when a GPU fails or is gone. Newer ones say it by their type,
AcceleratorError, too."""


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or _says(error, OUT_OF_MEMORY)


def _is_device(error: BaseException) -> bool:
    return type(error).__name__ == "AcceleratorError" or _says(error, DEVICE_LOST)


def _says(error: BaseException, signs: tuple[str, ...]) -> bool:
    """Return whether a RuntimeError, which is what torch raises, contains one of the signs."""
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no reason given"


def from_validation(error: ValidationError) -> UserError:
    """Turn pydantic's first complaint into an error with the field that it is about."""
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else None
    return UserError(validation_reason(first["msg"]), field=field)


def validation_reason(message: str) -> str:
    """Say what pydantic complains of as what goes on after a parameter's name.

    Examples
    --------
    >>> validation_reason("Input should be greater than or equal to 1")
    'must be greater than or equal to 1'
    """
    reason = message.removeprefix("Value error, ").replace("Input should", "must")
    if reason.startswith("Unable to parse"):  # more digits than a number has
        return "must be a smaller number"
    reason = reason.split(", unable")[0]
    return reason[0].lower() + reason[1:]


def first_reason(error: Exception) -> str:
    """Return the first complaint of a validation in one line, with the whole path to its field."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return shortened(_line(error))
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path, reason = ".".join(map(str, first["loc"])), validation_reason(first["msg"])
    return shortened(f"{path}: {reason}" if path else reason)


LONGEST_REASON = 300
"""Characters: what somebody wrote into a file must not fill the screen."""


def shortened(text: str) -> str:
    """Leave of a text what fits a message."""
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
