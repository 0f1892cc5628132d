"""Fit brains to the canvas, or to its cells with names and a legend, until the user moves them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QFont, QFontMetricsF, QGuiApplication

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.formatting import rounded
from napari_msp.ui.layers import is_ours
from napari_msp.ui.shared import OfViewer, shared_by
from napari_msp.ui.viewer_axes import in_mm, is_upright, spatial, to_shown

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

GAP = 4
"""Canvas pixels between cells."""

BACKGROUND = "black"
"""Colour of the canvas: what lies outside a brain must not shine, in a light theme either."""

LETTER, EDGE = 18, 10
"""Canvas pixels that letters take on each side of a brain, and canvas pixels between a cell's
edge and the middle of a letter, or words."""

BAR = "words\nbar"
"""Text as high as a colour bar with its numbers."""

COLOUR_BAR = "napari_msp_colour_bar"
"""Key of the colour bar among the canvas's overlays."""

BAR_SIZE, BAR_NUMBERS, BAR_LINE = (90, 10), 7.0, 16
"""Size of the colour bar in canvas pixels, size of its numbers in points, and height of their line
in canvas pixels. It lies beside the legend: upright, it would take a head's room."""

SMALLEST, LARGEST = 4.6, 8.5
"""Sizes of names, in the points of napari's canvas."""

PIXELS_PER_POINT = (96 / 72) ** 2
"""Canvas pixels for a point, as measured: the canvas's points are larger than usual ones."""

LINE_HEIGHT = 1.25 * PIXELS_PER_POINT
"""Canvas pixels that a line takes for each point, with the space between lines."""

MARGIN = 12
"""Canvas pixels that napari leaves before a name, and we after it."""

LEGEND = "napari_msp_legend"
"""Key of the legend among the canvas's overlays."""

SPACE = "   ·   "
"""Separator between parts of a line."""

BREAKS = {SPACE: " \n", " ": "\N{NO-BREAK SPACE}\n"}
"""Text that replaces a separator where a legend's line is broken; it tells which one was there."""

LEGEND_SIZE, LEGEND_MARGIN = 7.0, 112
"""Points, and canvas pixels at each side that belong to the scale bar and the colour bar."""

SCALE_BARS = (50, 20, 10, 5, 2, 1)
"""Lengths in mm, of which the longest that does not reach the legend is drawn."""


class ShownHead(Protocol):
    """An image, or what is left of one: a brain on a lattice."""

    @property
    def mask(self) -> MaskArray:
        """(X, Y, Z) where the brain is."""

    @property
    def lattice(self) -> Lattice:
        """Lattice of the voxels."""


class GridFit:
    """Camera and names of the cells on one canvas.

    Parameters
    ----------
    viewer
        Viewer whose grid it is.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layers: Sequence[Layer] = ()
        self.brain: FloatArray | None = None
        self._put: tuple[Any, ...] = ()
        self._close: tuple[Any, ...] = ()

    @property
    def moved(self) -> bool:
        """Whether the camera is no longer where it was put."""
        return bool(self._put) and self._put != looking(self._viewer)

    def shift(self, mm: Sequence[float]) -> None:
        """Move the camera with a head, by mm along S, P and L."""
        camera = self._viewer.scene.camera
        down, across = (mm[axis] for axis in spatial(self._viewer.dims.order)[1:])
        _, row, column = camera.center
        camera.center = (0.0, row + down, column + across)

    def come_closer(self, centre: tuple[float, float], mm: float) -> None:
        """Fill cells with `mm` around a row and a column, unless they show less."""
        camera, cell = self._viewer.scene.camera, self._cell()
        zoom = min(room_of(cell, *self._taken)) / mm
        if camera.zoom < zoom:
            camera.center, camera.zoom = (0.0, *centre), zoom
            self._close = looking(self._viewer)

    def go_back(self) -> None:
        """Show whole brains again, unless the camera was moved since `come_closer`."""
        if self._close and self._close == looking(self._viewer):
            self.fit()
        self._close = ()

    def take(self, layers: Sequence[Layer], reference: ShownHead) -> None:
        """Fit to other layers from now on.

        Parameters
        ----------
        layers
            Layers of the cells.
        reference
            Image whose brain must fit.
        """
        self._layers, self.brain = layers, brain_extent(reference)

    def follow(self) -> None:
        """Fit to another canvas; a camera that was moved stays where it is."""
        if self.moved:
            self.letter()
        else:
            self.fit()

    def turn(self) -> None:
        """Fit to the viewer's new axes."""
        rows = "up" if is_upright(self._viewer.dims.order) else "down"
        self._viewer.scene.camera.orientation2d = (rows, "right")
        self.fit()

    def fit_scale_bar(self) -> None:
        """Keep the bar clear of the legend, however close the heads are."""
        zoom = self._viewer.scene.camera.zoom
        fitting = (each for each in SCALE_BARS if each * zoom < LEGEND_MARGIN)
        bar, length = self._viewer.canvas.overlays.scale_bar, next(fitting, SCALE_BARS[-1])
        if bar.length != length:
            bar.length = length
            bar.events.font_size()  # napari draws a new length only after a new zoom

    def fit(self) -> None:
        """Place the camera."""
        viewer = self._viewer
        if self.brain is None or viewer.dims.ndisplay != 2:
            return
        self.letter()
        centre, zoom = frame(self._cell(), self.brain, viewer.dims.order, *self._taken)
        viewer.scene.camera.center = (0.0, *centre)
        viewer.scene.camera.zoom = zoom
        self._put = looking(self._viewer)

    def letter(self) -> None:
        """Give all names the largest size at which each fits its cell, and fit the legend.

        In cells that are too narrow, names are broken into lines.
        """
        width = self._cell()[1] - 2 * MARGIN
        lines = [line for layer in self._layers for line in layer.name.splitlines()]
        size = fitting(lines, width, LARGEST)
        for layer in self._layers:
            name = layer.name
            if size < SMALLEST:  # the part before " · " stays whole, where it can
                name = broken(broken(name, width, SMALLEST, " · "), width, SMALLEST)
                name = "\n".join(shortened(line, width / SMALLEST) for line in name.split("\n"))
            if name != shown_name(layer):
                _BROKEN[layer] = layer.name, name
                layer.events.name()
            layer.name_overlay.font_size = max(size, SMALLEST)
        fit_legend(self._viewer)

    @property
    def _taken(self) -> tuple[float, float]:
        """Canvas pixels that text takes above and below a brain."""
        viewer = self._viewer
        seen = (each for each in self._layers if each.visible and each in viewer.layers)
        return taken_above(seen), taken_below(viewer)

    def _cell(self) -> tuple[float, float]:
        rows, columns = self._viewer.canvas.viewbox_size(self._viewer.layers)
        return float(rows), float(columns)


class InView(OfViewer):
    """A camera that keeps heads in view while no widget has the canvas to itself.

    When a head comes that the slice on show misses, the viewer moves to it: else another's slice
    would be taken for its own. A view that was fitted to the canvas is fitted again when the canvas
    changes its size. All this is caught up with when the canvas is free again.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._shared = shared_by(viewer)
        self._fitted: tuple[Any, ...] = ()
        self._was_fitted = False
        self._waiting: list[Layer] = []
        viewer.events.reset_view.connect(self._remember)
        viewer.canvas.events.size.connect(self._follow)
        viewer.layers.events.inserted.connect(self._come)
        self._shared.changed.connect(self._follow_owner)

    def _remember(self, event: Any = None) -> None:
        self._fitted = looking(self._viewer)

    def _follow(self, event: Any = None) -> None:
        if not self._shared.owner and self._fitted == looking(self._viewer):
            self._fit()

    def _follow_owner(self) -> None:
        if self._shared.owner:  # the camera has not been moved yet
            self._was_fitted = self._fitted == looking(self._viewer)
            return
        if self._was_fitted:
            self._fit()
        waiting, self._waiting = self._waiting, []
        for layer in waiting:
            self._go_to(layer)

    def _fit(self) -> None:
        viewer = self._viewer
        flat = viewer.dims.ndisplay == 2 and not viewer.canvas.grid.enabled
        if flat and any(map(is_ours, viewer.layers)):
            viewer.fit_to_view()

    def _come(self, event: Any) -> None:
        # Deferred until napari has updated the range of its sliders.
        QTimer.singleShot(0, partial(self._go_to, event.value))

    def _go_to(self, layer: Layer) -> None:
        viewer = self._known()
        if viewer is None or layer not in viewer.layers or not is_ours(layer):
            return
        if self._shared.owner:
            self._waiting.append(layer)
            return
        dims, camera = viewer.dims, viewer.scene.camera
        if not layer.visible or dims.ndisplay != 2 or layer.ndim != 3:
            return
        extra = dims.ndim - 3
        cut, *across = spatial(dims.order)
        (low, high), half = layer.extent.world[:, cut], abs(layer.scale[cut]) / 2
        if not low - half <= dims.point[cut + extra] <= high + half:
            dims.set_point(cut + extra, float(low + high) / 2)
        if viewer.canvas.grid.enabled or [each + extra for each in across] != [*dims.displayed]:
            return
        ends = layer.extent.world[:, across] - np.array(camera.center[1:])
        reach = np.array(viewer.canvas.size) / 2 / camera.zoom
        if (ends[1] < -reach).any() or (ends[0] > reach).any():
            viewer.fit_to_view()


def looking(viewer: Viewer) -> tuple[Any, ...]:
    """Return the centre and zoom of a viewer's camera."""
    camera = viewer.scene.camera
    return tuple(camera.center), camera.zoom


_BROKEN: WeakKeyDictionary[Layer, tuple[str, str]] = WeakKeyDictionary()
"""Names of layers, whole and broken into lines."""


def shown_name(layer: Layer) -> str:
    """Return a layer's name as its cell shows it: in lines, where it was broken to fit.

    The name itself stays whole: lists of layers show it in one line.
    """
    whole, lines = _BROKEN.get(layer, ("", ""))
    return lines if whole == layer.name else str(layer.name)


def brain_extent(image: ShownHead) -> FloatArray:
    """Return the first and last mm of an image's brain in the viewer, (3, 2), along S, P and L."""
    inside = np.argwhere(to_shown(image.mask, image.lattice))
    low = in_mm(inside.min(axis=0) - 0.5, image.lattice)
    high = in_mm(inside.max(axis=0) + 0.5, image.lattice)
    return np.stack([low, high], axis=1)


def taken_above(layers: Iterable[Layer]) -> float:
    """Return the canvas pixels that the highest of the layers' names takes at the top of a cell."""
    heights = (
        EDGE + LINE_HEIGHT * layer.name_overlay.font_size * len(shown_name(layer).splitlines())
        for layer in layers
        if layer.name_overlay.visible and str(layer.name_overlay.position).startswith("top")
    )
    return max(heights, default=0.0)


def taken_below(viewer: Viewer, where: str = "bottom") -> float:
    """Return the canvas pixels that words and bars take at the canvas's foot, or in a corner."""
    heights = (
        EDGE + LINE_HEIGHT * each.font_size * len(getattr(each, "text", BAR).splitlines())
        for each in viewer.canvas.overlays.values()
        if each.visible and hasattr(each, "font_size") and str(each.position).startswith(where)
    )
    return max(heights, default=0.0)


def room_of(cell: tuple[float, float], above: float, below: float) -> tuple[float, float]:
    """Return the height and width in pixels that words and letters leave for a brain."""
    return max(cell[0] - above - below - 2 * LETTER, 20.0), max(cell[1] - 2 * LETTER, 20.0)


def frame(
    cell: tuple[float, float],
    brain: FloatArray,
    order: tuple[int, ...],
    above: float,
    below: float,
) -> tuple[tuple[float, float], float]:
    """Fit a brain into the middle of the room that words leave in a cell.

    Parameters
    ----------
    cell
        Height and width in pixels.
    brain
        Extent of the brain, see `brain_extent`.
    order
        The viewer's order of axes, of whose spatial ones the last two are shown.
    above, below
        Pixels that words take above and below.

    Returns
    -------
    Row and column, in mm, of the cell's middle, and canvas pixels for a mm.
    """
    seen = brain[list(spatial(order)[1:])]
    sizes = np.maximum(seen[:, 1] - seen[:, 0], 1.0)
    zoom = float(min(room_of(cell, above, below) / sizes))
    row, column = map(float, seen.mean(axis=1))
    # Rows run down the screen, except in planes where they run up in the head.
    down = -1 if is_upright(order) else 1
    return (row + down * (below - above) / 2 / zoom, column), zoom


def fitting(lines: Sequence[str], width: float, largest: float) -> float:
    """Return the size, at most `largest`, at which all lines fit a width in canvas pixels."""
    longest = max(map(width_of, lines), default=0.0)
    return min(largest, width / max(longest, 1.0))


def broken(text: str, width: float, size: float, between: str = " ", mark: str = "\n") -> str:
    """Break lines so that each fits a width in canvas pixels, where its parts do.

    Parameters
    ----------
    text
        Text of one or more lines.
    width, size
        Canvas pixels that there are, and size of the letters in points.
    between, mark
        Separator at which a line may be broken, and what replaces it there.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        done, (kept, *parts) = "", line.split(between)
        for part in parts:
            longer = f"{kept}{between}{part}"
            if size * width_of(longer) <= width:
                kept = longer
            else:
                done, kept = f"{done}{kept}{mark}", part
        lines.append(done + kept)
    return "\n".join(lines)


def width_of(line: str) -> float:
    """Return the canvas pixels that a line takes for each point of its size."""
    return float(_large_letters().horizontalAdvance(line)) / 100 * PIXELS_PER_POINT


def shortened(line: str, width: float) -> str:
    """Elide the middle of a line that exceeds `width`, in canvas pixels for each point."""
    room = 100 * width / PIXELS_PER_POINT
    return str(_large_letters().elidedText(line, Qt.ElideMiddle, room))


def _large_letters() -> QFontMetricsF:
    font = QFont(QGuiApplication.font().family())
    font.setPixelSize(100)
    return QFontMetricsF(font)


def extent_of(text: str, size: float) -> tuple[float, float]:
    """Return the width and height of a text of several lines, in canvas pixels."""
    lines = text.splitlines()
    return size * max(map(width_of, lines), default=0.0), len(lines) * size * LINE_HEIGHT


def bar_ends(low: float, high: float, unit: str) -> tuple[str, str]:
    """Return the labels at a colour bar's ends.

    >>> bar_ends(0, 0.0015, "SH units²"), bar_ends(-0.0074, 0.0074, "SH units")
    (('0', '150 × 10⁻⁵'), ('−0.0074', '0.0074'))
    """
    return rounded(low, unit).replace("-", "−"), rounded(high, unit)


def fit_legend(viewer: Viewer) -> None:
    """Keep the legend clear of what stands beside it, in more lines where there is little room.

    It is hidden where it would not be readable.
    """
    overlays = viewer.canvas.overlays
    if LEGEND not in overlays:
        return
    legend, room = overlays[LEGEND], viewer.canvas.size[1] - 2 * LEGEND_MARGIN
    text = legend.text
    for between, mark in BREAKS.items():
        text = text.replace(mark, between)
    if fitting(text.splitlines(), room, LEGEND_SIZE) < SMALLEST:
        for between, mark in BREAKS.items():
            text = broken(text, room, SMALLEST, between, mark)
    size = fitting(text.splitlines(), room, LEGEND_SIZE)
    legend.text, legend.visible = text, size >= SMALLEST
    legend.font_size = max(SMALLEST, size)


def remove_words(viewer: Viewer) -> None:
    """Remove the legend and the colour bar."""
    for key in (LEGEND, COLOUR_BAR):
        viewer.canvas.overlays.pop(key, None)
