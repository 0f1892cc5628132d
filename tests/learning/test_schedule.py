"""Learning rates and α by hand, and what the presets stand for."""

import math

import pytest
from pydantic import ValidationError

from napari_msp.errors import UserError
from napari_msp.learning.lengths import Lengths
from napari_msp.learning.phases import Phase
from napari_msp.learning.schedule import (
    FAST,
    PAPER,
    alpha_at,
    learning_rate,
    recipe_for,
)
from napari_msp.learning.settings import TrainingSettings, training_settings


def test_paper_recipe_is_the_papers():
    recipe = recipe_for(TrainingSettings(kind="diqt", preset="paper"))
    assert (recipe.patch, recipe.batch, recipe.learning_rate) == (11, 12, 1e-4)
    assert (recipe.length.epochs or 0) >= 50
    assert (recipe.unison_length.epochs or 0) >= 50
    assert recipe.decay_every in (15, 25)
    assert not (recipe.augment or recipe.branch_losses or recipe.per_order or recipe.dense)
    assert (recipe.largest_gradient, recipe.averages, recipe.fall) == (math.inf, False, 0)


@pytest.mark.parametrize(("epoch", "halvings"), [(0, 0), (14, 0), (15, 0.5), (44, 1), (45, 1.5)])
def test_paper_rate_is_divided_by_root_two_every_fifteen_epochs(epoch, halvings):
    settings = TrainingSettings(kind="diqt", preset="paper", decay_every=15)
    rate = learning_rate(recipe_for(settings), step=7 * epoch, steps=420, pass_=7)
    assert rate == pytest.approx(1e-4 / 2**halvings)


def test_fast_rate_rises_then_falls_to_nothing():
    rates = [learning_rate(FAST, step, 100, 10) for step in range(100)]
    top = rates.index(max(rates))
    assert 5 <= top <= 15
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(FAST.learning_rate, rel=0.02)
    assert rates[-1] < 0.01 * FAST.learning_rate


def test_alpha_goes_from_zero_to_one():
    ramp = [alpha_at(PAPER, step, 40) for step in range(40)]
    assert ramp[0] == 0
    assert ramp[10] == pytest.approx(0.5)
    assert ramp == sorted(ramp)
    assert ramp[-1] == 1


def test_branches_that_start_somewhere_need_no_ramp():
    assert FAST.branch_start == "first stage"
    assert alpha_at(FAST, 0, 40) == 1


def test_branches_that_predict_alone_are_held_to_the_target():
    few = recipe_for(TrainingSettings(kind="msp", augmentation="none"))
    assert (few.augment, few.branch_start, few.branch_losses) == (False, "nothing", True)
    many = recipe_for(TrainingSettings(kind="msp"))
    assert (many.augment, many.branch_start, many.branch_losses) == (True, "first stage", False)
    asked = recipe_for(TrainingSettings(kind="msp", branch_start="input"))
    assert (asked.branch_start, asked.branch_losses, asked.second_weight) == ("input", True, 1.0)


def test_settings_override_the_preset():
    assert recipe_for(TrainingSettings(kind="hned", batch=3)).batch == 3
    assert recipe_for(TrainingSettings(kind="hned")).batch == FAST.batch


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"preset": "paper", "crop": 20}, "applies only to preset fast or lecture"),
        ({"preset": "paper", "augmentation": "none"}, "applies only to preset fast or lecture"),
        ({"preset": "lecture", "decay_every": 3}, "applies only to preset paper"),
        ({"voxels_per_head": 3}, "applies only to preset paper"),
        ({"kind": "shresnet", "branch_start": "input"}, "applies only to kind msp"),
        ({"kind": "shresnet", "first_stage": {"a": "diqt"}}, "applies only to kind msp"),
    ],
)
def test_a_setting_that_would_not_count_is_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        TrainingSettings(**given)


def test_a_setting_that_there_is_not_is_named_with_what_is_near():
    with pytest.raises(UserError, match="knd: there is no such setting; choose from kind"):
        training_settings(None, knd="msp")  # type: ignore[arg-type]


SINGLE, UNISON = (Phase(name, (), name == "unison", True) for name in ("single", "unison"))


def lengths(pass_, *phases, **values):
    settings = TrainingSettings(**values)
    return Lengths(settings, recipe_for(settings), pass_, phases or (SINGLE, UNISON))


@pytest.mark.parametrize("pass_", [2, 700])
def test_the_fast_preset_is_as_long_for_one_head_as_for_many(pass_):
    """A pass over one small head is two steps, which once made a whole run of sixty."""
    assert lengths(pass_).usual(UNISON) == FAST.length.steps  # all targets at once
    found = lengths(pass_, singles_first="yes")
    assert [*found.longest().values()] == [FAST.length.steps, FAST.unison_length.steps]
    assert found.per_epoch == found.usual(SINGLE) // 30


@pytest.mark.parametrize(
    ("values", "steps", "unison", "epoch"),
    [
        ({"steps": 301}, 301, 301, 11),
        ({"steps": 60, "unison_steps": 90}, 60, 90, 3),
        ({"epochs": 3}, 21, 21, 7),
        ({"epochs": 3, "unison_epochs": 2, "steps_per_epoch": 4}, 12, 8, 4),
        ({"steps": 10, "steps_per_epoch": 4}, 10, 10, 4),
        ({"preset": "paper"}, 350, 350, 7),
        ({"preset": "paper", "steps": 90}, 90, 90, 3),
    ],
)
def test_a_length_that_is_given_is_the_length(values, steps, unison, epoch):
    found = lengths(values.get("steps_per_epoch", 7), **values)
    assert found.longest() == {"single": steps, "unison": unison}
    assert (found.per_epoch, found.all) == (epoch, steps + unison)


def test_an_epoch_is_a_part_of_a_phase_that_there_is():
    """Single networks, not trained by themselves, would be 3,000 steps beside these 60."""
    assert lengths(7, UNISON, unison_steps=60).per_epoch == 2
    assert lengths(7, SINGLE, unison_steps=60).per_epoch == 100


def test_the_papers_rate_goes_by_passes_whatever_is_shown():
    recipe = recipe_for(TrainingSettings(preset="paper", steps=900))
    found = lengths(7, preset="paper", steps=900)
    assert found.per_epoch == 30
    rates = [learning_rate(recipe, step, 900, found.pass_) for step in (0, 174, 175)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4 / 2**0.5])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "diqt", "input": "ge_st", "targets": ("ge_st",)},
        {"kind": "diqt", "first_stage": {"prisma_st": "diqt"}},
        {"kind": "diqt", "width": 1.5},
        {"kind": "diqt", "unison_steps": 10},
        {"kind": "diqt", "unison_epochs": 10},
        {"kind": "diqt", "epochs": 0},
        {"steps": -1},
        {"unison_steps": 0},
        {"steps": 10, "epochs": 2},
        {"unison_steps": 10, "unison_epochs": 2},
        {"kind": "unet"},
        {"kind": "diqt", "learningrate": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        TrainingSettings(**wrong)
