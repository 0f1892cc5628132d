"""Errors of torch, of pydantic, of the system and of other processes as errors of this package."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_msp.errors import (
    FAMILY,
    REMEDIES,
    Advice,
    All,
    Change,
    ComputeOnCPU,
    DeviceLost,
    Either,
    OutOfMemory,
    Remedy,
    Unexpected,
    UserError,
    either,
)

if TYPE_CHECKING:
    from pydantic import ValidationError


def explain(error: BaseException) -> UserError:
    """Translate any exception into an error of this package.

    Returns
    -------
    The error itself if it is a `UserError`; `OutOfMemory`, `DeviceLost`, a `UserError` for refusals
    of the file system, and `Unexpected` for everything else.
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
            advice = "check that it still exists"
        elif error.errno == errno.ENAMETOOLONG:
            advice = "choose a shorter name"
        return UserError(
            error.strerror or _line(error),
            str(error.filename or "file system"),
            remedy=Advice(advice),
        )
    if _is_device(error):
        return DeviceLost(
            f"the GPU failed or disappeared ({_line(error)})",
            remedy=either(ComputeOnCPU(), Advice("start the program again")),
        )
    return Unexpected(f"{type(error).__name__}: {_line(error)}")


def unreadable(path: str | Path, error: OSError, field: str | None = None) -> UserError:
    """Return the error for an unreadable file: lacking permission does not mean damage."""
    denied = isinstance(error, PermissionError)
    remedy = "ask its owner for read permission" if denied else "check the path"
    return UserError(f"cannot be read ({error.strerror})", path, field, Advice(remedy))


OUT_OF_GPU_MEMORY = (
    "out of memory",  # CUDA, MPS
    "alloc_failed",  # cuDNN, cuBLAS
)
"""Texts in torch's RuntimeError if a GPU runs out of memory."""

OUT_OF_MEMORY = (
    *OUT_OF_GPU_MEMORY,
    "allocate memory",  # torch's allocator on Linux, the system
    "not enough memory",  # torch's allocator elsewhere
    "bad_alloc",  # C++
)
"""Texts if any memory runs out."""

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
"""Texts in torch's RuntimeError if a GPU fails or disappears. Newer versions also have a type for
it, AcceleratorError."""


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or _says(error, OUT_OF_MEMORY)


def _is_device(error: BaseException) -> bool:
    return type(error).__name__ == "AcceleratorError" or _says(error, DEVICE_LOST)


def _says(error: BaseException, signs: tuple[str, ...]) -> bool:
    """Return whether a RuntimeError, which torch raises, contains one of the texts."""
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no reason given"


def from_validation(error: ValidationError) -> UserError:
    """Turn pydantic's first complaint into an error that names its field."""
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else None
    return UserError(validation_reason(first["msg"]), field=field)


def validation_reason(message: str) -> str:
    """Rephrase pydantic's complaint to follow a parameter's name.

    Examples
    --------
    >>> validation_reason("Input should be greater than or equal to 1")
    'must be greater than or equal to 1'
    """
    reason = message.removeprefix("Value error, ").replace("Input should", "must")
    if reason.startswith("Unable to parse"):  # more digits than a number can have
        return "must be a smaller number"
    reason = reason.split(", unable")[0]
    return reason[0].lower() + reason[1:]


def first_reason(error: Exception) -> str:
    """Return a validation's first complaint in one line, with the whole path to its field."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return shortened(_line(error))
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path, reason = ".".join(map(str, first["loc"])), validation_reason(first["msg"])
    return shortened(f"{path}: {reason}" if path else reason)


LONGEST_REASON = 300
"""Characters of a reason that are shown: a file's content must not fill the screen."""


def shortened(text: str) -> str:
    """Shorten a text to fit a message."""
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


# --- Errors of another process ------------------------------------------------------------------


def error_to_json(error: UserError) -> dict[str, Any]:
    """Return an error as plain values for another process."""
    return {
        "kind": type(error).__name__,
        "problem": error.problem,
        "subject": error.subject,
        "field": error.field,
        "remedy": _remedy_to_json(error.remedy),
    }


def error_from_json(content: dict[str, Any]) -> UserError:
    """Read the result of `error_to_json`.

    Raises
    ------
    ValueError
        When it is not one.
    """
    try:
        kind = FAMILY[content["kind"]]
        problem, subject, field = (content[name] for name in ("problem", "subject", "field"))
        if not isinstance(problem, str) or not all(
            each is None or isinstance(each, str) for each in (subject, field)
        ):
            raise ValueError("an error's texts must be texts")
        return kind(problem, subject, field, _remedy_from_json(content["remedy"]))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no error of this package: {error}") from error


def _remedy_to_json(remedy: Remedy | None) -> dict[str, Any] | None:
    if remedy is None:
        return None
    values = dict(vars(remedy))
    if isinstance(remedy, Either | All):
        values["remedies"] = [_remedy_to_json(each) for each in remedy.remedies]
    return {"kind": type(remedy).__name__, **values}


def _remedy_from_json(content: dict[str, Any] | None) -> Remedy | None:
    from pydantic import TypeAdapter

    if content is None:
        return None
    values = dict(content)
    kind = REMEDIES[values.pop("kind")]
    if issubclass(kind, Either | All):
        remedies = [_remedy_from_json(each) for each in values.pop("remedies")]
        return kind(tuple(each for each in remedies if each is not None), **values)
    fields = {each.name for each in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - fields):
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}")
    remedy: Remedy = TypeAdapter(kind).validate_python(values)
    return remedy
