"""Which heads shall be laid on each other, and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLineEdit, QWidget

from napari_msp.data.gradients import B0_MAXIMUM, LARGEST_B0
from napari_msp.ui.align.aligning import LABELS, Choice, Findings
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.widgets.form import (
    CheckList,
    FormRows,
    Section,
    fit_into_form,
    offer,
    on_enter,
    push_button,
    stacked,
)
from napari_msp.ui.widgets.path_field import PathField, dropped_path

TIPS = {
    "dataset": "<p>Folder with sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii.gz: people who were "
    "scanned on several platforms. It is only read.</p>",
    "out": "<p>Made anew: a dataset with the aligned scans, the motions and a report.</p>",
    "resample": "<p>Without this, a motion is written into the scan's affine, and no voxel is "
    "touched. With it, images are interpolated by cubic splines, once, onto the input's lattice, "
    "for tools that need one lattice.</p>",
    "affine": "<p>Rigid: shift and turn. Affine: stretch and shear, too, which only interpolated "
    "images can show.</p>",
    "subjects": "<p>Who is aligned; nobody ticked: all.</p>",
    "voxel_size": "<p>Interpolates the input, too, to cubes of this edge; auto: of its smallest "
    "edge.</p>",
    "run": "<p>Which scan is meant, where one was repeated.</p>",
}

MOTIONS = ("rigid: shift and turn", "affine: stretch and shear, too")

OTHERS = ("subjects", "voxel_size", "run", "b0_threshold")
"""For those who look for them."""


class AlignForm(QWidget):
    """The form.

    Whoever shows it looks at what `changed` carries, and gives what was found back by
    `show_findings`; until then nothing can be aligned.

    Attributes
    ----------
    changed : Choice
        Something else was chosen.
    align_wanted
        Align was pressed, by mouse or by Enter; only when what was found can be aligned.
    """

    changed = Signal(object)
    align_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.choice = Choice()
        self.findings = Findings()
        self._looking, self._align_then, self._running = False, False, False
        self.dataset = PathField("Choose a dataset")
        self.out = PathField("Choose an output folder")
        self.input = QComboBox()
        self.resample = QCheckBox("interpolate onto the input's lattice")
        self.affine = QComboBox()
        self.affine.addItems(MOTIONS)
        self.subjects = CheckList()
        self.voxel_size, self.run = QLineEdit(), QLineEdit()
        self.voxel_size.setPlaceholderText("voxels stay as they are")
        self.run.setPlaceholderText("nothing was scanned twice")
        self.b0_threshold = QDoubleSpinBox()
        self.b0_threshold.setRange(0, LARGEST_B0)
        self.b0_threshold.setDecimals(0)
        self.b0_threshold.setSuffix(" s/mm²")
        self.b0_threshold.setValue(B0_MAXIMUM)
        self.b0_threshold.setKeyboardTracking(False)
        self.button = push_button(
            "A&lign", "Lay each subject's scans on that subject's head on the input (Enter)."
        )
        self.setAcceptDrops(True)
        self._lay_out()
        self._connect()

    def show_findings(self, findings: Findings) -> None:
        """Show what was found, the choices it leaves and what is wrong."""
        self.findings, self.choice, self._looking = findings, findings.choice, False
        heads, choice = findings.heads, self.choice
        self.dataset.show_path(choice.dataset)
        self.out.show_path(choice.out)
        if heads is not None:
            unmarked = [] if choice.input else [""]
            offer(self.input, [*unmarked, *heads.platforms], choice.input)
            with QSignalBlocker(self.subjects):
                self.subjects.set_names(heads.subjects, choice.subjects)
        for rows in (self.rows, self.others):
            for name in rows.names:
                problem, doubt = findings.problems.get(name, ""), findings.doubts.get(name, "")
                rows.say(name, problem, "" if problem else findings.notes.get(name, ""), doubt)
        if set(OTHERS) & set(findings.problems):
            self.section.unfold(True)
        self._refresh()
        wanted, self._align_then = self._align_then, False
        if wanted and findings.ready:
            self.align_wanted.emit()

    def set_running(self, running: bool) -> None:
        """Let nothing be changed while heads are aligned."""
        self._running = running
        self._refresh()

    def align(self) -> None:
        """Ask for the work; once what was chosen last has been looked at."""
        for path in (self.dataset, self.out):
            path.settle()
        if self._looking:
            self._align_then = True
        elif self.findings.ready and not self._running:
            self.align_wanted.emit()

    def dragEnterEvent(self, event: Any) -> None:  # noqa: N802
        """Welcome a folder anywhere."""
        if dropped_path(event) and not self._running:
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:  # noqa: N802
        """Take it as the dataset."""
        event.acceptProposedAction()
        self.dataset.choose(dropped_path(event))

    def _lay_out(self) -> None:
        self.rows, self.others = FormRows(), FormRows()
        tips = TIPS | {
            "input": tooltip("input"),
            "b0_threshold": tooltip("b=0 threshold"),
        }
        for name, label in LABELS.items():
            rows = self.others if name in OTHERS else self.rows
            rows.add(name, label, getattr(self, name), tips[name])
        self.section = Section("Ad&vanced", self.others)
        stacked(self, self.rows, self.section, self.button)
        fit_into_form(self.input, self.affine, self.b0_threshold)

    def _connect(self) -> None:
        # Another dataset has other platforms and subjects, and runs of its own.
        self.dataset.changed.connect(self._choose_dataset)
        self.out.changed.connect(lambda: self._choose(out=self.out.path))
        self.input.activated.connect(lambda _: self._choose(input=self.input.currentText()))
        self.resample.toggled.connect(lambda on: self._choose(resample=on))
        self.affine.activated.connect(lambda row: self._choose(affine=row == 1))
        self.subjects.changed.connect(lambda: self._choose(subjects=tuple(self.subjects.checked)))
        self.voxel_size.editingFinished.connect(
            lambda: self._choose(voxel_size=_edge(self.voxel_size.text()))
        )
        self.run.editingFinished.connect(lambda: self._choose(run=self.run.text().strip() or None))
        self.b0_threshold.valueChanged.connect(lambda value: self._choose(b0_threshold=value))
        self.button.clicked.connect(self.align)
        on_enter(self, self.align)

    def _choose_dataset(self) -> None:
        self.run.clear()
        self._choose(dataset=self.dataset.path, input="", subjects=(), run=None)

    def _choose(self, **given: Any) -> None:
        choice = replace(self.choice, **given)
        if choice == self.choice:
            return
        self.choice, self._looking = choice, True
        self._refresh()
        self.changed.emit(choice)

    def _refresh(self) -> None:
        """Show what makes sense now."""
        found, choice = self.findings, self.choice
        known = found.heads is not None
        for name in ("input", "resample", "affine"):
            self.rows.show_row(name, known)
        self.rows.show_row("out", choice.dataset is not None)
        for name in ("subjects", "voxel_size"):
            self.others.show_row(name, known)
        self.section.setVisible(choice.dataset is not None)
        self.button.setVisible(choice.dataset is not None)
        cubes = choice.voxel_size is not None
        with QSignalBlocker(self.resample):
            self.resample.setChecked(choice.interpolates)
        with QSignalBlocker(self.affine):
            self.affine.setCurrentIndex(int(choice.affine and choice.interpolates))
        self.rows.enable("resample", not cubes)
        self.rows.enable("affine", choice.interpolates)
        for part in (self.rows, self.others):
            part.setEnabled(not self._running)
        self.button.setEnabled(found.ready and not self._running and not self._looking)


def _edge(text: str) -> float | str | None:
    """Read an edge in mm; what is none is refused where it is looked at."""
    text = text.strip()
    try:
        return float(text.replace(",", ".")) if text else None
    except ValueError:
        return text
