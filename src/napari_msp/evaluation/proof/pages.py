"""What a page of proof is made from, and of; `chapters` says which pages there are.

A page answers one question that a reviewer asks. It is written when all heads were measured: tables
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
"""Row of the input scan: what is to be got rid of."""

TARGET = "target's scan"
"""Row of the target's own scan, which all others are compared with."""

REPEAT = "repeated scan (floor)"
"""Row of a second scan on the target: no harmonization can be expected to be nearer."""

NOISE_FREE = "noise-free twin"
"""Row of the target's scan without its noise: no floor of regions' means, which noise shifts."""

SMOOTHED = "smoothed input (trivial)"
"""Row of the input, blurred: what a low error of a smooth image is worth."""

MEAN_OF_OTHERS = "mean of the others (trivial)"
"""Row of the mean of the other subjects' scans on the target: no site effect, and no person."""

COMBAT_OF_REGIONS = "ComBat of regional means"
"""Row of what most studies do: no image, a table of each region's mean without the scanner."""

RESERVED = (BEFORE, TARGET, REPEAT, NOISE_FREE, SMOOTHED, MEAN_OF_OTHERS, COMBAT_OF_REGIONS)
"""Rows that nobody else's prediction may be called."""


@dataclass(frozen=True, eq=False)
class Study:
    """All that was measured, for a page to be made of.

    Attributes
    ----------
    values
        By row (`method`), target, shell, dataset, subject, region and quantity.
    regions
        Where the regions come from, in words that go on after "Regions were".
    overlapping
        Rows of which subjects were predicted by what the others taught: nothing is tested.
    notes
        Which rows could not be made of others, in words; of single heads the report's limits tell.
    selected
        Whether regions were found in the target's own noisy scans.
    effects
        Of biology that were put into heads, where that was asked for.
    """

    values: Results[RegionValue]
    source: str
    regions: str
    overlapping: frozenset[str] = frozenset()
    notes: Sequence[str] = ()
    selected: bool = False
    effects: Results[EffectResult] = field(default_factory=lambda: Results(()))

    @property
    def measured(self) -> Results[RegionValue]:
        """Values of those who were measured, not of those who were learned from."""
        return self.values.select(reference="scan")


@dataclass(frozen=True)
class Column:
    """A column of a tidy table; `levels` says what words in it mean."""

    name: str
    description: str
    unit: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TidyTable:
    """One fact a row, for any program of statistics; None where there is no value."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]

    def csv(self) -> str:
        """Write it with full precision."""
        return csv_text((column.name for column in self.columns), self.rows)

    def dictionary(self) -> dict[str, Any]:
        """Give its data dictionary, in the form that BIDS has for tables."""
        return {
            column.name: {
                "Description": column.description,
                **({"Units": column.unit} if column.unit else {}),
                **({"Levels": dict(column.levels)} if column.levels else {}),
            }
            for column in self.columns
        }


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of a page."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True, eq=False)
class Page:
    """A page of the report.

    Attributes
    ----------
    lead
        Sentences on top: what was found.
    files
        Tidy tables by file name without ending; a .csv and a .json each.
    methods
        Sentences for the methods section, each with what it cites.
    references
        Works cited, as a list of references has them.
    """

    title: str
    lead: Sequence[str] = ()
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()
    more: Sequence[Table] = ()
    limits: Sequence[str] = ()
    files: Mapping[str, TidyTable] = field(default_factory=dict)
    methods: str = ""
    references: Sequence[str] = ()
