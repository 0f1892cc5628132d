"""Harmonize: predict, from a loaded scan, the images that other platforms would have given."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog

from napari_msp.errors import UserError
from napari_msp.formatting import counted, duration
from napari_msp.ui.background import JobRow
from napari_msp.ui.docks import Docked, Pane, open_sample, open_widget, reveal, with_messages
from napari_msp.ui.harmonize.form import HarmonizeForm
from napari_msp.ui.harmonize.models import ModelShelf, with_models_of_now
from napari_msp.ui.harmonize.results import ResultLayers, ResultRows, notes_on
from napari_msp.ui.harmonize.run import (
    Offer,
    Pass,
    Predicted,
    Request,
    changed,
    harmonize_all,
    offers,
    what_failed,
)
from napari_msp.ui.harmonize.save import Saving
from napari_msp.ui.layers import (
    FIRST_MAPS,
    MAP_TITLES,
    Shown,
    apart,
    same_among,
    same_source,
    scans_of,
    shown_by,
    source_of,
    tell_apart,
    titled,
    unique_scans,
)
from napari_msp.ui.preferences import preferences
from napari_msp.ui.widgets.message import MessageLine
from napari_msp.ui.widgets.windows import show_details

if TYPE_CHECKING:
    import napari

    from napari_msp.inference.prediction import Prediction
    from napari_msp.scan import Scan

DETAILS = "Details …"


class Harmonize(Docked):
    """The Harmonize widget.

    Parameters
    ----------
    napari_viewer
        Viewer whose scans are offered, and which gets the predictions.
    """

    page = "harmonize"
    offers_sample = True

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.form = HarmonizeForm()
        self.form.advanced.maps.set_names(MAP_TITLES, FIRST_MAPS)
        self.message = MessageLine()
        self.progress = JobRow(self.form, self.message)
        self.layers = ResultLayers(napari_viewer, self)
        self.saving = Saving(self.layers)
        self.results = ResultRows(self.saving)
        self.shelf = ModelShelf(self.form, self)
        self._scans: list[Scan] = []
        self._request: Request | None = None
        self._done, self._began = 0, 0.0
        self._offers: tuple[Offer, ...] = ()
        self._trace, self._fresh = "", False
        lines = (self.message, self.saving.message)
        running = (self.progress, self.saving.progress)
        pane = Pane(self.heading, self.form, self.results)
        with_messages(self, pane, *lines, *running, self.form.notices, self.form.model_message)
        self._connect()
        self._list_scans()
        self._show_results()
        self.form.set_option("tile", preferences().tile)
        self.shelf.read()

    @property
    def running(self) -> bool:
        """Whether a run goes on, or its layers are still being added."""
        return self.progress.job.running or self.layers.busy

    def run(self) -> None:
        """Begin the run that the form describes."""
        choices = self.form.choices
        models = {each.label: each.model for each in self.shelf.models}
        passes = tuple(Pass(label, models[label], target) for label, target in choices.passes)
        scan = self._scans[choices.scan]
        machine = preferences()
        options = replace(choices.options, memory=machine.memory, precision=machine.precision)
        self._start(Request(scan, passes, options, choices.maps))

    def compare(self) -> None:
        """Open Compare with the predictions of one target: the selected layer's, or the first."""
        made = [each.prediction for each in self._of_scan()]
        shown = self._selected()
        chosen = next((each for each in made if shown and each is shown.scan), made[0])
        widget = open_widget(self.viewer, "Compare")
        widget.compare_predictions([each for each in made if _beside(each, chosen)])

    def leave(self) -> None:
        """Stop running work, and let go of the viewer."""
        self.layers.finish()
        super().leave()
        layers = self.viewer.layers
        layers.events.inserted.disconnect(self._list_scans)
        layers.events.removed.disconnect(self._list_scans)
        layers.selection.events.active.disconnect(self._follow_selection)

    def _connect(self) -> None:
        self.form.run_wanted.connect(self.run)
        self.form.add.clicked.connect(self._choose_model)
        self.form.load.clicked.connect(lambda: open_widget(self.viewer, "Load acquisition"))
        self.form.sample.clicked.connect(lambda: open_sample(self.viewer))
        self.progress.reported.connect(self._take)
        self.progress.job.ended.connect(self._list_scans)
        self.message.action.connect(self._act)
        self.results.compare.clicked.connect(self.compare)
        self.results.save.clicked.connect(self.saving.open)
        self.layers.changed.connect(self._show_results)
        self.form.scan.currentIndexChanged.connect(lambda _: self._take_scan())
        self.on_escape(self.progress.request_cancel)
        layers = self.viewer.layers
        layers.events.inserted.connect(self._list_scans)
        layers.events.removed.connect(self._list_scans)
        layers.selection.events.active.connect(self._follow_selection)

    def _list_scans(self, event: Any = None) -> None:
        self.layers.refresh()
        # Also the scan that is or was predicted from: its own layers may have been deleted.
        kept = [self._request.scan] if self.running and self._request is not None else []
        kept += [source_of(each.prediction) for each in self.layers.results]
        known = unique_scans([*scans_of(self.viewer.layers), *kept])
        found = [each for each in known if each.acquisition is not None]
        tell_apart(found)
        if [id(each) for each in found] == [id(each) for each in self._scans]:
            return
        chosen = self.form.choices.scan
        before = self._scans[chosen] if 0 <= chosen < len(self._scans) else None
        again = None if before is None else same_among(before, found)
        self._scans = found
        self.form.set_scans(titled(found), 0 if again is None else found.index(again))
        if again is None:
            self._take_scan()
        self._follow_selection()

    def _follow_selection(self, event: Any = None) -> None:
        """Choose the scan of the selected layer, or the one that its prediction was made from."""
        shown = self._selected()
        if shown is None or self.running:
            return
        scan = same_among(source_of(shown.scan), self._scans)
        if scan is not None:
            self.form.scan.setCurrentIndex(self._scans.index(scan))

    def _take_scan(self) -> None:
        """Show the results of the chosen scan; messages and permissions for another are dropped."""
        if not self.progress.job.running:
            self.progress.end()
            self.message.clear()
            self.form.ask_again()
        self._show_results()

    def _selected(self) -> Shown | None:
        layer = self.viewer.layers.selection.active
        return None if layer is None else shown_by(layer)

    def _start(self, request: Request) -> None:
        self._request, self._done = request, 0
        self._began = time.monotonic()
        listed = self.shelf.models
        if not all(each.is_current for each in listed):
            self.shelf.read()  # their texts are about their files, too
        self.progress.run(
            lambda control: harmonize_all(with_models_of_now(request, listed), control),
            done=lambda _: self._say_done(),
            failed=self._fail,
            cancelled=self._words_of_cancel,
        )

    def _take(self, result: Predicted) -> None:
        self._done += 1
        self._fresh = True
        self.layers.add(result)

    def _fail(self, error: UserError) -> None:
        assert self._request is not None
        kinds = {each.name: each.kind for each in self.shelf.devices}
        options = self._request.options
        self._offers = offers(error, options, kinds.get(options.device, ""))
        self._trace = "\n".join(getattr(error, "__notes__", ()))
        actions = [each.text for each in self._offers] or [DETAILS] * bool(self._trace)
        words = what_failed(error, offered=bool(self._offers))
        self.message.show_message("error", words, actions)

    def _say_done(self) -> None:
        assert self._request is not None
        scan, seconds = self._request.scan, time.monotonic() - self._began
        whose = f"{counted(self._done, 'prediction')} of {scan.owner}{apart(scan)}"
        self.progress.end(f"{whose} in {duration(seconds)}.")

    def _words_of_cancel(self) -> str:
        kept = f" {counted(self._done, 'prediction')} made before kept." if self._done else ""
        return f"Cancelled.{kept}"

    def _act(self, text: str) -> None:
        """Do what a button of the message says: an offer changes how the rest is done."""
        if text == DETAILS:
            show_details(self, "Harmonize", self.message.text, self._trace)
            return
        assert self._request is not None
        offer = next(each for each in self._offers if each.text == text)
        self.form.allow(offer.values)
        self._start(changed(self._request, offer, self._done))

    def _show_results(self) -> None:
        results = self._of_scan()
        source = source_of(results[0].prediction) if results else None
        scan = f"{source.owner}{apart(source)}" if source is not None else ""
        self.results.show_results(scan, [each.row for each in results], notes_on(results))
        if results and self._fresh:
            self._fresh = False
            reveal(self.results)  # in a low window they lie below what is visible
        self.saving.list_results()
        if not results:
            self.saving.close_form()

    def _of_scan(self) -> list[Predicted]:
        """Return the predictions of the chosen scan; if that has gone, those of the newest scan."""
        made, chosen = self.layers.results, self.form.choices.scan
        known = 0 <= chosen < len(self._scans)
        scans = [self._scans[chosen]] if known else [source_of(e.prediction) for e in made[-1:]]
        return [each for each in made if same_among(source_of(each.prediction), scans) is not None]

    def _choose_model(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Add model", "", "Models (*.safetensors)")
        if chosen:
            self.shelf.add(chosen)


def _beside(one: Prediction, other: Prediction) -> bool:
    """Return whether two predictions are of the same scan and target."""
    return same_source(one, other) and one.target == other.target
