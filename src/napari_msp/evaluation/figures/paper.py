"""Figures 2 and 3 of the paper: a subject on each platform; truth, predictions and their errors.

Figure 3 has a block for each map, as in the paper (a) the SH average and (b) colour FA, each of
two rows::

    | ground truth | prediction A | prediction B |
    | input scan   | error of A   | error of B   |

Images of a block share one contrast, error maps one scale. Without truth the input scan takes its
place, and a last block shows the disagreement of a model's branches, if it is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_lowercase
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import Lattice, Nearest
from napari_msp.errors import Advice, Choose, UserError
from napari_msp.evaluation.figures.grid import (
    MAP_COLOURS,
    SIGNED_COLOURS,
    WINDOW,
    Cells,
    FigureCell,
    cells,
    differences,
)
from napari_msp.evaluation.figures.layout import Block, ColourScale, Panel, PictureRow, draw_blocks
from napari_msp.evaluation.figures.slices import PLANES, Slice, choose_slice
from napari_msp.evaluation.line_up import Comparison
from napari_msp.formatting import SH_MSE_EXPONENT, SQUARED_ERROR, power_of_ten
from napari_msp.options import several
from napari_msp.signal.maps import MAPS, SH_SERIES, Map, Maps, direction_average
from napari_msp.signal.sh_image import SHImage

SHOWN = ("sh_average", "colour_fa")
"""Maps of the paper's figure."""

DOUBTS = {"expected error": "expected error", "disagreement": "disagreement of branches"}

BAR_LABELS = {"MSE": "squared error"}
"""Names on the bar where a voxel's value has another name than the mean in the title."""

SIGNED = LinearSegmentedColormap.from_list("blue-orange", SIGNED_COLOURS)

LONGEST_TITLE = 26
"""Number of characters that fit into a line above a panel."""


def figure3(
    comparison: Comparison,
    input_image: Maps | None = None,
    *,
    maps: str | Iterable[str] = SHOWN,
    axis: str = "axial",
    slice_index: int | None = None,
    disagreement: Mapping[str, FloatArray] | None = None,
    expected_error: Mapping[str, FloatArray] | None = None,
    signed: bool = False,
    caption: str = "",
) -> Figure:
    """Draw Figure 3.

    Parameters
    ----------
    comparison
        Truth if there is one, and predictions in the order of their columns: the `comparison` of
        what `compare` returns, which draws this figure itself.
    input_image
        Scan that was harmonized; shown voxel by voxel, not interpolated.
    maps
        Keys of `MAPS`; each gets a block.
    axis
        "axial", "coronal" or "sagittal".
    slice_index
        Index in truth's closest-canonical order; None: the slice with the most brain near the
        middle.
    disagreement
        (X, Y, Z) on the comparison's lattice, in SH units, by name of a prediction.
    signed
        Show prediction minus truth instead of squared errors, except for maps in colours, which
        have no sign.
    caption
        Text in small print below.

    Returns
    -------
    matplotlib.figure.Figure
        Has an Agg canvas, and is unknown to pyplot.

    Raises
    ------
    UserError
        When a b-value is unknown, or the slice has no brain.
    """
    if not isinstance(comparison, Comparison):
        remedy = Advice("give compare(truth, predictions).comparison")
        raise UserError("needs a comparison", "figure3", remedy=remedy)
    view = choose_slice(comparison.mask, comparison.lattice, axis, slice_index)
    grids = [
        cells(comparison, each, input_image, disagreement, expected_error)
        for each in check_maps(maps)
    ]
    titled = [(_title(grid.map), _rows(grid, view, signed)) for grid in grids]
    # Doubts are of all coefficients, so they belong to no map and are shown once.
    for kind, title in DOUBTS.items():
        if any(cell.kind == kind for cell in grids[0].maps):
            titled.append((title, [_doubts(grids[0], kind, view)]))
    blocks = [
        Block(f"({letter}) {title}", rows)
        for letter, (title, rows) in zip(ascii_lowercase, titled, strict=False)
    ]
    return draw_blocks(blocks, view, caption)


def check_maps(maps: str | Iterable[str]) -> Sequence[str]:
    """Refuse unknown names of maps, before the work and not after it."""
    maps = several(maps)
    unknown = [name for name in maps if name not in MAPS]
    if unknown or not maps:
        problem = f"there is no {unknown[0]!r}" if unknown else "none was given"
        raise UserError(problem, field="maps", remedy=Choose("maps", tuple(MAPS)))
    return list(dict.fromkeys(maps))


def _rows(shown: Cells, view: Slice, signed: bool) -> list[PictureRow]:
    rows = [_images(shown, view)]
    if any(cell.kind == "error" for cell in shown.maps):
        rows.append(_errors(shown, view, signed=signed and not shown.coloured))
    return rows


def _images(shown: Cells, view: Slice) -> PictureRow:
    panels = [_image(cell, shown, view) for cell in shown.images]
    scale = None if shown.coloured else ColourScale(*shown.window, "gray", shown.unit, "both")
    return PictureRow("image", panels[_first_column(shown) :], scale)


def _errors(shown: Cells, view: Slice, *, signed: bool) -> PictureRow:
    power = _Power.of(shown)
    error = shown.map.error_title
    corner, *maps = shown.maps
    titles = [f"{error} {power.text(cell)}" for cell in maps]
    if signed:
        values, limit = differences(shown)
        scale = ColourScale(-limit, limit, SIGNED, f"minus truth\n({shown.unit})", "both")
        panels: list[Panel | None] = [
            Panel(cell.name, title, view.cut(values[cell.name]), scale)
            for cell, title in zip(maps, titles, strict=True)
        ]
    else:
        scale = power.scale(shown, BAR_LABELS.get(error, error), "error")
        panels = [
            _map(cell, title, scale, power, view) for cell, title in zip(maps, titles, strict=True)
        ]
    return PictureRow("map", [_image(corner, shown, view), *panels], scale)


def _doubts(shown: Cells, kind: str, view: Slice) -> PictureRow:
    power = _Power.of(shown)
    scale = power.scale(shown, kind, kind)
    panels: list[Panel | None] = [None]
    for cell in shown.maps[1:]:
        if cell.kind == "none":
            panels.append(Panel(cell.name, f"{_in_lines(cell.name)}\nno map", None))
        else:
            title = f"{_in_lines(cell.name)}\n{power.text(cell)}"
            panels.append(_map(cell, title, scale, power, view))
    return PictureRow("map", panels[_first_column(shown) :], scale)


def _first_column(shown: Cells) -> int:
    """Return the index of the first column that is not empty."""
    return int(shown.images[0].kind == "none")


def _image(cell: FigureCell, shown: Cells, view: Slice) -> Panel | None:
    if cell.kind == "none":
        return None
    shades = shown.shades(view.cut(cell.values), view.cut(cell.shown))
    return Panel(cell.name, _in_lines(cell.name), shades)


def _title(shown: Map) -> str:
    """Return a map's title with what tensors were fitted to, the same for all images and scans."""
    return f"{shown.title} ({SH_SERIES})" if shown.model == "tensor" else shown.title


def _map(cell: FigureCell, title: str, scale: ColourScale, power: "_Power", view: Slice) -> Panel:
    values = np.where(view.cut(cell.shown), view.cut(cell.values) / power.unit, np.nan)
    return Panel(cell.name, title, values, scale)


@dataclass(frozen=True)
class _Power:
    """The power of ten that titles, bar and maps share; squared errors have that of all tables."""

    exponent: int

    @classmethod
    def of(cls, shown: Cells) -> "_Power":
        if shown.map_unit == SQUARED_ERROR:
            return cls(SH_MSE_EXPONENT)
        largest = max(cell.mean for cell in shown.maps if cell.mean is not None)
        exponent = int(np.floor(np.log10(largest))) if largest > 0 else 0
        return cls(0 if -1 <= exponent <= 2 else exponent)

    @property
    def unit(self) -> float:
        return 10.0**self.exponent

    @cached_property
    def symbol(self) -> str:
        # Plain characters: in mathematical mode an SVG would contain each letter by itself.
        return power_of_ten(self.exponent)

    def text(self, cell: FigureCell) -> str:
        assert cell.mean is not None
        mean = cell.mean / self.unit
        decimals = 2 - int(np.floor(np.log10(mean))) if mean > 0 else 2
        return f"{mean:.{max(0, decimals)}f}" + (f" × {self.symbol}" if self.symbol else "")

    def scale(self, shown: Cells, what: str, kind: str) -> ColourScale:
        label = f"{what}\n({f'{self.symbol} ' if self.symbol else ''}{shown.map_unit})"
        colours = colormaps[MAP_COLOURS[kind]].with_extremes(bad="black")
        return ColourScale(0, shown.limit / self.unit, colours, label, "max")


def _in_lines(name: str) -> str:
    """Break a name into lines that fit above a panel."""
    return "\n".join(wrap(name, LONGEST_TITLE))


# --- Figure 2 --------------------------------------------------------------------------------

AVERAGE, AXIS = "Direction-averaged signal", "axial"

PIXELS = 4
"""Pixels along the smallest voxel's edge, so that each platform's own voxels are visible."""


def figure2(images: Mapping[str, SHImage]) -> Figure:
    """Draw one subject on each platform: one position, one contrast, each with its own voxels.

    Images are co-registered. The axial slice is the fullest of the first image, usually the input;
    the others are cut at the same position in mm.
    """
    slab = _slab(images)
    averages, masks = {}, {}
    for name, image in images.items():
        nearest = Nearest.between(image.lattice, slab)
        masks[name] = nearest.take(image.mask)
        averages[name] = np.where(masks[name], nearest.take(direction_average(image)), np.nan)
    view = choose_slice(np.any(list(masks.values()), axis=0), slab, AXIS, 0)
    low, high = np.nanpercentile(np.stack(list(averages.values())), WINDOW)
    panels: list[Panel | None] = [
        Panel(name, _named(name, images[name]), _shades(view, averages[name], low, high))
        for name in images
    ]
    scale = ColourScale(float(low), float(high), "gray", "mean S/S0", "both")
    return draw_blocks([Block(AVERAGE, [PictureRow("image", panels, scale)])], view)


def _slab(images: Mapping[str, SHImage]) -> Lattice:
    """Return a lattice one voxel thick, of fine pixels over one slice of the first image."""
    first = next(iter(images.values()))
    view = choose_slice(first.mask, first.lattice, AXIS)
    canonical = first.lattice.canonical
    smallest = min(float(image.lattice.voxel_sizes.min()) for image in images.values())
    parts = np.maximum(1, np.ceil(PIXELS * canonical.voxel_sizes / smallest - 1e-3)).astype(int)
    # A voxel is cut into whole pixels, whose outermost centres lie half a pixel inside its faces.
    start = (1 / parts - 1) / 2
    normal = PLANES[AXIS].normal
    parts[normal], start[normal] = 1, view.index
    to_voxels = np.diag([*(1 / parts), 1.0])
    to_voxels[:3, 3] = start
    shape = np.array(canonical.shape) * parts
    shape[normal] = 1
    return Lattice.of(shape, canonical.affine @ to_voxels)


def _shades(view: Slice, average: FloatArray, low: float, high: float) -> FloatArray:
    shades: FloatArray = np.clip((view.cut(average) - low) / (high - low), 0, 1)
    return np.nan_to_num(shades)


def _named(name: str, image: SHImage) -> str:
    sizes = dict.fromkeys(f"{size:.3g}" for size in image.lattice.canonical.voxel_sizes)
    return f"{name} · {' × '.join(sizes)} mm"
