"""Figure 3 of the paper: truth and predictions, the input and the error maps beneath.

Two blocks, (a) the SH average and (b) colour-FA, each of two rows::

    | ground truth | prediction A | prediction B |
    | input scan   | MSE of A     | MSE of B     |

Images of a block share one contrast, error maps one scale. Without truth, the input scan stands in
its place and the second row shows the disagreement of a model's branches, where it is known.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from napari_msp.arrays import AnyArray, FloatArray, IntArray, MaskArray
from napari_msp.data.lattice import Lattice, resample, voxel_coordinates
from napari_msp.errors import UserError
from napari_msp.evaluation.comparison import Comparison, MappedImage, line_up
from napari_msp.evaluation.panels import Block, Panel, draw_blocks, save
from napari_msp.evaluation.slices import Slice, choose_slice
from napari_msp.files import atomic_path
from napari_msp.signal.maps import squared_error
from napari_msp.signal.sh_image import SHImage

WINDOW = (1.0, 99.0)
"""In-mask percentiles of truth that become black and white (our choice)."""

ERROR_PERCENTILE = 99.0
"""In-mask percentile of all error maps together at which their scale ends (our choice)."""

COLOUR_GAIN_PERCENTILE = 98.0
"""In-mask percentile of truth's FA that is shown at full brightness (our choice)."""


@dataclass(frozen=True)
class _Map:
    """One of the two maps of the figure."""

    title: str
    image_unit: str
    error_unit: str
    attribute: str
    coloured: bool

    def of(self, image: MappedImage) -> FloatArray:
        values: FloatArray = getattr(image, self.attribute)
        return values


_MAPS = (
    _Map("(a) SH average", "SH units", "SH units²", "sh_average", False),
    _Map("(b) colour-FA", "FA", "FA²", "colour_fa", True),
)


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
    blocks = [_block(part, comparison, input_image, view, disagreement or {}) for part in _MAPS]
    return draw_blocks(blocks, view)


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


def _block(
    part: _Map,
    comparison: Comparison,
    input_image: MappedImage | None,
    view: Slice,
    disagreement: dict[str, FloatArray],
) -> Block:
    mask, truth = comparison.mask, comparison.truth
    reference = truth or next(iter(comparison.predictions.values()))
    low, high = _window(part.of(reference)[reference.image.mask], part.coloured)

    def panel(name: str, values: FloatArray, shown: MaskArray) -> Panel:
        image = (view.cut(values) - low) / (high - low)
        inside = view.cut(shown)
        return Panel(name, np.where(inside[..., None] if part.coloured else inside, image, 0))

    source = None
    if input_image is not None:
        nearest = _Nearest.between(input_image.image.lattice, comparison.lattice)
        source = panel(
            "input scan",
            nearest.take(part.of(input_image)),
            nearest.take(input_image.image.mask),
        )
    first = source
    if truth is not None:
        first = panel("ground truth", part.of(truth), truth.image.mask)
    images = [
        panel(name, part.of(prediction), prediction.image.mask)
        for name, prediction in comparison.predictions.items()
    ]
    if truth is not None:
        maps = {
            name: squared_error(part.of(prediction), part.of(truth), mask)
            for name, prediction in comparison.predictions.items()
        }
        what, label, unit = "MSE", "squared error", part.error_unit
    else:
        maps = {
            name: np.where(mask, disagreement[name], 0)
            for name in comparison.predictions
            if name in disagreement
        }
        what, label, unit = "disagreement", "disagreement", "SH units"
    return Block(
        title=part.title,
        top=[first, *images],
        corner=source if truth is not None else None,
        maps=[
            Panel(name, view.cut(maps[name]), float(maps[name][mask].mean(dtype=float)))
            if name in maps
            else None
            for name in comparison.predictions
        ],
        map_limit=_map_limit(list(maps.values()), mask),
        map_title=what,
        map_label=label,
        map_unit=unit,
        window=(low, high),
        image_unit=part.image_unit,
        coloured=part.coloured,
    )


def _window(values: FloatArray, coloured: bool) -> tuple[float, float]:
    """Give the values that become black and white."""
    if coloured:
        # Black must stay FA = 0, or the hue of weak voxels would change.
        fa = np.linalg.norm(values, axis=-1)
        low, high = 0.0, float(np.percentile(fa, COLOUR_GAIN_PERCENTILE))
    else:
        low, high = (float(limit) for limit in np.percentile(values, WINDOW))
    return low, high if high > low else low + 1.0


def _map_limit(maps: list[FloatArray], mask: MaskArray) -> float:
    """Give the one upper end of all maps' scales."""
    if not maps:
        return 1.0
    limit = float(np.percentile([values[mask] for values in maps], ERROR_PERCENTILE))
    return limit if limit > 0 else 1.0


@dataclass(frozen=True)
class _Nearest:
    """For every voxel of one lattice the nearest voxel of another.

    Attributes
    ----------
    indices
        (3, X, Y, Z) voxel indices, kept inside the source.
    inside
        (X, Y, Z) whether the source reaches there.
    """

    indices: IntArray
    inside: MaskArray

    @classmethod
    def between(cls, source: Lattice, target: Lattice) -> "_Nearest":
        points = np.round(voxel_coordinates(source, target)).astype(int)
        last = np.array(source.shape).reshape(3, 1, 1, 1) - 1
        kept = np.clip(points, 0, last)
        return cls(kept, np.asarray((kept == points).all(axis=0)))

    def take(self, values: AnyArray) -> AnyArray:
        """Give (X, Y, Z) or (X, Y, Z, C) values of the source on the target; 0 beyond it."""
        x, y, z = self.indices
        taken: AnyArray = values[x, y, z]
        taken[~self.inside] = 0
        return taken
