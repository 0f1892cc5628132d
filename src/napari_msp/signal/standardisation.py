"""Bring SH coefficients of a platform to zero mean and unit spread, and back."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.signal.grid_frame import GridImage
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import order_of, order_slices

SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Standardisation:
    """Mean and deviation of every coefficient over a platform's training subjects.

    Attributes
    ----------
    mean, deviation
        (C,) in SH units.
    """

    mean: FloatArray
    deviation: FloatArray

    def apply(self, image: SHImage | GridImage) -> FloatArray:
        """Give (X, Y, Z, C) standardised channels, 0 outside the mask."""
        channels = (image.coefficients - self.mean) / self.deviation
        return np.where(image.mask[..., None], channels, 0).astype(np.float32)

    def undo(self, channels: FloatArray) -> FloatArray:
        """Give (..., C) coefficients back from standardised channels."""
        return np.asarray(channels * self.deviation + self.mean, dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """Give plain lists."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Standardisation":
        """Read what `to_json` gave."""
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
        Of one platform, training subjects only; read one at a time.
    per_order
        False: every channel by its own mean and deviation (paper). True: only l = 0 is centred and
        each order has one deviation, so that standardising commutes with rotations (our choice).

    Raises
    ------
    ValueError
        When there is no voxel to measure.
    """
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for image in images:
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
        for degree, part in order_slices(order_of(len(mean))).items():
            if degree > 0:
                mean[part] = 0
                variance[part] = second_moment[part].mean()
    deviation = np.sqrt(np.maximum(variance, SMALLEST_DEVIATION**2))
    return Standardisation(mean.astype(np.float32), deviation.astype(np.float32))
