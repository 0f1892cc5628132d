"""Errors are objects: what is wrong, with what, through which parameter, and what helps."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from napari_msp.data.acquisition import DoubtfulScan
from napari_msp.errors import (
    REMEDIES,
    Advice,
    All,
    Change,
    Choose,
    ComputeOnCPU,
    CountAsB0,
    DeviceLost,
    Doubt,
    Either,
    Give,
    Install,
    OutOfMemory,
    Overwrite,
    Remedy,
    Resample,
    RescaleBValue,
    Resume,
    RunJob,
    StartAfresh,
    Unexpected,
    UserError,
    Words,
    either,
    every,
    together,
)
from napari_msp.foreign_errors import error_from_json, error_to_json, explain

EIGHT_PIB = 1 << 50


def raised(work: Callable[[], Any]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


class Buttons(Words):
    """A front end of its own."""

    def parameter(self, name: str) -> str:
        return f"<{name}>"

    def setting(self, name: str, value: Any) -> str:
        return f"<{name}: {value}>"

    def job(self, name: str, parameter: str = "", value: Any = True) -> str:
        return f"the page {name}" + (f", <{parameter}: {value}>" if parameter else "")


PHRASES: list[tuple[Remedy, str, str]] = [
    (Advice("check the path"), "check the path", "check the path"),
    (Give("bval"), "give it with bval=", "give it with <bval>"),
    (
        Choose("b_value", (700, 1200.4)),
        "choose from 700, 1200 with b_value=",
        "choose from 700, 1200 with <b_value>",
    ),
    (Choose("mask"), "choose one with mask=", "choose one with <mask>"),
    (Change("batch", "a smaller"), "use a smaller batch=", "use a smaller <batch>"),
    (
        RunJob("import", "make cubes", "voxel_size", "auto"),
        "make cubes with `napari_msp.import_tree(…, voxel_size='auto')`",
        "make cubes with `the page import, <voxel_size: auto>`",
    ),
    (Overwrite(), "replace it with force=True", "replace it with <force: True>"),
    (Resume(), "continue with resume=True", "continue with <resume: True>"),
    (
        Resample(),
        "interpolate the SH image to that size with resample=True",
        "interpolate the SH image to that size with <resample: True>",
    ),
    (
        RescaleBValue(),
        "rescale the signal with rescale_b_value=True (an approximation)",
        "rescale the signal with <rescale_b_value: True> (an approximation)",
    ),
    (
        CountAsB0(60.0),
        "count them as b=0 with b0_threshold=60",
        "count them as b=0 with <b0_threshold: 60>",
    ),
    (
        RunJob("import", "bring the data into that form"),
        "bring the data into that form with `napari_msp.import_tree`",
        "bring the data into that form with `the page import`",
    ),
    (
        StartAfresh(),
        "start from nothing with start_from='nothing'",
        "start from nothing with <start_from: nothing>",
    ),
    (
        Install("cohort"),
        "run pip install 'napari-msp[cohort]'",
        "run pip install 'napari-msp[cohort]'",
    ),
    (ComputeOnCPU(), "compute on the CPU (device='cpu')", "compute on the CPU (<device: cpu>)"),
    (
        either(Change("tile", "a smaller"), ComputeOnCPU()),
        "use a smaller tile=, or compute on the CPU (device='cpu')",
        "use a smaller <tile>, or compute on the CPU (<device: cpu>)",
    ),
    (
        All((Resample(), Overwrite())),
        "interpolate the SH image to that size with resample=True, and replace it with force=True",
        "interpolate the SH image to that size with <resample: True>, and replace it with "
        "<force: True>",
    ),
]


@pytest.mark.parametrize(
    ("remedy", "python", "window"), PHRASES, ids=lambda value: type(value).__name__
)
def test_each_front_end_phrases_a_remedy_its_own_way(
    remedy: Remedy, python: str, window: str
) -> None:
    error = UserError("is odd", "a.nii", remedy=remedy)
    assert str(error) == f"a.nii: is odd; {python}"
    assert error.phrase(Buttons()) == f"a.nii: is odd; {window}"


def test_errors_that_stand_together_are_one_with_all_remedies() -> None:
    shell = UserError("has b = 1", "a.nii", "rescale_b_value", RescaleBValue())
    size = UserError("has wide voxels", "a.nii", "resample", Resample())
    file = UserError("exists already", "b.nii", "force", Overwrite())
    assert together([shell]) is shell
    made = together([shell, size, file])
    assert str(made) == (
        "a.nii: has b = 1; has wide voxels; b.nii: exists already; rescale the signal with "
        "rescale_b_value=True (an approximation), and interpolate the SH image to that size with "
        "resample=True, and replace it with force=True"
    )
    assert [type(each) for each in every(made.remedy)] == [RescaleBValue, Resample, Overwrite]
    assert str(error_from_json(error_to_json(made))) == str(made)


def test_one_remedy_for_several_errors_is_said_once() -> None:
    made = together([UserError("exists already", name, "force", Overwrite()) for name in "ab"])
    assert str(made) == "a: exists already; b: exists already; replace it with force=True"
    assert made.remedy == Overwrite()
    beside = Advice("put it next to the image")
    lost = [UserError("is missing", name, name, either(beside, Give(name))) for name in "ab"]
    assert str(together(lost)) == (
        "a: is missing; b: is missing; put it next to the image, or give it with a=, and give it "
        "with b="
    )


def test_a_doubt_knows_what_it_is_about_in_another_process_too() -> None:
    doubt = pickle.loads(pickle.dumps(DoubtfulScan("is odd: very", "a: b/dwi.nii.gz", "bval")))
    assert (doubt.words, doubt.subject, doubt.field) == ("is odd: very", "a: b/dwi.nii.gz", "bval")
    assert doubt == Doubt("is odd: very", "a: b/dwi.nii.gz")  # as a file of it gives it back
    assert str(doubt) == "a: b/dwi.nii.gz: is odd: very"


def test_every_kind_of_remedy_is_phrased_above() -> None:
    assert {type(remedy) for remedy, _, _ in PHRASES} == set(REMEDIES.values())


def test_a_remedy_carries_values_not_sentences() -> None:
    error = UserError("has a low b-value", remedy=CountAsB0(60))
    assert isinstance(error.remedy, CountAsB0)
    assert (error.remedy.threshold, error.remedy.parameter) == (60, "b0_threshold")


def test_what_is_wrong_begins_with_the_file_or_the_parameter() -> None:
    assert str(UserError("is odd", "a.nii", "mask")) == "a.nii: is odd"
    assert str(UserError("is odd", field="mask")) == "mask=: is odd"
    assert str(UserError("all is odd")) == "all is odd"
    assert UserError("is odd", "/far/away/a.nii").phrase(subject="a.nii") == "a.nii: is odd"


def test_a_path_that_looks_like_an_option_is_shown_unchanged() -> None:
    path = "/data/--mask/rigid--resample/my  scan/dwi.nii.gz"
    error = UserError("has NaN or infinite voxels", path, remedy=Advice("repair the image"))
    assert error.phrase(Buttons()) == f"{path}: has NaN or infinite voxels; repair the image"
    assert not any(isinstance(each, Resample) for each in every(error.remedy))


def test_an_error_is_one_line() -> None:
    assert str(UserError("is\n  odd", remedy=Advice("see\nthere"))) == "is odd; see there"


def test_remedies_come_one_by_one() -> None:
    cpu, smaller = ComputeOnCPU(), Change("tile", "a smaller")
    assert list(every(either(smaller, either(cpu, smaller)))) == [smaller, cpu, smaller]
    assert list(every(cpu)) == [cpu]
    assert list(every(None)) == []


@pytest.mark.parametrize("remedy", [None, *(remedy for remedy, _, _ in PHRASES)], ids=repr)
@pytest.mark.parametrize("kind", [UserError, OutOfMemory, DeviceLost, Unexpected])
def test_an_error_crosses_to_another_process_whole(
    kind: type[UserError], remedy: Remedy | None
) -> None:
    error = kind("is odd", "a.nii", "mask", remedy)
    for back in (
        error_from_json(json.loads(json.dumps(error_to_json(error)))),
        pickle.loads(pickle.dumps(error)),
    ):
        assert type(back) is kind
        assert (back.problem, back.subject, back.field) == ("is odd", "a.nii", "mask")
        assert back.remedy == remedy


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "SystemExit"},
        {"problem": 3},
        {"subject": ["a"]},
        {"remedy": {"kind": "Nothing"}},
        {"remedy": {"kind": "Give", "other": 1}},
        {"remedy": "Give"},
        {"remedy": {"kind": "Either", "remedies": [{"kind": "Nothing"}]}},
    ],
    ids=str,
)
def test_what_is_no_error_is_refused(change: dict[str, Any]) -> None:
    content = error_to_json(UserError("is odd")) | change
    with pytest.raises(ValueError):
        error_from_json(content)


def test_remedies_are_frozen_and_compare_by_value() -> None:
    assert Give("mask") == Give("mask") != Give("bval")
    assert all(kind.__dataclass_params__.frozen for kind in REMEDIES.values())  # type: ignore[attr-defined]
    assert [each.name for each in fields(Either)] == ["remedies"]


@pytest.mark.parametrize(
    ("error", "of_a_gpu"),
    [
        (MemoryError(), False),
        (raised(lambda: np.empty(EIGHT_PIB)), False),
        (raised(lambda: torch.empty(EIGHT_PIB)), False),  # this machine's allocator
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9."), False),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (OSError(12, "Cannot allocate memory"), False),
    ],
    ids=str,
)
def test_want_of_memory(error, of_a_gpu):
    failure = explain(error)
    assert type(failure) is OutOfMemory
    parameters = [getattr(each, "parameter", None) for each in every(failure.remedy)]
    assert parameters[:3] == ["tile", "batch", "crop"]
    assert (ComputeOnCPU() in every(failure.remedy)) is of_a_gpu


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
    assert type(failure) is DeviceLost
    assert ComputeOnCPU() in every(failure.remedy)
    assert str(error).splitlines()[0] in failure.problem
    assert "\n" not in failure.problem


def test_the_users_own_mistakes(tmp_path):
    mistake = UserError("is empty", "a.nii", remedy=Advice("give another"))
    assert explain(mistake) is mistake
    path = tmp_path / "gone.nii"
    failure = explain(raised(path.read_bytes))
    assert type(failure) is UserError
    assert failure.subject == str(path)
    assert failure.problem == "No such file or directory"
    full = explain(OSError(28, "No space left on device"))  # what write() says, without a name
    assert type(full) is UserError
    assert full.problem == "No space left on device"
    assert isinstance(full.remedy, Advice)


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
    assert type(failure) is Unexpected
    assert failure.problem == message


def test_explaining_loads_no_torch():
    """A window that tells of a bad file must not wait for it."""
    code = (
        "import sys; from napari_msp.foreign_errors import explain; "
        "explain(RuntimeError('CUDA error')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
