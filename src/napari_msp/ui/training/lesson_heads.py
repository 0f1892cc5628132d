"""A few small simulated heads for a lesson, made once and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_msp.data.dataset import open_dataset

if TYPE_CHECKING:
    from napari_msp.data.dataset import TravellingHeads
    from napari_msp.ui.background import Control

SUBJECTS = 3
SIZE = "tiny"


def lesson_heads(cache: Path, control: Control) -> TravellingHeads:
    """Give the heads in the cache folder; they are simulated where they are not there.

    Reports a `Step` for every scan.

    Raises
    ------
    Cancelled
        When it was cancelled.
    UserError
        When the cache folder cannot be written to.
    """
    from napari_msp.data.phantom import simulate
    from napari_msp.ui.background import Step

    folder = cache / f"lesson-heads-{SIZE}-{SUBJECTS}"

    def progress(scan: str, done: int, total: int) -> None:
        control.check()
        control.report(Step(f"Simulating heads for a lesson: {scan}", done, total))

    if not folder.exists():
        simulate(folder, SUBJECTS, SIZE, noise_free=False, progress=progress)
    return open_dataset(folder)
