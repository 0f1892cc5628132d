"""The page of results: curves, ends, goals, and what was not run."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from few.cells import Bench
from few.goals import CLEAR, LEAST, SCAN, Goal, Row, Table, all_goals, error, errors
from few.methods import METHODS
from few.plan import PARTS, at_chosen_rates, chosen_rates

SHOWN = {
    "sh_mse": ("SH MSE × 10⁵", 1e5),
    "colour_fa_mse": ("colour FA MSE × 10⁵", 1e5),
    "fa_error_white": ("FA error, white, %", 1.0),
    "md_error_white": ("MD error, white, %", 1.0),
    "md_error_grey": ("MD error, grey, %", 1.0),
    "direction_error": ("direction error, °", 1.0),
}
"""Measures of the ends and what they are multiplied by; the others stand in the cells' files."""


def page(bench: Bench, commands: Sequence[str], times: Mapping[str, Any]) -> str:
    """Write all that there is as Markdown."""
    rows = at_chosen_rates(bench.rows())
    # Kept as copies of the cells whose models were looked at, with their part.
    measured = [{**row, "part": "biology"} for row in bench.biology()]
    parts = [
        HEAD.format(bases=", ".join(f"{n}: {_named(p)}" for n, p in bench.bases.items()) or "none"),
        "\n".join(f"    {command}" for command in commands),
        "## What was run and what was not\n\n" + _done([*rows, *measured]),
        "## A step's time\n\n" + _times(times),
        "## Learning rates\n\n" + _rates(rows),
        "## Curves\n\n" + _curves(Table(rows, "curves")),
    ]
    for part, title in (("ten-minutes", "Ten minutes"), ("semireal", "Semi-real heads")):
        parts.append(f"## {title}\n\n" + _curves(Table(rows, part)))
    ends = [row for row in rows if row["every_measure"]]
    parts.append("## Other measures, at the ends\n\n" + _measures(ends))
    chosen = chosen_rates(rows, list(METHODS))
    biology = [
        row
        for row in bench.biology()
        if not row["steps"] or row["rate"] == chosen.get(row["method"], row["rate"])
    ]
    parts.append("## Biology\n\n" + _biology(biology))
    parts.append("## Goals\n\n" + _goals(all_goals(rows, biology)))
    told = sorted({words for row in rows for words in row["told"]})
    if told:
        parts.append("## Warnings that runs gave\n\n" + "\n".join(f"- {each}" for each in told))
    return "\n\n".join(parts) + "\n"


HEAD = """# What a few heads teach

Written by `python benchmarks/few_heads.py`. Far sets (`benchmarks/far`), which share no code with
the simulator that bases and teaching models learned from; two heads of a set, which nothing was
learned from, are measured. Errors are SH MSE in 10⁻⁵ SH units² on noise-free truth, and in brackets
on scans, means of both heads. Seconds are steps times a step's time of one core, measured alone
beforehand: whatever else the machine did does not count. Started from: {bases}. In the goals
intervals are of resamples, sets before heads; where only one set was run they are of its heads
alone, and say nothing of other sets."""


BIOLOGY = """One head that nothing was learned from, as it is and with one thing changed that no
training head has, with the same noise: a bundle whose fibres lose direction (FA), free water in a
ball of white matter (diffusivity), and no fluid where all others have some deep inside
(diffusivity). What is predicted to change over what the noise-free truth changes, in the mean of
the voxels where that is at least half of its largest; in brackets what of it the input's own scan
shows. 1 is all of it.

"""


def _named(path: str) -> str:
    return path if path == "base" else path.rsplit("/", 1)[-1]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    every = [head, ["---", *["--:"] * (len(head) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def _done(rows: Sequence[Row]) -> str:
    lines = []
    for part in PARTS[1:]:
        found = Counter(row["method"] for row in rows if row["part"] == part)
        missing = [method for method in METHODS if method not in found]
        runs = "; ".join(f"{m} ({found[m]})" for m in METHODS if m in found) or "–"
        left = "everything" if not found else "; ".join(missing) or "–"
        lines.append([part, str(found.total()), runs, left])
    return _table(["part", "cells", "run (cells)", "not run at all"], lines)


def _times(times: Mapping[str, Any]) -> str:
    lines = [
        [run, phase, f"{1000 * seconds:.0f}"]
        for run, phases in times.items()
        for phase, seconds in phases.items()
    ]
    return _table(["run", "phase", "ms a step"], lines) if lines else "None was measured."


def _rates(rows: Sequence[Row]) -> str:
    chosen = chosen_rates(rows, list(METHODS))
    if not chosen:
        return "None was chosen: every method has the preset's."
    lines = [[method, f"{rate:g}"] for method, rate in chosen.items()]
    rest = "Others have the preset's. Chosen on the choosing sets, one head."
    return _table(["method", "rate"], lines) + f"\n\n{rest}"


def _curves(table: Table) -> str:
    if not table.rows:
        return "Not run."
    targets, lines = table.targets, []
    for where in table.sets:
        for method in METHODS:
            those = table.of(method, "", where)
            groups = dict.fromkeys(
                (row["steps"], tuple(row["heads"]), row["rate"]) for row in those
            )
            for steps, heads, rate in groups:
                same = [
                    row
                    for row in those
                    if (row["steps"], tuple(row["heads"]), row["rate"]) == (steps, heads, rate)
                ]
                by_target = {
                    target: [r for r in same if target in r["errors"]] for target in targets
                }
                seconds = sum(row.get("seconds", 0.0) for row in same)
                weights = sum(row.get("weights", 0) for row in same)
                lines.append(
                    [
                        where,
                        method + _people(same),
                        str(len(heads)),
                        f"{steps:,}",
                        f"{seconds:.0f}" if METHODS[method].trained else "–",
                        f"{weights:,}" if weights else "–",
                        *(_cell(by_target[target], target) for target in targets),
                    ]
                )
    head = ["set", "method", "heads", "steps a target", "s, all targets", "weights", *targets]
    return _table(head, lines)


def _people(rows: Sequence[Row]) -> str:
    """Say of how many people statistics are, where nobody travelled."""
    strangers = [row for row in rows if not row["heads"]]
    found = {people for row in strangers for people in row.get("statistics", {}).values()}
    return f" ({'/'.join(map(str, sorted(found)))} people a platform)" if found else ""


def _cell(rows: Sequence[Row], target: str) -> str:
    if not rows:
        return "–"
    return f"{1e5 * error(rows, target):.1f} ({1e5 * error(rows, target, SCAN):.1f})"


def _measures(rows: Sequence[Row]) -> str:
    if not rows:
        return "Not run."
    lines = []
    ordered = sorted(rows, key=lambda row: (row["part"], row["set"], row["heads"]))
    for method in METHODS:
        for row in (each for each in ordered if each["method"] == method):
            for target in row["errors"]:
                values = []
                for key, (_, factor) in SHOWN.items():
                    both = []
                    for reference in (CLEAR, SCAN):
                        found = list(errors([row], target, reference, key).values())
                        both.append(f"{factor * sum(found) / len(found):.3g}" if found else "–")
                    values.append(f"{both[0]} ({both[1]})")
                where = f"{row['part']} {row['set']} {len(row['heads'])} {row['steps']:,}"
                lines.append([f"{method}: {target}", where, *values])
    titles = [title for title, _ in SHOWN.values()]
    return _table(["method: target", "part, set, heads, steps", *titles], lines)


def _biology(rows: Sequence[Row]) -> str:
    if not rows:
        return "Not run."
    lines = []
    for method in METHODS:
        for row in sorted(rows, key=lambda each: int(each["steps"])):
            for target, found in row["found"].items() if row["method"] == method else ():
                parts = [f"{found[c]['predicted']:.2f} ({found[c]['input']:.2f})" for c in LEAST]
                lines.append([row["set"], method, f"{row['steps']:,}", target, *parts])
    head = ["set", "method", "steps a target", "target", *LEAST]
    return BIOLOGY + _table(head, lines)


def _goals(goals: Sequence[Goal]) -> str:
    lines = [
        [
            goal.text,
            goal.where,
            "–" if goal.ratio is None else f"{goal.ratio:.2f}",
            "–" if goal.interval is None else "{:.2f} to {:.2f}".format(*goal.interval),
            f"{'≥' if goal.at_least else '≤'} {goal.limit:.2f}",
            goal.met,
            goal.note or "–",
        ]
        for goal in goals
    ]
    return _table(["goal", "where", "ratio", "95 %", "limit", "met", "note"], lines)
