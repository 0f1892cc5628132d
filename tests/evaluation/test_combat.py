"""The ComBat row is what neuroCombat computes, and says what it cannot do."""

import sys
from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from napari_msp.errors import Install, UserError
from napari_msp.evaluation.baselines.base import WIDTH, CommonSpace
from napari_msp.evaluation.baselines.combat import ComBat, learn_scanner_effect
from napari_msp.evaluation.benchmark.make_plan import RowLeftOut, make_plan

PEOPLE, VALUES = 5, 40


@pytest.fixture
def tables():
    """Values of few people on two scanners."""
    return scanned(PEOPLE)


def scanned(people):
    """Values of people on two scanners: the first adds a tenth, and spreads and shifts more."""
    random = np.random.default_rng(2)
    truth = random.normal(1, 0.2, (people, VALUES)) + random.normal(0, 0.3, VALUES)
    noise = random.normal(0, 0.02, (2, people, VALUES))
    shift = random.normal(0.1, 0.03, VALUES)
    return 1.3 * truth + shift + noise[0], truth + noise[1]


@pytest.fixture
def driver(monkeypatch):
    """neuroCombat itself, as it ran before NumPy dropped `np.int`."""
    monkeypatch.setattr(np, "int", int, raising=False)
    return import_module("neuroCombat").neuroCombat


def by_driver(driver, inputs, targets, paired):
    """What the library makes of the training people; a person is a category of its own."""
    people = pd.DataFrame({"scanner": ["old"] * len(inputs) + ["new"] * len(targets)})
    if paired:
        people["person"] = [*range(len(inputs)), *range(len(targets))]
    return driver(
        np.concatenate([inputs, targets]).T,
        people,
        "scanner",
        categorical_cols=["person"] if paired else None,
        mean_only=paired,
        ref_batch="new",
    )


@pytest.mark.parametrize("paired", [False, True])
def test_training_people_become_what_the_library_makes_of_them(driver, tables, paired):
    inputs, targets = tables
    wanted = by_driver(driver, inputs, targets, paired)["data"].T
    np.testing.assert_array_equal(wanted[PEOPLE:], targets)  # the reference batch stays
    made = learn_scanner_effect(inputs, targets, paired=paired).remove(inputs)
    np.testing.assert_allclose(made, wanted[:PEOPLE], rtol=1e-9)


def test_somebody_new_is_adjusted_by_the_librarys_estimates(driver, tables):
    inputs, targets = tables
    found = by_driver(driver, inputs, targets, False)["estimates"]
    new = 1.3 * np.random.default_rng(3).normal(1, 0.2, (2, VALUES))
    old = list(found["batches"]).index(1)  # levels are in alphabetical order
    mean, deviation = found["stand.mean"][:, 0], np.sqrt(found["var.pooled"][:, 0])
    standard = (new - mean) / deviation - found["gamma.star"][old]
    wanted = standard / np.sqrt(found["delta.star"][old]) * deviation + mean
    made = learn_scanner_effect(inputs, targets, paired=False).remove(new)
    np.testing.assert_allclose(made, wanted, rtol=1e-9)


def test_groups_may_differ_in_size_and_spread_is_adjusted():
    inputs, targets = scanned(60)
    effect = learn_scanner_effect(inputs, targets[:50], paired=False)
    assert np.median(effect.gain) == pytest.approx(1 / 1.3, abs=0.05)
    assert (learn_scanner_effect(inputs, targets, paired=True).gain == 1).all()


def test_a_shift_that_is_everybodys_is_taken_as_it_is(tables):
    shift = np.linspace(-0.1, 0.1, VALUES)
    effect = learn_scanner_effect(tables[0], tables[0] + shift, paired=True)
    np.testing.assert_allclose(effect.offset, shift, atol=1e-12)
    assert (effect.gain == 1).all()


def test_what_says_nothing_is_refused(tables):
    inputs, targets = tables
    with pytest.raises(UserError, match="two people or more"):
        learn_scanner_effect(inputs[:1], targets[:1], paired=True)
    with pytest.raises(UserError, match="but there is only one"):
        learn_scanner_effect(inputs[:, :1], targets[:, :1], paired=False)
    with pytest.raises(UserError, match="finds no effect"):
        learn_scanner_effect(np.ones((3, 4)), np.ones((3, 4)), paired=False)
    with pytest.raises(UserError, match="missing or infinite"):
        learn_scanner_effect(np.where(inputs > 1, np.nan, inputs), targets, paired=False)
    with pytest.raises(ValueError, match="no pairs"):
        learn_scanner_effect(inputs, targets[:4], paired=True)


# --- The row ---------------------------------------------------------------------------------


def test_the_row_is_the_library_at_each_place(driver, head):
    image = head()
    random = np.random.default_rng(5)

    def noisy(shift):
        noise = random.normal(shift, 0.1, image.coefficients.shape)
        coefficients = np.where(image.mask[..., None], image.coefficients + noise, 0)
        return replace(image, coefficients=coefficients.astype(np.float32))

    inputs, targets = [noisy(0.0) for _ in range(3)], [noisy(0.2) for _ in range(3)]
    row = ComBat().fit(inputs, targets)
    predicted = row.predict(image, image.lattice)

    space = CommonSpace.of(inputs, spacing=WIDTH)
    inside = space.covered(inputs)

    def averages(images, coefficient):
        each = [
            space.local_mean(
                [one], [own], lambda x: x.coefficients, one.coefficients[one.mask].mean(axis=0)
            )
            for one, own in zip(images, inputs, strict=True)
        ]
        return np.stack([one[inside][:, coefficient] for one in each])

    field = np.zeros((*inside.shape, 2), dtype=np.float32)
    for channel, coefficient in enumerate((0, 3)):
        before = averages(inputs, coefficient)
        after = by_driver(driver, before, averages(targets, coefficient), True)["data"].T[:3]
        np.testing.assert_allclose(np.ptp(after - before, axis=0), 0, atol=1e-6)
        field[inside, channel] = (after - before)[0]
    wanted = space.at(image, field)
    made = (predicted.coefficients - image.coefficients)[..., [0, 3]]
    deep = image.mask & (space.at(image, inside[..., None].astype(np.float32))[..., 0] > 0.999)
    assert deep.sum() > 500
    np.testing.assert_allclose(made[deep], wanted[deep], atol=2e-6)
    assert made[image.mask].mean() == pytest.approx(0.2, abs=0.02)


def test_without_the_library_the_row_is_left_out_or_refused(make_heads, tmp_path, monkeypatch):
    heads = make_heads(tmp_path / "heads", subjects=5, shape=(4, 4, 4))
    assert "ComBat" in make_plan([heads], methods=["ComBat", "IQT"], targets=["prisma_st"]).methods
    monkeypatch.setitem(sys.modules, "neuroCombat.neuroCombat", None)
    with pytest.raises(UserError, match="needs neuroCombat") as refused:
        make_plan([heads], methods=["ComBat"], targets=["prisma_st"])
    assert refused.value.remedy == Install("combat")
    with pytest.warns(RowLeftOut) as said:
        assert "ComBat" not in make_plan([heads], methods=["all"]).methods
    assert any("ComBat is left out: it needs neuroCombat" in str(each.message) for each in said)


def test_one_training_head_is_too_few_for_the_row(make_heads, tmp_path):
    heads = make_heads(tmp_path / "heads", subjects=3, shape=(4, 4, 4))
    with pytest.raises(UserError, match="needs 2 heads or more to learn from") as refused:
        make_plan([heads], methods=["ComBat"], targets=["prisma_st"])
    assert refused.value.field == "methods"
    with pytest.warns(RowLeftOut) as said:
        assert "ComBat" not in make_plan([heads], methods=["all"]).methods
    assert any("ComBat is left out: it needs 2 heads" in str(each.message) for each in said)
