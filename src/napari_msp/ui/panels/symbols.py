"""Set a mathematical symbol with its indices above one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qtpy.QtCore import QPointF
from qtpy.QtGui import QFont, QFontInfo, QFontMetricsF, QPainter

from napari_msp.ui.diagram.drawing import Symbol

INDEX_SIZE = 0.68
"""Of an index, relative to its letter."""


@dataclass(frozen=True)
class _Glyph:
    text: str
    font: QFont
    x: float
    y: float


class SetSymbol:
    """A symbol in a font, ready to be painted.

    Parameters
    ----------
    symbol
        What is set; letters in italics, numbers and parentheses upright.
    font
        Of its base.
    """

    def __init__(self, symbol: Symbol, font: QFont) -> None:
        self._glyphs: list[_Glyph] = []
        self._metrics = QFontMetricsF(font)
        self.width = self._set(symbol, font, 0.0)
        self.height = self._metrics.capHeight()

    def _set(self, symbol: Symbol, font: QFont, x: float) -> float:
        """Place a symbol at x; give where it ends."""
        metrics, small = QFontMetricsF(font), resized(font, INDEX_SIZE)
        x = self._run(symbol.base, font, x, 0.0)
        end = max(
            self._run(symbol.above, small, x, -0.62 * metrics.capHeight()),
            self._run(symbol.below, small, x, 0.32 * metrics.capHeight()),
        )
        if symbol.argument is not None:
            end = self._run("(", font, end, 0.0)
            end = self._set(symbol.argument, font, end)
            end = self._run(")", font, end, 0.0)
        return end

    def _run(self, text: str, font: QFont, x: float, y: float) -> float:
        for piece, italic in _pieces(text):
            face = QFont(font)
            face.setItalic(italic)
            self._glyphs.append(_Glyph(piece, face, x, y))
            x += QFontMetricsF(face).horizontalAdvance(piece)
        return x

    def paint(self, painter: QPainter, centre: QPointF) -> None:
        """Paint with the middle of the base letter's height at `centre`."""
        left, base = centre.x() - self.width / 2, centre.y() + self.height / 2
        for glyph in self._glyphs:
            painter.setFont(glyph.font)
            painter.drawText(QPointF(left + glyph.x, base + glyph.y), glyph.text)


def resized(font: QFont, factor: float) -> QFont:
    """Give a font of another size."""
    other = QFont(font)
    other.setPointSizeF(QFontInfo(font).pointSizeF() * factor)
    return other


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Split into letters, which are italic, and the rest."""
    for letter in text:
        yield letter, letter.isalpha()
