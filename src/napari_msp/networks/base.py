"""What every single network N_T promises: one target platform, a known lattice, a known halo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Required, TypedDict, TypeVar, Unpack

import torch
from torch import Tensor, nn

from napari_msp.errors import Advice, UserError
from napari_msp.networks.layers import LinearResampling, Reach, Width

CHANNELS = 28
"""Coefficients of a 6th-order real symmetric SH fit, one channel each."""

ORDER_SLICES = (slice(0, 1), slice(1, 6), slice(6, 15), slice(15, 28))
"""Channels of order l = 0, 2, 4, 6."""


def order_channels(channels: int) -> tuple[slice, ...]:
    """Return the channels of each order of each shell: all orders of the first, then the next."""
    return tuple(
        slice(shell + part.start, shell + part.stop)
        for shell in range(0, channels, CHANNELS)
        for part in ORDER_SLICES
    )


Trunk = Literal["each", "all"]
"""How a network takes several shells: one after the other, with the same weights, or at once."""


def shells_apart(x: Tensor, channels: int) -> Tensor:
    """Turn (B, S·C, …) into (B·S, C, …): each shell becomes an example of its own."""
    if x.shape[1] <= channels:
        return x
    return x.reshape(-1, channels, *x.shape[2:])


def shells_together(x: Tensor, shells: int) -> Tensor:
    """Turn (B·S, C, …) back into (B, S·C, …)."""
    if shells == 1:
        return x
    return x.reshape(-1, shells * x.shape[1], *x.shape[2:])


AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)

Config = dict[str, Any]
"""A network's architecture as plain JSON types."""

Role = Literal["single", "multi-task", "multi-stage"]
"""What a network predicts: its target alone; the other targets on the way to it; its target from
single networks of all targets.
"""


class CommonArguments(TypedDict, total=False):
    """What the constructor of every single network takes, see `SingleNetwork`."""

    target: Required[str]
    scales: Required[Mapping[str, int]]
    width: Width
    feature_layer: str | None
    at_once: int


class Statistics(TypedDict):
    """How the input and the target platform are standardised: (28,) each, of S shells (28·S,).

    In units of the b0-normalised signal's coefficients.
    """

    input_mean: Tensor | Sequence[float]
    input_deviation: Tensor | Sequence[float]
    target_mean: Tensor | Sequence[float]
    target_deviation: Tensor | Sequence[float]


@dataclass(frozen=True, eq=False)
class SingleOutputs:
    """Everything one pass of a single network yields.

    Attributes
    ----------
    features : Tensor
        z_T, the feature map that connection networks read.
    supervised : tuple of (str, Tensor)
        Every output that has a loss, with its platform, in order of depth. The last one is the
        prediction. A platform may come twice (HNED: the target's side output and the fusion).
    """

    features: Tensor
    supervised: tuple[tuple[str, Tensor], ...]

    @property
    def prediction(self) -> Tensor:
        """ŷ_T (B, 28, k(n-1)+1, …), standardised SH coefficients of the target platform."""
        return self.supervised[-1][1]


@dataclass(frozen=True)
class FeatureMap:
    """A layer that z can be taken from: its channels, and its reach, which knows the lattice."""

    channels: int
    reach: Reach


class SingleNetwork(nn.Module, ABC):
    """A network N_T that predicts one target platform from the input platform.

    Input and output are standardised SH coefficients, (B, 28, X, Y, Z) →
    (B, 28, k(X-1)+1, k(Y-1)+1, k(Z-1)+1), k the scale of the target's lattice. Of S shells they
    have 28·S channels, one shell after the other. A network takes all of them at once, or each by
    itself with the same weights, see `apply_to_each`.

    Parameters
    ----------
    target : str
        Target platform T.
    scales : mapping of str to int
        Lattice scale of each platform the network predicts; must contain `target`. Networks that
        predict their target alone keep its scale and ignore the rest; multi-task ones keep all in
        this order, the target last.
    width : "paper" or float
        Full width, or a fraction of it in (0, 1] (even channels, at least 2).
    feature_layer : str, optional
        Layer that z is taken from, one of `feature_layers`; by default the last of them, which
        is the last feature map (what the final layer reads).
    at_once : int
        Number of shells that the layers take together.

    Attributes
    ----------
    kind : str
        Name in the registry, models and settings: there its title, in lower case.
    summary : str
        What it is, in one sentence for reports.
    role : "single" or "multi-task"
        Whether it predicts its target alone, or all targets on the way to it.
    cost : float
        About how long a training step takes, relative to SHResNet.
    feature_layers : tuple of str
        Layers that z can be taken from.
    takes_input_skip : bool
        Whether `add_input_skip` makes sense; CNN-RISH scales its input, which is a skip already.
    takes_all : bool
        Whether its layers can take several shells at once.
    shells : int
        Number of shells S.
    channels : int
        What the layers read and give: 28, or 28·S where they take all shells at once.
    scale : int
        Scale k of the target's lattice.

    Raises
    ------
    ValueError
        For a missing target, a scale that is no positive integer, or an unknown layer.
    """

    kind: ClassVar[str]
    summary: ClassVar[str]
    role: ClassVar[Role] = "single"
    cost: ClassVar[float] = 1.0
    feature_layers: ClassVar[tuple[str, ...]]
    takes_input_skip: ClassVar[bool] = True
    takes_all: ClassVar[bool] = False

    def __init__(
        self,
        *,
        target: str,
        scales: Mapping[str, int],
        width: Width = "paper",
        feature_layer: str | None = None,
        at_once: int = 1,
    ) -> None:
        super().__init__()
        if at_once < 1 or (at_once > 1 and not self.takes_all):
            raise ValueError(f"{self.kind} cannot take {at_once} shells at once")
        self.shells = at_once
        self.channels = CHANNELS * at_once
        if target not in scales:
            raise ValueError(f"no scale is given for target {target!r}, only for {list(scales)}")
        for platform, scale in scales.items():
            if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
                raise ValueError(f"scale of {platform!r} must be a positive integer, not {scale!r}")
        if feature_layer is None:
            feature_layer = self.feature_layers[-1]
        if feature_layer not in self.feature_layers:
            known = ", ".join(self.feature_layers)
            raise ValueError(f"{self.kind} has no layer {feature_layer!r}; it has {known}")
        self.target = target
        self.scale = scales[target]
        others = scales if self.role == "multi-task" else {}
        self.scales = {p: s for p, s in others.items() if p != target} | {target: self.scale}
        self.width = width
        self.feature_layer = feature_layer
        self.input_skips = nn.ModuleDict()

    def _declare(self, output: Reach, layers: Mapping[str, FeatureMap]) -> None:
        """Set down the reach of the prediction and of every layer z can come from.

        Every network does at the end of its constructor: the halo of its tiles follows from it.
        """
        assert output.scale == self.scale
        assert tuple(layers) == self.feature_layers
        self._output_reach = output
        self._feature_map = layers[self.feature_layer]

    @property
    def halo(self) -> int:
        """Input voxels needed around an output tile for it to equal the whole-image pass."""
        return self._output_reach.halo

    @property
    def near_halo(self) -> int | None:
        """Halo of the near layers in input voxels; None where far ones are not apart."""
        return None if self.near_reaches is None else max(1, self.near_reaches[0].halo)

    @property
    def feature_reach(self) -> Reach:
        """What part of the input a voxel of the feature map z follows from."""
        return self._feature_map.reach

    @property
    def feature_scale(self) -> int:
        """Scale of the lattice of the feature map z: 1, or that of the target."""
        return self._feature_map.reach.scale

    @property
    def feature_channels(self) -> int:
        """Number of channels of the feature map z."""
        return self._feature_map.channels

    def add_input_skip(self) -> None:
        """Let every output start from the input, interpolated to the output's lattice (our choice).

        On standardised channels that start is statistical alignment, and the network learns what
        alignment cannot do. Nothing is added to the weights.
        """
        if self.takes_input_skip:
            for platform, scale in self.scales.items():
                self.input_skips[platform] = LinearResampling(1, scale)

    @property
    def trunk(self) -> Trunk:
        """How it takes several shells; one shell is taken alike either way."""
        return "all" if self.channels > CHANNELS else "each"

    def apply_to_each(self, shells: int) -> None:
        """Let it take so many shells, each by itself with the same weights."""
        self.shells = shells

    def set_standardisation(self, **statistics: Unpack[Statistics]) -> None:
        """Take over how the platforms are standardised, where a network computes with it.

        Called once, before training. Most networks know standardised channels only.

        Parameters
        ----------
        **statistics
            See `Statistics`.
        """

    @abstractmethod
    def body(self, x: Tensor) -> SingleOutputs:
        """Run the layers once; outputs are without the input skip."""

    near_reaches: tuple[Reach, Reach] | None = None
    """How far prediction and z reach from what far layers give; None where these are not apart."""

    def far_layers(self, x: Tensor) -> Tensor:
        """Run the layers that reach far, on the input's lattice.

        Whoever computes tiles computes these once for all, as their halo is large. `body` is the
        near layers of what they give.
        """
        raise NotImplementedError

    def near_layers(self, far: Tensor) -> SingleOutputs:
        """Run the layers behind; outputs are without the input skip."""
        raise NotImplementedError

    def far(self, x: Tensor) -> dict[str, Tensor]:
        """Run the far layers, by target; where shells are taken apart each is an example."""
        return {self.target: self.far_layers(shells_apart(x, self.channels))}

    def run(self, x: Tensor, far: Mapping[str, Tensor] | None = None) -> SingleOutputs:
        """Run the network once and return its prediction, its features and its supervised outputs.

        Parameters
        ----------
        x : Tensor
            (B, 28·S, X, Y, Z), standardised SH coefficients of the input platform.
        far : mapping of str to Tensor, optional
            What `far` gave for the same `x`.
        """
        shells = max(1, x.shape[1] // self.channels)
        x = shells_apart(x, self.channels)
        outputs = self.body(x) if far is None else self.near_layers(far[self.target])
        supervised = outputs.supervised
        if self.input_skips:
            supervised = tuple(
                (platform, value + self.input_skips[platform](x)) for platform, value in supervised
            )
        return SingleOutputs(
            shells_together(outputs.features, shells),
            tuple((platform, shells_together(each, shells)) for platform, each in supervised),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Predict ŷ_T."""
        return self.run(x).prediction

    def forward_features(
        self, x: Tensor, far: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict ŷ_T and return it with the feature map z_T; see `run`."""
        outputs = self.run(x, far)
        return outputs.prediction, outputs.features

    def supervised(self, x: Tensor) -> tuple[tuple[str, Tensor], ...]:
        """Return every output that has a loss, with its platform; the last one is ŷ_T."""
        return self.run(x).supervised

    def options(self) -> Config:
        """Return the constructor's further arguments, those that only this kind of network has."""
        return {}

    def config(self) -> Config:
        """Return the architecture as plain JSON types; `build` makes the same network of it."""
        return {
            "kind": self.kind,
            "target": self.target,
            # Pairs, not an object: the order of platforms is part of CPM and HNED.
            "scales": [[platform, scale] for platform, scale in self.scales.items()],
            "width": self.width,
            "feature_layer": self.feature_layer,
            "input_skip": bool(self.input_skips),
            "options": self.options(),
            # One shell is not mentioned: models of one are what they were before there were more.
            **({"shells": self.shells, "trunk": self.trunk} if self.shells > 1 else {}),
        }


# --- Whether it is as it declares ---------------------------------------------------------------


def check_declared(network: SingleNetwork) -> None:
    """Refuse a network that lies or reaches otherwise than it declares: its tiles would be wrong.

    The gradient says which input voxels count, in a copy whose weights let all of them count.

    Raises
    ------
    UserError
        When it declares nothing, and when prediction or feature map lie on another lattice or read
        further.
    """
    kind = f"the network {network.kind}"
    if "_output_reach" not in vars(network):
        remedy = Advice("end its constructor with `self._declare`, see `Reach`")
        raise UserError(f"{kind} does not declare how far it reaches", remedy=remedy)
    probe = make_transparent(deepcopy(network).eval())
    node = max(network.halo, network.feature_reach.halo) + 2
    for axis in range(3):
        lengths = [2 * node + 1 if each == axis else 5 for each in range(3)]
        x = torch.full((1, CHANNELS * network.shells, *lengths), 2.0, requires_grad=True)
        with torch.enable_grad():
            prediction, features = probe.forward_features(x)
        for what, found, reach in (
            ("prediction", prediction, network._output_reach),
            ("feature map", features, network.feature_reach),
        ):
            k = reach.scale
            wanted = [k * (length - 1) + 1 for length in lengths]
            if list(found.shape[2:]) != wanted:
                problem = f"the {what} of {kind} has {list(found.shape[2:])} voxels, not {wanted}"
                raise UserError(problem, remedy=Advice("see `lattice_convolution`"))
            low, high = support(found, x, k * node, k * node + k - 1, axis)
            if max(node - low, high - node) > reach.halo:
                problem = f"the {what} of {kind} reads more than the {reach.halo} voxels around"
                remedy = Advice("declare the reach of every layer, see `Reach`")
                raise UserError(f"{problem} that it declares", remedy=remedy)


def make_transparent(network: AnyNetwork) -> AnyNetwork:
    """Set all convolutions to positive weights of mean gain 1: no ReLU closes, nothing cancels."""
    numbers = torch.Generator().manual_seed(0)  # nobody else's random numbers go on
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                weight = module.weight
                weight.uniform_(0.5, 1.5, generator=numbers)
                weight.div_(weight.numel() / module.out_channels)
                if module.bias is not None:
                    module.bias.fill_(0.1)
    return network


def support(y: Tensor, x: Tensor, first: int, last: int, axis: int = 0) -> tuple[int, int]:
    """Return the first and last input voxel on an axis that output voxels first … last need."""
    chosen = y.movedim(2 + axis, 0)[first : last + 1].sum()
    (gradient,) = torch.autograd.grad(chosen, x, retain_graph=True)
    touched = gradient.abs().movedim(2 + axis, 0).flatten(1).sum(dim=1).nonzero()
    return int(touched.min()), int(touched.max())
