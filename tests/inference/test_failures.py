"""Every error in one line, of the kind that decides what is offered."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from napari_msp.errors import UserError
from napari_msp.inference.failures import explain

EIGHT_PIB = 1 << 50


def raised(work):
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        raised(lambda: np.empty(EIGHT_PIB)),
        raised(lambda: torch.empty(EIGHT_PIB)),  # this machine's allocator
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_want_of_memory(error):
    failure = explain(error)
    assert failure.kind == "memory"
    assert "tile" in failure.message
    assert "cpu" in failure.message


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: no CUDA-capable device is detected"),
        RuntimeError("Found no NVIDIA driver on your system."),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: unspecified launch failure"),
    ],
    ids=str,
)
def test_lost_device(error):
    failure = explain(error)
    assert failure.kind == "device"
    assert "cpu" in failure.message
    assert str(error).splitlines()[0] in failure.message
    assert "\n" not in failure.message


def test_the_users_own_mistakes(tmp_path):
    assert explain(UserError("a.nii: is empty;\n give another")).message == (
        "a.nii: is empty; give another"
    )
    path = tmp_path / "gone.nii"
    failure = explain(raised(path.read_bytes))
    assert failure.kind == "user"
    assert str(path) in failure.message
    full = explain(OSError(28, "No space left on device"))  # what write() says, without a name
    assert full.kind == "user"
    assert "No space left on device" in full.message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AssertionError(), "AssertionError: no reason given"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError("Expected 5\n  channels"), "RuntimeError: Expected 5 channels"),
        (ValueError("memory"), "ValueError: memory"),
        (KeyboardInterrupt(), "KeyboardInterrupt: no reason given"),
    ],
)
def test_anything_else_keeps_its_type(error, message):
    failure = explain(error)
    assert failure.kind == "unexpected"
    assert failure.message == message


def test_explaining_loads_no_torch():
    """A window that tells of a bad file must not wait for it."""
    code = (
        "import sys; from napari_msp.inference.failures import explain; "
        "explain(RuntimeError('CUDA error')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
