"""Quality of a scan in one picture: slices against volumes, with the worst of both named.

Each column is a volume, sorted by shell; each row a slice. Blue is less signal than expected from
the other volumes, red is more. Above are the displacement of the head from its usual place, and
the similarity of each volume to its neighbour in q-space.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from napari_msp.arrays import IntArray
from napari_msp.bids import nifti_stem
from napari_msp.checking.quality import ScanQuality
from napari_msp.checking.summary import ScanSummary
from napari_msp.evaluation.figures.curves import INK, SOFT
from napari_msp.evaluation.figures.layout import plain_figure, tidy, write_figure

REACH = 0.5
"""Share of signal, missing or in excess, at which colours are full."""

NAMED = 6
"""Number of worst slices and volumes that are named."""

MARK, TRACE, UNKNOWN = "#d55e00", "#0072b2", "#d9d9d9"


def write_carpets(folder: str | Path, scans: Sequence[ScanSummary]) -> list[Path]:
    """Draw each scan's quality to `<its file's stem>_quality.png`; return the files."""
    written = []
    for scan in scans:
        if scan.quality is not None:
            path = Path(folder) / f"{nifti_stem(scan.where)}_quality.png"
            write_figure(path, carpet_figure(scan.quality, scan.name))
            written.append(path)
    return written


def carpet_figure(quality: ScanQuality, name: str) -> Figure:
    """Draw the quality of a scan, its name above."""
    order = np.argsort(quality.b_values, kind="stable")
    figure = plain_figure(9.5, 6.0)
    axes = figure.subplot_mosaic(
        [["motion", "words"], ["likeness", "words"], ["carpet", "words"]],
        height_ratios=(0.8, 0.8, 3.4),
        width_ratios=(3.2, 1.3),
    )
    figure.suptitle(
        name, x=0.01, ha="left", color=INK, fontsize=12, fontweight="bold", parse_math=False
    )
    _draw_motion(axes["motion"], quality, order)
    _draw_likeness(axes["likeness"], quality, order)
    _draw_carpet(figure, axes["carpet"], quality, order)
    borders = np.flatnonzero(np.diff(quality.b_values[order])) + 0.5
    for label in ("motion", "likeness", "carpet"):
        axes[label].set_xlim(-0.5, len(order) - 0.5)
        for border in borders:
            axes[label].axvline(border, color=INK, linewidth=0.8)
    for label in ("motion", "likeness"):
        axes[label].tick_params(labelbottom=False, bottom=False)
    _write_words(axes["words"], quality)
    return figure


def _draw_motion(axes: Axes, quality: ScanQuality, order: IntArray) -> None:
    values = quality.motion.displacements[order]
    moved = np.isin(quality.volumes[order], [each.volume for each in quality.moved])
    colours = [MARK if each else TRACE for each in moved]
    axes.bar(range(len(order)), np.nan_to_num(values), color=colours, width=0.8)
    axes.set_ylim(0, max(1.0, 1.15 * float(np.nanmax(np.append(values, 0)))))
    tidy(axes, INK, SOFT, 7, y="moved by\n[mm]")


def _draw_likeness(axes: Axes, quality: ScanQuality, order: IntArray) -> None:
    values = quality.correlations[order]
    axes.plot(range(len(order)), values, ".-", color=TRACE, linewidth=0.8, markersize=4)
    known = np.append(values[np.isfinite(values)], 1.0)
    axes.set_ylim(min(0.5, float(known.min()) - 0.05), 1)
    tidy(axes, INK, SOFT, 7, y="neighbour\ncorrelation")


def _draw_carpet(figure: Figure, axes: Axes, quality: ScanQuality, order: IntArray) -> None:
    change = quality.gains[:, order] - 1
    axes.set_facecolor(UNKNOWN)
    colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -REACH, "vmax": REACH}
    shown = axes.imshow(change, aspect="auto", origin="lower", interpolation="nearest", **colours)
    names = quality.volumes[order]
    places = {int(volume): place for place, volume in enumerate(names)}
    for each in quality.dropped:
        corner = (places[each.volume] - 0.5, each.slice - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=MARK, linewidth=1.1))
    ticks = np.arange(0, len(order), max(1, len(order) // 16))
    axes.set_xticks(ticks, [str(names[tick]) for tick in ticks])
    axes.set_xlabel("volume, by shell", color=INK, fontsize=9)
    axes.set_ylabel("slice", color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=SOFT)
    for b_value in np.unique(quality.b_values):
        at = np.flatnonzero(quality.b_values[order] == b_value)
        wide = len(at) > len(order) / 10
        x, side = (at.mean(), "center") if wide else (at[0] - 0.5, "left")
        where: dict[str, Any] = {"ha": side, "va": "bottom"}
        axes.text(x, len(change) - 0.3, f"b = {b_value:.0f}", color=INK, fontsize=8, **where)
    bar = figure.colorbar(
        shown, ax=axes, location="bottom", aspect=50, shrink=0.6, extend="both", pad=0.02
    )
    bar.set_label(
        "signal against what the other volumes let expect (grey: not known)", color=INK, fontsize=8
    )
    bar.ax.xaxis.set_major_formatter(lambda value, _: "0" if not value else f"{value:+.0%}")
    bar.ax.tick_params(colors=INK, labelsize=7)


def _write_words(axes: Axes, quality: ScanQuality) -> None:
    """List the numbers, and name the worst slices and volumes."""
    axes.set_axis_off()
    numbers = [f"{what}: {value}" for what, value in quality.numbers.items()]
    dropped = [
        f"volume {each.volume}, slice {each.slice}: −{each.depth:.0%}" for each in quality.dropped
    ]
    moved = [
        f"volume {each.volume}: {each.shift:.1f} mm, {each.turn:.1f}°" for each in quality.moved
    ]
    style: dict[str, Any] = {"transform": axes.transAxes, "color": INK, "va": "top"}
    row = 0.0
    for heading, lines in (
        ("In numbers", numbers),
        (f"Slices that dropped out: {len(dropped) or 'none'}", _first(dropped)),
        (f"Volumes that moved: {len(moved) or 'none'}", _first(moved)),
    ):
        for line in (heading, *lines):
            weight = "bold" if line is heading else "normal"
            axes.text(0.02, 1 - 0.04 * row, line, fontsize=8.5, fontweight=weight, **style)
            row += 1
        row += 0.6


def _first(lines: Sequence[str]) -> list[str]:
    """Keep the worst, and say how many more there are."""
    more = len(lines) - NAMED
    return [*lines[:NAMED], *([f"and {more} more"] if more > 0 else [])]
