"""Paint a whole diagram, all but its buttons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QFontMetricsF, QPainter

from napari_msp.ui.diagram.drawing import Drawing, Edge, Node
from napari_msp.ui.panels.diagram_boxes import Fonts, paint_arrow, paint_box, paint_mean
from napari_msp.ui.panels.diagram_layout import INNER, Layout
from napari_msp.ui.widgets.colours import Colours, mixed

USUAL_LINE = 1.4
"""Width of an arrow without a weight."""


@dataclass(frozen=True)
class DiagramPainter:
    """Knows everything that a picture of the diagram depends on.

    Attributes
    ----------
    drawing, layout
        What, and where.
    alpha, weights
        α, and the weight of each platform's term.
    lit
        Name of the node whose output is shown; "" for none.
    colours, fonts
        Of the widget.
    """

    drawing: Drawing
    layout: Layout
    alpha: float
    weights: Mapping[str, float]
    lit: str
    colours: Colours
    fonts: Fonts

    def paint(self, painter: QPainter) -> None:
        """Paint lanes, then arrows, then boxes."""
        painter.setRenderHint(QPainter.Antialiasing)
        way = self.drawing.way_to(self.lit)
        self._paint_lanes(painter)
        for edge in sorted(self.drawing.edges, key=lambda edge: edge in way):
            self._paint_edge(painter, edge, edge in way)
        on_way = {self.lit} | {edge.start for edge in way}
        for node in self.drawing.nodes.values():
            self._paint_node(painter, node, node.name in on_way)

    def _paint_lanes(self, painter: QPainter) -> None:
        line = QFontMetricsF(self.fonts.caption).height()
        painter.setFont(self.fonts.caption)
        for platform, band in zip(self.drawing.lanes, self.layout.bands, strict=True):
            target = platform == self.drawing.target
            painter.setPen(self.colours.line if target else Qt.NoPen)
            painter.setBrush(self.colours.band)
            painter.drawRoundedRect(band, 6, 6)
            title = QRectF(band.left() + INNER, band.top() + 3, band.width() - 2 * INNER, line)
            painter.setPen(self.colours.text if target else self.colours.faint)
            painter.drawText(title, Qt.AlignLeft | Qt.AlignVCenter, platform)
            weight = f"× {self.weights[platform]:.2f}"
            painter.drawText(title, Qt.AlignRight | Qt.AlignVCenter, weight)

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
        """Let arrows that end in one box arrive one above the other, on its side or its circle."""
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
