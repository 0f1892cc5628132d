"""How long the window stands still while a whole head is harmonized.

    xvfb-run -a python benchmarks/responsiveness.py [HEADS] [--target prisma_st] [--repeat 3]

Opens napari, presses Harmonize with both packaged models, and prints the longest stall of the main
thread from the press to the last tile (a timer ticks every 5 ms; a stall is the time between two
ticks), and the time that each layer takes to be added. HEADS is a dataset of
`napari-msp simulate HEADS --subjects 1 --size full`; it is made where it is missing. A window on
the screen does as well as a virtual one. Whatever else the machine does shows as stalls, too; how
much of a stall the window waited for a core is reported beside it.
"""

import argparse
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["NAPARI_CONFIG"] = ""  # nobody's settings are read or written

GOAL, LAYER_GOAL = 100, 500
"""Milliseconds: longest stall before the last tile, and longest addition of a layer."""

TICK = 5
"""Milliseconds."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Pause:
    """Between two ticks, in seconds; `waited` for a core that others had (Linux only)."""

    began: float
    length: float
    waited: float

    @property
    def end(self) -> float:
        """When it was over."""
        return self.began + self.length

    def __str__(self) -> str:
        return f"{1000 * self.length:.0f} ms ({1000 * self.waited:.0f} waiting for a core)"


class Heartbeat:
    """Ticks in the main thread."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self._pauses: list[Pause] = []
        self._last, self._waited = time.perf_counter(), waited_for_a_core()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.PreciseTimer)
        self._timer.setInterval(TICK)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now, waited = time.perf_counter(), waited_for_a_core()
        self._pauses.append(Pause(self._last, now - self._last, waited - self._waited))
        self._last, self._waited = now, waited

    def pauses(self, began: float, ended: float, without: Sequence[Span] = ()) -> list[Pause]:
        """Give pauses within a time, except those that overlap some others."""
        return [
            each
            for each in self._pauses
            if began <= each.end
            and each.began <= ended
            and not any(each.began < end and begin < each.end for begin, end in without)
        ]


def waited_for_a_core() -> float:
    """Seconds that this thread was ready to run and did not."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", type=Path, nargs="?", default=Path("full-head"))
    parser.add_argument("--target", default="prisma_st")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if not options.heads.exists():
        simulate_head(options.heads)
    viewer, widget = open_window(options.heads, options.target)
    beat = Heartbeat()
    began = time.perf_counter()
    wait(lambda: time.perf_counter() > began + 5)
    print(f"idle window: longest stall {longest(beat.pauses(began, time.perf_counter()))}")
    for _ in range(options.repeat):
        measure(viewer, widget, beat)
    viewer.close()


def simulate_head(folder: Path) -> None:
    from napari_msp.data.phantom.simulate import simulate

    simulate(folder, subjects=1, size="full", noise_free=False)


def open_window(heads: Path, target: str) -> tuple[Any, Any]:
    """Open napari with one scan and the widget, ready to be pressed."""
    import napari
    from napari.layers import Layer

    from napari_msp.data.dataset import open_dataset
    from napari_msp.scan_sources import load_scan
    from napari_msp.ui.layers import scan_layers

    viewer = napari.Viewer()
    dataset = open_dataset(heads)
    scan = load_scan(dataset.scans[dataset.subjects[0], "ge_st"])
    for data in scan_layers(scan):
        viewer.add_layer(Layer.create(*data))
    _, widget = viewer.window.add_plugin_dock_widget("napari-msp", "Harmonize")
    wait(lambda: widget.form.button.isEnabled())
    widget.form.targets.set_names(widget.form.targets.names, [target])
    wait(lambda: False, seconds=2)  # let the window come to rest
    return viewer, widget


def measure(viewer: Any, widget: Any, beat: Heartbeat) -> None:
    """Press Harmonize once, and print what happened."""
    from napari_msp.ui.reading import Report

    additions: list[tuple[str, float, float]] = []
    last_tile = 0.0
    add_layer = viewer.add_layer

    def timed(layer: Any) -> Any:
        began = time.perf_counter()
        added = add_layer(layer)
        additions.append((layer.name, began, time.perf_counter()))
        return added

    def watch(reported: object) -> None:
        nonlocal last_tile
        if isinstance(reported, Report) and reported.words.startswith("computing maps"):
            last_tile = time.perf_counter()

    object.__setattr__(viewer, "add_layer", timed)
    pressed = time.perf_counter()
    widget.form.button.click()
    widget.progress._job.progressed.connect(watch)
    wait(lambda: not widget.running and not widget.layers.busy)
    wait(lambda: False, seconds=0.5)
    object.__setattr__(viewer, "add_layer", add_layer)

    adding = [(began, ended) for _, began, ended in additions]
    computing = beat.pauses(pressed, last_tile, adding)
    own = max(each.length - each.waited for each in computing)
    print(f"press to last tile {last_tile - pressed:.0f} s, longest stall (goal {GOAL} ms)")
    print(f"  while computing: {longest(computing)}; without such waits {1000 * own:.0f} ms")
    print(f"  with layers added meanwhile: {longest(beat.pauses(pressed, last_tile))}")
    for name, began, ended in additions:
        print(f"  {1000 * (ended - began):4.0f} ms to add {name} (goal {LAYER_GOAL} ms)")


def longest(pauses: Sequence[Pause]) -> Pause:
    return max(pauses, key=lambda each: each.length)


def wait(condition: Any, seconds: float = 1200.0) -> None:
    """Let the window run until a condition holds."""
    from qtpy.QtTest import QTest

    end = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < end:
        QTest.qWait(20)


if __name__ == "__main__":
    main()
