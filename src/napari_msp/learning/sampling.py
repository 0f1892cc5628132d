"""Examples for a step: standardised cubes cut from heads, around single voxels or as dense crops.

Sampling is a pure function of (seed, phase, step), so a resumed run draws what an uninterrupted one
would have drawn, without a stored generator state.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.data.lattice import Lattice
from napari_msp.learning.distributed import ALONE, OneProcess
from napari_msp.learning.heads import Head, Study
from napari_msp.learning.schedule import Recipe
from napari_msp.learning.settings import TrainingSettings
from napari_msp.signal.channels import GridImage, Standardisation
from napari_msp.signal.spherical_harmonics import grid_symmetries, rotation_matrix


@dataclass(frozen=True, eq=False, repr=False)
class Channels:
    """A platform's image, channels first.

    Attributes
    ----------
    coefficients
        (28, X, Y, Z) float32, not standardised; (28·S, X, Y, Z) for S shells.
    mask
        (X, Y, Z) bool; for a target, where both input and target have brain.
    """

    coefficients: Tensor
    mask: Tensor

    @classmethod
    def of(cls, image: GridImage) -> "Channels":
        """Copy an image's coefficients."""
        coefficients = np.ascontiguousarray(np.moveaxis(image.coefficients, -1, 0))
        return cls(torch.from_numpy(coefficients), torch.from_numpy(image.mask))

    @classmethod
    def nothing(cls, lattice: Lattice, channels: int) -> "Channels":
        """Make a stand-in for a missing scan: no voxel counts. It needs no memory."""
        nowhere = torch.zeros((), dtype=torch.bool).expand(lattice.shape)
        return cls(torch.zeros(()).expand(channels, *lattice.shape), nowhere)


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Standardised examples.

    Attributes
    ----------
    input
        (B, 28·S, p, p, p) input.
    targets
        (B, 28·S, q, q, q) for each platform, q = k(p-1)+1, minus a margin of `trim` at each end.
    masks
        (B, 1, q, q, q) bool for each platform: where the loss counts.
    trim
        Voxels cut off each end of a prediction before it is compared.
    """

    input: Tensor
    targets: dict[str, Tensor]
    masks: dict[str, Tensor]
    trim: dict[str, int]

    def voxels(self) -> Tensor:
        """Count voxels of the input, and in each platform's mask, (1 + platforms,)."""
        masks = [mask.sum() for mask in self.masks.values()]
        return torch.stack([torch.full_like(masks[0], self.input[:, 0].numel()), *masks])

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on a device."""
        return replace(
            self,
            input=self.input.to(device),
            targets={name: value.to(device) for name, value in self.targets.items()},
            masks={name: value.to(device) for name, value in self.masks.items()},
        )


class Examples:
    """Cuts standardised examples out of heads.

    Parameters
    ----------
    source, standardisation
        The input platform's name, and the statistics of all platforms.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        scales: Mapping[str, int],
        source: str,
        standardisation: Mapping[str, Standardisation],
    ) -> None:
        self.scales, self._source, self._standardisation = dict(scales), source, standardisation
        self.inputs = [Channels.of(head.input) for head in heads]
        self._images = {source: self.inputs} | {
            target: [
                Channels.of(head.targets[target])
                if target in head.targets
                else Channels.nothing(
                    head.input.lattice.refined(scale), head.input.coefficients.shape[-1]
                )
                for head in heads
            ]
            for target, scale in scales.items()
        }
        self._taught = [set(head.targets) for head in heads]

    def teaching(self, platforms: Collection[str] | None) -> list[int]:
        """Return the heads that were scanned on any of these targets; None: all heads."""
        wanted = self.scales if platforms is None else platforms
        return [n for n, taught in enumerate(self._taught) if not taught.isdisjoint(wanted)]

    def cut(
        self,
        places: Sequence[tuple[int, IntArray]],
        edge: int,
        symmetries: Sequence["Symmetry | None"],
        trimmed: bool,
        platforms: Collection[str] | None = None,
    ) -> Batch:
        """Cut a batch.

        Parameters
        ----------
        places
            Head and first voxel of each example, in input voxels; parts outside the volume are 0.
        edge
            Edge of an example in input voxels.
        symmetries
            Grid symmetry that is applied to each example before standardising.
        trimmed
            Whether to leave out k-1 target voxels at each end: the paper's central 19 of 21.
        platforms
            Targets to cut; None: all.
        """
        trim = {target: (scale - 1) * trimmed for target, scale in self.scales.items()}

        def cubes(platform: str, scale: int = 1, margin: int = 0) -> tuple[Tensor, Tensor]:
            """Cut one platform's part of every example, standardised, with its mask."""
            size, known = scale * (edge - 1) + 1 - 2 * margin, self._standardisation[platform]
            mean, deviation = (
                torch.from_numpy(each).view(-1, 1, 1, 1) for each in (known.mean, known.deviation)
            )
            values = torch.empty(len(places), len(mean), *[size] * 3)
            masks = torch.empty(len(places), 1, *[size] * 3, dtype=torch.bool)
            for number, (head, start) in enumerate(places):
                cut = _take(self._images[platform][head], scale * start + margin, size)
                symmetry = symmetries[number]
                coefficients, mask = cut if symmetry is None else symmetry(*cut)
                values[number], masks[number] = (coefficients - mean) / deviation * mask, mask
            return values, masks

        targets = {
            target: cubes(target, scale, trim[target])
            for target, scale in self.scales.items()
            if platforms is None or target in platforms
        }
        return Batch(
            cubes(self._source)[0],
            {target: values for target, (values, _) in targets.items()},
            {target: masks for target, (_, masks) in targets.items()},
            trim,
        )


class Symmetry:
    """A grid symmetry, a (3, 3) signed permutation, applied to an example's voxels and its SH."""

    def __init__(self, matrix: FloatArray) -> None:
        goes_to = np.abs(matrix).argmax(axis=0)  # input axis j becomes output axis goes_to[j]
        self._sources = [int(np.flatnonzero(goes_to == axis)[0]) for axis in range(3)]
        self._flipped = [axis for axis in range(3) if matrix[axis].sum() < 0]
        self._mixing = torch.from_numpy(rotation_matrix(matrix).astype(np.float32))

    def __call__(self, coefficients: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Transform (28·S, p, p, p) coefficients, each shell alike, and a (p, p, p) mask."""
        moved = coefficients.permute(0, *(axis + 1 for axis in self._sources))
        moved = moved.flip([axis + 1 for axis in self._flipped])
        shells = torch.split(moved, len(self._mixing))
        turned = [self._mixing @ shell.flatten(1) for shell in shells]
        return torch.cat(turned).view(moved.shape), mask.permute(*self._sources).flip(self._flipped)


@cache
def _every_symmetry() -> tuple[Symmetry, ...]:
    """Return a grid's 48 symmetries, made once, as solving for their SH matrices takes a while."""
    return tuple(Symmetry(matrix) for matrix in grid_symmetries())


def _take(channels: Channels, start: IntArray, size: int) -> tuple[Tensor, Tensor]:
    """Cut a cube; parts outside the volume are 0 and outside the mask."""
    shape = channels.mask.shape
    parts = tuple(
        slice(max(int(first), 0), min(int(first) + size, length))
        for first, length in zip(start, shape, strict=True)
    )
    padding: list[int] = []
    for first, length in reversed(list(zip(start, shape, strict=True))):
        padding += [max(-int(first), 0), max(int(first) + size - length, 0)]
    values = channels.coefficients[(slice(None), *parts)]
    mask = channels.mask[parts]
    if any(padding):
        values, mask = functional.pad(values, padding), functional.pad(mask, padding)
    return values, mask


class Sampler(ABC):
    """Provides the batch of any step of any phase.

    Parameters
    ----------
    recipe, settings
        Edge and number of the examples of a step, and how they are drawn.
    processes
        Processes that share a batch; the whole batch is drawn.

    Attributes
    ----------
    steps_per_epoch
        Steps of one epoch.
    """

    steps_per_epoch: int

    def __init__(
        self,
        examples: Examples,
        recipe: Recipe,
        settings: TrainingSettings,
        processes: OneProcess = ALONE,
    ) -> None:
        self._examples, self._processes, self._seed = examples, processes, settings.seed
        self._edge, self._batch = recipe.patch, recipe.batch
        self._prepare(recipe, settings)

    @abstractmethod
    def _prepare(self, recipe: Recipe, settings: TrainingSettings) -> None:
        """Find the voxels to draw from, and the steps of an epoch."""

    @abstractmethod
    def batch(self, phase: int, step: int, platforms: Collection[str] | None = None) -> Batch:
        """Return the batch of a step, counted from 0 within its phase.

        Parameters
        ----------
        platforms
            Targets that the phase learns: examples come from heads that were scanned on any of
            them. None: from all heads.
        """


class PatchSampler(Sampler):
    """Every in-mask voxel centres a patch; each pass over them has a random order (paper).

    An epoch is a pass, unless its number of steps is given.
    """

    def _prepare(self, recipe: Recipe, settings: TrainingSettings) -> None:
        self._centres: list[IntArray] = []
        for head, channels in enumerate(self._examples.inputs):
            inside = np.argwhere(channels.mask.numpy())
            most = settings.voxels_per_head
            if most is not None and len(inside) > most:
                random = np.random.default_rng([self._seed, head])
                chosen = random.choice(len(inside), most, replace=False)
                inside = inside[np.sort(chosen)]
            self._centres.append(np.column_stack([np.full(len(inside), head), inside]))
        self.steps_per_epoch = settings.steps_per_epoch or self._steps_over(
            range(len(self._centres))
        )
        self._pass: tuple[Any, IntArray] = (None, self._centres[0])

    def _steps_over(self, heads: Iterable[int]) -> int:
        return -(-sum(len(self._centres[head]) for head in heads) // self._batch)

    def _in_order(self, phase: int, pass_: int, heads: Sequence[int]) -> IntArray:
        """Return all centres in the order of a pass; the last pass is cached for the next steps."""
        if self._pass[0] != (phase, pass_, heads):
            centres = np.concatenate([self._centres[head] for head in heads])
            order = np.random.default_rng([self._seed, phase, pass_]).permutation(len(centres))
            self._pass = ((phase, pass_, heads), centres[order])
        return self._pass[1]

    def batch(self, phase: int, step: int, platforms: Collection[str] | None = None) -> Batch:
        """Return the batch of a step."""
        heads = self._examples.teaching(platforms)
        pass_, position = divmod(step, self._steps_over(heads))
        centres = self._in_order(phase, pass_, heads)
        chosen = centres[position * self._batch : (position + 1) * self._batch]
        mine = chosen[self._processes.share(len(chosen))]
        places = [(int(row[0]), row[1:] - self._edge // 2) for row in mine]
        return self._examples.cut(places, self._edge, [None] * len(places), True, platforms)


class CropSampler(Sampler):
    """Dense crops around random in-mask voxels, with random grid symmetries (our choice).

    An epoch's crops cover every in-mask voxel about once, unless its number of steps is given.
    """

    def _prepare(self, recipe: Recipe, settings: TrainingSettings) -> None:
        inputs = self._examples.inputs
        # Crops of one batch must have one size, and none may be larger than the smallest head.
        self._edge = min(recipe.patch, *(n for each in inputs for n in each.mask.shape))
        self._inside = [np.argwhere(each.mask.numpy()) for each in inputs]
        voxels = sum(len(inside) for inside in self._inside)
        covering = max(1, round(voxels / (self._batch * self._edge**3)))
        self.steps_per_epoch = settings.steps_per_epoch or covering
        self._symmetries = _every_symmetry() if recipe.augment else None

    def batch(self, phase: int, step: int, platforms: Collection[str] | None = None) -> Batch:
        """Return the batch of a step."""
        heads = self._examples.teaching(platforms)
        random = np.random.default_rng([self._seed, phase, step])
        places: list[tuple[int, IntArray]] = []
        symmetries: list[Symmetry | None] = []
        for _ in range(self._batch):
            head = heads[int(random.integers(len(heads)))]
            centre = self._inside[head][random.integers(len(self._inside[head]))]
            last = np.array(self._examples.inputs[head].mask.shape) - self._edge
            places.append((head, np.clip(centre - self._edge // 2, 0, last)))
            turn = random.integers(48)
            symmetries.append(self._symmetries[turn] if self._symmetries else None)
        mine = self._processes.share(self._batch)
        return self._examples.cut(places[mine], self._edge, symmetries[mine], False, platforms)


def smaller_crops(study: Study, recipe: Recipe) -> list[str]:
    """Return a text if an image makes all crops smaller than intended, and whose it is."""
    lengths = {head.subject: min(head.input.lattice.shape) for head in study.heads}
    smallest = min(lengths, key=lambda each: lengths[each])
    if not recipe.dense or lengths[smallest] >= recipe.patch:
        return []
    return [
        f"crops have an edge of {lengths[smallest]} voxels instead of {recipe.patch}, because the "
        f"image of {smallest} is no larger along one axis"
    ]


def sampler_for(study: Study, recipe: Recipe, processes: OneProcess = ALONE) -> Sampler:
    """Return the sampler for a recipe."""
    settings = study.settings
    examples = Examples(study.heads, study.scales, settings.input, study.standardisation)
    sampler = CropSampler if recipe.dense else PatchSampler
    return sampler(examples, recipe, settings, processes)
