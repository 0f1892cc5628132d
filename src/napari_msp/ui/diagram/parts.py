"""What a model is made of, as far as it is drawn and told: names and weights, no arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_msp.model_file import Model

TITLES = {
    "msp": "MSP",
    "diqt": "DIQT",
    "shresnet": "SHResNet",
    "cnn-rish": "CNN-RISH",
    "cpm": "CPM",
    "hned": "HNED",
}
"""Kinds of networks as the papers write them."""


@dataclass(frozen=True)
class ModelParts:
    """The network of one target.

    Attributes
    ----------
    kind
        Such as "msp".
    input, target
        Platforms.
    networks
        Platform and title of each single network of an MSP; of each stage or side output of a
        multi-task network, in their order; of a single network alone.
    """

    kind: str
    input: str
    target: str
    networks: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """The kind as the papers write it."""
        return TITLES.get(self.kind, self.kind)

    @property
    def branches(self) -> tuple[str, ...]:
        """Platforms i whose features z_i a branch N_iT reads; none but for an MSP."""
        if self.kind != "msp":
            return ()
        return tuple(platform for platform, _ in self.networks if platform != self.target)

    def weights(self, alpha: float) -> dict[str, float]:
        """Give the weight in equation (1) of each term, by platform; they add up to 1.

        The target's is that of ŷ¹_T, every other platform's that of its branch.

        >>> parts = ModelParts("msp", "ge_st", "b", (("a", "DIQT"), ("b", "DIQT")))
        >>> parts.weights(0.5)
        {'a': 0.25, 'b': 0.75}
        """
        share = alpha / (len(self.branches) + 1)
        return {
            **dict.fromkeys(self.branches, share),
            self.target: 1.0 - alpha + share,
        }


def parts_of(model: Model, target: str) -> ModelParts:
    """Describe a model's network of one target.

    Raises
    ------
    KeyError
        When the model does not predict the target.
    """
    architecture = model.card.architectures[target]
    return ModelParts(model.kind, model.card.input, target, _networks(architecture))


def _networks(architecture: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    kind = architecture["kind"]
    if kind == "msp":
        singles = architecture["singles"]
        return tuple((each["target"], TITLES.get(each["kind"], each["kind"])) for each in singles)
    title = TITLES.get(kind, kind)
    # CPM and HNED predict every platform of `scales`, the target last.
    return tuple((platform, title) for platform, _ in architecture["scales"])
