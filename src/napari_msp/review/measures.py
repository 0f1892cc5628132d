"""Numbers known of a prediction, how unusual each is in its cohort, and the risk.

Sidecars contain them; later measurements are kept in `review/measures.json`.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from napari_msp.arrays import FloatArray
from napari_msp.bids import gradient_files
from napari_msp.errors import UserError
from napari_msp.files import stamp_of
from napari_msp.formatting import SH_MSE_EXPONENT, SQUARED_ERROR, NumberFormat, number, power_of_ten
from napari_msp.inference.review_making import MEASURES_FIELD
from napari_msp.strict_json import read_json

FEWEST = 8
"""Smallest number of entries with a number for one to be called unusual (our choice): a median
deviation of fewer is mostly noise."""

CONSISTENT = 1.4826
"""Factor from median absolute to standard deviation, for a normal distribution."""

LEAST_SPREAD = 0.01
"""Smallest spread relative to the median: smaller differences never count (our choice)."""

UNUSUAL = 3.5
"""Robust standard deviations from which a number is called unusual, as in `check`."""

CAP = 20.0
"""Largest deviation that adds to the risk: beyond, the distance means nothing more (ours)."""

WARNING_WEIGHT = 3.0
"""Weight of a warning in the sidecar, in robust standard deviations (our choice)."""


SQUARED = f"{power_of_ten(SH_MSE_EXPONENT)} {SQUARED_ERROR}"


@dataclass(frozen=True)
class ReviewMeasure:
    """A number that is known of a prediction.

    Attributes
    ----------
    key
        Key in `Entry.numbers`.
    field
        Name in the section `MEASURES_FIELD` of a sidecar.
    bad
        Side that is worse: "high", "low", or "both".
    decimals
        Number of decimals in text; None: two significant digits, as "3.1e-4".
    """

    key: str
    title: str
    unit: str
    field: str
    bad: Literal["high", "low", "both"]
    decimals: int | None
    described: str

    def text(self, value: float | None) -> str:
        """Format a value; a dash if there is none."""
        if value is None:
            return "–"
        if self.unit == SQUARED:
            return NumberFormat.of([value], SQUARED_ERROR).text(value)
        if self.decimals is not None:
            return number(round(value, self.decimals) + 0.0, self.decimals)
        return f"{value:#.2g}".rstrip(".").replace("-", "−")

    def with_unit(self, value: float) -> str:
        """Return a value and its unit, such as "27.1 × 10⁻⁵ SH units²"."""
        times = "× " if self.unit == SQUARED else ""
        return f"{self.text(value)} {times}{self.unit}".strip()


MEASURES: Mapping[str, ReviewMeasure] = {
    each.key: each
    for each in (
        ReviewMeasure(
            "snr", "SNR", "", "SNR", "low", 1, "Signal-to-noise ratio of one b=0 volume."
        ),
        ReviewMeasure("mask_ml", "mask", "ml", "MaskVolume", "both", 0, "Volume of the mask."),
        ReviewMeasure(
            "mean_signal",
            "mean signal",
            "training deviations",
            "MeanSignalDeviation",
            "both",
            2,
            "How far the scan's mean signal lies from the training subjects', in their deviations.",
        ),
        ReviewMeasure(
            "displacement",
            "alignment",
            "mm",
            "Displacement",
            "high",
            2,
            "How far the brain lies from the true scan's, on average over the mask.",
        ),
        ReviewMeasure(
            "disagreement",
            "disagreement",
            "SH units",
            "DisagreementOfOrder0",
            "high",
            None,
            "How far the terms of equation (1) differ in order 0, mean over the mask.",
        ),
        ReviewMeasure(
            "expected_error_median",
            "expected error",
            SQUARED,
            "ExpectedErrorMedian",
            "high",
            None,
            "Expected squared error against what the model was calibrated on, such as noise-free "
            "twins: median over the mask.",
        ),
        ReviewMeasure(
            "error",
            "error",
            SQUARED,
            "Error",
            "high",
            None,
            "Squared error of SH coefficients against the true scan, with its noise: mean over "
            "the mask.",
        ),
    )
}
"""Measures in the order in which they are shown. Of several shells the largest is taken."""


def read_measures(sidecar: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that a sidecar contains; others than finite numbers count as missing."""
    section = sidecar.get(MEASURES_FIELD)
    known = section if isinstance(section, Mapping) else {}
    return numbers_in({key: known.get(measure.field) for key, measure in MEASURES.items()})


def numbers_in(content: Any) -> dict[str, float]:
    """Return the finite numbers of known measures, by key."""
    return {
        key: float(value)
        for key, value in (content if isinstance(content, Mapping) else {}).items()
        if key in MEASURES
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


# --- What was measured, and kept with the folder ----------------------------------------------

MEASURED = "measures.json"
"""File in a review's folder with measurements that the predictions' sidecars lack."""

MEASURED_OF: Mapping[str, set[str]] = {
    "snr": {"scan"},
    "displacement": {"scan", "truth"},
    "error": {"truth"},
}
"""Measures that depend on more files than the prediction."""

Stamp = list[int] | None
"""Stamp of a file, see `stamp_of`."""


class Kept(BaseModel):
    """Measurements of one prediction, and the files that they are of.

    Attributes
    ----------
    file, scan, truth
        Stamps of the prediction, and of scans with the tables beside them; None if one is missing.
    masks
        Masks of scan and truth, noted when they are measured: path and stamp.
    hash
        Hash of the prediction, see `Entry.prediction_hash`; empty if nothing is known.
    failed
        Measures that were given up.
    """

    file: Stamp = None
    scan: list[Stamp] | None = None
    truth: list[Stamp] | None = None
    masks: dict[str, tuple[str, int, int]] = {}
    hash: str = ""
    numbers: dict[str, float] = {}
    failed: tuple[str, ...] = ()


def nothing_of(prediction: Path, scan: Path | None, truth: Path | None) -> Kept:
    """Return the stamps of files as they are now, with nothing measured yet.

    Masks are left out: to look for one takes milliseconds, and a folder may have thousands.
    """
    return Kept(file=stamp_of(prediction), scan=_stamps(scan), truth=_stamps(truth))


def _stamps(scan: Path | None) -> list[Stamp] | None:
    if scan is None or (image := stamp_of(scan)) is None:
        return None
    return [image, *map(stamp_of, gradient_files(scan))]


def read_kept(place: Path) -> dict[str, Kept]:
    """Read earlier measurements by entries' keys; unreadable ones count as missing."""
    kept: dict[str, Kept] = {}
    with suppress(UserError):
        content = read_json(place / MEASURED, foreign=True) if place.is_dir() else {}
        for key, each in content.items():
            with suppress(ValidationError):
                kept[key] = Kept.model_validate(each)
    return kept


def still_known(before: Kept | None, now: Kept) -> Kept:
    """Keep measurements of files that are unchanged `now`; missing files are not compared."""
    if before is None or before.file != now.file:
        return now
    changed = set()
    if now.scan not in (None, before.scan):
        changed.add("scan")
    if now.truth not in (None, before.truth):
        changed.add("truth")
    changed |= {
        what
        for what, (path, *then) in before.masks.items()
        if stamp_of(Path(path)) not in (None, then)
    }
    gone = {measure for measure, of in MEASURED_OF.items() if changed & of}
    return Kept(
        file=now.file,
        # If a scan is missing just now, earlier numbers are still valid.
        scan=now.scan or before.scan,
        truth=now.truth or before.truth,
        masks=before.masks,
        hash=before.hash,
        numbers={name: each for name, each in before.numbers.items() if name not in gone},
        failed=tuple(each for each in before.failed if each not in gone),
    )


# --- What is unusual --------------------------------------------------------------------------


def robust_scale(values: Sequence[float]) -> tuple[float, float] | None:
    """Return median and robust standard deviation; None in the cases of `robust_scores`."""
    if len(values) < FEWEST:
        return None
    given = np.asarray(values, dtype=float)
    middle = float(np.median(given))
    spread = CONSISTENT * float(np.median(np.abs(given - middle)))
    spread = max(spread, LEAST_SPREAD * abs(middle))
    return (middle, spread) if spread > 0 else None


def robust_scores(values: Sequence[float]) -> FloatArray | None:
    """Return the distance of each value from the median, in robust standard deviations.

    (x - median) / (1.4826 · MAD), where the divisor is at least `LEAST_SPREAD` of the median: if
    all values but one are alike, that one is unusual.

    Returns
    -------
    (N,) distances; None for fewer than `FEWEST` values, or if half of them are 0.

    Examples
    --------
    >>> robust_scores([1, 2, 3, 4, 5, 6, 7, 8, 9]).round(2).tolist()
    [-1.35, -1.01, -0.67, -0.34, 0.0, 0.34, 0.67, 1.01, 1.35]
    >>> robust_scores([1, 2, 30])
    """
    scale = robust_scale(values)
    if scale is None:
        return None
    return np.asarray((np.asarray(values, dtype=float) - scale[0]) / scale[1])


def unusual_in(group: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return how unusual each number of some entries is among theirs; see `robust_scores`."""
    scores: list[dict[str, float]] = [{} for _ in group]
    for key in MEASURES:
        having = [number for number, each in enumerate(group) if key in each]
        found = robust_scores([group[number][key] for number in having])
        if found is not None:
            for number, score in zip(having, found, strict=True):
                scores[number][key] = float(score)
    return scores


def badness(key: str, score: float) -> float:
    """Return how far a number is on its bad side, in robust standard deviations; 0 on the other.

    >>> badness("snr", 4.0), badness("snr", -4.0), badness("mask_ml", -4.0)
    (0.0, 4.0, 4.0)
    """
    bad = MEASURES[key].bad
    if bad == "both":
        return abs(score)
    return max(0.0, score if bad == "high" else -score)


def risk_of(unusual: Mapping[str, float], warnings: int) -> float:
    """Return one number to sort by: how unusual an entry is altogether, on the bad side.

    √(Σ zᵢ² + 9 w): zᵢ the robust deviations on each number's bad side, at most `CAP`, w the number
    of warnings in its sidecar (our choice). 0: nothing speaks against it. It is for sorting, not a
    probability.

    >>> risk_of({"snr": -4.0, "mask_ml": 3.0, "error": -9.0}, warnings=0)
    5.0
    >>> risk_of({}, warnings=1)
    3.0
    """
    squares = [min(CAP, badness(key, score)) ** 2 for key, score in unusual.items()]
    return math.sqrt(sum(squares) + warnings * WARNING_WEIGHT**2)


def outlying(unusual: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that are `UNUSUAL` or more on their bad side, worst first."""
    out = {key: score for key, score in unusual.items() if badness(key, score) >= UNUSUAL}
    return dict(sorted(out.items(), key=lambda each: -badness(*each)))


def score_text(score: float) -> str:
    """Format a deviation with its sign.

    >>> score_text(-3.44), score_text(-0.01)
    ('−3.4', '0.0')
    """
    rounded = round(score, 1)
    return number(rounded, 1, signed=True) if rounded else "0.0"


def outlying_text(numbers: Mapping[str, float], unusual: Mapping[str, float]) -> str:
    """Describe unusual numbers, worst first; empty if there are none."""
    return "; ".join(
        f"{MEASURES[key].title} {MEASURES[key].with_unit(numbers[key])}"
        + f" ({score_text(score)} sd)"
        for key, score in outlying(unusual).items()
    )
