"""Heads that lack a platform teach what they have, and nothing is made up for the rest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_msp.data.dataset import open_dataset
from napari_msp.errors import UserError
from napari_msp.learning.heads import IncompleteHeads, Study, prepare_study
from napari_msp.learning.optimisation import training_loss
from napari_msp.learning.sampling import CropSampler, Examples, PatchSampler
from napari_msp.learning.schedule import Recipe
from napari_msp.learning.settings import TrainingSettings
from napari_msp.model_file import load_model
from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build_single
from napari_msp.signal.channels import measure_standardisation

FINE = "connectom_sa"


@pytest.fixture
def lacking(heads: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the heads without some scans, each given as "subject session"."""

    def copy(*missing: str) -> Path:
        root = tmp_path / "lacking"
        shutil.copytree(heads, root)
        for each in missing:
            subject, session = each.split()
            shutil.rmtree(root / subject / f"ses-{session}")
        return root

    return copy


def study_of(root: Path, settings) -> Study:
    with pytest.warns(IncompleteHeads):
        return prepare_study(open_dataset(root), settings)


def test_a_subject_without_a_target_teaches_the_other(lacking, quick):
    study = study_of(lacking("sub-02 connectom"), quick(held_out=()))
    assert [head.subject for head in study.heads] == ["sub-01", "sub-02", "sub-03"]
    assert study.taught == {"prisma_st": ["sub-01", "sub-02", "sub-03"], FINE: ["sub-01", "sub-03"]}
    assert study.scales == {"prisma_st": 1, FINE: 2}
    images = [head.targets[FINE] for head in study.heads if head.subject != "sub-02"]
    expected = measure_standardisation(images, per_order=True)
    np.testing.assert_array_equal(study.standardisation[FINE].mean, expected.mean)
    np.testing.assert_array_equal(study.standardisation[FINE].deviation, expected.deviation)
    whole = [head.input for head in study.heads]
    assert len(whole) == 3
    source = measure_standardisation(whole, per_order=True)
    np.testing.assert_array_equal(study.standardisation["ge_st"].mean, source.mean)


def test_it_is_said_who_lacks_what(lacking, quick):
    root = lacking("sub-02 connectom", "sub-03 ge")
    with pytest.warns(IncompleteHeads) as told:
        study = prepare_study(open_dataset(root), quick(held_out=()))
    assert [str(each.message) for each in told] == [
        f"{root}: not every subject was scanned on every platform: sub-02 has no scan on "
        "connectom_sa, "
        "sub-03 is left out (no scan on ge_st)"
    ]
    assert [head.subject for head in study.heads] == ["sub-01", "sub-02"]


def test_somebody_with_the_input_alone_is_left_out(lacking, quick):
    study = study_of(lacking("sub-02 connectom", "sub-02 prisma"), quick(held_out=()))
    assert [head.subject for head in study.heads] == ["sub-01", "sub-03"]


def crops(examples: Examples, edge: int, batch: int) -> CropSampler:
    """Draw turned crops of an edge, so many a step."""
    recipe = Recipe(edge, batch, augment=True)
    return CropSampler(examples, recipe, TrainingSettings(steps_per_epoch=9))


@pytest.mark.parametrize("kind", ["patches", "crops"])
def test_a_phase_draws_from_those_who_have_its_target(kind, lacking, quick):
    study = study_of(lacking("sub-02 connectom"), quick(held_out=()))
    examples = Examples(study.heads, study.scales, "ge_st", study.standardisation)
    few = TrainingSettings(preset="paper", voxels_per_head=30)
    sampler = (
        PatchSampler(examples, Recipe(5, 4), few) if kind == "patches" else crops(examples, 5, 4)
    )
    assert examples.teaching((FINE,)) == [0, 2]
    assert examples.teaching((FINE, "prisma_st")) == examples.teaching(None) == [0, 1, 2]
    for step in range(12):
        taught = sampler.batch(0, step, (FINE,)).masks[FINE].flatten(1).sum(dim=1)
        assert (taught > 0).all()
    both = torch.cat([sampler.batch(0, step).masks[FINE].flatten(1).sum(1) for step in range(12)])
    assert (both == 0).any()
    assert (both > 0).any()


def test_what_is_missing_has_no_loss(lacking, quick):
    """The loss of a batch of the incomplete head alone is that of the target it has."""
    study = study_of(lacking("sub-02 connectom"), quick(held_out=()))
    incomplete = [head for head in study.heads if head.subject == "sub-02"]
    examples = Examples(incomplete, study.scales, "ge_st", study.standardisation)
    batch = crops(examples, 6, 2).batch(0, 0)
    torch.manual_seed(0)
    singles = {
        target: build_single("shresnet", target=target, scales=study.scales, width=0.1)
        for target in study.scales
    }
    network = MSP(singles, FINE, width=0.1)
    with torch.no_grad():
        network.eval()
        found = training_loss(network, batch, 0.5, branch_losses=True)
        error = (singles["prisma_st"](batch.input) - batch.targets["prisma_st"]).square()
    mask = batch.masks["prisma_st"].float()
    expected = (error * mask).sum() / (mask.sum() * 28)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("preset", ["fast", pytest.param("paper", marks=pytest.mark.slow)])
@pytest.mark.parametrize("trunk", ["each", "all"])
def test_several_shells_of_incomplete_heads(trunk, preset, make_heads, quick, run, tmp_path):
    root = make_heads(tmp_path / "both", 3, shape=(8, 8, 8), b_values=(1200.0, 3000.0))
    shutil.rmtree(root / "sub-02" / "ses-connectom")
    length = {"epochs": 1, "voxels_per_head": 4} if preset == "paper" else {"epochs": 1}
    with pytest.warns(IncompleteHeads):
        out, _ = run(root, quick("msp", preset, trunk=trunk, **length))
    assert load_model(out).card.sh.b_values == (1200.0, 3000.0)


@pytest.mark.parametrize("kind", ["msp", "shresnet", "hned", "cpm"])
def test_each_kind_trains_on_them(kind, lacking, quick, run):
    root = lacking("sub-02 connectom")
    with pytest.warns(IncompleteHeads):
        out, events = run(root, quick(kind))
    assert events[0].taught == {"prisma_st": ["sub-01", "sub-02"], FINE: ["sub-01"]}
    model = load_model(out)
    assert model.training["taught"] == events[0].taught
    assert model.training["subjects"] == ["sub-01", "sub-02"]
    assert all(torch.isfinite(weight).all() for weight in model.network.state_dict().values())


def test_somebody_who_teaches_nothing_changes_no_weight(lacking, heads, quick, run):
    settings = quick("shresnet", targets=(FINE,), held_out=())
    with pytest.warns(IncompleteHeads):
        with_lack, _ = run(lacking("sub-02 connectom"), settings, "lack")
    without, _ = run(
        heads, settings.model_copy(update={"subjects": ("sub-01", "sub-03")}), "without"
    )
    one, other = load_model(with_lack), load_model(without)
    for name, weight in one.network.state_dict().items():
        assert torch.equal(weight, other.network.state_dict()[name]), name


def test_validation_measures_where_there_is_truth(lacking, quick, run):
    with pytest.warns(IncompleteHeads):
        _, events = run(lacking("sub-03 connectom"), quick())
    aligned = next(event for event in events if event.name == "aligned")
    assert set(aligned.errors) == {"prisma_st"}
    validated = [event.phase for event in events if event.name == "validated"]
    assert set(validated) == {"shresnet prisma_st"}
    assert set(events[-1].errors) == {"prisma_st"}


@pytest.mark.parametrize(
    ("missing", "changes", "problem", "field"),
    [
        (
            ("sub-01 connectom", "sub-02 connectom"),
            {},
            "no training subject has a scan on connectom_sa",
            "targets",
        ),
        (("sub-03 ge",), {}, "sub-03 has no scan on ge_st, so it cannot be predicted", "held_out"),
        (
            ("sub-03 connectom", "sub-03 prisma"),
            {},
            "sub-03 has no scan on any target, so predictions cannot be measured on it",
            "held_out",
        ),
        (("sub-01 ge", "sub-02 ge"), {}, "no subject is left to train on", "held_out"),
    ],
)
@pytest.mark.filterwarnings("ignore::napari_msp.learning.heads.IncompleteHeads")
def test_what_cannot_be_learned_is_refused(missing, changes, problem, field, lacking, quick):
    root = lacking(*missing)
    with pytest.raises(UserError) as error:
        prepare_study(open_dataset(root), quick(**changes))
    assert (error.value.problem, error.value.field) == (problem, field)
    assert error.value.subject == str(root)
    assert error.value.remedy is not None
