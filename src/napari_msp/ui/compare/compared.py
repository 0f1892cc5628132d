"""What a comparison in the window is of, and what it holds: worked out in a thread, no Qt here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from napari_msp.arrays import FloatArray
from napari_msp.data.lattice import resample
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.comparison import Comparison, check_one_head, line_up, same_b_value
from napari_msp.evaluation.figures.grid import Cells, cells
from napari_msp.evaluation.metrics import Metrics, measure_mapped
from napari_msp.scan import Scan, load_scan
from napari_msp.signal.maps import MAPS, Map, Maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.records import Record

QUANTITIES: Mapping[str, Map] = {each.title: each for each in MAPS.values()}
"""Maps by the name that a person chooses from."""

MOST_PREDICTIONS = 4
"""More columns than these and the truth's are too narrow to be read (our choice)."""


@dataclass(frozen=True)
class Sibling:
    """A scan of a subject that is on disk and not loaded yet."""

    subject: str
    platform: str
    path: Path

    @property
    def owner(self) -> str:
        """Such as "sub-01 prisma_st"."""
        return f"{self.subject} {self.platform}"


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be compared.

    Attributes
    ----------
    truth
        A record, a scan still to be read, or None.
    predictions
        One to four, in the order of their columns.
    scan
        The input; None where there is none to show.
    """

    truth: Record | Sibling | None
    predictions: Sequence[Record]
    scan: Record | None


@dataclass(frozen=True, eq=False)
class Compared:
    """Records lined up.

    Attributes
    ----------
    truth, scan
        None where there is none.
    predictions
        By the short name of their cells.
    comparison
        Their images on one lattice.
    scan_maps
        Of the input, on its own lattice.
    disagreement
        By prediction, (X, Y, Z) on the comparison's lattice, where a model tells it.
    variants
        By prediction, in words, what of it is shown instead of itself, such as "first stage".
    """

    truth: Record | None
    predictions: Mapping[str, Record]
    scan: Record | None
    comparison: Comparison
    scan_maps: Maps | None
    disagreement: Mapping[str, FloatArray]
    variants: Mapping[str, str] = field(default_factory=dict)

    def title(self, name: str) -> str:
        """Give a prediction's name with what is shown of it, such as "MSP first stage"."""
        return f"{name} {self.variants.get(name, '')}".strip()

    def titled(self) -> Comparison:
        """Give the comparison with titles for names."""
        predictions = self.comparison.predictions.items()
        return replace(
            self.comparison, predictions={self.title(name): each for name, each in predictions}
        )

    def cells(self, quantity: str) -> Cells:
        """Give both rows; quick once the maps of the quantity are made."""
        return cells(self.comparison, QUANTITIES[quantity].name, self.scan_maps, self.disagreement)

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


def line_records_up(question: Question, say: Callable[[str], None]) -> Compared:
    """Read what is still on disk, check that all belong together, and line them up.

    Parameters
    ----------
    question
        What is to be compared.
    say
        Is told what is being done.

    Raises
    ------
    UserError
        When the images are of several heads or b-values, or cannot be lined up.
    """
    if not question.predictions:
        raise UserError("none is chosen", field="predictions", remedy=Advice("tick at least one"))
    truth = question.truth
    if isinstance(truth, Sibling):
        say(f"reading {truth.owner}")
        truth = _read(truth, question.predictions[0].image.b_value)
    _check(truth, question)
    say("lining images up")
    predictions = short_names(question.predictions)
    comparison = line_up(
        None if truth is None else truth.image,
        {name: record.image for name, record in predictions.items()},
    )
    return Compared(
        truth,
        predictions,
        question.scan,
        comparison,
        None if question.scan is None else Maps(question.scan.image),
        _disagreement(predictions, comparison),
    )


def short_names(records: Sequence[Record]) -> dict[str, Record]:
    """Name records for their cells: as short as tells them apart, "MSP" before "MSP prisma_st"."""
    labels = [record.label or record.name or record.subject for record in records]
    names = [record.name or record.subject for record in records]
    for each in (labels, names):
        if len(set(each)) == len(records):
            return dict(zip(each, records, strict=True))
    numbered = zip(names, records, range(1, len(records) + 1), strict=True)
    return {f"{name} ({number})": record for name, record, number in numbered}


def _disagreement(
    predictions: Mapping[str, Record], comparison: Comparison
) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    for name, record in predictions.items():
        values = None if record.prediction is None else record.prediction.disagreement
        if values is not None:
            found[name] = resample(values, record.image.lattice, comparison.lattice)
    return found


def _read(sibling: Sibling, b_value: float | None) -> Record:
    return Record(sibling.subject, sibling.platform, load_scan(sibling.path, b_value).sh)


def _check(truth: Record | None, question: Question) -> None:
    """Apply the checks of files to records; the first one is what others are held against."""
    reference = truth or question.predictions[0]
    others = [*question.predictions, *([] if question.scan is None else [question.scan])]
    for record in (reference, *others):
        if record.image.b_value is None:
            raise UserError(
                "its b-value is unknown, so it has no FA",
                record.owner,
                remedy=Advice("add BValue to the JSON file beside it"),
            )
        check_one_head(_scan(reference), _scan(record))
    for record in question.predictions:
        if not same_b_value(_scan(reference), _scan(record)):
            raise UserError(
                f"has b = {record.image.b_value:.0f} s/mm² but {reference.owner} has "
                f"{reference.image.b_value:.0f}",
                record.owner,
                remedy=Advice("compare images of one b-value"),
            )


def _scan(record: Record) -> Scan:
    """Give what the checks of files look at."""
    subject = record.subject if record.subject.startswith("sub-") else ""
    return Scan(given_sh=record.image, given_subject=subject, given_platform=record.name)
