"""Linear RISH: one scale for every SH order and place."""

from collections.abc import Iterable, Sequence

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.baselines.base import WIDTH, CommonSpace, LearnedBaseline
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.signal.sh_image import SHImage, with_coefficients
from napari_msp.signal.spherical_harmonics import rish, scale_orders

SMALLEST_RISH = 1e-12
"""Floor of a mean RISH before a division."""

LARGEST_CHANGE = 2.0
"""Largest factor between a place's scale and the whole brain's (our choice)."""

WIDTHS = (3.0 / 2.355, 2.5, WIDTH)
"""Standard deviations in mm of the smoothing that are tried (our choice): from the usual 3 mm at
half maximum, for heads warped to a template, to what unwarped heads need."""

MOST_TRIED = 4
"""Largest number of training heads used to choose the smoothing; more would take longer."""


class LinearRISH(LearnedBaseline):
    """Scale each SH order, at every place, by the root of target RISH over source RISH.

    This is linear RISH harmonization (Mirzaalian 2016). The original averages RISH over subjects
    warped to a template; here it is averaged over subjects and neighbouring places in
    `CommonSpace`, and falls back to the whole brain's average where nobody has brain. The best
    width depends on how alike heads lie: each training head is predicted by the others with each of
    `WIDTHS`, and the best is taken; `WIDTH` with a single head. The signal is not clipped to [0, 1]
    afterwards.
    """

    name = "linear RISH"
    summary = "Each SH order scaled at each place by the root of the ratio of mean RISH."

    width: float
    """Standard deviation of the chosen smoothing, in mm."""

    _space: CommonSpace
    _scales: FloatArray
    _log_changes: FloatArray

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Measure the mean RISH of each order on both platforms, overall and by place."""
        self._space = CommonSpace.of(inputs)
        heads = [_RishHead(self._space, *pair) for pair in zip(inputs, targets, strict=True)]
        self.width = self._best_width(heads)
        self._set(heads, self.width)

    def _map(self, image: SHImage) -> SHImage:
        """Scale the orders."""
        scales = self._scales * np.exp(self._space.at(image, self._log_changes))
        return with_coefficients(image, scale_orders(image.coefficients, scales))

    def _best_width(self, heads: "Sequence[_RishHead]") -> float:
        """Return the width with which the first heads are predicted best by the others."""
        if len(heads) < 2:
            return WIDTH
        errors = dict.fromkeys(WIDTHS, 0.0)
        for left_out in heads[:MOST_TRIED]:
            others = [head for head in heads if head is not left_out]
            for width in WIDTHS:
                self._set(others, width)
                errors[width] += left_out.error(self._map(left_out.input))
        return min(errors, key=errors.__getitem__)

    def _set(self, heads: "Sequence[_RishHead]", width: float) -> None:
        """Set the scales from some heads, smoothed."""
        source = _mean_rish(head.input for head in heads)
        target = _mean_rish(head.target for head in heads)
        self._scales = np.sqrt(target / source)
        brought = [head.source_rish for head in heads], [head.target_rish for head in heads]
        before, after = (
            self._space.mean_around(np.sum(each, axis=0), overall, width)
            for each, overall in zip(brought, (source, target), strict=True)
        )
        ratio = np.maximum(after, SMALLEST_RISH) / np.maximum(before, SMALLEST_RISH)
        largest = np.log(LARGEST_CHANGE)
        self._log_changes = np.clip(np.log(np.sqrt(ratio) / self._scales), -largest, largest)


class _RishHead:
    """A training head, with its RISH in the common space computed once."""

    def __init__(self, space: CommonSpace, source: SHImage, target: SHImage) -> None:
        self.input, self.target = source, target
        self.source_rish = space.to_common_space(source, source, _rish)
        self.target_rish = space.to_common_space(target, source, _rish)

    def error(self, predicted: SHImage) -> float:
        """Return the mean squared error of the coefficients where both have brain."""
        there = on_lattice(predicted, self.target.lattice)
        both = there.mask & self.target.mask
        return float(np.square((there.coefficients - self.target.coefficients)[both]).mean())


def _rish(image: SHImage) -> FloatArray:
    return rish(image.coefficients)


def _mean_rish(images: Iterable[SHImage]) -> FloatArray:
    """Average RISH over each subject's mask, then over subjects, who thus count equally."""
    means = [rish(image.coefficients[image.mask].astype(float)).mean(axis=0) for image in images]
    return np.asarray(np.maximum(np.mean(means, axis=0), SMALLEST_RISH))
