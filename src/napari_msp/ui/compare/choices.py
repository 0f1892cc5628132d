"""What a comparison can be made of: the records behind the layers, and their siblings on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from napari_msp.ui.compare.compared import Sibling
from napari_msp.ui.records import Record

Thing = TypeVar("Thing", Record, Record | Sibling)


@dataclass(frozen=True, eq=False)
class Choices:
    """By the text that a form shows.

    Attributes
    ----------
    truths
        Scans, then scans that are on disk only.
    predictions
        What models made, then everything else.
    scans
        Possible inputs.
    """

    truths: Mapping[str, Record | Sibling]
    predictions: Mapping[str, Record]
    scans: Mapping[str, Record]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Choices:
        """Sort records."""
        made = [record for record in records if _by_a_model(record)]
        scans = [record for record in records if not _by_a_model(record)]
        return cls(_texts([*scans, *_on_disk(records)]), _texts([*made, *scans]), _texts(scans))

    def truth_for(self, predictions: Sequence[Record]) -> str:
        """Give the text of the scan that predictions aim at; "" where there is none."""
        wanted = {(record.subject, target_of(record)) for record in predictions}
        if len(wanted) != 1:
            return ""
        return next((text for text, truth in self.truths.items() if _identity(truth) in wanted), "")


def target_of(record: Record) -> str:
    """Give the platform that a prediction aims at, so far as its name tells."""
    if record.prediction is not None:
        return record.prediction.target
    return record.name.rpartition(" ")[2] if record.label else ""


def _by_a_model(record: Record) -> bool:
    return record.prediction is not None or bool(record.label)


def _identity(truth: Record | Sibling) -> tuple[str, str]:
    name = truth.platform if isinstance(truth, Sibling) else truth.name
    return truth.subject, name


def _on_disk(records: Iterable[Record]) -> list[Sibling]:
    loaded = {_identity(record) for record in records}
    found = {
        (record.subject, platform): Sibling(record.subject, platform, path)
        for record in records
        for platform, path in record.siblings.items()
    }
    return [sibling for identity, sibling in sorted(found.items()) if identity not in loaded]


def _texts(things: Iterable[Thing]) -> dict[str, Thing]:
    """Give each a text of its own."""
    texts: dict[str, Thing] = {}
    for thing in things:
        text = f"{thing.owner} (on disk)" if isinstance(thing, Sibling) else thing.owner
        number = 2
        while text in texts:
            text, number = f"{thing.owner} ({number})", number + 1
        texts[text] = thing
    return texts
