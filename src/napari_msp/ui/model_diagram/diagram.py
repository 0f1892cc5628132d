"""The loaded model as a drawing, in which the part whose output is shown lights up."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QFontMetricsF, QPainter, QPen
from qtpy.QtWidgets import QAbstractButton, QSizePolicy, QToolTip, QWidget

from napari_msp.ui.glossary import tooltip
from napari_msp.ui.model_diagram.drawing import ModelDrawing, Node, Outline, draw
from napari_msp.ui.model_diagram.painting import (
    DiagramPainter,
    Fonts,
    Layout,
    arrange,
    paint_box,
    sizes_of,
    smallest_width,
)
from napari_msp.ui.widgets.colours import Themed, colours_of, mixed

USUAL_WIDTH = 360
"""Usual width in pixels."""

RING = 3
"""Pixels around a button's box for the focus ring."""


class ModelDiagram(Themed):
    """The diagram of one model. Parts with an output that can be shown are buttons.

    Parts are "input" (x), "first" (ŷ¹_T), "branch:<platform>" (N_iT(z_i)) and "second" (the
    prediction, of models without stages too).

    Attributes
    ----------
    buttons
        Buttons by the part that they show, in the order of the Tab key.
    lit
        Part that is lit; "" for none.
    """

    part_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._drawing: ModelDrawing | None = None
        self._layout: Layout | None = None
        self.buttons: dict[str, PartButton] = {}
        self.lit = ""
        self._alpha = 1.0
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Fixed)
        self.set_model(None)

    def set_model(self, outline: Outline | None) -> None:
        """Draw another model, with nothing lit; None: draw nothing."""
        for button in self.buttons.values():
            button.hide()
            button.deleteLater()
        self.lit, self.buttons = "", {}
        self._drawing, name = None, "no model"
        if outline is not None:
            self._drawing = draw(outline)
            name = f"{outline.title} for {outline.target}"
            if self._drawing.note:
                name += f", {self._drawing.note}"
            for part, node in self._drawing.parts.items():
                self.buttons[part] = self._button_for(node)
        self.setAccessibleName(f"Diagram of {name}")
        self.restyle()

    def set_alpha(self, alpha: float) -> None:
        """Show α: its value, and the weight of every term as the width of its arrow."""
        self._alpha = alpha
        self.update()

    def light(self, part: str) -> None:
        """Light up a part and the way to it; "" or a part that the model lacks: nothing."""
        self.lit = part if part in self.buttons else ""
        for name, button in self.buttons.items():
            button.setChecked(name == self.lit)
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802
        """Ask for the usual width."""
        smallest = self.minimumSizeHint()
        return QSize(max(USUAL_WIDTH, smallest.width()), smallest.height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Return the width at which nothing overlaps."""
        if self._drawing is None or self._layout is None:
            return QSize(0, 0)
        width = smallest_width(self._drawing, sizes_of(self._drawing, Fonts.of(self.font())))
        return QSize(round(width + 0.5), round(self._layout.size.height() + 0.5))

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """Place the boxes again."""
        self._arrange()

    def restyle(self) -> None:
        """Place and paint everything again."""
        self._arrange()
        self.updateGeometry()

    def event(self, event: Any) -> bool:
        """Explain the node under the pointer, if it is no button."""
        if event.type() == QEvent.ToolTip:
            node = self._node_at(QPointF(event.pos()))
            if node is not None:
                text = f"{tooltip(node.term)}<p>{node.description}.</p>"
                QToolTip.showText(event.globalPos(), text, self)
                return True
        return bool(super().event(event))

    def paintEvent(self, event: Any) -> None:  # noqa: N802
        """Paint everything but the buttons, which paint themselves."""
        if self._drawing is None or self._layout is None:
            return
        DiagramPainter(
            drawing=self._drawing,
            layout=self._layout,
            alpha=self._alpha,
            lit=self._drawing.parts[self.lit].name if self.lit else "",
            colours=colours_of(self),
            fonts=Fonts.of(self.font()),
        ).paint(QPainter(self))

    def _button_for(self, node: Node) -> PartButton:
        button = PartButton(node, self)
        button.clicked.connect(lambda: self.part_chosen.emit(node.part))
        button.show()
        return button

    def _node_at(self, point: QPointF) -> Node | None:
        if self._drawing is None or self._layout is None:
            return None
        boxes = self._layout.boxes
        return next(
            (n for n in self._drawing.nodes.values() if boxes[n.name].contains(point)), None
        )

    def _arrange(self) -> None:
        if self._drawing is None:
            self._layout = None
            return
        fonts = Fonts.of(self.font())
        header = QFontMetricsF(fonts.caption).height()
        sizes = sizes_of(self._drawing, fonts)
        self._layout = arrange(self._drawing, sizes, header, self.width())
        for part, node in self._drawing.parts.items():
            self.buttons[part].place(self._layout.boxes[node.name])
        self.update()


class PartButton(QAbstractButton):
    """A button that paints a node, with a ring when it has the focus; checked is lit.

    Space and Enter press it, arrow keys go to the next or the previous button.
    """

    def __init__(self, node: Node, parent: QWidget) -> None:
        super().__init__(parent)
        self._node = node
        self.setCheckable(True)
        self.setCursor(Qt.PointingHandCursor)
        self.setFocusPolicy(Qt.StrongFocus)
        self.setToolTip(tooltip(node.term) + f"<p>{node.description}. Click to show it.</p>")
        self.setAccessibleName(node.description)

    def place(self, box: QRectF) -> None:
        """Cover a box and the ring around it."""
        self.setGeometry(box.toAlignedRect().adjusted(-RING, -RING, RING, RING))

    def nextCheckState(self) -> None:  # noqa: N802
        """Do nothing: the part that is shown is lit, not the one that was clicked."""

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802
        """Let Enter press the button, as Space does."""
        if event.key() in (Qt.Key_Return, Qt.Key_Enter):
            self.click()
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: Any) -> None:  # noqa: N802
        """Paint the box."""
        parent = self.parentWidget()
        colours, fonts = colours_of(parent), Fonts.of(parent.font())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        box = QRectF(self.rect()).adjusted(RING, RING, -RING, -RING)
        fill = colours.lit if self.isChecked() else colours.box
        if self.underMouse():
            fill = mixed(fill, colours.text, 0.12)
        border = colours.lit if self.isChecked() else colours.line
        text = colours.ground if self.isChecked() else colours.text
        paint_box(painter, box, self._node, fonts, fill=fill, border=border, text=text)
        if self.hasFocus():
            painter.setBrush(Qt.NoBrush)
            painter.setPen(QPen(colours.text, 1.6))
            ring = QRectF(self.rect()).adjusted(1, 1, -1, -1)
            painter.drawRoundedRect(ring, ring.height() / 2, ring.height() / 2)
