"""Images that can be compared: loaded scans and predictions, and scans beside them on disk.

No Qt here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_msp.bids import entities
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import same_shell, shell_name
from napari_msp.identity import Person, may_be_same
from napari_msp.scan import Scan
from napari_msp.ui.layers import source_of, titled
from napari_msp.ui.reading import sibling_of

MOST_PREDICTIONS = 4
"""Largest number of predictions: with more, columns are too narrow to be read (our choice)."""


@dataclass(frozen=True, eq=False)
class OnDisk:
    """A scan of a head that is on disk and not loaded yet.

    Attributes
    ----------
    known
        A scan of the same head that is loaded.
    platform
        Platform of the scan on disk.
    """

    known: Scan
    platform: str

    @property
    def path(self) -> Path:
        """Path of the scan."""
        return self.known.siblings[self.platform]

    @property
    def owner(self) -> str:
        """Name such as "sub-01 prisma_st (on disk)", with the run of a repeated scan."""
        run = entities(self.path).get("run")
        return f"{self.known.subject} {self.platform} ({f'run {run}, ' if run else ''}on disk)"

    @property
    def person(self) -> Person:
        """The person who was scanned."""
        return self.known.person

    def read(self, b_value: float | None) -> Scan:
        """Return the scan, read unless it was read before; see `sibling_of`."""
        return sibling_of(self.known, self.platform, b_value)


@dataclass(frozen=True, eq=False)
class ImageChoices:
    """Images to choose from, by the text that a form shows.

    Attributes
    ----------
    truths
        Scans, then scans that are on disk only.
    predictions
        Predictions of models, then everything else.
    scans
        Possible inputs.
    shells
        b-values in s/mm² of the shells to choose from, by name, lowest first; the images offered
        are of one of them.
    """

    truths: Mapping[str, Scan | OnDisk]
    predictions: Mapping[str, Scan]
    scans: Mapping[str, Scan]
    shells: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, scans: Sequence[Scan], shell: int | None = None) -> ImageChoices:
        """Sort scans and predictions; of several shells, take only `shell`'s (None: the lowest)."""
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

    @property
    def made(self) -> list[str]:
        """Titles of predictions that a model made, the newest last."""
        return [text for text, each in self.predictions.items() if each.provenance is not None]

    def shell_of(self, scan: Scan) -> int | None:
        """Return the name of a scan's shell; None where there is one shell only."""
        return next((name for name, b_value in self.shells.items() if _is_at(scan, b_value)), None)

    def alike(self, predictions: Sequence[Scan]) -> list[str]:
        """Return the texts of predictions made as the given ones were, at whichever shell."""
        names = {_without_shell(each) for each in predictions}
        return [text for text, each in self.predictions.items() if _without_shell(each) in names]

    def truth_for(self, predictions: Sequence[Scan]) -> str:
        """Return the text of the scan that all predictions aim at; "" where there is none."""
        found = {self._truth_of(each) for each in predictions}
        return found.pop() if len(found) == 1 else ""

    def input_of(self, predictions: Sequence[Scan]) -> Scan | OnDisk | None:
        """Return the scan that predictions were made from: the first one that is known."""
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
        """Return the same person's scan on the target: the sibling, else one that may be theirs."""
        if prediction.provenance is None:
            return ""
        target = prediction.platform
        sibling = prediction.siblings.get(target)
        for text, truth in self.truths.items():
            if sibling is not None and truth.path == sibling:
                return text
        return next((t for t, each in self.truths.items() if _is_of(each, target, prediction)), "")


def at_shell_of(scan: Scan, b_value: float | None) -> Scan:
    """Return a DWI at another of its shells, if it has that one; else the scan unchanged."""
    own = scan.acquisition
    if own is None or b_value is None or _is_at(scan, b_value):
        return scan
    shell = own.gradients.nearest_shell(b_value)
    if shell is None or not same_shell(shell.b_value, b_value):
        return scan
    return scan.at_other_shell(shell)


def _each_once(scans: Sequence[Scan], b_value: float) -> list[Scan]:
    """Return scans at a shell; one loaded at that shell replaces the same one loaded at another."""
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
    """Return what a DWI was read from, the same for all its shells; any other scan itself."""
    own = scan.acquisition
    return scan if own is None else own.path or own


def _of_one_shell(scan: Scan) -> Iterable[Scan]:
    return scan.by_shell().values() if len(scan.shells) > 1 else (scan,)


def _is_at(scan: Scan, b_value: float) -> bool:
    return scan.b_value is None or same_shell(scan.b_value, b_value)


def _shells(scans: Sequence[Scan]) -> dict[int, float]:
    """Return the b-values of scans by shells' names, with similar ones once."""
    found: dict[int, float] = {}
    for b_value in sorted(scan.b_value for scan in scans if scan.b_value is not None):
        if not any(same_shell(b_value, known) for known in found.values()):
            found[shell_name(b_value)] = b_value
    return found


def _without_shell(scan: Scan) -> str:
    """Return a scan's name without the shell that predictions of several shells have in it."""
    known = scan.b_value
    return scan.owner if known is None else scan.owner.replace(f" b{shell_name(known)}", "")


def _is_of(scan: Scan | OnDisk, platform: str, prediction: Scan) -> bool:
    """Return whether a scan is of a platform and of the person that was predicted."""
    return scan.platform == platform and may_be_same(scan.person, prediction.person)


def _on_disk(scans: Iterable[Scan]) -> list[OnDisk]:
    """Return the siblings of scans, each once, that are not loaded."""
    loaded = {scan.path for scan in scans}
    found = {
        path: OnDisk(scan, platform)
        for scan in scans
        for platform, path in scan.siblings.items()
        if path not in loaded
    }
    return sorted(found.values(), key=lambda each: each.owner)
