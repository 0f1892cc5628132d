"""Outputs of the parts of a prediction's model, on the comparison's lattice and for any α.

No Qt here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from napari_msp.arrays import AnyArray, FloatArray
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.figures.grid import Cells
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.inference.prediction import Terms
from napari_msp.networks.equation import second_stage
from napari_msp.scan import Scan
from napari_msp.signal.maps import Map, Maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.compare.compared import Compared, Part, mixed
from napari_msp.ui.model_diagram.drawing import BRANCH, FIRST, INPUT
from napari_msp.ui.viewer_axes import to_shown

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_msp.inference.prediction import Prediction


class Stages(Terms):
    """The terms of equation (1) that a prediction kept, on the lattice of a comparison."""

    @classmethod
    def of(cls, prediction: Prediction, lattice: Lattice) -> Self:
        """Bring the stages of a prediction that kept them to a lattice."""
        terms = prediction.terms
        return cls(
            Maps(on_lattice(terms.first.image, lattice)),
            {
                platform: Maps(on_lattice(branch.image, lattice))
                for platform, branch in terms.branches.items()
            },
        )

    def slice_image(self, alpha: float, axis: int, index: int) -> SHImage:
        """Return one slice, counted and ordered as layers are: (1, rows, columns) voxels.

        Maps ask for scanner axes only, which coefficients have wherever the voxels lie.
        """
        first, *branches = (
            cut(each.image.coefficients, self.lattice, axis, index)
            for each in (self.first, *self.branches.values())
        )
        mask = cut(self.first.image.mask, self.lattice, axis, index)
        mixed = second_stage(first, branches, alpha)
        return replace(
            self.first.image, coefficients=mixed[None], affine=np.eye(4), mask=mask[None]
        )


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """The outputs of the parts of a prediction's model; each can stand in the prediction's cell.

    Attributes
    ----------
    alpha
        The model's own α.
    image
        The prediction, on the comparison's lattice.
    scan
        Scan that it was made from.
    stages
        Terms of equation (1); None for a model without stages.
    """

    alpha: float
    image: SHImage
    scan: Scan | None
    stages: Stages | None

    def of(self, part: str, alpha: float) -> tuple[SHImage, Part | None]:
        """Return a part's output on the comparison's lattice, and what it is.

        If the part is not there, it is the prediction as the model made it: None.

        Parameters
        ----------
        part
            Name of the part in the diagram.
        alpha
            α of equation (1).
        """
        if part == INPUT and self.scan is not None:
            return on_lattice(self.scan.sh, self.image.lattice), Part("input")
        if self.stages is None:
            return self.image, None
        if part == FIRST:
            return self.stages.first.image, Part("first stage")
        if part.startswith(BRANCH):
            platform = part.removeprefix(BRANCH)
            return self.stages.branches[platform].image, Part(f"branch {platform}")
        return (
            (self.image, None) if alpha == self.alpha else (self.stages.image(alpha), mixed(alpha))
        )


@dataclass(frozen=True, eq=False)
class RepaintedSlice:
    """One slice of a prediction's two cells for another α.

    Attributes
    ----------
    map
        Map that they show.
    alpha
        α of equation (1), which may have moved on since.
    image, error
        (rows, columns) of the prediction's cell and of the one below it; None without truth.
    axis, index
        Axis and number of the slice, as layers are counted.
    """

    map: Map
    alpha: float
    image: FloatArray
    error: FloatArray | None
    axis: int
    index: int

    def put_into(self, image: Layer, error: Layer) -> None:
        """Show them in two layers."""
        for layer, values in ((image, self.image), (error, self.error)):
            if values is not None:
                layer.data[(slice(None),) * self.axis + (self.index,)] = values
                layer.refresh(extent=False)


def repaint_slice(
    compared: Compared, shown: Cells, stages: Stages, alpha: float, axis: int, index: int
) -> RepaintedSlice:
    """Compute what one slice shows for an α, which is quick for any map.

    Parameters
    ----------
    compared, shown
        The comparison, and its cells of the map that is shown.
    stages
        Terms of equation (1) of the prediction.
    alpha
        α of equation (1).
    axis, index
        Axis and number of the slice, as layers are counted.
    """
    chosen, truth = shown.map, compared.comparison.truth
    maps = Maps(stages.slice_image(alpha, axis, index))
    values, inside = maps[chosen.name], maps.image.mask
    painted = chosen.shown(values)
    image = shown.shades(painted, inside) if shown.coloured else np.where(inside, painted, 0)
    error = None
    if truth is not None:
        true = cut(truth[chosen.name], stages.lattice, axis, index)[None]
        mask = cut(compared.comparison.mask, stages.lattice, axis, index)[None]
        error = chosen.error(values, true, mask)[0]
    return RepaintedSlice(chosen, alpha, image[0], error, axis, index)


def cut(values: AnyArray, lattice: Lattice, axis: int, index: int) -> AnyArray:
    """Return a slice of (X, Y, Z, …) values in stored order, counted and ordered as layers are."""
    slice_: AnyArray = np.take(to_shown(values, lattice), index, axis=axis)
    return slice_
