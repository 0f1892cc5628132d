"""One pass of a network: how it is interrupted, and how much memory it may use and uses."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_msp.device import free_memory
from napari_msp.errors import Poll, stop_if
from napari_msp.networks.base import CHANNELS, SingleNetwork
from napari_msp.networks.msp import ConnectionNetwork, Network, SharedMSP

LARGEST_CONVOLUTION = 8e9
"""Multiply-adds computed between two polls: about a quarter of a second on two CPU cores."""

PROBED_EDGE = 8
"""Edge, in input voxels, of the crop from which a pass is predicted (our choice)."""


@contextmanager
def polled(network: nn.Module, cancelled: Poll | None) -> Iterator[None]:
    """Poll `cancelled` before every convolution of `network` while the block runs.

    Convolutions with more than `LARGEST_CONVOLUTION` multiply-adds are computed a few output
    channels at a time, with a poll before each part: the same numbers, and a limit to the wait.

    Parameters
    ----------
    network
        Network whose convolutions are wrapped; its weights are not changed.
    cancelled
        Returns whether to stop; None leaves the network as it is.

    Raises
    ------
    Cancelled
        From within the network, when `cancelled()` is true.
    """
    if cancelled is None:
        yield
        return
    convolutions = convolutions_of(network)
    for module in convolutions:
        # An attribute of the instance hides the method of the class until it is deleted.
        object.__setattr__(module, "forward", _in_parts(module, cancelled))
    try:
        yield
    finally:
        for module in convolutions:
            object.__delattr__(module, "forward")


def expected_polls(network: Network | SharedMSP, shape: tuple[int, int, int]) -> int:
    """Predict how often `polled` polls in one pass, so that progress within it can be reported.

    One small crop is run, and every convolution observed.

    Parameters
    ----------
    network
        Network in eval mode, on the CPU.
    shape
        (X, Y, Z) shape of the pass's input.
    """
    work: list[tuple[nn.Conv3d | nn.ConvTranspose3d, float]] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            work.append((module, _multiply_adds(module, inputs[0])))

    with torch.inference_mode(), watched(convolutions_of(network), look):
        network(torch.zeros((1, CHANNELS * network.shells, *(PROBED_EDGE,) * 3)))
    growth = math.prod(shape) / PROBED_EDGE**3
    return sum(_parts(module, each * growth) for module, each in work)


def _in_parts(
    module: nn.Conv3d | nn.ConvTranspose3d, cancelled: Poll
) -> Callable[[Tensor], Tensor]:
    whole: Callable[[Tensor], Tensor] = module.forward  # the class's, before it is hidden

    def forward(x: Tensor) -> Tensor:
        parts = _parts(module, _multiply_adds(module, x))
        if parts == 1:
            stop_if(cancelled)
            return whole(x)
        results = []
        for chosen in torch.arange(module.out_channels).tensor_split(parts):
            stop_if(cancelled)
            results.append(_some_channels(module, x, slice(int(chosen[0]), int(chosen[-1]) + 1)))
        return torch.cat(results, dim=1)

    return forward


def _parts(module: nn.Conv3d | nn.ConvTranspose3d, work: float) -> int:
    """Return the number of parts in which this number of multiply-adds is computed."""
    if module.groups > 1:
        return 1
    return min(module.out_channels, int(work // LARGEST_CONVOLUTION) + 1)


def _multiply_adds(module: nn.Conv3d | nn.ConvTranspose3d, x: Tensor) -> float:
    kernel = math.prod(module.kernel_size)
    stride = math.prod(module.stride) if isinstance(module, nn.Conv3d) else 1
    pairs = module.in_channels * module.out_channels / module.groups
    return float(x[:, 0].numel() / stride * kernel * pairs)


def _some_channels(module: nn.Conv3d | nn.ConvTranspose3d, x: Tensor, part: slice) -> Tensor:
    bias = None if module.bias is None else module.bias[part]
    if isinstance(module, nn.ConvTranspose3d):
        return functional.conv_transpose3d(
            x,
            module.weight[:, part],
            bias,
            module.stride,
            module.padding,  # type: ignore[arg-type]
            module.output_padding,
            module.groups,
            module.dilation,
        )
    return functional.conv3d(
        x,
        module.weight[part],
        bias,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
    )


# --- Memory ----------------------------------------------------------------------------------

SHARE_OF_FREE = 0.5
"""Share of the free memory that one pass may use besides input and result (our choice)."""

LIVE_LAYERS = 3
"""Number of layers' activations alive at once: input, output, and a skip or a workspace."""


def memory_budget(device: torch.device) -> float:
    """Return the bytes that one pass may use besides input and result: a share of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free * SHARE_OF_FREE
    return free_memory() * SHARE_OF_FREE


def most_bytes_per_voxel(network: nn.Module, channels: int) -> float:
    """Bound a network's peak memory per input voxel: all its layers kept, at the finest scale.

    Several shells count as if each went through all layers separately.
    """
    singles = [module for module in network.modules() if isinstance(module, SingleNetwork)]
    scale = max(k for single in singles for k in single.scales.values())
    layers = [module.in_channels + module.out_channels for module in convolutions_of(network)]
    layers.append(2 * channels)  # the interpolated input
    return 4 * (channels // CHANNELS) * scale**3 * LIVE_LAYERS * sum(layers)


def bytes_per_voxel(
    run: Callable[[Tensor], Mapping[Any, Tensor]],
    network: nn.Module,
    channels: int,
    device: torch.device,
) -> float:
    """Estimate a network's peak memory per input voxel, from its largest layer.

    One small crop is run, and every layer's input and output observed. Branches of an MSP are kept
    until all of them are mixed.
    """
    largest = branches = 0.0

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            read = sum(_per_voxel(each) for each in inputs if isinstance(each, Tensor))
            largest = max(largest, read + _per_voxel(output))

    def look_at_branch(_: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal branches
        branches += _per_voxel(output)

    leaves = [module for module in network.modules() if not list(module.children())]
    ends = [module for module in network.modules() if isinstance(module, ConnectionNetwork)]
    with watched(leaves, look), watched(ends, look_at_branch):
        results = run(torch.zeros((1, channels, *(PROBED_EDGE,) * 3), device=device))
    kept = sum(_per_voxel(value) for value in results.values())
    return 4 * (LIVE_LAYERS * largest + kept + branches)


def _per_voxel(image: Tensor) -> float:
    """Count a result's numbers per voxel of the probed crop, as for a large crop."""
    scale = (image.shape[-1] - 1) / (PROBED_EDGE - 1)
    return image.shape[0] * image.shape[1] * scale**3


# --- Observing --------------------------------------------------------------------------------


def convolutions_of(network: nn.Module) -> list[nn.Conv3d | nn.ConvTranspose3d]:
    """Return the convolutions of a network, in its order."""
    return [
        module for module in network.modules() if isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
    ]


@contextmanager
def watched(modules: Sequence[nn.Module], look: Callable[..., object]) -> Iterator[None]:
    """Call `look` with each module, its inputs and its output after it was run.

    The return value of `look`, if any, replaces the output.
    """
    handles = [module.register_forward_hook(look) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
