"""What the cells of Figure 3 contain: whole volumes, and the contrast and scale that they share.

Two rows for one map of `MAPS`, such as the SH average::

    | ground truth | prediction A | prediction B |
    | input scan   | error of A   | error of B   |

Without truth the input scan stands in its place, and the second row has the error to expect, or
the disagreement of a model's branches, where it is known. The figure on paper and the viewer both
take theirs from here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice, Nearest
from napari_msp.evaluation.line_up import Comparison
from napari_msp.signal.maps import MAPS, Map, Maps

WINDOW = (1.0, 99.0)
"""In-mask percentiles of truth that become black and white (our choice)."""

ERROR_PERCENTILE = 99.0
"""In-mask percentile of all error maps together at which their scale ends (our choice)."""

COLOUR_GAIN_PERCENTILE = 98.0
"""In-mask percentile of truth's FA (or length, of vectors) that is shown at full brightness (our
choice)."""

SIGNED_COLOURS = ((0.34, 0.71, 0.91, 1.0), (0.0, 0.0, 0.0, 1.0), (0.9, 0.6, 0.0, 1.0))
"""Below, at and above 0: told apart by the colour-blind, too (Okabe 2008)."""

GROUND_TRUTH, INPUT_SCAN = "ground truth", "input scan"

Kind = Literal["image", "error", "disagreement", "expected error", "none"]


EXPECTED: Kind = "expected error"
DISAGREEMENT: Kind = "disagreement"

DOUBT_UNITS: Mapping[str, str] = {EXPECTED: "SH units²", DISAGREEMENT: "SH units"}
"""Of what is shown where there is no truth."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell.

    Attributes
    ----------
    name
        "ground truth", "input scan", or the prediction that is shown or judged.
    kind
        "none" where there is nothing to show.
    values
        (X, Y, Z), or (X, Y, Z, 3) for an image in colour, in the stored order of the lattice;
        0 where `shown` is not. An image's are in `Cells.unit`, a map's in `Cells.map_unit`.
    shown
        (X, Y, Z) where there is brain; for an error or a disagreement, where it counts.
    mean
        Of an error or a disagreement over `shown`: the error's is the global MSE.
    """

    name: str
    kind: Kind
    values: FloatArray
    shown: MaskArray
    mean: float | None = None


@dataclass(frozen=True, eq=False)
class Cells:
    """Both rows, with as many cells in each: one, and one for each prediction.

    Attributes
    ----------
    lattice
        Where the voxels of all cells lie.
    images
        First row: ground truth (else input scan), then the predictions.
    maps
        Second row: input scan (where truth stands above it), then for each prediction an error,
        or without truth the error to expect or a disagreement.
    window
        Values that become black and white in all images. Colours: 0, and that of full brightness.
    limit
        Where the one scale of all maps ends; it begins at 0.
    """

    map: Map
    lattice: Lattice
    images: list[Cell]
    maps: list[Cell]
    window: tuple[float, float]
    limit: float
    unit: str
    map_unit: str

    @property
    def coloured(self) -> bool:
        """Whether images are in colour."""
        return self.map.coloured

    def shades(self, values: FloatArray, shown: MaskArray) -> FloatArray:
        """Give an image, or a slice of it, from 0 (black, as where `shown` is not) to 1 (white)."""
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
    """Give what the cells contain.

    Maps of an image are computed once, so other cells of the same comparison cost little.

    Parameters
    ----------
    quantity
        A key of `MAPS`.
    input_image
        The scan that was harmonized, on its own lattice; it keeps its own voxels, each cell of the
        comparison's lattice takes the nearest.
    disagreement
        By name of a prediction, (X, Y, Z) in SH units on the comparison's lattice; of use where
        there is no truth.
    expected_error
        The same in SH units², of calibrated models; see `doubt_shown`.
    """
    chosen = MAPS[quantity]
    mask, truth = comparison.mask, comparison.truth
    nothing = Cell("", "none", np.zeros(mask.shape, dtype=np.float32), np.zeros_like(mask))
    true = None if truth is None else truth[quantity]
    predicted = {name: maps[quantity] for name, maps in comparison.predictions.items()}

    def image(name: str, values: FloatArray, maps: Maps) -> Cell:
        return _cell(name, "image", chosen.shown(values), maps.image.mask)

    source = nothing
    if input_image is not None:
        nearest = Nearest.between(input_image.image.lattice, comparison.lattice)
        seen = nearest.take(input_image.image.mask)
        source = _cell(INPUT_SCAN, "image", nearest.take(chosen.shown(input_image[quantity])), seen)
    doubt = doubt_shown(predicted, disagreement or {}, expected_error or {})
    known = (expected_error if doubt == EXPECTED else disagreement) or {}
    maps: list[Cell] = []
    for name, values in predicted.items():
        if true is not None:
            error = chosen.error(values, true, mask)
            maps.append(_measured(name, "error", error, mask))
        elif name in known:
            maps.append(_measured(name, doubt, known[name], mask))
        else:
            maps.append(Cell(name, "none", nothing.values, nothing.shown))
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
    """Give prediction minus truth by prediction, and where the one scale of all ends, as it begins.

    Parameters
    ----------
    shown
        With errors; not in colours, which have no sign.
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
    """Tell what stands below predictions where there is no truth: one kind, as it has one scale.

    The expected error, unless disagreement is known of more of those that are shown, by name: no
    cell is emptied for it.
    """
    spread, calibrated = (
        sum(name in known for name in predictions) for known in (disagreement, expected_error)
    )
    return EXPECTED if calibrated and calibrated >= spread else DISAGREEMENT


def _cell(name: str, kind: Kind, values: FloatArray, shown: MaskArray) -> Cell:
    where = shown[..., None] if values.ndim == 4 else shown
    return Cell(name, kind, np.where(where, values, 0), shown)


def _measured(name: str, kind: Kind, values: FloatArray, mask: MaskArray) -> Cell:
    cell = _cell(name, kind, values, mask)
    return Cell(name, kind, cell.values, mask, float(values[mask].mean(dtype=float)))


def _window(values: FloatArray, coloured: bool) -> tuple[float, float]:
    """Give the values that become black and white."""
    if coloured:
        # Black must stay FA = 0, or the hue of weak voxels would change.
        fa = np.linalg.norm(values, axis=-1)
        low, high = 0.0, float(np.percentile(fa, COLOUR_GAIN_PERCENTILE))
    else:
        low, high = (float(limit) for limit in np.percentile(values, WINDOW))
    return low, high if high > low else low + 1.0


def _limit(maps: list[Cell]) -> float:
    """Give the one upper end of all maps' scales."""
    judged = [cell.values[cell.shown] for cell in maps if cell.kind != "none"]
    limit = float(np.percentile(judged, ERROR_PERCENTILE)) if judged else 0.0
    return limit if limit > 0 else 1.0
