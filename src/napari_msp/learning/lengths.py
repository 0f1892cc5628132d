"""How long each phase of a run is: as far as is known by now, and what fits into a time.

Some end when nothing is gained. How many steps fit is measured once, at the beginning, so that a
run can be resumed.
"""

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from napari_msp.errors import Give, UserError
from napari_msp.learning.checkpoint import Position
from napari_msp.learning.phases import Phase
from napari_msp.learning.schedule import EPOCHS, FALL, WARM_UP, Course, Recipe


class Lengths:
    """Counts the steps of a run.

    Parameters
    ----------
    recipe, course, phases
        Of the run. The course may be replaced before the first step.
    validated
        Names of the phases whose targets validation subjects were scanned on.
    position
        Where the run is; it knows which phases ended before their time.
    """

    def __init__(
        self,
        recipe: Recipe,
        course: Course,
        phases: Sequence[Phase],
        validated: Collection[str],
        position: Position,
    ) -> None:
        self._recipe, self._phases = recipe, phases
        self.course, self.validated, self.position = course, validated, position

    def usual(self, phase: Phase) -> int:
        """Give the steps of a phase that nothing ends before its time."""
        return self.course.unison_steps if phase.unison else self.course.steps

    def most(self, phase: Phase) -> int:
        """Give the steps of a phase at most."""
        return self.usual(phase) * (self.course.stretch if self.ends_itself(phase) else 1)

    def steps(self, phase: Phase) -> int:
        """Give the steps of a phase, as far as is known by now."""
        return self.position.lengths.get(phase.name, self.most(phase))

    def longest(self) -> dict[str, int]:
        """Give the steps of each phase at most, by its name."""
        return {phase.name: self.most(phase) for phase in self._phases}

    @property
    def done(self) -> int:
        """Steps done in all phases."""
        before = self._phases[: self.position.phase]
        return sum(map(self.steps, before)) + self.position.step

    @property
    def all(self) -> int:
        """Steps of all phases, as far as is known by now."""
        return sum(map(self.steps, self._phases))

    @property
    def epoch(self) -> int:
        """Number of the epoch that ends, or has ended, with the last step."""
        return -(-self.position.step // self.course.epoch)

    def epoch_ends(self, phase: Phase) -> bool:
        """Tell whether the last step was the last of an epoch."""
        step = self.position.step
        return step > 0 and (step % self.course.epoch == 0 or step == self.steps(phase))

    def ends_itself(self, phase: Phase) -> bool:
        """Tell whether a phase ends when nothing is gained on the validation subjects."""
        return self.course.patience is not None and phase.name in self.validated

    def may_end(self, phase: Phase) -> bool:
        """Tell whether it may be decided now that a phase ends before its time."""
        step = self.position.step
        if not self.ends_itself(phase) or self.position.falls is not None:
            return False
        # The paper trains for so many epochs at least.
        least = self.usual(phase) if self.course.stretch > 1 and not self._recipe.dense else 0
        return least <= step < self.most(phase) * (1 - FALL if self._recipe.dense else 1)

    def hold(self, phase: Phase) -> tuple[int, int] | None:
        """Give the steps at which warm-up ends and the fall begins, as `learning_rate` takes them.

        None where a phase has a fixed length, which says both.
        """
        if not self.ends_itself(phase):
            return None
        falls = self.position.falls
        last = round((1 - FALL) * self.most(phase))
        return round(WARM_UP * self.usual(phase)), last if falls is None else falls


# --- What fits into a time --------------------------------------------------------------------

MARGIN = 0.9
"""Part of the time that is planned with: machines have other things to do."""

VALIDATING = 0.25
"""Part of the time that validating may take, where predicting whole heads is slow."""

TIMED = 5
"""Steps that are timed, after one that is not: the first one allocates."""

LONGEST = 0.02
"""Part of the time that timing a phase may take."""


LEAST = 10
"""Steps of a phase below which it is not begun."""


class TookLonger(UserWarning):
    """A run has not kept to its time."""


def tell_if_longer(seconds: float, passed: float) -> None:
    """Say that a run took longer than it was given.

    Parameters
    ----------
    seconds, passed
        Time that was given, and that the run took.
    """
    if passed > seconds:
        told = f"the run took {passed / 60:.1f} minutes where {seconds / 60:.1f} were given"
        warnings.warn(told, TookLonger, stacklevel=2)


@dataclass(frozen=True)
class Pace:
    """How fast a phase goes.

    Attributes
    ----------
    unison
        Whether it is an MSP's.
    step, validation
        Seconds of a step, and of predicting all heads that are to be predicted after an epoch.
    before
        Whether they are predicted before the first step, too.
    """

    unison: bool
    step: float
    validation: float
    before: bool = False


def seconds_of(
    job: Callable[[int], object], longest: float, clock: Callable[[], float] = perf_counter
) -> float:
    """Time a job: the mean of a few times, after one that is not counted.

    Parameters
    ----------
    job
        Is given the number of the time, from 0.
    longest
        Seconds after which it is not done again.
    clock
        What they are measured by.
    """
    job(0)
    began = clock()
    for number in range(1, TIMED + 1):
        job(number)
        if (passed := clock() - began) > longest:
            break
    return passed / number


def fitted(course: Course, paces: Sequence[Pace], seconds: float, passed: float) -> Course:
    """Give the course that fits into a time.

    All phases become shorter or longer by the same factor.

    Parameters
    ----------
    course
        Its steps only say how long phases are beside each other.
    seconds, passed
        Time for the run, and what has passed of it.

    Raises
    ------
    UserError
        When not even a few steps of each phase fit.
    """
    share = {False: 1.0, True: course.unison_steps / course.steps}
    planned = MARGIN * (seconds - passed)
    validation = sum(pace.validation for pace in paces)
    before = sum(pace.validation for pace in paces if pace.before)
    epochs = EPOCHS
    if validation > 0:
        epochs = max(1, min(EPOCHS, int((VALIDATING * planned - before) / validation)))
    of_a_step = sum(share[pace.unison] * pace.step for pace in paces)
    steps = int((planned - before - epochs * validation) / of_a_step)
    unison_steps = max(1, round(share[True] * steps))
    if steps < LEAST:
        needed = (LEAST * of_a_step + before + validation) / MARGIN + passed
        problem = f"not even {LEAST} steps of every phase fit"
        remedy = Give("minutes", f"at least {math.ceil(needed / 6) / 10:g}")
        raise UserError(problem, field="minutes", remedy=remedy)
    longest = max(unison_steps if pace.unison else steps for pace in paces)
    return replace(course, epoch=-(-longest // epochs), steps=steps, unison_steps=unison_steps)
