"""The form of Load acquisition: which scan, and what is known about it."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QComboBox

from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.gradients import B0_MAXIMUM, LARGEST_B0
from napari_msp.ui.glossary import tooltip
from napari_msp.ui.load.examine import LoadChoice, LoadFindings
from napari_msp.ui.phrasing import LOAD_LABELS
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
from napari_msp.ui.widgets.message import Notices, Sentences, breakable, readable
from napari_msp.ui.widgets.path_field import NIFTI, ExaminedForm, PathField

TEACHING = (
    "Choose a diffusion-weighted image with its .bval and .bvec beside it, the folder of a BIDS "
    "dataset of travelling heads, or a folder of DICOM files. You can also drop any of them here."
)

PATHS = ("path", "mask", "bval", "bvec")
"""Names of the fields that hold files."""


class AcquisitionForm(ExaminedForm):
    """The form of a scan to load; `act_wanted` asks to load."""

    choice: LoadChoice
    findings: LoadFindings

    def __init__(self) -> None:
        super().__init__()
        self.choice = LoadChoice()
        self.findings = LoadFindings()
        self.path = PathField("Choose a diffusion-weighted image", NIFTI, folders=True)
        self.series = QComboBox()
        self.subject = QComboBox()
        self.platform = QComboBox()
        self.run = QComboBox()
        self.shell = QComboBox()
        self.mask = PathField("Choose a brain mask", NIFTI)
        self.bval = PathField("Choose the b-values", "b-values (*.bval *.bvals);;All files (*)")
        self.bvec = PathField("Choose the b-vectors", "b-vectors (*.bvec *.bvecs);;All files (*)")
        self.paths = (self.path, self.mask, self.bval, self.bvec)
        self.b0_threshold = b_value_box(B0_MAXIMUM, LARGEST_B0)
        self.maps = CheckList()
        self.show_mask = QCheckBox("Show the mas&k's outline")
        self.description = readable()
        self.button = push_button(
            "Loa&d", "Fit SH to the scan and show SH average, colour FA and b0 (Enter)."
        )
        self.quality = push_button(
            "Is it an&y good?",
            "Look for slices that dropped out, volumes that moved, noise and ghosts.",
        )
        self._lay_out()
        self._connect()
        self.show_findings(LoadFindings())

    def show_findings(self, findings: LoadFindings) -> None:
        """Show findings; one of several scans is loaded only once the user could see which."""
        if findings.chose_for(self.choice):
            self._act_then = False
        super().show_findings(findings)

    def _show(self) -> None:
        """Update the entries to the findings."""
        self._list_choices()
        for name in PATHS:
            getattr(self, name).show_path(getattr(self.choice, name))
        threshold = self.choice.b0_threshold
        with QSignalBlocker(self.b0_threshold):
            self.b0_threshold.setValue(B0_MAXIMUM if threshold is None else threshold)
        self._say()

    def _lay_out(self) -> None:
        self.teaching = Sentences(TEACHING)
        self.sample = push_button(
            "Open sim&ulated heads", "A head on two platforms, simulated once and kept."
        )
        self.notices = Notices()
        self.rows, self.files = FormRows(self.notices), FormRows(self.notices)
        for rows, name, entry, term in (
            (self.rows, "path", self.path, "acquisition"),
            (self.rows, "series", self.series, "series"),
            (self.rows, "subject", self.subject, "subject"),
            (self.rows, "platform", self.platform, "platform"),
            (self.rows, "run", self.run, "run"),
            (self.rows, "b_value", self.shell, "shell"),
            (self.rows, "mask", self.mask, "mask"),
            (self.files, "bval", self.bval, "b-value"),
            (self.files, "bvec", self.bvec, "b-vector"),
            (self.files, "b0_threshold", self.b0_threshold, "b=0 threshold"),
        ):
            rows.add(name, LOAD_LABELS[name], entry, tooltip(term))
        self.section = Section("&Gradient table", self.files)
        self.maps.setAccessibleName("Maps")
        self.shown = Section("Maps", self.maps)
        above = (self.rows, self.teaching, self.sample, self.section, self.shown)
        stacked(self, *above, self.description, self.show_mask, self.quality, self.button)
        fit_into_form(
            self.series, self.subject, self.platform, self.run, self.shell, self.b0_threshold
        )

    def _connect(self) -> None:
        # Another scan has other files and shells.
        self.path.changed.connect(self._choose_path)
        self.series.activated.connect(
            lambda _: self._choose(LoadChoice(self.choice.path, series=self.series.currentData()))
        )
        for box in (self.subject, self.platform):
            box.activated.connect(lambda _: self._choose(self._chosen_scan()))
        self.run.activated.connect(
            lambda _: self._choose(replace(self._chosen_scan(), run=self.run.currentText()))
        )
        self.shell.activated.connect(
            lambda _: self._choose(replace(self.choice, b_value=self.shell.currentData()))
        )
        for name in ("mask", "bval", "bvec"):
            getattr(self, name).changed.connect(lambda name=name: self._choose_file(name))
        self.b0_threshold.valueChanged.connect(
            lambda value: self._choose(replace(self.choice, b0_threshold=value))
        )
        self.button.clicked.connect(self.act)
        on_enter(self, self.act)

    @property
    def known(self) -> TravellingHeads | None:
        """The dataset that need not be listed again; None: it may have changed."""
        return None if self.anew else self.findings.dataset

    def _choose_path(self) -> None:
        path, choice = self.path.path, self.choice
        self._choose(choice if path == choice.path else LoadChoice(path), anew=True)

    def _chosen_scan(self) -> LoadChoice:
        """Return the chosen scan without files and shell, which another scan has not."""
        subject, platform = self.subject.currentText(), self.platform.currentText()
        return LoadChoice(self.choice.path, subject=subject, platform=platform)

    def _choose_file(self, name: str) -> None:
        given: dict[str, Any] = {name: getattr(self, name).path}
        self._choose(replace(self.choice, **given))

    def _list_choices(self) -> None:
        dataset, choice = self.findings.dataset, self.choice
        if dataset is not None:
            offer(self.subject, dataset.subjects, choice.subject)
            without = [e for e in dataset.platforms if not dataset.has(choice.subject, e)]
            offer(self.platform, dataset.platforms, choice.platform, without)
        offer(self.run, self.findings.runs, choice.run)
        series = {each.stem: str(each) for each in self.findings.series}
        offer(self.series, series, choice.series)
        shells = {each.b_value: str(each) for each in self.findings.shells}
        offer(self.shell, shells, choice.b_value)
        self.shell.setEnabled(len(self.findings.shells) > 1)

    def _say(self) -> None:
        """Put the findings into words."""
        found = self.findings
        notes = {}
        if found.scan is not None and self.choice.mask is None:
            notes["mask"] = _mask_note(found)
        if found.runs and found.scan is not None:
            notes["run"] = f"Scanned {len(found.runs)} times; it is {found.scan.name}"
        for rows in (self.rows, self.files):
            for name in rows.names:
                wrong, doubt = (said.get(name, "") for said in (found.problems, found.doubts))
                rows.say(name, wrong, notes.get(name, ""), doubt)
        self.mask.line.setPlaceholderText("made from b0" if found.mask is None else "found")
        for field in (self.bval, self.bvec):
            field.line.setPlaceholderText("beside the scan")
        told = {of: escape(breakable(it)) for of, it in found.description.items()}
        self.description.setText("<br>".join(f"<b>{of}</b> {it}" for of, it in told.items()))
        if self._wrong_table:
            self.section.unfold(True)

    @property
    def _wrong_table(self) -> bool:
        """Whether a folded entry has a problem."""
        return not set(self.files.names).isdisjoint(self.findings.problems)

    def _refresh(self) -> None:
        """Show what makes sense now."""
        found = self.findings
        opened = found.scan is not None
        self.rows.show_row("series", bool(found.series))
        self.rows.show_row("run", bool(found.runs))
        for name in ("subject", "platform"):
            self.rows.show_row(name, found.dataset is not None)
        for name in ("b_value", "mask"):
            self.rows.show_row(name, opened)
        self.section.setVisible(opened or self._wrong_table)
        for part in (self.description, self.shown, self.show_mask, self.quality):
            part.setVisible(opened)
        empty = self.choice.path is None
        self.teaching.setVisible(empty)
        self.sample.setVisible(empty)
        self.button.setVisible(not empty)
        for part in (self.rows, self.files, self.maps, self.show_mask):
            part.setEnabled(not self._running)
        for button in (self.quality, self.button):
            button.setEnabled(self.can_act)


def _mask_note(found: LoadFindings) -> str:
    if found.mask is None:
        return "None was found: one is made from the image, with a warning if it looks odd"
    return f"{found.mask.name} was found"
