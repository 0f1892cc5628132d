"""Import a folder tree of NIfTI or DICOM into BIDS. All scans are checked before any is copied."""

import glob
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib

from napari_msp.bids import (
    BIDSIGNORE_DEVIATIONS,
    NIFTI_SUFFIXES,
    applicable,
    describe_dataset,
    describe_part,
    gradient_files,
    image_suffix,
    mask_sidecar,
    nifti_stem,
    plain_label,
    read_metadata,
    sidecar_path,
)
from napari_msp.data.acquisition import Acquisition, TableFound, load_acquisition
from napari_msp.data.companions import ROTATED, find_gradients
from napari_msp.data.contradictions import deviation_note, find_deviation
from napari_msp.data.cubes import (
    EFFECT,
    Auto,
    Interpolated,
    check_voxel_size,
    cubes_for,
    describe_cubes,
    description,
    interpolation,
    write_cubes,
)
from napari_msp.data.dicom import Converted, Series, convert
from napari_msp.data.gradient_files import is_plain, write_gradients
from napari_msp.data.lattice import Lattice, interpolate
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels, write_nifti
from napari_msp.data.source_tree import (
    SHOWN,
    ImportedScan,
    all_open,
    find_scans,
    folders_of,
    images_of,
    series_of,
)
from napari_msp.errors import Advice, Choose, Doubt, Give, Poll, Progress, UserError, reporter
from napari_msp.files import new_folder, refuse_occupied, scratch_folder, write_json, write_text
from napari_msp.formatting import counted

README = """\
Imported travelling heads
=========================

{scans} of {subjects}, imported by napari-msp {version} {how}

code/imported.tsv lists what each image came from. {treatment}

Image, gradient table and mask of every scan were opened and checked; nothing was registered.
`napari-msp check` says what may still be wrong. A scan's JSON says what was known of it: scanner
settings that the source did not state (such as EchoTime) were not made up.
"""


@dataclass(frozen=True)
class ImportSettings:
    """Settings of an import.

    Attributes
    ----------
    mask, bval, bvec
        Patterns of masks, b-values and b-vectors in a tree of NIfTI, with the same names as the
        images' and relative to the source, for files that lie elsewhere. None: searched for each
        image.
    subject, session, protocol
        Labels where the tree does not name them.
    input
        Platform to predict the others from, such as "ge_st"; the dataset's description marks it,
        so that it need not be named again. None: nothing is marked.
    voxel_size
        Edge in mm of the cubes to which scans (with their masks) are interpolated whose voxels are
        not cubes; "auto": each scan's smallest edge. Cubes stay as they are. None: nothing changes.
    b0_threshold
        As for `load_acquisition`, for checking the scans; their tables stay as they are.
    dry_run
        Whether to check everything and write nothing.
    """

    mask: str | None = None
    bval: str | None = None
    bvec: str | None = None
    subject: str | None = None
    session: str | None = None
    protocol: str | None = None
    input: str | None = None
    voxel_size: float | Auto | None = None
    b0_threshold: float | None = None
    dry_run: bool = False

    @property
    def labels(self) -> dict[str, str | None]:
        """Labels where the tree does not name them, by the names in braces."""
        return {"subject": self.subject, "session": self.session, "protocol": self.protocol}

    @property
    def patterns(self) -> dict[str, str | None]:
        """Patterns of files that lie elsewhere, by the fields' names."""
        return {"mask": self.mask, "bval": self.bval, "bvec": self.bvec}


def import_tree(
    source: str | Path,
    out: str | Path,
    pattern: str,
    settings: ImportSettings | None = None,
    *,
    progress: Progress | None = None,
    cancelled: Poll | None = None,
    **values: Any,
) -> list[ImportedScan]:
    """Write a BIDS dataset from a tree of DWI files.

    NIfTI images, FSL's gradient files, masks and JSON files are copied byte for byte; MRtrix3's
    and NIfTI in two files are converted. Gradient tables and masks are found as they are for one
    scan, see `companions`, so that HCP's and pipelines' trees can be imported. Labels lose all but
    letters and digits; scanner and protocol are written in lower case, as platforms are named
    throughout ("GE", "ST" gives ge_st). The dataset appears under its name only when complete.

    Parameters
    ----------
    source
        The source tree; only read.
    out
        Folder to create; it may exist if it is empty.
    pattern
        Path of the images relative to `source`, with names in braces, such as
        "{subject}/{scanner}/{protocol}/dwi_{subject}_{scanner}_{protocol}_b1200.nii.gz".
        {session} and {scanner} mean the same; one of them or {protocol} is enough. {run}
        distinguishes repeated scans; without it, "_run-2" in an image's name does. A repeated
        name must match the same text; `*` stands for anything within one folder or file name
        (after a name in braces, for what begins with no letter or digit). `.nii` and `.nii.gz`
        stand for each other.
    settings, **values
        Settings, or fields of `ImportSettings` by their names.
    progress
        Called with a scan's file, the number of scans done and their total, first during checking,
        then during copying.
    cancelled
        Polled after every scan; True raises Cancelled, and nothing is written.

    Returns
    -------
    list of ImportedScan
        The scans, ordered by subject and platform.

    Raises
    ------
    UserError
        When the pattern fits nothing or is incomplete, a scan lacks gradients or does not fit
        them, two scans would get one name, or `out` cannot be written.

    Warns
    -----
    TableFound
        When b-vectors that eddy turned with the head are used.
    PassedOver
        When one of several images of a name has only b=0 volumes, such as those for distortion
        correction.
    Interpolated
        When scans are interpolated to cubes.
    """
    settings = replace(settings or ImportSettings(), **values)
    tell = reporter(progress, cancelled)
    return _imported(Path(source), Path(out), pattern, settings, tell)


def _imported(
    source: Path,
    out: Path,
    pattern: str,
    settings: ImportSettings,
    tell: Progress,
    converted_from: Mapping[Path, str] | None = None,
) -> list[ImportedScan]:
    """Import a tree; what its images were `converted_from` is recorded instead of their files."""
    if not source.is_dir():
        tree = Give("source", "the tree to import")
        raise UserError("there is no such folder", source, "source", tree)
    refuse_occupied(out)  # before the slow check of all scans
    if settings.voxel_size is not None:
        check_voxel_size(settings.voxel_size)
    found = find_scans(source, pattern, settings.patterns, settings.labels)
    scans = [replace(scan, b0_threshold=settings.b0_threshold) for scan in found]
    platforms = tuple(sorted({scan.platform for scan in scans}))
    if settings.input not in (None, *platforms):
        remedy = Choose("input", platforms)
        raise UserError("no scan is from this platform", settings.input, "input", remedy)
    for done, scan in enumerate(scans):
        scans[done] = _checked(scan, settings.voxel_size)
        tell(f"checked {scan.source}", done + 1, len(scans))
    turned = [scan for scan in scans if scan.bvec.name.lower().endswith(ROTATED)]
    for scan in turned[: 0 if settings.bvec else 1]:
        more = f", and so for {counted(len(turned) - 1, 'other scan')}" if len(turned) > 1 else ""
        said = f"{find_gradients(scan.source).note}{more}"
        warnings.warn(TableFound(said, scan.source), stacklevel=3)
    said = interpolation(scan.interpolated for scan in scans)
    if said:
        warnings.warn(Interpolated(f"{said}: {EFFECT}", out), stacklevel=3)
    if settings.dry_run:
        return scans
    with new_folder(out) as folder:
        for done, scan in enumerate(scans, start=1):
            _copy_scan(source, folder, scan)
            tell(f"copied {scan.source}", done, len(scans))
        name = out.resolve().name  # not the source's, which may be a person's
        _describe_dataset(source, folder, scans, name, pattern, converted_from, settings.input)
    return scans


def _open(scan: ImportedScan) -> Acquisition:
    in_header = scan.bval == scan.source
    bval, bvec = (None, None) if in_header else (scan.bval, scan.bvec)
    return load_acquisition(scan.source, bval, bvec, scan.mask, b0_threshold=scan.b0_threshold)


def _checked(scan: ImportedScan, voxel_size: float | Auto | None) -> ImportedScan:
    """Open a scan with its table and mask, reading its voxels once; return it with findings."""
    acquisition = _open(scan)
    acquisition.tell(acquisition.reading.doubts)
    if scan.mask is not None:
        _ = acquisition.brain
    if not acquisition.given_gradients.shells:
        problem = "has no diffusion-weighted volume"
        raise UserError(problem, scan.source, "pattern", Advice("give a DWI"))
    read_metadata(scan.source)
    cubes = None if voxel_size is None else cubes_for(acquisition.lattice, voxel_size)
    return replace(
        scan,
        interpolated=None if cubes is None else (acquisition.lattice, cubes),
        deviation=find_deviation(scan.source),
        deviation_doubt=acquisition.reading.deviation,
    )


def _copy_scan(source: Path, folder: Path, scan: ImportedScan) -> None:
    image = folder / scan.image
    bval, bvec = gradient_files(image)
    image.parent.mkdir(parents=True, exist_ok=True)
    mask = None if scan.mask is None else folder / scan.mask_image
    if mask is not None:
        mask.parent.mkdir(parents=True, exist_ok=True)
    if scan.interpolated is not None:
        write_cubes(_open(scan), scan.interpolated[1], image, mask)
    else:
        _copy_image(scan.source, image)
        if scan.mask is not None and mask is not None:
            _copy_image(scan.mask, mask)
    if scan.deviation is not None:
        _copy_deviation(scan.deviation, folder / scan.deviation_image, scan.interpolated)
    # Cubes lie along the same axes, so b-vectors stay as they are.
    if scan.bval != scan.bvec and is_plain(scan.bval) and is_plain(scan.bvec):
        shutil.copyfile(scan.bval, bval)
        shutil.copyfile(scan.bvec, bvec)
    else:
        acquisition = _open(scan)
        write_gradients(acquisition.given_gradients, bval, bvec, acquisition.affine)
    sidecar = sidecar_path(image)
    inherited = any(True for _ in applicable(scan.source, ".json"))
    changed = scan.interpolated is not None or scan.deviation is not None
    if scan.sidecar is not None and not inherited and not changed:
        shutil.copyfile(scan.sidecar, sidecar)
    else:
        known = read_metadata(scan.source)
        known = known or {"ImportedFrom": scan.source.relative_to(source).as_posix()}
        if scan.interpolated is not None:
            known = describe_cubes(known, *scan.interpolated)
        if scan.deviation is not None:
            known = known | deviation_note(scan.deviation_image, scan.deviation_doubt)
        write_json(sidecar, known)
    if mask is not None:
        more = {} if scan.interpolated is None else description(*scan.interpolated)
        source_uri = f"bids::{scan.image.as_posix()}"
        write_json(sidecar_path(mask), mask_sidecar("As imported", [source_uri], **more))


def _copy_deviation(source: Path, target: Path, cubes: tuple[Lattice, Lattice] | None) -> None:
    """Copy `grad_dev` to the scan's new lattice; any other image is copied as it is."""
    image = open_nifti(source)
    if cubes is None or len(image.shape) != 4 or not cubes[0].matches(lattice_of(image)):
        _copy_image(source, target)
        return
    values = interpolate(read_voxels(image, source), *cubes)
    write_nifti(target, values, cubes[1].affine, like=image)


def _copy_image(source: Path, target: Path) -> None:
    """Copy a NIfTI file byte for byte; convert other formats, keeping the data type."""
    if image_suffix(source).lower() == image_suffix(target):
        # Copies, not links: a link would let a later edit of one tree change the other.
        shutil.copyfile(source, target)
        return
    image = open_nifti(source)
    nib.Nifti1Image(image.dataobj, image.affine, image.header).to_filename(target)


def _describe_dataset(
    source: Path,
    folder: Path,
    scans: list[ImportedScan],
    name: str,
    pattern: str,
    converted_from: Mapping[Path, str] | None,
    input: str | None,
) -> None:
    subjects = sorted({scan.subject for scan in scans})
    made_by = f"import with the pattern {pattern}" if converted_from is None else "import of DICOM"
    if any(scan.mask is not None for scan in scans):
        describe_part(folder / "derivatives" / "brainmask", "Brain masks", made_by)
    if any(scan.deviation is not None for scan in scans):
        write_text(folder / ".bidsignore", BIDSIGNORE_DEVIATIONS)
    rows = [("source", "image", "b-vectors")]
    for scan in scans:
        # A table may be inherited from a folder above the tree.
        read, table = (Path(os.path.relpath(each, source)) for each in (scan.source, scan.bvec))
        said = read.as_posix(), table.as_posix()
        if converted_from is not None:  # folders of DICOM are often named after people
            said = converted_from[scan.source], "of the series"
        rows.append((said[0], scan.image.as_posix(), said[1]))
    write_text(folder / "code" / "imported.tsv", "".join("\t".join(row) + "\n" for row in rows))
    how = f"with the pattern\n\n    {pattern}"
    if converted_from is not None:
        how = "from DICOM, which dcm2niix converted: each scan's JSON has its version."
    counts = {"scans": counted(len(scans), "scan"), "subjects": counted(len(subjects), "subject")}
    treatment = "\n".join(_treatment(scans, converted=converted_from is not None))
    text = README.format(**counts, version=version("napari-msp"), how=how, treatment=treatment)
    about = {"generated_by": made_by, "input_platform": input}
    describe_dataset(folder, name, text, subjects, derivative=False, **about)


def _treatment(scans: Sequence[ImportedScan], converted: bool) -> Iterator[str]:
    """Yield the README's lines on what was done to the files."""
    interpolated = interpolation(scan.interpolated for scan in scans)
    if interpolated:
        yield f"{interpolated}. Images by cubic splines, masks by the nearest voxel."
    else:
        yield "Nothing was resampled."
    if converted:
        return
    kept = [scan for scan in scans if scan.interpolated is None]
    plain = [scan for scan in kept if image_suffix(scan.source).lower() in NIFTI_SUFFIXES]
    if plain:
        whose = "The others' images" if interpolated else "Images"
        yield f"{whose} and masks in NIfTI are the same byte for byte."
    if len(plain) < len(kept):
        yield "Images of other formats were converted to NIfTI."
    yield "Gradient tables in FSL's form are the same byte for byte, others were converted to it."
    doubtful = [scan for scan in scans if scan.deviation is not None]
    if doubtful:
        yield (
            f"HCP's grad_dev is next to {counted(len(doubtful), 'scan')}; it is not used, "
            "and each scan's JSON states the error that this makes."
        )


# --- DICOM --------------------------------------------------------------------------------------


class DicomWarning(Doubt):
    """dcm2niix found something odd about DICOM files."""


def import_dicom(
    source: str | Path,
    out: str | Path,
    pattern: str = "",
    settings: ImportSettings | None = None,
    *,
    series: str | int | Sequence[str | int] | None = None,
    report: Callable[[Converted, Series], None] | None = None,
    progress: Progress | None = None,
    cancelled: Poll | None = None,
    **values: Any,
) -> list[ImportedScan]:
    """Write a BIDS dataset from folders of DICOM files.

    Each folder gives one scan. Sidecars contain neither names nor dates. The dataset appears under
    its name only when complete.

    Parameters
    ----------
    source
        The source tree; only read.
    out
        Folder to create; it may exist if it is empty.
    pattern
        Folders of DICOM files relative to `source`, with names in braces as for `import_tree`, such
        as "{subject}/{scanner}/{protocol}"; their subfolders belong to them. Empty: `source` is one
        such folder, and subject and platform are given.
    series
        Series to take from each folder, by number or part of the description; None: the only DWI.
        Several: a folder's own series is given after its path relative to `source`, as in
        "B/prisma=6"; "B/prisma=none" leaves that folder out.
    settings, **values, progress, cancelled
        As for `import_tree`.
    report
        Called with each folder's content and the series chosen from it.

    Returns
    -------
    list of ImportedScan
        The scans; their `source` is the folder of DICOM files.

    Raises
    ------
    UserError
        When no folder fits, dcm2niix is missing, folders cannot be converted or the series to take
        are not clear (reported for all folders together), or as `import_tree`.

    Warns
    -----
    DicomWarning
        About what dcm2niix finds odd, and about folders that the error does not show.
    """
    source, settings = Path(source), replace(settings or ImportSettings(), **values)
    for field, elsewhere in settings.patterns.items():
        if elsewhere is not None:
            remedy = Advice("leave it out")
            raise UserError("is not looked for among DICOM files", elsewhere, field, remedy)
    refuse_occupied(out)  # before the long conversion
    tell = reporter(progress, cancelled)
    named = folders_of(source, pattern, settings.labels)
    wanted = series_of(named, series)
    unclear: list[UserError] = []
    with scratch_folder() as temporary:
        tree = temporary / "nifti"
        came_from: dict[Path, str] = {}
        for number, folder in enumerate(wanted):
            inside = tree / folder.relative_to(source)
            inside.mkdir(parents=True, exist_ok=True)
            try:
                with scratch_folder() as into:
                    made = convert(folder, into)
                    chosen = made.choose(wanted[folder])
                    if report is not None:
                        report(made, chosen)
                    for line in made.warnings:
                        warnings.warn(DicomWarning(f"dcm2niix: {line}", folder), stacklevel=2)
                    name = f"{chosen.number}_{plain_label(chosen.description)}"
                    stem = nifti_stem(chosen.path)
                    came_from[inside / f"{name}.nii.gz"] = f"series {chosen.name}"
                    for path in chosen.path.parent.glob(f"{glob.escape(stem)}.*"):
                        shutil.move(path, inside / (name + path.name.removeprefix(stem)))
            except UserError as error:
                if len(named) == 1 or error.subject != str(folder):
                    raise
                unclear.append(error)
                if len(unclear) > SHOWN:
                    warnings.warn(DicomWarning(error.problem, folder), stacklevel=2)
            tell(f"converted {folder}", number + 1, len(wanted))
        if unclear:
            raise all_open(unclear, source)
        with _said_of_folders(source, tree):
            images = images_of(pattern)
            scans = _imported(tree, Path(out), images, settings, tell, came_from)
    return [replace(scan, source=source / scan.source.relative_to(tree).parent) for scan in scans]


@contextmanager
def _said_of_folders(source: Path, tree: Path) -> Iterator[None]:
    """Let warnings and errors about temporary images name the folders they came from."""
    told: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as told:
            yield
    except UserError as error:
        about = Path(error.subject or "")
        if not about.is_relative_to(tree):
            raise
        folder = source / about.relative_to(tree).parent
        raise UserError(error.problem, folder, error.field, error.remedy) from error
    finally:
        for doubt in (each.message for each in told):
            if isinstance(doubt, Doubt) and Path(doubt.subject or "").is_relative_to(tree):
                folder = source / Path(doubt.subject or "").relative_to(tree).parent
                doubt = type(doubt)(doubt.words, folder)
            warnings.warn(doubt, stacklevel=4)
