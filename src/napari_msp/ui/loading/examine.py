"""Find out what a choice of files comes to. It is quick: of all voxels only a mask's are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import nibabel as nib

from napari_msp.bids import dataset_root, gradient_files
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.gradients import GradientTable, read_gradients
from napari_msp.data.masks import find_mask, read_mask
from napari_msp.data.nifti import open_nifti
from napari_msp.errors import UserError
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count
from napari_msp.ui.loading.load import usual_shell
from napari_msp.ui.loading.scan_choice import Choice, Findings, ShellFacts
from napari_msp.ui.loading.scan_facts import facts_of, shells_of
from napari_msp.ui.words import in_words

Result = TypeVar("Result")


def examine(choice: Choice, known: TravellingHeads | None = None) -> Findings:
    """Look at what was chosen.

    Parameters
    ----------
    choice
        Subject and platform count for a folder only.
    known
        A dataset that was listed before, and is not listed again.
    """
    return _Examination(choice).findings(known)


class _Examination:
    """Looks at one thing after the other, and collects what is wrong with it."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.problems: dict[str, str] = {}
        self.doubts: dict[str, str] = {}

    def findings(self, known: TravellingHeads | None) -> Findings:
        """Go through it; what follows from something wrong is not looked at."""
        given = self.choice.path
        if given is None:
            return Findings(self.choice)
        scan, dataset = given, None
        if given.is_dir():
            dataset = self._try("path", lambda: _dataset(given, known), given)
            if dataset is None:
                return Findings(self.choice, problems=self.problems)
            self.choice = _within(self.choice, given, dataset)
            scan = dataset.scans[self.choice.subject, self.choice.platform]
        image = self._try("path", lambda: _open(scan), scan)
        acquisition = None if image is None else self._acquisition(scan, image)
        if acquisition is None:
            return Findings(self.choice, dataset, problems=self.problems)
        shells = shells_of(acquisition)
        self._choose_shell(acquisition, shells)
        return Findings(
            choice=self.choice,
            dataset=dataset,
            scan=scan,
            shells=shells,
            mask=self._mask(acquisition),
            facts=facts_of(acquisition),
            problems=self.problems,
            doubts=self.doubts,
        )

    def _try(self, name: str, act: Callable[[], Result], *files: Path) -> Result | None:
        """Do something; a mistake becomes the problem of a field, with files by their names."""
        try:
            return act()
        except UserError as error:
            message = in_words(str(error))
            for file in files:
                message = message.replace(str(file), file.name)
            self.problems[name] = message
            return None

    def _acquisition(self, path: Path, image: nib.Nifti1Image) -> Acquisition | None:
        table = self._gradients(path, image)
        if table is None:
            return None
        return self._try("bval", lambda: Acquisition(image, table, path=path), path)

    def _gradients(self, path: Path, image: nib.Nifti1Image) -> GradientTable | None:
        beside = gradient_files(path)
        bval, bvec = self.choice.bval or beside[0], self.choice.bvec or beside[1]
        for name, file in (("bval", bval), ("bvec", bvec)):
            if not file.is_file():
                self.problems[name] = f"{file.name} is missing; give the file that belongs here"
        if self.problems:
            return None
        try:
            return read_gradients(bval, bvec, image.affine, image.shape[3])
        except UserError as error:
            name = "bvec" if str(error).startswith(f"{bvec}:") else "bval"
            self.problems[name] = (
                str(error).replace(str(bvec), bvec.name).replace(str(bval), bval.name)
            )
            return None

    def _choose_shell(self, acquisition: Acquisition, shells: tuple[ShellFacts, ...]) -> None:
        """Take the shell that was chosen, else the usual one, and see whether it will do."""
        if not shells:
            self.problems["path"] = "It holds no diffusion-weighted volume; give a DWI"
            return
        wanted = self.choice.b_value or usual_shell(acquisition) or shells[0].b_value
        shell = min(shells, key=lambda each: abs(each.b_value - wanted))
        self.choice = replace(self.choice, b_value=shell.b_value)
        needed = coefficient_count(ORDER)
        if shell.directions < needed:
            self.problems["b_value"] = (
                f"{shell.directions} directions cannot determine the {needed} coefficients of SH "
                f"order {ORDER}"
            )
        elif shell.order == 0:
            self.problems["bvec"] = "Its directions hardly differ; give the scan's own b-vectors"
        elif shell.order < ORDER:
            self.doubts["b_value"] = (
                f"Its directions determine SH order {shell.order} only; what the fit gives above "
                "that comes mostly from its regularisation"
            )

    def _mask(self, acquisition: Acquisition) -> Path | None:
        path = acquisition.path
        assert path is not None
        found = self.choice.mask or self._try("mask", lambda: find_mask(path), path)
        if found is not None:
            self._try("mask", lambda: read_mask(found, acquisition.lattice), found)
        return found


def _open(path: Path) -> nib.Nifti1Image:
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; check the path")
    image = open_nifti(path)
    if len(image.shape) != 4:
        raise UserError(f"{path}: has {len(image.shape)} axes, a DWI has four; give another image")
    return image


def _dataset(folder: Path, known: TravellingHeads | None) -> TravellingHeads:
    """List the dataset that a folder is, or lies in."""
    root = dataset_root(folder / "any") or folder
    if known is not None and known.root == root:
        return known
    try:
        return open_dataset(root)
    except UserError as error:
        raise UserError(
            f"{folder}: holds no scans named sub-*/ses-*/dwi/sub-*_ses-*_acq-*_dwi.nii.gz; choose "
            "one scan's file instead, or bring the folder into that form with napari-msp import"
        ) from error


def _within(choice: Choice, folder: Path, dataset: TravellingHeads) -> Choice:
    """Fill in subject and platform where they name no scan: one that lies in the folder."""
    if dataset.has(choice.subject, choice.platform):
        return choice
    scans = sorted(each for each, path in dataset.scans.items() if folder in path.parents)
    of_subject = [each for each in sorted(dataset.scans) if each[0] == choice.subject]
    subject, platform = (of_subject or scans or sorted(dataset.scans))[0]
    return replace(choice, subject=subject, platform=platform)
