"""How many steps fit into a time: measured once at the beginning, so that a run can be resumed."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from napari_msp.errors import Give, UserError
from napari_msp.learning.schedule import EPOCHS, Course

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

    Warns
    -----
    TookLonger
        When it did.
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
    paces
        Of every phase.
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
