"""First stages that all targets share: one phase, one loss, the same checkpoints."""

from typing import cast

import pytest
import torch
from pydantic import ValidationError
from weights import same_weights

from napari_msp.data.dataset import open_dataset
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.heads import prepare_study
from napari_msp.learning.optimisation import masked_error, training_loss
from napari_msp.learning.phases import TrainedNetworks
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.sampling import sampler_for
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.validation import validate
from napari_msp.model_file import load_model, read_tensors
from napari_msp.networks.base import SingleNetwork
from napari_msp.networks.diqt import ReversibleStack
from napari_msp.networks.msp import SharedMSP

TARGETS = ("prisma_st", "connectom_sa")
SHARED = {"kind": "msp", "first_stages": "shared", "singles_first": "no", "unison_epochs": 2}


def test_all_targets_are_trained_in_one_phase(heads, quick, run, tmp_path):
    out, events = run(heads, quick(**SHARED), previews=tmp_path / "previews")
    assert events[0].phases == ["msp prisma_st+connectom_sa"]
    assert {e.alpha for e in events if e.name == "step"} == {1.0}
    validated = [e for e in events if e.name == "validated"]
    assert len(validated) == 3  # before the first step, and after each epoch
    assert all(set(e.errors) == set(TARGETS) for e in validated)
    assert [e.target for e in events if e.name == "previewed"] == list(TARGETS) * 3
    model = load_model(out)
    assert model.card.first_stages == "shared"
    assert events[0].parameters == sum(v.numel() for v in model.network.parameters())
    assert events[-1].errors == validated[-1].errors
    assert model.training["held_out_sh_mse"] == {events[0].phases[0]: events[-1].errors}
    assert model.training["settings"]["first_stages"] == "shared"
    scan = open_dataset(heads).acquisition("sub-03", "ge_st")
    assert harmonize(model, scan, "connectom_sa", device="cpu").first_stage is not None


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("singles_first", "stop_after"),
    [("no", 2), pytest.param("no", 4, marks=SLOW), pytest.param("yes", 8, marks=SLOW)],
)
def test_resumed_is_bit_for_bit_uninterrupted(singles_first, stop_after, heads, quick, run):
    settings = quick(**(SHARED | {"singles_first": singles_first, "epochs": 1}))
    whole, _ = run(heads, settings, "whole")
    parts, events = run(heads, settings, "parts", stop_after=stop_after)
    assert events[-1].name == "stopped"
    torch.manual_seed(999)
    _, tensors = read_tensors(checkpoint_path(parts))
    stored = [n for n in tensors if n.startswith("networks/") and "prisma_st.stem.weight" in n]
    assert stored == ["networks/shared.singles.prisma_st.stem.weight"]  # once
    _, events = run(heads, settings, "parts", resume=True)
    assert events[0].resumed_at == stop_after
    assert same_weights(whole, parts)


def test_singles_first_are_those_that_the_unison_goes_on_with(heads, quick, run):
    settings = quick(**(SHARED | {"singles_first": "yes", "epochs": 1, "targets": TARGETS}))
    study = prepare_study(open_dataset(heads), settings)
    networks = TrainedNetworks(settings, study.scales, study.standardisation)
    names = ["shresnet prisma_st", "diqt connectom_sa", "msp prisma_st+connectom_sa"]
    assert [phase.name for phase in networks.phases] == names
    assert [phase.untrained for phase in networks.phases] == [True, True, False]
    single, _, unison = networks.phases
    assert (
        networks.of(single)
        is dict(cast(SharedMSP, networks.of(unison)).singles.items())["prisma_st"]
    )
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    networks.begin(unison)
    assert all(torch.equal(before[name], v) for name, v in networks.state_dict().items())


@pytest.mark.parametrize("branch_start", ["nothing", "first stage"])
def test_the_loss_has_a_term_for_each_first_stage_and_each_target(branch_start, heads, quick):
    settings = quick(**(SHARED | {"branch_start": branch_start}))
    study = prepare_study(open_dataset(heads), settings)
    networks = TrainedNetworks(settings, study.scales, study.standardisation)
    network = networks.of(networks.phases[0]).eval()
    batch = sampler_for(study, recipe_for(settings)).batch(0, 0)
    batch.masks["connectom_sa"].zero_()  # nobody in it was scanned there
    with torch.no_grad():
        stages = network(batch.input, 0.5)
        found = training_loss(network, batch, 0.5, True, second_weight=10.0)
        own = stages["prisma_st"]
        expected = sum(
            weight * masked_error(value, batch.targets["prisma_st"], batch.masks["prisma_st"])
            for weight, value in (
                (1, own.first["prisma_st"]),
                (10, own.second),
                (1, own.branches["connectom_sa"]),
            )
        )
    torch.testing.assert_close(found, expected)


def test_one_target_shares_nothing(heads, quick, run):
    out, events = run(heads, quick(**(SHARED | {"targets": ("prisma_st",), "unison_epochs": 1})))
    assert events[0].phases == ["msp prisma_st"]
    assert load_model(out).card.first_stages == "own"


def test_own_first_stages_in_unison_from_the_first_step(heads, quick):
    settings = quick(**(SHARED | {"first_stages": "own"}))
    study = prepare_study(open_dataset(heads), settings)
    networks = TrainedNetworks(settings, study.scales, study.standardisation)
    names = ["msp prisma_st", "msp connectom_sa"]
    assert [phase.name for phase in networks.phases] == names
    assert all(phase.untrained for phase in networks.phases)
    one, other = networks.finished().values()
    assert {id(p) for p in one.parameters()}.isdisjoint(id(p) for p in other.parameters())


@pytest.mark.parametrize(
    ("name", "value"), [("first_stages", "shared"), ("singles_first", "no"), ("features", "middle")]
)
def test_the_form_of_an_msp_is_refused_for_others(name, value, quick):
    with pytest.raises(ValidationError, match=f"{name}\n.*applies only to kind msp"):
        quick("shresnet", **{name: value})


def test_branches_may_read_an_earlier_layer(heads, quick):
    settings = quick(**(SHARED | {"features": "middle"}))
    study = prepare_study(open_dataset(heads), settings)
    networks = TrainedNetworks(settings, study.scales, study.standardisation)
    singles = cast(SharedMSP, networks.of(networks.phases[0])).singles
    layers = {name: cast(SingleNetwork, each).feature_layer for name, each in singles.items()}
    assert layers == {"prisma_st": "blocks", "connectom_sa": "stack2"}


@pytest.mark.parametrize(("crop", "kept"), [(8, True), (24, False)])
def test_stacks_are_inverted_only_where_memory_matters(crop, kept, heads, quick):
    settings = quick(**(SHARED | {"crop": crop}))
    study = prepare_study(open_dataset(heads), settings)
    networks = TrainedNetworks(settings, study.scales, study.standardisation)
    stacks = [each for each in networks.modules() if isinstance(each, ReversibleStack)]
    assert [stack.plain for stack in stacks] == [kept] * 3


def test_validating_all_targets_at_once_measures_what_each_alone_does(heads, quick):
    settings = quick(**(SHARED | {"held_out": ("sub-02", "sub-03")}))
    study = prepare_study(open_dataset(heads), settings)

    def judged(target):
        """One of the two was not scanned on the finer platform."""
        return study.judged(target)[target == "connectom_sa" :]

    networks = TrainedNetworks(settings, study.scales, study.standardisation)
    shared = cast(SharedMSP, networks.of(networks.phases[0]))
    device = torch.device("cpu")
    together = validate(study, shared, device, judged)
    assert list(together) == list(TARGETS)
    for target, found in together.items():
        alone = validate(study, shared.networks[target], device, judged)[target]
        assert found.error == pytest.approx(alone.error, rel=1e-5)
        assert found.first.lattice.matches(alone.first.lattice)


@pytest.mark.slow
def test_validation_chooses_weights_of_all_targets_together(heads, quick, run):
    """Exact resume of averages, too."""
    changes = {"validation": ("sub-02",), "epochs": 3, "unison_epochs": 3}
    settings = quick(**(SHARED | changes))
    whole, events = run(heads, settings, "whole")
    chosen = [event for event in events if event.name == "validated"]
    assert all(set(event.validation) == set(TARGETS) for event in chosen)
    parts, _ = run(heads, settings, "parts", stop_after=4)
    _, _ = run(heads, settings, "parts", resume=True)
    assert same_weights(whole, parts)
