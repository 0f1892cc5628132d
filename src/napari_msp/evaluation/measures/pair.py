"""A prediction and its truth: values that measures share, computed once, and their results."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.evaluation.line_up import Comparable, line_up
from napari_msp.evaluation.measures.aligned_error import Laid, align_with, smoothed_as_compared
from napari_msp.evaluation.measures.fibres import (
    PeakErrors,
    TrackingSeeds,
    TruePeaks,
    response_of,
    visited_by,
)
from napari_msp.signal.maps import Maps, TensorMaps, squared_error
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import rish

WHITE_FA = 0.25
"""FA above which tissue is white matter (our choice)."""

GREY_FA = 0.15
"""FA below which tissue is grey matter (our choice)."""

LARGEST_TISSUE_MD = 1.1e-3
"""Largest mean diffusivity of tissue in mm²/s; up to that of fluid, voxels are mixed (ours)."""

FLUID_MD = 2.0e-3
"""Smallest mean diffusivity of fluid in mm²/s (our choice)."""


@dataclass(frozen=True, eq=False)
class TissueMasks:
    """(X, Y, Z) masks of the tissue classes; mixed voxels belong to none."""

    white: MaskArray
    grey: MaskArray
    fluid: MaskArray


def tissue_of(maps: TensorMaps, mask: MaskArray) -> TissueMasks:
    """Classify the voxels of a truth by its FA and mean diffusivity, through the SH series.

    Use noise-free truth if there is one: noise raises the FA of grey matter.

    On three simulated heads of size tiny, without noise, compared with the fractions that they are
    made of: of the voxels called white, 95 to 97 % have more than half white matter; of those
    called grey or fluid, 98 to 99 %. Of the voxels with more than 80 % of a class, 95 to 98 % of
    white are found, 89 to 99 % of grey and all of fluid; from noisy scans of 1.2 mm, 77 to 80 % of
    grey.
    """
    solid = mask & (maps.md < LARGEST_TISSUE_MD)
    return TissueMasks(
        white=solid & (maps.fa > WHITE_FA),
        grey=solid & (maps.fa < GREY_FA),
        fluid=mask & (maps.md > FLUID_MD),
    )


def percent_error(
    values: FloatArray, truth: FloatArray, where: MaskArray, signed: bool = False
) -> float:
    """Return the mean error in percent of truth's mean, absolute or signed; nan without a voxel."""
    true = truth[where]
    errors = values[where].astype(float) - true
    scale = float(true.mean(dtype=float)) if len(true) else 0.0
    if scale <= 0:
        return float("nan")
    return 100 * float((errors if signed else np.abs(errors)).mean()) / scale


def mean_angle(directions: FloatArray, truth: FloatArray, where: MaskArray) -> float:
    """Return the mean angle in degrees between lines, whose sign does not matter."""
    if not where.any():
        return float("nan")
    cosine = np.abs(np.sum(directions[where].astype(float) * truth[where], axis=-1))
    return float(np.degrees(np.arccos(np.clip(cosine, 0, 1))).mean())


# --- A prediction beside its truth --------------------------------------------------------------

PATCH_SIZE = 11
"""Edge of a patch in voxels (paper, for targets on the input's lattice)."""


@dataclass(frozen=True)
class PatchErrors:
    """Mean squared SH error of each patch.

    Attributes
    ----------
    centres
        (P, 3) voxel indices of the patch centres.
    mse
        (P,) mean over in-mask voxels and coefficients, in SH units squared.
    size
        Edge of a patch in voxels.
    """

    centres: IntArray
    mse: FloatArray
    size: int


def patch_errors(
    prediction: FloatArray, truth: FloatArray, mask: MaskArray, size: int = PATCH_SIZE
) -> PatchErrors:
    """Cut the mask's bounding box into cubes and measure each cube whose centre is in the mask.

    That the centre must be in the mask is the paper's rule. That cubes do not overlap is our
    choice: overlapping ones would count several times in a test. A cube at the edge of the volume
    is cut off there; voxels outside the mask never count.

    Parameters
    ----------
    prediction, truth
        (X, Y, Z, C) coefficients on one lattice.
    mask
        (X, Y, Z) voxels where errors count.
    size
        Edge of a cube in voxels, odd.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a patch needs a centre voxel: its size must be odd, not {size}")
    starts = [_starts(np.asarray(mask.any(axis=other)), size) for other in ((1, 2), (0, 2), (0, 1))]
    centres: list[tuple[int, int, int]] = []
    errors: list[float] = []
    half = size // 2
    for corner in product(*starts):
        centre = (int(corner[0]) + half, int(corner[1]) + half, int(corner[2]) + half)
        if any(c >= n for c, n in zip(centre, mask.shape, strict=True)) or not mask[centre]:
            continue
        cube = tuple(slice(first, first + size) for first in corner)
        inside = mask[cube]
        difference = prediction[cube][inside].astype(float) - truth[cube][inside]
        centres.append(centre)
        errors.append(float(np.square(difference).mean()))
    return PatchErrors(np.array(centres, dtype=int).reshape(-1, 3), np.array(errors), size)


def _starts(occupied: MaskArray, size: int) -> IntArray:
    """Return the first voxels of the cubes that cover the occupied stretch of one axis."""
    where = np.flatnonzero(occupied)
    if len(where) == 0:
        return where
    return np.arange(where[0], where[-1] + 1, size)


@dataclass(frozen=True, eq=False)
class Truth:
    """An image that many predictions are measured against; what they share is computed once.

    Attributes
    ----------
    image
        The true image, never resampled.
    given_tissue
        Tissue on the image's lattice, such as that of its noise-free twin; None: found from the
        image.
    given_maps
        Maps of the image, if some were already computed.
    response
        Response of a single fibre population, the same for all truths of a target, see
        `response_of`; None: the image's own.
    given_fibres
        Known fibres; None: found in the image's white matter.
    fibres_in
        (X, Y, Z) voxels in which fibres are searched; None: all.
    """

    image: SHImage
    given_tissue: TissueMasks | None = None
    given_maps: Maps | None = None
    response: FloatArray | None = None
    given_fibres: TruePeaks | None = None
    fibres_in: MaskArray | None = None

    @cached_property
    def mapped(self) -> Maps:
        """The image with its maps."""
        return self.given_maps or Maps(self.image)

    @cached_property
    def tissue(self) -> TissueMasks:
        """White matter, grey matter and fluid."""
        return self.given_tissue or tissue_of(self.mapped.tensor, self.image.mask)

    @cached_property
    def rish(self) -> FloatArray:
        """(X, Y, Z, 4) energy of each SH order."""
        return rish(self.image.coefficients)

    @cached_property
    def fibres(self) -> TruePeaks:
        """True fibres: the known ones, or else from constrained spherical deconvolution."""
        if self.given_fibres is not None:
            return self.given_fibres
        white = self.tissue.white
        where = white if self.fibres_in is None else white & self.fibres_in
        return TruePeaks.of(self.image, self._response, where)

    @cached_property
    def _response(self) -> FloatArray:
        return response_of([self.image]) if self.response is None else self.response

    @cached_property
    def bundle(self) -> tuple[TrackingSeeds, MaskArray]:
        """A bundle to track, and the voxels that it visits in truth."""
        bundle = TrackingSeeds.of(self.image, self.mapped.tensor, self.tissue.white, self._response)
        return bundle, visited_by(bundle, self.image)

    @cached_property
    def smoothed(self) -> FloatArray:
        """(C, X, Y, Z) coefficients, see `smoothed_as_compared`."""
        return smoothed_as_compared(self.image)

    @cached_property
    def aligned(self) -> "Truth":
        """The image, smoothed for comparison with predictions that were aligned to it."""
        coefficients = np.moveaxis(self.smoothed, 0, -1) * self.image.mask[..., None]
        image = replace(self.image, coefficients=np.ascontiguousarray(coefficients))
        return Truth(image, self.tissue)


@dataclass(frozen=True, eq=False)
class Pair:
    """A prediction on truth's lattice, and the mask where errors count: both masks' intersection.

    `patch_size` is the edge of patches in voxels, an odd number.
    """

    prediction: Maps
    truth: Truth
    mask: MaskArray
    patch_size: int = PATCH_SIZE

    @classmethod
    def of(cls, prediction: Comparable, truth: Truth, patch_size: int = PATCH_SIZE) -> "Pair":
        """Resample a prediction to truth's lattice if it lies on another."""
        both = line_up(truth.mapped, {"prediction": prediction})
        return cls(both.predictions["prediction"], truth, both.mask, patch_size)

    def difference(self, values: FloatArray, truth: FloatArray) -> FloatArray:
        """Return the (N, …) float64 difference of two maps in the mask."""
        return np.asarray(values[self.mask].astype(float) - truth[self.mask])

    @cached_property
    def squared(self) -> FloatArray:
        """(N, C) float64 squared errors of the SH coefficients in the mask."""
        return np.square(
            self.difference(self.prediction.image.coefficients, self.truth.image.coefficients)
        )

    @cached_property
    def rish(self) -> FloatArray:
        """(X, Y, Z, 4) energy of each SH order of the prediction."""
        return rish(self.prediction.image.coefficients)

    @cached_property
    def patches(self) -> PatchErrors:
        """SH errors of non-overlapping patches."""
        images = self.prediction.image.coefficients, self.truth.image.coefficients
        return patch_errors(*images, self.mask, self.patch_size)

    @cached_property
    def laid(self) -> Laid:
        """The prediction aligned to truth by undoing a residual motion."""
        return align_with(self.prediction.image, self.truth.smoothed, self.mask)

    @cached_property
    def aligned(self) -> "Pair":
        """The aligned prediction with the smoothed truth."""
        inside = self.laid.inside
        image = replace(self.prediction.image, coefficients=self.laid.coefficients, mask=inside)
        return Pair(Maps(image), self.truth.aligned, inside, self.patch_size)

    @cached_property
    def fibre_errors(self) -> PeakErrors:
        """Errors of the prediction's fibre peaks, matched with truth's."""
        return self.truth.fibres.errors_of(self.prediction.image, self.mask)

    @cached_property
    def eroded(self) -> MaskArray:
        """(X, Y, Z) the mask without its outermost voxels (six neighbours).

        The edge of the field of view is not an edge of the brain and is not eroded.
        """
        return np.asarray(binary_erosion(self.mask, border_value=1))

    @cached_property
    def dilated(self) -> MaskArray:
        """(X, Y, Z) the mask and the voxels that touch it and lie in one image's mask only.

        Images are 0 outside their masks, so that one image's 0 is compared with the other's value.
        A voxel beyond both masks would be a perfect prediction of nothing and is not counted.
        """
        return np.asarray(binary_dilation(self.mask) & self._either)

    def change_of_mse(self, where: MaskArray) -> float:
        """Return the change of the SH MSE in percent if computed on `where` instead of the mask.

        It is nan if the mask has no error or `where` is empty.
        """
        whole = float(self._error_map[self.mask].mean())
        if whole == 0 or not where.any():
            return float("nan")
        return 100 * (float(np.mean(self._error_map[where])) / whole - 1)

    @cached_property
    def _either(self) -> MaskArray:
        return self.prediction.image.mask | self.truth.image.mask

    @cached_property
    def _error_map(self) -> FloatArray:
        """(X, Y, Z) squared error, mean over coefficients, where either image has brain."""
        errors = squared_error(self.prediction.image, self.truth.image, mask=self._either)
        return errors.astype(float)


@dataclass(frozen=True, eq=False)
class Metrics:
    """Measures of a prediction, over the voxels in both masks.

    Attributes
    ----------
    values
        Values by key of `catalogue.MEASURES`, nan where there is nothing to measure.
    order_mse
        The same as `sh_mse`, of the coefficients of each order alone.
    """

    voxels: int
    values: dict[str, float]
    order_mse: Mapping[int, float]
    patches: PatchErrors = field(repr=False)

    @property
    def sh_mse(self) -> float:
        """Mean squared error of all SH coefficients (paper: MSE)."""
        return self.values["sh_mse"]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, lists and dictionaries."""
        return {
            "voxels": self.voxels,
            **{key: value if np.isfinite(value) else None for key, value in self.values.items()},
            "order_mse": {str(order): mse for order, mse in self.order_mse.items()},
            "patch_size": self.patches.size,
            "patch_centres": self.patches.centres.tolist(),
            "patch_mse": self.patches.mse.tolist(),
        }
