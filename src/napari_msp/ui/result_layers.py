"""Add the layers of predictions to a viewer, one at a time so that the window can breathe."""

from __future__ import annotations

from collections import deque
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_msp.ui.harmonize_work import Predicted
from napari_msp.ui.layers import LayerData
from napari_msp.ui.records import Record, records_of, shown_by


class ResultLayers(QObject):
    """Predictions that were made here, for as long as the viewer shows them.

    Signals
    -------
    changed
        Another set of predictions is shown.
    """

    changed = Signal()

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._results: list[Predicted] = []
        self._waiting: deque[LayerData] = deque()
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._add_one)

    def add(self, result: Predicted) -> None:
        """Show a prediction in place of an older one of the same scan, model and target."""
        for layer in list(self._viewer.layers):
            shown = shown_by(layer)
            if shown and not shown.view and _same(shown.record, result.record):
                self._viewer.layers.remove(layer)
        self._results = [each for each in self._results if not _same(each.record, result.record)]
        self._results.append(result)
        self._waiting.extend(result.layers)
        self._timer.start()

    def refresh(self) -> None:
        """Forget predictions whose layers are gone."""
        if self._waiting:
            return
        shown = {id(record) for record in records_of(self._viewer.layers)}
        kept = [each for each in self._results if id(each.record) in shown]
        if len(kept) < len(self._results):
            self._results = kept
            self.changed.emit()

    def drop(self) -> None:
        """Add no more."""
        self._timer.stop()
        self._waiting.clear()

    @property
    def results(self) -> tuple[Predicted, ...]:
        """Predictions in the order they were made."""
        return tuple(self._results)

    def _add_one(self) -> None:
        from napari.layers import Layer

        self._viewer.add_layer(Layer.create(*self._waiting.popleft()))
        if not self._waiting:
            self._timer.stop()
            self.changed.emit()


def _same(one: Record, other: Record) -> bool:
    """Tell whether two predictions are of the same scan, model and target."""
    if one.source is None or other.source is None:
        return False
    return (one.owner, one.source.owner) == (other.owner, other.source.owner)
