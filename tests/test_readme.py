"""What the README tells people to type is what the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

from napari_msp.cli import build_parser

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for line in README.replace("\\\n", " ").splitlines()
    if line.startswith("    napari-msp ")
]


def test_every_command_is_in_the_readme():
    told = {shlex.split(command)[1] for command in COMMANDS}
    assert told >= {
        "simulate",
        "import",
        "check",
        "train",
        "harmonize",
        "maps",
        "compare",
        "evaluate",
        "cohort",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command):
    options = build_parser().parse_args(shlex.split(command)[1:])
    assert options.command == shlex.split(command)[1]


def test_paths_of_the_repository_exist():
    root = Path(__file__).parents[1]
    named = re.findall(r"(?:src|scripts|benchmarks|docs)/[\w./-]+\.\w+", README)
    assert named
    assert [name for name in named if not (root / name).exists()] == []
