"""Predict and measure the test subjects of one round on one target, as a job."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.alignment.registration import SURE, Displacement, find_displacement
from napari_msp.arrays import FloatArray
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.changes import fibre_populations
from napari_msp.data.phantom.simulate import DatasetRecipe, recipe_of
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.baselines.base import Baseline, baseline_class, baseline_names
from napari_msp.evaluation.benchmark.finished import FinishedOnTarget
from napari_msp.evaluation.benchmark.methods import KEYS, key_of
from napari_msp.evaluation.benchmark.plan import Plan, Round
from napari_msp.evaluation.benchmark.results import (
    FLOOR,
    TARGET_SCAN,
    EffectResult,
    PatchResult,
    RegionValue,
    Result,
    Results,
    Row,
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
from napari_msp.evaluation.line_up import line_up, unlike
from napari_msp.evaluation.measures.catalogue import (
    BUNDLE,
    FIBRES,
    IN_TABLE,
    SH_ERRORS,
    measure_head,
)
from napari_msp.evaluation.measures.fibres import (
    MOST_VOXELS,
    TruePeaks,
    peaks_of_populations,
    response_of,
    some_of,
)
from napari_msp.evaluation.measures.pair import LARGEST_TISSUE_MD, Truth
from napari_msp.evaluation.proof.values import InRegions, fitted_shell
from napari_msp.files import write_json
from napari_msp.inference.harmonize import harmonize
from napari_msp.inference.prediction import Prediction
from napari_msp.inference.prepare import NotForScans, NotPredicted
from napari_msp.model_file import kept_model
from napari_msp.processes import OnPart
from napari_msp.signal.maps import Maps
from napari_msp.signal.sh_image import SHImage
from napari_msp.strict_json import read_json

SIMULATED = "simulated fibres"
"""Truth against which only fibre peaks are measured."""

FILES: Mapping[type, str] = {
    Result: "measures.csv",
    PatchResult: "patches.csv",
    RegionValue: "regions.csv",
    EffectResult: "biology.csv",
}
"""Files of the rows of each kind."""

KNOWN_WHITE = 0.7
"""Share of white matter from which a voxel's simulated fibres are used (our choice)."""


@dataclass(frozen=True)
class Measurement:
    """Measurement of all methods on one target, over the test subjects of a round.

    Attributes
    ----------
    answers
        Model files by method; the mean of their predictions is the method's.
    repeated
        Whether this round only repeats training with another seed, after a round measured in full:
        then only networks are measured, and only by their SH errors.
    patch_size
        Edge of a patch in voxels of the target.
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
        """Description in a few words."""
        return f"{self._whose}measured {self.target}"

    @property
    def _whose(self) -> str:
        """Dataset and seed, if there are several, before what is done of them."""
        return f"{self.round.name}: " if len(self.plan.rounds) > 1 else ""

    @property
    def weight(self) -> float:
        """Cost in steps of a SHResNet; a prediction with its measures takes about 20 (measured)."""
        cost = 4.0 if self.repeated else 20.0
        cost *= 1 + len(EFFECTS) * (self.plan.asked.biology and not self.repeated)
        learned = 0 if self.repeated else len(self._baselines)
        images = len(self.answers) + learned + 1  # truth has its costs too
        return cost * images * len(self.round.subjects.test) * len(self.plan.b_values)

    @property
    def _baselines(self) -> list[str]:
        return [name for name in baseline_names() if name in self.plan.methods]

    @property
    def finished(self) -> bool:
        """Whether the results exist."""
        return all((self.folder / FILES[kind]).exists() for kind in self._kinds)

    @property
    def _kinds(self) -> list[type]:
        """Kinds of rows that are measured."""
        in_full: list[type] = [RegionValue] * bool(self.plan.regions)
        in_full += [EffectResult] * self.plan.asked.biology
        return [Result, PatchResult, *(() if self.repeated else in_full)]

    def results(self, kind: type[Row]) -> Results[Row]:
        """Read the rows of a kind; empty if they were not asked for."""
        path = self.folder / FILES[kind]
        if not path.exists():
            return Results(())
        titles = {key_of(each): each for each in (*KEYS, *self.plan.methods)}
        return read_results(path, kind).renamed(titles)

    def notes(self) -> list[str]:
        """Return notes on problems with single heads."""
        return [str(each) for each in self._noted().get("Notes", ())]

    def interpolated(self) -> dict[str, dict[str, float]]:
        """Return the finished predictions that lie on other voxels than truth, by row and subject.

        Their values are the distances in mm between the centres of both brains.
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
        """Predict, measure and write; report every head."""
        plan = self.plan
        dataset = plan.open(self.round.dataset)
        shells = plan.shells.items()
        fitted = {b: {} if self.repeated else self._fitted(dataset, b) for _, b in shells}
        responses = {b: self._response(dataset, b) for _, b in shells if self.with_fibres}
        found: dict[type, list[Any]] = {kind: [] for kind in self._kinds}
        regional = None
        if RegionValue in found:
            regional = InRegions(plan, self.target, self.round.seed, dataset)
        finished = plan.finished[self.round.dataset]
        elsewhere = FinishedOnTarget(finished, self.target, dataset)
        heads = [s for s in self.round.subjects.test if dataset.has(s, self.target)]
        beside: dict[str, tuple[Displacement, Lattice]] = {}
        for done, subject in enumerate(heads):
            if done:
                last = f"{self._whose}{heads[done - 1]} on {self.target}"
                tell(f"{last} ({done} of {len(heads)})", done / len(heads))
            head = _MeasuredHead(self, dataset, subject)
            for shell, b in shells:
                truths = head.truths(b, responses.get(b), regional)
                truth = truths["scan"].mapped
                lattice = truth.image.lattice
                source = head.given(b)
                predicted = head.predictions(source, b, fitted[b], lattice)
                if not self.repeated:
                    if shell == next(iter(plan.shells)):
                        apart = find_displacement(source, truth.image)
                        if apart is not None:
                            beside[subject] = apart, source.lattice
                    if EffectResult in found:
                        effects = self._effects(head, fitted[b], predicted, truths, shell)
                        found[EffectResult] += effects
                    predicted |= elsewhere.images(subject, truth, b, predicted, source)
                    maps_alone = elsewhere.maps(subject, lattice)
                    if "noise-free" in truths:
                        predicted[FLOOR] = truths["noise-free"].mapped
                if regional is not None:
                    regional.add(subject, shell, b, truths["scan"], source, predicted, maps_alone)
                for row in self._measured(head, predicted, truths, shell):
                    found[type(row)].append(row)
        notes = [*elsewhere.notes, *doubts_of_place(beside, plan.input, self.target)]
        if regional is not None:
            for subject in () if plan.folds else self.round.subjects.training:
                regional.add_taught(subject)
            notes += regional.notes
            found[RegionValue] = regional.values
        whose = f"{dataset.root.name}, " if len(plan.datasets) > 1 else ""
        said = [f"{whose}{note}" for note in dict.fromkeys(notes)]
        write_json(
            self.folder / "notes.json", {"Notes": said, "Interpolated": elsewhere.interpolated}
        )
        for kind, rows in found.items():
            results = Results(rows)
            keys = {each: key_of(each) for each in results.methods}
            write_results(self.folder / FILES[kind], results.renamed(keys), kind)

    def _fitted(self, dataset: TravellingHeads, b: float) -> dict[str, Baseline]:
        """Fit the baselines to a shell of the training subjects."""
        learned = [s for s in self.round.subjects.training if dataset.has(s, self.target)]
        inputs = [fitted_shell(dataset.acquisition(s, self.plan.input), b) for s in learned]
        targets = [fitted_shell(dataset.acquisition(s, self.target), b) for s in learned]
        return {name: baseline_class(name)().fit(inputs, targets) for name in self._baselines}

    @property
    def with_fibres(self) -> bool:
        """Whether fibres are measured."""
        return (self.plan.asked.fibres or self.plan.asked.bundle) and not self.repeated

    def _response(self, dataset: TravellingHeads, b: float) -> FloatArray | None:
        """Measure a single fibre's signal on the target, of training or else of test subjects.

        It is the same for all rows, so that none gains by its own.
        """
        subjects = self.round.subjects
        learned = [s for s in subjects.training if dataset.has(s, self.target)]
        measured = [s for s in subjects.test if dataset.has(s, self.target)]
        scans = [fitted_shell(dataset.acquisition(s, self.target), b) for s in learned or measured]
        return response_of(scans) if scans else None

    def _effects(
        self,
        head: "_MeasuredHead",
        fitted: Mapping[str, Baseline],
        predicted: Mapping[str, Maps],
        truths: Mapping[str, Truth],
        shell: int | None,
    ) -> Iterator[EffectResult]:
        """Put every effect into a head, predict it again, and compare."""
        b, subject = self.plan.shells[shell], head.subject
        if head.simulated is None:
            problem = "is not known to be simulated, so no effect can be put in"
            raise UserError(problem, subject, "biology", Advice("leave biology out"))
        recipe, number = head.simulated
        kind = "noise-free" if "noise-free" in truths else "scan"
        truth = truths[kind].mapped
        scan = {TARGET_SCAN: truths["scan"].mapped} if kind == "noise-free" else {}
        before = line_up(truth, {**predicted, **scan})
        for effect in EFFECTS.values():
            platforms = (self.plan.input, self.target)
            with changed_head(recipe, number, effect.change(number), platforms) as changed:
                again = _MeasuredHead(self, changed, subject)
                changes = again.truths(b)
                lattice = changes["scan"].image.lattice
                images = again.predictions(again.given(b), b, fitted, lattice)
                if scan:
                    images[TARGET_SCAN] = changes["scan"].mapped
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
                    named = (method, *head.sample, kind, effect.name)
                    yield EffectResult(*named, true, found, shell=shell)

    def _measured(
        self,
        head: "_MeasuredHead",
        predicted: Mapping[str, Maps],
        truths: Mapping[str, Truth],
        shell: int | None,
    ) -> Iterator[Result | PatchResult]:
        """Measure every prediction against every truth."""
        keys: tuple[str, ...] = SH_ERRORS
        if not self.repeated:
            keys = IN_TABLE + FIBRES * self.plan.asked.fibres + (BUNDLE,) * self.plan.asked.bundle
        for (reference, truth), (method, prediction) in product(truths.items(), predicted.items()):
            if method == FLOOR and reference == "noise-free":
                continue
            wanted = FIBRES if reference == SIMULATED else keys
            found = measure_head(prediction, truth, wanted, patch_size=self.patch_size)
            where = (method, *head.sample, reference)
            for key, value in found.values.items():
                if np.isfinite(value):  # a tissue may be absent
                    yield Result(*where, key, value, shell=shell)
            if reference != SIMULATED:
                for centre, error in zip(found.patches.centres, found.patches.mse, strict=True):
                    patch = "-".join(map(str, centre))
                    yield PatchResult(*where, patch, float(error), shell=shell)


class _MeasuredHead:
    """A subject's scans, unchanged or with an effect put in, and the methods' predictions.

    Attributes
    ----------
    sample
        Target, dataset, seed and subject of its results.
    """

    def __init__(self, job: Measurement, dataset: TravellingHeads, subject: str) -> None:
        self.job, self.dataset, self.subject = job, dataset, subject
        self.sample = job.target, dataset.root.name, job.round.seed, subject
        self._input = dataset.acquisition(subject, job.plan.input)
        self._harmonized: dict[Path, Prediction] = {}

    @cached_property
    def simulated(self) -> tuple[DatasetRecipe, int] | None:
        """Recipe of the simulation, and the head's number, from 0; None if they are unknown."""
        recipe, label = recipe_of(self.dataset.root), self.subject.removeprefix("sub-")
        if recipe is None or not label.isdecimal() or int(label) < 1:
            return None
        return recipe, int(label) - 1

    def given(self, b: float) -> SHImage:
        """Return a shell of the input."""
        return fitted_shell(self._input, b)

    def predictions(
        self, source: SHImage, b: float, fitted: Mapping[str, Baseline], lattice: Lattice
    ) -> dict[str, Maps]:
        """Predict a shell by baselines and networks, in the table's order, given models last."""
        job = self.job
        images = {name: rule.predict(source, lattice) for name, rule in fitted.items()}
        for method, paths in job.answers.items():
            images[method] = _mean([self._network(path).at_shell(b).sh for path in paths])
        listed = [method for method in job.plan.methods if method in images]
        return {name: Maps(images[name]) for name in dict.fromkeys((*listed, *images))}

    def _network(self, path: Path) -> Prediction:
        """Predict all shells at once with a model's file."""
        if path not in self._harmonized:
            with warnings.catch_warnings():
                # Shells left out, and models not for scans, were reported when it was planned.
                for said in (NotPredicted, NotForScans):
                    warnings.simplefilter("ignore", said)
                target, device = self.job.target, self.job.device
                self._harmonized[path] = harmonize(
                    kept_model(path), self._input, target, device=device
                )
        return self._harmonized[path]

    def truths(
        self, b: float, response: FloatArray | None = None, regional: InRegions | None = None
    ) -> dict[str, Truth]:
        """Return the truths of a shell, by reference."""
        job, subject = self.job, self.subject
        scan = fitted_shell(self.dataset.acquisition(subject, job.target), b)
        # Deconvolution takes long: if regions are given, only in them.
        where = regional.labelled(subject, scan.lattice) if regional and job.with_fibres else None
        twin = self.dataset.noise_free(subject, job.target)
        if twin is None:
            return {"scan": Truth(scan, response=response, fibres_in=where)}
        clear = Truth(fitted_shell(twin, b), response=response, fibres_in=where)
        # Tissue is found best without noise; a repeated round needs none.
        tissue = None if job.repeated else clear.tissue
        of_scan = Truth(scan, tissue, response=response, fibres_in=where)
        truths = {"scan": of_scan, "noise-free": clear}
        if response is not None and job.plan.asked.fibres:
            known = self._known_fibres(clear, response)
            if known is not None:
                truths[SIMULATED] = replace(truths["scan"], given_fibres=known)
        return truths

    def _known_fibres(self, truth: Truth, response: FloatArray) -> TruePeaks | None:
        """Return the fibres that a head was simulated with; None if they are not known."""
        if self.simulated is None:
            return None
        recipe, number = self.simulated
        image = truth.image
        solid = image.mask & (truth.mapped.tensor.md < LARGEST_TISSUE_MD)
        if truth.fibres_in is not None:
            solid &= truth.fibres_in
        voxels = some_of(solid, 3 * MOST_VOXELS)
        head = recipe.lies(number, self.job.target)
        fractions, directions = fibre_populations(*head, recipe.size, image.lattice, voxels)
        white = fractions.sum(axis=1) > KNOWN_WHITE
        peaks = peaks_of_populations(fractions[white], directions[white])
        return TruePeaks(voxels[white], peaks, response, known=True)


def doubts_of_place(
    heads: Mapping[str, tuple[Displacement, Lattice]], source: str, target: str
) -> list[str]:
    """Return notes on heads that lie elsewhere on a target than on the input, or may be others'.

    Parameters
    ----------
    heads
        Displacement of the head on the target, and the input's lattice, by subject.
    """
    others = {who: each.correlation for who, (each, _) in heads.items() if each.correlation < SURE}
    said = [f"{who} on {target} {unlike(source, least)}" for who, least in others.items()]
    far = {w: (of, at) for w, (of, at) in heads.items() if w not in others and of.too_far(at)}
    if not far:
        return said
    farthest = max(far, key=lambda subject: far[subject][0].mean)
    found, lattice = far[farthest]
    who = f"{farthest} on {target}"
    if len(far) > 1:
        who = f"{len(far)} of {len(heads)} heads are off their input; the farthest, {who},"
    return [
        *said,
        f"{who} {found.lies(source, lattice)}, which counts as error of every method until the "
        "scans are registered",
    ]


def _mean(images: list[SHImage]) -> SHImage:
    """Average predictions of networks of one kind; they lie on one lattice."""
    mean = np.zeros(images[0].coefficients.shape)
    for image in images:
        mean += image.coefficients / len(images)
    return replace(images[0], coefficients=mean.astype(np.float32))
