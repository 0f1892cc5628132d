"""DICOM folders: convert them with dcm2niix, list their series and choose one.

dcm2niix (Li 2016) converts, as it knows the vendors' private fields. This module decides which
series is the DWI: a scanner's folder also contains localisers, maps that the scanner computed, and
b=0 images of reversed phase encoding.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.bids import gradient_files, nifti_stem, read_sidecar
from napari_msp.data.gradient_files import read_b_values
from napari_msp.data.gradients import B0_MAXIMUM, LARGEST_B0
from napari_msp.data.lattice import voxel_sizes
from napari_msp.data.nifti import open_nifti
from napari_msp.errors import Advice, Choose, Doubt, Give, Install, Remedy, UserError, either
from napari_msp.files import HIDDEN, files_under, new_folder, walk, write_json
from napari_msp.formatting import counted, span
from napari_msp.strict_json import read_json

DEPTH = 9
"""Depth to which folders below the given one are searched, the most that dcm2niix allows."""

FIRST_FILES = 50
"""Number of a folder's files that are opened to tell whether it holds DICOM."""

SAID = "dcm2niix.json"
"""File of dcm2niix's warnings beside the images of a kept conversion."""

DOUBTS = (
    "Warning", "Error", "DICOM images may be missing", "Missing", "Slice positions repeated",
    "Expected", "Unable", "Interslice", "Slices not stacked",
)  # fmt: skip
"""Beginnings of dcm2niix output lines that users should read; not all are called warnings."""

FILE = re.compile(
    r"^DICOM file: (?P<path>.*)\n"
    r"(?: patient position \(?0020,0032\)?(?P<place>(?:\s+\S+){3})\s*\n)?"
    r"(?:(?!DICOM file: ).*\n){0,9}? acq \S+ img (?P<image>\d+) ser (?P<series>\d+) "
    r"dim (?P<plane>\d+x\d+)x(?P<slices>\d+x\d+) mm (?P<voxel>\S+) offset (?P<offset>\d+) .*?"
    r"TE (?P<times>.*)(?:\n DWI bxyz (?P<b>\S+))?",
    re.MULTILINE,
)
"""dcm2niix's verbose output on one file."""

PLACE = re.compile(rb"\x20\x00\x32\x00(?:DS..|..\x00\x00)((?:[^\\\0]+\\){2}[-+.\deE ]+)", re.DOTALL)
"""ImagePositionPatient in a file, with explicit or implicit value representation."""

LEAST_VERSION = "20260416"
"""Oldest dcm2niix that is supported, as in pyproject.toml."""

LEAST_ROOM = 2**20
"""Free bytes below which an error of dcm2niix is blamed on a full disk (our choice)."""

MANY = 6
"""Number of volumes above which an image with b=0 only may be a DWI that lost its b-values (our
choice)."""

OFF_PLACE = 0.25
"""Share of the slice distance by which a slice may be out of place (our choice)."""

READ_AS = 5
"""Version of kept conversions; raised when files are read differently, so that all are redone."""

DERIVED = ("ADC", "TRACEW", "TRACE", "FA", "EXP", "TENSOR")
"""Words in an image's DICOM type that mark it as computed from the DWI."""

ANEW = "export it again"
"""Ending of the flaw of a DWI with missing images."""

NO_MAGNITUDE = {"PHASE": "phase", "REAL": "the real part", "IMAGINARY": "the imaginary part"}
"""dcm2niix's marks for images of a complex signal that are not its magnitude."""


@dataclass(frozen=True)
class Series:
    """One image that dcm2niix made; `number` is the scanner's for its series, 0 where unknown.

    Attributes
    ----------
    voxel
        (3,) voxel sizes in mm.
    b_values
        Each different b-value in s/mm² with its number of volumes; empty without a table.
    phase_encoding
        Direction as in the sidecar, such as "j-"; empty if unknown.
    flaw
        Reason why it is not a usable DWI; empty if it is one.
    """

    number: int
    description: str
    path: Path
    shape: tuple[int, ...]
    voxel: tuple[float, ...]
    b_values: tuple[tuple[int, int], ...]
    phase_encoding: str
    flaw: str

    @property
    def name(self) -> str:
        """Number, if known, and description."""
        return f"{self.number or ''} {self.description}".strip()

    @property
    def weighted(self) -> bool:
        """Whether it is diffusion-weighted."""
        return any(value > 0 for value, _ in self.b_values)

    @property
    def stem(self) -> str:
        """Stem of its image's name, unique in the conversion."""
        return nifti_stem(self.path)

    def __str__(self) -> str:
        volumes = counted(self.shape[3] if len(self.shape) > 3 else 1, "volume")
        facts = [f"{' × '.join(f'{each:.3g}' for each in self.voxel)} mm", volumes]
        facts += [f"{count} at b = {value}" for value, count in self.b_values]
        if self.phase_encoding:
            facts.append(f"phase encoding {self.phase_encoding}")
        return f"{self.name}: {', '.join(facts)}" + f"; {self.flaw}" * bool(self.flaw)


@dataclass(frozen=True)
class Converted:
    """Result of converting a folder with dcm2niix.

    Attributes
    ----------
    lost
        DWIs of which some or all files were not converted, in words.
    """

    folder: Path
    series: tuple[Series, ...]
    warnings: tuple[str, ...]
    lost: tuple[str, ...] = ()

    @property
    def usable(self) -> tuple[Series, ...]:
        """The usable DWIs."""
        return tuple(each for each in self.series if not each.flaw)

    @property
    def broken(self) -> tuple[str, ...]:
        """DWIs that are unusable because images are missing; any may be the wanted one."""
        damaged = (each for each in self.series if each.weighted and each.flaw.endswith(ANEW))
        return (*map(str, damaged), *self.lost)

    def choose(self, wanted: str | int | None = None) -> Series:
        """Choose a series.

        Parameters
        ----------
        wanted
            Number, part of the description (ignoring case), or name of dcm2niix's image; None:
            the only DWI.

        Raises
        ------
        UserError
            When no series fits, several do, or the one that does is not a usable DWI; without
            `wanted` also when another DWI is broken. It lists the series.
        """
        fitting = self.usable if wanted is None else self._named(str(wanted).strip())
        broken = () if wanted is not None else self.broken
        if len(fitting) == 1 and not fitting[0].flaw and not broken:
            return fitting[0]
        listed, fit = ("; ".join(map(str, e)) for e in ((*self.series, *self.lost), fitting))
        if fitting and broken:
            usable = f"{counted(len(fitting), 'usable DWI')} ({fit})"
            problem = f"has {usable} and {counted(len(broken), 'broken one')} ({'; '.join(broken)})"
        elif len(fitting) == 1:
            problem = f"series {fitting[0].name} is not a usable DWI: {fitting[0].flaw}"
        elif fitting:
            problem = f"has several matching series ({fit})"
        elif wanted is None:
            problem = f"has no DWI series ({listed})"
        else:
            problem = f"has no series {wanted} ({listed})"
        grave = [e for e in self.warnings if e.startswith("Error") or "Expected" in e]
        if not self.usable and grave:
            problem += f"; dcm2niix: {'; '.join(grave)}"
        nothing = "give a folder with a DWI"
        if any(each.weighted for each in self.series):
            nothing = "export the DWI again, with all of its images"
        choices = tuple(str(each.number) for each in self.usable)
        if len(set(choices)) < len(choices):  # as in a folder of two sessions, or of two people
            problem += ", and some share a number: are they all from one session?"
            choices = tuple(each.stem for each in self.usable)
        remedy: Remedy = Choose("series", choices) if choices else Advice(nothing)
        if choices and broken:
            remedy = either(remedy, Advice("export the folder again"))
        raise UserError(problem, self.folder, "series", remedy)

    def _named(self, wanted: str) -> tuple[Series, ...]:
        if wanted.isdecimal():
            numbered = [each for each in self.series if each.number == int(wanted)]
            # Maps that the scanner computed have the number of the series that they are made of.
            return tuple([each for each in numbered if not each.flaw] or numbered)
        exact = [each for each in self.usable if wanted in (each.description, each.stem)]
        fold = wanted.casefold()
        parts = [each for each in self.series if fold in each.description.casefold()]
        return tuple(exact or [each for each in parts if not each.flaw] or parts)


def convert(folder: str | Path, into: str | Path) -> Converted:
    """Convert all series of a DICOM folder and its subfolders.

    Sidecars contain neither names nor dates.

    Parameters
    ----------
    folder
        Folder of DICOM files of any names; it is only read.
    into
        Existing folder for the images.

    Raises
    ------
    UserError
        When dcm2niix is not installed, finds no DICOM, or fails.
    """
    folder, into = Path(folder), Path(into)
    if not folder.is_dir():
        raise UserError("there is no such folder", folder, "source", Give("source", "a folder"))
    # %s series number, %d description; all images, as those that are not DWIs are listed, too.
    # -v 1 also prints where each slice lies.
    options = f"-b y -ba y -z i -w 2 -d {DEPTH} -f %s_%d -v 1 -o".split()
    call = [_program(), *options, str(into), str(folder)]
    done = subprocess.run(call, capture_output=True, text=True, errors="replace", check=False)
    said = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines()]
    failed = any(line.startswith("Error") or "disk full" in line for line in said)
    if failed and shutil.disk_usage(into).free < LEAST_ROOM:
        seen = next(each for each in into.absolute().parents if not each.name.startswith(HIDDEN))
        remedy = Advice("free some space, or set TMPDIR to a folder on another disk")
        raise UserError("the disk is full", seen, "source", remedy)
    if not any(into.glob("*.nii.gz")):
        kinds = ("Error", DOUBTS)  # it only warns of a truncated file
        doubts = [line for kind in kinds for line in said if line.startswith(kind)]
        errors = [re.sub("^(Error|Warning): *", "", line) for line in doubts]
        if not errors or "Unable to find any DICOM" in errors[0]:
            remedy = Advice("give the folder of DICOM files from the scanner or archive")
            raise UserError("contains no DICOM image", folder, "source", remedy)
        remedy = Advice("copy it again, or export it again")
        raise UserError(f"cannot be converted ({errors[0]})", folder, "source", remedy)
    warned = (line for line in said if line.startswith(DOUBTS))
    files = [_File.of(match) for match in FILE.finditer(done.stdout)]
    made = [(each, _files_of(each, files)) for each in _series_in(into)]
    series = tuple(_in_place(*each) for each in made)
    told = dict.fromkeys([*warned, *filter(None, (_without(*each) for each in made))])
    return Converted(folder, series, tuple(told), _lost(said, files))


@dataclass(frozen=True)
class _File:
    """A file that dcm2niix read.

    Attributes
    ----------
    places
        Positions of its slices: three numbers each, in DICOM's axes; empty if unknown.
    image
        Its number in the series.
    kind
        Properties that are the same in all files of one image.
    """

    path: str
    series: int
    image: int
    places: tuple[tuple[float, ...], ...]
    kind: tuple[str, ...]
    weighted: bool

    @classmethod
    def of(cls, said: re.Match[str]) -> "_File":
        """Make it from dcm2niix's output, and read slice positions if it has several slices."""
        path, found = said["path"], [said["place"].split()] if said["place"] else []
        places: tuple[tuple[float, ...], ...] = ()
        with suppress(OSError, ValueError):
            if said["slices"] != "1x1":
                with Path(path).open("rb") as file:
                    found = [e.split(b"\\") for e in PLACE.findall(file.read(int(said["offset"])))]
            places = tuple(tuple(map(float, each)) for each in found)
        return cls(
            path,
            int(said["series"]),
            int(said["image"]),
            places,
            (str(Path(path).parent), said["plane"], said["voxel"], said["times"]),
            float(said["b"] or 0) > 0,
        )


def _lost(said: Sequence[str], files: Sequence[_File]) -> tuple[str, ...]:
    """List DWIs of which dcm2niix converted fewer files than it read, with its messages."""
    if not any(line.startswith("Error: Converted ") for line in said):
        return ()  # fewer are converted if there are copies, which count once
    made: Counter[int] = Counter()
    for line in said:
        if found := re.match(r"Convert (\d+) DICOM as (.+) \(", line):
            made[int(Path(found[2]).name.partition("_")[0])] += int(found[1])
    lost = []
    for number in sorted({each.series for each in files if each.weighted}):
        own = [each.path for each in files if each.series == number]
        why = {line for line in said if line.startswith(DOUBTS) for f in own if line.endswith(f)}
        if missing := max(0, len(own) - made[number]):
            reason = f" ({'; '.join(sorted(why))})" if why else ""
            lost.append(f"{number}: a DWI, {missing} of {len(own)} files not converted{reason}")
    return tuple(lost)


def _files_of(series: Series, files: Sequence[_File]) -> list[list[_File]]:
    """Return the files that an image may be made of, one list per kind.

    Two sessions may share a series number: files of one folder and kind belong together.
    """
    own = [each for each in files if each.series == series.number]
    kinds = dict.fromkeys(each.kind for each in own)
    return [[each for each in own if each.kind == kind] for kind in kinds]


def _without(series: Series, kinds: Sequence[Sequence[_File]]) -> str:
    """Return a text on volumes of a DWI that are missing by their files' numbers; else empty.

    Known only if each file is one volume.
    """
    if series.flaw or len(kinds) != 1 or len(kinds[0]) != series.shape[3]:
        return ""
    numbers = {each.image for each in kinds[0]}
    missing = sorted({*range(min(numbers), max(numbers))} - numbers)
    if not 0 < len(missing) < len(numbers):  # otherwise they are not numbered one by one
        return ""
    lost = counted(len(missing), "file")
    return f"{series.name}: {lost} missing or broken (number {span(missing)})"


def _in_place(series: Series, kinds: Sequence[Sequence[_File]]) -> Series:
    """Mark a series as flawed if slices are missing inside it, which shifts those above.

    dcm2niix only counts slices: it closes a gap that is in every volume.
    """
    if series.flaw:
        return series
    places = [[place for file in kind for place in file.places] for kind in kinds]
    own = [each for each in places if len(each) == np.prod(series.shape[2:])]
    whole = [place for each in places for place in each]
    if not whole or any(_all_there(series, each) for each in own or [whole]):
        return series
    return replace(series, flaw=f"slices are missing inside it: {ANEW}")


def _all_there(series: Series, places: Sequence[tuple[float, ...]]) -> bool:
    """Return whether an image's slices lie where its files' do; true if too few are known."""
    affine = open_nifti(series.path).affine
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    # NIfTI's first two axes go right and forward, DICOM's left and backward.
    found = np.unique(np.array(places) @ (normal * [-1, -1, 1]))
    stored = normal @ (affine[:3, 2:3] * np.arange(series.shape[2]) + affine[:3, 3:])
    reach = OFF_PLACE * abs(normal @ affine[:3, 2])
    known = 1 + int((np.diff(found) > reach).sum())
    near = np.abs(stored[:, None] - found).min(axis=1) <= reach
    return bool(near.all()) or known < len(stored)


def kept_conversion(folder: str | Path, cache: str | Path) -> Converted:
    """Convert a DICOM folder once, and keep the images in a cache folder.

    Parameters
    ----------
    folder
        As for `convert`. It is converted again when a file in it has changed.
    cache
        Folder for conversions; created if missing.
    """
    folder = Path(folder)
    files = files_under(folder)
    marks = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    made_as = (READ_AS, str(folder.resolve()), marks)
    key = hashlib.sha256(repr(made_as).encode()).hexdigest()[:16]
    kept = Path(cache) / "dicom" / key
    if not kept.exists():
        with new_folder(kept) as stage:
            made = convert(folder, stage)
            flaws = {each.path.name: each.flaw for each in made.series}
            told = {"Warnings": made.warnings, "Lost": made.lost, "Flaws": flaws}
            write_json(stage / SAID, told)
    said = read_json(kept / SAID)
    found = (replace(s, flaw=said["Flaws"].get(s.path.name, s.flaw)) for s in _series_in(kept))
    return Converted(folder, tuple(found), tuple(said["Warnings"]), tuple(said["Lost"]))


def looks_like_dicom(folder: str | Path) -> bool:
    """Return whether any of a folder's first files is DICOM, by its magic bytes."""
    # The walk is lazy: a link may lead to a whole archive.
    found = (place / name for place, _, names in walk(folder) for name in names)
    return any(_is_dicom(path) for path in islice(filter(Path.is_file, found), FIRST_FILES))


def _is_dicom(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"
    return False


def _program() -> str:
    """Find dcm2niix: the optional package's beside this Python, else on the path."""
    beside = shutil.which("dcm2niix", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("dcm2niix")
    if found is None:
        remedy = either(Install("dicom"), Advice("put dcm2niix on the PATH"))
        raise UserError("DICOM needs dcm2niix, which is not installed", remedy=remedy)
    if beside is None:  # pip sees to the version of the optional package's
        _doubt_version(found)
    return found


@cache
def _doubt_version(program: str) -> None:
    """Warn once if dcm2niix is older than supported: b-vectors of some scanners were wrong."""
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    version = re.search(r"v1\.0\.(\d{8})", done.stdout)
    if version and version[1] < LEAST_VERSION:
        needed = f"but 1.0.{LEAST_VERSION} or later is needed; upgrade it"
        said = f"is version 1.0.{version[1]}, {needed}"
        warnings.warn(Doubt(said, program), stacklevel=4)


def _series_in(folder: Path) -> tuple[Series, ...]:
    """List the images that dcm2niix made, in the scanner's order."""
    images = sorted(folder.glob("*.nii.gz"))
    return tuple(sorted((_described(image) for image in images), key=lambda each: each.number))


def _described(image: Path) -> Series:
    """Describe an image that dcm2niix made."""
    opened = open_nifti(image)
    sidecar = read_sidecar(image)
    bval, bvec = gradient_files(image)
    table: Any = np.zeros(0)
    if bval.exists() and bvec.exists():
        table = read_b_values(bval, bvec)
    number = sidecar.get("SeriesNumber")
    values, counts = np.unique(np.round(table / 50).astype(int) * 50, return_counts=True)
    return Series(
        number=number if isinstance(number, int) else 0,
        description=str(sidecar.get("SeriesDescription") or nifti_stem(image)),
        path=image,
        shape=tuple(opened.shape),
        voxel=tuple(voxel_sizes(opened.affine).tolist()),
        b_values=tuple(zip(values.tolist(), counts.tolist(), strict=True)),
        phase_encoding=str(sidecar.get("PhaseEncodingDirection") or ""),
        flaw=_flaw(image, opened.shape, sidecar, table),
    )


def _flaw(image: Path, shape: Sequence[int], sidecar: dict[str, Any], table: Any) -> str:
    """Return why an image is not a usable DWI; empty if it is."""
    kinds = {str(each).upper() for each in sidecar.get("ImageType") or ()}
    computed = next((each for each in DERIVED if each in kinds), None)
    if computed or nifti_stem(image).endswith("_ADC"):
        return f"a map that the scanner computed ({computed or 'ADC'})"
    part = next((words for each, words in NO_MAGNITUDE.items() if each in kinds), None)
    if part:
        return f"{part} of the signal, not its magnitude"
    volumes = shape[3] if len(shape) > 3 else 1
    if volumes < 2:
        lost = f"one volume for {len(table)} b-values: images are missing, {ANEW}"
        return lost if len(table) > 1 else "one volume"
    private = ""
    if volumes > MANY:
        private = ", or a DWI whose b-values (private fields) anonymisation removed"
    if len(table) == 0:
        return f"no b-values: not diffusion, or only b=0 as for distortion correction{private}"
    if len(table) != volumes:
        both = f"{counted(len(table), 'b-value')} for {counted(volumes, 'volume')}"
        return f"{both}: images are missing, {ANEW}"
    if table.max() <= B0_MAXIMUM:
        return f"only b=0, as for distortion correction{private}"
    if table.min() > LARGEST_B0:  # below it the threshold decides
        return "no b=0 volume"
    return ""
