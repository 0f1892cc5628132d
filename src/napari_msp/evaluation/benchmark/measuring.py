"""Predict and measure the test subjects of one round on one target, as a job."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.lattice import Lattice, resample_with_mask, scanner_points
from napari_msp.data.nifti import lattice_of, open_nifti, read_voxels
from napari_msp.data.phantom import fibre_populations, recipe_of
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.baselines.base import Baseline, baseline_class, baseline_names
from napari_msp.evaluation.benchmark.jobs import OnPart
from napari_msp.evaluation.benchmark.plan import Plan, Round
from napari_msp.evaluation.benchmark.results import (
    FLOOR,
    TARGET_SCAN,
    EffectResult,
    PatchResult,
    RegionValue,
    Result,
    Results,
    read_results,
    write_results,
)
from napari_msp.evaluation.biology import (
    EFFECTS,
    changed_head,
    check_same_head,
    effect_in,
    region_of,
)
from napari_msp.evaluation.line_up import Comparison, at_b_value, line_up
from napari_msp.evaluation.measures.catalogue import (
    BUNDLE,
    FIBRES,
    IN_TABLE,
    SH_ERRORS,
    measure_head,
)
from napari_msp.evaluation.measures.fibres import (
    MOST_VOXELS,
    Fibres,
    peaks_of_populations,
    response_of,
    some_of,
)
from napari_msp.evaluation.measures.pair import LARGEST_TISSUE_MD, Truth
from napari_msp.evaluation.proof.chapters import InRegions
from napari_msp.files import read_json, write_json
from napari_msp.formatting import listed
from napari_msp.identity import Person, may_be_same
from napari_msp.inference.harmonize import Prediction, harmonize
from napari_msp.inference.prepare import NotForScans, NotPredicted
from napari_msp.model_file import load_model
from napari_msp.scan import Scan, load_scan
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import MAPS, Maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import ORDER

SIMULATED = "simulated fibres"
"""Truth by which fibre peaks alone are measured."""

KNOWN_WHITE = 0.7
"""Share of white matter from which a voxel's simulated fibres are looked for (our choice)."""

_model = lru_cache(maxsize=64)(load_model)


@dataclass(frozen=True)
class Measurement:
    """All methods on one target, over the test subjects of a round.

    Attributes
    ----------
    answers
        Model files whose mean is a method's prediction, by method.
    repeated
        Whether this round only trains again, with another seed, what was measured in full: then
        networks are measured alone, and by their SH errors alone.
    patch_size
        Edge of a patch in voxels of the target.
    folder
        For measures.csv and patches.csv of this job.
    """

    plan: Plan
    round: Round
    target: str
    answers: Mapping[str, tuple[Path, ...]]
    repeated: bool
    patch_size: int
    folder: Path
    device: str

    @property
    def name(self) -> str:
        """What it does, in a few words."""
        return f"{self.round.name}: measured {self.target}"

    @property
    def weight(self) -> float:
        """In steps of a SHResNet; one prediction with its measures takes about 20 (measured)."""
        cost = 4.0 if self.repeated else 20.0
        cost *= 1 + len(EFFECTS) * (self.plan.biology and not self.repeated)
        learned = 0 if self.repeated else len(self._baselines)
        images = len(self.answers) + learned + 1  # truth has its costs too
        return cost * images * len(self.round.subjects.test) * len(self.plan.b_values)

    @property
    def _baselines(self) -> list[str]:
        return [name for name in baseline_names() if name in self.plan.methods]

    @property
    def finished(self) -> bool:
        """Whether the results are there."""
        return (self.folder / "patches.csv").exists()

    def results(self) -> tuple[Results[Result], Results[PatchResult]]:
        """Read what was measured."""
        return (
            read_results(self.folder / "measures.csv", Result),
            read_results(self.folder / "patches.csv", PatchResult),
        )

    def effects(self) -> Results[EffectResult]:
        """Read what was found of effects that were put in."""
        path = self.folder / "biology.csv"
        return read_results(path, EffectResult) if path.exists() else Results(())

    def in_regions(self) -> Results[RegionValue]:
        """Read what was measured by region; nothing where that was not asked for."""
        path = self.folder / "regions.csv"
        return read_results(path, RegionValue) if path.exists() else Results(())

    def notes(self) -> list[str]:
        """Say what went wrong with single heads."""
        return [str(each) for each in self._noted().get("Notes", ())]

    def interpolated(self) -> dict[str, dict[str, float]]:
        """Give which finished predictions lie on other voxels than truth, by row and subject.

        With them how many mm are between the centres of both brains.
        """
        name = self.round.dataset.name
        return {
            row: {f"{name}, {subject}": float(apart) for subject, apart in heads.items()}
            for row, heads in self._noted().get("Interpolated", {}).items()
        }

    def _noted(self) -> dict[str, Any]:
        path = self.folder / "notes.json"
        return dict(read_json(path)) if path.exists() else {}

    def run(self, tell: OnPart = lambda words, share: None) -> None:
        """Predict, measure and write; tell of every head."""
        plan = self.plan
        dataset = open_dataset(self.round.dataset, run=plan.run, b0_threshold=plan.b0_threshold)
        shells = plan.shells.items()
        fitted = {b: {} if self.repeated else self._fitted(dataset, b) for _, b in shells}
        responses = {b: self._response(dataset, b) for _, b in shells if self._with_fibres}
        rows: list[Result] = []
        patches: list[PatchResult] = []
        effects: list[EffectResult] = []
        regional = None
        if plan.regions and not self.repeated:
            regional = InRegions(plan, self.target, self.round.seed, dataset)
        notes: list[str] = []
        interpolated: dict[str, dict[str, float]] = {}
        heads = [s for s in self.round.subjects.test if dataset.has(s, self.target)]
        for done, subject in enumerate(heads):
            if done:
                tell(f"{self.round.name}: {heads[done - 1]} on {self.target}", done / len(heads))
            networks = self._networks(dataset, subject)
            for shell, b in shells:
                truths = self._truths(dataset, subject, b, responses.get(b), regional)
                predicted = self._predictions(
                    dataset, subject, fitted[b], networks, truths["scan"], b
                )
                if self.plan.biology and not self.repeated:
                    effects += self._effects(dataset, subject, fitted[b], predicted, truths, shell)
                if not self.repeated:
                    truth = truths["scan"]
                    predicted |= self._made_elsewhere(
                        dataset, subject, truth, b, predicted, notes, interpolated
                    )
                    maps_alone = self._maps_alone(subject, truth, notes)
                if not self.repeated and "noise-free" in truths:
                    predicted = {**predicted, FLOOR: truths["noise-free"].mapped}
                if regional is not None:
                    regional.add(subject, shell, b, truths, predicted, maps_alone)
                for method, reference, row, patch in self._measured(predicted, truths):
                    where = (method, self.target, dataset.root.name, self.round.seed, subject)
                    rows += [
                        Result(*where, reference, key, value, shell=shell)
                        for key, value in row.items()
                        if np.isfinite(value)  # a tissue may be absent
                    ]
                    patches += [
                        PatchResult(*where, reference, *each, shell=shell) for each in patch
                    ]
        if regional is not None:
            for subject in () if plan.folds else self.round.subjects.training:
                regional.add_taught(subject)
            notes += regional.notes
            write_results(self.folder / "regions.csv", Results(regional.values), RegionValue)
        whose = f"{dataset.root.name}, " if len(plan.datasets) > 1 else ""
        said = [f"{whose}{note}" for note in dict.fromkeys(notes)]
        write_json(self.folder / "notes.json", {"Notes": said, "Interpolated": interpolated})
        write_results(self.folder / "measures.csv", Results(rows), Result)
        if effects:
            write_results(self.folder / "biology.csv", Results(effects), EffectResult)
        write_results(self.folder / "patches.csv", Results(patches), PatchResult)

    def _fitted(self, dataset: TravellingHeads, b: float) -> dict[str, Baseline]:
        """Let the baselines learn a shell from the training subjects."""
        learned = [s for s in self.round.subjects.training if dataset.has(s, self.target)]
        inputs = [_fit(dataset.acquisition(s, self.plan.source), b) for s in learned]
        targets = [_fit(dataset.acquisition(s, self.target), b) for s in learned]
        return {name: baseline_class(name)().fit(inputs, targets) for name in self._baselines}

    @property
    def _with_fibres(self) -> bool:
        return (self.plan.fibres or self.plan.bundle) and not self.repeated

    def _response(self, dataset: TravellingHeads, b: float) -> FloatArray | None:
        """Measure a single fibre's signal on the target: of training subjects, else of the test's.

        One for all rows, so that none gains by its own.
        """
        subjects = self.round.subjects
        learned = [s for s in subjects.training if dataset.has(s, self.target)]
        measured = [s for s in subjects.test if dataset.has(s, self.target)]
        scans = [_fit(dataset.acquisition(s, self.target), b) for s in learned or measured]
        return response_of(scans) if scans else None

    def _truths(
        self,
        dataset: TravellingHeads,
        subject: str,
        b: float,
        response: FloatArray | None = None,
        regional: InRegions | None = None,
    ) -> dict[str, Truth]:
        scan = _fit(dataset.acquisition(subject, self.target), b)
        # Deconvolution takes long: only where regions are asked for.
        where = regional.labelled(subject, scan.lattice) if regional and self._with_fibres else None
        twin = dataset.noise_free(subject, self.target)
        if twin is None:
            return {"scan": Truth(scan, response=response, fibres_in=where)}
        clear = Truth(_fit(twin, b), response=response, fibres_in=where)
        # Tissue is found best where there is no noise; a repeated round needs none.
        tissue = None if self.repeated else clear.tissue
        of_scan = Truth(scan, tissue, response=response, fibres_in=where)
        truths = {"scan": of_scan, "noise-free": clear}
        if response is not None and self.plan.fibres:
            known = self._known_fibres(dataset, subject, clear, response)
            if known is not None:
                truths[SIMULATED] = replace(truths["scan"], given_fibres=known)
        return truths

    def _known_fibres(
        self, dataset: TravellingHeads, subject: str, truth: Truth, response: FloatArray
    ) -> Fibres | None:
        """Give the fibres that a head was simulated with; None where they are not known."""
        recipe, number = recipe_of(dataset.root), _number(subject)
        if recipe is None or number is None:
            return None
        image = truth.image
        solid = image.mask & (truth.mapped.tensor.md < LARGEST_TISSUE_MD)
        if truth.fibres_in is not None:
            solid &= truth.fibres_in
        voxels = some_of(solid, 3 * MOST_VOXELS)
        head = recipe.lies(number, self.target)
        fractions, directions = fibre_populations(*head, recipe.size, image.lattice, voxels)
        white = fractions.sum(axis=1) > KNOWN_WHITE
        peaks = peaks_of_populations(fractions[white], directions[white])
        return Fibres(voxels[white], peaks, response, known=True)

    def _effects(
        self,
        dataset: TravellingHeads,
        subject: str,
        fitted: Mapping[str, Baseline],
        predicted: Mapping[str, Maps],
        truths: Mapping[str, Truth],
        shell: int | None,
    ) -> Iterator[EffectResult]:
        """Put every effect into a head, predict it again, and compare."""
        b = self.plan.shells[shell]
        recipe, number = recipe_of(dataset.root), _number(subject)
        if recipe is None or number is None:
            problem = "is not known to be simulated, so no effect can be put in"
            raise UserError(problem, subject, "biology", Advice("leave biology out"))
        kind = "noise-free" if "noise-free" in truths else "scan"
        truth = truths[kind].mapped
        scan = {TARGET_SCAN: truths["scan"].mapped} if kind == "noise-free" else {}
        before = line_up(truth, {**predicted, **scan})
        for effect in EFFECTS.values():
            platforms = (self.plan.source, self.target)
            with changed_head(recipe, number, effect.change(number), platforms) as changed:
                networks = self._networks(changed, subject)
                changes = self._truths(changed, subject, b)
                images = self._predictions(changed, subject, fitted, networks, changes["scan"], b)
                if scan:
                    images = {**images, TARGET_SCAN: changes["scan"].mapped}
                after = line_up(changes[kind].mapped, images)
            if kind == "noise-free":
                heads = truth.image, changes[kind].image
                check_same_head(*heads, effect.change(number), subject)
            region = region_of(effect, recipe, number, self.target, truth.image.lattice)
            where = region & after.mask & before.mask
            true = effect_in(effect, truth, changes[kind].mapped, where, number)
            for method, maps in after.predictions.items():
                found = effect_in(effect, before.predictions[method], maps, where, number)
                if np.isfinite(found) and np.isfinite(true):
                    yield EffectResult(
                        method,
                        self.target,
                        dataset.root.name,
                        self.round.seed,
                        subject,
                        kind,
                        effect.name,
                        true,
                        found,
                        shell=shell,
                    )

    def _networks(self, dataset: TravellingHeads, subject: str) -> Callable[[Path], Prediction]:
        """Give what predicts a subject, all shells at once, by a model's file."""
        scan = dataset.acquisition(subject, self.plan.source)

        @cache
        def predicted(path: Path) -> Prediction:
            with warnings.catch_warnings():
                # Which shells are measured, and by a model for whom, was said when it was planned.
                for said in (NotPredicted, NotForScans):
                    warnings.simplefilter("ignore", said)
                return harmonize(_model(path), scan, self.target, device=self.device)

        return predicted

    def _predictions(
        self,
        dataset: TravellingHeads,
        subject: str,
        fitted: Mapping[str, Baseline],
        networks: Callable[[Path], Prediction],
        truth: Truth,
        b: float,
    ) -> dict[str, Maps]:
        source = _fit(dataset.acquisition(subject, self.plan.source), b)
        images = {name: rule.predict(source, truth.image.lattice) for name, rule in fitted.items()}
        for method, paths in self.answers.items():
            images[method] = _mean([networks(path).at_shell(b).image for path in paths])
        return {name: Maps(images[name]) for name in self._order(images)}

    def _made_elsewhere(
        self,
        dataset: TravellingHeads,
        subject: str,
        truth: Truth,
        b: float,
        others: Mapping[str, Maps],
        notes: list[str],
        interpolated: dict[str, dict[str, float]],
    ) -> dict[str, Maps]:
        """Open the finished predictions of a subject; what cannot be used is noted."""
        found: dict[str, Maps] = {}
        compared: dict[str, Comparison] = {}
        person = dataset.person(subject) if self.plan.predictions else Person()
        for each in self.plan.finished(self.round.dataset):
            where = f"{each.name}, {subject} on {self.target}"
            paths = each.images.get((subject, self.target))
            if (subject, self.target) in each.maps:
                continue
            if paths is None:
                notes.append(f"{where}: there is no prediction")
                continue
            try:
                scan = self._at_b_value(load_scan(paths), truth.image.b_value or b)
                lined_up = line_up(truth.mapped, {each.name: scan})
                apart = _apart(scan.at_shell().image, truth.image)
                if lined_up.interpolated:
                    interpolated.setdefault(each.name, {})[subject] = apart
                if apart > MOST_APART:
                    notes.append(
                        f"{where}: its brain lies {apart:.1f} mm beside that of the target's scan: "
                        "they are not registered, or one is cut off"
                    )
                if scan.provenance is not None and not may_be_same(person, scan.person):
                    raise UserError("was made of another person's scan")
                found[each.name], compared[each.name] = scan.maps(), lined_up
            except UserError as error:
                notes.append(f"{where}: {error.phrase(subject=paths[0].name)}")
        for name, said in self._doubts_of(compared, others, truth.image):
            notes.append(f"{name}, {subject} on {self.target}: {said}")
        return found

    def _doubts_of(
        self, compared: Mapping[str, Comparison], others: Mapping[str, Maps], truth: SHImage
    ) -> Iterator[tuple[str, str]]:
        """Say which finished predictions are another image once more, or lack voxels of others.

        Every row is measured where it and truth have brain.
        """
        known = {
            f'the row "{name}"': maps.image
            for name, maps in others.items()
            if maps.image.lattice.matches(truth.lattice)
        }
        voxels = {name: int(each.mask.sum()) for name, each in compared.items()}
        most = max(
            (*voxels.values(), *(int((each.mask & truth.mask).sum()) for each in known.values())),
            default=0,
        )
        for name, each in compared.items():
            image = each.predictions[name].image
            for what, other in {f"the scan on {self.target}": truth, **known}.items():
                inside = each.mask & other.mask
                if np.array_equal(image.coefficients[inside], other.coefficients[inside]):
                    yield name, f"it is {what} once more, and no prediction"
                    break
            if voxels[name] < LEAST_SHARED * most:
                share = f"{100 * voxels[name] / most:.0f} %"
                yield (
                    name,
                    f"its mask leaves {share} of the voxels that another row is measured in, so "
                    "their errors are not of the same voxels: give it the scan's mask",
                )

    def _at_b_value(self, prediction: Scan, wanted: float) -> Scan:
        """Give the shell of a prediction that has the target's b-value."""
        part = at_b_value(prediction, wanted)
        if part is None:
            known = listed([str(each) for each in prediction.shells])
            problem = f"has b = {known} s/mm² but the scan on {self.target} has {wanted:.0f}"
            remedy = Advice("give a prediction of its b-value")
            raise UserError(problem, field="predictions", remedy=remedy)
        return part

    def _maps_alone(
        self, subject: str, truth: Truth, notes: list[str]
    ) -> dict[str, dict[str, FloatArray]]:
        """Open the finished maps of a subject, on truth's lattice; what cannot be used is noted."""
        found: dict[str, dict[str, FloatArray]] = {}
        for each in self.plan.finished(self.round.dataset):
            for key, path in each.maps.get((subject, self.target), {}).items():
                try:
                    values = map_on(path, truth.image.lattice, key)
                except UserError as error:
                    notes.append(f"{each.name}, {subject} on {self.target}: {error.phrase()}")
                else:
                    found.setdefault(each.name, {})[key] = values
        return found

    def _order(self, images: Mapping[str, SHImage]) -> list[str]:
        """Put rows in the table's order, given models last."""
        listed = [method for method in self.plan.methods if method in images]
        return listed + [name for name in images if name not in listed]

    def _measured(
        self, predicted: Mapping[str, Maps], truths: Mapping[str, Truth]
    ) -> Iterator[tuple[str, str, dict[str, float], list[tuple[str, float]]]]:
        keys: tuple[str, ...] = SH_ERRORS
        if not self.repeated:
            keys = IN_TABLE + FIBRES * self.plan.fibres + (BUNDLE,) * self.plan.bundle
        for reference, truth in truths.items():
            for method, prediction in predicted.items():
                if method == FLOOR and reference == "noise-free":
                    continue
                if reference == SIMULATED:
                    found = measure_head(prediction, truth, FIBRES, patch_size=self.patch_size)
                    yield method, reference, found.values, []
                    continue
                found = measure_head(prediction, truth, keys, patch_size=self.patch_size)
                patches = [
                    ("-".join(map(str, centre)), float(error))
                    for centre, error in zip(found.patches.centres, found.patches.mse, strict=True)
                ]
                yield method, reference, found.values, patches


LEAST_SHARED = 0.98
"""Share of the voxels of the row that has most, from which rows are comparable (our choice)."""

MOST_APART = 5.0
"""Millimetres between the centres of two brains that masks may leave (our choice).

Sessions have other lattices, but scans of one head are registered before they are compared.
"""


def _apart(one: SHImage, other: SHImage) -> float:
    """Measure the distance between the centres of two brains in mm."""
    first, second = (scanner_points(each.mask, each.affine).mean(axis=0) for each in (one, other))
    return float(np.linalg.norm(first - second))


LARGEST_MD = 0.02
"""In mm²/s; free water has 0.003. More is in other units (our choice)."""

LARGEST_FA = 1.5
"""Negative eigenvalues give up to √(3/2). More is in percent or the like (our choice)."""


def map_on(path: Path, lattice: Lattice, key: str) -> FloatArray:
    """Read a map and bring it to a lattice, interpolated linearly inside its own mask.

    Voxels without a finite number are none of the mask, as those of 0.

    Raises
    ------
    UserError
        When it cannot be read, has not the axes of its kind, or lies elsewhere.
    """
    image = open_nifti(path)
    wanted = 4 if MAPS[key].coloured else 3
    shape = (*image.shape[:3], *(length for length in image.shape[3:] if length > 1))
    values = read_voxels(image, path).reshape(shape)
    if len(shape) != wanted or (wanted == 4 and shape[-1] != 3):
        problem = f"has shape {image.shape}, which no map of {MAPS[key].title} has"
        raise UserError(problem, path, "predictions", Advice("give another"))
    values = np.nan_to_num(values, posinf=0, neginf=0)
    if wanted == 4:
        values = np.abs(values)
    if key == "md" and np.any(values > LARGEST_MD):
        problem = "has diffusivities that are no mm²/s"
        raise UserError(problem, path, "predictions", Advice("give it in mm²/s"))
    if key in ("fa", "colour_fa") and np.any(values > LARGEST_FA):
        problem = "has values that are no FA"
        raise UserError(problem, path, "predictions", Advice("give it from 0 to 1"))
    own = lattice_of(image)
    if own.matches(lattice):
        return values
    several = values if wanted == 4 else values[..., None]
    mask = (several != 0).any(axis=-1)
    found, there = resample_with_mask(several, mask, own, lattice)
    if not there.any():
        problem = "lies outside the target's scan"
        raise UserError(problem, path, "predictions", Advice("give it in the scan's space"))
    found = np.where(there[..., None], found, 0)
    return found if wanted == 4 else found[..., 0]


def _number(subject: str) -> int | None:
    """Give a simulated subject's number, from 0; None for a name that no simulation gives."""
    label = subject.removeprefix("sub-")
    return int(label) - 1 if label.isdecimal() and int(label) > 0 else None


def _fit(acquisition: Acquisition, b_value: float) -> SHImage:
    return fit_sh(acquisition, b_value=b_value, order=ORDER)


def _mean(images: list[SHImage]) -> SHImage:
    """Average predictions of one model kind each; they lie on one lattice."""
    mean = np.zeros(images[0].coefficients.shape)
    for image in images:
        mean += image.coefficients / len(images)
    return replace(images[0], coefficients=mean.astype(np.float32))
