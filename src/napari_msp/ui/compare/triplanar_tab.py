"""The Planes tab: axial, coronal and sagittal through the crosshair, of one image or of a pair."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPen
from qtpy.QtWidgets import QComboBox, QGridLayout, QSizePolicy, QWidget

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.figures.grid import Cells
from napari_msp.evaluation.figures.slices import Sides, picture_sides
from napari_msp.signal.maps import Maps
from napari_msp.ui.background import paced
from napari_msp.ui.compare.compared import Compared
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.viewer_axes import (
    ORDERS,
    in_mm,
    in_voxels,
    is_upright,
    shown_affine,
    sizes_shown,
    to_shown,
)
from napari_msp.ui.widgets.colours import PINK, resized
from napari_msp.ui.widgets.form import FormRows, fit_into_form, offer, stacked
from napari_msp.ui.widgets.message import Notices

if TYPE_CHECKING:
    from napari.viewer import Viewer

ALONE = "nothing"

_Role = tuple[str, str]
"""Role of an image in a comparison, and a prediction's short name: titles change with α."""

NOBODY: _Role = ("", "")

HIGH = 1.25
"""Height over width above which planes of two images are larger one above the other."""

PACE = 30
"""Milliseconds between drawings while the crosshair moves."""

SMALLEST, USUAL = 84, 200
"""Edges of a plane's view in pixels: minimum and usual."""

MARGIN = 13
"""Pixels around the picture, in which the letters stand."""

GAP = 4
"""Pixels around the crosshair's point that stay free."""

LINE = QColor(PINK)


class TriplanarTab(QWidget):
    """Three planes of an image, and of another beside it.

    Parameters
    ----------
    viewer
        Viewer whose crosshair is used.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer, self._crosshair = viewer, crosshair_of(viewer)
        self._images: dict[str, Maps] = {}
        self._roles: dict[str, _Role] = {}
        self._shown: Cells | None = None
        self._volumes: dict[str, FloatArray] = {}
        self._high: bool | None = None
        self.image, self.beside = QComboBox(), QComboBox()
        fit_into_form(self.image, self.beside)
        for combo in (self.image, self.beside):
            combo.currentTextChanged.connect(lambda _: self.look())
        self.views = [{plane: PlaneView(plane) for plane in ORDERS} for _ in range(2)]
        self._lay_out()
        for views, combo in zip(self.views, (self.image, self.beside), strict=True):
            for plane, view in views.items():
                view.clicked.connect(partial(self._put, combo, plane))
        self._pace = paced(self, PACE, self.look)
        self._crosshair.moved.connect(self._pace.throttle)
        viewer.dims.events.point.connect(lambda event: self._pace.throttle())

    def follow(self, compared: Compared, shown: Cells) -> None:
        """Look at the images of a comparison, in the map and the contrast of its cells."""
        kept = [self._roles.get(each.currentText(), NOBODY) for each in (self.image, self.beside)]
        self._images = images = {each.title: each.maps for each in compared.images}
        self._shown, self._volumes = shown, {}
        roles = {each.title: (each.role, each.name) for each in compared.images}
        self._roles = {ALONE: ("alone", ""), **roles}
        titles = {role: title for title, role in self._roles.items()}
        image, beside = (titles.get(role, "") for role in kept)
        # Where a choice is gone, the other is not shown twice.
        image = image or next((each for each in images if each != beside), beside)
        beside = beside or next((each for each in images if each != image), ALONE)
        offer(self.image, list(images), image)
        offer(self.beside, [ALONE, *images], beside)
        self.look()

    def stop(self) -> None:
        """Drop everything."""
        self._images, self._shown, self._volumes = {}, None, {}
        for views in self.views:
            for view in views.values():
                view.clear()

    def look(self) -> None:
        """Draw what is at the crosshair now."""
        if self._shown is None or not self.isVisible() or self._viewer.dims.ndim < 3:
            return
        for views, combo in zip(self.views, (self.image, self.beside), strict=True):
            maps = self._images.get(combo.currentText())
            for plane, view in views.items():
                view.setVisible(maps is not None)
                if maps is not None:
                    self._draw(view, plane, combo.currentText(), maps)

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw what was not drawn while the tab was hidden."""
        super().showEvent(event)
        self.look()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Put an image's planes beside each other, or above each other where the tab is high."""
        super().resizeEvent(event)
        self._arrange()

    def _arrange(self) -> None:
        high = self.height() > HIGH * self.width()
        if high == self._high:
            return
        self._high = high
        for number, views in enumerate(self.views):
            for place, view in enumerate(views.values()):
                row, column = (place, number) if high else (number, place)
                self._pictures.addWidget(view, row, column)

    def _draw(self, view: PlaneView, plane: str, name: str, maps: Maps) -> None:
        lattice, order = maps.image.lattice, ORDERS[plane]
        axis, rows, columns = order
        volume, sizes = self._volume(name, maps), sizes_shown(lattice)
        at = in_voxels(self._crosshair.point, lattice)
        index = int(np.clip(round(at[axis]), 0, volume.shape[axis] - 1))
        picture = np.take(volume, index, axis=axis)
        tall, wide = picture.shape[:2]
        cross = [(at[rows] + 0.5) / tall, (at[columns] + 0.5) / wide]
        up = is_upright(order)
        if up:
            picture, cross[0] = picture[::-1], 1 - cross[0]
        down = np.eye(3)[rows] * (-1 if up else 1)
        sides = picture_sides(shown_affine(lattice), np.eye(3)[columns], down)
        inside = all(0 <= each <= 1 for each in cross)
        size = (tall * float(sizes[rows]), wide * float(sizes[columns]))
        view.show_slice(picture, size, sides, (cross[0], cross[1]) if inside else None)

    def _volume(self, name: str, maps: Maps) -> FloatArray:
        """Return an image in the order of layers, from 0 to 1."""
        if name not in self._volumes:
            shown = self._shown
            assert shown is not None
            values = shown.map.shown(maps[shown.map.name])
            shades = shown.shades(values, maps.image.mask)
            self._volumes[name] = to_shown(shades, maps.image.lattice)
        return self._volumes[name]

    def _put(self, row: QComboBox, plane: str, down: float, right: float) -> None:
        """Set the crosshair to where a picture was pressed, on the lattice of its row's image."""
        maps = self._images.get(row.currentText())
        if maps is None:
            return
        _, rows, columns = ORDERS[plane]
        lattice = maps.image.lattice
        counts = lattice.canonical.shape[::-1]
        at = in_voxels(self._crosshair.point, lattice)
        at[rows] = (1 - down if is_upright(ORDERS[plane]) else down) * counts[rows] - 0.5
        at[columns] = right * counts[columns] - 0.5
        self._crosshair.put(in_mm(at, lattice))

    def _lay_out(self) -> None:
        rows, self._pictures = FormRows(Notices()), QGridLayout()
        rows.add("image", "Image", self.image, "<p>Image whose three planes are shown.</p>")
        rows.add("beside", "Beside it", self.beside, "<p>Image to show beside it.</p>")
        self._pictures.setSpacing(2)
        self._arrange()
        stacked(self, rows, self._pictures).setStretch(1, 1)


class PlaneView(QWidget):
    """One plane of a brain, with the letters of its sides and a crosshair.

    Attributes
    ----------
    clicked : float, float
        Emitted when pressed, with shares of the picture's height and width, from 0 to 1.
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
            Letters of its sides.
        cross
            Place of the crosshair, in shares of height and width; None: outside.
        """
        grey = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)
        pixels = np.ascontiguousarray(np.clip(np.nan_to_num(grey) * 255, 0, 255).astype(np.uint8))
        rows, columns = pixels.shape[:2]
        image = QImage(pixels.tobytes(), columns, rows, 3 * columns, QImage.Format_RGB888)
        self._image = image.copy()  # the copy owns its pixels
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
        """Stay large enough to be seen."""
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
        """Report where the mouse was pressed."""
        self._tell(event)

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Report where the mouse is dragged to."""
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
        """Return the picture's place, as large as it fits."""
        room_wide, room_tall = self.width() - 2 * MARGIN, self.height() - 2 * MARGIN
        tall, wide = self._size
        zoom = max(min(room_tall / tall, room_wide / wide), 1e-6)
        left, top = (self.width() - wide * zoom) / 2, (self.height() - tall * zoom) / 2
        return QRectF(left, top, wide * zoom, tall * zoom)
