"""Subjects who end a run and choose its weights, and held-out ones who do neither."""

import itertools
import math
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from napari_msp.data.dataset import open_dataset
from napari_msp.errors import UserError
from napari_msp.evaluation.benchmark.subjects import learned_from
from napari_msp.evaluation.measures.catalogue import measure
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.events import Shortened, Validated
from napari_msp.learning.heads import IncompleteHeads
from napari_msp.learning.lengths import Lengths
from napari_msp.learning.optimisation import AveragedWeights
from napari_msp.learning.phases import Phase
from napari_msp.learning.runs import checkpoint_path
from napari_msp.learning.schedule import FAST, learning_rate, recipe_for
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.trail import Trail, how_they_ended
from napari_msp.model_file import load_model
from napari_msp.signal.fitting import fit_sh

SLOW = pytest.mark.slow


def trail_of(errors, losses=None, rates=None):
    trail, ones = Trail(), [1.0] * len(errors)
    for number, (error, loss, rate) in enumerate(
        zip(errors, losses or ones, rates or ones, strict=True)
    ):
        trail.add(10 * number + 10, 10 * loss, 10 * loss**2, 10 * rate, error)
    return trail


# --- Whether there is more to gain -----------------------------------------------------------


def test_nothing_is_gained_when_the_error_falls_by_less_than_half_a_per_cent():
    assert not trail_of([8.0, 7.0, 6.0]).stalled(1)
    assert trail_of([8.0, 7.99, 7.98, 7.97]).stalled(3)
    assert not trail_of([8.0, 7.99, 7.98, 7.97]).stalled(4)
    assert not trail_of([8.0, 8.1, 8.2, 7.9]).stalled(1)
    assert trail_of([8.0, math.nan, math.nan]).stalled(2)


def test_the_last_tenth_by_hand():
    by_error = trail_of([9.0, 5.0, 4.0, 3.5, 3.2, 3.1, 3.0, 2.5, 2.0, 1.9]).last_tenth()
    assert (by_error.by, by_error.part) == ("validation", pytest.approx(0.05))
    assert by_error.still
    assert "still lowered the error on the validation subjects by 5 %" in str(by_error)
    worse = trail_of([9.0, 2.0, 2.5, 2.5, 3.0]).last_tenth()
    assert worse.part == 0
    assert "hardly lowered" in str(worse)
    losses = [1.0] * 16 + [0.8, 0.8, 0.6, 0.6]  # the last two of twenty against the two before
    by_loss = trail_of([None] * 20, losses).last_tenth()
    assert (by_loss.by, by_loss.part) == ("loss", pytest.approx(0.25))
    assert "still lowered the training loss by 25 %" in str(by_loss)
    assert trail_of([None]).last_tenth() is None


def test_few_long_epochs_have_no_last_tenth():
    """A lecture's: the last two are two thirds of the steps, and fell from the first one alone."""
    falling = [learning_rate(FAST, step, 120, 1) for step in range(120)]
    rates = [sum(falling[at : at + 40]) / 10 for at in (0, 40, 80)]
    assert rates[2] < 0.1 * sum(rates) < rates[1]
    for errors in ([None] * 3, [9.0, 6.6, 6.5]):
        trail = trail_of(errors, [0.0907, 0.0660, 0.0651], rates)
        assert trail.last_tenth() is None
        words = how_they_ended({"a": trail}, {"a": 30})["a"]
        assert words.startswith("too few epochs or steps to tell whether more would help")
    # The last two of seven are a tenth; what they would be held against is half of it.
    uneven = [1.0, 1.0, 1.0, 1.0, 5.0, 0.5, 0.5]
    assert trail_of([None] * 7, [1.0] * 7, uneven).last_tenth() is None
    assert trail_of([1.0] * 7, [1.0] * 7, uneven).last_tenth() is not None


def test_a_rate_that_falls_does_not_make_a_run_look_finished():
    """Steps of a small rate learn little: a tenth of all that was learned takes more of them."""
    losses = [4.0, 2.0, 1.0, 0.8, 0.8, 0.8]
    assert not trail_of([None] * 6, losses).last_tenth().still
    rates = [4.0, 4.0, 1.0, 0.9, 0.06, 0.04]  # the last three are a tenth, the third is another
    gain = trail_of([None] * 6, losses, rates).last_tenth()
    assert gain.part == pytest.approx(0.2)
    assert gain.still
    by_error = trail_of([4.0, 2.0, 1.0, 0.9, 0.9, 0.8], losses, rates).last_tenth()
    assert by_error.part == pytest.approx(0.2)


def test_a_loss_that_falls_within_what_examples_differ_by_has_not_fallen():
    """Means 1 and 0.9 of 10 steps each: standard errors of 0.5/√10 hide a fall of 10 %."""
    trail = Trail()
    for step, mean in enumerate([*[1.0] * 9, 0.9], start=1):
        trail.add(10 * step, 10 * mean, 10 * (mean**2 + 0.5**2), 1.0, None)
    assert trail.spreads == pytest.approx([0.5] * 10)
    gain = trail.last_tenth()
    assert gain.part == pytest.approx(0.1)
    pooled = (10 * 0.5**2 + 10 * 0.5**2) / 18
    assert gain.least == pytest.approx(2 * math.sqrt(pooled * (1 / 10 + 1 / 10)))
    assert not gain.still


def test_what_epochs_differ_by_is_noise_too():
    """Epochs of one step have no spread of their own; fewer than ten steps say nothing."""
    trail = Trail()
    losses = [*[1.0] * 180, *[1.5, 0.5] * 10]
    losses[160:180] = [1.6, 0.6] * 10
    for step, loss in enumerate(losses, start=1):
        trail.add(step, loss, loss**2, 1.0, None)
    gain = trail.last_tenth()
    assert gain is not None
    assert gain.part == pytest.approx(1 - 1 / 1.1)
    assert gain.least == pytest.approx(2 * math.sqrt(40 * 0.5**2 / 38 * 2 / 20) / 1.1)
    assert not gain.still
    short = Trail()
    for step, loss in enumerate([1.0] * 27 + [0.5] * 3, start=1):
        short.add(step, loss, loss**2, 1.0, None)
    assert short.last_tenth() is None


def test_what_was_kept_is_said():
    def said(errors, before=None):
        trail = trail_of(errors)
        trail.before = before
        return how_they_ended({"a": trail}, {"a": 10 * len(errors)})["a"]

    assert said([4.0, 2.0, 3.0]).endswith("; kept: epoch 2")
    assert said([4.0, 2.0, 3.0], before=9.0).endswith("; kept: epoch 2")
    assert said([4.0, 2.0], before=2.0).endswith("; kept: the start, no step made it better")
    assert "kept" not in said([None, None])


# --- Averaged weights ------------------------------------------------------------------------


def test_averages_by_hand_and_the_best_of_them():
    network = torch.nn.Linear(1, 1, bias=False)
    averages = AveragedWeights(network, horizon=2)
    seen = []
    for step, value in enumerate([4.0, 8.0, 2.0], start=1):
        torch.nn.init.constant_(network.weight, value)
        averages.update(step)
        with averages.in_place():
            seen.append(network.weight.item())
        assert network.weight.item() == value, "training goes on with its own"
        if step == 2:
            averages.keep()
    assert seen == [4.0, 6.0, 4.0]
    averages.give_best()
    assert network.weight.item() == 6.0


# --- The learning rate where nobody knows the end --------------------------------------------


def test_the_rate_is_held_until_the_phase_is_to_end():
    rates = [learning_rate(FAST, step, 50, 10, hold=(10, 40)) for step in range(50)]
    top = FAST.learning_rate
    assert rates[:10] == pytest.approx([top * n / 10 for n in range(1, 11)])
    assert set(rates[10:40]) == {top}
    assert rates[40:] == pytest.approx([top * n / 11 for n in range(10, 0, -1)])


def test_a_run_that_ends_itself_may_be_longer_than_one_that_does_not():
    phase, usual = Phase("single", (), False, True), FAST.length.steps or 0

    def found(**values):
        settings = TrainingSettings(**values)
        lengths = Lengths(settings, recipe_for(settings), 7, [phase], ["single"])
        return lengths.patience, lengths.most(phase)

    assert found(validation=("sub-02",)) == (5, 3 * usual)
    assert found(validation=("sub-02",), steps=100) == (None, 100), "a given length is obeyed"
    assert found(validation=("sub-02",), steps=100, patience=2) == (2, 100)
    assert found() == (None, usual)


# --- Runs ------------------------------------------------------------------------------------


@pytest.fixture
def chosen(quick):
    """Settings of a run that learns from one head and is judged by another."""
    return lambda **changes: quick(
        **{
            "targets": ("prisma_st",),
            "validation": ("sub-02",),
            "subjects": ("sub-01", "sub-02"),
            "held_out": (),
            "crop": 5,
        }
        | changes
    )


BOTH = {"subjects": (), "held_out": ("sub-03",)}
"""A head that is held out as well."""


def of_kind(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_the_best_weights_are_kept(heads, chosen, run):
    """A rate at which the error goes up and down."""
    out, events = run(heads, chosen(**BOTH, epochs=6, learning_rate=0.05))
    errors = [event.validation["prisma_st"] for event in of_kind(Validated, events)]
    assert len(errors) == 6
    best = min(errors)
    training = load_model(out).training
    assert training["validation"] == ["sub-02"]
    assert training["validation_sh_mse"]["shresnet prisma_st"]["prisma_st"] == best
    held_out = [event.errors["prisma_st"] for event in of_kind(Validated, events)]
    assert events[-1].errors["prisma_st"] == held_out[errors.index(best)]
    assert events[-1].validation == {"prisma_st": best}
    kept = errors.index(best) + 1
    assert events[-1].ended["shresnet prisma_st"].endswith(f"kept: epoch {kept}")
    scans = open_dataset(heads)
    scan, truth = (scans.acquisition("sub-02", each) for each in ("ge_st", "prisma_st"))
    prediction = harmonize(load_model(out), scan, "prisma_st", device="cpu")
    assert measure(prediction.sh, fit_sh(truth)).sh_mse == pytest.approx(best, rel=1e-4)
    judged = learned_from([load_model(out)], [scans], scans.subjects)
    assert sorted(judged) == ["sub-01", "sub-02"], "neither says how it does on a new person"
    assert "was chosen by the error on sub-02" in str(judged["sub-02"].error("test"))
    assert "was trained on sub-01" in str(judged["sub-01"].error("test"))
    assert events[0].validation == ["sub-02"]
    assert events[0].subjects == ["sub-01"]


def test_held_out_subjects_still_change_nothing(make_heads, tmp_path, chosen, run):
    root = make_heads(tmp_path / "heads")
    first, events = run(root, chosen(**BOTH), "first")
    for path in root.glob("sub-03/*/dwi/*_dwi.nii.gz"):
        image = nib.load(path)
        data = np.asarray(image.dataobj) ** 0.8
        nib.Nifti1Image(data.astype(np.float32), image.affine).to_filename(path)
    second, other = run(root, chosen(**BOTH), "second")
    one, two = load_model(first), load_model(second)
    for name, weights in one.network.state_dict().items():
        assert torch.equal(weights, two.network.state_dict()[name])
    by_validation = [[e.validation for e in of_kind(Validated, each)] for each in (events, other)]
    assert by_validation[0] == by_validation[1]
    assert one.training["held_out_sh_mse"] != two.training["held_out_sh_mse"]


NOTHING_GAINED = {"learning_rate": 1e-9, "epochs": 20, "patience": 1}


def test_a_phase_ends_when_nothing_is_gained(heads, chosen, run):
    """Best in the first epoch, not better in the second, and an epoch for the rate to fall."""
    settings = chosen(**NOTHING_GAINED, targets=("prisma_st", "connectom_sa"))
    out, events = run(heads, settings)
    assert [event.step for event in events if event.name == "step"] == list(range(1, 19))
    shortened = of_kind(Shortened, events)
    assert [(e.step, e.epoch, e.steps) for e in shortened] == [(6, 2, 9 + 60), (15, 2, 18)]
    rates = [event.learning_rate for event in events if event.name == "step"][:9]
    assert rates[6:] == pytest.approx([1e-9 * n / 4 for n in (3, 2, 1)])
    assert events[0].steps == 120
    training = load_model(out).training
    assert training["steps"] == 18
    assert training["ended"]["shresnet prisma_st"].startswith("ended after 9 of at most 60 steps")
    assert events[-1].ended == training["ended"]


@pytest.mark.parametrize("stop_after", [*(pytest.param(n, marks=SLOW) for n in (1, 6)), 7])
def test_resumed_is_the_same_though_the_end_was_not_known(stop_after, heads, chosen, run):
    settings = chosen(**NOTHING_GAINED)
    whole, events = run(heads, settings, "whole")
    parts, before = run(heads, settings, "parts", stop_after=stop_after)
    assert checkpoint_path(parts).exists()
    _, after = run(heads, settings, "parts", resume=True)
    assert parts.exists()
    one, two = load_model(whole), load_model(parts)
    for name, weights in one.network.state_dict().items():
        assert torch.equal(weights, two.network.state_dict()[name])
    validated = [[e.validation for e in of_kind(Validated, those)] for those in (events, before)]
    assert validated[0] == [*validated[1], *(e.validation for e in of_kind(Validated, after))]
    assert one.training["ended"] == two.training["ended"]


def test_averages_of_the_checkpoint_count(heads, chosen, run):
    """Stopped in mid-epoch at a rate that scatters, the average goes on as it was."""
    settings = chosen(epochs=2, learning_rate=0.05)
    whole, _ = run(heads, settings, "whole")
    run(heads, settings, "parts", stop_after=5)
    parts, _ = run(heads, settings, "parts", resume=True)
    one, two = load_model(whole).network.state_dict(), load_model(parts).network.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_target_that_nobody_validates_has_a_fixed_length(heads, tmp_path, chosen, run):
    root = tmp_path / "lacking"
    shutil.copytree(heads, root)
    shutil.rmtree(root / "sub-02" / "ses-connectom")
    targets = ("prisma_st", "connectom_sa")
    settings = chosen(**NOTHING_GAINED | {"epochs": 5}, targets=targets)
    with pytest.warns(IncompleteHeads):
        _, events = run(root, settings)
    by_phase = itertools.groupby(event.phase for event in events if event.name == "step")
    assert [len(list(steps)) for _, steps in by_phase] == [9, 15]
    assert "validation" not in events[-1].ended["shresnet connectom_sa"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": ("sub-09",)}, "no subject sub-09"),
        ({"validation": ("sub-01", "sub-02")}, "no subject is left"),
    ],
)
def test_subjects_that_cannot_validate_are_refused(changes, message, heads, chosen, run):
    with pytest.raises(UserError, match=message):
        run(heads, chosen(**changes))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"validation": ("sub-03",), "held_out": ("sub-03",)}, "sub-03 cannot be held out too"),
        ({"patience": 3}, "needs validation subjects"),
    ],
)
def test_contradictions_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings.model_validate(values)


def test_one_person_under_two_labels_is_not_validated_by_herself(make_heads, tmp_path, chosen, run):
    root = make_heads(tmp_path / "heads")
    for source in root.rglob("sub-01*.nii.gz"):
        target = root / str(source.relative_to(root)).replace("sub-01", "sub-02")
        target.write_bytes(source.read_bytes())
    with pytest.raises(
        UserError, match=r"sub-02 is the same person as sub-01, a training"
    ) as caught:
        run(root, chosen())
    assert caught.value.field == "validation"
