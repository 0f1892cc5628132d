"""Predictions of a network as it learns: one layer per target, refreshed, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_msp.learning.events import Previewed, kind_and_targets
from napari_msp.networks.registry import title
from napari_msp.provenance import provenance_of
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.signal.maps import sh_average
from napari_msp.signal.sh_image import SHImage, load_sh
from napari_msp.ui.background import Latest, OneByOne
from napari_msp.ui.grid_fit import (
    BACKGROUND,
    GAP,
    SPACE,
    GridFit,
    remove_words,
)
from napari_msp.ui.layers import (
    LayerData,
    fits,
    is_ours,
    make_layer,
    map_layer,
    named_apart,
    refill,
    showing,
    shown_by,
    shown_in,
)
from napari_msp.ui.reading import Control
from napari_msp.ui.shared import (
    GRID_SET,
    OfViewer,
    set_values,
    shared_by,
    take_away,
    values_of,
)

if TYPE_CHECKING:
    from napari.viewer import Viewer

QUANTITY = "SH average"

ANOTHER_HEAD = "another head"
"""Name of what has the canvas once a head was opened, in place of a run's pictures."""

VIEW = "train"
"""Marks layers that later previews refresh."""


class PreviewLayers(QObject):
    """The previews of one run.

    Each target gets a row: truth, and the present prediction. Layers of others, and of earlier
    runs, are hidden meanwhile. A head that is opened replaces them all, to the end of the run.

    Parameters
    ----------
    viewer
        A napari viewer.
    subject
        Subject whose scan is predicted.
    truths
        Scan of the subject on each target.
    parent
        Owner; when it is destroyed nothing more is read.

    Attributes
    ----------
    failed : UserError
        Emitted when a preview cannot be read; later ones may.
    kept_out : str
        Emitted with the name of what has the canvas, so that previews wait; "" when they wait no
        more. `ANOTHER_HEAD` while the run goes on and they are refreshed out of sight.
    """

    failed = Signal(object)
    kept_out = Signal(str)

    def __init__(
        self, viewer: Viewer, subject: str, truths: Mapping[str, Path], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._viewer, self._subject, self._truths = viewer, subject, truths
        self._own: list[Any] = []
        self._fit = GridFit(viewer)
        self._pictures: dict[str, PreviewPicture] = {}  # the latest of each target
        self._shared, self._kept_out = shared_by(viewer), ""
        self._made_way = self._finished = False
        self._changes = OneByOne(self)
        self._reading: dict[str, Latest] = {}
        viewer.canvas.events.size.connect(self._follow)
        self._grid = self._shared.one(PreviewGrid)
        self._grid.made_way.connect(self._make_way)
        self._shared.changed.connect(self._follow_owner)

    def show(self, event: Previewed) -> None:
        """Read a preview in a thread, then show it."""
        if event.target not in self._reading:
            reading = Latest(self, self._plan, self.failed.emit, finish=True)
            self._reading[event.target] = reading
        truth = None if event.target in self._pictures else self._truths.get(event.target)
        self._reading[event.target].ask(partial(read_picture, event, self._subject, truth))

    def finish(self) -> None:
        """Report no more that a head has replaced the pictures: the run has ended."""
        self._finished = True
        self._tell_who_has_it()

    def stop(self) -> None:
        """Stop showing previews; the layers stay, the words on the canvas go."""
        for reading in self._reading.values():
            reading.stop()
        self._changes.stop()
        self._viewer.canvas.events.size.disconnect(self._follow)
        self._grid.made_way.disconnect(self._make_way)
        self._shared.changed.disconnect(self._follow_owner)
        self._pictures.clear()
        self._tell_who_has_it()
        if not self._shared.owner:
            remove_words(self._viewer)

    def _plan(self, picture: PreviewPicture) -> None:
        """Show a picture in steps: a new layer takes the window a tenth of a second."""
        target = picture.event.target
        before = self._pictures.get(target)
        if before is not None:
            picture = replace(picture, truth=before.truth)
        self._pictures[target] = picture
        self._tell_who_has_it()
        if before is None and picture.truth is not None:
            self._changes.add(partial(self._add_truth, picture.truth))
        self._changes.add(partial(self._refresh, picture, first=before is None))
        self._changes.add(partial(self._arrange, picture), self._show_legend)

    def _add_truth(self, truth: LayerData) -> None:
        if showing(self._viewer.layers, truth) is None:
            self._add(truth)

    def _refresh(self, picture: PreviewPicture, first: bool) -> None:
        cell, layer = picture.layer, self._learning(picture.layer)
        truth = None if picture.truth is None else showing(self._viewer.layers, picture.truth)
        if first and truth is not None:  # the user may have changed its contrast
            data, options, kind = cell
            cell = data, options | {"contrast_limits": truth.contrast_limits}, kind
        if layer is not None and fits(layer, cell):
            refill(layer, cell, before=None if first else cell)
        elif first:  # else it was removed
            if layer is not None:
                take_away(self._viewer, layer)
            self._add(cell)

    def _learning(self, data: LayerData) -> Any:
        """Return the layer of the target's previews, of this run or an earlier one."""
        for layer in self._viewer.layers:
            shown = shown_by(layer)
            if shown and shown.view == VIEW and shown.scan.owner == shown_in(data).scan.owner:
                return layer
        return None

    def _add(self, data: LayerData) -> None:
        if not shown_in(data).view:  # a head of another training may have the same name
            (data,) = named_apart(self._viewer.layers, [data])
        layer = make_layer(data)
        layer.visible = False  # until it has its place in the grid
        self._viewer.add_layer(layer)

    def _arrange(self, picture: PreviewPicture) -> None:
        """Put truth and prediction side by side, one row per target, and nothing else.

        They wait while a review or a comparison has the viewer, and make way for a head for good.
        """
        viewer, layers = self._viewer, self._viewer.layers
        truth = None if picture.truth is None else showing(layers, picture.truth)
        pair = (truth, self._learning(picture.layer))
        new = [each for each in pair if each is not None and each not in self._own]
        if self._shared.owner or self._made_way or not new:
            return
        first = not self._own
        self._own = [each for each in (*self._own, *new) if each in layers]
        for layer in layers:
            layer.visible = layer in self._own
        # In order at the end of the list, since the grid follows the order of layers.
        for layer in self._own:
            layers.move(layers.index(layer), len(layers))
            layer.name_overlay.visible = True
        self._grid.lay_out()
        viewer.dims.ndisplay = 2
        if first:  # other layers may have left the slider outside the brain
            low, high = self._own[-1].extent.world
            axes = range(viewer.dims.ndim - len(low), viewer.dims.ndim)
            viewer.dims.set_point(axes, [float(each) for each in (low + high) / 2])
        self._fit.take(self._own, picture.image)
        self._fit.fit()

    def _show_legend(self) -> None:
        """Write on the canvas how far each network has come, where previews are laid out."""
        from napari_msp.ui.canvas_drawing import show_legend  # imports napari's private parts

        if self._shared.owner or not self._grid.laid_out:
            return
        words = (how_far(each.event) for each in self._pictures.values())
        show_legend(self._viewer, SPACE.join(words))
        self._fit.follow()

    def _follow(self) -> None:
        if not self._shared.owner and self._grid.laid_out:
            self._fit.follow()

    def _make_way(self) -> None:
        self._made_way = True
        self._tell_who_has_it()

    def _follow_owner(self) -> None:
        """Lay out what waited, once the canvas is free and earlier changes are done."""
        self._tell_who_has_it()
        if not self._shared.owner and self._pictures:
            arranging = (partial(self._arrange, each) for each in self._pictures.values())
            self._changes.add(*arranging, self._show_legend)

    def _tell_who_has_it(self) -> None:
        head = ANOTHER_HEAD if self._made_way and not self._finished else ""
        owner = (self._shared.owner or head) if self._pictures else ""
        if owner != self._kept_out:
            self._kept_out = owner
            self.kept_out.emit(owner)


class PreviewGrid(OfViewer):
    """The grid of a viewer's previews, as long as one of them is there.

    It outlives runs and their widget: previews stay on the canvas after both, until another head
    comes.

    Attributes
    ----------
    made_way
        Emitted when a head has replaced the previews.
    """

    made_way = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._before: tuple[dict[str, Any], Any] | None = None
        self._shared = shared_by(viewer)
        self._shared.changed.connect(self._tidy)
        viewer.layers.events.removed.connect(self._tidy)
        viewer.layers.events.inserted.connect(self._come)

    @property
    def laid_out(self) -> bool:
        """Whether the grid is laid out on the canvas."""
        return self._before is not None

    def lay_out(self) -> None:
        """Put truth and prediction of each target into a row."""
        canvas = self._viewer.canvas
        if self._before is None:
            self._before = values_of(canvas.grid, GRID_SET), canvas.background_color_override
        canvas.background_color_override = BACKGROUND
        rows = {"stride": 1, "shape": (-1, 2), "spacing": GAP, "enabled": True}
        set_values(canvas.grid, rows)

    def give_back(self) -> None:
        """Restore the canvas as it was before, without the texts about previews."""
        if self._before is not None:
            grid, background = self._before
            self._before = None
            remove_words(self._viewer)
            set_values(self._viewer.canvas.grid, grid)
            self._viewer.canvas.background_color_override = background
            self._viewer.reset_view()

    def make_way(self, head: Any = None) -> None:
        """Show a head's layer alone, where previews are visible; None: no layer yet."""
        if self.laid_out and not self._shared.owner:
            for layer in self._viewer.layers:
                layer.visible = layer is head
            self.give_back()
            self.made_way.emit()

    def _come(self, event: Any) -> None:
        if event.value.visible and is_ours(event.value):  # our own come hidden
            self.make_way(event.value)

    def _tidy(self, event: Any = None) -> None:
        shown = (shown_by(layer) for layer in self._viewer.layers)
        if not self._shared.owner and not any(each and each.view == VIEW for each in shown):
            self.give_back()


@dataclass(frozen=True, eq=False)
class PreviewPicture:
    """A preview that was read.

    Attributes
    ----------
    image
        The prediction.
    layer
        Layer of its SH average, with the contrast of the truth where that was asked for.
    truth
        Layer of the truth; None where it was not asked for.
    """

    event: Previewed
    image: SHImage
    layer: LayerData
    truth: LayerData | None


def read_picture(
    event: Previewed, subject: str, truth: Path | None, control: Control
) -> PreviewPicture:
    """Read a preview, and the scan that it is to become.

    Raises
    ------
    UserError
        If either cannot be read.
    """
    control.check()
    image = load_sh(Path(event.path))
    shown = limits = None
    if truth is not None:
        scan = load_scan(truth, image.b_value)
        shown = map_layer(scan, QUANTITY, sh_average(scan.sh))
        limits = shown[1]["contrast_limits"]
    made = provenance_of(Path(event.path))
    scan = Scan(given_sh=image, given_subject=subject, provenance=made)
    layer = map_layer(scan, QUANTITY, sh_average(image), limits=limits, view=VIEW)
    return PreviewPicture(event, image, layer, shown)


def how_far(event: Previewed) -> str:
    """Return how far the network of a preview has come, such as "prisma_st: untrained"."""
    if event.epoch == 0:
        return f"{event.target}: untrained"
    network = title(kind_and_targets(event.phase)[0])
    return f"{event.target}: {network}, epoch {event.epoch}, step {event.step}"
