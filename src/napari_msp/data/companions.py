"""The gradient table and the mask that belong to an image, found by their names and places.

Only this module decides that, for every command and for the window. It reads no voxels, and of
masks only the lattice.

Neither pybids nor ancpbids is used: half of the layouts here are not BIDS, and of BIDS only the
inheritance of tables is needed (see `bids.applicable`). ancpbids has that for JSON alone; pybids
brings pandas, SQLAlchemy and 20 more packages, and indexes a whole dataset before it answers.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_msp.bids import (
    IMAGE_SUFFIXES,
    MRTRIX_SUFFIXES,
    applicable,
    bare_stem,
    derivative_folders,
    entities,
    gradient_files,
    image_suffix,
    nifti_stem,
)
from napari_msp.errors import Advice, Doubt, Give, UserError
from napari_msp.files import entries

if TYPE_CHECKING:
    import nibabel as nib

    from napari_msp.data.lattice import Lattice

BVALS = (".bval", ".bvals", "_bval", "_bvals", ".bval.txt", ".bvals.txt")
BVECS = (".bvec", ".bvecs", "_bvec", "_bvecs", ".bvec.txt", ".bvecs.txt")
"""Endings that follow an image's stem in the names of its gradient files."""

FOLDER_BVALS, FOLDER_BVECS = ("bvals", "bval"), ("bvecs", "bvec")
"""Names of the gradient files of a folder's only scan: FSL, HCP, TRACULA, UK Biobank."""

ROTATED = ".eddy_rotated_bvecs"
"""Ending that FSL's eddy appends to its output's name for the b-vectors turned with the head."""

MRTRIX_TABLES = (".b", ".grad", "_grad.b", "_grad.txt")
"""Endings that follow an image's stem for MRtrix3's tables: four columns, scanner axes."""

FOLDER_MRTRIX_TABLES = ("grad.b", "grad.txt", "encoding.b")

MRTRIX_HEADER = 2**20
"""First bytes of an MRtrix image in which its header is looked for (our choice)."""

FURTHER_PLACES = ("../dlabel/diff",)
"""Paths, from the image's folder, of other folders where pipelines keep masks: TRACULA."""

BRAIN_WORDS = {"brain", "brainmask"}

NEUTRAL_WORDS = BRAIN_WORDS | set(
    """mask nodif b0 b0s bzero lowb hifi dwi dwis dti dmri diff diffusion data mean avg average bse
    multi final las bet bet2 hd hdbet synthstrip ss antsx ants mri unet cnn binary bin preproc aparc
    aseg anat native dilated dil""".split()  # noqa: SIM905 - forty words, not forty lines
)
"""Words that a brain mask's name may contain besides those of the image's own name. With any other
word (lesion, wm, roi, another subject) a mask is something else, and not taken unasked."""

Files = Mapping[str, Path]
"""The files of a folder by their names in lower case."""


class PassedOver(Doubt):
    """An image that looks like a scan is not one of its own, or not the one asked for."""


# --- Gradient tables --------------------------------------------------------------------------


@dataclass(frozen=True)
class GradientFiles:
    """The files of an image's gradient table.

    Attributes
    ----------
    bval, bvec
        Paths found, or else expected. Both are the same file for an MRtrix3 table.
    own
        Whether the names say which image the files belong to; files named for a folder belong to
        any image in it, or to none.
    note
        Text on which files are used, where a user might expect others; else empty.
    """

    bval: Path
    bvec: Path
    own: bool = True
    note: str = ""

    @property
    def missing(self) -> list[Path]:
        """Files that do not exist."""
        return [path for path in (self.bval, self.bvec) if not path.is_file()]

    def __iter__(self) -> Iterator[Path]:
        yield from (self.bval, self.bvec)


def find_gradients(
    image: str | Path, opened: nib.Nifti1Image | None = None, files: Files | None = None
) -> GradientFiles:
    """Look for the gradient table of an image.

    In this order: files of the image's own stem; files that BIDS lets it inherit; files named for
    the whole folder; MRtrix3's tables. b-vectors that eddy turned with the head come first.

    Parameters
    ----------
    opened
        The opened image, whose header may contain a table.
    files
        Files of its folder, if known; None: the folder is listed.

    Raises
    ------
    UserError
        When BIDS lets it inherit several files of one level.
    """
    image = Path(image)
    found = _by_name(image, _files_in(image.parent) if files is None else files)
    within = None if opened is None else opened.get_filename()
    if not found.missing or within is None or Path(within) == image:
        return found
    made = Path(within)  # an MRtrix image's table was written beside the converted image
    converted = _by_name(made, _files_in(made.parent))
    return found if converted.missing else replace(converted, note="")


def _by_name(image: Path, names: Files) -> GradientFiles:
    stem = nifti_stem(image).lower()

    def named(endings: Iterable[str], of: str = stem) -> Path | None:
        return next((names[of + each] for each in endings if of + each in names), None)

    bval = named(BVALS) or _inherited(image, "bval")
    bvec = named(BVECS) or _inherited(image, "bvec")
    own = bval is not None and bvec is not None
    bval, bvec = bval or named(FOLDER_BVALS, ""), bvec or named(FOLDER_BVECS, "")
    rotated = named((ROTATED,))
    if rotated is not None:
        # eddy copies no b-values: its input's file keeps the input's name.
        tables = [path for name, path in names.items() if name.endswith((".bval", ".bvals"))]
        bval = bval or (tables[0] if len(tables) == 1 else None)
    elif bval is None and bvec is None:
        table = named(MRTRIX_TABLES)
        own = table is not None
        bval = bvec = table or named(FOLDER_MRTRIX_TABLES, "")
    belong = gradient_files(image)
    own = own or rotated is not None
    files = GradientFiles(bval or belong[0], rotated or bvec or belong[1], own)
    return replace(files, note=_gradient_note(image, files, bvec))


def _inherited(image: Path, field: str) -> Path | None:
    for level in applicable(image, f".{field}"):
        if len(level) > 1:
            names = ", ".join(path.name for path in level)
            problem = f"several .{field} files apply to it ({names})"
            raise UserError(problem, image, field, Give(field, "the right one"))
        return level[0]
    return None


def _gradient_note(image: Path, files: GradientFiles, bvec: Path | None) -> str:
    if files.missing:
        return ""
    if files.bvec.name.lower().endswith(ROTATED):
        instead = f", not {bvec.name}" if bvec is not None else ""
        return f"b-vectors: {files.bvec.name}, which eddy turned with the head{instead}"
    if files.bval == files.bvec:
        return f"gradient table: {files.bval.name}, in scanner axes as MRtrix3 writes it"
    others = [path.name for path in files if path.parent != image.parent]
    return f"gradient table: inherited from {', '.join(others)}" if others else ""


def is_scan(path: str | Path, known: Files | None = None) -> bool:
    """Return whether an image has a gradient table, and so is a DWI.

    A table named for the whole folder (`bvals`) counts only for an image with as many volumes.
    Of MRtrix3's images only the header is read; none is converted.

    Parameters
    ----------
    known
        The files of its folder; None: it is listed.
    """
    path = Path(path)
    try:
        if _is_mrtrix(path) and b"\ndw_scheme:" in _mrtrix_header(path):
            return True
        files = find_gradients(path, files=known)
    except UserError:
        return True  # it is damaged or has several tables, which opening it will report
    if files.missing or files.own:
        return not files.missing
    from napari_msp.data.gradient_files import read_b_values

    try:
        shape, rows = _shape(path), len(read_b_values(files.bval, files.bvec))
    except UserError:
        return False
    return len(shape) == 4 and shape[3] == rows


def likely_scans(files: Files, inherits: bool = False) -> Iterator[Path]:
    """Yield the images of a folder that may have a gradient table by name, the likeliest first.

    Most folders hold no table: then no image is opened, however many there are.

    Parameters
    ----------
    inherits
        Whether BIDS lets its DWIs inherit a table.
    """
    named = _tabled(files, (*BVALS, *MRTRIX_TABLES, ROTATED))
    yield from (files[name] for name in named)
    shared = any(name in files for name in (*FOLDER_BVALS, *FOLDER_MRTRIX_TABLES))
    endings: tuple[str, ...] = MRTRIX_SUFFIXES
    if shared:
        endings = IMAGE_SUFFIXES
    elif inherits:
        endings += tuple(f"dwi{suffix}" for suffix in IMAGE_SUFFIXES)
    yield from (files[name] for name in files if name.endswith(endings) and name not in named)


def _tabled(files: Files, endings: Sequence[str]) -> list[str]:
    """List the images of a folder beside which lies a table of their own name, by its endings."""
    stems = (name.removesuffix(end) for name in files for end in endings if name.endswith(end))
    images = (stem + suffix for stem in dict.fromkeys(stems) for suffix in IMAGE_SUFFIXES)
    return [image for image in images if image in files]


def _is_mrtrix(image: Path) -> bool:
    return image_suffix(image).lower() in MRTRIX_SUFFIXES


def _mrtrix_header(image: Path) -> bytes:
    """Read the header lines of an MRtrix image; empty without a file."""
    try:
        with gzip.open(image) if image.suffix.lower() == ".gz" else image.open("rb") as file:
            return bytes(file.read(MRTRIX_HEADER)).partition(b"\nEND")[0]
    except FileNotFoundError:
        return b""
    except (OSError, EOFError, zlib.error) as error:
        remedy = Advice("check the file")
        raise UserError(f"cannot be read ({error})", image, remedy=remedy) from error


def _shape(image: Path) -> tuple[int, ...]:
    """Read the shape of an image without converting it."""
    if not _is_mrtrix(image):
        from napari_msp.data.nifti import open_nifti

        return tuple(open_nifti(image).shape)
    found = re.search(rb"\ndim:([\d, ]+)", _mrtrix_header(image))
    return () if found is None else tuple(int(each) for each in found[1].split(b","))


def _files_in(folder: Path) -> Files:
    return by_name(folder, (each.name for each in entries(folder)))


def by_name(folder: Path, names: Iterable[str]) -> Files:
    """Return the files of a folder by their names in lower case, sorted."""
    # If two names differ in case only, the one with capitals counts.
    listed = {name.lower(): name for name in sorted(names, reverse=True)}
    return {lower: folder / listed[lower] for lower in sorted(listed)}


# --- Masks ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundMask:
    """A mask that was found for an image.

    Attributes
    ----------
    passed_over
        Texts on other masks that might be meant, and why they were not taken.
    """

    path: Path | None
    passed_over: tuple[str, ...] = ()


def look_for_mask(dwi: str | Path, lattice: Lattice | None = None) -> FoundMask:
    """Look for a brain mask beside an image, then in the derivatives of its BIDS dataset.

    A mask's name contains "mask", and besides only words of the image's name or `NEUTRAL_WORDS`;
    its BIDS entities must not contradict the image's. The name nearest to the image's is taken.

    Parameters
    ----------
    lattice
        Lattice of the image; None: its header is read. Masks on other lattices are passed over,
        unless their names are certainly this image's.

    Raises
    ------
    UserError
        When several fit equally well: the choice is the user's. When a folder may not be listed,
        unless a mask that is certainly this image's is found in another.
    """
    dwi = Path(dwi)
    passed_over: list[str] = []
    closed: list[UserError] = []
    for place in _mask_places(dwi, closed):
        for fit in sorted(place):
            fitting = [path for path in place[fit] if _lies_on(path, dwi, lattice)]
            if len(fitting) > 1:
                listed = ", ".join(_short(path, dwi) for path in fitting)
                problem = f"several files may be its brain mask ({listed})"
                raise UserError(problem, dwi, "mask", Give("mask", "one"))
            if fit.certain or (fitting and not closed):
                passed_over += [f"{each.subject} {each.problem}" for each in closed]
                # If a certain one lies on another lattice, reading it says so.
                return FoundMask((fitting or place[fit])[0], tuple(passed_over))
            if fitting:
                raise closed[0]
            passed_over += [f"{_short(path, dwi)} has another voxel grid" for path in place[fit]]
    if closed:
        raise closed[0]
    if not _is_alone(dwi):
        others = [path for path in _masks_in(dwi.parent, dwi) if _word_fit(dwi, path)]
        passed_over += [f"{path.name} may belong to another scan" for path in others]
    return FoundMask(None, tuple(passed_over))


class Fit(NamedTuple):
    """How well a mask's name fits an image's; the smallest fits best.

    Attributes
    ----------
    rank
        0: `<stem>_mask`, 1: `<stem without _dwi>_mask`, 2: the same with a description, 3: a
        name that could be of any scan.
    unnamed
        Number of the image's entities that the mask does not name.
    oddness
        Distance of its words from "brain mask".
    """

    rank: int
    unnamed: int = 0
    oddness: int = 0

    @property
    def certain(self) -> bool:
        """Whether the mask is certainly this image's."""
        return self.rank < GENERIC and self.unnamed == 0


OWN_STEM, OWN_ENTITIES, DESCRIBED, GENERIC = range(4)

Place = dict[Fit, list[Path]]
"""Masks of one place, by how well they fit."""


def _mask_places(dwi: Path, closed: list[UserError]) -> Iterator[Place]:
    """Yield the masks of each place, nearest first; errors of closed folders go to `closed`."""
    yield _place(dwi, _masks_in(dwi.parent, dwi), generic=_is_alone(dwi))
    yield _place(dwi, _masks_away(derivative_folders(dwi), dwi, closed), generic=False)
    further = [dwi.parent / each for each in FURTHER_PLACES]
    yield _place(dwi, _masks_away(further, dwi, closed), generic=True)


def _masks_away(folders: Iterable[Path], dwi: Path, closed: list[UserError]) -> Iterator[Path]:
    """Yield masks in other folders; a private folder need not stop the search."""
    for folder in folders:
        try:
            yield from _masks_in(folder, dwi)
        except UserError as error:
            closed.append(error)


def _place(dwi: Path, masks: Iterable[Path], generic: bool) -> Place:
    found: Place = {}
    for path in masks:
        fit = _entity_fit(dwi, path) if "sub" in entities(path) else _word_fit(dwi, path)
        if fit is not None and (generic or fit.rank < GENERIC):
            found.setdefault(fit, []).append(path)
    return found


def _masks_in(folder: Path, dwi: Path) -> list[Path]:
    """Return images with "mask" in their names, one per stem in the most usual format."""
    found: dict[str, Path] = {}
    seen = (path for path in entries(folder) if not path.name.startswith("."))
    images = [path for path in seen if "mask" in path.name.lower() and path != dwi]
    for suffix in IMAGE_SUFFIXES:
        for path in images:
            if image_suffix(path).lower() == suffix:
                found.setdefault(nifti_stem(path), path)
    return sorted(found.values())


def _entity_fit(dwi: Path, mask: Path) -> Fit | None:
    """Return how well a mask with BIDS entities fits an image; None: not at all."""
    own, its = entities(dwi), entities(mask)
    free = {"desc", "label"}
    if any(own.get(key) != label for key, label in its.items() if key not in free):
        return None
    plain, own_plain = _plain_words(mask), _plain_words(dwi)
    description, of_image = its.get("desc", "").lower(), own.get("desc", "").lower()
    # dMRIharmonization puts "dwi" before the image's own description.
    known = {of_image, f"dwi{of_image}", *NEUTRAL_WORDS}
    if not plain <= NEUTRAL_WORDS | own_plain or its.get("label", "brain").lower() != "brain":
        return None
    unnamed = len(own.keys() - its.keys() - free)
    if not description or description == of_image:
        unshared = len(own_plain - plain - {"dwi"}) + len(plain - own_plain)
        unshared += description != of_image  # for a prediction its scan's mask is second best
        return Fit(OWN_STEM if "dwi" in plain else OWN_ENTITIES, unnamed, unshared)
    if "brain" in description or description in known:
        return Fit(DESCRIBED, unnamed, 0 if description == "brain" else 1)
    return None


def _plain_words(path: Path) -> set[str]:
    """Return the words of a BIDS name that are not entities, such as "dwi" and "mask"."""
    return {part for part in nifti_stem(path).lower().split("_") if "-" not in part}


def _word_fit(dwi: Path, mask: Path) -> Fit | None:
    """Return how well a mask's name fits an image's by its words; None: not at all."""
    stem, name = nifti_stem(dwi).lower(), nifti_stem(mask).lower()
    own, its = _words(stem), _words(name)
    if not its <= own | NEUTRAL_WORDS:
        return None
    oddness = 0 if its & BRAIN_WORDS else 1
    for rank, beginning in ((OWN_STEM, stem), (OWN_ENTITIES, bare_stem(dwi).lower())):
        if name.startswith(beginning):
            return Fit(rank, oddness=oddness)
    return Fit(DESCRIBED, 1, oddness) if its & own - NEUTRAL_WORDS else Fit(GENERIC, 1, oddness)


def _words(stem: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", stem.lower()))


def _is_alone(dwi: Path) -> bool:
    """Return whether the folder holds no other scan, so that a `mask.nii.gz` must be its own.

    Images with the same b-value file are the same scan at another processing step.
    """
    names = _files_in(dwi.parent)
    own = find_gradients(dwi).bval
    others = (names[name] for name in _tabled(names, (*BVALS, ROTATED)))
    return all(path == dwi or find_gradients(path).bval == own for path in others)


def _lies_on(mask: Path, dwi: Path, lattice: Lattice | None) -> bool:
    """Return whether a mask is on the image's lattice; true for an unreadable mask."""
    from napari_msp.data.masks import orientation_to
    from napari_msp.data.nifti import lattice_of, open_nifti

    try:
        where = lattice_of(open_nifti(dwi)) if lattice is None else lattice
        return orientation_to(lattice_of(open_nifti(mask)), where) is not None
    except UserError:
        return True


def _short(path: Path, dwi: Path) -> str:
    return path.name if path.parent == dwi.parent else str(path)
