"""What work in a thread tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_msp.ui.jobs import Control


@dataclass(frozen=True)
class Step:
    """Where the work is.

    Attributes
    ----------
    words
        Such as "Reading sub-01_dwi.nii.gz".
    done, total
        Pieces of work; no total where they cannot be counted.
    """

    words: str
    done: int = 0
    total: int = 0


def teller(control: Control) -> Callable[[str], None]:
    """Give a function that tells words, and ends the work there when it was cancelled."""

    def say(words: str) -> None:
        control.check()
        control.report(Step(words))

    return say
