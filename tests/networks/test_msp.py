"""MSP: equation (1) by hand, for any P and any pair of lattices."""

import itertools
import json
from math import gcd
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_msp.networks.base import FeatureMap, SingleNetwork, SingleOutputs
from napari_msp.networks.layers import LinearResampling, Reach
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build, build_single

LATTICES = [1, 2, 3]


class Toy(SingleNetwork):
    """One learned layer, and features put on any lattice one likes."""

    kind = "toy"
    feature_layers = ("only",)

    def __init__(self, target: str, scale: int, feature_scale: int, features: int) -> None:
        super().__init__(target=target, scales={target: scale})
        self.features = nn.Conv3d(28, features, 1)
        self.final = nn.Conv3d(features, 28, 1)
        self.to_features = LinearResampling(1, feature_scale)
        self.to_target = LinearResampling(feature_scale, scale)
        reach = Reach().resample(feature_scale)
        self._declare(reach.resample(scale), {"only": FeatureMap(features, reach)})

    def body(self, x: Tensor) -> SingleOutputs:
        z = self.to_features(self.features(x))
        y = self.to_target(self.final(z))
        return SingleOutputs(z, ((self.target, y),))


def convolve(x: Tensor, layer: nn.Module) -> Tensor:
    """A convolution as its definition has it; a transposed one by stuffing zeros."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    if isinstance(layer, nn.Conv3d):
        stride = layer.stride[0]
        full = functional.conv3d(x, weight, bias, padding=weight.shape[-1] // 2)
        return full[..., ::stride, ::stride, ::stride]
    assert isinstance(layer, nn.ConvTranspose3d)
    k = layer.stride[0]
    stuffed = torch.zeros(*x.shape[:2], *(k * (n - 1) + 1 for n in x.shape[2:]), dtype=x.dtype)
    stuffed[..., ::k, ::k, ::k] = x
    kernel = weight.flip(2, 3, 4).transpose(0, 1)
    return functional.conv3d(stuffed, kernel, bias, padding=kernel.shape[-1] // 2)


def by_hand(msp: MSP, x: Tensor, alpha: float) -> tuple[dict[str, Tensor], Tensor]:
    """Branches and ŷ²_T after equation (1), from the weights alone."""
    T, P = msp.target, len(msp.singles) + 1
    first, branches = {}, {}
    for i, single in msp.singles.items():
        assert isinstance(single, SingleNetwork)
        first[i], z = single.forward_features(x)
        if i != T:
            layers = [
                m
                for m in msp.connections[i].modules()
                if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)
            ]
            assert len(layers) == 2  # "a stack of two 3D convolutions"
            branches[i] = convolve(convolve(z, layers[0]).clamp(min=0), layers[1])
    bracket = sum(branches.values(), torch.zeros_like(first[T])) + first[T]
    return branches, (1 - alpha) * first[T] + alpha / (P - 1) * bracket


def assert_equation(msp: MSP, x: Tensor) -> None:
    for alpha in (0.0, 0.3, 1.0):
        found = msp(x, alpha)
        branches, second = by_hand(msp, x, alpha)
        torch.testing.assert_close(found.second, second, rtol=1e-10, atol=1e-12)
        assert found.branches.keys() == branches.keys()
        for i, branch in branches.items():
            torch.testing.assert_close(found.branches[i], branch, rtol=1e-10, atol=1e-12)
    for i, single in msp.singles.items():
        assert torch.equal(found.first[i], single(x))


@pytest.mark.parametrize("P", [2, 3, 4, 5])
@pytest.mark.parametrize("target", [0, -1])
def test_equation_one_for_any_number_of_platforms(P: int, target: int) -> None:
    torch.manual_seed(P)
    lattices = [(2, 1), (1, 2), (3, 1), (1, 3)][: P - 1]
    singles = {
        f"p{i}_st": Toy(f"p{i}_st", scale, of_z, 3 + i) for i, (scale, of_z) in enumerate(lattices)
    }
    msp = MSP(singles, list(singles)[target], width=0.1).double()
    x = torch.randn(2, 28, 3, 2, 4, dtype=torch.float64)
    assert_equation(msp, x)
    assert len(msp(x).first) == P - 1
    assert len(msp(x).branches) == P - 2


@pytest.mark.parametrize("of_z,scale", list(itertools.product(LATTICES, LATTICES)))
def test_equation_one_for_every_pair_of_lattices(of_z: int, scale: int) -> None:
    torch.manual_seed(0)
    singles = {"a_st": Toy("a_st", 1, of_z, 5), "t_st": Toy("t_st", scale, 1, 4)}
    msp = MSP(singles, "t_st", width=0.1).double()
    x = torch.randn(1, 28, 4, 3, 2, dtype=torch.float64)
    assert_equation(msp, x)
    first, second = (
        m
        for m in msp.connections["a_st"].modules()
        if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)
    )
    strides = {
        True: (1, 1) if of_z == scale else (max(of_z, scale) // min(of_z, scale), 1),
        False: (of_z, scale),  # 2 → 3: down, then up
    }[gcd(of_z, scale) in (of_z, scale)]
    assert (first.stride[0], second.stride[0]) == strides
    if max(of_z, scale) <= 2:
        assert first.kernel_size == second.kernel_size == (3, 3, 3)


@pytest.mark.parametrize("target", ["a_st", "b_st", "c_sa", "d_st", "e_sa"])
def test_every_kind_may_be_a_first_stage(target: str) -> None:
    torch.manual_seed(1)
    kinds = {"a_st": "shresnet", "b_st": "cpm", "c_sa": "diqt", "d_st": "hned", "e_sa": "cnn-rish"}
    scales = {p: 2 if p.endswith("sa") else 1 for p in kinds}
    shallow: dict[str, dict[str, Any]] = {"diqt": {"depth": 1}}
    singles = {
        p: build_single(kind, target=p, scales=scales, width=0.1, **shallow.get(kind, {}))
        for p, kind in kinds.items()
    }
    msp = MSP(singles, target, width=0.1).double().eval()
    assert_equation(msp, torch.randn(1, 28, 3, 4, 3, dtype=torch.float64))


def test_alpha_zero_is_the_single_network_and_alpha_one_the_mean() -> None:
    torch.manual_seed(0)
    singles = {p: Toy(p, 2, 1, 4) for p in ("a_st", "b_st", "t_sa")}
    msp = MSP(singles, "t_sa", width=0.2)
    x = torch.randn(1, 28, 3, 3, 3)
    assert torch.equal(msp(x, 0.0).second, singles["t_sa"](x))
    found = msp(x)  # alpha is 1 unless said otherwise
    terms = torch.stack([found.first["t_sa"], *found.branches.values()])
    torch.testing.assert_close(found.second, terms.mean(0))


def test_branches_start_where_they_are_told() -> None:
    """From nothing, from the interpolated input, or from the target's first stage."""
    torch.manual_seed(0)
    singles = {p: Toy(p, 2, 1, 4) for p in ("a_st", "b_st", "t_sa")}
    x = torch.randn(1, 28, 3, 3, 3)
    fine = functional.interpolate(x, scale_factor=5 / 3, mode="trilinear", align_corners=True)
    assert fine.shape[-1] == 5  # corners aligned: node-aligned, n -> 2n - 1
    bare = MSP(singles, "t_sa", width=0.2)
    from_input = MSP(singles, "t_sa", width=0.2, branch_start="input")
    from_input.load_state_dict(bare.state_dict())
    from_first = MSP(singles, "t_sa", width=0.2, branch_start="first stage")
    own = singles["t_sa"](x)
    for alpha in (0.0, 0.4, 1.0):
        # Nothing of what the first stage knows is lost to begin with.
        torch.testing.assert_close(from_first(x, alpha).second, own)
    from_first.load_state_dict(bare.state_dict())
    for platform, branch in bare(x).branches.items():
        torch.testing.assert_close(from_input(x).branches[platform], branch + fine)
        torch.testing.assert_close(from_first(x).branches[platform], branch + own)
    found = from_first(x, 0.4)
    terms = torch.stack([own, *found.branches.values()])
    torch.testing.assert_close(found.second, 0.6 * own + 0.4 * terms.mean(0))


def test_models_from_before_branches_had_a_start() -> None:
    singles = {p: build_single("shresnet", target=p, scales={p: 1}, width=0.1) for p in ("a", "b")}
    config = MSP(singles, "a", width=0.1, branch_start="first stage").config()
    assert build(config).config() == config
    del config["branch_start"]
    network = build(config)
    assert isinstance(network, MSP)
    assert network.branch_start == "nothing"


def test_unison_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    singles = {p: Toy(p, 1, 1, 4) for p in ("a_st", "b_st", "t_sa")}
    msp = MSP(singles, "t_sa", width=0.2)
    found = msp(torch.randn(1, 28, 3, 3, 3), 0.5)
    found.second.square().sum().backward()
    lonely = {"singles.a_st.final", "singles.b_st.final"}  # only the first-stage loss teaches them
    for name, parameter in msp.named_parameters():
        assert (parameter.grad is None) == (name.rsplit(".", 1)[0] in lonely), name


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan")])
def test_alpha_outside_its_range_is_an_error(alpha: float) -> None:
    msp = MSP({"t_sa": Toy("t_sa", 1, 1, 2)}, "t_sa")
    with pytest.raises(ValueError, match="alpha"):
        msp(torch.randn(1, 28, 2, 2, 2), alpha)


def test_wrong_first_stages_are_errors() -> None:
    toy = Toy("t_sa", 1, 1, 2)
    with pytest.raises(ValueError, match="'a_st' has no single network"):
        MSP({"t_sa": toy}, "a_st")
    with pytest.raises(ValueError, match="'a_st' predicts 't_sa'"):
        MSP({"t_sa": toy, "a_st": toy}, "t_sa")


def test_configuration_rebuilds_the_msp() -> None:
    torch.manual_seed(0)
    scales = {"z_st": 1, "a_st": 1, "m_sa": 2}
    singles = {
        "z_st": build_single("cpm", target="z_st", scales=scales, width=0.1),
        "a_st": build_single("hned", target="a_st", scales=scales, width=0.1),
        "m_sa": build_single("shresnet", target="m_sa", scales=scales, width=0.05, blocks=1),
    }
    msp = MSP(singles, "m_sa", width=0.3).eval()
    config = json.loads(json.dumps(msp.config(), sort_keys=True))
    rebuilt = build(config)
    assert isinstance(rebuilt, MSP)
    assert rebuilt.config() == msp.config()
    rebuilt.eval().load_state_dict(msp.state_dict())
    x = torch.randn(1, 28, 3, 4, 3)
    a, b = msp(x, 0.6), rebuilt(x, 0.6)
    assert torch.equal(a.second, b.second)
    assert list(a.first) == list(b.first)
    assert (rebuilt.halo, rebuilt.scale, rebuilt.target) == (msp.halo, 2, "m_sa")
