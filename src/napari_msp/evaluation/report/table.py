"""A table for people; as Markdown here, as HTML in report.html."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    main
        What is read first.
    more
        Smaller, behind or beneath it.
    bold
        Whether `main` stands out.
    """

    main: str
    more: str = ""
    bold: bool = False


EMPTY = Cell("–")


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes
    ----------
    caption
        Says what the numbers are, with their unit.
    columns
        Headings.
    rows
        As many cells each.
    groups
        Headings over the columns but the first, with the number of columns that each spans.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()

    def markdown(self) -> str:
        """Write it as a pipe table under its caption."""
        above = [name for name, count in self.groups for _ in range(count)]
        first, *others = self.columns
        if above:
            others = [f"{name}: {other}" for name, other in zip(above, others, strict=True)]
        lines = [
            self.caption,
            "",
            _line([first, *others]),
            "|---" + "|--:" * len(others) + "|",
            *(_line([_marked(cell) for cell in row]) for row in self.rows),
        ]
        return "\n".join(lines) + "\n"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _marked(cell: Cell) -> str:
    main = f"**{cell.main}**" if cell.bold else cell.main
    return f"{main} {cell.more}" if cell.more else main
