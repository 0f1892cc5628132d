"""Both sides of a comparison timed in turn, so that what else the machine does meets both."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.comparing import Comparison, Setting


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Give the spread of some values; of one value it is nothing."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Outcome:
    """What timing gave.

    Attributes
    ----------
    ours, peer
        Seconds a call.
    ratio
        The peer's seconds over ours, for a unit of work each: above 1 we are faster. Of each
        repeat's two calls, one right after the other.
    work
        As `Sides` has it.
    figures
        What else is told, by name.
    pairs
        How often both were called: one pair has no quartiles. 0: that was not kept.
    """

    ours: Spread
    peer: Spread
    ratio: Spread
    work: tuple[float, float] = (1.0, 1.0)
    figures: Mapping[str, str] = field(default_factory=dict)
    pairs: int = 0


def measure(
    comparison: Comparison, setting: Setting, clock: Callable[[], float] = time.perf_counter
) -> Outcome:
    """Time both sides in turn; who comes first changes from repeat to repeat."""
    with comparison.prepare(setting) as sides:
        calls = {"ours": sides.ours, "peer": sides.peer}
        gave: dict[str, Any] = {}
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(comparison.warm_ups):
            for side, call in calls.items():
                gave[side] = call()
        repeats = comparison.quick_repeats if setting.quick else comparison.repeats
        for repeat in range(repeats):
            for side in ("ours", "peer") if repeat % 2 == 0 else ("peer", "ours"):
                gave.pop(side, None)
                gc.collect()
                began = clock()
                gave[side] = calls[side]()
                times[side].append(clock() - began)
        figures = dict(sides.figures(gave["ours"], gave["peer"]))
    share = sides.work[0] / sides.work[1]
    ratios = [share * peer / ours for ours, peer in zip(times["ours"], times["peer"], strict=True)]
    return Outcome(
        Spread.of(times["ours"]),
        Spread.of(times["peer"]),
        Spread.of(ratios),
        sides.work,
        figures,
        pairs=len(ratios),
    )


def seconds_of(call: Callable[[], Any], repeats: int) -> list[float]:
    """Time some calls in a row."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times
