"""Contents of Figure 3's cells: whole volumes, and the contrast and scale that they share.

Two rows for one map of `MAPS`, such as the SH average::

    | ground truth | prediction A | prediction B |
    | input scan   | error of A   | error of B   |

Without truth the input scan takes its place, and the second row shows the expected error or the
disagreement of a model's branches, where they are known. Both the figure on paper and the viewer
use these.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice, Nearest
from napari_msp.evaluation.line_up import Comparison
from napari_msp.signal.maps import DISAGREEMENT_COLOURS, ERROR_COLOURS, MAPS, Map, Maps

WINDOW = (1.0, 99.0)
"""In-mask percentiles of truth that become black and white (our choice)."""

ERROR_PERCENTILE = 99.0
"""In-mask percentile of all error maps together at which their scale ends (our choice)."""

COLOUR_GAIN_PERCENTILE = 98.0
"""In-mask percentile of truth's FA (of vectors: length) shown at full brightness (our choice)."""

SIGNED_COLOURS = ((0.34, 0.71, 0.91, 1.0), (0.0, 0.0, 0.0, 1.0), (0.9, 0.6, 0.0, 1.0))
"""Colours below, at and above 0, distinct for the colour-blind too (Okabe 2008)."""

GROUND_TRUTH, INPUT_SCAN = "ground truth", "input scan"

Kind = Literal["image", "error", "disagreement", "expected error", "none"]


EXPECTED: Kind = "expected error"
DISAGREEMENT: Kind = "disagreement"

DOUBT_UNITS: Mapping[str, str] = {EXPECTED: "SH units²", DISAGREEMENT: "SH units"}
"""Units of the maps shown where there is no truth."""

MAP_COLOURS: Mapping[str, str] = {
    "error": ERROR_COLOURS,
    EXPECTED: ERROR_COLOURS,
    DISAGREEMENT: DISAGREEMENT_COLOURS,
}
"""Colour maps of errors and doubts."""


@dataclass(frozen=True, eq=False)
class FigureCell:
    """One cell of the figure.

    Attributes
    ----------
    name
        "ground truth", "input scan", or the prediction that is shown or judged.
    kind
        Kind of the values; "none" for an empty cell.
    values
        (X, Y, Z), or (X, Y, Z, 3) for an image in colour, in the stored order of the lattice;
        0 outside `shown`. An image's are in `Cells.unit`, a map's in `Cells.map_unit`.
    shown
        (X, Y, Z) mask of the brain; for an error or a disagreement, of the voxels that count.
    mean
        Mean of an error or a disagreement over `shown`; the error's is the global MSE.
    """

    name: str
    kind: Kind
    values: FloatArray
    shown: MaskArray
    mean: float | None = None


@dataclass(frozen=True, eq=False)
class Cells:
    """Both rows, each with one cell more than there are predictions.

    Attributes
    ----------
    lattice
        Lattice of all cells.
    images
        First row: ground truth (else input scan), then the predictions.
    maps
        Second row: input scan (if truth stands above it), then for each prediction an error, or
        without truth the expected error or a disagreement.
    window
        Values that become black and white in all images. For colours: 0 and full brightness.
    limit
        End of the scale that all maps share; it begins at 0.
    """

    map: Map
    lattice: Lattice
    images: list[FigureCell]
    maps: list[FigureCell]
    window: tuple[float, float]
    limit: float
    unit: str
    map_unit: str

    @property
    def coloured(self) -> bool:
        """Whether images are in colour."""
        return self.map.coloured

    def shades(self, values: FloatArray, shown: MaskArray) -> FloatArray:
        """Return an image or a slice of it from 0 (black, also outside `shown`) to 1 (white)."""
        black, white = self.window
        where = shown[..., None] if self.coloured else shown
        return np.asarray(np.where(where, np.clip((values - black) / (white - black), 0, 1), 0))


def cells(
    comparison: Comparison,
    quantity: str,
    input_image: Maps | None = None,
    disagreement: Mapping[str, FloatArray] | None = None,
    expected_error: Mapping[str, FloatArray] | None = None,
) -> Cells:
    """Return the contents of the cells.

    An image's maps are computed only once, so further cells of the same comparison cost little.

    Parameters
    ----------
    quantity
        A key of `MAPS`.
    input_image
        Scan that was harmonized, on its own lattice; it is not interpolated: each voxel of the
        comparison's lattice takes the nearest one.
    disagreement
        (X, Y, Z) in SH units on the comparison's lattice, by name of a prediction; used only
        without truth.
    expected_error
        The same in SH units², from calibrated models; see `doubt_shown`.
    """
    chosen = MAPS[quantity]
    mask, truth = comparison.mask, comparison.truth
    nothing = FigureCell("", "none", np.zeros(mask.shape, dtype=np.float32), np.zeros_like(mask))
    true = None if truth is None else truth[quantity]
    predicted = {name: maps[quantity] for name, maps in comparison.predictions.items()}

    def image(name: str, values: FloatArray, maps: Maps) -> FigureCell:
        return _cell(name, "image", chosen.shown(values), maps.image.mask)

    source = nothing
    if input_image is not None:
        nearest = Nearest.between(input_image.image.lattice, comparison.lattice)
        seen = nearest.take(input_image.image.mask)
        source = _cell(INPUT_SCAN, "image", nearest.take(chosen.shown(input_image[quantity])), seen)
    doubt = doubt_shown(predicted, disagreement or {}, expected_error or {})
    known = (expected_error if doubt == EXPECTED else disagreement) or {}
    maps: list[FigureCell] = []
    for name, values in predicted.items():
        if true is not None:
            error = chosen.error(values, true, mask)
            maps.append(_measured(name, "error", error, mask))
        elif name in known:
            maps.append(_measured(name, doubt, known[name], mask))
        else:
            maps.append(FigureCell(name, "none", nothing.values, nothing.shown))
    images = [image(name, predicted[name], each) for name, each in comparison.predictions.items()]
    if truth is None or true is None:
        first, reference = source, next(iter(predicted.values()))
    else:
        first, reference = image(GROUND_TRUTH, true, truth), true
    return Cells(
        chosen,
        comparison.lattice,
        images=[first, *images],
        maps=[nothing if truth is None else source, *maps],
        window=_window(reference[comparison.reference.mask], chosen.coloured),
        limit=_limit(maps),
        unit=chosen.unit,
        map_unit=chosen.error_unit if truth is not None else DOUBT_UNITS[doubt],
    )


def differences(shown: Cells) -> tuple[dict[str, FloatArray], float]:
    """Return prediction minus truth by prediction, and the limit of their symmetric scale.

    Parameters
    ----------
    shown
        Cells with errors; not in colours, which have no sign.
    """
    truth, *images = shown.images
    found = {
        image.name: np.where(error.shown, image.values - truth.values, 0)
        for image, error in zip(images, shown.maps[1:], strict=True)
    }
    sizes = [np.abs(found[error.name][error.shown]) for error in shown.maps[1:]]
    return found, float(np.percentile(sizes, ERROR_PERCENTILE)) or 1.0


def doubt_shown(
    predictions: Collection[str], disagreement: Collection[str], expected_error: Collection[str]
) -> Kind:
    """Return the kind of map below predictions without truth: only one, as all share a scale.

    It is the expected error, unless disagreement is known of more of the predictions, so that no
    cell is left empty for it.
    """
    spread, calibrated = (
        sum(name in known for name in predictions) for known in (disagreement, expected_error)
    )
    return EXPECTED if calibrated and calibrated >= spread else DISAGREEMENT


def _cell(name: str, kind: Kind, values: FloatArray, shown: MaskArray) -> FigureCell:
    where = shown[..., None] if values.ndim == 4 else shown
    return FigureCell(name, kind, np.where(where, values, 0), shown)


def _measured(name: str, kind: Kind, values: FloatArray, mask: MaskArray) -> FigureCell:
    cell = _cell(name, kind, values, mask)
    return FigureCell(name, kind, cell.values, mask, float(values[mask].mean(dtype=float)))


def _window(values: FloatArray, coloured: bool) -> tuple[float, float]:
    """Return the values that become black and white."""
    if coloured:
        # Black must stay FA = 0, or the hue of weak voxels would change.
        fa = np.linalg.norm(values, axis=-1)
        low, high = 0.0, float(np.percentile(fa, COLOUR_GAIN_PERCENTILE))
    else:
        low, high = (float(limit) for limit in np.percentile(values, WINDOW))
    return low, high if high > low else low + 1.0


def _limit(maps: list[FigureCell]) -> float:
    """Return the upper end of the scale that all maps share."""
    judged = [cell.values[cell.shown] for cell in maps if cell.kind != "none"]
    limit = float(np.percentile(judged, ERROR_PERCENTILE)) if judged else 0.0
    return limit if limit > 0 else 1.0
