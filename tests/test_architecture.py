"""The floors of the house: who may know whom, what each room leaves out, what is shipped."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import napari_msp
from napari_msp.data.phantom.platforms import PLATFORMS

ROOT = Path(napari_msp.__file__).parent
REPOSITORY = Path(__file__).parents[1]
TREES = {
    path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.rglob("*.py"))
}
"""Every source file, parsed."""

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("arrays", "foreign_errors", "formatting", "options", "plugins", "strict_json"),
    ("device", "files", "processes"),
    ("bids", "image_files", "provenance"),
    ("data", "identity"),
    ("signal",),
    ("scan", "scan_sources"),
    ("networks",),
    ("model_card", "model_file", "packaged"),
    ("inference",),
    ("alignment", "checking", "learning"),
    ("evaluation",),
    ("cohort", "demo", "review"),
    ("cli", "commands", "ui"),
)
"""Rooms from the ground up. A room knows those below it, and those beside it on its floor."""

WINDOWS = {"napari", "qtpy", "magicgui", "superqt", "pyqtgraph", "PyQt5", "PyQt6", "PySide6"}

VIEWS = [
    module
    for module in TREES
    if module.parts[:2] in {("ui", "widgets"), ("ui", "model_diagram")}
    or (module.parts[0] == "ui" and module.name in {"curves.py", "entries.py", "form.py"})
    or module.name in {"moves.py", "run_view.py", "numbers_table.py", "voxel_plots.py"}
    or module.name in {"entry_list.py", "judging.py", "panel.py"}
]
"""What is shown, apart from what is done: emits signals, and is told what to show."""

WITHOUT_QT = [
    module
    for module, tree in TREES.items()
    if module.parts[0] == "ui" and "no qt" in (ast.get_docstring(tree) or "").lower()
]
"""Decisions and words of the window that can be tested without one, as they say at their head."""

FEATURES: dict[str, set[str]] = {
    "align": set(),
    "compare": {"model_diagram"},
    "harmonize": set(),
    "load": set(),
    "model_diagram": set(),
    "review": {"compare"},  # whose grid it fills
    "site_effect": set(),
    "train": {"harmonize"},  # which offers what was trained
}
"""Folders of the window, and which others each may know."""

WITHOUT_TORCH = (
    "alignment", "bids", "checking", "data", "errors", "identity", "image_files", "options",
    "packaged", "provenance", "review", "signal",
)  # fmt: skip

MOST_FILES = 274
"""More files are a sign of ideas cut too fine; a new feature may raise it by a few."""

# --- What stands in a file -------------------------------------------------------------------


def room_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Everything a file imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_known_by(tree: ast.AST) -> set[str]:
    """Rooms that a file imports from."""
    return {name.split(".")[1] for name in imports(tree) if name.startswith("napari_msp.")}


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string, also of docstrings and of the fixed parts of f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


# --- Floors ----------------------------------------------------------------------------------


def test_every_room_has_its_floor():
    rooms = {room_of(module) for module in TREES} - {"__init__", "__main__"}
    assert rooms == {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize("room", [room for floor in FLOORS for room in floor])
def test_arrows_point_down(room):
    storey = next(number for number, floor in enumerate(FLOORS) if room in floor)
    allowed = {each for floor in FLOORS[: storey + 1] for each in floor} | {"__version__"}
    found = {
        f"{module} imports {known}"
        for module, tree in TREES.items()
        if room_of(module) == room
        for known in rooms_known_by(tree) - allowed
    }
    assert found == set()


def test_no_modules_import_each_other_in_a_circle():
    names = {
        ".".join(("napari_msp", *module.with_suffix("").parts)).removesuffix(".__init__"): tree
        for module, tree in TREES.items()
    }
    # What a function imports when it runs, and what only a type checker sees, makes no circle;
    # in the window nothing is put off for the sake of one either.
    known = {
        name: {
            each
            for each in imports(run_at_all(tree) if ".ui." in name else loaded_at_once(tree))
            if each in names and each != name
        }
        for name, tree in names.items()
    }
    while leaves := {name for name, needs in known.items() if not needs}:
        known = {name: needs - leaves for name, needs in known.items() if name not in leaves}
    assert known == {}


def run_at_all(tree: ast.Module) -> ast.Module:
    """All imports but those that only a type checker sees."""
    nodes = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return ast.Module(body=nodes, type_ignores=[])


def loaded_at_once(tree: ast.Module) -> ast.Module:
    """The imports that are run when a file is imported."""
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.Module(body=list(nodes), type_ignores=[])


# --- Walls -----------------------------------------------------------------------------------


ONLY_ON_UNIX = {"fcntl", "grp", "pwd", "resource", "termios"}


def test_all_files_of_tests_can_be_collected_on_windows():
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        at_once = loaded_at_once(ast.parse(path.read_text(encoding="utf-8")))
        assert not ONLY_ON_UNIX & set(imports(at_once)), path


def test_only_ui_knows_qt_and_napari():
    found = {
        f"{module} imports {name}"
        for module, tree in TREES.items()
        if room_of(module) != "ui"
        for name in imports(tree)
        if name.split(".")[0] in WINDOWS
    }
    assert found == set()


def test_no_qt_binding_is_named():
    bindings = {"PyQt5", "PyQt6", "PySide2", "PySide6"}
    found = {
        f"{module} imports {name}"
        for module, tree in TREES.items()
        for name in imports(tree)
        if name.split(".")[0] in bindings
    }
    assert found == set()


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_views_know_no_viewer_and_no_coordinator(view):
    known = set(imports(TREES[view]))
    assert not any(name.split(".")[0] == "napari" for name in known)
    # Coordinators put views, background work and layers together; never the other way round.
    rooms = {tuple(name.split(".")[2:4]) for name in known if name.startswith("napari_msp.ui.")}
    assert not {room[-1] for room in rooms} & {"process", "run", "widget"}
    assert not {room[0] for room in rooms} & {"background", "docks", "layers"}
    if view.parts[1] == "widgets":
        assert {room[0] for room in rooms} <= {"glossary", "widgets"}  # and no feature


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_a_feature_of_the_window_knows_few_others(feature):
    found = {
        f"{module} imports {name}"
        for module, tree in TREES.items()
        if module.parts[:2] == ("ui", feature)
        for name in imports(tree)
        for other in set(FEATURES) - {feature} - FEATURES[feature]
        if name.startswith(f"napari_msp.ui.{other}")
    }
    assert found == set()


MENU_KEY = re.compile(r"(?<!&)&(?!amp;|nbsp;)[fvlpwhsc]", re.IGNORECASE)


def test_no_key_of_a_form_is_one_of_naparis_menus():
    """File, View, Layers, Plugins, Window, Help; and Alt+S and Alt+C, which make screenshots."""
    found = {
        f"{module}:{line} has {text!r}"
        for module, tree in TREES.items()
        if module.parts[0] == "ui"
        for line, text in strings(tree)
        if MENU_KEY.search(text)
    }
    assert found == set()


def test_nothing_is_done_by_pressing_a_button_for_the_user():
    found = {
        f"{module}:{node.lineno} does {ast.unparse(node)}"
        for module, tree in TREES.items()
        if module.parts[0] == "ui"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"animateClick", "click"}
        and ast.unparse(node.func.value) != "self"  # a button of our own, pressed by a key
    }
    assert found == set()


def test_words_and_decisions_know_no_qt():
    modules = [".".join(("napari_msp", *module.with_suffix("").parts)) for module in WITHOUT_QT]
    assert len(modules) >= 13
    assert first_to_load(modules, *WINDOWS) == ""


def test_the_rooms_below_load_no_torch():
    modules = [
        ".".join(("napari_msp", *module.with_suffix("").parts))
        for module in TREES
        if room_of(module) in WITHOUT_TORCH and module.name != "__init__.py"
    ]
    assert first_to_load(modules, "torch") == ""


def test_opening_a_widget_loads_nothing_that_takes_long():
    """A second is what somebody who opens one should wait at most."""
    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
    commands = manifest["contributions"]["commands"]
    modules = sorted({command["python_name"].split(":")[0] for command in commands})
    assert modules
    assert first_to_load(modules, "torch", "scipy.stats", "dipy.io", "matplotlib") == ""


def first_to_load(modules: list[str], *slow: str) -> str:
    """Import modules in turn in a fresh interpreter: the first that brings a slow one, and that."""
    code = f"""
import sys
from importlib import import_module
for name in {modules}:
    import_module(name)
    brought = sys.modules.keys() & {slow}
    if brought:
        print(name, *brought)
        break
"""
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- What each room leaves out ---------------------------------------------------------------

OPTION = re.compile(r"(?<![\w-])--[a-z]")

STARTS_THE_COMMAND_LINE = Path("ui", "train", "process.py")


def test_only_the_command_line_knows_options():
    found = {
        f"{module}:{line} says {text!r}"
        for module, tree in TREES.items()
        if module.parts[0] not in ("cli.py", "commands") and module != STARTS_THE_COMMAND_LINE
        for line, text in strings(tree)
        if OPTION.search(text)
    }
    assert found == set()


TEXT_METHODS = {
    "endswith", "find", "index", "partition", "removeprefix", "removesuffix", "replace",
    "rpartition", "rsplit", "split", "startswith",
}  # fmt: skip

ERROR_NAMES = re.compile(r"error|exception|failure|reason|told|problem", re.IGNORECASE)


def is_message(node: ast.expr) -> bool:
    """Return whether an expression is an error's text: str(error), error.problem, error.args[0]."""
    match node:
        case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]):
            return ERROR_NAMES.search(name) is not None
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="phrase")):
            return ERROR_NAMES.search(name) is not None
        case ast.Call(func=ast.Attribute(value=value, attr="lower" | "casefold" | "strip")):
            return is_message(value)
        case ast.Attribute(attr="problem"):
            return True
        case ast.Attribute(value=ast.Name(id=name), attr="message"):
            return ERROR_NAMES.search(name) is not None
        case ast.Subscript(value=ast.Attribute(value=ast.Name(id=name), attr="args")):
            return ERROR_NAMES.search(name) is not None
    return False


def takes_a_message_apart(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=arguments):
            return any(is_message(each) for each in arguments)
        case ast.Call(func=ast.Attribute(attr="split"), args=[]):
            return False  # to join it again with single spaces
        case ast.Call(func=ast.Attribute(value=value, attr=attribute)):
            return attribute in TEXT_METHODS and is_message(value)
        case ast.Compare(ops=operators, comparators=compared):
            contains = any(isinstance(each, ast.In | ast.NotIn) for each in operators)
            return contains and any(is_message(each) for each in compared)
        case ast.Subscript(value=value):
            return is_message(value)
    return False


def test_no_message_is_taken_apart():
    found = {
        f"{module}:{node.lineno} does {ast.unparse(node)}"  # type: ignore[attr-defined]
        for module, tree in TREES.items()
        if module != Path("foreign_errors.py")  # which turns torch's and the system's into ours
        for node in ast.walk(tree)
        if takes_a_message_apart(node)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("code", "apart"),
    [
        ("str(error).startswith('x')", True),
        ("'x' in str(error).lower()", True),
        ("error.problem.partition(';')", True),
        ("re.search('x', str(failure))", True),
        ("str(error)[0]", True),
        ("str(path).startswith('x')", False),
        ("print(str(error))", False),
        ("' '.join(str(error).split())", False),
    ],
)
def test_taking_a_message_apart_is_seen(code, apart):
    found = [takes_a_message_apart(node) for node in ast.walk(ast.parse(code))]
    assert any(found) is apart


def test_only_the_simulator_names_platforms():
    names = {platform.name for platform in PLATFORMS}
    found = {
        f"{module}:{line} says {text!r}"
        for module, tree in TREES.items()
        if module.parts[:2] != ("data", "phantom")
        for line, text in strings(tree)
        if text in names
    }
    assert found == set()


def test_a_class_name_has_one_meaning():
    """A reader who looks for a class finds one: `Review`, a widget and what it opens, is the only
    name of two."""
    classes = Counter(
        node.name for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in classes.items() if count > 1} == {"Review"}


def test_no_two_test_files_share_a_name():
    # pytest imports them by their bare names, and stops at the second of one name.
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


# --- What is shipped -------------------------------------------------------------------------


def test_the_house_stays_small():
    assert len(TREES) <= MOST_FILES, "a new file: raise MOST_FILES in its commit, and say why"


def test_all_extras_are_in_all():
    """Nobody who installed `all` is told to install something more."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = extras["optional-dependencies"]
    source = "".join(path.read_text() for path in ROOT.rglob("*.py"))
    asked_for = set(re.findall(r'\bInstall\("(\w+)"\)', source))
    assert asked_for >= {"cohort", "combat", "dicom"}
    assert {each: set(extras[each]) - set(extras["all"]) for each in asked_for} == {
        each: set() for each in asked_for
    }


def test_a_wheel_holds_every_packaged_model_and_asset(tmp_path):
    copy = tmp_path / "copy"  # building leaves files beside the source
    shutil.copytree(ROOT, copy / "src" / "napari_msp", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        shipped = set(wheel.namelist())
    wanted = {
        path.relative_to(ROOT.parent).as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.endswith(".safetensors") for name in wanted)
    assert wanted <= shipped
    assert not any(name.startswith("tests") for name in shipped)
