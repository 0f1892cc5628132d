"""How numbers are written for people: one power of ten and as many decimals in a whole table."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_msp.evaluation.numbers import power_of_ten

SH_MSE_EXPONENT = -5
"""Squared errors in SH units are written in units of 1e-5, in every table alike (our choice)."""


@dataclass(frozen=True)
class Display:
    """The scale of a table.

    Attributes
    ----------
    exponent
        Numbers are divided by ten to this power.
    decimals
        Behind the point.
    """

    exponent: int
    decimals: int

    @classmethod
    def of(cls, values: Iterable[float], exponent: int | None = None) -> "Display":
        """Choose a scale in which the middle one of the values is easily read.

        Parameters
        ----------
        exponent
            None: 0, or for values below 0.1 the one that makes them 1 to 10.
        """
        sizes = [abs(value) for value in values if value != 0]
        middle = float(np.median(sizes)) if sizes else 1.0
        if exponent is None:
            exponent = 0 if middle >= 0.1 else int(np.floor(np.log10(middle)))
        scaled = middle / 10.0**exponent
        return cls(exponent, 1 if scaled >= 10 else 2 if scaled >= 1 else 3)

    def unit(self, unit: str) -> str:
        """Name the unit that the numbers are written in."""
        return " ".join(
            each for each in (power_of_ten(self.exponent) if self.exponent else "", unit) if each
        )

    def text(self, value: float | None) -> str:
        """Write a number; a dash where there is none."""
        if value is None:
            return "–"
        return number(value / 10.0**self.exponent, self.decimals)


def number(value: float, decimals: int, signed: bool = False) -> str:
    """Write a number with a true minus.

    >>> number(-0.52, 1)
    '−0.5'
    """
    return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def p_text(value: float | None) -> str:
    """Write a p-value as "p = 0.02".

    >>> p_text(3e-7)
    'p < 0.0001'
    """
    if value is None:
        return "p –"
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def counted(number: int, what: str) -> str:
    """Write a count with its noun.

    >>> counted(3, "subject")
    '3 subjects'
    """
    return f"{number} {what}{'' if number == 1 else 's'}"
