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


def fit_names(layers: Sequence[Any], width: float) -> None:
    """Give all names the largest size at which each fits its cell.

    Parameters
    ----------
    layers
        Of the cells.
    width
        Of a cell in canvas pixels.
    """
    size = name_size([line for layer in layers for line in layer.name.splitlines()], width)
    for layer in layers:
        layer.name_overlay.font_size = size


def name_size(lines: Sequence[str], width: float) -> float:
    """Give the size in points at which all lines fit, between `SMALLEST` and `LARGEST`."""
    font = QFont(QGuiApplication.font().family())
    font.setPixelSize(100)
    metrics = QFontMetricsF(font)
    longest = max((metrics.horizontalAdvance(line) for line in lines), default=0.0) / 100
    fits = (width - 2 * MARGIN) / max(longest * PIXELS_PER_POINT, 1.0)
    return min(LARGEST, max(SMALLEST, fits))


def add_legend(viewer: Any, text: str) -> None:
    """Write a line at the foot of the canvas, in place of the one before."""
    from napari.components.overlays import TextOverlay

    viewer.canvas.overlays[LEGEND] = TextOverlay(
        text=text, position="bottom_center", font_size=7, box=False, visible=True
    )


def remove_legend(viewer: Any) -> None:
    """Take the line away."""
    viewer.canvas.overlays.pop(LEGEND, None)
