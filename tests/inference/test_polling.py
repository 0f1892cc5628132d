"""How often a pass polls can be told before it runs."""

import pytest
import torch

from napari_msp.inference import passes
from napari_msp.inference.passes import expected_polls, polled


@pytest.mark.parametrize("largest", [8e9, 2e5])
@pytest.mark.parametrize("target", ["prisma_st", "connectom_sa"])
@pytest.mark.parametrize("kind", ["msp", "diqt", "shresnet", "cpm"])
def test_polls_are_foretold(kind, target, largest, make_network, monkeypatch):
    monkeypatch.setattr(passes, "LARGEST_CONVOLUTION", largest)
    network = make_network(kind, target, width=0.1)
    shape = (9, 12, 10)
    foretold = expected_polls(network, shape)
    polls = 0

    def count():
        nonlocal polls
        polls += 1
        return False

    with torch.inference_mode(), polled(network, count):
        network(torch.zeros((1, 28, *shape)))
    # A finer lattice has a little less than k³ times the voxels, so parts may differ by a few.
    assert foretold == pytest.approx(polls, rel=0 if largest > 1e9 else 0.1)


def test_looking_ahead_leaves_nothing_behind(make_network):
    network = make_network("msp", "prisma_st", width=0.1)
    expected_polls(network, (9, 9, 9))
    assert not any(module._forward_hooks for module in network.modules())
