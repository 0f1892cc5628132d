"""MSP: a second stage that combines the single networks of all targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd
from typing import ClassVar, Literal, NamedTuple, cast

from torch import Tensor, nn

from napari_msp.networks.base import (
    CHANNELS,
    Config,
    Role,
    SingleNetwork,
    shells_apart,
    shells_together,
)
from napari_msp.networks.equation import second_stage
from napari_msp.networks.layers import (
    LinearResampling,
    Reach,
    Width,
    lattice_convolution,
    rectifier,
    scaled_width,
)

BranchStart = Literal["nothing", "input", "first stage"]
"""Start of a branch's output, to which its convolutions are added."""


class StageOutputs(NamedTuple):
    """The predictions of both stages of an MSP, in standardised SH coefficients.

    Attributes
    ----------
    first : dict of str to Tensor
        ŷ¹_i for every target i, each on its own lattice.
    second : Tensor
        ŷ²_T on the target's lattice.
    branches : dict of str to Tensor
        N_iT(z_i) for every i ≠ T, on the target's lattice.
    """

    first: dict[str, Tensor]
    second: Tensor
    branches: dict[str, Tensor]


class ConnectionNetwork(nn.Module):
    """N_iT: two convolutions that turn the features z_i into a prediction of platform T.

    If the lattices differ, the first convolution is strided or transposed; if neither lattice is a
    multiple of the other (2 → 3), the first goes down to their common lattice and the second goes
    up.

    Parameters
    ----------
    inputs, hidden : int
        Channels of z_i and between the convolutions.
    source, target : int
        Lattices of z_i and of T.
    channels : int
        Channels of T's image.
    """

    def __init__(
        self, inputs: int, hidden: int, source: int, target: int, channels: int = CHANNELS
    ) -> None:
        super().__init__()
        common = gcd(source, target)
        # One move if one lattice refines the other, otherwise half of it in each convolution.
        self.between = target if common in (source, target) else common
        self.target = target
        self.first = lattice_convolution(inputs, hidden, source, self.between)
        self.activation = rectifier()
        self.second = lattice_convolution(hidden, channels, self.between, target)

    def forward(self, z: Tensor) -> Tensor:
        """Map z_i (B, C, …) to (B, 28, …) on the target's lattice."""
        y: Tensor = self.second(self.activation(self.first(z)))
        return y

    def start_at_zero(self) -> None:
        """Let the output be 0 until something is learned."""
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def reach(self, features: Reach) -> Reach:
        """Return the branch's reach, given that of z_i."""
        return features.move(self.between).move(self.target)


class MSP(nn.Module):
    """Multi-Stage Prediction network for one target, see `napari_msp.networks.equation`.

    Source: Blumberg 2019.

    Documented: any single networks as first stage, one for each of the P-1 targets; a stack of two
    3D convolutions connects each other target's last feature map to the target.

    Our choice: 3³ kernels (2k-1 per axis where the lattice changes by a factor k, so 3³ for k = 2),
    a ReLU between them, 64 channels between them at full width, and what a branch starts from
    (`branch_start`). In the paper it is only its two convolutions and starts from nothing. Added
    to the interpolated input, like single networks with an input skip, it need not carry the whole
    image through z_i. Added to ŷ¹_T, with convolutions that begin at 0, eq. (1) starts from the
    trained single network for any α.

    Parameters
    ----------
    singles : mapping of str to SingleNetwork
        First stage: the single network N_i of every target i. Kept by reference, so first stages
        may be shared between MSPs.
    target : str
        Target platform T, one of `singles`.
    width : "paper" or float
        Width of the connection networks: full, or a fraction in (0, 1].
    branch_start : "nothing", "input" or "first stage"
        Start of a branch's output, to which its convolutions are added.

    Attributes
    ----------
    scale : int
        Scale of the target's lattice.
    shells, channels : int
        Number of shells, and channels of the layers' input and output, as in the single networks.
        If these process each shell separately, so do the branches.
    halo : int
        Input voxels needed around a tile for every output of both stages to be exact.

    Raises
    ------
    ValueError
        When `target` has no single network, or one predicts another platform than its key.
    """

    kind: ClassVar[str] = "msp"
    summary: ClassVar[str] = "Built from the best single network of each target."
    role: ClassVar[Role] = "multi-stage"
    cost: ClassVar[float] = 4.0

    def __init__(
        self,
        singles: Mapping[str, SingleNetwork],
        target: str,
        *,
        width: Width = "paper",
        branch_start: BranchStart = "nothing",
    ) -> None:
        super().__init__()
        if target not in singles:
            raise ValueError(f"target {target!r} has no single network, only {list(singles)} do")
        for platform, single in singles.items():
            if single.target != platform:
                raise ValueError(
                    f"the single network of {platform!r} predicts {single.target!r} instead"
                )
        own = singles[target]
        if any(each.shells != own.shells or each.trunk != own.trunk for each in singles.values()):
            raise ValueError("the single networks do not take the same shells in the same way")
        self.target = target
        self.scale = own.scale
        self.shells = own.shells
        self.channels = own.channels
        self.width = width
        self.branch_start = branch_start
        self.singles = nn.ModuleDict(singles)
        hidden = scaled_width(64, width)
        halo = max(single.halo for single in singles.values())
        connections: dict[str, ConnectionNetwork] = {}
        for platform, single in singles.items():
            if platform != target:
                connection = ConnectionNetwork(
                    single.feature_channels,
                    hidden,
                    single.feature_scale,
                    self.scale,
                    self.channels,
                )
                if branch_start == "first stage":
                    connection.start_at_zero()
                connections[platform] = connection
                halo = max(halo, connection.reach(single.feature_reach).halo)
        self.connections = nn.ModuleDict(connections)
        self.resampling = LinearResampling(1, self.scale)
        self.halo = halo

    @property
    def near_halo(self) -> int | None:
        """Halo of everything after the far layers; None if a single network has none apart."""
        halo = 1  # of the parts that start from the interpolated input
        for platform, module in self.singles.items():
            reaches = cast(SingleNetwork, module).near_reaches
            if reaches is None:
                return None
            halo = max(halo, reaches[0].halo)
            if platform != self.target:
                connection = cast(ConnectionNetwork, self.connections[platform])
                halo = max(halo, connection.reach(reaches[1]).halo)
        return halo

    def far(self, x: Tensor) -> dict[str, Tensor]:
        """Run the far layers of all single networks, by platform; see `SingleNetwork.far`."""
        found: dict[str, Tensor] = {}
        for module in self.singles.values():
            found.update(cast(SingleNetwork, module).far(x))
        return found

    def forward(
        self,
        x: Tensor,
        alpha: float = 1.0,
        known: dict[str, tuple[Tensor, Tensor]] | None = None,
        far: Mapping[str, Tensor] | None = None,
    ) -> StageOutputs:
        """Run both stages.

        Parameters
        ----------
        x : Tensor
            (B, 28, X, Y, Z), standardised SH coefficients of the input platform.
        alpha : float
            α of eq. (1): 0 gives the first stage's prediction, 1 the mean of the P-1 terms.
        known : dict of str to (Tensor, Tensor), optional
            ŷ¹_i and z_i, by platform, of first stages that were already run on `x`; the others are
            run and added.
        far : mapping of str to Tensor, optional
            Result of `far` for the same `x`.

        Raises
        ------
        ValueError
            For an α outside [0, 1].
        """
        shells = max(1, x.shape[1] // self.channels)
        x = shells_apart(x, self.channels)
        known = {} if known is None else known
        first: dict[str, Tensor] = {}
        branches: dict[str, Tensor] = {}
        for platform, module in self.singles.items():
            if platform not in known:
                known[platform] = cast(SingleNetwork, module).forward_features(x, far)
            first[platform], z = known[platform]
            if platform != self.target:
                branches[platform] = self.connections[platform](z)
        own = first[self.target]
        if self.branch_start != "nothing":
            start = own if self.branch_start == "first stage" else self.resampling(x)
            branches = {platform: start + branch for platform, branch in branches.items()}
        second = second_stage(own, tuple(branches.values()), alpha)
        return StageOutputs(
            {platform: shells_together(each, shells) for platform, each in first.items()},
            shells_together(second, shells),
            {platform: shells_together(each, shells) for platform, each in branches.items()},
        )

    def config(self) -> Config:
        """Return the architecture as plain JSON types; `build` makes the same network from it."""
        return {
            "kind": self.kind,
            "target": self.target,
            "width": self.width,
            "branch_start": self.branch_start,
            # A list, not an object: the sum of eq. (1) runs in this order, to the last bit.
            "singles": [cast(SingleNetwork, single).config() for single in self.singles.values()],
        }


Network = SingleNetwork | MSP
"""A network that predicts one target."""


class SharedMSP(nn.Module):
    """MSPs of several targets with common first stages, each of which is run once per pass.

    Our choice: the paper's MSPs have their own first stages, which only their target's second stage
    refines. Equation (1) is the same for every target.

    Parameters
    ----------
    networks : mapping of str to MSP
        MSPs by target, with the same single networks by reference.

    Attributes
    ----------
    networks : dict of str to MSP
        As given. `state_dict` contains weights once: those of `singles`, and of the `connections`
        by target.
    shells, halo : int
        Number of shells, and the largest halo of the networks.

    Raises
    ------
    ValueError
        When they have first stages of their own.
    """

    def __init__(self, networks: Mapping[str, MSP]) -> None:
        super().__init__()
        if not shares_first_stages(networks.values()):
            raise ValueError("the networks do not share their first stages")
        self.networks = dict(networks)  # a plain dict: its modules are registered below, once
        self.singles = next(iter(networks.values())).singles
        self.connections = nn.ModuleDict(
            {target: network.connections for target, network in networks.items()}
        )
        self.resamplings = nn.ModuleDict(
            {target: network.resampling for target, network in networks.items()}
        )
        self.shells = next(iter(networks.values())).shells
        self.halo = max(network.halo for network in networks.values())

    @property
    def near_halo(self) -> int | None:
        """Halo of everything after the far layers, see `MSP.near_halo`."""
        halos = [network.near_halo for network in self.networks.values()]
        return None if None in halos else max(each for each in halos if each is not None)

    def far(self, x: Tensor) -> dict[str, Tensor]:
        """Run the far layers of all single networks, by platform."""
        return next(iter(self.networks.values())).far(x)

    @classmethod
    def on(
        cls,
        singles: Mapping[str, SingleNetwork],
        *,
        width: Width = "paper",
        branch_start: BranchStart = "nothing",
    ) -> SharedMSP:
        """Build an MSP for every target on the same single networks; arguments as for `MSP`."""
        return cls(
            {
                target: MSP(singles, target, width=width, branch_start=branch_start)
                for target in singles
            }
        )

    def forward(
        self, x: Tensor, alpha: float = 1.0, far: Mapping[str, Tensor] | None = None
    ) -> dict[str, StageOutputs]:
        """Run both stages of every target; see `MSP.forward`."""
        known: dict[str, tuple[Tensor, Tensor]] = {}
        return {target: network(x, alpha, known, far) for target, network in self.networks.items()}


def by_target(network: Network | SharedMSP) -> Mapping[str, Network]:
    """Return the networks by the target that each predicts, in their order."""
    return network.networks if isinstance(network, SharedMSP) else {network.target: network}


def stages_of(
    network: Network | SharedMSP, x: Tensor, alpha: float, far: Mapping[str, Tensor] | None = None
) -> dict[str, StageOutputs]:
    """Run a network, or all that share their first stages, once; see `MSP.forward`.

    A single network has no first stage and no branches: what it predicts is the last stage.
    """
    if isinstance(network, SharedMSP):
        found: dict[str, StageOutputs] = network(x, alpha, far)
        return found
    if isinstance(network, MSP):
        return {network.target: network(x, alpha, None, far)}
    return {network.target: StageOutputs({}, network.run(x, far).prediction, {})}


def together(networks: Mapping[str, Network]) -> list[Network | SharedMSP]:
    """Return what is run to predict every target: one for all that share their first stages."""
    if not shares_first_stages(networks.values()):
        return list(networks.values())
    return [SharedMSP(cast("Mapping[str, MSP]", networks))]


def shares_first_stages(networks: Iterable[nn.Module]) -> bool:
    """Return whether networks are several MSPs with the same single networks by reference."""
    known = [tuple(each.singles.items()) if isinstance(each, MSP) else () for each in networks]
    return len(known) > 1 and bool(known[0]) and all(each == known[0] for each in known)
