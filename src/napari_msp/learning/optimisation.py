"""Optimisation of one network: its loss, its steps, and which weights are kept.

Losses are mean squared errors over in-mask voxels, summed over supervised outputs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from napari_msp.learning.distributed import ALONE, OneProcess
from napari_msp.learning.sampling import Batch, Sampler
from napari_msp.learning.schedule import Recipe
from napari_msp.model_file import under
from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.msp import Network, SharedMSP, stages_of
from napari_msp.signal.channels import Standardisation

Trained = Network | SharedMSP
"""Network or networks that one optimisation trains."""


class Optimisation:
    """Performs the steps of one phase.

    On a CPU the channels of a voxel are adjacent in memory, in weights and input alike: a step of
    SHResNet takes 0.088 s instead of 0.143, of an MSP for two targets 0.22 instead of 0.34
    (benchmarks/steps.md). Files and other devices use the standard layout.

    Parameters
    ----------
    phase
        Number of the phase, which determines the examples.
    weights
        Loss weights of the channels of each platform; None: all equal.
    processes
        Processes that each compute a share of every step.
    """

    def __init__(
        self,
        network: Trained,
        phase: int,
        sampler: Sampler,
        recipe: Recipe,
        weights: Mapping[str, Tensor] | None,
        device: torch.device,
        processes: OneProcess = ALONE,
    ) -> None:
        self.network, self.phase = network, phase
        self._sampler, self._recipe, self._weights, self._device = sampler, recipe, weights, device
        self._channels_last = device.type == "cpu"
        if self._channels_last:
            network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._processes = processes
        self.adam = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)

    def step(
        self, number: int, alpha: float | None = None, rate: float | None = None
    ) -> tuple[float, int]:
        """Learn from one batch.

        Parameters
        ----------
        rate
            Learning rate; None: the recipe's.

        Returns
        -------
        The loss before the step, and the number of its input voxels.
        """
        if rate is not None:
            for group in self.adam.param_groups:
                group["lr"] = rate
        learned = learned_platforms(self.network)
        batch = self._sampler.batch(self.phase, number, learned).to(self._device)
        if self._channels_last:
            batch = replace(batch, input=batch.input.to(memory_format=torch.channels_last_3d))
        input_voxels, *in_masks = self._processes.total(batch.voxels())
        self.network.train()
        self.adam.zero_grad(set_to_none=True)
        with self._precision():
            loss = training_loss(
                self.network,
                batch,
                alpha or 0.0,
                self._recipe.branch_losses,
                self._weights,
                self._recipe.second_weight,
                dict(zip(batch.masks, in_masks, strict=True)),
            )
        loss.backward()  # type: ignore[no-untyped-call]
        value = self._processes.add_up(self.network, loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.largest_gradient)
        self.adam.step()
        return value, int(input_voxels)

    def _precision(self) -> Any:
        """Return a context of mixed precision if the recipe wants it and the device has it."""
        if self._recipe.mixed_precision and self._device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()


class AveragedWeights:
    """Exponential moving average of a network's weights, and the best one so far.

    A step at full learning rate leaves weights that scatter around their optimum; at any time their
    mean is as good as after a fall of the rate. Statistics of BatchNorm are averaged, too.

    Parameters
    ----------
    horizon
        Approximate number of steps to average over; 1: the last weights only.
    """

    def __init__(self, network: nn.Module, horizon: int) -> None:
        self._network = network
        self._horizon = horizon
        self._average = _copied(network)
        self._best: dict[str, Tensor] = {}

    def update(self, step: int) -> None:
        """Include the weights after a step, counted from 1."""
        part = 1 / min(self._horizon, step)  # at first all steps have the same weight
        for name, value in self._network.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, part)
            else:
                self._average[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averaged weights into the network for the block."""
        own = _copied(self._network)
        try:
            self._network.load_state_dict(self._average)
            yield
        finally:
            self._network.load_state_dict(own)

    def keep(self) -> None:
        """Keep the present average as the best."""
        self._best = {name: value.clone() for name, value in self._average.items()}

    def give_best(self) -> None:
        """Put the best weights into the network for good."""
        self._network.load_state_dict(self._best or self._average)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything, by name, for a checkpoint."""
        parts = {"average": self._average, "best": self._best}
        return {f"{part}/{name}": v for part, those in parts.items() for name, v in those.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the result of `tensors`."""
        for part, into in (("average", self._average), ("best", self._best)):
            given = under(f"{part}/", tensors)
            # In the same layout as before: equal layouts are rounded equally.
            into.update({k: torch.empty_like(self._average[k]).copy_(v) for k, v in given.items()})


@torch.no_grad()
def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


# --- The loss --------------------------------------------------------------------------------


def learned_platforms(network: Trained) -> tuple[str, ...]:
    """Return the platforms on which a network has a loss."""
    return tuple(network.scales if isinstance(network, SingleNetwork) else network.singles)


def masked_error(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    weights: Tensor | None = None,
    voxels: Tensor | None = None,
) -> Tensor:
    """Return the mean squared error over in-mask voxels and channels.

    Parameters
    ----------
    prediction, target
        (B, 28·S, …) standardised channels.
    mask
        (B, 1, …) bool. A batch without mask has no error.
    weights
        (28·S,) weights of the channels, 1 on average; None: all equal.
    voxels
        In-mask voxels of the whole batch if these examples are a share of it; None: their own.
    """
    counted = mask.sum() if voxels is None else voxels
    squares = (prediction.to(target.dtype) - target).square() * mask
    if weights is not None:
        squares = squares * weights.view(-1, 1, 1, 1)
    return squares.sum() / (counted * prediction.shape[1]).clamp(min=1)


def sh_unit_weights(standardisation: Standardisation) -> Tensor:
    """Return (28·S,) weights, 1 on average, that convert a standardised error to SH units."""
    squares = torch.from_numpy(standardisation.deviation).square()
    return squares / squares.mean()


def training_loss(
    network: Trained,
    batch: Batch,
    alpha: float,
    branch_losses: bool,
    weights: Mapping[str, Tensor] | None = None,
    second_weight: float = 1.0,
    voxels: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the loss of one batch, or the contribution of a share of it.

    Single networks: Σ L over their supervised outputs. MSP: Σ_i L(ŷ¹_i, y_i) + L(ŷ²_T, y_T) as in
    the paper; with `branch_losses` also L(N_iT(z_i), y_T) of each branch (our choice: branches then
    learn from the first step, while α is still small). MSPs that share their first stages have one
    loss, Σ_i L(ŷ¹_i, y_i) + Σ_T L(ŷ²_T, y_T). `weights` are those of each platform's channels, see
    `sh_unit_weights`; `second_weight` is that of L(ŷ²_T, y_T) relative to the others; `voxels` are
    each platform's in-mask voxels of the whole batch if this one is a share of it.
    """

    def error(prediction: Tensor, platform: str) -> Tensor:
        inner = _trimmed(prediction, batch.trim[platform])
        chosen = None if weights is None else weights[platform]
        counted = None if voxels is None else voxels[platform]
        return masked_error(inner, batch.targets[platform], batch.masks[platform], chosen, counted)

    if isinstance(network, SingleNetwork):
        supervised = network.run(batch.input).supervised
        terms = [error(value, platform) for platform, value in supervised]
        return torch.stack(terms).sum()
    stages = stages_of(network, batch.input, alpha)
    first = next(iter(stages.values())).first  # the same for all targets
    terms = [error(value, platform) for platform, value in first.items()]
    for target, outputs in stages.items():
        terms.append(second_weight * error(outputs.second, target))
        if branch_losses:
            terms += [error(value, target) for value in outputs.branches.values()]
    return torch.stack(terms).sum()


def _trimmed(prediction: Tensor, trim: int) -> Tensor:
    if trim == 0:
        return prediction
    inner = slice(trim, -trim)
    return prediction[..., inner, inner, inner]
