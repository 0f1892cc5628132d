"""The pages of proof there are, and how heads are measured for them.

A page is added by a `Chapter` in `CHAPTERS`; a row that is made of tables alone, by a function in
`DERIVED`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.results import Results
from napari_msp.evaluation.comparison import line_up
from napari_msp.evaluation.measures.pair import Truth
from napari_msp.evaluation.proof.pages import Chapter, Derive, Head, Measured, Page, Study
from napari_msp.evaluation.proof.site_effect import site_effect_page
from napari_msp.evaluation.proof.values import mean_of_others, region_values
from napari_msp.evaluation.regions import Regions
from napari_msp.signal.maps import Maps

CHAPTERS: tuple[Chapter, ...] = (Chapter("Site effect", site_effect_page, region_values),)
"""Every page, in the report's order."""

DERIVED: tuple[Derive, ...] = (mean_of_others,)
"""Rows that are made of other rows' values."""


def measure_head(
    truth: Truth,
    images: Mapping[str, Maps],
    regions: Regions,
    clear: Truth | None = None,
) -> tuple[list[Measured], list[str]]:
    """Measure one head for every chapter.

    Parameters
    ----------
    truth
        The target's scan.
    images
        By row, on any lattice.
    regions
        In the scan's space.
    clear
        The scan's twin without noise, where there is one.

    Returns
    -------
    The values, and in words what went wrong.

    Raises
    ------
    UserError
        When the images do not belong together, or no region lies in them.
    """
    both = line_up(truth.mapped, images)
    here = regions.on(truth.image.lattice)
    head = Head(truth, both.predictions, both.mask, here, clear)
    found: list[Measured] = []
    notes = list(here.notes)
    for chapter in CHAPTERS:
        if chapter.measure is None:
            continue
        try:
            found += chapter.measure(head)
        except UserError as error:
            notes.append(f"{chapter.title}: {error.phrase()}")
    return found, notes


def make_pages(study: Study) -> list[Page]:
    """Make every page; one that cannot be made says why in its place."""
    derived = [row for derive in DERIVED for row in derive(study.values)]
    whole = replace(study, values=Results([*study.values, *derived]))
    return list(_pages(whole))


def _pages(study: Study) -> Iterator[Page]:
    for chapter in CHAPTERS:
        try:
            yield chapter.page(study)
        except UserError as error:
            yield Page(chapter.title, lead=(f"Not made: {error.phrase()}.",))


def contents_of(pages: Sequence[Page]) -> dict[str, str | dict[str, object]]:
    """Give the tidy tables of pages and their data dictionaries, by file name."""
    return {
        f"{name}.{ending}": table.csv() if ending == "csv" else table.dictionary()
        for page in pages
        for name, table in page.files.items()
        for ending in ("csv", "json")
    }
