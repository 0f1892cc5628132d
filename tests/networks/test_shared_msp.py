"""MSPs that share their first stages: the same equation, and every first stage once."""

import pytest
import torch
from torch import nn

from napari_msp.networks.equation import second_stage
from napari_msp.networks.msp import MSP, SharedMSP, shares_first_stages
from napari_msp.networks.registry import build_single

SCALES = {"prisma_st": 1, "connectom_st": 1, "connectom_sa": 2}


def singles():
    return {
        target: build_single("shresnet", target=target, scales=SCALES, width=0.05, blocks=1)
        for target in SCALES
    }


@pytest.mark.parametrize("branch_start", ["nothing", "input", "first stage"])
def test_every_target_has_equation_1(branch_start, runs_of_singles):
    torch.manual_seed(0)
    first = singles()
    shared = SharedMSP.on(first, width=0.05, branch_start=branch_start)
    for parameter in shared.parameters():  # branches that start at the first stage begin at 0
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 28, 4, 3, 5)
    stages = shared(x, 0.6)
    assert runs_of_singles == dict.fromkeys(SCALES, 1)
    for target, outputs in stages.items():
        alone = MSP(first, target, width=0.05, branch_start=branch_start)
        alone.connections.load_state_dict(shared.connections[target].state_dict())
        assert list(outputs.branches) == [each for each in SCALES if each != target]
        assert torch.equal(outputs.second, alone(x, 0.6).second)
        mixed = second_stage(outputs.first[target], tuple(outputs.branches.values()), 0.6)
        assert torch.equal(outputs.second, mixed)


def test_weights_are_there_once():
    shared = SharedMSP.on(singles(), width=0.05)
    alone = [MSP(singles(), target, width=0.05) for target in SCALES]
    of_singles = sum(p.numel() for each in singles().values() for p in each.parameters())
    copies = sum(p.numel() for each in alone for p in each.parameters())
    assert sum(p.numel() for p in shared.parameters()) == copies - 2 * of_singles
    stored = shared.state_dict()
    assert len({value.data_ptr() for value in stored.values()}) == len(stored)
    assert shared.halo == max(each.halo for each in alone)
    assert not shares_first_stages(alone)
    with pytest.raises(ValueError, match="do not share"):
        SharedMSP({each.target: each for each in alone})


def test_a_first_stage_learns_from_every_target():
    """Its gradient is the sum of those that each second stage alone gives it."""
    torch.manual_seed(0)
    shared = SharedMSP.on(singles(), width=0.05).double()
    x = torch.randn(1, 28, 3, 3, 3, dtype=torch.float64)
    weight = next(shared.singles["prisma_st"].parameters())

    def gradient(targets):
        shared.zero_grad()
        stages = shared(x)
        torch.stack([stages[each].second.square().mean() for each in targets]).sum().backward()
        return weight.grad.clone()

    expected = sum(gradient([target]) for target in SCALES)
    torch.testing.assert_close(gradient(SCALES), expected)
