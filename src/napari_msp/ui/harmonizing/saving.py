"""Save predictions as NIfTI: the form, the work, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_msp.ui.background import Job, Step
from napari_msp.ui.compare.choices import Choices
from napari_msp.ui.harmonizing.result_layers import ResultLayers
from napari_msp.ui.harmonizing.save_work import Saved, SaveRequest, save_all
from napari_msp.ui.panels.save_form import REPLACE, SaveForm
from napari_msp.ui.records import Record
from napari_msp.ui.widgets.progress import ProgressRow
from napari_msp.ui.words import in_words

if TYPE_CHECKING:
    from napari_msp.errors import UserError

FIELDS = {"--gradients": "Gradients", "--bval": "b-values beside it"}


class Saving(QWidget):
    """Hidden until it is opened.

    Parameters
    ----------
    layers
        Whose predictions are saved.
    """

    def __init__(self, layers: ResultLayers) -> None:
        super().__init__()
        self._layers = layers
        self._job: Job | None = None
        self.form = SaveForm()
        self.progress = ProgressRow()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form)
        layout.addWidget(self.progress)
        self.form.save_wanted.connect(lambda: self.save(force=False))
        self.form.replace_wanted.connect(lambda: self.save(force=True))
        self.form.closed.connect(self.hide)
        self.hide()

    def open(self) -> None:
        """Show the form."""
        self.list_results()
        self.show()
        self.form.folder.setFocus()

    def list_results(self) -> None:
        """List the predictions there are."""
        self.form.set_names(list(self._titled))

    def save(self, force: bool) -> None:
        """Write what the form says.

        Parameters
        ----------
        force
            Replace files that are there.
        """
        said = self.form.choices
        records = tuple(record for title, record in self._titled.items() if title in said.names)
        request = SaveRequest(records, Path(said.folder).expanduser(), said.gradients, force)
        self.form.message.clear()
        self.form.set_running(True)
        self.progress.start("Writing")
        self._job = job = Job(lambda control: save_all(request, control), self)
        self.progress.cancel_wanted.connect(job.cancel)
        job.progressed.connect(self._show_step)
        job.done.connect(lambda saved: self._tell(saved, request.folder))
        job.failed.connect(self._tell_failure)
        job.cancelled.connect(lambda: self.form.message.show_message("warning", "Cancelled."))
        job.ended.connect(self._rest)
        job.start()

    def stop(self) -> None:
        """Cancel what goes on."""
        if self._job is not None:
            self._job.cancel()

    @property
    def _titled(self) -> Mapping[str, Record]:
        return Choices.of([each.record for each in self._layers.results]).predictions

    def _show_step(self, step: Step) -> None:
        self.progress.report(step.done, step.total, step.words)

    def _tell(self, saved: Saved, folder: Path) -> None:
        message = self.form.message
        if saved.in_the_way:
            count = _count(len(saved.in_the_way))
            message.show_message("warning", f"{count} exist already in {folder}.", [REPLACE])
        else:
            message.show_message("ok", f"{_count(len(saved.written))} written to {folder}.")

    def _tell_failure(self, error: UserError) -> None:
        self.form.message.show_message("error", in_words(str(error), FIELDS))

    def _rest(self) -> None:
        self._job = None
        self.progress.end()
        self.form.set_running(False)


def _count(number: int) -> str:
    return f"{number} prediction{'' if number == 1 else 's'}"
