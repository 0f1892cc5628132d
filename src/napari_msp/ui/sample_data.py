"""Simulated travelling heads: for File > Open Sample, for a lesson, and the window of the demo."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_msp import __version__
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import Advice, Cancelled, UserError
from napari_msp.files import new_folder, read_json, sha256, write_json
from napari_msp.scan import load_scan
from napari_msp.ui.background import Control, wait_for
from napari_msp.ui.docks import open_widget
from napari_msp.ui.layers import LayerData, make_layer, scan_layers
from napari_msp.ui.orientation_letters import letter_current_window
from napari_msp.ui.phrasing import reason_first
from napari_msp.ui.preferences import preferences
from napari_msp.ui.reading import read_scan
from napari_msp.ui.widgets.progress import Step

if TYPE_CHECKING:
    import napari

    from napari_msp.demo import DemoResult

SHARES = (0, 25, 35, 45, 100)
"""Per cent of the work that is done after so many platforms (measured)."""

LESSON_SUBJECTS, LESSON_SIZE = 3, "tiny"

DIGESTS = "made.json"
"""File that tells what was made, to find out whether it is still whole."""


@reason_first()
def travelling_heads(size: str = "small") -> list[LayerData]:
    """Give the layers of a simulated head's scan on the demo's input platform.

    The head's scans on all platforms lie in the cache folder; the first time they are simulated,
    in less than 20 seconds on two cores. The other platforms' are siblings of the scan that is
    shown.

    Parameters
    ----------
    size
        As for `simulate`.

    Raises
    ------
    UserError
        When the cache folder cannot be written to, or the simulation was cancelled.
    """
    letter_current_window()
    folder = preferences().cache / f"travelling-heads-{size}"
    try:
        return wait_for(lambda control: _layers(folder, size, control), "Opening the sample")
    except Cancelled:
        raise UserError(
            "The simulation was cancelled", remedy=Advice("open the sample again to begin anew")
        ) from None


def kept_heads(folder: Path, size: str, control: Control) -> TravellingHeads:
    """Give the simulated head in a folder; made (anew) unless it is there as it was made."""
    if not _is_whole(folder, size):
        shutil.rmtree(folder, ignore_errors=True)
        _simulate(folder, size, control)
    return open_dataset(folder / "heads")


def lesson_heads(cache: Path, control: Control) -> TravellingHeads:
    """Give a few small heads to train on; simulated where they are not in the cache folder.

    Reports a `Step` for every scan.

    Raises
    ------
    Cancelled
        When it was cancelled.
    UserError
        When the cache folder cannot be written to.
    """
    from napari_msp.data.phantom import simulate

    folder = cache / f"lesson-heads-{LESSON_SIZE}-{LESSON_SUBJECTS}"

    def progress(scan: str, done: int, total: int) -> None:
        control.check()
        control.report(Step(f"Simulating heads for a lesson: {scan}", done, total))

    if not folder.exists():
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


def _layers(folder: Path, size: str, control: Control) -> list[LayerData]:
    from napari_msp.data.phantom import DEMO_SUBJECT, INPUT_PLATFORM

    heads = kept_heads(folder, size, control)
    scan = read_scan(load_scan(heads.scans[DEMO_SUBJECT, INPUT_PLATFORM]), control.say)
    return scan_layers(scan, check=control.check)


def _simulate(folder: Path, size: str, control: Control) -> None:
    from napari_msp.data.phantom import DEMO_SEED, DEMO_SUBJECT, PLATFORMS, simulate

    def progress(_: str, done: int, total: int = len(PLATFORMS)) -> None:
        control.check()
        scan = f": {DEMO_SUBJECT} on {PLATFORMS[done].name}" if done < total else ""
        words = f"Simulating a travelling head, which will be kept{scan}"
        control.report(Step(words, SHARES[done], SHARES[-1]))

    progress("", 0)
    with new_folder(folder) as stage:
        simulate(stage / "heads", 1, size, DEMO_SEED, noise_free=False, progress=progress)
        write_json(stage / DIGESTS, _description(size) | {"sha256": _digests(stage / "heads")})


def _is_whole(folder: Path, size: str) -> bool:
    try:
        made = read_json(folder / DIGESTS)
    except UserError:  # not there, or damaged itself
        return False
    return made == _description(size) | {"sha256": _digests(folder / "heads")}


def _description(size: str) -> dict[str, Any]:
    from napari_msp.data.phantom import DEMO_SEED

    return {"version": __version__, "size": size, "seed": DEMO_SEED}


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
