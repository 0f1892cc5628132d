"""Words on the canvas: names that fit their cells, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtGui import QFont, QFontMetricsF, QGuiApplication

LEGEND = "napari_msp_legend"
"""Key of the overlay among the canvas's."""

SMALLEST, LARGEST = 4.6, 8.5
"""Sizes of names, in what napari's canvas calls points."""

PIXELS_PER_POINT = (96 / 72) ** 2
"""On that canvas, as measured; its points are larger than others'."""

MARGIN = 12
"""Canvas pixels that napari leaves before a name, and we after it."""

LEGEND_SIZE, LEGEND_MARGIN = 7.0, 100
"""Points, and canvas pixels at each side that belong to the scale bar and the colour bar."""


def fit_names(layers: Sequence[Any], width: float) -> None:
    """Give all names the largest size at which each fits its cell.

    Parameters
    ----------
    layers
        Of the cells.
    width
        Of a cell in canvas pixels.
    """
    lines = [line for layer in layers for line in layer.name.splitlines()]
    size = max(SMALLEST, fitting(lines, width - 2 * MARGIN, LARGEST))
    for layer in layers:
        layer.name_overlay.font_size = size


def fitting(lines: Sequence[str], width: float, largest: float) -> float:
    """Give the size, at most `largest`, at which all lines fit a width in canvas pixels."""
    font = QFont(QGuiApplication.font().family())
    font.setPixelSize(100)
    metrics = QFontMetricsF(font)
    longest = max((metrics.horizontalAdvance(line) for line in lines), default=0.0) / 100
    return min(largest, width / max(longest * PIXELS_PER_POINT, 1.0))


def show_legend(viewer: Any, text: str) -> None:
    """Write lines at the foot of the canvas, in place of those that are there."""
    from napari.components.overlays import TextOverlay

    overlays = viewer.canvas.overlays
    if LEGEND in overlays:
        overlays[LEGEND].text = text
    else:
        overlays[LEGEND] = TextOverlay(
            text=text, position="bottom_center", font_size=LEGEND_SIZE, box=False, visible=True
        )


def fit_legend(viewer: Any) -> None:
    """Keep the legend clear of what stands beside it."""
    overlays = viewer.canvas.overlays
    if LEGEND in overlays:
        room = viewer.canvas.size[1] - 2 * LEGEND_MARGIN
        legend = overlays[LEGEND]
        legend.font_size = max(SMALLEST, fitting(legend.text.splitlines(), room, LEGEND_SIZE))


def remove_legend(viewer: Any) -> None:
    """Take the lines away."""
    viewer.canvas.overlays.pop(LEGEND, None)
