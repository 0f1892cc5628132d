"""Both stages of a model: the diagram, α, and equation (1) with its numbers."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_msp.ui.glossary import TERMS, tooltip
from napari_msp.ui.model_diagram.diagram import ModelDiagram
from napari_msp.ui.model_diagram.drawing import Outline, equation, general_equation

STEPS = 100
"""Of the slider from 0 to 1."""


class StagesPanel(QWidget):
    """Shows a model's stages and lets α be moved.

    Signals
    -------
    part_chosen : str
        A part of the diagram was asked for, see `ModelDiagram`.
    alpha_changed : float
        While α moves.
    alpha_released : float
        When it rests: the slider was let go, or a key or button has set it.
    branches_wanted : bool
        Whether the branches shall be shown.
    """

    part_chosen = Signal(str)
    alpha_changed = Signal(float)
    alpha_released = Signal(float)
    branches_wanted = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._parts: Outline | None = None
        self._model_alpha = self._alpha = 1.0
        self.diagram = ModelDiagram()
        self.diagram.part_chosen.connect(self.part_chosen)
        self.words = _wrapping(QLabel())
        self.slider = QSlider(Qt.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(STEPS // 10)
        self.slider.setAccessibleName("α, weight of the second stage")
        self.slider.setAccessibleDescription(TERMS["α"])
        self.slider.valueChanged.connect(self._slid)
        self.slider.sliderReleased.connect(lambda: self.alpha_released.emit(self._alpha))
        self.value = QLabel()
        self.value.setMinimumWidth(self.value.fontMetrics().horizontalAdvance("0.00 "))
        self.reset = QPushButton("Model’s α")
        self.reset.clicked.connect(self._reset)
        self.general, self.equation = _wrapping(QLabel(general_equation())), _wrapping(QLabel())
        self.general.setToolTip("<p>Equation (1) of Blumberg et al. 2019, arXiv 1907.11629.</p>")
        self.equation.setToolTip("<p>The same with the present α: the weight of every term.</p>")
        self.branches = QPushButton("Show branches")
        self.branches.setCheckable(True)
        self.branches.setToolTip(tooltip("branch") + tooltip("contribution"))
        self.branches.toggled.connect(self.branches_wanted)
        self._controls = self._arranged()
        layout = QVBoxLayout(self)
        layout.addWidget(self.words)
        layout.addWidget(self.diagram)
        layout.addWidget(self._controls)
        layout.addStretch()
        self.clear()

    @property
    def alpha(self) -> float:
        """α as it is set now."""
        return self._alpha

    def set_model(self, parts: Outline, alpha: float) -> None:
        """Show a model with its own α. Nothing is emitted but that branches are not wanted now."""
        self._parts, self._model_alpha = parts, alpha
        self.branches.setChecked(False)
        self.diagram.set_model(parts)
        self.reset.setToolTip(f"Set α back to the model’s own, {alpha:.2f}")
        self._show_alpha(alpha)
        self.words.setText(_why_no_stages(parts))
        self.words.setVisible(not parts.branches)
        self._controls.setVisible(bool(parts.branches))

    def clear(self) -> None:
        """Show no model."""
        self._parts = None
        self.branches.setChecked(False)
        self.diagram.set_model(None)
        self.words.setText("No model yet: choose one to see what it is made of.")
        self.words.show()
        self._controls.hide()

    def light(self, part: str) -> None:
        """Light up the part of the diagram whose output is shown."""
        self.diagram.light(part)

    def _slid(self, value: int) -> None:
        self._set_alpha(value / STEPS)
        if not self.slider.isSliderDown():
            self.alpha_released.emit(self._alpha)

    def _reset(self) -> None:
        self._set_alpha(self._model_alpha)
        self.alpha_released.emit(self._alpha)

    def _set_alpha(self, alpha: float) -> None:
        self._show_alpha(alpha)
        self.alpha_changed.emit(alpha)

    def _show_alpha(self, alpha: float) -> None:
        self._alpha = alpha
        was_blocked = self.slider.blockSignals(True)
        self.slider.setValue(round(alpha * STEPS))
        self.slider.blockSignals(was_blocked)
        self.value.setText(f"{alpha:.2f}")
        self.reset.setEnabled(alpha != self._model_alpha)
        self.diagram.set_alpha(alpha)
        if self._parts is not None and self._parts.branches:
            self.equation.setText(equation(self._parts, alpha))

    def _arranged(self) -> QWidget:
        controls = QWidget()
        layout = QVBoxLayout(controls)
        layout.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        label = QLabel("<i>α</i>")
        for widget in (label, self.slider, self.value):
            widget.setToolTip(tooltip("α"))
            row.addWidget(widget)
        row.setStretchFactor(self.slider, 1)
        row.addWidget(self.reset)
        layout.addLayout(row)
        layout.addWidget(self.general)
        layout.addWidget(self.equation)
        layout.addWidget(self.branches)
        return controls


def _wrapping(label: QLabel) -> QLabel:
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Ignored, QSizePolicy.Minimum)
    return label


def _why_no_stages(parts: Outline) -> str:
    if parts.kind == "msp":
        return (
            f"This MSP has {parts.target} as its only target: there are no branches, and its "
            "prediction is the first stage whatever α is."
        )
    return f"{parts.title} predicts {parts.target} in one stage: it has neither α nor branches."
