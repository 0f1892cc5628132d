"""Regions of a head: labels with names, brought to an image's voxels.

Labels come from an image (an atlas, a segmentation); without one, tissue classes take its place.
"""

import codecs
import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.bids import applicable, image_suffix, nifti_stem, platform_of
from napari_msp.data.lattice import Lattice, Nearest
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels
from napari_msp.errors import Advice, Doubt, UserError
from napari_msp.evaluation.measures.pair import TissueMasks
from napari_msp.files import files_under, sha256, state_of
from napari_msp.strict_json import read_whole

TISSUE = "tissue"
"""Word that stands for tissue classes where a label image is asked for."""

TISSUES = {1: "white matter", 2: "grey matter", 3: "fluid"}
"""Labels and names of the tissue classes."""

LARGEST_LABEL = 2**24
"""Upper limit of labels: voxels are read as float32, exact for whole numbers below this."""

LARGEST_TABLE = 10_000_000
"""Largest size of a table of names in bytes; FreeSurfer's has 100 kB."""

NAMES_BESIDE = (".tsv", ".csv", ".txt", ".label", ".lut")
"""File endings of tables that name the labels of the image beside them."""

RGB, BRIGHTEST = 3, 255
"""Numbers of a colour without its alpha, and the largest of them; fractions go up to 1."""

CUT = 0.95
"""Share of a region in the image below which it is reported as cut off (our choice)."""


@dataclass(frozen=True, eq=False, repr=False)
class Regions:
    """Labels of voxels; 0 means no label.

    Attributes
    ----------
    labels
        (X, Y, Z) whole numbers from 0.
    names
        Names by label, of all regions to be reported, also of those without a voxel.
    affine
        (4, 4) voxel-to-scanner affine in mm.
    kept
        Share of each label's volume that lies in the image, set by `on`; empty before.
    path
        File that the labels were read from, for messages.
    """

    labels: IntArray
    names: Mapping[int, str]
    affine: FloatArray
    kept: Mapping[int, float] = field(default_factory=dict)
    path: Path | None = None

    def __repr__(self) -> str:
        few = ", ".join(list(self.names.values())[:4])
        return f"<Regions {few}{', …' if len(self.names) > 4 else ''} on {self.lattice!r}>"

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return iter(self.names.items())

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def lattice(self) -> Lattice:
        """Positions of the voxels."""
        return Lattice.of(self.labels.shape, self.affine)

    @property
    def notes(self) -> list[str]:
        """Regions that do not lie, or not wholly, in the image, in words."""
        said = []
        for label, name in self:
            share = self.kept.get(label, 1.0)
            if share == 0:
                said.append(f"{name} has no voxel in the image")
            elif share < CUT:
                said.append(f"{name} is cut off: {100 * share:.0f} % of it lies in the image")
        return said

    def on(self, lattice: Lattice) -> "Regions":
        """Return the regions on a lattice; each voxel takes the label of the nearest voxel.

        Positions follow from the affines alone: the label image must be in the image's space.

        Raises
        ------
        UserError
            When no label lies there.
        """
        labels = self.labels
        if not self.lattice.matches(lattice):
            labels = Nearest.between(self.lattice, lattice).take(self.labels)
        if not labels.any():
            remedy = Advice("give labels in the space of the scans, registered to them")
            raise UserError("no labelled voxel lies in the image", self.path, "regions", remedy)
        if labels is self.labels:
            return Regions(labels, self.names, lattice.affine, dict.fromkeys(self.names, 1.0))
        before, after = label_counts(self.labels), label_counts(labels)
        # Few voxels never keep a region's exact volume: it is not called cut off for that.
        scale = abs(np.linalg.det(lattice.affine[:3, :3]) / np.linalg.det(self.affine[:3, :3]))
        kept = {
            label: min(1.0, float(after.get(label, 0) * scale / before[label]))
            for label in self.names
            if label in before
        }
        return Regions(labels, self.names, lattice.affine, kept)


def label_counts(labels: IntArray) -> dict[int, int]:
    """Count the voxels of each label."""
    found, counts = np.unique(labels, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def tissue_regions(tissue: TissueMasks, affine: FloatArray) -> Regions:
    """Return white matter, grey matter and fluid as regions, see `measures.pair.tissue_of`."""
    labels = np.zeros(tissue.white.shape, dtype=np.uint8)
    for label, where in zip(TISSUES, (tissue.white, tissue.grey, tissue.fluid), strict=True):
        labels[where] = label
    return Regions(labels, TISSUES, affine)


class RegionVoxels:
    """The voxels of every region, sorted by label once for all maps on a lattice.

    Parameters
    ----------
    regions
        On the maps' lattice, see `Regions.on`.
    mask
        (X, Y, Z) voxels that count; None: all of them.
    """

    def __init__(self, regions: Regions, mask: MaskArray | None = None) -> None:
        counted = regions.labels > 0
        at = np.nonzero(counted if mask is None else counted & mask)
        labels = regions.labels[at]
        order = np.argsort(labels, kind="stable")  # each region's voxels keep their order
        self._regions, self._labels = regions, labels[order]
        self._at = tuple(axis[order] for axis in at)

    def of(self, *maps: FloatArray) -> Iterator[tuple[int, str, list[FloatArray]]]:
        """Yield label and name of each region, and its (N, C) float64 values of each map.

        Maps are (X, Y, Z) or (X, Y, Z, C); a voxel counts where all of them are finite.
        """
        found = [_channels(each[self._at]) for each in maps]
        finite = np.all([np.isfinite(each).all(axis=1) for each in found], axis=0)
        labels = self._labels[finite]
        if len(labels) < len(finite):
            found = [each[finite] for each in found]
        for label, name in self._regions:
            first, last = np.searchsorted(labels, (label, label + 1))
            yield label, name, [each[first:last] for each in found]


def _channels(values: FloatArray) -> FloatArray:
    """Return (N, C) float64 values."""
    channels = values.shape[1] if values.ndim > 1 else 1
    return np.asarray(values, dtype=float).reshape(len(values), channels)


# --- Files ------------------------------------------------------------------------------------


def read_regions(path: str | Path, names: str | Path | None = None) -> Regions:
    """Read a label image and the names of its labels.

    Parameters
    ----------
    path
        Image of three axes, of whole numbers.
    names
        Table of names: a BIDS `_dseg.tsv` or a CSV file (columns index and name), or text as
        ITK-SNAP, FreeSurfer and MRtrix3 write it. None: such a table beside the image, `<stem>` and
        one of `NAMES_BESIDE`, or the one that it inherits by BIDS; labels without a name are
        called by number, and labels that share a name by both.

    Raises
    ------
    UserError
        When it cannot be read, its values are not labels, or it has none.
    """
    path = Path(path)

    def error(problem: str, remedy: str) -> UserError:
        return UserError(problem, path, "regions", Advice(remedy))

    image = open_nifti(path)
    shape = image.shape
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise error(f"has {len(shape)} axes, labels have three", "give one label a voxel")
    values = read_voxels(image, path).reshape(shape[:3])
    broken = ~np.isfinite(values) | (values != np.rint(values))
    if broken.any():
        share = 100 * float(broken.mean())
        problem = f"is no label image: {share:.3g} % of its values are not whole numbers"
        raise error(problem, "give labels, resampled by nearest neighbour")
    if values.min() < 0 or values.max() >= LARGEST_LABEL:
        problem = f"has values from {values.min():.0f} to {values.max():.0f}, labels are positive"
        raise error(problem, f"give whole numbers from 0 to {LARGEST_LABEL - 1}")
    labels = values.astype(np.int32)
    there = [int(each) for each in np.unique(labels) if each]
    if not there:
        raise error("has no label: every voxel is 0", "give another")
    table = _names_beside(path) if names is None else Path(names)
    known = {} if table is None else read_names(table)
    called = {each: known.get(each, f"label {each}") for each in there}
    often = Counter(called.values())  # numbers of regions are kept by name
    called = {each: f"{n} ({each})" if often[n] > 1 else n for each, n in called.items()}
    return Regions(labels, called, lattice_of(image).affine, path=path)


def regions_of(source: str | Path, subject: str, platform: str) -> Regions:
    """Read the regions of a subject, from one label image for all or the subject's own in a folder.

    Parameters
    ----------
    source
        A label image, or a folder with `sub-<label>[/…]/sub-<label>…_dseg.nii.gz`.
    subject, platform
        Subject and platform of the scan; of several images the one of that platform is taken.
    """
    source = Path(source)
    if not source.is_dir():
        return read_regions(source)
    found = _label_images(source, f"{subject}_")
    own = [path for path in found if platform_of(path) == platform]
    shared = [path for path in found if not platform_of(path)]
    chosen = own or shared or found
    if len(chosen) != 1:
        names = f": {', '.join(path.name for path in chosen)}" if chosen else ""
        problem = (
            f"has {'several label images' if chosen else 'no label image'} of {subject}{names}"
        )
        remedy = Advice(f"give one named {subject}[_ses-…][_acq-…]_dseg.nii.gz")
        raise UserError(problem, source, "regions", remedy)
    return read_regions(chosen[0])


def regions_state(source: str | Path) -> list[str]:
    """Return digests that change with the label images or their tables of names.

    A file's digest is of its contents; a folder's of its files' names, sizes and write times.
    """
    source = Path(source)
    if source.is_file():
        return [sha256(path) for path in (source, _names_beside(source)) if path]
    images = _label_images(source, "sub-")
    return [state_of(path for image in images for path in (image, _names_beside(image)) if path)]


def _label_images(folder: Path, start: str) -> list[Path]:
    return [
        path
        for path in files_under(folder, f"{start}*")
        if image_suffix(path) and nifti_stem(path).endswith("_dseg")
    ]


def _names_beside(image: Path) -> Path | None:
    """Find the table of names of a label image."""
    stem = nifti_stem(image)
    for ending in NAMES_BESIDE:
        beside = image.with_name(stem + ending)
        if beside.is_file():
            return beside
    for level in applicable(image, ".tsv"):
        return level[-1]
    return None


def read_names(path: str | Path) -> dict[int, str]:
    """Read names of labels, see `read_regions`."""
    path = Path(path)
    text = _text(read_whole(path, LARGEST_TABLE))
    header = text.partition("\n")[0].lower()
    for between in "\t,;":
        if {"index", "name"} <= {each.strip(' "\r') for each in header.split(between)}:
            found = _column_names(text, between)
            break
    else:
        found = _lut_names(text, path)
    if not found:
        remedy = Advice("give a table with columns index and name")
        raise UserError("names no label", path, "regions", remedy)
    return found


def _text(content: bytes) -> str:
    """Decode text from editors and spreadsheets: UTF-8 or UTF-16 with a mark, else Latin-1."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _index(word: str) -> int | None:
    """Parse a label, also as 1.0 from a spreadsheet or pandas; None if it is not a label."""
    whole, _, rest = word.strip().partition(".")
    return int(whole) if whole.isdecimal() and not rest.strip("0") else None


def _column_names(text: str, delimiter: str) -> dict[int, str]:
    """Read a table with columns index and name, in any order and among others."""
    found = {}
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter):
        named = {str(key).strip().lower(): (value or "") for key, value in row.items() if key}
        index, name = _index(named.get("index", "")), named.get("name", "").strip()
        if index is not None and name:
            found[index] = name
    return found


class NamesDoubtful(Doubt):
    """Numbers behind the names of labels may belong to the names."""


def _lut_names(text: str, path: Path) -> dict[int, str]:
    """Read `1 255 0 0 1 1 1 "name"` (ITK-SNAP) or `1 name 255 0 0 0` (FreeSurfer, MRtrix3).

    A name may contain numbers, as in "Brodmann 4". Numbers behind it are a colour (red, green,
    blue and usually alpha) or a code, as in the AAL atlas.
    """
    found, names = {}, {}
    columns = True
    for line in text.splitlines():
        first, *rest = line.split(maxsplit=1) or [""]
        index = _index(first)
        if index is None or not rest:
            continue
        _, quote, quoted = line.partition('"')
        if quote:
            found[index] = " ".join(quoted.partition('"')[0].split())
            continue
        name, *behind = re.split(r"\s*\t\s*", rest[0].strip())
        if behind and all(_is_number(each) for each in " ".join(behind).split()):
            found[index] = " ".join(name.split())  # columns are told apart by tabs
        else:
            names[index] = rest[0].split()
            columns &= line.strip()[len(first) :].lstrip(" ").startswith("\t")
    fourth = re.search(r"R\s+G\s+B\s+A\b", text) is not None
    found |= _without_numbers(names, path, columns=columns, fourth=fourth)
    return {index: name for index, name in found.items() if name}


def _without_numbers(
    names: Mapping[int, Sequence[str]], path: Path, *, columns: bool, fourth: bool
) -> dict[int, str]:
    """Cut colours or codes off the ends of lines, and warn where that may be wrong.

    Parameters
    ----------
    names
        Words behind each label.
    columns
        Whether all names stand in a column of their own: numbers in it belong to the names, unless
        all lines end in a colour.
    fourth
        Whether the file says that colours have an alpha.
    """
    shades = {index: _shades_behind(words) for index, words in names.items()}
    coloured = {index: count for index, count in shades.items() if count >= RGB}
    bare = [index for index in names if index not in coloured and index != 0]
    whole = {index: " ".join(words) for index, words in names.items()}
    if not coloured:
        return whole if columns else _without_codes(names, whole, path)
    if bare and columns:
        return whole
    width = min(coloured.values())
    if not fourth and width < max(coloured.values()):
        _doubt(f"colours were taken to have {width} numbers: some lines end in no more", path)
    behind = {i: (count if fourth else width) for i, count in coloured.items()}
    cut = {i: " ".join(words[: len(words) - behind.get(i, 0)]) for i, words in names.items()}
    taken = len(bare) < len(coloured)
    if bare:
        lines = f"{len(coloured)} of {len(names)} lines end in {RGB} numbers or more"
        so = "taken for colours" if taken else "left in the names"
        _doubt(f"{lines}, as {whole[next(iter(coloured))]!r} does, which were {so}", path)
    elif len(set(cut.values())) < len(set(whole.values())):
        _doubt("without the numbers at their ends, taken for colours, some names are equal", path)
    return cut if taken else whole


def _without_codes(
    names: Mapping[int, Sequence[str]], whole: dict[int, str], path: Path
) -> dict[int, str]:
    """Cut a number off the end of all lines if it is a code, as in "Precentral_L 2001".

    It is not if names are equal without it: "Brodmann 4" and "Brodmann 6".
    """
    labels = [index for index in names if index != 0]
    coded = [i for i in names if len(names[i]) > 1 and names[i][-1].isdecimal()]
    if not labels or not set(labels) <= set(coded):
        return whole
    cut = {i: " ".join(words[:-1] if i in coded else words) for i, words in names.items()}
    if len(set(cut.values())) < len(set(whole.values())):
        return whole
    if all(int(names[index][-1]) > BRIGHTEST for index in labels):
        return cut
    _doubt(f"all lines end in a number, as {whole[labels[0]]!r} does, left in the names", path)
    return whole


def _doubt(said: str, path: Path) -> None:
    remedy = "if that is wrong, give a table with columns index and name"
    warnings.warn(NamesDoubtful(f"{said}; {remedy}", path.name), stacklevel=2)


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdecimal()


def _is_shade(word: str) -> bool:
    if "." in word:
        return _is_number(word) and float(word) <= 1
    return word.isdecimal() and int(word) <= BRIGHTEST


def _shades_behind(words: Sequence[str]) -> int:
    """Count the numbers of a colour at the end of a line, at most four."""
    behind = list(takewhile(_is_shade, reversed(words)))
    return min(len(behind), RGB + 1)
