"""The cells of one prediction, made ready outside the window's thread, in few bytes.

    | input        | prediction      | ground truth |
    | b=0 and mask | expected error  | error        |

The last column is there where any prediction of the folder has a truth. The mask's outline is
drawn on the voxels just outside of the mask, so that it hides no brain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.figures.grid import DOUBT_UNITS
from napari_msp.evaluation.line_up import map_onto
from napari_msp.formatting import rounded
from napari_msp.inference.review_maps import ReviewImage, ReviewMaps
from napari_msp.signal.maps import MAPS
from napari_msp.ui.layers import ERROR, LOOKS, MASK_COLOUR, LayerData, lattice_layer, window_of
from napari_msp.ui.viewer_axes import ORDERS, in_mm, to_shown

_MAPS = {"average": MAPS["sh_average"], "colour": MAPS["colour_fa"], "fa": MAPS["fa"]}

TITLES: Mapping[str, str] = {name: each.title for name, each in _MAPS.items()}
"""Titles in layers of the maps that can be looked at."""

UNITS: Mapping[str, str] = {
    **{each.title: each.unit for each in _MAPS.values()},
    **{f"{each.title} error": each.error_unit for each in _MAPS.values()},
    **DOUBT_UNITS,
}
"""Units by quantity."""

Role = Literal["scan", "prediction", "truth"]

ROLES: Mapping[Role, str] = {"scan": "input", "prediction": "prediction", "truth": "ground truth"}

ENOUGH = 6
"""Number of subjects whose contrast is that of all (our choice)."""

EVERY = 5
"""One in this many voxels is used for the contrast: quick, and no percentile moves visibly."""


def images_of(maps: ReviewMaps) -> dict[Role, ReviewImage]:
    """Return the images that are there, by their role."""
    known: dict[Role, ReviewImage | None] = {
        "truth": maps.truth,
        "scan": maps.scan,
        "prediction": maps.prediction,
    }
    return {role: image for role, image in known.items() if image is not None}


def values_of(image: ReviewImage, shown: str) -> FloatArray:
    """Return a map of `TITLES`, colours from 0 to 1."""
    if shown == "average":
        return image.average
    if shown == "colour":
        return image.colour / np.float32(255)
    squares = np.square(image.colour.astype(np.uint16)).sum(axis=-1, dtype=np.uint32)
    return np.asarray(np.sqrt(squares, dtype=np.float32) / 255)  # e₁ has length 1


def memory_of(maps: ReviewMaps) -> int:
    """Return the memory that maps take, in bytes."""
    arrays: list[NDArray[Any] | None] = [maps.uncertainty, maps.b0]
    for each in images_of(maps).values():
        arrays += [each.average, each.colour, each.mask]
    return sum(each.nbytes for each in arrays if each is not None)


def shell_words(maps: ReviewMaps) -> str:
    """Return text such as "b = 3000"; empty where there is one shell."""
    return f"b = {maps.shell}" if len(maps.shells) > 1 else ""


def error_of(maps: ReviewMaps, shown: str) -> tuple[FloatArray, MaskArray, ReviewImage] | None:
    """Return the squared error of a map on truth's lattice, where it counts, and truth.

    It counts inside both masks: where nothing was predicted there is no error. None where there is
    no truth.
    """
    truth, prediction = maps.truth, maps.prediction
    if truth is None:
        return None
    values, inside = values_of(prediction, shown), prediction.mask
    if not prediction.lattice.matches(truth.lattice):
        values, inside = map_onto(values, inside, prediction.lattice, truth.lattice)
    squares = np.square(values - values_of(truth, shown))
    error = squares.mean(axis=-1) if squares.ndim == 4 else squares
    return error, inside & truth.mask, truth


def worst_of(maps: ReviewMaps) -> Worst | None:
    """Return the voxel in the mask where the model is least sure, else where it errs most."""
    values, name = maps.uncertainty, str(maps.uncertainty_name)
    lattice, mask = maps.prediction.lattice, maps.prediction.mask
    if values is None:
        known = error_of(maps, "average")
        if known is None:
            return None
        (values, inside, truth), name = known, f"{TITLES['average']} error"
        lattice, mask = truth.lattice, inside & (truth.average != 0)
    if not mask.any():
        return None
    shown = to_shown(np.where(mask, values, -np.inf), lattice)
    index = np.unravel_index(int(shown.argmax()), shown.shape)
    z, y, x = in_mm(index, lattice)
    said = name if maps.uncertainty is not None else f"squared error of the {TITLES['average']}"
    return Worst((z, y, x), f"{said}: {rounded(shown[index], UNITS[name])} {UNITS[name]}")


@dataclass(frozen=True)
class Worst:
    """The place of the largest doubt.

    Attributes
    ----------
    place
        Place in mm along S, P and L, as the viewer counts.
    words
        Quantity and value there, with its unit.
    """

    place: tuple[float, float, float]
    words: str


Limits = tuple[float, float]


@dataclass(eq=False)
class Contrast:
    """One contrast for all predictions: the median of those that the first few have for themselves.

    Attributes
    ----------
    found
        Limits that each entry has for itself, by entry and by quantity.
    enough
        Number of predictions after which the contrast no longer changes.
    """

    enough: int = ENOUGH
    found: dict[str, Mapping[str, Limits]] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether the contrast no longer changes."""
        return len(self.found) >= self.enough

    def take(self, key: str, own: Mapping[str, Limits]) -> bool:
        """Add one prediction's limits; return whether the contrast changes."""
        if self.settled or key in self.found:
            return False
        self.found[key] = own
        return True

    def limits(self, what: str) -> Limits:
        """Return the values of a quantity that are black and white."""
        known = [each[what] for each in self.found.values() if what in each]
        if not known:
            return 0.0, 1.0
        low, high = (float(each) for each in np.median(np.array(known), axis=0))
        return (low, high) if high > low else (low, low + 1.0)

    @property
    def gain(self) -> float:
        """Factor by which colours are multiplied."""
        return round(1 / max(self.limits("colour FA")[1], 0.05), 3)


def own_limits(maps: ReviewMaps) -> dict[str, Limits]:
    """Return the limits that a prediction would have for itself, by quantity."""
    found: dict[str, Limits] = {}
    # Truth's, else the input's: a prediction that went wrong sets no contrast.
    first = next(iter(images_of(maps).values()))
    inside = np.flatnonzero(first.mask)[::EVERY]
    if not len(inside):
        return found
    fa = np.linalg.norm(first.colour.reshape(-1, 3)[inside].astype(np.float32), axis=-1) / 255
    found["SH average"] = window_of(first.average.ravel()[inside], (1, 99))
    found["FA"] = (0.0, float(np.percentile(fa, 99)))
    found["colour FA"] = (0.0, float(np.percentile(fa, 98)))
    if maps.uncertainty is not None:
        doubt = maps.uncertainty[maps.prediction.mask][::EVERY]
        found[str(maps.uncertainty_name)] = (0.0, float(np.percentile(doubt, 99)))
    for shown, title in TITLES.items():
        if (known := error_of(maps, shown)) is not None and known[1].any():
            error, mask, _ = known
            found[f"{title} error"] = (0.0, float(np.percentile(error[mask][::EVERY], 99)))
    return found


@dataclass(frozen=True)
class ReviewLook:
    """Settings of how predictions are looked at.

    Attributes
    ----------
    shown
        Map to show, a key of `TITLES`.
    plane
        Plane in which the outline is drawn.
    outline
        Whether the outline is drawn.
    gain
        Factor of colours.
    shell
        Shell of predictions that have several; None: the first.
    """

    shown: str = "average"
    plane: str = "axial"
    outline: bool = True
    gain: float = 1.0
    shell: int | None = None


@dataclass(frozen=True, eq=False)
class CellPicture:
    """One cell, without its name and contrast.

    Attributes
    ----------
    role
        Role of the image, or "doubt", "error", "b0".
    quantity
        Quantity that is shown; it determines the contrast, too.
    data
        Data of the layer.
    missing
        Reason why the image is missing; else empty.
    """

    role: str
    quantity: str
    data: LayerData
    missing: str = ""


@dataclass(frozen=True, eq=False)
class Pictures:
    """All cells of one prediction in one look, ready for the window.

    Attributes
    ----------
    maps, look
        Maps that they show, and how.
    cells
        Cells in reading order.
    columns
        Number of cells in each row.
    """

    maps: ReviewMaps
    look: ReviewLook
    cells: Sequence[CellPicture]
    columns: int

    @property
    def bytes(self) -> int:
        """Memory in bytes, not counting arrays shared with the maps."""
        return sum(int(each.data[0].nbytes) for each in self.cells)


def draw(maps: ReviewMaps, look: ReviewLook, *, truths: bool) -> Pictures:
    """Make all cells ready; takes a tenth of a second for a whole head, in any thread.

    Parameters
    ----------
    maps
        Maps of the prediction.
    look
        Settings of how they are looked at.
    truths
        Whether there is a column for truth.
    """
    roles: list[Role] = ["scan", "prediction", *(("truth",) if truths else ())]
    above = [_image(maps, role, look) for role in roles]
    below = [_b0(maps, look), _doubt(maps)]
    if truths:
        below.append(_error(maps, look))
    return Pictures(maps, look, [*above, *below], len(above))


def _image(maps: ReviewMaps, role: Role, look: ReviewLook) -> CellPicture:
    quantity = TITLES[look.shown]
    image = images_of(maps).get(role)
    if image is None:
        return _nothing(maps, role, quantity, f"no {ROLES[role]}", look)
    ring = _ring(maps, image, look)
    if look.shown == "colour":
        colours = _brighter(look.gain)[image.colour]
        if ring is not None:
            colours[ring] = np.rint(255 * np.array(MASK_COLOUR[:3])).astype(np.uint8)
        data = _coloured(colours, image, quantity)
        return CellPicture(role, quantity, data)
    return CellPicture(role, quantity, _grey(values_of(image, look.shown), image, quantity, ring))


def _b0(maps: ReviewMaps, look: ReviewLook) -> CellPicture:
    scan = maps.scan
    if maps.b0 is None or scan is None:
        return _nothing(maps, "b0", "b0", "no b=0 image", look, grey=True)
    limits = window_of(maps.b0[scan.mask][::EVERY], (0, 99)) if scan.mask.any() else None
    ring = _ring(maps, scan, look)
    data = _grey(maps.b0, scan, "b0", ring)
    if limits is not None:
        data[1]["contrast_limits"] = (0.0, max(limits[1], 1e-6))
    return CellPicture("b0", "b0", data)


def _doubt(maps: ReviewMaps) -> CellPicture:
    named = maps.uncertainty_name or "expected error"
    values = maps.uncertainty
    missing = "" if values is not None else "the model does not say how sure it is"
    lattice, mask = maps.prediction.lattice, maps.prediction.mask
    inside = np.full(mask.shape, np.nan, dtype=np.float32)
    if values is not None:
        np.copyto(inside, values, where=mask)
    colormap = LOOKS[named][0]
    data = lattice_layer("", named, inside, lattice, mask, limits=(0, 1), colormap=colormap)
    return CellPicture("doubt", named, data, missing)


def _error(maps: ReviewMaps, look: ReviewLook) -> CellPicture:
    quantity = f"{TITLES[look.shown]} error"
    known = error_of(maps, look.shown)
    image = maps.prediction if known is None else known[2]
    values = np.full(image.mask.shape, np.nan, dtype=np.float32)
    if known is not None:
        np.copyto(values, known[0], where=known[1])
    data = lattice_layer(
        "", quantity, values, image.lattice, image.mask, limits=(0, 1), colormap=ERROR[0]
    )
    return CellPicture(
        "error", quantity, data, "" if known is not None else "no error without truth"
    )


def _nothing(
    maps: ReviewMaps, role: str, quantity: str, why: str, look: ReviewLook, *, grey: bool = False
) -> CellPicture:
    """Return an empty cell of the kind that other predictions have there."""
    image = maps.prediction
    if look.shown == "colour" and not grey:
        black = np.zeros((*image.mask.shape, 3), dtype=np.uint8)
        return CellPicture(role, quantity, _coloured(black, image, quantity), why)
    values = np.zeros(image.mask.shape, dtype=np.float32)
    return CellPicture(role, quantity, _grey(values, image, quantity, None), why)


def _coloured(colours: NDArray[np.uint8], image: ReviewImage, quantity: str) -> LayerData:
    return lattice_layer(
        "", quantity, colours, image.lattice, image.mask, contrast_limits=(0.0, 255.0)
    )


def _grey(
    values: FloatArray, image: ReviewImage, quantity: str, ring: MaskArray | None
) -> LayerData:
    """Return a grey layer with the outline where values are NaN."""
    if ring is not None:
        values = np.array(values, dtype=np.float32)
        values[ring] = np.nan
    return lattice_layer(
        "", quantity, values, image.lattice, image.mask, limits=(0, 1), colormap=outlined_grey()
    )


@cache
def outlined_grey() -> Any:
    """Return a grey colormap with the mask's colour for NaN."""
    from napari.utils.colormaps import Colormap

    ends = [(0.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0)]
    return Colormap(ends, name="grey with outline", nan_color=MASK_COLOUR)


@cache
def _brighter(gain: float) -> NDArray[np.uint8]:
    """Return the brightened values of a colour's 256 shades, (256,)."""
    shades: NDArray[np.uint8] = np.clip(np.rint(gain * np.arange(256)), 0, 255).astype(np.uint8)
    return shades


def _ring(maps: ReviewMaps, image: ReviewImage, look: ReviewLook) -> MaskArray | None:
    """Return the voxels just outside a mask, (X, Y, Z), in the plane that is looked at.

    For a truth on the prediction's lattice, the prediction's mask is drawn: it shows whether a head
    lies elsewhere.
    """
    if not look.outline:
        return None
    there = maps.prediction
    same = there.mask.shape == image.mask.shape and there.lattice.matches(image.lattice)
    mask = there.mask if same else image.mask
    normal = _normal(image.lattice, look.plane)
    return outline(mask, normal)


def outline(mask: MaskArray, normal: int) -> MaskArray:
    """Return the voxels outside a mask that touch it within slices across an axis.

    >>> outline(np.array([[[0, 0, 1, 0]]], dtype=bool), 0).astype(int).tolist()
    [[[0, 1, 0, 1]]]
    """
    grown = mask.copy()
    for axis in {0, 1, 2} - {normal}:
        low = tuple(slice(None, -1) if each == axis else slice(None) for each in range(3))
        high = tuple(slice(1, None) if each == axis else slice(None) for each in range(3))
        grown[low] |= mask[high]
        grown[high] |= mask[low]
    ring: MaskArray = grown & ~mask
    return ring


def _normal(lattice: Lattice, plane: str) -> int:
    """Return the stored axis across which a plane cuts."""
    canonical = 2 - ORDERS[plane][0]  # S, P, L as z, y, x
    from nibabel.orientations import io_orientation

    return int(np.flatnonzero(io_orientation(lattice.affine)[:, 0] == canonical)[0])
