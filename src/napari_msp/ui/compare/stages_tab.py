"""The Stages tab: the parts of a model, α and equation (1), seen in a comparison's cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.background import Latest, paced
from napari_msp.ui.compare.compared import Compared, mixed
from napari_msp.ui.compare.computing import SH_AVERAGE, Comparing
from napari_msp.ui.compare.grid_cells import GridCells, branch_cells, cell_name
from napari_msp.ui.compare.stages import ModelOutputs, RepaintedSlice, Stages, repaint_slice
from napari_msp.ui.compare.viewer_grid import ViewerGrid
from napari_msp.ui.glossary import TERMS, tooltip
from napari_msp.ui.layers import made_here
from napari_msp.ui.model_diagram.diagram import ModelDiagram
from napari_msp.ui.model_diagram.drawing import (
    SECOND,
    Outline,
    equation,
    general_equation,
    outline_of,
)
from napari_msp.ui.widgets.form import fit_into_form, offer, push_button, stacked
from napari_msp.ui.widgets.message import readable

if TYPE_CHECKING:
    from napari_msp.inference.prediction import Prediction

STEPS = 100
"""Steps of the slider from 0 to 1."""

PACE = 30
"""Milliseconds between repaints while α moves."""

NO_MODEL = "No model yet: choose one to see what it is made of."

NO_STAGES = (
    "Only a prediction that Harmonize made in this window can be looked into: an image from a file "
    "comes without its model and its stages."
)


class StagesPanel(QWidget):
    """The diagram of a model's stages, and a slider for α.

    Attributes
    ----------
    alpha
        Present α.
    alpha_changed : float
        Emitted while α moves.
    alpha_released : float
        Emitted when α rests: the slider was released, or a key or button has set it.
    """

    alpha_changed = Signal(float)
    alpha_released = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self._outline: Outline | None = None
        self._model_alpha = self.alpha = 1.0
        self.diagram = ModelDiagram()
        self.words = readable()
        self.slider = QSlider(Qt.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(STEPS // 10)
        self.slider.setAccessibleName("α, weight of the second stage")
        self.slider.setAccessibleDescription(TERMS["α"])
        self.slider.valueChanged.connect(lambda value: self._set_alpha(value / STEPS))
        self.slider.sliderReleased.connect(lambda: self.alpha_released.emit(self.alpha))
        self.value = QLabel()
        self.value.setMinimumWidth(self.value.fontMetrics().horizontalAdvance("0.00 "))
        self.reset = QPushButton("Model’s α")
        self.reset.clicked.connect(lambda: self._set_alpha(self._model_alpha))
        self.general, self.equation = readable(general_equation()), readable()
        self.general.setToolTip("<p>Equation (1) of Blumberg 2019, arXiv 1907.11629.</p>")
        self.equation.setToolTip("<p>The same with the current α: the weight of every term.</p>")
        self.branches = push_button("Show branches", tooltip("branch") + tooltip("contribution"))
        self.branches.setCheckable(True)
        self._controls = self._arranged()
        layout = QVBoxLayout(self)
        layout.addWidget(self.words)
        layout.addWidget(self.diagram)
        layout.addWidget(self._controls)
        layout.addStretch()
        self.clear()

    @property
    def moving(self) -> bool:
        """Whether α is being dragged."""
        return bool(self.slider.isSliderDown())

    def set_model(self, outline: Outline, alpha: float) -> None:
        """Show a model with its own α. Nothing is emitted but that branches are not wanted now."""
        self._outline, self._model_alpha = outline, alpha
        self.branches.setChecked(False)
        self.diagram.set_model(outline)
        self.reset.setToolTip(f"Set α back to the model’s own, {alpha:.2f}")
        self._show_alpha(alpha)
        self.words.setText(_why_no_stages(outline))
        self.words.setVisible(not outline.branches)
        self._controls.setVisible(bool(outline.branches))

    def clear(self, words: str = NO_MODEL) -> None:
        """Show no model, and the reason."""
        self._outline = None
        self.branches.setChecked(False)
        self.diagram.set_model(None)
        self.words.setText(words)
        self.words.show()
        self._controls.hide()

    def mark_branches(self, shown: bool) -> None:
        """Show whether the branches are visible; nothing is emitted."""
        with signals_blocked(self.branches):
            self.branches.setChecked(shown)

    def _set_alpha(self, alpha: float) -> None:
        self._show_alpha(alpha)
        self.alpha_changed.emit(alpha)
        if not self.moving:
            self.alpha_released.emit(alpha)

    def _show_alpha(self, alpha: float) -> None:
        self.alpha = alpha
        with signals_blocked(self.slider):
            self.slider.setValue(round(alpha * STEPS))
        self.value.setText(f"{alpha:.2f}")
        self.reset.setEnabled(alpha != self._model_alpha)
        self.diagram.set_alpha(alpha)
        if self._outline is not None and self._outline.branches:
            self.equation.setText(equation(self._outline, alpha))

    def _arranged(self) -> QWidget:
        controls, row = QWidget(), QHBoxLayout()
        label = QLabel("<i>α</i>")
        for widget in (label, self.slider, self.value):
            widget.setToolTip(tooltip("α"))
            row.addWidget(widget)
        row.setStretchFactor(self.slider, 1)
        row.addWidget(self.reset)
        stacked(controls, row, self.general, self.equation, self.branches)
        return controls


class StagesTab(QWidget):
    """The outputs of the parts of one prediction's model, in the cells of a comparison.

    Parameters
    ----------
    grid
        Grid that has the cells.
    comparing
        Present comparison.

    Attributes
    ----------
    shown
        Name of the map that the cells show.
    branches_shown
        Whether the branches have the grid.
    image_wanted : str, SHImage, Part
        Emitted with a prediction's name, an image for its place, and its description; None: itself.
    comparison_wanted
        Emitted when the branches make way for the comparison.
    failed : UserError
        Emitted when something could not be computed.
    """

    image_wanted = Signal(str, object, object)
    comparison_wanted = Signal()
    failed = Signal(object)

    def __init__(self, grid: ViewerGrid, comparing: Comparing) -> None:
        super().__init__()
        self.panel, self.choice = StagesPanel(), QComboBox()
        self.choice.setAccessibleName("Prediction that is looked into")
        fit_into_form(self.choice)
        self._grid, self._comparing = grid, comparing
        self.shown = ""
        self._own: dict[str, SHImage] = {}
        self._stages: Stages | None = None
        self.signed: Callable[[], bool] = lambda: False
        self.branches_shown = False
        fail = self.failed.emit
        self._reading = Latest(self, self._set_stages, fail)
        self._images = Latest(self, lambda made: self.image_wanted.emit(*made), fail)
        self._slices = Latest(self, self._paint, fail, finish=True)
        self._pace = paced(self, PACE, self.repaint_cells)
        stacked(self, self.choice, self.panel)
        self._connect()

    @property
    def name(self) -> str:
        """The prediction that is inspected; "" for none."""
        return str(self.choice.currentText())

    def take(self, compared: Compared) -> None:
        """Inspect another comparison."""
        self._own = {name: each.image for name, each in compared.comparison.predictions.items()}
        here = {name: each for name, each in compared.predictions.items() if made_here(each)}
        staged = [name for name, each in here.items() if each.branches]
        offer(self.choice, list(here), next(iter([*staged, *here]), ""))
        self.choice.setEnabled(len(here) > 1)
        self.choice.setVisible(bool(here))
        self._look_into()

    def forget(self) -> None:
        """Drop everything."""
        for work in (self._reading, self._images, self._slices):
            work.stop()
        self._stages, self._own, self.branches_shown = None, {}, False
        self.choice.clear()
        self.panel.clear()

    def leave_branches(self) -> None:
        """Show the comparison again where the branches have the grid."""
        self.panel.mark_branches(False)
        if self.branches_shown:
            self.branches_shown = False
            self.comparison_wanted.emit()
            self._rest()

    def repaint_cells(self) -> None:
        """Show the present α: in the shown slice at once, everywhere when it rests."""
        stages, compared, alpha = self._stages, self._comparing.compared, self.panel.alpha
        drawn = self._comparing.maps.get(self.shown)
        if stages is None or compared is None or drawn is None:
            return
        self.panel.diagram.light(SECOND)
        if not self.branches_shown:
            work = partial(repaint_slice, compared, drawn.cells, stages, alpha, *self._grid.where)
            self._slices.ask(lambda control: work())
        elif (branches := self._branch_cells()) is not None:
            self._grid.refill(branches)

    @property
    def _prediction(self) -> Prediction | None:
        """The prediction that is inspected, if it was made here."""
        compared = self._comparing.compared
        scan = None if compared is None else compared.predictions.get(self.name)
        return scan if scan is not None and made_here(scan) else None

    def _look_into(self) -> None:
        """Show the selected prediction's model, and prepare its stages."""
        self._stages = None
        self._reading.stop()
        prediction, compared = self._prediction, self._comparing.compared
        if prediction is None or prediction.model is None or compared is None:
            self.panel.clear(NO_STAGES)
            return
        lattice = compared.comparison.lattice
        self.leave_branches()
        self.panel.set_model(outline_of(prediction.model, prediction.target), prediction.alpha)
        self.panel.diagram.light(SECOND)
        if prediction.branches:
            self._reading.ask(lambda control: Stages.of(prediction, lattice))

    def _set_stages(self, stages: Stages) -> None:
        self._stages = stages
        if self.panel.branches.isChecked():
            self._show_branches()

    def _paint(self, new: RepaintedSlice) -> None:
        prediction, drawn = self._prediction, self._comparing.maps.get(self.shown)
        if prediction is None or drawn is None or self.branches_shown:
            return
        if new.map.name != self.shown:
            return  # another map has been chosen meanwhile
        own = new.alpha == prediction.alpha
        title = self.name if own else f"{self.name} {mixed(new.alpha).words}"
        image, error = (self._grid.layers[place] for place in drawn.layers.places[self.name])
        if drawn.signed is not None and self.signed():
            new = replace(new, error=None)  # the signed difference follows when α rests
        new.put_into(image, error)
        image.name = cell_name(prediction, title, new.map.title)
        if new.error is not None:
            error.name = cell_name(prediction, title, new.map.error_title)
        self._grid.fit.letter()

    def _rest(self) -> None:
        """Compute everything for the α that was chosen."""
        if self._stages is not None and not self.branches_shown:
            self._put(SECOND)

    def _show_part(self, part: str) -> None:
        """Show a part's output in the prediction's cell."""
        self.leave_branches()
        self.panel.diagram.light(part)
        self._put(part)

    def _put(self, part: str) -> None:
        prediction, compared = self._prediction, self._comparing.compared
        name, alpha = self.name, self.panel.alpha
        if prediction is not None and compared is not None:
            own = self._own[name]
            outputs = ModelOutputs(prediction.alpha, own, compared.scan, self._stages)
            self._images.ask(lambda control: (name, *outputs.of(part, alpha)))

    def _branch_cells(self) -> GridCells | None:
        prediction, drawn = self._prediction, self._comparing.maps.get(SH_AVERAGE)
        if prediction is None or drawn is None or self._stages is None:
            return None
        return branch_cells(prediction, self.name, self._stages, self.panel.alpha, drawn.cells)

    def _show_branches(self) -> None:
        cells = self._branch_cells()
        if cells is not None:
            self.branches_shown = True
            self.panel.diagram.light(SECOND)
            self._grid.show(cells)

    def _connect(self) -> None:
        panel = self.panel
        self.choice.currentTextChanged.connect(lambda _: self._look_into())
        panel.alpha_changed.connect(lambda _: self._pace.throttle())
        panel.alpha_released.connect(lambda _: self._rest())
        panel.diagram.part_chosen.connect(self._show_part)
        panel.branches.toggled.connect(
            lambda wanted: self._show_branches() if wanted else self.leave_branches()
        )


def _why_no_stages(outline: Outline) -> str:
    if outline.kind == "msp":
        return (
            f"This MSP has {outline.target} as its only target: there are no branches, and its "
            "prediction is the first stage whatever α is."
        )
    return f"{outline.title} predicts {outline.target} in one stage: it has neither α nor branches."
