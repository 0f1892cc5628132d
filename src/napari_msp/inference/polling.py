"""Let a network be cancelled between, and within, its convolutions."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_msp.errors import Cancelled
from napari_msp.networks.base import CHANNELS
from napari_msp.networks.msp import Network

LARGEST_CONVOLUTION = 8e9
"""Multiply-adds computed between two polls: about a quarter of a second on two CPU cores."""

PROBED_EDGE = 8
"""Of the crop that a pass is foretold from, in input voxels (our choice)."""


@contextmanager
def polled(network: nn.Module, cancelled: Callable[[], bool] | None) -> Iterator[None]:
    """Poll `cancelled` before every convolution of `network` while the block runs.

    Convolutions with more than `LARGEST_CONVOLUTION` multiply-adds are computed a few output
    channels at a time, with a poll before each part: the same numbers, and a limit to the wait.

    Parameters
    ----------
    network
        Its convolutions are stepped into; its weights are not touched.
    cancelled
        Says whether to stop; None leaves the network as it is.

    Raises
    ------
    Cancelled
        From within the network, when `cancelled()` is true.
    """
    if cancelled is None:
        yield
        return
    convolutions = _convolutions(network)
    for module in convolutions:
        # An attribute of the instance hides the method of the class until it is deleted.
        object.__setattr__(module, "forward", _in_parts(module, cancelled))
    try:
        yield
    finally:
        for module in convolutions:
            object.__delattr__(module, "forward")


def expected_polls(network: Network, shape: tuple[int, int, int]) -> int:
    """Foretell how often `polled` polls in one pass, so that progress within it can be told.

    One small crop is run with a look at every convolution.

    Parameters
    ----------
    network
        In eval mode, on the CPU.
    shape
        (X, Y, Z) of the pass's input.
    """
    work: list[tuple[nn.Conv3d | nn.ConvTranspose3d, float]] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            work.append((module, _multiply_adds(module, inputs[0])))

    handles = [module.register_forward_hook(look) for module in _convolutions(network)]
    try:
        with torch.inference_mode():
            network(torch.zeros((1, CHANNELS, *(PROBED_EDGE,) * 3)))
    finally:
        for handle in handles:
            handle.remove()
    growth = math.prod(shape) / PROBED_EDGE**3
    return sum(_parts(module, each * growth) for module, each in work)


def _in_parts(
    module: nn.Conv3d | nn.ConvTranspose3d, cancelled: Callable[[], bool]
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        outputs = module.out_channels
        parts = _parts(module, _multiply_adds(module, x))
        results = []
        for chosen in torch.arange(outputs).tensor_split(parts):
            if cancelled():
                raise Cancelled
            results.append(_some_channels(module, x, slice(int(chosen[0]), int(chosen[-1]) + 1)))
        return results[0] if parts == 1 else torch.cat(results, dim=1)

    return forward


def _convolutions(network: nn.Module) -> list[nn.Conv3d | nn.ConvTranspose3d]:
    return [
        module for module in network.modules() if isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
    ]


def _parts(module: nn.Conv3d | nn.ConvTranspose3d, work: float) -> int:
    """Give the number of parts that so many multiply-adds are computed in."""
    if module.groups > 1:
        return 1
    return min(module.out_channels, int(work // LARGEST_CONVOLUTION) + 1)


def _multiply_adds(module: nn.Conv3d | nn.ConvTranspose3d, x: Tensor) -> float:
    kernel = 1
    for length in module.kernel_size:
        kernel *= length
    stride = 1
    if isinstance(module, nn.Conv3d):
        for length in module.stride:
            stride *= length
    pairs = module.in_channels * module.out_channels / module.groups
    return float(x[:, 0].numel() / stride * kernel * pairs)


def _some_channels(module: nn.Conv3d | nn.ConvTranspose3d, x: Tensor, part: slice) -> Tensor:
    whole = part == slice(0, module.out_channels)
    bias = None if module.bias is None else module.bias[part]
    if isinstance(module, nn.ConvTranspose3d):
        return functional.conv_transpose3d(
            x,
            module.weight if whole else module.weight[:, part],
            bias,
            module.stride,
            module.padding,  # type: ignore[arg-type]
            module.output_padding,
            module.groups,
            module.dilation,
        )
    return functional.conv3d(
        x,
        module.weight if whole else module.weight[part],
        bias,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
    )
