"""Statistical alignment within CSF, grey and white matter."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_msp.data.lattice import resample_mask
from napari_msp.evaluation.baselines.alignment import StatisticalAlignment
from napari_msp.evaluation.baselines.baseline import LearnedBaseline
from napari_msp.evaluation.baselines.regions import FLUID, GREY, WHITE, Regions, find_regions
from napari_msp.signal.sh_image import SHImage, with_coefficients

SMALLEST_REGION = 100
"""Training voxels below which a region is treated as the whole image is (our choice)."""


class RegionalAlignment(LearnedBaseline):
    """Match the mean and deviation of each coefficient within regions of like tissue.

    The regional form of the statistical alignment that the paper cites. Its regions are not
    told; ours are three kinds of tissue (see `find_regions`), found in the input image alone, so
    that a new subject is divided just as the training subjects were. Voxels of a finer target
    belong to the region of the nearest input voxel; those midway between two regions to neither.
    """

    name = "alignment by region"

    _regions: Regions
    _alignments: dict[int, StatisticalAlignment]

    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Find the regions, then align each by the voxels of both platforms in it."""
        self._regions = find_regions(inputs)
        labels = [self._regions.labels(image) for image in inputs]
        self._alignments = {}
        for label in (FLUID, GREY, WHITE):
            parts = [replace(i, mask=each == label) for i, each in zip(inputs, labels, strict=True)]
            within = [_inside(t, part) for t, part in zip(targets, parts, strict=True)]
            large = sum(int(part.mask.sum()) for part in parts) >= SMALLEST_REGION
            pair = (parts, within) if large else (inputs, targets)
            self._alignments[label] = StatisticalAlignment().fit(*pair)

    def _map(self, image: SHImage) -> SHImage:
        """Align every region by its own statistics."""
        labels = self._regions.labels(image)
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
