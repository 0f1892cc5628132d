"""The Regions tab: values of a comparison's images in each region of a napari Labels layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QSizePolicy
from superqt.utils import signals_blocked

from napari_msp.arrays import IntArray
from napari_msp.data.lattice import Lattice
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.region_numbers import COLUMNS, Measurable, RegionNumbers, region_numbers
from napari_msp.evaluation.regions import Regions, read_regions
from napari_msp.formatting import NumberFormat
from napari_msp.signal.glyphs import Picture
from napari_msp.signal.maps import MAPS, Map
from napari_msp.ui.background import Latest, paced
from napari_msp.ui.compare.compared import Compared
from napari_msp.ui.compare.glyphs import GlyphDrawing, picture_on
from napari_msp.ui.compare.viewer_grid import ViewerGrid
from napari_msp.ui.layers import REGION_NAMES, labels_layer, lattice_of
from napari_msp.ui.phrasing import FormWords, said, sentence
from napari_msp.ui.reading import Control
from napari_msp.ui.viewer_axes import from_shown, in_voxels, shown_affine, spatial, to_shown
from napari_msp.ui.widgets.colours import Themed, colours_of
from napari_msp.ui.widgets.form import fit_into_form, in_row, push_button, stacked
from napari_msp.ui.widgets.message import MessageLine, Sentences
from napari_msp.ui.widgets.plot import StillPlot
from napari_msp.ui.widgets.reading_table import ReadingTable, Text

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

NONE = "none"

NOTHING = "Choose labels, open an atlas or a bundle’s mask, or draw regions of your own."

PAINT = "Paint in the picture; press Draw again for the comparison."

PACE = 150
"""Milliseconds between measurements while the user paints."""

SHORTEST_NAME, LONGEST_NAME = "MSP α=0.26", "truth sub-01 prisma_st"
"""Texts whose widths are the least and the largest width of the column of images."""

OVERLAY = "napari_msp_regions"
"""Key among a layer's overlays."""

EDGE, INSIDE = 230, 70
"""Opacity of regions in the cells, of 255 (our choice)."""

WORDS = FormWords({})
"""Words without labels: no parameter is filled in here."""

_Found = tuple[RegionNumbers, Regions, list[tuple[Lattice, IntArray]]]

LABEL_IMAGES = "Label images (*.nii *.nii.gz);;All files (*)"


def regions_of(layer: Labels, reference: Lattice) -> Regions:
    """Return the regions of a Labels layer.

    Parameters
    ----------
    layer
        Labels layer of the plugin, or one that lies in the viewer as the reference does.
    reference
        Lattice whose axes are the viewer's.

    Raises
    ------
    UserError
        If the layer has not three axes, or nothing is labelled.
    """
    labels = np.asarray(layer.data)
    if labels.ndim != 3:
        remedy = Advice("draw on labels with three axes")
        raise UserError(f"has {labels.ndim} axes", layer.name, remedy=remedy)
    own = lattice_of(layer)
    if own is not None:
        labels, affine = from_shown(labels, own), own.affine
    else:
        ends = [*np.eye(3), np.zeros(3)]
        *steps, first = (in_voxels(layer.data_to_world(tuple(end)), reference) for end in ends)
        to_reference = np.eye(4)
        to_reference[:3] = np.column_stack([*(step - first for step in steps), first])
        affine = shown_affine(reference) @ to_reference
    there = [int(each) for each in np.unique(labels) if each > 0]
    if not there:
        remedy = Advice("paint on it, or choose another")
        raise UserError("has no label yet: every voxel is 0", layer.name, remedy=remedy)
    names = layer.metadata.get(REGION_NAMES, {})
    return Regions(labels, {each: names.get(each, f"label {each}") for each in there}, affine)


def measurables(compared: Compared, shown: Map, regions: Regions) -> Iterator[Measurable]:
    """Yield the images of a comparison to measure: FA in place of maps in colours."""
    chosen = MAPS["fa"] if shown.coloured else shown
    comparison, order = compared.comparison, ("truth", "input", "prediction")
    here = regions.on(comparison.lattice)
    for each in sorted(compared.images, key=lambda each: order.index(each.role)):
        is_input = each.role == "input"
        maps = (compared.before or each.maps) if is_input else each.maps
        alike = maps.image.lattice.matches(comparison.lattice)
        mask = comparison.mask & maps.image.mask if alike else maps.image.mask
        against = comparison.truth if alike and each.role != "truth" else None
        there = here if alike else regions.on(maps.image.lattice)
        own = None if is_input else maps.image.mask
        yield Measurable.of(each.title, maps, chosen, mask, there, against, own)


def volume_of(regions: Regions, lattice: Lattice) -> IntArray:
    """Return regions in the order of layers on a lattice; 0 outside all of them."""
    try:
        labels: Any = regions.on(lattice).labels
    except UserError:  # the image lies elsewhere, as its cell shows
        labels = np.zeros(lattice.shape, dtype=np.int32)
    shown: IntArray = to_shown(labels, lattice)
    return shown


def picture_of(labels: IntArray, colours: Callable[[IntArray], Any]) -> Picture:
    """Paint a slice of labels: thinly inside, strongly at the edges of regions."""
    beside = np.pad(labels, 1)
    edge = np.zeros(labels.shape, dtype=bool)
    for part in (np.s_[2:, 1:-1], np.s_[:-2, 1:-1], np.s_[1:-1, 2:], np.s_[1:-1, :-2]):
        edge |= beside[part] != labels
    picture = (np.asarray(colours(labels), dtype=float) * 255).astype(np.uint8)
    picture[..., 3] = np.where(labels > 0, np.where(edge, EDGE, INSIDE), 0)
    return picture


class RegionsTab(Themed):
    """The measurement of regions, in a thread, whenever they, the images or the map change.

    Meanwhile earlier numbers of other images are greyed, and can never be saved.

    Parameters
    ----------
    viewer
        Viewer whose Labels layers are offered.
    grid
        Grid that steps aside while the user draws.
    """

    failed = Signal(object)

    def __init__(self, viewer: Viewer, grid: ViewerGrid) -> None:
        super().__init__()
        self._viewer, self._grid = viewer, grid
        self._compared: Compared | None = None
        self._map: Map | None = None
        self._layer: Labels | None = None
        self._offered: list[Labels] = []
        self.numbers: RegionNumbers | None = None
        self._stale = False
        self._regions: Regions | None = None
        self._volumes: list[tuple[Lattice, IntArray]] = []
        self.labels = QComboBox()
        self.labels.setAccessibleName("Labels")
        fit_into_form(self.labels)
        self.open = push_button("Open …", "<p>Open a label image in the space of the scans.</p>")
        self.new = push_button("New", "<p>Make empty labels in the voxels of the comparison.</p>")
        self.draw = push_button(
            "&Draw",
            "<p>Show one image with its labels, to paint on; press again for the comparison.</p>",
        )
        self.draw.setCheckable(True)
        self.save = push_button("Save re&gions …", "<p>Save numbers and histograms as CSV.</p>")
        self.words, self.message = Sentences(NOTHING), MessageLine()
        widths = SHORTEST_NAME, LONGEST_NAME
        self.table = ReadingTable("Images in regions", widths, fewest_rows=8)
        self.key = Sentences()  # above the plot, where it hides no curves
        self.histogram = StillPlot()
        self._work = Latest(self, self._take, self._fail)
        self._reading = Latest(self, lambda read: self._add(*read), self.failed.emit)
        self._pace = paced(self, PACE, self.measure)
        self._lay_out()
        self._connect()
        self._list()
        self._show()

    def follow(self, compared: Compared, shown: Map) -> None:
        """Measure the images of a comparison, in the map that is shown."""
        if compared is not self._compared or shown is not self._map:
            self._compared, self._map = compared, shown
            self.table.setEnabled(False)  # numbers of other images, until these are measured
            self.measure()
        if not self._grid.aside:  # another map or image has brought all cells back
            self.draw.setChecked(False)
        self.paint()

    def stop(self) -> None:
        """Drop everything except the labels, which are the viewer's."""
        self._work.stop()
        self.draw.setChecked(False)
        self._compared, self._map = None, None
        self._show_found(None, None)

    def paint(self) -> None:
        """Show the regions of the slice in every cell, unless they are being drawn."""
        regions, layer, dims = self._regions, self._layer, self._viewer.dims
        axis, rows, columns = spatial(dims.order)
        for cell in self._grid.there:  # without layers, the viewer has only two axes
            lattice = None if regions is None or layer is None else lattice_of(cell)
            if lattice is None or layer is None or self.draw.isChecked() or dims.ndisplay != 2:
                if OVERLAY in cell._overlays:
                    picture_on(cell, OVERLAY).drawing = None
                continue
            volume = self._volume(lattice)
            at = in_voxels(dims.point[-3:], lattice)[axis]
            overlay = picture_on(cell, OVERLAY, smooth=False)
            if not 0 <= round(at) < volume.shape[axis]:
                overlay.drawing = None
                continue
            seen = np.take(volume, round(at), axis=axis)
            seen = seen if rows < columns else seen.T
            overlay.drawing = GlyphDrawing(picture_of(seen, layer.colormap.map), (0, 0), (1, 1), 0)

    def _volume(self, lattice: Lattice) -> IntArray:
        """Return the regions in the order of layers on a lattice."""
        for known, volume in self._volumes:
            if known.matches(lattice):
                return volume
        assert self._regions is not None
        volume = volume_of(self._regions, lattice)
        self._volumes.append((lattice, volume))
        return volume

    def measure(self) -> None:
        """Measure the present regions."""
        compared, shown, layer = self._compared, self._map, self._layer
        if compared is None or shown is None or layer is None:
            self._work.stop()
            self._show_found(None, None)
            return
        self._stale = True
        self._enable()
        lattices = [lattice_of(cell) for cell in self._grid.layers]

        def work(control: Control) -> _Found:
            regions = regions_of(layer, compared.comparison.lattice)
            volumes: list[tuple[Lattice, IntArray]] = []
            for each in lattices:
                if each is not None and not any(each.matches(known) for known, _ in volumes):
                    volumes.append((each, volume_of(regions, each)))
            return region_numbers(measurables(compared, shown, regions)), regions, volumes

        self._work.ask(work)

    def restyle(self) -> None:
        """Draw in the theme's colours."""
        self.histogram.paint_frame(colours_of(self))
        self._draw_histogram()

    def _show(self) -> None:
        numbers = self.numbers
        there = numbers is not None and bool(numbers.tables)
        self.table.setVisible(there)
        self.histogram.setVisible(there)
        self.key.setVisible(there)
        self._say_what_to_do()
        if numbers is not None and there:
            label = COLUMNS.index("label")
            records = sorted(numbers.records(), key=lambda row: row[label])  # as shown
            self.table.fill(*_texts(numbers), [COLUMNS, *records])
        self._warn_of_numbers()
        self.paint()
        self._enable()
        self._draw_histogram()

    def _say_what_to_do(self) -> None:
        """Say how to get regions and, while the user draws, how to end it."""
        if self._compared is None:
            words = "Regions are measured while a comparison is shown."
        elif self.draw.isChecked():
            words = PAINT
        else:
            words = NOTHING if self._layer is None else ""
        self.words.setText(words)
        self.words.setVisible(bool(words))

    def _draw_histogram(self) -> None:
        """Draw the voxels of the selected region: one curve per image."""
        self.histogram.clear()
        numbers = self.numbers
        if numbers is None or not numbers.tables:
            return
        tables = list(numbers.tables.items())
        row = max(self.table.currentRow(), 0)
        region = min(row // (len(tables) + 1), len(tables[0][1].rows) - 1)
        series, key = colours_of(self).series, []
        for n, ((image, _), table) in enumerate(tables):
            counts = table.rows[region].histogram
            colour = series[n % len(series)]
            pen = pg.mkPen(colour, width=1.6)
            key.append(f'<font color="{pg.mkColor(colour).name()}">▬</font> {escape(image)}')
            self.histogram.plot(table.edges, counts, stepMode="center", pen=pen)
        self.key.setText(" &nbsp; ".join(key))
        named, unit = _named(numbers)
        self.histogram.setLabel("bottom", f"{named} in {unit}: {tables[0][1].rows[region].name}")

    def _take(self, found: _Found) -> None:
        numbers, regions, self._volumes = found
        self._show_found(numbers, regions)

    def _show_found(self, numbers: RegionNumbers | None, regions: Regions | None) -> None:
        self.numbers, self._regions, self._stale = numbers, regions, False
        self.table.setEnabled(True)
        self._show()

    def _fail(self, error: UserError) -> None:
        """Say here why there are no numbers: it goes when something is painted."""
        self._show_found(None, None)
        self.message.show_message("warning", sentence(said(error, WORDS)))

    def _warn_of_numbers(self) -> None:
        """Say what numbers leave out, and of which labels: it is visible under other tabs, too."""
        words = "" if self.numbers is None else "; ".join(self.numbers.notes)
        named = "" if self._layer is None else self._grid.lease.name_of(self._layer)
        self.message.show_message("warning", f"{named}: {words}" if words else "")

    def _list(self) -> None:
        """Offer the viewer's labels."""
        from napari.layers import Labels

        self._offered = [each for each in self._viewer.layers if isinstance(each, Labels)]
        if self._layer is not None and self._layer not in self._offered:
            self._choose(None)
        with signals_blocked(self.labels):
            self.labels.clear()
            self.labels.addItems([NONE, *map(self._grid.lease.name_of, self._offered)])
            self.labels.setCurrentIndex([None, *self._offered].index(self._layer))

    def _choose(self, layer: Labels | None) -> None:
        """Follow other labels, or none."""
        if self._layer is not None:
            for event in self._changes(self._layer):
                event.disconnect(self._follow_labels)
            if self._layer in self._viewer.layers:
                self._layer.mode = "pan_zoom"
        self._layer = layer
        if layer is not None:
            for event in self._changes(layer):
                event.connect(self._follow_labels)
            if self.draw.isChecked():  # the brush moves on to these
                self._set_drawing(True)
        else:
            self.draw.setChecked(False)
        self.table.setEnabled(False)
        self.measure()

    def _changes(self, layer: Labels) -> list[Any]:
        return [layer.events.paint, layer.events.labels_update, layer.events.set_data]

    def _follow_labels(self, event: Any = None) -> None:
        self._stale = self._layer is not None and self._compared is not None
        self._enable()
        self._pace.throttle()

    def _enable(self) -> None:
        compared = self._compared is not None
        self.new.setEnabled(compared)
        self.open.setEnabled(compared)
        self.draw.setEnabled(compared and self._layer is not None)
        self.save.setEnabled(self.numbers is not None and not self._stale)

    def _add(self, name: str, regions: Regions) -> None:
        """Add labels to the viewer, where they lie, and measure them."""
        data, options, _ = labels_layer(name, regions, visible=False)
        layer = self._viewer.add_labels(data, **options)
        self._list()
        self.labels.setCurrentIndex(1 + self._offered.index(layer))

    def _make_new(self) -> None:
        if self._compared is not None:
            lattice = self._compared.comparison.lattice
            self._add("regions", Regions(np.zeros(lattice.shape, np.int32), {}, lattice.affine))
            self.draw.setChecked(True)

    def _open(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Open labels", "", LABEL_IMAGES)
        if chosen and self._compared is not None:
            lattice = self._compared.comparison.lattice
            name = Path(chosen).name.split(".")[0]
            self._reading.ask(lambda control: (name, read_regions(chosen).on(lattice)))

    def _set_drawing(self, wanted: bool) -> None:
        """Show one image with its labels, or the comparison again."""
        if wanted and self._layer is not None:
            self._grid.step_aside(self._layer)
            self._layer.mode = "paint"  # only a visible layer takes the brush
        else:
            if self._layer is not None:
                self._layer.mode = "pan_zoom"
            self._grid.come_back()
        self.paint()
        self._say_what_to_do()

    def _connect(self) -> None:
        self.labels.currentIndexChanged.connect(
            lambda index: self._choose(self._offered[index - 1] if index > 0 else None)
        )
        self.open.clicked.connect(self._open)
        self.new.clicked.connect(self._make_new)
        self.draw.toggled.connect(self._set_drawing)
        self.table.currentCellChanged.connect(lambda *_: self._draw_histogram())
        dims = self._viewer.dims.events
        for event in (dims.point, dims.order, dims.ndisplay):
            event.connect(lambda _: self.paint())
        layers = self._viewer.layers.events
        for event in (layers.inserted, layers.removed):
            event.connect(lambda _: self._list())

    def _lay_out(self) -> None:
        self.histogram.setMinimumHeight(120)
        self.histogram.setLabel("left", "voxels")
        free = QSizePolicy(QSizePolicy.Expanding, QSizePolicy.Expanding)
        free.setHeightForWidth(True)  # it needs its least height, and takes what is free
        self.histogram.setSizePolicy(free)
        top = in_row(self.labels, self.open, self.new, self.draw)
        top.setStretchFactor(self.labels, 1)
        inside = stacked(self, top, self.save, self.words, self.table, self.key, self.histogram)
        inside.setStretchFactor(self.histogram, 1)
        inside.addStretch()
        self.restyle()


def _named(numbers: RegionNumbers) -> tuple[str, str]:
    """Return title and unit of the map that is measured, and what its tensors were fitted to."""
    name, unit = next(iter(numbers.units.items()))
    through = next(iter(numbers.through.values()), "")
    return f"{name} through the {through}" if through else name, unit


def _texts(numbers: RegionNumbers) -> tuple[list[Text], list[list[Text]]]:
    """Return for each region a row of its name, and one for each image."""
    tables = list(numbers.tables.items())
    everything = [row for _, table in tables for row in table.rows]
    style = NumberFormat.of(row.mean for row in everything if row.mean is not None)
    errors = [row.error for row in everything if row.error is not None]
    named, unit = _named(numbers)
    inside = style.unit(unit)
    headers = [
        ("image", ""),
        ("mm³", "<p>Volume of the voxels that were measured.</p>"),
        (f"mean\n{inside}", f"<p>{named} over the region.</p>"),
        ("sd", "<p>Standard deviation over voxels, in the same unit.</p>"),
    ]
    if errors:
        meaning = "<p>Mean absolute error against the truth, in the same unit.</p>"
        headers.append(("error", meaning))
    rows: list[list[Text]] = []
    for number, region in enumerate(tables[0][1].rows):
        rows.append([(region.name, region.name)])
        for (image, _), table in tables:
            row = table.rows[number]
            cells = [
                (image, image),
                (f"{row.volume:.0f}", f"{row.voxels} voxels"),
                (style.text(row.mean), "" if row.mean is None else f"{row.mean:.6g} {unit}"),
                (style.text(row.sd), "" if row.sd is None else f"{row.sd:.6g} {unit}"),
            ]
            if errors:
                told = "" if row.bias is None else f"bias {row.bias:+.4g} {unit}"
                cells.append((style.text(row.error), told))
            rows.append(cells)
    return headers, rows
