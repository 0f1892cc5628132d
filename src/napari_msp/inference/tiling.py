"""Run a network over a whole image in tiles: exactly, in bounded memory, and interruptible.

A tile is computed on its core, widened by the network's halo and clipped to the volume. Crops never
reach beyond the volume, so each layer's own padding is where it is in the whole-image pass, and
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
from napari_msp.errors import Poll, stop_if
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
"""Edge below which a tile's core is not divided, however large the halo (our choice)."""

LEAST_BEHIND = 5**3
"""Halo cubes that a crop of near layers must hold, or nothing is gained (our choice)."""

TileProgress = Callable[[int, int], None]
"""Function that takes the number of tiles that are done, and of all."""

Name = TypeVar("Name", bound=Hashable)
"""Type of the names of a pass's outputs."""

Run = Callable[[Tensor, dict[str, Tensor] | None], dict[Name, Tensor]]
"""Function from a crop, and its far layers' output if computed before, to named outputs."""


Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Tile:
    """One piece of the work, in input voxels."""

    core: Region
    crop: Region

    def output(self, scale: int, shape: tuple[int, int, int]) -> Region:
        """Return the core's output voxels: from its first node up to the next tile's first node."""
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
        (X, Y, Z) input voxels around which outputs are wanted.
    edge
        Edges of a tile's core in voxels, or a cube's edge; None: one tile for all.

    Returns
    -------
    Tiles in order, without those that contain no mask.
    """
    if not mask.any():
        return []
    # An output voxel between two nodes is wanted if either is: look one voxel further.
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
            # A single tile that reads everything may as well output everything.
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
        Voxels that memory allows; tiles are never cut below `SMALLEST_TILE`.
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
    progress: TileProgress | None = None,
    cancelled: Poll | None = None,
) -> dict[Name, FloatArray]:
    """Compute every output in the masks of its lattice; elsewhere the result is 0.

    Parameters
    ----------
    run
        Function from a crop (1, C, x, y, z) to named outputs (1, D, k(x-1)+1, …); its network is
        already on `device`.
    network
        Network that `run` runs, in eval mode: its convolutions are polled and its memory is
        measured.
    channels
        (X, Y, Z, C) standardised input, 0 outside the mask.
    mask
        (X, Y, Z) mask of the input.
    scale, halo
        Scale and halo of the network; by name of output if outputs differ in scale.
    masks
        Masks by scale, outside which results are 0.
    units
        Standardisations to undo, by name of output; None: nothing is undone.
    stored
        nibabel's orientation of an image in whose order results are laid out in memory, so that
        `reorder` has nothing to copy.
    tile
        Edge of a tile in input voxels; None: as large as memory allows.
    memory
        Bytes to use besides input and result; None: a share of what is free.
    precision
        Precision of the convolutions, see `arithmetic`.
    progress
        Called with the number of tiles done and their total; far layers that are run first count as
        one.
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
    # Seen as (1, C, X, Y, Z), with a voxel's channels adjacent in memory as they are: this is the
    # fastest layout for convolutions, and results need no reordering either. The batch axis is
    # added before the permutation: added afterwards it would have another stride, by which torch
    # takes the image for one of the usual layout.
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
                    value = results.pop(name)  # freed as soon as it is copied
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
    """Restore the layout with adjacent channels, which torch drops in layers with few channels.

    Every later layer would run in the slower layout.
    """
    return output.contiguous(memory_format=torch.channels_last_3d)


@dataclass(frozen=True)
class _Plan:
    """Plan of a computation: edges of tiles, and far layers within tiles or on the whole first."""

    halo: int
    edges: int | Edges | None = None
    far_first: bool = False


def _part_of(far: dict[str, Tensor] | None, piece: Tile) -> dict[str, Tensor] | None:
    """Return a tile's part of the far layers' output."""
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

    A small image is computed at once. For a larger one the far layers, which have a large halo, are
    computed at once if they fit: tiles of the later layers, mostly on the target's finer lattice,
    have hardly any halo, so time does not grow faster than the image.
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
    """Copy a crop to the device; to a GPU while the previous tile is still being computed."""
    if device.type != "cuda":
        return crop.to(device)
    return crop.pin_memory().to(device, non_blocking=True)


def _kept(
    part: Tensor, fine: Sequence[int], stored: FloatArray, others: Sequence[Tensor]
) -> FloatArray:
    """Return the memory for a result, viewed as (X, Y, Z, C) in whatever order it is stored.

    If the first (C, x, y, z) part covers the whole result, its memory is used, unless it holds
    other values too: allocating memory takes longer than all operations on a result. Otherwise the
    memory is zeroed, and such that a GPU can write to it directly, if the system allows.
    """
    values, axes = part.permute(1, 2, 3, 0), [int(axis) for axis in stored[:, 0]]
    lengths = [*(fine[axis] for axis in axes), len(part)]
    alone = all(part.data_ptr() != each.data_ptr() for each in others)
    as_stored = axes == [0, 1, 2] and list(values.shape) == lengths and values.is_contiguous()
    if alone and as_stored and part.device.type == "cpu" and part.dtype == torch.float32:
        memory = values.numpy()
    else:
        memory = np.zeros(lengths, np.float32)  # in large pages, allocated only when written
    if part.device.type == "cuda":
        with suppress(RuntimeError):  # no more pinned memory is available
            memory = torch.zeros(lengths, dtype=torch.float32, pin_memory=True).numpy()
    seen: FloatArray = apply_orientation(memory, stored)
    return seen


Copy = Callable[[Tensor, FloatArray, Standardisation | None, MaskArray], None]
"""Function that copies (C, x, y, z) to its (x, y, z, C) place, in units and 0 outside the mask."""


@contextmanager
def _copies(device: torch.device) -> Iterator[Copy]:
    """Yield a function that copies results to their place; all copies are done after the block.

    With a GPU the next tile is computed meanwhile: copies have their own stream.
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
        ready.record_stream(stream)  # its memory is not reused before it is copied

    try:
        yield copy
    finally:
        stream.synchronize()


def in_memorys_order(value: Tensor, place: FloatArray) -> tuple[Tensor, Tensor]:
    """Return (C, x, y, z) values and their (x, y, z, C) place in memory order, strides positive.

    torch has no negative ones, and copies arrays of the same layout in one piece.
    """
    back = tuple(axis for axis in range(3) if place.strides[axis] < 0)
    order = sorted(range(3), key=lambda axis: -abs(place.strides[axis]))
    there = torch.from_numpy(np.flip(place, back).transpose(*order, 3))
    turned = value.flip([1 + axis for axis in back]).permute(*(1 + axis for axis in order), 0)
    return turned.contiguous(), there


def _copy_now(
    value: Tensor, place: FloatArray, units: Standardisation | None, outside: MaskArray
) -> None:
    """Undo units and apply the mask plane by plane, in a core's cache, as results are too large.

    The place may be the values' own memory, mirrored: a plane and the one that it is exchanged with
    are both read before either is written.
    """
    found = value.permute(1, 2, 3, 0).float().cpu().numpy()

    def finished(number: int) -> FloatArray:
        plane: FloatArray = found[number].copy()
        if units is not None:
            lines = plane.reshape(len(plane), -1)  # long rows are fast
            lines *= np.tile(units.deviation, plane.shape[1])
            lines += np.tile(units.mean, plane.shape[1])
        return plane

    def copy(one: slice) -> None:
        pair = one.start, len(found) - 1 - one.start
        for number, plane in zip(pair, [finished(each) for each in pair], strict=True):
            place[number] = plane
            place[number][outside[number]] = 0

    for_each_block(copy, -(-len(found) // 2), 1)
