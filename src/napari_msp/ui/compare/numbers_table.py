"""Global errors of predictions, each relative to the first one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from qtpy.QtCore import Qt

from napari_msp.evaluation.statistics import relative_change
from napari_msp.formatting import NumberFormat, power_of_ten
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.widgets.colours import Colours, Themed, colours_of
from napari_msp.ui.widgets.form import stacked
from napari_msp.ui.widgets.message import Sentences
from napari_msp.ui.widgets.reading_table import ReadingTable, Text

NOTHING = "No numbers: errors can be measured only against a ground truth."

SHORTEST_NAME, LONGEST_NAME = "MSP α=0.26", "sub-01 MSP prisma_st"
"""Texts whose widths are the least and the largest width of the column of names."""

SAME = 0.05
"""Percent below which a change is called none."""


@dataclass(frozen=True)
class ErrorColumn:
    """One kind of error, for all predictions.

    Attributes
    ----------
    of, error
        Map or quantity and kind of error, such as "colour FA" and "MSE".
    unit
        Unit of the values.
    values
        One value per prediction.
    terms
        Glossary terms that explain the error.
    """

    of: str
    error: str
    unit: str
    values: tuple[float, ...]
    terms: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title such as "colour-FA MSE"."""
        return f"{self.of.replace(' ', '-')} {self.error}"

    @property
    def header(self) -> str:
        """The title in a few short lines, with the power of ten in which values are shown."""
        power = power_of_ten(self.display.exponent)
        of = self.of.replace(" ", "-\n" if len(self.of) > 10 else "-")
        if len(of) < 4:
            lines = [self.title, power, self.unit]
        elif len(self.unit) < 4:
            lines = [of, self.error, f"{power} {self.unit}"]
        else:
            lines = [of, f"{self.error} {power}", self.unit]
        return "\n".join(map(str.strip, lines))

    @property
    def display(self) -> NumberFormat:
        """Number format, the same for all values of one unit."""
        return NumberFormat.of(self.values, self.unit)

    def change(self, number: int) -> float | None:
        """Return by how many percent an error differs from the first one; None for the first."""
        return None if number == 0 else relative_change(self.values[number], self.values[0])


class NumbersTable(Themed):
    """One row per prediction: its errors in one power of ten, and relative to the first one's.

    Ctrl+C copies the selected rows, or all, with full precision for a spreadsheet.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: Sequence[str] = ()
        self._errors: Sequence[ErrorColumn] = ()
        self.words = Sentences(NOTHING)
        self.words.setAlignment(Qt.AlignLeft | Qt.AlignTop)
        widths = SHORTEST_NAME, LONGEST_NAME
        self.table = ReadingTable("Global errors of the predictions", widths)
        stacked(self, self.words, self.table)
        self.clear()

    def show_errors(self, names: Sequence[str], errors: Sequence[ErrorColumn], voxels: int) -> None:
        """Show errors, two columns each.

        Parameters
        ----------
        names
            Names of the predictions; the others are compared with the first.
        errors
            At least one kind of error.
        voxels
            Number of voxels that were measured.
        """
        self._names, self._errors = names, errors
        texts = [_row(number, names, errors, voxels) for number in range(len(names))]
        self.table.fill(_headers(names, errors), texts, _copied(names, errors))
        self._show_which()
        self.restyle()

    def clear(self, words: str = NOTHING) -> None:
        """Show nothing but the reason why there is nothing."""
        self._names, self._errors = (), ()
        self.words.setText(words)
        self._show_which()

    def _show_which(self) -> None:
        self.words.setVisible(not self._names)
        self.table.setVisible(bool(self._names))

    def restyle(self) -> None:
        """Colour the changes."""
        colours = colours_of(self)
        for column, error in enumerate(self._errors):
            for number in range(len(self._names)):
                item = self.table.item(number, 2 * column + 2)
                item.setForeground(_colour_of(error.change(number), colours))


def _copied(names: Sequence[str], errors: Sequence[ErrorColumn]) -> list[list[str]]:
    titles = [
        title
        for error in errors
        for title in (f"{error.title} [{error.unit}]", f"{error.title} change [%]")
    ]
    lines = [["prediction", *titles]]
    for number, name in enumerate(names):
        values = [value for e in errors for value in (e.values[number], e.change(number))]
        lines.append([name, *("" if each is None else repr(each) for each in values)])
    return lines


def _headers(names: Sequence[str], errors: Sequence[ErrorColumn]) -> list[Text]:
    beside = (
        f"<p>Error above (▲) or below (▼) that of {escape(names[0])}, in percent of it. Less is "
        "better.</p>"
    )
    headers = [("prediction", "")]
    for error in errors:
        meaning = "".join(tooltip(term) for term in error.terms)
        headers += [(error.header, meaning), ("change\n%", beside)]
    return headers


def _row(
    number: int, names: Sequence[str], errors: Sequence[ErrorColumn], voxels: int
) -> list[Text]:
    measured = f"{voxels} voxels, those in all masks"
    cells = [(names[number], names[number])]
    for error in errors:
        value = error.values[number]
        cells.append((error.display.text(value), f"{value:.4g} {error.unit} over {measured}"))
        cells.append(_change(error.change(number), names[0], is_first=number == 0))
    return cells


def _change(change: float | None, first: str, *, is_first: bool) -> Text:
    if is_first:
        return "–", "The others are compared with it."
    if change is None:
        return "–", f"{first} has no error to compare with."
    if abs(change) < SAME:
        return "0.0", f"As large as that of {first}."
    if change < 0:
        return f"▼ −{-change:.1f}", f"{-change:.1f} % less error than {first}"
    return f"▲ +{change:.1f}", f"{change:.1f} % more error than {first}"


def _colour_of(change: float | None, colours: Colours) -> Any:
    if change is None or abs(change) < SAME:
        return colours.text
    return colours.ok if change < 0 else colours.warning
