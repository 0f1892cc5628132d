"""One network's optimisation: what a step does to its weights, and which of them are kept."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from napari_msp.learning.distributed import ALONE, OneProcess
from napari_msp.learning.phases import Trained, learned_platforms, training_loss
from napari_msp.learning.sampling import Sampler
from napari_msp.learning.schedule import Recipe

LARGEST_GRADIENT = 1.0
"""Norm to which the fast preset clips gradients (our choice)."""


class Optimisation:
    """Takes steps of one phase.

    On a CPU the channels of a voxel lie beside each other, in weights and input alike: a step of
    SHResNet takes 0.088 s in place of 0.143, of an MSP for two targets 0.22 in place of 0.34
    (benchmarks/steps.md). Files keep the usual layout, and on other devices it stays.

    Parameters
    ----------
    phase
        Number of the phase, on which the examples depend.
    weights
        Of the channels of each platform in the loss; None: all alike.
    processes
        That each compute a share of every step.

    Attributes
    ----------
    adam : torch.optim.Adam
        The optimiser, whose state a checkpoint keeps.
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
        number
            Of the step, from 0.
        alpha
            α of eq. (1).
        rate
            Learning rate; None: the recipe's.

        Returns
        -------
        The loss before the step, and how many input voxels it is of.
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
        if self._recipe.dense:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.adam.step()
        return value, int(input_voxels)

    def _precision(self) -> Any:
        """Mixed precision where the device has it and the recipe is ours."""
        if self._recipe.dense and self._device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()


class AveragedWeights:
    """Exponential moving average of a network's weights, and the best one so far.

    A step at full learning rate leaves weights that scatter around what they have learned; their
    mean is as good as after a fall of the rate, at any time. Statistics of BatchNorm are averaged
    alike.

    Parameters
    ----------
    horizon
        Steps over which they are averaged, roughly; 1: the last weights alone.
    """

    def __init__(self, network: nn.Module, horizon: int) -> None:
        self._network = network
        self._horizon = horizon
        self._average = _copied(network)
        self._best: dict[str, Tensor] = {}

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        part = 1 / min(self._horizon, step)  # at first all steps count alike
        for name, value in self._network.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, part)
            else:
                self._average[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network have the averaged weights for a while."""
        own = _copied(self._network)
        try:
            self._network.load_state_dict(self._average)
            yield
        finally:
            self._network.load_state_dict(own)

    def keep(self) -> None:
        """Take the average of now for the best."""
        self._best = {name: value.clone() for name, value in self._average.items()}

    def give_best(self) -> None:
        """Let the network have the best weights for good."""
        self._network.load_state_dict(self._best or self._average)

    def tensors(self) -> dict[str, Tensor]:
        """Give everything, by name, for a checkpoint."""
        parts = {"average": self._average, "best": self._best}
        return {f"{part}/{name}": v for part, those in parts.items() for name, v in those.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        for part, into in (("average", self._average), ("best", self._best)):
            lead = f"{part}/"
            given = {k.removeprefix(lead): v for k, v in tensors.items() if k.startswith(lead)}
            if part == "best" and not given:
                continue
            shapes = {name: (v.shape, v.dtype) for name, v in self._average.items()}
            if {name: (v.shape, v.dtype) for name, v in given.items()} != shapes:
                raise ValueError(f"the {part} weights are another network's")
            if not all(v.isfinite().all() for v in given.values()):
                raise ValueError(f"the {part} weights are not finite")
            # In the layout that they had: sums of tensors laid out alike round alike.
            into.update({k: torch.empty_like(self._average[k]).copy_(v) for k, v in given.items()})


@torch.no_grad()
def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
