"""What harmonization does to a comparison of two groups: false alarms first, then what is found.

Studies are drawn, not simulated: everybody was scanned on both scanners, and each drawn study takes
of everyone one scan. A difference between groups that stems from the scanner alone is a false
positive; so is one that stems from the harmonization.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.stats import t as t_distribution

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.errors import Advice, Change, UserError
from napari_msp.evaluation.benchmark.results import RegionValue, Results
from napari_msp.evaluation.proof.agreement import ROUNDING
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    MEAN_OF_OTHERS,
    TARGET,
    Column,
    Page,
    Study,
    TidyTable,
)
from napari_msp.evaluation.report.tables import EMPTY, Cell, Table
from napari_msp.evaluation.statistics import LEVEL, Interval
from napari_msp.formatting import listed, number

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

FALSE = 2 * LEVEL
"""Rate of false alarms from which what is found is not called power (our choice)."""

LITERATURE = {"fa": 10.0, "md": 8.0}
"""Percent below which the spread between people lay in tracts of 8 adults (Heiervang 2006)."""

Design = Literal["one scanner", "balanced", "confounded"]

DESIGNS: Mapping[Design, str] = {
    "one scanner": "everyone on the target",
    "balanced": "half of each group on each scanner",
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

    Attributes
    ----------
    design, row, region
        Who was scanned where, what was compared, and where.
    false_positives
        Of studies without an effect, those that find one.
    power
        Of studies with the effect, those that find it in its true direction.
    reversed_
        Of studies with the effect, those that find its opposite.
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
    studies
        By design, row and region.
    spread
        By region: standard deviation between people on the target, in percent of their mean.
    effect
        By how much patients are lower, as a part of their own value.
    people, size, draws
        Everyone, and each group's; studies of each design.
    notes
        What a reader must know, in words.
    """

    studies: Sequence[Studies]
    spread: Mapping[str, float]
    effect: float
    people: int
    size: int
    draws: int
    notes: Sequence[str] = field(default_factory=tuple)


def group_difference(
    source: FloatArray,
    target: FloatArray,
    predicted: Mapping[str, FloatArray],
    regions: Sequence[str],
    *,
    effect: float = EFFECT,
    kept: Mapping[str, float] | None = None,
    size: int = SIZE,
    draws: int = DRAWS,
    seed: int = 0,
) -> GroupDifference:
    """Draw studies of two groups, and count what they find.

    Groups are compared by Student's t test, two-sided, at a level of 0.05, region by region.
    Intervals allow for the people too: they are those of a delete-half jackknife, as another
    sample of people would have given other rates, plus what the number of draws leaves open.

    Parameters
    ----------
    source, target
        (S, R): a quantity of S people in R regions, from their scans on both platforms.
    predicted
        By method: the target's values as predicted from the input's scans, (S, R) each.
    regions
        Their names.
    effect
        By how much patients are lower, as a part of their own value. It is put into the values.
    kept
        By method, what part of such an effect its prediction keeps (see `evaluation.biology`);
        1 where nothing is given.
    size
        People in each group; an even number.
    draws
        Studies of each design.
    seed
        Of what is drawn.

    Raises
    ------
    UserError
        When there are too few people or values are missing.
    ValueError
        When arrays or names do not fit each other.
    """
    tables = {UNCHANGED: source, TARGET: target, **predicted}
    for name, table in tables.items():
        if table.ndim != 2 or table.shape != (len(target), len(regions)):
            raise ValueError(f"{name}: {table.shape} is not (people, {len(regions)} regions)")
        if not np.isfinite(table).all():
            where = regions[int(np.argwhere(~np.isfinite(table))[0, 1])]
            problem = f"{where} has no value of {name} in somebody"
            raise UserError(problem, remedy=Advice("leave out the region, or who lacks it"))
    people = len(target)
    if size < 2 or size % 2 or not 0 <= effect < 1:
        raise ValueError(f"groups of {size} with an effect of {effect} cannot be drawn")
    if people < 2 * size:
        problem = f"{size} against {size} need {2 * size} people, and {people} were measured"
        raise UserError(problem, field="size", remedy=Change("size", "a smaller"))
    notes: list[str] = []
    if people < ENOUGH:
        notes.append(
            f"{people} people, fewer than {ENOUGH}: drawn studies share most of their people"
        )
    varies = target.std(axis=0) > ROUNDING * np.abs(target).max(axis=0)
    for region in np.array(regions)[~varies]:
        notes.append(f"{region} is the same in everybody: nothing is tested")
    named = [name for name, each in zip(regions, varies, strict=True) if each]
    within = {name: np.asarray(table, dtype=float)[:, varies] for name, table in tables.items()}
    part = max(2 * size, people // 2)
    if part == people:
        notes.append("intervals do not allow for other people: every study has all there are")
    rng = np.random.default_rng(seed)
    whole = _draw(rng, np.arange(people), size, draws)
    parts = [
        _draw(rng, rng.choice(people, part, replace=False), size, max(draws // 5, 2))
        for _ in range(PARTS)
    ]
    studies = []
    for design, row in _analyses(tables):
        share = (kept or {}).get(row, 1.0)
        found = [_outcomes(within, each, design, row, effect, share) for each in (whole, *parts)]
        rates, reach = found[0], _reach(found, draws, len(parts[0]), part / max(people - part, 1))
        for column, region in enumerate(named):
            three = [
                Rate(float(v), (float(max(v - r, 0)), float(min(v + r, 1))))
                for v, r in zip(rates[:, column], reach[:, column], strict=True)
            ]
            studies.append(Studies(design, row, region, *three))
    means, spreads = target[:, varies].mean(axis=0), target[:, varies].std(axis=0, ddof=1)
    spread = dict(zip(named, (100 * spreads / np.abs(means)).tolist(), strict=True))
    return GroupDifference(studies, spread, effect, people, size, draws, tuple(notes))


def _analyses(rows: Iterable[str]) -> list[tuple[Design, str]]:
    """List who is scanned where, and what is compared then."""
    compared = [row for row in rows if row != TARGET]
    return [
        ("one scanner", TARGET),
        ("balanced", UNCHANGED),
        ("balanced", COVARIATE),
        *(("balanced", row) for row in compared if row != UNCHANGED),
        *(("confounded", row) for row in compared),
    ]


def _draw(rng: np.random.Generator, of: IntArray, size: int, draws: int) -> IntArray:
    """(D, 2 size) people of each study: patients, then controls."""
    order = rng.permuted(np.tile(of, (draws, 1)), axis=1)
    return np.asarray(order[:, : 2 * size])


def _outcomes(
    tables: Mapping[str, FloatArray],
    studies: IntArray,
    design: Design,
    row: str,
    effect: float,
    share: float,
) -> FloatArray:
    """(3, R) parts of the studies: false positives, effects found, effects reversed."""
    size = studies.shape[1] // 2
    place = np.arange(2 * size)
    on_input = {
        "one scanner": np.zeros(2 * size, dtype=bool),
        "balanced": place % 2 == 0,
        "confounded": place < size,
    }[design]
    covariate = on_input if row == COVARIATE else None
    values = tables[UNCHANGED if row == COVARIATE else row]
    scans = np.where(on_input[:, None], values[studies], tables[TARGET][studies])
    without = _test(scans, covariate)
    remains = np.where(on_input[:size], 1 - effect * share, 1 - effect)[:, None]
    with_effect = np.concatenate([scans[:, :size] * remains, scans[:, size:]], axis=1)
    found = _test(with_effect, covariate)
    outcomes = np.stack([without != 0, found < 0, found > 0])
    return np.asarray(outcomes.mean(axis=1))


def _reach(found: Sequence[FloatArray], draws: int, of_part: int, factor: float) -> FloatArray:
    """(3, R) how far intervals reach to each side, see `group_difference`.

    Parameters
    ----------
    found
        Rates of all people, then of each part of them.
    draws, of_part
        Studies drawn of all, and of a part.
    factor
        Of the jackknife: people kept over people left out; meaningless where none are.
    """
    rates, parts = found[0], np.stack(found[1:])
    chance = rates * (1 - rates)
    by_people = np.maximum(parts.var(axis=0, ddof=1) - chance / of_part, 0)
    return np.asarray(1.96 * np.sqrt(factor * by_people + chance / draws))


def _test(scans: FloatArray, scanner: MaskArray | None) -> IntArray:
    """Compare patients with controls in each study and region.

    Parameters
    ----------
    scans
        (D, 2 size, R), patients first.
    scanner
        (2 size,) covariate, as many of each group on each scanner; None: none.

    Returns
    -------
    (D, R): -1 where patients are significantly lower, 1 where higher, else 0.
    """
    size = scans.shape[1] // 2
    freedom = 2 * size - 2
    difference = scans[:, :size].mean(axis=1) - scans[:, size:].mean(axis=1)
    if scanner is not None:  # groups and scanners are balanced, so that each is taken out alone
        means = [scans[:, scanner == each].mean(axis=1, keepdims=True) for each in (False, True)]
        scans = scans - np.where(scanner[:, None], means[1], means[0])
        freedom -= 1
    residuals = np.concatenate(
        [part - part.mean(axis=1, keepdims=True) for part in (scans[:, :size], scans[:, size:])],
        axis=1,
    )
    error = np.sqrt(np.square(residuals).sum(axis=1) / freedom * 2 / size)
    critical = t_distribution.ppf(1 - LEVEL / 2, freedom)
    return np.asarray(np.sign(difference) * (np.abs(difference) > critical * error)).astype(int)


# --- Telling ----------------------------------------------------------------------------------


def group_tables(found: GroupDifference, what: str, literature: float | None = None) -> list[Table]:
    """Tabulate false positives first, then power, and the spread between people.

    Parameters
    ----------
    what
        Quantity that was compared, such as "FA".
    literature
        Percent below which its spread lies in the literature; None: not known.
    """
    regions = list(found.spread)
    of = {(each.design, each.row, each.region): each for each in found.studies}
    rows = list(dict.fromkeys((each.design, each.row) for each in found.studies))
    drawn = (
        f"{found.draws} studies of {found.size} against {found.size} drawn from {found.people} "
        "people, by Student's t test at 0.05; in brackets the 95 % interval"
    )

    def power(each: Studies) -> Rate | None:
        return None if each.false_positives.value > FALSE else each.power

    def table(caption: str, pick: Callable[[Studies], Rate | None]) -> Table:
        return Table(
            caption,
            ("scanners", "compared", *regions),
            [
                [
                    Cell(design),
                    Cell(row),
                    *(
                        _rate_cell(pick(each)) if (each := of.get((design, row, region))) else EMPTY
                        for region in regions
                    ),
                ]
                for design, row in rows
            ],
        )

    known = f"; below {literature:g} % in tracts of 8 adults (Heiervang 2006)" if literature else ""
    return [
        table(
            f"{what}, groups that do not differ: percent of studies that find a difference. "
            f"{drawn}. {'; '.join(f'{name}: {who}' for name, who in DESIGNS.items())}.",
            lambda each: each.false_positives,
        ),
        table(
            f"{what}, {100 * found.effect:g} % lower in patients: percent of studies that find it; "
            f"– where more than {100 * FALSE:.0f} % raise a false alarm: no power.",
            power,
        ),
        Table(
            f"{what}: standard deviation between people on the target, percent of the mean{known}.",
            ("", *regions),
            [[Cell("between people"), *(Cell(number(found.spread[r], 1)) for r in regions)]],
        ),
    ]


def _rate_cell(rate: Rate | None) -> Cell:
    if rate is None:
        return EMPTY
    low, high = (number(100 * end, 1) for end in rate.interval)
    return Cell(number(100 * rate.value, 1), f"[{low}, {high}]")


def group_rows(found: GroupDifference, quantity: str) -> TidyTable:
    """Give one fact a row: a rate of a design, a row and a region, with its interval."""
    columns = (
        Column("quantity", "What was compared"),
        Column(
            "design",
            "Who was scanned where",
            levels={str(name): what for name, what in DESIGNS.items()},
        ),
        Column("row", "Values that were compared"),
        Column("region", "Where"),
        Column(
            "rate",
            "What the studies found",
            levels={
                "false_positive": "a difference, where groups do not differ",
                "power": "the effect, in its direction",
                "reversed": "the opposite of the effect",
            },
        ),
        Column("value", "Part of the studies"),
        Column("low", "Lower end of its 95 % interval"),
        Column("high", "Upper end of its 95 % interval"),
    )
    rows = [
        (quantity, each.design, each.row, each.region, name, rate.value, *rate.interval)
        for each in found.studies
        for name, rate in (
            ("false_positive", each.false_positives),
            ("power", each.power),
            ("reversed", each.reversed_),
        )
    ]
    return TidyTable(columns, rows)


# --- The page ---------------------------------------------------------------------------------

TITLE = "Two groups"

ABSENT = 0.1
"""Part of the people; a row that lacks more is left out, else who is lacking is (our choice)."""

QUANTITIES = {"fa": "FA", "md": "MD"}
"""What groups are compared in (our choice): what such studies report."""

LIMITS = (
    "Patients differ from controls in nothing but the effect, which is put into their values; each "
    "prediction is taken to keep it whole (what it keeps is measured as biology).",
)


def group_page(study: Study) -> Page | None:
    """Draw studies of two groups from everyone who was measured; None of fewer than 20 people."""
    tables: list[Table] = []
    rows: list[Sequence[object]] = []
    columns: Sequence[Column] = ()
    leads, limits = [], list(LIMITS)
    left: list[str] = []
    if len(datasets := study.measured.names("dataset")) > 1:
        limits.append(f"People of {len(datasets)} datasets are drawn together, as if of one.")
    if study.overlapping:
        limits.append("Folds overlap: what predicts somebody learned from nearly all the others.")
    for values in study.measured.groups("target", "shell").values():
        for key, label in QUANTITIES.items():
            name = f"{label} on {values.rows[0].column}"
            drawn, said = _drawn_of(values.select(quantity=key), name)
            limits += said
            left += said
            if drawn is None:
                few = f"{name}: not compared, as fewer than {2 * SIZE} people have values."
                limits += [] if said else [few]
                continue
            tables += group_tables(drawn, name, LITERATURE[key])
            tidy = group_rows(drawn, name)
            rows, columns = [*rows, *tidy.rows], tidy.columns
            leads.append(_lead(drawn, name))
            limits += drawn.notes
    if not tables:
        return Page(TITLE, lead=("Nothing is compared.",), limits=left) if left else None
    return Page(
        TITLE,
        lead=leads,
        tables=tables,
        limits=list(dict.fromkeys(limits)),
        files={"group_difference": TidyTable(columns, rows)},
        methods=(
            f"Studies of {SIZE} against {SIZE} people were drawn {DRAWS} times from everyone, each "
            "with one scan of each person: all on the target, half of each group on each scanner, "
            "or groups and scanners confounded. Groups were compared by Student's t test, "
            "two-sided, at 0.05; intervals are those of a delete-half jackknife over people. The "
            f"effect was {100 * EFFECT:g} % lower values in patients."
        ),
        references=REFERENCES,
    )


def _drawn_of(values: Results[RegionValue], name: str) -> tuple[GroupDifference | None, list[str]]:
    """Draw studies from the values of one quantity on one target, and say what is left out."""
    by: dict[str, dict[str, dict[str, float]]] = {}
    for each in values:
        if each.seed == values.rows[0].seed or each.method in (TARGET, BEFORE):
            of = by.setdefault(each.method, {}).setdefault(f"{each.dataset} {each.subject}", {})
            of[each.region] = each.value
    everyone = list(by.get(TARGET, {}))
    if len(everyone) < 2 * SIZE or BEFORE not in by:
        return None, []
    people, rows, said = everyone, list[str](), list[str]()
    for row in (BEFORE, *(each for each in by if each not in (TARGET, BEFORE))):
        rest = [who for who in people if who in by[row]]
        lacking = _some([who for who in people if who not in by[row]])
        if row != BEFORE and len(rest) < max(2 * SIZE, (1 - ABSENT) * len(everyone)):
            said.append(f"{name}: {row} is left out (no value of it in {lacking}).")
            continue
        if lacking:
            said.append(f"{name}: left out of all rows: {lacking} (no value of {row}).")
        people, rows = rest, [*rows, row]
    if len(people) < 2 * SIZE:
        return None, said
    regions = list(dict.fromkeys(each.region for each in values))
    for row in (TARGET, BEFORE):
        regions, gone = _had(by[row], people, regions)
        said += [f"{name}: {each} is left out (no value of {row} in {of})." for each, of in gone]
    if not regions:
        return None, said
    parts: dict[tuple[str, ...], dict[str, FloatArray]] = {tuple(regions): {}}
    for row in rows[1:]:
        own, gone = _had(by[row], people, regions)
        said += [f"{name}: {each} of {row} is left out (no value in {of})." for each, of in gone]
        if own:
            parts.setdefault(tuple(own), {})[row] = _table(by[row], people, own)
    found = []
    for part, predicted in parts.items():  # people and random numbers are the same in each
        source, target = (_table(by[row], people, part) for row in (BEFORE, TARGET))
        # The mean of others knows nothing of a person, an effect included.
        kept = {MEAN_OF_OTHERS: 0.0}
        found.append((group_difference(source, target, predicted, part, kept=kept), predicted))
    more = [each for other, of in found[1:] for each in other.studies if each.row in of]
    return replace(found[0][0], studies=[*found[0][0].studies, *more]), said


Values = Mapping[str, Mapping[str, float]]
"""By person, then by region."""


def _had(
    of: Values, people: Sequence[str], regions: Sequence[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Give the regions that all people have; of each other one, who lacks it."""
    lacking = {each: [who for who in people if each not in of[who]] for each in regions}
    gone = [(each, _some(names)) for each, names in lacking.items() if names]
    return [each for each, names in lacking.items() if not names], gone


def _table(of: Values, people: Sequence[str], regions: Sequence[str]) -> FloatArray:
    """(S, R) values."""
    return np.array([[of[who][each] for each in regions] for who in people])


def _some(names: Sequence[str], most: int = 3) -> str:
    """Name people, the first of many; empty for nobody."""
    more = len(names) - most
    return listed([*names[:most], f"{more} more"] if more > 0 else names) if names else ""


def _lead(found: GroupDifference, name: str) -> str:
    """Say how often false alarms are raised, on average over regions."""
    rates: dict[tuple[Design, str], list[float]] = {}
    for each in found.studies:
        rates.setdefault((each.design, each.row), []).append(each.false_positives.value)
    confounded = {
        row: 100 * float(np.mean(values))
        for (design, row), values in rates.items()
        if design == "confounded"
    }
    told = "; ".join(f"{row} {number(rate, 0)} %" for row, rate in confounded.items())
    return f"{name}, groups confounded with scanners: false alarms, mean over regions, in {told}."


REFERENCES = (
    "Heiervang E, Behrens TEJ, Mackay CE, Robson MD, Johansen-Berg H. Between session "
    "reproducibility and between subject variability of diffusion MR and tractography measures. "
    "NeuroImage, 2006; 33:867-877.",
)
"""Works cited."""
