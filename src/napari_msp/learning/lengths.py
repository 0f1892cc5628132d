"""How long a run is: the steps of its phases, and how many are done.

They follow from the settings, or from a time, for which the speed is measured once, at the
beginning, so that a run can be resumed. Some phases end when they no longer improve.
"""

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from napari_msp.errors import Doubt, Give, UserError
from napari_msp.learning.schedule import WARM_UP, Recipe
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.trail import Trail

if TYPE_CHECKING:
    from napari_msp.learning.phases import Phase

EPOCHS = 30
"""Epochs of a phase whose length is a number of steps (our choice): enough to see its curve, so few
that validating costs little."""

PATIENCE = 5
"""Epochs without improvement after which a phase ends (our choice)."""

STRETCH = 3
"""Multiple of a preset's length that a phase may last if it can end early (our choice)."""

MARGIN = 0.9
"""Share of the time that is planned for: machines have other work."""

VALIDATING = 0.25
"""Share of the time that validation may take, if predicting whole heads is slow."""

TIMED = 10
"""Largest number of timed steps, after an untimed first one that allocates memory."""

LONGEST = 0.1
"""Share of the time that timing all phases may take."""

LEAST = 10
"""Number of steps of a phase below which it is not begun."""

NOTICED = 1.1
"""Ratio to the given time above which a run took longer: a step may end after it."""


class Position(BaseModel):
    """How far a run has come.

    Attributes
    ----------
    phase, step, validated
        Index of the current phase, steps done in it, and after which of them it was last validated.
    alpha
        α of the last step; None while single networks are trained.
    errors, validation
        Errors of the weights that each phase keeps so far, by target, on held-out and on validation
        subjects; nan if they could not be measured.
    loss, loss_squares, rates
        Sums of the losses, of their squares, and of the learning rates since the end of the last
        epoch.
    lengths
        Steps of phases that ended early.
    fitted
        Steps of an epoch, of a single network's phase and of an MSP's, if they were fitted into a
        time; None: they follow from the settings.
    falls
        Step of the current phase from which its learning rate falls, once that is known.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    phase: int = 0
    step: int = 0
    validated: int = 0
    seconds: float = 0.0
    alpha: float | None = None
    errors: dict[str, dict[str, float]] = Field(default_factory=dict)
    validation: dict[str, dict[str, float]] = Field(default_factory=dict)
    loss: float = 0.0
    loss_squares: float = 0.0
    rates: float = 0.0
    trails: dict[str, Trail] = Field(default_factory=dict)
    lengths: dict[str, int] = Field(default_factory=dict)
    fitted: list[int] | None = None
    falls: int | None = None


class Lengths:
    """The steps of a run's phases, by its position.

    Parameters
    ----------
    pass_
        Steps of a sampler's epoch: those in which every voxel is seen about once, or the epoch that
        was asked for. The paper's learning rate goes by them.
    validated
        Names of the phases whose targets have scans of validation subjects.

    Attributes
    ----------
    position
        How far the run has come.
    patience
        Epochs without improvement on the validation subjects that end a phase; None: none do.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        recipe: Recipe,
        pass_: int,
        phases: Sequence["Phase"],
        validated: Collection[str] = (),
    ) -> None:
        self._recipe, self._phases = recipe, phases
        self.pass_, self.validated, self.position = pass_, validated, Position()
        lengths = (recipe.length, recipe.unison_length)
        steps = [each.steps or (each.epochs or 0) * pass_ for each in lengths]
        kinds = {phase.unison for phase in phases}  # others do not affect the epoch's length
        whole = settings.steps_per_epoch or any(lengths[unison].epochs for unison in kinds)
        epoch = pass_ if whole else -(-max(steps[unison] for unison in kinds) // EPOCHS)
        self._planned = [epoch, *steps]
        given = (settings.steps, settings.unison_steps, settings.epochs, settings.unison_epochs)
        self.patience, self._stretch = settings.patience, 1
        if settings.validation and not any(given):
            self.patience = self.patience or PATIENCE
            self._stretch = STRETCH if settings.minutes is None else 1

    @property
    def per_epoch(self) -> int:
        """Steps between two validations and checkpoints, and the unit of display."""
        return (self.position.fitted or self._planned)[0]

    def usual(self, phase: "Phase") -> int:
        """Return the steps of a phase that nothing ends early."""
        _, steps, unison_steps = self.position.fitted or self._planned
        return unison_steps if phase.unison else steps

    def most(self, phase: "Phase") -> int:
        """Return the largest number of steps of a phase."""
        return self.usual(phase) * (self._stretch if self.ends_itself(phase) else 1)

    def steps(self, phase: "Phase") -> int:
        """Return the steps of a phase, as far as known yet."""
        return self.position.lengths.get(phase.name, self.most(phase))

    def longest(self) -> dict[str, int]:
        """Return the largest number of steps of each phase, by name."""
        return {phase.name: self.most(phase) for phase in self._phases}

    @property
    def done(self) -> int:
        """Steps done in all phases."""
        before = self._phases[: self.position.phase]
        return sum(map(self.steps, before)) + self.position.step

    @property
    def all(self) -> int:
        """Steps of all phases, as far as known yet."""
        return sum(map(self.steps, self._phases))

    @property
    def epoch(self) -> int:
        """Number of the epoch that ends, or has ended, with the last step."""
        return -(-self.position.step // self.per_epoch)

    def epoch_ends(self, phase: "Phase") -> bool:
        """Return whether the last step was the last of an epoch."""
        step = self.position.step
        return step > 0 and (step % self.per_epoch == 0 or step == self.steps(phase))

    def ends_itself(self, phase: "Phase") -> bool:
        """Return whether a phase ends when the validation subjects show no improvement."""
        return self.patience is not None and phase.name in self.validated

    def may_end(self, phase: "Phase") -> bool:
        """Return whether a phase may end early now."""
        step = self.position.step
        if not self.ends_itself(phase) or self.position.falls is not None:
            return False
        as_given = self._stretch > 1 and not self._recipe.may_be_shorter
        least = self.usual(phase) if as_given else 0  # the paper's minimum number of epochs
        return least <= step < self.most(phase) * (1 - self._recipe.fall)

    def end(self, phase: "Phase") -> None:
        """Let a phase end that no longer improves, as soon as its learning rate has fallen."""
        step, fall = self.position.step, self._recipe.fall
        epochs = math.ceil(fall / (1 - fall) * step / self.per_epoch)
        self.position.falls = step
        self.position.lengths[phase.name] = min(self.most(phase), step + epochs * self.per_epoch)

    def hold(self, phase: "Phase") -> tuple[int, int] | None:
        """Return the steps at which warm-up ends and the fall begins, for `learning_rate`.

        None where a phase has a fixed length, from which both follow.
        """
        if not self.ends_itself(phase):
            return None
        falls = self.position.falls
        last = round((1 - self._recipe.fall) * self.most(phase))
        return round(WARM_UP * self.usual(phase)), last if falls is None else falls

    def fitted(self, paces: Sequence["Pace"], seconds: float, passed: float) -> list[int]:
        """Return `Position.fitted` for a time: all phases are longer or shorter by one factor.

        Parameters
        ----------
        paces
            Speed of each phase.
        seconds, passed
            Time for the run, and the part of it that has passed.

        Raises
        ------
        UserError
            When not even a few steps of each phase fit.
        """
        unison = [phase.unison for phase in self._phases]
        share = (1.0, self._planned[2] / self._planned[1])
        planned = MARGIN * (seconds - passed)
        validation = sum(pace.validation for pace in paces)
        before = sum(pace.validation for pace in paces if pace.before)
        epochs = EPOCHS
        if validation > 0:
            epochs = max(1, min(EPOCHS, int((VALIDATING * planned - before) / validation)))
        of_a_step = sum(share[u] * pace.step for u, pace in zip(unison, paces, strict=True))
        steps = int((planned - before - epochs * validation) / of_a_step)
        unison_steps = max(1, round(share[True] * steps))
        if steps < LEAST:
            needed = (LEAST * of_a_step + before + validation) / MARGIN + passed
            problem = f"not even {LEAST} steps of every phase fit"
            remedy = Give("minutes", f"at least {math.ceil(needed / 6) / 10:g}")
            raise UserError(problem, field="minutes", remedy=remedy)
        longest = max(unison_steps if each else steps for each in unison)
        return [-(-longest // epochs), steps, unison_steps]


# --- What fits into a time --------------------------------------------------------------------


def what_fits(steps: int, minutes: float) -> str:
    """Write how many steps were planned for a time, and why so many."""
    return f"{steps:,} steps fit {minutes:g} min at the speed measured at the start"


class TookLonger(Doubt):
    """A run has exceeded its time."""


def tell_if_longer(seconds: float, passed: float) -> None:
    """Warn if a run took noticeably longer (our choice) than the given seconds."""
    if passed > NOTICED * seconds:
        told = f"the run took {passed / 60:.1f} minutes instead of the {seconds / 60:.1f} given"
        warnings.warn(told, TookLonger, stacklevel=2)


class Pace(NamedTuple):
    """Speed of a phase: seconds per step, and per prediction of all heads after an epoch.

    `before`: whether heads are also predicted before the first step.
    """

    step: float
    validation: float
    before: bool = False


def seconds_of(
    job: Callable[[int], object], longest: float, clock: Callable[[], float] = perf_counter
) -> float:
    """Time a job: the median of some runs, after one that is not counted.

    The median, as a machine that is busy for a moment makes single runs slow, and the number of
    steps is fixed by it.

    Parameters
    ----------
    job
        Called with the number of the run, from 0.
    longest
        Seconds after which it is not repeated.
    clock
        Clock to measure with.
    """
    job(0)
    times = [clock()]
    for number in range(1, TIMED + 1):
        job(number)
        times.append(clock())
        if times[-1] - times[0] > longest:
            break
    return median(end - began for began, end in pairwise(times))
