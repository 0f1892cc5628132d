"""One voxel closely: SH coefficients and signal of the truth and of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_msp.arrays import FloatArray
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.panels.coefficient_bars import CoefficientBars
from napari_msp.ui.panels.polar_profile import PolarProfile
from napari_msp.ui.widgets.colours import Colours, colours_of

NOTHING = "Move the mouse over a brain to see what its voxels hold."


@dataclass(frozen=True, eq=False)
class Trace:
    """What one image holds in the voxel.

    Attributes
    ----------
    name
        For the legend.
    coefficients
        (28,) in scanner axes.
    is_truth
        Drawn in the colour of text, strongly.
    colour
        Any that Qt knows; None: the next of the theme's series.
    """

    name: str
    coefficients: FloatArray
    is_truth: bool = False
    colour: str | None = None


class VoxelInspector(QWidget):
    """Bars of the coefficients, order by order, and the signal round the plane that is looked at.

    Nothing is built anew from one voxel to the next, so that it can follow the mouse.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._traces: Sequence[Trace] = ()
        self._plane, self._empty = "axial", True
        self.position = QLabel(NOTHING)
        self.position.setWordWrap(True)
        self.position.setAlignment(Qt.AlignLeft | Qt.AlignTop)
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        self.legend.setTextFormat(Qt.RichText)
        self.bars = CoefficientBars()
        self.bars.setToolTip(
            tooltip("SH coefficient")
            + tooltip("SH order")
            + "<p>Each order has a scale of its own; its bars stand from m = −l to l.</p>"
        )
        self.profile = PolarProfile()
        self.profile.setToolTip(
            "<p>Signal over its b=0 signal, S/S₀, for gradients in the plane of the slice: the "
            "farther out, the stronger. It is weakest along fibres, where water moves most.</p>"
        )
        self._plots = QBoxLayout(QBoxLayout.TopToBottom)
        self._plots.addWidget(self.bars, 1)
        self._plots.addWidget(self.profile, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.position)
        layout.addWidget(self.legend)
        layout.addLayout(self._plots, 1)
        self._paint()
        for plot in (self.bars, self.profile):
            plot.hide()

    def show_voxel(self, position: str, traces: Sequence[Trace], plane: str) -> None:
        """Show a voxel.

        Parameters
        ----------
        position
            Where it is, in words.
        traces
            In the order of the legend, all of one SH order.
        plane
            "axial", "coronal" or "sagittal".
        """
        same = [_look(each) for each in traces] == [_look(each) for each in self._traces]
        self._traces, self._plane, self._empty = list(traces), plane, False
        self.position.setText(position)
        for plot in (self.bars, self.profile):
            plot.show()
        if same:
            self._draw()
        else:
            self._paint()

    def clear(self, words: str = NOTHING) -> None:
        """Show nothing but words, such as that the mouse is outside the brain."""
        self._empty = True
        self.position.setText(words)
        self._draw()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Put the plots side by side where there is more width than height."""
        super().resizeEvent(event)
        wide = self.width() > 1.4 * self.height()
        self._plots.setDirection(QBoxLayout.LeftToRight if wide else QBoxLayout.TopToBottom)

    def changeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Follow the theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.PaletteChange, QEvent.StyleChange):
            self._paint()

    def _draw(self) -> None:
        shown = [] if self._empty else [each.coefficients for each in self._traces]
        self.bars.show_coefficients(shown)
        self.profile.show_signal(shown, self._plane)

    def _paint(self) -> None:
        colours = colours_of(self)
        own = _colours_of(self._traces, colours)
        widths = [2.6 if each.is_truth else 1.6 for each in self._traces]
        self.bars.paint(colours, own)
        self.profile.paint(colours, own, widths)
        self.legend.setText(
            "&nbsp; ".join(
                f'<span style="color:{colour.name()}">■</span>&nbsp;{_unbroken(trace.name)}'
                for trace, colour in zip(self._traces, own, strict=True)
            )
        )
        self._draw()


def _unbroken(name: str) -> str:
    return escape(name).replace(" ", "&nbsp;")


def _look(trace: Trace) -> tuple[str, bool, str | None]:
    return trace.name, trace.is_truth, trace.colour


def _colours_of(traces: Sequence[Trace], colours: Colours) -> list[QColor]:
    """Give every trace a colour: its own, that of text for truth, else the next of the series."""
    found: list[QColor] = []
    taken = 0
    for trace in traces:
        if trace.colour is not None:
            found.append(QColor(trace.colour))
        elif trace.is_truth:
            found.append(colours.text)
        else:
            found.append(colours.series[taken % len(colours.series)])
            taken += 1
    return found
