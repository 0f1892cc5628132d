"""A table for people, as Markdown or HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


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

    def html(self) -> str:
        """Write it as a table element that scrolls by itself where it is too wide."""
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.columns)
        if self.groups:
            spans = "".join(
                f'<th scope="colgroup" colspan="{count}">{escape(name)}</th>'
                for name, count in self.groups
            )
            head = f"<td></td>{spans}</tr><tr>{head}"
        body = "".join(f"<tr>{_row_html(row)}</tr>" for row in self.rows)
        return (
            f'<div class="wide"><table><caption>{escape(self.caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _marked(cell: Cell) -> str:
    main = f"**{cell.main}**" if cell.bold else cell.main
    return f"{main} {cell.more}" if cell.more else main


def _row_html(row: Sequence[Cell]) -> str:
    name, *cells = row
    return f'<th scope="row">{_cell_html(name)}</th>' + "".join(
        f"<td>{_cell_html(cell)}</td>" for cell in cells
    )


def _cell_html(cell: Cell) -> str:
    main = f"<b>{escape(cell.main)}</b>" if cell.bold else escape(cell.main)
    return f"{main}<small>{escape(cell.more)}</small>" if cell.more else main
