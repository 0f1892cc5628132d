"""The maps that are looked at: SH average, colour FA, FA, mean diffusivity, fibre direction.

`MAPS` is the one list of them. Files, layers, Figure 3 and comparisons are made from it: a map that
is added there appears in all of them.

FA of a scan comes from its signal. FA of an SH image comes from the signal that the SH series
gives, which the SH fit has smoothed over directions: it is lower. Compare like with like.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.errors import Advice, UserError
from napari_msp.signal.fitting import evaluate_sh
from napari_msp.signal.rotation import spread_directions
from napari_msp.signal.sh_image import SHImage

SMALLEST_SIGNAL = 1e-6
"""Floor of a voxel's signals over its largest one, before the logarithm (as MRtrix3)."""

REWEIGHTINGS = 2
"""Times that the tensor fit takes its weights from its own signal (as MRtrix3)."""

VOXELS_AT_ONCE = 20_000
"""Bounds the memory of the tensor fit."""


def fit_tensors(
    signal: FloatArray, b_values: FloatArray, directions: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fit tensors by iteratively reweighted least squares on the logarithm (Veraart 2013).

    Weights are the squared measured signal first, then that of the fit, as in MRtrix3. Unlike a
    start from unweighted least squares this gives signals near 0, whose logarithm is noise, little
    weight. Eigenvalues are not forced above 0.

    Parameters
    ----------
    signal
        (V, N) in any unit.
    b_values, directions
        (N,) in s/mm², and (N, 3) unit vectors.

    Returns
    -------
    (V, 3) eigenvalues in mm²/s, smallest first, and (V, 3, 3) eigenvectors in columns.
    """
    x, y, z = directions.T
    parts = [x * x, x * y, x * z, y * y, y * z, z * z]
    design = np.stack([*(-b_values * part for part in parts), np.ones(len(b_values))], axis=1)
    design *= [1, 2, 2, 1, 2, 1, 1]
    products = np.einsum("ni,nj->nij", design, design).reshape(len(design), -1)
    tensors = np.zeros((len(signal), 6))
    for start in range(0, len(signal), VOXELS_AT_ONCE):
        part = signal[start : start + VOXELS_AT_ONCE]
        largest = np.maximum(part.max(axis=1, keepdims=True), SMALLEST_SIGNAL)
        part = np.maximum(part / largest, SMALLEST_SIGNAL)
        logarithm, weights = np.log(part), np.square(part)
        for step in range(REWEIGHTINGS + 1):
            normal = (weights @ products).reshape(-1, 7, 7)
            right = (weights * logarithm) @ design
            fitted = np.linalg.solve(normal, right[..., None])[..., 0]
            if step < REWEIGHTINGS:
                weights = np.exp(2 * np.minimum(fitted @ design.T, 5.0))
        tensors[start : start + VOXELS_AT_ONCE] = fitted[:, :6]
    values, vectors = np.linalg.eigh(tensors[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3))
    return np.asarray(values), np.asarray(vectors)


def anisotropy(values: FloatArray) -> FloatArray:
    """Give the fractional anisotropy of (V, 3) eigenvalues, kept in [0, 1]."""
    spread = np.square(values - values.mean(axis=-1, keepdims=True)).sum(axis=-1)
    energy = np.maximum(np.square(values).sum(axis=-1), 1e-30)
    return np.asarray(np.clip(np.sqrt(1.5 * spread / energy), 0, 1))


AVERAGED_COEFFICIENTS = 6
"""Figure 3a of the paper shows the mean of the first six coefficients (orders 0 and 2)."""

TENSOR_DIRECTIONS = 60
"""Directions on which an SH series is sampled for its tensor (our choice: over twice 28)."""


@dataclass(frozen=True, eq=False, repr=False)
class TensorMaps:
    """What one tensor fit says of every voxel; 0 outside the mask.

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


def sh_average(image: SHImage) -> FloatArray:
    """Average the first six coefficients, as Fig. 3a of the paper.

    Returns
    -------
    (X, Y, Z) float32.
    """
    return np.asarray(image.coefficients[..., :AVERAGED_COEFFICIENTS].mean(axis=-1))


def direction_average(image: SHImage) -> FloatArray:
    """Give the mean of S/S0 over all directions, (X, Y, Z): c₀₀ · Y₀₀ = c₀₀ / √(4π)."""
    average: FloatArray = image.coefficients[..., 0] / math.sqrt(4 * math.pi)
    return average


def fractional_anisotropy(
    source: Acquisition | SHImage, b_value: float | None = None
) -> FloatArray:
    """Give the fractional anisotropy of a scan (from its signal) or of an SH image.

    Parameters
    ----------
    source
        Where the tensor is fitted: iteratively reweighted least squares on the logarithm.
    b_value
        Shell of a scan that has several, in s/mm².

    Returns
    -------
    (X, Y, Z) float32 in [0, 1]; 0 outside the mask.
    """
    return tensor_maps(source, b_value).fa


def colour_fa(source: Acquisition | SHImage, b_value: float | None = None) -> FloatArray:
    """Give |e₁| · FA: red left-right, green front-back, blue up-down, in scanner axes.

    Returns
    -------
    (X, Y, Z, 3) float32 in [0, 1]; 0 outside the mask.
    """
    return tensor_maps(source, b_value).colour


def tensor_maps(source: Acquisition | SHImage, b_value: float | None = None) -> TensorMaps:
    """Give all maps of one tensor fit, see `fractional_anisotropy`."""
    if isinstance(source, Acquisition):
        signal, b_values, directions = _measured(source, b_value)
        b0 = source.gradients.b0_weighting
    else:
        signal, b_values, directions = _sampled(source)
        b0 = source.b0_weighting
    fa, md = (np.zeros(source.mask.shape, dtype=np.float32) for _ in range(2))
    direction = np.zeros((*source.mask.shape, 3), dtype=np.float32)
    values, vectors = fit_tensors(signal, b_values, directions)
    if b0:
        values = _without_weighting_of_b0(values, b0 / float(b_values.max()))
    fa[source.mask] = anisotropy(values)
    md[source.mask] = values.mean(axis=-1)
    direction[source.mask] = vectors[..., -1]
    return TensorMaps(fa, md, direction)


def squared_error(
    image: SHImage | FloatArray, truth: SHImage | FloatArray, mask: MaskArray | None = None
) -> FloatArray:
    """Give the squared error in each voxel, averaged over channels where there are several.

    Parameters
    ----------
    image, truth
        SH images (28 coefficients), or maps of shape (X, Y, Z) or (X, Y, Z, C), on one lattice.
    mask
        Where errors count; None: both masks of SH images, everywhere for maps.

    Returns
    -------
    (X, Y, Z) float32; 0 outside the mask.
    """
    if isinstance(image, SHImage) and isinstance(truth, SHImage):
        if not image.lattice.matches(truth.lattice):
            raise ValueError("the images lie on different lattices; resample the prediction")
        mask = image.mask & truth.mask if mask is None else mask
        image, truth = image.coefficients, truth.coefficients
    difference = np.square(np.asarray(image, dtype=np.float32) - np.asarray(truth))
    if difference.ndim == 4:
        difference = difference.mean(axis=-1)
    return difference if mask is None else np.where(mask, difference, 0).astype(np.float32)


class Maps(Mapping[str, FloatArray]):
    """All maps of one image, by their names in `MAPS`; each is computed once, when first asked for.

    Parameters
    ----------
    image
        SH image.
    scan
        The scan that `image` was fitted to: tensors are then fitted to its signal. None: to the
        signal that the SH series gives, as for predictions, so that all compare alike.
    """

    def __init__(self, image: SHImage, scan: Acquisition | None = None) -> None:
        self.image = image
        self._scan = scan
        self._known: dict[str, FloatArray] = {}

    def __getitem__(self, name: str) -> FloatArray:
        """(X, Y, Z) or (X, Y, Z, 3) float32."""
        if name not in self._known:
            self._known[name] = MAPS[name].compute(self)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(MAPS)

    def __len__(self) -> int:
        return len(MAPS)

    def __repr__(self) -> str:
        return f"<Maps {', '.join(MAPS)} of {self.image!r}>"

    # By identity, as everything that has arrays: a Mapping would compare them one by one.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @cached_property
    def tensor(self) -> TensorMaps:
        """What one tensor fit says: FA, mean diffusivity and direction."""
        if self._scan is None:
            return tensor_maps(self.image)
        return tensor_maps(self._scan, self.image.rescaled_from or self.image.b_value)


Colours = Literal["grey", "directions"]


@dataclass(frozen=True)
class Map:
    """A map, and how it is named, shown and compared.

    Attributes
    ----------
    name
        Key of `MAPS`.
    title
        For people: in layers' names, figures and tables.
    unit
        Of its values.
    error_title, error_unit
        Of what `error` gives, such as "MSE" in "FA²".
    model, parameter
        BIDS labels of its files (BEP016).
    compute
        From the `Maps` of an image, (X, Y, Z), or (X, Y, Z, 3) for colours.
    colours
        "grey", or "directions": |values| are red left-right, green front-back, blue up-down.
    error
        From a prediction's map, truth's and a mask, (X, Y, Z) error; 0 outside the mask.
    """

    name: str
    title: str
    unit: str
    error_title: str
    error_unit: str
    model: Literal["sh", "tensor"]
    parameter: str
    compute: Callable[[Maps], FloatArray]
    colours: Colours = "grey"
    error: Callable[[FloatArray, FloatArray, MaskArray], FloatArray] = squared_error

    @cached_property
    def coloured(self) -> bool:
        """Whether it has three colours a voxel."""
        return self.colours == "directions"

    def shown(self, values: FloatArray) -> FloatArray:
        """Give what is painted: the values, without the sign that a direction's do not mean."""
        return np.abs(values) if self.coloured else values


def angle_between(direction: FloatArray, truth: FloatArray, mask: MaskArray) -> FloatArray:
    """Give the angle between two axes in degrees, from 0 to 90; 0 outside the mask.

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
            "MSE",
            "SH units²",
            "sh",
            "average",
            lambda maps: sh_average(maps.image),
        ),
        Map(
            "colour_fa",
            "colour FA",
            "FA",
            "MSE",
            "FA²",
            "tensor",
            "colourfa",
            lambda maps: maps.tensor.colour,
            colours="directions",
        ),
        Map("fa", "FA", "FA", "MSE", "FA²", "tensor", "fa", lambda maps: maps.tensor.fa),
        Map(
            "md",
            "mean diffusivity",
            "mm²/s",
            "MSE",
            "(mm²/s)²",
            "tensor",
            "md",
            lambda maps: maps.tensor.md,
        ),
        Map(
            "direction",
            "fibre direction",
            "unit vector",
            "angle",
            "degrees",
            "tensor",
            "direction",
            lambda maps: maps.tensor.direction,
            colours="directions",
            error=angle_between,
        ),
    )
}
"""Every map by its name, in the order in which they are offered."""


def _measured(
    acquisition: Acquisition, b_value: float | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give in-mask signal over its b=0, b-values and directions of one shell and the b=0s."""
    shell = acquisition.shell(b_value)
    b0_volumes = acquisition.gradients.b0_volumes
    volumes = np.concatenate([b0_volumes, shell.volumes])
    signal = acquisition.voxels[acquisition.mask][:, volumes].astype(float)
    scale = acquisition.b0[acquisition.mask].astype(float)
    # Dividing by b=0 leaves the tensor as it is and gives the floor one meaning for all scanners.
    signal /= np.where(scale > 0, scale, 1.0)[:, None]
    b_values = acquisition.gradients.b_values[volumes].copy()
    b_values[: len(b0_volumes)] = 0
    return signal, b_values, acquisition.gradients.directions[volumes]


def _without_weighting_of_b0(values: FloatArray, share: float) -> FloatArray:
    """Give the eigenvalues that (V, 3) fitted ones come from, where b=0 volumes are weighted.

    The fit takes their b for 0, and so loses the mean diffusivity's share b₀/b of it.
    """
    return np.asarray(values + values.mean(axis=1, keepdims=True) * share / (1 - share))


def _sampled(image: SHImage) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give the in-mask signal of an SH image on spread directions, with S0 = 1 in front."""
    if image.b_value is None:
        remedy = Advice("add BValue to its sidecar")
        raise UserError("its b-value is unknown, so it has no tensor", "SH image", remedy=remedy)
    directions = spread_directions(TENSOR_DIRECTIONS)
    signal = evaluate_sh(image, directions)[image.mask].astype(float)
    signal = np.concatenate([np.ones((len(signal), 1)), signal], axis=1)
    b_values = np.concatenate([[0.0], np.full(TENSOR_DIRECTIONS, image.b_value)])
    return signal, b_values, np.concatenate([np.zeros((1, 3)), directions])
