"""Save predictions as NIfTI: the form, the work, and its result."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QPushButton, QWidget

from napari_msp.errors import Advice, Overwrite, UserError
from napari_msp.formatting import counted
from napari_msp.image_files import ImageFile
from napari_msp.ui.background import JobRow
from napari_msp.ui.docks import reveal
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.harmonize.results import ResultLayers
from napari_msp.ui.layers import titled
from napari_msp.ui.phrasing import HARMONIZE_LABELS, HARMONIZE_WORDS, said, sentence
from napari_msp.ui.reading import Control, Report
from napari_msp.ui.widgets.form import CheckList, FormRows, fit_into_form, in_row, offer, stacked
from napari_msp.ui.widgets.message import MessageLine, Notices
from napari_msp.ui.widgets.path_field import PathField

if TYPE_CHECKING:
    from napari_msp.inference.prediction import Prediction

REPLACE = "Replace them"

TABLES = {"target": "of the target", "input": "of the input scan", "file": "from a file …"}
"""Sources of the directions of the written DWI."""


class Saving(QWidget):
    """The form, and the work that it starts. Hidden until it is opened.

    Parameters
    ----------
    layers
        Layers whose predictions are saved.
    """

    def __init__(self, layers: ResultLayers) -> None:
        super().__init__()
        self._layers = layers
        self._listed: list[Prediction] = []
        self._running = False
        self._asked: partial[tuple[Path, ...]] | None = None
        self._written: list[Path] = []
        self.names = CheckList()
        self.folder = PathField("Choose a folder")
        self.table = QComboBox()
        offer(self.table, TABLES)
        fit_into_form(self.table)
        self.bvec = PathField("Choose a gradient table", "FSL directions (*.bvec *.bvecs)")
        self.button, self.close_button = QPushButton("Save"), QPushButton("Close")
        self.message = MessageLine()
        self.progress = JobRow(self, self.message)
        self._lay_out()
        self._connect()
        self._refresh()
        self.hide()

    def open(self) -> None:
        """Show the form."""
        self.list_results()
        self.show()
        self.folder.setFocus()
        reveal(self)

    def close_form(self) -> None:
        """Hide the form and its questions."""
        self.message.clear()
        self.hide()

    def list_results(self) -> None:
        """List the predictions; new ones are ticked."""
        known = self._titled
        if [id(each) for each in known.values()] != [id(each) for each in self._listed]:
            self._listed = list(known.values())
            new = [name for name in known if name not in self.names.names]
            self.names.set_names(list(known), [*self.names.checked, *new])

    def save(self) -> None:
        """Write the chosen predictions; the user is asked about files in the way."""
        names, folder = self.names.checked, self.folder.path
        assert folder is not None
        chosen = [each for title, each in self._titled.items() if title in names]
        self._asked = partial(save_all, chosen, folder, self.gradients)
        self._write(force=False)

    def replace(self) -> None:
        """Write what was asked about over the files that are there."""
        self._write(force=True)

    @property
    def gradients(self) -> str:
        """Directions of the DWI: "target", "input" or a .bvec file; "" while none is chosen."""
        table = str(self.table.currentData())
        return str(self.bvec.path or "") if table == "file" else table

    @property
    def _titled(self) -> dict[str, Prediction]:
        return titled(each.prediction for each in self._layers.results)

    def _lay_out(self) -> None:
        self.rows = FormRows(Notices())
        self.rows.add("names", "Predictions", self.names, "Each prediction gets files of its own.")
        self.rows.add(
            "folder", "F&older", self.folder, "Made if it is missing; other files in it stay."
        )
        self.rows.add(
            "table", HARMONIZE_LABELS["gradients"], self.table, tooltip("gradients"), more=self.bvec
        )
        stacked(self, self.rows, in_row(self.button, self.close_button))

    def _connect(self) -> None:
        for changed in (
            self.names.changed,
            self.folder.line.textChanged,
            self.bvec.line.textChanged,
            self.table.currentIndexChanged,
        ):
            changed.connect(lambda *_: self._change())
        self.button.clicked.connect(self.save)
        self.close_button.clicked.connect(self.close_form)
        self.message.action.connect(lambda _: self.replace())
        self.progress.reported.connect(lambda path: self._written.append(path))

    def _change(self) -> None:
        """Withdraw messages and questions about the choice before."""
        self.message.clear()
        self._refresh()

    def set_running(self, running: bool) -> None:
        """Let nothing be changed while files are written."""
        self._running = running
        self._refresh()

    def _refresh(self) -> None:
        self.bvec.setVisible(self.table.currentData() == "file")
        complete = all((self.names.checked, self.folder.path, self.gradients))
        self.rows.setEnabled(not self._running)
        self.button.setEnabled(complete and not self._running)

    def _write(self, force: bool) -> None:
        assert self._asked is not None
        self._written = []
        self.progress.run(
            partial(self._asked, force),
            "Writing",
            done=self._say_written,
            failed=self._fail,
            cancelled=lambda: f"Cancelled.{self._before}",
        )

    def _say_written(self, written: Sequence[Path]) -> None:
        words = f"{counted(len(written), 'prediction')} written to {self.folder.path}."
        self.message.show_message("ok", words)

    def _fail(self, error: UserError) -> None:
        if isinstance(error.remedy, Overwrite):
            words = sentence(said(error, HARMONIZE_WORDS, remedy=False))
            self.message.show_message("warning", words, [REPLACE])
        else:
            words = sentence(said(error, HARMONIZE_WORDS)) + self._before
            self.message.show_message("error", words)

    @property
    def _before(self) -> str:
        """Text about files that were written before the work stopped."""
        done = counted(len(self._written), "prediction")
        return f" {done} written before." if self._written else ""


def save_all(
    predictions: Sequence[Prediction], folder: Path, gradients: str, force: bool, control: Control
) -> tuple[Path, ...]:
    """Write each prediction's DWI, SH images and maps, see `napari-msp harmonize`.

    Reports `Report`, and the DWI of each prediction once it is written.

    Parameters
    ----------
    predictions
        Predictions that were made here.
    folder
        Output folder; made if it is missing.
    gradients
        Directions of the DWI: "target", "input" or a .bvec file.
    force
        Replace files that are there.

    Returns
    -------
    Paths of the DWIs.

    Raises
    ------
    UserError
        If a scan has no file, the folder cannot be written to, the table cannot be used, or any
        file is in the way: then nothing is written, unless `force` is given.
    """
    targets = _targets(predictions, folder)
    in_the_way = sum(path.exists() for path in targets)
    if in_the_way and not force:
        there = counted(in_the_way, "prediction")
        problem = f"{there} {'is' if in_the_way == 1 else 'are'} there already"
        raise UserError(problem, folder, "force", Overwrite())
    for done, (each, path) in enumerate(zip(predictions, targets, strict=True)):
        control.check()
        control.report(Report(f"Writing {each.owner}", done, len(targets)))
        each.save(path.parent, gradients=gradients, force=force)
        control.report(path)
    return targets


def _targets(predictions: Sequence[Prediction], folder: Path) -> tuple[Path, ...]:
    """Return the paths of DWIs; models of one kind write into folders of their own."""
    stems = []
    for each in predictions:
        path = None if each.source is None else each.source.path
        if path is None or each.model is None:
            remedy = Advice("save the scan first")
            raise UserError("its scan has no file to be named after", each.owner, remedy=remedy)
        stems.append(each.file_stem)
    alike = max(Counter(stems).values(), default=1) > 1
    paths = tuple(
        (folder / re.sub(r"[\W_]", "-", each.label) if alike else folder) / str(ImageFile(stem))
        for each, stem in zip(predictions, stems, strict=True)
    )
    for path, count in Counter(paths).items():
        if count > 1:
            remedy = Advice("save them one at a time")
            raise UserError(f"{count} predictions have this name", path, remedy=remedy)
    return paths
