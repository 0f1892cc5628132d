"""The maps that are shown: SH average, colour FA, FA, mean diffusivity, fibre direction.

`MAPS` is the only list of them. Files, layers, Figure 3 and comparisons are made from it: a map
added there appears in all of them.

FA of a scan is computed from its signal. FA of an SH image is computed from the signal of the SH
series, which the fit has smoothed over directions, so it is lower. Compare like with like.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from napari_msp.arrays import FloatArray, InMask, MaskArray, for_each_block
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import Shell
from napari_msp.errors import Advice, Give, UserError
from napari_msp.signal.sh_image import AnyScan, SHImage, usable_sh
from napari_msp.signal.spherical_harmonics import design_matrix, spread_directions
from napari_msp.signal.tensors import (
    anisotropy,
    determines_tensor,
    first_eigenvectors,
    fit_tensors,
    mean_diffusivity,
)

AVERAGED_COEFFICIENTS = 6
"""Figure 3a of the paper shows the mean of the first six coefficients (orders 0 and 2)."""

SIGNAL, SH_SERIES = "signal", "SH series"
"""Names in tables of what tensors are fitted to."""

TENSOR_DIRECTIONS = 60
"""Directions at which an SH series is sampled for its tensor (our choice: over twice 28)."""

ERROR_COLOURS, DISAGREEMENT_COLOURS = "inferno", "viridis"
"""Colour maps of squared errors, measured or expected, and of disagreement, in window and figures
alike: dark at 0, even in brightness, and so readable without colour vision."""


@dataclass(frozen=True, eq=False, repr=False)
class TensorMaps:
    """Maps from one tensor fit; 0 outside the mask.

    Attributes
    ----------
    fa
        (X, Y, Z) float32, fractional anisotropy in [0, 1].
    md
        (X, Y, Z) float32, mean diffusivity in mm²/s.
    direction
        (X, Y, Z, 3) float32, first eigenvector in scanner axes; its sign has no meaning.
    """

    fa: FloatArray
    md: FloatArray
    direction: FloatArray

    @property
    def colour(self) -> FloatArray:
        """(X, Y, Z, 3) float32, |e₁| · FA: red left-right, green front-back, blue up-down."""
        return np.asarray(np.abs(self.direction) * self.fa[..., None])


def sh_average(image: SHImage | AnyScan) -> FloatArray:
    """Average the first six coefficients, as Fig. 3a of the paper.

    Returns
    -------
    (X, Y, Z) float32.
    """
    coefficients = usable_sh(image, "SH image").coefficients
    return np.asarray(coefficients[..., :AVERAGED_COEFFICIENTS].mean(axis=-1))


def direction_average(image: SHImage) -> FloatArray:
    """Return the mean of S/S0 over all directions, (X, Y, Z): c₀₀ · Y₀₀ = c₀₀ / √(4π)."""
    return image.coefficients[..., 0] / math.sqrt(4 * math.pi)


def fractional_anisotropy(
    source: Acquisition | SHImage | AnyScan, b_value: float | None = None
) -> FloatArray:
    """Return the fractional anisotropy of a scan (from its signal) or of an SH image.

    Parameters
    ----------
    source
        Image to fit tensors to: iteratively reweighted least squares on the logarithm.
    b_value
        Shell in s/mm², for a scan that has several.

    Returns
    -------
    (X, Y, Z) float32 in [0, 1]; 0 outside the mask.
    """
    return tensor_maps(source, b_value).fa.copy()  # a copy, as callers may change it


def colour_fa(source: Acquisition | SHImage | AnyScan, b_value: float | None = None) -> FloatArray:
    """Return ``|e₁| · FA``: red left-right, green front-back, blue up-down, in scanner axes.

    Returns
    -------
    (X, Y, Z, 3) float32 in [0, 1]; 0 outside the mask.
    """
    return tensor_maps(source, b_value).colour


def tensor_maps(
    source: Acquisition | SHImage | AnyScan, b_value: float | None = None
) -> TensorMaps:
    """Return all maps of one tensor fit, see `fractional_anisotropy`.

    A scan's maps are computed once and kept as long as the scan; an SH image's are kept by `Maps`.

    Raises
    ------
    UserError
        When there is no such shell, its directions determine no tensor, or an SH image's b-value
        is unknown.
    """
    if isinstance(source, SHImage):
        return _of_sh(source)
    if not isinstance(source, Acquisition):
        if not hasattr(source, "at_shell"):
            problem = f"{type(source).__name__} is neither a scan nor an SH image"
            raise TypeError(f"{problem}: give load_scan(path), or load_acquisition(path)")
        one = source.at_shell(b_value)
        return tensor_maps(one.acquisition or one.sh, one.b_value)
    shell = source.shell(b_value)
    source.tell()
    known = _of_scans.setdefault(source, {})
    if shell.name not in known:
        known[shell.name] = _of_signal(source, shell)
    return known[shell.name]


_of_scans: WeakKeyDictionary[Acquisition, dict[int, TensorMaps]] = WeakKeyDictionary()
"""Maps by shell, for each scan; a scan's voxels and table do not change."""


def _of_signal(acquisition: Acquisition, shell: Shell) -> TensorMaps:
    """Fit a scan's in-mask signal over its b=0: one shell and the b=0s, each at its own b-value."""
    table = acquisition.gradients
    volumes = np.concatenate([table.b0_volumes, shell.volumes])
    b_values, directions = table.b_values[volumes], table.directions[volumes]
    if not determines_tensor(b_values, directions):
        problem = "its gradient directions determine no tensor"
        raise UserError(problem, acquisition.name, "bvec", Give("bvec", "the scan's own b-vectors"))
    inside = InMask(acquisition.voxels, acquisition.mask)
    scale = acquisition.b0.reshape(-1)[inside.places].astype(float)

    # Dividing by b=0 keeps the tensor, and gives the floor the same meaning on all scanners.
    def signals(block: slice) -> FloatArray:
        return np.asarray(inside.take(block)[volumes] / scale[block])

    tensors = fit_tensors(signals, b_values, directions, len(inside))
    return _maps_of(tensors, inside)


def _of_sh(image: SHImage) -> TensorMaps:
    """Fit the in-mask signal of an SH image along spread directions, with S0 = 1 prepended.

    The logarithm of an SH series is not an SH series: its tensor has no closed form, and is fitted
    to samples like a scan's to its volumes.
    """
    if not image.b_value:
        remedy = Advice("add BValue to its sidecar")
        problem = f"its b-value is {'unknown' if image.b_value is None else 0}, so it has no tensor"
        raise UserError(problem, "SH image", remedy=remedy)
    image = usable_sh(image, "SH image")
    spread = spread_directions(TENSOR_DIRECTIONS)
    matrix = design_matrix(spread, image.order)
    inside = InMask(image.coefficients, image.mask)

    def signals(block: slice) -> FloatArray:
        sampled = matrix @ inside.take(block)
        return np.concatenate([np.ones((1, sampled.shape[1])), sampled])

    b_values = np.concatenate([[image.b0_weighting], np.full(TENSOR_DIRECTIONS, image.b_value)])
    directions = np.concatenate([np.zeros((1, 3)), spread])
    tensors = fit_tensors(signals, b_values, directions, len(inside))
    return _maps_of(tensors, inside)


def _maps_of(tensors: FloatArray, inside: InMask) -> TensorMaps:
    """Read the maps from (6, V) tensors."""
    fa, md = (np.zeros(inside.shape, dtype=np.float32) for _ in range(2))
    direction = np.zeros((*inside.shape, 3), dtype=np.float32)
    flat_fa, flat_md, flat_direction = fa.reshape(-1), md.reshape(-1), direction.reshape(-1, 3)

    def work(block: slice) -> None:
        part, places = tensors[:, block], inside.places[block]
        flat_fa[places] = anisotropy(part)
        flat_md[places] = mean_diffusivity(part)
        flat_direction[places] = first_eigenvectors(part)

    for_each_block(work, len(inside))
    return TensorMaps(fa, md, direction)


def squared_error(
    image: SHImage | AnyScan | FloatArray,
    truth: SHImage | AnyScan | FloatArray,
    mask: MaskArray | None = None,
) -> FloatArray:
    """Return the squared error in each voxel, averaged over channels if there are several.

    Parameters
    ----------
    image, truth
        SH images (28 coefficients) or scans, or maps of shape (X, Y, Z) or (X, Y, Z, C), on one
        lattice.
    mask
        Voxels where errors count; None: both masks of SH images, everywhere for maps.

    Returns
    -------
    (X, Y, Z) float32; 0 outside the mask.
    """
    image, truth = (getattr(each, "sh", each) for each in (image, truth))
    if isinstance(image, SHImage) and isinstance(truth, SHImage):
        if not image.lattice.matches(truth.lattice):
            raise ValueError("the images lie on different lattices; resample the prediction")
        if image.order != truth.order:
            raise ValueError(f"the images are of SH orders {image.order} and {truth.order}")
        image, truth = usable_sh(image, "SH image"), usable_sh(truth, "truth")
        mask = image.mask & truth.mask if mask is None else mask
        image, truth = image.coefficients, truth.coefficients
    difference = np.square(np.asarray(image, dtype=np.float32) - np.asarray(truth))
    if difference.ndim == 4:
        difference = difference.mean(axis=-1)
    return difference if mask is None else np.where(mask, difference, 0).astype(np.float32)


class Maps(Mapping[str, FloatArray]):
    """All maps of one image, by their names in `MAPS`; each is computed once, on first use.

    Parameters
    ----------
    image
        SH image.
    scan
        The scan that `image` was fitted to: tensors are then fitted to its signal. None: to the
        signal of the SH series, as for predictions, so that all are comparable.
    """

    def __init__(self, image: SHImage, scan: Acquisition | None = None) -> None:
        self.image = image
        self._scan = scan
        self._known: dict[str, FloatArray] = {}

    def __getitem__(self, name: str) -> FloatArray:
        """Return a map, (X, Y, Z) or (X, Y, Z, 3) float32."""
        if name not in self._known:
            self._known[name] = MAPS[name].compute(self)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(MAPS)

    def __len__(self) -> int:
        return len(MAPS)

    def __repr__(self) -> str:
        return f"<Maps {', '.join(MAPS)} of {self.image!r}>"

    # By identity, like everything with arrays: a Mapping would compare them one by one.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def through(self) -> str:
        """What tensors are fitted to: `SIGNAL`, or that of the SH series, `SH_SERIES`."""
        return SH_SERIES if self._scan is None else SIGNAL

    @cached_property
    def tensor(self) -> TensorMaps:
        """The result of one tensor fit: FA, mean diffusivity and direction."""
        if self._scan is None:
            return tensor_maps(self.image)
        return tensor_maps(self._scan, self.image.rescaled_from or self.image.b_value)


@dataclass(frozen=True)
class Map:
    """A map, and how it is named, shown and compared.

    Attributes
    ----------
    name
        Key of `MAPS`.
    title
        Name in layers, figures and tables.
    model, parameter
        BIDS labels of its files (BEP016).
    compute
        Function from the `Maps` of an image to (X, Y, Z), or (X, Y, Z, 3) for colours.
    coloured
        Whether it has three values a voxel: |values| are red left-right, green front-back, blue
        up-down.
    error
        Function from a prediction's map, the truth's and a mask to an (X, Y, Z) error, 0 outside.
    error_title
        Name of the error in figures and tables.
    other_unit
        Unit of `error` where it is not the square of `unit`.
    """

    name: str
    title: str
    unit: str
    parameter: str
    compute: Callable[[Maps], FloatArray]
    coloured: bool = False
    model: Literal["sh", "tensor"] = "tensor"
    error: Callable[[FloatArray, FloatArray, MaskArray], FloatArray] = squared_error
    error_title: str = "MSE"
    other_unit: str = ""

    @property
    def error_unit(self) -> str:
        """Unit of `error`, such as "FA²"."""
        compound = "/" in self.unit or self.unit.endswith("²")
        squared = f"({self.unit})²" if compound else f"{self.unit}²"
        return self.other_unit or squared

    def shown(self, values: FloatArray) -> FloatArray:
        """Return the values to paint: without sign for directions, where it has no meaning."""
        return np.abs(values) if self.coloured else values


def angle_between(direction: FloatArray, truth: FloatArray, mask: MaskArray) -> FloatArray:
    """Return the angle between two axes in degrees, from 0 to 90; 0 outside the mask.

    Parameters
    ----------
    direction, truth
        (X, Y, Z, 3) unit vectors whose signs have no meaning.

    Returns
    -------
    (X, Y, Z) float32.
    """
    cosine = np.clip(np.abs(np.sum(direction * truth, axis=-1)), 0, 1)
    return np.where(mask, np.degrees(np.arccos(cosine)), 0).astype(np.float32)


MAPS: Mapping[str, Map] = {
    each.name: each
    for each in (
        Map(
            "sh_average",
            "SH average",
            "SH units",
            "average",
            lambda maps: sh_average(maps.image),
            model="sh",
        ),
        Map("colour_fa", "colour FA", "FA", "colourfa", lambda maps: maps.tensor.colour, True),
        Map("fa", "FA", "FA", "fa", lambda maps: maps.tensor.fa),
        Map("md", "mean diffusivity", "mm²/s", "md", lambda maps: maps.tensor.md),
        Map(
            "direction",
            "fibre direction",
            "unit vector",
            "direction",
            lambda maps: maps.tensor.direction,
            coloured=True,
            error=angle_between,
            error_title="angle",
            other_unit="degrees",
        ),
    )
}
"""All maps by name, in the order in which they are offered."""
