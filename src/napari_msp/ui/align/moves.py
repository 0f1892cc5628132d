"""The result of an alignment: one row per scan, doubts in words, and views of a row's heads."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QCheckBox, QWidget

from napari_msp.alignment.report import AlignedScan, Alignment, distance_text, table_csv
from napari_msp.checking.summary import ScanComparison
from napari_msp.ui.align.aligning import View
from napari_msp.ui.widgets.colours import Themed, colours_of
from napari_msp.ui.widgets.form import in_row, push_button, stacked
from napari_msp.ui.widgets.message import MessageLine, Sentences
from napari_msp.ui.widgets.reading_table import ReadingTable, Text

FEWEST_ROWS = 8
"""Number of rows that are visible at once in a low window."""

PADDING = 8
"""Pixels of a row above and below its letters: more rows are visible than with the usual height."""

WIDTHS = ("sub-01 ge_st", "sub-01 connectom_sa")
"""Texts whose widths are the least and the largest width of the column of names."""

HEADERS: Sequence[Text] = (
    ("scan", ""),
    ("shift\nmm", "<p>How far the brain's centre was moved.</p>"),
    ("turn\n°", "<p>How far the head was turned.</p>"),
    (
        "away\nbefore\nvoxels",
        "<p>How far shift and turn move the brain on average, in voxels of the input.</p>",
    ),
    (
        "away\nafter\nvoxels",
        "<p>The same, measured again on the written scan. It reveals failures of half a voxel or "
        "more; do not read the last hundredths into it. On simulated heads 0.02 voxels were truly "
        "left.</p>",
    ),
)

VIEWS: Sequence[tuple[View, str, str]] = (
    ("input", "Inp&ut", "The b=0 image of the input, with which the scan was aligned."),
    ("before", "&Before", "The scan's b=0 image before the alignment."),
    ("after", "&After", "The scan's b=0 image after the alignment."),
)

SELECT = "Select a row to see its head with the input's."


class Moves(Themed):
    """The table and its views; hidden until there is something to show.

    Ctrl+C copies the selected rows, or all, with full precision for a spreadsheet.

    Attributes
    ----------
    words
        Message with the doubts, to be placed in the widget's message area.
    chosen : AlignedScan
        Emitted with the scan of another row, if it was written.
    view_changed
        Emitted when another view of the scan is to be shown.
    """

    chosen = Signal(object)
    view_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._scans: Sequence[AlignedScan] = ()
        self._source = ""
        self._doubted: dict[str, str] = {}
        self.table = ReadingTable("Scans aligned with the input", WIDTHS, FEWEST_ROWS)
        lines = self.table.verticalHeader()
        lines.setMinimumSectionSize(0)
        lines.setDefaultSectionSize(self.fontMetrics().height() + PADDING)
        self.hint = Sentences(SELECT)
        self.words = MessageLine()
        self.views = {view: push_button(text, tip) for view, text, tip in VIEWS}
        self._one_of_them = QButtonGroup(self)
        for button in self.views.values():
            button.setCheckable(True)
            self._one_of_them.addButton(button)
        self.views["after"].setChecked(True)
        self.board = QCheckBox("Chec&kerboard with the input")
        self.board.setToolTip(
            "<p>Show squares of 15 mm from the input and from the scan in turn.</p>"
        )
        self.seen = QWidget()
        stacked(self.seen, in_row(*self.views.values()), self.board)
        self.report = push_button(
            "Ope&n report", "Show every scan before and after, in the browser."
        )
        self.train = push_button("Us&e in Train", "Open Train with the aligned dataset.")
        buttons = in_row(self.report, self.train)
        stacked(self, self.table, self.hint, self.seen, buttons).setStretch(0, 1)
        self.table.itemSelectionChanged.connect(self._choose)
        self._one_of_them.buttonClicked.connect(lambda _: self._change_view())
        self.board.toggled.connect(lambda _: self.view_changed.emit())
        self.hide()

    @property
    def view(self) -> View:
        """The image that is to be shown."""
        return next(view for view, button in self.views.items() if button.isChecked())

    @property
    def scan(self) -> AlignedScan | None:
        """The scan of the selected row; None where none is selected, or it was left out."""
        rows = self.table.chosen_rows()
        if len(rows) != 1:
            return None
        scan = self._scans[rows[0]]
        return scan if scan.image is not None else None

    def show_alignment(self, alignment: Alignment, remarks: Sequence[str]) -> None:
        """Show the moves of an alignment, and doubts as sentences."""
        self._scans, self._source = alignment.scans, alignment.input_platform
        told: dict[str, list[str]] = {}
        for finding in alignment.findings:
            told.setdefault(finding.where, []).append(finding.problem)
        self._doubted = {where: "\n".join(problems) for where, problems in told.items()}
        rows = [self._row(scan) for scan in alignment.scans]
        self.table.clearSelection()
        self.table.fill(HEADERS, rows, list(csv.reader(io.StringIO(table_csv(self._scans)))))
        self.table.setMinimumWidth(self.table.sizeHint().width())
        self.words.show_message("warning", "\n".join(remarks))
        self.restyle()
        self.show()
        self._choose()

    def restyle(self) -> None:
        """Colour doubtful rows."""
        colours = colours_of(self)
        for row, scan in enumerate(self._scans):
            doubted = scan.name in self._doubted
            for column in range(self.table.columnCount()):
                item = self.table.item(row, column)
                item.setForeground(colours.warning if doubted else colours.text)

    def _row(self, scan: AlignedScan) -> list[Text]:
        doubt = self._doubted.get(scan.name, "")
        if scan.image is None:
            return [(scan.name, doubt), ("left out", doubt), *[("–", doubt)] * 3]
        if scan.platform == self._source:
            return [
                (scan.name, "Others are aligned with it."),
                *[("–", "It stays where it was.")] * 4,
            ]
        texts = [*_moved(scan.before), _away(scan.before), _away(scan.after)]
        return [(scan.name, doubt), *((text, doubt) for text in texts)]

    def _choose(self) -> None:
        scan = self.scan
        self.seen.setVisible(scan is not None)
        self.hint.setVisible(scan is None)
        if scan is not None:
            self._allow_views()
            self.chosen.emit(scan)

    def _change_view(self) -> None:
        self._allow_views()
        self.view_changed.emit()

    def _allow_views(self) -> None:
        """Offer the views there are: the input has no before and after, and no checkerboard."""
        moved = self.scan is not None and self.scan.platform != self._source
        for view in ("before", "after"):
            self.views[view].setEnabled(moved)
        self.board.setEnabled(moved and self.view != "input")


def _moved(before: ScanComparison | None) -> list[str]:
    move = None if before is None else before.displacement
    if move is None:
        return ["–", "–"]
    return [f"{np.linalg.norm(move.shift):.1f}", f"{move.angle:.1f}"]


def _away(of: ScanComparison | None) -> str:
    return "–" if of is None or of.distance is None else distance_text(of.distance)
