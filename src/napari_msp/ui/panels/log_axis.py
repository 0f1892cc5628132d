"""A logarithmic axis with round numbers on it, also where it spans less than a decade."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Any

import pyqtgraph as pg

ROOM = 22
"""Pixels for one number."""


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Choose about `count` round numbers between two positive ones, for a logarithmic axis.

    >>> round_ticks(28, 64, 4)
    [30.0, 40.0, 50.0, 60.0]
    >>> round_ticks(0.02, 7, 4)
    [0.1, 1.0]
    >>> round_ticks(0.02, 7, 9)
    [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    """
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    if high < 10 * low:
        return _evenly(low, high, count)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{m}e{d}") for d in decades for m in mantissas]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= count:
            break
    return ticks


def _evenly(low: float, high: float, count: int) -> list[float]:
    exponent = floor(log10((high - low) / count))
    for step in (float(f"{m}e{exponent}") for m in (1, 2, 5, 10)):
        ticks = [float(f"{k * step:.6g}") for k in range(ceil(low / step), floor(high / step) + 1)]
        if len(ticks) <= count:
            break
    return ticks


class LogAxis(pg.AxisItem):
    """Left axis of a plot in logarithmic mode."""

    def __init__(self) -> None:
        super().__init__("left")

    def tickValues(self, low: float, high: float, size: float) -> list[Any]:  # noqa: N802
        """Give logarithms of round numbers."""
        ticks = round_ticks(10**low, 10**high, max(2, int(size // ROOM)))
        return [(None, [log10(tick) for tick in ticks])]

    def tickStrings(self, values: list[float], scale: float, spacing: Any) -> list[str]:  # noqa: N802
        """Write the numbers themselves."""
        return [f"{10**value:.3g}" for value in values]
