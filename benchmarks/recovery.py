"""Whether an effect of biology survives harmonization, and whether the scanner's goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray

RESAMPLES = 10_000
"""Bootstrap samples: their quantiles are stable to 1 % of the interval (our choice)."""

COVERAGE = 0.95


@dataclass(frozen=True)
class Recovery:
    """How much of a true effect was found again.

    Attributes
    ----------
    true, recovered
        (N,) effect in each head, such as the change of mean FA in a bundle between twins.
    ratio
        Mean recovered effect over mean true effect: 1 keeps the effect whole.
    low, high
        Percentile bootstrap interval of `ratio` over heads, of coverage `COVERAGE`.
    """

    true: FloatArray
    recovered: FloatArray
    ratio: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """Give plain numbers and lists."""
        return {
            "heads": len(self.true),
            "true": self.true.tolist(),
            "recovered": self.recovered.tolist(),
            "ratio": self.ratio,
            "interval": [self.low, self.high],
            "coverage": COVERAGE,
        }


def recovery(
    true: Sequence[float] | FloatArray, recovered: Sequence[float] | FloatArray, seed: int = 0
) -> Recovery:
    """Compare recovered with true effects, head by head.

    Parameters
    ----------
    true
        (N,) effects in the target's noise-free twins; they do not average to 0.
    recovered
        (N,) effects in the harmonized scans of the same twins.
    seed
        Of the bootstrap, which draws heads, keeping each one's pair together.

    Raises
    ------
    ValueError
        With fewer than two heads, lists of different lengths, or no true effect.
    """
    pairs = np.array([true, recovered], dtype=float)
    if pairs.ndim != 2 or pairs.shape[1] < 2:
        raise ValueError("give the true and the recovered effect of two heads or more")
    if not np.isfinite(pairs).all() or pairs[0].mean() == 0:
        raise ValueError("effects must be finite, and there must be a true one")
    heads = pairs.shape[1]
    drawn = np.random.default_rng(seed).integers(heads, size=(RESAMPLES, heads))
    means = pairs[:, drawn].mean(axis=2)
    tails = (1 - COVERAGE) / 2
    low, high = np.quantile(means[1] / means[0], [tails, 1 - tails])
    return Recovery(
        pairs[0], pairs[1], float(pairs[1].mean() / pairs[0].mean()), float(low), float(high)
    )


@dataclass(frozen=True)
class PlatformDifference:
    """How far a harmonized map is from the target's, beside how far the target is from itself.

    Attributes
    ----------
    before, after
        Root mean squared difference to the target's scan over voxels, without and with
        harmonization, in the map's unit.
    rescan
        The same between two scans of the target.
    bias_before, bias_after, bias_rescan
        Difference of the means over the same voxels: what is left after averaging.
    """

    before: float
    after: float
    rescan: float
    bias_before: float
    bias_after: float
    bias_rescan: float

    def to_json(self) -> dict[str, float]:
        """Give plain numbers."""
        return {
            "before": self.before,
            "after": self.after,
            "rescan": self.rescan,
            "bias_before": self.bias_before,
            "bias_after": self.bias_after,
            "bias_rescan": self.bias_rescan,
        }


def platform_difference(
    unharmonized: FloatArray,
    harmonized: FloatArray,
    target: FloatArray,
    rescan: FloatArray,
    region: MaskArray,
) -> PlatformDifference:
    """Measure what is left of the difference between platforms in one head.

    The harmonized map stands against one noisy scan of the target, the rescan too; the rescan has
    noise of its own beside, the harmonized map what the input's noise left.

    Parameters
    ----------
    unharmonized, harmonized, target, rescan
        (X, Y, Z) one map, such as FA, on one lattice.
    region
        (X, Y, Z) where to measure.
    """

    def apart(values: FloatArray) -> tuple[float, float]:
        difference = values[region].astype(float) - target[region]
        return float(np.sqrt(np.square(difference).mean())), float(difference.mean())

    (before, bias_before), (after, bias_after), (again, bias_again) = (
        apart(values) for values in (unharmonized, harmonized, rescan)
    )
    return PlatformDifference(before, after, again, bias_before, bias_after, bias_again)
