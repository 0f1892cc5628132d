"""Lay panels out on a black page and draw them. Knows nothing of SH."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.slices import Slice

# Lengths on the page are in inches.
PANEL_WIDTH = 1.85
LOWEST_PANEL = 1.5
WIDEST_PANEL = 3.7
GAP = 0.06
TITLE = 0.24
HEADING = 0.30
EDGE = 0.12
BAR = 0.10
BAR_SPACE = 0.78
BLOCK_GAP = 0.28
SIDE_BY_SIDE = 2
"""Up to this many predictions the blocks stand side by side, above it one under the other."""

DPI = 200
ERROR_COLOURS = "inferno"
"""Black at 0, even in brightness, readable without colour vision."""

WHITE, GREY = "#ffffff", "#b8b8b8"
PRIMARIES = (("R–L", "#ff5a5a"), ("A–P", "#57d957"), ("S–I", "#7d8dff"))


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes
    ----------
    name
        What it shows, or the prediction that it belongs to.
    pixels
        (rows, columns) or (rows, columns, 3). An image: 0 is black, 1 white. A map: its values.
    mean
        Of the whole map, for its title; unused for an image.
    """

    name: str
    pixels: FloatArray
    mean: float = 0.0


@dataclass(frozen=True)
class Block:
    """The panels of one quantity.

    Attributes
    ----------
    title
        Above the block.
    top
        First row; None leaves a cell black.
    corner
        First cell of the second row.
    maps
        Rest of the second row.
    map_limit
        Upper end of the maps' common scale, which starts at 0.
    map_title, map_label, map_unit
        What their titles and the colour bar say.
    window, image_unit
        Values shown black and white, and their unit.
    coloured
        Whether the images are in colour.
    """

    title: str
    top: list[Panel | None]
    corner: Panel | None
    maps: list[Panel | None]
    map_limit: float
    map_title: str
    map_label: str
    map_unit: str
    window: tuple[float, float]
    image_unit: str
    coloured: bool

    @property
    def has_maps(self) -> bool:
        """Whether the second row shows anything."""
        return self.corner is not None or any(panel is not None for panel in self.maps)


def draw_blocks(blocks: list[Block], view: Slice) -> Figure:
    """Draw blocks side by side or one under the other.

    Every axes carries a label, "<block> · <panel> · image" or "… · map", by which it can be found.

    Parameters
    ----------
    view
        Gives the panels' proportions in mm and the letters of the first panel.
    """
    width, height = view.size
    # A flat slab is drawn wider, so that letters and bars find room.
    wide = min(WIDEST_PANEL, max(PANEL_WIDTH, LOWEST_PANEL * width / height))
    panel = (wide, wide * height / width)
    columns = len(blocks[0].top)
    rows = 2 if any(block.has_maps for block in blocks) else 1
    block_width = columns * (panel[0] + GAP) + BAR_SPACE
    block_height = HEADING + rows * (panel[1] + TITLE)
    beside = columns - 1 <= SIDE_BY_SIDE
    count = len(blocks)
    page_width = 2 * EDGE + (
        count * block_width + (count - 1) * BLOCK_GAP if beside else block_width
    )
    page_height = 2 * EDGE + (
        block_height if beside else count * block_height + (count - 1) * BLOCK_GAP
    )
    figure = Figure(figsize=(page_width, page_height), dpi=DPI, facecolor="black")
    FigureCanvasAgg(figure)
    for number, block in enumerate(blocks):
        left = EDGE + (number * (block_width + BLOCK_GAP) if beside else 0)
        top = EDGE + (0 if beside else number * (block_height + BLOCK_GAP))
        _draw_block(figure, block, view, (left, top), panel)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG at its own resolution."""
    figure.savefig(path, format="png", dpi=DPI, facecolor=figure.get_facecolor())


def rendered(figure: Figure) -> FloatArray:
    """Give the figure's pixels, (rows, columns, 3) in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return np.asarray(pixels[..., :3] / 255.0)


def _draw_block(
    figure: Figure,
    block: Block,
    view: Slice,
    corner: tuple[float, float],
    size: tuple[float, float],
) -> None:
    left, top = corner
    _write(figure, (left, top + HEADING / 2), block.title, size=11, weight="bold")
    first_row = top + HEADING + TITLE
    second_row = first_row + size[1] + TITLE
    lefts = [left + column * (size[0] + GAP) for column in range(len(block.top))]
    bar_left = lefts[-1] + size[0] + 0.1

    lettered = False
    for x, panel in zip(lefts, block.top, strict=True):
        if panel is not None:
            axes = _draw_image(figure, block, panel, (x, first_row), size)
            if not lettered:
                _draw_letters(axes, view.letters)
                lettered = True
    if block.coloured:
        _draw_directions(figure, (bar_left, first_row), size[1])
    else:
        shades = ScalarMappable(Normalize(*block.window), "gray")
        name = f"{block.title} · image · bar"
        _draw_bar(figure, shades, block.image_unit, (bar_left, first_row), size[1], name, "both")

    if block.corner is not None:
        _draw_image(figure, block, block.corner, (lefts[0], second_row), size)
    if not any(block.maps):
        return
    largest = max(panel.mean for panel in block.maps if panel is not None)
    exponent = int(np.floor(np.log10(largest))) if largest > 0 else 0
    # One power of ten for titles, bar and maps, so that their numbers compare at a glance.
    power = "" if exponent in (-1, 0) else f"10$^{{{exponent}}}$"
    unit = 10.0**exponent if power else 1.0
    shades = ScalarMappable(Normalize(0, block.map_limit / unit), ERROR_COLOURS)
    for x, panel in zip(lefts[1:], block.maps, strict=True):
        if panel is None:
            _title(figure, f"no {block.map_label}", (x, second_row), size[0], GREY)
        else:
            _draw_map(figure, block, panel, (x, second_row), size, unit)
            mean = f"{block.map_title} {panel.mean / unit:.3g}{' × ' + power if power else ''}"
            _title(figure, mean, (x, second_row), size[0])
    label = f"{block.map_label}\n({power + ' ' if power else ''}{block.map_unit})"
    name = f"{block.title} · map · bar"
    _draw_bar(figure, shades, label, (bar_left, second_row), size[1], name, "max")


def _draw_image(
    figure: Figure,
    block: Block,
    panel: Panel,
    corner: tuple[float, float],
    size: tuple[float, float],
) -> Axes:
    axes = _axes(figure, corner, size, f"{block.title} · {panel.name} · image")
    pixels = np.clip(panel.pixels, 0, 1)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    _title(figure, panel.name.replace("$", r"\$"), corner, size[0])
    return axes


def _draw_map(
    figure: Figure,
    block: Block,
    panel: Panel,
    corner: tuple[float, float],
    size: tuple[float, float],
    unit: float,
) -> None:
    axes = _axes(figure, corner, size, f"{block.title} · {panel.name} · map")
    axes.imshow(
        panel.pixels / unit,
        cmap=ERROR_COLOURS,
        vmin=0,
        vmax=block.map_limit / unit,
        interpolation="nearest",
        aspect="auto",
    )


def _draw_letters(axes: Axes, letters: str) -> None:
    """Write R, L, A, P (or S, I) at the edges of a panel."""
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
    sides = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, (x, y), (across, down) in zip(letters, places, sides, strict=True):
        axes.text(
            x, y, letter, transform=axes.transAxes, color=GREY, fontsize=8, ha=across, va=down
        )


def _draw_directions(figure: Figure, corner: tuple[float, float], height: float) -> None:
    """Say which colour is which direction."""
    for number, (pair, colour) in enumerate(PRIMARIES):
        at = (corner[0], corner[1] + height / 2 + (number - 1) * 0.2)
        _write(figure, at, pair, size=9, colour=colour, weight="bold")


def _draw_bar(
    figure: Figure,
    shades: ScalarMappable,
    label: str,
    corner: tuple[float, float],
    height: float,
    name: str,
    extend: str,
) -> None:
    short = 0.08 * height
    place = (corner[0], corner[1] + short)
    axes = _axes(figure, place, (BAR, height - 2 * short), name)
    bar = figure.colorbar(shades, cax=axes, extend=extend)
    bar.locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
    bar.update_ticks()
    bar.set_label(label, color=WHITE, fontsize=8)
    axes.set_axis_on()
    bar.outline.set_edgecolor(GREY)
    axes.tick_params(colors=WHITE, labelsize=7.5, length=2)


def _title(
    figure: Figure, text: str, corner: tuple[float, float], width: float, colour: str = WHITE
) -> None:
    at = (corner[0] + width / 2, corner[1] - TITLE / 2)
    _write(figure, at, text, size=9, colour=colour, across="center")


def _write(
    figure: Figure,
    at: tuple[float, float],
    text: str,
    *,
    size: float,
    colour: str = WHITE,
    weight: str = "normal",
    across: Literal["left", "center"] = "left",
) -> None:
    width, height = figure.get_size_inches()
    x, y = at[0] / width, 1 - at[1] / height
    figure.text(x, y, text, color=colour, fontsize=size, weight=weight, ha=across, va="center")


def _axes(
    figure: Figure, corner: tuple[float, float], size: tuple[float, float], label: str
) -> Axes:
    """Add axes at a distance from the page's top left corner."""
    width, height = figure.get_size_inches()
    left, top = corner
    axes = figure.add_axes(
        (left / width, 1 - (top + size[1]) / height, size[0] / width, size[1] / height),
        label=label,
    )
    axes.set_facecolor("black")
    axes.set_axis_off()
    return axes
