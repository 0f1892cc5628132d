"""From the methods to the trainings that they need, and the models that answer for them.

What is built on the best single networks can be named only when these are trained and chosen on
the validation subjects, so there are two waves: `networks`, then `built`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_msp.evaluation.contest.methods import (
    BEST_SINGLE,
    FIRST_STAGE,
    MEAN_OF_SINGLES,
    MORE_WEIGHTS,
    MSP,
    MULTI_TASK,
    SINGLES,
)
from napari_msp.evaluation.contest.plan import SEEDS, Plan, Round
from napari_msp.evaluation.contest.trainings import Training, settings_for
from napari_msp.evaluation.contest.weights import matched_width, weights_of_msp
from napari_msp.learning.settings import Kind, SingleKind, TrainingSettings

Entry = dict[str, tuple[Training, ...]]
"""Trainings whose models' mean is a method's prediction, by target."""

Rates = Mapping[str, float]
"""Learning rate by method; but for the one with more weights, controls have their network's."""

Best = Mapping[str, str]
"""Method whose single network does best on the validation subjects, by target."""


def trainings_of(entries: Iterable[Entry]) -> list[Training]:
    """Give the trainings behind some methods; one may answer for several."""
    unique = {
        training.folder: training
        for entry in entries
        for trainings in entry.values()
        for training in trainings
    }
    return list(unique.values())


@dataclass(frozen=True)
class Entrants:
    """Names the trainings of one round.

    Attributes
    ----------
    plan, round
        Of the contest.
    folder
        Where trainings are kept.
    device
        As for `train`.
    scales
        Lattice scale of each target.
    """

    plan: Plan
    round: Round
    folder: Path
    device: str
    scales: Mapping[str, int]

    @property
    def chooses(self) -> bool:
        """Whether a method is to be shown that rests on the best single networks."""
        resting = (MSP, BEST_SINGLE, FIRST_STAGE, MORE_WEIGHTS, MEAN_OF_SINGLES)
        return any(method in self.plan.methods for method in resting)

    @property
    def single_methods(self) -> tuple[str, ...]:
        """Single networks that are to be trained: all, where the best is to be chosen."""
        return tuple(name for name in SINGLES if self.chooses or name in self.plan.methods)

    def networks(self, rates: Rates) -> dict[str, Entry]:
        """Give what needs no other's result, by method."""
        kinds = {name: SINGLES[name] for name in self.single_methods} | {
            name: kind for name, kind in MULTI_TASK.items() if name in self.plan.methods
        }
        entries: dict[str, Entry] = {}
        for name, kind in kinds.items():
            training = self._training(name, kind, rates[name], self.plan.targets)
            entries[name] = dict.fromkeys(self.plan.targets, (training,))
        return entries

    def built(self, networks: Mapping[str, Entry], best: Best, rates: Rates) -> dict[str, Entry]:
        """Give what rests on the best single networks, by method."""
        builders: dict[str, Callable[[str], tuple[Training, ...]]] = {
            FIRST_STAGE: lambda target: (self._first_stage(target, best, rates),),
            BEST_SINGLE: lambda target: networks[best[target]][target],
            MORE_WEIGHTS: lambda target: (
                self._wide(f"{MORE_WEIGHTS} {target}", target, best, rates[MORE_WEIGHTS]),
            ),
            MEAN_OF_SINGLES: lambda target: (
                *networks[best[target]][target],
                *(self._member(n, target, best, rates) for n in range(1, len(best))),
            ),
            MSP: lambda _: (self._msp(best, rates),),
        }
        return {
            name: {target: build(target) for target in best}
            for name, build in builders.items()
            if name in self.plan.methods
        }

    def trials(self, method: str, rate: float, best: Best | None = None) -> tuple[Training, ...]:
        """Give short trainings with one learning rate, on the tuning targets.

        Parameters
        ----------
        method
            A network, or the control with as many weights as an MSP.
        rate
            What is tried.
        best
            Of use for what is built on single networks.
        """
        targets, steps = self.plan.tuning_targets, self.plan.budget.tuning_steps
        what = f"trial {method} {rate:g}"
        if method == MSP:
            assert best is not None
            share = self.plan.budget.first_steps / self.plan.budget.steps
            stage = {target: _kind(best[target]) for target in targets}
            first = max(self.plan.budget.epoch, round(share * steps))
            training = self._training(
                what, "msp", rate, targets, steps=steps, first_steps=first, first_stage=stage
            )
            return (training,)
        if method == MORE_WEIGHTS:
            assert best is not None
            return tuple(self._wide(f"{what} {t}", t, best, rate, steps) for t in targets)
        kind = (SINGLES | MULTI_TASK)[method]
        return (self._training(what, kind, rate, targets, steps=steps),)

    def _msp(self, best: Best, rates: Rates) -> Training:
        stage = {target: _kind(method) for target, method in best.items()}
        return self._training(MSP, "msp", rates[MSP], self.plan.targets, first_stage=stage)

    def _first_stage(self, target: str, best: Best, rates: Rates) -> Training:
        what = f"{FIRST_STAGE} {best[target]}"
        return self._best_single(what, target, best, rates, steps=self.plan.budget.first_steps)

    def _wide(
        self, what: str, target: str, best: Best, rate: float, steps: int | None = None
    ) -> Training:
        kinds = {each: _kind(method) for each, method in best.items()}
        weights = weights_of_msp(kinds, target, self.scales, self.plan.budget.width)
        width = matched_width(kinds[target], target, self.scales, weights)
        return self._training(what, kinds[target], rate, (target,), steps=steps, width=width)

    def _member(self, number: int, target: str, best: Best, rates: Rates) -> Training:
        seed = self.round.seed + number * SEEDS
        return self._best_single(f"{best[target]} again {number}", target, best, rates, seed=seed)

    def _best_single(
        self,
        what: str,
        target: str,
        best: Best,
        rates: Rates,
        *,
        steps: int | None = None,
        seed: int | None = None,
    ) -> Training:
        """Train a target's best single network once more, with the targets that have the same."""
        method = best[target]
        alike = tuple(each for each in best if best[each] == method)
        return self._training(what, _kind(method), rates[method], alike, steps=steps, seed=seed)

    def _training(
        self,
        what: str,
        kind: Kind,
        rate: float,
        targets: tuple[str, ...],
        *,
        seed: int | None = None,
        steps: int | None = None,
        first_steps: int | None = None,
        width: float | None = None,
        first_stage: dict[str, SingleKind] | None = None,
    ) -> Training:
        settings: TrainingSettings = settings_for(
            self.plan,
            kind,
            rate,
            self.round.seed if seed is None else seed,
            targets=targets,
            steps=steps,
            first_steps=first_steps,
            width=width,
            first_stage=first_stage,
        )
        folder = self.folder / self.round.folder / what.replace(",", "").replace(" ", "-")
        name = f"{self.round.name}: {what}"
        return Training(name, folder, self.round.dataset, settings, self.device)


def _kind(method: str) -> SingleKind:
    return SINGLES[method]
