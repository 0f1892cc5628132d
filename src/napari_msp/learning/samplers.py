"""Where examples are taken: a patch around every in-mask voxel, or dense crops.

Sampling is a pure function of (seed, phase, step), so a resumed run draws what an uninterrupted one
would have drawn without storing any generator's state.
"""

from typing import Protocol

import numpy as np

from napari_msp.arrays import IntArray
from napari_msp.learning.patches import Batch, Examples, Symmetry
from napari_msp.learning.schedule import Recipe
from napari_msp.learning.study import Study
from napari_msp.signal.rotation import grid_symmetries


class Sampler(Protocol):
    """Gives the batch of any step of any phase."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        ...

    def batch(self, phase: int, step: int) -> Batch:
        """Give the batch of a step, counted from 0 within its phase."""
        ...


class PatchSampler:
    """Every in-mask voxel centres a patch; an epoch is one pass over them in random order (paper).

    Parameters
    ----------
    examples
        What to cut from.
    edge, batch
        Of a patch in voxels, and patches a step.
    seed
        Of the order.
    voxels_per_head
        A random choice of in-mask voxels that stands for all; None: all.
    """

    def __init__(
        self, examples: Examples, edge: int, batch: int, seed: int, voxels_per_head: int | None
    ) -> None:
        self._examples, self._edge, self._batch, self._seed = examples, edge, batch, seed
        centres = []
        for head, channels in enumerate(examples.inputs):
            inside = np.argwhere(channels.mask.numpy())
            if voxels_per_head is not None and len(inside) > voxels_per_head:
                chosen = np.random.default_rng([seed, head]).choice(
                    len(inside), voxels_per_head, replace=False
                )
                inside = inside[np.sort(chosen)]
            centres.append(np.column_stack([np.full(len(inside), head), inside]))
        self._centres: IntArray = np.concatenate(centres)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; the last batch may be smaller."""
        return -(-len(self._centres) // self._batch)

    def batch(self, phase: int, step: int) -> Batch:
        """Give the batch of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self._seed, phase, epoch]).permutation(len(self._centres))
        chosen = self._centres[order[position * self._batch : (position + 1) * self._batch]]
        places = [(int(row[0]), row[1:] - self._edge // 2) for row in chosen]
        return self._examples.cut(places, self._edge, [None] * len(places), trimmed=True)


class CropSampler:
    """Dense crops around random in-mask voxels, turned by random grid symmetries (our choice).

    Parameters
    ----------
    examples
        What to cut from.
    edge, batch
        Of a crop in input voxels, and crops a step.
    seed
        Of places and symmetries.
    steps_per_epoch
        Steps that count as an epoch; None: as many as cover every in-mask voxel about once.
    augment
        Turn crops.
    """

    def __init__(
        self,
        examples: Examples,
        edge: int,
        batch: int,
        seed: int,
        steps_per_epoch: int | None,
        augment: bool,
    ) -> None:
        self._examples, self._batch, self._seed = examples, batch, seed
        # Crops of one batch must be of one size, and none may be larger than the smallest head.
        self._edge = min(edge, *(n for each in examples.inputs for n in each.mask.shape))
        self._inside = [np.argwhere(each.mask.numpy()) for each in examples.inputs]
        voxels = sum(len(inside) for inside in self._inside)
        self._steps = steps_per_epoch or max(1, round(voxels / (batch * self._edge**3)))
        self._symmetries = [Symmetry(matrix) for matrix in grid_symmetries()] if augment else None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self._steps

    def batch(self, phase: int, step: int) -> Batch:
        """Give the batch of a step."""
        random = np.random.default_rng([self._seed, phase, step])
        places: list[tuple[int, IntArray]] = []
        symmetries: list[Symmetry | None] = []
        for _ in range(self._batch):
            head = int(random.integers(len(self._inside)))
            centre = self._inside[head][random.integers(len(self._inside[head]))]
            last = np.array(self._examples.inputs[head].mask.shape) - self._edge
            places.append((head, np.clip(centre - self._edge // 2, 0, last)))
            turn = random.integers(48)
            symmetries.append(self._symmetries[turn] if self._symmetries else None)
        return self._examples.cut(places, self._edge, symmetries, trimmed=False)


def sampler_for(study: Study, recipe: Recipe) -> Sampler:
    """Give the sampler that a recipe asks for."""
    settings = study.settings
    examples = Examples(study.heads, study.scales, settings.input, study.standardisation)
    if recipe.dense:
        return CropSampler(
            examples,
            recipe.patch,
            recipe.batch,
            settings.seed,
            settings.steps_per_epoch,
            recipe.augment,
        )
    return PatchSampler(
        examples, recipe.patch, recipe.batch, settings.seed, settings.voxels_per_head
    )
