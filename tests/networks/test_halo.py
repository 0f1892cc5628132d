"""The halo: equal to the gradient's support, and enough for tiles to be exact."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from napari_msp.errors import UserError
from napari_msp.networks.base import (
    CHANNELS,
    FeatureMap,
    SingleNetwork,
    SingleOutputs,
    check_declared,
    make_transparent,
    support,
)
from napari_msp.networks.layers import Reach
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build_single, network_class

Network = SingleNetwork | MSP


def outputs(network: Network, x: Tensor) -> dict[str, tuple[Tensor, int]]:
    """Every output a tile is cut from, with its lattice."""
    if isinstance(network, SingleNetwork):
        return {"prediction": (network(x), network.scale)}
    stages = network(x, alpha=0.7)
    singles = network.singles
    return (
        {f"first {i}": (y, singles[i].scale) for i, y in stages.first.items()}
        | {"second": (stages.second, network.scale)}
        | {f"branch {i}": (y, network.scale) for i, y in stages.branches.items()}
    )


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_halo_equals_gradient_support(small_network: Callable[[int], Network], scale: int) -> None:
    network = small_network(scale)
    make_transparent(network.double())
    node = network.halo + 2
    x = torch.full((1, 28, 2 * node + 1, 2, 2), 2.0, dtype=torch.float64, requires_grad=True)
    needed = 0
    for y, lattice in outputs(network, x).values():
        # The tile of one node owns it and the fine voxels up to the next one.
        low, high = support(y, x, lattice * node, lattice * node + lattice - 1)
        needed = max(needed, node - low, high - node)
    assert network.halo == needed


@pytest.mark.parametrize("scale", [1, 2])
def test_reach_of_every_feature_layer_equals_gradient_support(kind: str, scale: int) -> None:
    for layer in network_class(kind).feature_layers:
        network = build_single(
            kind,
            target="b",
            scales={"b": scale, "a": 3 - scale},
            width=0.1,
            feature_layer=layer,
        ).eval()
        make_transparent(network.double())
        reach = network.feature_reach
        node = reach.halo + 1
        x = torch.full((1, 28, 2 * node + 1, 1, 1), 2.0, dtype=torch.float64, requires_grad=True)
        z = network.forward_features(x)[1]
        for between in range(reach.scale):
            position = reach.scale * node + between
            low, high = support(z, x, position, position)
            assert reach.intervals[between] == (low - node, high - node), layer


@pytest.mark.parametrize("scale", [1, 2])
def test_halo_of_diqt_at_its_documented_depth(scale: int) -> None:
    network = build_single("diqt", target="t", scales={"t": scale}, width=0.05).eval()
    make_transparent(network.double())
    assert network.halo == 26
    x = torch.full((1, 28, 59, 1, 1), 2.0, dtype=torch.float64, requires_grad=True)
    y = network(x)
    low, high = support(y, x, scale * 29, scale * 29)  # a voxel that lies on a node
    radius = 26 if scale == 1 else 25
    assert (low, high) == (29 - radius, 29 + radius)
    assert support(y, x, scale * 29, scale * 30 - 1)[1] == 29 + 26


def tiled(network: Network, x: Tensor, tile: tuple[int, int, int]) -> dict[str, Tensor]:
    """Run on crops by the tile rule and put the tiles together."""
    shape = x.shape[2:]
    whole: dict[str, Tensor] = {}
    starts = [range(0, n, t) for n, t in zip(shape, tile, strict=True)]
    for corner in torch.cartesian_prod(*(torch.tensor(list(s)) for s in starts)).tolist():
        ends = [min(a + t, n) for a, t, n in zip(corner, tile, shape, strict=True)]
        lows = [max(0, a - network.halo) for a in corner]
        highs = [min(n, b + network.halo) for b, n in zip(ends, shape, strict=True)]
        window: list[Any] = [slice(a, b) for a, b in zip(lows, highs, strict=True)]
        crop = x[(..., *window)]
        for name, (y, k) in outputs(network, crop).items():
            full = [k * (n - 1) + 1 for n in shape]
            if name not in whole:
                whole[name] = torch.full((*y.shape[:2], *full), torch.nan)
            target: list[Any] = []
            source: list[Any] = []
            for a, b, low, size in zip(corner, ends, lows, full, strict=True):
                stop = min(k * b, size)
                target.append(slice(k * a, stop))
                source.append(slice(k * (a - low), stop - k * low))
            whole[name][(..., *target)] = y[(..., *source)]
    return whole


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tiles_equal_the_whole(
    small_network: Callable[[int], Network], scale: int, axis: int
) -> None:
    network = small_network(scale)
    # One axis long enough for crops to end inside the volume on both sides.
    shape = [3, 3, 3]
    shape[axis] = 2 * network.halo + 7
    tile = [2, 2, 2]
    tile[axis] = network.halo
    x = torch.randn(1, 28, *shape)
    with torch.no_grad():
        expected = outputs(network, x)
        found = tiled(network, x, (tile[0], tile[1], tile[2]))
    assert found.keys() == expected.keys()
    for name, (y, _) in expected.items():
        scale_of_values = float(y.max() - y.min())
        assert float((found[name] - y).abs().max()) <= 1e-5 * scale_of_values, name


class Dilated(SingleNetwork):
    """A network of somebody else, who may be wrong about it."""

    kind, feature_layers = "dilated", ("hidden",)

    def __init__(self, scale: int = 1, prediction: int = 6, hidden: int = 5) -> None:
        super().__init__(target="t", scales={"t": scale})
        self.hidden = nn.Conv3d(CHANNELS, 4, (3, 3, 11), padding=(1, 1, 5))
        self.final = nn.Conv3d(4, CHANNELS, 3, padding=1)
        self.gate = nn.Parameter(torch.zeros(1))  # opens when something is learned
        if prediction:
            reach = Reach(scale, ((-prediction, prediction),) * scale)
            self._declare(reach, {"hidden": FeatureMap(4, Reach().convolve(hidden))})

    def body(self, x: Tensor) -> SingleOutputs:
        z = self.hidden(x)
        return SingleOutputs(z, (("t", self.gate * self.final(z)),))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prediction": 5}, "prediction .* reads more than the 5 voxels around"),
        ({"hidden": 1}, "feature map .* reads more than the 1 voxels around"),
        ({"scale": 2}, "prediction .* voxels, not"),
        ({"prediction": 0}, "does not declare"),
    ],
)
def test_a_network_that_declares_something_else_is_refused(wrong: dict[str, int], said: str):
    network = Dilated()
    before = [each.clone() for each in network.parameters()]
    check_declared(network)
    with torch.inference_mode():
        check_declared(Dilated())
    assert all(map(torch.equal, before, network.parameters()))
    with pytest.raises(UserError, match=said):
        check_declared(Dilated(**wrong))
