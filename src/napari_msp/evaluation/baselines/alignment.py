"""Statistical alignment over the whole image."""

from collections.abc import Sequence

from napari_msp.evaluation.baselines.baseline import LearnedBaseline
from napari_msp.signal.sh_image import SHImage, with_coefficients
from napari_msp.signal.standardisation import Standardisation, measure_standardisation


class StatisticalAlignment(LearnedBaseline):
    """Match the mean and deviation of each coefficient, over the whole image.

    The global form of the statistical alignment that the paper cites (its references 6 and 7).
    Statistics are those of the training subjects, never of the subject that is predicted.
    """

    name = "alignment"

    _source: Standardisation
    _target: Standardisation

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Measure mean and deviation per coefficient of both platforms, inside the masks."""
        self._source = measure_standardisation(inputs, per_order=False)
        self._target = measure_standardisation(targets, per_order=False)

    def _map(self, image: SHImage) -> SHImage:
        """Give (c - mean_source) / deviation_source · deviation_target + mean_target."""
        return with_coefficients(image, self._target.undo(self._source.apply(image)))
