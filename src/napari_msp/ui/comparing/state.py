"""What is compared now, and the work on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QObject, Signal

from napari_msp.evaluation.figures.grid import Cells
from napari_msp.evaluation.metrics import Metrics, Row, rows
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.background import Control, Latest, Step
from napari_msp.ui.comparing.draw import Drawn, Measured, ask, draw
from napari_msp.ui.comparing.sheet import Sheet
from napari_msp.ui.comparing.work import Compared, Question, Sibling
from napari_msp.ui.records import Record


class Comparing(QObject):
    """Keeps a comparison, its cells and its numbers; the one before stays until another is there.

    Signals
    -------
    started : str
        Work begins.
    told : str
        What it is at.
    renewed
        Other images are compared.
    drawn : str
        Cells of a quantity are there.
    measured
        The numbers are there.
    warned : str
        Something is doubtful.
    failed : UserError
        The work came to nothing.
    rested
        No work is left.
    """

    started = Signal(str)
    told = Signal(str)
    renewed = Signal()
    drawn = Signal(str)
    measured = Signal()
    warned = Signal(str)
    failed = Signal(object)
    rested = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.compared: Compared | None = None
        self.cells: dict[str, Cells] = {}
        self.sheets: dict[str, Sheet] = {}
        self.metrics: dict[str, Metrics] = {}
        self._asked: Question | None = None
        self._read: dict[Sibling, Record] = {}
        self._work = Latest(self)
        self._work.progressed.connect(self._take)
        self._work.warned.connect(self.warned)
        self._work.failed.connect(self.failed)
        self._work.rested.connect(self.rested)

    @property
    def running(self) -> bool:
        """Whether something is being computed."""
        return self._work.running

    @property
    def rows(self) -> list[Row]:
        """The numbers; none before they are measured, and none without truth."""
        if self.compared is None:
            return []
        titles = {self.compared.title(name): each for name, each in self.metrics.items()}
        return rows(titles)

    def ask(self, question: Question, quantity: str) -> None:
        """Compare something else, the quantity first."""
        if isinstance(question.truth, Sibling) and question.truth in self._read:
            known = self._read[question.truth]
            question = Question(known, question.predictions, question.scan)
        self._asked = question
        self._start(partial(ask, question, quantity))

    def change(self, name: str, image: SHImage, variant: str, quantity: str) -> None:
        """Let another image stand in a prediction's place; contrast and scale stay."""
        if self.compared is None or name not in self.compared.predictions:
            return
        changed = self.compared.with_prediction(name, image, variant)
        known = {each: metrics for each, metrics in self.metrics.items() if each != name}
        self._start(partial(draw, changed, quantity, before=dict(self.cells), known=known))

    def stop(self) -> None:
        """Do nothing more."""
        self._work.stop()

    def forget(self) -> None:
        """Let everything go."""
        self.stop()
        self.compared, self._asked = None, None
        self.cells, self.sheets, self.metrics, self._read = {}, {}, {}, {}

    def _start(self, work: Callable[[Control], None]) -> None:
        self.started.emit("Comparing")
        self._work.ask(work)

    def _take(self, told: object) -> None:
        if isinstance(told, Step):
            self.told.emit(told.words)
        elif isinstance(told, Drawn):
            self._take_drawn(told)
        elif isinstance(told, Measured):
            self.metrics = dict(told.metrics)
            self.measured.emit()

    def _take_drawn(self, drawn: Drawn) -> None:
        asked, self._asked = self._asked, None
        self.compared = drawn.compared
        if asked is not None:
            self.cells, self.sheets, self.metrics = {}, {}, {}
            if isinstance(asked.truth, Sibling) and drawn.compared.truth is not None:
                self._read = {asked.truth: drawn.compared.truth}
            self.renewed.emit()
        self.cells[drawn.cells.quantity] = drawn.cells
        self.sheets[drawn.cells.quantity] = drawn.sheet
        self.drawn.emit(drawn.cells.quantity)
