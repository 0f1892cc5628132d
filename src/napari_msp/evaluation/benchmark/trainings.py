"""Trainings behind each method: which they are, and each as a job that can be interrupted.

Methods built on the best single networks can only be named when these are trained and chosen on
the validation subjects, so there are two waves: `networks`, then `built`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from torch import nn

from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.benchmark.methods import (
    BEST_SINGLE,
    FIRST_STAGE,
    MEAN_OF_SINGLES,
    MORE_WEIGHTS,
    MSP,
    SHARED_MSP,
    STATISTICS_ONLY,
    begun_from_base,
    key_of,
    multi_task_networks,
    networks_from_base,
    single_networks,
)
from napari_msp.evaluation.benchmark.plan import SEEDS, Plan, Round
from napari_msp.learning.events import EventLog, Validated, read_events
from napari_msp.learning.phases import first_stage_kind
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.settings import BASE, NOTHING, TrainingSettings
from napari_msp.learning.trail import mean_error
from napari_msp.networks import msp
from napari_msp.networks.registry import MULTI_STAGE, build_single, network_class, title
from napari_msp.processes import OnPart

Rates = Mapping[str, float]
"""Learning rates by method; controls take their network's, but for the one with more weights."""

Best = Mapping[str, str]
"""Method whose single network does best on the validation subjects, by target."""

PAPER_FORM: Mapping[str, Any] = {"first_stages": "own", "singles_first": "yes"}
"""Form of the MSP as in the paper, so that its first stage is a control."""

SHARED_FORM: Mapping[str, Any] = {"first_stages": "shared", "singles_first": "no"}
"""Form of MSPs of all targets that are one network."""

STEPS = 40
"""Halvings of the interval of widths; far more than an even number of channels needs."""


@dataclass(frozen=True)
class Training:
    """Training of one model, with a log of its events.

    `folder` holds model.safetensors, its checkpoint, and events.jsonl.
    """

    name: str
    folder: Path
    dataset: Path
    settings: TrainingSettings
    device: str

    @property
    def model(self) -> Path:
        """Path of the finished model."""
        return self.folder / "model.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the model exists."""
        return self.model.exists()

    @property
    def weight(self) -> float:
        """Number of steps, times the cost of the kind."""
        epochs = (self.settings.epochs or 0) + (self.settings.unison_epochs or 0)
        steps = epochs * (self.settings.steps_per_epoch or 1) * len(self.settings.targets)
        return network_class(self.settings.kind).cost * max(steps, 1)

    def run(self, tell: OnPart = lambda words, share: None) -> None:
        """Train, from the checkpoint if there is one; events are logged."""
        from napari_msp.learning.train import train

        self.folder.mkdir(parents=True, exist_ok=True)
        events = self.folder / "events.jsonl"
        resume = checkpoint_path(self.model).exists()
        if not resume:
            events.unlink(missing_ok=True)
        with EventLog(events) as log:
            train(
                self.dataset,
                self.model,
                self.settings,
                device=self.device,
                resume=resume,
                progress=log.write,
            )

    def validations(self) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """Return (step, error) on the validation subjects, by phase and target."""
        curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for event in self._validated():
            for target, error in event.validation.items():
                step = event.epoch * (self.settings.steps_per_epoch or 1)
                curves.setdefault(event.phase, {}).setdefault(target, []).append((step, error))
        return curves

    def errors(self) -> dict[str, float]:
        """Return the kept weights' error of each target on the validation subjects.

        The last phase counts.
        """
        found: dict[str, float] = {}
        phases: dict[str, list[Validated]] = {}
        for event in self._validated():
            if event.validation and all(map(math.isfinite, event.validation.values())):
                phases.setdefault(event.phase, []).append(event)
        for events in phases.values():
            found |= min(
                events, key=lambda each: mean_error(each.validation.values()) or 0.0
            ).validation
        for target in self.settings.targets:
            if target not in found:
                problem = f"has no validation error of {target} in events.jsonl"
                remedy = Advice("delete the folder to train again")
                raise UserError(problem, self.folder, remedy=remedy)
        return found

    def _validated(self) -> Iterator[Validated]:
        events = read_events(self.folder / "events.jsonl")
        return (event for event in events if isinstance(event, Validated))


Trainings = dict[str, tuple[Training, ...]]
"""Trainings by target; the mean of their models is a method's prediction."""


def trainings_of(every: Iterable[Trainings]) -> list[Training]:
    """Return the trainings behind some methods; several methods may share one."""
    unique = {
        training.folder: training
        for by_target in every
        for trainings in by_target.values()
        for training in trainings
    }
    return list(unique.values())


@dataclass(frozen=True)
class TrainingList:
    """The trainings of one round."""

    plan: Plan
    round: Round
    folder: Path
    device: str
    scales: Mapping[str, int]

    @property
    def chooses(self) -> bool:
        """Whether a method is asked for that rests on the best single networks."""
        resting = (MSP, SHARED_MSP, BEST_SINGLE, FIRST_STAGE, MORE_WEIGHTS, MEAN_OF_SINGLES)
        return any(method in self.plan.methods for method in resting)

    @property
    def single_methods(self) -> tuple[str, ...]:
        """Single networks to train: all, if the best is to be chosen.

        Without validation, those that an MSP has by default stand for the best.
        """
        needed = {*self.plan.methods}
        if self.chooses and self.round.subjects.validation:
            needed |= {*single_networks()}
        elif self.chooses:
            needed |= {*self.usual.values()}
        return tuple(name for name in single_networks() if name in needed)

    @property
    def at_once(self) -> tuple[str, ...]:
        """Methods whose trainings need no other's result."""
        further = (*multi_task_networks(), *networks_from_base())
        return (*self.single_methods, *(name for name in further if name in self.plan.methods))

    @property
    def usual(self) -> Best:
        """The single network that an MSP has by default, by target."""
        return {target: title(first_stage_kind(scale)) for target, scale in self.scales.items()}

    def networks(self, rates: Rates) -> dict[str, Trainings]:
        """Return the trainings that need no other's result, by method."""
        targets = self.plan.targets
        found = {name: self._network(name, targets, rates[name]) for name in self.at_once}
        if STATISTICS_ONLY in self.plan.methods:
            targets = begun_from_base(MULTI_STAGE, self.scales)
            found[STATISTICS_ONLY] = dict.fromkeys(targets, (self._untrained(targets),))
        return found

    def _network(
        self,
        name: str,
        targets: tuple[str, ...],
        rate: float,
        what: str = "",
        steps: int | None = None,
    ) -> Trainings:
        """Return a training that needs no other's result; from a base, of the targets it has."""
        kind = (single_networks() | multi_task_networks() | networks_from_base())[name]
        changes: dict[str, Any] = {}
        if name in networks_from_base():
            changes = {"start": BASE, "form": {"singles_first": "no"}}
            if kind == MULTI_STAGE:  # as a whole: tuned singles would change what branches read
                targets, changes["first_steps"] = self.plan.targets, 0
            else:
                targets = begun_from_base(kind, self.scales)[: len(targets)]
        training = self._training(what or key_of(name), kind, rate, targets, steps=steps, **changes)
        return dict.fromkeys(targets, (training,))

    def built(
        self, networks: Mapping[str, Trainings], best: Best, rates: Rates
    ) -> dict[str, Trainings]:
        """Return the trainings that rest on the best single networks, by method."""
        first_steps, seed = self.plan.budget.first_steps, self.round.seed
        first, more = key_of(FIRST_STAGE), key_of(MORE_WEIGHTS)

        def again(what: str, target: str, **changes: Any) -> Training:
            """Train a target's best single network anew, with the targets that have the same."""
            alike = tuple(each for each in best if best[each] == best[target])
            return self._training(what, _kind(best[target]), rates[best[target]], alike, **changes)

        builders: dict[str, Callable[[str], tuple[Training, ...]]] = {
            FIRST_STAGE: lambda t: (again(f"{first} {best[t]}", t, steps=first_steps),),
            BEST_SINGLE: lambda t: networks[best[t]][t],
            MORE_WEIGHTS: lambda t: (self._wide(f"{more} {t}", t, best, rates[MORE_WEIGHTS]),),
            MEAN_OF_SINGLES: lambda t: (
                *networks[best[t]][t],
                *(
                    again(f"{best[t]} again {n}", t, seed=seed + n * SEEDS)
                    for n in range(1, len(best))
                ),
            ),
            MSP: lambda _: (self._msp(MSP, best, rates[MSP]),),
            SHARED_MSP: lambda _: (self._msp(SHARED_MSP, best, rates[SHARED_MSP]),),
        }
        return {
            name: {target: build(target) for target in best}
            for name, build in builders.items()
            if name in self.plan.methods
        }

    def trials(self, method: str, rate: float, best: Best | None = None) -> tuple[Training, ...]:
        """Return short trainings of a method with one learning rate, on the tuning targets.

        There are none if only one rate is possible. `best` is used by methods built on single
        networks.
        """
        if len(self.plan.rates_in(self.round)) == 1:
            return ()
        targets, steps = self.plan.tuning_targets, self.plan.budget.tuning_steps
        what = f"trial {key_of(method)} {rate:g}"
        if method not in (MSP, SHARED_MSP, MORE_WEIGHTS):
            return tuple(trainings_of([self._network(method, targets, rate, what, steps)]))
        assert best is not None
        if method == MORE_WEIGHTS:
            return tuple(self._wide(f"{what} {t}", t, best, rate, steps) for t in targets)
        chosen = {target: best[target] for target in targets}
        return (self._msp(method, chosen, rate, what, steps),)

    def _untrained(self, targets: tuple[str, ...]) -> Training:
        """Return the training that keeps the base's weights; nothing to validate."""
        settings = TrainingSettings(
            kind=MULTI_STAGE,
            targets=targets,
            subjects=self.round.subjects.training,
            start_from=BASE,
            steps=0,
            **self._scans,
        )
        return self._named(key_of(STATISTICS_ONLY), settings)

    def _msp(
        self, method: str, best: Best, rate: float, what: str = "", steps: int | None = None
    ) -> Training:
        """Return an MSP's training on the best single kinds, in the paper's or the shared form."""
        shared, budget = method == SHARED_MSP, self.plan.budget
        first_steps = budget.first_steps
        if steps is not None:  # a trial's first stage gets the same share of them
            first_steps = max(budget.epoch, round(first_steps / budget.steps * steps))
        return self._training(
            what or key_of(method),
            MULTI_STAGE,
            rate,
            tuple(best),
            steps=steps,
            first_steps=0 if shared else first_steps,
            first_stage={target: _kind(single) for target, single in best.items()},
            form=SHARED_FORM if shared else PAPER_FORM,
        )

    def _wide(
        self, what: str, target: str, best: Best, rate: float, steps: int | None = None
    ) -> Training:
        kinds = {each: _kind(method) for each, method in best.items()}
        weights = weights_of_msp(kinds, target, self.scales, self.plan.budget.width)
        width = matched_width(kinds[target], target, self.scales, weights)
        return self._training(what, kinds[target], rate, (target,), steps=steps, width=width)

    def _training(
        self,
        what: str,
        kind: str,
        rate: float,
        targets: tuple[str, ...],
        *,
        seed: int | None = None,
        steps: int | None = None,
        first_steps: int | None = None,
        width: float | None = None,
        first_stage: dict[str, str] | None = None,
        start: str = NOTHING,
        form: Mapping[str, Any] = PAPER_FORM,
    ) -> Training:
        """Return a training; `steps`, `first_steps` and `width` replace the budget's own.

        With a start, the width is the start's.
        """
        budget, subjects = self.plan.budget, self.round.subjects
        steps = steps or budget.steps
        first = steps if first_steps is None else first_steps
        settings = TrainingSettings(
            kind=kind,
            preset="fast",
            targets=targets,
            subjects=(*subjects.training, *subjects.validation),
            validation=subjects.validation,
            patience=budget.patience if subjects.validation else None,
            width=(width or budget.width) if start == NOTHING else None,
            start_from=start,
            epochs=budget.epochs(first) if first else None,
            unison_epochs=budget.epochs(steps - first) if kind == MULTI_STAGE else None,
            steps_per_epoch=budget.epoch,
            batch=budget.batch,
            crop=budget.crop,
            learning_rate=rate,
            augmentation="symmetries" if budget.augment else "none",
            first_stage=first_stage or {},
            seed=self.round.seed if seed is None else seed,
            **self._scans,
            **(form if kind == MULTI_STAGE else {}),
        )
        return self._named(what, settings)

    @property
    def _scans(self) -> dict[str, Any]:
        """Settings that say which scans are learned from, the same for all."""
        plan, asked = self.plan, self.plan.asked
        about = {"b0_threshold": asked.b0_threshold, "run": asked.run}
        return {"input": plan.input, "b_value": plan.b_value, **about}

    def _named(self, what: str, settings: TrainingSettings) -> Training:
        folder = self.folder / self.round.folder / what.replace(",", "").replace(" ", "-")
        return Training(
            f"{self.round.name}: {what}", folder, self.round.dataset, settings, self.device
        )


def _kind(method: str) -> str:
    return single_networks()[method]


def weights_of_msp(
    first_stage: Mapping[str, str], target: str, scales: Mapping[str, int], width: float
) -> int:
    """Count the weights of an MSP for one target, from the kind of each target's single network."""
    singles = {
        platform: build_single(kind, target=platform, scales=scales, width=width)
        for platform, kind in first_stage.items()
    }
    return _count(msp.MSP(singles, target, width=width))


def matched_width(kind: str, target: str, scales: Mapping[str, int], weights: int) -> float:
    """Return the width at which a single network has about this many weights, at most full width.

    Widths come in even numbers of channels, so the match is to some per cent; of the two nearest,
    the one with more weights is taken: the control must not be the smaller.
    """
    return _matched_width(kind, target, tuple(scales.items()), weights)


@cache
def _matched_width(
    kind: str, target: str, scales: tuple[tuple[str, int], ...], weights: int
) -> float:
    """Search once for all seeds and rates: it builds some forty networks, in seconds."""

    def count(width: float) -> int:
        return _count(build_single(kind, target=target, scales=dict(scales), width=width))

    low, high = 0.0, 1.0
    if count(high) <= weights:
        return high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if count(middle) >= weights else (middle, high)
    return high


def _count(network: object) -> int:
    return sum(parameter.numel() for parameter in cast(nn.Module, network).parameters())
