"""Measurements of every image in every region of a head."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.results import FLOOR, RegionValue
from napari_msp.evaluation.line_up import line_up, map_onto, on_lattice
from napari_msp.evaluation.measures.pair import Truth
from napari_msp.evaluation.proof.pages import BEFORE, REPEAT, SMOOTHED, TARGET
from napari_msp.evaluation.regions import (
    TISSUE,
    Regions,
    RegionVoxels,
    regions_of,
    tissue_regions,
)
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import SH_SERIES, SIGNAL, Maps, tensor_maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import ORDER, even_orders, order_slices

if TYPE_CHECKING:
    from napari_msp.evaluation.benchmark.plan import Plan

T = TypeVar("T")

SMOOTHING = 6.0
"""Full width at half maximum of the trivial smoother in mm (our choice)."""

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian, in standard deviations."""

SH_UNITS = "SH units"


@dataclass(frozen=True)
class Quantity:
    """A quantity that is measured of an image in a region.

    Attributes
    ----------
    map
        Map of `MAPS` that it is taken from; empty if it needs the SH image.
    compute
        Function of an image's maps that returns (X, Y, Z) or (X, Y, Z, C); None: the map itself.
    kind
        "mean": the region's mean, a number of the image alone, on which scanners agree or not.
        "error": root mean square over the region's voxels (and channels) of the difference from
        the target's scan.
    through
        Data that tensors are fitted to: the SH series, for all images alike, or the scans' own
        signal, as other programs do; see `Maps.through`.
    """

    key: str
    label: str
    unit: str
    explanation: str
    map: str
    compute: Callable[[Maps], FloatArray] | None = None
    kind: Literal["mean", "error"] = "mean"
    through: str = SH_SERIES

    def of(self, maps: Any) -> FloatArray:
        """Compute it of an image's maps; if `map` names one, of any mapping with that map."""
        return np.asarray(maps[self.map] if self.compute is None else self.compute(maps))


def quantity_key(name: str, through: str) -> str:
    """Return the key of a quantity; of the scans' own signal it has an ending, as in files."""
    return name if through == SH_SERIES else f"{name}_signal"


def _rish_of(order: int) -> Callable[[Maps], FloatArray]:
    """Return a function that computes `rish` of this order alone."""
    return lambda maps: np.asarray(np.square(_coefficients(order)(maps)).sum(axis=-1))


def _colour(channel: int) -> Callable[[Maps], FloatArray]:
    return lambda maps: maps["colour_fa"][..., channel]


def _coefficients(order: int) -> Callable[[Maps], FloatArray]:
    return lambda maps: maps.image.coefficients[..., order_slices(maps.image.order)[order]]


def _through_series() -> Iterator[Quantity]:
    """Yield all quantities, with tensors through the SH series."""
    yield Quantity("fa", "FA", "", "Fractional anisotropy", "fa")
    yield Quantity("md", "MD", "mm²/s", "Mean diffusivity", "md")
    colours = ("x", "red", "left-right"), ("y", "green", "front-back"), ("z", "blue", "up")
    for channel, (axis, colour, along) in enumerate(colours):
        key, label = f"colour_fa_{axis}", f"colour FA {colour}"
        said = f"FA times the principal direction's share {along}, without its sign"
        yield Quantity(key, label, "", said, "colour_fa", _colour(channel))
    for order in even_orders(ORDER):
        said = f"Energy of the SH coefficients of order {order}"
        yield Quantity(f"rish{order}", f"RISH {order}", f"{SH_UNITS}²", said, "", _rish_of(order))
    for order in even_orders(ORDER):
        key, label = f"sh{order}_error", f"SH order {order}"
        said = f"Error of the SH coefficients of order {order}, voxel by voxel"
        yield Quantity(key, label, SH_UNITS, said, "", _coefficients(order), "error")
    yield Quantity("fa_error", "FA", "", "Error of FA", "fa", kind="error")
    yield Quantity("md_error", "MD", "mm²/s", "Error of MD", "md", kind="error")
    said = "Error of the three colours of FA"
    yield Quantity("colour_fa_error", "colour FA", "", said, "colour_fa", kind="error")


def _through(through: str) -> Iterator[Quantity]:
    """Yield the quantities with all explained; through the signal only those that have a map."""
    for each in _through_series():
        if through == SH_SERIES:
            where = ", through the SH series" if each.map else ""
            yield replace(each, explanation=f"{each.explanation}{where}.")
        elif each.map:
            yield replace(
                each,
                key=quantity_key(each.key, through),
                label=f"{each.label} of the signal",
                explanation=f"{each.explanation}, of the scan's own signal.",
                through=through,
            )


QUANTITIES: Mapping[str, Quantity] = MappingProxyType(
    {each.key: each for through in (SH_SERIES, SIGNAL) for each in _through(through)}
)
"""All quantities by key, in the order of tables; those of the scans' own signal come last."""

MEANS = tuple(key for key, each in QUANTITIES.items() if each.kind == "mean")
ERRORS = tuple(key for key, each in QUANTITIES.items() if each.kind == "error")

VOXELS = "voxels"
"""Key of the number of voxels measured in a region."""


MapsByRow = Mapping[str, Mapping[str, FloatArray]]
"""FA, mean diffusivity or colour FA on the target's lattice, by row and the keys of `MAPS`."""

Scanned = tuple[str, str]
"""Subject and platform of a scan."""

Measured = tuple[str, str, str, float]
"""Row, region, quantity and value."""


def measured_in_regions(
    truth: Truth,
    images: Mapping[str, Maps],
    regions: Regions,
    maps_alone: MapsByRow,
    signal_maps: MapsByRow,
) -> tuple[list[Measured], list[str]]:
    """Measure one head: every quantity of every image in every region that has a voxel.

    Parameters
    ----------
    images
        Maps by row, on any lattice: the input, predictions, a repeated scan, trivial predictors.
    maps_alone
        Maps of methods that give no image; 0 or nan outside their masks.
    signal_maps
        Maps of the scans' own signal, with which `maps_alone` are compared.

    Returns
    -------
    The values, and notes on regions that are not there.

    Raises
    ------
    UserError
        When the images do not belong together, or no region lies in them.
    """
    both = line_up(truth.mapped, images)
    here = regions.on(truth.image.lattice)
    mask = both.mask
    for each in (each for maps in maps_alone.values() for each in maps.values()):
        known = np.isfinite(each) & (each != 0)
        mask = mask & (known if known.ndim == 3 else known.any(axis=-1))
    left = set(np.unique(here.labels[mask]).tolist())
    notes = here.notes + [
        f"{name} has no voxel in the masks of all images"
        for label, name in here
        if label not in left and here.kept.get(label, 1.0) > 0
    ]
    of_images = {TARGET: truth.mapped, **both.predictions}
    voxels = RegionVoxels(here, mask)
    return list(_measured(voxels, of_images, {**signal_maps, **maps_alone})), notes


def _measured(
    voxels: RegionVoxels, of_images: Mapping[str, Maps], of_maps: MapsByRow
) -> Iterator[Measured]:
    """Measure images, then maps, which like their reference are computed from the signal."""
    rows: list[tuple[str, str, Any]] = [(SH_SERIES, *each) for each in of_images.items()]
    rows += [(SIGNAL, *each) for each in of_maps.items()]
    true = of_images[TARGET]
    for through, row, maps in rows:
        for each in QUANTITIES.values():
            if each.through != through or (through == SIGNAL and each.map not in maps):
                continue
            wrong = each.kind == "error"
            if wrong and row == TARGET:
                continue
            truth = (each.of(of_maps[TARGET] if through == SIGNAL else true),) if wrong else ()
            for _, region, (found, *scan) in voxels.of(each.of(maps), *truth):
                if not len(found):
                    continue
                if wrong:
                    value = np.sqrt(np.square(found - scan[0]).mean())
                else:
                    value = found.mean(axis=1).mean()
                yield row, region, each.key, float(value)
    for _, region, (found,) in voxels.of(true["fa"]):
        yield TARGET, region, VOXELS, float(len(found))


# --- The trivial smoother -----------------------------------------------------------------------


def smoothed(image: SHImage) -> SHImage:
    """Blur an image inside its mask by a Gaussian of `SMOOTHING` mm at half maximum."""
    return replace(image, coefficients=blurred(image.coefficients, image.mask, image.lattice))


def blurred(values: FloatArray, mask: MaskArray, lattice: Lattice) -> FloatArray:
    """Blur (X, Y, Z) or (X, Y, Z, C) values as `smoothed` does; 0 outside the mask."""
    channels = values if values.ndim == 4 else values[..., None]
    sigma = [*(SMOOTHING / FWHM / lattice.voxel_sizes), 0]
    inside = mask[..., None].astype(np.float32)
    weights = gaussian_filter(inside, sigma)
    means = gaussian_filter(channels * inside, sigma) / np.maximum(weights, 1e-6)
    return np.where(inside > 0, means, 0).astype(np.float32).reshape(values.shape)


# --- Heads ------------------------------------------------------------------------------------


def repeated_scans(dataset: TravellingHeads, only: Collection[str]) -> dict[Scanned, Path]:
    """Return another run of each scan that was repeated: the scan that `REPEAT` stands for."""
    everything = open_dataset(dataset.root, first_run=True, only=only, undecided=[])
    others = {
        where: [path for path in runs.values() if path != dataset.scans.get(where)]
        for where, runs in everything.runs.items()
    }
    return {where: paths[0] for where, paths in others.items() if paths}


class InRegions:
    """Measurement of heads by region for the pages of proof.

    Problems with one head are noted, and the others are measured all the same.
    """

    def __init__(self, plan: "Plan", target: str, seed: int, dataset: TravellingHeads) -> None:
        self.values: list[RegionValue] = []
        self.notes: list[str] = []
        self._plan, self._target, self._seed, self._dataset = plan, target, seed, dataset
        self._maps_alone = any(each.maps for each in plan.finished[dataset.root])
        self._repeats = repeated_scans(dataset, plan.subjects.all)

    def add(
        self,
        subject: str,
        shell: int | None,
        b: float,
        truth: Truth,
        given: SHImage,
        predicted: Mapping[str, Maps],
        maps_alone: MapsByRow,
    ) -> None:
        """Measure a predicted subject, with rows of the input as given and of the best possible."""
        before = predicted.get(BEFORE) or Maps(on_lattice(given, truth.image.lattice))
        images = {BEFORE: before, **predicted, SMOOTHED: Maps(smoothed(before.image))}
        repeat = self._of_repeat(subject, lambda scan: Maps(fitted_shell(scan, b)))
        if repeat is not None:
            images[REPEAT] = repeat
        of_signal = self._of_signal(subject, b, truth.image)
        if FLOOR in predicted and of_signal:
            twin = self._dataset.noise_free(subject, self._target)
            assert twin is not None
            of_signal[FLOOR] = _signal_maps(twin, b, truth.image.lattice)
        self._measure(subject, shell, "scan", truth, images, maps_alone, of_signal)

    def _of_signal(
        self, subject: str, b: float, truth: SHImage
    ) -> dict[str, dict[str, FloatArray]]:
        """Return the references of finished maps: maps of both scans' own signal.

        It is empty if no method gives only maps.
        """
        if not self._maps_alone:
            return {}
        on, lattice = self._dataset.acquisition, truth.lattice
        found = {
            row: _signal_maps(on(subject, platform), b, lattice)
            for row, platform in ((TARGET, self._target), (BEFORE, self._plan.input))
        }
        mask = found[BEFORE]["md"] > 0
        found[SMOOTHED] = {
            key: blurred(values, mask, lattice) for key, values in found[BEFORE].items()
        }
        repeat = self._of_repeat(subject, lambda scan: _signal_maps(scan, b, lattice))
        return found if repeat is None else {**found, REPEAT: repeat}

    def add_taught(self, subject: str) -> None:
        """Measure both scans of a training subject, which rows of tables need."""
        plan, dataset = self._plan, self._dataset
        # As for predicted subjects: tissue is found best without noise.
        twin = dataset.noise_free(subject, self._target) if plan.regions == TISSUE else None
        for shell, b in plan.shells.items():
            tissue = None if twin is None else Truth(fitted_shell(twin, b)).tissue
            truth = Truth(fitted_shell(dataset.acquisition(subject, self._target), b), tissue)
            source = Maps(fitted_shell(dataset.acquisition(subject, plan.input), b))
            of_signal = self._of_signal(subject, b, truth.image)
            taught = {row: of_signal[row] for row in (TARGET, BEFORE) if of_signal}
            self._measure(subject, shell, "training", truth, {BEFORE: source}, {}, taught)

    def labelled(self, subject: str, lattice: Lattice) -> MaskArray | None:
        """Return the (X, Y, Z) voxels of all regions; None if tissue classes replace regions."""
        if self._plan.regions == TISSUE:
            return None
        try:
            return regions_of(self._plan.regions, subject, self._target).on(lattice).labels > 0
        except UserError:  # noted when the regions are measured
            return np.zeros(lattice.shape, dtype=bool)

    def _measure(
        self,
        subject: str,
        shell: int | None,
        reference: str,
        truth: Truth,
        images: Mapping[str, Maps],
        maps_alone: MapsByRow,
        signal_maps: MapsByRow,
    ) -> None:
        target = self._target
        where = (target, self._dataset.root.name, self._seed, subject, reference)
        try:
            regions = self._regions(subject, truth)
            found, notes = measured_in_regions(truth, images, regions, maps_alone, signal_maps)
        except UserError as error:
            self.notes.append(f"{subject} on {target}: not measured by region: {error.phrase()}")
            return
        self.notes += [f"{subject} on {target}: {note}" for note in notes]
        self.values += [
            RegionValue(row, *where, region, quantity, value, shell=shell)
            for row, region, quantity, value in found
            if np.isfinite(value)
        ]

    def _regions(self, subject: str, truth: Truth) -> Regions:
        if self._plan.regions == TISSUE:
            return tissue_regions(truth.tissue, truth.image.affine)
        return regions_of(self._plan.regions, subject, self._target)

    def _of_repeat(self, subject: str, compute: Callable[[Acquisition], T]) -> T | None:
        """Compute something from another run of the target's scan; None if that is impossible."""
        other = self._repeats.get((subject, self._target))
        if other is None:
            return None
        try:
            return compute(load_acquisition(other, b0_threshold=self._plan.asked.b0_threshold))
        except UserError as error:
            self.notes.append(f"{subject} on {self._target}: the repeat: {error.phrase()}")
            return None


def fitted_shell(scan: Acquisition, b: float) -> SHImage:
    """Fit SH of the order that all images have here to a scan's shell."""
    return fit_sh(scan, b_value=b, order=ORDER)


def _signal_maps(scan: Acquisition, b: float, lattice: Lattice) -> dict[str, FloatArray]:
    """Return the maps of a scan's own signal on a lattice, interpolated linearly in its mask."""
    tensors = tensor_maps(scan, b)
    found = {}
    for key, values in (("fa", tensors.fa), ("md", tensors.md), ("colour_fa", tensors.colour)):
        found[key] = values
        if not scan.lattice.matches(lattice):
            found[key], _ = map_onto(values, scan.mask, scan.lattice, lattice)
    return found
