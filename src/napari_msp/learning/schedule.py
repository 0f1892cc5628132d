"""Presets, learning rates and the ramp of α."""

import math
from dataclasses import dataclass

from napari_msp.learning.settings import TrainingSettings


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
    batch
        Patches or crops a step.
    epochs, unison_epochs
        Of every single network's phase, and of every MSP's phase.
    learning_rate
        At the start (paper) or at its peak (fast).
    decay_every
        Epochs between divisions by √2; None: warm-up, then half a cosine down to 0.
    per_order
        Standardise orders, not channels, so that rotations commute with it.
    augment
        Turn crops by grid symmetries.
    branch_losses
        Give each branch N_iT(z_i) a loss of its own.
    sh_units
        Weigh the channels of the loss so that it is the error in SH units, which is reported;
        unweighted standardised channels are mostly the noise of the high orders.
    input_skip
        Let outputs start from the interpolated input: from statistical alignment.
    dense
        Crops with the loss over all their in-mask voxels, rather than a patch per voxel.
    """

    patch: int
    batch: int
    epochs: int
    unison_epochs: int
    learning_rate: float
    decay_every: int | None
    per_order: bool
    augment: bool
    branch_losses: bool
    sh_units: bool
    input_skip: bool
    dense: bool


PAPER = Recipe(
    patch=11,
    batch=12,
    epochs=50,
    unison_epochs=50,
    learning_rate=1e-4,
    decay_every=25,
    per_order=False,
    augment=False,
    branch_losses=False,
    sh_units=False,
    input_skip=False,
    dense=False,
)

FAST = Recipe(
    patch=14,
    batch=4,
    epochs=30,
    unison_epochs=20,
    learning_rate=1.5e-3,
    decay_every=None,
    per_order=True,
    augment=True,
    branch_losses=True,
    sh_units=True,
    input_skip=True,
    dense=True,
)

WARM_UP = 0.1
"""Part of a fast phase during which the learning rate rises (our choice)."""

ALPHA_RAMP = 0.5
"""Part of the unison phase over which α rises from 0 to 1; the paper does not say (our choice)."""


def recipe_for(settings: TrainingSettings) -> Recipe:
    """Give the preset's recipe with the settings' own values put in."""
    preset = PAPER if settings.preset == "paper" else FAST
    return Recipe(
        patch=(settings.crop or preset.patch) if preset.dense else preset.patch,
        batch=settings.batch or preset.batch,
        epochs=settings.epochs or preset.epochs,
        unison_epochs=settings.unison_epochs or settings.epochs or preset.unison_epochs,
        learning_rate=settings.learning_rate or preset.learning_rate,
        decay_every=(settings.decay_every or preset.decay_every) if not preset.dense else None,
        per_order=preset.per_order,
        augment=preset.augment,
        branch_losses=preset.branch_losses,
        sh_units=preset.sh_units,
        input_skip=preset.input_skip,
        dense=preset.dense,
    )


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Give the learning rate of one step of a phase, counted from 0."""
    if recipe.decay_every is not None:
        epoch = step // steps_per_epoch
        return float(recipe.learning_rate / math.sqrt(2) ** (epoch // recipe.decay_every))
    progress = (step + 1) / (steps_per_epoch * epochs + 1)
    if progress < WARM_UP:
        return recipe.learning_rate * progress / WARM_UP
    falling = (progress - WARM_UP) / (1 - WARM_UP)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * falling))


def alpha_ramp(step: int, steps: int) -> float:
    """Give α of one step of a unison phase: from 0 to 1 over its first part, then 1."""
    return min(1.0, step / max(1.0, ALPHA_RAMP * steps))
