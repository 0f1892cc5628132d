"""Weights that a run with validation subjects keeps: averages over steps, at their best."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """Exponential moving average of a network's weights, and the best one so far.

    A step at full learning rate leaves weights that scatter around what they have learned; their
    mean is as good as after a fall of the rate, at any time. Statistics of BatchNorm are averaged
    alike.

    Parameters
    ----------
    network
        Whose weights.
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
        """Take what `tensors` gave.

        Raises
        ------
        ValueError
            When it is another network's, or not finite.
        """
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
