"""Run a network over a whole image, tile by tile, in bounded memory, exactly, and stop when asked.

A tile is computed on its core widened by the network's halo and clipped to the volume. Crops never
reach past the volume, so each layer's own padding falls where it does in the whole-image pass, and
the outputs equal those of one untiled pass.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
import torch
from nibabel.orientations import apply_orientation
from torch import Tensor, nn

from napari_msp.arrays import FloatArray, MaskArray, for_each_block
from napari_msp.data.lattice import CANONICAL
from napari_msp.device import arithmetic
from napari_msp.errors import stop_if
from napari_msp.inference.passes import (
    PROBED_EDGE,
    bytes_per_voxel,
    convolutions_of,
    memory_budget,
    most_bytes_per_voxel,
    polled,
    watched,
)
from napari_msp.networks.msp import Network, SharedMSP
from napari_msp.options import Precision
from napari_msp.signal.channels import Standardisation

SMALLEST_TILE = 8
"""Edge below which a tile's core is not cut, however large the halo (our choice)."""

LEAST_BEHIND = 5**3
"""Cubes of its halo that a crop of near layers must hold, else nothing is gained (our choice)."""

Progress = Callable[[int, int], None]

Name = TypeVar("Name", bound=Hashable)
"""By which the outputs of a pass are told apart."""

Run = Callable[[Tensor, dict[str, Tensor] | None], dict[Name, Tensor]]
"""Turns a crop, and what its far layers gave if they were run before, into named outputs."""


Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Tile:
    """One piece of the work, in input voxels."""

    core: Region
    crop: Region

    def output(self, scale: int, shape: tuple[int, int, int]) -> Region:
        """Output voxels of the core: from its first node up to the next tile's first node."""
        return _region(
            (scale * part.start, min(scale * part.stop, scale * (length - 1) + 1))
            for part, length in zip(self.core, shape, strict=True)
        )

    def within_crop(self, scale: int, shape: tuple[int, int, int]) -> Region:
        """Return the same output voxels, counted from the start of the crop's own output."""
        return _region(
            (part.start - scale * crop.start, part.stop - scale * crop.start)
            for part, crop in zip(self.output(scale, shape), self.crop, strict=True)
        )


Edges = tuple[int, int, int]


def plan_tiles(mask: MaskArray, halo: int, edge: int | Edges | None = None) -> list[Tile]:
    """Cover all output voxels near the mask with tiles.

    Parameters
    ----------
    mask
        (X, Y, Z) input voxels whose surroundings are wanted.
    edge
        Edges of a tile's core in voxels, or the one of a cube; None: one tile for all.

    Returns
    -------
    Tiles in order; those without mask are left out.
    """
    if not mask.any():
        return []
    # An output voxel between two nodes is wanted when either is: look one voxel further.
    bounds = [_bounds(mask, axis) for axis in range(3)]
    edges = edge if isinstance(edge, tuple) else [edge or high - low for low, high in bounds]
    starts = [range(low, high, each) for (low, high), each in zip(bounds, edges, strict=True)]
    everything = _region((0, length) for length in mask.shape)
    tiles = []
    for corner in product(*starts):
        stops = [
            min(start + each, high)
            for start, each, (_, high) in zip(corner, edges, bounds, strict=True)
        ]
        near = _region(
            (a, min(b + 1, n)) for a, b, n in zip(corner, stops, mask.shape, strict=True)
        )
        if mask[near].any():
            core = _region(zip(corner, stops, strict=True))
            crop = _widened(core, halo, mask.shape)
            # One tile that reads all there is may as well give all of it.
            tiles.append(Tile(crop if edge is None and crop == everything else core, crop))
    return tiles


def _bounds(mask: MaskArray, axis: int) -> tuple[int, int]:
    others = tuple(each for each in range(3) if each != axis)
    inside = np.flatnonzero(mask.any(axis=others))
    return max(int(inside[0]) - 1, 0), min(int(inside[-1]) + 2, mask.shape[axis])


def best_edges(mask: MaskArray, halo: int, voxels: float) -> Edges:
    """Return the edges of tiles that compute the fewest voxels, with no crop of more than `voxels`.

    A crop ends at the volume's bounds, so tiles that span an axis need no halo along it.

    Parameters
    ----------
    mask, halo
        As for `plan_tiles`.
    voxels
        What memory allows; tiles are not cut below `SMALLEST_TILE`, however little that is.
    """
    along = [_cuts(*_bounds(mask, axis), halo, mask.shape[axis]) for axis in range(3)]
    smallest = min(SMALLEST_TILE, *mask.shape)
    best, least = (smallest, smallest, smallest), math.inf
    for cuts in product(*along):
        edges, largest, computed = zip(*cuts, strict=True)
        if math.prod(largest) <= voxels and math.prod(computed) < least:
            best, least = edges, math.prod(computed)
    return best


def _cuts(low: int, high: int, halo: int, length: int) -> list[tuple[int, int, int]]:
    """Return, for each number of parts of an axis, their edge, the largest crop and all crops."""
    found: dict[int, tuple[int, int, int]] = {}
    for parts in range(1, max(1, (high - low) // SMALLEST_TILE) + 1):
        edge = -(-(high - low) // parts)
        crops = [
            min(start + edge + halo, high + halo, length) - max(start - halo, 0)
            for start in range(low, high, edge)
        ]
        found.setdefault(edge, (edge, max(crops), sum(crops)))
    return list(found.values())


def _widened(core: Region, halo: int, shape: tuple[int, ...]) -> Region:
    return _region(
        (max(part.start - halo, 0), min(part.stop + halo, length))
        for part, length in zip(core, shape, strict=True)
    )


def _region(bounds: "Iterator[tuple[int, int]] | zip[tuple[int, int]]") -> Region:
    x, y, z = (slice(start, stop) for start, stop in bounds)
    return x, y, z


def run_whole_image(
    run: Run[Name],
    network: Network | SharedMSP,
    channels: FloatArray,
    mask: MaskArray,
    *,
    scale: int | Callable[[Name], int],
    halo: int,
    device: torch.device,
    masks: Mapping[int, MaskArray],
    units: Callable[[Name], Standardisation | None] = lambda _: None,
    stored: FloatArray = CANONICAL,
    tile: int | None = None,
    memory: float | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[Name, FloatArray]:
    """Compute every output in the masks of its lattice; elsewhere the result is 0.

    Parameters
    ----------
    run
        Turns a crop (1, C, x, y, z) into named outputs (1, D, k(x-1)+1, …); the network already
        lies on `device`.
    network
        What `run` runs, in eval mode: its convolutions are polled and its memory is measured.
    channels
        (X, Y, Z, C) standardised input, 0 outside the mask.
    mask
        (X, Y, Z).
    scale, halo
        Of the network. Where outputs differ in scale, by their names.
    masks
        By scale, outside which results are 0.
    units
        By an output's name, what it is brought back from; None: nothing.
    stored
        nibabel's orientation of an image in whose order results lie in memory: `reorder` into it
        has nothing to copy.
    tile
        Edge of a tile in input voxels; None: as large as memory allows.
    memory
        Bytes that may be taken beside input and result; None: a share of what is free.
    precision
        Of the convolutions, see `arithmetic`.
    progress
        Called with tiles done and tiles in all; the far layers, where they come first, are one.
    cancelled
        Polled before every convolution.

    Returns
    -------
    dict of (X', Y', Z', D) float32 arrays, each on its output's lattice.

    Raises
    ------
    Cancelled
        When `cancelled()` was true.
    """
    # Seen as (1, C, X, Y, Z), with the channels of a voxel side by side as they are: what
    # convolutions are quickest with, and results need no reordering either. The axis of
    # the one example comes before they are turned: added afterwards it would have another stride,
    # by which torch takes the image for one of the usual layout.
    whole = torch.from_numpy(np.ascontiguousarray(channels)).unsqueeze(0).permute(0, 4, 1, 2, 3)
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    outputs: dict[Name, FloatArray] = {}
    laid_out = convolutions_of(network) if device.type == "cpu" else []
    with (
        torch.inference_mode(),
        arithmetic(device, precision),
        polled(network, cancelled),
        watched(laid_out, _side_by_side),
    ):
        plan = _Plan(halo, tile)
        if tile is None:
            budget = memory_budget(device) if memory is None else memory
            plan = _plan_within(budget, run, network, whole, mask, halo, device)
        tiles = plan_tiles(mask, plan.halo, plan.edges)
        total, far = len(tiles) + plan.far_first, None
        if plan.far_first:
            if progress is not None:
                progress(0, total)
            [everything] = plan_tiles(np.ones_like(mask), 0)
            far = network.far(_crop(whole, everything, device))
        with _copies(device) as copy:
            for done, piece in enumerate(tiles, start=int(plan.far_first)):
                stop_if(cancelled)
                if progress is not None:
                    progress(done, total)
                crop = _crop(whole, piece, device)
                results = run(crop, _part_of(far, piece))
                for name in list(results):
                    value = results.pop(name)  # let go as soon as it is copied
                    k = scale if isinstance(scale, int) else scale(name)
                    target, source = piece.output(k, shape), piece.within_crop(k, shape)
                    part = value[0][(slice(None), *source)]
                    if name not in outputs:
                        fine = tuple(k * (length - 1) + 1 for length in shape)
                        outputs[name] = _kept(part, fine, stored, [crop, *results.values()])
                    copy(part, outputs[name][target], units(name), ~masks[k][target])
        if progress is not None:
            progress(total, total)
    return outputs


def _side_by_side(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
    """Lay a voxel's channels side by side again, as torch's way for few channels leaves them apart.

    One such layer, and all behind it would be computed in the slower layout.
    """
    return output.contiguous(memory_format=torch.channels_last_3d)


@dataclass(frozen=True)
class _Plan:
    """How an image is computed: tiles of some edges, far layers in them or on all of it before."""

    halo: int
    edges: int | Edges | None = None
    far_first: bool = False


def _part_of(far: dict[str, Tensor] | None, piece: Tile) -> dict[str, Tensor] | None:
    """Return a tile's part of what the far layers gave."""
    if far is None:
        return None
    region = (slice(None), slice(None), *piece.crop)
    return {
        name: whole[region].contiguous(memory_format=torch.channels_last_3d)
        for name, whole in far.items()
    }


def _crop(whole: Tensor, piece: Tile, device: torch.device) -> Tensor:
    crop = whole[(slice(None), slice(None), *piece.crop)]
    return _sent(crop.contiguous(memory_format=torch.channels_last_3d), device)


def _plan_within(
    budget: float,
    run: Run[Name],
    network: Network | SharedMSP,
    whole: Tensor,
    mask: MaskArray,
    halo: int,
    device: torch.device,
) -> _Plan:
    """Plan crops that stay within the memory budget.

    A small image is computed at once. Of a larger one the far layers are, whose halo is large,
    where they fit: tiles of what is behind them, mostly on the target's finer lattice, have hardly
    any halo, so time does not grow faster than the image.
    """
    count = whole.shape[1]
    if mask.size * most_bytes_per_voxel(network, count) <= budget:
        return _Plan(halo)  # nothing needs to be measured
    voxels = budget / bytes_per_voxel(lambda x: run(x, None), network, count, device)
    if mask.size <= voxels:
        return _Plan(halo)
    if network.near_halo is not None and mask.any():
        taken = mask.size * bytes_per_voxel(network.far, network, count, device)
        probed = network.far(torch.zeros((1, count, *(PROBED_EDGE,) * 3), device=device))
        kept = mask.size * 4 * sum(each.numel() for each in probed.values()) / PROBED_EDGE**3
        behind = bytes_per_voxel(lambda x: run(x, network.far(x)), network, count, device)
        voxels_behind = (budget - kept) / behind
        if taken <= budget and voxels_behind >= LEAST_BEHIND * network.near_halo**3:
            edges = best_edges(mask, network.near_halo, voxels_behind)
            return _Plan(network.near_halo, edges, far_first=True)
    return _Plan(halo, best_edges(mask, halo, voxels))


# --- To a GPU and back ------------------------------------------------------------------------


def _sent(crop: Tensor, device: torch.device) -> Tensor:
    """Put a crop on the device; to a GPU while the tile before is still computed."""
    if device.type != "cuda":
        return crop.to(device)
    return crop.pin_memory().to(device, non_blocking=True)


def _kept(
    part: Tensor, fine: Sequence[int], stored: FloatArray, others: Sequence[Tensor]
) -> FloatArray:
    """Return a result's memory, seen as (X, Y, Z, C) whatever order it lies in.

    A first (C, x, y, z) part that is all of it brings the memory, unless others lie there too: to
    take fresh one lasts longer than all that is done to a result. Else it is 0, and such that a GPU
    can write into by itself, where the system allows.
    """
    values, axes = part.permute(1, 2, 3, 0), [int(axis) for axis in stored[:, 0]]
    lengths = [*(fine[axis] for axis in axes), len(part)]
    alone = all(part.data_ptr() != each.data_ptr() for each in others)
    as_stored = axes == [0, 1, 2] and list(values.shape) == lengths and values.is_contiguous()
    if alone and as_stored and part.device.type == "cpu" and part.dtype == torch.float32:
        memory = values.numpy()
    else:
        memory = np.zeros(lengths, np.float32)  # in large pages, and only when it is written
    if part.device.type == "cuda":
        with suppress(RuntimeError):  # there is no more of such memory
            memory = torch.zeros(lengths, dtype=torch.float32, pin_memory=True).numpy()
    seen: FloatArray = apply_orientation(memory, stored)
    return seen


Copy = Callable[[Tensor, FloatArray, Standardisation | None, MaskArray], None]
"""Brings (C, x, y, z) back from its units, into its (x, y, z, C) place, and to 0 outside."""


@contextmanager
def _copies(device: torch.device) -> Iterator[Copy]:
    """Yield what copies results to where they stay; all is there after the block.

    From a GPU the next tile is computed meanwhile: copies have a stream of their own.
    """
    if device.type != "cuda":
        yield _copy_now
        return
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(
        value: Tensor, place: FloatArray, units: Standardisation | None, outside: MaskArray
    ) -> None:
        value = value.float()
        if units is not None:
            deviation, mean = map(torch.from_numpy, (units.deviation, units.mean))
            value.mul_(deviation.to(device).view(-1, 1, 1, 1))
            value.add_(mean.to(device).view(-1, 1, 1, 1))
        value.masked_fill_(torch.from_numpy(outside).to(device), 0)
        ready, there = in_memorys_order(value, place)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            there.copy_(ready, non_blocking=True)
        ready.record_stream(stream)  # its memory is not given to another before it is copied

    try:
        yield copy
    finally:
        stream.synchronize()


def in_memorys_order(value: Tensor, place: FloatArray) -> tuple[Tensor, Tensor]:
    """Return (C, x, y, z) values and their (x, y, z, C) place as memory lies, without a step back.

    Torch knows none, and copies what lies alike in one piece.
    """
    back = tuple(axis for axis in range(3) if place.strides[axis] < 0)
    order = sorted(range(3), key=lambda axis: -abs(place.strides[axis]))
    there = torch.from_numpy(np.flip(place, back).transpose(*order, 3))
    turned = value.flip([1 + axis for axis in back]).permute(*(1 + axis for axis in order), 0)
    return turned.contiguous(), there


def _copy_now(
    value: Tensor, place: FloatArray, units: Standardisation | None, outside: MaskArray
) -> None:
    """Do all of it plane by plane, in a core's cache: results are too large to go through twice.

    The place may be the values' own memory, mirrored: a plane and the one that it changes places
    with are read before either is written.
    """
    found = value.permute(1, 2, 3, 0).float().cpu().numpy()

    def finished(number: int) -> FloatArray:
        plane: FloatArray = found[number].copy()
        if units is not None:
            lines = plane.reshape(len(plane), -1)  # what is long is quick
            lines *= np.tile(units.deviation, plane.shape[1])
            lines += np.tile(units.mean, plane.shape[1])
        return plane

    def copy(one: slice) -> None:
        pair = one.start, len(found) - 1 - one.start
        for number, plane in zip(pair, [finished(each) for each in pair], strict=True):
            place[number] = plane
            place[number][outside[number]] = 0

    for_each_block(copy, -(-len(found) // 2), 1)
