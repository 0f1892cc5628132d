"""What a network predicts as it learns: one layer a target that is refreshed, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_msp.learning.events import Previewed
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.jobs import Control
from napari_msp.ui.latest import Latest
from napari_msp.ui.layers import LayerData
from napari_msp.ui.model_parts import TITLES
from napari_msp.ui.records import KEY, Record, shown_by
from napari_msp.ui.view_fit import ViewFit

QUANTITY = "SH average"

VIEW = "train"
"""Marks layers that later previews refresh."""

LEGEND = "napari_msp_learning"
"""Key of the words on the canvas among its overlays."""

GAP = 4
"""Canvas pixels between cells."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A preview that was read; with the truth's layer where that was asked for."""

    event: Previewed
    layer: LayerData
    truth: LayerData | None


class RunLayers(QObject):
    """Shows the previews of one run.

    In a viewer that is empty at first each target gets a row: truth, and what is predicted now.

    Parameters
    ----------
    viewer
        A napari viewer.
    subject
        Whose scan is predicted.
    truths
        Scan of the subject on each target.
    parent
        When it is destroyed nothing more is read.

    Signals
    -------
    failed : Failure
        A preview cannot be read; later ones may.
    """

    failed = Signal(object)

    def __init__(
        self, viewer: Any, subject: str, truths: Mapping[str, Path], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._subject, self._truths = viewer, subject, truths
        self._arranges = len(viewer.layers) == 0
        self._fit = ViewFit(viewer)
        self._limits: dict[str, tuple[float, float]] = {}
        self._seen: dict[str, Previewed] = {}
        self._reading = Latest(self, finish=True)
        self._reading.done.connect(self._show)
        self._reading.failed.connect(self.failed)

    def show(self, event: Previewed) -> None:
        """Read a preview in a thread, then show it."""
        truth = None if event.target in self._limits else self._truths.get(event.target)
        self._reading.ask(partial(read_picture, event, self._subject, truth))

    def stop(self) -> None:
        """Read no more; the layers stay, the words on the canvas go."""
        self._reading.stop()
        self._viewer.canvas.overlays.pop(LEGEND, None)

    def _show(self, picture: Picture) -> None:
        target, (data, options, _) = picture.event.target, picture.layer
        first = target not in self._seen
        self._seen[target] = picture.event
        if picture.truth is not None:
            self._limits[target] = picture.truth[1]["contrast_limits"]
            if self._named(picture.truth) is None:
                self._add(picture.truth)
        limits = self._limits.setdefault(target, options["contrast_limits"])
        layer = self._named(picture.layer)
        if layer is not None and layer.data.shape == data.shape:
            layer.data, layer.metadata = data, options["metadata"]
            layer.contrast_limits = limits
        elif first:  # later, somebody has taken it away
            if layer is not None:
                self._viewer.layers.remove(layer)
            self._add((data, options | {"contrast_limits": limits}, "image"))
            if self._arranges:
                self._arrange(options["metadata"][KEY].record.image)
        self._tell()

    def _named(self, data: LayerData) -> Any:
        """Find the layer that shows the same already."""
        wanted = data[1]["metadata"][KEY]
        for layer in self._viewer.layers:
            shown = shown_by(layer)
            if shown and (shown.view, layer.name) == (wanted.view, data[1]["name"]):
                return layer
        return None

    def _add(self, data: LayerData) -> None:
        self._viewer.add_image(data[0], **data[1]).name_overlay.visible = True

    def _arrange(self, image: SHImage) -> None:
        """Put truth and prediction side by side, a row for each target."""
        grid, layers = self._viewer.canvas.grid, self._viewer.layers
        grid.stride, grid.spacing, grid.shape, grid.enabled = 1, GAP, (-1, 2), True
        self._fit.take(list(layers), None, image)
        self._fit.fit()

    def _tell(self) -> None:
        """Say on the canvas how far each network has come."""
        from napari.components.overlays import TextOverlay

        self._viewer.canvas.overlays[LEGEND] = TextOverlay(
            text=" · ".join(_how_far(event) for event in self._seen.values()),
            position="bottom_center",
            font_size=7,
            visible=True,
        )


def read_picture(event: Previewed, subject: str, truth: Path | None, control: Control) -> Picture:
    """Read a preview, and the scan that it is to become.

    Raises
    ------
    UserError
        When either cannot be read.
    """
    from napari_msp.signal.maps import sh_average
    from napari_msp.signal.sh_image import read_sh
    from napari_msp.ui.layers import map_layer
    from napari_msp.ui.load import load_scan

    control.check()
    image = read_sh(Path(event.path))
    record = Record(subject, f"{event.target} while learning", image)
    layer = map_layer(record, QUANTITY, sh_average(image), view=VIEW)
    if truth is None:
        return Picture(event, layer, None)
    scan = load_scan(truth, image.b_value)
    return Picture(event, layer, map_layer(scan, QUANTITY, sh_average(scan.image)))


def _how_far(event: Previewed) -> str:
    if event.epoch == 0:
        return f"{event.target}: untrained"
    kind = event.phase.split(" ")[0]
    return f"{event.target}: {TITLES.get(kind, kind)}, epoch {event.epoch}, step {event.step}"
