"""The cells of a comparison as layers for a grid, in reading order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.figures.grid import (
    DISAGREEMENT,
    EXPECTED,
    INPUT_SCAN,
    SIGNED_COLOURS,
    Cells,
    FigureCell,
    differences,
    doubt_shown,
)
from napari_msp.formatting import rounded
from napari_msp.scan import Scan
from napari_msp.signal.maps import Maps
from napari_msp.ui.compare.compared import Compared, Part, part_of
from napari_msp.ui.compare.stages import Stages
from napari_msp.ui.grid_fit import SPACE, ShownHead
from napari_msp.ui.layers import LayerData, apart, is_prediction, map_layer

VIEW = "compare"
"""`Shown.view` of all layers that a comparison makes."""

SCALED = ("error", "disagreement", "expected error")
"""Kinds of cells on the scale of the colour bar."""

BLANK = "blank"
"""Quantity of a cell that holds words only."""


@dataclass(frozen=True, eq=False)
class GridCells:
    """Cells for a grid.

    Attributes
    ----------
    layers
        Layer data row by row, with equally many in each row.
    columns
        Number of columns.
    bar
        Number of the cell that carries the colour bar of all maps; None: none does.
    reference
        Image whose brain the cells are fitted to.
    legend
        Text that names the scans, and says what black, white and the ends of the bar mean.
    places
        Numbers of the cells with a prediction's image and map, by prediction.
    truth, source
        Numbers of the cells with the ground truth and the input scan; None: none has it.
    unit
        Unit of the bar's numbers.
    """

    layers: Sequence[LayerData]
    columns: int
    bar: int | None
    reference: ShownHead
    legend: str
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    truth: int | None = None
    source: int | None = None
    unit: str = ""


def comparison_cells(compared: Compared, shown: Cells) -> GridCells:
    """Lay a comparison out as in Fig. 3.

    | ground truth | prediction A | prediction B |
    | input scan   | MSE of A     | MSE of B     |

    Without truth and input scan the first column would be empty; it is left out.

    Parameters
    ----------
    compared
        Comparison whose cells they are.
    shown
        Its cells for one map.
    """
    truth, source, predictions = compared.truth, compared.scan, list(compared.predictions.values())
    above = [source if truth is None else truth, *predictions]
    below = [None if truth is None else source, *predictions]
    first = int(shown.images[0].kind == "none")
    layers = [
        _cell(compared, shown, cell, scan)
        for row, scans in ((shown.images, above), (shown.maps, below))
        for cell, scan in list(zip(row, scans, strict=True))[first:]
    ]
    columns = len(shown.images) - first
    scaled = [n for n, cell in enumerate(shown.maps[first:]) if cell.kind in SCALED]
    return GridCells(
        layers,
        columns,
        columns + scaled[-1] if scaled else None,
        compared.comparison.reference,
        legend(compared, shown),
        {
            name: (n - first, columns + n - first)
            for n, name in enumerate(compared.predictions, start=1)
        },
        truth=None if truth is None else 0,
        source=None if source is None else columns if truth is not None else 0,
        unit=shown.map_unit,
    )


def signed_cells(compared: Compared, shown: Cells, layout: GridCells) -> GridCells | None:
    """Replace squared errors by prediction minus truth; None where that has no sign.

    Blue is below truth, orange above, black is right. All differences share one scale.

    Parameters
    ----------
    compared
        Comparison whose cells they are.
    shown
        Its cells for one map.
    layout
        Cells as `comparison_cells` lays them out.
    """
    if compared.truth is None or shown.coloured:
        return None
    signed, limit = differences(shown)
    mask, layers = compared.comparison.mask, list(layout.layers)
    for each, values in signed.items():
        scan = compared.predictions[each]
        layers[layout.places[each][1]] = map_layer(
            compared.seen[each],
            "difference",
            values,
            lattice=shown.lattice,
            mask=mask,
            limits=(-limit, limit),
            name=cell_name(scan, compared.title(each), "minus truth"),
            view=VIEW,
            colormap=_diverging(),
        )
    scale = f"minus truth: ±{limit:.2g} {shown.unit}, blue below, orange above"
    told = legend(compared, shown, scale)
    return replace(layout, layers=layers, legend=told, unit=shown.unit)


def branch_cells(scan: Scan, name: str, stages: Stages, alpha: float, shown: Cells) -> GridCells:
    """Lay out each branch's output and, below, what it adds: SH averages, which add up.

    | first stage  | branch i   | … | second stage      |
    | how they add | added by i | … | added by them all |

    Parameters
    ----------
    scan
        The prediction.
    name
        Its short name.
    stages
        Its stages.
    alpha
        α of equation (1).
    shown
        Cells of the comparison's SH average, whose contrast is kept.
    """
    image, limit = stages.first.image, stages.limit

    def cell(of: Scan, quantity: str, title: str, values: FloatArray, **options: Any) -> LayerData:
        inside = np.where(image.mask, values, 0)
        options |= {"lattice": stages.lattice, "mask": image.mask, "view": VIEW}
        return map_layer(of, quantity, inside, name=f"{name} · {title}", **options)

    picture = partial(cell, quantity=shown.map.title, limits=shown.window)

    def stage(title: str, maps: Maps) -> LayerData:
        part = part_of(scan, Part(title), maps.image)
        return picture(part, title=title, values=maps["sh_average"])

    added_by = partial(
        cell, scan, "contribution", limits=(-limit, limit), alpha=alpha, colormap=_diverging()
    )
    rule = f"second stage = first stage\n+ added by all branches\nα = {alpha:.2f}"
    cells = [
        stage("first stage", stages.first),
        *(stage(f"branch {each}", maps) for each, maps in stages.branches.items()),
        picture(scan, title="second stage", values=stages.sh_average(alpha), alpha=alpha),
        words_cell(scan, stages.lattice, rule),
        *(
            added_by(f"added by {each}", stages.contribution(each, alpha))
            for each in stages.branches
        ),
        added_by("added by all branches", stages.contributions(alpha)),
    ]
    low, high = shown.window
    images = f"{shown.map.title}: {low:.2g} to {high:.2g} {shown.unit}"
    scales = (images, f"added: ±{limit:.2g} {shown.unit}")
    return GridCells(cells, len(cells) // 2, len(cells) - 1, image, SPACE.join(scales))


def cell_name(scan: Scan, name: str, quantity: str) -> str:
    """Return the name of a prediction's cell, such as "sub-01 MSP · MSE"."""
    owner = name if name == scan.subject else f"{scan.subject} {name}"
    return f"{owner}{apart(scan)} · {quantity}"


def legend(compared: Compared, shown: Cells, of_maps: str = "") -> str:
    """Return the scans' names, and what black, white and the ends of the maps' scale mean.

    Parameters
    ----------
    compared, shown
        Comparison, and its cells for the shown map.
    of_maps
        Description of the second row, where it is not errors or doubts.
    """
    scans = compared.scans_in_words
    if compared.interpolated_names:  # else they look smooth by themselves
        scans.append(f"{', '.join(compared.interpolated_names)}: interpolated")
    low, high = shown.window
    if shown.coloured:
        scales = [f"colours: 0 to {high:.2g} {shown.unit}"]
    else:
        scales = [f"images: {low:.2g} to {high:.2g} {shown.unit}"]
    if of_maps:
        scales.append(of_maps)
    elif any(cell.kind in SCALED for cell in shown.maps):
        kind = _doubt_of(compared) if compared.truth is None else "errors"
        if kind == DISAGREEMENT and compared.expected_error:
            kind += " (not all models are calibrated)"
        elif kind == EXPECTED:
            kind += " (for scans like those of its calibration)"
        most = rounded(shown.limit, shown.map_unit)
        scales.append(f"{kind}: 0 to {most} {shown.map_unit}")
    return "\n".join(SPACE.join(line) for line in (scans, scales) if line)


def _cell(compared: Compared, shown: Cells, cell: FigureCell, scan: Scan | None) -> LayerData:
    if cell.kind == "none" or scan is None:
        return _why_empty(compared, cell.name)
    if cell.kind == "image":
        return image_layer(compared, shown, cell, scan)
    error = cell.kind == "error"
    quantity = shown.map.error_title if error else cell.kind
    return map_layer(
        compared.seen.get(cell.name, scan),
        quantity,
        # Viridis is not black at 0, so undefined voxels are not coloured at all.
        cell.values if error else np.where(cell.shown, cell.values, np.nan),
        lattice=shown.lattice,
        mask=cell.shown,
        limits=(0.0, shown.limit),
        name=cell_name(scan, compared.title(cell.name), quantity),
        view=VIEW,
    )


def image_layer(compared: Compared, shown: Cells, cell: FigureCell, scan: Scan) -> LayerData:
    """Return an image's layer, in the contrast that all images share."""
    values, inside, lattice = cell.values, cell.shown, shown.lattice
    if cell.name == INPUT_SCAN and compared.scan_maps is not None:
        # In its own voxels, which the layer's position aligns.
        values = shown.map.shown(compared.scan_maps[shown.map.name])
        inside, lattice = scan.sh.mask, scan.sh.lattice
    named = cell.name in compared.predictions
    title = compared.title(cell.name) if named else scan.name or scan.subject
    if not named and title in {compared.title(each) for each in compared.predictions}:
        title = f"{title} ({cell.name})"
    name = cell_name(scan, title, shown.map.title)
    if cell.name == INPUT_SCAN and compared.input_b_value:
        name = f"{name} ({compared.input_b_value})"
    layer = map_layer(
        compared.seen.get(cell.name, scan),
        shown.map.title,
        shown.shades(values, inside) if shown.coloured else np.where(inside, values, 0),
        lattice=lattice,
        mask=inside,
        limits=shown.window,
        name=name,
        view=VIEW,
    )
    if shown.coloured:
        layer[1]["metadata"]["colours multiplied by"] = 1 / shown.window[1]
    return layer


def _doubt_of(compared: Compared) -> str:
    """Return the name of what the second row shows where there is no truth."""
    return doubt_shown(compared.predictions, compared.disagreement, compared.expected_error)


def words_cell(scan: Scan, lattice: Lattice, words: str) -> LayerData:
    """Return a cell that holds nothing but words."""
    nothing = np.zeros(lattice.shape, dtype=np.float32)
    return map_layer(
        scan, BLANK, nothing, lattice=lattice, limits=(0.0, 1.0), name=words, view=VIEW
    )


def _why_empty(compared: Compared, prediction: str) -> LayerData:
    """Return a cell that says why it is empty."""
    if prediction:
        scan = compared.predictions[prediction]
        missing = _doubt_of(compared)
        if not is_prediction(scan):
            why = "the image came without it"
        elif missing == DISAGREEMENT:
            why = "one network has nothing to disagree with"
        else:
            why = "its model is not calibrated"
        name = f"{prediction} · no {missing}:\n{why}"
    else:
        name = "no ground truth" if compared.truth is None else "no input scan"
        scan = next(iter(compared.predictions.values()))
    return words_cell(scan, compared.comparison.lattice, name)


def _diverging() -> Any:
    from napari.utils.colormaps import Colormap

    return Colormap(SIGNED_COLOURS, name="blue-orange")
