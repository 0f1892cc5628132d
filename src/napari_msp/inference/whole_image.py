"""Run a network over a whole image, tile by tile, in bounded memory."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.device import exact_arithmetic
from napari_msp.errors import Cancelled
from napari_msp.inference.polling import polled
from napari_msp.inference.tiles import plan_tiles

CPU_BUDGET = 3 * 2**30
"""Bytes that one tile's activations may take on a CPU (our choice)."""

SMALLEST_TILE = 8
"""Edge below which a tile's core is not cut, however large the halo (our choice)."""

LIVE_LAYERS = 3
"""Layers' worth of activations alive at once: input, output, and a skip or a workspace."""

Progress = Callable[[int, int], None]


def run_whole_image(
    run: Callable[[Tensor], dict[str, Tensor]],
    network: nn.Module,
    channels: FloatArray,
    mask: MaskArray,
    *,
    scale: int,
    halo: int,
    device: torch.device,
    tile: int | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, FloatArray]:
    """Compute every output near the mask; elsewhere the result is 0.

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
        Of the network.
    tile
        Edge of a tile in input voxels; None: as large as memory allows.
    progress
        Called with tiles done and tiles in all.
    cancelled
        Polled before every convolution.

    Returns
    -------
    dict of (X', Y', Z', D) float32 arrays on the output lattice.

    Raises
    ------
    Cancelled
        When `cancelled()` was true.
    """
    whole = torch.from_numpy(np.ascontiguousarray(np.moveaxis(channels, -1, 0)))
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    fine = tuple(scale * (length - 1) + 1 for length in shape)
    outputs: dict[str, FloatArray] = {}
    with torch.inference_mode(), exact_arithmetic(), polled(network, cancelled):
        if tile is None:
            tile = _tile_edge(run, network, whole, shape, halo, device)
        tiles = plan_tiles(mask, halo, tile)
        for done, piece in enumerate(tiles):
            if cancelled is not None and cancelled():
                raise Cancelled
            if progress is not None:
                progress(done, len(tiles))
            crop = whole[(slice(None), *piece.crop)].unsqueeze(0).to(device)
            target, source = piece.output(scale, shape), piece.within_crop(scale, shape)
            for name, value in run(crop).items():
                if name not in outputs:
                    outputs[name] = np.zeros((*fine, value.shape[1]), dtype=np.float32)
                part = value[0][(slice(None), *source)]
                outputs[name][target] = np.moveaxis(part.float().cpu().numpy(), 0, -1)
        if progress is not None:
            progress(len(tiles), len(tiles))
    return outputs


def _tile_edge(
    run: Callable[[Tensor], dict[str, Tensor]],
    network: nn.Module,
    whole: Tensor,
    shape: tuple[int, int, int],
    halo: int,
    device: torch.device,
) -> int | None:
    """Give the largest edge whose crop stays within the memory budget; None: all at once."""
    voxels = memory_budget(device) / bytes_per_voxel(run, network, whole.shape[0], device)
    if np.prod(shape, dtype=float) <= voxels:
        return None
    return max(SMALLEST_TILE, int(voxels ** (1 / 3)) - 2 * halo)


def memory_budget(device: torch.device) -> float:
    """Bytes that one tile may take: a constant on a CPU, half of what is free on a GPU."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free / 2
    return CPU_BUDGET


def bytes_per_voxel(
    run: Callable[[Tensor], dict[str, Tensor]],
    network: nn.Module,
    channels: int,
    device: torch.device,
    edge: int = 8,
) -> float:
    """Estimate a network's peak memory for each input voxel, from its largest layer.

    One small crop is run with a look at every layer's input and output.
    """
    largest = 0

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            sizes = [each.numel() for each in inputs if isinstance(each, Tensor)]
            largest = max(largest, sum(sizes) + output.numel())

    leaves = [module for module in network.modules() if not list(module.children())]
    handles = [module.register_forward_hook(look) for module in leaves]
    try:
        results = run(torch.zeros((1, channels, edge, edge, edge), device=device))
    finally:
        for handle in handles:
            handle.remove()
    kept = sum(value.numel() for value in results.values())
    return 4 * (LIVE_LAYERS * largest + kept) / edge**3
