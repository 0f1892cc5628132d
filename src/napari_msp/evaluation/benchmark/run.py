"""Run a benchmark from its plan to its results: tune, train, choose, measure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path

from napari_msp.evaluation.benchmark.measuring import Measurement
from napari_msp.evaluation.benchmark.methods import (
    MORE_WEIGHTS,
    MSP,
    SHARED_MSP,
    single_networks,
)
from napari_msp.evaluation.benchmark.plan import Plan, Round, lattice_scales
from napari_msp.evaluation.benchmark.results import (
    EffectResult,
    PatchResult,
    RegionValue,
    Result,
    Results,
    Row,
    grouped,
)
from napari_msp.evaluation.benchmark.trainings import (
    Best,
    Rates,
    Training,
    TrainingList,
    Trainings,
    trainings_of,
)
from napari_msp.evaluation.measures.pair import PATCH_SIZE
from napari_msp.model_file import load_model
from napari_msp.processes import Job, OnProgress, Progress, do_all

FINE_PATCH = 19
"""Edge of a patch on a lattice that is finer than the input's (paper)."""


@dataclass(frozen=True)
class Trial:
    """A learning rate's result: SH MSE on validation subjects, mean over the tuning targets."""

    method: str
    rate: float
    error: float
    fold: str = ""


@dataclass(frozen=True)
class Outcome:
    """Everything that a benchmark found, and the trainings behind it by round and method."""

    results: Results[Result]
    patches: Results[PatchResult]
    effects: Results[EffectResult]
    trials: tuple[Trial, ...]
    trainings: Mapping[Round, Mapping[str, Trainings]]
    values: Results[RegionValue] = field(default_factory=lambda: Results(()))
    notes: tuple[str, ...] = ()


class Benchmark:
    """A plan that was found feasible, ready to run.

    `later` is the weight of what is made from its results, which `progress` counts too.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        device: str,
        workers: int,
        report: OnProgress,
        later: float = 0.0,
    ) -> None:
        self.plan, self.out, self.device, self.workers = plan, out, device, workers
        self.models = {path: load_model(path) for path in plan.asked.models}
        first = plan.open(plan.datasets[0])
        self.scales = lattice_scales(first, plan.input, plan.targets, plan.subjects)
        self.later, self.progress = later, Progress(report, 1.0)

    def run(self) -> Outcome:
        """Tune, train and measure; finished work is not repeated."""
        rounds = self.plan.rounds
        self.progress.total = self._expected_weight() + self.later
        first = self._list(rounds[0])
        trials = self._tune(first.at_once, {})
        networks = {each: self._list(each).networks(self._rates(trials, each)) for each in rounds}
        self._train(networks.values())
        best = {each: self._choose(networks[each], each) for each in rounds}

        trials += self._tune(self._tuned_later(), best)
        built = {
            each: self._list(each).built(networks[each], best[each], self._rates(trials, each))
            for each in rounds
        }
        self._train(built.values())

        trainings = {each: {**networks[each], **built[each]} for each in rounds}
        measurements = [
            self._measurement(each, target, trainings[each])
            for each in rounds
            for target in self.plan.targets
        ]
        self._do(measurements)

        def found(kind: type[Row]) -> Results[Row]:
            return Results(row for each in measurements for row in each.results(kind))

        return Outcome(
            results=found(Result),
            patches=found(PatchResult),
            effects=found(EffectResult),
            trials=tuple(trials),
            trainings=trainings,
            values=found(RegionValue),
            notes=(
                *chain(*(each.notes() for each in measurements)),
                *interpolated_in(measurements),
            ),
        )

    def _list(self, round_: Round) -> TrainingList:
        return TrainingList(self.plan, round_, self.out / "trained", self.device, self.scales)

    def _tuned_later(self) -> list[str]:
        return [name for name in (MORE_WEIGHTS, MSP, SHARED_MSP) if name in self.plan.methods]

    def _tune(self, methods: Sequence[str], best: Mapping[Round, Best]) -> list[Trial]:
        """Try every learning rate on the first round of each fold.

        These trials choose nothing else. A single possible rate is not tried, and has no error.
        """
        running = {
            (each, method, rate): self._list(each).trials(method, rate, best.get(each))
            for each in self.plan.first_rounds
            for method, rate in product(methods, self.plan.rates_in(each))
        }
        self._do([training for trainings in running.values() for training in trainings])
        return [
            Trial(method, rate, _mean(trainings), each.fold)
            for (each, method, rate), trainings in running.items()
        ]

    def _rates(self, trials: Sequence[Trial], round_: Round) -> Rates:
        """Return the best rate of each method, of those tried in a round's fold."""
        here = grouped((t for t in trials if t.fold == round_.fold), lambda trial: trial.method)
        return {
            name: min(tried, key=lambda trial: trial.error).rate for name, tried in here.items()
        }

    def _train(self, groups: Iterable[Mapping[str, Trainings]]) -> None:
        self._do(trainings_of(each for methods in groups for each in methods.values()))

    def _choose(self, networks: Mapping[str, Trainings], round_: Round) -> Best:
        """Choose each target's best single network, by its error on the validation subjects.

        Without validation it is the default first stage of this package's MSPs.
        """
        listed = self._list(round_)
        if not listed.chooses:
            return {}
        if not round_.subjects.validation:
            return listed.usual
        singles = listed.single_methods
        return {
            target: min(singles, key=lambda name: networks[name][target][0].errors()[target])
            for target in self.plan.targets
        }

    def _measurement(
        self, round_: Round, target: str, trainings: Mapping[str, Trainings]
    ) -> Measurement:
        answers = {
            method: tuple(training.model for training in trainings[method][target])
            for method in self.plan.methods
            if target in trainings.get(method, {})
        }
        repeated = round_.seed != self.plan.asked.seeds[0]
        for path, model in self.models.items():
            if target in model.targets and not repeated:  # another seed would not change it
                answers[path.stem] = (path,)
        return Measurement(
            plan=self.plan,
            round=round_,
            target=target,
            answers=answers,
            repeated=repeated,
            patch_size=PATCH_SIZE if self.scales[target] == 1 else FINE_PATCH,
            folder=self.out / "measured" / round_.folder / target,
            device=self.device,
        )

    def _do(self, jobs: Sequence[Job]) -> None:
        do_all(jobs, self.workers, self.progress)

    def _expected_weight(self) -> float:
        """Estimate the total weight, as if one single network were the best everywhere."""
        rates = dict.fromkeys((*self.plan.methods, *single_networks()), 1e-3)
        best = dict.fromkeys(self.plan.targets, list(single_networks())[-1])
        jobs: list[Job] = []
        for each in self.plan.first_rounds:
            listed = self._list(each)
            tuned = (*listed.at_once, *self._tuned_later())
            for name, rate in product(tuned, self.plan.rates_in(each)):
                jobs += listed.trials(name, rate, best)
        for each in self.plan.rounds:
            listed = self._list(each)
            networks = listed.networks(rates)
            trainings = networks | listed.built(networks, best, rates) if networks else {}
            jobs += trainings_of(trainings.values())
            jobs += [self._measurement(each, target, trainings) for target in self.plan.targets]
        return sum(job.weight for job in jobs)


def interpolated_in(measurements: Iterable[Measurement]) -> Iterator[str]:
    """Yield, for each row and target, how many finished predictions were interpolated."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for each in measurements:
        for row, heads in each.interpolated().items():
            found.setdefault((row, each.target), {}).update(heads)
    for (row, target), heads in found.items():
        least, most = (f"{each:.1f}" for each in (min(heads.values()), max(heads.values())))
        how_many = "1 prediction was" if len(heads) == 1 else f"{len(heads)} predictions were"
        yield (
            f"{row} on {target}: {how_many} interpolated linearly to the voxels of the target's "
            f"scan, which smooths; the centres of the brains are "
            f"{least if least == most else f'{least} to {most}'} mm apart"
        )


def _mean(trainings: Iterable[Training]) -> float:
    """Average the last validation errors over all targets of some trainings; nan without any."""
    errors = [error for training in trainings for error in training.errors().values()]
    return sum(errors) / len(errors) if errors else float("nan")
