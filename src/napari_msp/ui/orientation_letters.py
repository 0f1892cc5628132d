"""Letters at the sides of every cell of a viewer (R, L, A, P, S, I), and how to read the picture.

They are computed before each drawing from what it is to show, so that no change of axes, planes,
camera or layers can leave them behind. Layers that are not the plugin's, or were moved by hand,
have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.figures.slices import Sides, obliquity, picture_sides
from napari_msp.ui.grid_fit import EDGE, LINE_HEIGHT, shown_name, taken_above, taken_below
from napari_msp.ui.layers import is_ours, lattice_of
from napari_msp.ui.viewer_axes import shown_affine

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

KEY = "napari_msp_letters"
"""Key of the overlay among the canvas's overlays."""

SIZE, SMALL = 8.0, 6.5
"""Sizes of letters and of words, in the points of napari's canvas."""

OBLIQUE = 1.0
"""Degrees of a tilted grid from which on it is called oblique (our choice)."""

MOVES = ("scale", "translate", "rotate", "shear")
"""Properties by which a layer may be moved by hand, besides its affine."""


def sides_of(viewer: Viewer, layer: Layer) -> Sides | None:
    """Return what lies at the sides of a layer's picture; None where that is not known."""
    lattice = lattice_of(layer)
    if lattice is None:
        return None
    right, down = _screen(viewer)
    return picture_sides(shown_affine(lattice), right, down)


def reading(viewer: Viewer) -> list[str]:
    """Return how the picture is to be read, such as ["oblique by 9°", "radiological"].

    It is that of the topmost visible layer that has sides; empty where there is none.
    """
    for layer in reversed(viewer.layers):
        sides = sides_of(viewer, layer) if layer.visible else None
        if sides is not None:
            lattice = lattice_of(layer)
            assert lattice is not None
            tilt = obliquity(lattice.affine)
            return [*([f"oblique by {tilt:.0f}°"] if tilt >= OBLIQUE else []), sides.convention]
    return []


def _screen(viewer: Viewer) -> tuple[FloatArray, FloatArray]:
    """Return the (3,) directions to the right and down on the screen, along the last three axes."""
    dims, camera = viewer.dims, viewer.scene.camera
    axes = np.eye(dims.ndim)[list(dims.displayed)]
    if dims.ndisplay == 2:
        vertical, horizontal = camera.orientation2d
        down = axes[0] * (1 if str(vertical) == "down" else -1)
        right = axes[1] * (1 if str(horizontal) == "right" else -1)
    else:
        view, up = np.array(camera.view_direction), np.array(camera.up_direction)
        hand = 1 if str(camera.handedness) == "right" else -1
        right, down = hand * np.cross(view, up) @ axes, -up @ axes
    # Layers of others may have more axes, such as time, which come first and have no sides.
    return right[-3:], down[-3:]


class Written(NamedTuple):
    """A piece of text on the canvas, in canvas pixels: letters around x, words from x on."""

    text: str
    x: float
    y: float


class GridCell(NamedTuple):
    """A cell of the grid, or the whole canvas: its box in canvas pixels and its visible layers."""

    top: float
    left: float
    height: float
    width: float
    layers: list[Layer]


def cells_of(viewer: Viewer) -> Iterator[GridCell]:
    """Yield the cells of a viewer that show something."""
    layers, canvas = viewer.layers, viewer.canvas
    rows, columns = canvas.grid.actual_shape(layers)
    height, width = (float(each) for each in canvas.viewbox_size(layers))
    down, across = canvas.size[0] - rows * height, canvas.size[1] - columns * width
    for (row, column), members in canvas.grid.iter_viewboxes(layers):
        top = row * (height + down / max(rows - 1, 1))
        left = column * (width + across / max(columns - 1, 1))
        there = [layers[index] for index in members if layers[index].visible]
        if there:
            yield GridCell(top, left, height, width, there)


def letters_on(viewer: Viewer, cells: Iterable[GridCell] | None = None) -> list[Written]:
    """Return the letters of cells (None: of all), and where they stand."""
    found: list[Written] = []
    cells = list(cells_of(viewer) if cells is None else cells)
    # At one height in all cells, whatever stands in one of them.
    head = taken_above(layer for cell in cells for layer in cell.layers)
    foot = taken_below(viewer)
    for cell in cells:
        known = (sides_of(viewer, layer) for layer in reversed(cell.layers))
        sides = next((each for each in known if each is not None), None)
        if sides is None:
            continue
        x, y = cell.left + cell.width / 2, cell.top + (head + cell.height - foot) / 2
        inset = EDGE + SIZE / 2 * (max(len(sides.left), len(sides.right)) - 1)
        found += [
            Written(sides.top, x, cell.top + head + EDGE),
            Written(sides.bottom, x, cell.top + cell.height - foot - EDGE),
            Written(sides.left, cell.left + inset, y),
            Written(sides.right, cell.left + cell.width - inset, y),
        ]
    return [each for each in found if each.text]


def words_on(viewer: Viewer) -> list[Written]:
    """Return how to read the picture, as lines at the lower left, and where these stand."""
    lines = reading(viewer)
    foot = viewer.canvas.size[0] - taken_below(viewer, "bottom_left") - EDGE
    widest = max((len(line) for line in lines), default=0) * SMALL
    if widest > viewer.canvas.viewbox_size(viewer.layers)[1] / 2 - EDGE:
        # Or it would run into the letter in the middle.
        letter_at = viewer.canvas.size[0] - taken_below(viewer) - EDGE
        foot = min(foot, letter_at) - LINE_HEIGHT * SIZE
    heights = (foot - number * LINE_HEIGHT * SMALL for number in range(len(lines)))
    return [Written(line, EDGE / 2, y) for line, y in zip(reversed(lines), heights, strict=True)]


def state_of(viewer: Viewer) -> tuple[Any, ...]:
    """Return all that letters follow from: comparing it takes a hundredth of their own time."""
    dims, camera, canvas, grid = viewer.dims, viewer.scene.camera, viewer.canvas, viewer.canvas.grid
    seen = (
        dims.order,
        dims.ndisplay,
        camera.orientation,
        camera.angles if dims.ndisplay == 3 else None,
        canvas.size,
        (grid.enabled, grid.shape, grid.stride, grid.spacing),
        # Others' layers, too: a cell is a layer's place among all, and letters avoid any name.
        [(id(layer), *_words(layer)) for layer in viewer.layers],
    )
    overlays = [
        (getattr(each, "text", ""), each.font_size, str(each.position))
        for each in canvas.overlays.values()
        if each.visible and hasattr(each, "font_size")
    ]
    layers = [
        (
            id(layer),
            id(layer.metadata),
            layer.data.shape,
            layer.affine.affine_matrix.tobytes(),
            *(getattr(layer, each).tobytes() for each in MOVES),
        )
        for layer in viewer.layers
        if layer.visible and is_ours(layer)
    ]
    return seen, overlays, layers


def _words(layer: Layer) -> tuple[Any, ...]:
    """Return the parts of a layer that letters must not run into; (False,) where it is hidden."""
    if not layer.visible:
        return (False,)
    name = layer.name_overlay
    return shown_name(layer), name.visible, name.font_size, str(name.position)
