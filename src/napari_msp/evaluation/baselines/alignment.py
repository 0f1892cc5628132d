"""Statistical alignment: means and deviations matched over the image, by tissue and by place.

The paper cites it (its references 6 and 7). Statistics are those of the training subjects, never
those of the predicted subject.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.cluster.vq import kmeans2, vq

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.data.lattice import resample_mask
from napari_msp.evaluation.baselines.base import COHORTS, CommonSpace, LearnedBaseline
from napari_msp.signal.channels import Standardisation, measure_standardisation
from napari_msp.signal.sh_image import SHImage, with_coefficients
from napari_msp.signal.spherical_harmonics import rish

SMALLEST_REGION = 100
"""Number of training voxels below which a region gets the whole image's alignment (ours)."""

FLUID, GREY, WHITE = range(3)
"""Labels of the regions: CSF, grey and white matter. A voxel belongs to what fills most of it."""

OUTSIDE = -1
"""Label of voxels outside the mask."""

START = {FLUID: (5, 25), GREY: (50, 25), WHITE: (50, 90)}
"""Percentiles of signal and anisotropy at which k-means starts for each label (our choice)."""


class StatisticalAlignment(LearnedBaseline):
    """Match the mean and deviation of each coefficient, over the whole image.

    This is the global form of the statistical alignment that the paper cites (its references 6 and
    7). Statistics are those of the training subjects, never those of the predicted subject.
    """

    name = "alignment"
    summary = "Mean and deviation of each coefficient matched over the image."
    needs = COHORTS

    _source: Standardisation
    _target: Standardisation

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Measure mean and deviation per coefficient of both platforms, inside the masks."""
        self._source = measure_standardisation(inputs, per_order=False)
        self._target = measure_standardisation(targets, per_order=False)

    def _map(self, image: SHImage) -> SHImage:
        """Return (c - mean_source) / deviation_source · deviation_target + mean_target."""
        return with_coefficients(image, self._target.undo(self._source.apply(image)))


@dataclass(frozen=True)
class TissueRule:
    """A rule that divides a brain by signal and anisotropy.

    Attributes
    ----------
    spread
        (2,) deviations of the two features, which give them equal weight.
    centres
        (3, 2) features of each label's typical voxel, over `spread`.
    """

    spread: FloatArray
    centres: FloatArray

    def labels(self, image: SHImage) -> IntArray:
        """Return (X, Y, Z) labels of the nearest centre; `OUTSIDE` outside the mask."""
        labels = np.full(image.mask.shape, OUTSIDE)
        labels[image.mask] = vq(_features(image) / self.spread, self.centres)[0]
        return labels


def find_tissues(images: Sequence[SHImage]) -> TissueRule:
    """Cluster the training subjects' voxels by k-means with three centres (our choice).

    The features are the coefficient of order 0 and the root of the RISH of order 2: fluid has
    little signal left, white matter is anisotropic. Neither depends on the head's orientation.
    `images` are of the input platform.
    """
    features = np.concatenate([_features(image) for image in images])
    spread = np.maximum(features.std(axis=0), np.finfo(float).tiny)
    start = [
        [np.percentile(features[:, axis], share) for axis, share in enumerate(START[label])]
        for label in (FLUID, GREY, WHITE)
    ]
    centres, _ = kmeans2(features / spread, np.array(start) / spread, minit="matrix")
    return TissueRule(spread, centres)


def _features(image: SHImage) -> FloatArray:
    """Return (N, 2) signal and anisotropy of the in-mask voxels."""
    coefficients = image.coefficients[image.mask].astype(float)
    return np.stack([coefficients[:, 0], np.sqrt(rish(coefficients)[:, 1])], axis=-1)


class RegionalAlignment(LearnedBaseline):
    """Match the mean and deviation of each coefficient within regions of similar tissue.

    This is the regional form of the statistical alignment that the paper cites, which does not
    define its regions. Ours are three tissue classes (see `find_tissues`), found in the input image
    alone, so that a new subject is divided just as the training subjects were. Voxels of a finer
    target belong to the region of the nearest input voxel; those midway between two regions to
    neither.
    """

    name = "alignment by region"
    summary = "Mean and deviation matched in each kind of tissue."

    _tissues: TissueRule
    _alignments: dict[int, StatisticalAlignment]

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Find the regions, then align each by the voxels of both platforms in it."""
        self._tissues = find_tissues(inputs)
        labels = [self._tissues.labels(image) for image in inputs]
        self._alignments = {}
        for label in (FLUID, GREY, WHITE):
            parts = [replace(i, mask=each == label) for i, each in zip(inputs, labels, strict=True)]
            within = [_inside(t, part) for t, part in zip(targets, parts, strict=True)]
            large = sum(int(part.mask.sum()) for part in parts) >= SMALLEST_REGION
            pair = (parts, within) if large else (inputs, targets)
            self._alignments[label] = StatisticalAlignment().fit(*pair)

    def _map(self, image: SHImage) -> SHImage:
        """Align every region by its own statistics."""
        labels = self._tissues.labels(image)
        mapped = np.zeros_like(image.coefficients)
        for label, alignment in self._alignments.items():
            part = replace(image, mask=labels == label)
            mapped += alignment.predict(part, image.lattice).coefficients
        return with_coefficients(image, mapped)


def _inside(target: SHImage, part: SHImage) -> SHImage:
    """Restrict a target's mask to a part of the input."""
    inside = resample_mask(part.mask, part.lattice, target.lattice)
    elsewhere = resample_mask(~part.mask, part.lattice, target.lattice)
    return replace(target, mask=target.mask & inside & ~elsewhere)


class VoxelAlignment(LearnedBaseline):
    """Match the mean and deviation of each coefficient at every place.

    This is the voxelwise form of the statistical alignment that the paper cites. Mean and deviation
    are over the training subjects and over neighbouring places in `CommonSpace`, so that one
    subject is enough. They are measured on coefficients standardised over the whole image: where
    nobody has brain, whole-image alignment remains.
    """

    name = "alignment by voxel"
    summary = "Mean and deviation matched at each place of a common space."

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
        """Return local means and deviations of standardised channels, (X, Y, Z, C) each."""

        def moments(image: SHImage) -> FloatArray:
            channels = standard.apply(image)
            return np.concatenate([channels, np.square(channels)], axis=-1)

        count = len(standard.mean)
        overall = np.repeat([0.0, 1.0], count)
        local = self._space.local_mean(images, inputs, moments, overall)
        mean, squares = local[..., :count], local[..., count:]
        # The prior adds a share of variance 1 everywhere, so that this stays well above 0.
        return mean, np.sqrt(squares - np.square(mean))
