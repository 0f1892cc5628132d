"""What every single network N_T promises: one target platform, a known lattice, a known halo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Required, TypedDict, Unpack

from torch import Tensor, nn

from napari_msp.networks.layers import LinearResampling, Reach, Width

CHANNELS = 28
"""Coefficients of a 6th-order real symmetric SH fit, one channel each."""

ORDER_SLICES = (slice(0, 1), slice(1, 6), slice(6, 15), slice(15, 28))
"""Channels of order l = 0, 2, 4, 6."""

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


class Statistics(TypedDict):
    """How the input and the target platform are standardised: (28,) each.

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
    prediction : Tensor
        ŷ_T (B, 28, k(n-1)+1, …), standardised SH coefficients of the target platform.
    features : Tensor
        z_T, the feature map that connection networks read.
    supervised : tuple of (str, Tensor)
        Every output that has a loss, with its platform, in order of depth. The last one is the
        prediction. A platform may come twice (HNED: the target's side output and the fusion).
    """

    prediction: Tensor
    features: Tensor
    supervised: tuple[tuple[str, Tensor], ...]


@dataclass(frozen=True)
class FeatureMap:
    """A layer that z can be taken from: its channels, and its reach, which knows the lattice."""

    channels: int
    reach: Reach


class SingleNetwork(nn.Module, ABC):
    """A network N_T that predicts one target platform from the input platform.

    Input and output are standardised SH coefficients, (B, 28, X, Y, Z) →
    (B, 28, k(X-1)+1, k(Y-1)+1, k(Z-1)+1), k the scale of the target's lattice.

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

    Attributes
    ----------
    kind : str
        Name in the registry, models and settings: the title in lower case.
    title : str
        Name in tables and figures, as its paper writes it.
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
    channels : int
        28.
    scale : int
        Scale k of the target's lattice.

    Raises
    ------
    ValueError
        For a missing target, a scale that is no positive integer, or an unknown layer.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    role: ClassVar[Role] = "single"
    cost: ClassVar[float] = 1.0
    feature_layers: ClassVar[tuple[str, ...]]
    channels: ClassVar[int] = CHANNELS
    takes_input_skip: ClassVar[bool] = True

    def __init__(
        self,
        *,
        target: str,
        scales: Mapping[str, int],
        width: Width = "paper",
        feature_layer: str | None = None,
    ) -> None:
        super().__init__()
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
        """Set down the reach of the prediction and of every layer z can come from."""
        assert output.scale == self.scale
        assert tuple(layers) == self.feature_layers
        self._output_reach = output
        self._feature_map = layers[self.feature_layer]

    @property
    def halo(self) -> int:
        """Input voxels needed around an output tile for it to equal the whole-image pass."""
        return self._output_reach.halo

    @property
    def feature_reach(self) -> Reach:
        """Reach of z."""
        return self._feature_map.reach

    @property
    def feature_scale(self) -> int:
        """Lattice of z."""
        return self._feature_map.reach.scale

    @property
    def feature_channels(self) -> int:
        """Channels of z."""
        return self._feature_map.channels

    def add_input_skip(self) -> None:
        """Let every output start from the input, interpolated to the output's lattice (our choice).

        On standardised channels that start is statistical alignment, and the network learns what
        alignment cannot do. Nothing is added to the weights.
        """
        if self.takes_input_skip:
            for platform, scale in self.scales.items():
                self.input_skips[platform] = LinearResampling(1, scale)

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

    def run(self, x: Tensor) -> SingleOutputs:
        """Run the network once and return its prediction, its features and its supervised outputs.

        Parameters
        ----------
        x : Tensor
            (B, 28, X, Y, Z), standardised SH coefficients of the input platform.
        """
        outputs = self.body(x)
        if not self.input_skips:
            return outputs
        supervised = tuple(
            (platform, value + self.input_skips[platform](x))
            for platform, value in outputs.supervised
        )
        return SingleOutputs(supervised[-1][1], outputs.features, supervised)

    def forward(self, x: Tensor) -> Tensor:
        """Predict ŷ_T."""
        return self.run(x).prediction

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict ŷ_T and return it with the feature map z_T."""
        outputs = self.run(x)
        return outputs.prediction, outputs.features

    def supervised(self, x: Tensor) -> list[tuple[str, Tensor]]:
        """Return every output that has a loss, with its platform; the last one is ŷ_T."""
        return list(self.run(x).supervised)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Return the network's best prediction of every platform it is supervised on."""
        return dict(self.run(x).supervised)

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
        }
