"""What harmonization does to a comparison of two groups: false alarms first, then what is found.

Studies are drawn, not simulated: everybody was scanned on both scanners, and each drawn study takes
of everyone one scan. A difference between groups that stems from the scanner alone is a false
positive; so is one that stems from the harmonization.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.proof.agreement import ROUNDING
from napari_msp.evaluation.proof.pages import TARGET
from napari_msp.evaluation.statistics import LEVEL, Interval

EFFECT = 0.05
"""By how much patients' values are lower, as a part of their own (our choice)."""

SIZE = 10
"""People in each group."""

DRAWS = 1000
"""Studies."""

ENOUGH = 40
"""People below whom a note says that the drawn studies are nearly the same one (our choice)."""

PARTS = 50
"""Halves of the people by which intervals are measured (our choice)."""

MOSTLY = 0.8
"""Share of the patients on the input platform, and of controls on the target, where groups and
scanners are partly confounded (our choice)."""

Design = Literal["one scanner", "balanced", "partly confounded", "confounded"]

DESIGNS: Mapping[str, str] = {
    "one scanner": "everyone on the target",
    "balanced": "half of each group on each scanner",
    "partly confounded": f"{100 * MOSTLY:.0f} % of patients on the input platform, "
    f"{100 * MOSTLY:.0f} % of controls on the target",
    "confounded": "patients on the input platform, controls on the target",
}
"""Who is scanned where. Patients are the group with the effect."""

UNCHANGED = "scans as they are"
COVARIATE = "scans, scanner as covariate"


@dataclass(frozen=True)
class Rate:
    """How often something happened, and its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Studies:
    """All studies of one design, analysed in one way, in one region.

    Rates are of studies without an effect that find one, and of studies with one that find it
    (`power`), or its opposite.
    """

    design: Design
    row: str
    region: str
    false_positives: Rate
    power: Rate
    reversed_: Rate


@dataclass(frozen=True)
class GroupDifference:
    """What drawn studies found.

    Attributes
    ----------
    spread
        By region: standard deviation between people on the target, in percent of their mean.
    effect
        By how much patients are lower, as a part of their own value.
    people, draws
        Everyone, and studies of each design.
    """

    studies: Sequence[Studies]
    spread: Mapping[str, float]
    effect: float
    people: int
    draws: int
    notes: Sequence[str] = ()


def group_difference(
    source: ArrayLike,
    target: ArrayLike,
    predicted: Mapping[str, ArrayLike],
    regions: Sequence[str],
    *,
    effect: float = EFFECT,
    kept: Mapping[str, float] | None = None,
    draws: int = DRAWS,
) -> GroupDifference:
    """Draw studies of two groups of `SIZE` people each, and count what they find.

    Groups are compared by Student's t test, two-sided, at a level of 0.05, region by region.
    Intervals allow for the people too: they are those of a delete-half jackknife, as another
    sample of people would have given other rates, plus what the number of draws leaves open.

    Parameters
    ----------
    source, target
        (S, R): a quantity of S people in R regions, from their scans on both platforms; pandas'
        tables too.
    predicted
        By method: the target's values as predicted from the input's scans, (S, R) each.
    effect
        By how much patients are lower, as a part of their own value. It is put into the values.
    kept
        By method, what part of such an effect its prediction keeps (see `evaluation.biology`);
        1 where nothing is given.
    draws
        Studies of each design.

    Raises
    ------
    UserError
        When there are too few people, values are missing or no numbers, or nothing such can be
        drawn.
    ValueError
        When arrays or names do not fit each other.
    """
    tables = _numbers({UNCHANGED: source, TARGET: target, **predicted})
    target = tables[TARGET]
    _check(tables, regions, effect)
    people = len(target)
    notes: list[str] = []
    if people < ENOUGH:
        notes.append(
            f"{people} people, fewer than {ENOUGH}: drawn studies share most of their people"
        )
    again = people - len(np.unique(np.hstack([tables[UNCHANGED], target]), axis=0))
    if again and len(regions) > 1:  # of one region, rounded values are equal by chance
        notes.append(f"{again} of {people} people have the values of another: are they the same?")
    varies = target.std(axis=0) > ROUNDING * np.abs(target).max(axis=0)
    for region in np.array(regions)[~varies]:
        notes.append(f"{region} is the same in everybody: nothing is tested")
    named = [name for name, each in zip(regions, varies, strict=True) if each]
    within = {name: np.asarray(table, dtype=float)[:, varies] for name, table in tables.items()}
    part = max(2 * SIZE, people // 2)
    if part == people:
        notes.append("intervals do not allow for other people: every study has all there are")
    # Few people who are left out stand for many: what chance adds to a part then counts as often.
    of_part = draws if people < ENOUGH else max(draws // 5, 2)
    rng = np.random.default_rng(0)
    whole = _draw(rng, np.arange(people), draws)
    parts = [
        _draw(rng, rng.choice(people, part, replace=False), of_part)
        for _ in range(PARTS if part < people else 0)
    ]
    studies = []
    for design, row in _analyses(tables):
        share = (kept or {}).get(row, 1.0)
        there = _on_input(design)
        found = [_outcomes(within, each, there, row, effect, share) for each in (whole, *parts)]
        rates, reach = found[0], _reach(found, draws, of_part, part / max(people - part, 1))
        for column, region in enumerate(named):
            three = [
                Rate(float(v), (float(max(v - r, 0)), float(min(v + r, 1))))
                for v, r in zip(rates[:, column], reach[:, column], strict=True)
            ]
            studies.append(Studies(design, row, region, *three))
    means, spreads = target[:, varies].mean(axis=0), target[:, varies].std(axis=0, ddof=1)
    spread = dict(zip(named, (100 * spreads / np.abs(means)).tolist(), strict=True))
    return GroupDifference(studies, spread, effect, people, draws, tuple(notes))


def _numbers(tables: Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    """Take tables of any kind, pandas' too, as arrays of numbers."""
    found = {}
    for name, table in tables.items():
        try:
            found[name] = np.asarray(table, dtype=float)
        except (TypeError, ValueError) as error:
            remedy = Advice("give a row a person and a column a region, without names")
            problem = f"has values that are no numbers ({error})"
            raise UserError(problem, name, remedy=remedy) from error
    return found


def _check(tables: Mapping[str, FloatArray], regions: Sequence[str], effect: float) -> None:
    """See that studies of two groups can be drawn from these values."""
    for name, table in tables.items():
        if table.ndim != 2 or table.shape != (len(tables[TARGET]), len(regions)):
            raise ValueError(f"{name}: {table.shape} is not (people, {len(regions)} regions)")
        if not np.isfinite(table).all():
            where = regions[int(np.argwhere(~np.isfinite(table))[0, 1])]
            problem = f"{where} has no value of {name} in somebody"
            raise UserError(problem, remedy=Advice("leave out the region, or who lacks it"))
    people = len(tables[TARGET])
    if not 0 <= effect < 1:
        problem = f"patients cannot be lower by {effect:g} of their own value"
        part = Advice("give a part from 0 to 1: 0.05 for 5 percent lower")
        raise UserError(problem, field="effect", remedy=part)
    if people < 2 * SIZE:
        problem = f"{SIZE} against {SIZE} need {2 * SIZE} people, and {people} were measured"
        raise UserError(problem, remedy=Advice("measure more people"))


def _analyses(rows: Iterable[str]) -> list[tuple[Design, str]]:
    """List who is scanned where, and what is compared then."""
    compared = [row for row in rows if row != TARGET]
    predicted = [row for row in compared if row != UNCHANGED]
    mixed: tuple[Design, ...] = ("balanced", "partly confounded")
    return [
        ("one scanner", TARGET),
        *((design, row) for design in mixed for row in (UNCHANGED, COVARIATE, *predicted)),
        *(("confounded", row) for row in compared),
    ]


def _on_input(design: Design) -> MaskArray:
    """(2 SIZE,) who of a study is scanned on the input platform: patients, then controls."""
    patients, controls = {
        "one scanner": (0.0, 0.0),
        "balanced": (0.5, 0.5),
        "partly confounded": (MOSTLY, 1 - MOSTLY),
        "confounded": (1.0, 0.0),
    }[design]
    place = np.arange(SIZE + 1)
    # Spread evenly.
    counts = [np.ceil(np.round(place * share, 9)) for share in (patients, controls)]
    return np.concatenate([np.diff(each) > 0 for each in counts])


def _draw(rng: np.random.Generator, of: IntArray, draws: int) -> IntArray:
    """(D, 2 SIZE) people of each study: patients, then controls."""
    order = rng.permuted(np.tile(of, (draws, 1)), axis=1)
    return np.asarray(order[:, : 2 * SIZE])


def _outcomes(
    tables: Mapping[str, FloatArray],
    studies: IntArray,
    on_input: MaskArray,
    row: str,
    effect: float,
    share: float,
) -> FloatArray:
    """(3, R) parts of the studies: false positives, effects found, effects reversed."""
    covariate = on_input if row == COVARIATE else None
    values = tables[UNCHANGED if row == COVARIATE else row]
    scans = np.where(on_input[:, None], values[studies], tables[TARGET][studies])
    without = _test(scans, covariate)
    remains = np.where(on_input[:SIZE], 1 - effect * share, 1 - effect)[:, None]
    with_effect = np.concatenate([scans[:, :SIZE] * remains, scans[:, SIZE:]], axis=1)
    found = _test(with_effect, covariate)
    outcomes = np.stack([without != 0, found < 0, found > 0])
    return np.asarray(outcomes.mean(axis=1))


def _reach(found: Sequence[FloatArray], draws: int, of_part: int, factor: float) -> FloatArray:
    """(3, R) how far intervals reach to each side, see `group_difference`.

    From the rates of all people, then of each part of them, if any; of `draws` studies of all, and
    `of_part` of a part. The jackknife's `factor` is people kept over people left out.
    """
    rates, *parts = found
    chance = rates * (1 - rates)
    by_people = 0.0
    if parts:
        by_people = factor * np.maximum(np.var(parts, axis=0, ddof=1) - chance / of_part, 0)
    return np.asarray(1.96 * np.sqrt(by_people + chance / draws))


def _test(scans: FloatArray, scanner: MaskArray | None) -> IntArray:
    """(D, R) -1 where patients are significantly lower than controls, 1 where higher, else 0.

    Scans are (D, 2 size, R), patients first; the scanner is a (2 size,) covariate, not the same as
    the groups, or None.
    """
    size = scans.shape[1] // 2
    patients = (np.arange(2 * size) < size).astype(float)
    levels = [np.ones(2 * size, dtype=bool)] if scanner is None else [scanner, ~scanner]
    # The scanner is taken out of values and groups alike: the slope left is that of both together.
    means = np.zeros_like(scans) if len(levels) > 1 else scans.mean(axis=1, keepdims=True)
    for level in levels:
        patients[level] -= patients[level].mean()
        if len(levels) > 1:
            means[:, level] = scans[:, level].mean(axis=1, keepdims=True)
    scans = scans - means
    freedom = 2 * size - 1 - len(levels)
    weight = np.square(patients).sum()
    difference = patients @ scans / weight
    scans -= patients[:, None] * difference[:, None]  # what is left are residuals
    error = np.sqrt(np.square(scans).sum(axis=1) / freedom / weight)
    critical = scipy.stats.t.ppf(1 - LEVEL / 2, freedom)
    return np.asarray(np.sign(difference) * (np.abs(difference) > critical * error)).astype(int)
