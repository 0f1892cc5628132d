"""Networks of several shells: each by itself with the same weights, or all at once."""

import json
import sys
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_msp.errors import UserError
from napari_msp.networks import registry
from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.equation import second_stage
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build, build_single
from napari_msp.signal.channels import Standardisation

KINDS = ["diqt", "cnn-rish", "shresnet", "cpm", "hned"]
SCALES = {"a": 1, "b": 2}
SHALLOW = {"diqt": {"depth": 1}, "shresnet": {"blocks": 1}}


def network(kind: str, target: str = "b", shells: int = 1, trunk: str = "each") -> SingleNetwork:
    """A narrow network whose buffers are off their neutral start, the same for every shell."""
    torch.manual_seed(1)
    built = build_single(
        kind,
        target=target,
        scales=SCALES,
        width=0.15,
        input_skip=True,
        shells=shells,
        trunk=trunk,  # type: ignore[arg-type]
        **SHALLOW.get(kind, {}),
    )
    for name, buffer in built.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))
    return built.eval()


def msp(shells: int = 1, trunk: str = "each") -> MSP:
    singles = {
        "a": network("shresnet", "a", shells, trunk),
        "b": network("diqt", "b", shells, trunk),
    }
    return MSP(singles, "b", width=0.1, branch_start="input").eval()


def channels(shells: int, seed: int = 0, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 28 * shells, 5, 6, 4, generator=generator)


def statistics(count: int, seed: int) -> list[Standardisation]:
    """Draw statistics of an input and a target."""
    random = np.random.default_rng(seed)
    return [
        Standardisation(
            0.1 * random.normal(size=count).astype(np.float32),
            random.uniform(0.5, 1.5, count).astype(np.float32),
        )
        for _ in range(2)
    ]


def told_alike(several: SingleNetwork, alone: list[SingleNetwork]) -> None:
    """Tell a network of shells, and one of one shell for each of them, the same statistics."""
    known = [statistics(28, seed) for seed in range(len(alone))]
    for one, each in zip(alone, known, strict=True):
        one.set_standardisation(*each)
    several.set_standardisation(
        *(
            Standardisation(*(np.concatenate(each) for each in zip(*map(astuple, of), strict=True)))
            for of in zip(*known, strict=True)
        )
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shells", [2, 3])
def test_each_shell_gets_what_a_network_of_one_shell_gives(kind: str, shells: int) -> None:
    several = network(kind, shells=shells)
    alone = [network(kind) for _ in range(shells)]
    told_alike(several, alone)
    x = channels(shells)
    y, z = several.forward_features(x)
    for shell, (one, part) in enumerate(zip(alone, x.split(28, dim=1), strict=True)):
        wanted, features = one.forward_features(part)
        torch.testing.assert_close(y[:, 28 * shell : 28 * (shell + 1)], wanted)
        count = features.shape[1]
        torch.testing.assert_close(z[:, count * shell : count * (shell + 1)], features)
    assert [value.shape[1] for _, value in several.run(x).supervised] == [28 * shells] * len(
        several.run(x).supervised
    )


def test_two_identical_shells_give_the_same_twice() -> None:
    one, two = msp(), msp(shells=2)
    x = channels(1)
    expected = one(x, 0.6)
    found = two(torch.cat([x, x], dim=1), 0.6)
    for before, after in (
        (expected.second, found.second),
        *((expected.first[i], found.first[i]) for i in SCALES),
        (expected.branches["a"], found.branches["a"]),
    ):
        torch.testing.assert_close(after, torch.cat([before, before], dim=1))


@pytest.mark.parametrize("trunk", ["each", "all"])
@pytest.mark.parametrize("kind", [*KINDS, "msp"])
def test_shells_are_mixed_only_where_they_are_taken_at_once(kind: str, trunk: str) -> None:
    built = msp(2, trunk) if kind == "msp" else network(kind, shells=2, trunk=trunk)

    def run(x: Tensor) -> Tensor:
        y = built(x)
        return y.second if kind == "msp" else y

    x = channels(2)
    other = x.clone()
    other[:, 28:] = channels(1, seed=5)
    with torch.no_grad():
        before, after = run(x), run(other)
    assert before.shape == (2, 56, 9, 11, 7)
    assert not torch.equal(before[:, 28:], after[:, 28:])
    assert torch.equal(before[:, :28], after[:, :28]) is (trunk == "each")


@pytest.mark.parametrize("trunk", ["each", "all"])
def test_equation_one_holds_shell_by_shell(trunk: str) -> None:
    outputs = msp(2, trunk)(channels(2), 0.3)
    for shell in (slice(0, 28), slice(28, 56)):
        own = outputs.first["b"][:, shell]
        mixed = second_stage(own, [outputs.branches["a"][:, shell]], 0.3)
        torch.testing.assert_close(outputs.second[:, shell], mixed, rtol=0, atol=0)


@pytest.mark.parametrize("trunk", ["each", "all"])
@pytest.mark.parametrize("kind", [*KINDS, "msp"])
def test_configuration_rebuilds_it(kind: str, trunk: str) -> None:
    built = msp(2, trunk) if kind == "msp" else network(kind, shells=2, trunk=trunk)
    again = build(json.loads(json.dumps(built.config())))
    again.load_state_dict(built.state_dict())
    again.eval()
    x = channels(2)
    with torch.no_grad():
        ours, theirs = (each(x) for each in (built, again))
    pairs = [(ours, theirs)] if kind != "msp" else [(ours.second, theirs.second)]
    for one, other in pairs:
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [*KINDS, "msp"])
def test_a_network_of_one_shell_mentions_none(kind: str) -> None:
    built = msp() if kind == "msp" else network(kind)
    assert "shells" not in json.dumps(built.config())
    assert "trunk" not in json.dumps(built.config())


@pytest.mark.parametrize("kind", KINDS)
def test_one_trunk_has_the_weights_of_one_shell(kind: str) -> None:
    counts = [
        sum(each.numel() for each in built.parameters())
        for built in (network(kind), network(kind, shells=3), network(kind, shells=3, trunk="all"))
    ]
    assert counts[0] == counts[1] < counts[2]


@pytest.mark.parametrize("trunk", ["each", "all"])
def test_rish_features_are_of_each_order_of_each_shell(trunk: str) -> None:
    several = network("cnn-rish", shells=2, trunk=trunk)
    known = statistics(56, 3)
    several.set_standardisation(*known)
    x = channels(2, batch=1)
    given = x if trunk == "all" else x.reshape(2, 28, *x.shape[2:])
    coefficients = several.coefficients(given)  # type: ignore[operator]
    found = several.invariants(coefficients).reshape(8, *x.shape[2:])  # type: ignore[operator]
    mean, deviation = map(torch.from_numpy, astuple(known[0]))
    by_hand = x.double() * deviation.view(-1, 1, 1, 1).double() + mean.view(-1, 1, 1, 1)
    bounds = [0, 1, 6, 15, 28, 29, 34, 43, 56]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        rish = by_hand[0, start:stop].square().sum(dim=0)
        usual = (mean.square() + deviation.square())[start:stop].sum()
        wanted = 0.5 * torch.log(rish / usual + 0.01)
        torch.testing.assert_close(found[number].double(), wanted, rtol=1e-4, atol=1e-5)


def test_cnn_rish_scales_each_order_of_each_shell_by_one_ratio() -> None:
    several = network("cnn-rish", "a", shells=2, trunk="all")
    x = channels(2, batch=1)
    with torch.no_grad():
        ratio = (several(x) / x)[0]
    for start, stop in pairwise([0, 1, 6, 15, 28, 29, 34, 43, 56]):
        torch.testing.assert_close(
            ratio[start:stop], ratio[start].expand(stop - start, -1, -1, -1), rtol=1e-3, atol=1e-3
        )
    assert (ratio[1] - ratio[29]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trunk", ["each", "all"])
def test_networks_of_shells_learn(kind: str, trunk: str) -> None:
    built = network(kind, "a", shells=2, trunk=trunk).train()
    x = channels(2)
    target = 0.8 * x
    optimiser = torch.optim.Adam(built.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = (built(x) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_single_networks_of_different_shells_make_no_msp() -> None:
    singles = {"a": network("shresnet", "a"), "b": network("diqt", "b", shells=2)}
    with pytest.raises(ValueError, match="do not take the same shells"):
        MSP(singles, "b", width=0.1)


def test_a_network_of_another_package_takes_each_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "plugin_package"))
    entry = EntryPoint("Tiny", "tiny_networks:Tiny", registry.GROUP)
    monkeypatch.setattr(registry, "_networks", lambda: {"tiny": entry})
    tiny = build_single("tiny", target="b", scales=SCALES, width=0.2, shells=2, trunk="each")
    assert tiny(channels(2)).shape == (2, 56, 9, 11, 7)
    with pytest.raises(UserError, match="cannot take several shells at once") as error:
        build_single("tiny", target="b", scales=SCALES, width=0.2, shells=2, trunk="all")
    assert error.value.field == "trunk"
    sys.modules.pop("tiny_networks", None)
