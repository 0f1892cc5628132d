"""Parameters that errors and remedies name are there: in Python and on the command line."""

import ast
import dataclasses
import inspect
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import napari_msp
from napari_msp.cli import COMMANDS
from napari_msp.commands.shared import SYNONYMS, OptionWords
from napari_msp.errors import FAMILY, REMEDIES, Remedy
from napari_msp.evaluation.benchmark.settings import EvaluationSettings
from napari_msp.learning.settings import TrainingSettings
from napari_msp.ui.align import aligning
from napari_msp.ui.compare import form as compare_form
from napari_msp.ui.phrasing import HARMONIZE_WORDS, LOAD_WORDS, FormWords
from napari_msp.ui.train import fields

ROOT = Path(napari_msp.__file__).parent

NAMED_BY = dict.fromkeys(FAMILY, 2) | {"Give": 0, "Choose": 0, "Change": 0}
"""Which argument names a parameter, of everything that is raised or that helps."""

KEYWORDS = {"field", "parameter"}

IN_PYTHON_ONLY = {
    "alpha": "inference/prediction.py",
    "effect": "evaluation/proof/two_groups_numbers.py",
    "factor": "data/phantom/changes.py",
    "name": "data/phantom/changes.py",
    "scans": "evaluation/figures/paper.py",
}
"""Parameters of what no command does, with the file that has the function."""


def parameters_of(function: Any) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()


def public_parameters() -> set[str]:
    """Parameters of public functions, of classes and of their methods, and all settings."""
    found = {*TrainingSettings.model_fields}
    found |= {field.name for field in dataclasses.fields(EvaluationSettings)}
    for name in napari_msp.__all__:
        if name == "UserError":
            continue  # its own parameters are no user's
        public = getattr(napari_msp, name)
        members = vars(public).items() if inspect.isclass(public) else ()
        methods = [each for name, each in members if not name.startswith("_") and callable(each)]
        for each in (public, *methods):
            found |= parameters_of(each)
    return found


def named_parameters() -> Iterator[tuple[str, int, str]]:
    """File, line and parameter of everything that names one literally."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            place = NAMED_BY.get(node.func.id)
            if place is None:
                continue
            given = [each.value for each in node.keywords if each.arg in KEYWORDS]
            given += node.args[place : place + 1]
            for value in given:
                for each in ast.walk(value):  # also in "x" if … else "y"
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        yield path.relative_to(ROOT).as_posix(), node.lineno, each.value


NAMED = list(named_parameters())


def options() -> set[str]:
    """What options of any command set."""
    found = set()
    for command in COMMANDS.values():
        parser = ArgumentParser()
        command.add_options(parser)
        found |= {action.dest for action in parser._actions}
    return found | {other for other, known in SYNONYMS.items() if known in found}


def test_many_places_name_parameters():
    assert len(NAMED) > 100


def test_every_parameter_that_an_error_names_is_one_of_a_public_function():
    known = public_parameters()
    wrong = [
        f"{file}:{line} names {parameter}"
        for file, line, parameter in NAMED
        if parameter not in known and IN_PYTHON_ONLY.get(parameter) != file
    ]
    assert wrong == []


def test_every_parameter_that_an_error_names_is_an_option_of_some_command():
    known = options()
    wrong = [
        f"{file}:{line} names {parameter}"
        for file, line, parameter in NAMED
        if parameter not in known and IN_PYTHON_ONLY.get(parameter) != file
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "kind", [kind for kind in REMEDIES.values() if "parameter" in vars(kind)], ids=repr
)
def test_remedies_of_their_own_have_a_public_parameter(kind: type[Remedy]):
    parameter = vars(kind)["parameter"]
    assert parameter in public_parameters()
    assert parameter in options()


@pytest.mark.parametrize(
    ("words", "rooms", "without"),
    [
        (LOAD_WORDS, ("bids", "data/acquisition", "data/masks", "scan.py", "signal/"), set()),
        (
            HARMONIZE_WORDS,
            ("data/acquisition", "device", "inference/", "model_file", "options", "signal/"),
            # Of training; of maps that a review reads; and what the list of scans and the Save
            # button leave no choice of, or the window leaves as it is; and of the α of a slider.
            {"alpha", "learning_rate", "shell", "lattice", "out", "scan", "memory"},
        ),
        (
            FormWords(compare_form.LABELS),
            ("evaluation/compare", "evaluation/line_up", "evaluation/figures/"),
            {"slice_index", "scans"},  # napari has a slider, and Figure 2 is none of the window's
        ),
        (aligning.WORDS, ("alignment/", "data/cubes", "data/dataset"), {"force"}),  # a button
        # A run of the window writes into its folder.
        (fields.WORDS, ("data/dataset", "device", "learning/", "networks/", "signal/"), {"out"}),
    ],
    ids=["Load", "Harmonize", "Compare", "Align", "Train"],
)
def test_a_form_has_a_label_for_what_its_library_complains_of(words, rooms, without):
    named = {parameter for file, _, parameter in NAMED if file.startswith(rooms)}
    assert named
    assert {each for each in named if not words.offers(each)} <= without


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_does_not_have_is_not_advised(name):
    """A remedy by itself is said without the option, and left out among several."""
    parser = ArgumentParser()
    COMMANDS[name].add_options(parser)
    words = OptionWords(parser)
    for kind in REMEDIES.values():
        parameter = vars(kind).get("parameter")
        if parameter is None or words.offers(parameter):
            continue
        values = [60.0 for each in dataclasses.fields(kind) if each.default is dataclasses.MISSING]
        assert "--" not in kind(*values).phrase(words)
