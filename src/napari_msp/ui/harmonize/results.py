"""Results of a run: a row for each prediction, and its layers in the viewer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QWidget

from napari_msp.formatting import SH_MSE_EXPONENT, SQUARED_ERROR, power_of_ten
from napari_msp.ui.background import OneByOne
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.harmonize.run import Predicted, notes_of
from napari_msp.ui.layers import (
    LayerData,
    fits,
    made_here,
    make_layer,
    named_apart,
    refill,
    same_source,
    scans_of,
    shown_by,
    shown_in,
)
from napari_msp.ui.shared import hide_other_heads, take_away
from napari_msp.ui.widgets.form import in_row, push_button, stacked
from napari_msp.ui.widgets.message import MessageLine, readable
from napari_msp.ui.widgets.reading_table import ReadingTable, Text

if TYPE_CHECKING:
    import napari

    from napari_msp.inference.prediction import Prediction
    from napari_msp.scan import Scan


HEADERS: tuple[Text, ...] = (
    ("prediction", ""),
    ("before", "<p>SH MSE of the scan itself, left as it is.</p>"),
    (f"SH MSE\n{power_of_ten(SH_MSE_EXPONENT)}\n{SQUARED_ERROR}", tooltip("SH MSE")),
    ("change\n%", "<p>Error above (▲) or below (▼) that of the scan itself. Less is better.</p>"),
)

SHORTEST_NAME, LONGEST_NAME = "MSP → prisma", "MSP → connectom_sa"


class ResultRows(QWidget):
    """One row for each prediction; hidden while there is none.

    Parameters
    ----------
    saving
        Form that saves them, placed under its button.
    """

    def __init__(self, saving: QWidget) -> None:
        super().__init__()
        self.scan = readable()
        self.scan.setTextFormat(Qt.PlainText)
        self.table = ReadingTable("Predictions", (SHORTEST_NAME, LONGEST_NAME))
        self.notes = MessageLine()
        self.compare = push_button(
            "Compa&re", "Show the predictions beside the truth, as in Fig. 3."
        )
        self.save = push_button("Save as &NIfTI …", "Write DWI, SH image and maps as files.")
        # Above the rows, of which each prediction makes one more.
        buttons = in_row(self.compare, self.save)
        stacked(self, buttons, saving, self.scan, self.table, self.notes)
        self.show_results("", (), ())

    def show_results(self, scan: str, rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        """Show the scan that they were made from, a row for each prediction, and notes on them."""
        self.scan.setText(f"Made from {scan}:")
        titles = [title.replace("\n", " ") for title, _ in HEADERS]
        self.table.fill(HEADERS, [[(text, "") for text in row] for row in rows], [titles, *rows])
        self.notes.show_message("warning", "\n".join(notes))
        self.setVisible(bool(rows))


def notes_on(results: Sequence[Predicted]) -> list[str]:
    """Return the notes on predictions as lines, each with its models unless all share it."""
    whose: dict[str, list[str]] = {}
    for each in results:
        for note in each.notes:
            whose.setdefault(note, []).append(each.prediction.label)
    lines = []
    for note, labels in whose.items():
        told = len(labels) == len(results) or note.startswith(labels[0])
        lines.append(note if told else f"{', '.join(dict.fromkeys(labels))}: {note}")
    return [f"• {line}" for line in lines] if lines[1:] else lines


class ResultLayers(QObject):
    """Predictions in the viewer: those made here, and those that it showed before.

    Layers are added one at a time, so that the window stays responsive.

    Attributes
    ----------
    changed
        Emitted when another set of predictions is shown.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._results = [
            Predicted(scan, (), None, notes_of(scan))
            for scan in scans_of(viewer.layers)
            if made_here(scan)
        ]
        self._changes = OneByOne(self)
        self._changes.rested.connect(self.changed)

    @property
    def results(self) -> tuple[Predicted, ...]:
        """Predictions in the order they were made."""
        return tuple(self._results)

    @property
    def busy(self) -> bool:
        """Whether layers are still being added."""
        return self._changes.busy

    def add(self, result: Predicted) -> None:
        """Show a prediction, in the layers of an older one of the same scan, model and target."""
        older = self._older(result.prediction)
        for data in named_apart(self._viewer.layers, result.layers):
            layer = older.get(shown_in(data).quantity)
            if layer is not None and fits(layer, data):
                older = {name: each for name, each in older.items() if each is not layer}
                self._changes.add(partial(refill, layer, data))
            else:
                self._changes.add(partial(self._add, data))
        self._changes.add(*(partial(take_away, self._viewer, layer) for layer in older.values()))
        new = result.prediction
        self._results = [each for each in self._results if not _same(each.prediction, new)]
        self._results.append(result)

    def finish(self) -> None:
        """Show at once what waits: of a prediction all layers are shown, or none."""
        self._changes.finish()

    def refresh(self) -> None:
        """Drop predictions whose layers are gone."""
        if self.busy:
            return
        shown = {id(scan) for scan in scans_of(self._viewer.layers)}
        kept = [each for each in self._results if id(each.prediction) in shown]
        if len(kept) < len(self._results):
            self._results = kept
            self.changed.emit()

    def _add(self, data: LayerData) -> None:
        hide_other_heads(self._viewer, shown_in(data).scan.subject)
        self._viewer.add_layer(make_layer(data))

    def _older(self, prediction: Prediction) -> dict[str, Any]:
        """Return layers of older predictions of the same scan, model and target, by quantity."""
        shown = ((layer, shown_by(layer)) for layer in self._viewer.layers)
        return {
            each.quantity: layer
            for layer, each in shown
            if each is not None and not each.view and _same(each.scan, prediction)
        }


def _same(scan: Scan, prediction: Prediction) -> bool:
    """Return whether a scan is a prediction of the same scan, model and target."""
    if not made_here(scan):
        return False
    return scan.owner == prediction.owner and same_source(scan, prediction)
