"""Which cells the parts of the benchmark are made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import mean
from typing import Any

from few.cells import SCALES, Bench, Cell, step_times, steps_within
from few.methods import CLOSED, METHODS, STATISTICS_ONLY, available
from napari_msp.learning.schedule import FAST

PARTS = ("step-times", "rates", "curves", "biology", "ten-minutes", "semireal")
HEAD = ("sub-01",)
GROUPS = {
    1: (("sub-01",), ("sub-02",), ("sub-03",), ("sub-04",)),
    2: (("sub-01", "sub-02"), ("sub-03", "sub-04")),
    4: (("sub-01", "sub-02", "sub-03", "sub-04"),),
}
"""Whom a repeat learns from, by number of heads: repeats are other heads, not other seeds."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes
    ----------
    methods, targets
        That take part.
    choosing, measuring
        Sets; curves are of the first measuring one.
    lengths
        Steps a target of the curves.
    rates, rate_steps
        Learning rates that are tried, and for how long.
    rate
        Of methods for which none was chosen.
    seconds, repeats, groups
        Of the ten-minute runs, for all targets together; how many groups of heads; and of how many
        heads.
    times
        In seconds, at which semi-real heads are looked at.
    semireal_targets
        All of their platforms.
    """

    methods: tuple[str, ...]
    targets: tuple[str, ...] = tuple(SCALES)
    choosing: tuple[str, ...] = ("amber", "basalt", "cobalt")
    measuring: tuple[str, ...] = ("flint", "garnet", "jasper")
    lengths: tuple[int, ...] = (75, 300, 1200, 3000)
    rates: tuple[float, ...] = (5e-4, 1.5e-3, 4.5e-3)
    rate_steps: int = 300
    rate: float = FAST.learning_rate
    seconds: float = 600.0
    repeats: int = 1
    groups: tuple[int, ...] = tuple(GROUPS)
    times: tuple[float, ...] = (20.0, 60.0, 150.0, 300.0, 600.0)
    semireal_targets: tuple[str, ...] = ("new_st", "strong_st")

    def trained(self, bench: Bench) -> list[str]:
        """Give the methods that are trained, as far as what they start from is there."""
        return [name for name in available(self.methods, bench.bases) if METHODS[name].trained]

    def closed(self) -> list[str]:
        """Give the methods that are learned in closed form."""
        return [name for name in self.methods if name in CLOSED]

    def runs(self, method: str, targets: Sequence[str] = ()) -> list[tuple[str, ...]]:
        """Give the targets of each training that a method takes."""
        targets = tuple(targets or self.targets)
        if METHODS[method].together:
            return [targets]
        return [(each,) for each in targets if SCALES[each] > 1 or not METHODS[method].fine_only]


def chosen_rates(rows: Iterable[Mapping[str, Any]], methods: Sequence[str]) -> dict[str, float]:
    """Give each method the rate that did best on the choosing sets; those without are left out.

    Cells are compared by their mean over targets and sets of the error over the best one's there.
    """
    found: dict[str, dict[float, dict[tuple[str, str], float]]] = {}
    for row in rows:
        if row["part"] != "rates" or row["method"] not in methods:
            continue
        by_place = found.setdefault(row["method"], {}).setdefault(row["rate"], {})
        for target, heads in row["errors"].items():
            by_place[row["set"], target] = mean(
                head["noise-free"]["sh_mse"] for head in heads.values()
            )
    chosen = {}
    for method, by_rate in found.items():
        places = set.intersection(*(set(each) for each in by_rate.values()))
        if len(by_rate) < 2 or not places:
            continue
        best = {place: min(each[place] for each in by_rate.values()) for place in places}
        chosen[method] = min(
            by_rate, key=lambda rate: mean(by_rate[rate][place] / best[place] for place in places)
        )
    return chosen


def at_chosen_rates(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what was learned at a rate that is not the chosen one any more.

    Such cells stay in their folder: another rate is another file. Where none was chosen all are
    kept, so a folder without tried rates holds the cells of one `Plan.rate`.
    """
    chosen = chosen_rates(rows, list(METHODS))
    return [
        dict(row)
        for row in rows
        if row["part"] == "rates"
        or not (row["steps"] and METHODS[row["method"]].trained)
        or row["rate"] == chosen.get(row["method"], row["rate"])
    ]


def cells_of(part: str, plan: Plan, bench: Bench) -> list[Cell]:
    """List the cells of a part, cheapest first."""
    if part == "rates":
        return _rates(plan, bench)
    chosen = chosen_rates(bench.rows(), plan.methods)
    if part == "biology":
        return _measured_further(plan, bench)
    jobs = {"curves": _curves, "ten-minutes": _ten_minutes, "semireal": _semireal}
    return jobs[part](plan, bench, chosen) if part in jobs else []


def _rates(plan: Plan, bench: Bench) -> list[Cell]:
    return [
        Cell("rates", name, method, run, HEAD, plan.rate_steps, rate)
        for name in plan.choosing
        for method in plan.trained(bench)
        for rate in plan.rates
        for run in plan.runs(method)
    ]


def _measured_further(plan: Plan, bench: Bench) -> list[Cell]:
    """List the finished cells of the curves that take every measure, shortest first."""
    rows = [
        row
        for row in at_chosen_rates(bench.rows())
        if row["part"] == "curves" and row["every_measure"] and row["method"] in plan.methods
    ]
    names = [each.name for each in fields(Cell)]
    found = [{name: row[name] for name in names} for row in rows]
    cells = [Cell(**row | {k: tuple(row[k]) for k in ("targets", "heads")}) for row in found]
    return sorted(cells, key=lambda cell: cell.steps)


def _closed(part: str, plan: Plan, name: str, heads: tuple[str, ...]) -> list[Cell]:
    return [
        Cell(part, name, method, plan.targets, heads, every_measure=True)
        for method in plan.closed()
    ]


def _nobody_travelled(part: str, plan: Plan, bench: Bench, name: str) -> list[Cell]:
    if STATISTICS_ONLY not in available(plan.methods, bench.bases):
        return []
    return [Cell(part, name, STATISTICS_ONLY, plan.targets, every_measure=True)]


def _curves(plan: Plan, bench: Bench, chosen: Mapping[str, float]) -> list[Cell]:
    where = plan.measuring[0]
    cells = _closed("curves", plan, where, HEAD)
    cells += _nobody_travelled("curves", plan, bench, where)
    for steps in (0, *plan.lengths):
        for method in plan.trained(bench):
            if steps or METHODS[method].start != "nothing":
                rate = chosen.get(method, plan.rate) if steps else 0.0
                full = steps == max(plan.lengths)
                cells += [
                    Cell("curves", where, method, run, HEAD, steps, rate, full)
                    for run in plan.runs(method)
                ]
    return cells


def _ten_minutes(plan: Plan, bench: Bench, chosen: Mapping[str, float]) -> list[Cell]:
    cells = []
    for name in plan.measuring:
        cells += _nobody_travelled("ten-minutes", plan, bench, name)
        for size in plan.groups:
            for heads in GROUPS[size][: plan.repeats]:
                cells += _closed("ten-minutes", plan, name, heads)
    for name in plan.measuring:
        for size in plan.groups:
            for heads in GROUPS[size][: plan.repeats]:
                cells += [
                    Cell(
                        "ten-minutes",
                        name,
                        method,
                        run,
                        heads,
                        steps,
                        chosen.get(method, plan.rate),
                        True,
                    )
                    for method in plan.trained(bench)
                    for runs in [plan.runs(method)]
                    for steps in [_steps(plan, bench, method, runs, plan.seconds)]
                    for run in runs
                ]
    return cells


def _semireal(plan: Plan, bench: Bench, chosen: Mapping[str, float]) -> list[Cell]:
    if "semireal" not in bench.sets:
        return []
    cells = []
    for seconds in plan.times:
        for method in plan.trained(bench):
            if METHODS[method].wide or METHODS[method].fine_only:
                continue
            runs = plan.runs(method, plan.semireal_targets)
            steps = _steps(plan, bench, method, runs, seconds)
            cells += [
                Cell(
                    "semireal",
                    "semireal",
                    method,
                    run,
                    HEAD,
                    steps,
                    chosen.get(method, plan.rate),
                    True,
                )
                for run in runs
            ]
    return cells


def _steps(
    plan: Plan, bench: Bench, method: str, runs: Sequence[tuple[str, ...]], seconds: float
) -> int:
    times = [times_of(plan, bench, method, run) for run in runs]
    return steps_within(METHODS[method], times, seconds)


def times_of(plan: Plan, bench: Bench, method: str, run: Sequence[str]) -> dict[str, float]:
    """Give the seconds of a step of each phase of a run, measured once on a choosing set."""
    if not METHODS[method].trained:
        return {}
    return step_times(bench, METHODS[method], run, plan.choosing[0])
