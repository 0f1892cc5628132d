"""Effect of harmonization on a comparison of two groups: false alarms, and differences found.

Studies are drawn, not simulated: every person was scanned on both scanners, and a drawn study
takes one scan of each. A group difference that stems from the scanner alone is a false positive;
so is one that stems from the harmonization.
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
"""Fraction by which patients' values are lower (our choice)."""

SIZE = 10
"""Number of people in each group."""

DRAWS = 1000
"""Number of studies drawn of each design."""

ENOUGH = 40
"""Number of people below which a note says that drawn studies are nearly the same (our choice)."""

PARTS = 50
"""Number of halves of the people from which intervals are computed (our choice)."""

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
"""Distribution of the groups over the scanners. Patients are the group with the effect."""

UNCHANGED = "scans as they are"
COVARIATE = "scans, scanner as covariate"


@dataclass(frozen=True)
class Rate:
    """How often something happened, with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Studies:
    """All studies of one design, analysed in one way, in one region.

    The rates are of studies without an effect that find one (false positives), and of studies with
    an effect that find it (`power`) or its opposite.
    """

    design: Design
    row: str
    region: str
    false_positives: Rate
    power: Rate
    reversed_: Rate


@dataclass(frozen=True)
class GroupDifference:
    """Results of the drawn studies.

    Attributes
    ----------
    spread
        Standard deviation between people on the target by region, in percent of their mean.
    effect
        Fraction by which patients' values are lower.
    people, draws
        Number of people, and of studies of each design.
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
    """Draw studies of two groups of `SIZE` people each, and count their findings.

    Groups are compared by Student's t test, two-sided, at a level of 0.05, region by region.
    Intervals allow for the people too, as another sample of people would have given other rates:
    they add a delete-half jackknife and the uncertainty that the number of draws leaves.

    Parameters
    ----------
    source, target
        (S, R): a quantity of S people in R regions, from their scans on both platforms; pandas
        tables are accepted.
    predicted
        The target's values as predicted from the input's scans, by method, (S, R) each.
    effect
        Fraction by which patients' values are lower. The function puts it into the values.
    kept
        Share of such an effect that a method's prediction keeps, by method (see
        `evaluation.biology`); 1 where nothing is given.
    draws
        Number of studies of each design.

    Raises
    ------
    UserError
        When there are too few people, values are missing or not numbers, or no such study can be
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
    if again and len(regions) > 1:  # rounded values of a single region may be equal by chance
        notes.append(f"{again} of {people} people have the values of another: are they the same?")
    varies = target.std(axis=0) > ROUNDING * np.abs(target).max(axis=0)
    for region in np.array(regions)[~varies]:
        notes.append(f"{region} is the same in everybody: nothing is tested")
    named = [name for name, each in zip(regions, varies, strict=True) if each]
    within = {name: np.asarray(table, dtype=float)[:, varies] for name, table in tables.items()}
    part = max(2 * SIZE, people // 2)
    if part == people:
        notes.append("intervals do not allow for other people: every study has all there are")
    # If few people are left out, chance in a part counts much: each part gets all draws.
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
    """Convert tables of any kind, pandas too, to arrays of numbers."""
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
    """Check that studies of two groups can be drawn from these values."""
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
    """List the designs, and the row that is compared in each."""
    compared = [row for row in rows if row != TARGET]
    predicted = [row for row in compared if row != UNCHANGED]
    mixed: tuple[Design, ...] = ("balanced", "partly confounded")
    return [
        ("one scanner", TARGET),
        *((design, row) for design in mixed for row in (UNCHANGED, COVARIATE, *predicted)),
        *(("confounded", row) for row in compared),
    ]


def _on_input(design: Design) -> MaskArray:
    """Return (2 SIZE,) whether people are on the input platform: patients, then controls."""
    patients, controls = {
        "one scanner": (0.0, 0.0),
        "balanced": (0.5, 0.5),
        "partly confounded": (MOSTLY, 1 - MOSTLY),
        "confounded": (1.0, 0.0),
    }[design]
    place = np.arange(SIZE + 1)
    # Those on the input platform are spread evenly.
    counts = [np.ceil(np.round(place * share, 9)) for share in (patients, controls)]
    return np.concatenate([np.diff(each) > 0 for each in counts])


def _draw(rng: np.random.Generator, of: IntArray, draws: int) -> IntArray:
    """Draw (D, 2 SIZE) people of each study: patients, then controls."""
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
    """Return (3, R) shares of the studies: false positives, effects found, effects reversed."""
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
    """Return (3, R) half-widths of the intervals, see `group_difference`.

    `found` holds the rates of all people, then of each part of them, if any, from `draws` studies
    of all and `of_part` of a part. The jackknife's `factor` is people kept over people left out.
    """
    rates, *parts = found
    chance = rates * (1 - rates)
    by_people = 0.0
    if parts:
        by_people = factor * np.maximum(np.var(parts, axis=0, ddof=1) - chance / of_part, 0)
    return np.asarray(1.96 * np.sqrt(by_people + chance / draws))


def _test(scans: FloatArray, scanner: MaskArray | None) -> IntArray:
    """Return (D, R) -1 where patients are significantly lower than controls, 1 if higher, else 0.

    Scans are (D, 2 size, R), patients first; the scanner is a (2 size,) covariate that differs
    from the groups, or None.
    """
    size = scans.shape[1] // 2
    patients = (np.arange(2 * size) < size).astype(float)
    levels = [np.ones(2 * size, dtype=bool)] if scanner is None else [scanner, ~scanner]
    # Values and groups are centred within each scanner: the slope is that of a joint regression.
    means = np.zeros_like(scans) if len(levels) > 1 else scans.mean(axis=1, keepdims=True)
    for level in levels:
        patients[level] -= patients[level].mean()
        if len(levels) > 1:
            means[:, level] = scans[:, level].mean(axis=1, keepdims=True)
    scans = scans - means
    freedom = 2 * size - 1 - len(levels)
    weight = np.square(patients).sum()
    difference = patients @ scans / weight
    scans -= patients[:, None] * difference[:, None]  # the residuals
    error = np.sqrt(np.square(scans).sum(axis=1) / freedom / weight)
    critical = scipy.stats.t.ppf(1 - LEVEL / 2, freedom)
    return np.asarray(np.sign(difference) * (np.abs(difference) > critical * error)).astype(int)
