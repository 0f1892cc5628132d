"""A slice of a head as a small picture: letters at its sides, a crosshair, and clicks."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.figures.slices import Sides
from napari_msp.ui.widgets.colours import SKY_BLUE, resized

SMALLEST, USUAL = 84, 200
"""Edges in pixels."""

MARGIN = 13
"""Pixels around the picture, in which the letters stand."""

GAP = 4
"""Pixels around the crosshair's point that stay free."""

LINE = QColor(SKY_BLUE)


class PlaneView(QWidget):
    """One plane of a brain, with the letters of its sides and a crosshair.

    Attributes
    ----------
    clicked : float, float
        Where somebody pressed: shares of the picture's height and width, from 0 to 1.
    """

    clicked = Signal(float, float)

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self._image = QImage()
        self._size = (1.0, 1.0)
        self._sides: Sides | None = None
        self._cross: tuple[float, float] | None = None
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Expanding)
        self.setAccessibleName(title)
        self.setCursor(Qt.CrossCursor)

    def show_slice(
        self,
        values: FloatArray,
        size: tuple[float, float],
        sides: Sides,
        cross: tuple[float, float] | None,
    ) -> None:
        """Show a slice.

        Parameters
        ----------
        values
            (rows, columns) or (rows, columns, 3) from 0, black, to 1, white.
        size
            Height and width in mm.
        sides
            What lies at its sides.
        cross
            Where the crosshair is, in shares of height and width; None: nowhere.
        """
        grey = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)
        pixels = np.ascontiguousarray(np.clip(np.nan_to_num(grey) * 255, 0, 255).astype(np.uint8))
        rows, columns = pixels.shape[:2]
        image = QImage(pixels.tobytes(), columns, rows, 3 * columns, QImage.Format_RGB888)
        self._image = image.copy()  # which owns its pixels
        self._size, self._sides, self._cross = size, sides, cross
        self.setToolTip(f"<p>{self.title}: {sides.convention}. A click sets the crosshair.</p>")
        self.update()

    def clear(self) -> None:
        """Show nothing."""
        self._image, self._sides, self._cross = QImage(), None, None
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Prefer to be square."""
        return QSize(USUAL, USUAL)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Be seen at all."""
        return QSize(SMALLEST, SMALLEST)

    def paintEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw the picture in true proportions, its letters and the crosshair."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), Qt.black)
        if self._sides is None:
            return
        box = self._box()
        painter.setRenderHint(QPainter.SmoothPixmapTransform, False)
        painter.drawImage(box, self._image)
        self._draw_cross(painter, box)
        painter.setFont(resized(self.font(), 0.85))
        painter.setPen(QColor("white"))
        width, height = self.width(), self.height()
        for text, place, aligned in (
            (self._sides.top, QRectF(0, 0, width, MARGIN), Qt.AlignCenter),
            (self._sides.bottom, QRectF(0, height - MARGIN, width, MARGIN), Qt.AlignCenter),
            (self._sides.left, QRectF(2, 0, width, height), Qt.AlignVCenter | Qt.AlignLeft),
            (self._sides.right, QRectF(0, 0, width - 2, height), Qt.AlignVCenter | Qt.AlignRight),
        ):
            painter.drawText(place, int(aligned), text)

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Tell where it was pressed."""
        self._tell(event)

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Tell where it is dragged to."""
        self._tell(event)

    def _tell(self, event: Any) -> None:
        box = self._box()
        if self._sides is not None and event.buttons() & Qt.LeftButton and box.height() > 0:
            down = (event.pos().y() - box.top()) / box.height()
            right = (event.pos().x() - box.left()) / box.width()
            self.clicked.emit(min(max(down, 0.0), 1.0), min(max(right, 0.0), 1.0))

    def _draw_cross(self, painter: QPainter, box: QRectF) -> None:
        if self._cross is None:
            return
        x = box.left() + self._cross[1] * box.width()
        y = box.top() + self._cross[0] * box.height()
        painter.setPen(QPen(LINE, 1))
        for first, second in (
            ((box.left(), y), (x - GAP, y)),
            ((x + GAP, y), (box.right(), y)),
            ((x, box.top()), (x, y - GAP)),
            ((x, y + GAP), (x, box.bottom())),
        ):
            painter.drawLine(QPointF(*first), QPointF(*second))

    def _box(self) -> QRectF:
        """Where the picture lies, as large as it fits."""
        room_wide, room_tall = self.width() - 2 * MARGIN, self.height() - 2 * MARGIN
        tall, wide = self._size
        zoom = max(min(room_tall / tall, room_wide / wide), 1e-6)
        left, top = (self.width() - wide * zoom) / 2, (self.height() - tall * zoom) / 2
        return QRectF(left, top, wide * zoom, tall * zoom)
