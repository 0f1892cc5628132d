"""The list of a session: its columns, a row for each prediction, and what columns sort by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_msp.formatting import counted
from napari_msp.review.measures import MEASURES
from napari_msp.review.predictions import Entry
from napari_msp.review.table import risk_text
from napari_msp.ui.review.entry_list import MARK, Cell
from napari_msp.ui.review.judging import TONES
from napari_msp.ui.review.session import STATES, Session, unusual_words


def headers_of(session: Session) -> list[Cell]:
    """Name the columns; what would tell is left out while names are hidden."""
    headers = [Cell("state"), Cell("subject")]
    if session.blind is not None:
        return headers
    headers += [
        Cell("target"),
        Cell("risk", "<p>How unusual it is altogether; it sorts, and is no probability.</p>"),
        Cell("unusual", "<p>What lies far from the others’ median, on the bad side.</p>"),
    ]
    return headers + [
        Cell(each.title, f"<p>{each.described}{f' {each.unit}' if each.unit else ''}</p>")
        for each in MEASURES.values()
    ]


def row_of(session: Session, entry: Entry) -> list[Cell]:
    """Say what is known of a prediction, column by column."""
    words = STATES[session.state(entry)]
    tone = TONES.get(words, "faint")
    cells = [
        Cell(f"{MARK[words]} {words}", session.note_of(entry), tone),
        Cell(session.subject(entry)),
    ]
    if session.blind is not None:
        return cells
    numbers = {each.key: each for each in session.numbers(entry)}
    unusual = unusual_words(list(numbers.values()))
    warned = f"{counted(len(entry.warnings), 'warning')}" if entry.warnings else ""
    told = ", ".join(filter(None, (unusual, warned)))
    risky = "warning" if told else ""
    cells += [
        Cell(session.target(entry)),
        Cell(risk_text(entry), told, risky, right=True),
        Cell(told, "\n".join((told, *entry.warnings)), risky),
    ]
    for key in MEASURES:
        known = numbers.get(key)
        if known is None:
            cells.append(Cell("–", "not known", "faint", right=True))
        else:
            marked = f"{known.value} {known.word}".strip()
            cells.append(Cell(marked, known.words, "warning" if known.word else "", right=True))
    return cells


def sorted_by(session: Session, column: int) -> Callable[[Entry], Any] | None:
    """Say what a column is sorted by; None: as at first."""
    fixed: list[Callable[[Entry], Any]] = [
        lambda entry: list(STATES).index(session.state(entry)),
        session.subject,
        session.target,
        lambda entry: entry.risk,
        lambda entry: len(entry.outlying),
    ]
    if column < 0:
        return None
    if column < len(fixed):
        return fixed[column]
    key = list(MEASURES)[column - len(fixed)]
    return lambda entry: entry.numbers.get(key, float("-inf"))
