"""A crosshair in every cell and every plane of a viewer: the point that its sliders are at.

As it is the viewer's own point, it outlives whatever is shown: another plane cuts there, and
another map, subject or comparison is seen there. It goes with the last image of a head. A click
without dragging sets it, which napari does not use unless a layer is painted on or edited;
Shift+X hides and shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer, Signal

from napari_msp.arrays import FloatArray
from napari_msp.ui.layers import is_ours
from napari_msp.ui.orientation_letters import GridCell
from napari_msp.ui.shared import OfViewer, shared_by

if TYPE_CHECKING:
    from napari.viewer import Viewer

KEY = "Shift-X"

GAP = 7
"""Canvas pixels around the point that stay free, so that its voxel can be seen."""

STILL = 4
"""Canvas pixels within which a press and a release are a click (our choice)."""


class Crosshair(OfViewer):
    """A viewer's crosshair; see `crosshair_of`.

    Attributes
    ----------
    moved
        Emitted when it is somewhere else, shown or hidden.
    """

    moved = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.shown = False
        viewer.mouse_drag_callbacks.append(self._pressed)
        viewer.dims.events.point.connect(lambda event: self._follow())
        # Deferred: layers may just be replaced by others.
        viewer.layers.events.removed.connect(lambda event: QTimer.singleShot(0, self._go))
        viewer.bind_key(KEY, lambda _: self.show(not self.shown), overwrite=True)

    @property
    def point(self) -> tuple[float, ...]:
        """Its place, in mm along the last three axes of the viewer."""
        return tuple(float(each) for each in self._viewer.dims.point[-3:])

    def show(self, shown: bool) -> None:
        """Show or hide it."""
        self.shown = shown
        self._redraw()
        self.moved.emit()

    def put(self, point: Sequence[float] | FloatArray) -> None:
        """Set it to a point, in mm along the last three axes, and show it."""
        count = self._viewer.dims.ndim
        if count < 3:  # there is nothing to point at
            return
        self.shown = True
        self._viewer.dims.set_point(range(count - 3, count), [float(each) for each in point[-3:]])
        self._redraw()
        self.moved.emit()

    def _go(self) -> None:
        """Hide it when the last of our layers goes: the next head is looked at elsewhere."""
        if self.shown and not any(map(is_ours, self._viewer.layers)):
            self.show(False)

    def _follow(self) -> None:
        if self.shown:
            self.moved.emit()

    def _redraw(self) -> None:
        """Have the canvas drawn when only the crosshair changed."""
        self._viewer.canvas.events.background_color()

    def _pressed(self, viewer: Viewer, event: Any) -> Iterator[None]:
        """Take a click that is no drag and that no layer wants."""
        if not self._is_ours(event):
            return
        began = np.asarray(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.asarray(event.pos) - began).max() <= STILL:
            self.put(event.position)

    def _is_ours(self, event: Any) -> bool:
        viewer = self._viewer
        active = viewer.layers.selection.active
        free = active is None or str(getattr(active, "mode", "pan_zoom")) == "pan_zoom"
        ours = any(layer.visible and is_ours(layer) for layer in viewer.layers)
        plain = event.button == 1 and not event.modifiers
        return plain and free and ours and viewer.dims.ndisplay == 2 and viewer.dims.ndim >= 3


def crosshair_of(viewer: Viewer) -> Crosshair:
    """Return a viewer's crosshair, which every part of the window shares."""
    return shared_by(viewer).one(Crosshair)


def place_of(viewer: Viewer) -> tuple[Any, ...]:
    """Return all that the lines follow from, besides the cells."""
    camera = viewer.scene.camera
    return crosshair_of(viewer).shown, viewer.dims.point, tuple(camera.center), camera.zoom


def lines_on(viewer: Viewer, cells: Sequence[GridCell]) -> FloatArray:
    """Return the (N, 2) ends of the crosshair's lines, in pairs, as x and y in canvas pixels."""
    dims, camera = viewer.dims, viewer.scene.camera
    if not crosshair_of(viewer).shown or dims.ndisplay != 2 or dims.ndim < 3:
        return np.zeros((0, 2))
    vertical, horizontal = camera.orientation2d
    row, column = (dims.point[axis] for axis in dims.displayed)
    down = (row - camera.center[-2]) * camera.zoom * (1 if str(vertical) == "down" else -1)
    right = (column - camera.center[-1]) * camera.zoom * (1 if str(horizontal) == "right" else -1)
    ends: list[tuple[float, float]] = []
    for cell in cells:
        across, along = (cell.left, cell.left + cell.width), (cell.top, cell.top + cell.height)
        x, y = sum(across) / 2 + right, sum(along) / 2 + down
        if along[0] <= y <= along[1]:
            ends += [(each, y) for each in _beside(x, *across)]
        if across[0] <= x <= across[1]:
            ends += [(x, each) for each in _beside(y, *along)]
    return np.array(ends).reshape(-1, 2)


def _beside(middle: float, low: float, high: float) -> list[float]:
    """Return the ends of lines from `low` to a gap around the middle, and from there to `high`."""
    lines = ((low, min(middle - GAP, high)), (max(middle + GAP, low), high))
    return [end for line in lines if line[0] < line[1] for end in line]
