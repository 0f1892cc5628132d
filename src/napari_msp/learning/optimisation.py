"""One network's optimisation: what a step does to its weights."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

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
    network
        What is trained.
    phase
        Number of the phase, on which the examples depend.
    sampler, recipe
        Of the run.
    weights
        Of the channels of each platform in the loss; None: all alike.
    device
        Where it computes.
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
