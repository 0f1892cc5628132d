"""Place and paint a diagram: symbols with their indices, boxes, arrows and lanes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from qtpy.QtCore import QPointF, QRectF, QSizeF, Qt
from qtpy.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPainterPath, QPen

from napari_msp.ui.model_diagram.drawing import Edge, ModelDrawing, Node, Symbol
from napari_msp.ui.widgets.colours import Colours, mixed, resized

INDEX_SIZE = 0.68
"""Size of an index relative to its letter."""

PADDING = 5.0
"""Pixels between a box and its text."""

ROUND = 5.0
"""Radius of corners."""

SMALLEST_BUTTON = 26.0
"""Smallest width and height of a button, in pixels."""

HEAD = 4.5
"""Length of an arrow's head."""

USUAL_LINE = 1.4
"""Width of an arrow without a weight."""

MARGIN = 5.0
"""Pixels around everything, with room for a focus ring."""

INNER = 5.0
"""Pixels between a lane's edge and its contents."""

FRAME = 3.0
"""Pixels between networks and the frame around them."""

SMALLEST_GAP, LARGEST_GAP = 8.0, 60.0
"""Pixels between columns; more where an arrow enters or leaves a lane."""

BETWEEN = 6.0
"""Pixels between lanes, and between the two levels of one."""


# --- Symbols and sizes -----------------------------------------------------------------------


class SetSymbol:
    """A symbol in a font, ready to be painted.

    Parameters
    ----------
    symbol
        Symbol to set; letters in italics, numbers and parentheses upright.
    font
        Font of its base.
    """

    def __init__(self, symbol: Symbol, font: QFont) -> None:
        self._glyphs: list[tuple[str, QFont, QPointF]] = []
        self.width = self._set(symbol, font, 0.0)
        self.height = QFontMetricsF(font).capHeight()

    def _set(self, symbol: Symbol, font: QFont, x: float) -> float:
        """Place a symbol at x; return where it ends."""
        metrics, small = QFontMetricsF(font), resized(font, INDEX_SIZE)
        x = self._run(symbol.base, font, x, 0.0)
        end = max(
            self._run(symbol.above, small, x, -0.62 * metrics.capHeight()),
            self._run(symbol.below, small, x, 0.32 * metrics.capHeight()),
        )
        if symbol.argument is not None:
            end = self._run("(", font, end, 0.0)
            end = self._set(symbol.argument, font, end)
            end = self._run(")", font, end, 0.0)
        return end

    def _run(self, text: str, font: QFont, x: float, y: float) -> float:
        for letter in text:
            face = QFont(font)
            face.setItalic(letter.isalpha())
            self._glyphs.append((letter, face, QPointF(x, y)))
            x += QFontMetricsF(face).horizontalAdvance(letter)
        return x

    def paint(self, painter: QPainter, centre: QPointF) -> None:
        """Paint with the middle of the base letter's height at `centre`."""
        start = centre + QPointF(-self.width / 2, self.height / 2)
        for letter, font, place in self._glyphs:
            painter.setFont(font)
            painter.drawText(start + place, letter)


@dataclass(frozen=True)
class Fonts:
    """Fonts of symbols, and of captions and other text."""

    symbol: QFont
    caption: QFont

    @classmethod
    def of(cls, font: QFont) -> Fonts:
        """Derive the fonts from a widget's font."""
        return cls(resized(font, 1.15), resized(font, 0.88))


def sizes_of(drawing: ModelDrawing, fonts: Fonts) -> dict[str, QSizeF]:
    """Return the size that each node needs; boxes of one column are equally wide."""
    sizes = {name: _size(node, fonts) for name, node in drawing.nodes.items()}
    for name, node in drawing.nodes.items():
        alike = [
            n for n in drawing.nodes.values() if (n.column, n.shape) == (node.column, node.shape)
        ]
        sizes[name].setWidth(max(sizes[each.name].width() for each in alike))
    return sizes


def _size(node: Node, fonts: Fonts) -> QSizeF:
    if node.shape == "mean":
        edge = QFontMetricsF(fonts.caption).horizontalAdvance("0.00") * 2
        return QSizeF(edge, edge)
    symbol = 0.0 if node.symbol is None else SetSymbol(node.symbol, fonts.symbol).width
    if node.shape == "text" and not node.caption:
        return QSizeF(symbol + 8, QFontMetricsF(fonts.symbol).height() + 2)
    caption = QFontMetricsF(fonts.caption)
    width = max(symbol, caption.horizontalAdvance(node.caption)) + 2 * PADDING
    lines = QFontMetricsF(fonts.symbol).height() if node.symbol is not None else 0.0
    lines += caption.height() if node.caption else 0.0
    return QSizeF(max(width, SMALLEST_BUTTON), max(lines + PADDING, SMALLEST_BUTTON))


# --- Places ----------------------------------------------------------------------------------

Sizes = Mapping[str, QSizeF]
"""Size that each node needs, by name."""


_LEVELS = {"upper": -1, "middle": 0, "lower": 1}


@dataclass(frozen=True)
class Layout:
    """Places in pixels: of each node by name, of each lane's band, and the size of everything.

    Frames surround the networks that the drawing's note is about; the note lies below everything.
    """

    boxes: Mapping[str, QRectF]
    bands: tuple[QRectF, ...]
    size: QSizeF
    frames: tuple[QRectF, ...] = ()
    note: QRectF = field(default_factory=QRectF)


def smallest_width(drawing: ModelDrawing, sizes: Sizes) -> float:
    """Return the width below which columns would overlap."""
    columns = _columns(drawing, sizes, folded=_can_fold(drawing))
    return _used(columns, _gaps(drawing, columns))


def arrange(drawing: ModelDrawing, sizes: Sizes, header: float, width: float) -> Layout:
    """Place the nodes.

    A prediction that comes from outside the lanes has a column of its own where there is room, else
    it lies below the node that it comes from.

    Parameters
    ----------
    drawing, sizes
        Drawing, and the size that each node needs.
    header
        Height of a lane's title, where lanes are marked.
    width
        Width that is available.
    """
    columns = _columns(drawing, sizes, folded=False)
    folded = _can_fold(drawing) and _used(columns, _gaps(drawing, columns)) > width
    if folded:
        columns = _columns(drawing, sizes, folded=True)
    centres = _centres(columns, _gaps(drawing, columns), width)

    in_lanes = [node for node in drawing.nodes.values() if node.lane is not None]
    tallest = dict.fromkeys(_LEVELS, 0.0)
    for node in in_lanes:
        tallest[node.level] = max(tallest[node.level], sizes[node.name].height())
    body = max(tallest["middle"], 2 * max(tallest["upper"], tallest["lower"]) + BETWEEN)
    lane_height = (header if drawing.lanes else 0.0) + body + 2 * INNER
    count = 1 + max(node.lane or 0 for node in in_lanes)
    lanes_height = count * lane_height + (count - 1) * BETWEEN
    beside = [sizes[node.name].height() for node in drawing.nodes.values() if node.lane is None]
    height = max(lanes_height, sum(beside) if folded else max(beside)) + 2 * MARGIN
    tops = [(height - lanes_height) / 2 + lane * (lane_height + BETWEEN) for lane in range(count)]

    boxes = {}
    for node in drawing.nodes.values():
        y = height / 2
        if node.lane is not None:
            step = _LEVELS[node.level] * (body + BETWEEN) / 4
            y = tops[node.lane] + lane_height - INNER - body / 2 + step
        boxes[node.name] = QRectF(QPointF(), sizes[node.name])
        boxes[node.name].moveCenter(QPointF(centres[min(node.column, max(centres))], y))
    if folded:
        _fold(drawing, boxes)
    inside = [boxes[node.name] for node in in_lanes]
    left = min(box.left() for box in inside) - INNER
    right = max(box.right() for box in inside) + INNER
    marked = tops[: len(drawing.lanes)]
    bands = tuple(QRectF(left, top, right - left, lane_height) for top in marked)
    if not drawing.note:
        return Layout(boxes, bands, QSizeF(width, height))
    around = (-FRAME, -FRAME, FRAME, FRAME)
    frames = tuple(
        boxes[node.name].adjusted(*around) for node in in_lanes if node.shape == "network"
    )
    note = QRectF(left, height - MARGIN + FRAME, width - left, header)
    return Layout(boxes, bands, QSizeF(width, note.bottom() + MARGIN), frames, note)


def _can_fold(drawing: ModelDrawing) -> bool:
    return drawing.nodes["prediction"].lane is None


def _columns(drawing: ModelDrawing, sizes: Sizes, folded: bool) -> dict[int, float]:
    """Return the width of each column; a folded prediction lies in the column before its own."""
    last = max(node.column for node in drawing.nodes.values()) - folded
    columns: dict[int, float] = {}
    for node in drawing.nodes.values():
        column = min(node.column, last)
        columns[column] = max(columns.get(column, 0.0), sizes[node.name].width())
    return dict(sorted(columns.items()))


def _gaps(drawing: ModelDrawing, columns: dict[int, float]) -> list[float]:
    """Return the smallest gap after each column but the last."""
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


def _fold(drawing: ModelDrawing, boxes: dict[str, QRectF]) -> None:
    """Put the prediction under the node that it comes from, both around the middle."""
    source = next(edge.start for edge in drawing.edges if edge.end == "prediction")
    upper, lower = boxes[source], boxes["prediction"]
    gap = 3 * BETWEEN
    shift = (lower.height() + gap) / 2
    upper.translate(0, -shift)
    lower.moveTop(upper.bottom() + gap)


# --- Paint -----------------------------------------------------------------------------------


def paint_box(
    painter: QPainter,
    box: QRectF,
    node: Node,
    fonts: Fonts,
    *,
    fill: QColor,
    border: QColor,
    text: QColor,
) -> None:
    """Paint a value or a network with its symbol and its caption; a text has no box."""
    if node.shape != "text":
        painter.setPen(QPen(border, 1.2))
        painter.setBrush(fill)
        # Values are round, networks have corners.
        radius = min(box.height() / 2, 13.0) if node.shape == "value" else ROUND / 2
        painter.drawRoundedRect(box, radius, radius)
    painter.setPen(text)
    if node.symbol is None:
        painter.setFont(fonts.caption)
        painter.drawText(box, Qt.AlignCenter, node.caption)
        return
    centre = box.center()
    if node.caption:
        line = QFontMetricsF(fonts.caption).height()
        centre -= QPointF(0, line / 2)
        below = QRectF(box.left(), box.bottom() - line - PADDING / 2, box.width(), line)
        painter.setFont(fonts.caption)
        painter.drawText(below, Qt.AlignCenter, node.caption)
    SetSymbol(node.symbol, fonts.symbol).paint(painter, centre)


def paint_mean(
    painter: QPainter, box: QRectF, alpha: float, fonts: Fonts, colours: Colours, lit: bool
) -> None:
    """Paint α and its value inside a ring that is filled as far as α goes."""
    ring = box.adjusted(2.5, 2.5, -2.5, -2.5)
    painter.setBrush(colours.ground)
    painter.setPen(QPen(colours.box, 4))
    painter.drawEllipse(ring)
    pen = QPen(colours.lit if lit else colours.faint, 4)
    pen.setCapStyle(Qt.FlatCap)
    painter.setPen(pen)
    painter.drawArc(ring, 90 * 16, -round(alpha * 360 * 16))
    painter.setPen(colours.text)
    line = QFontMetricsF(fonts.caption).height()
    SetSymbol(Symbol("α"), fonts.symbol).paint(painter, ring.center() - QPointF(0, line / 2))
    painter.setFont(fonts.caption)
    painter.drawText(ring.translated(0, line / 2), Qt.AlignCenter, f"{alpha:.2f}")


def paint_arrow(
    painter: QPainter, start: QPointF, end: QPointF, colour: QColor, width: float, down: bool
) -> None:
    """Paint a bent arrow that leaves and arrives to the right, or downwards."""
    way = end - start
    bend = QPointF(0, max(way.y() / 2, 6)) if down else QPointF(max(way.x() / 2, 6), 0)
    along = QPointF(0, 1) if down else QPointF(1, 0)
    across = QPointF(1, 0) if down else QPointF(0, 1)
    tip = HEAD + width / 2
    path = QPainterPath(start)
    path.cubicTo(start + bend, end - bend, end - along * tip * 0.8)
    painter.setBrush(Qt.NoBrush)
    pen = QPen(colour, width)
    pen.setCapStyle(Qt.FlatCap)
    painter.setPen(pen)
    painter.drawPath(path)
    head = QPainterPath(end)
    head.lineTo(end - along * tip + across * tip * 0.6)
    head.lineTo(end - along * tip - across * tip * 0.6)
    head.closeSubpath()
    painter.fillPath(head, colour)


@dataclass(frozen=True)
class DiagramPainter:
    """A painter of the diagram, with all that the picture depends on.

    Attributes
    ----------
    drawing, layout
        Nodes and arrows, and their places.
    alpha
        α of equation (1).
    lit
        Name of the node whose output is shown; "" for none.
    colours, fonts
        Colours and fonts of the widget.
    """

    drawing: ModelDrawing
    layout: Layout
    alpha: float
    lit: str
    colours: Colours
    fonts: Fonts

    @property
    def weights(self) -> Mapping[str, float]:
        """Weights of the platforms' terms in equation (1)."""
        return self.drawing.outline.weights(self.alpha)

    def paint(self, painter: QPainter) -> None:
        """Paint lanes, then arrows, then boxes."""
        painter.setRenderHint(QPainter.Antialiasing)
        way = self.drawing.way_to(self.lit)
        self._paint_lanes(painter)
        self._paint_note(painter)
        for edge in sorted(self.drawing.edges, key=lambda edge: edge in way):
            self._paint_edge(painter, edge, edge in way)
        on_way = {self.lit} | {edge.start for edge in way}
        for node in self.drawing.nodes.values():
            self._paint_node(painter, node, node.name in on_way)

    def _paint_lanes(self, painter: QPainter) -> None:
        line = QFontMetricsF(self.fonts.caption).height()
        painter.setFont(self.fonts.caption)
        for platform, band in zip(self.drawing.lanes, self.layout.bands, strict=True):
            target = platform == self.drawing.outline.target
            painter.setPen(self.colours.line if target else Qt.NoPen)
            painter.setBrush(self.colours.band)
            painter.drawRoundedRect(band, 6, 6)
            title = QRectF(band.left() + INNER, band.top() + 3, band.width() - 2 * INNER, line)
            painter.setPen(self.colours.text if target else self.colours.faint)
            painter.drawText(title, Qt.AlignLeft | Qt.AlignVCenter, platform)
            weight = f"× {self.weights[platform]:.2f}"
            painter.drawText(title, Qt.AlignRight | Qt.AlignVCenter, weight)

    def _paint_note(self, painter: QPainter) -> None:
        """Frame the networks that the note is about, and write it behind a sample of the frame."""
        if not self.drawing.note:
            return
        note = self.layout.note
        height = QFontMetricsF(self.fonts.caption).ascent()
        sample = QRectF(note.left(), note.center().y() - height / 2, 1.6 * height, height)
        painter.setBrush(Qt.NoBrush)
        painter.setPen(QPen(self.colours.faint, 1.2, Qt.DashLine))
        for frame in (*self.layout.frames, sample):
            painter.drawRoundedRect(frame, ROUND, ROUND)
        painter.setPen(self.colours.text)
        painter.setFont(self.fonts.caption)
        words = note.adjusted(sample.width() + PADDING, 0, 0, 0)
        painter.drawText(words, Qt.AlignLeft | Qt.AlignVCenter, self.drawing.note)

    def _paint_edge(self, painter: QPainter, edge: Edge, lit: bool) -> None:
        start, end = self.layout.boxes[edge.start], self.layout.boxes[edge.end]
        colour, width = self.colours.lit if lit else self.colours.line, USUAL_LINE
        if edge.weight_of:
            weight = self.weights[edge.weight_of]
            width = 0.8 + 4.0 * weight
            colour = mixed(self.colours.ground, colour, 0.35 + 0.65 * min(1.0, 2 * weight))
        down = edge.down or start.right() > end.left()
        if down:
            begin = QPointF(start.center().x(), start.bottom())
            finish = QPointF(end.center().x(), end.top())
        else:
            begin = QPointF(start.right(), start.center().y())
            finish = QPointF(end.left(), end.center().y()) + self._entry(edge, end)
        paint_arrow(painter, begin, finish, colour, width, down)

    def _entry(self, edge: Edge, box: QRectF) -> QPointF:
        """Return where an arrow enters a box: arrows that share one enter above one another."""
        ends = [each for each in self.drawing.edges if each.end == edge.end and not each.down]
        y = ((ends.index(edge) + 0.5) / len(ends) - 0.5) * box.height() * 0.7
        if self.drawing.nodes[edge.end].shape != "mean":
            return QPointF(0, y)
        radius = box.width() / 2
        return QPointF(radius - (radius**2 - y**2) ** 0.5, y)

    def _paint_node(self, painter: QPainter, node: Node, lit: bool) -> None:
        box, colours = self.layout.boxes[node.name], self.colours
        if node.shape == "mean":
            paint_mean(painter, box, self.alpha, self.fonts, colours, lit)
        elif not node.part:
            border = colours.lit if lit else colours.line
            text = colours.faint if node.shape == "text" and not lit else colours.text
            paint_box(painter, box, node, self.fonts, fill=colours.ground, border=border, text=text)
