"""Make the pages of proof, and the rows that follow from other rows' values.

Add a page to `PAGES`; add a row derived from other rows' values to `DERIVED`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from napari_msp.errors import UserError
from napari_msp.evaluation.baselines.combat import ComBat, learn_scanner_effect
from napari_msp.evaluation.benchmark.results import FLOOR, RegionValue, Results
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    COMBAT_OF_REGIONS,
    MEAN_OF_OTHERS,
    NOISE_FREE,
    TARGET,
    ProofData,
    ProofPage,
)
from napari_msp.evaluation.proof.site_effect import site_effect_page
from napari_msp.evaluation.proof.two_groups import group_page
from napari_msp.evaluation.proof.values import MEANS, QUANTITIES
from napari_msp.formatting import listed

PAGES: Mapping[str, Callable[[ProofData], ProofPage | None]] = {
    "Site effect": site_effect_page,
    "Two groups": group_page,
}
"""Functions that make the pages, by title; they return None if too little was measured."""


def make_pages(study: ProofData, go_on: Callable[[], None] = lambda: None) -> list[ProofPage]:
    """Make every page; one that cannot be made says why in its place.

    Parameters
    ----------
    go_on
        Function called before each page; whatever it raises ends the work.
    """
    pages = []
    whole = with_derived(study)
    for title, make in PAGES.items():
        go_on()
        try:
            page = make(whole)
        except UserError as error:
            page = ProofPage(title, lead=(f"Not made: {error.phrase()}.",))
        pages += [page] if page is not None else []
    return pages


# --- Derived rows -----------------------------------------------------------------------------


def mean_of_others(values: Results[RegionValue]) -> Iterator[RegionValue]:
    """Predict each person as the average of the other people's scans on the target.

    The average is over the people whom models learned from, if any, else over all measured people
    but the one predicted.
    """
    scans = values.select(method=TARGET)
    places = ("target", "shell", "dataset", "seed", "region", "quantity")
    taught = scans.select(reference="training").groups(*places)
    for place, part in scans.select(reference="scan").groups(*places).items():
        if part.rows[0].quantity not in MEANS:
            continue
        teachers = taught.get(place)
        for row in part:
            others = [o.value for o in teachers or part if o.subject != row.subject]
            if others:
                yield replace(row, method=MEAN_OF_OTHERS, value=float(np.mean(others)))


def combat_of_regions(values: Results[RegionValue]) -> Iterator[RegionValue | str]:
    """Harmonize the input's regional means as most studies do: ComBat, each quantity over regions.

    It learns from the pairs of the training people, in the regions that all of them have, and only
    if ComBat is a row. Strings in between say what could not be computed of a dataset and quantity.
    """
    if not len(values.select(method=ComBat.name)):
        return
    problems: dict[tuple[str, str], list[str]] = {}
    for place, part in values.groups("target", "shell", "dataset", "seed", "quantity").items():
        if place[-1] not in MEANS:
            continue

        def tell(problem: str, of: RegionValue = part.rows[0]) -> None:
            where = f"{COMBAT_OF_REGIONS}, {of.dataset} on {of.column}"
            problems.setdefault((where, problem), []).append(QUANTITIES[of.quantity].label)

        taught = part.select(reference="training")
        pairs = [_by_subject(taught.select(method=row)) for row in (BEFORE, TARGET)]
        people = sorted(pairs[0].keys() & pairs[1].keys())
        known = [each[who].keys() for each in pairs for who in people]
        regions = [name for name in part.names("region") if all(name in each for each in known)]
        if not people or len(regions) < 2:
            few = "fewer than two regions have values in every training subject"
            tell(few if people else "no training subject has both scans measured")
            continue
        gone = [name for name in part.names("region") if name not in regions]
        if gone:
            tell(f"{listed(gone)} left out, as a training subject has no value there")
        source, target = (
            np.array([[each[who][name] for name in regions] for who in people]) for each in pairs
        )
        try:
            effect = learn_scanner_effect(source, target, paired=True)
        except UserError as error:
            tell(error.phrase())
            continue
        for row in part.select(reference="scan", method=BEFORE):
            if row.region in regions:
                index = regions.index(row.region)
                value = effect.gain[index] * row.value + effect.offset[index]
                yield replace(row, method=COMBAT_OF_REGIONS, value=float(value))
    for (where, problem), quantities in problems.items():
        yield f"{where}, {listed(quantities)}: {problem}"


def _by_subject(part: Results[RegionValue]) -> dict[str, dict[str, float]]:
    """Return each person's values by region."""
    found: dict[str, dict[str, float]] = {}
    for row in part:
        found.setdefault(row.subject, {})[row.region] = row.value
    return found


DERIVED = (combat_of_regions, mean_of_others)
"""Functions that derive rows from measured ones; they yield a string for what they could not."""


def with_derived(study: ProofData) -> ProofData:
    """Add the rows derived from others' values; one that cannot be made says why.

    Table 1's floor is no floor for regional means, so it gets another name.
    """
    values = study.values.renamed({FLOOR: NOISE_FREE})
    made = [each for derive in DERIVED for each in derive(values)]
    derived = [each for each in made if not isinstance(each, str)]
    notes = [each for each in made if isinstance(each, str)]
    return replace(study, values=Results([*values, *derived]), notes=(*study.notes, *notes))
