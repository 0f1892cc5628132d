"""Linear RISH: one scale for every SH order and place."""

from collections.abc import Sequence

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.baselines.base import CommonSpace, LearnedBaseline
from napari_msp.signal.sh_image import SHImage, with_coefficients
from napari_msp.signal.spherical_harmonics import rish, scale_orders

SMALLEST_RISH = 1e-12
"""Floor of a mean RISH before it divides or is divided."""

LARGEST_CHANGE = 2.0
"""Factor by which a place's scale may differ from the whole brain's (our choice)."""


class LinearRISH(LearnedBaseline):
    """Scale each SH order, at every place, by the root of target RISH over source RISH.

    Linear RISH harmonisation (Mirzaalian 2016). The original averages RISH over subjects that
    were warped to a template; here they are averaged over subjects and neighbouring places in
    `CommonSpace`, and fall back to the whole brain's average where nobody has brain. The signal
    is not clipped to [0, 1] afterwards.
    """

    name = "linear RISH"
    summary = "Each SH order scaled at each place by the root of the ratio of mean RISH."

    _space: CommonSpace
    _scales: FloatArray
    _log_changes: FloatArray

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Measure the mean RISH of each order on both platforms, overall and by place."""
        self._space = CommonSpace.of(inputs)
        source, target = _mean_rish(inputs), _mean_rish(targets)
        self._scales = np.sqrt(target / source)
        local_source = self._space.local_mean(inputs, inputs, _rish, source)
        local_target = self._space.local_mean(targets, inputs, _rish, target)
        ratio = np.maximum(local_target, SMALLEST_RISH) / np.maximum(local_source, SMALLEST_RISH)
        largest = np.log(LARGEST_CHANGE)
        self._log_changes = np.clip(np.log(np.sqrt(ratio) / self._scales), -largest, largest)

    def _map(self, image: SHImage) -> SHImage:
        """Scale the orders."""
        scales = self._scales * np.exp(self._space.at(image, self._log_changes))
        return with_coefficients(image, scale_orders(image.coefficients, scales))


def _rish(image: SHImage) -> FloatArray:
    return rish(image.coefficients)


def _mean_rish(images: Sequence[SHImage]) -> FloatArray:
    """Average RISH over each subject's mask, then over subjects, who so count alike."""
    means = [rish(image.coefficients[image.mask].astype(float)).mean(axis=0) for image in images]
    return np.asarray(np.maximum(np.mean(means, axis=0), SMALLEST_RISH))
