"""Where the boxes of a drawing lie, for a given width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from qtpy.QtCore import QPointF, QRectF, QSizeF

from napari_msp.ui.model_diagram.drawing import Drawing

MARGIN = 5.0
"""Around everything; leaves room for a focus ring."""

INNER = 5.0
"""Between a lane's edge and what lies in it."""

SMALLEST_GAP, LARGEST_GAP = 8.0, 60.0
"""Between columns; more where an arrow enters or leaves a lane."""

BETWEEN = 6.0
"""Between lanes, and between the two levels of one."""

Sizes = Mapping[str, QSizeF]
"""What each node needs, by name."""


@dataclass(frozen=True)
class Layout:
    """Places in pixels: of each node by name, of each lane's band, and the size of everything."""

    boxes: Mapping[str, QRectF]
    bands: tuple[QRectF, ...]
    size: QSizeF


def smallest_width(drawing: Drawing, sizes: Sizes) -> float:
    """Give the width under which columns would overlap."""
    columns = _columns(drawing, sizes, folded=_can_fold(drawing))
    return _used(columns, _gaps(drawing, columns))


def arrange(drawing: Drawing, sizes: Sizes, header: float, width: float) -> Layout:
    """Place the nodes.

    A prediction that comes from outside the lanes has a column of its own where there is room,
    else it lies below the node that it comes from.

    Parameters
    ----------
    drawing, sizes
        Nodes, and what each needs.
    header
        Height of a lane's title, where lanes are marked.
    width
        Available.
    """
    columns = _columns(drawing, sizes, folded=False)
    folded = _can_fold(drawing) and _used(columns, _gaps(drawing, columns)) > width
    if folded:
        columns = _columns(drawing, sizes, folded=True)
    centres = _centres(columns, _gaps(drawing, columns), width)

    body = _body(drawing, sizes)
    lane_height = (header if drawing.lanes else 0.0) + body + 2 * INNER
    count = 1 + max(node.lane for node in drawing.nodes.values() if node.lane is not None)
    lanes_height = count * lane_height + (count - 1) * BETWEEN
    beside = [sizes[node.name].height() for node in drawing.nodes.values() if node.lane is None]
    height = max(lanes_height, sum(beside) if folded else max(beside)) + 2 * MARGIN
    tops = [(height - lanes_height) / 2 + lane * (lane_height + BETWEEN) for lane in range(count)]

    boxes = {}
    for node in drawing.nodes.values():
        y = height / 2
        if node.lane is not None:
            step = {"upper": -1, "middle": 0, "lower": 1}[node.level] * (body + BETWEEN) / 4
            y = tops[node.lane] + lane_height - INNER - body / 2 + step
        centre = QPointF(centres[min(node.column, max(centres))], y)
        boxes[node.name] = _around(centre, sizes[node.name])
    if folded:
        _fold(drawing, boxes)
    inside = [boxes[node.name] for node in drawing.nodes.values() if node.lane is not None]
    left = min(box.left() for box in inside) - INNER
    right = max(box.right() for box in inside) + INNER
    marked = tops[: len(drawing.lanes)]
    bands = tuple(QRectF(left, top, right - left, lane_height) for top in marked)
    return Layout(boxes, bands, QSizeF(width, height))


def _can_fold(drawing: Drawing) -> bool:
    return drawing.nodes["prediction"].lane is None


def _columns(drawing: Drawing, sizes: Sizes, folded: bool) -> dict[int, float]:
    """Width of each column; a folded prediction lies in the column before its own."""
    last = max(node.column for node in drawing.nodes.values()) - folded
    columns: dict[int, float] = {}
    for node in drawing.nodes.values():
        column = min(node.column, last)
        columns[column] = max(columns.get(column, 0.0), sizes[node.name].width())
    return dict(sorted(columns.items()))


def _gaps(drawing: Drawing, columns: dict[int, float]) -> list[float]:
    """Smallest gap after each column but the last."""
    in_lane = {node.column for node in drawing.nodes.values() if node.lane is not None}
    return [
        SMALLEST_GAP + (INNER if (one in in_lane) != (other in in_lane) else 0)
        for one, other in pairwise(columns)
    ]


def _used(columns: dict[int, float], gaps: list[float]) -> float:
    return sum(columns.values()) + sum(gaps) + 2 * MARGIN


def _centres(columns: dict[int, float], gaps: list[float], width: float) -> dict[int, float]:
    """Spread the columns over the width, at most `LARGEST_GAP` apart, and centre them."""
    spare = max(0.0, width - _used(columns, gaps)) / len(gaps)
    gaps = [min(max(gap, LARGEST_GAP), gap + spare) for gap in gaps]
    left = (width - _used(columns, gaps)) / 2 + MARGIN
    centres = {}
    for (column, wide), gap in zip(columns.items(), [*gaps, 0.0], strict=True):
        centres[column] = left + wide / 2
        left += wide + gap
    return centres


def _body(drawing: Drawing, sizes: Sizes) -> float:
    """Height of what lies in a lane."""

    def tallest(level: str) -> float:
        nodes = drawing.nodes.values()
        heights = [
            sizes[node.name].height()
            for node in nodes
            if node.lane is not None and node.level == level
        ]
        return max(heights, default=0.0)

    return max(tallest("middle"), 2 * max(tallest("upper"), tallest("lower")) + BETWEEN)


def _around(centre: QPointF, size: QSizeF) -> QRectF:
    corner = centre - QPointF(size.width() / 2, size.height() / 2)
    return QRectF(corner, size)


def _fold(drawing: Drawing, boxes: dict[str, QRectF]) -> None:
    """Put the prediction under the node that it comes from, both around the middle."""
    source = next(edge.start for edge in drawing.edges if edge.end == "prediction")
    upper, lower = boxes[source], boxes["prediction"]
    gap = 3 * BETWEEN
    shift = (lower.height() + gap) / 2
    upper.translate(0, -shift)
    lower.moveTop(upper.bottom() + gap)
