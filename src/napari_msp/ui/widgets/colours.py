"""Colours and fonts for painting: greys from the palette, meanings from Okabe and Ito.

The ring around the widget with the keyboard's focus is here, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QColor, QFont, QFontInfo, QPainter, QPalette, QPen
from qtpy.QtWidgets import QWidget

SKY_BLUE = "#56b4e9"
"""Visible on grey, and in either theme, also without colour vision."""

PINK = "#ff8fd0"
"""Colour of crosshairs: no map has it."""


@dataclass(frozen=True)
class Colours:
    """The colours of one widget, in its theme.

    Attributes
    ----------
    ground, text
        Background and text colours of the palette.
    band, box, line, faint
        Mixtures of both, from nearly ground to nearly text.
    lit
        Colour of what is looked at now.
    warning, ok
        Colours of what is worse and what is better.
    series
        Colours of curves; the colour-blind can tell them apart, too (Okabe 2008), and each has a
        contrast to the ground of at least about 3:1.
    """

    ground: QColor
    text: QColor
    band: QColor
    box: QColor
    line: QColor
    faint: QColor
    lit: QColor
    warning: QColor
    ok: QColor
    series: tuple[QColor, ...]


def colours_of(widget: QWidget) -> Colours:
    """Return the colours that fit a widget's palette, those of an enabled one.

    A widget behind another tab is disabled and would be pale: what it writes is read afterwards.
    """
    palette: Any = widget.palette()
    roles = QPalette.Window, QPalette.WindowText
    ground, text = (palette.color(QPalette.Active, role) for role in roles)
    dark = ground.lightness() < text.lightness()
    series = _ON_DARK if dark else _ON_LIGHT
    return Colours(
        ground=ground,
        text=text,
        band=mixed(ground, text, 0.06),
        box=mixed(ground, text, 0.16),
        line=mixed(ground, text, 0.45),
        faint=mixed(ground, text, 0.65),
        lit=QColor(SKY_BLUE if dark else "#0072b2"),
        warning=QColor("#e69f00" if dark else "#8f6000"),
        ok=QColor("#3fc79a" if dark else "#00744f"),
        series=tuple(QColor(name) for name in series),
    )


_ON_DARK = ("#e69f00", SKY_BLUE, "#009e73", "#cc79a7", "#f0e442", "#d55e00")
_ON_LIGHT = ("#d55e00", "#0072b2", "#007a59", "#b0558b", "#7a6a00", "#222222")


class Themed(QWidget):
    """A widget that repaints itself when theme or font change."""

    def restyle(self) -> None:
        """Adopt the present colours and font."""
        raise NotImplementedError

    def changeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Follow the theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.FontChange, QEvent.StyleChange, QEvent.PaletteChange):
            self.restyle()


def mixed(first: QColor, second: QColor, share: float) -> QColor:
    """Mix two colours, `share` of the second."""
    parts = zip(first.getRgbF()[:3], second.getRgbF()[:3], strict=True)
    return QColor.fromRgbF(*((1 - share) * a + share * b for a, b in parts))


def resized(font: QFont, factor: float) -> QFont:
    """Return a font of another size."""
    other = QFont(font)
    other.setPointSizeF(QFontInfo(font).pointSizeF() * factor)
    return other


class FocusRing(QWidget):
    """A ring along the edges of a widget that has the keyboard's focus: napari's themes draw none.

    Parameters
    ----------
    around
        Widget that has the focus.
    """

    WIDTH = 2

    def __init__(self, around: QWidget) -> None:
        super().__init__(around)
        self.setAttribute(Qt.WA_TransparentForMouseEvents)
        around.installEventFilter(self)
        self.resize(around.size())
        self.show()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Stay as large as the widget; go when another widget has the focus."""
        if event.type() == QEvent.Resize:
            self.resize(event.size())
        elif event.type() == QEvent.FocusOut:
            self.hide()
            self.deleteLater()
        return False

    def paintEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw the ring."""
        painter, half = QPainter(self), self.WIDTH // 2
        painter.setPen(QPen(colours_of(self).lit, self.WIDTH))
        painter.drawRect(self.rect().adjusted(half, half, -half, -half))
