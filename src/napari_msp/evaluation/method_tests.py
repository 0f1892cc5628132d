"""One method against every other, over subjects and, as in the paper, over patches."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_msp.errors import UserError
from napari_msp.evaluation.intervals import change_interval, relative_change
from napari_msp.evaluation.results import FLOOR, PatchResult, Result, Results, Row
from napari_msp.evaluation.statistics import LEVEL, PairedTest, bonferroni, wilcoxon

TESTED_MEASURE = "sh_mse"

Level = Literal["subject", "patch"]

LEVELS: dict[Level, str] = {
    "subject": "over subjects",
    "patch": "over patches, as in the paper, not independent",
}
"""How each level is called to the reader; the first one carries a claim."""


@dataclass(frozen=True)
class MethodTest:
    """One method against another on one target.

    Attributes
    ----------
    level
        What was paired: subjects or patches, each averaged over training seeds.
    reference, target
        What was taken as truth, and the platform.
    first, second
        The methods.
    comparisons
        Size of the family that p-values are corrected over: all tests of a level and reference.
    test
        Wilcoxon's, with the rank-biserial correlation.
    first_mean, second_mean
        Mean SH MSE of the paired samples, in SH units squared.
    change
        By how many percent the first mean is above (+) or below (-) the second.
    interval
        95 % bootstrap interval of `change` over subjects; None for patches, which are not
        independent, and for fewer than two subjects.
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
    change: float
    interval: tuple[float, float] | None

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        corrected = self.test.corrected_p_value
        return corrected is not None and corrected < LEVEL


def compare_methods(
    results: Results[Result], patches: Results[PatchResult], tested: str
) -> list[MethodTest]:
    """Test one method against every other on the samples that both have.

    Parameters
    ----------
    results
        Of them the SH MSE is tested, on each reference apart.
    patches
        SH MSE of patches; may be empty.
    tested
        The method, chosen before the errors were seen.

    Returns
    -------
    Tests over subjects, then over patches.

    Raises
    ------
    UserError
        When the method was not measured.
    """
    if tested not in results.methods:
        raise UserError(
            f"{tested}: was not measured, so it cannot be tested; choose from "
            f"{', '.join(results.methods)}"
        )
    errors = results.select(measure=TESTED_MEASURE)
    return [*_tests(errors, "subject", tested), *_tests(patches, "patch", tested)]


def _tests(rows: Results[Row], level: Level, tested: str) -> list[MethodTest]:
    """Test a family for each reference."""
    return [
        test
        for (reference,), part in rows.groups("reference").items()
        for test in _family(part, level, reference, tested)
    ]


def _family(rows: Results[Row], level: Level, reference: str, tested: str) -> list[MethodTest]:
    sample = ("dataset", "subject") if level == "subject" else ("dataset", "subject", "patch")
    cells = {
        key: part.sample_means(*sample) for key, part in rows.groups("method", "target").items()
    }
    pairs: list[tuple[str, str]] = []
    values: list[tuple[list[float], list[float]]] = []
    for target in rows.targets:
        for other in rows.methods:
            first, second = cells.get((tested, target), {}), cells.get((other, target), {})
            shared = [name for name in first if name in second]
            if other not in (tested, FLOOR) and shared:
                pairs.append((target, other))
                values.append(([first[n] for n in shared], [second[n] for n in shared]))
    tests = bonferroni([wilcoxon(*pair) for pair in values])
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
        )
        for (target, other), (first, second), test in zip(pairs, values, tests, strict=True)
    ]
