"""How long a run is: the steps of its phases, and how many are done.

They follow from the settings, or from a time, for which the speed is measured once, at the
beginning, so that a run can be resumed. Some phases end when they no longer improve.
"""

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from napari_msp.errors import Doubt, Give, UserError
from napari_msp.learning.schedule import WARM_UP, Recipe
from napari_msp.learning.settings import MOST, TrainingSettings
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

Count = Annotated[int, Field(gt=0, le=MOST)]


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

    phase: int = Field(default=0, ge=0)
    step: int = Field(default=0, ge=0)
    validated: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    alpha: float | None = Field(default=None, ge=0, le=1)
    errors: dict[str, dict[str, float]] = Field(default_factory=dict)
    validation: dict[str, dict[str, float]] = Field(default_factory=dict)
    loss: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    loss_squares: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    rates: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    trails: dict[str, Trail] = Field(default_factory=dict)
    lengths: dict[str, int] = Field(default_factory=dict)
    fitted: list[Count] | None = Field(default=None, min_length=3, max_length=3)
    falls: int | None = Field(default=None, ge=0)

    def check(self, phases: Mapping[str, int]) -> None:
        """Check that a run whose phases have at most these steps can be at this position."""
        if self.phase >= len(phases):
            raise ValueError(f"phase {self.phase} of {len(phases)}")
        begun = [*phases][: self.phase + 1]
        for name, those in (
            ("errors", self.errors),
            ("validation", self.validation),
            ("trails", self.trails),
            ("lengths", self.lengths),
        ):
            if not set(those) <= set(begun):
                raise ValueError(f"{name} of {', '.join(those)}")
        for phase, length in self.lengths.items():
            if not 0 < length <= phases[phase]:
                raise ValueError(f"{length} steps of {phases[phase]}")
        for phase, trail in self.trails.items():
            done = self.step if phase == begun[-1] else phases[phase]
            if trail.ends and trail.ends[-1] > done:
                raise ValueError(f"an epoch after step {trail.ends[-1]} of {done}")
        steps = self.lengths.get(begun[-1], phases[begun[-1]])
        if self.step > steps:
            raise ValueError(f"step {self.step} of {steps}")
        if self.validated > self.step:
            raise ValueError(f"validated at step {self.validated} of {self.step}")
        if self.falls is not None and self.falls > self.step:
            raise ValueError(f"a falling rate since step {self.falls} of {self.step}")


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
        self._recipe, self._phases, self._in_time = recipe, phases, settings.minutes is not None
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
            self._stretch = 1 if self._in_time else STRETCH

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

    def go_on(self, position: Position) -> None:
        """Continue from a position.

        Raises
        ------
        ValueError
            When this run cannot be there; it then stays where it is.
        """
        if self._in_time and position.fitted is None:
            raise ValueError("it does not say how many steps fit")
        before, self.position = self.position, position
        try:
            position.check(self.longest())
        except ValueError:
            self.position = before
            raise

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

MARGIN = 0.9
"""Share of the time that is planned for: machines have other work."""

VALIDATING = 0.25
"""Share of the time that validation may take, if predicting whole heads is slow."""

TIMED = 5
"""Number of timed steps, after an untimed first one that allocates memory."""

LONGEST = 0.02
"""Share of the time that timing a phase may take."""

LEAST = 10
"""Number of steps of a phase below which it is not begun."""


NOTICED = 1.1
"""Ratio to the given time above which a run took longer: a step may end after it."""


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
    """Time a job: the mean of a few runs, after one that is not counted.

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
    began = clock()
    for number in range(1, TIMED + 1):
        job(number)
        if (passed := clock() - began) > longest:
            break
    return passed / number
