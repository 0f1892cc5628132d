"""Figure 3 of the paper: truth and predictions, the input and the error maps beneath.

Two blocks, (a) the SH average and (b) colour-FA, each of two rows::

    | ground truth | prediction A | prediction B |
    | input scan   | MSE of A     | MSE of B     |

Images of a block share one contrast, error maps one scale. Without truth, the input scan stands in
its place and the second row shows the disagreement of a model's branches, where it is known.
"""

from pathlib import Path

from matplotlib.figure import Figure

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import resample
from napari_msp.errors import UserError
from napari_msp.evaluation.cells import Cell, Cells, cells
from napari_msp.evaluation.comparison import Comparison, MappedImage, line_up
from napari_msp.evaluation.panels import Block, Panel, draw_blocks, save
from napari_msp.evaluation.slices import Slice, choose_slice
from napari_msp.files import atomic_path
from napari_msp.signal.sh_image import SHImage

TITLES = {"SH average": "(a) SH average", "colour FA": "(b) colour-FA"}
"""Of the blocks, by quantity."""


def figure3(
    truth: SHImage | None,
    predictions: dict[str, SHImage],
    input_image: SHImage | None = None,
    *,
    axis: str = "axial",
    slice_index: int | None = None,
    disagreement: dict[str, FloatArray] | None = None,
) -> Figure:
    """Draw Figure 3.

    Parameters
    ----------
    truth
        The target scan, never resampled; None where there is none.
    predictions
        By name, in the order of their columns; brought onto truth's lattice.
    input_image
        The scan that was harmonised; shown voxel by voxel, not interpolated.
    axis
        "axial", "coronal" or "sagittal".
    slice_index
        In truth's closest-canonical order; None: the slice with the most brain near the middle.
    disagreement
        By name of a prediction, (X, Y, Z) on that prediction's own lattice, in SH units.

    Returns
    -------
    matplotlib.figure.Figure
        With an Agg canvas, known to no pyplot.

    Raises
    ------
    UserError
        When the images do not belong together, a b-value is unknown, or the slice has no brain.
    """
    comparison = line_up(truth, predictions)
    lattices = {name: image.lattice for name, image in predictions.items()}
    placed = {
        name: resample(values, lattices[name], comparison.lattice)
        for name, values in (disagreement or {}).items()
    }
    return draw_figure3(
        comparison,
        None if input_image is None else MappedImage(input_image),
        axis=axis,
        slice_index=slice_index,
        disagreement=placed,
    )


def draw_figure3(
    comparison: Comparison,
    input_image: MappedImage | None = None,
    *,
    axis: str = "axial",
    slice_index: int | None = None,
    disagreement: dict[str, FloatArray] | None = None,
) -> Figure:
    """Draw Figure 3 of images that are lined up already; see `figure3`.

    Parameters
    ----------
    disagreement
        By name of a prediction, (X, Y, Z) on the comparison's lattice.
    """
    view = choose_slice(comparison.mask, comparison.lattice, axis, slice_index)
    shown = [cells(comparison, each, input_image, disagreement) for each in TITLES]
    return draw_blocks([_block(each, view) for each in shown], view)


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically.

    Raises
    ------
    UserError
        When the name does not end in .png, or the folder cannot be written to.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: a figure is written as PNG; give a name that ends in .png")
    with atomic_path(path) as temporary:
        save(figure, temporary)


def _block(shown: Cells, view: Slice) -> Block:
    corner, *maps = shown.maps
    kinds = {cell.kind for cell in maps}
    judged = "squared error" if "error" in kinds else "disagreement"
    return Block(
        title=TITLES[shown.quantity],
        top=[_image(cell, shown, view) for cell in shown.images],
        corner=_image(corner, shown, view),
        maps=[_map(cell, view) for cell in maps],
        map_limit=shown.limit,
        map_title="MSE" if "error" in kinds else "disagreement",
        map_label=judged,
        map_unit=shown.map_unit,
        window=shown.window,
        image_unit=shown.unit,
        coloured=shown.coloured,
    )


def _image(cell: Cell, shown: Cells, view: Slice) -> Panel | None:
    if cell.kind == "none":
        return None
    return Panel(cell.name, shown.shades(view.cut(cell.values), view.cut(cell.shown)))


def _map(cell: Cell, view: Slice) -> Panel | None:
    if cell.mean is None:
        return None
    return Panel(cell.name, view.cut(cell.values), cell.mean)
