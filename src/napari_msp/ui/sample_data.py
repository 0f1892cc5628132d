"""Simulated travelling heads for File > Open Sample, for a lesson, and for the demo's window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msp import __version__
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import Cancelled, UserError
from napari_msp.files import new_folder, sha256, write_json
from napari_msp.scan_sources import load_scan
from napari_msp.strict_json import read_json
from napari_msp.ui.background import wait_for
from napari_msp.ui.docks import current_viewer, open_widget
from napari_msp.ui.layers import (
    LayerData,
    make_layer,
    named_apart,
    not_shown,
    scan_layers,
    showing,
    shown_in,
)
from napari_msp.ui.phrasing import reason_first
from napari_msp.ui.preferences import kept_in, preferences
from napari_msp.ui.reading import Control, Report, read_scan
from napari_msp.ui.shared import take_away

if TYPE_CHECKING:
    import napari

    from napari_msp.demo import DemoResult

HEAD_COST = 45
"""Cost of making the head, in directions at the coarsest voxel size (measured)."""

SIZE = "full"
"""Size of the head that is opened, as in `simulate`: one that has all three planes."""

LESSON_SUBJECTS, LESSON_SIZE = 3, "tiny"

NOTHING: list[LayerData] = [(np.empty((0, 1, 1)), {"channel_axis": 0}, "image")]
"""Layer data that give no layers: napari's menu takes an empty list for an error."""

DIGESTS = "made.json"
"""File of checksums that tell whether the heads are still whole."""


@reason_first()
def travelling_heads(
    size: str | None = None, targets: Sequence[str] | None = None
) -> list[LayerData]:
    """Return the layers of a simulated head's scan on the demo's input platform.

    The head's scans lie in the cache folder; they are simulated the first time. Those on targets
    are siblings of the scan that is shown.

    Parameters
    ----------
    size
        Size, as in `simulate`; None: `SIZE`.
    targets
        Platforms that it is scanned on as well; None: the one that Harmonize ticks.

    Raises
    ------
    UserError
        If the cache folder cannot be written to.
    """
    viewer = current_viewer()
    size = size or SIZE
    folder = preferences().cache / f"travelling-heads-{size}"
    wanted = first_targets() if targets is None else targets
    try:
        layers = wait_for(
            lambda control: _layers(folder, size, wanted, control), "Opening the sample"
        )
    except Cancelled:
        return NOTHING
    return layers if viewer is None else _shown_once(viewer, layers)


def travelling_heads_everywhere(size: str | None = None) -> list[LayerData]:
    """Return the layers of the same scan, with the head scanned on every target."""
    return travelling_heads(size, all_targets())


def all_targets() -> list[str]:
    """Return the names of all platforms that are predicted."""
    from napari_msp.data.phantom.platforms import INPUT_PLATFORM, PLATFORMS

    return [each.name for each in PLATFORMS if each.name != INPUT_PLATFORM]


def first_targets() -> list[str]:
    """Return the target that Harmonize ticks, whose truth is simulated first."""
    from napari_msp.data.phantom.platforms import INPUT_PLATFORM
    from napari_msp.ui.harmonize.form import first_target

    return first_target(all_targets(), INPUT_PLATFORM)


def kept_heads(
    folder: Path, size: str, targets: Sequence[str], control: Control
) -> TravellingHeads:
    """Return the simulated head in a folder; simulate it unless it is there unchanged.

    Scans on further targets that were made before stay, and the old files stay until the new
    ones are whole: they may be open.
    """
    made = _made(folder, size)
    if made is None or not {*targets} <= {*made}:
        wanted = [each for each in all_targets() if each in {*targets, *(made or ())}]
        with kept_in(folder.parent):
            _simulate(folder, size, wanted, control)
    return open_dataset(folder / "heads")


def lesson_heads(cache: Path, control: Control) -> TravellingHeads:
    """Return a few small heads to train on; simulate them if the cache folder has none.

    Reports a `Report` for every scan.

    Raises
    ------
    Cancelled
        If it was cancelled.
    UserError
        If the cache folder cannot be written to.
    """
    from napari_msp.data.phantom.simulate import simulate

    folder = cache / f"lesson-heads-{LESSON_SIZE}-{LESSON_SUBJECTS}"

    def progress(scan: str, done: int, total: int) -> None:
        control.check()
        control.report(Report(f"Simulating heads for a lesson: {scan}", done, total))

    if not folder.exists():
        with kept_in(cache):
            simulate(folder, LESSON_SUBJECTS, LESSON_SIZE, noise_free=False, progress=progress)
    return open_dataset(folder)


def show_demo(result: DemoResult) -> None:
    """Open the viewer and wait until it is closed."""
    import napari

    open_demo(napari.Viewer(title="napari-msp: a simulated head, harmonized"), result)
    napari.run()


def open_demo(viewer: napari.Viewer, result: DemoResult) -> None:
    """Add the scan and the predictions of one target, and compare them with the truth."""
    from napari_msp.ui.harmonize.form import first_target

    scan = load_scan(result.scan)
    (shown,) = first_target([each.target for each in result.targets], scan.platform)
    chosen = next(each for each in result.targets if each.target == shown)
    predictions = [load_scan(path) for path in chosen.predictions.values()]
    for each in (scan, *predictions):
        for data in scan_layers(each):
            viewer.add_layer(make_layer(data))
    open_widget(viewer, "Compare").compare_predictions(predictions)


def _layers(folder: Path, size: str, targets: Sequence[str], control: Control) -> list[LayerData]:
    from napari_msp.data.phantom.platforms import INPUT_PLATFORM
    from napari_msp.data.phantom.simulate import DEMO_SUBJECT

    heads = kept_heads(folder, size, targets, control)
    scan = read_scan(load_scan(heads.scans[DEMO_SUBJECT, INPUT_PLATFORM]), control.say)
    control.say("Making maps")
    return scan_layers(scan, check=control.check)


def _shown_once(viewer: napari.Viewer, layers: list[LayerData]) -> list[LayerData]:
    """Return the layers to add where the head may be open already, so that it stays one scan."""
    known = [showing(viewer.layers, each) for each in layers]
    there = [each for each in known if each is not None]
    scan = shown_in(layers[-1]).scan
    if all(shown_in(each.as_layer_data_tuple()).scan.siblings == scan.siblings for each in there):
        if None in known or not there:
            return named_apart(viewer.layers, not_shown(viewer.layers, layers))
        # napari wants at least one layer: the visible one is moved to the top.
        layers, there = [there[-1].as_layer_data_tuple()], there[-1:]
        layers[0][1]["visible"] = True
    take_away(viewer, *there)
    return layers


def _simulate(folder: Path, size: str, targets: Sequence[str], control: Control) -> None:
    from napari_msp.data.phantom.platforms import INPUT_PLATFORM, platform_named
    from napari_msp.data.phantom.simulate import DEMO_SEED, DEMO_SUBJECT, simulate

    scanners = [platform_named(each) for each in (INPUT_PLATFORM, *targets)]
    costs = [each.directions * each.scale**2 for each in scanners]
    costs[0] += HEAD_COST

    def progress(_: str, done: int, total: int = len(scanners)) -> None:
        control.check()
        scan = f": {DEMO_SUBJECT} on {scanners[done].name}" if done < total else ""
        words = f"Simulating a travelling head, which will be kept{scan}"
        control.report(Report(words, sum(costs[:done]), sum(costs)))

    progress("", 0)
    with new_folder(folder, replace=True) as stage:
        simulate(
            stage / "heads",
            1,
            size,
            DEMO_SEED,
            noise_free=False,
            targets=targets,
            progress=progress,
        )
        about = _description(size, targets)
        write_json(stage / DIGESTS, about | {"sha256": _digests(stage / "heads")})


def _made(folder: Path, size: str) -> list[str] | None:
    """Return the targets on which a kept head was scanned; None unless it is whole."""
    try:
        made = read_json(folder / DIGESTS)
    except UserError:  # missing or damaged
        return None
    targets = made.get("targets")
    if not isinstance(targets, list):  # written by an earlier version
        return None
    whole = made == _description(size, targets) | {"sha256": _digests(folder / "heads")}
    return targets if whole else None


def _description(size: str, targets: Sequence[str]) -> dict[str, Any]:
    from napari_msp.data.phantom.simulate import DEMO_SEED

    return {"version": __version__, "size": size, "seed": DEMO_SEED, "targets": list(targets)}


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
