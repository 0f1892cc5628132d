"""What is filled in to choose a scan, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_msp.data.dataset import TravellingHeads


@dataclass(frozen=True)
class Choice:
    """What was filled in; None and "" leave it to what is found.

    Attributes
    ----------
    path
        A scan, or the folder of a BIDS dataset.
    subject, platform
        Of a dataset.
    b_value
        Shell in s/mm².
    mask, bval, bvec
        Files.
    """

    path: Path | None = None
    subject: str = ""
    platform: str = ""
    b_value: float | None = None
    mask: Path | None = None
    bval: Path | None = None
    bvec: Path | None = None


@dataclass(frozen=True)
class ShellFacts:
    """A shell: its b-value in s/mm², its directions, and the SH order that they determine."""

    b_value: float
    directions: int
    order: int

    def __str__(self) -> str:
        return f"b = {self.b_value:.0f} s/mm², {self.directions} directions"


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes
    ----------
    choice
        With subject, platform and shell filled in where they were left open.
    dataset
        Of a folder.
    scan
        The image; None where there is none that can be opened.
    shells
        Of the scan, lowest b-value first.
    mask
        The mask that will be used; None: `median_otsu` makes one.
    facts
        Of the scan, in words by what they are of.
    problems, doubts
        In words, by field of `Choice`; a problem keeps the scan from being loaded.
    """

    choice: Choice = Choice()
    dataset: TravellingHeads | None = None
    scan: Path | None = None
    shells: tuple[ShellFacts, ...] = ()
    mask: Path | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether the scan can be loaded."""
        return self.scan is not None and not self.problems
