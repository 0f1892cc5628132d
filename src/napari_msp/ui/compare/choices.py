"""What a comparison can be made of: the scans behind the layers, and their siblings on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from napari_msp.scan import Scan
from napari_msp.ui.compare.compared import Sibling
from napari_msp.ui.layers import source_of

Thing = TypeVar("Thing", Scan, Scan | Sibling)


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

    truths: Mapping[str, Scan | Sibling]
    predictions: Mapping[str, Scan]
    scans: Mapping[str, Scan]

    @classmethod
    def of(cls, scans: Sequence[Scan]) -> Choices:
        """Sort scans into what they can be."""
        made = [scan for scan in scans if _by_a_model(scan)]
        measured = [scan for scan in scans if not _by_a_model(scan)]
        truths: list[Scan | Sibling] = [*measured, *_on_disk(scans)]
        return cls(_texts(truths), _texts([*made, *measured]), _texts(measured))

    def truth_for(self, predictions: Sequence[Scan]) -> str:
        """Give the text of the scan that predictions aim at; "" where there is none."""
        wanted = {(scan.subject, target_of(scan)) for scan in predictions}
        if len(wanted) != 1:
            return ""
        return next((text for text, truth in self.truths.items() if _identity(truth) in wanted), "")

    def input_of(self, predictions: Sequence[Scan]) -> Scan | None:
        """Give the scan that predictions were made from, so far as it is loaded or kept."""
        for each in predictions:
            source = source_of(each)
            if source is not each:
                return source
        wanted = [(each.subject, each.provenance.input) for each in predictions if each.provenance]
        found = (each for each in self.scans.values() if (each.subject, each.platform) in wanted)
        return next(found, None)


def target_of(scan: Scan) -> str:
    """Give the platform that a prediction aims at; "" for a measured scan."""
    return "" if scan.provenance is None else scan.provenance.target


def _by_a_model(scan: Scan) -> bool:
    return scan.provenance is not None


def _identity(truth: Scan | Sibling) -> tuple[str, str]:
    return truth.subject, truth.platform if isinstance(truth, Sibling) else truth.name


def _on_disk(scans: Iterable[Scan]) -> list[Sibling]:
    loaded = {_identity(scan) for scan in scans}
    found = {
        (scan.subject, platform): Sibling(scan, platform)
        for scan in scans
        for platform in scan.siblings
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
