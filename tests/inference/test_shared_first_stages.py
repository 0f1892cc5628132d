"""Models whose targets share their first stages: stored once, run once, told apart."""

import json
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_msp.errors import UserError
from napari_msp.inference.harmonize import harmonize, predict_targets
from napari_msp.inference.prepare import prepare_input
from napari_msp.model_file import digest_of, load_model, read_tensors, save_model, write_tensors
from napari_msp.networks.msp import MSP
from napari_msp.options import Options


@pytest.fixture
def saved(make_model, tmp_path):
    path = tmp_path / "shared.safetensors"
    save_model(path, make_model(first_stages="shared"))
    return path


def changed(path, change_card=None, change_weights=None):
    """The same file with another card or other weights, and the digest that goes with them."""
    metadata, weights = read_tensors(path)
    card = json.loads(metadata["card"])
    card["sha256"] = ""
    if change_card:
        change_card(card)
    if change_weights:
        change_weights(weights)
    text = json.dumps(card)
    digest = digest_of({"card": text}, weights)
    text = text.replace('"sha256": ""', f'"sha256": "{digest}"', 1)
    write_tensors(path, weights, {"card": text})


def test_its_file_has_every_weight_once(saved, make_model, tmp_path):
    weights = load_file(saved)
    single = [name for name in weights if "prisma_st.stem" in name]
    assert single == ["first-stages/prisma_st.stem.bias", "first-stages/prisma_st.stem.weight"]
    own = tmp_path / "own.safetensors"
    save_model(own, make_model())
    copies = load_file(own)
    total, of_all = (sum(v.nbytes for v in each.values()) for each in (weights, copies))
    once = sum(v.nbytes for n, v in copies.items() if n.startswith("prisma_st/singles."))
    assert total == of_all - once
    assert saved.stat().st_size < own.stat().st_size - once
    assert json.loads(read_tensors(own)[0]["card"])["first_stages"] == "own"


def test_what_is_loaded_shares_them_and_predicts_the_same(make_model, tmp_path):
    model = make_model(first_stages="shared")
    model.save(tmp_path / "m.safetensors")
    back = load_model(tmp_path / "m.safetensors")
    assert back.card == model.card
    one, other = (dict(cast(MSP, back.single(target)).singles.items()) for target in back.targets)
    assert one == other  # modules are equal only to themselves
    x = torch.randn(1, 28, 4, 5, 6)
    with torch.no_grad():
        before, after = model.network(x), back.network(x)
        alone = {target: back.single(target)(x, 0.7).second for target in back.targets}
    for target in model.targets:
        assert torch.equal(before[target], after[target])
        assert torch.equal(after[target], alone[target])
    assert "prisma_st, connectom_sa, shared first stages, 1 subject, " in repr(back)
    assert "shared" not in repr(make_model())


@pytest.mark.parametrize(
    ("change_card", "change_weights", "complaint"),
    [
        (lambda card: card.update(first_stages="own"), None, "cannot be used"),
        (lambda card: card.update(first_stages="some"), None, "first_stages"),
        (
            lambda card: card["architectures"]["prisma_st"]["singles"].reverse(),
            None,
            "differ between targets",
        ),
        (
            lambda card: card["architectures"]["prisma_st"]["singles"][0].update(width=0.3),
            None,
            "differ between targets",
        ),
        (None, lambda weights: weights.pop("first-stages/prisma_st.stem.bias"), "is missing"),
        (
            None,
            lambda weights: weights.update(
                {"prisma_st/singles.prisma_st.stem.bias": torch.zeros(12)}
            ),
            "is not shared",
        ),
        (None, lambda weights: weights.update({"ge_st/more": torch.zeros(1)}), "not a target"),
        (None, lambda weights: weights.update({"first-stages/x": torch.zeros(1)}), "has no"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(change_card, change_weights, complaint, saved):
    changed(saved, change_card, change_weights)
    with pytest.raises(UserError, match=complaint):
        load_model(saved)


def test_a_file_of_others_cannot_say_that_it_shares(make_model, tmp_path):
    model = make_model("diqt")
    save_model(tmp_path / "m.safetensors", model)
    changed(tmp_path / "m.safetensors", lambda card: card.update(first_stages="shared"))
    with pytest.raises(UserError, match="cannot be used"):
        load_model(tmp_path / "m.safetensors")
    card = make_model().card.model_copy(update={"first_stages": "shared"})
    with pytest.raises(ValueError, match="do not share"):
        save_model(tmp_path / "other.safetensors", replace(make_model(), card=card))


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("keep_stages", [False, True])
def test_all_targets_at_once_are_what_each_is_alone(
    tile, keep_stages, make_model, small_scan, tmp_path, runs_of_singles
):
    model = make_model(first_stages="shared")
    acquisition = small_scan().load(tmp_path)
    prepared = prepare_input(model, acquisition)
    options = Options(tile=tile, keep_stages=keep_stages)
    found = list(predict_targets(model, prepared, model.targets, options))
    assert [each.target for each in found] == model.targets
    runs = runs_of_singles
    assert runs["prisma_st"] == runs["connectom_sa"] > 0
    together = runs["prisma_st"]
    for prediction in found:
        alone = harmonize(model, acquisition, prediction.target, options=options)
        for name in ("sh", "first_stage"):
            image, expected = getattr(prediction, name), getattr(alone, name)
            np.testing.assert_allclose(image.coefficients, expected.coefficients, atol=2e-6)
            np.testing.assert_array_equal(image.mask, expected.mask)
            np.testing.assert_array_equal(image.affine, expected.affine)
        assert prediction.disagreement is not None
        assert alone.disagreement is not None
        np.testing.assert_allclose(prediction.disagreement, alone.disagreement, atol=2e-6)
        assert prediction.branches.keys() == alone.branches.keys()
        for name, branch in alone.branches.items():
            np.testing.assert_allclose(
                prediction.branches[name].coefficients, branch.coefficients, atol=2e-6
            )
    assert runs["prisma_st"] == 3 * together
