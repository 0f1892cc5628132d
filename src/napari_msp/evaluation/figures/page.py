"""A black page measured in inches from its top left corner, and how a figure becomes a file.

For a screen (PNG) or for print (PDF, SVG), the same bytes every time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from napari_msp.errors import Advice, UserError
from napari_msp.files import atomic_path

DPI = 200
BAR = 0.10
WHITE, GREY = "#ffffff", "#b8b8b8"
PRIMARIES = (("R–L", "#ff5a5a"), ("A–P", "#57d957"), ("S–I", "#7d8dff"))

Point = tuple[float, float]
"""Inches from the left and from the top; or a width and a height."""


@dataclass(frozen=True)
class Scale:
    """What the colours of a picture mean.

    Attributes
    ----------
    low, high
        Values at its ends.
    colours
        A colour map of matplotlib's.
    label
        Beside the bar, with the unit.
    extend
        At which ends values go on: "both" or "max".
    """

    low: float
    high: float
    colours: str
    label: str
    extend: str


class Page:
    """A figure without pyplot.

    Parameters
    ----------
    size
        Width and height in inches.
    """

    def __init__(self, size: Point) -> None:
        self.figure = Figure(figsize=size, dpi=DPI, facecolor="black")
        FigureCanvasAgg(self.figure)
        self.size = size

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

    def write(
        self,
        at: Point,
        text: str,
        *,
        size: float,
        colour: str = WHITE,
        weight: str = "normal",
        across: Literal["left", "center"] = "left",
    ) -> None:
        """Write a line whose middle is at `at[1]`."""
        x, y = at[0] / self.size[0], 1 - at[1] / self.size[1]
        self.figure.text(
            x,
            y,
            text,
            color=colour,
            fontsize=size,
            weight=weight,
            ha=across,
            va="center",
            parse_math=False,  # a name may contain dollars
        )

    def bar(self, scale: Scale, corner: Point, height: float, name: str) -> None:
        """Draw a scale's colours upright, with numbers and label."""
        short = 0.08 * height
        axes = self.axes((corner[0], corner[1] + short), (BAR, height - 2 * short), name)
        shades = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
        bar = self.figure.colorbar(shades, cax=axes, extend=scale.extend)
        bar.locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
        bar.update_ticks()
        bar.set_label(scale.label, color=WHITE, fontsize=8)
        axes.set_axis_on()
        bar.outline.set_edgecolor(GREY)
        axes.tick_params(colors=WHITE, labelsize=7.5, length=2)

    def directions(self, corner: Point, height: float) -> None:
        """Say which colour is which direction."""
        for number, (pair, colour) in enumerate(PRIMARIES):
            at = (corner[0], corner[1] + height / 2 + (number - 1) * 0.2)
            self.write(at, pair, size=9, colour=colour, weight="bold")


VECTOR_DPI = 600
"""Of the pictures embedded in a PDF or SVG, so that voxels keep sharp edges in print."""

FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": DPI, "metadata": {"Software": "napari-msp"}},
    "pdf": {"dpi": VECTOR_DPI, "metadata": {"CreationDate": None, "Creator": "napari-msp"}},
    "svg": {"dpi": VECTOR_DPI, "metadata": {"Date": None, "Creator": "napari-msp"}},
}
"""How each is written; nothing in a file says when it was."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, to be searched and edited
    "svg.hashsalt": "napari-msp",  # else element names are drawn by lot
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
    """Refuse a name whose suffix is no format: before the work, not after.

    Raises
    ------
    UserError
        With the formats there are.
    """
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise UserError(
            "a figure is written as PNG, PDF or SVG",
            path,
            remedy=Advice("give a name that ends in .png, .pdf or .svg"),
        )
