"""Regions of a head: labels with names, brought to an image's voxels, and numbers by region.

Labels come from an image (an atlas, a segmentation); where there is none, kinds of tissue stand in.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.bids import applicable, entities, image_suffix, nifti_stem, platform_name
from napari_msp.data.lattice import Lattice, resample_with_mask, voxel_coordinates
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels
from napari_msp.errors import Advice, Choose, UserError
from napari_msp.evaluation.comparison import line_scans_up
from napari_msp.evaluation.measures.pair import Tissue
from napari_msp.files import read_whole, sha256, write_text
from napari_msp.formatting import csv_text
from napari_msp.scan import Scan, ScanLike, as_scan
from napari_msp.signal.maps import MAPS

TISSUE = "tissue"
"""What stands for kinds of tissue where a label image is asked for."""

TISSUES = {1: "white matter", 2: "grey matter", 3: "fluid"}
"""Labels and names of kinds of tissue."""

LARGEST_LABEL = 2**24
"""Voxels are read as float32, which tells whole numbers apart below this."""

LARGEST_TABLE = 10_000_000
"""Bytes of a table of names; FreeSurfer's has 100 kB."""

BINS = 32
"""Of a histogram (our choice)."""

REGION_MAPS = ("sh_average", "fa", "md")
"""That are measured unless others are chosen."""

TRUTH = "truth"
"""What it is called among the images."""

CUT = 0.95
"""A region of which less than this share lies in the image is said to be cut off (our choice)."""


@dataclass(frozen=True, eq=False, repr=False)
class Regions:
    """Labels of voxels; 0 is none.

    Attributes
    ----------
    labels
        (X, Y, Z) whole numbers from 0.
    names
        By label; all that are to be told of, also where no voxel has them.
    affine
        (4, 4) voxel-to-scanner affine in mm.
    kept
        Share of each label's volume that lies in the image, after `on`; empty before.
    path
        File that they were read from, for messages.
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
        """Where the voxels lie."""
        x, y, z = self.labels.shape
        return Lattice((x, y, z), self.affine)

    def where(self, label: int) -> MaskArray:
        """(X, Y, Z) voxels of a label."""
        return np.asarray(self.labels == label)

    @property
    def notes(self) -> list[str]:
        """Which regions are not, or not wholly, in the image, in words."""
        said = []
        for label, name in self:
            share = self.kept.get(label, 1.0)
            if share == 0:
                said.append(f"{name} has no voxel in the image")
            elif share < CUT:
                said.append(f"{name} is cut off: {100 * share:.0f} % of it lie in the image")
        return said

    def on(self, lattice: Lattice) -> "Regions":
        """Give the label of the voxel that is nearest to each voxel of a lattice.

        Positions follow from the affines alone: the label image must lie in the image's space.

        Raises
        ------
        UserError
            When no label lies there.
        """
        labels = self.labels
        if not self.lattice.matches(lattice):
            points = np.rint(voxel_coordinates(self.lattice, lattice)).astype(int)
            last = np.array(self.labels.shape).reshape(3, 1, 1, 1)
            inside = ((points >= 0) & (points < last)).all(axis=0)
            labels = np.zeros(lattice.shape, dtype=self.labels.dtype)
            labels[inside] = self.labels[tuple(points[:, inside])]
        if not labels.any():
            raise UserError(
                "no labelled voxel lies in the image",
                self.path,
                "regions",
                remedy=Advice("give labels in the space of the scans, registered to them"),
            )
        if labels is self.labels:
            return Regions(labels, self.names, lattice.affine, dict.fromkeys(self.names, 1.0))
        before, after = (
            dict(zip(*np.unique(each, return_counts=True), strict=True))
            for each in (self.labels, labels)
        )
        # A region of few voxels is never kept to the voxel, and is not cut off for that.
        scale = abs(np.linalg.det(lattice.affine[:3, :3]) / np.linalg.det(self.affine[:3, :3]))
        kept = {
            label: min(1.0, float(after.get(label, 0) * scale / before[label]))
            for label in self.names
            if label in before
        }
        return Regions(labels, self.names, lattice.affine, kept)


def tissue_regions(tissue: Tissue, affine: FloatArray) -> Regions:
    """Take white matter, grey matter and fluid as regions, see `measures.pair.tissue_of`."""
    labels = np.zeros(tissue.white.shape, dtype=np.uint8)
    for label, where in zip(TISSUES, (tissue.white, tissue.grey, tissue.fluid), strict=True):
        labels[where] = label
    return Regions(labels, TISSUES, affine)


# --- Files ------------------------------------------------------------------------------------


def read_regions(path: str | Path, names: str | Path | None = None) -> Regions:
    """Read a label image, and the names of its labels.

    Parameters
    ----------
    path
        Three-dimensional, of whole numbers.
    names
        Table of names: a BIDS `_dseg.tsv` (columns index and name), or text as ITK-SNAP, FreeSurfer
        and MRtrix3 write it. None: such a table beside the image, `<stem>.tsv`, `.txt`, `.label` or
        `.lut`, or the one that BIDS lets it inherit; labels without a name are called by number.

    Raises
    ------
    UserError
        When it cannot be read, its values are no labels, or none is there.
    """
    path = Path(path)
    image = open_nifti(path)
    shape = image.shape
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        remedy = Advice("give one label a voxel")
        raise UserError(f"has {len(shape)} axes, labels have three", path, "regions", remedy)
    values = read_voxels(image, path).reshape(shape[:3])
    broken = ~np.isfinite(values) | (values != np.rint(values))
    if broken.any():
        share = 100 * float(broken.mean())
        problem = f"is no label image: {share:.3g} % of its values are not whole numbers"
        remedy = Advice("give labels, resampled by nearest neighbour")
        raise UserError(problem, path, "regions", remedy)
    if values.min() < 0 or values.max() >= LARGEST_LABEL:
        problem = f"has values from {values.min():.0f} to {values.max():.0f}, labels are positive"
        remedy = Advice(f"give whole numbers from 0 to {LARGEST_LABEL - 1}")
        raise UserError(problem, path, "regions", remedy)
    labels = values.astype(np.int32)
    there = [int(each) for each in np.unique(labels) if each]
    if not there:
        raise UserError("has no label: every voxel is 0", path, "regions", Advice("give another"))
    table = _names_beside(path) if names is None else Path(names)
    known = {} if table is None else read_names(table)
    called = {each: known.get(each, f"label {each}") for each in there}
    return Regions(labels, called, lattice_of(image).affine, path=path)


def regions_of(source: str | Path, subject: str, platform: str) -> Regions:
    """Read the regions of a subject: a label image for all, or the subject's own of a folder.

    Parameters
    ----------
    source
        A label image, or a folder with `sub-<label>[/…]/sub-<label>…_dseg.nii.gz`.
    subject, platform
        Whose, and on what; of several the one is taken that was made of that platform's scan.

    Raises
    ------
    UserError
        When there is none of the subject, or several.
    """
    source = Path(source)
    if not source.is_dir():
        return read_regions(source)
    found = _label_images(source, f"{subject}_")
    own = [path for path in found if _platform(path) == platform]
    shared = [path for path in found if not _platform(path)]
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
    """Give digests by which one sees whether label images or their tables of names changed.

    Of a file they are of contents; of a folder, of its files' names, sizes and times of writing.
    """
    source = Path(source)
    if source.is_file():
        return [sha256(path) for path in (source, _names_beside(source)) if path]
    state = hashlib.sha256()
    for image in _label_images(source, "sub-"):
        for path in (each for each in (image, _names_beside(image)) if each):
            about = path.stat()
            state.update(f"{path} {about.st_size} {about.st_mtime_ns}\n".encode())
    return [state.hexdigest()[:16]]


def _label_images(folder: Path, start: str) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob(f"{start}*"))
        if image_suffix(path) and nifti_stem(path).endswith("_dseg")
    ]


def _platform(path: Path) -> str:
    named = entities(path)
    return platform_name(named.get("ses", ""), named.get("acq", ""))


def _names_beside(image: Path) -> Path | None:
    """Find the table of names of a label image."""
    stem = nifti_stem(image)
    for ending in (".tsv", ".txt", ".label", ".lut"):
        beside = image.with_name(stem + ending)
        if beside.is_file():
            return beside
    for level in applicable(image, ".tsv"):
        return level[-1]
    return None


def read_names(path: str | Path) -> dict[int, str]:
    """Read names of labels, see `read_regions`.

    Raises
    ------
    UserError
        When the file names no label.
    """
    path = Path(path)
    text = read_whole(path, LARGEST_TABLE).decode(errors="replace")
    header = text.partition("\n")[0].lower().split("\t")
    found = _tsv_names(text) if {"index", "name"} <= {*map(str.strip, header)} else _lut_names(text)
    if not found:
        remedy = Advice("give a table with columns index and name")
        raise UserError("names no label", path, "regions", remedy)
    return found


def _tsv_names(text: str) -> dict[int, str]:
    found = {}
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"):
        named = {str(key).strip().lower(): (value or "") for key, value in row.items() if key}
        index, name = named.get("index", "").strip(), named.get("name", "").strip()
        if index.isdigit() and name:
            found[int(index)] = name
    return found


def _lut_names(text: str) -> dict[int, str]:
    """Read `1 255 0 0 1 1 1 "name"` (ITK-SNAP) or `1 name 255 0 0 0` (FreeSurfer, MRtrix3)."""
    found = {}
    for line in text.splitlines():
        first, *rest = line.split() or [""]
        if not first.isdigit():
            continue
        _, quote, quoted = line.partition('"')
        if quote:
            words = quoted.partition('"')[0].split()
        else:
            words = [each for each in rest if not each.replace(".", "", 1).isdigit()]
        if words:
            found[int(first)] = " ".join(words)
    return found


# --- Numbers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RegionRow:
    """What a map is in one region. Numbers are in the map's unit; None where there is no voxel.

    Attributes
    ----------
    label, name
        Of the region.
    voxels
        That were measured: in the mask, with a finite value.
    volume
        Of these, in mm³.
    mean, sd
        Over voxels; the deviation with N - 1, None for one voxel.
    histogram
        Voxels in each bin of the table.
    error, rms_error, bias
        Against truth, where there is one: mean absolute, root-mean-square and mean signed error.
    """

    label: int
    name: str
    voxels: int
    volume: float
    mean: float | None
    sd: float | None
    histogram: tuple[int, ...]
    error: float | None = None
    rms_error: float | None = None
    bias: float | None = None


@dataclass(frozen=True)
class RegionTable:
    """A map by region.

    Attributes
    ----------
    rows
        One a region, in the order of the labels.
    edges
        Of the histograms' bins, one more than bins.
    """

    rows: tuple[RegionRow, ...]
    edges: tuple[float, ...]


def region_table(
    values: FloatArray,
    regions: Regions,
    mask: MaskArray | None = None,
    truth: FloatArray | None = None,
    *,
    bins: int = BINS,
    span: tuple[float, float] | None = None,
) -> RegionTable:
    """Say what a map is in every region.

    Sums are in float64, whatever type the map has.

    Parameters
    ----------
    values
        (X, Y, Z), or (X, Y, Z, C): channels are averaged, their errors too.
    regions
        On the map's lattice, see `Regions.on`.
    mask
        (X, Y, Z) where voxels count; None: everywhere.
    truth
        What the map should be, of its shape.
    bins
        Of the histograms.
    span
        Ends of the histograms; None: of all regions together.

    Raises
    ------
    ValueError
        When shapes differ.
    """
    shape = regions.labels.shape
    if values.shape[:3] != shape or (mask is not None and mask.shape != shape):
        raise ValueError(f"regions of shape {shape} do not go with a map of {values.shape[:3]}")
    if truth is not None and truth.shape != values.shape:
        raise ValueError(f"truth of shape {truth.shape} does not go with {values.shape}")
    counted = (regions.labels > 0) & _finite(values)
    if mask is not None:
        counted &= mask
    if truth is not None:
        counted &= _finite(truth)
    labels = regions.labels[counted]
    here = _channels(values[counted])
    errors = None if truth is None else here - _channels(truth[counted])
    mean = here.mean(axis=1)
    if span is None:
        span = (float(mean.min()), float(mean.max())) if len(mean) else (0.0, 1.0)
    edges = np.histogram_bin_edges(mean, bins, span)
    voxel = abs(float(np.linalg.det(regions.affine[:3, :3])))
    rows = []
    order = np.argsort(labels, kind="stable")  # each region's voxels, in the order they have
    sorted_labels = labels[order]
    for label, name in regions:
        first, last = np.searchsorted(sorted_labels, (label, label + 1))
        inside = order[first:last]
        found = mean[inside]
        of_error = {} if errors is None or not len(found) else _errors(errors[inside])
        rows.append(
            RegionRow(
                label,
                name,
                len(found),
                round(len(found) * voxel, 6),  # a determinant's last bit is nobody's volume
                float(found.mean()) if len(found) else None,
                float(found.std(ddof=1)) if len(found) > 1 else None,
                tuple(int(count) for count in np.histogram(found, edges)[0]),
                **of_error,
            )
        )
    return RegionTable(tuple(rows), tuple(float(edge) for edge in edges))


def _finite(values: FloatArray) -> MaskArray:
    finite = np.isfinite(values)
    return np.asarray(finite if finite.ndim == 3 else finite.all(axis=-1))


def _channels(values: FloatArray) -> FloatArray:
    """(N, C) float64."""
    channels = values.shape[1] if values.ndim > 1 else 1
    return np.asarray(values, dtype=float).reshape(len(values), channels)


def _errors(errors: FloatArray) -> dict[str, float]:
    return {
        "error": float(np.abs(errors).mean()),
        "rms_error": float(np.sqrt(np.square(errors).mean())),
        "bias": float(errors.mean()),
    }


# --- Several images ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measurable:
    """A map of an image that is measured in regions.

    Attributes
    ----------
    image, map, unit
        Whose it is, its title, and what it is in.
    values
        (X, Y, Z).
    mask
        (X, Y, Z) where voxels count.
    regions
        On the same lattice.
    truth
        (X, Y, Z) what it should be; None where that is not known.
    """

    image: str
    map: str
    unit: str
    values: FloatArray
    mask: MaskArray
    regions: Regions
    truth: FloatArray | None = None


COLUMNS = (
    "image", "map", "unit", "label", "name",
    "voxels", "volume_mm3", "mean", "sd", "error", "rms_error", "bias",
)  # fmt: skip
"""Of the table of several images, without the histograms."""


@dataclass(frozen=True, eq=False, repr=False)
class RegionNumbers:
    """What images are in regions.

    Attributes
    ----------
    tables
        By image and map; histograms of one map share their bins.
    units
        By map.
    notes
        What a reader must know to trust the numbers.
    """

    tables: Mapping[tuple[str, str], RegionTable]
    units: Mapping[str, str]
    notes: list[str]

    def __repr__(self) -> str:
        images = ", ".join(dict.fromkeys(image for image, _ in self.tables))
        return f"<{', '.join(self.units)} of {images} in regions>"

    def records(self) -> list[tuple[Any, ...]]:
        """Give a row for each image, map and region, in the order of `COLUMNS`."""
        return [
            (
                image, name, self.units[name], r.label, r.name,
                r.voxels, r.volume, r.mean, r.sd, r.error, r.rms_error, r.bias,
            )
            for (image, name), table in self.tables.items()
            for r in table.rows
        ]  # fmt: skip

    def csv(self) -> str:
        """Write the records with full precision, without the histograms."""
        return csv_text(COLUMNS, self.records())

    def histograms_csv(self) -> str:
        """Write a row for each bin."""
        return csv_text(
            ("image", "map", "unit", "label", "name", "from", "to", "voxels"),
            (
                (image, name, self.units[name], row.label, row.name, low, high, count)
                for (image, name), table in self.tables.items()
                for row in table.rows
                for low, high, count in zip(
                    table.edges[:-1], table.edges[1:], row.histogram, strict=True
                )
            ),
        )

    def save(self, path: str | Path) -> list[Path]:
        """Write the numbers, and beside them the histograms, `<stem>_histograms.csv`."""
        path = Path(path)
        beside = path.with_name(f"{path.stem}_histograms{path.suffix or '.csv'}")
        write_text(path, self.csv())
        write_text(beside, self.histograms_csv())
        return [path, beside]


def region_numbers(measured: Iterable[Measurable]) -> RegionNumbers:
    """Measure maps of several images in regions."""
    measured = list(measured)
    spans: dict[str, tuple[float, float]] = {}
    for each in measured:
        inside = each.values[each.mask & (each.regions.labels > 0) & np.isfinite(each.values)]
        if len(inside):
            low, high = spans.get(each.map, (np.inf, -np.inf))
            spans[each.map] = min(low, float(inside.min())), max(high, float(inside.max()))
    notes = dict.fromkeys(note for each in measured for note in each.regions.notes)
    return RegionNumbers(
        {
            (each.image, each.map): region_table(
                each.values, each.regions, each.mask, each.truth, span=spans.get(each.map)
            )
            for each in measured
        },
        {each.map: each.unit for each in measured},
        list(notes),
    )


def measure_regions(
    images: Mapping[str, ScanLike] | Iterable[str | Path],
    labels: str | Path | Regions,
    truth: ScanLike | None = None,
    maps: Iterable[str] = REGION_MAPS,
    *,
    names: str | Path | None = None,
    b_value: float | None = None,
    b0_threshold: float | None = None,
) -> RegionNumbers:
    """Say what maps of images are in regions, and where truth is given how far they are off.

    Parameters
    ----------
    images
        DWIs, SH images or maps of one number a voxel, by name or named by their files.
    labels, names
        See `read_regions`; in the space of the images, whatever their voxels.
    truth
        Of the same kind. Images are then brought to its voxels and measured where all have brain,
        maps where all have a finite number; else each in its own.
    maps
        Keys of `MAPS` with one number a voxel, of DWIs and SH images.
    b_value
        Shell of scans that have several, in s/mm²; None: the lowest.
    b0_threshold
        As for `load_acquisition`.

    Raises
    ------
    UserError
        When something cannot be read, does not belong together, or lies outside all labels.
    """
    given = images if isinstance(images, Mapping) else _by_stem(images)
    if truth is not None and TRUTH in given:
        image = given[TRUTH]
        subject = image if isinstance(image, str | Path) else None
        problem = f"is called {TRUTH}, as is what images are compared with"
        raise UserError(problem, subject, "images", Advice("rename it"))
    wanted = tuple(maps)
    for each in wanted:
        if each not in MAPS or MAPS[each].coloured:
            known = [name for name, one in MAPS.items() if not one.coloured]
            raise UserError(f"{each} is no map of one number a voxel", field="maps",
                            remedy=Choose("maps", tuple(known)))  # fmt: skip
    regions = labels if isinstance(labels, Regions) else read_regions(labels, names)
    read = partial(_scan_or_map, b_value=b_value, b0_threshold=b0_threshold)
    every = {name: read(image) for name, image in given.items()}
    if truth is not None:
        every = {TRUTH: read(truth), **every}
    scans = {name: each for name, each in every.items() if isinstance(each, Scan)}
    plain = {name: each for name, each in every.items() if not isinstance(each, Scan)}
    if truth is not None and scans and plain:
        remedy = Advice("give maps and a map as truth, or scans and a scan")
        raise UserError("is of another kind than the images", field="truth", remedy=remedy)
    compared = truth is not None  # an image may be called truth where no truth is given
    of_scans = _of_scans(scans, regions, wanted, compared=compared)
    return region_numbers([*of_scans, *_of_maps(plain, regions, compared=compared)])


def _by_stem(paths: Iterable[str | Path]) -> dict[str, str | Path]:
    """Name files for what they are called, and those of one name for where they lie, too."""
    paths = list(paths)
    stems = [nifti_stem(Path(each)) for each in paths]
    named: dict[str, str | Path] = {}
    for stem, path in zip(stems, paths, strict=True):
        name = stem if stems.count(stem) == 1 else str(path)
        if name in named:
            remedy = Advice("give it once, or rename one")
            raise UserError("is the name of two images", path, "images", remedy)
        named[name] = path
    return named


def _scan_or_map(
    image: ScanLike, b_value: float | None, b0_threshold: float | None
) -> Scan | tuple[FloatArray, Lattice]:
    if isinstance(image, str | Path):
        opened = open_nifti(Path(image))
        if len(opened.shape) == 3:
            return read_voxels(opened, Path(image)), lattice_of(opened)
    scan = as_scan(image, b_value, b0_threshold)
    return scan if b_value is not None else next(iter(scan.by_shell().values()), scan)


def _of_scans(
    scans: Mapping[str, Scan], regions: Regions, wanted: Sequence[str], *, compared: bool
) -> Iterator[Measurable]:
    """Give chosen maps of scans, which lie on truth's voxels where they are compared with it."""
    truth = scans.get(TRUTH) if compared else None
    images = {name: scan.at_shell().maps() for name, scan in scans.items()}
    mask = None
    if truth is not None:
        others = {name: each for name, each in scans.items() if each is not truth}
        lined_up = line_scans_up(truth, others)
        assert lined_up.truth is not None
        images, mask = {TRUTH: lined_up.truth, **lined_up.predictions}, lined_up.mask
    for name, maps in images.items():
        image = maps.image
        there = regions.on(image.lattice)
        for each in wanted:
            true = None if truth is None or name == TRUTH else images[TRUTH][each]
            within = image.mask if mask is None else mask
            chosen = MAPS[each]
            yield Measurable(name, chosen.title, chosen.unit, maps[each], within, there, true)


def _of_maps(
    maps: Mapping[str, tuple[FloatArray, Lattice]], regions: Regions, *, compared: bool
) -> Iterator[Measurable]:
    """Give maps as they are, or on truth's voxels, where all of them have a finite number."""
    finite = {name: np.isfinite(values) for name, (values, _) in maps.items()}
    if not compared or not maps:
        for name, (values, lattice) in maps.items():
            yield Measurable(name, "value", "", values, finite[name], regions.on(lattice))
        return
    truth, wanted = maps[TRUTH]
    mask, lined_up = finite[TRUTH], {}
    for name, (values, lattice) in maps.items():
        there, inside = values, finite[name]
        if not lattice.matches(wanted):
            known = np.where(inside, values, 0)[..., None]
            several, inside = resample_with_mask(known, inside, lattice, wanted)
            there = several[..., 0]
        lined_up[name], mask = there, mask & inside
    if not mask.any():
        remedy = Advice("give maps of one space")
        raise UserError("have no voxel in common with the truth", None, "images", remedy)
    labels = regions.on(wanted)
    for name, there in lined_up.items():
        true = None if name == TRUTH else truth
        yield Measurable(name, "value", "", there, mask, labels, true)
