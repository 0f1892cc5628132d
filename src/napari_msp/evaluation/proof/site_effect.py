"""Page "Site effect": its size before and after, beside two scans on one scanner."""

from collections.abc import Iterator, Sequence

import numpy as np

from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.benchmark.analysis import OVERLAP
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    MEAN_OF_OTHERS,
    REPEAT,
    TARGET,
    ProofData,
    ProofPage,
)
from napari_msp.evaluation.proof.site_effect_figures import DRAWN, drawings
from napari_msp.evaluation.proof.site_effect_files import (
    EFFECTS_FILE,
    PEOPLE_FILE,
    VALUES_FILE,
    effects_table,
    people_table,
    values_table,
)
from napari_msp.evaluation.proof.site_effect_numbers import (
    MOST_REGIONS,
    Resampled,
    SiteDifference,
    SiteEffects,
    effect_words,
    rank,
    resampled,
    role_of,
    site_effects,
    worse_words,
)
from napari_msp.evaluation.proof.values import (
    ERRORS,
    MEANS,
    QUANTITIES,
    SMOOTHING,
    VOXELS,
    quantity_key,
)
from napari_msp.evaluation.report.tables import EMPTY, Cell, Table
from napari_msp.evaluation.statistics import (
    FEWEST,
    FOR_BOOTSTRAP,
    FOR_INTERVAL,
    LEVEL,
    RESAMPLES,
    interval_name,
)
from napari_msp.files import versions_of
from napari_msp.formatting import NumberFormat, counted, ends, listed, number, p_text, span
from napari_msp.signal.maps import SIGNAL


def site_effect_page(study: ProofData) -> ProofPage:
    """Write the page.

    Raises
    ------
    UserError
        When no row was measured beside a target's scan.
    """
    compared = [each for each in site_effects(study) if {*each.rows} - {MEAN_OF_OTHERS}]
    found = [each for each in compared if each.effects]
    if not found:
        problem = "no image could be compared with a target's scan in any region"
        raise UserError(problem, remedy=Advice("read the notes on each head"))
    several = len({each.dataset for each in found}) > 1
    over = resampled(found)
    tested = any(effect.test is not None for each in found for effect in each.effects)
    lead: list[str] = []
    tables: list[Table] = []
    more: list[Table] = []
    for each in found:
        lead.append(_sentence(each, several))
        fa = quantity_key("fa", each.through)  # in the largest region, which readers can picture
        lead += [effect_words(each, region, fa) for region in each.largest(fa, 1)]
        lead += worse_words(each)
        tables.append(_essence(each, several))
        tables += [_by_region(each, key, several) for key in DRAWN]
        if len(each.subjects) < FEWEST:
            tables += [_individual(each, key, several) for key in DRAWN]
        more += [_by_region(each, key, several) for key in MEANS if key not in DRAWN]
        more += _voxelwise(each, several)
    if over:
        tables.append(_over_datasets(over))
    return ProofPage(
        "Site effect",
        lead=lead,
        tables=[table for table in tables if table.rows],
        drawings=list(drawings(found, several)),
        more=[table for table in more if table.rows],
        limits=_limits(study, found, several),
        files={
            EFFECTS_FILE: effects_table(found, over),
            PEOPLE_FILE: people_table(found),
            VALUES_FILE: values_table(study.values),
        },
        methods=_methods(study, found, over),
        references=(*REFERENCES, *OF_TESTS) if tested else REFERENCES,
    )


def _percent(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None else f"{number(value, decimals)} %"


def _kept(variance: float | None) -> str:
    """Format the variance kept; beyond ten times that on the target, its size means nothing."""
    return "> 1000 %" if variance is not None and variance > 1000 else _percent(variance, 0)


def _sentence(each: SiteEffects, several: bool) -> str:
    """Describe the results on one target."""

    def bias(row: str) -> str:
        return _percent(each.middle(row, "bias_percent"))

    def people(row: str, form: str) -> str:
        known = each.identified.get(row)
        if known is None:
            return ""
        return form.format(f"{known.right_unbiased:.3g} of {known.subjects}")

    said = f"{each.named(several)} ({counted(len(each.subjects), 'subject')}): "
    after = [row for row in each.rows if role_of(row) == "after"]
    parts = [f"{bias(row)} with {row}{people(row, ' ({})')}" for row in after]
    said += f"the median size of the bias over regions and quantities was {bias(BEFORE)} before"
    said += people(BEFORE, " ({} subjects told right, bias taken away)")
    said += f", {'; '.join(parts)}" if parts else ""
    floors = [row for row in each.rows if role_of(row) == "floor"]
    if floors:
        said += f". {floors[0][:1].upper()}{floors[0][1:]}: {bias(floors[0])}"
    else:
        said += ". No subject was scanned on the target twice, so there is no floor"
    if MEAN_OF_OTHERS in each.values:
        said += (
            f"; for comparison, predicting the mean of the others has a bias of "
            f"{bias(MEAN_OF_OTHERS)}{people(MEAN_OF_OTHERS, ' and tells {} right')}"
        )
    return said + "."


def _essence(each: SiteEffects, several: bool) -> Table:
    columns = (
        "row", "|bias|", "CV between scanners", "ICC(A,1)", "|effect|, Glass's Δ",
        "variance kept", "told right", "told right, bias taken away", "p < 0.05, corrected",
    )  # fmt: skip

    def of(row: str) -> list[Cell]:
        known = each.identified.get(row)
        tests = [effect.test for effect in each.of(row) if effect.test is not None]
        clear = sum(test.corrected_p_value < LEVEL for test in tests)
        # For the mean of the others, the ICC follows from the number of subjects alone.
        icc = None if row == MEAN_OF_OTHERS else each.middle(row, "icc", signed=True)
        return [
            Cell(row, role_of(row) if role_of(row) not in row else ""),
            Cell(_percent(each.middle(row, "bias_percent"), 2)),
            Cell(_percent(each.middle(row, "variation"), 2)),
            Cell(number(icc, 2)),
            Cell(number(each.middle(row, "effect"), 2)),
            Cell(_kept(each.middle(row, "variance_kept"))),
            EMPTY if known is None else Cell(f"{known.right:.3g} of {known.subjects}"),
            EMPTY if known is None else Cell(f"{known.right_unbiased:.3g} of {known.subjects}"),
            Cell(f"{clear} of {len(tests)}") if tests else Cell("not tested"),
        ]

    regions = len({effect.region for effect in each.effects})
    quantities = len({effect.quantity for effect in each.effects})
    return Table(
        f"{each.named(several)}: each row against the target's scans of the same "
        f"{counted(len(each.subjects), 'subject')}; medians over {counted(regions, 'region')} × "
        f"{quantities} quantities. A small bias alone proves nothing: predicting the same "
        "for every subject has one. Variance kept is that between subjects; told right are "
        "subjects "
        f"whose own scan on the target is nearest (by chance 1 of {len(each.subjects)}).",
        columns,
        [of(row) for row in each.rows],
    )


def _by_region(each: SiteEffects, key: str, several: bool) -> Table:
    quantity = QUANTITIES[key]
    by_place = {
        (effect.region, effect.row): effect for effect in each.effects if effect.quantity == key
    }
    regions = list(dict.fromkeys(region for region, _ in by_place))
    means = {region: np.mean(list(each.values[TARGET][region, key].values())) for region in regions}
    display = NumberFormat.of(float(mean) for mean in means.values())

    few = len(each.subjects) < FOR_INTERVAL
    interval = interval_name([len(each.subjects)]) if few else "95 % interval"

    def voxels(region: str) -> str:
        counts = list(each.values[TARGET].get((region, VOXELS), {}).values())
        return f"{round(float(np.mean(counts)))} voxels" if counts else ""

    unit = display.unit(quantity.unit)
    return Table(
        f"{quantity.label} on {each.named(several)}: bias in percent of the target's mean "
        f"[{interval}]; beneath, coefficient of variation between scanners, ICC(A,1), variance "
        "between subjects that is kept, and p of the permutation test, corrected over regions and "
        "quantities of a row. Bold: p < 0.05.",
        ["region", f"target's mean{f', {unit}' if unit else ''}", *each.rows],
        [
            [
                Cell(region, voxels(region)),
                Cell(display.text(float(means[region]))),
                *(_cell(by_place.get((region, row))) for row in each.rows),
            ]
            for region in regions
        ],
    )


def _cell(effect: SiteDifference | None) -> Cell:
    if effect is None:
        return EMPTY
    found = effect.agreement
    bias = found.bias_percent
    if bias is None:
        return Cell("–", "its mean is not above 0")
    parts = [f"CV {_percent(found.variation)}"]
    if found.icc is not None and effect.row != MEAN_OF_OTHERS:
        parts.append(f"ICC {number(found.icc, 2)}")
    if found.variance_kept is not None:
        parts.append(f"kept {_kept(found.variance_kept)}")
    if effect.test is not None:
        parts.append(p_text(effect.test.corrected_p_value))
    clear = effect.test is not None and effect.test.corrected_p_value < LEVEL
    said = f"{number(bias, 1, signed=True)} % {ends(found.interval_percent, 1)}".rstrip()
    return Cell(said, ", ".join(parts), clear)


def _individual(each: SiteEffects, key: str, several: bool) -> Table:
    quantity = QUANTITIES[key]
    regions = [region for region, of in each.values[TARGET] if of == key]
    rows = [TARGET, *each.rows]
    found = {
        (region, who): [each.values[row].get((region, key), {}).get(who) for row in rows]
        for region in regions
        for who in each.subjects
    }
    display = NumberFormat.of(one for of in found.values() for one in of if one is not None)
    unit = display.unit(quantity.unit)
    return Table(
        f"{quantity.label}{f' in {unit}' if unit else ''} on {each.named(several)}, subject by "
        f"subject: with fewer than {FEWEST} nothing is tested (the smallest p that "
        f"{len(each.subjects)} can give is {min(1.0, 2.0 ** (1 - len(each.subjects))):.2g}).",
        ["subject, region", *rows],
        [
            [Cell(f"{who}, {region}"), *(Cell(display.text(one)) for one in of)]
            for (region, who), of in found.items()
        ],
    )


def _voxelwise(each: SiteEffects, several: bool) -> Iterator[Table]:
    """Yield a table for each region, with quantities in rows."""
    rows = [row for row in each.rows if row != MEAN_OF_OTHERS]
    places = {place for row in rows for place in each.values[row] if place[1] in ERRORS}
    measured = next(key for key in MEANS if any(place[1] == key for place in each.values[TARGET]))
    for region in each.largest(measured):
        lines = []
        for key in (key for key in ERRORS if (region, key) in places):
            means = {
                row: float(np.mean(list(found.values())))
                for row in rows
                if (found := each.values[row].get((region, key)))
            }
            display = NumberFormat.of(means.values())
            unit = display.unit(QUANTITIES[key].unit)
            label = f"{QUANTITIES[key].label}{f', {unit}' if unit else ''}"
            lines.append([Cell(label), *(Cell(display.text(means.get(row))) for row in rows)])
        yield Table(
            f"Voxel by voxel, {region} on {each.named(several)}: root mean square difference "
            "from the target's scan, mean over subjects. Misalignment counts here; the means of "
            "regions above are robust to it.",
            ["quantity", *rows],
            lines,
        )


def _over_datasets(over: Sequence[Resampled]) -> Table:
    shown = [each for each in over if each.quantity in DRAWN]
    rows = sorted({each.row for each in shown}, key=lambda row: (rank(row), row))
    by_place = {(e.column, e.quantity, e.region, e.row): e for e in shown}
    places = list(dict.fromkeys(place[:3] for place in by_place))

    def cell(each: Resampled | None) -> Cell:
        if each is None:
            return EMPTY
        return Cell(f"{number(each.bias, 1, signed=True)} %", ends(each.interval, 1))

    counts = [each.datasets for each in shown]
    interval = interval_name(counts, "datasets")
    if max(counts, default=0) >= FOR_BOOTSTRAP:
        interval += ": datasets are drawn, then heads in each"
    without = {each.row: each.note for each in shown if each.note}
    return Table(
        f"All datasets: mean of the datasets' mean biases [{interval}]."
        + "".join(f" {row} has no interval ({why})." for row, why in without.items()),
        ["target, quantity, region", *rows],
        [
            [
                Cell(f"{column}, {QUANTITIES[key].label}, {region}"),
                *(cell(by_place.get((column, key, region, row))) for row in rows),
            ]
            for column, key, region in places
        ],
    )


# --- Words ------------------------------------------------------------------------------------


def _limits(study: ProofData, found: Sequence[SiteEffects], several: bool) -> list[str]:
    said = [
        "A bias near 0 alone does not prove harmonization: look at the variance kept, at which "
        "subjects "
        "are told right, and at the trivial predictors.",
        "Quantities of one region depend on each other, as do regions: their number is not the "
        "number of "
        "independent findings.",
    ]
    if study.selected:
        said.append(
            "Regions were found in the target's own scans, whose noise so decides which voxels "
            "count: that favours these scans, and a second scan on the target would show by how "
            "much. Labels that were drawn independently do not."
        )
    if any(len({e.region for e in each.effects}) > MOST_REGIONS for each in found):
        said.append(
            "Figures and tables voxel by voxel show the largest regions; site_effect.csv and "
            "regions.csv have all."
        )
    for each in found:
        known = {who for other in found if other.dataset == each.dataset for who in other.subjects}
        lacking = sorted(known - {*each.subjects})
        if lacking:
            said.append(f"On {each.named(several)} nothing was measured of {listed(lacking)}.")
        counts = {
            row: max((e.agreement.subjects for e in each.of(row)), default=0) for row in each.rows
        }
        few = {row: n for row, n in counts.items() if n < len(each.subjects)}
        if few:
            rows = listed([f"{row} of {n}" for row, n in few.items()])
            said.append(
                f"On {each.column} not all rows are of the same {len(each.subjects)} subjects, so "
                f"they are hard to compare: {rows}."
            )
    if not any(role_of(row) == "floor" for each in found for row in each.rows):
        said.append(
            "No subject was scanned on the target twice: how much two scans on one scanner differ "
            "is "
            "not known, and no difference here can be expected to become 0."
        )
    return [*said, *study.notes]


def _methods(study: ProofData, found: Sequence[SiteEffects], over: Sequence[Resampled]) -> str:
    heads = span([len(each.subjects) for each in found])
    rows = list(dict.fromkeys(row for each in found for row in each.rows))
    after = [row for row in rows if role_of(row) == "after"]
    tests = [each.test for one in found for each in one.effects if each.test is not None]
    seen = {each.quantity for one in found for each in one.effects}
    sentences = [
        f"The site effect was measured on {heads} subjects with scans on {study.input} and on the "
        f"target. Regions were {study.regions}.",
        "In each, the means of "
        f"{listed([QUANTITIES[key].label for key in MEANS if key in seen])} of "
        + listed(["the input scan", *after, *["a repeated scan on the target"] * (REPEAT in rows)])
        + " were compared with those of the target's scan of the same subject, over the voxels in "
        "the masks of all images; tensors were fitted to the signal of the spherical-harmonic "
        "series of all images alike"
        + (
            ", and for methods that give maps to the signal of the scans themselves."
            if any(each.through == SIGNAL for each in found)
            else "."
        ),
        "We report bias and 95 % limits of agreement (Bland 1986), the coefficient of variation "
        "between scanners, the intraclass correlation ICC(A,1) with its 95 % interval (McGraw "
        "1996), the bias over the standard deviation between subjects (Glass's Δ), the variance "
        "between subjects that is kept, and how many subjects' own target scan was the nearest of "
        "all (after Finn 2015; by the mean rank over regions and quantities), as it is and after "
        "the mean over subjects was taken from both.",
        f"Trivial predictors were the input smoothed by {SMOOTHING:g} mm (full width at half "
        "maximum) and the mean of the other subjects' scans on the target.",
    ]
    if tests:
        exact = all(test.exact for test in tests)
        sentences.append(
            "Whether a bias is 0 was tested by flipping the signs of whole subjects' differences "
            f"({'all flips' if exact else 'drawn flips where subjects are many'}; smallest "
            f"attainable p {min(test.smallest for test in tests):.2g}), corrected over the regions "
            "and quantities of a row by the largest |t| (Westfall 1993, Nichols 2002)."
        )
    elif study.overlapping:
        sentences.append(f"The site effect was not tested where {OVERLAP}.")
    else:
        sentences.append(
            f"The site effect was not tested, as there were fewer than {FEWEST} subjects."
        )
    if over:
        sentences.append(
            "Datasets were analysed one by one and put together: "
            + (
                f"{RESAMPLES} draws of datasets, then of heads."
                if max(each.datasets for each in over) >= FOR_BOOTSTRAP
                else "their means, with Student's interval from three on."
            )
        )
    versions = versions_of("numpy", "scipy")
    sentences.append(
        "Computed with " + listed([f"{name} {version}" for name, version in versions.items()]) + "."
    )
    return " ".join(sentences)


REFERENCES = (
    "Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of "
    "clinical measurement. Lancet, 1986; 327:307-310.",
    "Finn ES, and others. Functional connectome fingerprinting: identifying individuals using "
    "patterns of brain connectivity. Nature Neuroscience, 2015; 18:1664-1671.",
    "McGraw KO, Wong SP. Forming inferences about some intraclass correlation coefficients. "
    "Psychological Methods, 1996; 1:30-46.",
)

OF_TESTS = (
    "Nichols TE, Holmes AP. Nonparametric permutation tests for functional neuroimaging: a primer "
    "with examples. Human Brain Mapping, 2002; 15:1-25.",
    "Westfall PH, Young SS. Resampling-Based Multiple Testing. Wiley, 1993.",
)
