"""napari's list of layers, in which the plugin's layer names take two lines: owner and quantity.

napari cuts long names in the middle, which keeps only the parts that several predictions share.
"""

from __future__ import annotations

from typing import Any

from napari._qt.containers._base_item_model import ItemRole
from napari._qt.containers._layer_delegate import LayerDelegate
from napari._qt.containers.qt_layer_list import QtLayerList
from qtpy.QtCore import QModelIndex, QRect, Qt
from qtpy.QtGui import QFontMetrics, QPainter
from qtpy.QtWidgets import QApplication, QStyle, QStyleOptionViewItem

from napari_msp.ui.layers import is_ours

SEPARATOR = " · "
"""Separator between the two parts of a layer's name."""

SHARE = 0.9
"""Share of the list's font size, so that two lines fit where napari has one."""


class TwoLines(LayerDelegate):
    """A delegate that draws the plugin's layer names in two lines, and others as napari does."""

    def initStyleOption(  # noqa: N802 - Qt's name
        self, option: QStyleOptionViewItem, index: QModelIndex
    ) -> None:
        """Leave out the text that is drawn here."""
        super().initStyleOption(option, index)
        if lines_of(index.data(ItemRole)):
            option.text = ""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw a row."""
        super().paint(painter, option, index)
        lines = lines_of(index.data(ItemRole)) if index.isValid() else ()
        if not lines:
            return
        known = QStyleOptionViewItem(option)
        super().initStyleOption(known, index)  # with its text, which determines where text goes
        self.get_layer_icon(known, index)
        style = option.widget.style()
        place = style.subElementRect(QStyle.SE_ItemViewItemText, known, option.widget)
        half = option.rect.height() // 2
        font = known.font
        font.setPointSizeF(font.pointSizeF() * SHARE)
        painter.save()
        painter.setPen(known.palette.color(known.palette.ColorRole.Text))
        for number, (line, bold) in enumerate(zip(lines, (True, False), strict=True)):
            font.setBold(bold)
            painter.setFont(font)
            # Names of scans differ at the end: "…0012 MSP prisma_st".
            words = QFontMetrics(font).elidedText(line, Qt.ElideLeft, place.width())
            rect = QRect(
                place.left(), option.rect.top() + 3 + number * (half - 3), place.width(), half - 3
            )
            painter.drawText(rect, Qt.AlignCenter, words)
        painter.restore()


def lines_of(layer: Any) -> tuple[str, ...]:
    """Return the owner and the quantity in a layer's name; empty for others and renamed ones."""
    if layer is None or not is_ours(layer):
        return ()
    owner, between, quantity = layer.name.strip().partition(SEPARATOR)
    return (owner, quantity) if between else ()


def show_whole_names() -> None:
    """Let the layer lists of all windows show names of the plugin's layers in two lines."""
    for window in QApplication.topLevelWidgets():
        for rows in window.findChildren(QtLayerList):
            if not isinstance(rows.itemDelegate(), TwoLines):
                delegate = TwoLines(rows)
                delegate.loading_frame_changed.connect(rows.viewport().update)
                rows.setItemDelegate(delegate)
