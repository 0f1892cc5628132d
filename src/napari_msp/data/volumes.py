"""Check that the volumes of a scan look like what its gradient table says about them.

Scanners and converters append trace, ADC and FA images to a scan, with b = 0 and no direction;
tables are shifted by a row, or belong to another image. A false b=0 image silently makes every
normalised signal wrong. So volumes of one kind must look like one another.

All limits are our choice. They lie well outside what noise, motion, drift of the signal and
coherent fibres do (`tests/data/test_volumes.py` has the scans that must raise nothing).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.data.gradients import GradientTable, Shell
from napari_msp.formatting import listed

Kind = Literal["derived", "blank", "weighted", "unweighted", "b-value", "unlike", "copy"]
"""Oddities of a volume: it is computed from others, blank, weighted although its row says b=0 or
the reverse, of another b-value, another image, or a copy of another volume."""

FEWEST_PLACES = 50
"""Number of places with signal below which an image is too small to be judged."""

MOST_PLACES = 4000
"""Number of places at which volumes are compared, each a mean of 3 × 3 × 3 voxels against noise."""

FEWEST_FOR_TENSOR = 8
"""Volumes of a shell from which direction is modelled; fewer are compared with their mean."""

DIFFUSIVITY = 0.7e-3
"""Diffusivity of living brain tissue in mm²/s, from which a b=0's extra brightness is expected."""

LEAST_ATTENUATION, SURPASSED_ATTENUATION, BRIGHTER = 0.15, 0.5, 0.1
"""Least share of the expected attenuation that a b=0 must show; the same share if a weighted volume
is brighter than every b=0; and the logarithm of how much brighter that volume must be."""

NEARER_TO_WEIGHTED = 1 / 3
"""Share of the way from weighted volumes to the other b=0s within which a b=0 is weighted."""

TRACE_SHARE, MAP_SHARE = 0.5, 0.8
"""A b=0 is a trace image, or an ADC or FA map, if its distance from that is less than this share of
its distance from the other b=0s, whatever its scale."""

NEARER_TO_B0 = 0.6
"""Share of the way from its expected place to the b=0s from which a weighted volume is a b=0."""

INTENSITY_LIMIT, INTENSITY_SPREADS = 0.15, 6.0
"""Logarithm of an intensity's ratio to its shell's, and multiple of the shell's own robust standard
deviation, that are too much for one b-value."""

CONTRAST_LIMIT, CONTRAST_SPREADS = 0.12, 3.0
"""Standard deviation over the head of the logarithm of a b=0's ratio to the others, and multiple of
the weighted volumes' deviation from their shell's fit, that are too much for one kind of image."""

UNLIKE_LIMIT, UNLIKE_SPREADS = 0.35, 6.0
"""The same for a weighted volume against the fit of its shell."""

FLUID = 2e-3
"""Diffusivity in mm²/s of the largest difference between b = 0 and b = 50, with blood (ours)."""

SCALE_LIMIT = 0.08
"""Logarithm of the ratio of two b=0s' median brightness that is reported (our choice: drift and
motion within a session make 0.01 to 0.03)."""

MOST_ODD = 0.25
"""Share of a shell's volumes that may be odd before the table as a whole is in doubt."""

MIXED_SHELL = 0.3
"""Robust standard deviation of the logarithm of brightness within a shell above which it is not
known which of its volumes are right."""

NOTHING_SHOWN = 0.02
"""Logarithm of the ratio of brightest to darkest volume below which an image shows no diffusion."""

NOTABLE_WEIGHTING = 500.0
"""b-value in s/mm² from which a living brain shows diffusion (our choice)."""

NOISE_FLOOR = 2e-3
"""Residual of the shell's fit below which an image is noise-free, and equal volumes no copies."""


@dataclass(frozen=True)
class OddVolume:
    """A volume that is not what its table says.

    Attributes
    ----------
    volume
        Its index, counted from 0.
    kind
        Oddity of the volume.
    why
        The same in words that follow "b = 0, but ".
    """

    volume: int
    kind: Kind
    why: str


@dataclass(frozen=True)
class VolumeFindings:
    """Result of looking at all volumes: the odd ones, and further doubts."""

    odd: tuple[OddVolume, ...] = ()
    doubts: tuple[str, ...] = ()


def judge_volumes(voxels: FloatArray, table: GradientTable) -> VolumeFindings:
    """Check whether each volume looks like what the table says.

    An image that is too small, or empty, is not judged. Neither mask nor order of the volumes
    matters.

    Parameters
    ----------
    voxels
        (X, Y, Z, N) signal; values that are not finite count as 0.
    """
    if len(table.b0_volumes) == 0 or not table.shells:
        return VolumeFindings()
    places = _places(voxels, table)
    if len(places) < FEWEST_PLACES:
        return VolumeFindings()
    return _Judgement(_means_at(voxels, places), table).verdict()


def _places(voxels: FloatArray, table: GradientTable) -> IntArray:
    """Return (P, 3) voxels of the head: bright in the b=0 images and in the weighted ones."""
    from dipy.segment.threshold import otsu

    product = np.ones(voxels.shape[:3], dtype=np.float32)
    for volumes in (table.b0_volumes, table.shells[0].volumes):
        chosen = volumes[np.linspace(0, len(volumes) - 1, min(len(volumes), 8)).astype(int)]
        mean = np.zeros(voxels.shape[:3], dtype=np.float32)
        for volume in chosen:
            image = np.maximum(_finite(voxels[..., volume]), 0)
            # Images count alike: an FA image is 1,000 times darker than the others.
            mean += image / max(float(np.percentile(image[::2, ::2], 99)), 1e-12)
        if mean.any():
            product *= mean
    bright = np.sqrt(product)
    bright = np.minimum(bright, np.percentile(bright, 99))
    inside: MaskArray = bright > (otsu(bright) if np.ptp(bright) > 0 else 0)
    places: IntArray = np.argwhere(inside)
    few: IntArray = np.linspace(0, len(places) - 1, min(len(places), MOST_PLACES)).astype(int)
    return np.asarray(places[few])


def _means_at(voxels: FloatArray, places: IntArray) -> FloatArray:
    """Return (P, N) means of the 3 × 3 × 3 voxels around each place."""
    around = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    last = np.array(voxels.shape[:3]) - 1
    total = np.zeros((len(places), voxels.shape[3]), np.float32)
    for move in around:
        x, y, z = np.clip(places + move, 0, last).T
        total += _finite(voxels[x, y, z])  # all volumes of a voxel: they may be adjacent in memory
    return total.astype(float) / len(around)


def _finite(values: FloatArray) -> FloatArray:
    """Return values with 0 where they are not finite, as FA is outside the brain."""
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _spread(values: FloatArray, axis: int | None = None) -> FloatArray:
    """Return a standard deviation that is robust to outliers."""
    centre = np.median(values, axis=axis, keepdims=True)
    return np.asarray(1.4826 * np.median(np.abs(values - centre), axis=axis))


def _quadratic(directions: FloatArray) -> FloatArray:
    """Return the design matrix: a constant, the mean over the sphere, and a mean-free quadratic."""
    x, y, z = directions.T
    third = np.full(len(directions), 1 / 3)
    return np.stack(
        [np.ones(len(directions)), x * x - third, y * y - third, x * y, x * z, y * z], axis=1
    )


@dataclass(frozen=True, eq=False)
class _ShellFit:
    """The logarithm of a shell's signal as a quadratic form of direction, at each place.

    Attributes
    ----------
    shell
        The shell without blank volumes.
    mean
        (P,) mean over the sphere: what a trace image shows.
    anisotropy
        (P,) size of the part that depends on direction.
    predicted
        (P, M) prediction of each volume from the others.
    excess
        (M,) median over places of each volume's logarithm minus its prediction.
    contrast
        (M,) standard deviation of the same.
    """

    shell: Shell
    mean: FloatArray
    anisotropy: FloatArray
    predicted: FloatArray
    excess: FloatArray
    contrast: FloatArray


def _fit(logarithm: FloatArray, shell: Shell, table: GradientTable, slope: float) -> _ShellFit:
    """Fit a shell, then again without outliers, so that these cannot bend the fit."""
    volumes = shell.volumes
    # b-values within a shell may differ; their effect is taken out.
    offset = -slope * (table.b_values[volumes] - shell.b_value)
    values = logarithm[:, volumes] - offset
    design = _quadratic(table.directions[volumes])
    kept = np.ones(len(volumes), dtype=bool)
    for _ in range(1 + max(int(MOST_ODD * len(volumes)), 1)):
        within = design[kept]
        if kept.sum() < FEWEST_FOR_TENSOR or np.linalg.cond(within) > 100:
            design, within = design[:, :1], design[kept, :1]
        inverse = np.linalg.pinv(within)
        coefficients = values[:, kept] @ inverse.T
        residual = values - coefficients @ design.T
        # Leverage of the fitted volumes: each is compared with the fit of the others.
        leverage = np.zeros(len(volumes))
        leverage[kept] = np.einsum("nk,kn->n", within, inverse)
        residual = residual / np.maximum(1 - leverage, 0.05)
        excess = np.median(residual, axis=0)
        contrast = _spread(residual, axis=0)
        too_much = np.maximum(
            np.abs(excess) / _intensity_limit(excess[kept]),
            contrast / _contrast_limit(contrast[kept], UNLIKE_LIMIT, UNLIKE_SPREADS),
        )
        worst = int(np.argmax(np.where(kept, too_much, 0)))
        if too_much[worst] <= 1 or kept.sum() <= 3:
            break
        kept[worst] = False
    predicted, anisotropy = values + offset - residual, _anisotropy(coefficients)
    return _ShellFit(shell, coefficients[:, 0], anisotropy, predicted, excess, contrast)


def _anisotropy(coefficients: FloatArray) -> FloatArray:
    """Return the norm of the quadratic form's mean-free part; (P,) zeros where none was fitted."""
    if coefficients.shape[1] == 1:
        return np.zeros(len(coefficients))
    xx, yy, *mixed = coefficients.T[1:]
    diagonal = xx**2 + yy**2 - (xx + yy) ** 2 / 3
    return np.asarray(np.sqrt(diagonal + np.square(mixed).sum(axis=0) / 2))


def _intensity_limit(excess: FloatArray) -> float:
    return max(INTENSITY_LIMIT, INTENSITY_SPREADS * float(_spread(excess)))


def _contrast_limit(contrast: FloatArray, least: float, spreads: float) -> float:
    return max(least, spreads * float(np.median(contrast)))


class _Judgement:
    """Judges the volumes, kind by kind.

    Parameters
    ----------
    means
        (P, N) signal at the places.
    """

    def __init__(self, means: FloatArray, table: GradientTable) -> None:
        self.means, self.table = means, table
        self.odd: dict[int, OddVolume] = {}
        self.doubts: list[str] = []
        self.shapeless = False
        floor = 1e-6 * float(np.median(means[:, table.b0_volumes].max(axis=1)))
        self.logarithm = np.log(np.maximum(means, max(floor, 1e-30)))

    def verdict(self) -> VolumeFindings:
        """Judge blank volumes first, then b=0s, then the shells that are compared with them."""
        self._find_blanks()
        b0 = self._sound(self.table.b0_volumes)
        shells = [Shell(s.b_value, self._sound(s.volumes)) for s in self.table.shells]
        shells = [shell for shell in shells if len(shell.volumes)]
        shown = self.logarithm[:, self._sound(np.arange(len(self.table)))]
        if len(b0) and shells and np.median(np.ptp(shown, axis=1)) > NOTHING_SHOWN:
            fits = [_fit(self.logarithm, shell, self.table, 0.0) for shell in shells]
            fits = [fit for fit in fits if not self._is_mixed(fit)]
            reference = self._judge_b0(b0, fits[0]) if fits else None
            if reference is not None:
                slope = _slope(reference, fits[0])
                for shell in (fit.shell for fit in fits):
                    fit = _fit(self.logarithm, shell, self.table, slope)
                    self._judge_shell(fit, reference)
                    self._find_copies(fit)
        elif len(b0) and shells and shells[-1].b_value >= NOTABLE_WEIGHTING and not self.shapeless:
            most = f"b = {shells[-1].b_value:.0f}"
            self.doubts.append(
                f"no diffusion is seen at {most}: all volumes are as bright as b=0 (does the table "
                "belong to this image?)"
            )
        odd = tuple(self.odd[volume] for volume in sorted(self.odd))
        return VolumeFindings(odd, tuple(self.doubts))

    def _sound(self, volumes: IntArray) -> IntArray:
        return np.array([each for each in volumes if each not in self.odd], dtype=int)

    def _mark(self, volume: int | np.integer[Any], kind: Kind, why: str) -> None:
        self.odd.setdefault(int(volume), OddVolume(int(volume), kind, why))

    def _find_blanks(self) -> None:
        """Find volumes without signal, and uniform ones among others that are not."""
        empty = (self.means <= 0).mean(axis=0) > 0.5
        flat = np.ptp(self.means, axis=0) <= 1e-6 * np.abs(self.means).max(axis=0)
        if empty.all():  # an image that shows nothing is not judged
            return
        self.shapeless = bool(flat.mean() > 0.5)  # a synthetic scan of uniform volumes
        flat &= not self.shapeless
        for volume in np.flatnonzero(empty | flat):
            self._mark(volume, "blank", "empty" if empty[volume] else "one value throughout")

    def _is_mixed(self, fit: _ShellFit) -> bool:
        """Find a shell that holds several kinds of image, and say so."""
        spread = float(_spread(fit.excess))
        if spread <= MIXED_SHELL or self.shapeless:
            return False
        self.doubts.append(
            f"the volumes at b = {fit.shell.b_value:.0f} differ in brightness by a factor of "
            f"{np.exp(2 * spread):.1f}, more than direction explains: does the table fit?"
        )
        return True

    def _judge_b0(self, b0: IntArray, fit: _ShellFit) -> FloatArray | None:
        """Find false b=0 images.

        Returns
        -------
        (P,) logarithm of the b=0 image; None if no volume is one.
        """
        over = np.median(self.logarithm[:, b0] - fit.mean[:, None], axis=0)
        expected = DIFFUSIVITY * min(fit.shell.b_value, 1500.0)
        # Nothing is brighter than b=0: if a weighted volume is, a weak attenuation is none.
        brightest = int(np.argmax(fit.excess))
        above = self.logarithm[:, fit.shell.volumes[brightest], None] - self.logarithm[:, b0]
        surpassed = float(np.median(above, axis=0).min()) > BRIGHTER
        least = (SURPASSED_ATTENUATION if surpassed else LEAST_ATTENUATION) * expected
        if not (over >= least).any():
            than = f"volume {fit.shell.volumes[brightest]}" if surpassed else "the weighted volumes"
            for volume in b0:
                self._mark(volume, "weighted", f"no brighter than {than}")
            return None
        anchor = self._anchor(b0[over >= least], b0, fit)
        level = float(over[b0 == anchor][0])
        limit = _contrast_limit(fit.contrast, CONTRAST_LIMIT, CONTRAST_SPREADS)
        alike = []
        for volume, attenuation in zip(b0, over, strict=True):
            likeness = self._likeness(int(volume), anchor, fit)
            to_b0, to_trace = likeness["b=0"], likeness["trace"]
            dark = attenuation < NEARER_TO_WEIGHTED * level and to_trace <= to_b0 + 1e-9
            computed = min(likeness["ADC"], likeness["FA"])
            if dark or to_trace < TRACE_SHARE * to_b0:
                self._mark(volume, "derived", "like the weighted volumes (a trace image?)")
            elif computed < MAP_SHARE * to_b0 or to_b0 > limit:
                name = min(("ADC", "FA"), key=lambda each: likeness[each])
                guess = f"an {name} map?" if computed < to_b0 else "another kind of image?"
                self._mark(volume, "derived", f"unlike b=0 ({guess})")
            else:
                difference = self.logarithm[:, volume] - self.logarithm[:, anchor]
                alike.append((int(volume), float(np.median(difference))))
        self._compare_brightness(alike)
        return np.asarray(np.median(self.logarithm[:, [v for v, _ in alike]], axis=1))

    def _anchor(self, candidates: IntArray, b0: IntArray, fit: _ShellFit) -> int:
        """Choose the b=0 that explains the others best, as b=0 images or as computed ones."""

        def unexplained(anchor: int) -> float:
            return sum(min(self._likeness(each, anchor, fit).values()) for each in b0)

        return int(min(candidates, key=unexplained))

    def _likeness(self, volume: int, anchor: int, fit: _ShellFit) -> dict[str, float]:
        """Return a volume's distance from what it may be, at any scale, if `anchor` is b=0.

        Returns
        -------
        Standard deviations of the ratio's logarithm, by kind.
        """
        b0 = self.logarithm[:, anchor]
        attenuation = np.maximum(b0 - fit.mean, 1e-3)
        total = np.sqrt(fit.anisotropy**2 + 3 * attenuation**2)
        kinds = {"b=0": b0, "trace": fit.mean, "ADC": np.log(attenuation)}
        if fit.anisotropy.any():
            kinds["FA"] = np.log(np.maximum(fit.anisotropy / total, 1e-3))
        image = self.logarithm[:, volume]
        distances = {kind: float(_spread(image - like)) for kind, like in kinds.items()}
        return {"FA": np.inf, **distances}

    def _compare_brightness(self, alike: Sequence[tuple[int, float]]) -> None:
        """Report b=0 images that differ by a factor, as those of concatenated runs do."""
        lowest, highest = min(alike, key=lambda e: e[1]), max(alike, key=lambda e: e[1])
        weighting = FLUID * float(np.ptp(self.table.b_values[[volume for volume, _ in alike]]))
        if highest[1] - lowest[1] > SCALE_LIMIT + weighting:
            factor = np.exp(highest[1] - lowest[1])
            self.doubts.append(
                f"b=0 volume {highest[0]} is {factor:.2f} times as bright as volume {lowest[0]}: "
                "were runs with different scaling joined?"
            )

    def _judge_shell(self, fit: _ShellFit, reference: FloatArray) -> None:
        """Find volumes whose brightness or contrast does not fit their shell."""
        shell = fit.shell
        intensity = _intensity_limit(fit.excess)
        contrast = _contrast_limit(fit.contrast, UNLIKE_LIMIT, UNLIKE_SPREADS)
        spread = float(_spread(fit.excess))
        for index, volume in enumerate(shell.volumes):
            excess = float(fit.excess[index])
            gap = float(np.median(reference - fit.predicted[:, index]))
            if gap > 0.1 and excess > max(0.1, NEARER_TO_B0 * gap, 5 * spread):
                self._mark(volume, "unweighted", "as bright as b=0")
            elif abs(excess) > intensity:
                slope = _slope(reference, fit)
                b_value = float(self.table.b_values[volume])
                like = max(round((b_value - excess / slope) / 50) * 50, 0) if slope > 0 else 0
                how = f"{100 * np.expm1(excess):+.0f} % from its shell in brightness"
                guess = f", as if b = {like}" if like and like != round(b_value) else ""
                self._mark(volume, "b-value", f"{how}{guess}")
            elif fit.contrast[index] > contrast:
                self._mark(volume, "unlike", "unlike the others in its shell")

    def _find_copies(self, fit: _ShellFit) -> None:
        """Find volumes that are copies of others: noise never repeats itself."""
        if np.median(fit.contrast) < NOISE_FLOOR:
            return
        by_content: dict[bytes, list[int]] = {}
        for volume in self._sound(fit.shell.volumes):
            by_content.setdefault(self.means[:, volume].tobytes(), []).append(int(volume))
        repeated = [same for same in by_content.values() if len(same) > 1]
        if sum(len(same) - 1 for same in repeated) > MOST_ODD * len(fit.shell.volumes):
            self.doubts.append(f"many volumes at b = {fit.shell.b_value:.0f} are copies of others")
            return
        for first, *others in repeated:
            directions = self.table.directions[[first, *others]]
            one = bool((np.abs(directions @ directions[0]) > 0.999).all())
            why = "" if one else ", with another direction"
            if not one:  # it is not known which direction is right
                self._mark(first, "copy", f"the same as volume {others[0]}{why}")
            for other in others:
                self._mark(other, "copy", f"the same as volume {first}{why}")


def _slope(reference: FloatArray, fit: _ShellFit) -> float:
    """Return the mean attenuation per s/mm² of b, as if decay were mono-exponential."""
    return max(float(np.median(reference - fit.mean)) / fit.shell.b_value, 0.0)


LEAST_CLIPPED, FEWEST_LEVELS, OFTEN = 0.005, 20, 3
"""Share of a b=0's brighter half that may have its largest value, number of such voxels, and of
values, that it must have, and how many times as often as any other value it must occur (our choice;
noise gives the largest value to one voxel)."""


def clipped_doubt(voxels: FloatArray, table: GradientTable) -> str:
    """Return a text on b=0 images that were cut off at one value; empty if none was.

    Parameters
    ----------
    voxels
        (X, Y, Z, N) signal.
    """
    for volume in table.b0_volumes:
        image = voxels[..., volume]
        bright = image[image > image.max() / 2]
        *others, count = np.unique(bright, return_counts=True)[1].tolist() or [0]
        least = max(LEAST_CLIPPED * len(bright), FEWEST_LEVELS, OFTEN * max(others, default=0))
        if count > least and len(others) >= FEWEST_LEVELS:
            share = f"{100 * count / len(bright):.0f} %"
            return (
                f"b=0 volume {volume} seems to be cut off at {image.max():g}, the value of {share} "
                "of its bright voxels: the signal over b=0 is too large there"
            )
    return ""


def in_words(odd: Sequence[OddVolume], table: GradientTable) -> str:
    """Write what is odd, once for all volumes with the same oddity.

    Returns
    -------
    Such as "volume 33, b = 0 but empty; volumes 4 and 5, b = 1000 but as bright as b=0".
    """
    reasons: dict[tuple[int, str], list[str]] = {}
    for each in odd:
        b_value = round(float(table.b_values[each.volume]))
        reasons.setdefault((b_value, each.why), []).append(str(each.volume))
    return "; ".join(
        f"volume{'s' if len(volumes) > 1 else ''} {listed(volumes)}, b = {b_value} but {why}"
        for (b_value, why), volumes in reasons.items()
    )
