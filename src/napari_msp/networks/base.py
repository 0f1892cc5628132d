"""The interface of every single network N_T: one target platform, a known lattice, a known halo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from napari_msp.errors import Advice, UserError
from napari_msp.networks.layers import LinearResampling, Reach, Width
from napari_msp.signal.channels import Standardisation

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
"""How a network processes several shells: each separately with the same weights, or all at once."""


def shells_apart(x: Tensor, channels: int) -> Tensor:
    """Reshape (B, S·C, …) to (B·S, C, …): each shell becomes an example of its own."""
    if x.shape[1] <= channels:
        return x
    return x.reshape(-1, channels, *x.shape[2:])


def shells_together(x: Tensor, shells: int) -> Tensor:
    """Reshape (B·S, C, …) back to (B, S·C, …)."""
    if shells == 1:
        return x
    return x.reshape(-1, shells * x.shape[1], *x.shape[2:])


AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)

Config = dict[str, Any]
"""A network's architecture as plain JSON types."""

Role = Literal["single", "multi-task", "multi-stage"]
"""Kind of prediction: the target alone; the other targets on the way to it; or the target from
single networks of all targets.
"""


STATISTICS = ("input_mean", "input_deviation", "target_mean", "target_deviation")
"""Names of buffers with standardisations, which are a run's own whatever it starts from."""


@dataclass(frozen=True, eq=False)
class SingleOutputs:
    """All outputs of one pass of a single network.

    Attributes
    ----------
    features : Tensor
        z_T, the feature map that connection networks read.
    supervised : tuple of (str, Tensor)
        Every output that has a loss, with its platform, in order of depth. The last one is the
        prediction. A platform may occur twice (HNED: the target's side output and the fusion).
    """

    features: Tensor
    supervised: tuple[tuple[str, Tensor], ...]

    @property
    def prediction(self) -> Tensor:
        """ŷ_T (B, 28, k(n-1)+1, …), standardised SH coefficients of the target platform."""
        return self.supervised[-1][1]


@dataclass(frozen=True)
class FeatureMap:
    """A layer that z can be taken from: its channels, and its reach, which includes the lattice."""

    channels: int
    reach: Reach


class SingleNetwork(nn.Module, ABC):
    """A network N_T that predicts one target platform from the input platform.

    Input and output are standardised SH coefficients, (B, 28, X, Y, Z) →
    (B, 28, k(X-1)+1, k(Y-1)+1, k(Z-1)+1), k the scale of the target's lattice. For S shells they
    have 28·S channels, one shell after the other. A network processes all shells at once, or each
    separately with the same weights, see `apply_to_each`.

    Parameters
    ----------
    target : str
        Target platform T.
    scales : mapping of str to int
        Lattice scale of each platform that the network predicts; must contain `target`. Networks
        that predict only their target keep its scale and ignore the rest; multi-task ones keep all
        in this order, the target last.
    width : "paper" or float
        Full width, or a fraction of it in (0, 1] (even channels, at least 2).
    feature_layer : str, optional
        Layer that z is taken from, one of `feature_layers`; by default the last of them, which
        is the last feature map (what the final layer reads).
    at_once : int
        Number of shells that the layers process together.

    Attributes
    ----------
    kind : str
        Name in the registry, models and settings: the registered title in lower case.
    summary : str
        Description in one sentence, for reports.
    role : "single" or "multi-task"
        Whether it predicts only its target, or all targets on the way to it.
    cost : float
        Approximate duration of a training step, relative to SHResNet.
    feature_layers : tuple of str
        Layers that z can be taken from.
    takes_input_skip : bool
        Whether `add_input_skip` makes sense; CNN-RISH scales its input, which is a skip already.
    takes_all : bool
        Whether its layers can process several shells at once.
    shells : int
        Number of shells S.
    channels : int
        Channels of the layers' input and output: 28, or 28·S if they process all shells at once.
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
        """Declare the reach of the prediction and of every layer that z can come from.

        Every network does so at the end of its constructor: the halo of its tiles follows from it.
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
        """Halo of the near layers in input voxels; None if far layers are not separated."""
        return None if self.near_reaches is None else max(1, self.near_reaches[0].halo)

    @property
    def feature_reach(self) -> Reach:
        """The part of the input that determines a voxel of the feature map z."""
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

        On standardised channels this start is statistical alignment, and the network learns what
        alignment cannot do. It adds no weights.
        """
        if self.takes_input_skip:
            for platform, scale in self.scales.items():
                self.input_skips[platform] = LinearResampling(1, scale)

    @property
    def trunk(self) -> Trunk:
        """How it processes several shells; a single one is processed alike either way."""
        return "all" if self.channels > CHANNELS else "each"

    def apply_to_each(self, shells: int) -> None:
        """Let it process this number of shells, each separately with the same weights."""
        self.shells = shells

    def set_standardisation(self, source: Standardisation, target: Standardisation) -> None:
        """Set the standardisation of input and target platform, for networks that compute with it.

        Called once, before training. Most networks only use standardised channels.
        """

    @abstractmethod
    def body(self, x: Tensor) -> SingleOutputs:
        """Run the layers once; the outputs exclude the input skip."""

    near_reaches: tuple[Reach, Reach] | None = None
    """Reach of prediction and z in the far layers' output; None if these are not separated."""

    def far_layers(self, x: Tensor) -> Tensor:
        """Run the layers with a large reach, on the input's lattice.

        Tiled computation runs them once on the whole image, as their halo is large. `body` applies
        the near layers to their output.
        """
        raise NotImplementedError

    def near_layers(self, far: Tensor) -> SingleOutputs:
        """Run the remaining layers; the outputs exclude the input skip."""
        raise NotImplementedError

    def far(self, x: Tensor) -> dict[str, Tensor]:
        """Run the far layers, by target; if shells are processed separately, each is an example."""
        return {self.target: self.far_layers(shells_apart(x, self.channels))}

    def run(self, x: Tensor, far: Mapping[str, Tensor] | None = None) -> SingleOutputs:
        """Run the network once and return its prediction, its features and its supervised outputs.

        Parameters
        ----------
        x : Tensor
            (B, 28·S, X, Y, Z), standardised SH coefficients of the input platform.
        far : mapping of str to Tensor, optional
            Result of `far` for the same `x`.
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

    def options(self) -> Config:
        """Return the constructor's additional arguments, specific to this kind of network."""
        return {}

    def config(self) -> Config:
        """Return the architecture as plain JSON types; `build` makes the same network from it."""
        return {
            "kind": self.kind,
            "target": self.target,
            # Pairs, not an object: the order of platforms is part of CPM and HNED.
            "scales": [[platform, scale] for platform, scale in self.scales.items()],
            "width": self.width,
            "feature_layer": self.feature_layer,
            "input_skip": bool(self.input_skips),
            "options": self.options(),
            # A single shell is not mentioned: such models stay as they were before there were more.
            **({"shells": self.shells, "trunk": self.trunk} if self.shells > 1 else {}),
        }


# --- Check of declared lattice and reach --------------------------------------------------------


def check_declared(network: SingleNetwork) -> None:
    """Refuse a network whose lattice or reach differs from its declaration: tiles would be wrong.

    The gradient shows which input voxels matter, in a copy whose weights let all of them matter.

    Raises
    ------
    UserError
        When it declares nothing, or when prediction or feature map are on another lattice or read
        further.
    """
    kind = f"the network {network.kind}"
    if "_output_reach" not in vars(network):
        remedy = Advice("end its constructor with `self._declare`, see `Reach`")
        raise UserError(f"{kind} does not declare how far it reaches", remedy=remedy)
    with torch.inference_mode(False):  # whoever loads a model may compute without gradients
        probe = make_transparent(deepcopy(network).eval())
    node = max(network.halo, network.feature_reach.halo) + 2
    for axis in range(3):
        lengths = [2 * node + 1 if each == axis else 5 for each in range(3)]
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.full((1, CHANNELS * network.shells, *lengths), 2.0, requires_grad=True)
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
            with torch.inference_mode(False), torch.enable_grad():
                low, high = support(found, x, k * node, k * node + k - 1, axis)
            if max(node - low, high - node) > reach.halo:
                problem = f"the {what} of {kind} reads more than the {reach.halo} voxels around"
                remedy = Advice("declare the reach of every layer, see `Reach`")
                raise UserError(f"{problem} that it declares", remedy=remedy)


def make_transparent(network: AnyNetwork) -> AnyNetwork:
    """Set all convolutions to positive weights of mean gain 1: no ReLU closes, nothing cancels."""
    numbers = torch.Generator().manual_seed(0)  # other random numbers are not affected
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                weight = module.weight
                weight.uniform_(0.5, 1.5, generator=numbers)
                weight.div_(weight.numel() / module.out_channels)
                if module.bias is not None:
                    module.bias.fill_(0.1)
        for parameter in network.parameters():
            if not parameter.any():  # a gate that is closed until something is learned
                parameter.fill_(0.1)
    return network


def support(y: Tensor, x: Tensor, first: int, last: int, axis: int = 0) -> tuple[int, int]:
    """Return the first and last input voxel on an axis that output voxels first … last need."""
    chosen = y.movedim(2 + axis, 0)[first : last + 1].sum()
    (gradient,) = torch.autograd.grad(chosen, x, retain_graph=True)
    touched = gradient.abs().movedim(2 + axis, 0).flatten(1).sum(dim=1).nonzero()
    return int(touched.min()), int(touched.max())
