"""The scans in a folder tree that is imported, found by a pattern, and their names in BIDS."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from napari_msp.bids import (
    MRTRIX_SUFFIXES,
    NIFTI_SUFFIXES,
    bare_stem,
    entities,
    image_suffix,
    nifti_stem,
    plain_label,
    platform_name,
    sidecar_path,
)
from napari_msp.data.companions import PassedOver, find_gradients, look_for_mask
from napari_msp.data.contradictions import deviation_path
from napari_msp.data.gradient_files import b0_only, one_table
from napari_msp.data.lattice import Lattice
from napari_msp.data.nifti import open_nifti
from napari_msp.errors import (
    Advice,
    Change,
    Choose,
    Give,
    Remedy,
    UserError,
    either,
    every,
    together,
)
from napari_msp.files import files_under
from napari_msp.formatting import counted

ALIKE = (NIFTI_SUFFIXES, (".img", ".img.gz"), MRTRIX_SUFFIXES)
"""Groups of endings: in a pattern, each stands for all of its group."""

SHOWN = 3
"""Number of files or folders of the tree that an error lists as examples."""

OTHERS = {"mask": "masks", "bval": "files of b-values", "bvec": "files of b-vectors"}
"""Files that may have a pattern of their own besides the images'."""

Patterns = Mapping[str, str | None]
"""Patterns of `OTHERS`; None: the files are searched for each image."""

LEFT_OUT = "none"
"""Word that stands for leaving a folder out, in place of its series."""

_FIELD = re.compile(r"\{(\w*)\}|(\*)")

LETTER = r"(?:[^\W_]|[\u0300-\u036f])"
"""A letter or digit of any alphabet, or a combining mark behind its letter, as Macs write ü."""

WORD = f"{LETTER}+(?!{LETTER})"

_FIELDS = ("subject", "session", "scanner", "protocol", "run")


@dataclass(frozen=True)
class ImportedScan:
    """One scan: its source files and its place in the dataset.

    Attributes
    ----------
    image
        The image's path relative to the dataset.
    mask, sidecar
        Files in the source tree; None without one.
    bval, bvec
        Gradient files in the source tree; the same file for an MRtrix3 table.
    interpolated
        Lattices before and after interpolation to cubes; None: voxels stay as they are.
    b0_threshold
        Largest b-value that counts as b=0 when the scan is checked; None: the usual one.
    deviation
        HCP's `grad_dev` in the source tree, which is copied along; None without one.
    deviation_doubt
        Text saying that it is not used, and what error that makes.
    """

    source: Path
    subject: str
    platform: str
    image: Path
    bval: Path
    bvec: Path
    mask: Path | None
    sidecar: Path | None
    interpolated: tuple[Lattice, Lattice] | None = None
    b0_threshold: float | None = None
    deviation: Path | None = None
    deviation_doubt: str = ""

    @property
    def mask_image(self) -> Path:
        """Path of the mask relative to the dataset."""
        suffix = ".nii" if (self.mask or self.image).name.lower().endswith(".nii") else ".nii.gz"
        folder = Path("derivatives", "brainmask") / self.image.parent
        return folder / f"{bare_stem(self.image)}_desc-brain_mask{suffix}"

    @property
    def deviation_image(self) -> Path:
        """Path of `grad_dev` relative to the dataset: beside the image, where it is looked for."""
        return deviation_path(self.image)


def pattern_expression(pattern: str, constants: Mapping[str, str | None]) -> re.Pattern[str]:
    """Turn a pattern into a regular expression; refuse one that cannot name a scan."""
    names = {name for name, _ in _FIELD.findall(pattern) if name}
    names |= {name for name, value in constants.items() if value is not None}
    unknown = sorted(names - set(_FIELDS))
    if unknown or "{}" in pattern:
        problem = f"{{{', '.join(unknown)}}} is not a known name"
        advice = Advice("use {subject}, {scanner} or {session}, {protocol}, {run}")
        raise UserError(problem, pattern, "pattern", advice)
    for needed in (("subject",), ("scanner", "session", "protocol")):
        if not names.intersection(needed):
            remedy: Remedy = Advice("add it")
            if any(each in constants for each in needed):
                remedy = either(remedy, *(Give(each) for each in needed if each in constants))
            listed = " or ".join(f"{{{each}}}" for each in needed if each != "session")
            raise UserError(f"has no {listed}", pattern, "pattern", remedy)
    suffix = image_suffix(pattern)
    alike = next((group for group in ALIKE if suffix.lower() in group), ())
    if not alike:
        remedy = Advice("give the images")
        raise UserError("must end in .nii or .nii.gz", pattern, "pattern", remedy)
    pattern = pattern.removesuffix(suffix)
    expression, position, seen = "", 0, set()
    for match in _FIELD.finditer(pattern):
        expression += re.escape(pattern[position : match.start()])
        name = match[1]
        if not name:
            expression += "[^/]*"
        elif name in seen:
            expression += f"(?P={name})"
        else:
            seen.add(name)
            # Before a `*` it matches a whole word: "acq-{protocol}*_dwi" gives "st", not "s".
            word = pattern[match.end() :].startswith("*")
            expression += f"(?P<{name}>{WORD if word else '[^/]+?'})"
        position = match.end()
    endings = "|".join(re.escape(each) for each in alike)
    return re.compile(f"{expression}{re.escape(pattern[position:])}(?i:{endings})")


def _refuse_absolute(pattern: str | None, field: str, source: Path) -> None:
    """Refuse a pattern that does not start in the tree."""
    if pattern is None:
        return
    if not pattern.strip():
        raise UserError("is empty", field=field, remedy=Give(field, "a pattern"))
    path = Path(pattern)
    if path.is_absolute() or path.anchor:
        inside = path.is_relative_to(source.absolute())
        rest = path.relative_to(source.absolute()).as_posix() if inside else ""
        problem = "is an absolute path, but a pattern starts inside the tree"
        remedy = Give(field, f"{rest or 'a path'} relative to {source}")
        raise UserError(problem, pattern, field, remedy)


def find_scans(
    source: Path, pattern: str, others: Patterns, constants: Mapping[str, str | None]
) -> list[ImportedScan]:
    """Find the scans of a tree, see `importers.import_tree`; ordered by subject and platform."""
    for field, given in {"pattern": pattern, **others}.items():
        _refuse_absolute(given, field, source)
    found = _fitting(source, pattern, others, constants)
    scans = _with_directions(sorted(found, key=lambda scan: (scan.subject, scan.platform)))
    _refuse_collisions(scans)
    return scans


def _fitting(
    source: Path, pattern: str, others: Patterns, constants: Mapping[str, str | None]
) -> Iterator[ImportedScan]:
    expression = pattern_expression(pattern, constants)
    hidden = Path(pattern).name.startswith(".")  # such as those that a Mac leaves beside each file
    files = [path for path in files_under(source) if hidden or not path.name.startswith(".")]
    fitting = {
        path: match
        for path in files
        if (match := expression.fullmatch(path.relative_to(source).as_posix()))
    }
    single = [path for path in fitting if _is_single_volume(path)]
    for path, match in fitting.items():
        if path in single and len(single) < len(fitting):
            if "mask" not in path.name.lower():
                said = "is left out: it is one volume without a gradient table"
                warnings.warn(PassedOver(said, path), stacklevel=4)
            continue
        values = {**constants, **match.groupdict()}
        yield _describe_scan(source, path, values, others)
    if not fitting:
        images = [path for path in files if image_suffix(path)] or files
        shown = ", ".join(path.relative_to(source).as_posix() for path in images[:SHOWN])
        listed = f"the first files here are: {shown}" if shown else "the folder contains no file"
        remedy = Advice(f"correct the pattern, {listed}")
        raise UserError(f"no file fits the pattern {pattern}", source, "pattern", remedy)


def _is_single_volume(image: Path) -> bool:
    """Return whether an image is a map or localiser beside the scans, as dcm2niix writes them."""
    if not find_gradients(image).missing or image_suffix(image).lower() in MRTRIX_SUFFIXES:
        return False
    try:
        shape = open_nifti(image).shape
    except UserError:
        return False
    return len(shape) < 4 or shape[3] == 1


def _describe_scan(
    source: Path, path: Path, values: Mapping[str, str | None], others: Patterns
) -> ImportedScan:
    subject = plain_label((values["subject"] or "").removeprefix("sub-"))
    scanner = values.get("scanner") or values["session"] or ""
    session = plain_label(scanner.removeprefix("ses-")).lower()
    protocol = plain_label((values["protocol"] or "").removeprefix("acq-")).lower()
    numbered = entities(path).get("run", "")  # of a BIDS name that the pattern does not read
    run = values.get("run") or (numbered if numbered.isdigit() else "")
    run = plain_label(run.removeprefix("run-"))
    given = ("subject", "scanner", "session", "protocol", "run")
    named = {each for each in given if values.get(each) is not None}
    made = dict(zip(given, (subject, session, session, protocol, run), strict=True))
    if not all(made[each] for each in named) or not (run or "0").isdigit():
        problem = "subject, scanner or protocol has no letter or digit, or the run is not a number"
        raise UserError(problem, path, "pattern", Advice("rename it, or correct the pattern"))
    suffix = image_suffix(path).lower()
    suffix = suffix if suffix in NIFTI_SUFFIXES else ".nii.gz"
    labels = {"ses": session, "acq": protocol, "run": run}
    labelled = "".join(f"_{key}-{label}" for key, label in labels.items() if label)
    folder = Path(f"sub-{subject}", *([f"ses-{session}"] if session else []), "dwi")
    named_files = {
        field: _by_pattern(source, path, values, pattern, field)
        for field, pattern in others.items()
        if pattern is not None
    }
    bval, bvec = _gradient_files(path, named_files)
    sidecar = sidecar_path(path)
    return ImportedScan(
        source=path,
        subject=f"sub-{subject}",
        platform=platform_name(session, protocol),
        image=folder / f"sub-{subject}{labelled}_dwi{suffix}",
        bval=bval,
        bvec=bvec,
        mask=named_files.get("mask") or _mask_beside(path),
        sidecar=sidecar if sidecar.exists() else None,
    )


def _gradient_files(image: Path, given: Mapping[str, Path]) -> tuple[Path, Path]:
    bval, bvec = one_table(given.get("bval"), given.get("bvec"))
    if bval is not None and bvec is not None:
        return Path(bval), Path(bvec)
    files = find_gradients(image)
    if not given and files.missing and image_suffix(image).lower() in MRTRIX_SUFFIXES:
        return image, image  # in its header
    found = Path(bval or files.bval), Path(bvec or files.bvec)
    for path, field in zip(found, ("bval", "bvec"), strict=True):
        if not path.is_file():
            remedy = either(
                Advice(f"put the gradient files next to {image.name}"),
                Give(field, "a pattern that finds it"),
                Advice("narrow the images' pattern if this is not a DWI"),
            )
            raise UserError("is missing", path, "pattern", remedy)
    return found


def _mask_beside(image: Path) -> Path | None:
    found = look_for_mask(image)
    if found.path is None and found.passed_over:
        right = Give("mask", "a pattern for the right one")
        remedy = either(Advice("resample it to the image"), right)
        raise UserError("; ".join(found.passed_over), image, "mask", remedy)
    return found.path


def _by_pattern(
    source: Path, image: Path, values: Mapping[str, str | None], pattern: str, field: str
) -> Path:
    """Find the only file that a parameter's pattern matches for an image."""

    def value(match: re.Match[str]) -> str:
        if not match[1]:
            return "*"
        if values.get(match[1]) is None:
            problem = f"{{{match[1]}}} is not in the images' pattern"
            raise UserError(problem, pattern, field, Advice("add it there"))
        # Brackets in a folder's name are not wildcards.
        return re.sub(r"([\[?*])", r"[\1]", str(values[match[1]]))

    wanted = _FIELD.sub(value, pattern)
    suffix = image_suffix(wanted)
    alike = next((group for group in ALIKE if suffix.lower() in group), (suffix,))
    stem = wanted.removesuffix(suffix)
    try:
        found = sorted({path for ending in alike for path in source.glob(stem + ending)})
    except (ValueError, NotImplementedError) as error:
        problem = f"is not a valid pattern ({error})"
        raise UserError(problem, pattern, field, Advice("correct it")) from error
    if len(found) != 1:
        problem = f"{len(found) or 'no'} {OTHERS[field]} fit {wanted}, but exactly one is needed"
        raise UserError(problem, image, field, Change(field, "another"))
    return found[0]


def _key(scan: ImportedScan) -> str:
    """Return a scan's name without ending, as a case-insensitive file system sees it."""
    return str(scan.image.parent / nifti_stem(scan.image)).casefold()


def _with_directions(scans: list[ImportedScan]) -> list[ImportedScan]:
    """Leave out images with b=0 only if another image of the same name has directions."""
    counts = Counter(map(_key, scans))
    kept = []
    for scan in scans:
        if counts[_key(scan)] > 1 and b0_only(scan.source):
            said = "is left out: it has only b=0 volumes"
            warnings.warn(PassedOver(said, scan.source), stacklevel=4)
        else:
            kept.append(scan)
    return kept or scans


def _refuse_collisions(scans: list[ImportedScan]) -> None:
    seen: dict[str, ImportedScan] = {}
    for scan in scans:
        key = _key(scan)
        if key in seen:
            problem = f"would become {scan.image}, but so would {seen[key].source}"
            remedy = Advice("rename one, or narrow the pattern")
            raise UserError(problem, scan.source, "pattern", remedy)
        seen[key] = scan


# --- Folders of DICOM ----------------------------------------------------------------------------


def images_of(folders: str) -> str:
    """Return the pattern of the images that such folders contain once converted."""
    return f"{folders.strip('/')}/*.nii.gz".lstrip("/")


def folders_of(source: Path, pattern: str, labels: Mapping[str, str | None]) -> dict[str, Path]:
    """Return the folders that match a pattern, by their paths relative to the source.

    A pattern that cannot name a scan is refused; `import_tree` checks the names again.
    """
    if not pattern.strip("/"):
        lacking = [name for name in ("subject", "session") if not labels[name]]
        lacking = [each for each in lacking if each != "session" or not labels["protocol"]]
        if lacking:
            problem = f"the pattern does not name its {' and '.join(lacking)}"
            helps = either(Give(lacking[0]), Give("pattern", "folders that do"))
            raise UserError(problem, source, lacking[0], helps)
    pattern_expression(images_of(pattern), labels)
    if not source.is_dir():
        raise UserError("there is no such folder", source, "source", Give("source", "a folder"))
    if not pattern.strip("/"):
        return {".": source}
    if Path(pattern).is_absolute() or pattern.endswith(NIFTI_SUFFIXES):
        problem = "names no folder in the tree"
        remedy = Give("pattern", "folders of DICOM files, such as {subject}/{scanner}/{protocol}")
        raise UserError(problem, pattern, "pattern", remedy)
    wanted = re.sub(r"\{\w*\}", "*", re.sub(r"([\[?])", r"[\1]", pattern.strip("/")))
    wanted = re.sub(r"\*+", "*", wanted)  # "**" would mean any depth
    found = sorted(path for path in source.glob(wanted) if path.is_dir())
    if not found:
        shown = ", ".join(path.name for path in sorted(source.iterdir())[:3])
        advice = Advice(f"correct the pattern, the first entries here are: {shown}")
        raise UserError(f"no folder fits the pattern {pattern}", source, "pattern", advice)
    return {path.relative_to(source).as_posix(): path for path in found}


def series_of(
    folders: Mapping[str, Path], series: str | int | Sequence[str | int] | None
) -> dict[Path, str | None]:
    """Return the series to take from each folder (None: its only DWI), without folders left out.

    Parameters
    ----------
    folders
        Folders by name.
    series
        One series for all folders, or some such as "B/prisma=6" for one folder and "B/prisma=none";
        see `importers.import_dicom`.
    """
    given = [series] if isinstance(series, str | int) else series or ()
    alone, shared = {}, []
    for each in map(str, given):
        # Compared with the folders' names, as a description may contain a "=", too.
        name = next((name for name in folders if each.startswith(f"{name}=")), None)
        if name is None:
            folder, _, choice = each.rpartition("=")
            if "/" in folder or (folder and choice == LEFT_OUT):  # not a series description
                alike = get_close_matches(folder, folders)
                problem = f"is for {folder}, which is not a folder of the tree"
                remedy = Choose("series", tuple(f"{known}={choice}" for known in alike))
                raise UserError(problem, each, "series", remedy)
            shared.append(each)
        else:
            alone[name] = each.removeprefix(f"{name}=")
    if len(shared) > 1:
        advice = Advice("give one for every folder, and others as FOLDER=SERIES")
        raise UserError("name several series for every folder", ", ".join(shared), "series", advice)
    everywhere = shared[0] if shared else None
    wanted_of = {path: alone.get(name, everywhere) for name, path in folders.items()}
    kept = {path: wanted for path, wanted in wanted_of.items() if wanted != LEFT_OUT}
    if not kept:
        raise UserError("leaves out every folder", ", ".join(map(str, given)), "series")
    return kept


def all_open(errors: Sequence[UserError], source: Path) -> UserError:
    """Combine the errors of folders without a clear scan into one, which offers to leave each out.

    Only the first few are shown, as there may be hundreds.
    """
    shown = together([_in_folder(each, source) for each in errors[:SHOWN]])
    more = len(errors) - SHOWN
    said = f"; and {counted(more, 'other folder')} give no scan, see the warnings" * (more > 0)
    return UserError(shown.problem + said, shown.subject, shown.field, shown.remedy)


def _in_folder(error: UserError, source: Path) -> UserError:
    """Let the user choose a series for this folder alone, or leave the folder out."""
    name = Path(error.subject or source).relative_to(source).as_posix()
    remedies = [
        replace(each, choices=tuple(f"{name}={known}" for known in each.choices))
        if isinstance(each, Choose)
        else each
        for each in every(error.remedy)
    ]
    remedy = either(*remedies, Give("series", f"{name}={LEFT_OUT}"))
    return UserError(error.problem, error.subject, "series", remedy)
