"""The present comparison, computed in a thread: images lined up, cells of each map, and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from qtpy.QtCore import QObject, Signal

from napari_msp.evaluation.figures.grid import Cells
from napari_msp.evaluation.measures.pair import Metrics
from napari_msp.signal.maps import MAPS
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.background import Call, Latest
from napari_msp.ui.compare.compared import BEFORE, Compared, Part, Question, read_and_line_up
from napari_msp.ui.compare.grid_cells import GridCells, comparison_cells, signed_cells
from napari_msp.ui.compare.numbers_table import ErrorColumn
from napari_msp.ui.reading import Control

SH_AVERAGE = "sh_average"
"""The map that is always drawn: it costs nothing, and branches are shown in its contrast."""

Scale = tuple[tuple[float, float], float]
"""Black and white of images, and the end of the error maps' scale."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Cells of one map, and the layers that show them.

    Attributes
    ----------
    compared
        Comparison that the cells are of.
    signed
        Same layers with differences instead of squared errors; None where these have no sign.
    before
        Mean error of the input itself; None where it cannot be measured.
    """

    compared: Compared
    cells: Cells
    layers: GridCells
    signed: GridCells | None
    before: float | None

    def seen(self, signed: bool) -> GridCells:
        """Return the layers, with the sign of errors where it is wanted and exists."""
        return self.signed if signed and self.signed is not None else self.layers


class Comparing(Latest):
    """A comparison with its cells and numbers; the last one stays until the next is there.

    Parameters
    ----------
    parent, failed
        As for `Latest`.

    Attributes
    ----------
    compared
        Present comparison; None: none.
    maps
        Finished cells, by the map's name.
    metrics
        Measured errors, by prediction and for the input as `BEFORE`.
    started : str
        Emitted when work begins, with a text.
    renewed
        Emitted when other images are compared.
    drawn : str
        Emitted with the name of a map whose cells are there.
    measured
        Emitted when the numbers are there.
    """

    started = Signal(str)
    renewed = Signal()
    drawn = Signal(str)
    measured = Signal()

    def __init__(self, parent: QObject, failed: Call) -> None:
        super().__init__(parent, None, failed)
        self.progressed.connect(self._take)
        self.rested.connect(self._rest)
        self._asked: Question | None = None
        self._newest: Compared | None = None  # being computed; when idle the same as `compared`
        self.compared: Compared | None = None
        self.maps: dict[str, Drawn] = {}
        self.metrics: dict[str, Metrics] = {}
        self._scales: dict[str, Scale] = {}

    @property
    def numbers(self) -> dict[str, Metrics]:
        """Numbers by title; empty before all are measured, and without truth."""
        compared = self.compared
        if compared is None or not set(compared.predictions) <= set(self.metrics):
            return {}
        return {compared.title(name): self.metrics[name] for name in compared.predictions}

    @property
    def rows(self) -> dict[str, Metrics]:
        """The same after the row of the input itself, where that can be measured."""
        numbers, known = self.numbers, self.metrics.get(BEFORE)
        return {BEFORE: known, **numbers} if numbers and known is not None else numbers

    def errors(self, shown: str) -> list[ErrorColumn]:
        """Return the errors of all SH coefficients and of one map, in the order of `rows`."""
        sh = tuple(each.sh_mse for each in self.rows.values())
        errors = [ErrorColumn("SH", "MSE", "SH units²", sh, ("SH MSE",))]
        if (drawn := self.maps.get(shown)) is not None:
            cells, first = drawn.cells, drawn.before if BEFORE in self.metrics else None
            all_means = (first, *(each.mean for each in cells.maps))
            means = tuple(each for each in all_means if each is not None)
            title, error = cells.map.title, cells.map.error_title
            errors.append(ErrorColumn(title, error, cells.map_unit, means, (error, title)))
        return errors

    def answer(self, question: Question, shown: str) -> None:
        """Compare other images, in one map."""
        self._asked = question
        self._start(partial(compare, question, shown))

    def change(self, name: str, image: SHImage, part: Part | None, shown: str) -> None:
        """Put another image in a prediction's place; contrast and scale stay."""
        if self._newest is not None and self._asked is None and name in self._newest.predictions:
            self._newest = self._newest.with_prediction(name, image, part)
            self._draw(shown)

    def draw(self, shown: str) -> None:
        """Make the cells of another map, unless they are there."""
        if self._asked is None and not (self._newest is self.compared and shown in self.maps):
            self._draw(shown)

    def forget(self) -> None:
        """Drop everything."""
        self.stop()
        self._asked, self._newest = None, None
        self._take_away()

    def _draw(self, shown: str) -> None:
        """Make what is missing, including what the replaced work was to make."""
        new, old = self._newest, self.compared
        if new is None or old is None:
            return
        there = self.maps if new is old else ()
        wanted = [each for each in dict.fromkeys((shown, SH_AVERAGE)) if each not in there]
        known = self._still_true(new)
        self._start(partial(draw, new, wanted, dict(self._scales), known))

    def _still_true(self, new: Compared) -> dict[str, Metrics]:
        """Return the measurements of images that have not changed."""
        if self.compared is None:
            return {}
        images, before = new.comparison.predictions, self.compared.comparison.predictions
        return {
            name: each
            for name, each in self.metrics.items()
            if name == BEFORE or images[name] is before[name]
        }

    def _start(self, work: Callable[[Control], None]) -> None:
        self.started.emit("Comparing")
        self.ask(work)

    def _take(self, report: object) -> None:
        if isinstance(report, Drawn):
            self._take_drawn(report)
        elif isinstance(report, dict):
            self.metrics = report
            self.measured.emit()

    def _take_drawn(self, drawn: Drawn) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            self._take_away()
        if drawn.compared is not self.compared:
            self.maps = {}
            self.metrics = self._still_true(drawn.compared)
            self.compared = self._newest = drawn.compared
        if asked is not None:
            self.renewed.emit()
        name, cells = drawn.cells.map.name, drawn.cells
        self.maps[name] = drawn
        self._scales.setdefault(name, (cells.window, cells.limit))
        self.drawn.emit(name)

    def _take_away(self) -> None:
        self.compared, self.maps, self.metrics, self._scales = None, {}, {}, {}

    def _rest(self) -> None:
        self._asked, self._newest = None, self.compared


def compare(question: Question, shown: str, control: Control) -> None:
    """Read, line up, draw and measure; see `draw`.

    Raises
    ------
    UserError
        See `read_and_line_up`.
    """
    compared = read_and_line_up(question, control.say)
    draw(compared, list(dict.fromkeys((shown, SH_AVERAGE))), {}, {}, control)


def draw(
    compared: Compared,
    maps: Sequence[str],
    scales: Mapping[str, Scale],
    known: Mapping[str, Metrics],
    control: Control,
) -> None:
    """Report a `Drawn` for each map, then the errors by prediction; there are none without truth.

    Parameters
    ----------
    compared
        Comparison to draw.
    maps
        Names of the maps.
    scales
        Contrast and scale to keep, by map, so that a change shows.
    known
        Measurements that still hold.
    """
    for each in maps:
        control.say(f"Computing {MAPS[each].title}")
        cells = compared.cells(each)
        if each in scales:
            window, limit = scales[each]
            cells = replace(cells, window=window, limit=limit)
        layers, before = comparison_cells(compared, cells), compared.error_before(each)
        signed = signed_cells(compared, cells, layers)
        control.report(Drawn(compared, cells, layers, signed, before))
    metrics: dict[str, Metrics] = {}
    for name in (BEFORE, *compared.predictions):
        control.say(f"Measuring {name}")
        found = known.get(name) or compared.measured(name)
        if found is not None:
            metrics[name] = found
    control.report(metrics)
