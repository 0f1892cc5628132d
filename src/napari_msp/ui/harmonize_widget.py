"""Harmonize: predict, from a scan that is loaded, what other platforms would have given."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QMessageBox, QVBoxLayout

from napari_msp.ui.background import Job, Step
from napari_msp.ui.compare.choices import Choices
from napari_msp.ui.docks import Docked, Pane, open_widget
from napari_msp.ui.harmonizing.mends import DETAILS, Mend, in_words, mends
from napari_msp.ui.harmonizing.model_shelf import ModelShelf
from napari_msp.ui.harmonizing.result_layers import ResultLayers
from napari_msp.ui.harmonizing.saving import Saving
from napari_msp.ui.harmonizing.work import Pass, Predicted, Request, Trace, harmonize_all
from napari_msp.ui.panels.harmonize_form import HarmonizeForm, ScanRow
from napari_msp.ui.panels.results import Results
from napari_msp.ui.preferences import PLUGIN, preferences
from napari_msp.ui.records import Record, Shown, records_of, shown_by
from napari_msp.ui.widgets.message import MessageLine
from napari_msp.ui.widgets.progress import ProgressRow

if TYPE_CHECKING:
    from napari_msp.errors import UserError


class Harmonize(Docked):
    """The widget.

    Parameters
    ----------
    napari_viewer
        Whose scans are offered, and who gets the predictions.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.form = HarmonizeForm()
        self.progress = ProgressRow()
        self.message = MessageLine()
        self.results = Results()
        self.layers = ResultLayers(napari_viewer, self)
        self.saving = Saving(self.layers)
        self.shelf = ModelShelf(self.form, self)
        self._scans: list[Record] = []
        self._job: Job | None = None
        self._request: Request | None = None
        self._done, self._began = 0, 0.0
        self._trace = ""
        self._mends: tuple[Mend, ...] = ()
        self.details: QMessageBox | None = None
        self._lay_out()
        self._connect()
        self._list_scans()
        self._show_results()
        self.form.set_choice("tile", preferences().tile)
        self.shelf.read()

    @property
    def running(self) -> bool:
        """Whether a run goes on, or its layers are still being added."""
        return self._job is not None or self.layers.busy

    def run(self) -> None:
        """Begin what the form says."""
        said = self.form.choices
        models = {each.label: each.model for each in self.shelf.models}
        self._start(
            Request(
                scan=self._scans[said.scan],
                passes=tuple(Pass(label, models[label], target) for label, target in said.passes),
                device=said.device,
                tile=said.tile,
                resample=said.resample,
                rescale_b_value=said.rescale_b_value,
            )
        )

    def cancel(self) -> None:
        """Ask the run to stop."""
        if self._job is not None:
            self.progress.cancel.click()

    def compare(self) -> None:
        """Open Compare with the predictions of one target: the selected layer's, or the first."""
        records = [each.record for each in self.layers.results]
        shown = self._selected()
        chosen = shown.record if shown and shown.record in records else records[0]
        widget = open_widget(self.viewer, "Compare")
        widget.compare_predictions([each for each in records if _beside(each, chosen)])

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Pane(self.form, self.progress, self.message, self.results, self.saving))

    def _connect(self) -> None:
        self.form.run_wanted.connect(self.run)
        self.form.add_wanted.connect(self._choose_model)
        self.form.load_wanted.connect(self._open_loader)
        self.form.sample_wanted.connect(self._open_sample)
        self.message.action.connect(self._mend)
        self.results.compare_wanted.connect(self.compare)
        self.results.save_wanted.connect(self.saving.open)
        self.layers.changed.connect(self._show_results)
        self.on_escape(self.cancel)
        layers = self.viewer.layers
        layers.events.inserted.connect(self._list_scans)
        layers.events.removed.connect(self._list_scans)
        layers.selection.events.active.connect(self._follow_selection)

    def leave(self) -> None:
        """Stop what goes on, and let go of the viewer."""
        layers = self.viewer.layers
        layers.events.inserted.disconnect(self._list_scans)
        layers.events.removed.disconnect(self._list_scans)
        layers.selection.events.active.disconnect(self._follow_selection)
        self.layers.drop()
        self.shelf.stop()
        self.saving.stop()
        if self._job is not None:
            self._job.cancel()

    def _list_scans(self, event: Any = None) -> None:
        found = [each for each in records_of(self.viewer.layers) if each.acquisition is not None]
        self.layers.refresh()
        if [id(each) for each in found] == [id(each) for each in self._scans]:
            return
        chosen = self.form.choices.scan
        before = self._scans[chosen] if 0 <= chosen < len(self._scans) else None
        self._scans = found
        titled = Choices.of(found).scans
        rows = [
            ScanRow(title, each.name, frozenset(each.siblings)) for title, each in titled.items()
        ]
        self.form.set_scans(rows, found.index(before) if before in found else 0)
        self._follow_selection()

    def _follow_selection(self, event: Any = None) -> None:
        """Choose the scan of the selected layer, or the one that its prediction was made from."""
        shown = self._selected()
        if shown is None or self.running:
            return
        scan = shown.record.source or shown.record
        if scan in self._scans:
            self.form.scan.setCurrentIndex(self._scans.index(scan))

    def _selected(self) -> Shown | None:
        layer = self.viewer.layers.selection.active
        return None if layer is None else shown_by(layer)

    def _start(self, request: Request) -> None:
        self._request, self._done, self._trace = request, 0, ""
        self._began = time.monotonic()
        self.message.clear()
        self.form.set_running(True)
        self.progress.start("Starting")
        self.progress.cancel.setFocus()  # the button that was pressed cannot have it any longer
        self._job = job = Job(lambda control: harmonize_all(request, control), self)
        self.progress.cancel_wanted.connect(job.cancel)
        job.progressed.connect(self._take)
        job.done.connect(self._tell_done)
        job.failed.connect(self._fail)
        job.cancelled.connect(self._tell_cancelled)
        job.ended.connect(self._rest)
        job.start()

    def _take(self, told: object) -> None:
        if isinstance(told, Step):
            self.progress.report(told.done, told.total, told.words)
        elif isinstance(told, Predicted):
            self._done += 1
            self.layers.add(told)
        elif isinstance(told, Trace):
            self._trace = told.text

    def _fail(self, error: UserError) -> None:
        assert self._request is not None
        self.progress.end()
        device = self.shelf.device_kinds.get(self._request.device, "")
        self._mends = mends(error, self._request, device)
        actions = [each.text for each in self._mends] or [DETAILS] * bool(self._trace)
        self.message.show_message("error", in_words(error, self._request), actions)

    def _tell_done(self) -> None:
        count = f"{self._done} prediction{'' if self._done == 1 else 's'}"
        self.progress.end(f"{count} in {time.monotonic() - self._began:.0f} s.")

    def _tell_cancelled(self) -> None:
        kept = f" {self._done} predictions were ready and are kept." if self._done else ""
        self.progress.end(f"Cancelled.{kept}")

    def _rest(self) -> None:
        self._job = None
        self.form.set_running(False)
        self.form.button.setFocus()

    def _mend(self, text: str) -> None:
        """Change what is asked for, and do what is left of it."""
        if text == DETAILS:
            self._show_details()
            return
        mend = next(each for each in self._mends if each.text == text)
        self.form.set_choice(mend.field, mend.value)
        assert self._request is not None
        rest: Any = {mend.field: mend.value, "passes": self._request.passes[self._done :]}
        self._start(replace(self._request, **rest))

    def _show_details(self) -> None:
        self.details = QMessageBox(QMessageBox.Information, "Details", self.message.text)
        self.details.setParent(self, self.details.windowFlags())
        self.details.setDetailedText(self._trace)
        for button in self.details.buttons():
            if self.details.buttonRole(button) == QMessageBox.ActionRole:
                button.click()  # unfolds them: they were asked for
        self.details.open()

    def _show_results(self) -> None:
        results = self.layers.results
        notes = dict.fromkeys(note for each in results for note in each.notes)
        self.results.show_results([each.summary for each in results], tuple(notes))
        self.saving.list_results()
        if not results:
            self.saving.hide()

    def _choose_model(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Add model", "", "Models (*.safetensors)")
        if chosen:
            self.shelf.add(chosen)

    def _open_loader(self) -> None:
        open_widget(self.viewer, "Load acquisition")

    def _open_sample(self) -> None:
        self.viewer.open_sample(PLUGIN, "travelling_heads")


def _beside(one: Record, other: Record) -> bool:
    """Tell whether two predictions are of the same scan and target."""
    if one.prediction is None or other.prediction is None or one.source is not other.source:
        return False
    return one.prediction.target == other.prediction.target
