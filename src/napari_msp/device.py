"""Choose the device that torch computes on, and share it considerately."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from traceback import clear_frames
from typing import TypeVar

import torch
from torch import nn

from napari_msp.arrays import shared_by_threads
from napari_msp.errors import Choose, UserError
from napari_msp.options import Precision

DEVICES = ("auto", "cpu", "cuda", "mps")

AnyModule = TypeVar("AnyModule", bound=nn.Module)
"""A copy has the type of its original."""


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """Return a torch device by name.

    Parameters
    ----------
    name
        "auto" takes CUDA, else MPS (Apple), else the CPU. "cuda:1" names one of several GPUs.
    """
    name = str(name)
    kind, colon, number = name.partition(":")
    if kind not in DEVICES or (colon and not number.isdecimal()):
        raise UserError(f"there is no device {name!r}", None, "device", Choose("device", DEVICES))
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind == "auto":
        return torch.device(next(each for each in ("cuda", "mps", "cpu") if available[each]))
    many = torch.cuda.device_count() if kind == "cuda" else 1
    if not available[kind] or int(number or 0) >= many:
        usable = ("auto", *(each for each, there in available.items() if there))
        raise UserError(f"this machine has no {name}", None, "device", Choose("device", usable))
    return torch.device(name)


@contextmanager
def copied_to(network: AnyModule, device: torch.device) -> Iterator[AnyModule]:
    """Yield a copy of a network on `device` for the block, then free the device's memory.

    Jobs that run one network concurrently each have their own copy. The network itself stays on the
    CPU: its owner (a viewer, for hours) uses no GPU memory, and still has it if the GPU is lost.
    """
    copy = deepcopy(network)
    try:
        yield copy.to(device)
    except BaseException as error:
        # A traceback keeps its frames' variables, so an error kept for display would keep all
        # tensors of the failed pass: after "out of memory", everything there was.
        clear_frames(error.__traceback__)
        raise
    finally:
        copy.to("meta")  # frees the weights, even on a device that no longer responds
        if device.type == "cuda":
            torch.cuda.empty_cache()


@shared_by_threads
@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Compute in plain float32: no TF32, no autocast, and deterministic algorithms.

    The flags apply to the whole process.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic)
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = False, False, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute as `exact_arithmetic`, or with convolutions in half precision if asked for.

    In half precision, inputs and outputs of convolutions are rounded. What networks add their
    results to (the interpolated input, the coupling of reversible stacks) stays in float32.
    """
    with exact_arithmetic():
        if precision == "float32":
            yield
            return
        with torch.autocast(device.type, dtype=getattr(torch, precision)):
            yield


@contextmanager
def leave_a_core() -> Iterator[None]:
    """Compute with one thread fewer than there are cores (at least one) during the block.

    For work beside a window, which needs a core to stay responsive. OpenMP counts its threads for
    each calling thread, so this applies to torch's work in the thread that enters the block.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, _cores() - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


USUALLY_FREE = 6 * 2**30
"""Bytes assumed to be free if the system does not say (our choice)."""

UNLIMITED = 1 << 60
"""Limit from which there is none: control groups write the largest number that they know."""


def free_memory(root: Path = Path("/"), shared_by: int = 1) -> int:
    """Return the bytes that this process may still use without swapping or being killed.

    That is the memory that the system calls available, or less if a control group of the process
    (set by containers and batch systems) has less left under its limit. Cached files do not count
    as used.

    Parameters
    ----------
    root
        Root of the file system, for tests.
    shared_by
        Number of processes that share the machine's memory; group limits are taken as this one's
        own.
    """
    available = _field(root / "proc/meminfo", "MemAvailable:")
    of_machine = _free_pages() if available is None else 1024 * available
    return max(0, min([of_machine // shared_by, *_left_in_groups(root)]))


def _free_pages() -> int:
    """Guess without /proc: half of the memory on macOS, which only reports the total."""
    if sys.platform == "win32" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return USUALLY_FREE
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what is left under each limit of control groups, of either version."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    names = {
        "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        "memory": (
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    }
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller, (mount, limit, usage, cached) in names.items():
            if controller not in controllers.split(","):
                continue
            inside = Path(path.strip("/"))
            # A container may see its own group as the root, whatever its stated path.
            for group in (inside, *inside.parents) if inside.parts else (inside,):
                folder = root / mount / group
                most, taken = _number(folder / limit), _number(folder / usage)
                if most is not None and taken is not None and most < UNLIMITED:
                    yield most - taken + (_field(folder / "memory.stat", cached) or 0)


def _number(path: Path) -> int | None:
    """Read a file that holds one number; None for "max" or without such a file."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    """Read the number after a name at the beginning of a line."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.split()[:1] == [name]]
    return int(found[0][1]) if found else None
