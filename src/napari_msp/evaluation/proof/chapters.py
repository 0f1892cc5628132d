"""List of the pages of proof, and the measurement of heads for them.

Add a page to `PAGES`; add a row derived from other rows' values to `DERIVED`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.acquisition import Acquisition, load_acquisition
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.plan import Plan
from napari_msp.evaluation.benchmark.results import FLOOR, RegionValue, Results
from napari_msp.evaluation.line_up import map_onto, on_lattice
from napari_msp.evaluation.measures.pair import Truth
from napari_msp.evaluation.proof.pages import (
    BEFORE,
    NOISE_FREE,
    REPEAT,
    SMOOTHED,
    TARGET,
    Page,
    Study,
)
from napari_msp.evaluation.proof.site_effect import site_effect_page
from napari_msp.evaluation.proof.two_groups import group_page
from napari_msp.evaluation.proof.values import (
    MapsByRow,
    blurred,
    combat_of_regions,
    mean_of_others,
    measured_in_regions,
    smoothed,
)
from napari_msp.evaluation.regions import TISSUE, Regions, regions_of, tissue_regions
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import Maps, tensor_maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import ORDER

T = TypeVar("T")

PAGES: Mapping[str, Callable[[Study], Page | None]] = {
    "Site effect": site_effect_page,
    "Two groups": group_page,
}
"""Functions that make the pages, by title; they return None if too little was measured."""

DERIVED = (combat_of_regions, mean_of_others)
"""Functions that derive rows from measured ones; they yield a string for what they could not."""


def make_pages(study: Study, go_on: Callable[[], None] = lambda: None) -> list[Page]:
    """Make every page; one that cannot be made says why in its place.

    Parameters
    ----------
    go_on
        Function called before each page; whatever it raises ends the work.
    """
    pages = []
    whole = with_derived(study)
    for title, make in PAGES.items():
        go_on()
        try:
            page = make(whole)
        except UserError as error:
            page = Page(title, lead=(f"Not made: {error.phrase()}.",))
        pages += [page] if page is not None else []
    return pages


def with_derived(study: Study) -> Study:
    """Add the rows derived from others' values; one that cannot be made says why.

    Table 1's floor is no floor for regional means, so it gets another name.
    """
    values = Results(
        [replace(v, method=NOISE_FREE) if v.method == FLOOR else v for v in study.values]
    )
    derived: list[RegionValue] = []
    notes = list(study.notes)
    for derive in DERIVED:
        for each in derive(values):
            if isinstance(each, str):
                notes.append(each)
            else:
                derived.append(each)
    return replace(study, values=Results([*values, *derived]), notes=tuple(notes))


class InRegions:
    """Measurement of heads by region for the pages of proof.

    Problems with one head are noted, and the others are measured all the same.
    """

    def __init__(self, plan: Plan, target: str, seed: int, dataset: TravellingHeads) -> None:
        self.values: list[RegionValue] = []
        self.notes: list[str] = []
        self._plan, self._target, self._seed, self._dataset = plan, target, seed, dataset
        self._maps_alone = any(each.maps for each in plan.finished[dataset.root])
        who = plan.subjects.all
        everything = open_dataset(dataset.root, first_run=True, only=who, undecided=[])
        self._runs = {who: list(runs.values()) for who, runs in everything.runs.items()}

    def add(
        self,
        subject: str,
        shell: int | None,
        b: float,
        truth: Truth,
        predicted: Mapping[str, Maps],
        maps_alone: MapsByRow,
    ) -> None:
        """Measure a predicted subject, with rows of no harmonization and of the best possible."""
        before = predicted.get(BEFORE)
        if before is None:
            source = _fitted(self._dataset.acquisition(subject, self._plan.input), b)
            before = Maps(on_lattice(source, truth.image.lattice))
        images = {BEFORE: before, **predicted, SMOOTHED: Maps(smoothed(before.image))}
        repeat = self._of_repeat(subject, lambda scan: Maps(_fitted(scan, b)))
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
            tissue = None if twin is None else Truth(_fitted(twin, b)).tissue
            truth = Truth(_fitted(dataset.acquisition(subject, self._target), b), tissue)
            source = Maps(_fitted(dataset.acquisition(subject, plan.input), b))
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
        where = (subject, self._target)
        taken = self._dataset.scans[where]
        other = next((path for path in self._runs.get(where, ()) if path != taken), None)
        if other is None:
            return None
        try:
            return compute(load_acquisition(other, b0_threshold=self._plan.asked.b0_threshold))
        except UserError as error:
            self.notes.append(f"{subject} on {self._target}: the repeat: {error.phrase()}")
            return None


def _fitted(scan: Acquisition, b: float) -> SHImage:
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
