"""What a prediction's two cells show for another α: plain arrays, in the layers' order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.figures.grid import Cells
from napari_msp.signal.maps import squared_error
from napari_msp.ui.comparing.staged import Staged, cut
from napari_msp.ui.comparing.work import Compared
from napari_msp.ui.layers import to_shown


@dataclass(frozen=True, eq=False)
class Repaint:
    """New contents of two cells.

    Attributes
    ----------
    quantity
        What they show.
    image
        Of the prediction's cell.
    error
        Of the one beneath; None where there is no truth.
    where
        Axis and index of the slice that it is; None: all of it.
    """

    quantity: str
    image: FloatArray
    error: FloatArray | None
    where: tuple[int, int] | None = None

    def put_into(self, image: Any, error: Any) -> None:
        """Show them in two layers."""
        for layer, data in ((image, self.image), (error, self.error)):
            if data is None:
                continue
            if self.where is None:
                layer.data = data
            else:
                axis, index = self.where
                layer.data[(slice(None),) * axis + (index,)] = data
                layer.refresh(extent=False)


def sh_average(compared: Compared, staged: Staged, alpha: float) -> Repaint:
    """Give the whole SH average and its error."""
    comparison, lattice = compared.comparison, staged.lattice
    values = staged.sh_average(alpha)
    image = to_shown(np.where(staged.first.image.mask, values, 0), lattice)
    if comparison.truth is None:
        return Repaint("SH average", image, None)
    error = squared_error(values, comparison.truth.sh_average, comparison.mask)
    return Repaint("SH average", image, to_shown(error, lattice))


def colour_fa(
    compared: Compared, shown: Cells, staged: Staged, alpha: float, where: tuple[int, int]
) -> Repaint:
    """Give one slice of colour FA and of its error: a tensor takes its time."""
    comparison, lattice = compared.comparison, staged.lattice
    colours = staged.colour_slice(alpha, *where)
    image = shown.shades(colours, cut(staged.first.image.mask, lattice, *where))
    if comparison.truth is None:
        return Repaint("colour FA", image, None, where)
    true, mask = comparison.truth.colour_fa, comparison.mask
    error = squared_error(colours[None], cut(true, lattice, *where)[None])[0]
    error = np.where(cut(mask, lattice, *where), error, 0)
    return Repaint("colour FA", image, error, where)
