"""The walls between the rooms: who may know whom."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import napari_msp

WINDOWS = {"napari", "qtpy", "magicgui", "superqt", "pyqtgraph", "PyQt5", "PyQt6", "PySide6"}

ROOT = Path(napari_msp.__file__).parent
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))

VIEWS = [
    *(m for m in MODULES if m.parts[:2] in {("ui", "widgets"), ("ui", "model_diagram")}),
    *(Path("ui", "train", f"{name}.py") for name in ("form", "entries", "run_view", "curves")),
]
"""What is shown, apart from what is done: emits signals, and is told what to show."""

WITHOUT_QT = [
    Path("ui/train/fields.py"),
    Path("ui/train/history.py"),
    Path("ui/model_diagram/drawing.py"),
]
"""Decisions and words of the window that can be tested without one."""


def imports(module):
    """Everything a file imports, also inside functions."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_only_ui_knows_qt_and_napari(module):
    if module.parts[0] == "ui":
        return
    names = {name.split(".")[0] for name in imports(module)}
    assert not names & WINDOWS


@pytest.mark.parametrize("module", VIEWS, ids=str)
def test_views_know_no_viewer(module):
    names = set(imports(module))
    assert not any(name.split(".")[0] == "napari" for name in names)
    # Coordinators put views, background work and layers together; never the other way round.
    rooms = {name.removeprefix("napari_msp.ui.") for name in names if "napari_msp.ui." in name}
    assert not any(room.split(".")[-1] in {"widget", "run", "process"} for room in rooms)
    assert not rooms & {"background", "layers", "docks"}


@pytest.mark.parametrize("module", WITHOUT_QT, ids=str)
def test_words_and_decisions_know_no_qt(module):
    assert not {name.split(".")[0] for name in imports(module)} & WINDOWS


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] == "ui"], ids=str)
def test_no_binding_is_named(module):
    names = {name.split(".")[0] for name in imports(module)}
    assert not names & {"PyQt5", "PyQt6", "PySide2", "PySide6"}


def test_opening_a_widget_loads_no_torch():
    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
    commands = manifest["contributions"]["commands"]
    modules = sorted({command["python_name"].split(":")[0] for command in commands})
    assert modules
    code = f"import sys; import {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize("room", ["data", "signal", "checking"])
def test_the_rooms_below_load_no_torch(room):
    modules = [
        "napari_msp." + ".".join(module.with_suffix("").parts)
        for module in MODULES
        if module.parts[0] == room and module.name != "__init__.py"
    ]
    code = f"import sys; import {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


LOWER = ("data", "signal", "networks")
UPPER = ("learning", "inference", "evaluation", "cohort", "commands", "cli", "ui", "demo")


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] in LOWER], ids=str)
def test_arrows_point_down(module):
    rooms = {name.split(".")[1] for name in imports(module) if name.startswith("napari_msp.")}
    assert not rooms & set(UPPER)
    if module.parts[0] == "data":
        assert "signal" not in rooms


def texts(module):
    """Every text of a file but its docstrings."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    told = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, (*documented, ast.If, ast.Try))
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


# The window starts `napari-msp run` in a process of its own.
SPEAK_OF_OPTIONS = [("cli.py",), ("ui", "train", "process.py")]
SPEAK_OF_OPTIONS += [("errors.py",), ("inference", "failures.py"), ("ui", "words.py")]  # as yet


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_options_are_named_by_the_commands_only(module):
    if module.parts[0] == "commands" or module.parts in SPEAK_OF_OPTIONS:
        return
    assert [text for text in texts(module) if re.search(r"(^|[^\w-])--[a-z]", text)] == []
