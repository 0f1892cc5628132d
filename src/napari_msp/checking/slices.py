"""Slices that dropped out: weaker than predicted from the other volumes of their shell.

A head that moves while a slice is excited loses that slice's signal in one volume. The signal along
a gradient direction is a smooth function on the sphere: fitted without the volume in question
(leave-one-out), it predicts the slice's mean over the brain. eddy does so voxel by voxel with a
Gaussian process (Andersson 2016); here it is a regularised SH fit.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.signal.noise import Group

LEAST_DEPTH = 0.15
"""Share of a slice's signal that must be missing before it counts (our choice; clean simulated and
real slices are within 0.06 and 0.12 of the prediction)."""

LEAST_DEPTH_OF_FEW = 0.3
"""The same in a shell of too few directions for a fit, where effects of fibres along the slices are
no loss (our choice; clean simulated slices of 6 directions at b = 2000 are within 0.16)."""

OUTLYING = 4.0
"""Robust standard deviations below the prediction from which a slice counts (eddy's limit,
Andersson 2016)."""

LEAST_VOXELS = 20
"""Brain voxels that a slice must have to be judged (our choice)."""

LEAST_SHARE = 0.05
"""Share of the fullest slice's brain voxels that a slice must have to be judged (our choice)."""


@dataclass(frozen=True)
class DroppedSlice:
    """A slice of one volume, both counted from 0 as stored, and the share of signal it lost."""

    volume: int
    slice: int
    depth: float


def slice_means(voxels: FloatArray, mask: MaskArray, axis: int) -> FloatArray:
    """Return the mean over the brain of every slice and volume.

    Parameters
    ----------
    voxels
        (X, Y, Z, N) signal.
    axis
        Axis along which slices are stacked.

    Returns
    -------
    (K, N) means, nan in slices with too little brain.
    """
    other = tuple(each for each in range(3) if each != axis)
    counts = mask.sum(axis=other)
    volumes = (voxels[..., volume] for volume in range(voxels.shape[3]))
    sums = [(volume * mask).sum(axis=other, dtype=float) for volume in volumes]
    enough = (counts >= LEAST_VOXELS) & (counts >= LEAST_SHARE * counts.max())
    means: FloatArray = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    means[~enough] = np.nan
    return means


def slice_gains(
    means: FloatArray, groups: Sequence[Group], untrusted: MaskArray | None = None
) -> tuple[FloatArray, MaskArray]:
    """Return each slice's signal over its prediction, and which slices dropped out.

    A slice that dropped out is no longer used for prediction, worst first, so that it makes no
    other look bright or dark.

    Parameters
    ----------
    means
        (K, N) means from `slice_means`.
    untrusted
        (N,) volumes that are judged but not used for prediction, such as those that moved.

    Returns
    -------
    gains
        (K, N) ratios near 1; nan without a prediction.
    dropped
        (K, N) whether each slice dropped out.
    """
    gains, expected = np.full(means.shape, np.nan), np.full(means.shape, np.nan)
    kept = np.isfinite(means) & (True if untrusted is None else ~untrusted)
    dropped = np.zeros(means.shape, dtype=bool)
    several = [group for group in groups if len(group.volumes) > 1]
    for group in several:
        at = np.ix_(np.arange(len(means)), group.volumes)
        gains[at], expected[at], dropped[at] = _in_group(means[at], group, kept[at])
    for group in groups:
        if group not in several and several:
            # A single volume: its contrast with others changes slowly from slice to slice.
            like = expected[:, several[-1].volumes].mean(axis=1)
            gains[:, group.volumes] = _against_neighbours(means[:, group.volumes] / like[:, None])
            limit = _limit(gains[:, group.volumes], group)
            dropped[:, group.volumes] = gains[:, group.volumes] < 1 - limit
    return gains, dropped


def _in_group(
    means: FloatArray, group: Group, kept: MaskArray
) -> tuple[FloatArray, FloatArray, MaskArray]:
    """Return one group's gains, their reference values, and the slices that dropped out."""
    few = _is_few(group)
    kept = kept.copy()
    expected = np.stack([_predict(*each, group) for each in zip(means, kept, strict=True)])
    limit = _limit(_gains(means, expected, few), group)
    for row, values in enumerate(means):
        for _ in group.volumes[2:]:
            gains = np.where(kept[row], _gains(means, expected, few)[row], np.inf)
            worst = int(np.argmin(np.nan_to_num(gains, nan=np.inf)))
            if not gains[worst] < 1 - limit:
                break
            kept[row, worst] = False
            expected[row] = _predict(values, kept[row], group)
    gains = _gains(means, expected, few)
    return gains, expected, gains < 1 - limit


def _is_few(group: Group) -> bool:
    """Return whether a shell has too few directions for more than their mean."""
    return group.b_value > 0 and group.design.shape[1] == 1


def _predict(values: FloatArray, kept: MaskArray, group: Group) -> FloatArray:
    """Return (N,) the predicted value of one slice in each volume; nan if not known."""
    if not kept.any() or not np.isfinite(values).all():
        return np.full(len(values), np.nan)
    predicted: FloatArray = group.others(kept) @ values
    return np.where(np.isfinite(predicted) & (predicted > 0), predicted, np.nan)


def _gains(means: FloatArray, expected: FloatArray, few: bool) -> FloatArray:
    """Return ratios; if a group has too few volumes, divided by the neighbouring slices' ratio."""
    gains = means / expected
    return _against_neighbours(gains) if few else gains


def _against_neighbours(gains: FloatArray) -> FloatArray:
    """Divide (K,) or (K, N) gains by those expected from a slice's neighbours on both sides."""
    around = np.pad(
        gains, [(2, 2), *[(0, 0)] * (gains.ndim - 1)], mode="reflect", reflect_type="odd"
    )
    near = (around[1:-3] + around[3:-1]) / 2
    further = (around[:-4] + around[4:]) / 2
    guesses = np.stack([near, further, (4 * near - further) / 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about slices outside the brain
        expected = np.nanmedian(guesses, axis=0)
    return np.asarray(gains / expected)


def _limit(gains: FloatArray, group: Group) -> float:
    """Return the depth from which a slice of a group counts as dropped."""
    known = gains[np.isfinite(gains)]
    spread = scipy.stats.median_abs_deviation(known, scale="normal") if len(known) else 0.0
    least = LEAST_DEPTH_OF_FEW if _is_few(group) else LEAST_DEPTH
    return max(least, OUTLYING * float(spread))


def dropped_slices(gains: FloatArray, groups: Sequence[Group]) -> MaskArray:
    """Return (K, N) whether each slice dropped out, by its gain."""
    dropped = np.zeros(gains.shape, dtype=bool)
    for group in groups:
        values = gains[:, group.volumes]
        with np.errstate(invalid="ignore"):
            dropped[:, group.volumes] = values < 1 - _limit(values, group)
    return dropped


def deepest_first(gains: FloatArray, dropped: MaskArray) -> list[DroppedSlice]:
    """List the slices that dropped out."""
    found = [
        DroppedSlice(int(volume), int(row), float(np.clip(1 - gains[row, volume], 0, 1)))
        for row, volume in np.argwhere(dropped)
    ]
    return sorted(found, key=lambda each: -each.depth)
