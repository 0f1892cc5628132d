"""The form of Compare: which images are compared, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QWidget
from superqt.utils import signals_blocked

from napari_msp.signal.glyphs import TITLES as GLYPH_TITLES
from napari_msp.signal.glyphs import Kind
from napari_msp.signal.maps import MAPS
from napari_msp.ui.glossary import TERMS, tooltip
from napari_msp.ui.viewer_axes import ORDERS
from napari_msp.ui.widgets.form import (
    CheckList,
    FoldButton,
    FormRows,
    fit_into_form,
    in_row,
    offer,
    push_button,
    stacked,
)
from napari_msp.ui.widgets.message import Notices, Sentences
from napari_msp.ui.widgets.windows import Heading

LABELS = {
    "b_value": "Shell",
    "predictions": "P&redictions",
    "truth": "Ground &truth",
    "input_image": "&Input scan",
    "maps": "&Map",
    "errors": "Error &as",
    "glyphs": "Gl&yphs",
    "axis": "Pla&ne",
}
"""Labels of the rows, by the library's name of the parameter."""

CHOICE = ("b_value", "predictions", "truth", "input_image")
"""Rows that act when Show is pressed; the others act at once."""

SHOW, ANOTHER = "Sh&ow", "Sh&ow this choice"
"""Texts of the button: usual, and while the cells show another choice."""

NO_TRUTH, NO_SCAN = "none", "none"
OWN_SCAN = "the predictions’ own"

SHELL = (
    "<p>Predictions of several shells are compared shell by shell. Truth and input scan are taken "
    "at the same b-value, if they have it.</p>"
)
TRUTH = (
    "<p>The scan of the same head on the target platform: predictions are measured against it. "
    "Without one, the second row shows the expected error of calibrated models, or else where a "
    "model’s branches disagree.</p>"
)
PREDICTIONS = (
    "<p>Up to four images, left to right in this order. Errors are compared with the first one’s. "
    "Any image may stand here, also a scan: it shows what harmonization has to beat.</p>"
)
SCAN = "<p>The scan that was harmonized. It is shown in its own voxels.</p>"
MAP = "<p>The map to show of each image, and to measure errors of.</p>"
SQUARED, SIGNED = "squared error", "signed difference"
ERRORS = (
    "<p>The squared error says how far a prediction is from the truth, the signed difference also "
    "to which side: blue is too low, orange too high. Maps in colours have no sign.</p>"
)
NO_SIGN = "Colours have no sign: the squared error is shown."
KEYS = "Hold G: truth, H: input. Q: glyphs."
NO_GLYPHS = "none"
GLYPHS = (
    "<p>The voxels around the crosshair as surfaces, coloured by direction: red left-right, green "
    "front-back, blue up-down.</p><p><b>ODF</b>: how much diffuses along each direction, by "
    "analytical q-ball imaging, from each voxel’s smallest to its largest value: compare shapes, "
    "not sizes. Where nothing has a direction, noise is drawn large. <b>Signal</b>: S/S₀ of each "
    "gradient direction, on one scale for all cells; it is weakest along fibres.</p>"
)
PLANE = "<p>The plane to show. Right and left are as radiologists look at them.</p>"


class CompareForm(QWidget):
    """Entries for truth, predictions, input scan, map and plane.

    Parameters
    ----------
    heading
        Heading of the widget, which the form's title leads; None: there is none.
    most
        Number of predictions that may be ticked.

    Attributes
    ----------
    what
        Button that folds the choices away, for a low window.
    map_changed, plane_changed : str
        Emitted when another map (by its name in `MAPS`) or plane is chosen.
    errors_changed
        Emitted when errors are to be shown with or without their sign.
    glyphs_changed
        Emitted when other glyphs are chosen, or none.
    shell_changed
        Emitted when the user chose another shell, before its images are chosen.
    """

    shell_changed = Signal()
    map_changed = Signal(str)
    errors_changed = Signal()
    glyphs_changed = Signal()
    plane_changed = Signal(str)

    def __init__(self, heading: Heading | None = None, *, most: int = 4) -> None:
        super().__init__()
        self._most = most
        self._drawn: tuple[Any, ...] | None = None
        self.truths, self.scans, self.shells = QComboBox(), QComboBox(), QComboBox()
        self.maps, self.planes, self.errors = QComboBox(), QComboBox(), QComboBox()
        self.errors.addItems([SQUARED, SIGNED])
        self.glyphs = QComboBox()
        offer(self.glyphs, {None: NO_GLYPHS, **GLYPH_TITLES})
        self.predictions_list = CheckList()
        boxes = (self.truths, self.scans, self.shells, self.maps, self.planes, self.errors)
        fit_into_form(*boxes, self.glyphs)
        self.planes.addItems(list(ORDERS))
        for number, (name, each) in enumerate(MAPS.items()):
            self.maps.addItem(each.title, name)
            if each.title in TERMS:  # a map of the registry needs no entry in the glossary
                self.maps.setItemData(number, tooltip(each.title), Qt.ToolTipRole)
        self.show_button = push_button(SHOW, "<p>Lay the images out as Figure 3 of the paper.</p>")
        self.leave_button = push_button(
            "L&eave comparison", "<p>Remove the cells and show your layers again.</p>"
        )
        self.notices, self.keys = Notices(), Sentences(KEYS)
        self.what = FoldButton("What to compare", True)
        self.rows = self._arranged(heading)
        self.show_active(False)
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
        """Text of the input; "" for the one that predictions were made from, None for none."""
        index = self.scans.currentIndex()
        return str(self.scans.currentText()) if index > 1 else ("", None)[max(index, 0)]

    @property
    def shell(self) -> int | None:
        """Name of the chosen shell; None where there is no choice."""
        known: int | None = self.shells.currentData()
        return known

    @property
    def map_name(self) -> str:
        """Name of the chosen map in `MAPS`."""
        return str(self.maps.currentData())

    @property
    def signed(self) -> bool:
        """Whether errors are wanted with their sign."""
        return str(self.errors.currentText()) == SIGNED

    @property
    def glyph_kind(self) -> Kind | None:
        """Kind of glyphs around the crosshair; None: none."""
        chosen: Kind | None = self.glyphs.currentData()
        return chosen

    @property
    def asked(self) -> tuple[Any, ...]:
        """Choices that act only when Show is pressed."""
        return self.truth, tuple(self.predictions), self.scan, self.shell

    def mark_drawn(self, asked: tuple[Any, ...] | None) -> None:
        """Record the choice that the cells show (None: none); Show then says if it differs."""
        self._drawn = asked
        if asked is None:
            self.what.setChecked(True)
        self._check()

    def _change_map(self) -> None:
        self.errors.setEnabled(not MAPS[self.map_name].coloured)  # colours have no sign
        self.map_changed.emit(self.map_name)

    def next_glyphs(self) -> None:
        """Choose the next kind of glyphs; none follows the last."""
        self.glyphs.setCurrentIndex((self.glyphs.currentIndex() + 1) % self.glyphs.count())

    def offer(
        self,
        truths: Sequence[str],
        predictions: Sequence[str],
        scans: Sequence[str],
        shells: Sequence[int] = (),
    ) -> None:
        """Offer choices; what was chosen stays chosen where it is still there."""
        self._offer_shells(shells)
        kept = self.predictions
        offer(self.truths, [NO_TRUTH, *truths])
        offer(self.scans, [OWN_SCAN, NO_SCAN, *scans])
        if list(predictions) != self.predictions_list.names:
            self.predictions_list.set_names(predictions, kept)
        self._check()

    def choose_shell(self, shell: int | None) -> None:
        """Choose a shell from code; nothing is emitted."""
        self.shells.setCurrentIndex(max(0, self.shells.findData(shell)))

    def choose(self, truth: str, predictions: Sequence[str]) -> None:
        """Choose truth and predictions from code."""
        self.predictions_list.set_names(self.predictions_list.names, predictions)
        self.choose_truth(truth)  # last: a change of predictions may suggest another

    def choose_truth(self, truth: str) -> None:
        """Choose a truth; "" or one that is not offered: none."""
        self.truths.setCurrentIndex(max(0, self.truths.findText(truth)) if truth else 0)

    def show_plane(self, plane: str) -> None:
        """Choose the plane that is shown; nothing is emitted."""
        with signals_blocked(self.planes):
            self.planes.setCurrentText(plane)

    def show_active(self, active: bool) -> None:
        """Enable what can be done only while a comparison is shown."""
        self.leave_button.setEnabled(active)
        self.planes.setEnabled(active)
        self.glyphs.setEnabled(active)

    def _offer_shells(self, shells: Sequence[int]) -> None:
        several = shells if len(shells) > 1 else ()
        offer(self.shells, {shell: f"b = {shell} s/mm²" for shell in several})
        self._fold(self.what.isChecked())

    def _fold(self, unfolded: bool) -> None:
        """Show all entries, or only those that act at once."""
        for name in CHOICE:
            self.rows.show_row(name, unfolded and (name != "b_value" or self.shells.count() > 0))
        self.keys.setVisible(unfolded)

    def _check(self) -> None:
        """Say what is wrong before Show is pressed."""
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
        no_sign = self.signed and MAPS[self.map_name].coloured
        self.rows.say("errors", note=NO_SIGN if no_sign else "")
        self.show_button.setEnabled(bool(chosen) and not problem)
        another = self._drawn is not None and self._drawn != self.asked
        self.show_button.setText(ANOTHER if another else SHOW)
        font = self.show_button.font()
        font.setBold(another)
        self.show_button.setFont(font)

    def _connect(self) -> None:
        self.predictions_list.changed.connect(self._check)
        self.truths.currentIndexChanged.connect(self._check)
        for each in (self.scans, self.maps, self.errors):
            each.currentIndexChanged.connect(self._check)
        self.what.toggled.connect(self._fold)
        self.shells.activated.connect(lambda _: self.shell_changed.emit())
        self.planes.currentTextChanged.connect(self.plane_changed)
        self.maps.currentIndexChanged.connect(lambda _: self._change_map())
        self.errors.currentIndexChanged.connect(lambda _: self.errors_changed.emit())
        self.glyphs.currentIndexChanged.connect(lambda _: self.glyphs_changed.emit())

    def _arranged(self, heading: Heading | None) -> FormRows:
        rows, buttons = FormRows(self.notices), in_row(self.show_button, self.leave_button)
        for name, entry, meaning in (
            ("b_value", self.shells, SHELL),
            ("predictions", self.predictions_list, PREDICTIONS),
            ("truth", self.truths, TRUTH),
            ("input_image", self.scans, SCAN),
            ("maps", self.maps, MAP),
            ("errors", self.errors, ERRORS),
            ("glyphs", self.glyphs, GLYPHS),
            ("axis", self.planes, PLANE),
        ):
            rows.add(name, LABELS[name], entry, meaning, beside=name == "axis")
        buttons.setStretchFactor(self.show_button, 1)
        if heading is not None:
            heading.lead(self.what)
        stacked(self, heading or self.what, rows, self.keys, buttons)
        return rows
