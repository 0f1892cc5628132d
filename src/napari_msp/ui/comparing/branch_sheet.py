"""What each branch gives and what it adds, as cells.

| first stage  | branch i   | … | second stage     |
| how they add | added by i | … | added by them all |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.figures.grid import Cells
from napari_msp.ui.comparing.sheet import VIEW, Sheet, words_cell
from napari_msp.ui.comparing.staged import Staged
from napari_msp.ui.layers import LayerData, map_layer
from napari_msp.ui.records import Record

BLUE, BLACK, ORANGE = (0.34, 0.71, 0.91, 1.0), (0.0, 0.0, 0.0, 1.0), (0.9, 0.6, 0.0, 1.0)
"""Below, at and above 0: told apart by the colour-blind, too (Okabe & Ito 2008)."""


def branch_sheet(record: Record, name: str, staged: Staged, alpha: float, shown: Cells) -> Sheet:
    """Lay the stages of a prediction out; SH averages in both rows, which add up.

    Parameters
    ----------
    record
        The prediction.
    name
        Its short name.
    staged
        Its stages.
    alpha
        Of equation (1).
    shown
        Cells of the comparison's SH average, whose contrast is kept.
    """
    image, lattice = staged.first.image, staged.lattice
    limit = staged.limit

    def cell(
        quantity: str, title: str, values: FloatArray, limits: tuple[float, float], **options: Any
    ) -> LayerData:
        return map_layer(
            record,
            quantity,
            np.where(image.mask, values, 0),
            lattice=lattice,
            mask=image.mask,
            limits=limits,
            name=f"{name} · {title}",
            view=VIEW,
            **options,
        )

    def picture(title: str, values: FloatArray) -> LayerData:
        return cell("SH average", title, values, shown.window)

    def added(title: str, values: FloatArray) -> LayerData:
        colours = _diverging()
        return cell("contribution", f"added by {title}", values, (-limit, limit), colormap=colours)

    rule = f"second stage = first stage\n+ added by all branches\nα = {alpha:.2f}"
    cells = [
        picture("first stage", staged.first.sh_average),
        *(picture(f"branch {each}", map_.sh_average) for each, map_ in staged.branches.items()),
        picture("second stage", staged.sh_average(alpha)),
        words_cell(record, lattice, rule),
        *(added(each, staged.contribution(each, alpha)) for each in staged.branches),
        added("all branches", staged.contributions(alpha)),
    ]
    low, high = shown.window
    legend = f"SH average: {low:.2g} to {high:.2g}   ·   added: ±{limit:.2g} {shown.unit}"
    return Sheet(cells, len(cells) // 2, len(cells) - 1, image, legend)


def _diverging() -> Any:
    from napari.utils.colormaps import Colormap

    return Colormap([BLUE, BLACK, ORANGE], name="blue-orange")
