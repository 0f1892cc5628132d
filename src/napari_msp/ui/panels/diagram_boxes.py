"""Paint one box or one arrow of a diagram."""

from __future__ import annotations

from dataclasses import dataclass

from qtpy.QtCore import QPointF, QRectF, QSizeF, Qt
from qtpy.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPainterPath, QPen

from napari_msp.ui.diagram.drawing import Drawing, Node, Symbol
from napari_msp.ui.panels.symbols import SetSymbol, resized
from napari_msp.ui.widgets.colours import Colours

PADDING = 5.0
"""Between a box and what is written in it."""

ROUND = 5.0
"""Radius of corners."""

SMALLEST_BUTTON = 26.0
"""Height of what is clicked."""

HEAD = 4.5
"""Length of an arrow's head."""


@dataclass(frozen=True)
class Fonts:
    """Of symbols, and of all that is written out."""

    symbol: QFont
    caption: QFont

    @classmethod
    def of(cls, font: QFont) -> Fonts:
        """Derive them from a widget's font."""
        return cls(resized(font, 1.15), resized(font, 0.88))


def sizes_of(drawing: Drawing, fonts: Fonts) -> dict[str, QSizeF]:
    """Give the size that each node needs; boxes of one column are equally wide."""
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
