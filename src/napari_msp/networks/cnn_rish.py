"""CNN-RISH: a network that scales each SH order by a rotation-invariant ratio."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_msp.networks.base import (
    CHANNELS,
    FeatureMap,
    SingleNetwork,
    SingleOutputs,
    order_channels,
)
from napari_msp.networks.layers import (
    LinearResampling,
    Reach,
    full_precision,
    lattice_convolution,
    rectifier,
    scaled_width,
)
from napari_msp.signal.channels import Standardisation

LARGEST_RATIO = 4.0
"""Amplitude ratios stay between 1/4 and 4."""

FLOOR = 0.01
"""Share of an order's mean RISH added before the logarithm."""


class CNNRISH(SingleNetwork):
    """Five-layer CNN on RISH features; it scales the input's coefficients order by order.

    RISH_l = Σ_m c²_lm; c'_lm = sqrt(RISH'_l / RISH_l) · c_lm.

    Source: Cetin Karayumak 2018 (CNN on RISH features); as a baseline in Blumberg 2019.

    Documented: five layers, RISH features in, RISH of the target out, coefficients scaled by the
    clamped ratio.

    Our choice: 3³ kernels, 96 channels, ReLU between. Coefficients arrive standardised; RISH of
    such channels is not rotation-invariant, so they are un-standardised first, with the statistics
    of `set_standardisation`. The CNN reads f_l = ½ log(RISH_l / R_l + 0.01), where R_l = Σ_m (mean²
    + deviation²) is the mean RISH of the training voxels: invariant, near 0, and smooth where
    RISH_l = 0. It predicts r_l = log sqrt(RISH'_l / RISH_l), clamped smoothly to ±log 4 (a tanh: a
    hard clamp would stop learning there); the last layer starts at a tenth of the usual weights, so
    that the ratio starts near 1. At scale k > 1 the fifth layer is a transposed convolution and the
    input's coefficients are upsampled linearly. z ("layer4", on lattice 1) contains orientations
    only as their variation in space; "scaled", the prediction itself, contains them directly.
    """

    takes_input_skip: ClassVar[bool] = False
    kind: ClassVar[str] = "cnn-rish"
    summary: ClassVar[str] = (
        "Five layers on rotation-invariant features; the SH orders are scaled, not replaced."
    )
    cost: ClassVar[float] = 0.5
    takes_all: ClassVar[bool] = True
    feature_layers: ClassVar[tuple[str, ...]] = ("scaled", "layer1", "layer2", "layer3", "layer4")

    input_mean: Tensor
    input_deviation: Tensor
    target_mean: Tensor
    target_deviation: Tensor

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        features = scaled_width(96, self.width)
        self.orders = order_channels(self.channels)
        orders = len(self.orders)
        self.layers = nn.ModuleDict(
            {
                f"layer{i}": nn.Sequential(
                    nn.Conv3d(features if i > 1 else orders, features, 3, padding=1), rectifier()
                )
                for i in range(1, 5)
            }
        )
        self.final = lattice_convolution(features, orders, 1, self.scale)
        with torch.no_grad():
            for parameter in self.final.parameters():
                parameter.mul_(0.1)
        self.resampling = LinearResampling(1, self.scale)
        self._know_shells()

        reach = {f"layer{i}": Reach().convolve(i) for i in range(1, 5)}
        output = reach["layer4"].move(self.scale).join(Reach().resample(self.scale))
        self._declare(
            output,
            {"scaled": FeatureMap(self.channels, output)}
            | {name: FeatureMap(features, layer) for name, layer in reach.items()},
        )

    def _know_shells(self) -> None:
        """Allocate the statistics of all shells."""
        for platform in ("input", "target"):
            self.register_buffer(f"{platform}_mean", torch.zeros(CHANNELS * self.shells))
            self.register_buffer(f"{platform}_deviation", torch.ones(CHANNELS * self.shells))

    def apply_to_each(self, shells: int) -> None:
        """Let it process this number of shells, each separately with the same weights."""
        super().apply_to_each(shells)
        self._know_shells()

    def set_standardisation(self, source: Standardisation, target: Standardisation) -> None:
        """Set the statistics by which input and target platform are standardised, as weights."""
        for platform, known in (("input", source), ("target", target)):
            self.get_buffer(f"{platform}_mean").copy_(torch.from_numpy(known.mean))
            self.get_buffer(f"{platform}_deviation").copy_(torch.from_numpy(known.deviation))

    def coefficients(self, x: Tensor) -> Tensor:
        """Un-standardise the input: (B, 28, X, Y, Z) in units of the b0-normalised signal."""
        return x * self._of(self.input_deviation, x) + self._of(self.input_mean, x)

    def _of(self, statistic: Tensor, x: Tensor) -> Tensor:
        """Reshape a statistic of all shells to (B, C, 1, 1, 1), a row for each example's shell."""
        rows = statistic.view(-1, x.shape[1], 1, 1, 1)
        return rows if len(rows) == 1 else rows.repeat(len(x) // len(rows), 1, 1, 1, 1)

    def invariants(self, coefficients: Tensor) -> Tensor:
        """Return the CNN's input: f_l = ½ log(RISH_l / R_l + 0.01).

        (B, 4, X, Y, Z), or 4 channels for each of several shells that are processed at once.
        """
        rish = torch.stack(
            [coefficients[:, order].square().sum(dim=1) for order in self.orders], dim=1
        )
        square = self.input_mean.square() + self.input_deviation.square()
        mean_rish = torch.stack([square[order].sum() for order in order_channels(len(square))])
        return 0.5 * (rish / self._of(mean_rish, rish) + FLOOR).log()

    def body(self, x: Tensor) -> SingleOutputs:
        """Run the network; see `SingleNetwork.run`."""
        with full_precision(x):
            coefficients = self.coefficients(x)
            layer = self.invariants(coefficients)
        features = layer
        for name, module in self.layers.items():
            layer = module(layer)
            if name == self.feature_layer:
                features = layer
        raw = self.final(layer)
        with full_precision(x):
            ratio = amplitude_ratio(raw.to(coefficients.dtype))
            moved = self.resampling(coefficients)
            scaled = torch.cat(
                [moved[:, order] * ratio[:, i : i + 1] for i, order in enumerate(self.orders)],
                dim=1,
            )
            # In place, as an image on the finer lattice is large.
            prediction = scaled.sub_(self._of(self.target_mean, scaled))
            prediction.div_(self._of(self.target_deviation, scaled))
        if self.feature_layer == "scaled":
            features = prediction
        return SingleOutputs(features, ((self.target, prediction),))


def amplitude_ratio(raw: Tensor) -> Tensor:
    """Return sqrt(RISH' / RISH) from the CNN's output: exp, clamped smoothly to [1/4, 4]."""
    limit = torch.tensor(LARGEST_RATIO, dtype=raw.dtype, device=raw.device).log()
    return (limit * torch.tanh(raw / limit)).exp()
