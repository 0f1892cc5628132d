"""Lay cells out in a viewer's grid, and put everything back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.figures.slices import choose_slice
from napari_msp.formatting import rounded
from napari_msp.ui.compare.grid_cells import BLANK, GridCells
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.grid_fit import (
    BACKGROUND,
    GAP,
    SPACE,
    GridFit,
    ShownHead,
    brain_extent,
    fit_legend,
    remove_words,
)
from napari_msp.ui.layers import KEY, LayerData, fits, is_ours, refill
from napari_msp.ui.shared import CanvasLease, at_once
from napari_msp.ui.viewer_axes import ORDERS, in_mm, in_voxels, spatial, stored_index

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

NEAR = 10.0
"""Mm between the ends of two heads up to which they count as lying alike (our choice)."""


class ViewerGrid:
    """A viewer's grid while a comparison, or a review, has its canvas.

    Parameters
    ----------
    viewer
        Viewer whose grid it is.
    warn
        Called with a text for the user about a layer that stays hidden.
    owner
        Name of what the user has to leave to see such a layer.

    Attributes
    ----------
    lease
        Lease of the viewer's canvas.
    layers
        Layers of the cells, in reading order.
    fit
        Fits heads and names into them.
    """

    def __init__(
        self,
        viewer: Viewer,
        warn: Callable[[str], object] | None = None,
        owner: str = "the comparison",
    ) -> None:
        self.viewer = viewer
        self.lease = CanvasLease(viewer, owner, warn)
        self.layers: list[Layer] = []
        self.fit = GridFit(viewer)
        self._reference: ShownHead | None = None
        self._cells: Sequence[LayerData] = ()
        self._legend = self._remark = self._unit = ""
        self._bar: tuple[Any, ...] | None = None
        self._linking = False
        self._hidden: list[Layer] = []
        self._view: tuple[str, Any, float] | None = None

    @property
    def active(self) -> bool:
        """Whether the comparison has the viewer."""
        return self.lease.active

    @property
    def refusal(self) -> str:
        """Text that says who else has the viewer, which is not shared; else ""."""
        return self.lease.refusal

    @property
    def there(self) -> list[Layer]:
        """Layers of the cells that were not deleted."""
        return [layer for layer in self.layers if layer in self.viewer.layers]

    def unseen(self, places: Collection[int]) -> str:
        """Return why these cells cannot be seen, and what helps; "" where they can."""
        if not self.holds(places):
            return "its layers were deleted, and are drawn again"
        if not all(self.layers[place].visible for place in places):
            return "its layers are hidden; open their eyes in the list of layers"
        if not self.viewer.canvas.grid.enabled:
            return "napari’s grid is off, so one image lies over the other; switch it on (Ctrl+G)"
        return ""

    def holds(self, places: Collection[int]) -> bool:
        """Return whether these cells are there: not one was deleted."""
        there = [self.layers[place] for place in places if place < len(self.layers)]
        return len(there) == len(places) and all(each in self.viewer.layers for each in there)

    @property
    def plane(self) -> str:
        """Name of the plane that is shown."""
        normal = spatial(self.viewer.dims.order)[0]
        return next(name for name, order in ORDERS.items() if order[0] == normal)

    @property
    def where(self) -> tuple[int, int]:
        """Axis that the shown slice cuts, and its index on the reference's lattice, as shown."""
        assert self._reference is not None
        lattice, axis = self._reference.lattice, spatial(self.viewer.dims.order)[0]
        # If every layer has been deleted, the viewer has only two axes.
        at = in_voxels((0.0, *self.viewer.dims.point)[-3:], lattice)[axis]
        return axis, min(max(round(at), 0), lattice.canonical.shape[2 - axis] - 1)

    @property
    def index(self) -> int:
        """The shown slice as `evaluation.figures.slices` counts: in closest-canonical order."""
        assert self._reference is not None
        axis, index = self.where
        return _other_way(index, self._reference.lattice, axis)

    @property
    def _extra(self) -> int:
        """Number of axes that layers of others have before those of space."""
        return int(self.viewer.dims.ndim) - 3

    def show(self, cells: GridCells, *, carry: bool = False) -> list[Layer]:
        """Replace the cells by others; return their layers in reading order.

        Where there is a `refusal`, nothing is shown, and the list is empty.

        Parameters
        ----------
        cells
            Cells to show.
        carry
            Keep slice and camera where they were in the head before, although this is another one.
        """
        if self.refusal:
            return []
        viewer, first = self.viewer, not self.active
        if first:
            self.lease.begin()
            viewer.canvas.events.size.connect(self.fit.follow)
            viewer.scene.camera.events.zoom.connect(self.fit.fit_scale_bar)
            viewer.dims.events.order.connect(self.fit.turn)
            viewer.dims.events.ndisplay.connect(self.fit.follow)
            viewer.layers.events.removed.connect(self._cells_changed)
        self.come_back()
        self._see(self._hidden, True)
        moved, kept = self.fit.moved, self._looked_at(cells.reference)
        in_order = self.there == [each for each in viewer.layers if each in self.layers]
        if not self.refill(cells) or not in_order:
            self._linking = False
            # In one batch: else the window would be redrawn for each of many small changes.
            with at_once(viewer):
                if first:
                    self.lease.keep_out(*viewer.layers)
                self._replace(cells.layers)
                grid = viewer.canvas.grid
                grid.stride, grid.spacing = 1, GAP
                grid.shape = (len(cells.layers) // cells.columns, cells.columns)
                grid.enabled = True
        known, brain = self._reference, self.fit.brain
        elsewhere = known is None or not known.lattice.matches(cells.reference.lattice)
        self._reference = cells.reference
        if first:
            self._dress()
        if elsewhere and not (carry and known):
            self._go_to_the_middle(cells.reference)
            for axis, at in kept.items():
                viewer.dims.set_point(axis + self._extra, at)
        self._linking = True
        self._bar = None if cells.bar is None else _scale(cells.layers[cells.bar])
        self._unit = cells.unit
        self._show_bar()
        self._legend = cells.legend
        self.write(self._words())
        self.fit.take(self.layers, cells.reference)
        if carry and brain is not None:
            self._carry_over(brain)
        if moved and (carry or not elsewhere):
            self.fit.follow()
        else:
            self.fit.fit()
        viewer.cursor.events.position()  # else the status line keeps its earlier text
        return self.layers

    def hide(self) -> None:
        """Hide all cells until cells are shown again: their contents are outdated."""
        self._see([each for each in self.layers if each.visible], False)

    def _see(self, layers: Sequence[Layer], seen: bool) -> None:
        """Show layers, or hide them until cells are shown again."""
        linking, self._linking = self._linking, False
        for layer in layers:
            layer.visible = seen
        self._linking, self._hidden = linking, [] if seen else [*self._hidden, *layers]
        self._cells_changed()

    def refill(self, cells: GridCells) -> bool:
        """Put new values into the layers that are there, which is quick.

        Returns
        -------
        Whether they are as many and of the same kinds; else nothing is done.
        """
        there = self.there
        known, self._cells = self._cells, cells.layers
        if not len(there) == len(known) == len(cells.layers) or not all(
            map(fits, there, cells.layers)
        ):
            return False
        for number, (layer, cell) in enumerate(zip(there, cells.layers, strict=True)):
            if layer.name != cell[1]["name"]:
                layer.name = f"cell {number}"  # else two would share a name for a moment
        self.lease.free_names({options["name"] for _, options, _ in cells.layers})
        self._linking = False
        for layer, cell, before in zip(there, cells.layers, known, strict=True):
            refill(layer, cell, before)
        self._linking = True
        return True

    def borrow(self, places: Sequence[int], source: int) -> None:
        """Show one cell's contents in others, in place, until `give_back`."""
        self._fill(dict.fromkeys(places, source))

    def give_back(self) -> None:
        """Show in every cell what belongs there."""
        self._fill({place: place for place in range(len(self._cells))})

    def _fill(self, sources: Mapping[int, int]) -> None:
        if len(self.layers) != len(self._cells):
            return
        self._linking = False
        names = {place: self._cells[source][1]["name"] for place, source in sources.items()}
        for place, source in sources.items():
            data, options, _ = self._cells[source]
            layer = self.layers[place]
            if layer in self.viewer.layers and layer.rgb == bool(options.get("rgb")):
                layer.scale, layer.translate = options["scale"], options["translate"]
                layer.metadata, layer.data = options["metadata"], data
                # It differs from the lender's by blanks only: napari has no name twice.
                layer.name = names[place] + " " * (place if source != place else 0)
        self.fit.letter()
        self._linking = True

    def remark(self, words: str) -> None:
        """Add a text to the legend, in place of the one before."""
        if words != self._remark:
            self._remark = words
            if self.active:
                self.write(self._words())
                fit_legend(self.viewer)

    def come_closer(self, mm: float) -> None:
        """Fill cells with `mm` around the crosshair's point, unless they show less."""
        rows, columns = spatial(self.viewer.dims.order)[1:]
        point = crosshair_of(self.viewer).point
        self.fit.come_closer((point[rows], point[columns]), mm)

    def turn_to(self, plane: str) -> None:
        """Show another plane: "axial", "coronal" or "sagittal"."""
        dims, extra = self.viewer.dims, self._extra
        dims.ndisplay = 2
        if extra >= 0:  # else every layer has been deleted
            dims.order = (*range(extra), *(axis + extra for axis in ORDERS[plane]))

    def step(self, by: int) -> None:
        """Move by `by` slices."""
        dims, axis = self.viewer.dims, spatial(self.viewer.dims.order)[0] + self._extra
        if self.active:
            dims.set_point(axis, dims.point[axis] + by * dims.range[axis].step)

    def go_to(self, place: Sequence[float] | FloatArray) -> None:
        """Show the slices of all planes through a place, in mm along S, P and L."""
        axes = [axis + self._extra for axis in range(3)]
        self.viewer.dims.set_point(axes, [float(each) for each in place])

    def step_aside(self, layer: Layer) -> None:
        """Show the first cell alone, under another's layer that is to be painted on.

        If another was painted on, the layer takes its place, and the camera stays.
        """
        if not self.active or layer not in self.viewer.layers:
            self.come_back()
            return
        camera, moved = self.viewer.scene.camera, self.fit.moved
        before, self.lease.guest = self.lease.guest, layer
        if before is None:
            self._view = (self.plane, tuple(camera.center), camera.zoom) if moved else None
        with self.viewer.layers.batched_update():
            self.viewer.canvas.grid.enabled = False
            for other in self.layers[1:]:
                other.visible = False
            if before is not None and before in self.viewer.layers:
                self.lease.keep_out(before)
            layer.visible = True
        self.viewer.layers.selection.active = layer
        if before is None and not moved:
            self.fit.fit()

    @property
    def aside(self) -> bool:
        """Whether one image stands alone, to be painted on."""
        return self.lease.guest is not None

    def come_back(self) -> None:
        """Show all cells again after `step_aside`."""
        layer, self.lease.guest = self.lease.guest, None
        if layer is None:
            return
        with self.viewer.layers.batched_update():
            if layer in self.viewer.layers:
                self.lease.keep_out(layer)
            for other in self.layers:
                other.visible = True
            self.viewer.canvas.grid.enabled = True
        if self._view is None or self._view[0] != self.plane:
            self.fit.fit()
        else:  # as it was before, whatever was done to the one image
            camera = self.viewer.scene.camera
            _, camera.center, camera.zoom = self._view
        self.select()

    def select(self) -> None:
        """Select the second cell, which is a prediction's, or another where that has gone."""
        if there := self.there:
            self.viewer.layers.selection.active = there[min(1, len(there) - 1)]
        elif self.active:
            self.viewer.layers.selection.active = None

    def leave(self) -> None:
        """Remove the cells and restore everything as it was."""
        if not self.active:
            return
        viewer = self.viewer
        self.come_back()
        self.lease.end()
        viewer.canvas.events.size.disconnect(self.fit.follow)
        viewer.scene.camera.events.zoom.disconnect(self.fit.fit_scale_bar)
        viewer.dims.events.order.disconnect(self.fit.turn)
        viewer.dims.events.ndisplay.disconnect(self.fit.follow)
        viewer.layers.events.removed.disconnect(self._cells_changed)
        remove_words(viewer)
        point = viewer.dims.point[-3:]
        with at_once(viewer):
            self._replace([])
            self.lease.restore()
        if crosshair_of(viewer).shown:
            crosshair_of(viewer).put(point)
        self._reference, self._cells, self.fit = None, (), GridFit(viewer)
        self.lease.release()

    def _replace(self, cells: Sequence[LayerData]) -> None:
        from napari.layers import Layer

        layers = self.viewer.layers
        for layer in self.layers:
            if layer in layers:
                layers.remove(layer)
        self.layers = []
        self.lease.free_names({options["name"] for _, options, _ in cells})
        self.layers = [Layer.create(*cell) for cell in cells]
        self.lease.own = self.layers
        layers.extend(self.layers)
        for layer in self.layers:
            layer.name_overlay.visible = True
            layer.events.contrast_limits.connect(self._link)
            layer.events.visible.connect(self._cells_changed)
        self.select()

    def _show_bar(self) -> None:
        """Show the colour bar of the last visible cell among those on its scale; else none."""
        from napari_msp.ui.canvas_drawing import show_colour_bar  # imports napari's private parts

        seen = [
            layer
            for layer, cell in zip(self.layers, self._cells, strict=True)
            if layer in self.viewer.layers and layer.visible and _scale(cell) == self._bar
        ]
        show_colour_bar(self.viewer, seen[-1] if seen and self._bar else None, self._unit)

    def _cells_changed(self, event: Any = None) -> None:
        """Follow the user who deletes or hides a cell."""
        if self._linking:
            self._show_bar()
            self.fit.follow()

    def _link(self, event: Any) -> None:
        """Apply a contrast that the user set to all cells on the same scale, and say so."""
        if not self._linking or event.source not in self.layers:
            return
        self._linking = False
        place = self.layers.index(event.source)
        limits = event.source.contrast_limits
        scale = _scale(self._cells[place])
        same = [n for n, cell in enumerate(self._cells) if scale and _scale(cell) == scale]
        for number in same:
            layer = self.layers[number]
            if layer is not event.source and layer in self.viewer.layers:
                layer.contrast_limits_range = event.source.contrast_limits_range
                layer.contrast_limits = limits
        known = self._cells[place][1]["metadata"].get(KEY)
        quantity = "contrast" if known is None else known.quantity
        unit = self._unit if scale == self._bar else ""
        now = f"{quantity} now {rounded(limits[0], unit)} to {rounded(limits[1], unit)}"
        self.write(SPACE.join((self._words(), now)))
        fit_legend(self.viewer)
        self._linking = True

    def write(self, words: str) -> None:
        """Write at the foot of the canvas."""
        from napari_msp.ui.canvas_drawing import show_legend  # imports napari's private parts

        show_legend(self.viewer, words)

    def _words(self) -> str:
        return SPACE.join(filter(None, (self._legend, self._remark)))

    def _dress(self) -> None:
        viewer, bar = self.viewer, self.viewer.canvas.overlays.scale_bar
        viewer.canvas.background_color_override = BACKGROUND
        self.turn_to(self.plane)
        bar.position, bar.gridded, bar.box, bar.font_size = "bottom_left", False, True, 7
        bar.visible = True
        self.fit.fit_scale_bar()

    def _looked_at(self, reference: ShownHead) -> dict[int, float]:
        """Return where each spatial axis is cut, if that is worth looking at in another brain too.

        These are all three axes where a crosshair is inside it, else that of the shown slice.
        """
        dims = self.viewer.dims
        if not any(each.visible and is_ours(each) for each in self.viewer.layers):
            return {}
        point, lattice = dims.point[-3:], reference.lattice
        if crosshair_of(self.viewer).shown and stored_index(point, lattice) is not None:
            return dict(enumerate(point))
        axis = spatial(dims.order)[0]
        low, high = brain_extent(reference)[axis]
        return {axis: point[axis]} if low <= point[axis] <= high else {}

    def _carry_over(self, old: FloatArray) -> None:
        """Go to the place in another brain that corresponds to the one in the brain before."""
        new, dims, extra = self.fit.brain, self.viewer.dims, self._extra
        assert new is not None
        if np.abs(new - old).max() <= NEAR:  # the same mm are the same place
            return
        point = np.asarray(dims.point[extra:])
        share = (point - old[:, 0]) / (old[:, 1] - old[:, 0])
        self.go_to(new[:, 0] + share * (new[:, 1] - new[:, 0]))
        if self.fit.moved:
            self.fit.shift((new - old).mean(axis=1))

    def _go_to_the_middle(self, reference: ShownHead) -> None:
        """Go to the slice of each plane that shows most of the brain, near its middle."""
        lattice, middle = reference.lattice, [0, 0, 0]
        for plane, (axis, *_) in ORDERS.items():
            index = choose_slice(reference.mask, lattice, plane).index
            middle[axis] = _other_way(index, lattice, axis)
        self.go_to(in_mm(middle, lattice))


def _scale(cell: LayerData) -> tuple[Any, ...] | None:
    """Return what cells on one scale have in common; None for colours and for words."""
    _, options, _ = cell
    colormap = options.get("colormap")
    name = getattr(colormap, "name", colormap)
    known = options["metadata"].get(KEY)
    if "contrast_limits" not in options or (known is not None and known.quantity == BLANK):
        return None
    return name, options["contrast_limits"]


def _other_way(index: int, lattice: Lattice, axis: int) -> int:
    """Convert a slice's number from the viewer's order to the canonical one, or back."""
    # Rows run to the back and columns to the left, canonical axes the other way.
    return index if axis == 0 else lattice.canonical.shape[2 - axis] - 1 - index
