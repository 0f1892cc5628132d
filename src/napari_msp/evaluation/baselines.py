"""What a network has to beat: interpolation, statistical alignment, linear RISH."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.alignment import on_lattice
from napari_msp.signal.rish import rish, scale_orders
from napari_msp.signal.sh_image import SHImage, with_coefficients
from napari_msp.signal.standardisation import Standardisation, measure_standardisation

SMALLEST_RISH = 1e-12
"""Floor of a source's mean RISH before it divides."""


class Baseline(ABC):
    """Learns from training subjects, then predicts a target platform on any lattice."""

    name: str

    @abstractmethod
    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> "Baseline":
        """Learn from the images of the training subjects on both platforms; give itself.

        Parameters
        ----------
        inputs, targets
            Of the same subjects in the same order; each platform on its own lattice.
        """

    @abstractmethod
    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Predict the target platform's image on `lattice`.

        Raises
        ------
        RuntimeError
            When called before `fit`.
        """


class Interpolation(Baseline):
    """No harmonisation: the input itself, interpolated onto the target lattice."""

    name = "interpolation"

    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> "Interpolation":
        """Learn nothing."""
        return self

    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Interpolate linearly."""
        return on_lattice(image, lattice)


class StatisticalAlignment(Baseline):
    """Match the mean and deviation of each coefficient, over the whole image.

    The global form of the statistical alignment that the paper cites (its references 6 and 7);
    those also have regional and voxelwise forms, which need a common space. Statistics are those
    of the training subjects, never of the subject that is predicted.
    """

    name = "statistical alignment"

    def __init__(self) -> None:
        self._source: Standardisation | None = None
        self._target: Standardisation | None = None
        self._like: SHImage | None = None

    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> "StatisticalAlignment":
        """Measure mean and deviation per coefficient of both platforms, inside the masks."""
        _check_pairs(inputs, targets)
        self._source = measure_standardisation(inputs, per_order=False)
        self._target = measure_standardisation(targets, per_order=False)
        self._like = targets[0]
        return self

    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Give (c - mean_source) / deviation_source · deviation_target + mean_target."""
        if self._source is None or self._target is None or self._like is None:
            raise RuntimeError("fit the baseline first")
        matched = self._target.undo(self._source.apply(image))
        return on_lattice(_as_target(with_coefficients(image, matched), self._like), lattice)


class LinearRISH(Baseline):
    """Scale each SH order by the root of target RISH over source RISH.

    Linear RISH harmonisation (Mirzaalian 2016) with one scale an order for the whole brain. The
    original has a scale for every voxel of a template to which all subjects are registered; this
    one needs no registration and can correct no regional difference.
    """

    name = "linear RISH"

    def __init__(self) -> None:
        self._scales: FloatArray | None = None
        self._like: SHImage | None = None

    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> "LinearRISH":
        """Measure the mean RISH of each order on both platforms, inside the masks."""
        _check_pairs(inputs, targets)
        ratio = _mean_rish(targets) / np.maximum(_mean_rish(inputs), SMALLEST_RISH)
        self._scales = np.sqrt(ratio)
        self._like = targets[0]
        return self

    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Scale the orders, then interpolate."""
        if self._scales is None or self._like is None:
            raise RuntimeError("fit the baseline first")
        scaled = scale_orders(image.coefficients, self._scales)
        return on_lattice(_as_target(with_coefficients(image, scaled), self._like), lattice)


def _check_pairs(inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
    if not inputs or len(inputs) != len(targets):
        raise ValueError(
            f"a baseline learns from pairs: {len(inputs)} inputs and {len(targets)} targets given"
        )


def _mean_rish(images: Sequence[SHImage]) -> FloatArray:
    """Average RISH over each subject's mask, then over subjects, who so count alike."""
    means = [rish(image.coefficients[image.mask].astype(float)).mean(axis=0) for image in images]
    mean: FloatArray = np.mean(means, axis=0)
    return mean


def _as_target(image: SHImage, target: SHImage) -> SHImage:
    """Claim the target platform's b-value and λ for a prediction of it."""
    return replace(image, b_value=target.b_value, regularisation=target.regularisation)
