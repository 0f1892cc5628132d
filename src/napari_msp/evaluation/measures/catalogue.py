"""Measures of every head: names, units, what each number means, and how it is computed.

Each entry is one measure. Table 1 shows those with a group, and `compare` those marked for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.masks import dice
from napari_msp.evaluation.line_up import Comparable, as_maps
from napari_msp.evaluation.measures.fibres import PeakErrors, visited_by
from napari_msp.evaluation.measures.pair import (
    PATCH_SIZE,
    Metrics,
    Pair,
    Truth,
    mean_angle,
    percent_error,
)
from napari_msp.signal.maps import Maps, direction_average
from napari_msp.signal.spherical_harmonics import order_slices

DIRECTED_FA = 0.2
"""FA of truth above which a voxel has a reliable principal direction (our choice)."""


@dataclass(frozen=True)
class Measure:
    """One column of a table of errors.

    Attributes
    ----------
    key
        Its name in files and in `Metrics.values`.
    compute
        Function that returns its value for a prediction and its truth; nan where there is nothing
        to measure, such as a tissue that the image does not contain.
    group
        Heading in the report; "" for the measure that opens it, None for those not in Table 1.
    in_compare
        Whether `compare` measures it, too.
    """

    key: str
    label: str
    unit: str
    explanation: str
    compute: Callable[[Pair], float]
    group: str | None = None
    better: Literal["lowest", "nearest 0"] = "lowest"
    in_compare: bool = False

    @property
    def described(self) -> str:
        """Unit and explanation in one line."""
        return f"{self.unit}: {self.explanation}" if self.unit else self.explanation


SQUARED = "SH units²"
PERCENT = "% of truth's mean"

ERRORS = "Other squared errors"
MAPS = "Diffusion maps, by tissue"
BIAS = "Bias by tissue"
MASK = "Sensitivity to the mask"
CROSSING = "Crossing fibres"


ALIGNED = (
    "after a residual rigid motion of up to a voxel is undone on the prediction, both images "
    "smoothed by half a voxel"
)


def _patch_mse(pair: Pair) -> float:
    mse = pair.patches.mse
    return float(mse.mean()) if len(mse) else float("nan")


def _sh_mse(pair: Pair) -> float:
    return float(pair.squared.mean())


def _relative(pair: Pair) -> float:
    true = pair.truth.image.coefficients[pair.mask].astype(float)
    variance = float(np.square(true - true.mean(axis=0)).mean())
    return _sh_mse(pair) / variance if variance > 0 else float("nan")


def _mse_of(name: str) -> Callable[[Pair], float]:
    def compute(pair: Pair) -> float:
        if not pair.mask.any():
            return float("nan")
        return float(np.square(pair.difference(*_maps_of(name)(pair))).mean())

    return compute


BothMaps = Callable[[Pair], tuple[FloatArray, FloatArray]]
"""Function that returns a map of the prediction and the same map of truth."""


def _maps_of(name: str) -> BothMaps:
    return lambda pair: (pair.prediction[name], pair.truth.mapped[name])


def _rish_of(order: int) -> BothMaps:
    return lambda pair: (pair.rish[..., order // 2], pair.truth.rish[..., order // 2])


def _mean_signals(pair: Pair) -> tuple[FloatArray, FloatArray]:
    return direction_average(pair.prediction.image), direction_average(pair.truth.image)


def _direction_error(pair: Pair, truth: Truth) -> float:
    """Return the mean angle where the given truth's FA shows a direction."""
    where = pair.mask & truth.tissue.white & (truth.mapped.tensor.fa > DIRECTED_FA)
    true = pair.truth.mapped.tensor.direction
    return mean_angle(pair.prediction.tensor.direction, true, where)


def _peak_angle(rank: int) -> Callable[[Pair], float]:
    return lambda pair: pair.fibre_errors.mean_angle(rank)


def _missed_seconds(where: Callable[[PeakErrors], MaskArray]) -> Callable[[Pair], float]:
    return lambda pair: pair.fibre_errors.missed_seconds(where(pair.fibre_errors))


def _amplitude_error(rank: int) -> Callable[[Pair], float]:
    def compute(pair: Pair) -> float:
        if pair.truth.fibres.known:  # a volume fraction is not an amplitude
            return float("nan")
        return pair.fibre_errors.size_error(rank)

    return compute


BUNDLE = "bundle_apart"
"""Key of a slow measure: all white matter is deconvolved, and tracked through."""


def _bundle_apart(pair: Pair) -> float:
    bundle, visited = pair.truth.bundle
    return 100 * (1 - dice(visited_by(bundle, pair.prediction.image), visited))


def _crossing() -> Iterator[Measure]:
    """Yield measures of fibre peaks by constrained spherical deconvolution (CSD)."""
    of = partial(Measure, group=CROSSING)
    peaks, seconds = "% of truth's peaks", "% of truth's second peaks"
    said = (
        "Fibre peaks of truth, by CSD in white matter, within 30° of which there is none. A method "
        "that finds more peaks misses fewer: read it together with the false ones."
    )
    yield of("peaks_missed", "peaks missed", peaks, said, lambda pair: pair.fibre_errors.missed)
    said = "Fibre peaks within 30° of which truth has none."
    yield of("peaks_false", "peaks false", peaks, said, lambda pair: pair.fibre_errors.false)
    for rank, name in enumerate(("first", "second")):
        said = f"Mean angle between truth's {name} fibre peak and the one that answers for it."
        yield of(f"{name}_peak_angle", f"{name} peak's angle", "degrees", said, _peak_angle(rank))
        said = f"Mean absolute error of the amplitude at truth's {name} fibre peak, where matched."
        key, label = f"{name}_peak_amplitude", f"{name} peak's amplitude"
        yield of(key, label, PERCENT, said, _amplitude_error(rank))
    key, label = "second_peak_share", "second peak's share"
    said = "Mean absolute error of the second fibre peak's share of the first two, where matched."
    yield of(key, label, "share", said, lambda pair: pair.fibre_errors.share_error)
    said = (
        "100 minus Dice's overlap of the voxels that left-right fibres visit, tracked through "
        "fibre distributions from seeds of truth, in truth's white matter; of heads with 20 seeds "
        "or more."
    )
    yield of(BUNDLE, "bundle, not shared", "%", said, _bundle_apart)
    for name, where, explanation in (
        ("wide", lambda e: e.wide, "cross at 60° or more"),
        ("narrow", lambda e: ~e.wide, "cross at less than 60°"),
        ("strong", lambda e: ~e.weak, "share no less than 30 to 70"),
        ("weak", lambda e: e.weak, "share less than 30 to 70"),
    ):
        key, label = f"seconds_missed_{name}", f"second peaks missed, {name}"
        said = f"Second fibre peaks that are missed where truth's first two {explanation}."
        yield of(key, label, seconds, said, _missed_seconds(where))


def _and_aligned(
    measure: Measure, quantity: str, compute: Callable[[Pair], float] | None = None
) -> tuple[Measure, Measure]:
    """Return a measure and its twin: the same after a residual motion is undone.

    `compute` is given if the twin is not simply the measure of the aligned prediction.
    """
    twin = replace(
        measure,
        key=f"{measure.key}_aligned",
        label=f"{measure.label}, aligned",
        explanation=f"{quantity} {ALIGNED}.",
        in_compare=False,
        compute=compute or (lambda pair: measure.compute(pair.aligned)),
    )
    return measure, twin


def _by_tissue(
    key: str, label: str, quantity: str, maps: BothMaps, group: str = MAPS, **tissues: str
) -> Iterator[Measure]:
    """Yield measures of a map's error by tissue, in percent of truth's mean; bias has no twins.

    `tissues` are the ends of the explanations, by tissue.
    """
    signed = group == BIAS

    def compute(pair: Pair, tissue: str) -> float:
        inside = pair.mask & getattr(pair.truth.tissue, tissue)
        return percent_error(*maps(pair), inside, signed)

    for tissue, end in tissues.items():
        where = tissue if tissue == "fluid" else f"{tissue} matter"
        said = f"Mean {'signed' if signed else 'absolute'} error of {quantity} in {where}"
        measure = Measure(
            f"{key}_{tissue}",
            f"{label}, {tissue}",
            PERCENT,
            f"{said}{end}.",
            partial(compute, tissue=tissue),
            group,
            "nearest 0" if signed else "lowest",
        )
        yield from (measure,) if signed else _and_aligned(measure, said)


def _errors_by_tissue() -> Iterator[Measure]:
    both = {"white": "", "grey": ""}
    white = {"white": " (grey has next to none)"}
    series = "(through the SH series)"
    for key, name, quantity, maps, tissues in (
        ("fa", "FA", f"fractional anisotropy {series}", _maps_of("fa"), both),
        ("md", "MD", f"mean diffusivity {series}", _maps_of("md"), {**both, "fluid": ""}),
        ("rish0", "RISH 0", "the energy of SH order 0", _rish_of(0), both),
        ("rish2", "RISH 2", "the energy of SH order 2", _rish_of(2), white),
    ):
        yield from _by_tissue(f"{key}_error", f"{name} error", quantity, maps, **tissues)


_ALL = (
    Measure(
        "patch_mse",
        "patch MSE",
        SQUARED,
        "Mean over patches (cubes of 11 voxels unless said otherwise, that do not overlap, "
        "centred in the mask) of the squared error of the SH coefficients of S/S0.",
        _patch_mse,
        ERRORS,
    ),
    Measure(
        "sh_mse",
        "SH MSE",
        SQUARED,
        "Squared error of the SH coefficients of S/S0, mean over voxels and coefficients.",
        _sh_mse,
        "",
        in_compare=True,
    ),
    Measure(
        "robust_mse",
        "aligned SH MSE",
        SQUARED,
        "SH MSE after a residual rigid motion of up to a voxel is undone on the prediction, with "
        "both images smoothed by half a voxel.",
        lambda pair: pair.laid.error,
        ERRORS,
    ),
    *_and_aligned(
        Measure(
            "colour_fa_mse",
            "colour FA MSE",
            "FA²",
            "Squared error of the principal direction's colour times FA, mean over three colours; "
            "tensors come through the SH series of both images.",
            _mse_of("colour_fa"),
            ERRORS,
            in_compare=True,
        ),
        "Colour FA MSE",
    ),
    *_errors_by_tissue(),
    *_and_aligned(
        Measure(
            "direction_error",
            "direction error",
            "degrees",
            "Mean angle between principal directions in white matter where truth's FA is above "
            "0.2.",
            lambda pair: _direction_error(pair, pair.truth),
            MAPS,
        ),
        "Direction error",
        lambda pair: _direction_error(pair.aligned, pair.truth),
    ),
    *_by_tissue(
        "bias",
        "bias",
        "the direction-averaged S/S0",
        _mean_signals,
        BIAS,
        white="; against noise-free truth, the Rician bias that is left",
        grey="",
        fluid=", whose signal is the weakest",
    ),
    Measure(
        "mask_eroded",
        "mask eroded",
        "% of SH MSE",
        "Change of the SH MSE when the outermost voxels of the mask are left out.",
        lambda pair: pair.change_of_mse(pair.eroded),
        MASK,
        better="nearest 0",
    ),
    Measure(
        "mask_dilated",
        "mask dilated",
        "% of SH MSE",
        "Change of the SH MSE when voxels next to the mask count that only one of the images "
        "calls brain, the other being 0 there.",
        lambda pair: pair.change_of_mse(pair.dilated),
        MASK,
        better="nearest 0",
    ),
    *_crossing(),
    Measure(
        "sh_rmse",
        "SH RMSE",
        "SH units",
        "Root of the SH MSE.",
        lambda pair: float(np.sqrt(_sh_mse(pair))),
        in_compare=True,
    ),
    Measure(
        "relative_sh_mse",
        "relative SH MSE",
        "",
        "SH MSE over the variance of truth about its coefficient means: 0 is perfect, 1 is as far "
        "off as truth's mean.",
        _relative,
        in_compare=True,
    ),
    Measure(
        "sh_average_mse",
        "SH average MSE",
        SQUARED,
        "Squared error of the mean of the first six coefficients.",
        _mse_of("sh_average"),
        in_compare=True,
    ),
    Measure(
        "fa_mae",
        "FA error",
        "FA",
        "Mean absolute error of fractional anisotropy, through the SH series.",
        lambda pair: float(np.abs(pair.difference(*_maps_of("fa")(pair))).mean()),
        in_compare=True,
    ),
    Measure(
        "fa_mse",
        "FA MSE",
        "FA²",
        "Squared error of fractional anisotropy, through the SH series.",
        _mse_of("fa"),
        in_compare=True,
    ),
)

MEASURES: Mapping[str, Measure] = MappingProxyType({each.key: each for each in _ALL})
"""Measures by key, in the order of a table's columns."""

IN_TABLE = tuple(each.key for each in _ALL if each.group not in (None, CROSSING))
"""Keys of the measures that Table 1 always shows."""

FIBRES = tuple(each.key for each in _ALL if each.group == CROSSING and each.key != BUNDLE)
"""Keys of the measures that Table 1 shows if fibres are asked for."""

SH_ERRORS = ("patch_mse", "sh_mse")

COMPARED = tuple(each.key for each in _ALL if each.in_compare)
"""Keys of the measures of `compare`."""


def measure_by_keys(pair: Pair, keys: Sequence[str]) -> Metrics:
    """Measure a prediction on truth's lattice, by keys of `MEASURES`."""
    orders = order_slices(pair.truth.image.order).items()
    return Metrics(
        int(pair.mask.sum()),
        {key: MEASURES[key].compute(pair) for key in keys},
        {order: float(pair.squared[:, part].mean()) for order, part in orders},
        pair.patches,
    )


def measure_head(
    prediction: Comparable,
    truth: Truth,
    keys: Sequence[str] = IN_TABLE,
    *,
    patch_size: int = PATCH_SIZE,
) -> Metrics:
    """Measure a prediction on truth's own lattice, inside both masks.

    On one core, a head of 63 × 39 × 27 voxels takes about a second, and half a second more for a
    truth's first prediction.

    Parameters
    ----------
    prediction
        Image that is resampled to truth's lattice if it lies on another. Maps are computed once for
        all truths on its lattice.
    truth
        Truth, never resampled. What it shares between predictions is computed once.
    keys
        Keys of `MEASURES`. `SH_ERRORS` take next to no time.
    patch_size
        Edge of a patch in voxels of truth, odd. The paper has 11 for a target on the input's
        lattice and 19 for one of half the spacing, which is nearly the same length.

    Raises
    ------
    UserError
        When the images do not belong together, or a b-value is unknown.
    ValueError
        For an even patch size.
    """
    return measure_by_keys(Pair.of(prediction, truth, patch_size), keys)


def measure(prediction: Comparable, truth: Comparable) -> Metrics:
    """Measure a prediction as `compare` does, on truth's own lattice, to which it is resampled."""
    true = as_maps(truth)
    return measure_head(prediction, Truth(true.image, given_maps=true), COMPARED)


def measure_mapped(prediction: Maps, truth: Maps, mask: MaskArray) -> Metrics:
    """Measure a prediction on truth's lattice as `compare` does, in a mask within both images'."""
    return measure_by_keys(Pair(prediction, Truth(truth.image, given_maps=truth), mask), COMPARED)
