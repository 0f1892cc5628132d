"""What the benchmark must show: ratios, their intervals, and whether each goal is met."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from few.methods import METHODS, MSPS_FROM, SINGLES_FROM
from napari_msp.arrays import FloatArray

Row = Mapping[str, Any]
Heads = dict[tuple[str, str], float]
"""Errors by whom was learned from and who is measured."""

RESAMPLES = 2000
PLATEAU = 3000
"""Steps a target below which a run says nothing of where a method ends."""

FINE = "strong_sa"

LEAST = {"weaker bundle": 0.95, "lesion": 0.9, "no inner fluid": 0.9}
"""Part of a change that is to come through; that of an absent structure is our choice."""

CLEAR, SCAN = "noise-free", "scan"

PAPER = {"new_st": 0.84, "strong_st": 0.80, "strong_sa": 0.81}
"""MSP over best single network in the paper, against scans, of its nearest target."""


@dataclass(frozen=True)
class Goal:
    """One line: what was wanted, what was found.

    Attributes
    ----------
    text
        The goal.
    where
        Set and target.
    ratio
        What was measured; None: nothing was.
    limit
        It is met up to here, or from here on.
    interval
        95 % of resamples; None where there is too little to draw from.
    note
        What a reader must know.
    steps
        Of the shortest run that was compared, where the goal speaks of ends.
    at_least
        Whether more is better.
    """

    text: str
    where: str
    ratio: float | None
    limit: float
    interval: tuple[float, float] | None = None
    note: str = ""
    steps: int = PLATEAU
    at_least: bool = False

    @property
    def met(self) -> str:
        """Say yes, no, or that it was not measured."""
        if self.ratio is None or np.isnan(self.ratio):
            return "not measured"
        if self.steps < PLATEAU:
            return "too short to say"
        kept = self.ratio >= self.limit if self.at_least else self.ratio <= self.limit
        return "yes" if kept else "no"


def errors(
    rows: Iterable[Row], target: str, reference: str = CLEAR, measure: str = "sh_mse"
) -> Heads:
    """Give one measure of each head that rows measured on a target."""
    return {
        ("+".join(row["heads"]), subject): float(found[reference][measure])
        for row in rows
        for subject, found in row["errors"].get(target, {}).items()
        if measure in found[reference]
    }


def error(rows: Iterable[Row], target: str, reference: str = CLEAR) -> float:
    """Give the mean SH MSE; nan without any."""
    values = list(errors(rows, target, reference).values())
    return float(np.mean(values)) if values else float("nan")


def ratio(sets: Mapping[str, tuple[Heads, Heads]]) -> float | None:
    """Give the geometric mean over sets of one error over another, each a mean over heads."""
    logs = [
        np.log(np.mean(list(a.values())) / np.mean(list(b.values())))
        for a, b in map(_paired, sets.values())
        if a
    ]
    return float(np.exp(np.mean(logs))) if logs else None


def interval(sets: Mapping[str, tuple[Heads, Heads]]) -> tuple[float, float] | None:
    """Give 95 % of the ratio: sets are drawn first, then heads within each; pairs stay together.

    With one set only its heads are drawn. None where there is but one head of one set.
    """
    pairs = [np.array([[a[key], b[key]] for key in a]) for a, b in map(_paired, sets.values()) if a]
    if not pairs or (len(pairs) == 1 and len(pairs[0]) < 2):
        return None
    random = np.random.default_rng(0)
    logs = np.zeros(RESAMPLES)
    for _ in pairs:  # as many sets are drawn as there are
        drawn = np.stack([_drawn(those, random) for those in pairs])
        logs += drawn[random.integers(len(pairs), size=RESAMPLES), np.arange(RESAMPLES)]
    low, high = np.percentile(np.exp(logs / len(pairs)), [2.5, 97.5])
    return float(low), float(high)


def _drawn(pairs: FloatArray, random: np.random.Generator) -> FloatArray:
    """Give the logarithm of the ratio of a set's means for each draw of its heads."""
    means = pairs[random.integers(len(pairs), size=(RESAMPLES, len(pairs)))].mean(axis=1)
    return np.asarray(np.log(means[:, 0] / means[:, 1]))


def _paired(both: tuple[Heads, Heads]) -> tuple[Heads, Heads]:
    """Keep the heads that both were measured on, learned from the same."""
    a, b = both
    return {key: a[key] for key in a if key in b}, {key: b[key] for key in b if key in a}


def time_to(curve: Sequence[tuple[float, float]], wanted: float) -> float | None:
    """Give when a curve of (time, error) comes down to an error; None: it does not.

    Between two points both are taken to change by constant factors; from zero steps on, the error
    by a constant factor a second.

    >>> time_to([(100, 8.0), (400, 2.0)], 4.0)
    200.0
    """
    before: tuple[float, float] | None = None
    for time, value in sorted(curve):
        if value <= wanted:
            if before is None:
                return time
            part = np.log(before[1] / wanted) / np.log(before[1] / value)
            if before[0] <= 0:
                return float(part * time)
            return float(round(before[0] * (time / before[0]) ** part, 6))
        before = (time, value)
    return None


def error_at(curve: Sequence[tuple[float, float]], time: float) -> float | None:
    """Give the error of a curve of (time, error) at a time; None before its first point.

    Between two points both change by constant factors; after the last one it is level.

    >>> round(error_at([(100, 8.0), (400, 2.0)], 200), 6)
    4.0
    """
    points = sorted(point for point in curve if point[0] > 0)
    if not points or time < points[0][0]:
        return None
    times, values = np.log(np.array(points)).T
    return float(np.exp(np.interp(np.log(time), times, values)))


class Table:
    """Rows of one part, by set, method, target and number of steps."""

    def __init__(self, rows: Iterable[Row], part: str) -> None:
        self.rows = [row for row in rows if row["part"] == part]

    @property
    def sets(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(row["set"] for row in self.rows))

    @property
    def targets(self) -> list[str]:
        """All that any row measured, coarse ones first."""
        found = {target for row in self.rows for target in row["errors"]}
        return sorted(found, key=lambda each: (each.endswith("sa"), each))

    def of(
        self, method: str, target: str = "", where: str = "", heads: int | None = None
    ) -> list[Row]:
        """Give a method's rows, shortest first."""
        those = [
            row
            for row in self.rows
            if row["method"] == method
            and (not target or target in row["errors"])
            and (not where or row["set"] == where)
            and (heads is None or len(row["heads"]) == heads)
        ]
        return sorted(those, key=lambda row: row["steps"])

    def last(
        self, method: str, target: str, where: str = "", steps: int | None = None
    ) -> list[Row]:
        """Give the rows of a method's longest runs, or of those of so many steps."""
        those = self.of(method, target, where)
        if METHODS[method].trained:
            those = [row for row in those if row["steps"]]
        longest = those[-1]["steps"] if those and steps is None else steps
        return [row for row in those if row["steps"] == longest]

    def curve(self, method: str, target: str, where: str) -> list[tuple[float, float]]:
        """Give seconds and errors."""
        return [
            (float(row.get("seconds", 0.0)), error([row], target))
            for row in self.of(method, target, where)
        ]

    def together(self, row: Row) -> tuple[float, set[str]]:
        """Give the seconds of all targets that a method learned for so long, and which these are.

        Single networks learn targets one by one, each a row.
        """
        alike = ("set", "heads", "steps", "rate")
        same = [
            each
            for each in self.of(row["method"])
            if [each[name] for name in alike] == [row[name] for name in alike]
        ]
        targets = {target for each in same for target in each["errors"]}
        return float(sum(each.get("seconds", 0.0) for each in same)), targets

    def common_length(self, methods: Sequence[str], target: str, where: str) -> int | None:
        """Give the most steps that all methods were trained for."""
        lengths = [{row["steps"] for row in self.of(m, target, where)} for m in methods]
        common = set.intersection(*lengths) if lengths else set()
        return max(common) if common and max(common) > 0 else None


def all_goals(rows: Sequence[Row], biology: Sequence[Row] = ()) -> list[Goal]:
    """Give every goal, measured or not.

    Parameters
    ----------
    biology
        What came through of changes, a row a cell; see `few.biology`.
    """
    curves, ends = Table(rows, "curves"), Table(rows, "ten-minutes")
    return [
        *_faster(curves),
        *_at_the_plateau(curves),
        *_multi_stage(curves),
        *_equal_seconds_of_curves(curves),
        *_equal_seconds(ends),
        *_as_many_weights(curves),
        *_patch_regression(ends, curves),
        *_came_through(biology),
        *_semireal(Table(rows, "semireal")),
    ]


def _families() -> list[tuple[str, str]]:
    """Pair each method from base with the same from nothing."""
    return [
        (name, name.replace("from base", "from nothing"))
        for name, method in METHODS.items()
        if method.start == "base"
        and name.replace("from base", "from nothing") in METHODS
        and name != name.replace("from base", "from nothing")
    ]


def _faster(table: Table) -> list[Goal]:
    goals = []
    for where in table.sets or ["–"]:
        for base, nothing in _families():
            for target in table.targets or ["every target"]:
                curve = table.curve(nothing, target, where)
                found, note = None, ""
                mine = table.curve(base, target, where)
                if curve and mine and curve[-1][0] > 0:
                    seconds, wanted = curve[-1]
                    reached = time_to(mine, wanted)
                    found = float("inf") if reached is None else reached / seconds
                    length = table.of(nothing, target, where)[-1]["steps"]
                    note = f"its error after {length:,} steps"
                    if reached is None:
                        note += f" is not reached in {mine[-1][0]:.0f} s"
                text = f"{base}: time to what {nothing} has in the end, over its time"
                steps = table.of(nothing, target, where)[-1]["steps"] if curve else 0
                goals.append(Goal(text, f"{where} {target}", found, 0.2, None, note, steps))
    return goals


def _compare(
    table: Table,
    text: str,
    first: str,
    second: str,
    limits: Mapping[str, float] | float,
    *,
    reference: str = CLEAR,
    mean_limit: float | None = None,
    at_end: bool = True,
    pick: Callable[[str, str, str], tuple[list[Row], list[Row]]] | None = None,
) -> list[Goal]:
    """Compare two methods by target, over all sets; and in the mean where that has a limit."""

    def same_length(target: str, where: str, _: str) -> tuple[list[Row], list[Row]]:
        steps = table.common_length([first, second], target, where)
        if steps is None:
            return [], []
        return tuple(table.last(each, target, where, steps) for each in (first, second))  # type: ignore[return-value]

    choose = pick or same_length
    goals, logs, ends = [], [], []
    for target in table.targets or ["every target"]:
        pairs, lengths, shortest = {}, set(), []
        for where in table.sets:
            a, b = choose(target, where, "")
            if a and b:
                pairs[where] = errors(a, target, reference), errors(b, target, reference)
                shortest += [rows[0]["steps"] for rows in (a, b) if rows[0]["steps"]]
                lengths.add(" against ".join(dict.fromkeys(f"{r[0]['steps']:,}" for r in (a, b))))
        limit = limits if isinstance(limits, float) else limits.get(target, max(limits.values()))
        found = ratio(pairs)
        note = f"{' / '.join(sorted(lengths))} steps" if lengths else ""
        place = f"{'+'.join(pairs) or '–'} {target}"
        least = min(shortest, default=0) if at_end else PLATEAU
        goals.append(Goal(text, place, found, limit, interval(pairs), note, least))
        if found is not None:
            ends.append(least)
            logs.append(np.log(found))
    if mean_limit is not None:
        mean = float(np.exp(np.mean(logs))) if logs else None
        note, least = f"targets: {len(logs)}", min(ends, default=0)
        goals.append(Goal(text, "mean over targets", mean, mean_limit, None, note, least))
    return goals


def _at_the_plateau(table: Table) -> list[Goal]:
    return [
        goal
        for base, nothing in _families()
        for goal in _compare(
            table, f"{base}, over {nothing}, at equal steps", base, nothing, 1.0, mean_limit=0.9
        )
    ]


def _best_end(table: Table, methods: Sequence[str], target: str, where: str) -> list[Row]:
    """Give the rows of the method that errs least where each was trained longest."""
    ends = [rows for name in methods if (rows := table.last(name, target, where))]
    return min(ends, key=lambda rows: error(rows, target), default=[])


def _multi_stage(table: Table) -> list[Goal]:
    goals = []
    limits = {"new_st": 0.78, "strong_st": 0.78, FINE: 0.68}
    for msp in MSPS_FROM["base"]:

        def ends(target: str, where: str, _: str, msp: str = msp) -> tuple[list[Row], list[Row]]:
            single = _best_end(table, SINGLES_FROM["base"], target, where)
            return table.last(msp, target, where), single

        text = f"{msp}, over the best single network from base, each at its end"
        goals += _compare(table, text, msp, "", limits, pick=ends)
        text += ", against scans (paper: 0.84, 0.80, 0.81)"
        goals += _compare(table, text, msp, "", PAPER, reference=SCAN, pick=ends)
    return goals


def _equal_seconds_of_curves(table: Table) -> list[Goal]:
    """Compare each point of an MSP's curve with single networks of as many seconds."""
    goals = []
    for start in ("base", "nothing"):
        msp, single = MSPS_FROM[start][0], SINGLES_FROM[start][0]
        text = f"{msp}, over {single}, at the seconds of all targets together, on the curves"
        for target in table.targets:
            for row in table.of(msp, target):
                seconds, wanted = table.together(row)
                curve = []
                for other in table.of(single, target, row["set"]):
                    spent, learned = table.together(other)
                    if learned >= wanted:
                        curve.append((spent, error([other], target)))
                theirs = error_at(curve, seconds)
                if theirs is None or seconds <= 0:
                    continue
                note = f"{row['steps']:,} steps, {seconds:.0f} s"
                longest = max(time for time, _ in curve)
                if seconds > longest:
                    if other["steps"] < PLATEAU:
                        continue
                    note += f"; theirs at its end, {longest:.0f} s"
                found = error([row], target) / theirs
                goals.append(Goal(text, f"{row['set']} {target}", found, 0.85, None, note))
        if not goals:
            goals.append(Goal(text, "–", None, 0.85))
    return goals


def _equal_seconds(table: Table) -> list[Goal]:
    goals = []
    for heads in (1, 2, 4):
        for msp in MSPS_FROM["base"]:

            def ends(
                target: str, where: str, _: str, msp: str = msp, heads: int = heads
            ) -> tuple[list[Row], list[Row]]:
                single = SINGLES_FROM["base"][0]
                return (
                    table.of(msp, target, where, heads),
                    table.of(single, target, where, heads),
                )

            text = f"{msp}, over SHResNet, from base, at equal seconds, heads: {heads}"
            goals += _compare(table, text, msp, "", 0.85, at_end=False, pick=ends)
    return goals


def _as_many_weights(table: Table) -> list[Goal]:
    msp, wide = MSPS_FROM["base"][0], "wide SHResNet, from base"

    def ends(target: str, where: str, _: str) -> tuple[list[Row], list[Row]]:
        return table.last(msp, target, where), table.last(wide, target, where)

    text = f"{msp}, over one network of as many weights from a base of its own"
    return _compare(table, text, msp, wide, 1.0, pick=ends)


def _patch_regression(ends: Table, curves: Table) -> list[Goal]:
    goals = []
    for table, heads in ((curves, 1), (ends, 1), (ends, 2), (ends, 4)):

        def both(
            target: str, where: str, _: str, table: Table = table, heads: int = heads
        ) -> tuple[list[Row], list[Row]]:
            if target == FINE:
                return [], []
            msp = [r for r in table.of(MSPS_FROM["base"][0], target, where, heads) if r["steps"]]
            last = msp[-1]["steps"] if msp else 0
            return (
                [row for row in msp if row["steps"] == last],
                table.of("IQT", target, where, heads),
            )

        what = "curve's end" if table is curves else "ten minutes"
        text = f"MSP, from base, over IQT from the same heads ({heads}, {what})"
        found = _compare(table, text, "", "", 0.4, at_end=table is curves, pick=both)
        goals += [goal for goal in found if not goal.where.endswith(FINE)]
    return goals


def _came_through(rows: Sequence[Row]) -> list[Goal]:
    """Ask of what starts from the base whether changes that nobody else has come through."""
    goals = []
    for method in (*SINGLES_FROM["base"], *MSPS_FROM["base"]):
        ends: dict[tuple[str, str], Row] = {}
        for row in sorted(rows, key=lambda each: int(each["steps"])):
            if row["method"] == method and row["steps"]:
                ends |= {(row["set"], target): row for target in row["found"]}
        for change, limit in LEAST.items():
            text = f"{method}: part of a change that comes through: {change}"
            for (where, target), row in ends.items():
                found = row["found"][target][change]
                note = f"{row['steps']:,} steps; in the input itself {found['input']:.2f}"
                place, part = f"{where} {target}", found["predicted"]
                goals.append(Goal(text, place, part, limit, None, note, row["steps"], True))
            if not ends:
                goals.append(Goal(text, "–", None, limit, at_least=True))
    return goals


def _semireal(table: Table) -> list[Goal]:
    goals = []
    for base, nothing in _families():
        for target in table.targets or ["every target"]:
            mine, theirs = (table.of(each, target, "semireal") for each in (base, nothing))
            text = f"semi-real, {base}, over {nothing}, at equal seconds"
            for a, b in zip(mine, theirs, strict=False):
                pairs = {"semireal": (errors([a], target), errors([b], target))}
                found, drawn = ratio(pairs), interval(pairs)
                # Not above it by more than the interval: its lower end is at most 1.
                limit = 1.0 if drawn is None or found is None else 1.0 + max(0.0, found - drawn[0])
                goals.append(Goal(text, f"{target} {a['seconds']:.0f} s", found, limit, drawn))
            if not mine or not theirs:
                goals.append(Goal(text, target, None, 1.0))
            curve = table.curve(nothing, target, "semireal")
            reached = None
            if curve and len(mine) > 1 and curve[-1][0] > 0:  # one time says nothing of half of it
                reached = time_to(table.curve(base, target, "semireal"), curve[-1][1])
            found = None
            if curve and len(mine) > 1 and curve[-1][0] > 0:  # one time says nothing of half of it
                found = float("inf") if reached is None else reached / curve[-1][0]
            text = f"semi-real, {base}: time to what {nothing} has in the end, over its time"
            goals.append(Goal(text, target, found, 0.5))
    return goals
