"""The available networks, by kind. Listing them loads no torch.

Another package adds one by an entry point whose name is the network's title::

    [project.entry-points."napari_msp.networks"]
    U-Net = "my_package:UNet"

Its class is a `SingleNetwork`, and its `kind` is the title in lower case, here "u-net".
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from napari_msp.errors import Choose, Give, UserError
from napari_msp.plugins import UPDATE, list_plugins, load_plugin

if TYPE_CHECKING:
    from napari_msp.networks.base import SingleNetwork, Trunk
    from napari_msp.networks.layers import Width
    from napari_msp.networks.msp import Network

GROUP = "napari_msp.networks"
"""Entry-point group of other packages' networks."""

OWN = {
    "MSP": "napari_msp.networks.msp:MSP",
    "DIQT": "napari_msp.networks.diqt:DIQT",
    "CNN-RISH": "napari_msp.networks.cnn_rish:CNNRISH",
    "SHResNet": "napari_msp.networks.shresnet:SHResNet",
    "CPM": "napari_msp.networks.cpm:CPM",
    "HNED": "napari_msp.networks.hned:HNED",
}
"""This package's own networks, by title."""

MULTI_STAGE = "msp"
"""The kind that combines single networks."""


def kinds() -> tuple[str, ...]:
    """Return all kinds that can be trained: our own first, then those of other packages."""
    return tuple(_networks())


def single_kinds() -> tuple[str, ...]:
    """Return the kinds that predict one target by themselves, so that an MSP can combine them."""
    return tuple(kind for kind in kinds() if kind != MULTI_STAGE)


def title(kind: str) -> str:
    """Return a kind's name as in its paper; a kind that is not installed is returned as it is.

    >>> title("cnn-rish")
    'CNN-RISH'
    """
    found = _networks().get(kind)
    return kind if found is None else found.name


def network_class(kind: str) -> type[Network]:
    """Return the class of a kind; loads torch.

    Raises
    ------
    UserError
        When there is no such kind, or the package that provides it is broken.
    """
    found = _networks().get(kind)
    if found is None:
        raise UserError(f"there is no network {kind}", field="kind", remedy=Choose("kind", kinds()))
    if kind == MULTI_STAGE:
        from napari_msp.networks.msp import MSP

        return MSP
    from napari_msp.networks.base import SingleNetwork

    network = load_plugin(found, SingleNetwork)  # type: ignore[type-abstract]
    if getattr(network, "kind", None) != kind:
        raise UserError(f"is of kind {network.kind!r}, not {kind!r}", found.value, remedy=UPDATE)
    return network


def build_single(
    kind: str,
    *,
    target: str,
    scales: Mapping[str, int],
    width: Width = "paper",
    input_skip: bool = False,
    shells: int = 1,
    trunk: Trunk = "each",
    **options: Any,
) -> SingleNetwork:
    """Build a single network, with fresh weights.

    Parameters
    ----------
    kind : str
        One of `single_kinds`.
    target : str
        Target platform.
    scales : mapping of str to int
        Lattice scale of every target platform. CPM and HNED predict them all, in this order with
        the target last; the others only need the target's.
    width : "paper" or float
        Full width, or a fraction in (0, 1].
    input_skip : bool
        Whether outputs start from the interpolated input, see `SingleNetwork.add_input_skip`.
    shells : int
        Number of shells.
    trunk : "each" or "all"
        Whether shells are processed separately, with the same weights, or all at once.
    **options
        Further arguments of the network, such as `feature_layer` or DIQT's `depth`.

    Raises
    ------
    UserError
        For an unknown kind, or one that cannot process all shells at once; for a kind of another
        package whose outputs' lattice or reach differs from its declaration.
    ValueError
        For arguments that the network itself refuses.
    """
    network: Any = network_class(kind)
    if shells > 1 and trunk == "all":
        if not network.takes_all:
            problem = f"{kind} cannot take several shells at once"
            raise UserError(problem, field="trunk", remedy=Give("trunk", "each"))
        options["at_once"] = shells
    built: SingleNetwork = network(target=target, scales=scales, width=width, **options)
    if shells > 1 and trunk == "each":
        built.apply_to_each(shells)
    if input_skip:
        built.add_input_skip()
    if kind not in map(str.lower, OWN):
        from napari_msp.networks.base import check_declared

        check_declared(built)
    return built


def build(config: Mapping[str, Any], singles: Mapping[str, SingleNetwork] | None = None) -> Network:
    """Build the network that a `config()` describes, with fresh weights.

    Parameters
    ----------
    config : mapping
        Result of `SingleNetwork.config` or `MSP.config`, possibly read back from JSON.
    singles : mapping of str to SingleNetwork, optional
        First stages that an MSP shares with others; by default it has its own.

    Raises
    ------
    UserError
        For an unknown kind.
    """
    if config["kind"] != MULTI_STAGE:
        return _single(config)
    from napari_msp.networks.msp import MSP

    if singles is None:
        singles = {single["target"]: _single(single) for single in config["singles"]}
    # Models written before branches had a choice of start do not mention it.
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
        shells=config.get("shells", 1),
        trunk=config.get("trunk", "each"),
        **config["options"],
    )


def _networks() -> dict[str, EntryPoint]:
    """Return all networks by kind."""
    networks: dict[str, EntryPoint] = {}
    for name, entry in list_plugins(GROUP, OWN).items():
        networks.setdefault(name.lower(), entry)
    return networks
