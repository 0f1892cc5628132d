"""What is kept of runs, how a new one compares with it, and the page that people read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from bench.comparing import Comparison, Subject
from bench.timing import Outcome

SLACK = 0.1
"""Part of a ratio by which runs on one machine differ beyond their quartiles (our choice)."""


@dataclass(frozen=True)
class Row:
    """A comparison's outcome, with where it was measured: hardware, then versions too."""

    outcome: Outcome
    hardware: str
    machine: str


@dataclass
class Cells:
    """A table's cells, with where they were measured."""

    machine: str
    cells: list[list[str]]


@dataclass
class Kept:
    """Rows and tables of one form of the run (full or quick), by subject and name.

    Attributes
    ----------
    rows
        By subject, then by the comparison's key.
    tables
        By subject, then by the table's name.
    """

    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    tables: dict[str, dict[str, Cells]] = field(default_factory=dict)


FILE = TypeAdapter(dict[str, Kept])
"""What is kept, by form."""


def load(path: Path) -> dict[str, Kept]:
    """Read what was kept, by form; nothing where there is no file."""
    return FILE.validate_json(path.read_bytes()) if path.exists() else {}


def save(path: Path, kept: dict[str, Kept]) -> None:
    """Write what `load` reads."""
    plain = FILE.dump_python(kept, mode="json")
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def regression(new: Row, kept: Row) -> str:
    """Say that a ratio fell beyond both spreads; empty where it did not."""
    if new.outcome.ratio.high >= kept.outcome.ratio.low * (1 - SLACK):
        return ""
    return f"fell from {_ratio(kept.outcome)} to {_ratio(new.outcome)}"


def same_machine(new: Row, kept: Row) -> bool:
    """Return whether both were measured on one kind of machine, with as many threads.

    Ratios of another machine are no measure of this one: they are told and do not count.
    """
    return new.hardware == kept.hardware


# --- For people ------------------------------------------------------------------------------

HEAD = """\
# Beside its peers

Each row is one thing done by this package and by a peer in one run, in turn, with the same number
of threads: medians, with the ratio's quartiles in brackets. **Ratio** is the peer's time over ours
for the same work: above 1 we are faster. `make bench` measures all of it again, compares with the
ratios kept here, names each that fell beyond its spread, and fails then; `make bench QUICK=1`
takes minutes, `make bench ONLY=maps` one subject, `make bench KEEP=1` writes this page anew.
Packages that are compared with are the extra `bench`, and MRtrix3. A ratio under its goal is
**bold**. The last column says on which machine it was measured. Seconds depend on what else the
machine did meanwhile; ratios hardly do.

"""


def page(kept: Kept, subjects: Sequence[Subject]) -> str:
    """Give the page of what was kept, in Markdown."""
    machines: dict[str, str] = {}

    def letter(machine: str) -> str:
        return machines.setdefault(machine, chr(ord("A") + len(machines)))

    parts: list[str] = []
    for subject in subjects:
        rows = kept.rows.get(subject.name, {})
        tables = kept.tables.get(subject.name, {})
        if not (rows or tables):
            continue
        parts.append(f"## {subject.name.capitalize()}\n\n{subject.about.strip()}\n\n")
        known = [each for each in subject.comparisons if each.key in rows]
        if known:
            parts.append("| what | peer | ours | peer's | ratio | goal | on |\n")
            parts.append("| --- | --- | ---: | ---: | ---: | ---: | --- |\n")
            for each in known:
                row = rows[each.key]
                parts.append(_line(each, row, letter(row.machine)))
            parts.append("\n")
        for each in known:
            figures = rows[each.key].outcome.figures
            if figures:
                said = "; ".join(f"{name} {value}" for name, value in figures.items())
                parts.append(f"- {each.key}: {said}.\n")
        parts.append("\n" if parts[-1].startswith("- ") else "")
        for table in subject.tables:
            if table.name in tables:
                kept_table = tables[table.name]
                parts.append(f"**{table.name}** (on {letter(kept_table.machine)})\n\n")
                parts.append(markdown([list(table.columns), *kept_table.cells]) + "\n")
    described = [f"- {sign}: {machine}\n" for machine, sign in machines.items()]
    return "".join([HEAD, *parts, "## Machines\n\n", *described])


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Give a table whose first row has the headings."""
    lines = [f"| {' | '.join(row)} |\n" for row in cells]
    lines.insert(1, f"|{' --- |' * len(cells[0])}\n")
    return "".join(lines)


def in_words(comparison: Comparison, row: Row) -> str:
    """Give one line for the screen."""
    goal = "" if comparison.goal is None else f", goal {comparison.goal:g}"
    sides = [_side(comparison, row.outcome, side) for side in (0, 1)]
    return f"{_ratio(row.outcome)} × {comparison.peer} ({sides[0]} to {sides[1]}{goal})"


def _line(comparison: Comparison, row: Row, machine: str) -> str:
    outcome, goal = row.outcome, comparison.goal
    missed = "**" if goal is not None and outcome.ratio.median < goal else ""
    cells = [
        comparison.name,
        comparison.peer,
        _side(comparison, outcome, 0),
        _side(comparison, outcome, 1),
        f"{missed}{_ratio(outcome)}{missed}",
        "" if goal is None else f"{goal:g}",
        machine,
    ]
    return f"| {' | '.join(cells)} |\n"


def _side(comparison: Comparison, outcome: Outcome, side: int) -> str:
    seconds = (outcome.ours, outcome.peer)[side].median
    if not comparison.unit:
        return f"{_number(seconds)} s"
    return f"{_number(outcome.work[side] / seconds)} {comparison.unit}/s"


def _ratio(outcome: Outcome) -> str:
    ratio = outcome.ratio
    if outcome.pairs == 1:
        return f"{_number(ratio.median)} (one pair)"
    return f"{_number(ratio.median)} ({_number(ratio.low)} to {_number(ratio.high)})"


def _number(value: float) -> str:
    """Give three digits that count."""
    if value >= 1e5:
        return f"{value:.2e}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
