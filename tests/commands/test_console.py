"""What is said while a command runs: on a terminal, in a batch job, into a log."""

import io
import sys
import warnings
from pathlib import Path

import pytest

from napari_msp.cli import main
from napari_msp.commands import console as console_module
from napari_msp.commands.console import Console, warnings_on
from napari_msp.commands.train import _reporter
from napari_msp.learning.events import Finished


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch):
    """Put a terminal in the place of standard error; to be called, as pytest puts its own there."""

    def put() -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return put


def test_a_terminal_shows_one_bar(screen, capsys):
    terminal = screen()
    with Console() as console:
        for done in range(1, 4):
            console.progress("tile", done, 3)
        console.result("written")
    assert "tile: 100%" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()
    assert capsys.readouterr().out == "written\n"


def test_a_batch_job_has_a_line_now_and_then(monkeypatch, capsys):
    with Console() as console:
        console.progress("tile", 1, 3)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(console_module, "PLAIN_EVERY", 0.0)
        console.progress("tile", 2, 3)
    assert capsys.readouterr().err == "tile 2/3\n"


def test_quiet_says_results_and_warnings_only(screen, capsys):
    terminal = screen()
    with Console(quiet=True) as console:
        console.progress("tile", 1, 3)
        console.say("training")
        console.report("epoch 1")
        with warnings_on(console), warnings.catch_warnings(action="always"):
            for words in ("odd", "odd", "even"):
                warnings.warn(words, stacklevel=1)
        console.result("written")
    assert terminal.getvalue() == "napari-msp: warning: odd\nnapari-msp: warning: even\n"
    assert capsys.readouterr().out == "written\n"


def test_verbose_gives_every_step_a_line(screen):
    terminal = screen()
    with Console(verbose=True) as console:
        console.progress("tile", 1, 3)
        console.progress("tile", 2, 3)
    assert terminal.getvalue() == "tile 1/3\ntile 2/3\n"


def test_a_log_holds_everything_with_its_time(tmp_path, capsys):
    for _ in range(2):  # appended
        with Console(quiet=True, log=tmp_path / "a.log") as console:
            console.say("training")
            console.result("written")
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["training", "written"] * 2
    assert lines[0].startswith("20")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has one")
def test_a_log_that_takes_no_more_ends_nothing(capsys):
    with Console(log="/dev/full") as console:
        for line in ("first", "second"):
            console.report(line)
    said = capsys.readouterr()
    assert said.out == "first\nsecond\n"
    assert said.err == (
        "napari-msp: warning: /dev/full: cannot be written (No space left on device); "
        "logging stops here\n"
    )


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_daemon_may_have_closed_what_is_said_to(closed, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, closed, None)
    assert main(["train", str(tmp_path), str(tmp_path / "m.safetensors")]) == 2
    with Console() as console:
        console.progress("step", 1, 2)
        assert not console.has_bar


def test_results_are_as_wide_as_the_terminal_they_go_to(monkeypatch):
    monkeypatch.setenv("COLUMNS", "132")
    assert Console().width is None  # pytest takes what is printed
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert Console().width == 132


def test_training_ends_with_the_errors_of_what_was_kept(capsys):
    kept = Finished("m.safetensors", 2.0, {"a": 4e-4}, {"msp a": "done"}, {"a": 2e-4})
    _reporter(Console())(kept)
    said = "".join(capsys.readouterr())
    assert "in the model: validation SH MSE a 20.0 × 10⁻⁵; held-out SH MSE a 40.0 × 10⁻⁵" in said
