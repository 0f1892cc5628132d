"""The container's recipe, as far as it can be checked where no engine is."""

import json
import re
import shlex
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from napari_msp.cli import build_parser

REPOSITORY = Path(__file__).parents[1]
RECIPE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
INSTALL = (REPOSITORY / "docs/how-to/install.md").read_text(encoding="utf-8")
STEPS = [
    tuple(line.split(maxsplit=1))
    for line in RECIPE.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]


def found(pattern, text):
    (first,) = re.findall(pattern, text)[:1]
    return first


def steps(name):
    return [said for instruction, said in STEPS if instruction == name]


def test_every_instruction_is_one():
    known = {"FROM", "LABEL", "ARG", "ENV", "WORKDIR", "RUN", "COPY", "ENTRYPOINT", "CMD"}
    assert {instruction for instruction, _ in STEPS} == known


def test_it_installs_as_the_handbook_does():
    (index,) = steps("ARG")
    assert all(step.startswith("pip install ") for step in steps("RUN"))
    for step in steps("RUN"):
        said = step.replace('"$TORCH_INDEX"', index.removeprefix("TORCH_INDEX="))
        assert said in INSTALL


@pytest.mark.parametrize("step", steps("RUN"))
def test_shell_parts_are_shell(step):
    subprocess.run(["bash", "-n", "-c", step], check=True)


def test_versions_are_those_that_are_tested():
    constraints = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert found(r"torch==\S+", RECIPE) in constraints.splitlines()
    about = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    python = found(r"python:(3\.\d+)", steps("FROM")[0])
    assert f"Programming Language :: Python :: {python}" in about["project"]["classifiers"]


def test_what_is_copied_is_there_and_not_ignored():
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for copy in steps("COPY"):
        for source in copy.split()[:-1]:
            assert (REPOSITORY / source).exists()
            verdict = True
            for rule in (line for line in ignored if not line.startswith("#")):
                if fnmatch(source, rule.removeprefix("!")):
                    verdict = not rule.startswith("!")
            assert not verdict, source
    # All that pyproject.toml reads while it is built is copied.
    about = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copied = " ".join(steps("COPY")).split()
    assert about["readme"] in copied
    assert all(name in copied or name.startswith("src/") for name in about["license-files"])


@pytest.mark.parametrize(
    "arguments",
    [
        "/bids /out participant --model /models/m.safetensors --target all",
        "/bids /out participant --participant_label 01 02 --model m.safetensors --target a_b",
        "/bids /out group",
        found(r"napari-msp \\\n#\s+(/bids .*)", RECIPE),
    ],
)
def test_it_is_a_bids_app(arguments):
    program, *before = json.loads(steps("ENTRYPOINT")[0])
    assert program == "napari-msp"
    options = build_parser().parse_args([*before, *shlex.split(arguments)])
    assert options.command == "cohort"
    assert options.level in ("participant", "group")
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([*before, *json.loads(steps("CMD")[0])])
    assert end.value.code == 0
