"""How long one waits before anything is done: commands, widgets, the first prediction."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path

from bench.comparing import Setting, Subject, Table
from bench.timing import seconds_of
from napari_msp.cli import COMMANDS
from napari_msp.packaged import packaged_model

ABOUT = """\
Seconds in fresh processes, the least of some, as others use a machine too. To reach: 0.3 s for each
command's help, and 1 s for each widget, which must not wait for torch. A widget is opened in a
napari whose own modules are there already. The first prediction in a window imports torch, in the
worker that computes it.
"""

HELP, WIDGET = 0.3, 1.0
"""Seconds that are to be reached."""

OPEN = """
import os, sys, time
from importlib import import_module
from qtpy.QtWidgets import QApplication
application = QApplication([])
from napari.components import ViewerModel
from napari.window import Window
viewer = ViewerModel()
began = time.perf_counter()
module, name = sys.argv[1].split(":")
widget = getattr(import_module(module), name)(viewer)
print(time.perf_counter() - began, "torch" in sys.modules, flush=True)
os._exit(0)
"""

PREDICT = """
import sys, time
times = [time.perf_counter()]
import torch
times.append(time.perf_counter())
from bench import fullsize
from napari_msp import harmonize, load_model
scan = fullsize.head(int(sys.argv[2]))
times.append(time.perf_counter())
for _ in range(2):
    harmonize(load_model(sys.argv[1]), scan, "prisma_st", device="cpu")
    times.append(time.perf_counter())
print(times[1] - times[0], times[3] - times[2], times[4] - times[3])
"""


def _least(command: Sequence[str], repeats: int) -> float:
    """Time a command whole."""
    call = partial(subprocess.run, command, stdout=subprocess.DEVNULL, check=True)
    return min(seconds_of(call, repeats))


def _said(*arguments: str) -> list[str]:
    """Give the words that a script of this file prints."""
    known = os.environ | {"QT_QPA_PLATFORM": "offscreen", "NAPARI_CONFIG": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=known,
    )
    return done.stdout.split()


def commands(setting: Setting) -> Sequence[Sequence[str]]:
    """Time each command's help."""
    names = [[], *([name] for name in COMMANDS)]
    rows = []
    for name in names[:2] if setting.quick else names:
        line = [sys.executable, "-m", "napari_msp", *name, "--help"]
        took = _least(line, 2 if setting.quick else 5)
        rows.append([" ".join(["napari-msp", *name, "--help"]), _beside(took, HELP)])
    return rows


def widgets(setting: Setting) -> Sequence[Sequence[str]]:
    """Open each widget of the manifest."""
    import yaml

    manifest = yaml.safe_load((files("napari_msp") / "napari.yaml").read_text(encoding="utf-8"))
    given = manifest["contributions"]
    places = {each["id"]: each["python_name"] for each in given["commands"]}
    rows = []
    for widget in given["widgets"]:
        found = [_said(OPEN, places[widget["command"]]) for _ in range(1 if setting.quick else 3)]
        took = min(float(seconds) for seconds, _ in found)
        torch = "yes" if any(there == "True" for _, there in found) else "no"
        rows.append([widget["display_name"], _beside(took, WIDGET), torch])
    return rows


def _beside(took: float, most: float) -> str:
    """Write seconds; more than what is to be reached stands out."""
    return f"{took:.2f}" if took <= most else f"**{took:.2f}**"


def first_prediction(setting: Setting) -> Sequence[Sequence[str]]:
    """Predict twice in a process: by the packaged MSP, a slab's worth of voxels."""
    where = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    os.environ["PYTHONPATH"] = where
    found = [
        [float(each) for each in _said(PREDICT, str(packaged_model("MSP")), "32")]
        for _ in range(1 if setting.quick else 3)
    ]
    torch, first, again = (min(each) for each in zip(*found, strict=True))
    return [
        ["torch's import", f"{torch:.2f}"],
        ["first prediction, 32³ voxels, the packaged MSP read", f"{first:.2f}"],
        ["again", f"{again:.2f}"],
    ]


SUBJECT = Subject(
    "start",
    ABOUT,
    tables=[
        Table(name="Help of commands", columns=("", "s"), rows=commands),
        Table(
            name="Widgets, opened",
            columns=("", "s", "torch imported"),
            rows=widgets,
            needs=("napari", "qtpy", "yaml"),
        ),
        Table(name="First prediction", columns=("", "s"), rows=first_prediction),
    ],
)
