"""Presets, learning rates, the ramp of α, and how many steps fit into a time.

That is measured once, at the beginning, so that a run can be resumed.
"""

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, NamedTuple

from napari_msp.errors import Doubt, Give, UserError
from napari_msp.learning.settings import TrainingSettings


class Length(NamedTuple):
    """How long a phase is: steps, or epochs, each as long as the voxels are many."""

    steps: int | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Recipe:
    """How examples are drawn and how fast the weights move.

    The paper's recipe: every in-mask voxel centres an 11³ patch, batches of 12, Adam at 1e-4
    divided by √2 every 15 or 25 epochs, at least 50 epochs, channels standardised one by one. The
    fast recipe is our choice throughout.

    Attributes
    ----------
    patch
        Edge of a patch or crop in input voxels.
    length, unison_length
        Of every single network's phase, and of every MSP's phase.
    learning_rate
        At the start (paper) or at its peak (fast).
    decay_every
        Epochs between divisions by √2; None: warm-up, then half a cosine down to 0.
    per_order
        Standardise orders, not channels, so that rotations commute with it.
    alpha_ramp
        Part of a unison phase over which α rises from 0 to 1; the paper does not say how long.
    branch_losses
        Give each branch N_iT(z_i) a loss of its own.
    second_weight
        Of the second stage's loss, where each other loss of a unison phase weighs 1.
    branch_start
        What branches start from, see `MSP`.
    first_stages
        Whether each target's MSP has single networks of its own, or all share one set.
    sh_units
        Weigh the channels of the loss so that it is the error in SH units, which is reported;
        unweighted standardised channels are mostly the noise of the high orders.
    input_skip
        Let outputs start from the interpolated input: from statistical alignment.
    least_warm_up
        Steps over which the rate rises at least, however short the phase; 0: a part of it.
    dense
        Crops with the loss over all their in-mask voxels, rather than a patch per voxel.
    """

    patch: int
    batch: int
    length: Length
    unison_length: Length
    learning_rate: float
    decay_every: int | None
    per_order: bool
    augment: bool
    alpha_ramp: float
    branch_losses: bool
    second_weight: float
    branch_start: Literal["nothing", "input", "first stage"]
    first_stages: Literal["own", "shared"]
    singles_first: bool
    sh_units: bool
    input_skip: bool
    dense: bool
    least_warm_up: int = 0


PAPER = Recipe(
    patch=11,
    batch=12,
    length=Length(epochs=50),
    unison_length=Length(epochs=50),
    learning_rate=1e-4,
    decay_every=25,
    per_order=False,
    augment=False,
    alpha_ramp=0.5,
    branch_losses=False,
    second_weight=1.0,
    branch_start="nothing",
    first_stages="own",
    singles_first=True,
    sh_units=False,
    input_skip=False,
    dense=False,
)

FAST = Recipe(
    patch=14,
    batch=4,
    length=Length(steps=3000),
    unison_length=Length(steps=2000),
    learning_rate=1.5e-3,
    decay_every=None,
    per_order=True,
    augment=True,
    alpha_ramp=0.0,
    branch_losses=True,
    second_weight=10.0,
    branch_start="first stage",
    first_stages="shared",
    singles_first=False,
    sh_units=True,
    input_skip=True,
    dense=True,
)

TUNING: Mapping[str, Any] = {"alpha_ramp": 0.0, "least_warm_up": 30}
"""What a run from a model does otherwise: its branches are trained, so they count at once; and the
first steps of Adam, each as large as the rate allows, must not undo in a short run what it had.
Measured with an SHResNet of the teaching MSP (SH MSE x 1e5), with and without a least warm-up: 12
steps on heads like its own take 30.2 to 30.1 and 31.2; 30 steps on one head of a far set reach 16.1
and 15.9. From 300 steps on it is the same.
"""

WARM_UP = 0.1
"""Part of a fast phase during which the learning rate rises (our choice)."""


def recipe_for(settings: TrainingSettings) -> Recipe:
    """Return the preset's recipe with the settings' own values put in.

    What branches start from follows the augmentation in the fast preset. Few examples let networks
    learn their noise: branches that must make the whole image out of z_i, each with a loss
    of its own, learn less of it. With examples enough, branches that only correct the first
    stage get further in few steps; wide and trained for longer, the others are ahead again (all
    measured: benchmarks/table1.md).
    """
    preset = PAPER if settings.preset == "paper" else FAST
    augment = preset.augment and settings.augmentation != "none"
    start = preset.branch_start if augment or not preset.dense else "nothing"
    if settings.branch_start != "preset":
        start = settings.branch_start
    given = Length(settings.steps, settings.epochs)
    given_unison = Length(settings.unison_steps, settings.unison_epochs)
    stages, singles = settings.first_stages, settings.singles_first
    both = any(given) and any(given_unison)  # a length that is given is obeyed
    singles_first = preset.singles_first or both if singles == "preset" else singles == "yes"
    # What needs no single networks beforehand has their steps.
    usual = preset.unison_length if singles_first else preset.length
    return replace(
        preset,
        **({} if settings.starts_from_nothing else TUNING),
        augment=augment,
        branch_start=start,
        first_stages=preset.first_stages if stages == "preset" else stages,
        singles_first=singles_first,
        branch_losses=preset.branch_losses and start != "first stage",
        second_weight=preset.second_weight if start == "first stage" else 1.0,
        patch=(settings.crop or preset.patch) if preset.dense else preset.patch,
        batch=settings.batch or preset.batch,
        length=next(filter(any, (given, preset.length))),
        unison_length=next(filter(any, (given_unison, given, usual))),
        learning_rate=settings.learning_rate or preset.learning_rate,
        decay_every=(settings.decay_every or preset.decay_every) if not preset.dense else None,
    )


@dataclass(frozen=True)
class Course:
    """How the steps of a run are counted.

    Attributes
    ----------
    epoch
        Steps between two validations and checkpoints, and the unit that is shown.
    pass_
        Steps in which every voxel is seen about once, or the epoch that was asked for: what the
        paper's learning rate goes by.
    steps, unison_steps
        Of every single network's phase, and of every MSP's phase, where nothing ends it before.
    patience
        Epochs without a gain on the validation subjects after which a phase ends; None: none does.
    stretch
        How many times longer a phase may be if it ends by that.
    """

    epoch: int
    pass_: int
    steps: int
    unison_steps: int
    patience: int | None = None
    stretch: int = 1


EPOCHS = 30
"""Parts of a phase whose length is a number of steps (our choice): enough to see where it bends, so
few that validating costs little."""


PATIENCE = 5
"""Epochs without a gain after which a phase ends (our choice)."""

STRETCH = 3
"""How many times a preset's length a phase may last that ends by itself (our choice)."""

FALL = 0.2
"""Part of a phase that ends by itself in which the learning rate falls (our choice)."""


def course_for(
    settings: TrainingSettings, recipe: Recipe, pass_: int, unison: Collection[bool] = (False, True)
) -> Course:
    """Return the course of a run whose length is known beforehand.

    Parameters
    ----------
    pass_
        Steps of a sampler's epoch.
    unison
        Of each phase that there is, whether it is an MSP's: others make no epoch longer.
    """
    lengths = (recipe.length, recipe.unison_length)
    steps, unison_steps = (each.steps or (each.epochs or 0) * pass_ for each in lengths)
    longest = max(unison_steps if each else steps for each in unison)
    whole = settings.steps_per_epoch or any(lengths[each].epochs for each in unison)
    given = (settings.steps, settings.unison_steps, settings.epochs, settings.unison_epochs)
    patience, stretch = settings.patience, 1
    if settings.validation and not any(given):
        patience, stretch = patience or PATIENCE, 1 if settings.minutes else STRETCH
    epoch = pass_ if whole else -(-longest // EPOCHS)
    return Course(epoch, pass_, steps, unison_steps, patience, stretch)


def end_of_fall(recipe: Recipe, step: int, most: int, epoch: int) -> int:
    """Return the step at which a phase ends that gains nothing any more after `step`.

    In the fast preset its learning rate falls to 0 first; the paper's is small by then.
    """
    if not recipe.dense:
        return step
    epochs = math.ceil(FALL / (1 - FALL) * step / epoch)
    return min(most, step + epochs * epoch)


def learning_rate(
    recipe: Recipe, step: int, steps: int, pass_: int, hold: tuple[int, int] | None = None
) -> float:
    """Return the learning rate of one step of a phase, counted from 0.

    Parameters
    ----------
    pass_
        See `Course`.
    hold
        fast, where nobody knows the end beforehand: steps of the warm-up, and the step from which
        the rate falls to 0. None: it follows half a cosine.
    """
    if recipe.decay_every is not None:
        return float(recipe.learning_rate / math.sqrt(2) ** (step // pass_ // recipe.decay_every))
    if step + 1 < recipe.least_warm_up:
        whole = replace(recipe, least_warm_up=0)
        rising = recipe.learning_rate * (step + 1) / recipe.least_warm_up
        return min(rising, learning_rate(whole, step, steps, pass_, hold))
    if hold is not None:
        warm_up, falls = hold
        left = (steps - step) / (steps - falls + 1) if step >= falls else 1.0
        return recipe.learning_rate * min((step + 1) / max(1, warm_up), left, 1.0)
    progress = (step + 1) / (steps + 1)
    if progress < WARM_UP:
        return recipe.learning_rate * progress / WARM_UP
    falling = (progress - WARM_UP) / (1 - WARM_UP)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * falling))


def alpha_at(recipe: Recipe, step: int, steps: int) -> float:
    """Return α of one step of a unison phase: from 0 to 1 over its first part, then 1."""
    ramp = recipe.alpha_ramp * steps
    return min(1.0, step / ramp) if ramp > 0 else 1.0


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


NOTICED = 1.1
"""Times what was given from which a run took longer than that: a step may end behind its time."""


class TookLonger(Doubt):
    """A run has not kept to its time."""


def tell_if_longer(seconds: float, passed: float) -> None:
    """Say that a run took noticeably longer (our choice) than the seconds that it was given."""
    if passed > NOTICED * seconds:
        told = f"the run took {passed / 60:.1f} minutes where {seconds / 60:.1f} were given"
        warnings.warn(told, TookLonger, stacklevel=2)


@dataclass(frozen=True)
class Pace:
    """How fast a phase goes: seconds of a step, and of predicting all heads after an epoch.

    `before`: whether they are predicted before the first step, too.
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
    """Return the course that fits into a time.

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
