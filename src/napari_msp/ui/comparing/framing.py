"""Where a brain stands in its cell, how large, and how large the words are. Plain arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.layers import corner, to_shown

ORDERS = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""The order of S, P and L for each plane: slider, rows, columns."""

# Canvas pixels.
EDGE = 8
NAME, NAME_LINE = 14, 18
LEGEND = 44
BAR = 84
TALLEST_BAR = 150

Extent = tuple[float, float, float, float, float, float]
"""First and last mm of something along S, P and L: lowest S, highest S, and so on."""


@dataclass(frozen=True)
class Frame:
    """How the camera looks at each cell.

    Attributes
    ----------
    centre
        Row and column in mm that lie in the middle of a cell.
    zoom
        Canvas pixels for a mm.
    bar
        Height of the colour bar in pixels.
    """

    centre: tuple[float, float]
    zoom: float
    bar: float


def brain_extent(image: SHImage) -> Extent:
    """Give where the brain of an image lies in the viewer, in mm."""
    shown, first = to_shown(image.mask, image.lattice), corner(image.lattice)
    sizes = image.lattice.canonical.voxel_sizes[::-1]
    ends: list[float] = []
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        occupied = np.flatnonzero(shown.any(axis=others))
        for edge in (occupied[0] - 0.5, occupied[-1] + 0.5):
            ends.append(float(first[axis] + edge * sizes[axis]))
    return ends[0], ends[1], ends[2], ends[3], ends[4], ends[5]


def spatial(order: Sequence[int]) -> tuple[int, int, int]:
    """Give the order of S, P and L alone: they are the last of the viewer's axes.

    Layers of others may have more axes, such as time. A viewer without any has only two.
    """
    extra = len(order) - 3
    known = [axis - extra for axis in order if axis >= extra]
    first, second, third = [axis for axis in range(3) if axis not in known] + known
    return first, second, third


def is_upright(order: tuple[int, ...]) -> bool:
    """Tell whether rows have to grow upwards, lest heads stand on their crown."""
    return spatial(order)[1] == 0


def frame(
    cell: tuple[float, float],
    brain: Extent,
    order: tuple[int, ...],
    *,
    bar: bool,
    lines: int = 1,
) -> Frame:
    """Fit the brain into a cell, under the name, with room for the colour bar.

    The bar stands below the brain or at its right, wherever the brain stays larger.

    Parameters
    ----------
    cell
        Height and width in pixels.
    brain
        See `brain_extent`.
    order
        The viewer's order of axes; the last two of space are shown.
    bar
        Whether there is a colour bar.
    lines
        Of the longest name.
    """
    name = NAME + NAME_LINE * lines
    rows, columns = (brain[2 * axis : 2 * axis + 2] for axis in spatial(order)[1:])
    tall, wide = max(rows[1] - rows[0], 1.0), max(columns[1] - columns[0], 1.0)

    def fitted(right: float, bottom: float) -> tuple[float, float, float]:
        room = (max(cell[0] - name - bottom, 20.0), max(cell[1] - EDGE - right, 20.0))
        return min(room[0] / tall, room[1] / wide), right, bottom

    zoom, right, bottom = fitted(EDGE, LEGEND)
    if bar:
        zoom, right, bottom = max(fitted(EDGE, BAR), fitted(BAR, LEGEND))
    below = (cell[0] - name - bottom - tall * zoom) / 2 + bottom
    # A row is a mm further down on the screen, but where it is a mm further up in the head.
    down = -1 if is_upright(order) else 1
    centre = (
        sum(rows) / 2 + down * (bottom - name) / 2 / zoom,
        sum(columns) / 2 + (right - EDGE) / 2 / zoom,
    )
    free = cell[0] - name - 3 * EDGE if right == BAR else below - 5 * EDGE
    return Frame(centre, zoom, float(np.clip(free, 40, TALLEST_BAR)))
