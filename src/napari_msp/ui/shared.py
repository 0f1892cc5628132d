"""The state that a viewer's widgets share, such as which of them has the canvas now."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, ref

from qtpy.QtCore import QObject, Signal

from napari_msp.ui.layers import shown_by

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer


class OfViewer(QObject):
    """Base of objects of which a viewer has one; its reference is weak, so viewers can be freed."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._known = ref(itself(viewer))

    @property
    def _viewer(self) -> Viewer:
        viewer = self._known()
        assert viewer is not None  # the viewer called, so it is there
        return viewer


One = TypeVar("One", bound=OfViewer)


class Shared(OfViewer):
    """State that all widgets of one viewer share; see `shared_by`.

    Attributes
    ----------
    changed
        Emitted when a widget took the canvas, or it is free again.
    owner
        Name of the part that has the canvas to itself, such as "the review"; "" while it is free.
    last
        Choices that a form had when it was last used, by the page of its widget.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._ones: dict[Any, Any] = {}
        self.owner = ""
        self.last: dict[str, Any] = {}

    def one(self, kind: type[One]) -> One:
        """Return the viewer's only object of a kind, such as its crosshair, made at first use."""
        if kind not in self._ones:
            self._ones[kind] = kind(self._viewer)
        one: One = self._ones[kind]
        return one

    def take(self, owner: str) -> None:
        """Give the canvas to `owner`."""
        self.owner = owner
        self.changed.emit()

    def release(self) -> None:
        """Free the canvas, once it is as it was before."""
        self.take("")


_KNOWN: WeakKeyDictionary[Viewer, Shared] = WeakKeyDictionary()


def shared_by(viewer: Viewer) -> Shared:
    """Return what all widgets of a viewer share."""
    viewer = itself(viewer)
    if viewer not in _KNOWN:
        _KNOWN[viewer] = Shared(viewer)
    return _KNOWN[viewer]


def itself(viewer: Viewer) -> Viewer:
    """Return the viewer behind the proxy that napari gives plugins, which may be freed earlier."""
    whole: Viewer = getattr(viewer, "__wrapped__", viewer)
    return whole


@contextmanager
def at_once(viewer: Viewer) -> Iterator[None]:
    """Replace layers in one batch and then make the canvas's own OpenGL context current.

    napari (0.9) deletes there what removed layers were drawn with, in whatever context is current.
    In Qt's, a driver (Mesa 22.3) loses the shader that is drawn with next: a segmentation fault
    where a Points layer is all that is left.
    """
    with viewer.layers.batched_update():
        yield
        with suppress(AttributeError, RuntimeError):  # no window, or it has gone
            itself(viewer).window._qt_viewer.canvas.native.makeCurrent()


def take_away(viewer: Viewer, *layers: Layer) -> None:
    """Remove the layers that are still in the viewer."""
    with at_once(viewer):
        for layer in layers:
            if layer in viewer.layers:
                viewer.layers.remove(layer)


def hide_other_heads(viewer: Viewer, subject: str) -> None:
    """Hide pictures of other subjects: two heads drawn into one another look like one.

    A widget that has the canvas to itself keeps its own.
    """
    if shared_by(viewer).owner:
        return
    for layer in viewer.layers:
        shown = shown_by(layer)
        if shown is not None and shown.scan.subject != subject:
            layer.visible = False


GRID_SET = ("stride", "shape", "spacing", "enabled")
"""Settings of the grid that a layout of cells changes."""

SCALE_BAR_SET = ("visible", "position", "gridded", "box", "font_size", "length")
"""Settings of the scale bar that the canvas's owner changes."""


HIDDEN, NUMBERED = " (hidden)", re.compile(r" \[\d+\]$")
"""Ending of a hidden layer's name, and pattern of the ending that napari gives a repeated name."""


class CanvasLease:
    """The use of a viewer's canvas by one of its widgets alone.

    Layers of others are hidden, also those that come later or are made visible. One with the name
    of an owner's layer is renamed meanwhile, as napari has no name twice.

    Parameters
    ----------
    viewer
        Viewer whose canvas it is.
    owner
        Name of the widget that wants the canvas and must be left to see a hidden layer, such as
        "the review".
    warn
        Called with a text for the user about a layer that stays hidden.

    Attributes
    ----------
    active
        Whether the owner has the canvas.
    own
        The owner's layers.
    guest
        Another's layer that is shown nevertheless; None: there is none.
    """

    def __init__(
        self, viewer: Viewer, owner: str, warn: Callable[[str], object] | None = None
    ) -> None:
        self._viewer, self._owner, self._warn = viewer, owner, warn
        self._shared = shared_by(viewer)
        self._before: ViewerState | None = None
        self.active = False
        # Layers of others, and whether to show them when the canvas is free again.
        self._others: dict[Layer, bool] = {}
        self._renamed: dict[Layer, str] = {}
        self.own: Sequence[Layer] = ()
        self.guest: Layer | None = None

    @property
    def refusal(self) -> str:
        """Text that says who else has the canvas; "" where it is free."""
        holder = self._shared.owner
        free = self.active or not holder
        return "" if free else f"Leave {holder} first: {self._owner} needs the whole canvas."

    def begin(self) -> None:
        """Take the canvas; layers that are there are still visible."""
        self._before, self.active = ViewerState(self._viewer), True
        self._shared.take(self._owner)
        self._viewer.layers.events.inserted.connect(self._take_in)

    def keep_out(self, *layers: Layer) -> None:
        """Hide layers until the canvas is free: one more would shift every cell after it."""
        for layer in layers:
            if layer not in self._others:
                layer.events.visible.connect(self._hide_again)
            self._others[layer] = self._others.get(layer, False) or bool(layer.visible)
            layer.visible = False

    def free_names(self, taken: Collection[str]) -> None:
        """Give hidden layers their names back, except those that the owner takes now."""
        for layer, name in list(self._renamed.items()):
            if name not in taken:
                del self._renamed[layer]
                if layer.name.startswith(f"{name}{HIDDEN}"):  # else the user has renamed it
                    layer.name = name
        for layer in self._viewer.layers:
            if layer.name in taken and layer not in self.own:
                self._hide_name(layer, layer.name)

    def _hide_name(self, layer: Layer, name: str) -> None:
        self._renamed[layer] = name
        layer.name = f"{name}{HIDDEN}"

    def name_of(self, layer: Layer) -> str:
        """Return a layer's own name, also while it is renamed."""
        return str(self._renamed.get(layer, layer.name))

    def end(self) -> None:
        """Stop having the canvas; nothing is restored yet."""
        self._viewer.layers.events.inserted.disconnect(self._take_in)
        self.active = False

    def restore(self) -> None:
        """Restore layers, names and the view as they were; the owner's layers have gone."""
        for layer, visible in self._others.items():
            layer.events.visible.disconnect(self._hide_again)
            layer.visible = visible
        assert self._before is not None
        self._before.apply(self._viewer)
        self.free_names(())
        self._others, self._before = {}, None

    def release(self) -> None:
        """Free the canvas, once it is as it was before."""
        self._shared.release()

    def _take_in(self, event: Any) -> None:
        """Hide a layer that is added meanwhile, also a copy of the owner's."""
        layer = event.value
        if layer in self.own:
            return
        self.keep_out(layer)
        name = NUMBERED.sub("", layer.name)  # napari numbered it, as the owner's has its name
        if name != layer.name and name in {each.name for each in self.own}:
            self._hide_name(layer, name)

    def _hide_again(self, event: Any) -> None:
        """Hide a layer again that was made visible, and say so."""
        layer = event.source
        if layer.visible and layer is not self.guest:
            self.keep_out(layer)
            self.tell_hidden(layer)

    def tell_hidden(self, layer: Layer) -> None:
        """Say what to leave to see a layer."""
        if self._warn is not None:
            name = " ".join(self.name_of(layer).split())
            self._warn(f"Leave {self._owner} to see “{name}”.")


class ViewerState:
    """A viewer's settings before its canvas was taken, to restore them."""

    def __init__(self, viewer: Viewer) -> None:
        canvas = viewer.canvas
        self.active = viewer.layers.selection.active
        self.grid = values_of(canvas.grid, GRID_SET)
        self.camera = values_of(viewer.scene.camera, ("orientation", "angles", "center", "zoom"))
        self.dims = values_of(viewer.dims, ("ndisplay", "order", "point"))
        self.scale_bar = values_of(canvas.overlays.scale_bar, SCALE_BAR_SET)
        self.background = canvas.background_color_override

    def apply(self, viewer: Viewer) -> None:
        """Restore the settings; the selected layer only if it is still there."""
        if self.active in viewer.layers:
            viewer.layers.selection.active = self.active
        set_values(viewer.canvas.grid, self.grid)
        set_values(viewer.dims, self._dims_now(viewer.dims))
        set_values(viewer.scene.camera, self.camera)
        set_values(viewer.canvas.overlays.scale_bar, self.scale_bar)
        viewer.canvas.background_color_override = self.background

    def _dims_now(self, dims: Any) -> dict[str, Any]:
        """Count axes from the end: with other layers there may be more or fewer at the front."""
        order, point = self.dims["order"], self.dims["point"]
        more = dims.ndim - len(order)
        moved = (axis + more for axis in order if axis + more >= 0)
        return self.dims | {
            "order": (*range(more), *moved),
            "point": (*dims.point[: max(more, 0)], *point[max(-more, 0) :]),
        }


def values_of(model: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return attributes by name, which `set_values` can restore."""
    return {name: getattr(model, name) for name in names}


def set_values(model: Any, values: dict[str, Any]) -> None:
    """Set attributes by name."""
    for name, value in values.items():
        setattr(model, name, value)
