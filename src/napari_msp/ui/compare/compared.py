"""What is compared: scans of one head, lined up, with what stands in their cells. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import resample
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.comparison import (
    Comparison,
    check_one_head,
    check_same_b_value,
    line_up,
)
from napari_msp.evaluation.figures.grid import Cells, cells
from napari_msp.evaluation.metrics import Metrics, measure_mapped
from napari_msp.scan import Scan
from napari_msp.signal.maps import Maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.compare.choices import OnDisk
from napari_msp.ui.layers import is_prediction

MOST_PREDICTIONS = 4
"""More columns than these and the truth's are too narrow to be read (our choice)."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be compared.

    Attributes
    ----------
    truth
        A scan, one that is still to be read, or None.
    predictions
        One to four, in the order of their columns.
    scan
        The input; None where there is none to show.
    """

    truth: Scan | OnDisk | None
    predictions: Sequence[Scan]
    scan: Scan | None


@dataclass(frozen=True, eq=False)
class Compared:
    """Scans lined up.

    Attributes
    ----------
    truth, scan
        None where there is none.
    predictions
        By the short name of their cells.
    comparison
        Their images on one lattice.
    disagreement
        By prediction, (X, Y, Z) on the comparison's lattice, where a model has it.
    variants
        By prediction, in words, what of it is shown instead of itself, such as "first stage".
    """

    truth: Scan | None
    predictions: Mapping[str, Scan]
    scan: Scan | None
    comparison: Comparison
    disagreement: Mapping[str, FloatArray]
    variants: Mapping[str, str] = field(default_factory=dict)

    @property
    def scan_maps(self) -> Maps | None:
        """Of the input, on its own lattice."""
        return None if self.scan is None else self.scan.maps()

    @property
    def interpolated(self) -> list[str]:
        """Which predictions do not lie on the comparison's lattice, and what was done, in words."""
        lattice, placements = self.comparison.lattice, self.comparison.placements
        return [
            f"{name} was {placements[name]}"
            for name, scan in self.predictions.items()
            if not scan.lattice.canonical.matches(lattice.canonical)
        ]

    def title(self, name: str) -> str:
        """Give a prediction's name with what is shown of it, such as "MSP first stage"."""
        return f"{name} {self.variants.get(name, '')}".strip()

    def titled(self) -> Comparison:
        """Give the comparison with titles for names."""
        predictions = self.comparison.predictions.items()
        return replace(
            self.comparison, predictions={self.title(name): each for name, each in predictions}
        )

    def cells(self, name: str) -> Cells:
        """Give both rows of a map, by its name in `MAPS`."""
        return cells(self.comparison, name, self.scan_maps, self.disagreement)

    def measured(self, name: str) -> Metrics | None:
        """Measure a prediction; None where there is no truth."""
        truth = self.comparison.truth
        if truth is None:
            return None
        return measure_mapped(self.comparison.predictions[name], truth, self.comparison.mask)

    def with_prediction(self, name: str, image: SHImage, variant: str) -> Compared:
        """Put another image, on the comparison's lattice, in a prediction's place."""
        predictions = {**self.comparison.predictions, name: Maps(image)}
        return replace(
            self,
            comparison=replace(self.comparison, predictions=predictions),
            variants={**self.variants, name: variant},
        )


def line_scans_up(question: Question, say: Callable[[str], None]) -> Compared:
    """Read what is still on disk, check that all belong together, and line them up.

    Parameters
    ----------
    question
        What is to be compared.
    say
        Called with what is being done.

    Raises
    ------
    UserError
        When the images are of several heads or b-values, or cannot be lined up.
    """
    if not question.predictions:
        raise UserError("none is chosen", field="predictions", remedy=Advice("tick at least one"))
    truth, scan = question.truth, question.scan
    if isinstance(truth, OnDisk):
        say(f"Reading {truth.owner}")
        truth = truth.read(question.predictions[0].b_value)
    say("Lining images up")
    reference = truth or question.predictions[0]
    for each in question.predictions:
        check_one_head(reference, each)
        check_same_b_value(reference, each)
    if scan is not None:
        check_one_head(reference, scan)
    predictions = short_names(question.predictions)
    comparison = line_up(truth, predictions)
    return Compared(truth, predictions, scan, comparison, _disagreement(predictions, comparison))


def short_names(scans: Sequence[Scan]) -> dict[str, Scan]:
    """Name scans for their cells: as short as tells them apart, "MSP" before "MSP prisma_st"."""
    labels = [scan.label or scan.name or scan.subject for scan in scans]
    names = [scan.name or scan.subject for scan in scans]
    for each in (labels, names):
        if len(set(each)) == len(scans):
            return dict(zip(each, scans, strict=True))
    numbered = zip(names, scans, range(1, len(scans) + 1), strict=True)
    return {f"{name} ({number})": scan for name, scan, number in numbered}


def _disagreement(predictions: Mapping[str, Scan], comparison: Comparison) -> dict[str, FloatArray]:
    """Give the disagreement of predictions that were made here, on the comparison's lattice."""
    return {
        name: resample(scan.disagreement, scan.lattice, comparison.lattice)
        for name, scan in predictions.items()
        if is_prediction(scan) and scan.disagreement is not None
    }
