"""The result in a few sentences: how the tested method stands, target by target."""

from collections.abc import Sequence

from napari_msp.evaluation.benchmark.analysis import MethodTest
from napari_msp.evaluation.table1 import against
from napari_msp.formatting import number


def findings(tests: Sequence[MethodTest]) -> list[str]:
    """Write one sentence a truth, from the tests over subjects.

    Each target names the strongest other method, so the sentence never compares with a weak one.
    """
    families: dict[str, dict[str, MethodTest]] = {}
    for test in tests:
        if test.level == "subject":
            strongest = families.setdefault(test.reference, {})
            known = strongest.get(test.target)
            if known is None or test.second_mean < known.second_mean:
                strongest[test.target] = test
    return [_sentence(reference, list(best.values())) for reference, best in families.items()]


def _sentence(reference: str, strongest: Sequence[MethodTest]) -> str:
    wins = sum(test.first_mean < test.second_mean for test in strongest)
    each = "; ".join(
        f"{test.target} {number(test.change, 1, signed=True)} %{_interval(test)} against "
        f"{test.second}"
        for test in strongest
    )
    return (
        f"Against {against(reference)}, {strongest[0].first} has the lowest mean SH MSE on {wins} "
        f"of {len(strongest)} targets. Beside the best other method: {each}."
    )


def _interval(test: MethodTest) -> str:
    if test.interval is None:
        return ""
    low, high = (number(end, 1) for end in test.interval)
    return f" [{low}, {high}]"
