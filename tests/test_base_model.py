"""What the packaged base learns from and how: small pieces of the job that takes an hour."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from base.learning import BaseNetworks, CropsOfBlocks, Plan, described
from base.model import people, write_model
from base.pairs import TARGETS, Block, Channels, block_path

import napari_msp
from napari_msp.identity import same_person
from napari_msp.model_file import load_model

TINY = Plan(blocks=2, width=0.05, single_steps=1, finer_steps=1, unison_steps=1)


def channels(random, edge, deviation):
    values = random.standard_normal((28, edge, edge, edge)).astype(np.float16)
    statistics = np.zeros(28, np.float32), np.full(28, deviation, np.float32)
    return Channels(values, np.ones((edge,) * 3, bool), *statistics)


@pytest.fixture
def blocks(tmp_path):
    random = np.random.default_rng(0)
    for index in range(TINY.blocks):
        inputs = [channels(random, 15, 0.1) for _ in range(2)]
        targets = {name: channels(random, scale * 14 + 1, 0.1) for name, scale in TARGETS.items()}
        Block(inputs, targets).save(block_path(tmp_path, TINY.variety, index))
    return tmp_path


def test_a_block_is_read_as_it_was_written(blocks, tmp_path):
    path = block_path(blocks, TINY.variety, 1)
    block = Block.load(path)
    block.save(tmp_path / "again.npz")
    again = Block.load(tmp_path / "again.npz")
    assert (again.targets["base_sa"].values == block.targets["base_sa"].values).all()
    assert (again.inputs[1].values != again.inputs[0].values).any()


def test_a_batch_is_the_same_whenever_its_step_is_reached(blocks):
    paths = [block_path(blocks, TINY.variety, index) for index in range(TINY.blocks)]
    first, second = (CropsOfBlocks(paths, tuple(TARGETS), 1, 3) for _ in range(2))
    first.batch(0)
    one, other = first.batch(5), second.batch(5)
    assert torch.equal(one.input, other.input)
    assert one.targets["base_sa"].shape[-1] == 27
    assert one.weights["base_st"].mean().item() == pytest.approx(1)


def test_the_model_file_predicts_what_was_learned(blocks, tmp_path):
    networks = BaseNetworks(TINY)
    for phase in TINY.phases:
        networks.begin(phase)
    write_model(networks, TINY, blocks, tmp_path / "base.safetensors")
    model = load_model(tmp_path / "base.safetensors")
    x = torch.randn(1, 28, 5, 5, 5)
    for name in TARGETS:
        with torch.no_grad():
            expected = networks.multi_stage[name](x, 1.0).second
            assert torch.equal(model.single(name)(x, 1.0).second, expected)
    assert model.training["subjects"] == ["block-0000", "block-0001"]


def test_a_base_without_a_second_stage_is_a_single_network(blocks, tmp_path):
    plan = replace(TINY, finer_steps=0, unison_steps=0)
    networks = BaseNetworks(plan)
    networks.begin(plan.phases[0])
    write_model(networks, plan, blocks, tmp_path / "base.safetensors")
    card = load_model(tmp_path / "base.safetensors").card
    assert (card.kind, list(card.scales)) == ("shresnet", ["base_st"])


def test_later_phases_start_from_what_was_learned():
    networks = BaseNetworks(TINY)
    for phase in TINY.phases:
        networks.begin(phase)
    learned, second, finer = (networks.singles[n].state_dict() for n in TARGETS)
    assert all(torch.equal(learned[key], second[key]) for key in learned)
    assert torch.equal(learned["stem.weight"], finer["stem.weight"])


def test_blocks_are_people_of_their_own():
    nominal, random = people(TINY), people(Plan(variety="random", blocks=1))
    assert same_person(nominal[0], nominal[0])
    assert same_person(nominal[0], nominal[1]) is False
    assert same_person(random[0], nominal[0]) is False


def test_the_packaged_base_is_what_the_plan_says():
    path = Path(napari_msp.__file__).parent / "models" / "base.safetensors"
    assert path.stat().st_size < 6e6
    model = load_model(path)
    assert (model.kind, model.card.scales, model.card.first_stages) == ("msp", TARGETS, "shared")
    assert model.training["plan"] == described(Plan())
    assert model.people == tuple(people(Plan()))


def test_the_script_reads_a_plan():
    path = Path(__file__).parents[1] / "scripts" / "build_base.py"
    found = importlib.util.spec_from_file_location("build_base", path)
    assert found is not None and found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    assert script.plan_of(["blocks=3", "width=0.1"]) == Plan(blocks=3, width=0.1)
