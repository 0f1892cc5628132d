"""Commands that are interrupted, or run out of memory, leave what they should."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from command_line import SCAN, SHORT, STEM, TRUTH, call, contents, refused

from napari_msp.commands.train import interrupt_flag


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from napari_msp.cli import main; sys.exit(main())"]
        + [str(argument) for argument in arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_training_leaves_a_checkpoint_and_resumes(number, study, tmp_path):
    path = tmp_path / "m.safetensors"
    settings = (
        *("--model", "shresnet", "--targets", "prisma_st", "--width", "0.1", "--crop", "6"),
        *("--epochs", 1, "--steps-per-epoch", 400, "--batch", 1, "--device", "cpu"),
        *("--start-from", "nothing"),  # the base is of another width, which is told
    )
    run = _start("train", study, path, *settings, "--events")
    assert run.stdout is not None
    lines = []
    for line in run.stdout:
        lines.append(line)
        if json.loads(line)["event"] == "step":
            break
    run.send_signal(number)
    rest, errors = run.communicate(timeout=300)
    events = [json.loads(line) for line in [*lines, *rest.splitlines()]]  # JSON lines only
    assert run.returncode == 130
    assert errors == ""
    assert [event["event"] for event in events[-2:]] == ["checkpointed", "stopped"]
    assert events[-1]["step"] < 100  # of 400: not at the end
    assert [file.name for file in tmp_path.iterdir()] == ["m.checkpoint.safetensors"]

    answer = call("train", study, path, *settings, "--events", "--resume")
    assert answer.status == 0
    resumed = [json.loads(line) for line in answer.stdout.splitlines()]
    assert resumed[0]["resumed_at"] == events[-1]["step"]
    assert resumed[-1]["event"] == "finished"
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.fixture(autouse=True)
def interruptible():
    """As in a terminal: a shell has SIGINT ignored by what it runs behind, and nohup SIGHUP."""
    as_usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in as_usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["harmonize", "maps", "compare"])
def test_an_interrupt_leaves_nothing(
    command, number, study, model, harmonized, tmp_path, monkeypatch
):
    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)  # the handler runs before that is over

    monkeypatch.setattr("napari_msp.signal.sh_image.write_json", interrupt)
    monkeypatch.setattr("napari_msp.evaluation.compare.write_json", interrupt)
    out = tmp_path / "new" / "folder"
    sh = harmonized / f"{STEM}_model-sh_param-coefficients_dwimap.nii.gz"
    arguments = {
        "harmonize": [study / SCAN, "--model", model, "--target", "all"],
        "maps": [study / SCAN],
        "compare": ["--truth", study / TRUTH, "--prediction", f"A={sh}"],
    }[command]
    answer = call(command, *arguments, "--out", out)
    assert answer.status == 130
    assert answer.errors == ["napari-msp: interrupted"]
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
)
def test_want_of_memory_is_one_line(error, study, model, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("napari_msp.inference.stages.run_whole_image", fail)
    harmonize = ("harmonize", study / SCAN, "--model", model, "--target", "all")
    assert "--tile" in refused(tmp_path, *harmonize, "--out", tmp_path / "out")


def test_a_bug_keeps_its_traceback(study, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("napari_msp.scan.fit_sh", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        call("maps", study / SCAN, "--out", tmp_path / "out")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error_of_the_file_system(study, tmp_path):
    train = ("train", study, tmp_path / "m.safetensors", "--model", "shresnet", *SHORT)
    run = _start(*train, "--steps-per-epoch", 400, "--start-from", "nothing", "--events")
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.readline()
    run.stdout.close()
    said = run.stderr.read()
    run.stderr.close()
    assert said.startswith("napari-msp: stopped, as nobody reads its output any more")
    assert said.count("\n") == 1
    assert run.wait() == 130
    assert [file.name for file in tmp_path.iterdir()] == ["m.checkpoint.safetensors"]


def test_handlers_of_signals_are_put_back_and_left_alone_by_other_threads():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with interrupt_flag() as asked:
        assert not asked()
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before

    def elsewhere() -> bool:
        with interrupt_flag() as asked:
            return asked()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() is False
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_closed_terminal_asks_a_training_to_stop_unless_nohup_has_it_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt_flag() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with interrupt_flag() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked()
    finally:
        signal.signal(signal.SIGHUP, before)
