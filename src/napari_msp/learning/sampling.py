"""Examples for a step: standardised cubes cut from heads, around single voxels or as dense crops.

Sampling is a pure function of (seed, phase, step), so a resumed run draws what an uninterrupted one
would have drawn, without a stored generator state.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.data.lattice import Lattice
from napari_msp.learning.distributed import ALONE, OneProcess
from napari_msp.learning.heads import Head, Study
from napari_msp.learning.schedule import Recipe
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
        self.scales = dict(scales)
        self.inputs = [Channels.of(head.input) for head in heads]
        self.targets = [
            {
                target: Channels.of(head.targets[target])
                if target in head.targets
                else Channels.nothing(
                    head.input.lattice.refined(scale), head.input.coefficients.shape[-1]
                )
                for target, scale in scales.items()
            }
            for head in heads
        ]
        self._taught = [set(head.targets) for head in heads]
        self._input_scaler = _Scaler(standardisation[source])
        self._scalers = {target: _Scaler(standardisation[target]) for target in scales}

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
        where = [
            (head, start, symmetry)
            for (head, start), symmetry in zip(places, symmetries, strict=True)
        ]
        inputs = torch.empty(len(where), self._input_scaler.channels, *[edge] * 3)
        for number, (head, start, symmetry) in enumerate(where):
            cut = _turned(_take(self.inputs[head], start, edge), symmetry)
            inputs[number] = self._input_scaler(*cut)
        targets: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for target, scale in self.scales.items():
            if platforms is not None and target not in platforms:
                continue
            size = scale * (edge - 1) + 1 - 2 * trim[target]
            scaler = self._scalers[target]
            targets[target] = torch.empty(len(where), scaler.channels, *[size] * 3)
            masks[target] = torch.empty(len(where), 1, *[size] * 3, dtype=torch.bool)
            for number, (head, start, symmetry) in enumerate(where):
                first = scale * start + trim[target]
                cut = _turned(_take(self.targets[head][target], first, size), symmetry)
                targets[target][number] = scaler(*cut)
                masks[target][number] = cut[1]
        return Batch(inputs, targets, masks, trim)


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


class _Scaler:
    """Standardises (28·S, …) channels and sets them to 0 outside the mask."""

    def __init__(self, standardisation: Standardisation) -> None:
        self._mean = torch.from_numpy(standardisation.mean).view(-1, 1, 1, 1)
        self._deviation = torch.from_numpy(standardisation.deviation).view(-1, 1, 1, 1)

        self.channels = len(standardisation.mean)

    def __call__(self, coefficients: Tensor, mask: Tensor) -> Tensor:
        return (coefficients - self._mean) / self._deviation * mask


def _turned(cut: tuple[Tensor, Tensor], symmetry: Symmetry | None) -> tuple[Tensor, Tensor]:
    return cut if symmetry is None else symmetry(*cut)


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


class Sampler(Protocol):
    """Provides the batch of any step of any phase."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        ...

    def batch(self, phase: int, step: int, platforms: Collection[str] | None = None) -> Batch:
        """Return the batch of a step, counted from 0 within its phase.

        Parameters
        ----------
        platforms
            Targets that the phase learns: examples come from heads that were scanned on any of
            them. None: from all heads.
        """
        ...


class PatchSampler:
    """Every in-mask voxel centres a patch; each pass over them has a random order (paper).

    Parameters
    ----------
    edge, batch
        Edge of a patch in voxels, and patches per step.
    voxels_per_head
        Number of randomly chosen in-mask voxels that represent a head; None: all.
    steps_per_epoch
        Steps that count as an epoch; None: one pass over the voxels.
    processes
        Processes that share a batch; the whole batch is drawn.
    """

    def __init__(
        self,
        examples: Examples,
        edge: int,
        batch: int,
        seed: int,
        voxels_per_head: int | None,
        steps_per_epoch: int | None = None,
        processes: OneProcess = ALONE,
    ) -> None:
        self._examples, self._edge, self._batch, self._seed = examples, edge, batch, seed
        self._processes = processes
        self._centres: list[IntArray] = []
        for head, channels in enumerate(examples.inputs):
            inside = np.argwhere(channels.mask.numpy())
            if voxels_per_head is not None and len(inside) > voxels_per_head:
                chosen = np.random.default_rng([seed, head]).choice(
                    len(inside), voxels_per_head, replace=False
                )
                inside = inside[np.sort(chosen)]
            self._centres.append(np.column_stack([np.full(len(inside), head), inside]))
        self.steps_per_epoch = steps_per_epoch or self._steps_over(range(len(self._centres)))
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


class CropSampler:
    """Dense crops around random in-mask voxels, with random grid symmetries (our choice).

    Parameters
    ----------
    edge, batch
        Edge of a crop in input voxels, and crops per step.
    steps_per_epoch
        Steps that count as an epoch; None: as many as cover every in-mask voxel about once.
    processes
        Processes that share a batch; the whole batch is drawn.
    """

    def __init__(
        self,
        examples: Examples,
        edge: int,
        batch: int,
        seed: int,
        steps_per_epoch: int | None,
        augment: bool,
        processes: OneProcess = ALONE,
    ) -> None:
        self._examples, self._batch, self._seed = examples, batch, seed
        self._processes = processes
        # Crops of one batch must have one size, and none may be larger than the smallest head.
        self._edge = min(edge, *(n for each in examples.inputs for n in each.mask.shape))
        self._inside = [np.argwhere(each.mask.numpy()) for each in examples.inputs]
        voxels = sum(len(inside) for inside in self._inside)
        self.steps_per_epoch = steps_per_epoch or max(1, round(voxels / (batch * self._edge**3)))
        self._symmetries = _every_symmetry() if augment else None

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
        "image "
        f"of {smallest} is no larger along one axis"
    ]


def sampler_for(study: Study, recipe: Recipe, processes: OneProcess = ALONE) -> Sampler:
    """Return the sampler for a recipe."""
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
            processes,
        )
    return PatchSampler(
        examples,
        recipe.patch,
        recipe.batch,
        settings.seed,
        settings.voxels_per_head,
        settings.steps_per_epoch,
        processes,
    )
