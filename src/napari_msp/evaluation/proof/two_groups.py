"""Page "Two groups": the effect of harmonization on a comparison of patients and controls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.benchmark.results import TARGET_SCAN, RegionValue, Results
from napari_msp.evaluation.biology import recovery
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    MEAN_OF_OTHERS,
    TARGET,
    Column,
    ProofData,
    ProofPage,
    TidyTable,
)
from napari_msp.evaluation.proof.two_groups_numbers import (
    DESIGNS,
    DRAWS,
    EFFECT,
    MOSTLY,
    SIZE,
    GroupDifference,
    Rate,
    Studies,
    group_difference,
)
from napari_msp.evaluation.proof.values import QUANTITIES, quantity_key
from napari_msp.evaluation.report.tables import EMPTY, Cell, Table
from napari_msp.evaluation.statistics import LEVEL
from napari_msp.formatting import ends, listed, number
from napari_msp.signal.maps import SH_SERIES, SIGNAL

FALSE = 2 * LEVEL
"""Rate of false alarms above which findings are not called power (our choice)."""

LITERATURE = {"fa": 10.0, "md": 8.0}
"""Quantities in which groups are compared, as such studies do (our choice), with the upper limit of
the spread between people in percent, in tracts of 8 adults (Heiervang 2006)."""


def group_tables(found: GroupDifference, what: str, literature: float | None = None) -> list[Table]:
    """Tabulate false positives first, then power, and the spread between people.

    Parameters
    ----------
    what
        Name of the compared quantity, such as "FA".
    literature
        Upper limit of its spread in the literature, in percent; None: not known.
    """
    regions = list(found.spread)
    of = {(each.design, each.row, each.region): each for each in found.studies}
    rows = list(dict.fromkeys((each.design, each.row) for each in found.studies))
    drawn = (
        f"{found.draws} studies of {SIZE} against {SIZE} drawn from {found.people} "
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
    low, high = rate.interval
    return Cell(number(100 * rate.value, 1), ends((100 * low, 100 * high), 1))


RATES = {
    "false_positive": "a difference, where groups do not differ",
    "power": "the effect, in its direction",
    "reversed": "the opposite of the effect",
}

COLUMNS = (
    Column("quantity", "What was compared"),
    Column("design", "Who was scanned where", levels=DESIGNS),
    Column("row", "Values that were compared"),
    Column("region", "Where"),
    Column("rate", "What the studies found", levels=RATES),
    Column("value", "Part of the studies"),
    Column("low", "Lower end of its 95 % interval"),
    Column("high", "Upper end of its 95 % interval"),
)


def group_rows(found: GroupDifference, quantity: str) -> list[tuple[object, ...]]:
    """Return one fact per row: the rate of a design, row and region, by `COLUMNS`."""
    return [
        (quantity, each.design, each.row, each.region, name, rate.value, *rate.interval)
        for each in found.studies
        for name, rate in zip(
            RATES, (each.false_positives, each.power, each.reversed_), strict=True
        )
    ]


# --- The page ---------------------------------------------------------------------------------

TITLE = "Two groups"

ABSENT = 0.1
"""Share of people without a value above which a row is left out; else the people are (ours)."""

ASSUMED = (
    "Patients differ from controls in nothing but the effect, which is put into their values; each "
    "prediction is taken to keep it whole where what it keeps was not measured as biology.",
)

KEPT_AS = "weaker bundle"
"""Effect of biology that shows what share of a lower FA each row keeps."""


def group_page(study: ProofData) -> ProofPage | None:
    """Draw studies of two groups from everyone measured; None for fewer than 20 people."""
    tables: list[Table] = []
    rows: list[Sequence[object]] = []
    leads, limits = [], list(ASSUMED)
    left: list[str] = []
    if len(datasets := study.measured.names("dataset")) > 1:
        limits.append(f"People of {len(datasets)} datasets are drawn together, as if of one.")
    if study.overlapping:
        limits.append("Folds overlap: what predicts somebody learned from nearly all the others.")
    for values in study.measured.groups("target", "shell").values():
        for key, through in product(LITERATURE, (SH_SERIES, SIGNAL)):
            quantity, column = quantity_key(key, through), values.rows[0].column
            of_quantity = values.select(quantity=quantity)
            if through == SIGNAL and not len(of_quantity):
                continue
            name = f"{QUANTITIES[quantity].label} on {column}"
            kept = _kept(study, column) if quantity == "fa" else {}
            drawn, said = _drawn_of(of_quantity, name, kept)
            if drawn is not None and kept:
                parts = listed([f"{row} {number(part, 2)}" for row, part in kept.items()])
                limits.append(f"{name}: the part of the effect that was kept ({KEPT_AS}): {parts}.")
            limits += said
            left += said
            if drawn is None:
                few = f"{name}: not compared, as fewer than {2 * SIZE} people have values."
                limits += [] if said else [few]
                continue
            tables += group_tables(drawn, name, LITERATURE[key])
            rows += group_rows(drawn, name)
            leads.append(_lead(drawn, name))
            limits += drawn.notes
    if not tables:
        return ProofPage(TITLE, lead=("Nothing is compared.",), limits=left) if left else None
    return ProofPage(
        TITLE,
        lead=leads,
        tables=tables,
        limits=list(dict.fromkeys(limits)),
        files={"group_difference": TidyTable(COLUMNS, rows)},
        methods=(
            f"Studies of {SIZE} against {SIZE} people were drawn {DRAWS} times from everyone, each "
            "with one scan of each person: all on the target, half of each group on each scanner, "
            f"{100 * MOSTLY:.0f} % of each group on a scanner of its own, or groups and scanners "
            "confounded. Groups were compared by Student's t test, "
            "two-sided, at 0.05; intervals are those of a delete-half jackknife over people. The "
            f"effect was {100 * EFFECT:g} % lower values in patients."
        ),
        references=REFERENCES,
    )


def _kept(study: ProofData, column: str) -> dict[str, float]:
    """Return the share of a lower FA that each row was found to keep on a target."""
    effects = study.effects.select(column=column, effect=KEPT_AS)
    return {
        row: recovery([e.true for e in part], [e.value for e in part]).ratio
        for (row,), part in effects.groups("method").items()
        if row != TARGET_SCAN
    }


ByPerson = Mapping[str, Mapping[str, float]]
"""Values by person, then by region."""


def _drawn_of(
    values: Results[RegionValue], name: str, known: Mapping[str, float]
) -> tuple[GroupDifference | None, list[str]]:
    """Draw studies from the values of one quantity on one target, and note what is left out."""
    by: dict[str, dict[str, dict[str, float]]] = {}
    for each in values:
        of = by.setdefault(each.method, {}).setdefault(f"{each.dataset} {each.subject}", {})
        of[each.region] = each.value
    if len(by.get(TARGET, {})) < 2 * SIZE or BEFORE not in by:
        return None, []
    people, rows, said = _comparable(by)
    regions = values.names("region") if len(people) >= 2 * SIZE else []
    for row in (TARGET, BEFORE):
        regions, gone = _had(by[row], people, regions)
        said += [f"{each} is left out (no value of {row} in {who})" for each, who in gone]
    # Rows of fewer regions are drawn apart, with the same people and random numbers.
    parts: dict[tuple[str, ...], dict[str, FloatArray]] = {tuple(regions): {}}
    for row in rows:
        own, gone = _had(by[row], people, regions)
        said += [f"{each} of {row} is left out (no value in {who})" for each, who in gone]
        if own:
            parts.setdefault(tuple(own), {})[row] = _table(by[row], people, own)
    notes = [f"{name}: {each}." for each in said]
    if not regions:
        return None, notes
    # The mean of others is independent of the person, an effect included.
    kept = {**known, MEAN_OF_OTHERS: 0.0}
    found = []
    for part, predicted in parts.items():
        source, target = (_table(by[row], people, part) for row in (BEFORE, TARGET))
        found.append((group_difference(source, target, predicted, part, kept=kept), predicted))
    more = [each for other, of in found[1:] for each in other.studies if each.row in of]
    return replace(found[0][0], studies=[*found[0][0].studies, *more]), notes


def _comparable(by: Mapping[str, ByPerson]) -> tuple[list[str], list[str], list[str]]:
    """Return the people that all rows have, the predicted rows, and notes on what is left out.

    A row that too many people lack is left out; else the people who lack it are.
    """
    everyone = list(by[TARGET])
    people, rows, said = everyone, list[str](), list[str]()
    for row in (BEFORE, *(each for each in by if each not in (TARGET, BEFORE))):
        rest = [who for who in people if who in by[row]]
        lacking = _some([who for who in people if who not in by[row]])
        if row != BEFORE and len(rest) < max(2 * SIZE, (1 - ABSENT) * len(everyone)):
            said.append(f"{row} is left out (no value of it in {lacking})")
            continue
        if lacking:
            said.append(f"left out of all rows: {lacking} (no value of {row})")
        people, rows = rest, rows if row == BEFORE else [*rows, row]
    return people, rows, said


NAMED = 3
"""Number of people that a note names."""


def _had(
    of: ByPerson, people: Sequence[str], regions: Sequence[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the regions that all people have and, for each other one, who lacks it."""
    lacking = {each: [who for who in people if each not in of[who]] for each in regions}
    gone = [(each, _some(names)) for each, names in lacking.items() if names]
    return [each for each, names in lacking.items() if not names], gone


def _table(of: ByPerson, people: Sequence[str], regions: Sequence[str]) -> FloatArray:
    """Return (S, R) values."""
    return np.array([[of[who][each] for each in regions] for who in people])


def _some(names: Sequence[str]) -> str:
    """Name people, only the first if there are many; empty for nobody."""
    more = len(names) - NAMED
    return listed([*names[:NAMED], f"{more} more"] if more > 0 else names) if names else ""


def _lead(found: GroupDifference, name: str) -> str:
    """Return how often false alarms are raised, on average over regions."""
    rates: dict[str, list[float]] = {}
    for each in found.studies:
        if each.design == "confounded":
            rates.setdefault(each.row, []).append(each.false_positives.value)
    told = "; ".join(f"{row} {number(100 * float(np.mean(of)), 0)} %" for row, of in rates.items())
    return f"{name}, groups confounded with scanners: false alarms, mean over regions, in {told}."


REFERENCES = (
    "Heiervang E, Behrens TEJ, Mackay CE, Robson MD, Johansen-Berg H. Between session "
    "reproducibility and between subject variability of diffusion MR and tractography measures. "
    "NeuroImage, 2006; 33:867-877.",
)
"""References of the page."""
