"""Inputs and contents of a page of proof; `make_pages` lists the pages there are.

A page answers one question that a reviewer asks. It is written once all heads are measured: tables
and figures for the report, tidy tables with a data dictionary, and its part of the methods section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_msp.evaluation.baselines.base import Interpolation
from napari_msp.evaluation.benchmark.results import EffectResult, RegionValue, Results
from napari_msp.evaluation.report.tables import Table
from napari_msp.formatting import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEFORE = Interpolation.name
"""Row of the unharmonized input, with the site effect to remove."""

TARGET = "target's scan"
"""Row of the target's own scan, which all others are compared with."""

REPEAT = "repeated scan (floor)"
"""Row of a second scan on the target: no harmonization can be expected to come closer."""

NOISE_FREE = "noise-free twin"
"""Row of the target's scan without noise: no floor for regional means, which noise shifts."""

SMOOTHED = "smoothed input (trivial)"
"""Row of the blurred input, to show how little a low error of a smooth image means."""

MEAN_OF_OTHERS = "mean of the others (trivial)"
"""Row of the mean of the other subjects' scans on the target: no site effect, no individual."""

COMBAT_OF_REGIONS = "ComBat of regional means"
"""Row of what most studies do: no image, but a table of regional means without the scanner."""

RESERVED = (BEFORE, TARGET, REPEAT, NOISE_FREE, SMOOTHED, MEAN_OF_OTHERS, COMBAT_OF_REGIONS)
"""Reserved row names, which no prediction may have."""


@dataclass(frozen=True, eq=False)
class ProofData:
    """All measurements that pages are made from.

    Attributes
    ----------
    values
        Values by row (`method`), target, shell, dataset, subject, region and quantity.
    regions
        Source of the regions, in words that continue "Regions were".
    overlapping
        Rows whose predictions come from overlapping folds, so that nothing is tested.
    notes
        Rows that could not be derived, in words; the report's limits cover single heads.
    selected
        Whether regions were found in the target's own noisy scans.
    effects
        Effects of biology that were put into heads, if asked for.
    """

    values: Results[RegionValue]
    input: str
    regions: str
    overlapping: frozenset[str] = frozenset()
    notes: Sequence[str] = ()
    selected: bool = False
    effects: Results[EffectResult] = field(default_factory=lambda: Results(()))

    @property
    def measured(self) -> Results[RegionValue]:
        """Values of the measured people, without those whom models learned from."""
        return self.values.select(reference="scan")


@dataclass(frozen=True)
class Column:
    """A column of a tidy table; `levels` explains the words in it."""

    name: str
    description: str
    unit: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TidyTable:
    """A table of one fact per row, for any statistics program; None where there is no value."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]

    def csv(self) -> str:
        """Return the table as CSV with full precision."""
        return csv_text((column.name for column in self.columns), self.rows)

    def dictionary(self) -> dict[str, Any]:
        """Return its data dictionary, in BIDS's form for tables."""
        return {
            column.name: {
                "Description": column.description,
                **({"Units": column.unit} if column.unit else {}),
                **({"Levels": dict(column.levels)} if column.levels else {}),
            }
            for column in self.columns
        }


@dataclass(frozen=True, eq=False)
class PageFigure:
    """A figure of a page."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True, eq=False)
class ProofPage:
    """A page of the report.

    Attributes
    ----------
    lead
        Sentences at the top that say what was found.
    files
        Tidy tables by file name without its ending; each becomes a .csv and a .json.
    methods
        Sentences for the methods section, with their citations.
    references
        Works cited, as in a list of references.
    """

    title: str
    lead: Sequence[str] = ()
    tables: Sequence[Table] = ()
    drawings: Sequence[PageFigure] = ()
    more: Sequence[Table] = ()
    limits: Sequence[str] = ()
    files: Mapping[str, TidyTable] = field(default_factory=dict)
    methods: str = ""
    references: Sequence[str] = ()
