"""Networks by name, and from their stored configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from napari_msp.networks.base import Config, SingleNetwork
from napari_msp.networks.cnn_rish import CNNRISH
from napari_msp.networks.cpm import CPM
from napari_msp.networks.diqt import DIQT
from napari_msp.networks.hned import HNED
from napari_msp.networks.layers import Width
from napari_msp.networks.msp import MSP
from napari_msp.networks.shresnet import SHResNet

Network = SingleNetwork | MSP
"""What predicts one target."""

NETWORKS: dict[str, type[SingleNetwork]] = {
    network.kind: network for network in (DIQT, CNNRISH, SHResNet, CPM, HNED)
}
"""Single networks by kind."""


def build_single(
    kind: str,
    *,
    target: str,
    scales: Mapping[str, int],
    width: Width = "paper",
    input_skip: bool = False,
    **options: Any,
) -> SingleNetwork:
    """Build a single network, with fresh weights.

    Parameters
    ----------
    kind : str
        One of `NETWORKS`.
    target : str
        Target platform.
    scales : mapping of str to int
        Lattice scale of every target platform. CPM and HNED predict them all, in this order with
        the target last; the others need the target's only.
    width : "paper" or float
        Full width, or a fraction in (0, 1].
    input_skip : bool
        Let outputs start from the interpolated input, see `SingleNetwork.add_input_skip`.
    **options
        Further arguments of the network, such as `feature_layer` or DIQT's `depth`.

    Raises
    ------
    ValueError
        For an unknown kind, and whatever the network itself refuses.
    """
    if kind not in NETWORKS:
        raise ValueError(f"no network is called {kind!r}; there are {', '.join(NETWORKS)}")
    network: Callable[..., SingleNetwork] = NETWORKS[kind]
    built = network(target=target, scales=scales, width=width, **options)
    if input_skip:
        built.add_input_skip()
    return built


def build(config: Mapping[str, Any]) -> Network:
    """Build the network that a `config()` describes, with fresh weights.

    Parameters
    ----------
    config : mapping
        What `SingleNetwork.config` or `MSP.config` returned, also after a turn through JSON.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    if config["kind"] != MSP.kind:
        return _single(config)
    singles = {single["target"]: _single(single) for single in config["singles"]}
    # Models written before branches could start from something do not mention it.
    start = config.get("branch_start", "nothing")
    return MSP(singles, config["target"], width=config["width"], branch_start=start)


def _single(config: Mapping[str, Any]) -> SingleNetwork:
    return build_single(
        config["kind"],
        target=config["target"],
        scales=dict(config["scales"]),
        width=config["width"],
        feature_layer=config["feature_layer"],
        input_skip=config["input_skip"],
        **config["options"],
    )


__all__ = ["NETWORKS", "Config", "Network", "build", "build_single"]

MULTI_STAGE = "msp"
"""The kind that combines single networks."""

_ABOUT = {
    "msp": ("MSP", "Built from the best single network of each target.", "multi-stage", 4.0),
    "diqt": ("DIQT", "Single network, trained for all steps.", "single", 2.2),
    "cnn-rish": ("CNN-RISH", "Single network, trained for all steps.", "single", 0.5),
    "shresnet": ("SHResNet", "Single network, trained for all steps.", "single", 1.0),
    "cpm": (
        "CPM",
        "Multi-task: each stage predicts one platform, the last the target.",
        "multi-task",
        1.0,
    ),
    "hned": (
        "HNED",
        "Multi-task: side outputs predict the platforms and are fused.",
        "multi-task",
        1.2,
    ),
}


def kinds() -> tuple[str, ...]:
    """Give every kind that can be trained."""
    return tuple(_ABOUT)


def title(kind: str) -> str:
    """Give a kind as its paper writes it."""
    return _ABOUT[kind][0]


def network_class(kind: str) -> Any:
    """Give the class of a kind."""
    network: Any = MSP if kind == MULTI_STAGE else NETWORKS[kind]
    network.title, network.summary, network.role, network.cost = _ABOUT[kind]
    return network
