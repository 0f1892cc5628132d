"""What can be compared: the scans behind the layers, and others of the same people on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_msp.identity import Person, may_be_same
from napari_msp.scan import Scan
from napari_msp.ui.layers import source_of, titled
from napari_msp.ui.reading import sibling_of


@dataclass(frozen=True, eq=False)
class OnDisk:
    """A scan of a head that is on disk and not loaded yet.

    Attributes
    ----------
    known
        A scan of the same head that is loaded.
    platform
        Of the one on disk.
    """

    known: Scan
    platform: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.known.siblings[self.platform]

    @property
    def owner(self) -> str:
        """Such as "sub-01 prisma_st (on disk)"."""
        return f"{self.known.subject} {self.platform} (on disk)"

    @property
    def person(self) -> Person:
        """Whose head it is."""
        return self.known.person

    def read(self, b_value: float | None) -> Scan:
        """Read it, unless somebody has read it already; see `sibling_of`."""
        return sibling_of(self.known, self.platform, b_value)


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

    truths: Mapping[str, Scan | OnDisk]
    predictions: Mapping[str, Scan]
    scans: Mapping[str, Scan]

    @classmethod
    def of(cls, scans: Sequence[Scan]) -> Choices:
        """Sort scans and predictions."""
        made = [scan for scan in scans if scan.provenance is not None]
        measured = [scan for scan in scans if scan.provenance is None]
        possible: list[Scan | OnDisk] = [*measured, *_on_disk(scans)]
        return cls(titled(possible), titled([*made, *measured]), titled(measured))

    def truth_for(self, predictions: Sequence[Scan]) -> str:
        """Give the text of the scan that all predictions aim at; "" where there is none."""
        found = {self._truth_of(each) for each in predictions}
        return found.pop() if len(found) == 1 else ""

    def input_of(self, predictions: Sequence[Scan]) -> Scan | None:
        """Give the scan that predictions were made from: the first that is known."""
        for each in predictions:
            if source_of(each) is not each:
                return source_of(each)
            known = each.provenance
            for scan in self.scans.values():
                if known is not None and _is_of(scan, known.input, each):
                    return scan
        return None

    def _truth_of(self, prediction: Scan) -> str:
        """Find the same person's scan: its sibling, else one that nothing tells from it."""
        if prediction.provenance is None:
            return ""
        target = prediction.platform
        sibling = prediction.siblings.get(target)
        for text, truth in self.truths.items():
            if sibling is not None and truth.path == sibling:
                return text
        return next((t for t, each in self.truths.items() if _is_of(each, target, prediction)), "")


def _is_of(scan: Scan | OnDisk, platform: str, prediction: Scan) -> bool:
    """Tell whether a scan is of a platform and of the person that was predicted."""
    return scan.platform == platform and may_be_same(scan.person, prediction.person)


def _on_disk(scans: Iterable[Scan]) -> list[OnDisk]:
    """Give the siblings of scans, each once, that are not among them."""
    loaded = {scan.path for scan in scans}
    found = {
        path: OnDisk(scan, platform)
        for scan in scans
        for platform, path in scan.siblings.items()
        if path not in loaded
    }
    return sorted(found.values(), key=lambda each: each.owner)
