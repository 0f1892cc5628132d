"""The form of Align: which heads are aligned, and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit

from napari_msp.data.gradients import B0_MAXIMUM, LARGEST_B0
from napari_msp.ui.align.aligning import LABELS, AlignChoice, AlignFindings
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.widgets.form import (
    CheckList,
    FormRows,
    Section,
    b_value_box,
    fit_into_form,
    offer,
    on_enter,
    push_button,
    stacked,
)
from napari_msp.ui.widgets.message import Notices
from napari_msp.ui.widgets.path_field import ExaminedForm, PathField

TIPS = {
    "dataset": "<p>Folder with sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii.gz of people who were "
    "scanned on several platforms. Align only reads it.</p>",
    "out": "<p>New folder for a dataset of the aligned scans, with their motions and a report.</p>",
    "resample": "<p>Without this, Align writes the motion into the scan's affine and touches no "
    "voxel. With it, Align interpolates images by cubic splines, once, onto the input's voxel "
    "grid, "
    "for tools that need one voxel grid.</p>",
    "affine": "<p>Rigid: shift and turn. Affine: stretch and shear, too, which only interpolated "
    "images can show.</p>",
    "subjects": "<p>Tick subjects to align. If none is ticked, all are aligned.</p>",
    "voxel_size": "<p>Interpolate the input, too, to cubes of this edge; auto: of its smallest "
    "edge.</p>",
    "run": "<p>Which scan to use if one was repeated.</p>",
}

MOTIONS = ("rigid: shift and turn", "affine: stretch and shear, too")

OTHERS = ("subjects", "voxel_size", "run", "b0_threshold")
"""Fields of the Advanced section."""


class AlignForm(ExaminedForm):
    """The form of an alignment; `act_wanted` asks to align."""

    choice: AlignChoice
    findings: AlignFindings

    def __init__(self) -> None:
        super().__init__()
        self.choice = AlignChoice()
        self.findings = AlignFindings()
        self.dataset = PathField("Choose a dataset")
        self.out = PathField("Choose an output folder")
        self.paths = (self.dataset, self.out)
        self.input = QComboBox()
        self.resample = QCheckBox("interpolate onto the input's voxel grid")
        self.affine = QComboBox()
        self.affine.addItems(MOTIONS)
        self.subjects = CheckList()
        self.voxel_size, self.run = QLineEdit(), QLineEdit()
        self.voxel_size.setPlaceholderText("voxels stay as they are")
        self.run.setPlaceholderText("the only one")
        self.b0_threshold = b_value_box(B0_MAXIMUM, LARGEST_B0)
        self.button = push_button(
            "Align", "Align each subject's scans with that subject's scan on the input (Enter)."
        )
        self._lay_out()
        self._connect()

    def _show(self) -> None:
        """Update the entries to the findings."""
        findings, choice = self.findings, self.choice
        heads = findings.heads
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

    def _lay_out(self) -> None:
        self.notices = Notices()
        self.rows, self.others = FormRows(self.notices), FormRows(self.notices)
        tips = TIPS | {
            "input": tooltip("input"),
            "b0_threshold": tooltip("b=0 threshold"),
        }
        for name, label in LABELS.items():
            rows = self.others if name in OTHERS else self.rows
            rows.add(name, label, getattr(self, name), tips[name])
        self.section = Section("Advanced", self.others)
        stacked(self, self.rows, self.section, self.button)
        fit_into_form(self.input, self.affine, self.b0_threshold)

    def _connect(self) -> None:
        # Another dataset has other platforms and subjects, and runs of its own.
        self.dataset.changed.connect(self._choose_dataset)
        self.out.changed.connect(lambda: self._set(out=self.out.path))
        self.input.activated.connect(lambda _: self._set(input=self.input.currentText()))
        self.resample.toggled.connect(lambda on: self._set(resample=on))
        self.affine.activated.connect(lambda row: self._set(affine=row == 1))
        self.subjects.changed.connect(lambda: self._set(subjects=tuple(self.subjects.checked)))
        self.voxel_size.editingFinished.connect(
            lambda: self._set(voxel_size=_edge(self.voxel_size.text()))
        )
        self.run.editingFinished.connect(lambda: self._set(run=self.run.text().strip() or None))
        self.b0_threshold.valueChanged.connect(lambda value: self._set(b0_threshold=value))
        self.button.clicked.connect(self.act)
        on_enter(self, self._enter)

    def _enter(self) -> None:
        """Act, unless Enter ends a path: nobody has seen yet what folder follows from it."""
        known = self.findings
        self.settle()
        if known is self.findings and not self._looking:
            self.act()

    @property
    def known(self) -> AlignFindings:
        """Earlier findings, without the dataset where that may have changed."""
        return replace(self.findings, heads=None) if self.anew else self.findings

    def _choose_dataset(self) -> None:
        if self.dataset.path == self.choice.dataset:
            self._choose(self.choice, anew=True)
            return
        self.run.clear()
        self._set(dataset=self.dataset.path, input="", subjects=(), run=None)

    def _set(self, **given: Any) -> None:
        choice = replace(self.choice, **given)
        if choice != self.choice:
            self._choose(choice)

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
        self.button.setEnabled(self.can_act)


def _edge(text: str) -> float | str | None:
    """Return an edge in mm, or the text where it is no number, which `examine` refuses."""
    text = text.strip()
    try:
        return float(text.replace(",", ".")) if text else None
    except ValueError:
        return text
