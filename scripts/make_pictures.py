"""Make the pictures of README and handbook from the real plugin.

    sh scripts/with_screen.sh .venv/bin/python scripts/make_pictures.py [PART ...] [--all FOLDER]

A fresh napari is driven as a person drives it; nothing is drawn by other means. Written to
docs/pictures/, each in the dark and in the light theme, in a window of 1600 × 1000 pixels; with
--all into another folder, in one of 1089 × 629 too, for somebody to look at.
"""

from __future__ import annotations

import os

os.environ["NAPARI_CONFIG"] = ""  # nobody's own settings

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.settings import get_plugin_settings
from PIL import Image
from qtpy.QtCore import QEvent, QPoint
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_msp import harmonize, load_model
from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.simulate import simulate, write_scan
from napari_msp.packaged import packaged_model
from napari_msp.scan_sources import load_scan
from napari_msp.ui.compare.widget import Compare
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.docks import open_widget
from napari_msp.ui.preferences import PLUGIN, hint_no_more

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WINDOW, SMALL = (1600, 1000), (1089, 629)
"""Sizes in pixels: that of the handbook's pictures, and of a small screen."""

THEMES = {"dark": "", "light": "-light"}
"""And what their pictures' names end in."""

GIF_WIDTH = 900
COLOURS = 192
"""Of the GIF's palette, and of each picture's."""

CROSSING = (18.0, 6.0, -24.0)
"""Where fibres cross in the sample, in mm along S, P and L."""

MISALIGNMENT = 4.0
"""Of the heads that are aligned, in mm."""


class Tour:
    """A window, its pictures, and the frames of the animation.

    Parameters
    ----------
    folder
        Where pictures go.
    sizes
        Of the window in its pictures; between them it has the first.
    """

    def __init__(self, folder: Path, sizes: Sequence[tuple[int, int]]) -> None:
        self.folder, self.sizes = folder, sizes
        folder.mkdir(parents=True, exist_ok=True)
        self.viewer = napari.Viewer(show=True)
        self.window = self.viewer.window._qt_window
        self.window.resize(*sizes[0])
        self.frames: list[tuple[Image.Image, int]] = []

    def wait(self, until: Callable[[], bool], seconds: float = 240) -> None:
        """Let the window live until something has happened, and a little longer."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s")
            self.live(0.02)
        self.live(0.3)

    def live(self, seconds: float) -> None:
        """Let the window live for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            # Only a loop of Qt's own deletes what is to be deleted; else it stays to be seen.
            QApplication.sendPostedEvents(None, QEvent.DeferredDelete)
            time.sleep(0.005)

    def grab(self) -> Image.Image:
        """Give the whole window as it is on the screen."""
        self.live(0.15)
        return Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False)).convert(
            "RGB"
        )

    def picture(self, name: str) -> None:
        """Write the window as PNGs, in both themes and in every size."""
        for size in self.sizes:
            self.window.resize(*size)
            self.live(1)
            if not self.viewer.canvas.grid.enabled:
                self.viewer.reset_view()
            for theme, end in THEMES.items():
                self.viewer.theme = theme
                self.live(0.5)
                self._write(f"{name}{'' if size == WINDOW else f'-{size[0]}'}{end}")
        self.window.resize(*self.sizes[0])
        self.viewer.theme = next(iter(THEMES))
        self.live(0.5)

    def _write(self, name: str) -> None:
        path = self.folder / f"{name}.png"
        whole = self.grab()
        few = whole.quantize(palette=palette_of([whole]), dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} kB")

    def frame(self, milliseconds: int) -> None:
        """Keep the window as a frame of the animation."""
        picture = self.grab()
        height = round(picture.height * GIF_WIDTH / picture.width)
        small = picture.resize((GIF_WIDTH, height), Image.Resampling.LANCZOS)
        self.frames.append((small, milliseconds))

    def write_animation(self, name: str) -> None:
        """Write the frames as a GIF with one palette, so that nothing flickers."""
        palette = palette_of([frame for frame, _ in self.frames])
        frames = [
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in self.frames
        ]
        path = self.folder / f"{name}.gif"
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=[pause for _, pause in self.frames],
            loop=0,
            optimize=True,
        )
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} kB, {len(frames)} frames")

    def open(self, name: str) -> Any:
        """Open one of the plugin's widgets."""
        return open_widget(self.viewer, name)

    def close(self, widget: Any) -> None:
        """Close a widget's dock."""
        self.viewer.window.remove_dock_widget(widget)
        self.live(0.2)


def palette_of(frames: list[Image.Image]) -> Image.Image:
    """Choose colours for all frames; rare ones count nearly as much as the many greys.

    Greys of their own are added: white brains beside pale errors would turn yellow.
    """
    pixels = np.concatenate([np.asarray(frame)[::2, ::2].reshape(-1, 3) for frame in frames])
    colours, counts = np.unique(pixels >> 2, axis=0, return_counts=True)
    often = np.repeat(colours << 2, np.ceil(counts**0.35).astype(int), axis=0)
    chosen = Image.fromarray(often[None]).quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
    greys = np.repeat(np.linspace(0, 255, 256 - COLOURS).round().astype(int), 3).tolist()
    palette = (chosen.getpalette() or [])[: 3 * COLOURS] + greys
    chosen.putpalette(palette)
    return chosen


def harmonize_and_compare(tour: Tour) -> None:
    """Go from the sample to Fig. 3, the stages and a voxel."""
    tour.frame(900)
    tour.viewer.open_sample(PLUGIN, "travelling_heads")
    tour.frame(1200)
    harmonize = tour.open("Harmonize")
    tour.wait(harmonize.form.button.isEnabled)
    tour.frame(1500)
    harmonize.form.button.click()
    tour.live(2)
    tour.frame(700)
    tour.wait(lambda: not harmonize.running, 900)
    harmonize.progress.end()  # how long it took says more about this machine than about networks
    tour.frame(1500)
    tour.picture("harmonize")

    harmonize.results.compare.click()
    (compare,) = tour.window.findChildren(Compare)
    tour.close(harmonize)
    tour.wait(lambda: not compare.comparing.running)
    tour.frame(2500)
    tour.picture("compare")
    compare.form.maps.setCurrentText("colour FA")
    tour.wait(lambda: not compare.comparing.running)
    tour.frame(2500)
    compare.form.maps.setCurrentText("SH average")

    compare.tabs.setCurrentIndex(1)
    tour.wait(lambda: not compare.comparing.running)
    slider = compare.stages.panel.slider
    for alpha in (100, 75, 50, 25, 0, 50, 100):
        slider.setValue(slider.minimum() + alpha * (slider.maximum() - slider.minimum()) // 100)
        tour.frame(450)
    compare.stages.panel.branches.click()
    tour.wait(lambda: not compare.comparing.running)
    tour.live(2)
    tour.wait(lambda: not compare.comparing.running)
    tour.frame(2500)
    tour.picture("branches")
    compare.stages.panel.branches.click()
    tour.wait(lambda: not compare.comparing.running)

    compare.tabs.setCurrentIndex(2)
    tour.wait(lambda: not compare.comparing.running)
    canvas = tour.viewer.window._qt_viewer.canvas.native
    for x, y in ((0.50, 0.27), (0.45, 0.25), (0.434, 0.222)):
        spot = QPoint(round(x * canvas.width()), round(y * canvas.height()))
        QTest.mouseMove(canvas, spot)
        tour.live(0.3)
        tour.frame(700)
    tour.frame(1500)
    tour.picture("voxel")

    compare.tabs.setCurrentIndex(0)
    crosshair_of(tour.viewer).put(CROSSING)
    compare.form.glyphs.setCurrentText("ODF")
    tour.live(5)
    tour.frame(3500)
    tour.picture("glyphs")
    compare.form.glyphs.setCurrentText("none")
    compare.tabs.setCurrentIndex(3)
    tour.live(1)
    tour.picture("planes")
    tour.close(compare)


def review(tour: Tour, folder: Path) -> None:
    """Rate predictions of four heads by keys, of which one is whole."""
    heads, out = folder / "heads", folder / "predictions"
    simulate(heads, 1, noise_free=False)
    platforms = (platform_named("ge_st"), platform_named("prisma_st"))
    for number, size in ((1, "small"), (2, "small"), (3, "full")):
        for scan in simulate_subject(number, platforms, size):
            write_scan(heads, scan, noise_free=False)
    model = load_model(packaged_model("MSP"))
    for path in sorted(heads.glob("sub-*/ses-ge/dwi/*_acq-st_dwi.nii.gz")):
        harmonize(model, load_scan(path), target="prisma_st").save(out)

    tour.viewer.layers.clear()
    widget = tour.open("Review")
    widget.form.folder.choose(out)
    widget.form.rater.setText("anna")
    widget.form.button.click()
    tour.wait(lambda: widget.canvas.is_seen and not widget.canvas.ahead.busy)
    whole = next(each for each in widget.session.rows if each.subject == "sub-04")
    for key in ("pass", "pass", "doubtful"):
        if widget.session.current is whole:
            widget.act("next")
            tour.wait(lambda: widget.canvas.is_seen)
        widget.act(key)
        tour.wait(lambda: widget.canvas.is_seen)
    widget.go_to(whole)
    tour.wait(lambda: widget.canvas.is_seen and not widget.canvas.ahead.busy)
    widget.judging.tagged.emit("blurred")
    widget.act("worst")
    widget.act("coronal")
    tour.wait(lambda: not widget.canvas.ahead.busy)
    tour.picture("review")
    tour.close(widget)


def site_effect(tour: Tour, folder: Path) -> None:
    """Compare predictions of seven heads with their scans on the target, one of two."""
    tour.viewer.layers.clear()
    heads, out = folder / "travelling", folder / "travelled"
    simulate(heads, 1, "tiny", noise_free=False)
    for platform in ("connectom", "prisma"):
        shutil.rmtree(heads / "sub-01" / f"ses-{platform}")
    source, target = platform_named("ge_st"), platform_named("prisma_st")
    for number in range(7):
        for run in (1, 2):
            for scan in simulate_subject(number, (source, target)[run - 1 :], "tiny", run=run):
                named = run if scan.platform is target else None
                write_scan(heads, scan, noise_free=False, run=named)
    model = load_model(packaged_model("MSP"))
    for path in sorted(heads.glob("sub-*/ses-ge/dwi/*_acq-st_dwi.nii.gz")):
        harmonize(model, load_scan(path), target="prisma_st").save(out)
    widget = tour.open("Site effect")
    widget.look_at(out)
    widget.form.heads.choose(heads)
    tour.wait(widget.form.button.isEnabled)
    widget.form.button.click()
    tour.wait(lambda: not widget.running)
    widget.form.button.click()  # with the run that is offered
    tour.wait(lambda: not widget.running, 600)
    tour.picture("site_effect")
    tour.close(widget)


def align(tour: Tour, heads: Path) -> None:
    """Lay heads that were moved on the input's, and look at one as a checkerboard."""
    tour.viewer.layers.clear()
    simulate(heads, 2, misalignment=MISALIGNMENT, noise_free=False)
    widget = tour.open("Align")
    widget.form.dataset.choose(heads)
    tour.wait(widget.form.button.isEnabled)
    widget.form.button.click()
    tour.wait(lambda: not widget.running)
    widget.moves.table.selectRow(2)
    tour.wait(lambda: not widget.running)
    widget.moves.board.setChecked(True)
    tour.wait(lambda: not widget.running)
    tour.live(2)
    tour.picture("align")
    tour.close(widget)


def train(tour: Tour) -> None:
    """Give a lesson: from an untrained network to one that beats alignment."""
    tour.viewer.layers.clear()
    widget = tour.open("Train")
    widget.form.entries["preset"].write("lecture")
    widget.form.simulate.click()
    tour.wait(lambda: widget.form.request is not None)
    widget.train_button.click()
    tour.wait(lambda: not widget.run.running, 3600)
    if not widget.use_button.isEnabled():
        raise RuntimeError("the lesson did not end well: the window says why")
    tour.live(2)
    tour.picture("trained")
    tour.close(widget)


PARTS = ("tour", "review", "site_effect", "align", "train")


def main() -> None:
    """Make all pictures, or those of some parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, "all"), default="all", metavar="PART")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="in a small window, too")
    given = parser.parse_args()
    parts, folder = PARTS if "all" in given.parts else given.parts, given.all or PICTURES
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as cache:
        tour = Tour(folder, (WINDOW, SMALL) if given.all else (WINDOW,))
        get_plugin_settings(PLUGIN).machine.cache_folder = cache
        hint_no_more()
        if "tour" in parts:
            harmonize_and_compare(tour)
            tour.write_animation("tour")
        if "review" in parts:
            review(tour, Path(cache))
        if "site_effect" in parts:
            site_effect(tour, Path(cache))
        if "align" in parts:
            align(tour, Path(cache) / "moved")
        if "train" in parts:
            train(tour)
        tour.viewer.close()


if __name__ == "__main__":
    main()
