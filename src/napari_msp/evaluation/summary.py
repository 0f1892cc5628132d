"""Each cell of the tables: mean over subjects, its interval, and how far it moves on repetition."""

from dataclasses import dataclass

import numpy as np

from napari_msp.evaluation.intervals import mean_interval
from napari_msp.evaluation.results import FLOOR, Result, Results


@dataclass(frozen=True)
class Summary:
    """One method on one target by one measure.

    A subject counts once: its value is first averaged over training seeds.

    Attributes
    ----------
    method, target, reference, measure
        What was summarised; see `Result`.
    subjects, datasets, seeds
        How many there are.
    mean, deviation
        Over subjects, in the measure's unit; deviation with N - 1, None for one subject.
    interval
        95 % bootstrap interval of the mean over subjects; None for one subject.
    dataset_spread
        Standard deviation of the datasets' means at the seed that most datasets have; it holds the
        difference of their subjects too. None for one dataset.
    seed_spread
        Standard deviation of the seeds' means on the dataset that was run with most seeds; None
        for one seed.
    best
        Whether no other method's mean is nearer to 0; never of the floor.
    """

    method: str
    target: str
    reference: str
    measure: str
    subjects: int
    datasets: int
    seeds: int
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    dataset_spread: float | None
    seed_spread: float | None
    best: bool


Summaries = dict[tuple[str, str, str, str], Summary]
"""By method, target, reference and measure."""


def summarise(results: Results[Result]) -> Summaries:
    """Summarise every method on every target by every measure."""
    cells = results.groups("method", "target", "reference", "measure")
    means = {
        key: list(cell.sample_means("dataset", "subject").values()) for key, cell in cells.items()
    }
    nearest: dict[tuple[str, ...], float] = {}
    for (method, *column), values in means.items():
        if method != FLOOR:
            least = nearest.get(tuple(column), np.inf)
            nearest[tuple(column)] = min(least, abs(float(np.mean(values))))
    summaries: Summaries = {}
    for (method, target, reference, measure), cell in cells.items():
        values = means[method, target, reference, measure]
        mean = float(np.mean(values))
        lowest = nearest.get((target, reference, measure))
        summaries[method, target, reference, measure] = Summary(
            method,
            target,
            reference,
            measure,
            subjects=len(values),
            datasets=len(cell.datasets),
            seeds=len(cell.seeds),
            mean=mean,
            deviation=_deviation(values),
            interval=mean_interval(values),
            dataset_spread=_spread(cell, over="dataset", at="seed"),
            seed_spread=_spread(cell, over="seed", at="dataset"),
            best=method != FLOOR and abs(mean) == lowest,
        )
    return summaries


def _spread(cell: Results[Result], over: str, at: str) -> float | None:
    """Deviation of the means over one field, where the other has the value that meets most."""
    meets = {key: part.groups(over) for key, part in cell.groups(at).items()}
    common = max(meets.values(), key=len)  # the first of equals
    return _deviation([float(np.mean([row.value for row in part])) for part in common.values()])


def _deviation(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
