"""Input of a network: canonical voxel order, SH in the grid's axes, standardised channels.

Convolutions act along voxel axes only. Coefficients turned exactly into those axes make a network
independent of how a file is stored and how the head lay in the scanner.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform

from napari_msp.arrays import AnyArray, FloatArray, MaskArray
from napari_msp.data.lattice import (
    CANONICAL,
    Lattice,
    direction_cosines,
    reorder,
    resample_mask,
    resample_with_mask,
)
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import order_of, order_slices, rotate

ALIGNED = 1e-4
"""Sine of the angle up to which grid axes count as the scanner's: header rounding."""


@dataclass(frozen=True)
class GridImage:
    """SH coefficients in canonical voxel order and grid axes.

    Attributes
    ----------
    coefficients
        (X, Y, Z, C) float32; 0 outside the mask.
    mask
        (X, Y, Z).
    lattice
        Canonical lattice.
    shells
        Number of shells: each has the same number of the C coefficients, one shell after the other.
    """

    coefficients: FloatArray
    mask: MaskArray
    lattice: Lattice
    shells: int = 1

    def by_shell(self) -> "list[GridImage]":
        """Return an image for each shell; views of its coefficients."""
        if self.shells == 1:
            return [self]
        parts = np.split(self.coefficients, self.shells, axis=-1)
        return [replace(self, coefficients=part, shells=1) for part in parts]

    def resampled(self, lattice: Lattice) -> "GridImage":
        """Interpolate inside the mask only, to a lattice with parallel axes."""
        values, mask = resample_with_mask(self.coefficients, self.mask, self.lattice, lattice)
        values[~mask] = 0
        return GridImage(values, mask, lattice, self.shells)

    def extended(self, edge: float) -> "GridImage":
        """Repeat the last voxels of each axis for at least `edge` mm."""
        more = np.ceil(edge / self.lattice.voxel_sizes).astype(int)
        beyond = [(0, int(each)) for each in more]
        mask = np.pad(self.mask, beyond, mode="edge")
        coefficients = np.pad(self.coefficients, [*beyond, (0, 0)], mode="edge")
        lattice = Lattice.of(mask.shape, self.lattice.affine)
        return GridImage(coefficients, mask, lattice, self.shells)

    def resampled_mask(self, lattice: Lattice) -> MaskArray:
        """Return the mask on another lattice with parallel axes."""
        return resample_mask(self.mask, self.lattice, lattice)


def into_grid(image: SHImage | Mapping[int, SHImage], axes: FloatArray | None = None) -> GridImage:
    """Reorder an SH image to canonical order and turn its coefficients into grid axes.

    Parameters
    ----------
    image
        SH image in any stored order, or one for each of several shells.
    axes
        (3, 3) rotation from the wanted grid axes to the scanner's; None: the image's own. A target
        scan is turned into the axes of its input scan.
    """
    if isinstance(image, Mapping):
        parts = [into_grid(each, axes) for each in image.values()]
        stacked = np.concatenate([part.coefficients for part in parts], axis=-1)
        return replace(parts[0], coefficients=stacked, shells=len(parts))
    lattice = image.lattice.canonical
    coefficients = image.lattice.to_canonical(image.coefficients)
    turned = _turn(coefficients, (direction_cosines(lattice.affine) if axes is None else axes).T)
    return GridImage(turned, image.lattice.to_canonical(image.mask), lattice)


def out_of_grid(
    coefficients: FloatArray, lattice: Lattice, stored_affine: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Turn coefficients back into scanner axes and the voxels back into a stored order.

    Parameters
    ----------
    coefficients
        (X, Y, Z, C) in canonical order and grid axes, of one shell.
    lattice
        Lattice of the coefficients.
    stored_affine
        Affine of any image in the stored order wanted.

    Returns
    -------
    (X', Y', Z', C) coefficients and their (4, 4) affine.
    """
    stored, affine = to_stored_order(coefficients, lattice, stored_affine)
    return _turn(stored, direction_cosines(lattice.affine)), affine


def to_stored_order(
    array: AnyArray, lattice: Lattice, stored_affine: FloatArray
) -> tuple[AnyArray, FloatArray]:
    """Reorder a canonical (X, Y, Z, …) array as an image with `stored_affine` is stored."""
    back = ornt_transform(CANONICAL, io_orientation(stored_affine))
    return reorder(array, back), lattice.affine @ inv_ornt_aff(back, lattice.shape)


def _turn(coefficients: FloatArray, rotation: FloatArray) -> FloatArray:
    if np.abs(rotation - np.eye(3)).max() < ALIGNED:
        return coefficients
    return rotate(coefficients, rotation)


SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Standardisation:
    """Mean and deviation of every coefficient over a platform's training subjects.

    (C,) in SH units, of several shells one after the other.
    """

    mean: FloatArray
    deviation: FloatArray

    def __post_init__(self) -> None:
        finite = np.isfinite(self.mean).all() and np.isfinite(self.deviation).all()
        if self.mean.shape != self.deviation.shape or not finite or (self.deviation <= 0).any():
            raise ValueError("means must be finite, deviations as many and positive")

    def by_shell(self, shells: int) -> "list[Standardisation]":
        """Return the standardisation of each shell."""
        halves = zip(np.split(self.mean, shells), np.split(self.deviation, shells), strict=True)
        return [Standardisation(mean, deviation) for mean, deviation in halves]

    def apply(self, image: SHImage | GridImage) -> FloatArray:
        """Return (X, Y, Z, C) standardised channels, 0 outside the mask."""
        channels: FloatArray = image.coefficients - self.mean
        channels /= self.deviation
        channels[~image.mask] = 0
        return channels.astype(np.float32, copy=False)

    def undo(self, channels: FloatArray) -> FloatArray:
        """Return (..., C) coefficients from standardised channels."""
        return np.asarray(channels * self.deviation + self.mean, dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the values as plain lists."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Standardisation":
        """Read the result of `to_json`."""
        return cls(
            np.asarray(content["mean"], dtype=np.float32),
            np.asarray(content["deviation"], dtype=np.float32),
        )


def measure_standardisation(
    images: Iterable[SHImage | GridImage], per_order: bool
) -> Standardisation:
    """Measure a platform's standardisation over the in-mask voxels of its images.

    Parameters
    ----------
    images
        Images of one platform's training subjects only; read one at a time.
    per_order
        False: each channel has its own mean and deviation (paper). True: only l = 0 is centred and
        each order has one deviation, so that standardising commutes with rotations (our choice).
    """
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    shells = 1
    for image in images:
        shells = image.shells if isinstance(image, GridImage) else 1
        values = image.coefficients[image.mask].astype(float)
        count += len(values)
        total = total + values.sum(axis=0)
        squares = squares + np.square(values).sum(axis=0)
    if count == 0:
        raise ValueError("no in-mask voxel to measure a standardisation on")
    mean = total / count
    second_moment = squares / count
    variance = second_moment - mean**2
    if per_order:
        each = len(mean) // shells
        for shell in range(0, len(mean), each):
            for degree, within in order_slices(order_of(each)).items():
                part = slice(shell + within.start, shell + within.stop)
                if degree > 0:
                    mean[part] = 0
                    variance[part] = second_moment[part].mean()
    deviation = np.sqrt(np.maximum(variance, SMALLEST_DEVIATION**2))
    return Standardisation(mean.astype(np.float32), deviation.astype(np.float32))
