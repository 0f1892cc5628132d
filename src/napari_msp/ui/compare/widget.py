"""Compare: truth and predictions as in Figure 3, with numbers, stages and voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QFileDialog, QTabWidget, QWidget

from napari_msp.files import write_text
from napari_msp.scan import Scan
from napari_msp.signal.maps import MAPS
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.background import Latest, show_on
from napari_msp.ui.compare.choices import MOST_PREDICTIONS, ImageChoices
from napari_msp.ui.compare.compared import BEFORE, Part, Question
from napari_msp.ui.compare.computing import Comparing
from napari_msp.ui.compare.form import LABELS, CompareForm
from napari_msp.ui.compare.glyphs import GlyphView, images_of
from napari_msp.ui.compare.grid_cells import VIEW, GridCells
from napari_msp.ui.compare.numbers_table import NOTHING, SAME, ErrorColumn, NumbersTable
from napari_msp.ui.compare.regions_tab import RegionsTab
from napari_msp.ui.compare.stages_tab import StagesTab
from napari_msp.ui.compare.triplanar_tab import TriplanarTab
from napari_msp.ui.compare.viewer_grid import ViewerGrid
from napari_msp.ui.compare.voxel_tab import VoxelTab
from napari_msp.ui.docks import USUAL_WIDTH, Docked, Pane, with_messages
from napari_msp.ui.layers import scans_of, shown_by
from napari_msp.ui.phrasing import FormWords, said, sentence
from napari_msp.ui.reading import Control
from napari_msp.ui.shared import shared_by
from napari_msp.ui.widgets.form import in_row, push_button, scrolled, stacked
from napari_msp.ui.widgets.message import MessageLine
from napari_msp.ui.widgets.progress import ProgressRow
from napari_msp.ui.widgets.windows import confirmed

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_msp.errors import UserError

MEASURING = "Errors are being measured …"

NOT_YET = "Press Show to measure errors."

TARGETS_DIFFER = "The predictions aim at different targets, which have no common ground truth."

ALL_DELETED = "The comparison was left, as its layers were deleted."

FIGURES = "PNG, for a screen (*.png);;PDF, for print (*.pdf);;SVG, to be edited (*.svg)"

NUMBERS = "CSV (*.csv)"

FLICKER = {"G": "truth", "H": "source"}
"""Keys that show another cell in place while they are held; napari has other uses for most letters,
but not for these."""

NEXT_GLYPHS = "Q"
"""Key of the next kind of glyphs; free in napari, too."""

EDGE = 6

LOWEST, ROOMY = 210, 250
"""Pixels of the tabs at least, and where there is room for the choices, too."""

WORDS = FormWords(LABELS)
"""Words by the window's labels of parameters."""


class Compare(Docked):
    """The Compare widget.

    Parameters
    ----------
    napari_viewer
        Viewer whose scans are offered, and which gets the cells.
    """

    page = "compare"

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.form = CompareForm(self.heading, most=MOST_PREDICTIONS)
        self.progress, self.message, self.table = ProgressRow(), MessageLine(), NumbersTable()
        self.verdict = MessageLine()
        self.save_figure = push_button(
            "Save fig&ure …",
            "<p>Save the shown slice as a figure, with squared or signed errors as shown: PNG, "
            "PDF or SVG.</p>",
        )
        self.save_numbers = push_button(
            "Save num&bers …", "<p>Save the errors in full precision, as CSV.</p>"
        )
        self.comparing = Comparing(self, self._fail)
        show_on(self.progress, self.comparing)
        self.grid = ViewerGrid(napari_viewer, self._warn)
        self.stages = StagesTab(self.grid, self.comparing)
        self.planes = TriplanarTab(napari_viewer)
        self.regions = RegionsTab(napari_viewer, self.grid)
        self.glyphs = GlyphView(napari_viewer, self)
        self.voxel = VoxelTab(napari_viewer, lambda: self.grid.plane)
        self._writing = Latest(self, self._say_saved, self._fail)
        self.tabs = QTabWidget()
        self._choices = ImageChoices.of(())
        self._given: tuple[Scan, ...] = ()
        self._truth_picked = False
        self._asked = self._computed = self.form.asked
        self._shared, self._refusal = shared_by(napari_viewer), ""
        self._bound = False
        self._listing = QTimer(self, singleShot=True, timeout=self._list)
        self._lay_out()
        self._connect()
        self._list()
        self._enable()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Leave the window to the images: wide tabs are scrolled, or the dock is widened."""
        return QSize(USUAL_WIDTH, super().sizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Make room where the window was made low; the user may unfold the choices there."""
        super().resizeEvent(event)
        if self.grid.active and event.size().height() < event.oldSize().height():
            QTimer.singleShot(0, self._fold_if_low)  # once all have their places

    def compare_predictions(self, predictions: Sequence[Scan]) -> None:
        """Compare up to four predictions, with the scan that they aim at where there is one."""
        self._given, self._truth_picked = tuple(predictions), False
        self._list()
        # Those at the first one's shell: the form offers the other shells.
        self.form.choose_shell(self._choices.shell_of(predictions[0]) if predictions else None)
        self._list()
        known = self._choices.predictions
        chosen = [text for text, each in known.items() if each in self._given][:MOST_PREDICTIONS]
        self.form.choose(self._choices.truth_for([known[text] for text in chosen]), chosen)
        self.show_comparison()

    def show_comparison(self) -> None:
        """Compare the images chosen in the form, unless another widget has the canvas."""
        if self._is_refused():
            return
        choices, form = self._choices, self.form
        predictions = [choices.predictions[text] for text in form.predictions]
        own = form.scan == ""
        scan = choices.input_of(predictions) if own else choices.scans.get(form.scan or "")
        truth = choices.truths.get(form.truth)
        self.message.clear()
        if not self.comparing.numbers:
            self.table.clear(NOTHING if truth is None else MEASURING)
        self._asked = form.asked
        self.comparing.answer(Question(truth, predictions, scan), form.map_name)

    def leave(self) -> None:
        """Restore the viewer as it was."""
        self.comparing.forget()
        self.progress.end()
        self.stages.forget()
        self.voxel.stop()
        self.glyphs.stop()
        self.planes.stop()
        self.regions.stop()
        if self.grid.active:
            self.grid.leave()
            self.message.clear()  # it may ask to leave
        self.table.clear()
        self.verdict.clear()
        self.form.mark_drawn(None)
        self._enable()

    def _renew(self) -> None:
        compared = self.comparing.compared
        assert compared is not None
        self.stages.take(compared)
        self._computed = self._asked
        self._fold_if_low()
        self.table.clear(NOTHING if compared.truth is None else MEASURING)
        if compared.reservations:
            self._warn_of_reservations()

    def _fold_if_low(self) -> None:
        """Leave the height to the tabs, where the choices would take too much of it."""
        if self.comparing.compared is not None and self.tabs.height() < ROOMY:
            self.form.what.setChecked(False)

    def _warn_of_reservations(self) -> None:
        """Say how images were made and aligned, in place of the message before."""
        compared = self.comparing.compared
        self._warn("" if compared is None else "\n".join(compared.reservations))

    def _take_drawn(self, drawn: str) -> None:
        """Show the cells, unless α has moved on: they are redrawn when it rests."""
        if self.form.map_name not in self.comparing.maps:  # another was chosen meanwhile
            self.comparing.draw(self.form.map_name)
        elif drawn == self.form.map_name and not self.stages.panel.moving:
            self._show_cells()

    def _show_cells(self) -> None:
        """Show the chosen map, unless it is not there yet or the branches have the grid."""
        shown, compared = self.form.map_name, self.comparing.compared
        cells = self._cells()
        if cells is None or compared is None:
            return
        if self._is_refused():  # a review was opened while this was computed
            return
        self.stages.shown = shown
        self.voxel.follow(compared, MAPS[shown])
        self.planes.follow(compared, self.comparing.maps[shown].cells)
        self._show_numbers()
        if not self.stages.branches_shown:
            self.grid.show(cells)
            self.form.show_plane(self.grid.plane)
            self._show_glyphs()
        self.regions.follow(compared, MAPS[shown])
        self.form.mark_drawn(self._computed)
        self._enable()

    def _is_refused(self) -> bool:
        """Return whether another widget has the canvas, and say which."""
        self._refusal = self.grid.refusal
        if self._refusal:
            self._warn(self._refusal)
        return bool(self._refusal)

    def _take_free(self) -> None:
        """Once another widget has left the canvas, clear the refusal and show what was computed."""
        if self._shared.owner or not self._refusal:
            return
        if self.message.text == self._refusal:
            self._warn_of_reservations()
        self._refusal = ""
        self._show_cells()

    def _show_glyphs(self) -> None:
        """Show the chosen glyphs in the cells that have them."""
        cells, compared, kind = self._cells(), self.comparing.compared, self.form.glyph_kind
        if cells is None or compared is None:
            return
        shown = {} if self.stages.branches_shown else images_of(compared, cells)
        self.glyphs.take(self.grid.layers, shown, compared.comparison.reference)
        if kind == self.glyphs.kind:
            return
        if self.glyphs.kind is None:
            self.grid.come_closer(self.glyphs.span)
        self.glyphs.show(kind)
        if kind is None:
            self.grid.fit.go_back()

    def _change_alpha(self) -> None:
        """Remove the glyphs of the α before; those of this one are drawn when it rests."""
        cells = self._cells()
        if cells is not None and self.stages.name in cells.places:
            self.glyphs.leave_out(cells.places[self.stages.name][0])

    def _cells(self) -> GridCells | None:
        """Return the cells of the chosen map, with the sign of errors where it is wanted."""
        drawn = self.comparing.maps.get(self.form.map_name)
        return None if drawn is None else drawn.seen(self.form.signed)

    def _flicker(self, which: str) -> Callable[[Viewer], Iterator[None]]:
        """Return the action of a held key: show truth or input in the predictions' cells."""

        def hold(viewer: Viewer) -> Iterator[None]:
            cells = self._cells()
            source = None if cells is None else getattr(cells, which)
            if cells is not None and source is not None and not self.stages.branches_shown:
                places = [image for image, _ in cells.places.values()]
                self.grid.borrow(places, source)
                self.glyphs.lend(places, source)
                self.regions.paint()
            yield
            self.grid.give_back()
            self._show_glyphs()
            self.regions.paint()

        return hold

    def _change_map(self) -> None:
        self._warn_of_reservations()
        self.comparing.draw(self.form.map_name)
        self.stages.leave_branches()
        self._show_cells()
        if self.stages.panel.moving:
            self.stages.repaint_cells()

    def _change_image(self, name: str, image: SHImage, part: Part | None) -> None:
        self._warn_of_reservations()
        self.comparing.change(name, image, part, self.form.map_name)

    def _show_numbers(self) -> None:
        measured = self.comparing.rows
        if measured:
            errors = self.comparing.errors(self.form.map_name)
            voxels = next(iter(measured.values())).voxels
            self.table.show_errors(list(measured), errors, voxels)
            self.verdict.show_message("warning", worse_than_before(list(measured), errors))
        else:
            self.verdict.clear()
        self._enable()

    def _fail(self, error: UserError) -> None:
        if not self.comparing.numbers:
            self.table.clear()
        self.message.show_message("error", sentence(said(error, WORDS)))

    def _say_saved(self, path: Path) -> None:
        self.message.show_message("ok", f"Saved {path}")

    def _warn(self, words: str) -> None:
        self.message.show_message("warning", words)

    def _list(self) -> None:
        """Offer what is loaded; leave once the user has deleted every cell."""
        if self.grid.active and not self.grid.there:
            self.leave()
            self._warn(ALL_DELETED)
        scans = scans_of(layer for layer in self.viewer.layers if not _is_cell(layer))
        scans += [each for each in self._given if each not in scans]
        before, self._choices = self._choices, ImageChoices.of(scans, self.form.shell)
        choices = self._choices
        self.form.offer(
            [*choices.truths], [*choices.predictions], [*choices.scans], [*choices.shells]
        )
        made = [each for each in choices.made if each not in before.made]
        if made and not self.form.predictions:
            self.form.predictions_list.set_names([*choices.predictions], made[-1:])

    def _change_shell(self) -> None:
        """Choose the same images at another shell, and show them if a comparison is shown."""
        before = [self._choices.predictions[text] for text in self.form.predictions]
        self._list()
        chosen = self._choices.alike(before)
        truth = self.form.truth
        self.form.choose(truth, chosen)
        self._suggest_truth()
        if self.grid.active and chosen:
            self.show_comparison()

    def _suggest_truth(self) -> None:
        """Choose the scan that predictions aim at, until the user chooses."""
        chosen = [self._choices.predictions[text] for text in self.form.predictions]
        if not self._truth_picked:
            self.form.choose_truth(self._choices.truth_for(chosen))
        targets = {each.platform for each in chosen if each.provenance is not None}
        self.form.rows.say("truth", note=TARGETS_DIFFER if len(targets) > 1 else "")

    def _say_how_to_measure(self) -> None:
        if not self.comparing.numbers and not self.comparing.running:
            self.table.clear(NOT_YET if self.form.truth else NOTHING)

    def _bind_keys(self) -> None:
        """Bind the keys while there is something for them to show."""
        if self.grid.active != self._bound:
            self._bound = self.grid.active
            for key, which in FLICKER.items():
                function = self._flicker(which) if self._bound else None
                self.viewer.bind_key(key, function, overwrite=True)
            change = (lambda _: self.form.next_glyphs()) if self._bound else None
            self.viewer.bind_key(NEXT_GLYPHS, change, overwrite=True)

    def _enable(self) -> None:
        self._bind_keys()
        self.form.show_active(self.grid.active)
        self.save_figure.setEnabled(self.comparing.compared is not None)
        self.save_numbers.setEnabled(bool(self.comparing.metrics))

    def _save_figure(self) -> None:
        compared, grid, shown = self.comparing.compared, self.grid, self.form.map_name
        if compared is not None:
            plane, index, signed = grid.plane, grid.index, self.form.signed
            name = f"{compared.file_stem}_{plane}-{index}.png"
            self._save(
                "Save figure",
                name,
                FIGURES,
                lambda path: compared.save_figure(path, shown, plane, index, signed=signed),
            )

    def _save_numbers(self) -> None:
        from napari_msp.evaluation.compare import numbers_csv

        compared, measured = self.comparing.compared, self.comparing.rows
        if compared is not None:
            truth = "" if compared.truth is None else compared.truth.owner
            text = numbers_csv(measured, truth)
            name = f"{compared.file_stem}_errors.csv"
            self._save("Save numbers", name, NUMBERS, lambda path: write_text(path, text))

    def _save_regions(self) -> None:
        compared, numbers = self.comparing.compared, self.regions.numbers
        if compared is not None and numbers is not None:
            self._save("Save regions", f"{compared.file_stem}_regions.csv", NUMBERS, numbers.save)

    def _save(self, title: str, name: str, kinds: str, write: Callable[[Path], object]) -> None:
        """Ask where to save something, and write it in a thread."""
        chosen, kind = QFileDialog.getSaveFileName(self, title, name, kinds)
        path = Path(chosen)
        if chosen and not path.suffix:
            path = path.with_suffix(kind[kind.find("*") + 1 :].rstrip(")"))
            # The dialog has asked about the name without the suffix.
            there = f"{path.name} is there already."
            if path.exists() and not confirmed(self, title, there, "Replace it"):
                return

        def work(control: Control) -> Path:
            write(path)
            return path

        if chosen:
            self._writing.ask(work)

    def _connect(self) -> None:
        form, comparing = self.form, self.comparing
        self._shared.changed.connect(self._take_free, Qt.QueuedConnection)  # after it has left
        form.show_button.clicked.connect(self.show_comparison)
        form.leave_button.clicked.connect(self.leave)
        form.shell_changed.connect(self._change_shell)
        form.map_changed.connect(lambda _: self._change_map())
        form.errors_changed.connect(self._show_cells)
        form.glyphs_changed.connect(self._show_glyphs)
        self.glyphs.told.connect(self.grid.remark)
        self.stages.panel.alpha_changed.connect(lambda _: self._change_alpha())
        self.stages.panel.branches.toggled.connect(lambda _: self._show_glyphs())
        self.stages.signed = lambda: form.signed
        form.plane_changed.connect(self.grid.turn_to)
        form.predictions_list.changed.connect(self._suggest_truth)
        form.truths.currentIndexChanged.connect(lambda _: self._say_how_to_measure())
        form.truths.activated.connect(lambda _: setattr(self, "_truth_picked", True))
        comparing.started.connect(self.progress.start)
        comparing.renewed.connect(self._renew)
        comparing.drawn.connect(self._take_drawn)
        comparing.measured.connect(self._show_numbers)
        comparing.warned.connect(self._warn)
        self.stages.image_wanted.connect(self._change_image)
        self.stages.comparison_wanted.connect(self._show_cells)
        self.save_figure.clicked.connect(self._save_figure)
        self.save_numbers.clicked.connect(self._save_numbers)
        self.regions.save.clicked.connect(self._save_regions)
        for source in (self.stages, self.glyphs, self.regions):
            source.failed.connect(self._fail)
        for change in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            change.connect(self._list_soon)
        self.viewer.dims.events.order.connect(self._follow_plane)

    def _follow_plane(self) -> None:
        """Show in the form the plane that napari's own buttons turned to."""
        if self.grid.active:
            self.form.show_plane(self.grid.plane)
            self.voxel.look()
            if self.glyphs.kind is not None and self.grid.there:
                self.grid.come_closer(self.glyphs.span)

    def _list_soon(self) -> None:
        self._listing.start(0)

    def _lay_out(self) -> None:
        numbers = QWidget()
        buttons = in_row(self.save_figure, self.save_numbers)
        inside = stacked(numbers, self.table, buttons)  # in a low window numbers come first
        inside.setContentsMargins(0, EDGE, 0, 0)
        inside.addStretch()
        self.tabs.addTab(scrolled(numbers), "Numbers")
        self.tabs.addTab(scrolled(self.stages), "Stages")
        self.tabs.addTab(self.voxel.place, "Voxel")
        self.tabs.addTab(scrolled(self.planes), "Planes")
        self.tabs.addTab(scrolled(self.regions), "Regions")
        said = (self.message, self.verdict, self.regions.message)
        self.tabs.setMinimumHeight(LOWEST)
        pane = Pane(self.form, rest=self.tabs)
        with_messages(self, pane, *said, self.progress, self.form.notices)


def worse_than_before(names: Sequence[str], errors: Sequence[ErrorColumn]) -> str:
    """Return which predictions err more than the input, the first name, and in what."""
    if not names or names[0] != BEFORE:
        return ""
    found = []
    for number, name in enumerate(names[1:], start=1):
        changes = {each.title: each.change(number) for each in errors}
        worse = [f"{of} +{by:.1f} %" for of, by in changes.items() if by is not None and by >= SAME]
        if worse:
            found.append(f"{name} is worse than before: {', '.join(worse)}.")
    return "\n".join(found)


def _is_cell(layer: Layer) -> bool:
    shown = shown_by(layer)
    return shown is not None and shown.view == VIEW
