"""Overlays on napari's canvas and layers; imports napari's private parts, so import it late.

napari finds the drawing part of an overlay in a table, to which ours is added here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari._vispy.overlays.base import (
    LayerOverlayMixin,
    ViewerOverlayMixin,
    VispyCanvasOverlay,
    VispySceneOverlay,
)
from napari._vispy.overlays.text import VispyLayerNameOverlay, VispyTextOverlay
from napari._vispy.utils.visual import overlay_to_visual
from napari._vispy.visuals.text import Text
from napari.components.overlays import CanvasOverlay, LayerNameOverlay, SceneOverlay, TextOverlay
from napari.utils.events import disconnect_events
from vispy.color import Color
from vispy.scene.visuals import Compound, Image, Line
from vispy.visuals.transforms import STTransform

from napari_msp.ui.crosshair import lines_on, place_of
from napari_msp.ui.grid_fit import (
    BAR_LINE,
    BAR_NUMBERS,
    BAR_SIZE,
    COLOUR_BAR,
    LEGEND,
    LEGEND_SIZE,
    bar_ends,
    extent_of,
    fitting,
    shown_name,
)
from napari_msp.ui.layers import is_ours
from napari_msp.ui.orientation_letters import (
    KEY,
    SIZE,
    SMALL,
    GridCell,
    Written,
    cells_of,
    letters_on,
    state_of,
    words_on,
)
from napari_msp.ui.shared import OfViewer
from napari_msp.ui.widgets.colours import PINK

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

Colour = tuple[float, ...]


CROSSHAIR: Colour = (*map(float, Color(PINK).rgb), 0.9)

PADDING = 4
"""Canvas pixels of a box beside its text, both sides together."""

AROUND = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
"""Offsets in pixels at which a text is drawn in the colour of its rim."""


class Letters(OfViewer):
    """Orientation letters, and whole layer names, of a viewer that has layers of the plugin's."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        viewer.layers.events.inserted.connect(self._renew)
        viewer.layers.events.inserted.connect(self._come)
        viewer.layers.events.removed.connect(self._renew)
        self._renew()

    def _renew(self, event: Any = None) -> None:
        overlays, ours = self._viewer.canvas.overlays, any(map(is_ours, self._viewer.layers))
        if ours and KEY not in overlays:
            overlays[KEY] = Marks()
            if hasattr(self._viewer, "window"):  # else the viewer has no window
                _show_whole_names()
        elif not ours:
            overlays.pop(KEY, None)

    def _come(self, event: Any) -> None:
        layer = event.value
        if is_ours(layer) and not layer.visible and hasattr(layer, "contrast_limits"):
            _draw_thumbnail(layer)


def _draw_thumbnail(layer: Any) -> None:
    """Draw a hidden map's thumbnail, which napari leaves black until the map is shown."""
    middle = np.asarray(layer.data[len(layer.data) // 2])
    across, *_ = layer.thumbnail.shape
    sizes = [max(1, round(across * size / max(middle.shape[:2]))) for size in middle.shape[:2]]
    picked = [
        np.linspace(0, size - 1, count).round().astype(int)
        for size, count in zip(middle.shape, sizes, strict=False)
    ]
    small = middle[np.ix_(*picked)].astype(float)
    if layer.rgb:
        layer.thumbnail = np.concatenate([small[..., :3], np.ones((*sizes, 1))], axis=-1).clip(0, 1)
    else:
        low, high = layer.contrast_limits
        shades = ((small - low) / (high - low)).clip(0, 1)
        layer.thumbnail = layer.colormap.map(shades.ravel()).reshape(*sizes, 4)


def _show_whole_names() -> None:
    """Let the layer list show names whole, where this version of napari has what it takes."""
    try:
        from napari_msp.ui.layer_list import show_whole_names

        show_whole_names()
    except (ImportError, AttributeError):  # another version of napari may lack them
        return


class Marks(CanvasOverlay):
    """Letters and crosshair of all cells, as one of napari's canvas overlays."""

    position: Any = "free"  # none of the corners in which napari stacks overlays
    visible: bool = True
    box: bool = False


class MarksDrawn(ViewerOverlayMixin, VispyCanvasOverlay):
    """The drawing of letters, in napari's text colour with a rim for bright brains, and of lines.

    One visual draws the letters of all cells: one for each letter would cost half a second.
    """

    def __init__(self, *, font_info: Any, **options: Any) -> None:
        self._letters = Text(font_info=font_info, anchor_x="center", anchor_y="center")
        self._words = Text(font_info=font_info, anchor_x="left", anchor_y="center")
        self._letters.font_size, self._words.font_size = SIZE, SMALL
        self._lines = Line(connect="segments", method="gl", width=1, color=CROSSHAIR)
        self._lines.visible = False
        node = Compound([self._lines, self._letters, self._words])
        super().__init__(node=node, font_info=font_info, **options)
        self._state: tuple[Any, ...] = ()
        self._place: tuple[Any, ...] = ()
        self._cells: list[GridCell] = []
        self._canvas = node.canvas
        self._canvas.events.draw.connect(self._renew, position="first")
        self.reset()

    def close(self) -> None:
        """Stop drawing."""
        self._canvas.events.draw.disconnect(self._renew)
        super().close()

    def _renew(self, event: Any = None) -> None:
        """Draw the present state."""
        ink = tuple(float(each) for each in self._get_fgcolor())
        state, place = (ink, *state_of(self.viewer)), place_of(self.viewer)
        if state != self._state:
            self._state, self._place, self._cells = state, (), list(cells_of(self.viewer))
            _write(self._letters, letters_on(self.viewer, self._cells), ink)
            _write(self._words, words_on(self.viewer), ink)
        if place != self._place:
            self._place = place
            ends = lines_on(self.viewer, self._cells)
            self._lines.visible = len(ends) > 0
            if len(ends):
                self._lines.set_data(pos=ends)


class Boxed:
    """Mixin whose box is as large as its text: napari's is too small for small letters."""

    x_size: float
    y_size: float
    node: Any
    overlay: Any
    box: Any

    def _on_box_change(self) -> None:
        super()._on_box_change()  # type: ignore[misc]
        across, along = self.node.anchors
        wide, high = extent_of(self.node.text or "", self.overlay.font_size)
        left = {"left": 0.0, "center": (self.x_size - wide) / 2}.get(across, self.x_size - wide)
        top = 0.0 if along == "bottom" else self.y_size - high
        self.box.width, self.box.height = wide + PADDING, high + PADDING
        self.box.center = left + wide / 2, top + high / 2


class Legend(TextOverlay):
    """Lines at the foot of the canvas."""


def show_legend(viewer: Viewer, text: str) -> None:
    """Write lines at the foot of the canvas, in place of those there."""
    overlays = viewer.canvas.overlays
    if LEGEND in overlays:
        overlays[LEGEND].text = text
    else:
        overlays[LEGEND] = Legend(
            text=text, position="bottom_center", font_size=LEGEND_SIZE, box=True, visible=True
        )


class LegendDrawn(Boxed, VispyTextOverlay):
    """The drawing of a legend's lines in a box."""


class NameDrawn(Boxed, VispyLayerNameOverlay):
    """The drawing of a layer's name, in the lines that fit its cell."""

    def _on_text_change(self) -> None:
        self.node.text = shown_name(self.layer)
        self._on_position_change()


def _write(visual: Any, texts: list[Written], ink: Colour) -> None:
    """Write texts with a rim."""
    shifts = [*AROUND, (0, 0)]
    visual.text = [each.text for _ in shifts for each in texts]
    if texts:
        rim = (*(1 - each for each in ink[:3]), 1.0)
        visual.pos = [(each.x + x, each.y + y) for x, y in shifts for each in texts]
        visual.color = [rim] * (len(AROUND) * len(texts)) + [ink] * len(texts)


class ColourBar(CanvasOverlay):
    """The colour bar of a layer, with the numbers at its ends, at the lower right of the canvas."""

    layer: Any
    unit: str = ""
    font_size: float = BAR_NUMBERS
    visible: bool = True


def show_colour_bar(viewer: Viewer, layer: Layer | None, unit: str = "") -> None:
    """Show the colour bar of a layer, in place of another's; None: show none."""
    overlays = viewer.canvas.overlays
    known = overlays.get(COLOUR_BAR)
    if layer is None:
        overlays.pop(COLOUR_BAR, None)
    elif known is None or known.layer is not layer or known.unit != unit:
        overlays[COLOUR_BAR] = ColourBar(layer=layer, unit=unit)


class ColourBarDrawn(ViewerOverlayMixin, VispyCanvasOverlay):
    """The drawing of a horizontal bar: a vertical one, like napari's, takes room from heads."""

    def __init__(self, *, font_info: Any, **options: Any) -> None:
        wide, high = BAR_SIZE
        self._colours = Image(np.zeros((1, 1, 4), np.float32))
        corners = np.array([(0, 0), (wide, 0), (wide, high), (0, high), (0, 0)])
        self._rim = Line(corners, width=1)
        self._ends = [Text(font_info=font_info, anchor_x=side) for side in ("left", "right")]
        for end, x in zip(self._ends, (0, wide), strict=True):
            end.pos = x, high + BAR_LINE / 2
        node = Compound([self._colours, self._rim, *self._ends])
        super().__init__(node=node, font_info=font_info, **options)
        self.x_size, self.y_size = wide, high + BAR_LINE
        events = self.overlay.layer.events
        for event in (events.colormap, events.contrast_limits, events.gamma):
            event.connect(self._renew)
        self.viewer.canvas.events.background_color.connect(self._renew)
        self._renew()
        self.reset()

    def close(self) -> None:
        """Stop drawing."""
        disconnect_events(self.overlay.layer.events, self)
        super().close()

    def _renew(self, event: Any = None) -> None:
        """Draw the colours that the layer has now."""
        layer, (wide, high), ink = self.overlay.layer, BAR_SIZE, self._get_fgcolor()
        shades = layer.colormap.map(np.linspace(0, 1, wide) ** layer.gamma)
        self._colours.set_data(np.repeat(shades[None], high, axis=0).astype(np.float32))
        self._rim.set_data(color=ink)
        least, most = layer.contrast_limits
        texts = bar_ends(least, most, self.overlay.unit)
        size = fitting(["  ".join(texts)], wide, BAR_NUMBERS)
        for end, text in zip(self._ends, texts, strict=True):
            end.text, end.color, end.font_size = text, ink, size


class SlicePicture(SceneOverlay):
    """A picture over a part of a layer's slice; `drawing` is None where there is none."""

    drawing: Any = None
    smooth: bool = True
    visible: bool = True


class SlicePictureDrawn(LayerOverlayMixin, VispySceneOverlay):
    """The drawing of the picture over its voxels, in the plane that it was made for."""

    def __init__(self, **options: Any) -> None:
        # napari sets its transform, we set the transform of the picture in it
        self._compound = node = Compound([])
        way = "linear" if options["overlay"].smooth else "nearest"
        self._image = Image(np.zeros((1, 1, 4), np.uint8), interpolation=way, parent=node)
        self._image.set_gl_state("translucent", depth_test=False)
        node.events.parent_change.connect(self._cut_at_the_cell)
        super().__init__(node=node, **options)
        # A layer's node begins at its first voxel's corner; napari shifts its contents later.
        middle = np.eye(4)
        middle[3, :2] = 0.5
        self.node.transform.matrix = middle
        self.overlay.events.drawing.connect(self._on_drawing_change)
        self.reset()
        self._on_drawing_change()

    def _cut_at_the_cell(self, event: Any = None) -> None:
        """Adopt the layer's clipping: vispy passes it to a node only when that gets its parent."""
        self._image.parent = None
        self._image.parent = self._compound

    def _on_drawing_change(self) -> None:
        drawing = self.overlay.drawing
        if drawing is not None:
            (top, left), (height, width) = drawing.first, drawing.size
            self._image.set_data(drawing.picture)
            self._image.transform = STTransform(
                scale=(1 / width, 1 / height), translate=(left - 0.5, top - 0.5)
            )
        self._image.visible = drawing is not None
        self.node.update()


overlay_to_visual[Marks] = MarksDrawn
overlay_to_visual[ColourBar] = ColourBarDrawn
overlay_to_visual[LayerNameOverlay] = NameDrawn
overlay_to_visual[Legend] = LegendDrawn
overlay_to_visual[SlicePicture] = SlicePictureDrawn
