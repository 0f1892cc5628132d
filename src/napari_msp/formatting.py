"""Formats of numbers for people, and of tables for spreadsheets."""

import csv
import io
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Thing = TypeVar("Thing")

SQUARED_ERROR, SH_MSE_EXPONENT = "SH units²", -5
"""Unit of squared errors, and the power of ten in which they are written everywhere, as in the
paper's table."""


def number(value: float | None, decimals: int, signed: bool = False) -> str:
    """Write a number with a true minus sign; a dash for None.

    >>> number(-0.52, 1)
    '−0.5'
    """
    if value is None:
        return "–"
    return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def shown(value: float | None, form: str) -> str:
    """Write a number in a Python format; a dash for None."""
    return "–" if value is None else format(value, form)


def ends(interval: tuple[float, float] | None, decimals: int) -> str:
    """Write an interval; empty for None.

    >>> ends((-0.52, 1), 1)
    '[−0.5, 1.0]'
    """
    if interval is None:
        return ""
    return "[{}, {}]".format(*(number(end, decimals) for end in interval))


def span(counts: Collection[int], form: str = "d") -> str:
    """Write the range of some counts, or the only value.

    >>> span([12, 9, 1050]), span([3, 3])
    ('9 to 1050', '3')
    """
    return " to ".join(dict.fromkeys(format(end, form) for end in (min(counts), max(counts))))


def power_of_ten(exponent: int) -> str:
    """Write a power of ten in plain characters; empty for 10⁰.

    >>> power_of_ten(-4)
    '10⁻⁴'
    """
    if not exponent:
        return ""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def sh_mse(value: float) -> str:
    """Write a squared error in SH units as all tables do.

    >>> sh_mse(0.000247)
    '24.7 × 10⁻⁵'
    """
    display = NumberFormat.of([value], SQUARED_ERROR)
    return f"{display.text(value)} × {power_of_ten(SH_MSE_EXPONENT)}"


def rounded(value: float, unit: str = "") -> str:
    """Write a number with two digits, in the power of ten of its unit.

    >>> rounded(0.0019, SQUARED_ERROR), rounded(0.364, "SH units")
    ('190 × 10⁻⁵', '0.36')
    """
    if unit != SQUARED_ERROR or value == 0:
        return f"{value:.2g}"
    scaled = float(f"{value / 10.0**SH_MSE_EXPONENT:.2g}")
    return f"{scaled:g} × {power_of_ten(SH_MSE_EXPONENT)}"


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


def listed(names: Sequence[str]) -> str:
    """Write names as an enumeration.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def numbered(named: Iterable[tuple[str, Thing]]) -> dict[str, Thing]:
    """Return things by unique names: a name that was taken before gets a number.

    >>> [*numbered([("MSP", 1), ("DIQT", 2), ("MSP", 3)])]
    ['MSP', 'DIQT', 'MSP (2)']
    """
    things: dict[str, Thing] = {}
    for name, thing in named:
        unique, number = name, 2
        while unique in things:
            unique, number = f"{name} ({number})", number + 1
        things[unique] = thing
    return things


def duration(seconds: float) -> str:
    """Write how long something took.

    >>> duration(3700), duration(59.7), duration(12)
    ('1 h 1 min', '1 min 0 s', '12 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Pad cells to their columns' widths: the first left-aligned, numbers right-aligned.

    >>> padded(["sub-01", "1.5"], [8, 5])
    ['sub-01  ', '  1.5']
    """
    return [
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of cells as lines, see `padded`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(padded(row, widths)).rstrip() for row in rows]


@dataclass(frozen=True)
class NumberFormat:
    """Format of numbers as multiples of a power of ten, with the same decimals in a whole table."""

    exponent: int
    decimals: int

    @classmethod
    def of(cls, values: Iterable[float], unit: str = "") -> "NumberFormat":
        """Choose a format in which the middle value is easily read.

        Squared errors have their own power of ten; others 10⁰, or if they are below 0.1 the one
        that makes them 1 to 10.
        """
        sizes = [abs(value) for value in values if value != 0]
        middle = median(sizes) if sizes else 1.0
        if unit == SQUARED_ERROR:
            exponent = SH_MSE_EXPONENT
        else:
            exponent = 0 if middle >= 0.1 else math.floor(math.log10(middle))
        scaled = middle / 10.0**exponent
        return cls(exponent, 1 if scaled >= 10 else 2 if scaled >= 1 else 3)

    def unit(self, unit: str) -> str:
        """Return the unit of the written numbers."""
        return f"{power_of_ten(self.exponent)} {unit}".strip()

    def text(self, value: float | None) -> str:
        """Write a number; a dash for None."""
        return number(None if value is None else value / 10.0**self.exponent, self.decimals)


def csv_text(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Write CSV with full precision; a field is empty for None."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    # None is written as an empty field.
    writer.writerows(rows)
    return stream.getvalue()
