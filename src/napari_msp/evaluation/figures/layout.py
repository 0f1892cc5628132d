"""Lay rows of pictures out on a white page, and write the page to a file. Knows nothing of SH.

For a screen (PNG) or for print (PDF, SVG), the same bytes every time.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from napari_msp.arrays import FloatArray
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.figures.slices import Slice
from napari_msp.files import atomic_path

DPI = 200
BAR = 0.10
WHITE, GREY = "#ffffff", "#b8b8b8"
"""Colours of what is written on pictures, which are black around the brain."""

PAPER, INK, SOFT_INK = "white", "#1a1a1a", "#6b6b6b"
"""Colours of the page: it is printed, and placed into other pages."""

GRID = "#e3e7ec"

PRIMARIES = (("R–L", "#d62020"), ("A–P", "#178a17"), ("S–I", "#3040e0"))

Point = tuple[float, float]
"""Position in inches from the left and from the top, or width and height."""


@dataclass(frozen=True)
class ColourScale:
    """Meaning of a picture's colours; they extend beyond "both" ends, or beyond the "max"."""

    low: float
    high: float
    colours: str | Colormap
    label: str
    extend: str


def plain_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty figure without pyplot; its size is in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def tidy(
    axes: Axes,
    ink: str = INK,
    soft: str = SOFT_INK,
    size: float = 8,
    *,
    x: str = "",
    y: str = "",
    grid: Literal["", "x", "both"] = "",
) -> None:
    """Keep two sides of axes, with small numbers; name them `x` and `y`, and draw a pale grid."""
    axes.set_xlabel(x, color=ink, fontsize=size + 1)
    axes.set_ylabel(y, color=ink, fontsize=size + 1)
    if grid:
        axes.grid(True, axis=grid, color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(soft)
    axes.tick_params(colors=ink, labelsize=size, length=3, color=soft)
    axes.set_axisbelow(True)


class FigurePage:
    """A figure with positions in inches."""

    def __init__(self, size: Point) -> None:
        self.figure, self.size = plain_figure(*size, layout=None), size

    def axes(self, corner: Point, size: Point, label: str) -> Axes:
        """Add black axes without ticks, which can be found by their label."""
        width, height = self.size
        left, top = corner
        axes = self.figure.add_axes(
            (left / width, 1 - (top + size[1]) / height, size[0] / width, size[1] / height),
            label=label,
        )
        axes.set_facecolor("black")
        axes.set_axis_off()
        return axes

    def write(self, at: Point, text: str, **style: Any) -> None:
        """Write a line whose middle is at `at[1]`; the style is Matplotlib's."""
        x, y = at[0] / self.size[0], 1 - at[1] / self.size[1]
        style = {"color": INK, "va": "center", **style}
        self.figure.text(x, y, text, parse_math=False, **style)  # a name may contain dollars

    def bar(self, scale: ColourScale, corner: Point, height: float, name: str) -> None:
        """Draw a scale's colours as an upright bar, with numbers and label."""
        short = 0.08 * height
        axes = self.axes((corner[0], corner[1] + short), (BAR, height - 2 * short), name)
        shades = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
        bar = self.figure.colorbar(shades, cax=axes, extend=scale.extend)
        bar.locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
        bar.update_ticks()
        bar.set_label(scale.label, color=INK, fontsize=8)
        axes.set_axis_on()
        bar.outline.set_edgecolor(SOFT_INK)
        axes.tick_params(colors=INK, labelsize=7.5, length=2)

    def directions(self, corner: Point, height: float) -> None:
        """Write which colour stands for which direction."""
        for number, (pair, colour) in enumerate(PRIMARIES):
            at = (corner[0], corner[1] + height / 2 + (number - 1) * 0.2)
            self.write(at, pair, fontsize=9, color=colour, weight="bold")


VECTOR_DPI = 600
"""Resolution of pictures embedded in a PDF or SVG, so that voxels keep sharp edges in print."""

FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": DPI, "metadata": {"Software": "napari-msp"}},
    "pdf": {"dpi": VECTOR_DPI, "metadata": {"CreationDate": None, "Creator": "napari-msp"}},
    "svg": {"dpi": VECTOR_DPI, "metadata": {"Date": None, "Creator": "napari-msp"}},
}
"""Options for writing each format; no file contains the time of writing."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, to be searched and edited
    "svg.hashsalt": "napari-msp",  # else element names are random
    "pdf.fonttype": 42,
}


def write_figure(path: str | Path, figure: Figure) -> None:
    """Write a figure in the format of its suffix, atomically.

    Parameters
    ----------
    path
        Ends in .png, .pdf or .svg. In the last two text is text and only the pictures are pixels.

    Raises
    ------
    UserError
        When the suffix is another one, or the folder cannot be written to.
    """
    path = Path(path)
    check_format(path)
    kind = path.suffix.lower().removeprefix(".")
    with atomic_path(path) as temporary, matplotlib.rc_context(STYLE):
        figure.savefig(temporary, format=kind, facecolor=figure.get_facecolor(), **FORMATS[kind])


def check_format(path: Path) -> None:
    """Refuse a file name whose suffix is not a format, before the work and not after it."""
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        remedy = Advice("give a name that ends in .png, .pdf or .svg")
        raise UserError("a figure is written as PNG, PDF or SVG", path, remedy=remedy)


# Lengths on the page are in inches.
PANEL_WIDTH = 1.85
LOWEST_PANEL = 1.5
WIDEST_PANEL = 3.7
GAP = 0.06
TITLE = 0.24
HEADING = 0.30
EDGE = 0.12
BAR_GAP = 0.10
BAR_SPACE = 0.78
BLOCK_GAP = 0.28
CAPTION_LINE, CAPTION_CHARACTER = 0.14, 0.054
"""Height of a caption's line, and average width of a character, estimated high."""
CAPTION_SIZE = 7
"""Size of the caption's font in points."""
WIDEST_PAGE = 14.0
"""Page width up to which blocks stand side by side; else they stand one below the other."""

SCALE_BAR = (0.06, 0.06, 0.025)
"""Distance of the scale bar from a panel's left and bottom edges, and its thickness."""

SCALE_BAR_SHARE = 0.25
"""Largest width of the scale bar, as a share of the panel's."""


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes
    ----------
    name
        Name of what it shows, or of the prediction that it belongs to.
    pixels
        (rows, columns) or (rows, columns, 3); None leaves it empty below a grey title.
    scale
        Scale of a map's pixels; None for an image, with pixels from 0, black, to 1, white.
    """

    name: str
    title: str
    pixels: FloatArray | None
    scale: ColourScale | None = None


@dataclass(frozen=True)
class PictureRow:
    """Pictures side by side.

    Attributes
    ----------
    kind
        "image" or "map"; part of its bar's name.
    panels
        Panels of the row; None leaves a place empty.
    scale
        Scale drawn at the right; None: the colours are directions.
    """

    kind: str
    panels: list[Panel | None]
    scale: ColourScale | None

    @property
    def room(self) -> float:
        """Height of the titles, in inches."""
        return TITLE * max(1 + each.title.count("\n") for each in self.panels if each)


@dataclass(frozen=True)
class Block:
    """The rows of one quantity under a title."""

    title: str
    rows: list[PictureRow]


def draw_blocks(blocks: list[Block], view: Slice, caption: str = "") -> Figure:
    """Draw blocks side by side or one below the other.

    Every axes carries a label, "<block> · <panel> · image" or "… · map", by which it can be found.

    Parameters
    ----------
    blocks
        Blocks, all with the same number of columns.
    view
        Slice that defines the panels' proportions in mm and the letters of a block's first panel.
    caption
        Text in small print below all, in as many lines as it needs.
    """
    width, height = view.size
    # A flat slab is drawn wider, to leave room for letters and bars.
    wide = min(WIDEST_PANEL, max(PANEL_WIDTH, LOWEST_PANEL * width / height))
    panel = (wide, wide * height / width)
    columns = len(blocks[0].rows[0].panels)
    block_width = columns * (panel[0] + GAP) + BAR_SPACE
    heights = [HEADING + sum(panel[1] + row.room for row in block.rows) for block in blocks]
    edges = 2 * EDGE + (len(blocks) - 1) * BLOCK_GAP
    wide_page = len(blocks) * block_width + edges
    beside = wide_page <= WIDEST_PAGE
    page_width = wide_page if beside else 2 * EDGE + block_width
    used = 2 * EDGE + max(heights) if beside else sum(heights) + edges
    lines = wrap(caption, int((page_width - 2 * EDGE) / CAPTION_CHARACTER))
    page = FigurePage((page_width, used + len(lines) * CAPTION_LINE))
    for number, line in enumerate(lines):
        at = (EDGE, used + number * CAPTION_LINE)
        page.write(at, line, fontsize=CAPTION_SIZE, color=SOFT_INK)
    left = top = EDGE
    for block, block_height in zip(blocks, heights, strict=True):
        _draw_block(page, block, view, (left, top), panel)
        if beside:
            left += block_width + BLOCK_GAP
        else:
            top += block_height + BLOCK_GAP
    return page.figure


def _draw_block(page: FigurePage, block: Block, view: Slice, corner: Point, size: Point) -> None:
    left, top = corner
    page.write((left, top + HEADING / 2), block.title, fontsize=11, weight="bold")
    top += HEADING
    marked = False
    for row in block.rows:
        top += row.room
        for column, panel in enumerate(row.panels):
            if panel is None:
                continue
            axes = _draw_panel(page, block, panel, (left + column * (size[0] + GAP), top), size)
            if axes is not None and not marked:
                _draw_letters(axes, view.letters)
                _draw_scale_bar(axes, view.size, size)
                marked = True
        at = (left + len(row.panels) * (size[0] + GAP) - GAP + BAR_GAP, top)
        if row.scale is None:
            page.directions(at, size[1])
        else:
            page.bar(row.scale, at, size[1], f"{block.title} · {row.kind} · bar")
        top += size[1]


def _draw_panel(
    page: FigurePage, block: Block, panel: Panel, corner: Point, size: Point
) -> Axes | None:
    middle = (corner[0] + size[0] / 2, corner[1] - (1 + panel.title.count("\n")) * TITLE / 2)
    colour = SOFT_INK if panel.pixels is None else INK
    page.write(middle, panel.title, fontsize=9, color=colour, ha="center")
    if panel.pixels is None:
        return None
    scale = panel.scale or ColourScale(0, 1, "gray", "", "")
    kind = "image" if panel.scale is None else "map"
    axes = page.axes(corner, size, f"{block.title} · {panel.name} · {kind}")
    pixels = np.clip(panel.pixels, 0, 1) if panel.scale is None else panel.pixels
    colours: dict[str, Any] = {"cmap": scale.colours, "vmin": scale.low, "vmax": scale.high}
    axes.imshow(pixels, interpolation="nearest", aspect="auto", **colours)
    return axes


def _draw_letters(axes: Axes, letters: str) -> None:
    """Write R, L, A, P (or S, I) at the edges of a panel."""
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
    sides = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, (x, y), (across, down) in zip(letters, places, sides, strict=True):
        axes.text(
            x, y, letter, transform=axes.transAxes, color=GREY, fontsize=8, ha=across, va=down
        )


def _draw_scale_bar(axes: Axes, size: Point, inches: Point) -> None:
    """Draw a white line of a round length, with the length, at the bottom left of a panel.

    `size` is the panel's size in mm, `inches` its size on the page.
    """
    length = round_length(SCALE_BAR_SHARE * size[0])
    width, height = inches
    left, bottom, thick = SCALE_BAR[0] / width, SCALE_BAR[1] / height, SCALE_BAR[2] / height
    style: dict[str, Any] = {"transform": axes.transAxes, "color": WHITE}
    bar = Rectangle((left, bottom), length / size[0], thick, linewidth=0, **style)
    axes.add_patch(bar)
    axes.text(left, bottom + 2 * thick, f"{length:g} mm", fontsize=7, va="bottom", **style)


def round_length(most: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, 50 … that does not exceed `most`.

    >>> round_length(38.5)
    20.0
    """
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most)
