"""What a visitor to the repository looks for is there, is well formed, and is true."""

import re
import tomllib
from argparse import ArgumentParser
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from napari_msp.cli import COMMANDS

REPOSITORY = Path(__file__).parents[1]
ABOUT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


def parsed(path: Path):
    # "on" is a word of YAML's own: kept as text.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


# --- Citation --------------------------------------------------------------------------------


def test_the_citation_is_of_this_version_and_complete():
    """As the schema of the Citation File Format 1.2.0 wants it."""
    citation = parsed(REPOSITORY / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "version", "license"} <= set(citation)
    assert citation["version"] == ABOUT["project"]["version"]
    assert citation["license"] == ABOUT["project"]["license"]
    assert all("name" in each or "family-names" in each for each in citation["authors"])
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors", "year"} <= set(paper)
    assert all({"family-names", "given-names"} <= set(each) for each in paper["authors"])
    bibliography = (REPOSITORY / "docs/references.bib").read_text(encoding="utf-8")
    assert paper["title"] in bibliography


# --- Contributing ----------------------------------------------------------------------------


def test_every_kind_of_thing_is_told_how_to_add():
    told = re.findall(r"^### (.+)$", CONTRIBUTING, re.M)
    assert told == [
        *("a network", "a baseline", "a map", "a measure"),
        *("a page or a row of the site effect", "a command", "a setting of a training"),
        *("an option of a prediction", "a widget", "a page", "a public name"),
    ]


def test_lists_of_the_code_are_where_it_is_told_that_they_are():
    """A list that moves, or is made from something else, makes the page untrue."""
    lists = {
        "src/napari_msp/networks/registry.py": "SHResNet",
        "src/napari_msp/evaluation/baselines/base.py": '"linear RISH"',
        "src/napari_msp/signal/maps.py": "MAPS",
        "src/napari_msp/ui/glossary.py": "TERMS",
        "src/napari_msp/evaluation/measures/catalogue.py": "_by_tissue(",
        "src/napari_msp/evaluation/proof/make_pages.py": "DERIVED",
        "src/napari_msp/cli.py": "COMMANDS",
        "src/napari_msp/commands/shared.py": "class Command",
        "src/napari_msp/napari.yaml": "widgets:",
        "src/napari_msp/__init__.pyi": "__all__",
        "tests/test_architecture.py": "FEATURES",
        "docs/how-to/train.md": "`shresnet`",
        "docs/how-to/evaluate.md": "`SHResNet`",
    }
    for path, word in lists.items():
        assert f"`{path}`" in CONTRIBUTING
        assert word in (REPOSITORY / path).read_text(encoding="utf-8"), path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_in_sentences_what_it_does(name):
    """The handbook's reference has nothing else to say."""
    parser = ArgumentParser(add_help=False)
    COMMANDS[name].add_options(parser)
    told = {each.dest: each.help or "" for each in parser._actions}
    assert told
    sentence = re.compile(r"([A-Z]|rescale:|participant:).*\.", re.S)
    assert {dest: text for dest, text in told.items() if not sentence.fullmatch(text)} == {}


# --- Workflows -------------------------------------------------------------------------------


def test_workflows_try_what_the_package_promises():
    (test,) = (parsed(path) for path in WORKFLOWS if path.stem == "test")
    minors = [each.rpartition(" ")[2] for each in ABOUT["project"]["classifiers"]]
    pythons = [each for each in minors if re.fullmatch(r"3\.\d+", each)]
    jobs = test["jobs"]
    assert jobs["all"]["strategy"]["matrix"]["python"] == pythons
    assert {"macos-latest", "windows-latest"} <= set(jobs["core"]["strategy"]["matrix"]["os"])
    assert jobs["versions"]["strategy"]["matrix"]["versions"] == ["lowest", "newest"]
    assert {"packages", "handbook"} <= set(jobs)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_workflows_run_is_there(path):
    makes = re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text("utf-8"), re.M)
    for job in parsed(path)["jobs"].values():
        assert int(job["timeout-minutes"]) <= 360
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            words = step.get("run", "").split()
            assert all((REPOSITORY / each).exists() for each in words if each.endswith(".sh"))
            assert all(after in makes for word, after in pairwise(words) if word == "make")


def test_hooks_run_what_make_test_runs():
    hooks = [
        hook["entry"]
        for repo in parsed(REPOSITORY / ".pre-commit-config.yaml")["repos"]
        for hook in repo["hooks"]
    ]
    check = (REPOSITORY / "scripts/check_part.sh").read_text(encoding="utf-8")
    for tool in ("ruff check", "ruff format", "numpydoc lint", "mypy"):
        assert any(tool in entry for entry in hooks)
        assert tool.split()[0] in check
