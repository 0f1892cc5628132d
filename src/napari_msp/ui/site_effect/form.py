"""The form of Site effect: which predictions, whose scans, and which regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox

from napari_msp.evaluation.regions import TISSUE
from napari_msp.ui.widgets.form import (
    FormRows,
    fit_into_form,
    offer,
    on_enter,
    push_button,
    stacked,
)
from napari_msp.ui.widgets.message import Notices
from napari_msp.ui.widgets.path_field import FileForm, PathField

LABELS = {
    "predictions": "Fol&der",
    "datasets": "He&ads",
    "regions": "Re&gions",
    "run": "R&un",
    "input": "Inpu&t",
}
"""Labels of the rows, by the library's name of the parameter."""

TIPS = {
    "predictions": "<p>The folder that <i>cohort</i>, <i>harmonize</i> or <i>evaluate</i> wrote, "
    "with predictions of one model. If it was compared before, the result appears at once.</p>",
    "datasets": "<p>BIDS folder with the same subjects’ own scans on the target.</p>",
    "regions": "<p>A label image in the scans’ space, or a folder with one per subject "
    "(<tt>sub-01_dseg.nii.gz</tt>). Empty: white matter, grey matter and fluid.</p>",
    "run": "<p>The scan on the target to compare with, if there are several. Another one then "
    "shows by how much two scans on one scanner differ.</p>",
    "input": "<p>The scanner that predictions were made from.</p>",
}

WANTED = {
    "predictions": "Choose a folder of predictions, as cohort or Save as NIfTI made it.",
    "datasets": "Choose the BIDS folder with the same people’s own scans on the target.",
}
"""Texts about an empty entry."""

ASKED = {
    "run": "There are several scans on the target. Choose the one to compare with, and press "
    "Compare; another one then shows by how much two scans on one scanner differ.",
    "input": "Choose the scanner that predictions were made from, and press Compare.",
}
"""Texts about a question that only some heads raise."""

LABEL_IMAGES = "Label images (*.nii *.nii.gz)"


class SiteEffectForm(FileForm):
    """The form of Site effect.

    Attributes
    ----------
    folder_chosen
        Emitted when another folder is to be looked at.
    """

    folder_chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.folder = PathField("Choose a folder of predictions")
        self.heads = PathField("Choose a BIDS folder of heads")
        self.regions = PathField("Choose a label image", LABEL_IMAGES, folders=True)
        self.paths = (self.folder, self.heads, self.regions)
        self.regions.line.setPlaceholderText("white matter, grey matter, fluid")
        self.button = push_button(
            "Co&mpare", "<p>Measure every prediction beside the target’s own scan (Enter).</p>"
        )
        self.notices = Notices()
        self.rows = FormRows(self.notices)
        self.asked = {"run": QComboBox(), "input": QComboBox()}
        entries = (*self.paths, *self.asked.values())
        for name, entry in zip(LABELS, entries, strict=True):
            self.rows.add(name, LABELS[name], entry, TIPS[name])
        fit_into_form(*self.asked.values())
        self.ask_no_more()
        stacked(self, self.rows, self.button)
        self.folder.changed.connect(self._change_folder)
        self.heads.changed.connect(self.ask_no_more)
        for entry in (self.heads, self.regions):
            entry.changed.connect(self.check)
        self.button.clicked.connect(self.act)
        on_enter(self, self.act)
        self.check()

    @property
    def chosen_regions(self) -> str | Path:
        """The path of regions, or the value that stands for kinds of tissue."""
        return self.regions.path or TISSUE

    @property
    def answers(self) -> dict[str, str]:
        """Answers to the questions that had to be asked, by the library's name of the parameter."""
        return {name: box.currentText() for name, box in self.asked.items() if box.count()}

    def ask(self, name: str, choices: Sequence[str]) -> None:
        """Ask a question, with the first of the choices chosen."""
        offer(self.asked[name], choices)
        self.rows.show_row(name, True)
        self.rows.say(name, note=ASKED[name])

    def ask_no_more(self) -> None:
        """Hide questions about other scans."""
        for name, box in self.asked.items():
            offer(box, ())
            self.rows.show_row(name, False)

    def show_heads(self, heads: Path | None) -> None:
        """Fill in the heads that were predicted, unless some are chosen."""
        if self.heads.path is None:
            self.heads.show_path(heads)
        self.check()

    def set_running(self, running: bool) -> None:
        """Let nothing be changed while a comparison runs."""
        self._running = running
        self.rows.setEnabled(not running)
        self._allow()

    def check(self) -> None:
        """Remove texts about earlier choices, and enable what can be done."""
        given = {"predictions": self.folder.path, "datasets": self.heads.path}
        missing = next((name for name, path in given.items() if path is None), "")
        for name in self.rows.names:
            self.rows.say(name, note=WANTED[name] if name == missing else "")
        self._allow()

    def _allow(self) -> None:
        there = self.folder.path is not None and self.heads.path is not None
        self.button.setEnabled(there and not self._running)

    def _change_folder(self) -> None:
        self.heads.show_path(None)
        self.ask_no_more()
        self.check()
        self.folder_chosen.emit()
