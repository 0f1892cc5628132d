"""Analysis behind Table 1: the mean in each cell, and one method against every other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np

from napari_msp.errors import Choose, UserError
from napari_msp.evaluation.benchmark.results import (
    FLOOR,
    EffectResult,
    PatchResult,
    Result,
    Results,
    Row,
)
from napari_msp.evaluation.statistics import (
    FEWEST,
    LEVEL,
    PairedTest,
    bonferroni,
    change_interval,
    mean_interval,
    relative_change,
    wilcoxon,
)

TESTED_MEASURE = "sh_mse"

NO_EFFECTS: Results[EffectResult] = Results(())

Level = Literal["subject", "patch"]

LEVELS: dict[Level, str] = {
    "subject": "over subjects",
    "patch": "over patches, as in the paper, not independent",
}
"""Descriptions of the levels for readers; only the first supports a claim."""


OVERLAP = (
    "folds overlap, as each subject is tested once and trains the other folds, so no p-value "
    "or interval is given"
)
"""Note in place of p-values and intervals: no unbiased estimator exists of the variance of such
means (Bengio 2004)."""


FEW_HEADS = (
    f"fewer than {FEWEST} subjects, whose patches are not independent, so there is no p-value"
)
"""Note in place of p-values over patches."""


@dataclass(frozen=True)
class Summary:
    """One method on one target by one measure.

    Each subject counts once: its value is first averaged over training seeds.

    Attributes
    ----------
    mean, deviation
        Mean and deviation over subjects, in the measure's unit; the latter with N - 1,
        None for one subject.
    interval
        95 % interval of the mean over subjects, see `mean_interval`; None where folds overlap.
    dataset_spread
        Standard deviation of the datasets' means at the seed that most datasets have, which
        includes the difference between their subjects. None for one dataset.
    seed_spread
        Standard deviation of the seeds' means on the dataset that was run with most seeds; None for
        one seed.
    best
        Whether no other method's mean is nearer to 0; never true of the floor, nor of a method that
        lacks subjects which another has.
    complete
        Whether it has every subject that another method has.
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
    shell: int | None = None
    complete: bool = True


Summaries = dict[tuple[str, str, str, str], Summary]
"""Summaries by method, column (see `column_name`), reference and measure."""


def summarise(results: Results[Result], *, overlapping: bool = False) -> Summaries:
    """Summarise every method on every target, shell by shell, by every measure.

    `overlapping`: whether each subject was tested once and taught otherwise, see `OVERLAP`.
    """
    cells = results.groups("method", "column", "reference", "measure")
    by_subject = {key: cell.sample_means("dataset", "subject") for key, cell in cells.items()}
    everybody: dict[tuple[str, ...], set[Any]] = {}
    for (method, *where), found in by_subject.items():
        everybody.setdefault(tuple(where), set()).update(() if method == FLOOR else found)
    nearest: dict[tuple[str, ...], float] = {}
    for (method, *where), found in by_subject.items():
        if method != FLOOR and found.keys() >= everybody[tuple(where)]:
            least = nearest.get(tuple(where), np.inf)
            nearest[tuple(where)] = min(least, abs(float(np.mean(list(found.values())))))
    summaries: Summaries = {}
    for (method, column, reference, measure), cell in cells.items():
        subjects = by_subject[method, column, reference, measure]
        values = list(subjects.values())
        complete = subjects.keys() >= everybody[column, reference, measure]
        mean = float(np.mean(values))
        lowest = nearest.get((column, reference, measure))
        summaries[method, column, reference, measure] = Summary(
            method,
            cell.rows[0].target,
            reference,
            measure,
            subjects=len(values),
            datasets=len(cell.names("dataset")),
            seeds=len(cell.names("seed")),
            mean=mean,
            deviation=_deviation(values),
            interval=None if overlapping else mean_interval(values),
            dataset_spread=_spread(cell, over="dataset", at="seed"),
            seed_spread=_spread(cell, over="seed", at="dataset"),
            best=method != FLOOR and complete and abs(mean) == lowest,
            shell=cell.rows[0].shell,
            complete=complete,
        )
    return summaries


def _spread(cell: Results[Result], over: str, at: str) -> float | None:
    """Return the deviation of means over one field, at the other's value that has most of them."""
    meets = {key: part.groups(over) for key, part in cell.groups(at).items()}
    common = max(meets.values(), key=len)  # the first of equals
    return _deviation([float(np.mean([row.value for row in part])) for part in common.values()])


def _deviation(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class MethodTest:
    """A test of one method against another on one target.

    Attributes
    ----------
    level
        Paired samples: subjects or patches, each averaged over training seeds.
    comparisons
        Size of the family over which p-values are corrected: all tests of a level, reference and
        shell.
    test
        Wilcoxon's test, with the rank-biserial correlation; without p-value where folds overlap.
    first_mean, second_mean
        Mean SH MSE of the paired samples, in SH units squared.
    change
        Difference of the first mean from the second, in percent of the second; None where that
        is 0.
    interval
        95 % interval of `change` over subjects, see `change_interval`; None for patches, which are
        not independent, and where folds overlap.
    """

    level: Level
    reference: str
    target: str
    first: str
    second: str
    comparisons: int
    test: PairedTest
    first_mean: float
    second_mean: float
    change: float | None
    interval: tuple[float, float] | None
    shell: int | None = None

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        corrected = self.test.corrected_p_value
        return corrected is not None and corrected < LEVEL


def compare_methods(
    results: Results[Result],
    patches: Results[PatchResult],
    tested: str,
    *,
    overlapping: bool = False,
) -> list[MethodTest]:
    """Test one method against every other on the samples that both have.

    Parameters
    ----------
    results
        Results of all measures; SH MSE is tested, on each reference separately.
    patches
        SH MSE of patches; may be empty.
    tested
        Name of the method, chosen before the errors were seen.
    overlapping
        Whether each subject was tested once and taught otherwise: then methods are compared over
        subjects only, and nothing is tested, see `OVERLAP`.

    Returns
    -------
    Tests over subjects, then over patches.

    Raises
    ------
    UserError
        When the method was not measured.
    """
    if tested not in results.methods:
        remedy = Choose("methods", tuple(results.methods))
        raise UserError("was not measured, so it cannot be tested", tested, "methods", remedy)
    tests = _tests(results.select(measure=TESTED_MEASURE), "subject", tested)
    if not overlapping:
        return [*tests, *_tests(patches, "patch", tested)]
    untested: dict[str, Any] = {"p_value": None, "corrected_p_value": None, "note": OVERLAP}
    return [
        replace(each, test=replace(each.test, **untested), comparisons=0, interval=None)
        for each in tests
    ]


def _tests(rows: Results[Row], level: Level, tested: str) -> list[MethodTest]:
    """Run the tests of the family of each reference and shell."""
    return [
        test
        for (reference, _), part in rows.groups("reference", "shell").items()
        for test in _family(part, level, reference, tested)
    ]


def _family(rows: Results[Row], level: Level, reference: str, tested: str) -> list[MethodTest]:
    sample = ("dataset", "subject") if level == "subject" else ("dataset", "subject", "patch")
    cells = {
        key: part.sample_means(*sample) for key, part in rows.groups("method", "target").items()
    }
    pairs: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    tests: list[PairedTest] = []
    for target, other in product(rows.targets, rows.methods):
        first, second = cells.get((tested, target), {}), cells.get((other, target), {})
        shared = [name for name in first if name in second]
        if other not in (tested, FLOOR) and shared:
            pairs[target, other] = [first[n] for n in shared], [second[n] for n in shared]
            test = wilcoxon(*pairs[target, other])
            few = level == "patch" and len({name[:2] for name in shared}) < FEWEST
            tests.append(replace(test, p_value=None, note=FEW_HEADS) if few else test)
    tests = bonferroni(tests)
    return [
        MethodTest(
            level,
            reference,
            target,
            tested,
            other,
            comparisons=sum(each.p_value is not None for each in tests),
            test=test,
            first_mean=float(np.mean(first)),
            second_mean=float(np.mean(second)),
            change=relative_change(first, second),
            interval=change_interval(first, second) if level == "subject" else None,
            shell=rows.rows[0].shell,
        )
        for ((target, other), (first, second)), test in zip(pairs.items(), tests, strict=True)
    ]


@dataclass(frozen=True)
class Analysis:
    """Everything that tables are made from; `tests` is empty if no method was chosen to be tested.

    `overlapping`: whether each subject was tested once and taught otherwise, see `OVERLAP`.
    """

    results: Results[Result]
    effects: Results[EffectResult]
    summaries: Summaries
    tests: Sequence[MethodTest]
    overlapping: bool


def analyse(
    results: Results[Result],
    patches: Results[PatchResult],
    tested: str | None,
    effects: Results[EffectResult] = NO_EFFECTS,
    *,
    overlapping: bool = False,
) -> Analysis:
    """Summarise everything, and test one method, if any, against every other."""
    summaries = summarise(results, overlapping=overlapping)
    tests = compare_methods(results, patches, tested, overlapping=overlapping) if tested else []
    return Analysis(results, effects, summaries, tests, overlapping)
