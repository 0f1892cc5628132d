"""Predictions of one head beside each other, on one lattice, with one mask and shared maps."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.errors import Advice, Give, UserError
from napari_msp.evaluation.placement import common_mask, on_lattice, placement
from napari_msp.signal.maps import TensorMaps, sh_average, tensor_maps
from napari_msp.signal.sh_image import SHImage


@dataclass(frozen=True, eq=False)
class MappedImage:
    """An SH image with its maps, each made once, when first asked for.

    All FA come through the SH route, for truth and predictions alike.
    """

    image: SHImage

    @cached_property
    def sh_average(self) -> FloatArray:
        """(X, Y, Z) mean of the first six coefficients, in SH units."""
        return sh_average(self.image)

    @cached_property
    def tensor(self) -> TensorMaps:
        """FA, mean diffusivity and principal direction, from one fit."""
        return tensor_maps(self.image)

    @cached_property
    def colour_fa(self) -> FloatArray:
        """(X, Y, Z, 3) |e₁| · FA, in [0, 1]."""
        return self.tensor.colour

    @cached_property
    def fa(self) -> FloatArray:
        """(X, Y, Z) fractional anisotropy, in [0, 1]."""
        # |e₁| has unit length, so the length of the colour is FA: no second tensor fit.
        length: FloatArray = np.linalg.norm(self.colour_fa, axis=-1)
        return length


@dataclass(frozen=True, eq=False)
class Comparison:
    """Predictions, and where it exists the truth, on one lattice.

    Attributes
    ----------
    truth
        Untouched; None where there is none.
    predictions
        By name, on the lattice of truth, or of the first prediction where there is no truth.
    mask
        (X, Y, Z) voxels in every mask: all predictions are judged on the same voxels.
    placements
        By name, what was done to bring a prediction there.
    """

    truth: MappedImage | None
    predictions: dict[str, MappedImage]
    mask: MaskArray
    placements: dict[str, str]

    @property
    def reference(self) -> SHImage:
        """The image whose lattice and contrast hold: truth, else the first prediction."""
        first = next(iter(self.predictions.values()))
        return (self.truth or first).image

    @property
    def lattice(self) -> Lattice:
        """Where all its voxels lie."""
        return self.reference.lattice


def line_up(truth: SHImage | None, predictions: dict[str, SHImage]) -> Comparison:
    """Bring predictions onto truth's lattice, or onto the first one's where there is no truth.

    Parameters
    ----------
    truth
        Never resampled.
    predictions
        By name; at least one.

    Raises
    ------
    UserError
        When there is no prediction, SH orders differ, or the brains hardly overlap.
    """
    if not predictions:
        raise UserError(
            "none was given", field="predictions", remedy=Give("predictions", "at least one")
        )
    reference = truth if truth is not None else next(iter(predictions.values()))
    placed: dict[str, SHImage] = {}
    mask = reference.mask
    for name, prediction in predictions.items():
        if prediction.order != reference.order:
            raise UserError(
                f"is of SH order {prediction.order}, the reference of {reference.order}",
                name,
                field="predictions",
                remedy=Advice("give images of one order"),
            )
        placed[name] = on_lattice(prediction, reference.lattice)
        mask = mask & common_mask(placed[name], reference, name)
    if not mask.any():
        raise UserError(
            "no voxel lies in all masks",
            ", ".join(predictions),
            field="predictions",
            remedy=Advice("give images of one region"),
        )
    return Comparison(
        None if truth is None else MappedImage(truth),
        {name: MappedImage(image) for name, image in placed.items()},
        mask,
        {
            name: placement(prediction.lattice, reference.lattice)
            for name, prediction in predictions.items()
        },
    )
