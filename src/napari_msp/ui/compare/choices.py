"""What can be compared: scans and predictions that are loaded, and scans beside them on disk.

No Qt here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import same_shell, shell_name
from napari_msp.identity import Person, may_be_same
from napari_msp.scan import Scan
from napari_msp.ui.layers import source_of, titled
from napari_msp.ui.reading import sibling_of

MOST_PREDICTIONS = 4
"""More columns than these and the truth's are too narrow to be read (our choice)."""


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
    shells
        b-values in s/mm² by the names of shells that there are to choose from, lowest first; what
        is offered is of one of them.
    """

    truths: Mapping[str, Scan | OnDisk]
    predictions: Mapping[str, Scan]
    scans: Mapping[str, Scan]
    shells: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, scans: Sequence[Scan], shell: int | None = None) -> Choices:
        """Sort scans and predictions; of several shells those of one, None: the lowest."""
        parts = [part for scan in scans for part in _of_one_shell(scan)]
        made = [scan for scan in parts if scan.provenance is not None]
        inputs = measured = [scan for scan in parts if scan.provenance is None]
        shells = _shells(made or measured)
        if len(shells) > 1:
            b_value = shells.get(shell or 0, next(iter(shells.values())))
            made = [scan for scan in made if _is_at(scan, b_value)]
            measured = _each_once(measured, b_value)
            inputs, measured = measured, [scan for scan in measured if _is_at(scan, b_value)]
        possible: list[Scan | OnDisk] = [*measured, *_on_disk(scans)]
        return cls(titled(possible), titled([*made, *measured]), titled(inputs), shells)

    def shell_of(self, scan: Scan) -> int | None:
        """Return the name of a scan's shell; None where there is one shell only."""
        return next((name for name, b_value in self.shells.items() if _is_at(scan, b_value)), None)

    def alike(self, predictions: Sequence[Scan]) -> list[str]:
        """Return the texts of what was made as some predictions were, of whichever shell."""
        names = {_without_shell(each) for each in predictions}
        return [text for text, each in self.predictions.items() if _without_shell(each) in names]

    def truth_for(self, predictions: Sequence[Scan]) -> str:
        """Return the text of the scan that all predictions aim at; "" where there is none."""
        found = {self._truth_of(each) for each in predictions}
        return found.pop() if len(found) == 1 else ""

    def input_of(self, predictions: Sequence[Scan]) -> Scan | OnDisk | None:
        """Return the scan that predictions were made from: the first that is known."""
        for each in predictions:
            if source_of(each) is not each:
                return source_of(each)
            known = each.provenance
            for scan in self.scans.values():
                if known is not None and _is_of(scan, known.input, each):
                    return scan
            if known is not None and known.input in each.siblings:
                return OnDisk(each, known.input)
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


def at_shell_of(scan: Scan, b_value: float | None) -> Scan:
    """Return a DWI at another of its shells, where it has that; any other stays as it is."""
    own = scan.acquisition
    if own is None or b_value is None or _is_at(scan, b_value):
        return scan
    shell = own.gradients.nearest_shell(b_value)
    if shell is None or not same_shell(shell.b_value, b_value):
        return scan
    return scan.at_other_shell(shell)


def _each_once(scans: Sequence[Scan], b_value: float) -> list[Scan]:
    """Return scans at a shell; one loaded there takes the place of the same loaded at another."""
    loaded = {_origin(scan) for scan in scans if _is_at(scan, b_value)}
    chosen: dict[Any, Scan] = {}
    for scan in scans:
        own = at_shell_of(scan, b_value)
        if own is scan:
            chosen[scan] = scan
        elif _origin(scan) not in loaded:
            chosen.setdefault(_origin(scan), own)
    return list(chosen.values())


def _origin(scan: Scan) -> Path | Acquisition | Scan:
    """Return what a DWI was read from, the same for all its shells; any other is of its own."""
    own = scan.acquisition
    return scan if own is None else own.path or own


def _of_one_shell(scan: Scan) -> Iterable[Scan]:
    return scan.by_shell().values() if len(scan.shells) > 1 else (scan,)


def _is_at(scan: Scan, b_value: float) -> bool:
    return scan.b_value is None or same_shell(scan.b_value, b_value)


def _shells(scans: Sequence[Scan]) -> dict[int, float]:
    """Return the b-values that there are, those that count as one once, by shells' names."""
    found: dict[int, float] = {}
    for b_value in sorted(scan.b_value for scan in scans if scan.b_value is not None):
        if not any(same_shell(b_value, known) for known in found.values()):
            found[shell_name(b_value)] = b_value
    return found


def _without_shell(scan: Scan) -> str:
    """Name a scan as if it had one shell: predictions of several have theirs in the name."""
    known = scan.b_value
    return scan.owner if known is None else scan.owner.replace(f" b{shell_name(known)}", "")


def _is_of(scan: Scan | OnDisk, platform: str, prediction: Scan) -> bool:
    """Return whether a scan is of a platform and of the person that was predicted."""
    return scan.platform == platform and may_be_same(scan.person, prediction.person)


def _on_disk(scans: Iterable[Scan]) -> list[OnDisk]:
    """Return the siblings of scans, each once, that are not among them."""
    loaded = {scan.path for scan in scans}
    found = {
        path: OnDisk(scan, platform)
        for scan in scans
        for platform, path in scan.siblings.items()
        if path not in loaded
    }
    return sorted(found.values(), key=lambda each: each.owner)
