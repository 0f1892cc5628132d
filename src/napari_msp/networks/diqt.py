"""DIQT: deep image quality transfer, and the reversible stacks that it is made of.

Reversible (RevNet) stacks need activation memory that does not grow with depth (Gomez 2017; as
used by Blumberg 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from napari_msp.networks.base import Config, FeatureMap, SingleNetwork, SingleOutputs
from napari_msp.networks.layers import (
    PointConvolution,
    Reach,
    full_precision,
    lattice_convolution,
    rectifier,
    scaled_width,
)


class DIQT(SingleNetwork):
    """Reversible stacks between convolutions; z, on lattice 1, is the last stack's output.

    Source: Blumberg 2018 (deeper image quality transfer).

    Documented: RevNet(28) → 3³ convolution → 50, ReLU → RevNet(50) → 1³ convolution → 100, ReLU →
    RevNet(100) → 3³ convolution; four blocks a stack; residuals BN-ReLU-1³, BN-ReLU-3³,
    BN-ReLU-1³ on half the channels.

    Our choice: padding 1 instead of valid convolutions, and at scale k > 1 a transposed convolution
    as the final layer instead of the shuffle of k³·28 channels, so that the output lattice is
    node-aligned. The 28 input channels (28 per shell that is processed at once) are never reduced
    by `width`.

    Parameters
    ----------
    depth : int
        Blocks per stack. Each adds 2 voxels of reach per stack.
    """

    kind: ClassVar[str] = "diqt"
    summary: ClassVar[str] = "Reversible stacks between convolutions: deep image quality transfer."
    cost: ClassVar[float] = 2.2
    takes_all: ClassVar[bool] = True
    feature_layers: ClassVar[tuple[str, ...]] = (
        "stack1",
        "convolution1",
        "stack2",
        "convolution2",
        "stack3",
    )

    def __init__(self, *, depth: int = 4, **common: Any) -> None:
        super().__init__(**common)
        self.depth = depth
        first, second = scaled_width(50, self.width), scaled_width(100, self.width)
        self.stages = nn.ModuleDict(
            {
                "stack1": ReversibleStack(self.channels, depth),
                "convolution1": nn.Sequential(
                    nn.Conv3d(self.channels, first, 3, padding=1), rectifier()
                ),
                "stack2": ReversibleStack(first, depth),
                "convolution2": nn.Sequential(PointConvolution(first, second), rectifier()),
                "stack3": ReversibleStack(second, depth),
            }
        )
        self.final = lattice_convolution(second, self.channels, 1, self.scale)

        stack1 = Reach().convolve(2 * depth)
        convolution1 = stack1.convolve(1)
        stack2 = convolution1.convolve(2 * depth)
        stack3 = stack2.convolve(2 * depth)
        self._declare(
            stack3.move(self.scale),
            {
                "stack1": FeatureMap(self.channels, stack1),
                "convolution1": FeatureMap(first, convolution1),
                "stack2": FeatureMap(first, stack2),
                "convolution2": FeatureMap(second, stack2),
                "stack3": FeatureMap(second, stack3),
            },
        )
        if self.feature_layer == "stack3":
            self.near_reaches = Reach().move(self.scale), Reach()

    def body(self, x: Tensor) -> SingleOutputs:
        """Run the network; see `SingleNetwork.run`."""
        features = x
        for name, stage in self.stages.items():
            x = stage(x)
            if name == self.feature_layer:
                features = x
        prediction = self.final(x)
        return SingleOutputs(features, ((self.target, prediction),))

    def far_layers(self, x: Tensor) -> Tensor:
        """Run all stacks."""
        for stage in self.stages.values():
            x = stage(x)
        return x

    def near_layers(self, far: Tensor) -> SingleOutputs:
        """Run the final layer."""
        prediction = self.final(far)
        return SingleOutputs(far, ((self.target, prediction),))

    def options(self) -> Config:
        """Return the number of blocks per stack."""
        return {"depth": self.depth}


# --- Reversible stacks ------------------------------------------------------------------------


class Residual(nn.Sequential):
    """F or G of a reversible block: BN-ReLU-1³, BN-ReLU-3³, BN-ReLU-1³ at constant width.

    BatchNorm's biases start at 0.01 (our choice).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.BatchNorm3d(channels),
            rectifier(),
            PointConvolution(channels, channels),
            nn.BatchNorm3d(channels),
            rectifier(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.BatchNorm3d(channels),
            rectifier(),
            PointConvolution(channels, channels),
        )
        for norm in (m for m in self if isinstance(m, nn.BatchNorm3d)):
            # A channel that is 0 everywhere (a dead ReLU before the stack) leaves BatchNorm as its
            # bias. If that were 0, rounding in the inversion would decide on which side of the next
            # ReLU it is, and gradients would differ from the plain stack's.
            nn.init.constant_(norm.bias, 0.01)


class ReversibleBlock(nn.Module):
    """y1 = x1 + F(x2); y2 = x2 + G(y1), on the two halves of the channels."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.f = Residual(half)
        self.g = Residual(half)

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y1, y2), each (B, half, X, Y, Z), in the precision of x1 and x2."""
        y1 = x1 + _read(self.f, x2)
        y2 = x2 + _read(self.g, y1)
        return y1, y2


def _read(residual: nn.Module, x: Tensor) -> Tensor:
    """Apply F or G in the precision of its weights."""
    added: Tensor = residual(x.to(next(residual.parameters()).dtype))
    return added


class ReversibleStack(nn.Module):
    """A stack of reversible blocks that keeps only its output and inverts itself in backward.

    F and G compute in float32 even under autocast, and the sums of the coupling are kept in float64
    (our choice; float32 on MPS, which has no other). With float32 sums the inversion is off by
    about 1e-6: little, but enough to push single voxels across a ReLU's edge, which changes their
    gradients by several per cent. With float64 sums F and G read exactly the same float32 values
    again. In evaluation mode nothing is inverted, and float32 takes half the memory.

    Parameters
    ----------
    channels : int
        Channels of input and output; even.
    depth : int
        Number of blocks, at least 1.

    Attributes
    ----------
    plain : bool
        Whether to run the same modules through ordinary autograd, which keeps every activation. In
        evaluation mode, and where no gradient is wanted, the stack always runs plainly.

    Raises
    ------
    ValueError
        For an odd number of channels or a depth under 1.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"a reversible stack halves its channels: {channels} is not even")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self.blocks = nn.ModuleList(ReversibleBlock(channels // 2) for _ in range(depth))
        self.plain = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, X, Y, Z) to the same shape, in float32 or float64."""
        with full_precision(x):
            x = x if x.dtype == torch.float64 else x.float()
            if self.plain or not self.training or not torch.is_grad_enabled():
                return self._through(x).to(x.dtype)
            parameters = [p for p in self.parameters() if p.requires_grad]
            inverting: Callable[..., Tensor] = _Inverting.apply
            return inverting(x, self, *parameters)

    def _through(self, x: Tensor) -> Tensor:
        """Run the blocks one after another; the result is still in the precision of the sums."""
        exact = self.training and x.device.type != "mps"
        x1, x2 = (x.double() if exact else x).chunk(2, dim=1)
        for block in self.blocks:
            x1, x2 = block(x1, x2)
        return torch.cat((x1, x2), dim=1)


def keep_activations(network: nn.Module) -> None:
    """Let all stacks of a network keep their activations: a step of DIQT takes a third less time.

    Gradients differ from those of inverted stacks by rounding only. For small examples, for which
    memory is no concern.
    """
    for module in network.modules():
        if isinstance(module, ReversibleStack):
            module.plain = True


class _Inverting(torch.autograd.Function):
    """The stack as one autograd step that saves only its output, before rounding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stack: ReversibleStack, *parameters: Tensor) -> Tensor:
        y = stack._through(x)
        ctx.stack = stack
        ctx.parameters = parameters
        # Parameters cost no memory here; once saved, a change to them before backward is detected.
        ctx.save_for_backward(y, *parameters)
        return y.to(x.dtype, copy=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        y = ctx.saved_tensors[0]
        if not ctx.stack.training:
            raise RuntimeError("a reversible stack cannot go to eval mode before its backward pass")
        gradients: dict[Tensor, Tensor] = {}
        # backward may be called inside an autocast region, and the recomputation is a second
        # forward pass: neither may leave a trace.
        with full_precision(y), _statistics_untouched(ctx.stack):
            y1, y2 = y.chunk(2, dim=1)
            dy1, dy2 = dy.to(y.dtype).chunk(2, dim=1)
            for block in reversed(ctx.stack.blocks):
                # y2 = x2 + G(y1), then y1 = x1 + F(x2)
                y2, from_g = _undo(block.g, y1, y2, dy2, gradients)
                dy1 = dy1 + from_g
                y1, from_f = _undo(block.f, y2, y1, dy1, gradients)
                dy2 = dy2 + from_f
        dx = torch.cat((dy1, dy2), dim=1).to(dy.dtype) if ctx.needs_input_grad[0] else None
        return dx, None, *(gradients.get(p) for p in ctx.parameters)


def _undo(
    residual: nn.Module,
    read: Tensor,
    total: Tensor,
    dtotal: Tensor,
    gradients: dict[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Undo total = x + residual(read): return x and the gradient reaching `read`.

    The gradients of the residual's parameters are put into `gradients`.
    """
    parameters = [p for p in residual.parameters() if p.requires_grad]
    read = read.detach().requires_grad_()
    with torch.enable_grad():
        added = _read(residual, read)
    dread, *dparameters = torch.autograd.grad(added, (read, *parameters), dtotal.to(added.dtype))
    gradients.update(zip(parameters, dparameters, strict=True))
    return total - added.detach(), dread


@contextmanager
def _statistics_untouched(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch, as in the forward pass, without counting it again."""
    tracking = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True
