"""Model files: what goes in comes out, and nothing else is believed."""

import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_msp.errors import UserError
from napari_msp.identity import Person, taught_by
from napari_msp.model_file import load_model, save_model


def rewritten(path, change_card=None, change_weights=None):
    with safe_open(path, "pt") as stored:
        card = json.loads(stored.metadata()["card"])
    weights = load_file(path)
    if change_card:
        change_card(card)
    if change_weights:
        change_weights(weights)
    save_file(weights, path, metadata={"card": json.dumps(card)})


@pytest.mark.parametrize("kind", ["msp", "diqt", "cnn-rish", "shresnet", "cpm", "hned"])
def test_round_trip(kind, make_model, tmp_path):
    model = make_model(kind)
    save_model(tmp_path / "m.safetensors", model)
    before = torch.get_rng_state()
    back = load_model(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers go on"
    assert back.card == model.card
    x = torch.randn(1, 28, 4, 5, 6)
    with torch.no_grad():
        before, after = model.network(x), back.network(x)
    assert list(after) == ["prisma_st", "connectom_sa"]
    assert all(torch.equal(before[target], after[target]) for target in after)
    assert not back.network.train().training


def test_a_card_that_names_nobody_has_not_said_that_nobody_taught(make_model):
    model = make_model("hned")
    other = Person("sub-01", "a").to_json()
    for training, taught in (
        ({}, None),
        ({"people": []}, False),
        ({"people": [other]}, False),
        ({"people": [other], "start": {"name": "a draft's"}}, None),
    ):
        card = model.card.model_copy(update={"training": training})
        known = replace(model, card=card).everyone
        assert taught_by(Person("sub-02", "a"), known) is taught


def test_network_gives_the_last_stage_with_the_stored_alpha(make_model):
    model = make_model("msp")
    x = torch.randn(1, 28, 4, 5, 6)
    with torch.no_grad():
        found = model.network(x)["prisma_st"]
        expected = model.single("prisma_st")(x, 0.7).second
    assert torch.equal(found, expected)


def _fit(features=26, weights=378, mean=0.0, deviation=1.0):
    return {
        "mean": [mean] * features,
        "deviation": [deviation] * features,
        "weights": [0.0] * weights,
        "subjects": ["sub-02"],
    }


NO_GRADIENTS: dict[str, list[float]] = {"b_values": [], "directions": []}


def _direction(card, direction):
    card["gradients"]["prisma_st"]["directions"][0] = direction


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda card: card.pop("scales"), "scales"),
        (lambda card: card.update(extra=1), "newer version of napari-msp .it has extra.; update"),
        (lambda card: card.update(format="napari-msp model 9"), "it is a 'napari-msp model 9'"),
        (lambda card: card.update(format="another's"), "format"),
        (lambda card: card.update(alpha=1.5), "alpha"),
        (lambda card: card["sh"].update(basis="descoteaux07"), "basis"),
        (lambda card: card["standardisation"].pop("ge_st"), "standardisation"),
        (lambda card: card["standardisation"]["ge_st"]["deviation"].__setitem__(3, 0), "deviation"),
        (lambda card: card["gradients"]["prisma_st"]["b_values"].pop(), "b_values"),
        (lambda card: card["gradients"]["prisma_st"]["b_values"].__setitem__(0, -1), "b_values"),
        (lambda card: _direction(card, [0, 0, 0]), "unit"),
        (lambda card: _direction(card, [float("nan")] * 3), "not finite"),
        (lambda card: card["gradients"].update(prisma_st=NO_GRADIENTS), "gradients"),
        (lambda card: card["sh"].update(b_value=float("inf")), "not finite"),
        (lambda card: card.update(kind="../evil"), "cannot be used"),
        (lambda card: card["architectures"]["prisma_st"].update(width="abc"), "cannot be used"),
        (lambda card: card["architectures"]["prisma_st"].update(singles=None), "cannot be used"),
        (lambda card: card["scales"].update(connectom_sa=3), "predicts something else"),
        (lambda card: card["architectures"]["prisma_st"].update(kind="unet"), "cannot be used"),
        (lambda card: card["architectures"]["prisma_st"].pop("target"), "cannot be used"),
        (lambda card: card.update(expected_error={"ge_st": _fit()}), "no target"),
        (lambda card: card.update(expected_error={"prisma_st": _fit(features=9)}), "26 features"),
        (lambda card: card.update(expected_error={"prisma_st": _fit(weights=44)}), "378 weights"),
        (lambda card: card.update(expected_error={"prisma_st": _fit(deviation=0.0)}), "than 0"),
        (lambda card: card.update(expected_error={"prisma_st": _fit(mean=1e999)}), "finite"),
    ],
)
def test_a_wrong_card_is_refused(change, complaint, saved_model):
    rewritten(saved_model, change_card=change)
    with pytest.raises(UserError, match=complaint):
        load_model(saved_model)


def _a_weight(weights):
    return next(name for name in weights if name.endswith("weight"))


def _spoil(weights):
    name = _a_weight(weights)
    weights[name] = torch.full_like(weights[name], float("nan"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda weights: weights.pop(_a_weight(weights)), "cannot be used"),
        (_spoil, "not finite"),
    ],
)
def test_wrong_weights_are_refused(change, complaint, saved_model):
    rewritten(saved_model, change_weights=change)
    with pytest.raises(UserError, match=complaint):
        load_model(saved_model)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_pickles_and_ruins_are_refused(saved_model, tmp_path):
    pickled = tmp_path / "pickled.safetensors"
    pickled.write_bytes(pickle.dumps(Bomb()))
    torch_file = tmp_path / "torch.safetensors"
    torch.save({"a": torch.zeros(1)}, torch_file)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(saved_model.read_bytes()[:-100])
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    for path in (pickled, torch_file, cut, empty):
        with pytest.raises(UserError, match="is not a safetensors file"):
            load_model(path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is not a napari-msp model"):
        load_model(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="there is no such file"):
        load_model(tmp_path / "absent.safetensors")


def test_saving_is_atomic_and_named(make_model, tmp_path, monkeypatch):
    model = make_model("hned")
    path = tmp_path / "m.safetensors"
    save_model(path, model)
    before = path.read_bytes()
    monkeypatch.setattr("napari_msp.model_file.save_file", _fails)
    with pytest.raises(OSError, match="disk"):
        save_model(path, replace(model))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["m.safetensors"]
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        save_model(tmp_path / "m.pt", model)


def _fails(weights, path, metadata):
    path.write_bytes(b"half")
    raise OSError("disk full")


def test_what_could_not_be_read_is_not_written(make_model, tmp_path):
    model = make_model("shresnet")
    next(model.network.parameters()).data[0] = float("inf")
    with pytest.raises(UserError, match="not finite"):
        save_model(tmp_path / "m.safetensors", model)
    assert not list(tmp_path.iterdir())
