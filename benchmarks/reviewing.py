"""How fast many whole heads are reviewed by keys alone, in a real window with real keys.

    sh scripts/with_screen.sh python benchmarks/reviewing.py [FOLDER] [--subjects 20] [--notes 3]

Needs xdotool, and openbox where the screen has no window manager. FOLDER gets predictions whose
review maps are made-up heads of 150 × 180 × 150 voxels (once). Then napari is opened, the folder is
opened in Review, and every prediction is rated by keys that xdotool presses as a keyboard does:
three of them with a tag and a note. Printed: presses, the time from each key to the next head's
picture on the screen, the machine's time a subject, and the window's longest stalls.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["NAPARI_CONFIG"] = ""  # nobody's settings are read or written

import numpy as np
from responsiveness import Heartbeat

from napari_msp.bids import HARMONIZED, describe_derivative
from napari_msp.data.nifti import write_nifti
from napari_msp.files import write_json
from napari_msp.image_files import ImageFile
from napari_msp.inference.review_maps import MadeFrom, ReviewImage, ReviewMaps, write_review_maps
from napari_msp.provenance import Provenance

SHAPE = (150, 180, 150)
SIZE = 1.2
"""mm."""

GOAL = 0.3
"""Seconds from key to picture, in the median."""

AFFINE = np.diag([SIZE, SIZE, SIZE, 1.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("reviewed"))
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--notes", type=int, default=3)
    parser.add_argument("--think", type=float, default=1.0, help="seconds to look at each")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if not options.folder.exists():
        make_folder(options.folder, options.subjects)
    for table in (options.folder / "review").glob("rater-*"):
        table.unlink()
    manager = start_window_manager()
    try:
        measure(options.folder, options.notes, options.think)
    finally:
        if manager is not None:
            manager.terminate()


def make_folder(folder: Path, subjects: int, shape: tuple[int, int, int] = SHAPE) -> None:
    """Write predictions that can be listed, and maps of heads that can be looked at."""
    folder.mkdir(parents=True)
    describe_derivative(folder, folder, HARMONIZED, folder.parent / "heads")
    rng = np.random.default_rng(0)
    for number in range(1, subjects + 1):
        make_prediction(folder, number, rng, shape)


def make_prediction(
    folder: Path, number: int, rng: np.random.Generator, shape: tuple[int, int, int]
) -> None:
    """Write one prediction."""
    subject = f"sub-{number:02d}"
    scan = f"{subject}/ses-ge/dwi/{subject}_ses-ge_acq-st_dwi.nii.gz"
    made = Provenance(
        target="prisma_st",
        input="ge_st",
        title="MSP",
        kind="msp",
        model_file="msp.safetensors",
        model_sha256="ab" * 32,
        sources=(f"bids:source:{scan}",),
    )
    place = folder / subject / "ses-ge" / "dwi"
    place.mkdir(parents=True)
    stem = ImageFile.predicted(scan, made.target, made.kind).stem
    stub = rng.random((4, 5, 6, 3)).astype(np.float32)  # a review looks at its maps alone
    write_nifti(place / f"{stem}_dwi.nii.gz", stub, AFFINE)
    maps = head(rng, shape, broken=number % 7 == 3)
    inside = maps.prediction.mask
    assert maps.uncertainty is not None
    numbers = {
        "SNR": float(8.0 if number % 7 == 3 else rng.normal(22, 1.5)),
        "MaskVolume": float(inside.sum() * SIZE**3 / 1000),
        "MeanSignalDeviation": float(rng.normal(0, 0.5)),
        "DisagreementOfOrder0": float(rng.normal(0.02, 0.001)),
        "ExpectedError": float(maps.uncertainty[inside].mean()),
    }
    write_json(place / f"{stem}_dwi.json", {**made.to_sidecar(), "Measures": numbers})
    image = place / f"{stem}_dwi.nii.gz"
    write_review_maps(MadeFrom(image, root=folder), {None: maps})


def head(
    rng: np.random.Generator, shape: tuple[int, int, int], *, broken: bool = False
) -> ReviewMaps:
    """Make up a head: a cortex with folds, white matter, ventricles, skull, noise."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    wide, long, tall = rng.uniform(0.68, 0.78), rng.uniform(0.78, 0.88), rng.uniform(0.66, 0.76)
    radius = np.sqrt((x / wide) ** 2 + (y / long) ** 2 + (z / tall) ** 2)
    phase = rng.uniform(0, 6.28, 3).astype(np.float32)
    folds = np.sin(23 * x + phase[0]) * np.sin(19 * y + phase[1]) * np.sin(21 * z + phase[2])
    mask = radius < 1
    white = radius < 0.78 + 0.09 * folds
    water = (np.sqrt((x / 0.12) ** 2 + ((y + 0.05) / 0.3) ** 2 + (z / 0.16) ** 2) < 1) & white
    tissue = np.where(water, 0.06, np.where(white, 0.34, 0.24)).astype(np.float32)
    noise = rng.standard_normal(shape, dtype=np.float32)
    direction = np.stack(
        np.broadcast_arrays(
            np.abs(np.cos(4 * x)), np.abs(np.sin(3 * y)), np.abs(np.sin(2 * z) ** 2)
        ),
        axis=-1,
    )
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    fa = np.where(white & ~water, 0.45, 0.12).astype(np.float32) * mask

    def image(values: np.ndarray[Any, Any], inside: np.ndarray[Any, Any]) -> ReviewImage:
        average = np.where(inside, values, 0).astype(np.float32)
        own = fa * inside
        return ReviewImage.of(average, direction * own[..., None], inside, AFFINE)

    seen = mask & (z > -0.35) if broken else mask  # a mask that lost the lower brain
    skull = ((radius > 1.05) & (radius < 1.16)) * np.float32(0.35)
    b0 = (1.2 - 2 * tissue + 0.04 * noise) * mask + skull + 0.02 * np.abs(noise)
    hole = np.sqrt((x - 0.3) ** 2 + (y - 0.2) ** 2 + (z - 0.1) ** 2)
    wrong = np.exp(-((hole / 0.12) ** 2)) * (0.2 if broken else 0.02)
    uncertainty = (2e-4 + 2e-3 * np.square(wrong) + 1e-4 * np.abs(noise)) * seen
    return ReviewMaps(
        image(tissue + 0.03 * noise, seen),
        image(tissue + 0.01 * noise - wrong, seen),
        None,
        uncertainty.astype(np.float32),
        "expected error",
        (900 * b0).astype(np.float32),
    )


# --- Driving ---------------------------------------------------------------------------------


def start_window_manager() -> subprocess.Popen[bytes] | None:
    """Start one, which gives a window the keyboard; None where there is none to start."""
    if shutil.which("openbox") is None:
        return None
    manager = subprocess.Popen(["openbox"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(1)
    return manager


class Window:
    """napari with Review, and a keyboard."""

    def __init__(self, folder: Path) -> None:
        import napari

        self.viewer = napari.Viewer()
        window: Any = self.viewer.window
        self.window = window._qt_window
        self.window.resize(1600, 1000)
        self.presses = 0
        self.drawn = 0.0
        window._qt_viewer.canvas._scene_canvas.events.draw.connect(self._note_drawing)
        _, self.review = window.add_plugin_dock_widget("napari-msp", "Review")
        self.wait(lambda: False, 1)
        self.window.activateWindow()
        self.review.form.folder.choose(folder)
        self.review.form.rater.setText("bench")
        began = time.perf_counter()
        self.review.open()
        self.wait(lambda: self.review.shown is not None, 60)
        print(f"folder opened to first picture: {time.perf_counter() - began:.2f} s")
        self.wait(lambda: not self.review.ahead.busy, 120)
        self.review.list.table.setFocus()
        self.beat = Heartbeat()

    def _note_drawing(self, event: Any) -> None:
        self.drawn = time.perf_counter()

    def wait(self, condition: Any, seconds: float) -> bool:
        """Let the window live until something holds; tell whether it did."""
        from qtpy.QtWidgets import QApplication

        end = time.perf_counter() + seconds
        while not condition() and time.perf_counter() < end:
            QApplication.processEvents()
            time.sleep(0.002)
        return bool(condition())

    def press(self, *keys: str) -> float:
        """Press keys as a keyboard does; give when the last one was."""
        self.presses += len(keys)
        began = time.perf_counter()
        for key in keys:
            began = time.perf_counter()
            done = subprocess.Popen(["xdotool", "key", key])
            self.wait(lambda done=done: done.poll() is not None, 5)
        return began

    def type(self, text: str) -> None:
        """Type a text."""
        self.presses += len(text)
        done = subprocess.Popen(["xdotool", "type", "--delay", "20", text])
        self.wait(lambda: done.poll() is not None, 30)


def measure(folder: Path, notes: int, think: float) -> None:
    """Rate everything, and print how long it took."""
    window = Window(folder)
    review = window.review
    total = len(review.session.rows)
    waits: list[float] = []
    own: list[float] = []
    began = time.perf_counter()
    for number in range(total):
        window.wait(lambda: False, think)  # somebody looks
        if number < notes:
            window.press("5", "Return")
            window.type("lower brain is cut off")
            window.press("Return")
        spent = time.thread_time()
        waits.append(rate(window, "f" if number < notes else "d" if number == notes else "p"))
        own.append(time.thread_time() - spent)
    seconds = time.perf_counter() - began
    pauses = window.beat.pauses(began, began + seconds)
    stall = max(each.length - each.waited for each in pauses)
    print(f"{review.session.progress_words} with {window.presses} presses")
    print(f"{window.presses / total:.1f} presses and {seconds / total:.2f} s a subject,")
    print(f"of which {think:g} s to look; {notes} with a tag and a note")
    print(f"key to next picture (goal {GOAL} s): median {statistics.median(waits[:-1]):.3f} s,")
    print(f"longest {max(waits):.3f} s; machine's time a subject {statistics.mean(waits):.3f} s;")
    print(f"the window's own computing for that: median {statistics.median(own[:-1]):.3f} s")
    print(f"longest stall of the window {1000 * stall:.0f} ms, without waits for a core")
    print(f"held {review.ahead.bytes / 1e6:.0f} MB")
    window.viewer.close()


def rate(window: Window, key: str) -> float:
    """Press a key that rates; give the seconds until the next head is on the screen."""
    review = window.review
    entry, left = review.session.current, review.session.progress
    last = left[0] == left[1] - 1
    began = window.press(key)

    def seen() -> bool:
        rated = review.session.state(entry) != "unrated"
        there = review.shown is review.session.current is not entry and window.drawn > began
        return rated and (last or there)

    if not window.wait(seen, 20):
        raise SystemExit(f"{entry} was not rated, or nothing came after it")
    return time.perf_counter() - began if last else window.drawn - began


if __name__ == "__main__":
    main()
