"""What is to be compared, and how it is looked at."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QHBoxLayout,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_msp.ui.glossary import tooltip
from napari_msp.ui.widgets.form import CheckList, FormRows

QUANTITIES = ("SH average", "colour FA")
PLANES = ("axial", "coronal", "sagittal")

NO_TRUTH, NO_SCAN = "none", "none"
OWN_SCAN = "the predictions’ own"

TRUTH = (
    "<p>The scan of the same head on the target platform, which predictions are measured "
    "against. Without one the second row shows where a model’s branches disagree.</p>"
)
PREDICTIONS = (
    "<p>Up to four images, left to right in this order. Errors are compared with the first one’s. "
    "Any image may stand here, a scan too: it shows what harmonization has to beat.</p>"
)
SCAN = "<p>The scan that was harmonized. It is shown in its own voxels.</p>"
PLANE = "<p>How the heads are cut. Right and left are as radiologists look at them.</p>"


class CompareForm(QWidget):
    """Chooses truth, predictions, input scan, map and plane.

    Signals
    -------
    show_wanted, leave_wanted
        A button was pressed.
    predictions_changed, truth_picked
        By a person.
    quantity_changed, plane_changed : str
        Another map or plane is chosen.
    """

    show_wanted = Signal()
    leave_wanted = Signal()
    predictions_changed = Signal()
    truth_picked = Signal()
    quantity_changed = Signal(str)
    plane_changed = Signal(str)

    def __init__(self, parent: QWidget | None = None, *, most: int = 4) -> None:
        super().__init__(parent)
        self._most = most
        self.truths, self.scans, self.planes = QComboBox(), QComboBox(), QComboBox()
        self.predictions_list = CheckList()
        for combo in (self.truths, self.scans):
            combo.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.planes.addItems(PLANES)
        self.quantities = {name: QRadioButton(name) for name in QUANTITIES}
        self._group = QButtonGroup(self)
        for name, button in self.quantities.items():
            button.setToolTip(tooltip(name))
            self._group.addButton(button)
        self.quantities[QUANTITIES[0]].setChecked(True)
        self.show_button = QPushButton("&Show")
        self.show_button.setToolTip("<p>Lay the images out as Figure 3 of the paper.</p>")
        self.leave_button = QPushButton("L&eave comparison")
        self.leave_button.setToolTip("<p>Take the cells away and show your layers again.</p>")
        self.rows = self._arranged()
        self.offer((), (), ())
        self._connect()

    @property
    def truth(self) -> str:
        """Text of the truth; "" for none."""
        return str(self.truths.currentText()) if self.truths.currentIndex() > 0 else ""

    @property
    def predictions(self) -> list[str]:
        """Texts of the predictions."""
        return self.predictions_list.checked

    @property
    def scan(self) -> str | None:
        """Text of the input; "" for what the predictions were made from, None for none."""
        index = self.scans.currentIndex()
        return str(self.scans.currentText()) if index > 1 else ("", None)[max(index, 0)]

    @property
    def quantity(self) -> str:
        """The chosen map."""
        return str(self._group.checkedButton().text())

    def offer(
        self, truths: Sequence[str], predictions: Sequence[str], scans: Sequence[str]
    ) -> None:
        """Give what can be chosen; what was chosen stays so where it is still there."""
        kept = self.predictions
        _refill(self.truths, [NO_TRUTH, *truths])
        _refill(self.scans, [OWN_SCAN, NO_SCAN, *scans])
        if list(predictions) != self.predictions_list.names:
            self.predictions_list.set_names(predictions, kept)
        self._check()

    def choose(self, truth: str, predictions: Sequence[str]) -> None:
        """Choose for a person."""
        self.predictions_list.set_names(self.predictions_list.names, predictions)
        self.choose_truth(truth)  # last: who follows the predictions may choose another

    def choose_truth(self, truth: str) -> None:
        """Choose a truth; "" or one that is not offered: none."""
        self.truths.setCurrentIndex(max(0, self.truths.findText(truth)) if truth else 0)

    def show_plane(self, plane: str) -> None:
        """Tell which plane is shown; nothing is emitted."""
        before = self.planes.blockSignals(True)
        self.planes.setCurrentText(plane)
        self.planes.blockSignals(before)

    def show_active(self, active: bool) -> None:
        """Tell whether a comparison is shown."""
        self.leave_button.setEnabled(active)
        self.planes.setEnabled(active)

    def _check(self) -> None:
        """Say what is wrong before it is asked for."""
        chosen, problem, note = self.predictions, "", ""
        if not self.predictions_list.names:
            note = "Nothing to compare yet: load a scan and harmonize it."
        elif not chosen:
            note = "Tick at least one."
        elif len(chosen) > self._most:
            problem = f"{len(chosen)} are ticked; at most {self._most} fit beside each other."
        elif self.truth in chosen:
            note = f"{self.truth} is compared with itself."
        self.rows.say("predictions", problem, note)
        self.show_button.setEnabled(bool(chosen) and not problem)

    def _connect(self) -> None:
        self.predictions_list.changed.connect(self._check)
        self.predictions_list.changed.connect(self.predictions_changed)
        self.truths.currentIndexChanged.connect(self._check)
        self.truths.activated.connect(self.truth_picked)
        self.planes.currentTextChanged.connect(self.plane_changed)
        self.show_button.clicked.connect(self.show_wanted)
        self.leave_button.clicked.connect(self.leave_wanted)
        for name, button in self.quantities.items():
            button.toggled.connect(
                lambda on, name=name: self.quantity_changed.emit(name) if on else None
            )

    def _arranged(self) -> FormRows:
        rows, maps, layout = FormRows(), QWidget(), QVBoxLayout(self)
        beside = QHBoxLayout(maps)
        beside.setContentsMargins(0, 0, 0, 0)
        for button in self.quantities.values():
            beside.addWidget(button)
        beside.addStretch()
        rows.add("predictions", "P&redictions", self.predictions_list, PREDICTIONS)
        rows.add("truth", "Ground &truth", self.truths, TRUTH)
        rows.add("scan", "&Input scan", self.scans, SCAN)
        rows.add("map", "Map", maps, "")
        rows.add("plane", "Pla&ne", self.planes, PLANE)
        buttons = QHBoxLayout()
        buttons.addWidget(self.show_button, 1)
        buttons.addWidget(self.leave_button)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(rows)
        layout.addLayout(buttons)
        self.show_active(False)
        return rows


def _refill(combo: QComboBox, texts: Sequence[str]) -> None:
    if [combo.itemText(index) for index in range(combo.count())] == list(texts):
        return
    kept, before = combo.currentText(), combo.blockSignals(True)
    combo.clear()
    combo.addItems(list(texts))
    combo.setCurrentIndex(max(0, combo.findText(kept)))
    combo.blockSignals(before)
