"""The Stages tab: α, the parts of a model and its branches, in the cells of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QComboBox, QScrollArea, QVBoxLayout, QWidget

from napari_msp.evaluation.figures.grid import Cells
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.background import Latest
from napari_msp.ui.comparing import stages_live
from napari_msp.ui.comparing.arrange import Arrangement
from napari_msp.ui.comparing.branch_sheet import branch_sheet
from napari_msp.ui.comparing.sheet import Sheet, cell_name
from napari_msp.ui.comparing.stage_parts import SECOND, StageParts
from napari_msp.ui.comparing.staged import Staged
from napari_msp.ui.comparing.work import Compared
from napari_msp.ui.model_diagram.drawing import outline_of
from napari_msp.ui.panels.stages import StagesPanel
from napari_msp.ui.records import Record

PACE = 30
"""Milliseconds between repaints while α moves."""


NO_STAGES = (
    "Only a prediction that Harmonize made in this window can be looked into: an image from a file "
    "comes without its model and its stages."
)


class StagesView(QObject):
    """Wires the panel of stages to a prediction's cells.

    Signals
    -------
    image_wanted : str, SHImage, str
        A prediction's name, what shall stand in its place, and what that is in words.
    comparison_wanted
        The branches were looked at enough.
    failed : UserError
        Something could not be computed.
    """

    image_wanted = Signal(str, object, str)
    comparison_wanted = Signal()
    failed = Signal(object)

    def __init__(self, arrangement: Arrangement, parent: QObject) -> None:
        super().__init__(parent)
        self.arrangement = arrangement
        self.panel, self.choice = StagesPanel(), QComboBox()
        self.choice.setAccessibleName("Prediction that is looked into")
        self.widget = _laid_out(self.panel, self.choice)
        self._compared: Compared | None = None
        self._cells: Mapping[str, Cells] = {}
        self._places: Mapping[str, tuple[int, int]] = {}
        self._quantity, self._part = "SH average", SECOND
        self._own: dict[str, SHImage] = {}
        self._staged: Staged | None = None
        self._branching = False
        self._stages, self._images = Latest(self), Latest(self)
        self._slices = Latest(self, finish=True)
        self._pace = QTimer(self)
        self._pace.setSingleShot(True)
        self._pace.setInterval(PACE)
        self._connect()

    @property
    def name(self) -> str:
        """The prediction that is looked into; "" for none."""
        return str(self.choice.currentText())

    @property
    def ready(self) -> bool:
        """Whether the stages of the prediction are there to be mixed."""
        return self._staged is not None

    @property
    def branches_shown(self) -> bool:
        """Whether the branches have the grid."""
        return self._branching

    @property
    def moving(self) -> bool:
        """Whether α is being dragged."""
        return bool(self.panel.slider.isSliderDown())

    def take(self, compared: Compared) -> None:
        """Look into another comparison."""
        self._compared, self._cells = compared, {}
        self._own = {name: each.image for name, each in compared.comparison.predictions.items()}
        records = compared.predictions
        names = [name for name, record in records.items() if _made_here(record)]
        staged = [name for name in names if _has_branches(records[name])]
        before = self.choice.blockSignals(True)
        self.choice.clear()
        self.choice.addItems(names)
        self.choice.setCurrentText(next(iter([*staged, *names]), ""))
        self.choice.blockSignals(before)
        self.choice.setEnabled(len(names) > 1)
        self.choice.setVisible(bool(names))
        self._look_into()

    def follow(
        self,
        compared: Compared,
        cells: Mapping[str, Cells],
        quantity: str,
        places: Mapping[str, tuple[int, int]],
    ) -> None:
        """Keep up with what the comparison shows, and where."""
        self._compared, self._cells = compared, cells
        self._quantity, self._places = quantity, places

    def forget(self) -> None:
        """Let everything go."""
        for work in (self._stages, self._images, self._slices):
            work.stop()
        self._compared, self._staged, self._own, self._cells = None, None, {}, {}
        self._branching = False
        self.choice.clear()
        self.panel.clear()

    @property
    def _record(self) -> Record | None:
        return None if self._compared is None else self._compared.predictions.get(self.name)

    @property
    def _parts(self) -> StageParts | None:
        record = self._record
        if record is None or record.prediction is None or self._compared is None:
            return None
        alpha, image = record.prediction.alpha, self._own[self.name]
        return StageParts(alpha, image, self._compared.scan, self._staged)

    def _look_into(self) -> None:
        """Show the chosen prediction's model, and get its stages ready."""
        self._staged = None
        self._stages.stop()
        record, compared = self._record, self._compared
        if record is None or record.model is None or record.prediction is None or compared is None:
            self.panel.clear()
            self.panel.words.setText(NO_STAGES)
            return
        prediction, lattice = record.prediction, compared.comparison.lattice
        self.panel.set_model(outline_of(record.model, prediction.target), prediction.alpha)
        self._light(SECOND)
        if prediction.branches:
            self._stages.ask(lambda control: Staged.of(prediction, lattice))

    def _set_staged(self, staged: Staged) -> None:
        self._staged = staged
        self._show_branches(self.panel.branches.isChecked())

    def repaint(self) -> None:
        """Show the present α."""
        staged, compared, alpha = self._staged, self._compared, self.panel.alpha
        cells = self._cells.get(self._quantity)
        if staged is None or compared is None or cells is None:
            return
        self._light(SECOND)
        sheet = self._branch_sheet() if self.branches_shown else None
        if sheet is not None:
            self.arrangement.refill(sheet)
        elif cells.coloured:
            where = self.arrangement.where
            work = partial(stages_live.colour_fa, compared, cells, staged, alpha, where)
            self._slices.ask(lambda control: work())
        else:
            self._paint(stages_live.sh_average(compared, staged, alpha))

    def _paint(self, new: stages_live.Repaint) -> None:
        record, parts, places = self._record, self._parts, self._places.get(self.name)
        if record is None or parts is None or places is None or self.branches_shown:
            return
        if new.quantity != self._quantity:
            return  # another map has been chosen meanwhile
        title = f"{self.name} {parts.words(SECOND, self.panel.alpha)}".strip()
        image, error = (self.arrangement.layers[place] for place in places)
        new.put_into(image, error)
        image.name = cell_name(record, title, self._quantity)
        if new.error is not None:
            error.name = cell_name(record, title, "MSE")

    def _rest(self) -> None:
        """Compute everything for the α that was chosen."""
        if self._staged is not None and not self.branches_shown:
            self._put(SECOND)

    def _show_part(self, part: str) -> None:
        """Show a part's output in the prediction's cell."""
        if self.branches_shown:
            self.panel.branches.setChecked(False)
        self._light(part)
        self._put(part)

    def _put(self, part: str) -> None:
        parts, name, alpha = self._parts, self.name, self.panel.alpha
        if parts is not None:
            words = parts.words(part, alpha)
            self._images.ask(lambda control: (name, parts.output(part, alpha), words))

    def _light(self, part: str) -> None:
        self._part = part
        self.panel.light(part)

    def _branch_sheet(self) -> Sheet | None:
        record, cells = self._record, self._cells.get("SH average")
        if record is None or cells is None or self._staged is None:
            return None
        return branch_sheet(record, self.name, self._staged, self.panel.alpha, cells)

    def _show_branches(self, wanted: bool) -> None:
        sheet = self._branch_sheet() if wanted else None
        if sheet is not None:
            self._branching = True
            self._light(SECOND)
            self.arrangement.show(sheet)
        elif self._branching:
            self._branching = False
            self.comparison_wanted.emit()
            self._rest()

    def _connect(self) -> None:
        panel = self.panel
        self.choice.currentTextChanged.connect(lambda _: self._look_into())
        panel.alpha_changed.connect(lambda _: self._pace.isActive() or self._pace.start())
        self._pace.timeout.connect(self.repaint)
        panel.alpha_released.connect(lambda _: self._rest())
        panel.part_chosen.connect(self._show_part)
        panel.branches_wanted.connect(self._show_branches)
        self._stages.done.connect(self._set_staged)
        self._slices.done.connect(self._paint)
        self._images.done.connect(lambda made: self.image_wanted.emit(*made))
        for work in (self._stages, self._slices, self._images):
            work.failed.connect(self.failed)


def _made_here(record: Record) -> bool:
    return record.model is not None and record.prediction is not None


def _has_branches(record: Record) -> bool:
    return record.prediction is not None and bool(record.prediction.branches)


def _laid_out(panel: StagesPanel, choice: QComboBox) -> QWidget:
    inner, widget = QWidget(), QScrollArea()
    layout = QVBoxLayout(inner)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(choice)
    layout.addWidget(panel)
    widget.setWidget(inner)
    widget.setWidgetResizable(True)
    widget.setFrameShape(QScrollArea.NoFrame)
    return widget
