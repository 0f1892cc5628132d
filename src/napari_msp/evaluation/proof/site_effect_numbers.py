"""Numbers of the site effect: every row against the target's scans, by region and quantity."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.benchmark.analysis import OVERLAP
from napari_msp.evaluation.benchmark.results import RegionValue, Results, grouped
from napari_msp.evaluation.proof.agreement import Identified, ScanAgreement, agreement, identify
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    MEAN_OF_OTHERS,
    NOISE_FREE,
    REPEAT,
    SMOOTHED,
    TARGET,
    ProofData,
)
from napari_msp.evaluation.proof.values import MEANS, QUANTITIES, VOXELS
from napari_msp.evaluation.statistics import (
    FEWEST,
    Interval,
    PermutationTest,
    change_interval,
    nested_interval,
    permutation_tests,
    relative_change,
)
from napari_msp.formatting import counted, listed, number
from napari_msp.signal.maps import SH_SERIES, SIGNAL

SAME = 0.05
"""Bias in percent below which it counts as none: it would be written as 0.0."""

MOST_REGIONS = 4
"""Number of regions, the largest ones, in a Bland-Altman figure and in voxel-by-voxel tables."""

FEW = f"fewer than {FEWEST} subjects: nothing is tested"
DEPENDENT = "made of the others' scans, so that subjects depend on each other: nothing is tested"

ROLES = {
    BEFORE: "before",
    REPEAT: "floor",
    NOISE_FREE: "noise-free",
    SMOOTHED: "trivial",
    MEAN_OF_OTHERS: "trivial",
}
"""Roles of rows; all others are "after"."""

ROLE_WORDS = {
    "before": "the input scan",
    "after": "a prediction",
    "floor": "another scan of the same head on the target: no row can be expected nearer",
    "noise-free": "the target's scan without its noise: what noise makes of a quantity",
    "trivial": "a predictor that does nothing for harmonization",
}
"""Roles in words."""

PLACES = {"before": 0, "after": 1, "trivial": 2, "floor": 3, "noise-free": 4}
"""Order of the roles in tables and figures."""


def role_of(row: str) -> str:
    """Return the role of a row: a key of `PLACES`."""
    return ROLES.get(row, "after")


# --- Numbers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SiteDifference:
    """One row against the target's scans, in one region and quantity.

    `column` is the target, with its shell if there are several; `change` is the change of the mean
    absolute difference, in percent of that before, with its interval; `test` tests whether the bias
    is 0; `note` says why a number, or the test, is missing.
    """

    dataset: str
    column: str
    row: str
    region: str
    quantity: str
    agreement: ScanAgreement
    test: PermutationTest | None
    change: float | None
    change_interval: Interval | None
    note: str

    @property
    def dependent(self) -> bool:
        """Whether subjects depend on each other, so that there is no interval over them."""
        return self.note in (OVERLAP, DEPENDENT)


Place = tuple[str, str]
"""Region and quantity."""

Values = Mapping[Place, Mapping[str, float]]
"""Values by region and quantity, then by subject."""


@dataclass(frozen=True)
class SiteEffects:
    """The site effects of one dataset in one column, see `SiteDifference`.

    `through` is what tensors are fitted to, see `Quantity`. `identified` is by row; None where it
    cannot be computed.
    """

    dataset: str
    column: str
    values: Mapping[str, Values]
    effects: Sequence[SiteDifference]
    identified: Mapping[str, Identified | None]
    through: str = SH_SERIES

    def named(self, several: bool) -> str:
        """Return its name for captions, with its dataset if there are several."""
        name = f"{self.dataset}, {self.column}" if several else self.column
        return f"{name}, maps of the signal" if self.through == SIGNAL else name

    @property
    def subjects(self) -> list[str]:
        """Subjects that were measured."""
        return sorted({who for each in self.values[TARGET].values() for who in each})

    @property
    def rows(self) -> list[str]:
        """Rows in order: before, after, trivial, floor."""
        return sorted((row for row in self.values if row != TARGET), key=rank)

    def of(self, row: str) -> list[SiteDifference]:
        """Return the effects of a row."""
        return [each for each in self.effects if each.row == row]

    def of_place(self, region: str, quantity: str) -> list[SiteDifference]:
        """Return the effects in one region and quantity, row by row."""
        found = [e for e in self.effects if (e.region, e.quantity) == (region, quantity)]
        return sorted(found, key=lambda each: rank(each.row))

    def pairs(self, row: str, place: Place) -> list[tuple[float, float]]:
        """Return a row's value and the target's for each subject who has both."""
        own, scans = self.values[row].get(place, {}), self.values[TARGET].get(place, {})
        return [(own[who], scans[who]) for who in sorted(own.keys() & scans.keys())]

    @property
    def roles(self) -> dict[str, str]:
        """Role of each row, see `role_of`."""
        return {row: role_of(row) for row in self.rows}

    def largest(self, quantity: str, most: int = MOST_REGIONS) -> list[str]:
        """Return the regions in which a quantity has most voxels, in their order."""
        scans = self.values[TARGET]
        regions = [region for region, of in scans if of == quantity]
        sizes = {each: sum(scans.get((each, VOXELS), {}).values()) for each in regions}
        kept = sorted(regions, key=lambda each: -sizes[each])[:most]
        return [region for region in regions if region in kept]

    def middle(self, row: str, name: str, *, signed: bool = False) -> float | None:
        """Return the median over regions and quantities of a number, or of its absolute value."""
        found = [getattr(each.agreement, name) for each in self.of(row)]
        known = [value if signed else abs(value) for value in found if value is not None]
        return float(np.median(known)) if known else None


def rank(row: str) -> int:
    """Return the position of a row in tables and figures."""
    return PLACES[role_of(row)]


def site_effects(study: ProofData) -> list[SiteEffects]:
    """Compare every row with the target's scans, dataset by dataset, target by target.

    Finished maps are compared with maps of the scans' own signal, separately from all images.
    """
    found = []
    places = study.measured.groups("dataset", "column").items()
    for ((dataset, column), part), through in product(places, (SH_SERIES, SIGNAL)):
        alike = (
            v for v in part if v.quantity == VOXELS or QUANTITIES[v.quantity].through == through
        )
        of_rows = Results(alike).groups("method").items()
        values = {row: _values(of_row) for (row,), of_row in of_rows}
        if not {*values} - {TARGET} or TARGET not in values:
            continue
        effects: list[SiteDifference] = []
        identified: dict[str, Identified | None] = {}
        for row in sorted((row for row in values if row != TARGET), key=rank):
            untested = OVERLAP if row in study.overlapping else ""
            untested = DEPENDENT if row == MEAN_OF_OTHERS else untested
            effects += _effects((dataset, column, row), values, untested)
            identified[row] = _identified(values[row], values[TARGET])
        found.append(SiteEffects(dataset, column, values, effects, identified, through))
    return found


def _values(part: Results[RegionValue]) -> Values:
    found: dict[Place, dict[str, float]] = {}
    for row in part:
        found.setdefault((row.region, row.quantity), {})[row.subject] = row.value
    return found


def _effects(
    where: tuple[str, str, str], values: Mapping[str, Values], untested: str
) -> Iterator[SiteDifference]:
    own, scans, before = values[where[-1]], values[TARGET], values.get(BEFORE, {})
    places = [place for place in own if place[1] in MEANS and place in scans]
    places = [place for place in places if own[place].keys() & scans[place].keys()]
    people = sorted({who for place in places for who in own[place]})
    tests: list[PermutationTest | None] = [None] * len(places)
    if not untested and places:
        differences = _table(own, places, people) - _table(scans, places, people)
        tests = permutation_tests(differences)
    for place, test in zip(places, tests, strict=True):
        who = sorted(own[place].keys() & scans[place].keys())
        a, b = ([each[place][name] for name in who] for each in (own, scans))
        found, (change, interval) = agreement(a, b), _change(own, scans, before, place)
        note = untested or (FEW if len(who) < FEWEST else "" if test else "no value differs")
        if untested:  # an interval over subjects who depend on each other would mean nothing
            found, interval = replace(found, bias_interval=None, icc_interval=None), None
        yield SiteDifference(*where, *place, found, test, change, interval, note)


def _table(values: Values, places: Sequence[Place], people: Sequence[str]) -> FloatArray:
    """Return (N, K) values of people in regions and quantities; nan where there is none."""
    return np.array([[values.get(at, {}).get(who, np.nan) for at in places] for who in people])


def _change(
    own: Values, scans: Values, before: Values, place: Place
) -> tuple[float | None, Interval | None]:
    """Return the change of the mean absolute difference from that before, in percent."""
    who = sorted(own[place].keys() & scans[place].keys() & before.get(place, {}).keys())
    sizes = [
        [abs(each[place][name] - scans[place][name]) for name in who] for each in (own, before)
    ]
    if not who or own is before or min(sizes[1]) == 0:
        return None, None
    return relative_change(*sizes), change_interval(*sizes)


def _identified(own: Values, scans: Values) -> Identified | None:
    people = sorted({who for place in own if place[1] in MEANS for who in own[place]})
    places = [place for place in scans if place[1] in MEANS]
    people = [who for who in people if any(who in scans[place] for place in places)]
    if not people or not places:
        return None
    return identify(_table(own, places, people), _table(scans, places, people))


@dataclass(frozen=True)
class Resampled:
    """The bias of a row over several datasets, in percent of the target's mean, with an interval.

    If there are enough datasets, these are resampled, then heads in each; `note` says why there is
    no interval.
    """

    column: str
    row: str
    region: str
    quantity: str
    datasets: int
    subjects: int
    bias: float
    interval: Interval | None
    note: str


def resampled(found: Sequence[SiteEffects]) -> list[Resampled]:
    """Combine datasets; empty for one."""
    every = [(each, e) for each in found for e in each.effects if e.agreement.truth_mean > 0]
    places = grouped(every, lambda of: (of[0].column, of[1].row, of[1].region, of[1].quantity))
    combined = []
    for place, several in places.items():
        if len(several) > 1:
            parts = [_biases_in_percent(*each) for each in several]
            note = next((effect.note for _, effect in several if effect.dependent), "")
            mean = float(np.mean([np.mean(part) for part in parts]))
            ends = None if note else nested_interval(parts)
            subjects = sum(map(len, parts))
            combined.append(Resampled(*place, len(parts), subjects, mean, ends, note))
    return combined


def _biases_in_percent(each: SiteEffects, effect: SiteDifference) -> list[float]:
    """Return each subject's difference from the target, in percent of the target's mean."""
    place, mean = (effect.region, effect.quantity), effect.agreement.truth_mean
    own, scans = each.values[effect.row][place], each.values[TARGET][place]
    return [100 * (own[who] - scans[who]) / mean for who in own if who in scans]


# --- Words ------------------------------------------------------------------------------------


def effect_words(each: SiteEffects, region: str, quantity: str) -> str:
    """Describe the site effect in a region: before, after, and between scans on one scanner.

    For example "FA of white matter, 7 subjects: 22.1 % lower than on prisma_st before; 2.0 % lower
    after (MSP). Two scans of one subject on prisma_st differ by 1.1 %." Biases are of means over
    subjects; the difference of two scans is the mean of the subjects' absolute differences.
    """
    rows = {e.row: e.agreement for e in each.of_place(region, quantity)}
    label = f"{QUANTITIES[quantity].label} of {region}"
    if not rows:
        return f"{label}: not measured."
    subjects = max(found.subjects for found in rows.values())
    said = f"{label}, {counted(subjects, 'subject')}: "
    parts = []
    if BEFORE in rows:
        parts.append(f"{_apart(rows[BEFORE])} on {each.column} before")
    after = {row: found for row, found in rows.items() if role_of(row) == "after"}
    parts += [
        f"{_apart(found).rpartition(' ')[0]} after ({row}{_of(found, subjects, ', ')})"
        for row, found in after.items()
    ]
    said += "; ".join(parts) or "neither before nor after was measured"
    floors = [found for row, found in rows.items() if role_of(row) == "floor"]
    if not floors:
        return f"{said}. No subject was scanned on {each.column} twice."
    apart, mean = floors[0].mean_difference, floors[0].truth_mean
    by = f"{apart:.3g}"
    if mean > 0:
        percent = 100 * apart / mean
        by = f"{number(percent, 1) if percent >= SAME else f'{percent:.1g}'} %"
    by += _of(floors[0], subjects, " in ")
    return f"{said}. Two scans of one subject on {each.column} differ by {by}."


NAMED = 4
"""Number of regional means that a sentence names: the worst ones."""

MUCH = 200.0
"""Variance between subjects, in percent of the target's, above which it is called too large if
enough subjects for a test have it: people do not differ that much (our choice)."""


def worse_words(each: SiteEffects) -> Iterator[str]:
    """Yield which regional means each prediction makes worse, as medians hide them.

    For example "MSP is farther from the target than the input in 2 of 27 means of regions:
    RISH 4 of white matter +28.9 → −50.3 %, FA of fluid +13.3 → +18.4 %."
    """
    before = {(e.region, e.quantity): e.agreement.bias_percent for e in each.of(BEFORE)}
    for row in (row for row in each.rows if role_of(row) == "after"):
        farther: dict[str, float] = {}
        varied: dict[str, float] = {}
        compared = 0
        for effect in each.of(row):
            then, now = before.get((effect.region, effect.quantity)), effect.agreement.bias_percent
            where = f"{QUANTITIES[effect.quantity].label} of {effect.region}"
            if then is not None and now is not None:
                compared += 1
                if abs(now) - abs(then) >= SAME:
                    ends = " → ".join(number(bias, 1, signed=True) for bias in (then, now))
                    farther[f"{where} {ends} %"] = abs(now) - abs(then)
            kept = effect.agreement.variance_kept
            if kept is not None and kept > MUCH and effect.agreement.subjects >= FEWEST:
                varied[f"{where} {number(kept, 0)} %"] = kept
        if farther:
            yield (
                f"{row} is farther from the target than the input in {len(farther)} of "
                f"{compared} means of regions: {_worst(farther)}."
            )
        if varied:
            yield (
                f"{row}: in {len(varied)} of {len(each.of(row))} means of regions subjects vary "
                f"more than twice as much as on the target (in percent of that variance, "
                f"{_worst(varied)}): this is not a difference between people."
            )


def _worst(found: Mapping[str, float]) -> str:
    named = sorted(found, key=lambda each: -found[each])
    more = [f"{len(named) - NAMED} more"] if len(named) > NAMED else []
    return listed([*named[:NAMED], *more])


def _of(found: ScanAgreement, subjects: int, before: str) -> str:
    """Return how many subjects a number is of, if fewer than others."""
    few = found.subjects < subjects
    return f"{before}{counted(found.subjects, 'subject')}" if few else ""


def _apart(found: ScanAgreement) -> str:
    """Describe a mean relative to the target's; the sentence continues after "as" or "than"."""
    percent, way = found.bias_percent, "lower than" if found.bias < 0 else "higher than"
    if percent is None:
        return f"{abs(found.bias):.3g} {way}"
    return f"{number(abs(percent), 1)} % {way}" if abs(percent) >= SAME else "as high as"
