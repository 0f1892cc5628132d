"""Presets, learning rates, and the ramp of α."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from napari_msp.learning.settings import TrainingSettings


class Length(NamedTuple):
    """Length of a phase: in steps, or in epochs, whose length depends on the number of voxels."""

    steps: int | None = None
    epochs: int | None = None


_PAPERS = Length(epochs=50)


@dataclass(frozen=True)
class Recipe:
    """How examples are drawn and how fast the weights change.

    The defaults are the paper's: every in-mask voxel centres an 11³ patch, batches of 12, Adam at
    1e-4 divided by √2 every 15 or 25 epochs, at least 50 epochs, channels standardised one by one.
    The fast recipe is our choice throughout.

    Attributes
    ----------
    patch
        Edge of a patch or crop in input voxels.
    length, unison_length
        Lengths of every single network's phase, and of every MSP's phase.
    learning_rate
        Learning rate at the start (paper) or at its peak (fast).
    decay_every
        Epochs between divisions by √2; None: warm-up, then half a cosine down to 0.
    per_order
        Whether to standardise orders, not channels, so that rotations commute with it.
    alpha_ramp
        Share of a unison phase over which α rises from 0 to 1; the paper does not say how long.
    branch_losses
        Whether each branch N_iT(z_i) has its own loss.
    second_weight
        Weight of the second stage's loss; each other loss of a unison phase has weight 1.
    branch_start
        Start of the branches' outputs, see `MSP`.
    first_stages
        Whether each target's MSP has its own single networks, or all share one set.
    sh_units
        Whether to weight the channels of the loss so that it is the error in SH units, which is
        reported; unweighted standardised channels are mostly the noise of the high orders.
    input_skip
        Whether outputs start from the interpolated input: from statistical alignment.
    least_warm_up
        Smallest number of steps over which the rate rises, however short the phase; 0: a share of
        it.
    dense
        Crops with the loss over all their in-mask voxels, instead of a patch per voxel.
    largest_gradient
        Norm to which gradients are clipped; inf: they are not.
    mixed_precision
        Whether a CUDA GPU computes in bfloat16 where it can.
    keeps_activations
        Whether those of a small batch are kept, not computed again in the backward pass.
    averages
        Whether the weights that validation subjects choose among are averages over an epoch.
    may_be_shorter
        Whether validation subjects may end a phase before the preset's length.
    fall
        Share of a phase that they end in which the learning rate falls to 0; 0: it just ends.
    """

    patch: int = 11
    batch: int = 12
    length: Length = _PAPERS
    unison_length: Length = _PAPERS
    learning_rate: float = 1e-4
    decay_every: int | None = 25
    per_order: bool = False
    augment: bool = False
    alpha_ramp: float = 0.5
    branch_losses: bool = False
    second_weight: float = 1.0
    branch_start: Literal["nothing", "input", "first stage"] = "nothing"
    first_stages: Literal["own", "shared"] = "own"
    singles_first: bool = True
    sh_units: bool = False
    input_skip: bool = False
    dense: bool = False
    largest_gradient: float = math.inf
    mixed_precision: bool = False
    keeps_activations: bool = False
    averages: bool = False
    may_be_shorter: bool = False
    fall: float = 0.0
    least_warm_up: int = 0


PAPER = Recipe()

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
    largest_gradient=1.0,
    mixed_precision=True,
    keeps_activations=True,
    averages=True,
    may_be_shorter=True,
    fall=0.2,
)

TUNING: Mapping[str, Any] = {"alpha_ramp": 0.0, "least_warm_up": 30}
"""Differences of a run that starts from a model: its branches are trained, so they count at once;
and Adam's first steps, each as large as the rate allows, must not undo in a short run what the
model had learned. Measured with an SHResNet of the teaching MSP (SH MSE x 1e5), with and without a
least warm-up: 12 steps on heads like its own take 30.2 to 30.1 and 31.2; 30 steps on one head of a
far set reach 16.1 and 15.9. From 300 steps on it is the same.
"""

WARM_UP = 0.1
"""Share of a fast phase during which the learning rate rises (our choice)."""


def recipe_for(settings: TrainingSettings) -> Recipe:
    """Return the preset's recipe with the settings' own values.

    The branches' start follows the augmentation. Few examples let networks
    learn their noise: branches that must make the whole image out of z_i, each with a loss
    of its own, learn less of it. With examples enough, branches that only correct the first
    stage get further in few steps; wide and trained for longer, the others are ahead again (all
    measured: benchmarks/table1.md).
    """
    preset = PAPER if settings.preset == "paper" else FAST
    augment = preset.augment and settings.augmentation != "none"
    start = preset.branch_start if augment else "nothing"
    if settings.branch_start != "preset":
        start = settings.branch_start
    given = Length(settings.steps, settings.epochs)
    given_unison = Length(settings.unison_steps, settings.unison_epochs)
    stages, singles = settings.first_stages, settings.singles_first
    both = any(given) and any(given_unison)  # a given length is obeyed
    singles_first = preset.singles_first or both if singles == "preset" else singles == "yes"
    # Without single networks beforehand, the unison phase has their length.
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
        patch=settings.crop or preset.patch,
        batch=settings.batch or preset.batch,
        length=next(filter(any, (given, preset.length))),
        unison_length=next(filter(any, (given_unison, given, usual))),
        learning_rate=settings.learning_rate or preset.learning_rate,
        decay_every=settings.decay_every or preset.decay_every,
    )


def learning_rate(
    recipe: Recipe, step: int, steps: int, pass_: int, hold: tuple[int, int] | None = None
) -> float:
    """Return the learning rate of one step of a phase, counted from 0.

    Parameters
    ----------
    pass_
        See `Lengths`.
    hold
        For "fast", if the end is not known beforehand: steps of the warm-up, and the step from
        which the rate falls to 0. None: it follows half a cosine.
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
