"""Bootstrap intervals over subjects, with fixed random numbers: one table, one interval."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from napari_msp.arrays import FloatArray

CONFIDENCE = 0.95

RESAMPLES = 5000
"""Draws of a bootstrap (our choice)."""

Interval = tuple[float, float]


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Interval of a mean.

    Parameters
    ----------
    values
        One a subject.

    Returns
    -------
    Lower and upper end of the percentile bootstrap; None for fewer than two subjects.
    """
    if len(values) < 2:
        return None
    return _ends(scipy.stats.bootstrap((np.asarray(values),), np.mean, **_options()))


def change_interval(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """Interval of `relative_change`, drawn subject by subject: pairs stay together.

    Parameters
    ----------
    first, second
        One value a subject, in one order.

    Returns
    -------
    In percent; None for fewer than two subjects.
    """
    if len(first) < 2:
        return None
    pair: Any = (np.asarray(first), np.asarray(second))  # the stubs know one sample only
    return _ends(scipy.stats.bootstrap(pair, _change, paired=True, **_options()))


def relative_change(first: Sequence[float], second: Sequence[float]) -> float:
    """By how many percent the mean of `first` is above (+) or below (-) that of `second`.

    Parameters
    ----------
    first, second
        Errors; those of `second` above 0.
    """
    return float(_change(np.asarray(first), np.asarray(second)))


def _change(first: FloatArray, second: FloatArray, axis: int = -1) -> Any:
    return 100 * (first.mean(axis=axis) / second.mean(axis=axis) - 1)


def _options() -> dict[str, Any]:
    return {
        "n_resamples": RESAMPLES,
        "confidence_level": CONFIDENCE,
        "method": "percentile",
        "vectorized": True,
        "random_state": np.random.default_rng(0),
    }


def _ends(result: Any) -> Interval:
    interval = result.confidence_interval
    return float(interval.low), float(interval.high)
