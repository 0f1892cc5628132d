"""The tests for people: the other methods in rows, targets in columns."""

from collections.abc import Sequence

from napari_msp.evaluation.benchmark.analysis import LEVELS, Level, MethodTest
from napari_msp.evaluation.report.table import EMPTY, Cell, Table
from napari_msp.evaluation.table1 import against
from napari_msp.formatting import number, p_text


def pvalue_tables(tests: Sequence[MethodTest]) -> list[Table]:
    """One table a level and truth: the other methods in rows, targets in columns."""
    families: dict[tuple[Level, str], list[MethodTest]] = {}
    for test in tests:
        families.setdefault((test.level, test.reference), []).append(test)
    return [_family(*key, family) for key, family in families.items()]


def _family(level: Level, reference: str, family: Sequence[MethodTest]) -> Table:
    by_place = {(test.second, test.target): test for test in family}
    targets = list(dict.fromkeys(test.target for test in family))
    others = list(dict.fromkeys(test.second for test in family))
    first = family[0]
    samples = sorted({test.test.pairs for test in family})
    count = " to ".join(str(each) for each in dict.fromkeys((samples[0], samples[-1])))
    caption = (
        f"{first.first} against each other method {LEVELS[level]} (n = {count}), truth: "
        f"{against(reference)}. Change of the mean SH MSE"
        + (" [95 % bootstrap interval over subjects]" if level == "subject" else "")
        + "; rank-biserial correlation r, −1 where it errs less on every sample; p of Wilcoxon's "
        f"signed-rank test, two-sided, times the {first.comparisons} comparisons of this table "
        "(methods × targets; Bonferroni). Bold: p < 0.05."
    )
    notes = list(dict.fromkeys(test.test.note for test in family if test.test.note))
    if notes:
        caption += f" Note: {'; '.join(notes)}."
    return Table(
        caption,
        ["against", *targets],
        [
            [Cell(other), *(_test_cell(by_place.get((other, target))) for target in targets)]
            for other in others
        ],
    )


def _test_cell(test: MethodTest | None) -> Cell:
    if test is None:
        return EMPTY
    change = f"{number(test.change, 1, signed=True)} %"
    if test.interval is not None:
        low, high = (number(end, 1) for end in test.interval)
        change += f" [{low}, {high}]"
    effect = test.test.rank_biserial
    r = "–" if effect is None else number(effect, 2)
    return Cell(change, f"r = {r}, {p_text(test.test.corrected_p_value)}", test.significant)
