"""What the README tells people to type is what the commands and the library take."""

import re
import shlex
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

import napari_msp as msp
from napari_msp.cli import COMMANDS, build_parser
from napari_msp.commands.shared import add_console_options
from napari_msp.evaluation.benchmark.methods import all_methods
from napari_msp.networks.registry import kinds

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TYPED = [
    line.split("  #")[0].strip()
    for line in README.replace("\\\n", " ").splitlines()
    if line.startswith("    napari-msp ")
]
"""Command lines in blocks of their own."""

MENTIONED = re.findall(r"`napari-msp (\w+)[^`]*`|\(napari-msp (\w+) ", README)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
SHORT: dict[str, Any] = {
    "epochs": 1,
    "unison_epochs": 1,
    "steps_per_epoch": 1,
    "crop": 5,
    "batch": 1,
}
"""Settings that make a training take seconds."""


def test_every_command_is_in_the_readme():
    found = {shlex.split(line)[1] for line in TYPED} | {a or b for a, b in MENTIONED}
    assert {name for name in COMMANDS if name != "demo"} <= found
    assert "make demo" in README


@pytest.mark.parametrize("line", TYPED)
def test_commands_parse(line):
    options = build_parser().parse_args(shlex.split(line)[1:])
    assert options.command == shlex.split(line)[1]


def test_options_exist():
    parser = ArgumentParser(conflict_handler="resolve")
    for command in COMMANDS.values():
        command.add_options(parser)
    add_console_options(parser)
    known = set(parser._option_string_actions)
    named = set(re.findall(r"`(-{1,2}[a-z][\w-]*)", README))
    others = {"--version", "--help", "--index-url"}
    assert named
    assert named - known - others == set()


def test_methods_and_networks_are_those_that_there_are():
    rows = re.findall(r"^\| (`[^|]*`) \|", README, re.M)
    named = {name.strip('"') for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert {*kinds(), *all_methods()} <= named


def test_there_is_python():
    assert PYTHON


@pytest.mark.parametrize("block", PYTHON)
def test_python_runs(block, make_heads, tmp_path, monkeypatch):
    """On small heads in place of the demo's, with a training that is cut short."""
    train: Any = msp.train
    make_heads(tmp_path / "heads", subjects=4)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "heads").symlink_to(tmp_path / "heads")
    (tmp_path / "src").symlink_to(REPOSITORY / "src")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(msp, "train", lambda *given, **named: train(*given, **named, **SHORT))
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "m.safetensors").exists()
    assert len(list((tmp_path / "predicted").iterdir())) > 5


def test_paths_of_the_repository_exist():
    named = re.findall(r"(?:src|scripts|benchmarks|docs|tests)/[\w./-]+\.\w+", README)
    assert named
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    here = [link for link in links if "://" not in link]
    assert here
    assert [link for link in here if not (REPOSITORY / link).exists()] == []
