"""The Voxel tab: what truth, predictions and input hold under the mouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.comparing.work import Compared
from napari_msp.ui.layers import stored_index
from napari_msp.ui.panels.voxel_inspector import Trace, VoxelInspector

PACE = 40
"""Milliseconds between looks while the mouse moves."""

OUTSIDE = "Outside the brain."

SIDES = (("R", "L"), ("A", "P"), ("S", "I"))


class Inspector(QObject):
    """Follows the mouse over a viewer's canvas.

    Parameters
    ----------
    viewer
        A napari viewer.
    plane
        Gives the plane that is shown.
    parent
        Of this object.
    """

    def __init__(self, viewer: Any, plane: Callable[[], str], parent: QObject) -> None:
        super().__init__(parent)
        self._viewer, self._plane = viewer, plane
        self._compared: Compared | None = None
        self._position: tuple[float, ...] | None = None
        self.panel, self.hold = VoxelInspector(), QCheckBox("H&old this voxel")
        self.hold.setToolTip(
            "<p>Stop following the mouse. Shift and a click on the canvas do the same.</p>"
        )
        self.widget = QWidget()
        layout = QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.hold)
        layout.addWidget(self.panel, 1)
        self._pace = QTimer(self)
        self._pace.setSingleShot(True)
        self._pace.setInterval(PACE)
        self._pace.timeout.connect(self.look)

    def follow(self, compared: Compared) -> None:
        """Look into the images of a comparison."""
        begin, self._compared = self._compared is None, compared
        if begin:
            self._viewer.mouse_move_callbacks.append(self._moved)
            self._viewer.mouse_drag_callbacks.append(self._pressed)
        self.look()

    def stop(self) -> None:
        """Follow no more."""
        if self._compared is not None:
            self._viewer.mouse_move_callbacks.remove(self._moved)
            self._viewer.mouse_drag_callbacks.remove(self._pressed)
        self._compared, self._position = None, None
        self.hold.setChecked(False)
        self._pace.stop()
        self.panel.clear()

    def look(self) -> None:
        """Show the voxel at the last position."""
        compared, position = self._compared, self._position
        if compared is None or position is None:
            return
        reference = compared.comparison.reference
        index = _index(position, reference)
        traces = [] if index is None else _traces(compared, position)
        if index is None or not traces:
            self.panel.clear(OUTSIDE)
        else:
            self.panel.show_voxel(_words(index, reference), traces, self._plane())

    def _moved(self, viewer: Any, event: Any) -> None:
        if not self.hold.isChecked():
            self._position = tuple(event.position)
            if not self._pace.isActive():
                self._pace.start()

    def _pressed(self, viewer: Any, event: Any) -> None:
        if "Shift" in event.modifiers:
            self.hold.toggle()
            self._position = tuple(event.position)
            self.look()


def _index(position: tuple[float, ...], image: SHImage) -> tuple[int, ...] | None:
    if len(position) < 3:
        return None
    height, row, column = position[-3:]  # a layer of others may have more axes, which come first
    return stored_index((height, row, column), image.lattice)


def _traces(compared: Compared, position: tuple[float, ...]) -> list[Trace]:
    """Give what the images hold there; an image is left out where it has no brain."""
    comparison, truth, scan = compared.comparison, compared.truth, compared.scan
    images = [
        (compared.title(name), each.image, False) for name, each in comparison.predictions.items()
    ]
    if truth is not None and comparison.truth is not None:
        images.insert(0, (f"truth {truth.name}", comparison.truth.image, True))
    if scan is not None and scan.image.order == comparison.reference.order:
        images.append((f"input {scan.name}", scan.image, False))
    found = []
    for name, image, is_truth in images:
        index = _index(position, image)
        if index is not None and image.mask[index]:
            found.append(Trace(name, image.coefficients[index], is_truth))
    return found


def _words(index: tuple[int, ...], image: SHImage) -> str:
    """Say where a voxel is, such as "L 12.0 · A 5.3 · S 30.1 mm (voxel 33 41 7)"."""
    point = (image.affine @ [*index, 1.0])[:3]
    sides = [
        f"{plus if value >= 0 else minus} {abs(value):.1f}"
        for value, (plus, minus) in zip(np.asarray(point), SIDES, strict=True)
    ]
    return f"{' · '.join(sides)} mm  (voxel {' '.join(map(str, index))})"
