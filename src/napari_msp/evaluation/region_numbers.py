"""Numbers by region: values of maps in regions of a head, and their errors there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import nifti_stem
from napari_msp.data.companions import is_scan
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels
from napari_msp.errors import Advice, Choose, UserError
from napari_msp.evaluation.finished_maps import FinishedMap, finished_map
from napari_msp.evaluation.line_up import b_values_apart, line_scans_up, split_by_shell
from napari_msp.evaluation.regions import (
    CUT,
    Regions,
    RegionVoxels,
    label_counts,
    read_regions,
)
from napari_msp.files import write_text
from napari_msp.formatting import csv_text, listed
from napari_msp.options import several
from napari_msp.scan import Scan
from napari_msp.scan_sources import ScanLike, as_scan
from napari_msp.signal.maps import MAPS, SH_SERIES, Map, Maps, direction_average

NAMED = 4
"""Number of regions that a note names (our choice)."""

BINS = 32
"""Number of bins of a histogram (our choice)."""

REGION_MAPS = ("direction_average", "fa", "md")
"""Keys of the maps that are measured by default."""

MEASURED: Mapping[str, Map] = {
    "direction_average": Map(
        "direction_average",
        "mean S/S0",
        "",
        "directionaverage",
        lambda maps: direction_average(maps.image),
        model="sh",
    ),
    **{name: each for name, each in MAPS.items() if not each.coloured},
}
"""Maps of a DWI or SH image that can be measured: one number per voxel."""

TRUTH = "truth"
"""Name of the truth among the images."""


@dataclass(frozen=True)
class RegionRow:
    """A map's values in one region, in the map's unit; None where there is no voxel.

    Attributes
    ----------
    voxels
        Number of voxels measured: in the mask, with a finite value.
    volume
        Volume of these voxels in mm³.
    mean, sd
        Mean and standard deviation over voxels; the latter with N - 1, None for one voxel.
    histogram
        Number of voxels in each bin of the table.
    error, rms_error, bias
        Mean absolute, root-mean-square and mean signed error against truth, where there is one.
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
    """A map by region; `edges` are the edges of the histograms' bins, one more than bins."""

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
    """Measure a map in every region.

    Sums are computed in float64, whatever type the map has.

    Parameters
    ----------
    values
        (X, Y, Z), or (X, Y, Z, C): channels are averaged, and so are their errors.
    regions, mask
        Regions on the map's lattice, and (X, Y, Z) voxels that count; None: all of them.
    bins
        Number of bins of the histograms.
    span
        Range of the histograms; None: the range of all regions together.
    """
    maps = (values,) if truth is None else (values, truth)
    parts = [(label, name, found) for label, name, found in RegionVoxels(regions, mask).of(*maps)]
    means = [found[0].mean(axis=1) for *_, found in parts]
    if span is None:
        everything = np.concatenate([np.zeros(0), *means])
        span = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
    edges = np.histogram_bin_edges(np.zeros(0), bins, span)
    voxel = abs(float(np.linalg.det(regions.affine[:3, :3])))
    rows = []
    for (label, name, found), mean in zip(parts, means, strict=True):
        of_error = _errors(found[0] - found[1]) if truth is not None and len(mean) else {}
        rows.append(
            RegionRow(
                label,
                name,
                len(mean),
                round(len(mean) * voxel, 6),  # a determinant's last bit is noise
                float(mean.mean()) if len(mean) else None,
                float(mean.std(ddof=1)) if len(mean) > 1 else None,
                tuple(int(count) for count in np.histogram(mean, edges)[0]),
                **of_error,
            )
        )
    return RegionTable(tuple(rows), tuple(float(edge) for edge in edges))


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
        Name of the image, title of the map, and unit of its values.
    mask
        (X, Y, Z) voxels that count.
    regions
        Regions on the same lattice.
    truth
        (X, Y, Z) true values; None where they are not known.
    through
        Data that the tensors were fitted to, see `Maps.through`; empty for a map that needs none.
    own
        (X, Y, Z) voxels in which this image has values, if several images on one lattice are
        measured only where all have values; None: the image is measured in its own mask.
    """

    image: str
    map: str
    unit: str
    values: FloatArray
    mask: MaskArray
    regions: Regions
    truth: FloatArray | None = None
    through: str = ""
    own: MaskArray | None = None

    @classmethod
    def of(
        cls,
        image: str,
        maps: Maps,
        chosen: Map,
        mask: MaskArray,
        regions: Regions,
        truth: Maps | None = None,
        own: MaskArray | None = None,
    ) -> "Measurable":
        """Compute a map of an image."""
        through = maps.through if chosen.model == "tensor" else ""
        true = None if truth is None else chosen.compute(truth)
        values = chosen.compute(maps)
        return cls(image, chosen.title, chosen.unit, values, mask, regions, true, through, own)


COLUMNS = (
    "image", "quantity", "unit", "through", "label", "region",
    "voxels", "volume_mm3", "mean", "sd", "error", "rms_error", "bias",
)  # fmt: skip
"""Columns of the table of several images, without the histograms; named as in `evaluate`."""

KEYS = {each.title: key for key, each in MEASURED.items()}
"""Keys that tables use for the measured maps, by title."""


@dataclass(frozen=True, eq=False, repr=False)
class RegionNumbers:
    """Numbers of images in regions, by image and map; histograms of one map share their bins.

    `through` is "signal" or "SH series", whichever a map's tensors were fitted to.
    """

    tables: Mapping[tuple[str, str], RegionTable]
    units: Mapping[str, str]
    notes: list[str]
    through: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def __repr__(self) -> str:
        images = ", ".join(dict.fromkeys(image for image, _ in self.tables))
        return f"<{', '.join(self.units)} of {images} in regions>"

    def records(self) -> list[tuple[Any, ...]]:
        """Return a row for each image, map and region, in the order of `COLUMNS`."""
        return [
            (
                image, KEYS.get(name, name), self.units[name], self.through.get((image, name), ""),
                r.label, r.name, r.voxels, r.volume, r.mean, r.sd, r.error, r.rms_error, r.bias,
            )
            for (image, name), table in self.tables.items()
            for r in table.rows
        ]  # fmt: skip

    def csv(self) -> str:
        """Return the records as CSV with full precision, without the histograms."""
        return csv_text(COLUMNS, self.records())

    def histograms_csv(self) -> str:
        """Return the histograms as CSV, one row for each bin."""
        return csv_text(
            ("image", "quantity", "unit", "label", "region", "from", "to", "voxels"),
            (
                (image, KEYS.get(name, name), self.units[name], row.label, row.name, *ends, count)
                for (image, name), table in self.tables.items()
                for row in table.rows
                for ends, count in zip(pairwise(table.edges), row.histogram, strict=True)
            ),
        )

    def save(self, path: str | Path) -> list[Path]:
        """Write the numbers and, to `<stem>_histograms.csv` beside them, the histograms."""
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
    notes |= dict.fromkeys(_cut_by_masks(measured))
    if len({each.through for each in measured if each.through}) > 1:
        of_series = dict.fromkeys(each.image for each in measured if each.through == SH_SERIES)
        notes[
            f"tensors of {listed(list(of_series))} come through the SH series, which lowers FA, "
            "those of the other images from their signal; with a truth all come through the series"
        ] = None
    tables, units, through = {}, {}, {}
    for e in measured:
        at = e.image, e.map
        tables[at] = region_table(e.values, e.regions, e.mask, e.truth, span=spans.get(e.map))
        units[e.map], through[at] = e.unit, e.through
    return RegionNumbers(tables, units, list(notes), through)


def _cut_by_masks(measured: Sequence[Measurable]) -> Iterator[str]:
    """Yield a note for each image whose mask cuts regions off for all images."""
    own = {each.image: each.own for each in measured if each.own is not None}
    if len(own) < 2:
        return
    regions = next(each.regions for each in measured if each.own is not None)
    seen = np.where(np.logical_or.reduce(list(own.values())), regions.labels, 0)
    before = label_counts(seen)
    for image, inside in own.items():
        lost = label_counts(np.where(inside, 0, seen))
        cut = [
            f"{lost[label]:,} of {before[label]:,} voxels of {name}"
            for label, name in regions
            if lost.get(label, 0) > (1 - CUT) * before.get(label, 0)
        ]
        if cut:
            more = [f"parts of {len(cut) - NAMED} more"] if len(cut) > NAMED else []
            yield f"{image} has no values in {listed(cut[:NAMED] + more)}: they count for no image"


def measure_regions(
    images: Mapping[str, ScanLike] | Iterable[str | Path],
    labels: str | Path | Regions,
    truth: ScanLike | None = None,
    maps: str | Iterable[str] = REGION_MAPS,
    *,
    names: str | Path | None = None,
    b_value: float | None = None,
    b0_threshold: float | None = None,
) -> RegionNumbers:
    """Measure maps of images in regions, and their errors if truth is given.

    Parameters
    ----------
    images
        DWIs, SH images or maps with one number per voxel, by name or named by their files.
    labels, names
        See `read_regions`; in the space of the images, whatever their voxels.
    truth
        Truth, of the same kind as the images. Images are then brought to its voxels and measured
        where all have brain, with tensors through the SH series; maps where all have a number.
        Without truth each image is measured on its own voxels, a DWI's tensors from its signal.
        Zeros at a map's edge count as missing where its name or a brain mask shows that nothing
        was measured there.
    maps
        Keys of `MEASURED`; for DWIs and SH images.
    b_value
        Shell of scans that have several, in s/mm²; None: the lowest, or with a truth the lowest
        that all images have.
    b0_threshold
        Largest b-value that counts as b=0, as for `load_acquisition`.

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
    wanted = several(maps)
    for each in wanted:
        if each not in MEASURED:
            problem, known = f"{each} is no map of one number a voxel", tuple(MEASURED)
            raise UserError(problem, field="maps", remedy=Choose("maps", known))
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
    alike, of_shells = _at_one_shell(scans, compared=compared)
    of_scans = _of_scans(alike, regions, wanted, compared=compared)
    found = region_numbers([*of_scans, *_of_maps(plain, regions, compared=compared)])
    of_zeros = (f"{name}: {said}" for name, each in plain.items() for said in each.notes(regions))
    return replace(found, notes=[*of_shells, *found.notes, *of_zeros])


def _by_stem(paths: Iterable[str | Path]) -> dict[str, str | Path]:
    """Name files by their stems, and files of equal stems by their paths."""
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
) -> Scan | FinishedMap:
    if isinstance(image, str | Path):
        opened = open_nifti(Path(image))
        shape = opened.shape
        flat = len(shape) > 3 and all(length == 1 for length in shape[3:]) and not is_scan(image)
        if len(shape) == 3 or flat:
            values = read_voxels(opened, Path(image)).reshape(shape[:3])
            return finished_map(Path(image), values, lattice_of(opened))
    return as_scan(image, b_value, b0_threshold)


def _at_one_shell(
    scans: Mapping[str, Scan], *, compared: bool
) -> tuple[Mapping[str, Scan], list[str]]:
    """Return scans of the lowest shell that all have, and notes on which that is.

    Without such a shell, and if they are not compared with a truth, each has its own lowest one.
    """
    several = any(len(each.shells) > 1 for each in scans.values())
    if not several and (compared or len(scans) < 2):
        return scans, b_values_apart({name: each.b_value for name, each in scans.items()})
    try:
        shared, _ = split_by_shell(None, scans)
    except UserError:
        if compared:
            raise
        own = {name: next(iter(each.by_shell().values()), each) for name, each in scans.items()}
        known = [f"{name} b = {e.b_value:.0f}" for name, e in own.items() if e.b_value is not None]
        said = f"no shell is in all images, so their numbers do not compare: {listed(known)}"
        return own, [said] * (len(known) > 1)
    shell, lowest = next(iter(shared.items()))
    said = f"measured at b = {shell} s/mm², the lowest that all have"
    apart = b_values_apart({name: each.b_value for name, each in lowest.predictions.items()})
    return lowest.predictions, [*[said] * several, *apart]


def _of_scans(
    scans: Mapping[str, Scan], regions: Regions, wanted: Sequence[str], *, compared: bool
) -> Iterator[Measurable]:
    """Yield chosen maps of scans, on truth's voxels if they are compared with it."""
    truth = scans.get(TRUTH) if compared else None
    mask = None
    if truth is None:
        images = {name: each.at_shell().maps("signal") for name, each in scans.items()}
    else:
        others = {name: each for name, each in scans.items() if each is not truth}
        lined_up = line_scans_up(truth, others)
        assert lined_up.truth is not None
        images, mask = {TRUTH: lined_up.truth, **lined_up.predictions}, lined_up.mask
    for name, maps in images.items():
        image = maps.image
        there = regions.on(image.lattice)
        for each in wanted:
            true = None if truth is None or name == TRUTH else images[TRUTH]
            within = image.mask if mask is None else mask
            own = None if mask is None else image.mask
            yield Measurable.of(name, maps, MEASURED[each], within, there, true, own)


def _of_maps(
    maps: Mapping[str, FinishedMap], regions: Regions, *, compared: bool
) -> Iterator[Measurable]:
    """Yield maps as they are or, if compared, on truth's voxels where all have values."""
    if not compared or not maps:
        for name, each in maps.items():
            there = regions.on(each.lattice)
            yield Measurable(name, "value", "", each.values, each.inside, there)
        return
    truth = maps[TRUTH]
    lined_up = {name: each.onto(truth.lattice) for name, each in maps.items()}
    mask = np.logical_and.reduce([inside for _, inside in lined_up.values()])
    if not mask.any():
        remedy = Advice("give maps of one space")
        raise UserError("have no voxel in common with the truth", None, "images", remedy)
    labels = regions.on(truth.lattice)
    for name, (values, own) in lined_up.items():
        true = None if name == TRUTH else truth.values
        yield Measurable(name, "value", "", values, mask, labels, true, own=own)
