"""Train: learn a model from travelling heads, and watch it learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QGridLayout

from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.errors import Advice, UserError
from napari_msp.learning.events import Event, Previewed, Started
from napari_msp.learning.runs import RunFolder
from napari_msp.scan_sources import load_scan
from napari_msp.ui.background import Latest, show_on
from napari_msp.ui.docks import Docked, Pane, open_widget, reveal, with_messages
from napari_msp.ui.harmonize.models import remember_model
from napari_msp.ui.layers import (
    LayerData,
    make_layer,
    named_apart,
    not_shown,
    scan_layers,
    showing,
)
from napari_msp.ui.phrasing import said
from napari_msp.ui.preferences import devices, preferences
from napari_msp.ui.reading import Control, read_scan
from napari_msp.ui.sample_data import lesson_heads
from napari_msp.ui.shared import shared_by
from napari_msp.ui.train.fields import WORDS, likely_input
from napari_msp.ui.train.form import TrainingForm
from napari_msp.ui.train.preview_layers import PreviewGrid, PreviewLayers
from napari_msp.ui.train.process import Ending, TrainingProcess
from napari_msp.ui.train.run_view import RunView
from napari_msp.ui.widgets.form import Section, push_button
from napari_msp.ui.widgets.message import MessageLine
from napari_msp.ui.widgets.progress import ProgressRow
from napari_msp.ui.widgets.windows import confirmed

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Train(Docked):
    """The widget that trains models and shows runs.

    Parameters
    ----------
    napari_viewer
        Viewer that gets the predictions while the network learns.
    """

    page = "train"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        machine = preferences()
        self.form = TrainingForm(machine.cache, machine.device)
        self.what = Section("What to train", self.form, unfolded=True)
        self.waiting = ProgressRow()
        self.view = RunView()
        self.message = MessageLine()
        self.train_button = push_button(
            "T&rain", "Make the run folder, and train in a process of its own."
        )
        self.resume_button = push_button(
            "Resu&me", "Go on with the shown run, from its checkpoint if it has one."
        )
        self.open_button = push_button(
            "&Open run …", "Show a run by its folder, so that you can resume it."
        )
        self.use_button = push_button("Use in Harmoni&ze", "Open Harmonize with this model ticked.")
        # Folders are read in a thread: those on a server may be slow.
        form = self.form
        self._datasets = Latest(self, form.show_dataset, form.show_dataset_problem)
        show_on(self.waiting, self._datasets)
        self.run = RunControl(napari_viewer, self.view, self)
        self._opening = Latest(self, self._show_run, self._show_error)
        self._inputs = Latest(self, self._show_input, self._show_error)
        self._devices = Latest(self, self.form.show_devices)
        self._lay_out()
        self._connect()
        self._show_state()
        self._devices.ask(lambda control: devices())

    def train(self) -> None:
        """Begin the run that the form describes."""
        wanted, heads = self.form.request, self.form.heads
        if wanted is None or heads is None or self.run.running:
            return
        self.message.clear()
        try:
            folder = RunFolder.create(wanted.folder, wanted.dataset, wanted.settings, wanted.device)
        except UserError as error:
            self._show_error(error)
            return
        self.heading.hint.hide()
        self.run.start(folder, heads)
        self.form.next_folder()

    def open_run(self, path: Path) -> None:
        """Show the run of a folder."""
        self.message.clear()
        self._opening.ask(lambda control: open_run(path, control))

    def use(self) -> None:
        """Open Harmonize with the model of the run."""
        assert self.run.folder is not None
        model = self.run.folder.model_path
        if not model.is_file():  # else Harmonize would keep other models ticked
            self._show_error(UserError("is no longer there", model, remedy=Advice("put it back")))
            return
        self.run.remember()
        open_widget(self.viewer, "Harmonize").shelf.use(model)
        path = self.run.held_out_input
        if path is not None:
            self._inputs.ask(lambda control: read_input(path, control))

    def _show_input(self, layers: list[LayerData]) -> None:
        """Replace previews by the scan that the model is to be tried on, and select it."""
        shared_by(self.viewer).one(PreviewGrid).make_way()
        for data in named_apart(self.viewer.layers, not_shown(self.viewer.layers, layers)):
            self.viewer.add_layer(make_layer(data))
        layer = showing(self.viewer.layers, layers[-1])
        assert layer is not None
        layer.visible = True
        self.viewer.layers.selection.active = layer

    def _lay_out(self) -> None:
        buttons = QGridLayout()
        buttons.addWidget(self.train_button, 0, 0)
        buttons.addWidget(self.resume_button, 0, 1)
        buttons.addWidget(self.open_button, 1, 0)
        buttons.addWidget(self.use_button, 1, 1)
        buttons.setContentsMargins(9, 0, 9, 0)
        view = self.view
        told = (self.message, view.ending, view.unseen)
        said = (*told, view.progress, self.waiting, self.form.notices)
        column = with_messages(self, Pane(self.heading, self.what, view), *said)
        column.insertLayout(1, buttons)  # as in all widgets, below the form

    def _connect(self) -> None:
        self.train_button.clicked.connect(self.train)
        self.resume_button.clicked.connect(self.run.resume)
        self.open_button.clicked.connect(self._choose_run)
        self.use_button.clicked.connect(self.use)
        self.form.dataset_named.connect(self._open_dataset)
        self.form.simulate.clicked.connect(self._simulate_heads)
        self._datasets.rested.connect(lambda: self.form.simulate.setEnabled(True))
        self.form.changed.connect(self._allow_train)
        self.form.changed.connect(self.message.clear)
        self.run.changed.connect(self._show_state)
        self.view.entry_wanted.connect(self._show_entry)

    def may_leave(self) -> bool:
        """While a training goes on, ask whether to stop it."""
        return not self.run.running or confirmed(
            self,
            "Close Train?",
            "The network is still learning. If you close, it stops with a checkpoint; to go on "
            "another time, use Open run …, then Resume.",
            "Stop and close",
        )

    def leave(self) -> None:
        """Stop running work, and let go of the viewer."""
        super().leave()
        self.run.leave()

    def _open_dataset(self, folder: Path) -> None:
        run = self.form.run
        self._datasets.ask(lambda control: open_dataset(folder, run=run))

    def _simulate_heads(self) -> None:
        """Make heads for a lesson, unless they are there."""
        cache = preferences().cache
        self.form.simulate.setEnabled(False)
        self.waiting.start("Simulating heads for a lesson")
        self._datasets.ask(lambda control: lesson_heads(cache, control))

    def _choose_run(self) -> None:
        beside = "" if self.form.heads is None else str(self.form.heads.root.parent)
        chosen = QFileDialog.getExistingDirectory(self, "Open a run's folder", beside)
        if chosen:
            self.open_run(Path(chosen))

    def _show_run(self, run: OpenedRun) -> None:
        if self.run.running:  # begun while the folder was read
            return
        if run.heads is not None:
            self.form.forget_dataset()  # so that no earlier choices stay
            self.form.show_dataset(run.heads)
            self.form.show_run(run.folder.settings, run.folder.device)
        elif run.problem is not None:
            self.message.show_message("warning", said(run.problem, WORDS))
        self.run.show(run)
        self.what.unfold(False)  # in a low window the run lies below it
        reveal(self.view)

    def _show_state(self) -> None:
        """Offer what can be done, and give the room to a run that goes on."""
        folder, running = self.run.folder, self.run.running
        state = "new" if folder is None else folder.state
        self.form.setEnabled(not running)
        self.view.setVisible(folder is not None)
        if running:
            self.what.unfold(False)
        self.resume_button.setEnabled(folder is not None and not running and state != "finished")
        self.open_button.setEnabled(not running)
        self.use_button.setEnabled(state == "finished")
        self._allow_train()

    def _allow_train(self) -> None:
        self.train_button.setEnabled(self.form.request is not None and not self.run.running)

    def _show_entry(self, name: str) -> None:
        """Show an entry of the form, wherever it is folded away."""
        self.what.unfold(True)
        self.form.lead_to(name)
        reveal(self.form.entries[name].native)

    def _show_error(self, error: UserError) -> None:
        self.message.show_message("error", said(error, WORDS))


def read_input(path: Path, control: Control) -> list[LayerData]:
    """Read a scan and make its layers.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    scan = read_scan(load_scan(path), control.say)
    return scan_layers(scan, check=control.check)


# --- One run ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run as its folder has it.

    Attributes
    ----------
    folder
        The run.
    events
        Events so far.
    heads
        Its dataset; None where that cannot be opened.
    problem
        Error of opening the dataset; None where there is none.
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
        If the folder has no run.
    """
    folder = RunFolder.open(path)
    events = tuple(folder.events())
    control.check()
    try:
        return OpenedRun(folder, events, open_dataset(folder.dataset, run=folder.settings.run))
    except UserError as error:  # the run can still be shown
        return OpenedRun(folder, events, None, error)


class RunControl(QObject):
    """A runner of training runs, one after the other: child process, view, layers and model.

    Parameters
    ----------
    viewer
        Viewer that gets the predictions while the network learns.
    view
        View that shows the run.

    Attributes
    ----------
    changed
        Emitted when another run is shown, or one has begun or ended.
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
        view.progress.cancel_wanted.connect(self.process.stop)

    @property
    def running(self) -> bool:
        """Whether a run goes on."""
        return self.process.running

    @property
    def held_out_input(self) -> Path | None:
        """The input scan of the first subject that was held out, else validated; None: unknown."""
        if self.folder is None or self._heads is None:
            return None
        settings = self.folder.settings
        for subject in (*settings.held_out, *settings.validation):
            path = self._heads.scans.get((subject, settings.input or likely_input(self._heads)))
            if path is not None:
                return path
        return None

    def show(self, run: OpenedRun) -> None:
        """Show a run that is not executed."""
        self._drop_layers()  # their text is about the run before
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
        """Let go of the viewer; a run that goes on stops with a checkpoint, and a note says so."""
        if self.running and self.folder is not None:
            from napari.utils.notifications import show_info

            show_info(
                "Train was closed: training stops with a checkpoint. To go on, open Train, "
                f"then Open run …, {self.folder.path}, and Resume."
            )
        self.process.stop()
        self._drop_layers()

    def remember(self) -> None:
        """List the model in Harmonize."""
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
        if self._layers is not None:
            self._layers.finish()
        if ending.error is not None:
            self._view.show_failure(ending.error, self.folder.resumable, ending.details)
        else:
            self._view.show_standing(self.folder, self._last)
        if ending.outcome == "finished":
            self.remember()
        self.changed.emit()

    def _show_layers(self, started: Started) -> None:
        self._drop_layers()
        shown = [*started.held_out, *started.validation]
        if not shown:
            return
        subject, heads = shown[0], self._heads
        scans = {} if heads is None else heads.scans
        truths = {platform: path for (who, platform), path in scans.items() if who == subject}
        self._layers = PreviewLayers(self._viewer, subject, truths, self)
        self._layers.kept_out.connect(self._view.say_unseen)
        self._layers.failed.connect(
            lambda error: self._view.warn(f"A picture cannot be shown: {said(error)}")
        )

    def _drop_layers(self) -> None:
        if self._layers is not None:
            self._layers.stop()
            self._layers.deleteLater()
            self._layers = None
