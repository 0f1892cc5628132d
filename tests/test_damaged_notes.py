"""Models' cards, plans, tables, sidecars and descriptions that are damaged or made up."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msp.bids import DESCRIPTION, marked_input, read_sidecar
from napari_msp.data.dataset import open_dataset
from napari_msp.errors import Change, UserError, every
from napari_msp.evaluation.benchmark.plan import Plan, keep_plan
from napari_msp.evaluation.benchmark.results import Result, Results, read_results, write_results
from napari_msp.evaluation.benchmark.settings import QUICK, EvaluationSettings, Subjects
from napari_msp.identity import Person
from napari_msp.learning.settings import TrainingSettings
from napari_msp.model_file import Model, load_model, read_tensors, save_model, write_tensors
from napari_msp.provenance import Provenance

DEEP = "[" * 100_000
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def put(content: Any, value: Any, draw: Any) -> None:
    """Put a value somewhere into plain JSON values."""
    while True:
        names = sorted(content) if isinstance(content, dict) else range(len(content))
        name = draw(st.sampled_from(list(names)))
        inner = content[name]
        if not (isinstance(inner, dict | list) and inner) or draw(st.booleans()):
            content[name] = value
            return
        content = inner


# --- Models ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory, heads) -> Path:
    """An untrained model of two targets."""
    from napari_msp.learning.heads import prepare_study
    from napari_msp.learning.phases import TrainedNetworks, make_model

    chosen = TrainingSettings(kind="msp", width=0.1, input="ge_st")
    with torch.random.fork_rng([]):
        study = prepare_study(open_dataset(heads), chosen)
        networks = TrainedNetworks(study.settings, study.scales, study.standardisation)
    path = tmp_path_factory.mktemp("model") / "msp.safetensors"
    save_model(path, make_model(study, networks.finished(), {"seconds": 1.0}))
    return path


def same(one: Model, other: Model) -> bool:
    first, second = one.network.state_dict(), other.network.state_dict()
    return one.card == other.card and all(torch.equal(first[n], second[n]) for n in second)


def with_card(path: Path, out: Path, text: str) -> Path:
    write_tensors(out, read_tensors(path)[1], {"card": text})
    return out


def card_of(path: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(read_tensors(path)[0]["card"])
    card["sha256"] = ""
    return card


def test_the_same_model_is_the_same_file(model, tmp_path):
    loaded = load_model(model)
    assert loaded.card.sha256 == ""
    loaded.save(tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == model.read_bytes()


CARDS: dict[str, tuple[Any, str | None]] = {
    "deep": (DEEP, "objects are nested"),
    "a deep option": (lambda c: c["training"].update(x=json.loads("[" * 99 + "]" * 99)), "are "
    "nested"),
    "a huge number": ('{"alpha": ' + "9" * 5000 + "}", "5000 digits"),
    "a list": ("[]", "card is not valid"),
    "two alphas": ('{"alpha": 1, "alpha": 0}', "stands for two values"),
    "nan": (lambda c: c.update(voxel_size=float("nan")), "not finite"),
    "a coloured label": (lambda c: c.update(label="\x1b[31mred"), "printable characters"),
    "an endless label": (lambda c: c.update(label="a" * 5000), "up to 500"),
    "a text": (lambda c: c.update(voxel_size="2.4"), "voxel_size"),
    "true": (lambda c: c["scales"].update(prisma_st=True), "scales"),
    "a fraction": (lambda c: c["scales"].update(prisma_st=1.5), "scales"),
    "a huge scale": (lambda c: c["scales"].update(prisma_st=2**40), "scales must be from 1 to 16"),
    "a scale of 0": (lambda c: c["scales"].update(prisma_st=0), "scales must be from 1 to 16"),
    "subjects": (lambda c: c["training"].update(subjects="sub-01"), "list of names"),
    "people": (lambda c: c["training"].update(people=5), None),
    "a huge network's scale": (
        lambda c: c["architectures"]["prisma_st"]["singles"][0]["scales"][0].__setitem__(1, 10**6),
        "beyond 16"),
    "a deep network": (
        lambda c: c["architectures"]["prisma_st"]["singles"][0]["options"].update(depth=10**9),
        "beyond 4096"),
    "an endless width": (
        lambda c: c["architectures"]["prisma_st"].update(width=1e300), "beyond 4096"),
    "no width": (lambda c: c["architectures"]["prisma_st"].update(width=-1), "cannot be used"),
    "singles as a text": (
        lambda c: c["architectures"]["prisma_st"].update(singles="x"), "cannot be used"),
    "options of none": (
        lambda c: c["architectures"]["prisma_st"]["singles"][0]["options"].update(x=1),
        "cannot be used"),
    "another digest": (lambda c: c.update(sha256="0" * 64), "changed after it was written"),
}  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_a_card_that_cannot_be_is_refused(name, model, tmp_path):
    change, complaint = CARDS[name]
    text = change
    if callable(change):
        card = card_of(model)
        change(card)
        text = json.dumps(card)
    path = with_card(model, tmp_path / "m.safetensors", text)
    if complaint is None:  # a note that is no list of people names nobody
        assert [person.label for person in load_model(path).people] == [
            "sub-01",
            "sub-02",
            "sub-03",
        ]
        return
    with pytest.raises(UserError, match=complaint) as caught:
        load_model(path)
    assert (caught.value.subject, caught.value.field) == (str(path), "model")
    assert caught.value.remedy is not None and len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["keys", "pop", "train", "a.b", "", "a/b", "../x", "x\n"])
def test_a_target_that_torch_has_a_use_for(name, model, tmp_path):
    text = json.dumps(card_of(model)).replace("prisma_st", json.dumps(name)[1:-1])
    weights = {
        each.replace("prisma_st", name): value for each, value in read_tensors(model)[1].items()
    }
    write_tensors(tmp_path / "m.safetensors", weights, {"card": text})
    with pytest.raises(UserError):
        load_model(tmp_path / "m.safetensors")


@given(st.data())
def test_changed_bytes_of_a_model_never_go_unnoticed(model, tmp_path, data):
    content = bytearray(model.read_bytes())
    header = int.from_bytes(content[:8], "little")
    where = st.integers(0, header + 8) | st.integers(0, len(content) - 1)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(where)] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    try:
        read = load_model(path)
    except UserError:
        return
    assert same(read, load_model(model))


@settings(max_examples=20)
@given(ANY, st.data())
def test_a_card_with_a_made_up_value_is_refused_or_complete(model, tmp_path, value, data):
    card = card_of(model)
    put(card, value, data.draw)
    try:
        read = load_model(with_card(model, tmp_path / "m.safetensors", json.dumps(card)))
    except UserError:
        return
    assert read.targets == ["connectom_sa", "prisma_st"]
    assert repr(read) and isinstance(read.people, tuple)
    for platform in read.platforms:
        read.standardisation(platform)


# --- Plans and tables ------------------------------------------------------------------------


@pytest.fixture
def plan(heads) -> Plan:
    return Plan(
        asked=EvaluationSettings(),
        datasets=(heads,),
        input="ge_st",
        targets=("prisma_st",),
        subjects=Subjects(("sub-01",), ("sub-02",), ("sub-03",)),
        methods=("IQT",),
        budget=QUICK,
        b_values=(1200.0,),
    )


PLANS: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "is damaged"),
    "deep": (DEEP, "objects are nested"),
    "a list": ("[]", "is damaged"),
    "empty": ("{}", "an earlier version"),
    "scans as a list": (lambda p: p.update(scans=[]), "scans"),
    "a huge seed": (lambda p: p.update(seeds=[2**70]), "digits"),
    "a seed that is a text": (lambda p: p.update(seeds=["0"]), "seeds"),
    "a seed that is none": (lambda p: p.update(seeds=[0.5]), "seeds"),
    "subjects as a list": (lambda p: p.update(subjects=["sub-01"]), "subjects"),
    "a budget of texts": (lambda p: p["budget"].update(steps="60"), "budget"),
    "a text for b": (lambda p: p.update(b_value="1200"), "b_value"),
    "something less": (lambda p: p.pop("source"), "source"),
    "nan": (lambda p: p.update(b_value=float("nan")), "not finite"),
    "bytes": (bytes(range(256)), "is damaged"),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_damaged_plan_is_one_line_with_advice_that_works(name, plan, tmp_path):
    change, complaint = PLANS[name]
    path = tmp_path / "plan.json"
    keep_plan(plan, path)
    if callable(change):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    else:
        path.write_bytes(change if isinstance(change, bytes) else change.encode())
    kept = path.read_bytes()
    with pytest.raises(UserError, match=complaint) as caught:
        keep_plan(plan, path)
    assert Change("out", "another") in every(caught.value.remedy)
    assert path.read_bytes() == kept
    keep_plan(plan, tmp_path / "another" / "plan.json")


def test_a_plan_that_says_more_is_another(plan, tmp_path):
    path = tmp_path / "plan.json"
    keep_plan(plan, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    with pytest.raises(UserError, match="with other more"):
        keep_plan(plan, path)


@given(ANY, st.data())
def test_a_plan_with_a_made_up_value_is_refused_or_the_same(plan, tmp_path, value, data):
    path = tmp_path / "plan.json"
    path.unlink(missing_ok=True)
    keep_plan(plan, path)
    content = json.loads(path.read_text())
    before = json.dumps(content)
    put(content, value, data.draw)
    path.write_text(json.dumps(content))
    try:
        keep_plan(plan, path)
    except UserError:
        return
    # 1 and 1.0 are one number in JSON.
    assert json.loads(before) == content


TABLES: dict[str, bytes] = {
    "nothing": b"",
    "no header": b"\n",
    "another header": b"a,b\n1,2\n",
    "a NUL": b"method,target\x00\n",
    "a huge field": b"method," + b"x" * 200_000 + b"\n",
    "no UTF-8": b"\xff\xfe",
    "a huge seed": b"m,t,d," + b"9" * 5000 + b",s,scan,sh_mse,1.0\n",
    "half a seed": b"m,t,d,0.5,s,scan,sh_mse,1.0\n",
    "no number": b"m,t,d,0,s,scan,sh_mse,x\n",
    "nan": b"m,t,d,0,s,scan,sh_mse,nan\n",
    "endless": b"m,t,d,0,s,scan,sh_mse,1e999\n",
    "a field less": b"m,t,d,0,s,scan,sh_mse\n",
    "a field more": b"m,t,d,0,s,scan,sh_mse,1.0,1.0\n",
    "twice": b"m,t,d,0,s,scan,sh_mse,1.0\nm,t,d,0,s,scan,sh_mse,1.0\n",
    "an open quote": b'"m,t,d,0,s,scan,sh_mse,1.0\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table_of_results_is_refused(name, tmp_path):
    path = tmp_path / "measures.csv"
    row = Result("m", "t", "d", 0, "s", "scan", "sh_mse", 1.0)
    write_results(path, Results([row]), Result)
    header = path.read_bytes().splitlines(keepends=True)[0]
    content = TABLES[name]
    path.write_bytes(header + content if content.startswith((b"m,t", b'"m')) else content)
    with pytest.raises(UserError) as caught:
        read_results(path, Result)
    assert caught.value.remedy is not None


# --- Sidecars and descriptions ---------------------------------------------------------------

PROVENANCE = Provenance(
    target="prisma_st",
    input="ge_st",
    title="MSP",
    alpha=0.5,
    sources=("a.nii.gz",),
    person=Person("sub-01", "x", frozenset("y")).to_json(),
    training_subjects=("sub-02",),
    versions={"torch": "2"},
)


def test_a_sidecar_of_another_program_may_have_numbers_that_are_not_finite(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"EchoTime": NaN, "Slices": [1, Infinity]}')
    read = read_sidecar(tmp_path / "a.nii.gz")
    assert read == {"EchoTime": None, "Slices": [1, None]}
    assert read_sidecar(tmp_path / "b.nii.gz") == {}


@pytest.mark.parametrize(
    "content", [DEEP, "[]", '{"a": 1, "a": 2}', '{"a": ' + "9" * 5000 + "}", "{", "\0"]
)
def test_a_damaged_sidecar_or_description_is_one_line(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    (tmp_path / DESCRIPTION).write_text(content)
    for read, name in ((read_sidecar, "a.nii.gz"), (marked_input, "")):
        with pytest.raises(UserError, match=r"is not valid JSON|must be a JSON object") as caught:
            read(tmp_path / name)
        assert caught.value.remedy is not None and len(str(caught.value)) < 600


@given(ANY, st.data())
def test_a_sidecar_with_a_made_up_value_is_a_note_all_the_same(tmp_path, value, data):
    content = PROVENANCE.to_sidecar()
    put(content, value, data.draw)
    (tmp_path / "a.json").write_text(json.dumps(content))
    try:
        read = Provenance.from_sidecar(read_sidecar(tmp_path / "a.nii.gz"))
    except UserError:
        return
    if read is not None:
        assert isinstance(read.name, str) and repr(read)
        assert read.alpha is None or 0 <= read.alpha <= 1
        Person.from_json(read.person)
        again = replace(read, model_file=read.model_file or "in memory")
        assert Provenance.from_sidecar(read.to_sidecar()) == again


@given(ANY)
def test_a_description_s_mark_is_a_name_or_nothing(tmp_path, value):
    (tmp_path / DESCRIPTION).write_text(json.dumps({"NapariMSP": {"InputPlatform": value}}))
    try:
        mark = marked_input(tmp_path)
    except UserError:
        return
    assert mark is None or (isinstance(mark, str) and mark)
