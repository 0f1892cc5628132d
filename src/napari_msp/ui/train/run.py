"""One training run: the child process that executes it, its view, its layers and its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import UserError
from napari_msp.learning.events import Event, Previewed, Started
from napari_msp.learning.runs import RunFolder
from napari_msp.ui.background import Control
from napari_msp.ui.harmonize.models import remember_model
from napari_msp.ui.phrasing import said
from napari_msp.ui.train.preview_layers import PreviewLayers
from napari_msp.ui.train.process import Ending, TrainingProcess
from napari_msp.ui.train.run_view import RunView

if TYPE_CHECKING:
    from napari.viewer import Viewer


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
    problem: UserError | None = None


def open_run(path: Path, control: Control) -> OpenedRun:
    """Read the folder of a run.

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
        return OpenedRun(folder, events, None, error)


class RunControl(QObject):
    """Executes runs one after the other.

    Parameters
    ----------
    viewer
        Who gets the predictions while the network learns.
    view
        Shows the run.

    Signals
    -------
    changed
        Another run, or it has begun or ended.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer, view: RunView, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer, self._view = viewer, view
        self._heads: TravellingHeads | None = None
        self._layers: PreviewLayers | None = None
        self._last: Event | None = None
        self.folder: RunFolder | None = None
        self.process = TrainingProcess(self)
        self.process.reported.connect(self._take)
        self.process.ended.connect(self._end)
        view.stop_wanted.connect(self.process.stop)

    @property
    def running(self) -> bool:
        """Whether a run goes on."""
        return self.process.running

    def show(self, run: OpenedRun) -> None:
        """Show a run that nobody executes."""
        self.folder, self._heads = run.folder, run.heads
        self._last = run.events[-1] if run.events else None
        self._view.open(run.folder, run.events)
        self._view.show_standing(run.folder, self._last)
        self.changed.emit()

    def start(self, folder: RunFolder, heads: TravellingHeads) -> None:
        """Execute a new run."""
        self.folder, self._heads = folder, heads
        self._view.open(folder)
        self._execute(folder)

    def resume(self) -> None:
        """Go on with the run that is shown, from its checkpoint if it has one."""
        assert self.folder is not None
        if not self.folder.resumable:
            self._view.open(self.folder)
        self._execute(self.folder)

    def leave(self) -> None:
        """Let go of the viewer; a run that goes on stops with a checkpoint."""
        self.process.stop()
        self._drop_layers()

    def remember(self) -> None:
        """Let Harmonize offer the model."""
        assert self.folder is not None
        try:
            remember_model(self.folder.model_path)
        except UserError as error:
            self._view.warn(f"The model is ready, but cannot be listed: {said(error)}")

    def _execute(self, folder: RunFolder) -> None:
        self._last = None
        self._view.begin("Starting")
        self.process.start(folder.path, resume=True)
        self.changed.emit()

    def _take(self, event: Event) -> None:
        self._last = event
        self._view.add(event)
        if isinstance(event, Started):
            self._show_layers(event)
        elif isinstance(event, Previewed) and self._layers is not None:
            self._layers.show(event)

    def _end(self, ending: Ending) -> None:
        assert self.folder is not None
        if ending.error is not None:
            self._view.show_failure(ending.error, self.folder.resumable, ending.details)
        else:
            self._view.show_standing(self.folder, self._last)
        if ending.outcome == "finished":
            self.remember()
        self.changed.emit()

    def _show_layers(self, started: Started) -> None:
        self._drop_layers()
        if not started.held_out:
            return
        subject, heads = started.held_out[0], self._heads
        scans = {} if heads is None else heads.scans
        truths = {platform: path for (who, platform), path in scans.items() if who == subject}
        self._layers = PreviewLayers(self._viewer, subject, truths, self)
        self._layers.failed.connect(self._warn_of_preview)

    def _warn_of_preview(self, error: UserError) -> None:
        self._view.warn(f"A picture cannot be shown: {said(error)}")

    def _drop_layers(self) -> None:
        if self._layers is not None:
            self._layers.stop()
            self._layers.deleteLater()
            self._layers = None
