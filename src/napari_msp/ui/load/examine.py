"""Examine a choice of files quickly: of all voxels only a mask's are read. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from nibabel.orientations import aff2axcodes

from napari_msp.arrays import FloatArray
from napari_msp.bids import dataset_root, marked_input
from napari_msp.data.acquisition import Acquisition, open_unmasked, with_mask
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.dicom import Converted, Series, kept_conversion, looks_like_dicom
from napari_msp.data.gradients import Shell
from napari_msp.data.lattice import direction_cosines
from napari_msp.errors import Advice, Remedy, UserError, either
from napari_msp.formatting import counted
from napari_msp.scan import Scan
from napari_msp.signal.fitting import order_for, poor_directions, supported_order, unfit_for_sh
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count
from napari_msp.ui.phrasing import LOAD_LABELS, LOAD_WORDS, said
from napari_msp.ui.preferences import kept_in
from napari_msp.ui.reader import scans_in
from napari_msp.ui.reading import usual_shell

Result = TypeVar("Result")

OBLIQUE = 1.0
"""Angle in degrees between voxel and scanner axes from which it is mentioned (our choice)."""


@dataclass(frozen=True)
class LoadChoice:
    """The form's answers; None and "" leave them to what is found.

    Attributes
    ----------
    path
        Scan, or a folder: a BIDS dataset, one with a single scan, or DICOM files.
    subject, platform, run
        Scan in a dataset; the run where it was repeated.
    b_value
        Shell in s/mm².
    mask, bval, bvec
        Files that replace those beside the scan.
    b0_threshold
        Largest b-value in s/mm² that counts as b=0.
    series
        DICOM series, by the name of its image: in a folder of two sessions numbers are shared.
    """

    path: Path | None = None
    subject: str = ""
    platform: str = ""
    b_value: float | None = None
    mask: Path | None = None
    bval: Path | None = None
    bvec: Path | None = None
    b0_threshold: float | None = None
    series: str = ""
    run: str = ""


@dataclass(frozen=True)
class LoadFindings:
    """Findings about a choice.

    Attributes
    ----------
    choice
        Choice, with subject, platform and shell filled in where they were left open.
    dataset
        Dataset that the folder is or lies in.
    series
        DWIs of a folder of DICOM files.
    runs
        Runs of the chosen scan, where it was repeated.
    scan
        Image; None where there is none that can be opened.
    shells
        Shells of the scan, lowest b-value first.
    mask
        Mask that will be used; None: one is made.
    description
        Description of the scan, in words by topic.
    problems, doubts
        Texts by field of `LoadChoice`; a problem prevents the scan from being loaded.
    """

    choice: LoadChoice = LoadChoice()
    dataset: TravellingHeads | None = None
    series: tuple[Series, ...] = ()
    runs: tuple[str, ...] = ()
    scan: Path | None = None
    shells: tuple[Shell, ...] = ()
    mask: Path | None = None
    description: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)

    def chose_for(self, choice: LoadChoice) -> bool:
        """Return whether one of several scans was taken although the choice names none of them."""
        scans = 0 if self.dataset is None else len(self.dataset.scans)
        unnamed = scans > 1 and not (choice.subject and choice.platform)
        return unnamed or (len(self.series) > 1 and not choice.series)

    @property
    def files(self) -> dict[str, Any]:
        """Table, mask and b=0 threshold, by their names in `load_acquisition`."""
        chosen = {name: getattr(self.choice, name) for name in ("bval", "bvec", "b0_threshold")}
        return {**chosen, "mask": self.mask}

    @property
    def ready(self) -> bool:
        """Whether the scan can be loaded."""
        return self.scan is not None and not self.problems


def examine(
    choice: LoadChoice, known: TravellingHeads | None = None, cache: Path | None = None
) -> LoadFindings:
    """Examine a choice.

    Parameters
    ----------
    choice
        Choice; its subject and platform count for a folder only.
    known
        Dataset that was listed before, and is not listed again.
    cache
        Folder in which converted DICOM is kept; None: DICOM is not read.
    """
    return _Examination(choice, cache).findings(known)


def _converted(folder: Path, cache: Path) -> Converted:
    with kept_in(cache):
        return kept_conversion(folder, cache)


class _Examination:
    """An examination, which collects what is wrong with a choice."""

    def __init__(self, choice: LoadChoice, cache: Path | None) -> None:
        self.choice, self.cache = choice, cache
        self.problems: dict[str, str] = {}
        self.doubts: dict[str, str] = {}

    def findings(self, known: TravellingHeads | None) -> LoadFindings:
        """Examine everything but what depends on something wrong."""
        given = self.choice.path
        if given is None:
            return LoadFindings(self.choice)
        scan, dataset = given, None
        series: tuple[Series, ...] = ()
        runs: Mapping[str, Path] = {}
        cache = self.cache
        if cache is not None and given.is_dir() and looks_like_dicom(given):
            made = self._try("path", lambda: _converted(given, cache))
            if made is None:
                return LoadFindings(self.choice, problems=self.problems)
            series = made.usable
            chosen = self._try("series", lambda: self._series(made))
            if chosen is None:
                return LoadFindings(self.choice, series=series, problems=self.problems)
            scan = chosen.path
            doubts = [f"broken: {each}" for each in made.broken]
            doubts += ["dcm2niix: " + "; ".join(made.warnings)] if made.warnings else []
            if doubts:
                self.doubts["series"] = "; ".join(doubts)
            self.choice = replace(self.choice, series=chosen.stem)
        elif given.is_dir() and (alone := _only_scan_in(given)):
            scan = alone
        elif given.is_dir():
            dataset = self._try("path", lambda: _dataset(given, known))
            if dataset is None:
                return LoadFindings(self.choice, problems=self.problems)
            self._tell_undecided(dataset)
            self.choice = _within(self.choice, given, dataset)
            identity = self.choice.subject, self.choice.platform
            scan, runs = dataset.scans[identity], dataset.runs.get(identity, {})
            if runs:
                run = self.choice.run if self.choice.run in runs else next(iter(runs))
                self.choice, scan = replace(self.choice, run=run), runs[run]
        acquisition = self._acquisition(scan)
        if acquisition is None:
            return LoadFindings(self.choice, dataset, series, tuple(runs), problems=self.problems)
        self._choose_shell(acquisition)
        return LoadFindings(
            choice=self.choice,
            dataset=dataset,
            series=series,
            runs=tuple(runs),
            scan=scan,
            shells=tuple(acquisition.given_gradients.shells),
            mask=acquisition.mask_path,
            description=describe(acquisition),
            problems=self.problems,
            doubts=self.doubts,
        )

    def _tell_undecided(self, dataset: TravellingHeads) -> None:
        """Report the subjects without an offered scan, because several may be theirs."""
        if errors := list(dataset.undecided.values()):
            more = f" (and {counted(len(errors) - 1, 'more such case')})" if errors[1:] else ""
            first = UserError(errors[0].problem, remedy=errors[0].remedy)
            self.doubts["path"] = f"Not offered{more}: {said(first, LOAD_WORDS)}"

    def _series(self, made: Converted) -> Series:
        """Return the series that was chosen, else the first DWI; the form offers the others."""
        wanted = self.choice.series
        fitting = (each for each in made.usable if wanted in ("", each.stem))
        return next(fitting, None) or made.choose(wanted or None)

    def _try(self, name: str, act: Callable[[], Result]) -> Result | None:
        """Call `act`; a mistake becomes a problem of its field, or else of `name`."""
        try:
            return act()
        except UserError as error:
            for each in error.parts or (error,):
                at = each.field if each.field in LOAD_LABELS else None
                self.problems[at or name] = said(each, LOAD_WORDS)
            return None

    def _acquisition(self, path: Path) -> Acquisition | None:
        """Open the scan with its mask, as far as they are right."""
        choice = self.choice
        if not path.exists():
            check = Advice("check the path")
            missing = UserError("there is no such file or folder", path, "path", check)
            self.problems["path"] = said(missing, LOAD_WORDS)
            return None
        opened = self._try(
            "path",
            lambda: open_unmasked(path, choice.bval, choice.bvec, b0_threshold=choice.b0_threshold),
        )
        if opened is None:
            return None
        masked = self._try("mask", lambda: with_mask(opened, choice.mask)) or opened
        if masked.mask_path is not None:
            self._try("mask", lambda: masked.brain)
        for doubt in masked.first_doubts:
            known = [self.doubts[doubt.field]] if doubt.field in self.doubts else []
            self.doubts[doubt.field or "path"] = "; ".join([*known, doubt.words])
        return masked

    def _choose_shell(self, acquisition: Acquisition) -> None:
        """Take the chosen shell, else the usual one, and check whether it will do."""
        table = acquisition.given_gradients
        # Without a usual one the lowest is taken, to say what is wrong with it.
        shell = table.nearest_shell(self.choice.b_value or usual_shell(acquisition) or 0.0)
        if shell is None:
            self.problems["path"] = "It holds no diffusion-weighted volume; give a DWI"
            return
        self.choice = replace(self.choice, b_value=shell.b_value)
        directions, needed = table.directions[shell.volumes], coefficient_count(ORDER)
        count, supported = len(directions), supported_order(directions)
        unfit = unfit_for_sh(table).get(shell.name)
        if unfit is not None and supported == 0 and count >= coefficient_count(2):
            why, better = poor_directions(directions)
            self.problems["bvec"] = f"Its directions {why}; give {better}"
        elif unfit is not None:
            self.problems["b_value"] = unfit[:1].upper() + unfit[1:]
        elif count < needed:
            shown = f"Shown at SH order {order_for(directions)}, as {count} directions support"
            self.doubts["b_value"] = f"{shown}; networks need {needed}"
        elif supported < ORDER:
            self.doubts["b_value"] = (
                f"Its directions determine SH order {supported} only; what the fit gives above "
                "that comes mostly from its regularisation"
            )


def describe(acquisition: Acquisition) -> dict[str, str]:
    """Return what a user wants to know of an open scan before using it; no voxel is read."""
    scan = Scan(acquisition=acquisition, path=acquisition.path)
    whose = "Head" if scan.subject.startswith("sub-") else "Scan"  # a file's name, say of a series
    described = {
        whose: f"{scan.subject} on {scan.platform}" if scan.platform else scan.subject,
        "Voxels": _voxels(acquisition),
        "Volumes": str(acquisition.given_gradients),
    }
    others = ", ".join(scan.siblings)
    return described | ({"Also scanned on": others} if others else {})


def _only_scan_in(folder: Path) -> Path | None:
    """Return the one scan of a folder that is no dataset, nor in one, as the reader does."""
    dataset = dataset_root(folder / "any") or any(folder.glob("sub-*/"))
    found = [] if dataset else scans_in(folder)
    return found[0] if len(found) == 1 else None


def _dataset(folder: Path, known: TravellingHeads | None) -> TravellingHeads:
    """Return the dataset that a folder is, or lies in."""
    root = dataset_root(folder / "any") or folder
    try:
        if known is None or known.root != root:
            known = open_dataset(root, first_run=True, undecided=[])
        if not any(folder in path.parents for path in known.scans.values()):
            for error in known.undecided.values():
                where = Path(error.subject or root)
                if folder == where or folder in where.parents:
                    raise error
        return known
    except UserError as error:
        remedy: Remedy = Advice("choose one scan's file instead")
        if error.remedy is not None:
            remedy = either(remedy, error.remedy)
        raise UserError(error.problem, folder, "path", remedy) from error


def _within(choice: LoadChoice, folder: Path, dataset: TravellingHeads) -> LoadChoice:
    """Fill in subject and platform of a scan in the folder, where they name none.

    For a subject, prefer the platform that the dataset marks as input.
    """
    if dataset.has(choice.subject, choice.platform):
        return choice
    marked = None
    with suppress(UserError):  # a damaged description is reported where it counts
        marked = marked_input(dataset.root)
    known = sorted(dataset.scans, key=lambda each: (each[0], each[1] != marked, each[1]))
    within = [each for each in known if folder in dataset.scans[each].parents]
    of_subject = [each for each in known if each[0] == choice.subject]
    subject, platform = (of_subject or within or known)[0]
    return replace(choice, subject=subject, platform=platform)


def _voxels(acquisition: Acquisition) -> str:
    lattice = acquisition.lattice
    counts = " × ".join(map(str, lattice.shape))
    each = [f"{round(float(size), 2):g}" for size in lattice.voxel_sizes]
    sizes = each[0] if len(set(each)) == 1 else " × ".join(each)
    codes = "".join(aff2axcodes(lattice.affine))
    tilt = _tilt(lattice.canonical.affine)
    oblique = f", oblique by {tilt:.0f}°" if tilt >= OBLIQUE else ""
    return f"{counts} of {sizes} mm, stored {codes}{oblique}"


def _tilt(affine: FloatArray) -> float:
    """Return the largest angle between an axis of the grid and the scanner's, in degrees."""
    along = np.abs(np.diag(direction_cosines(affine)))
    return float(np.degrees(np.arccos(np.clip(along.min(), 0, 1))))
