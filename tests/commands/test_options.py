"""Options: what they are called in errors, that examples parse, and what `--help` loads."""

import ast
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import warnings
from argparse import ArgumentParser
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest
import yaml

import napari_msp
from napari_msp.cli import COMMANDS, build_parser, main
from napari_msp.commands.shared import OptionWords, add_console_options
from napari_msp.errors import (
    Change,
    Choose,
    ComputeOnCPU,
    Give,
    Overwrite,
    RescaleBValue,
    RunJob,
    UserError,
    either,
)
from napari_msp.options import DESCRIBED, Options, OptionSettings, Topic
from napari_msp.packaged import model_path, packaged_model

HEAVY = {
    "torch", "numpy", "scipy", "pydantic", "nibabel", "dipy", "matplotlib", "tqdm", "rich", "qtpy",
}  # fmt: skip


def example_of(command: str) -> list[str]:
    return shlex.split(COMMANDS[command].EXAMPLE.splitlines()[0])[1:]


def words_of(command: str) -> OptionWords:
    return OptionWords(build_parser(command).parse_args(example_of(command)).parser)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_parse(name):
    examples = COMMANDS[name].EXAMPLE.splitlines()
    assert examples
    for example in examples:
        program, *arguments = shlex.split(example)
        assert program == "napari-msp"
        assert build_parser(name).parse_args(arguments).command == name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_example_and_what_every_command_has(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert all(example in told for example in COMMANDS[name].EXAMPLE.splitlines())
    assert {"--quiet", "--verbose", "--log"} <= set(told.replace(",", " ").split())


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_without_spinning_unless_the_user_says_how(given, spins, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # is put back whatever a command sets
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_sections_in_one_order(name):
    """And says in its first line what has to be given."""
    told = build_parser(name).parse_args(example_of(name)).parser.format_help()
    usage, *titles = re.findall(r"^(?:usage: (.+?)\n\n|(\w[^\n]*):\n)", told, re.M | re.S)
    assert usage[0].startswith(f"napari-msp {name}") and usage[0].endswith("[OPTIONS]")
    assert "--device" not in usage[0]
    found = [title for _, title in titles if title != "positional arguments"]
    assert found == [
        "options",
        *(each for each in Topic if each in found),
        "messages",
        "example",
    ]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([n, "--help"] for n in COMMANDS)]
)
def test_help_loads_nothing_that_takes_long(arguments):
    code = (
        "import sys\nfrom napari_msp.cli import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n"
        "    print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The options of `train` are the fields of a pydantic model.
    allowed = {"pydantic"} if arguments[0] == "train" else set()
    assert set(done.stderr.split()) & HEAVY <= allowed


def test_what_a_command_does_not_know_is_said_by_the_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--prediction", "A=a.nii", "--out", "o", "--colour", "red"])
    told = capsys.readouterr().err
    assert told == (
        "napari-msp: unrecognized arguments: --colour red; see napari-msp compare --help\n"
    )


@pytest.mark.parametrize(
    "command", [["compare", "--out", "o"], ["evaluate", "heads", "--out", "o"]]
)
def test_predictions_are_named_after_one_flag_or_several(command):
    def given(*words):
        return build_parser(command[0]).parse_args([*command, *words]).predictions

    flag = "--predictions"
    assert given(flag, "A=a", "B=b") == given(flag, "A=a", flag, "B=b") == ["A=a", "B=b"]
    assert given("--prediction", "A=a", "B=b") == ["A=a", "B=b"]


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("napari-msp ")


def test_evaluate_lists_its_methods_and_what_they_need(capsys):
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "--list-methods"])
    assert left.value.code == 0
    told = capsys.readouterr().out.splitlines()
    assert told[told.index("alignment") + 2].split() == [
        *("needs", "cohorts:", "any", "people", "on", "each", "platform;"),
        *("gives", "back", "image"),
    ]
    assert "    needs travelling heads, 2 or more;" in told[told.index("ComBat") + 2]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "--held-out" in script


# --- Words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "error", "told"),
    [
        (
            "maps",
            UserError("has several shells", "a.nii", remedy=Choose("b_value", (1e3, 2e3))),
            "a.nii: has several shells; choose from 1000, 2000 with --shell",
        ),
        (
            "harmonize",
            UserError("exists already", "out/a.nii", "force", Overwrite()),
            "out/a.nii: exists already; replace it with --force",
        ),
        (
            "harmonize",
            UserError("has b = 2000", "a.nii", None, RescaleBValue()),
            "a.nii: has b = 2000; rescale the signal with --b-value rescale (an approximation)",
        ),
        (
            "compare",
            UserError("is missing", "a.bvec", "bvec", Give("bvec")),
            "a.bvec: is missing; give it",
        ),
        (
            "check",
            UserError("has no scan", "heads", None, RunJob("import", "bring it into BIDS")),
            "heads: has no scan; bring it into BIDS with `napari-msp import`",
        ),
        ("train", UserError("is below 1", field="epochs"), "--epochs: is below 1"),
        ("train", UserError("is none", field="kind"), "--model: is none"),
        ("check", UserError("is unknown", field="input_platform"), "--input: is unknown"),
    ],
)  # fmt: skip
def test_errors_speak_of_the_options_of_the_running_command(command, error, told):
    assert error.phrase(words_of(command)) == told


def test_remedies_that_a_command_does_not_have_are_left_out():
    remedy = either(Change("tile", "a smaller"), Change("batch", "a smaller"), ComputeOnCPU())
    error = UserError("not enough memory", remedy=remedy)
    assert error.phrase(words_of("train")) == (
        "not enough memory; use a smaller --batch, or compute on the CPU (--device cpu)"
    )
    assert "--batch" not in error.phrase(words_of("harmonize"))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_invented(name):
    words = words_of(name)
    for parameter in ("b_value", "mask", "tile", "first_stage", "never_heard_of"):
        told = words.parameter(parameter)
        assert words.offers(parameter) == told.startswith("--")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_read_and_dropped(name):
    """Each is a parameter of the call of the library, or the command itself asks for it."""
    tree = ast.parse(inspect.getsource(COMMANDS[name]))  # type: ignore[arg-type]  # a module
    nodes = [*ast.walk(tree)]
    known = {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    imports = [each for each in nodes if isinstance(each, ast.ImportFrom)]
    places = {e.name: n.module for n in imports if n.module for e in n.names}
    called = {each.id for each in nodes if isinstance(each, ast.Name)} & places.keys()
    for each in called:
        found = getattr(importlib.import_module(places[each]), each, None)
        known |= set(getattr(found, "__annotations__", {}))  # of a function, or of settings
    known |= {each.name for each in fields(Options)} if "inference_options" in known else set()
    console = ArgumentParser()
    add_console_options(console)
    options = {
        each.dest for each in build_parser(name).parse_args(example_of(name)).parser._actions
    }
    leaves = {"list_methods"}  # as --help
    assert options - known <= leaves | {each.dest for each in console._actions}


def fields_of_errors():
    """Parameters that errors and remedies of the library name."""
    package = Path(napari_msp.__file__).parent
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "UserError":
                named = [each.value for each in node.keywords if each.arg == "field"]
                named += node.args[2:3]
            elif node.func.id in ("Give", "Choose", "Change"):
                named = node.args[:1]
            else:
                continue
            yield from (each.value for each in named if isinstance(each, ast.Constant))


def test_what_errors_name_is_an_option_of_some_command():
    in_python_alone = {None, "alpha", "comparison", "effect", "factor", "name", "scan", "scans"}
    commands = [words_of(name) for name in COMMANDS]
    named = set(fields_of_errors()) - in_python_alone
    assert {"b_value", "mask", "held_out"} <= named
    assert [each for each in named if not any(words.offers(each) for words in commands)] == []


def test_a_path_that_looks_like_an_option_is_shown_unchanged(tmp_path, capsys):
    path = tmp_path / "dwi --mask rigid--resample.nii.gz"
    assert main(["maps", str(path), "--out", str(tmp_path / "out")]) == 2
    assert str(path) in capsys.readouterr().err


# --- What is said -----------------------------------------------------------------------------


def test_warnings_go_their_usual_way_afterwards(tmp_path):
    before = warnings.showwarning
    main(["maps", str(tmp_path / "none.nii.gz"), "--out", str(tmp_path / "out")])
    assert warnings.showwarning is before


def test_a_log_holds_what_was_said(tmp_path, capsys):
    log = tmp_path / "logs" / "import.log"
    arguments = ["import", str(tmp_path / "none"), "x", "--pattern", "{subject}", "--log", str(log)]
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "napari-msp import" in log.read_text().splitlines()[0]
    assert "Traceback" in log.read_text()
    assert "no such folder" in line
    assert "no such folder" in log.read_text()


def test_a_log_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    log = tmp_path / "file" / "x.log"
    assert main(["completion", "bash", "--log", str(log)]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_verbose_gives_the_traceback(tmp_path, capsys):
    assert main(["maps", str(tmp_path / "none.nii.gz"), "--out", "x", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


# --- Training ---------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What `train` asked the library for, which does nothing."""
    calls = []

    def train(dataset, out, **given):
        calls.append(given)
        return out

    monkeypatch.setattr("napari_msp.learning.train.train", train)
    return calls


def test_an_option_of_a_prediction_is_described_in_the_same_words_everywhere():
    kinds = {name: get_args(kind)[0] for name, kind in Options.__annotations__.items()}
    assert OptionSettings.__annotations__ == kinds
    asked = {name: about.text for name, about in DESCRIBED.items() if about.topic is not None}
    for command in ("harmonize", "cohort"):
        parser = build_parser(command).parse_args(example_of(command)).parser
        help_of = {action.dest: str(action.help) for action in parser._actions}
        assert all(help_of[name].startswith(text) for name, text in asked.items())
    manifest = yaml.safe_load((files("napari_msp") / "napari.yaml").read_text(encoding="utf-8"))
    preferences = manifest["contributions"]["configurations"]["machine"]["properties"]
    known = {name: each["description"] for name, each in preferences.items() if name in asked}
    assert {*known} == {"device", "tile", "memory", "precision"}
    assert all(text.startswith(asked[name]) for name, text in known.items())


def test_train_has_an_option_for_every_setting(asked):
    from napari_msp.learning.settings import TrainingSettings

    parser = build_parser("train").parse_args(["train", "heads", "m.safetensors"]).parser
    assert set(TrainingSettings.model_fields) <= {action.dest for action in parser._actions}


@pytest.mark.parametrize(
    ("command", "option"),
    [(name, "b0_threshold") for name in ("check", "compare", "harmonize", "train")]
    + [("evaluate", "steps"), ("train", "patience"), ("compare", "maps"), ("regions", "maps")],
)
def test_help_names_what_the_library_does_by_itself(command, option):
    """Help is shown before the library is loaded, so it repeats some of its numbers and names."""
    from napari_msp.data.gradients import B0_MAXIMUM
    from napari_msp.evaluation.benchmark.settings import Budget
    from napari_msp.evaluation.figures.paper import SHOWN
    from napari_msp.evaluation.region_numbers import REGION_MAPS
    from napari_msp.learning.lengths import PATIENCE
    from napari_msp.signal.maps import MAPS

    defaults = {"b0_threshold": B0_MAXIMUM, "steps": Budget().steps, "patience": PATIENCE}
    shown = {"compare": SHOWN, "regions": REGION_MAPS}
    parser = build_parser(command).parse_args(example_of(command)).parser
    (action,) = (each for each in parser._actions if each.dest == option)
    if option != "maps":
        assert re.search(rf"Default: {defaults[option]:g}\b", action.help)
        return
    assert action.default == shown[command]
    named = MAPS if command == "compare" else REGION_MAPS
    assert all(re.search(rf"\b{each}\b", action.help) for each in named)


def test_every_setting_is_in_one_section():
    from napari_msp.learning.settings import SECTIONS, TrainingSettings

    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(TrainingSettings.model_fields)


def test_what_is_not_given_is_left_to_the_preset(asked):
    assert main(["train", "heads", "m.safetensors", "--preset", "lecture", "--epochs", "2"]) == 0
    [given] = asked
    assert {"preset", "epochs"} <= set(given)
    assert not {"kind", "width", "seed", "input", "targets"} & set(given)


def test_pairs_of_a_first_stage(asked, capsys):
    train = ["train", "heads", "m.safetensors", "--model", "msp", "--first-stage"]
    assert main([*train, "ge_st=diqt", "a=cpm"]) == 0
    assert asked[0]["first_stage"] == {"ge_st": "diqt", "a": "cpm"}
    assert main([*train, "a=diqt", "a=cpm"]) == 2
    assert "--first-stage: a was given twice" in capsys.readouterr().err


def test_packaged_models_go_by_their_names_unless_a_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ("msp-teaching", "diqt-teaching")
    assert [model_path(name) for name in named] == [
        packaged_model(title) for title in ("MSP", "DIQT")
    ]
    assert model_path("msp-teaching.safetensors") == Path("msp-teaching.safetensors")
    assert model_path("mine") == Path("mine")
    Path("msp-teaching").touch()
    assert model_path("msp-teaching") == Path("msp-teaching")
