"""A prediction's stages on the comparison's lattice, mixed anew for any α; no Qt here.

ŷ²_T = (1-α) ŷ¹_T + α · mean, where the mean is of the P-1 terms ŷ¹_T and N_iT(z_i).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_msp.arrays import AnyArray, FloatArray
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.alignment import on_lattice
from napari_msp.evaluation.comparison import MappedImage
from napari_msp.signal.maps import colour_fa
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.layers import to_shown

if TYPE_CHECKING:
    from napari_msp.inference.harmonize import Prediction


@dataclass(frozen=True, eq=False)
class Staged:
    """What a prediction kept, all on one lattice; each map is made when first asked for.

    Attributes
    ----------
    first, mean
        ŷ¹_T, and the prediction for α = 1.
    branches
        N_iT(z_i) by platform i.
    """

    first: MappedImage
    mean: MappedImage
    branches: Mapping[str, MappedImage]

    @classmethod
    def of(cls, prediction: Prediction, lattice: Lattice) -> Staged:
        """Bring the stages of a prediction that kept them to a lattice."""
        from napari_msp.inference.stages import at_alpha  # loads torch, which takes seconds

        return cls(
            MappedImage(on_lattice(at_alpha(prediction, 0.0), lattice)),
            MappedImage(on_lattice(at_alpha(prediction, 1.0), lattice)),
            {
                platform: MappedImage(on_lattice(branch, lattice))
                for platform, branch in prediction.branches.items()
            },
        )

    @property
    def lattice(self) -> Lattice:
        """Where all of it lies."""
        return self.first.image.lattice

    def image(self, alpha: float) -> SHImage:
        """Give the prediction for an α."""
        mixed = _mix(self.first.image.coefficients, self.mean.image.coefficients, alpha)
        return replace(self.first.image, coefficients=mixed)

    def sh_average(self, alpha: float) -> FloatArray:
        """(X, Y, Z) SH average for an α, in SH units: it is linear in α, so this is quick."""
        return _mix(self.first.sh_average, self.mean.sh_average, alpha)

    def contribution(self, platform: str, alpha: float) -> FloatArray:
        """(X, Y, Z) what a branch adds to the SH average: α/(P-1) · (N_iT(z_i) - ŷ¹_T)."""
        branch = self.branches[platform].sh_average
        share = np.float32(alpha / (len(self.branches) + 1))
        added: FloatArray = share * (branch - self.first.sh_average)
        return added

    def contributions(self, alpha: float) -> FloatArray:
        """(X, Y, Z) what all branches add to the SH average: ŷ²_T - ŷ¹_T."""
        added: FloatArray = np.float32(alpha) * self._most
        return added

    @cached_property
    def limit(self) -> float:
        """98th percentile of the size of the branches' contributions for α = 1, in SH units."""
        mask = self.first.image.mask
        each_one = [self.contribution(platform, 1.0)[mask] for platform in self.branches]
        limit = float(np.percentile(np.abs(each_one), 98))
        return limit if limit > 0 else 1.0

    def colour_slice(self, alpha: float, axis: int, index: int) -> FloatArray:
        """Give colour FA of one slice, counted and ordered as layers are: (rows, columns, 3)."""
        first = cut(self.first.image.coefficients, self.lattice, axis, index)
        mean = cut(self.mean.image.coefficients, self.lattice, axis, index)
        mask = cut(self.first.image.mask, self.lattice, axis, index)
        # A tensor asks for scanner axes only, which coefficients have wherever the voxels lie.
        thin = SHImage(
            _mix(first, mean, alpha)[None], np.eye(4), mask[None], self.first.image.b_value
        )
        colours: FloatArray = colour_fa(thin)[0]
        return colours

    @cached_property
    def _most(self) -> FloatArray:
        difference: FloatArray = self.mean.sh_average - self.first.sh_average
        return difference


def cut(values: AnyArray, lattice: Lattice, axis: int, index: int) -> AnyArray:
    """Give a slice of (X, Y, Z, …) values in stored order, counted and ordered as layers are."""
    slice_: AnyArray = np.take(to_shown(values, lattice), index, axis=axis)
    return slice_


def _mix(first: FloatArray, mean: FloatArray, alpha: float) -> FloatArray:
    mixed: FloatArray = np.float32(1 - alpha) * first
    mixed += np.float32(alpha) * mean
    return mixed
