"""Glyphs in a comparison's cells: the signal or ODF of each voxel around the crosshair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal
from qtpy.QtGui import QGuiApplication

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import Lattice, direction_cosines
from napari_msp.signal.glyphs import TITLES, Kind, Picture, glyph_picture, largest_signal
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.background import Latest, paced
from napari_msp.ui.compare.compared import Compared
from napari_msp.ui.compare.grid_cells import GridCells
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.reading import Control
from napari_msp.ui.viewer_axes import in_voxels, shown_affine, sizes_shown, spatial

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

AROUND = 7
"""Voxels of the reference on each side of the crosshair that have a glyph: 225 at most."""

EDGES = (12, 16, 24, 32, 48)
"""Pixels of a glyph to choose from: the next above what the screen shows."""

SAMPLE = 4000
"""Number of voxels that determine the length of the longest glyph (our choice)."""

PACE = 30
"""Milliseconds between drawings while slice, crosshair or camera move."""

OVERLAY = "napari_msp_glyphs"
"""Key among a layer's overlays."""


@dataclass(frozen=True)
class SliceLook:
    """The way in which a viewer shows a slice.

    Attributes
    ----------
    order
        Order of S, P and L: slider, rows, columns.
    up, leftwards
        Whether rows grow upwards on the screen, and columns to the left.
    """

    order: tuple[int, int, int]
    up: bool = False
    leftwards: bool = False

    @classmethod
    def of(cls, viewer: Viewer) -> SliceLook:
        """Return how a viewer shows its slice."""
        vertical, horizontal = viewer.scene.camera.orientation2d
        order = spatial(viewer.dims.order)
        return cls(order, str(vertical) == "up", str(horizontal) == "left")

    def view(self, lattice: Lattice) -> FloatArray:
        """Return directions right, down and towards us on the screen, (3, 3), in scanner axes."""
        cosines = direction_cosines(shown_affine(lattice))
        right = cosines[:, self.order[2]] * (-1 if self.leftwards else 1)
        down = cosines[:, self.order[1]] * (-1 if self.up else 1)
        return np.stack([right, down, np.cross(right, -down)])


@dataclass(frozen=True, eq=False)
class GlyphDrawing:
    """Glyphs of a part of a slice.

    Attributes
    ----------
    picture
        Image in the layer's rows and columns, whichever way they are seen.
    first
        Row and column of the first voxel.
    size
        Height and width of a voxel in pixels.
    count
        Number of glyphs.
    """

    picture: Picture
    first: tuple[int, int]
    size: tuple[int, int]
    count: int


def draw_slice(
    image: SHImage,
    look: SliceLook,
    point: Sequence[float],
    reach: tuple[float, float],
    kind: Kind,
    edge: int,
    largest: float = 1.0,
) -> GlyphDrawing | None:
    """Draw the glyphs of an image around a point; None where it has no brain there.

    Parameters
    ----------
    image
        Image that has the SH series.
    look
        Way in which the slice is seen.
    point
        Point, (3,) in mm along S, P and L.
    reach
        Distance from it within which there are glyphs, in mm along rows' and columns' axes.
    kind, largest
        See `glyph_picture`.
    edge
        Pixels of a voxel's shorter side.
    """
    lattice = image.lattice
    shape = np.array(lattice.canonical.shape)[::-1]
    sizes = sizes_shown(lattice)
    at = in_voxels(point, lattice)
    axis, *plane = look.order
    index = round(float(at[axis]))
    away = np.array(reach) / sizes[plane]
    first = np.maximum(np.ceil(at[plane] - away), 0).astype(int)
    last = np.minimum(np.floor(at[plane] + away), shape[plane] - 1).astype(int)
    if not 0 <= index < shape[axis] or (first > last).any():
        return None
    ranges: list[Any] = [[index]] * 3
    for each, low, high in zip(plane, first, last, strict=True):
        ranges[each] = np.arange(low, high + 1)
    shown = np.stack([*np.meshgrid(*ranges, indexing="ij"), np.ones([len(r) for r in ranges])])
    stored = np.linalg.inv(lattice.affine) @ shown_affine(lattice) @ shown.reshape(4, -1)
    voxels = np.round(stored[:3]).astype(int).reshape(shown[:3].shape)
    i, j, k = np.moveaxis(voxels, (1 + plane[0], 1 + plane[1]), (1, 2))[..., 0]
    inside, series = image.mask[i, j, k], image.coefficients[i, j, k]
    if not inside.any():
        return None
    sides = sizes[plane] / sizes[plane].min()
    size = (round(edge * float(sides[0])), round(edge * float(sides[1])))
    # Drawn as it is seen on the screen, lit from above, then put into the layer's order.
    seen = np.s_[:: -1 if look.up else 1, :: -1 if look.leftwards else 1]
    picture = glyph_picture(series[seen], inside[seen], kind, look.view(lattice), size, largest)
    return GlyphDrawing(
        np.ascontiguousarray(picture[seen]), (int(first[0]), int(first[1])), size, int(inside.sum())
    )


def images_of(compared: Compared, cells: GridCells) -> dict[int, SHImage]:
    """Return the SH image of each cell that shows one, on the lattice of its layer."""
    comparison = compared.comparison
    found = {image: comparison.predictions[name].image for name, (image, _) in cells.places.items()}
    if cells.truth is not None and comparison.truth is not None:
        found[cells.truth] = comparison.truth.image
    if cells.source is not None and compared.scan is not None:
        found[cells.source] = compared.scan.sh
    return found


def picture_on(layer: Layer, key: str, *, smooth: bool = True) -> Any:
    """Return a layer's overlay that shows a `GlyphDrawing`; it is made at first use."""
    from napari_msp.ui.canvas_drawing import SlicePicture

    if key not in layer._overlays:
        layer._overlays[key] = SlicePicture(smooth=smooth)
    return layer._overlays[key]


class GlyphView(QObject):
    """Glyphs in the layers of a viewer's grid, drawn in a thread.

    They always belong to the slice and the image that are shown: others are removed until the new
    ones are drawn.

    Parameters
    ----------
    viewer
        Viewer whose slice, crosshair and camera are followed.

    Attributes
    ----------
    kind
        Kind of glyphs that are drawn; None: none.
    told : str
        Emitted with the scale of glyphs in words; "" without glyphs.
    failed : UserError
        Emitted when glyphs cannot be drawn.
    """

    told = Signal(str)
    failed = Signal(object)

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.kind: Kind | None = None
        self._layers: Sequence[Layer] = ()
        self._images: dict[int, SHImage] = {}
        self._reference: SHImage | None = None
        self._largest: tuple[SHImage | None, float] = (None, 1.0)
        self._asked: tuple[Any, ...] = ()
        self._drawn: dict[int, SHImage] = {}
        self._slice: tuple[Any, ...] = ()
        self._work = Latest(self, self._take, self.failed.emit)
        self._pace = paced(self, PACE, self.look)
        dims, camera = viewer.dims, viewer.scene.camera
        for event in (
            dims.events.point,
            dims.events.order,
            dims.events.ndisplay,
            camera.events.zoom,
            camera.events.center,
            camera.events.orientation,
            viewer.canvas.events.size,
        ):
            event.connect(self._follow)

    @property
    def span(self) -> float:
        """Mm that glyphs cover along each axis, with some room."""
        image = self._reference
        return 0.0 if image is None else (2 * AROUND + 2) * _size(image)

    @property
    def count(self) -> int:
        """Number of glyphs that are shown."""
        drawings = (self._overlay(place).drawing for place in self._drawn)
        return sum(each.count for each in drawings if each is not None)

    @property
    def drawing(self) -> bool:
        """Whether more are being drawn."""
        return self._work.running

    def show(self, kind: Kind | None) -> None:
        """Draw glyphs of another kind, or none."""
        self.kind, self._asked = kind, ()
        self._clear()
        if kind is None:
            self.told.emit("")
        self.look()

    def take(
        self, layers: Sequence[Layer], images: Mapping[int, SHImage], reference: SHImage
    ) -> None:
        """Draw in other cells from now on.

        Parameters
        ----------
        layers
            Layers of all cells.
        images
            Images of the cells that have glyphs, by the number of the cell.
        reference
            Image whose voxels determine how far glyphs reach, and how long the longest is.
        """
        if list(layers) != list(self._layers):
            self._drawn = {}
        self._layers, self._images, self._reference = list(layers), dict(images), reference
        self._asked = ()
        self._clear_where(lambda place, image: images.get(place) is not image)
        self.look()

    def leave_out(self, place: int) -> None:
        """Show no glyphs in a cell, whose image changes, until `take`."""
        self._images.pop(place, None)
        self._clear_where(lambda each, _: each == place)

    def lend(self, places: Sequence[int], source: int) -> None:
        """Show one cell's glyphs in others, as their layers do, until `take`."""
        image = self._images.get(source)
        for place in places:
            self.leave_out(place)
            if image is not None:
                self._images[place] = image
                if source in self._drawn:
                    self._put(place, image, self._overlay(source).drawing)
        self._asked = ()

    def stop(self) -> None:
        """Drop everything."""
        self._work.stop()
        self._clear()
        self._layers, self._images, self._reference = (), {}, None
        self._largest, self._asked = (None, 1.0), ()

    def look(self) -> None:
        """Draw what is around the crosshair now, unless it is there already."""
        reference, viewer, kind = self._reference, self._viewer, self.kind
        if kind is None or reference is None or viewer.dims.ndisplay != 2 or viewer.dims.ndim < 3:
            return
        look, point = SliceLook.of(viewer), list(crosshair_of(viewer).point)
        camera, half = viewer.scene.camera, (AROUND + 0.5) * _size(reference)
        rows, columns = look.order[1:]
        middle, canvas = camera.center[-2:], viewer.canvas.viewbox_size(viewer.layers)
        reach = []
        for axis, centre, pixels in zip((rows, columns), middle, canvas, strict=True):
            # The part that is within reach of the crosshair and on the screen.
            low = max(point[axis] - half, centre - pixels / 2 / camera.zoom)
            high = min(point[axis] + half, centre + pixels / 2 / camera.zoom)
            point[axis] = (low + high) / 2
            reach.append((high - low) / 2)
        asked = (look, *point, *reach, camera.zoom)
        if asked == self._asked:
            return
        self._asked = asked
        scale = camera.zoom * QGuiApplication.instance().devicePixelRatio()
        where = look, tuple(point), (reach[0], reach[1]), scale
        images = dict(self._images)
        self._work.ask(partial(_draw_all, images, reference, *where, kind, self._largest))

    def _follow(self, event: Any = None) -> None:
        """Remove outdated glyphs at once, and draw the new ones soon."""
        if self.kind is None or not self._layers:
            return
        if self._drawn and self._slice != self._slice_now():
            self._clear()
        self._pace.throttle()

    def _slice_now(self) -> tuple[Any, ...]:
        dims, look = self._viewer.dims, SliceLook.of(self._viewer)
        return look, dims.ndisplay, crosshair_of(self._viewer).point[look.order[0]]

    def _take(self, found: _Found) -> None:
        self._largest = (self._reference, found.largest)
        if self.kind is None or self._slice_now()[0] != found.look:
            return
        self._slice = self._slice_now()
        if self._slice[2] != found.at:  # the slice has moved on and is being drawn
            return
        for place, (image, drawing) in found.drawings.items():
            if self._images.get(place) is image:
                self._put(place, image, drawing)
        if not self.count:
            self.told.emit("glyphs: no brain around the crosshair")
            return
        half = f"half a voxel is S/S0 = {found.largest:.2g}"
        scale = "each on its own scale" if self.kind == "odf" else half
        self.told.emit(f"glyphs: {TITLES[self.kind]}, {scale}")

    def _put(self, place: int, image: SHImage, drawing: GlyphDrawing | None) -> None:
        if place < len(self._layers):
            self._overlay(place).drawing = drawing
            self._drawn[place] = image

    def _clear(self) -> None:
        self._clear_where(lambda place, image: True)

    def _clear_where(self, wanted: Callable[[int, SHImage], bool]) -> None:
        for place, image in list(self._drawn.items()):
            if wanted(place, image):
                del self._drawn[place]
                self._overlay(place).drawing = None

    def _overlay(self, place: int) -> Any:
        return picture_on(self._layers[place], OVERLAY)


@dataclass(frozen=True, eq=False)
class _Found:
    """Drawings by the number of their cell, the slice that they are of, and their scale."""

    drawings: Mapping[int, tuple[SHImage, GlyphDrawing | None]]
    look: SliceLook
    at: float
    largest: float


def _draw_all(
    images: Mapping[int, SHImage],
    reference: SHImage,
    look: SliceLook,
    point: tuple[float, ...],
    reach: tuple[float, float],
    scale: float,
    kind: Kind,
    known: tuple[SHImage | None, float],
    control: Control,
) -> _Found:
    largest = known[1]
    if known[0] is not reference:
        voxels = np.flatnonzero(reference.mask)
        some = voxels[:: max(1, len(voxels) // SAMPLE)]
        largest = largest_signal(
            reference.coefficients[np.unravel_index(some, reference.mask.shape)]
        )
    found: dict[int, tuple[SHImage, GlyphDrawing | None]] = {}
    for place, image in images.items():
        control.check()
        wanted = sizes_shown(image.lattice)[list(look.order[1:])].min() * scale
        edge = next((each for each in EDGES if each >= wanted), EDGES[-1])
        drawing = draw_slice(image, look, point, reach, kind, edge, largest)
        found[place] = image, drawing
    return _Found(found, look, point[look.order[0]], largest)


def _size(image: SHImage) -> float:
    return float(image.lattice.voxel_sizes.mean())
