"""What went wrong, in one line: the only place that knows the errors of torch and of the system."""

import errno
from dataclasses import dataclass
from typing import Literal

from napari_msp.errors import UserError

OUT_OF_MEMORY = (
    "out of memory",  # CUDA, MPS
    "allocate memory",  # torch's allocator on Linux, the system
    "not enough memory",  # torch's allocator elsewhere
    "alloc_failed",  # cuDNN, cuBLAS
    "bad_alloc",  # C++
)
"""What torch says, in a RuntimeError, when memory is wanting."""

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


@dataclass(frozen=True)
class Failure:
    """Why a job failed.

    Attributes
    ----------
    kind
        "user": a mistake that the user can mend. "memory": too little of it. "device": a GPU that
        fails or is gone. "unexpected": none of these, so probably a bug.
    message
        One line, never empty, with the mend where one is known.
    """

    kind: Literal["user", "memory", "device", "unexpected"]
    message: str


def explain(error: BaseException) -> Failure:
    """Say in one line what went wrong and what to do about it."""
    if isinstance(error, UserError):
        return Failure("user", _line(error))
    if _is_memory(error):
        return Failure(
            "memory",
            "not enough memory; harmonize with a smaller tile (--tile), train with a smaller batch "
            "or crop (--batch, --crop), or compute on the CPU (--device cpu)",
        )
    if isinstance(error, OSError):
        name = error.filename or "file system"
        reason = error.strerror or _line(error)
        return Failure("user", f"{name}: {reason}; check space and permissions")
    if _is_device(error):
        return Failure(
            "device",
            f"the GPU failed or is gone ({_line(error)}); compute on the CPU (--device cpu), or "
            "start the program again",
        )
    return Failure("unexpected", f"{type(error).__name__}: {_line(error)}")


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or _says(error, OUT_OF_MEMORY)


def _is_device(error: BaseException) -> bool:
    return type(error).__name__ == "AcceleratorError" or _says(error, DEVICE_LOST)


def _says(error: BaseException, signs: tuple[str, ...]) -> bool:
    """Tell whether a RuntimeError, which is what torch raises, holds one of the signs."""
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no reason given"
