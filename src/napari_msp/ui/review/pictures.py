"""What the canvas shows of one prediction, made ready apart from the window, in few bytes.

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
from napari_msp.data.lattice import Lattice, resample, resample_mask
from napari_msp.inference.review_maps import ReviewImage, ReviewMaps
from napari_msp.ui.layers import ERROR, LOOKS, MASK_COLOUR, LayerData, lattice_layer, window_of
from napari_msp.ui.viewer_axes import ORDERS, in_mm, to_shown

MAPS: Mapping[str, str] = {"average": "SH average", "colour": "colour FA", "fa": "FA"}
"""What is looked at, by the names of `ReviewImage`, and as layers call it."""

Role = Literal["scan", "prediction", "truth"]

ROLES: Mapping[Role, str] = {"scan": "input", "prediction": "prediction", "truth": "ground truth"}

ENOUGH = 6
"""Subjects whose contrast is that of all (our choice)."""

EVERY = 5
"""Voxels of which one is looked at for the contrast: quick, and no percentile moves visibly."""


@dataclass(frozen=True, eq=False)
class Image:
    """What is kept of one image.

    Attributes
    ----------
    average
        (X, Y, Z) float32.
    colour
        (X, Y, Z, 3) uint8: 255 is FA 1, as review maps round it.
    mask, lattice
        Where there is brain, and where voxels lie.
    """

    average: FloatArray
    colour: NDArray[np.uint8]
    mask: MaskArray
    lattice: Lattice

    @classmethod
    def of(cls, image: ReviewImage) -> Image:
        """Take what is kept from review maps."""
        x, y, z = image.mask.shape
        colour = np.rint(255 * np.clip(image.colour_fa, 0, 1)).astype(np.uint8)
        return cls(image.average, colour, image.mask, Lattice((x, y, z), image.affine))

    @property
    def fa(self) -> FloatArray:
        """(X, Y, Z) float32: e₁ has length 1."""
        squares = np.square(self.colour.astype(np.uint16)).sum(axis=-1, dtype=np.uint32)
        return np.asarray(np.sqrt(squares, dtype=np.float32) / 255)

    def values(self, shown: str) -> FloatArray:
        """Give a map of `MAPS`, colours from 0 to 1."""
        if shown == "colour":
            return np.asarray(self.colour, dtype=np.float32) / 255
        return self.fa if shown == "fa" else self.average

    @property
    def bytes(self) -> int:
        """Memory that it takes, in bytes."""
        return int(self.average.nbytes + self.colour.nbytes + self.mask.nbytes)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is kept of one prediction while it may be looked at.

    Attributes
    ----------
    images
        By role; those that are there.
    uncertainty, uncertainty_name
        On the prediction's lattice; None where there is none.
    b0
        On the scan's lattice; None where there is none.
    notes
        Why something is missing.
    shell, shells
        Which shell it is of, and all that the prediction has; None and (None,) where there is one.
    """

    images: Mapping[Role, Image]
    uncertainty: FloatArray | None
    uncertainty_name: str
    b0: FloatArray | None
    notes: tuple[str, ...]
    shell: int | None = None
    shells: tuple[int | None, ...] = (None,)

    @classmethod
    def of(cls, maps: ReviewMaps) -> Subject:
        """Take what is kept from review maps."""
        given: dict[Role, ReviewImage | None] = {
            "scan": maps.scan,
            "prediction": maps.prediction,
            "truth": maps.truth,
        }
        images = {role: Image.of(image) for role, image in given.items() if image is not None}
        named = maps.uncertainty_name or ""
        return cls(images, maps.uncertainty, named, maps.b0, maps.notes, maps.shell, maps.shells)

    @property
    def mask(self) -> MaskArray:
        """(X, Y, Z) mask of the prediction."""
        return self.images["prediction"].mask

    @property
    def lattice(self) -> Lattice:
        """Lattice of the prediction."""
        return self.images["prediction"].lattice

    @property
    def shell_words(self) -> str:
        """Such as "b = 3000"; empty where there is one shell."""
        return f"b = {self.shell}" if len(self.shells) > 1 else ""

    @property
    def bytes(self) -> int:
        """Memory that it takes, in bytes."""
        others = (self.uncertainty, self.b0)
        return sum(each.bytes for each in self.images.values()) + sum(
            each.nbytes for each in others if each is not None
        )

    def error(self, shown: str) -> tuple[FloatArray, MaskArray, Image] | None:
        """Give the squared error of a map on truth's lattice, where it counts, and truth.

        It counts inside both masks: where nothing was predicted there is no error. None where there
        is no truth.
        """
        truth, prediction = self.images.get("truth"), self.images["prediction"]
        if truth is None:
            return None
        values = prediction.values(shown)
        inside = prediction.mask
        if not prediction.lattice.matches(truth.lattice):
            values = resample(values, prediction.lattice, truth.lattice)
            inside = resample_mask(inside, prediction.lattice, truth.lattice)
        squares = np.square(values - truth.values(shown))
        error = squares.mean(axis=-1) if squares.ndim == 4 else squares
        return error, inside & truth.mask, truth

    def worst(self) -> Worst | None:
        """Find the voxel inside the mask of which the model is least sure, else the most wrong."""
        values, name, lattice, mask = (
            self.uncertainty,
            self.uncertainty_name,
            self.lattice,
            self.mask,
        )
        if values is None:
            known = self.error("average")
            if known is None:
                return None
            (values, inside, truth), name = known, "squared error of the SH average"
            lattice, mask = truth.lattice, inside & (truth.average != 0)
        if not mask.any():
            return None
        shown = to_shown(np.where(mask, values, -np.inf), lattice)
        index = np.unravel_index(int(shown.argmax()), shown.shape)
        z, y, x = in_mm(index, lattice)
        return Worst((z, y, x), float(shown[index]), name)


@dataclass(frozen=True)
class Worst:
    """Where the largest doubt is.

    Attributes
    ----------
    place
        mm along S, P and L, as the viewer counts.
    value, name
        What it is, and of what.
    """

    place: tuple[float, float, float]
    value: float
    name: str


Limits = tuple[float, float]


@dataclass(eq=False)
class Contrast:
    """One contrast for all subjects: the median of what the first few would have for themselves.

    Attributes
    ----------
    found
        By entry, the limits that each has for itself, by what is shown.
    enough
        After how many it stays as it is.
    """

    enough: int = ENOUGH
    found: dict[str, Mapping[str, Limits]] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether it stays as it is."""
        return len(self.found) >= self.enough

    def take(self, key: str, own: Mapping[str, Limits]) -> bool:
        """Take one subject's limits; say whether the contrast changes."""
        if self.settled or key in self.found:
            return False
        self.found[key] = own
        return True

    def limits(self, what: str) -> Limits:
        """Give black and white of a quantity."""
        known = [each[what] for each in self.found.values() if what in each]
        if not known:
            return 0.0, 1.0
        low, high = (float(each) for each in np.median(np.array(known), axis=0))
        return (low, high) if high > low else (low, low + 1.0)

    @property
    def gain(self) -> float:
        """By what colours are multiplied."""
        return round(1 / max(self.limits("colour FA")[1], 0.05), 3)


def own_limits(subject: Subject) -> dict[str, Limits]:
    """Give the limits that a subject would have for itself, by what is shown."""
    found: dict[str, Limits] = {}
    seen = [
        subject.images[role] for role in ("truth", "scan", "prediction") if role in subject.images
    ]
    first = seen[0]  # truth, else the input: a prediction that went wrong sets no contrast
    inside = np.flatnonzero(first.mask)[::EVERY]
    if not len(inside):
        return found
    fa = np.linalg.norm(first.colour.reshape(-1, 3)[inside].astype(np.float32), axis=-1) / 255
    found["SH average"] = window_of(first.average.ravel()[inside], (1, 99))
    found["FA"] = (0.0, float(np.percentile(fa, 99)))
    found["colour FA"] = (0.0, float(np.percentile(fa, 98)))
    if subject.uncertainty is not None:
        doubt = subject.uncertainty[subject.mask][::EVERY]
        found[subject.uncertainty_name] = (0.0, float(np.percentile(doubt, 99)))
    for shown, title in MAPS.items():
        if (known := subject.error(shown)) is not None and known[1].any():
            error, mask, _ = known
            found[f"{title} error"] = (0.0, float(np.percentile(error[mask][::EVERY], 99)))
    return found


@dataclass(frozen=True)
class Look:
    """How subjects are looked at.

    Attributes
    ----------
    shown
        A map of `MAPS`.
    plane
        In which the outline is drawn.
    outline
        Whether there is one.
    gain
        Of colours.
    shell
        Of predictions that have several; None: the first.
    """

    shown: str = "average"
    plane: str = "axial"
    outline: bool = True
    gain: float = 1.0
    shell: int | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """One cell: what is in it, but for its name and its contrast.

    Attributes
    ----------
    role
        Whose image, or "doubt", "error", "b0".
    quantity
        What is shown of it; says the contrast, too.
    data
        The layer's.
    missing
        Why nothing is there; else empty.
    """

    role: str
    quantity: str
    data: LayerData
    missing: str = ""


@dataclass(frozen=True, eq=False)
class Pictures:
    """All cells of one subject in one look, ready for the window.

    Attributes
    ----------
    subject, look
        What they are of.
    cells
        In reading order.
    columns
        In each row.
    """

    subject: Subject
    look: Look
    cells: Sequence[Picture]
    columns: int

    @property
    def bytes(self) -> int:
        """That it takes besides the subject, where arrays are its own."""
        return sum(int(each.data[0].nbytes) for each in self.cells)


def draw(subject: Subject, look: Look, *, truths: bool) -> Pictures:
    """Make all cells ready; takes a tenth of a second for a whole head, in any thread.

    Parameters
    ----------
    subject
        Whose they are.
    look
        How it is looked at.
    truths
        Whether there is a column for truth.
    """
    roles: list[Role] = ["scan", "prediction", *(("truth",) if truths else ())]
    above = [_image(subject, role, look) for role in roles]
    below = [_b0(subject, look), _doubt(subject)]
    if truths:
        below.append(_error(subject, look))
    return Pictures(subject, look, [*above, *below], len(above))


def _image(subject: Subject, role: Role, look: Look) -> Picture:
    quantity = MAPS[look.shown]
    image = subject.images.get(role)
    if image is None:
        return _nothing(subject, role, quantity, f"no {ROLES[role]}", look)
    ring = _ring(subject, image, look)
    if look.shown == "colour":
        colours = _brighter(look.gain)[image.colour]
        if ring is not None:
            colours[ring] = np.rint(255 * np.array(MASK_COLOUR[:3])).astype(np.uint8)
        data = _coloured(colours, image, quantity)
        return Picture(role, quantity, data)
    return Picture(role, quantity, _grey(image.values(look.shown), image, quantity, ring))


def _b0(subject: Subject, look: Look) -> Picture:
    scan = subject.images.get("scan")
    if subject.b0 is None or scan is None:
        return _nothing(subject, "b0", "b0", "no b=0 image", look, grey=True)
    limits = window_of(subject.b0[scan.mask][::EVERY], (0, 99)) if scan.mask.any() else None
    ring = _ring(subject, scan, look)
    data = _grey(subject.b0, scan, "b0", ring)
    if limits is not None:
        data[1]["contrast_limits"] = (0.0, max(limits[1], 1e-6))
    return Picture("b0", "b0", data)


def _doubt(subject: Subject) -> Picture:
    named = subject.uncertainty_name or "expected error"
    values = subject.uncertainty
    missing = "" if values is not None else "the model does not say how sure it is"
    inside = np.full(subject.mask.shape, np.nan, dtype=np.float32)
    if values is not None:
        np.copyto(inside, values, where=subject.mask)
    colormap = LOOKS["disagreement"][0]
    data = lattice_layer(
        "", named, inside, subject.lattice, subject.mask, limits=(0, 1), colormap=colormap
    )
    return Picture("doubt", named, data, missing)


def _error(subject: Subject, look: Look) -> Picture:
    quantity = f"{MAPS[look.shown]} error"
    known = subject.error(look.shown)
    image = subject.images["prediction"] if known is None else known[2]
    values = np.full(image.mask.shape, np.nan, dtype=np.float32)
    if known is not None:
        np.copyto(values, known[0], where=known[1])
    data = lattice_layer(
        "", quantity, values, image.lattice, image.mask, limits=(0, 1), colormap=ERROR[0]
    )
    return Picture("error", quantity, data, "" if known is not None else "no error without truth")


def _nothing(
    subject: Subject, role: str, quantity: str, why: str, look: Look, *, grey: bool = False
) -> Picture:
    """Fill a cell with nothing, of the kind that other subjects have there."""
    image = subject.images["prediction"]
    if look.shown == "colour" and not grey:
        black = np.zeros((*image.mask.shape, 3), dtype=np.uint8)
        return Picture(role, quantity, _coloured(black, image, quantity), why)
    values = np.zeros(image.mask.shape, dtype=np.float32)
    return Picture(role, quantity, _grey(values, image, quantity, None), why)


def _coloured(colours: NDArray[np.uint8], image: Image, quantity: str) -> LayerData:
    return lattice_layer(
        "", quantity, colours, image.lattice, image.mask, contrast_limits=(0.0, 255.0)
    )


def _grey(values: FloatArray, image: Image, quantity: str, ring: MaskArray | None) -> LayerData:
    """Give a layer in greys, with the outline where values are NaN."""
    if ring is not None:
        values = np.array(values, dtype=np.float32)
        values[ring] = np.nan
    return lattice_layer(
        "", quantity, values, image.lattice, image.mask, limits=(0, 1), colormap=outlined_grey()
    )


@cache
def outlined_grey() -> Any:
    """Give grey with the mask's colour where values are NaN."""
    from napari.utils.colormaps import Colormap

    ends = [(0.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0)]
    return Colormap(ends, name="grey with outline", nan_color=MASK_COLOUR)


@cache
def _brighter(gain: float) -> NDArray[np.uint8]:
    """(256,) what becomes of the 256 shades of a colour."""
    shades: NDArray[np.uint8] = np.clip(np.rint(gain * np.arange(256)), 0, 255).astype(np.uint8)
    return shades


def _ring(subject: Subject, image: Image, look: Look) -> MaskArray | None:
    """(X, Y, Z) voxels just outside of a mask, in the plane that is looked at.

    On a truth that lies on the prediction's lattice the prediction's mask is drawn: a head that
    lies elsewhere is seen by it.
    """
    if not look.outline:
        return None
    there = subject.images["prediction"]
    same = there.mask.shape == image.mask.shape and there.lattice.matches(image.lattice)
    mask = there.mask if same else image.mask
    normal = _normal(image.lattice, look.plane)
    return outline(mask, normal)


def outline(mask: MaskArray, normal: int) -> MaskArray:
    """Give the voxels outside of a mask that touch it in slices across an axis.

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
    """Give the stored axis across which a plane cuts."""
    canonical = 2 - ORDERS[plane][0]  # S, P, L as z, y, x
    from nibabel.orientations import io_orientation

    return int(np.flatnonzero(io_orientation(lattice.affine)[:, 0] == canonical)[0])
