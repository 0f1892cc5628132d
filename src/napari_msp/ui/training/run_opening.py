"""Read a run's folder: what it does and what has happened in it. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import UserError
from napari_msp.learning.events import Event
from napari_msp.learning.run_folder import RunFolder
from napari_msp.ui.background import Control


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run as its folder has it.

    Attributes
    ----------
    folder
        The run.
    events
        What has happened.
    heads
        Its dataset; None where that cannot be opened.
    problem
        Why not.
    """

    folder: RunFolder
    events: tuple[Event, ...] = ()
    heads: TravellingHeads | None = None
    problem: str = ""


def open_run(path: Path, control: Control) -> OpenedRun:
    """Open the folder of a run.

    Raises
    ------
    UserError
        When it is none.
    """
    folder = RunFolder.open(path)
    events = tuple(folder.events())
    control.check()
    try:
        return OpenedRun(folder, events, open_dataset(folder.dataset))
    except UserError as error:  # the run can be looked at nevertheless
        return OpenedRun(folder, events, None, str(error))
