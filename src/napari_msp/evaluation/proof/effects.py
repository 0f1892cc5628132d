"""The site effect in numbers: every row against the target's scans, by region and quantity."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.benchmark.analysis import OVERLAP
from napari_msp.evaluation.benchmark.results import RegionValue, Results, column_name
from napari_msp.evaluation.proof.agreement import Agreement, Identified, agreement, identify
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    MEAN_OF_OTHERS,
    NOISE_FREE,
    REPEAT,
    SMOOTHED,
    TARGET,
    Column,
    Study,
    TidyTable,
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

ALL_DATASETS = "all datasets"
"""Dataset of rows that were resampled over datasets, then heads."""

FEW = f"fewer than {FEWEST} subjects: nothing is tested"
DEPENDENT = "made of the others' scans, so that subjects depend on each other: nothing is tested"

ROLES = {
    BEFORE: "before",
    REPEAT: "floor",
    NOISE_FREE: "noise-free",
    SMOOTHED: "trivial",
    MEAN_OF_OTHERS: "trivial",
}
"""What a row stands for; all others are "after"."""

PLACES = {"before": 0, "after": 1, "trivial": 2, "floor": 3, "noise-free": 4}
"""In tables and figures."""


def role_of(row: str) -> str:
    """Say what a row stands for: a key of `PLACES`."""
    return ROLES.get(row, "after")


# --- Numbers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SiteEffect:
    """One row against the target's scans, in one region and quantity.

    Attributes
    ----------
    dataset, target, shell, row, region, quantity
        What was compared.
    found
        How well they agree.
    test
        Whether the bias is 0; None where nothing was tested, see `note`.
    change
        Of the mean absolute difference in percent of that before, with its interval.
    note
        Why a number is missing.
    """

    dataset: str
    target: str
    shell: int | None
    row: str
    region: str
    quantity: str
    found: Agreement
    test: PermutationTest | None
    change: float | None
    change_interval: Interval | None
    note: str

    @property
    def column(self) -> str:
        """The target, with its shell where there are several."""
        return column_name(self.target, self.shell)


Place = tuple[str, str]
"""Region and quantity."""

Values = Mapping[Place, Mapping[str, float]]
"""By region and quantity, then by subject."""


@dataclass(frozen=True)
class Scanners:
    """The numbers of one dataset on one target and shell.

    Attributes
    ----------
    dataset, target, shell
        Which.
    values
        By row.
    effects
        Of every row but the target's own.
    identified
        By row; None where that cannot be known.
    """

    dataset: str
    target: str
    shell: int | None
    values: Mapping[str, Values]
    effects: Sequence[SiteEffect]
    identified: Mapping[str, Identified | None]

    @property
    def column(self) -> str:
        """The target, with its shell where there are several."""
        return column_name(self.target, self.shell)

    @property
    def subjects(self) -> list[str]:
        """Who was measured."""
        return sorted({who for each in self.values[TARGET].values() for who in each})

    @property
    def rows(self) -> list[str]:
        """In order: before, after, trivial, floor."""
        return sorted((row for row in self.values if row != TARGET), key=rank)

    def of(self, row: str, quantity: str | None = None) -> list[SiteEffect]:
        """Give the effects of a row."""
        wanted = (each for each in self.effects if each.row == row)
        return [each for each in wanted if quantity in (None, each.quantity)]

    def middle(self, row: str, name: str, *, signed: bool = False) -> float | None:
        """Give the median over regions and quantities of a number, or of its size."""
        found = [getattr(each.found, name) for each in self.of(row)]
        known = [value if signed else abs(value) for value in found if value is not None]
        return float(np.median(known)) if known else None


def rank(row: str) -> int:
    """Give the place of a row in tables and figures."""
    return PLACES[role_of(row)]


def scanners(study: Study) -> list[Scanners]:
    """Compare every row with the target's scans, dataset by dataset, target by target."""
    found = []
    for (dataset, target, shell), part in study.measured.groups(
        "dataset", "target", "shell"
    ).items():
        values = {row: _values(of_row) for (row,), of_row in part.groups("method").items()}
        if TARGET not in values:
            continue
        effects: list[SiteEffect] = []
        identified: dict[str, Identified | None] = {}
        for row in sorted((row for row in values if row != TARGET), key=rank):
            untested = OVERLAP if row in study.overlapping else ""
            untested = DEPENDENT if row == MEAN_OF_OTHERS else untested
            where = (dataset, target, None if shell is None else int(shell), row)
            effects += _effects(where, values, untested)
            identified[row] = _identified(values[row], values[TARGET])
        found.append(
            Scanners(
                dataset, target, None if shell is None else int(shell), values, effects, identified
            )
        )
    return found


def _values(part: Results[RegionValue]) -> Values:
    found: dict[Place, dict[str, float]] = {}
    for row in part:
        found.setdefault((row.region, row.quantity), {})[row.subject] = row.value
    return found


def _effects(
    where: tuple[str, str, int | None, str], values: Mapping[str, Values], untested: str
) -> Iterator[SiteEffect]:
    own, scans, before = values[where[-1]], values[TARGET], values.get(BEFORE, {})
    places = [place for place in own if place[1] in MEANS and place in scans]
    places = [place for place in places if own[place].keys() & scans[place].keys()]
    people = sorted({who for place in places for who in own[place]})
    tests: list[PermutationTest | None] = [None] * len(places)
    if not untested and places:
        tests = permutation_tests(_differences(own, scans, places, people))
    for place, test in zip(places, tests, strict=True):
        who = sorted(own[place].keys() & scans[place].keys())
        a, b = ([each[place][name] for name in who] for each in (own, scans))
        change, interval = _change(own, scans, before, place)
        yield SiteEffect(
            *where,
            *place,
            agreement(a, b),
            test,
            change,
            None if untested else interval,
            untested or (FEW if len(who) < FEWEST else "" if test else "no value differs"),
        )


def _differences(
    own: Values, scans: Values, places: Sequence[Place], people: Sequence[str]
) -> FloatArray:
    return np.array(
        [[own[at].get(who, np.nan) - scans[at].get(who, np.nan) for at in places] for who in people]
    )


def _change(
    own: Values, scans: Values, before: Values, place: Place
) -> tuple[float | None, Interval | None]:
    """Give the change of the mean absolute difference from that before, in percent."""
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
    return identify(
        *(
            np.array([[of.get(at, {}).get(who, np.nan) for at in places] for who in people])
            for of in (own, scans)
        )
    )


@dataclass(frozen=True)
class Resampled:
    """The bias of a row over datasets, in percent of the target's mean.

    Attributes
    ----------
    column, row, region, quantity
        Of what.
    datasets, subjects
        How many there are.
    bias
        Mean of the datasets' means.
    interval
        95 % bootstrap interval: datasets are drawn, then heads in each.
    note
        Why there is none; empty where there is one.
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


def resampled(found: Sequence[Scanners]) -> list[Resampled]:
    """Put datasets together; empty for one."""
    gathered: dict[tuple[str, str, str, str], list[list[float]]] = {}
    untested: dict[tuple[str, str, str, str], str] = {}
    for each in found:
        scans = each.values[TARGET]
        for effect in each.effects:
            place = (effect.region, effect.quantity)
            if effect.found.truth_mean <= 0:
                continue
            own = each.values[effect.row][place]
            key = (each.column, effect.row, *place)
            if effect.note in (OVERLAP, DEPENDENT):
                untested[key] = effect.note
            gathered.setdefault(key, []).append(
                [
                    100 * (own[who] - scans[place][who]) / effect.found.truth_mean
                    for who in own
                    if who in scans[place]
                ]
            )
    return [
        Resampled(
            *key,
            len(parts),
            sum(map(len, parts)),
            float(np.mean([np.mean(part) for part in parts])),
            None if key in untested else nested_interval(parts),
            untested.get(key, ""),
        )
        for key, parts in gathered.items()
        if len(parts) > 1
    ]


# --- Tidy tables ------------------------------------------------------------------------------

WHERE = (
    Column(
        "dataset", "Name of the dataset", levels={ALL_DATASETS: "resampled, then heads in each"}
    ),
    Column("target", "Platform that was predicted, with its shell where there are several"),
    Column(
        "row",
        "What was compared with the target's scan",
    ),
    Column(
        "role",
        "What the row stands for",
        levels={
            "before": "the input scan",
            "after": "a prediction",
            "floor": "another scan of the same head on the target: no row can be expected nearer",
            "noise-free": "the target's scan without its noise: what noise makes of a quantity",
            "trivial": "a predictor that does nothing for harmonization",
        },
    ),
)

EFFECTS = (
    *WHERE,
    Column("region", "Name of the region"),
    Column(
        "quantity",
        "What the region's mean is of",
        levels={key: QUANTITIES[key].explanation for key in MEANS},
    ),
    Column("unit", "Of the quantity"),
    Column("subjects", "Number of subjects with both values"),
    Column("target_mean", "Mean over subjects of the target's scans", "see unit"),
    Column("mean", "Mean over subjects of the row", "see unit"),
    Column("bias", "Mean difference, row minus target", "see unit"),
    Column("bias_low", "Lower end of its 95 % confidence interval (Student's t)", "see unit"),
    Column("bias_high", "Upper end of it", "see unit"),
    Column("bias_percent", "Bias over target_mean", "%"),
    Column("bias_percent_low", "Lower end of its 95 % interval; over datasets by bootstrap", "%"),
    Column("bias_percent_high", "Upper end of it", "%"),
    Column("difference_sd", "Standard deviation of the differences, N - 1", "see unit"),
    Column("limit_low", "Lower limit of agreement, bias - 1.96 difference_sd", "see unit"),
    Column("limit_high", "Upper limit of agreement", "see unit"),
    Column("mean_difference", "Mean absolute difference", "see unit"),
    Column("cv_percent", "Coefficient of variation between scanners, root mean square", "%"),
    Column("icc", "Intraclass correlation ICC(A,1)"),
    Column("icc_low", "Lower end of its 95 % confidence interval"),
    Column("icc_high", "Upper end of it"),
    Column("glass_delta", "Bias over the standard deviation between subjects on the target"),
    Column("variance_kept_percent", "Variance between subjects over that on the target", "%"),
    Column("p_value", "Permutation test of the bias by subject, two-sided, alone"),
    Column("p_corrected", "The same, corrected over regions and quantities of the row (max |t|)"),
    Column("p_smallest", "Smallest p-value that so many subjects can give"),
    Column("change_percent", "Change of mean_difference from that of the input scan", "%"),
    Column("change_low", "Lower end of its 95 % bootstrap interval over subjects", "%"),
    Column("change_high", "Upper end of it", "%"),
    Column("note", "Why numbers are missing"),
)

PEOPLE = (
    *WHERE,
    Column("subjects", "Number of subjects"),
    Column("quantities", "By how many regions' quantities subjects were compared"),
    Column("right", "Of how many the own target scan is nearest; ties count their share"),
    Column("rate", "right over subjects"),
    Column("right_unbiased", "As right, after the mean over subjects is taken from both"),
    Column("rate_unbiased", "right_unbiased over subjects"),
    Column("chance", "What guessing gives"),
)


VALUES = (
    Column("dataset", "Name of the dataset"),
    Column("target", "Platform that was predicted, with its shell where there are several"),
    Column("subject", "Who was measured"),
    Column(
        "reference",
        "Why",
        levels={"scan": "is predicted", "training": "was learned from"},
    ),
    Column(
        "row", "Which image of the subject", levels={TARGET: "what all others are compared with"}
    ),
    Column("region", "Name of the region"),
    Column(
        "quantity",
        "What was measured there",
        levels={
            **{
                key: f"{each.explanation} "
                + (
                    "Mean."
                    if each.kind == "mean"
                    else "Root mean square against the target's scan."
                )
                for key, each in QUANTITIES.items()
            },
            VOXELS: "Number of voxels that were measured.",
        },
    ),
    Column("unit", "Of the quantity"),
    Column("value", "The number", "see unit"),
)


def values_table(values: Results[RegionValue]) -> TidyTable:
    """Give everything that was measured as a tidy table, one value a line."""
    units = {key: each.unit for key, each in QUANTITIES.items()}
    return TidyTable(
        VALUES,
        [
            (
                each.dataset, each.column, each.subject, each.reference, each.method, each.region,
                each.quantity, units.get(each.quantity, ""), each.value,
            )
            for each in values
        ],
    )  # fmt: skip


def effects_table(found: Sequence[Scanners], over: Sequence[Resampled]) -> TidyTable:
    """Give everything that was found as a tidy table, one row, region and quantity a line."""
    rows: list[list[object]] = []
    for each in (effect for one in found for effect in one.effects):
        f, test, hidden = each.found, each.test, each.note in (OVERLAP, DEPENDENT)
        none = (None, None)
        rows.append(
            [
                each.dataset, each.column, each.row, role_of(each.row), each.region, each.quantity,
                QUANTITIES[each.quantity].unit, f.subjects, f.truth_mean, f.mean, f.bias,
                *(none if hidden else f.bias_interval or none), f.bias_percent,
                *(none if hidden else f.interval_percent or none), f.difference_sd,
                *(f.limits or none), f.mean_difference, f.variation, f.icc,
                *(none if hidden else f.icc_interval or none), f.effect, f.variance_kept,
                *((test.p_value, test.corrected_p_value, test.smallest) if test else (None,) * 3),
                each.change, *(each.change_interval or none), each.note,
            ]
        )  # fmt: skip
    names = [column.name for column in EFFECTS]
    for one in over:
        known: dict[str, object] = {
            "dataset": ALL_DATASETS, "target": one.column, "row": one.row,
            "role": role_of(one.row), "region": one.region, "quantity": one.quantity,
            "unit": QUANTITIES[one.quantity].unit, "subjects": one.subjects,
            "bias_percent": one.bias,
            "bias_percent_low": None if one.interval is None else one.interval[0],
            "bias_percent_high": None if one.interval is None else one.interval[1],
            "note": f"{one.datasets} datasets" + (one.note and f"; {one.note}"),
        }  # fmt: skip
        rows.append([known.get(name) for name in names])
    return TidyTable(EFFECTS, rows)


def people_table(found: Sequence[Scanners]) -> TidyTable:
    """Give how well subjects are told apart as a tidy table."""
    return TidyTable(
        PEOPLE,
        [
            [
                each.dataset, each.column, row, role_of(row), known.subjects, known.quantities,
                known.right, known.rate, known.right_unbiased, known.rate_unbiased, known.chance,
            ]
            for each in found
            for row, known in each.identified.items()
            if known is not None
        ],
    )  # fmt: skip
