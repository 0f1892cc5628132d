"""Agreement of raters: Cohen's kappa of each two, Fleiss' kappa of three or more.

Only ratings of the same prediction are compared: one that was made again between two ratings is
another. 0 is agreement by chance, 1 full agreement.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.statistics import FOR_INTERVAL
from napari_msp.review.rating_table import Verdict
from napari_msp.review.ratings import AllRatings

ORDER: tuple[Verdict, ...] = ("pass", "doubtful", "fail")
"""Verdicts from good to bad: "doubtful" is nearer to both than they are to each other."""

CONFIDENT = 1.959964
"""Half-width of a 95 % interval in standard errors."""

NO_ERROR = 1e-6
"""Error below which it is 0 but for rounding, and means nothing."""


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance, with its large-sample error (Fleiss, Cohen and Everitt 1969).

    `value` is None if nothing is rated, or all verdicts are the same; `error` if it is unknown.
    `observed` and `expected` are the shares of agreement, seen and by chance.
    """

    value: float | None
    error: float | None
    observed: float
    expected: float
    count: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval, within [-1, 1].

        Without disagreement the large-sample error is 0, for two ratings as for a thousand: the low
        end is then that of the share of agreement (Clopper and Pearson), at the same chance. There
        is none with full disagreement, nor for two predictions with some.
        """
        if self.value is None or self.error is None:
            return None
        if math.isclose(self.observed, 1):
            share = (0.05 / 2) ** (1 / self.count)
            return max(-1.0, (share - self.expected) / (1 - self.expected)), 1.0
        if self.error < NO_ERROR or self.count < FOR_INTERVAL:
            return None
        low, high = (self.value + sign * CONFIDENT * self.error for sign in (-1, 1))
        return max(-1.0, low), min(1.0, high)


def kappa_text(kappa: Kappa) -> str:
    """Format kappa with its interval, or say why there is none.

    >>> kappa_text(Kappa(0.4, 0.1, 0.7, 0.5, 50))
    '0.40 (0.20 to 0.60)'
    """
    if not kappa.count:
        return "– (nothing in common)"
    if kappa.value is None:
        return "– (all said the same of everything)"
    interval = kappa.interval
    text = f"{kappa.value:.2f}" + (
        "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
    )
    return text.replace("-", "−")


def cohens_kappa(table: FloatArray | Sequence[Sequence[float]], weighted: bool = False) -> Kappa:
    """Return the kappa of two raters (Cohen 1960).

    Parameters
    ----------
    table
        (C, C) counts: the first rater chose the row's and the second the column's category.
    weighted
        Whether half-way apart counts half (linear weights), for ordered categories.

    Examples
    --------
    >>> round(cohens_kappa([[20, 5], [10, 15]]).value, 3)
    0.4
    """
    counts = np.asarray(table, dtype=float)
    total, size = counts.sum(), len(counts)
    if total == 0:
        return Kappa(None, None, 0.0, 0.0, 0)
    shares = counts / total
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    places = np.arange(size)
    weights = 1 - np.abs(places[:, None] - places) / max(1, size - 1) if weighted else np.eye(size)
    observed = float((weights * shares).sum())
    expected = float((weights * np.outer(rows, columns)).sum())
    if math.isclose(expected, 1):
        return Kappa(None, None, observed, expected, int(total))
    value = (observed - expected) / (1 - expected)
    # Fleiss, Cohen and Everitt 1969: weights' means over the other rater's categories.
    of_rows, of_columns = weights @ columns, rows @ weights
    deviations = weights - (of_rows[:, None] + of_columns) * (1 - value)
    variance = (shares * deviations**2).sum() - (value - expected * (1 - value)) ** 2
    error = math.sqrt(max(0.0, float(variance)) / total) / (1 - expected)
    return Kappa(value, error, observed, expected, int(total))


def fleiss_kappa(counts: FloatArray | Sequence[Sequence[float]]) -> Kappa:
    """Return the kappa of several raters (Fleiss 1971).

    (N, C) counts: how many raters, the same number for each, put each item into each category.
    """
    given = np.asarray(counts, dtype=float)
    if given.size == 0:
        return Kappa(None, None, 0.0, 0.0, 0)
    raters = given.sum(axis=1)
    if raters.min() != raters.max() or raters[0] < 2:
        raise ValueError("each must be rated by the same number of raters, two or more")
    number = float(raters[0])
    observed = float(((given**2).sum(axis=1) - number).mean() / (number * (number - 1)))
    expected = float(np.square(given.sum(axis=0) / given.sum()).sum())
    if math.isclose(expected, 1):
        return Kappa(None, None, observed, expected, len(given))
    value = (observed - expected) / (1 - expected)
    return Kappa(value, None, observed, expected, len(given))


@dataclass(frozen=True)
class Pair:
    """Agreement of two raters.

    Attributes
    ----------
    kappa, weighted
        Cohen's kappa, and with linear weights: "doubtful" is half-way.
    differing
        Keys of the predictions with different verdicts, and both verdicts.
    other_files
        Number of predictions that both rated, but not the same file: made again in between.
    """

    raters: tuple[str, str]
    kappa: Kappa
    weighted: Kappa
    differing: dict[str, tuple[Verdict, Verdict]]
    other_files: int


@dataclass(frozen=True)
class Agreement:
    """Agreement of all raters.

    Attributes
    ----------
    pairs
        Every two raters who rated something in common.
    all_raters
        Fleiss' kappa of all raters, if there are three or more, over what all of them rated.
    differing
        Keys of the predictions with different verdicts, and each rater's verdict; those that some
        pass and others fail come first.
    """

    pairs: tuple[Pair, ...]
    all_raters: Kappa | None
    differing: dict[str, dict[str, Verdict]]


def agreement(ratings: AllRatings) -> Agreement:
    """Compare all raters of a folder; a rating without verdict does not count."""
    given: dict[str, Given] = {
        rater: {
            (key, each.prediction_hash): each.verdict
            for key, each in theirs.items()
            if each.verdict is not None
        }
        for rater, theirs in ratings.by_rater.items()
    }
    pairs = [_pair((one, other), given[one], given[other]) for one, other in combinations(given, 2)]
    differing: dict[str, dict[str, Verdict]] = {}
    for pair in pairs:
        for key, verdicts in pair.differing.items():
            differing.setdefault(key, {}).update(zip(pair.raters, verdicts, strict=True))
    return Agreement(
        tuple(pair for pair in pairs if pair.kappa.count or pair.other_files),
        _of_all(list(given.values())) if len(given) > 2 else None,
        dict(sorted(differing.items(), key=lambda each: (-_apart(each[1].values()), each[0]))),
    )


Given = dict[tuple[str, str], Verdict]
"""A rater's verdicts by key and hash of the rated prediction."""


def _pair(raters: tuple[str, str], one: Given, other: Given) -> Pair:
    said = {
        key: (verdict, other[key, made])
        for (key, made), verdict in one.items()
        if (key, made) in other
    }
    both = {key for key, _ in one} & {key for key, _ in other}
    counts = Counter(said.values())
    table = [[counts[row, column] for column in ORDER] for row in ORDER]
    return Pair(
        raters,
        cohens_kappa(table),
        cohens_kappa(table, weighted=True),
        {key: verdicts for key, verdicts in said.items() if verdicts[0] != verdicts[1]},
        len(both) - len(said),
    )


def _of_all(given: list[Given]) -> Kappa:
    rated_by_all = sorted(set.intersection(*map(set, given)))
    said = [Counter(each[rated] for each in given) for rated in rated_by_all]
    return fleiss_kappa([[counts[verdict] for verdict in ORDER] for counts in said])


def _apart(verdicts: Iterable[Verdict]) -> int:
    places = [ORDER.index(each) for each in verdicts]
    return max(places) - min(places)
