"""Small networks of every kind, shared by the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build_single, single_kinds

SINGLE_KINDS = single_kinds()

SHALLOW: dict[str, dict[str, Any]] = {"diqt": {"depth": 1}, "shresnet": {"blocks": 1}}


def small_single(kind: str, scale: int, target: str = "connectom_sa") -> SingleNetwork:
    """A narrow, shallow single network; CPM and HNED get a second platform on another lattice."""
    scales = {target: scale, "other": 3 - scale if scale < 3 else 2}
    network = build_single(kind, target=target, scales=scales, width=0.15, **SHALLOW.get(kind, {}))
    disturb(network)
    return network


def disturb(network: torch.nn.Module) -> None:
    """Move BatchNorm and standardisation off their neutral start, so that they count."""
    for name, buffer in network.named_buffers():
        if name.endswith("mean"):
            buffer.copy_(0.1 * torch.randn_like(buffer))
        elif name.endswith(("var", "deviation")):
            buffer.copy_(0.5 + torch.rand_like(buffer))


def small_msp(scale: int) -> MSP:
    """Three targets, three kinds, two or three lattices; the target is the last one."""
    singles = {
        "prisma_st": small_single("shresnet", 1, "prisma_st"),
        "connectom_st": small_single("hned", 3, "connectom_st"),
        "connectom_sa": small_single("diqt", scale),
    }
    return MSP(singles, "connectom_sa", width=0.1)


@pytest.fixture(params=[*SINGLE_KINDS, "msp"])
def small_network(request: pytest.FixtureRequest) -> Callable[[int], SingleNetwork | MSP]:
    """Builder, by scale, of a small network in eval mode: all six kinds in turn."""
    torch.manual_seed(3)

    def make(scale: int) -> SingleNetwork | MSP:
        kind = request.param
        network = small_msp(scale) if kind == "msp" else small_single(kind, scale)
        return network.eval()

    return make


@pytest.fixture(params=SINGLE_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of single network in turn."""
    name: str = request.param
    return name


@pytest.fixture
def single() -> Callable[..., SingleNetwork]:
    """Builder of small single networks: (kind, scale, target)."""
    torch.manual_seed(3)
    return small_single
