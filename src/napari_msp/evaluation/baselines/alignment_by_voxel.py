"""Statistical alignment by the statistics of each place."""

from collections.abc import Sequence

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.baselines.baseline import LearnedBaseline
from napari_msp.evaluation.baselines.common_space import CommonSpace
from napari_msp.signal.sh_image import SHImage, with_coefficients
from napari_msp.signal.standardisation import Standardisation, measure_standardisation


class VoxelAlignment(LearnedBaseline):
    """Match the mean and deviation of each coefficient at every place.

    The voxelwise form of the statistical alignment that the paper cites. Mean and deviation are
    over the training subjects and over neighbouring places in `common_space`, so that one subject
    is enough. They are measured on coefficients standardised over the whole image: where nobody
    has brain, whole-image alignment is what remains.
    """

    name = "alignment by voxel"

    _source: Standardisation
    _target: Standardisation
    _space: CommonSpace
    _log_gain: FloatArray
    _offset: FloatArray

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Measure local means and deviations of both platforms on the common lattice."""
        self._source = measure_standardisation(inputs, per_order=False)
        self._target = measure_standardisation(targets, per_order=False)
        self._space = CommonSpace.of(inputs)
        source_mean, source_deviation = self._local_statistics(inputs, inputs, self._source)
        target_mean, target_deviation = self._local_statistics(targets, inputs, self._target)
        self._log_gain = np.log(target_deviation / source_deviation)
        self._offset = target_mean - np.exp(self._log_gain) * source_mean

    def _map(self, image: SHImage) -> SHImage:
        """Match place by place, between the two standardisations."""
        gain = np.exp(self._space.at(image, self._log_gain))
        matched = gain * self._source.apply(image) + self._space.at(image, self._offset)
        return with_coefficients(image, self._target.undo(matched))

    def _local_statistics(
        self, images: Sequence[SHImage], inputs: Sequence[SHImage], standard: Standardisation
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation of standardised channels, each (X, Y, Z, C) on the common lattice."""

        def moments(image: SHImage) -> FloatArray:
            channels = standard.apply(image)
            return np.concatenate([channels, np.square(channels)], axis=-1)

        count = len(standard.mean)
        overall = np.repeat([0.0, 1.0], count)
        local = self._space.local_mean(images, inputs, moments, overall)
        mean, squares = local[..., :count], local[..., count:]
        # The prior adds a share of variance 1 everywhere, so that this stays well above 0.
        return mean, np.sqrt(squares - np.square(mean))
