"""`demo`: the main job on a simulated head and the packaged models."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from napari_msp.commands import shared
from napari_msp.commands.console import Console

SUMMARY = "Harmonize a simulated head with the packaged models, in a minute"
EXAMPLE = "napari-msp demo --headless"


def add_options(command: ArgumentParser) -> None:
    """Add the folder to write to."""
    where = shared.section(command)
    where.add("--headless", "Do not open napari.")
    where.path("--out DIR", "Write to this folder.", Path("demo"))


def run(options: Namespace, console: Console) -> int:
    """Make the demo and show it."""
    from napari_msp.demo import run_demo

    result = run_demo(options.out, say=console.report)
    if not options.headless and _has_display():
        from napari_msp.ui.sample_data import show_demo

        show_demo(result)
    return 0


def _has_display() -> bool:
    """Return whether a window could be opened."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
