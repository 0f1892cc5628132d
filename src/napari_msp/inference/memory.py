"""How much memory a network's pass may take, and how much it takes for each voxel."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from napari_msp.device import free_memory
from napari_msp.networks.base import CHANNELS, SingleNetwork
from napari_msp.networks.msp import ConnectionNetwork

SHARE_OF_FREE = 0.5
"""Of the memory that is free, how much one pass may take beside input and result (our choice)."""

LIVE_LAYERS = 3
"""Layers' worth of activations alive at once: input, output, and a skip or a workspace."""


def memory_budget(device: torch.device) -> float:
    """Bytes that one pass may take beside input and result: a share of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free * SHARE_OF_FREE
    return free_memory() * SHARE_OF_FREE


def most_bytes_per_voxel(network: nn.Module, channels: int, scale: int) -> float:
    """Bound a network's peak memory for each input voxel: all its layers kept, at `scale`.

    Where it predicts finer platforms on the way, at theirs. Of several shells as if each went
    through all layers by itself.
    """
    singles = [module for module in network.modules() if isinstance(module, SingleNetwork)]
    scale = max([scale, *(k for single in singles for k in single.scales.values())])
    layers = [module.in_channels + module.out_channels for module in convolutions_of(network)]
    layers.append(2 * channels)  # the interpolated input
    return 4 * (channels // CHANNELS) * scale**3 * LIVE_LAYERS * sum(layers)


def bytes_per_voxel(
    run: Callable[[Tensor], dict[str, Tensor]],
    network: nn.Module,
    channels: int,
    device: torch.device,
    edge: int = 8,
) -> float:
    """Estimate a network's peak memory for each input voxel, from its largest layer.

    One small crop is run with a look at every layer's input and output. Branches of an MSP are
    there until all of them are mixed.
    """
    largest = branches = 0.0

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            read = sum(_per_voxel(each, edge) for each in inputs if isinstance(each, Tensor))
            largest = max(largest, read + _per_voxel(output, edge))

    def look_at_branch(_: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal branches
        branches += _per_voxel(output, edge)

    leaves = [module for module in network.modules() if not list(module.children())]
    ends = [module for module in network.modules() if isinstance(module, ConnectionNetwork)]
    with watched(leaves, look), watched(ends, look_at_branch):
        results = run(torch.zeros((1, channels, edge, edge, edge), device=device))
    kept = sum(_per_voxel(value, edge) for value in results.values())
    return 4 * (LIVE_LAYERS * largest + kept + branches)


def _per_voxel(image: Tensor, edge: int) -> float:
    """Count an image's numbers for each voxel of a crop of edge³, were it large."""
    scale = (image.shape[-1] - 1) / (edge - 1)
    return image.shape[0] * image.shape[1] * scale**3


def convolutions_of(network: nn.Module) -> list[nn.Conv3d | nn.ConvTranspose3d]:
    """Give the convolutions of a network, in its order."""
    return [
        module for module in network.modules() if isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
    ]


@contextmanager
def watched(modules: Sequence[nn.Module], look: Callable[..., object]) -> Iterator[None]:
    """Call `look` with each module, its inputs and its output when it was run.

    What it returns, if anything, takes the output's place.
    """
    handles = [module.register_forward_hook(look) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
