"""Load acquisition: choose a scan from a file or a BIDS folder, and show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from napari_msp.checking.b_vectors import doubts_of
from napari_msp.data.acquisition import DoubtfulScan, load_acquisition
from napari_msp.data.masks import coverage
from napari_msp.errors import OutOfMemory, UserError
from napari_msp.scan import Scan
from napari_msp.scan_sources import load_scan
from napari_msp.ui.background import JobRow, Latest, OneByOne
from napari_msp.ui.docks import Docked, Pane, open_sample, with_messages
from napari_msp.ui.layers import (
    FIRST_MAPS,
    MAP_TITLES,
    LayerData,
    apart,
    make_layer,
    mask_layer,
    named_apart,
    scan_layers,
    showing,
    shown_in,
)
from napari_msp.ui.load.examine import LoadChoice, LoadFindings, examine
from napari_msp.ui.load.form import AcquisitionForm
from napari_msp.ui.phrasing import LOAD_WORDS, said, sentence
from napari_msp.ui.preferences import preferences
from napari_msp.ui.reading import Control, Work, read_scan
from napari_msp.ui.shared import hide_other_heads, shared_by
from napari_msp.ui.widgets.message import MessageLine, Severity
from napari_msp.ui.widgets.windows import ResizedPicture

if TYPE_CHECKING:
    import napari

NO_MEMORY = (
    "There is not enough memory for this scan. Close other images or programs, and try again."
)


CARPET = "Carpet plot…"
"""Action that shows slices and volumes, with the worst named."""


@dataclass(frozen=True)
class Inspection:
    """The quality of a scan.

    Attributes
    ----------
    title
        Title of the scan.
    words
        Faults, and the numbers.
    faults
        Whether there are faults.
    picture
        The carpet plot, as PNG.
    """

    title: str
    words: str
    faults: bool
    picture: bytes


class LoadAcquisition(Docked):
    """The Load acquisition widget.

    Parameters
    ----------
    napari_viewer
        Viewer that gets the layers.
    """

    page = "load"
    offers_sample = True

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.form = AcquisitionForm()
        self.form.maps.set_names(MAP_TITLES, FIRST_MAPS)
        self.message = MessageLine()
        self.progress = JobRow(self.form, self.message)
        self._inspection: Inspection | None = None
        self._look = Latest(self, self.form.show_findings, self._fail)
        self._changes = OneByOne(self, pause=0)
        with_messages(
            self, Pane(self.heading, self.form), self.message, self.progress, self.form.notices
        )
        self._connect()

    @property
    def running(self) -> bool:
        """Whether a scan is being loaded or inspected."""
        return self.progress.job.running or self._changes.busy

    def load(self) -> None:
        """Load the scan that the form describes."""
        findings, maps = self.form.findings, self.form.maps.checked
        with_mask = self.form.show_mask.isChecked()
        self._run(lambda control: _load(findings, maps, with_mask, control), self._insert)

    def inspect(self) -> None:
        """Measure the quality of the scan, and show it."""
        findings = self.form.findings
        self._run(lambda control: _inspect(findings, control), self._show_quality)

    def _run(self, work: Work, done: Callable[[Any], object]) -> None:
        self._changes.finish()  # layers of the scan before, and what is said of it
        cancelled = "Cancelled; nothing was loaded."
        self.progress.run(work, done=done, failed=self._fail, cancelled=lambda: cancelled)

    def _connect(self) -> None:
        self.form.changed.connect(self._examine)
        self.form.act_wanted.connect(self.load)
        self.form.sample.clicked.connect(lambda: open_sample(self.viewer))
        self.form.quality.clicked.connect(self.inspect)
        self.message.action.connect(lambda _: self._show_carpet())
        self.on_escape(self.progress.request_cancel)

    def _examine(self, choice: LoadChoice) -> None:
        self.message.clear()
        self.progress.end()
        known, cache = self.form.known, preferences().cache
        self._look.ask(lambda control: examine(choice, known, cache))

    def _show_quality(self, found: Inspection) -> None:
        self._inspection = found
        severity: Severity = "warning" if found.faults else "ok"
        self.message.show_message(severity, found.words, (CARPET,))

    def _show_carpet(self) -> None:
        assert self._inspection is not None
        ResizedPicture(self, self._inspection.title, self._inspection.picture).show()

    def _insert(self, layers: list[LayerData]) -> None:
        """Add the layers one at a time, so that the window stays responsive."""
        self._changes.add(*(partial(self._add, data) for data in layers))
        self._changes.add(partial(self._say_loaded, shown_in(layers[0]).scan))

    def _add(self, data: LayerData) -> None:
        hide_other_heads(self.viewer, shown_in(data).scan.subject)
        selected = self.viewer.layers.selection.active
        known = showing(self.viewer.layers, data)
        if known is not None:  # a file that is loaded twice is one scan
            known.visible = data[1]["visible"]
            self.viewer.layers.selection.active = known
        else:
            (named,) = named_apart(self.viewer.layers, [data])
            self.viewer.add_layer(make_layer(named))
        if shown_in(data).quantity == "mask":
            self.viewer.layers.selection.active = selected  # it is looked at, not worked on

    def _say_loaded(self, scan: Scan) -> None:
        known = scan.acquisition
        # Doubts about the header are shown above already.
        found = () if known is None else (*known.reading.doubts, *known.about_mask)
        doubts = [each.words for each in found if isinstance(each, DoubtfulScan)]
        words = [f"{scan.owner}{apart(scan)} is loaded.", *mask_made(scan)]
        if doubts:
            words.append(f"Note: {'; '.join(doubts)}.")
        if owner := shared_by(self.viewer).owner:  # it hides layers that are added meanwhile
            words.append(f"Leave {owner} to see it.")
        self.message.show_message("warning" if len(words) > 1 else "ok", " ".join(words))

    def _fail(self, error: UserError) -> None:
        words = NO_MEMORY if isinstance(error, OutOfMemory) else said(error, LOAD_WORDS)
        self.message.show_message("error", words)


def _load(
    findings: LoadFindings, maps: list[str], with_mask: bool, control: Control
) -> list[LayerData]:
    """Load a scan that was found ready; in a worker."""
    assert findings.scan is not None
    scan = load_scan(findings.scan, findings.choice.b_value, **findings.files)
    scan = read_scan(scan, control.say)
    control.say("Making maps")
    layers = scan_layers(scan, maps, control.check)
    if with_mask:
        layers.append(mask_layer(scan))
        make_layer(layers[-1])  # a session's first one compiles code, so not in the window's thread
    return layers


def mask_made(scan: Scan) -> list[str]:
    """Return sentences that say that a missing mask was made, and what is odd about it."""
    acquisition = scan.acquisition
    if acquisition is None or not acquisition.brain.estimated:
        return []
    size = coverage(acquisition.mask, acquisition.affine)
    doubts = "".join(f"; it {doubt}" for doubt in acquisition.brain.doubts)
    return [f"It has no brain mask, so one was made: {size}{doubts}. Look at it over the b0."]


def _inspect(findings: LoadFindings, control: Control) -> Inspection:
    """Measure and draw the quality of a scan; in a worker."""
    from napari_msp.checking.quality import measure_quality
    from napari_msp.checking.scan import check_quality
    from napari_msp.evaluation.figures.carpet import carpet_figure

    assert findings.scan is not None
    control.say("Reading")
    acquisition = load_acquisition(findings.scan, **findings.files)
    _ = acquisition.voxels
    control.check()
    control.say("Looking at slices and volumes")
    quality = measure_quality(acquisition)
    control.check()
    control.say("Comparing gradients with fibres")
    found = [*check_quality("", quality), *doubts_of(acquisition)]
    faults = [sentence(fault.message(LOAD_WORDS)) for fault in found]
    numbers = ", ".join(f"{what}: {value}" for what, value in quality.numbers.items())
    title = Scan(acquisition=acquisition, path=findings.scan).owner
    drawn = BytesIO()
    carpet_figure(quality, title).savefig(drawn, format="png", dpi=110)
    words = "\n".join([*(faults or ["Nothing stands out."]), sentence(numbers)])
    return Inspection(title, words, bool(faults), drawn.getvalue())
