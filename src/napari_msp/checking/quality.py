"""Quality of a scan: what a radiographer asks first, as numbers.

Slices that dropped out (`slices`), volumes that moved (`motion`), similarity of neighbouring
directions, signal-to-noise and contrast-to-noise, ghosts and wrap-around in the background.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.ndimage import binary_dilation, binary_opening, label
from scipy.optimize import minimize_scalar
from scipy.special import i0e, i1e

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.bids import read_metadata
from napari_msp.checking.motion import SURE, Motion, ThinSlices, measure_motion
from napari_msp.checking.slices import (
    LEAST_DEPTH,
    DroppedSlice,
    deepest_first,
    dropped_slices,
    slice_gains,
    slice_means,
)
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import GradientTable
from napari_msp.errors import UserError
from napari_msp.formatting import shown
from napari_msp.signal.noise import SAMPLE, Group, contrast_to_noise, groups_of, noise_of

LEAST_MOVE = 0.5
"""Displacement in mm above which a volume has moved (our choice), if it exceeds the following, too,
and its measurement error by far (`motion.SURE`)."""

LEAST_MOVE_VOXELS = 0.25
"""The same displacement in voxels (our choice)."""

ALONG_ANOTHER = 0.25
"""Share of signal that a plane must lack to show that slices are stacked along another axis than
the third (our choice)."""

THICKER = 1.1
"""Ratio of a voxel's edge to both others from which it is the thickness of thick slices."""

FEWER = 0.5
"""Ratio of an axis's voxels to both others' below which they are the slices of a slab (our
choice)."""

HEAD_SHARE = 0.25
"""Share of the brain's median b=0 signal above which a voxel belongs to the head (our choice: above
ghosts, below skin)."""

MARGIN = 2
"""Voxels around the head that do not count as background."""

FEWEST_BACKGROUND = 150
"""Number of background voxels below which nothing is measured there (our choice)."""

GHOST_BINS = 16
"""Number of brightness bins of the shifted head by which the background is sorted."""

CLEARLY = 9.0
"""Difference of sums of squared errors, in squared standard errors, from which one explanation is
better than another: three standard errors."""

TINY = 1e-12
"""Small number that avoids division by zero in a background without noise."""

END_SHARE = 0.05
"""Share of the field of view, at each end, in which wrap-around is measured (our choice)."""


@dataclass(frozen=True)
class MovedVolume:
    """A volume in which the head is displaced.

    Attributes
    ----------
    volume
        Index of the volume, counted from 0.
    shift
        Shift of the brain's centre in mm.
    turn
        Turn in degrees.
    displacement
        Mean distance in mm by which both move the brain's voxels.
    """

    volume: int
    shift: float
    turn: float
    displacement: float


@dataclass(frozen=True, eq=False)
class ScanQuality:
    """Quality of a scan. Whatever cannot be measured is None.

    Attributes
    ----------
    b_values
        (N,) b-values of the volumes, equal within a shell; 0 for b=0.
    volumes
        (N,) indices of the volumes in the file, of which some may be left out.
    slice_axis
        Stored axis along which slices are stacked.
    slice_axis_by
        How that is known, in words that follow "the third axis, ".
    gains
        (K, N) signal of each slice over its prediction from the other volumes; nan without a
        prediction.
    dropped
        Slices that lost signal, deepest first.
    motion
        Motion of every volume.
    moved
        Volumes that moved, furthest first.
    correlations
        (N,) correlations of volumes with the one of the nearest gradient, in the mask; nan for b=0.
    ndc
        Neighbouring-DWI correlation: the mean of `correlations` (Yeh 2019).
    ndc_whole
        The same over the whole image, including background.
    snr
        Mean b=0 signal in the mask over `noise`.
    noise
        Standard deviation of one volume's noise, in scanner units.
    noise_from
        Source of the noise: repeated "b=0" volumes, or the "residuals" of a shell's fit.
    cnr
        By b-value: standard deviation over the volumes of the signal that a fit predicts, over the
        standard deviation of the residuals, averaged over the mask (eddy_quad's CNR, Bastiani 2019,
        with an SH fit for eddy's Gaussian process).
    ghost
        Nyquist ghost as a share of the head's signal, see `background`.
    wrap
        Signal at the ends of the field of view, as a share of the brain's.
    ghost_axis
        Stored axis along which both were measured: that of phase encoding if it is stated, else the
        worse one.
    """

    b_values: FloatArray
    volumes: IntArray
    slice_axis: int
    slice_axis_by: str
    gains: FloatArray
    dropped: tuple[DroppedSlice, ...]
    motion: Motion
    moved: tuple[MovedVolume, ...]
    correlations: FloatArray
    ndc: float | None
    ndc_whole: float | None
    snr: float | None
    noise: float | None
    noise_from: Literal["b=0", "residuals"] | None
    cnr: Mapping[float, float]
    ghost: float | None
    wrap: float | None
    ghost_axis: int | None

    @property
    def numbers(self) -> dict[str, str]:
        """The measurements as displayed, by name."""
        noise = " (noise by residuals)" if self.noise_from == "residuals" else ""
        return {
            "neighbour correlation": shown(self.ndc, ".2f"),
            "SNR of b = 0": shown(self.snr, ".1f") + noise,
            **{f"CNR of b = {b_value:.0f}": f"{value:.2f}" for b_value, value in self.cnr.items()},
            "framewise displacement": f"{shown(self.framewise, '.2f')} mm",
            "ghost": shown(self.ghost, ".1%"),
            "wrap-around": shown(self.wrap, ".1%"),
        }

    @property
    def framewise(self) -> float | None:
        """Mean framewise displacement in mm."""
        known = self.motion.known_framewise
        return float(known.mean()) if len(known) else None

    @property
    def framewise_most(self) -> float | None:
        """Largest framewise displacement in mm."""
        return max(self.motion.known_framewise.tolist(), default=None)


def measure_quality(acquisition: Acquisition) -> ScanQuality:
    """Measure the quality of a scan.

    Parameters
    ----------
    acquisition
        Raw or processed scan; its encoding axes are read from its sidecar or header, or else
        estimated from the voxels.
    """
    table, mask, voxels = acquisition.gradients, acquisition.mask, acquisition.voxels
    groups = groups_of(table)
    phase, slices, known_by = _encoding(acquisition)
    axis, means, gains, dropped = _dropped(voxels, mask, groups, slices)
    thin = ThinSlices(voxels, mask, acquisition.affine, groups, axis)
    motion = measure_motion(thin, dropped)
    moved = _moved(motion, float(thin.sizes.mean()))
    if moved:
        # If a head moved, slices are compared with the others as positioned in that volume.
        away = _furthest(moved, groups)
        gains, dropped = slice_gains(means, groups, away)
        for each in moved:
            gains[:, each.volume] = thin.gains(motion, each.volume, away, dropped)
        dropped = dropped_slices(gains, groups)
    inside = np.stack([voxels[..., each][mask] for each in range(len(table))])
    correlations, whole = neighbour_correlations(voxels, inside, table)
    every = 1 + inside.shape[1] // SAMPLE
    noise, noise_from = noise_of(inside[:, ::every], groups)
    b_values = np.zeros(len(table))
    contrast: dict[float, float] = {}
    for group in groups:
        b_values[group.volumes] = group.b_value
        ratio = contrast_to_noise(inside[:, ::every], group) if group.b_value else None
        if ratio is not None:
            contrast[group.b_value] = ratio
    signal = float(inside[table.b0_volumes].mean(dtype=float))
    if not known_by:
        known_by = "as scanners store them" if axis == 2 else "where slices are dark"
    in_file = acquisition.volumes.tolist()
    dropouts = deepest_first(gains, dropped)
    ghost, wrap, ghost_axis = _background(acquisition.b0, mask, axis, phase)
    return ScanQuality(
        b_values=b_values,
        volumes=acquisition.volumes,
        slice_axis=axis,
        slice_axis_by=known_by,
        gains=gains,
        dropped=tuple(replace(each, volume=in_file[each.volume]) for each in dropouts),
        motion=motion,
        moved=tuple(replace(each, volume=in_file[each.volume]) for each in moved),
        correlations=correlations,
        ndc=None if np.isnan(correlations).all() else float(np.nanmean(correlations)),
        ndc_whole=whole,
        snr=signal / noise if noise else None,
        noise=noise,
        noise_from=noise_from,
        cnr=contrast,
        ghost=ghost,
        ghost_axis=ghost_axis,
        wrap=wrap,
    )


def _encoding(acquisition: Acquisition) -> tuple[int | None, int | None, str]:
    """Look up the stored axes of phase and slice encoding, and how the latter is known.

    If neither sidecar nor header states it, clearly thick or few slices show the latter.
    """
    phase, slices = acquisition.image.header.get_dim_info()[1:]
    stated: Mapping[str, object] = {}
    if acquisition.path is not None:
        with suppress(UserError):  # reported where sidecars are checked
            stated = read_metadata(acquisition.path)
    for name in ("PhaseEncodingAxis", "PhaseEncodingDirection"):
        phase = _axis(stated.get(name), phase)
    said = _axis(stated.get("SliceEncodingDirection"), None)
    if said is not None:
        return phase, said, "as its sidecar says"
    if slices is not None:
        return phase, slices, "as its header says"
    sizes, counts = acquisition.lattice.voxel_sizes, np.array(acquisition.lattice.shape)
    thick, few = int(np.argmax(sizes)), int(np.argmin(counts))
    if sizes[thick] >= THICKER * np.delete(sizes, thick).max():
        return phase, thick, "the thickest"
    if counts[few] <= FEWER * np.delete(counts, few).min():
        return phase, few, "the shortest"
    return phase, None, ""


def _axis(stated: object, otherwise: int | None) -> int | None:
    """Convert BIDS's "i", "j-" and so on to the index of an axis."""
    letters = {"i": 0, "j": 1, "k": 2}
    return letters.get(stated[:1], otherwise) if isinstance(stated, str) else otherwise


def _dropped(
    voxels: FloatArray, mask: MaskArray, groups: Sequence[Group], axis: int | None
) -> tuple[int, FloatArray, FloatArray, MaskArray]:
    """Look for slices that dropped out, and for the axis along which they are stacked if not given.

    It is the third, as scanners store them, unless slices dropped out along another one only. A
    plane counts there if it is dark between two normal ones: a head that moved empties planes at
    its edges, and effects of fibres vary smoothly along them.
    """
    found = {}
    for each in (2, 1, 0) if axis is None else (axis,):
        means = slice_means(voxels, mask, each)
        gains, dropped = slice_gains(means, groups)
        found[each] = each, means, gains, dropped
        beside = np.pad(gains, [(2, 2), (0, 0)], constant_values=np.nan)
        with np.errstate(invalid="ignore"):
            between = np.minimum(beside[:-4], beside[4:]) > 1 - LEAST_DEPTH / 2
            alone = dropped & between & (gains < 1 - ALONG_ANOTHER)
        if alone.any() or (dropped.any() and each == 2):
            return found[each]
    return found[2 if axis is None else axis]


def _moved(motion: Motion, voxel_size: float) -> tuple[MovedVolume, ...]:
    """List the volumes that moved, furthest first."""
    limit = max(LEAST_MOVE, LEAST_MOVE_VOXELS * voxel_size)
    with np.errstate(invalid="ignore"):
        away = motion.displacements > np.maximum(limit, SURE * motion.errors)
    numbers = np.stack([motion.lengths, motion.angles, motion.displacements], axis=1)
    found = [MovedVolume(int(each), *numbers[each].tolist()) for each in np.flatnonzero(away)]
    return tuple(sorted(found, key=lambda each: -each.displacement))


def _furthest(moved: Sequence[MovedVolume], groups: Sequence[Group]) -> MaskArray:
    """Return (N,) which volumes moved too far to predict others from."""
    away = np.zeros(sum(len(group.volumes) for group in groups), dtype=bool)
    for group in groups:
        inside = [each.volume for each in moved if each.volume in group.volumes]
        away[inside[: len(group.volumes) - group.fewest]] = True
    return away


# --- Neighbouring directions -------------------------------------------------------------------


def neighbour_correlations(
    voxels: FloatArray, inside: FloatArray, table: GradientTable
) -> tuple[FloatArray, float | None]:
    """Correlate each weighted volume with its nearest neighbour in q-space.

    The neighbours are DIPY's `find_qspace_neighbors`, also across shells (Yeh 2019).

    Parameters
    ----------
    voxels
        (X, Y, Z, N) signal.
    inside
        (N, V) the same signal in the mask.

    Returns
    -------
    (N,) correlations in the mask, nan for b=0 and for volumes without any contrast; and the mean
    over the whole image, None without correlations.
    """
    # This imports DIPY's file readers, too slow for the opening of a window.
    from dipy.core.gradients import gradient_table
    from dipy.stats.qc import find_qspace_neighbors

    correlations = np.full(len(table), np.nan)
    weighted = np.setdiff1d(np.arange(len(table)), table.b0_volumes)
    if len(weighted) < 2:
        return correlations, None
    strengths = np.where(np.isin(np.arange(len(table)), weighted), table.b_values, 0)
    neighbours = find_qspace_neighbors(
        gradient_table(strengths, bvecs=table.directions, b0_threshold=0)
    )
    whole = [voxels[..., each].ravel(order="K") for each in range(len(table))]
    over_all = _correlate(whole, neighbours)
    correlations[[volume for volume, _ in neighbours]] = _correlate(inside, neighbours)
    return correlations, None if np.isnan(over_all).all() else float(np.nanmean(over_all))


def _correlate(
    volumes: Sequence[FloatArray] | FloatArray, pairs: Sequence[tuple[int, int]]
) -> FloatArray:
    """Return Pearson's r of pairs of volumes; nan if one is constant."""
    means = [volume.mean(dtype=float) for volume in volumes]
    centred = [
        volume - mean.astype(volume.dtype) for volume, mean in zip(volumes, means, strict=True)
    ]
    lengths = [float(np.sqrt(np.dot(each, each))) for each in centred]
    sizes = [lengths[one] * lengths[other] for one, other in pairs]
    products = [np.dot(centred[one], centred[other]) for one, other in pairs]
    found = [p / s if s > 0 else np.nan for p, s in zip(products, sizes, strict=True)]
    return np.array(found, dtype=float)


# --- Background --------------------------------------------------------------------------------


def _background(
    b0: FloatArray, mask: MaskArray, slice_axis: int, phase: int | None
) -> tuple[float | None, float | None, int | None]:
    """Measure ghost and wrap-around along the axis of phase encoding, else along the worse one."""
    axes = [phase] if phase is not None else [each for each in range(3) if each != slice_axis]
    found = [(*background(b0, mask, axis), axis) for axis in axes]
    return max(found, key=lambda each: max(each[0] or 0.0, each[1] or 0.0))


def background(b0: FloatArray, mask: MaskArray, axis: int) -> tuple[float | None, float | None]:
    """Measure artefacts in the background of the mean b=0 image.

    Returns
    -------
    ghost
        Nyquist ghost: the share of the head, shifted by half the field of view, that the background
        contains. 0.05 is a ghost of 5 %.
    wrap
        Mean signal at the brighter of the two ends of the field of view, minus the rest of the
        background, as a share of the brain's median.

    Either is None if too little background is there.
    """
    signal = float(np.median(b0[mask]))
    if signal <= 0:
        return None, None
    bright, _ = label(binary_opening(b0 > HEAD_SHARE * signal) | mask)
    head = np.isin(bright, np.setdiff1d(np.unique(bright[mask]), [0]))
    free = ~binary_dilation(head, iterations=MARGIN)
    size = b0.shape[axis]
    shifted = (np.roll(b0 * head, size // 2, axis) + np.roll(b0 * head, -(size // 2), axis)) / 2
    # Voxels brighter than any ghost are something else, such as the head wrapped around.
    dim = free & (b0 <= HEAD_SHARE * np.maximum(shifted, signal))
    under, clear = dim & (shifted > HEAD_SHARE * signal), dim & (shifted == 0)
    ghost = wrap = None
    rest = b0 / signal
    if under.sum() >= FEWEST_BACKGROUND and clear.sum() >= FEWEST_BACKGROUND:
        ghost = _ghost(shifted[under], b0[under], float(b0[clear].mean()))
        rest = (b0 - ghost * shifted) / signal
    end = max(2, round(END_SHARE * size))
    planes = np.moveaxis(free, axis, 0), np.moveaxis(rest, axis, 0)
    levels = [
        float(planes[1][part][planes[0][part]].mean())
        for part in (slice(end), slice(size - end, size))
        if planes[0][part].sum() >= FEWEST_BACKGROUND
    ]
    middle = planes[0][end : size - end]
    if levels and middle.sum() >= FEWEST_BACKGROUND:
        wrap = max(0.0, max(levels) - float(np.median(planes[1][end : size - end][middle])))
    return ghost, wrap


def _ghost(shifted: FloatArray, seen: FloatArray, floor: float) -> float:
    """Estimate the share of the shifted head that a background contains.

    In a magnitude image a ghost hides in the noise: the model is the mean of Rice's distribution,
    whose mean at 0 is the background without ghost. If a plain sum explains the background as well,
    as in images that were averaged or filtered as complex numbers, that is used.

    Parameters
    ----------
    shifted, seen
        (V,) signal that the shifted head would have there, and the observed signal.
    floor
        Observed signal where the shifted head is not.
    """
    edges = np.quantile(shifted, np.linspace(0, 1, GHOST_BINS + 1))
    place = np.clip(np.searchsorted(edges, shifted, side="right") - 1, 0, GHOST_BINS - 1)
    counts = np.maximum(np.bincount(place, minlength=GHOST_BINS), 1)
    strength = np.bincount(place, shifted, GHOST_BINS) / counts
    level = np.bincount(place, seen, GHOST_BINS) / counts
    variance = np.bincount(place, (seen - level[place]) ** 2, GHOST_BINS) / counts
    weights = counts / (variance + TINY)
    deviation = floor * np.sqrt(2 / np.pi)

    def misfit(size: float, rice: bool) -> float:
        hidden = _rice_mean(size * strength, deviation) if rice else floor + size * strength
        return float((weights * (level - hidden) ** 2).sum())

    sizes, misfits = [], []
    for rice in (False, True) if deviation > 0 else (False,):
        found = minimize_scalar(misfit, bounds=(0, HEAD_SHARE), method="bounded", args=(rice,))
        sizes.append(float(found.x))
        misfits.append(float(found.fun))
    hidden = len(misfits) > 1 and misfits[1] + CLEARLY < misfits[0]
    return sizes[1] if hidden else sizes[0]


def _rice_mean(signal: FloatArray, deviation: float) -> FloatArray:
    """Return the mean of a magnitude whose two channels have noise (Gudbjartsson 1995)."""
    x = np.square(signal / deviation) / 4
    return np.asarray(deviation * np.sqrt(np.pi / 2) * ((1 + 2 * x) * i0e(x) + 2 * x * i1e(x)))
