"""The Voxel tab: the values of truth, predictions and input in the voxel under the mouse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QCheckBox, QGridLayout, QWidget

from napari_msp.arrays import FloatArray
from napari_msp.signal.maps import Map
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.background import paced
from napari_msp.ui.compare.compared import Compared
from napari_msp.ui.compare.voxel_plots import CoefficientBars, PolarProfile
from napari_msp.ui.crosshair import crosshair_of
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.viewer_axes import stored_index
from napari_msp.ui.widgets.colours import Colours, Themed, colours_of
from napari_msp.ui.widgets.form import scrolled, stacked
from napari_msp.ui.widgets.message import Sentences, readable

if TYPE_CHECKING:
    from napari.viewer import Viewer

NOTHING = "Move the mouse over a brain to see what its voxels hold."

OUTSIDE = "Outside the brain."

LOW = 560
"""Pixels of height below which plots stand closer, and the profile beside the legend."""

ROWS, LOW_ROWS = (0, 210, 170), (100, 160, 0)
"""Minimum pixels of legend, bars and profile below each other; in a low tab, of the profile beside
the legend, of the bars below, and of nothing: lower plots cannot be read."""

VALUE = 90
"""Pixels of the legend for a value, in which names that are longer than the rest are cut."""

PACE = 40
"""Milliseconds between looks while the mouse moves."""

SIDES = (("R", "L"), ("A", "P"), ("S", "I"))


@dataclass(frozen=True, eq=False)
class Trace:
    """The values of one image in the voxel.

    Attributes
    ----------
    name
        Name in the legend.
    coefficients
        SH coefficients, (28,) in scanner axes.
    is_truth
        Whether to draw it strongly in the text's colour; others have the theme's series.
    value
        Value of the map that is shown, in words.
    """

    name: str
    coefficients: FloatArray
    is_truth: bool = False
    value: str = ""


class VoxelPanel(Themed):
    """Bars of the coefficients, order by order, and the signal round the plane that is shown.

    Nothing is rebuilt from one voxel to the next, so that it can follow the mouse.
    """

    def __init__(self) -> None:
        super().__init__()
        self._traces: Sequence[Trace] = ()
        self._plane, self._shown, self._empty = "axial", "", True
        self.position, self.legend = readable(NOTHING), Sentences()
        self.position.setAlignment(Qt.AlignLeft | Qt.AlignTop)
        self.legend.setTextFormat(Qt.RichText)
        self.bars = CoefficientBars()
        self.bars.setToolTip(
            tooltip("SH coefficient")
            + tooltip("SH order")
            + "<p>Each order has its own scale; its bars run from m = −l to l.</p>"
        )
        self.profile = PolarProfile()
        self.profile.setToolTip(
            "<p>Signal over its b=0 signal, S/S₀, for gradients in the plane of the slice: the "
            "farther out, the stronger. It is weakest along fibres, where water diffuses most.</p>"
        )
        self._parts = QGridLayout()
        self._parts.setColumnStretch(1, 1)
        stacked(self, self.position, self._parts).setStretch(1, 1)
        self.arrange(low=False)
        self.restyle()
        for plot in (self.bars, self.profile):
            plot.hide()

    def show_voxel(
        self, position: str, traces: Sequence[Trace], plane: str, shown: str = ""
    ) -> None:
        """Show a voxel.

        Parameters
        ----------
        position
            Place of the voxel, in words.
        traces
            Values of the images, in the order of the legend, all of one SH order.
        plane
            "axial", "coronal" or "sagittal".
        shown
            Title of the map that values are of.
        """
        same = _legend(traces) == _legend(self._traces)
        self._traces, self._plane, self._shown, self._empty = list(traces), plane, shown, False
        self.position.setText(position)
        for plot in (self.bars, self.profile):
            plot.show()
        if same:
            self._draw()
        else:
            self.restyle()

    def clear(self, words: str = NOTHING) -> None:
        """Show only a text, such as that the mouse is outside the brain."""
        self._empty = True
        self.position.setText(words)
        self._draw()

    def arrange(self, low: bool) -> None:
        """Put legend, bars and profile below each other, or closer where there is little height."""
        self._low = low
        self._parts.addWidget(self.legend, 0, 0, 1, 1 if low else 2)
        self._parts.addWidget(self.bars, 1, 0, 1, 2)
        self._parts.addWidget(self.profile, 0 if low else 2, 1 if low else 0, 1, 1 if low else 2)
        for row, height in enumerate(LOW_ROWS if low else ROWS):
            self._parts.setRowMinimumHeight(row, height)
            self._parts.setRowStretch(row, int(height > 0))

    def restyle(self) -> None:
        """Assign every trace a colour of the theme, and draw."""
        # Outside of a brain it has one line less.
        self.position.setMinimumHeight(2 * self.position.fontMetrics().lineSpacing())
        colours = colours_of(self)
        own = _colours_of(self._traces, colours)
        widths = [2.6 if each.is_truth else 1.6 for each in self._traces]
        self.bars.paint(colours, own)
        self.profile.paint(colours, own, widths)
        self._draw()

    def _draw(self) -> None:
        shown = [] if self._empty else [each.coefficients for each in self._traces]
        self.bars.show_coefficients(shown)
        self.profile.show_signal(shown, self._plane)
        own = _colours_of(self._traces, colours_of(self))
        room = max(self.width() // (2 if self._low else 1) - VALUE, VALUE)
        cut = self.fontMetrics().elidedText
        names = [_unbroken(cut(each.name, Qt.ElideMiddle, room)) for each in self._traces]
        rows = [
            f'<tr><td><span style="color:{colour.name()}">■</span>&nbsp;{name}'
            f"&nbsp; </td><td>{'' if self._empty else _unbroken(trace.value)}</td></tr>"
            for trace, name, colour in zip(self._traces, names, own, strict=True)
        ]
        head = f"<tr><td></td><td>{'' if self._empty else _unbroken(self._shown)}</td></tr>"
        self.legend.setText(f"<table>{head}{''.join(rows)}</table>" if rows else "")


class VoxelTab(QWidget):
    """The voxel under the mouse on a viewer's canvas.

    Parameters
    ----------
    viewer
        Viewer whose mouse is followed.
    plane
        Returns the plane that is shown.

    Attributes
    ----------
    place
        Scroll area that holds the tab.
    """

    def __init__(self, viewer: Viewer, plane: Callable[[], str]) -> None:
        super().__init__()
        self._viewer, self._plane = viewer, plane
        self._compared: Compared | None = None
        self._map: Map | None = None
        self._position: tuple[float, ...] | None = None
        self.panel, self.hold = VoxelPanel(), QCheckBox("Hol&d this voxel")
        self.hold.setToolTip(
            "<p>Stop following the mouse. A click on the canvas does the same and sets the "
            "crosshair there, in every plane; Shift+X hides it.</p>"
        )
        stacked(self, self.hold, self.panel).setStretch(1, 1)
        self.place = scrolled(self)
        self.place.viewport().installEventFilter(self)
        self._crosshair = crosshair_of(viewer)
        self._crosshair.moved.connect(self._follow_crosshair)
        self._pace = paced(self, PACE, self.look)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Follow the height that is visible at once."""
        if event.type() == QEvent.Resize:
            self.panel.arrange(low=event.size().height() < LOW)
        return bool(super().eventFilter(watched, event))

    def follow(self, compared: Compared, shown: Map) -> None:
        """Show voxels of a comparison's images, and of their maps that are shown."""
        begin, self._compared, self._map = self._compared is None, compared, shown
        if begin:
            self._viewer.mouse_move_callbacks.append(self._moved)
            self._viewer.mouse_drag_callbacks.append(self._pressed)
        self.look()

    def stop(self) -> None:
        """Stop following the mouse."""
        if self._compared is not None:
            self._viewer.mouse_move_callbacks.remove(self._moved)
            self._viewer.mouse_drag_callbacks.remove(self._pressed)
        self._compared, self._position = None, None
        self.hold.setChecked(False)
        self._pace.cancel()
        self.panel.clear()

    def look(self) -> None:
        """Show the voxel at the last position."""
        compared, position, shown = self._compared, self._position, self._map
        if compared is None or position is None or shown is None:
            return
        reference = compared.comparison.reference
        index = _index(position, reference)
        traces = [] if index is None else _traces(compared, shown, position)
        if index is None or not traces:
            self.panel.clear(OUTSIDE)
        else:
            where = _words(index, reference)
            self.panel.show_voxel(where, traces, self._plane(), shown.title)

    def _follow_crosshair(self) -> None:
        """Show the crosshair's voxel, and no longer the mouse's."""
        if self._compared is not None and self._crosshair.shown:
            self.hold.setChecked(True)
            self._position = self._crosshair.point
            self._pace.throttle()

    def _moved(self, viewer: Viewer, event: Any) -> None:
        if not self.hold.isChecked():
            self._position = tuple(event.position)
            self._pace.throttle()

    def _pressed(self, viewer: Viewer, event: Any) -> None:
        if "Shift" in event.modifiers:
            self.hold.toggle()
            self._position = tuple(event.position)
            self.look()


def _unbroken(name: str) -> str:
    return escape(name).replace(" ", "&nbsp;").replace("-", "\N{NON-BREAKING HYPHEN}")


def _legend(traces: Sequence[Trace]) -> list[tuple[str, bool]]:
    return [(each.name, each.is_truth) for each in traces]


def _colours_of(traces: Sequence[Trace], colours: Colours) -> list[QColor]:
    """Return a colour for every trace: that of text for truth, else the next of the series."""
    series = cycle(colours.series)
    return [colours.text if each.is_truth else next(series) for each in traces]


def _index(position: tuple[float, ...], image: SHImage) -> tuple[int, ...] | None:
    if len(position) < 3:
        return None
    height, row, column = position[-3:]  # other layers may have more axes, which come first
    return stored_index((height, row, column), image.lattice)


def _traces(compared: Compared, shown: Map, position: tuple[float, ...]) -> list[Trace]:
    """Return the values at a position; an image is left out where it has no brain."""
    found = []
    for each in compared.images:
        image = each.maps.image
        index = _index(position, image)
        alike = image.order == compared.comparison.reference.order
        if alike and index is not None and image.mask[index]:
            value = _value(shown, each.maps[shown.name][index])
            is_truth = each.role == "truth"
            found.append(Trace(each.title, image.coefficients[index], is_truth, value))
    return found


def _value(shown: Map, value: FloatArray) -> str:
    """Return a map's value as text; a vector's parts are left-right, front-back and up-down."""
    parts = np.atleast_1d(shown.shown(value))
    digits = ".2f" if shown.coloured else ".3g"
    return " ".join(f"{each:{digits}}" for each in parts)


def _words(index: tuple[int, ...], image: SHImage) -> str:
    """Return the place of a voxel, as "L 12.0 · A 5.3 · S 30.1 mm (voxel 33 41 7)" and x, y, z."""
    point = (image.affine @ [*index, 1.0])[:3]
    sides = [
        f"{plus if value >= 0 else minus} {abs(value):.1f}"
        for value, (plus, minus) in zip(np.asarray(point), SIDES, strict=True)
    ]
    place = ", ".join(f"{value:.1f}" for value in point)  # to be typed into other viewers
    return f"{' · '.join(sides)} mm  (voxel {' '.join(map(str, index))})\nx, y, z: {place} mm"
