"""Training in a child process: every ending is told once, and no child outlives its window."""

import os
import signal
import subprocess
import sys

import pytest

from napari_msp.errors import Change, OutOfMemory, every
from napari_msp.files import reserved
from napari_msp.learning.events import Checkpointed, Failed
from napari_msp.learning.runs import RunFolder
from napari_msp.learning.settings import TrainingSettings
from napari_msp.ui.train.process import Ending, TrainingProcess


@pytest.fixture
def folder(tmp_path, heads):
    """A run that takes a minute if it is not stopped."""
    settings = TrainingSettings(
        kind="shresnet",
        targets=("prisma_st",),
        held_out=("sub-03",),
        width=0.1,
        crop=8,
        batch=2,
        epochs=300,
        steps_per_epoch=10,
        start_from="nothing",
    )
    return RunFolder.create(tmp_path / "run", heads, settings, device="cpu")


@pytest.fixture
def process(qtbot):
    """A training process that notes all that it tells."""
    process = TrainingProcess()
    process.events, process.endings = [], []
    process.reported.connect(process.events.append)
    process.ended.connect(process.endings.append)
    return process


@pytest.fixture
def wait_for(qtbot, process):
    def wait(name):
        """Wait for an event, or for the end."""

        def came():
            told = [event.name for event in process.events]
            assert name in told or process.endings, told

        qtbot.waitUntil(came)
        assert name in [event.name for event in process.events], process.endings

    return wait


@pytest.fixture
def end_of(qtbot, process):
    def wait():
        if not process.endings:
            qtbot.waitUntil(lambda: bool(process.endings))
        qtbot.wait(50)
        assert len(process.endings) == 1
        assert not process.running
        return process.endings.pop()

    return wait


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Let a shell script stand for Python."""

    def make(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return make


def is_free(folder):
    """Return whether no process is in the folder."""
    try:
        with reserved(folder.path):
            return True
    except Exception:
        return False


@pytest.mark.slow
def test_stopped_then_resumed(folder, process, wait_for, end_of):
    process.start(folder.path)
    assert process.running
    with pytest.raises(RuntimeError, match="under way"):
        process.start(folder.path)
    wait_for("previewed")
    wait_for("step")
    process.stop()
    assert end_of() == Ending("stopped")
    assert (folder.state, folder.resumable) == ("stopped", True)
    assert process.events == folder.events()
    assert [event.name for event in process.events[-2:]] == ["checkpointed", "stopped"]

    done = process.events[-1].step
    process.events.clear()
    process.start(folder.path, resume=True)
    process.stop()  # before it could even begin
    assert end_of() == Ending("stopped")
    assert process.events[0].resumed_at == done


def test_killed_from_outside_is_a_failure_in_words(folder, process, wait_for, end_of):
    process.start(folder.path)
    wait_for("checkpointed")
    os.kill(process._child.processId(), signal.SIGKILL)
    ending = end_of()
    assert ending.outcome == "failed"
    assert isinstance(ending.error, OutOfMemory)
    assert "SIGKILL" in ending.error.problem
    assert "memory" in ending.error.problem
    offered = list(every(ending.error.remedy))
    assert [each.parameter for each in offered if isinstance(each, Change)] == ["batch", "crop"]
    assert len(offered) == 2
    assert folder.resumable


@pytest.mark.slow
def test_a_mistake_is_told_with_the_mend(tmp_path, process, end_of):
    settings = TrainingSettings(kind="shresnet")
    folder = RunFolder.create(tmp_path / "run", tmp_path / "moved", settings)
    process.start(folder.path)
    ending = end_of()
    assert ending.outcome == "failed"
    assert isinstance(process.events[-1], Failed)
    assert str(ending.error) == str(process.events[-1].error)
    assert str(tmp_path / "moved") in str(ending.error)


@pytest.mark.slow
def test_a_mistake_before_the_first_event_is_told_too(tmp_path, process, end_of, monkeypatch):
    # What lies in the folder that the window was started from is not imported.
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    process.start(tmp_path)
    ending = end_of()
    assert (ending.outcome, [event.name for event in process.events]) == ("failed", ["failed"])
    assert ending.error.subject == str(tmp_path)
    assert ending.error.problem == "is no run (it has no run.json)"
    assert ending.error.remedy.phrase() == "choose a run's folder"


def test_a_child_that_breaks_down_is_explained(process, end_of, pretend, tmp_path):
    pretend("echo Traceback >&2; echo '  File x' >&2; echo 'ImportError: no torch' >&2; exit 1")
    process.start(tmp_path)
    ending = end_of()
    assert (ending.outcome, ending.error.problem) == ("failed", "ImportError: no torch")
    assert ending.details.startswith("Traceback")
    pretend("exit 7")
    process.start(tmp_path)
    ending = end_of()
    assert (ending.outcome, ending.details) == ("failed", "")
    assert ending.error.problem == "training ended without a word (exit status 7)"


def test_a_child_that_cannot_be_started_is_explained(process, end_of, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    process.start(tmp_path)
    ending = end_of()
    assert ending.outcome == "failed"
    assert ending.error.problem.startswith("training cannot be started: ")


def test_lines_may_come_in_pieces_and_among_others(process, end_of, pretend, tmp_path):
    first, second = Checkpointed(1, "α"), Checkpointed(2, "b")
    line = first.to_json()
    pretend(
        f"printf '%s' '{line[:20]}'; sleep 0.1; printf '%s\\n' '{line[20:]}'\n"
        f"echo 'a library says hello'; printf '%s\\n%s' '{second.to_json()}' '{line[:9]}'"
    )
    process.start(tmp_path)
    ending = end_of()
    assert process.events == [first, second]
    assert ending == Ending("finished", details="a library says hello")


@pytest.mark.slow
def test_a_destroyed_watcher_lets_the_child_end_well(folder, process, wait_for, qtbot):
    process.start(folder.path)
    wait_for("step")
    assert not is_free(folder)
    process.deleteLater()
    del process
    qtbot.waitUntil(lambda: is_free(folder))
    assert folder.state == "stopped"
    assert [event.name for event in folder.events()[-2:]] == ["checkpointed", "stopped"]


WINDOW = """
import os, signal, sys
from pathlib import Path
from qtpy.QtWidgets import QApplication
from napari_msp.ui.train.process import TrainingProcess
application = QApplication([])
process = TrainingProcess()
def end(event):
    if event.name == "step" and event.step == 1:
        application.quit() if sys.argv[2] == "quits" else os.kill(os.getpid(), signal.SIGKILL)
process.reported.connect(end)
process.start(Path(sys.argv[1]))
application.exec()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["quits", "dies"])
def test_a_child_ends_well_with_its_application(how, folder, qtbot):
    answer = subprocess.run(
        [sys.executable, "-c", WINDOW, str(folder.path), how],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == (0 if how == "quits" else -signal.SIGKILL)
    assert answer.stderr == ""
    if how == "dies":
        qtbot.waitUntil(lambda: is_free(folder))
    assert folder.state == "stopped"
    assert [event.name for event in folder.events()[-2:]] == ["checkpointed", "stopped"]


ENDS = """
import sys
from qtpy.QtCore import QCoreApplication
from napari_msp.ui.train.process import _Child
application = QCoreApplication([])
child = _Child()
code = "import sys; sys.stdin.read(); open(sys.argv[1], 'w')"
child.start(sys.executable, ["-c", code, sys.argv[1]])
child.waitForStarted()
"""


def test_a_window_that_ends_without_its_loop_lets_training_end_well(tmp_path):
    done = tmp_path / "done"
    ended = subprocess.run(
        [sys.executable, "-c", ENDS, str(done)], capture_output=True, text=True, timeout=300
    )
    assert ended.stderr == ""  # no "QProcess: Destroyed while process is still running"
    assert done.exists()
