"""Open or simulate the dataset of a training form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.ui.background import Latest, Step
from napari_msp.ui.panels.training_form import TrainingForm
from napari_msp.ui.preferences import preferences
from napari_msp.ui.training.lesson_heads import lesson_heads
from napari_msp.ui.widgets.progress import ProgressRow

if TYPE_CHECKING:
    from napari_msp.errors import UserError


class DatasetChoice(QObject):
    """Reads folders in a thread: those on a server may take their time.

    Parameters
    ----------
    form
        Who names datasets, and shows what is in them.
    progress
        Tells how far a simulation is.
    """

    def __init__(self, form: TrainingForm, progress: ProgressRow, parent: QObject) -> None:
        super().__init__(parent)
        self._form, self._progress = form, progress
        self._work = Latest(self)
        self._work.progressed.connect(self._tell)
        self._work.done.connect(self._show)
        self._work.failed.connect(self._fail)
        self._work.rested.connect(self._rest)
        progress.cancel_wanted.connect(self.stop)
        form.dataset_named.connect(self.open)
        form.heads_wanted.connect(self.simulate)

    def open(self, folder: Path) -> None:
        """List a folder's scans."""
        self._work.ask(lambda control: open_dataset(folder))

    def simulate(self) -> None:
        """Make heads for a lesson, unless they are there."""
        cache = preferences().cache
        self._form.simulate.setEnabled(False)
        self._progress.start("Simulating heads for a lesson")
        self._work.ask(lambda control: lesson_heads(cache, control))

    def stop(self) -> None:
        """Do nothing more."""
        self._work.stop()

    def _tell(self, step: Step) -> None:
        self._progress.report(step.done, step.total, step.words)

    def _show(self, heads: TravellingHeads) -> None:
        self._form.show_dataset(heads)

    def _fail(self, error: UserError) -> None:
        # The entry that it is said under shows the folder already.
        named = self._form.dataset.path
        self._form.show_dataset_problem(str(error).removeprefix(f"{named}: "))

    def _rest(self) -> None:
        self._progress.end()
        self._form.simulate.setEnabled(True)
