"""Align: lay the heads of each subject on each other, and look at them before and after."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_msp.alignment.report import AlignedScan, Alignment
from napari_msp.errors import Overwrite, UserError
from napari_msp.ui.align.aligning import (
    WORDS,
    AlignChoice,
    align_heads,
    examine,
    head_layers,
    quantity_of,
    remarks,
    summary,
)
from napari_msp.ui.align.form import AlignForm
from napari_msp.ui.align.moves import Moves
from napari_msp.ui.background import JobRow, Latest, OneByOne, show_on
from napari_msp.ui.docks import Docked, Pane, open_page, open_widget, reveal, with_messages
from napari_msp.ui.layers import LayerData, fits, make_layer, refill
from napari_msp.ui.phrasing import said, sentence
from napari_msp.ui.shared import take_away
from napari_msp.ui.widgets.form import Section
from napari_msp.ui.widgets.message import MessageLine
from napari_msp.ui.widgets.progress import ProgressRow
from napari_msp.ui.widgets.windows import confirmed

if TYPE_CHECKING:
    import napari

REPLACE = "Replace it"

ALIGNING = "Scans are being aligned. If you close, nothing is written."


class Align(Docked):
    """The widget that aligns the heads of a dataset.

    Parameters
    ----------
    napari_viewer
        Viewer that gets the heads to look at.
    """

    page = "align"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.form = AlignForm()
        self.what = Section("What to align", self.form, unfolded=True)
        self.message = MessageLine()
        self.progress = JobRow(self.form, self.message)
        self.moves = Moves()
        self.reading = ProgressRow()
        self.heads = HeadLayers(napari_viewer, self)
        self.alignment: Alignment | None = None
        self._choice, self._aligned = AlignChoice(), AlignChoice()
        self._look = Latest(self, self.form.show_findings, self._say)
        self._read = Latest(self, self._show_heads, self._fail_to_show)
        show_on(self.reading, self._read)
        pane = Pane(self.heading, self.what, self.moves, grows=self.moves.table)
        said = (self.message, self.moves.words)
        with_messages(self, pane, *said, self.progress, self.reading, self.form.notices)
        self._connect()
        self.form.show_findings(examine(AlignChoice()))

    @property
    def running(self) -> bool:
        """Whether heads are being aligned, or read to be looked at."""
        return self.progress.job.running or self._read.running or self.heads.busy

    def align(self) -> None:
        """Align as the form says; the user is asked about an earlier alignment."""
        self._choice = self.form.findings.choice
        self._begin(force=False)

    def replace(self) -> None:
        """Repeat the alignment that was asked about, and replace the earlier one."""
        self._begin(force=True)

    def open_report(self) -> None:
        """Show the report in the browser."""
        assert self.alignment is not None
        open_page(self.alignment.report, self.message)

    def train(self) -> None:
        """Open Train with the aligned dataset."""
        assert self.alignment is not None
        open_widget(self.viewer, "Train").form.dataset.write(self.alignment.out.absolute())

    def may_leave(self) -> bool:
        """While scans are being aligned, ask whether to stop."""
        running = self.progress.job.running
        return not running or confirmed(self, "Close Align?", ALIGNING, "Stop and close")

    def _connect(self) -> None:
        self.form.changed.connect(self._examine)
        self.form.act_wanted.connect(self.align)
        # There may be an alignment in the output folder now.
        self.progress.job.ended.connect(lambda: self._look_at(self.form.choice))
        self.message.action.connect(lambda _: self.replace())
        self.moves.chosen.connect(self._read_heads)
        self.moves.view_changed.connect(self._change_view)
        self.moves.report.clicked.connect(self.open_report)
        self.moves.train.clicked.connect(self.train)
        self.on_escape(self._cancel)

    def _examine(self, choice: AlignChoice) -> None:
        self.message.clear()
        self.progress.end()
        self._look_at(choice)

    def _look_at(self, choice: AlignChoice) -> None:
        known = self.form.known
        self._look.ask(lambda control: examine(choice, known))

    def _cancel(self) -> None:
        for row in (self.progress, self.reading):  # an idle row has nothing to cancel
            row.request_cancel()

    # --- Aligning -----------------------------------------------------------------------------

    def _begin(self, force: bool) -> None:
        self.heading.hint.hide()  # whoever aligns heads is no newcomer
        self.progress.run(
            partial(align_heads, self._choice, force),
            done=self._take,
            failed=self._fail,
            cancelled=lambda: "Cancelled; nothing was written.",
        )

    def _take(self, alignment: Alignment) -> None:
        self.alignment, self._aligned = alignment, self._choice
        self.what.unfold(False)
        complete = all(scan.image is not None for scan in alignment.scans)
        self.message.show_message("ok" if complete else "warning", summary(alignment))
        dataset = self._aligned.dataset
        assert dataset is not None
        self.moves.show_alignment(alignment, remarks(alignment, self.progress.warnings, dataset))
        self.moves.table.setFocus()
        reveal(self.moves.table)

    def _fail(self, error: UserError) -> None:
        if isinstance(error.remedy, Overwrite):
            words = sentence(said(error, WORDS, remedy=False))
            self.message.show_message("warning", words, [REPLACE])
        else:
            self._say(error)

    # --- Looking ------------------------------------------------------------------------------

    def _read_heads(self, scan: AlignedScan) -> None:
        """Have a scan's heads read; only those of the latest row are shown."""
        assert self.alignment is not None
        if not self._read.running:
            self.reading.start("Reading")
        self._read.ask(partial(head_layers, self._aligned, self.alignment, scan))

    def _show_heads(self, layers: Mapping[str, LayerData]) -> None:
        self.heads.show(layers)
        self._see()

    def _fail_to_show(self, error: UserError) -> None:
        self.heads.show({})  # the heads shown are another row's
        self._say(error)

    def _change_view(self) -> None:
        scan = self.moves.scan
        if scan is not None and not self.heads.there and not self._read.running:
            self._read_heads(scan)  # the layers were removed
        else:
            self._see()

    def _see(self) -> None:
        self.heads.see(quantity_of(self.moves.view, self.moves.board.isChecked()))

    def _say(self, error: UserError) -> None:
        self.message.show_message("error", said(error, WORDS))


class HeadLayers(QObject):
    """Layers of one scan's heads, of which one is visible; another scan's replace them.

    They are added one at a time, so that the window stays responsive.

    Parameters
    ----------
    viewer
        Viewer that gets the layers.
    """

    def __init__(self, viewer: napari.Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: dict[str, Any] = {}
        self._changes = OneByOne(self)

    @property
    def busy(self) -> bool:
        """Whether layers are still being added."""
        return self._changes.busy

    @property
    def there(self) -> dict[str, Any]:
        """Layers that were not removed, by what they show."""
        return {name: each for name, each in self._layers.items() if each in self._viewer.layers}

    def show(self, layers: Mapping[str, LayerData]) -> None:
        """Show other heads, in the layers of those before where they fit."""
        self._changes.stop()
        blank = not self._viewer.layers
        there = self.there
        if there.keys() == layers.keys() and all(fits(there[name], layers[name]) for name in there):
            changes = (partial(refill, there[name], layers[name]) for name in there)
            self._changes.add(*changes)
            return
        self._changes.add(*(partial(self._remove, name) for name in self._layers))
        self._changes.add(*(partial(self._add, name, data) for name, data in layers.items()))
        if blank:  # the first layer was fitted to a larger canvas, beside no list of layers
            self._changes.add(self._viewer.reset_view)

    def see(self, quantity: str) -> None:
        """Show one of the layers: the input's where there is no such layer."""
        self._changes.add(partial(self._see, quantity))

    def _add(self, name: str, data: LayerData) -> None:
        self._layers[name] = make_layer(data)
        self._viewer.add_layer(self._layers[name])

    def _remove(self, name: str) -> None:
        take_away(self._viewer, self._layers.pop(name))

    def _see(self, quantity: str) -> None:
        there = self.there
        seen = there.get(quantity) or next(iter(there.values()), None)
        for each in there.values():
            each.visible = each is seen
        if seen is not None:
            self._viewer.layers.selection.active = seen
