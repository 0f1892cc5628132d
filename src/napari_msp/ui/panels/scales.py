"""Where an axis that follows the mouse ends, without jumping at every voxel."""

from __future__ import annotations

import math


class Scale:
    """The upper end of an axis: a round number that holds as long as values fit it."""

    def __init__(self) -> None:
        self.top = 0.0

    def fit(self, largest: float) -> bool:
        """Move the end where `largest` is above it or below half of it; tell whether it moved."""
        wanted = rounded_up(largest)
        if self.top / 2 < wanted <= self.top:
            return False
        self.top = wanted
        return True


def rounded_up(value: float) -> float:
    """Give the least number of one digit (1, 2, 3, 4, 6 or 8) that is not below `value`.

    >>> round(rounded_up(0.43), 9)
    0.6
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 2, 3, 4, 6, 8, 10) if step * power >= value * (1 - 1e-9)
    )
