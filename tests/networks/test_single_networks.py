"""What every single network promises: sizes, features, outputs, configuration, learning."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_msp.errors import Choose, UserError
from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.diqt import keep_activations
from napari_msp.networks.layers import LinearResampling
from napari_msp.networks.registry import build, build_single, kinds, network_class, single_kinds
from napari_msp.networks.shresnet import OrderBlock
from napari_msp.signal.channels import Standardisation

SCALES = {"prisma_st": 1, "connectom_st": 1, "connectom_sa": 2}
Builder = Callable[..., SingleNetwork]


def fine(shape: tuple[int, ...], scale: int) -> tuple[int, ...]:
    return tuple(scale * (n - 1) + 1 for n in shape)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_sizes_of_every_output(single: Builder, kind: str, scale: int) -> None:
    network = single(kind, scale)
    shape = (4, 2, 5)
    x = torch.randn(2, 28, *shape)
    assert network(x).shape == (2, 28, *fine(shape, scale))
    for platform, y in network.run(x).supervised:
        assert y.shape == (2, 28, *fine(shape, network.scales[platform]))


def test_the_papers_patch_sizes(single: Builder, kind: str) -> None:
    x = torch.randn(1, 28, 11, 11, 11)
    with torch.no_grad():
        assert single(kind, 2).eval()(x).shape[2:] == (21, 21, 21)


@pytest.mark.parametrize("scale", [1, 2])
def test_features_are_what_is_declared(kind: str, scale: int) -> None:
    shape = (3, 4, 2)
    x = torch.randn(1, 28, *shape)
    seen = []
    for layer in network_class(kind).feature_layers:
        torch.manual_seed(0)
        network = build_single(
            kind, target="t", scales={"t": scale, "u": 2}, width=0.2, feature_layer=layer
        ).eval()
        y, z = network.forward_features(x)
        assert z.shape == (1, network.feature_channels, *fine(shape, network.feature_scale))
        assert torch.equal(y, network(x))  # the choice of z leaves the prediction alone
        seen.append((y, z))
    for a in range(len(seen)):
        assert torch.equal(seen[a][0], seen[0][0])
        for b in range(a):
            # Different names, different maps. (Without a move up, SHResNet's last two are one.)
            if (kind, scale, b) != ("shresnet", 1, 2):
                assert seen[a][1].shape != seen[b][1].shape or not torch.equal(
                    seen[a][1], seen[b][1]
                )


@pytest.mark.parametrize("scale", [1, 2])
def test_default_features_are_what_the_final_layer_reads(
    single: Builder, kind: str, scale: int
) -> None:
    network = single(kind, scale).eval()
    last: Any = network.stages[-1] if kind == "cpm" else network  # type: ignore[index]
    final: nn.Module = last.final
    read: list[Tensor] = []
    final.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    _, z = network.forward_features(torch.randn(1, 28, 3, 3, 3))
    assert len(read) == 1
    assert torch.equal(z, read[0])


@pytest.mark.parametrize("scale", [1, 2])
def test_features_lie_on_the_lattice_that_is_declared(
    single: Builder, kind: str, scale: int
) -> None:
    network = single(kind, scale)
    assert network.feature_scale in (1, scale)
    _, z = network.forward_features(torch.randn(1, 28, 3, 4, 5))
    assert z.shape[2:] == fine((3, 4, 5), network.feature_scale)


@pytest.mark.parametrize("target", ["connectom_st", "connectom_sa"])
def test_parameters_at_full_width(kind: str, target: str) -> None:
    network = build_single(kind, target=target, scales=SCALES)
    count = sum(p.numel() for p in network.parameters())
    assert count < 1.5e6
    narrow = build_single(kind, target=target, scales=SCALES, width=0.25)
    assert sum(p.numel() for p in narrow.parameters()) < count / 4


def test_full_width_is_width_one(kind: str) -> None:
    paper, one = (build_single(kind, target="t", scales={"t": 1}, width=w) for w in ("paper", 1.0))
    assert [p.shape for p in paper.parameters()] == [p.shape for p in one.parameters()]


@pytest.mark.parametrize("scale", [1, 2])
def test_configuration_rebuilds_the_network(single: Builder, kind: str, scale: int) -> None:
    network = single(kind, scale).eval()
    config = json.loads(json.dumps(network.config(), sort_keys=True))
    rebuilt = build(config)
    assert isinstance(rebuilt, network_class(kind))
    assert rebuilt.config() == network.config()
    x = torch.randn(1, 28, 4, 3, 5)
    assert not torch.equal(rebuilt.eval()(x), network(x))
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt(x), network(x))
    assert (rebuilt.halo, rebuilt.scale, rebuilt.target) == (
        network.halo,
        network.scale,
        network.target,
    )


def test_configuration_keeps_options() -> None:
    deep = build_single("diqt", target="t", scales={"t": 1}, depth=2, feature_layer="stack1")
    again = build(deep.config())
    assert again.config()["options"] == {"depth": 2}
    assert again.halo == deep.halo == 2 * 3 * 2 + 2
    assert again.config()["feature_layer"] == "stack1"


def test_wrong_arguments_are_errors(kind: str) -> None:
    with pytest.raises(ValueError, match="no scale is given for target 'nowhere'"):
        build_single(kind, target="nowhere", scales=SCALES)
    for scale in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="positive integer"):
            build_single(kind, target="t", scales={"t": scale})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="no layer 'last-but-nine'"):
        build_single(kind, target="t", scales={"t": 1}, feature_layer="last-but-nine")
    with pytest.raises(ValueError, match="width"):
        build_single(kind, target="t", scales={"t": 1}, width=2.0)


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(UserError) as caught:
        build_single("unet", target="t", scales={"t": 1})
    assert (caught.value.problem, caught.value.field) == ("there is no network unet", "kind")
    assert caught.value.remedy == Choose("kind", kinds())


def test_multi_task_networks_supervise_every_platform() -> None:
    x = torch.randn(1, 28, 3, 3, 3)
    order = ["connectom_st", "connectom_sa", "prisma_st"]  # as given, the target last
    scales = {"connectom_st": 1, "prisma_st": 1, "connectom_sa": 2}
    for kind, expected in (("cpm", order), ("hned", [*order, "prisma_st"])):
        network = build_single(kind, target="prisma_st", scales=scales, width=0.1).eval()
        pairs = network.run(x).supervised
        assert [platform for platform, _ in pairs] == expected
        assert torch.equal(pairs[-1][1], network(x))
    for kind in ("diqt", "cnn-rish", "shresnet"):
        network = build_single(kind, target="prisma_st", scales=scales, width=0.1)
        assert [platform for platform, _ in network.run(x).supervised] == ["prisma_st"]


def touches(y: Tensor, module: nn.Module) -> bool:
    """Whether `y` depends on a module's parameters."""
    gradients = torch.autograd.grad(
        y.sum(), list(module.parameters()), retain_graph=True, allow_unused=True
    )
    return any(g is not None and bool(g.abs().max() > 0) for g in gradients)


def test_cpm_stages_see_the_image_and_the_stage_before() -> None:
    network = build_single("cpm", target="c", scales={"a": 1, "b": 2, "c": 3}, width=0.2)
    outputs = [y for _, y in network.run(torch.randn(1, 28, 4, 4, 4)).supervised]
    stages = network.get_submodule("stages")
    assert isinstance(stages, nn.ModuleList)
    for t, y in enumerate(outputs):
        assert touches(y, network.get_submodule("image"))
        assert [touches(y, stage) for stage in stages] == [s <= t for s in range(3)]


def test_hned_fuses_every_side_output_and_sides_lie_at_several_depths() -> None:
    network = build_single("hned", target="c", scales={"a": 1, "b": 2, "c": 3}, width=0.2)
    *sides, (_, fused) = network.run(torch.randn(1, 28, 4, 4, 4)).supervised
    blocks, heads = network.get_submodule("blocks"), network.get_submodule("sides")
    assert isinstance(blocks, nn.ModuleList)
    assert isinstance(heads, nn.ModuleList)
    for depth, (_, side) in enumerate(sides):
        assert [touches(side, block) for block in blocks] == [d <= depth for d in range(3)]
        assert [touches(side, head) for head in heads] == [d == depth for d in range(3)]
    assert all(touches(fused, module) for module in [*blocks, *heads])


def test_shresnet_blocks_keep_the_orders_apart() -> None:
    widths = [2, 4, 6, 8]
    block = OrderBlock(widths)
    x = torch.randn(1, 20, 3, 3, 3, requires_grad=True)
    for order, y in enumerate(torch.split(block(x) - x, widths, dim=1)):
        (gradient,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
        parts = torch.split(gradient, widths, dim=1)
        assert [bool(part.abs().max() > 0) for part in parts] == [o == order for o in range(4)]


def test_rectifying_in_place_changes_no_number(single: Builder, kind: str) -> None:
    network, x, found = single(kind, 2), torch.randn(1, 28, 5, 4, 5), []
    rectifiers = [each for each in network.modules() if isinstance(each, nn.ReLU)]
    assert rectifiers
    assert all(each.inplace for each in rectifiers)
    for _ in range(2):
        prediction = network(x)
        gradients = torch.autograd.grad(prediction.square().mean(), list(network.parameters()))
        found.append([prediction, *gradients])
        for each in rectifiers:
            each.inplace = False
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("autocast", [False, True])
def test_diqt_equals_its_plain_twin(autocast: bool) -> None:
    x = torch.randn(2, 28, 5, 4, 5)
    found = []
    for plain in (False, True):
        torch.manual_seed(0)
        network = build_single("diqt", target="t", scales={"t": 2}, width=0.2, depth=2)
        if plain:
            keep_activations(network)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = network(x).float().square().mean()
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert (found[0] - found[1]).norm() <= 1e-5 * found[1].norm()


def test_every_network_learns(single: Builder, kind: str) -> None:
    """A change of scale by order, what harmonisation mostly is, is learnt within some steps."""
    network = single(kind, 2 - single_kinds().index(kind) % 2)  # a finer lattice, or the input's
    gains = torch.ones(28)
    gains[1:6], gains[6:] = 0.7, 1.3
    # Two fields behind the 28 channels: narrow layers can pass them on.
    x = torch.einsum("bfxyz,fc->bcxyz", torch.randn(2, 2, 4, 4, 4), torch.randn(2, 28))
    scaled = x * gains.view(-1, 1, 1, 1)
    if kind == "cnn-rish":
        neutral = Standardisation(np.zeros(28), np.ones(28))
        network.set_standardisation(neutral, neutral)
    truths = {p: LinearResampling(1, k)(scaled) for p, k in network.scales.items()}
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(100 if kind == "cpm" else 40):
        pairs = network.run(x).supervised
        errors = [(y - truths[p]).square().mean() for p, y in pairs]
        optimiser.zero_grad()
        torch.stack(errors).sum().backward()
        optimiser.step()
        losses.append(errors[-1].item())
    assert losses[-1] < 0.6 * losses[0], (losses[0], losses[-1])


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_input_skip_adds_the_interpolated_input(single, kind, scale) -> None:
    """To every supervised output, on its own lattice; CNN-RISH scales its input and needs none."""
    plain = single(kind, scale).eval()
    config = plain.config()
    skipping: Any = build({**config, "input_skip": True}).eval()
    skipping.load_state_dict(plain.state_dict())
    assert skipping.config()["input_skip"] is (kind != "cnn-rish")
    x = torch.randn(1, 28, 4, 5, 3)
    with torch.no_grad():
        pairs = zip(skipping.run(x).supervised, plain.run(x).supervised, strict=True)
        for (platform, found), (_, without) in pairs:
            size = [skipping.scales[platform] * (n - 1) + 1 for n in x.shape[2:]]
            start = functional.interpolate(x, size, mode="trilinear", align_corners=True)
            expected = without if kind == "cnn-rish" else without + start
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
