"""What the widgets of a viewer share: who has its canvas, what forms said last, heads in view."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_msp.ui.layers import is_ours

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer


class Shared(QObject):
    """Of one viewer; see `shared_by`.

    Attributes
    ----------
    changed
        Somebody took the canvas, or it is free again.
    owner
        Who has the canvas to itself, such as "the review"; "" while nobody has.
    last
        What a form said when it was used last, by the page of its widget.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._in_view = InView(viewer, self)
        self.owner = ""
        self.last: dict[str, Any] = {}

    def take(self, owner: str) -> None:
        """Give the canvas to somebody."""
        self.owner = owner
        self.changed.emit()

    def release(self) -> None:
        """Let others have the canvas, once it is as it was before."""
        self.take("")


class InView:
    """Keeps heads in view as long as nobody has the canvas to itself.

    A head that comes is gone to where the slice on show misses it: another's slice would be taken
    for its own. What was fitted to the canvas is fitted again where that gets another size.
    """

    def __init__(self, viewer: Viewer, shared: Shared) -> None:
        self._viewer, self._shared = ref(viewer), ref(shared)
        self._fitted: tuple[Any, ...] = ()
        viewer.events.reset_view.connect(self._remember)
        viewer.canvas.events.size.connect(self._fit)
        viewer.layers.events.inserted.connect(self._come)

    @property
    def _free(self) -> Viewer | None:
        """The viewer, where one plane of everything is seen and nobody has it to itself."""
        viewer, shared = self._viewer(), self._shared()
        if viewer is None or shared is None or shared.owner or viewer.canvas.grid.enabled:
            return None
        return viewer if viewer.dims.ndisplay == 2 and viewer.dims.ndim >= 3 else None

    def _remember(self, event: Any = None) -> None:
        viewer = self._viewer()
        if viewer is not None:
            self._fitted = _looking(viewer)

    def _fit(self, event: Any = None) -> None:
        viewer = self._free
        if viewer is None or not any(map(is_ours, viewer.layers)):
            return
        if self._fitted == _looking(viewer):
            viewer.fit_to_view()

    def _come(self, event: Any) -> None:
        # Once napari knows how far its sliders reach now.
        QTimer.singleShot(0, partial(self._go_to, event.value))

    def _go_to(self, layer: Layer) -> None:
        viewer = self._free
        if viewer is None or layer not in viewer.layers or not (layer.visible and is_ours(layer)):
            return
        ends, dims = layer.extent.world, viewer.dims
        half = np.abs(layer.scale) / 2
        missed = [
            axis
            for axis in range(3)
            if axis + dims.ndim - 3 not in dims.displayed
            and not ends[0][axis] - half[axis] <= dims.point[axis - 3] <= ends[1][axis] + half[axis]
        ]
        for axis in missed:
            dims.set_point(axis + dims.ndim - 3, float(ends[:, axis].mean()))
        centre, reach = viewer.scene.camera.center, np.array(viewer.canvas.size) / 2
        seen = [axis - dims.ndim + 3 for axis in dims.displayed]
        shift = ends[:, seen] - np.array(centre[1:])
        reach /= viewer.scene.camera.zoom
        if (shift[1] < -reach).any() or (shift[0] > reach).any():
            viewer.fit_to_view()


def _looking(viewer: Viewer) -> tuple[Any, ...]:
    camera = viewer.scene.camera
    return tuple(camera.center), camera.zoom


_KNOWN: WeakKeyDictionary[Viewer, Shared] = WeakKeyDictionary()


def shared_by(viewer: Viewer) -> Shared:
    """Give what all widgets of a viewer share."""
    if viewer not in _KNOWN:
        _KNOWN[viewer] = Shared(viewer)
    return _KNOWN[viewer]
