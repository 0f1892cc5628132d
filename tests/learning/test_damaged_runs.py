"""Checkpoints, run.json and events.jsonl that are damaged or made up: one line, and advice that
works."""

import json
import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from napari_msp.cli import COMMANDS
from napari_msp.commands.shared import OptionWords
from napari_msp.errors import Advice, Overwrite, UserError, either, every
from napari_msp.learning.checkpoint import (
    DIGEST,
    USELESS,
    read_checkpoint,
    write_checkpoint,
)
from napari_msp.learning.events import (
    Checkpointed,
    Event,
    EventLog,
    Failed,
    Started,
    Step,
    Validated,
    parse_event,
    read_events,
)
from napari_msp.learning.lengths import Position
from napari_msp.learning.runs import RunFolder, checkpoint_path
from napari_msp.learning.train import run_in_folder, train
from napari_msp.model_file import digest_of, read_tensors, write_tensors

DEEP = "[" * 100_000
DIGITS = "9" * 5000
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
"""Whatever JSON can hold, and more."""

# --- Checkpoints -----------------------------------------------------------------------------

IDENTITY = {"settings": {"kind": "x"}, "subjects": ["sub-01"], "scans": {"a": "0"}}


def network() -> tuple[nn.Module, torch.optim.Adam]:
    net = nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3), nn.Conv3d(3, 1, 1))
    return net, torch.optim.Adam(net.parameters())


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A checkpoint after three steps of a second phase."""
    path = tmp_path_factory.mktemp("checkpoint") / "m.checkpoint.safetensors"
    net, optimiser = network()
    for _ in range(3):
        net(torch.randn(1, 2, 3, 3, 3)).square().sum().backward()
        optimiser.step()
    errors = {"x prisma_st": {"prisma_st": 0.5}, "x connectom_sa": {"connectom_sa": float("nan")}}
    position = Position(phase=1, step=3, validated=2, seconds=1.5, errors=errors)
    write_checkpoint(path, net, optimiser, position, IDENTITY)
    return path


def restored(path: Path) -> tuple[Position, dict[str, Any]]:
    """Go on from a checkpoint as a run does; give everything that it brought back."""
    net, optimiser = network()
    with torch.random.fork_rng([]):
        read = read_checkpoint(path, IDENTITY)
        read.restore_networks(net)
        read.restore_optimiser(optimiser)
        random = torch.get_rng_state()
    return read.position, {
        "networks": net.state_dict(),
        "optimiser": optimiser.state_dict()["state"],
        "random": random,
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return torch.equal(one, other)


def rewritten(path: Path, out: Path, change_tensors=None, **metadata: Any) -> Path:
    """A checkpoint that someone changed, digest and all."""
    said, tensors = read_tensors(path)
    if change_tensors is not None:
        change_tensors(tensors)
    if isinstance(metadata.get("position"), dict):
        metadata["position"] = json.dumps(json.loads(said["position"]) | metadata["position"])
    said = {name: text for name, text in (said | metadata).items() if name != DIGEST}
    write_tensors(out, tensors, {**said, DIGEST: digest_of(said, tensors)})
    return out


def test_a_checkpoint_comes_back_whole(written):
    position, state = restored(written)
    assert (position.phase, position.step, position.validated) == (1, 3, 2)
    assert position.errors["x prisma_st"] == {"prisma_st": 0.5}
    assert same(state, restored(written)[1])


MADE_UP: dict[str, tuple[dict[str, Any], str]] = {
    "another version": ({"format": "napari-msp checkpoint 99"}, "no checkpoint of this version"),
    "no JSON": ({"position": "{"}, "is damaged"),
    "a list": ({"position": "[]"}, "is damaged"),
    "too deep": ({"position": DEEP}, "objects are nested"),
    "a deep identity": ({"identity": DEEP}, "objects are nested"),
    "an identity that is none": ({"identity": "5"}, "not state its run"),
    "another run": (
        {"identity": '{"settings": {"kind": "y"}, "scans": {}, "subjects": []}'},
        r"other scans, settings, subjects \(kind: y there, x here; a\)",
    ),
    "a huge number": ({"position": '{"step": ' + DIGITS + "}"}, "5000 digits"),
    "two steps": ({"position": '{"step": 1, "step": 2}'}, "stands for two values"),
    "no phase": ({"position": {"phase": None}}, "phase"),
    "half a step": ({"position": {"step": 2.5}}, "step"),
    "errors that are none": ({"position": {"errors": {"x prisma_st": {"a": "b"}}}}, "errors"),
    "something more": ({"position": {"epoch": 1}}, "epoch"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE_UP)
def test_what_another_version_or_run_wrote_is_refused(name, written, tmp_path):
    change, complaint = MADE_UP[name]
    path = rewritten(written, tmp_path / "c.safetensors", **change)
    with pytest.raises(UserError, match=complaint) as caught:
        restored(path)
    assert caught.value.subject == str(path)
    assert len(str(caught.value)) < 600


def _set(name: str, value: Any):
    return lambda tensors: tensors.__setitem__(name, value)


def _without(prefix: str):
    def change(tensors):
        for name in [each for each in tensors if each.startswith(prefix)]:
            del tensors[name]

    return change


TENSORS: dict[str, tuple[Any, str]] = {
    "weights missing": (_without("networks/0.weight"), "other networks' weights"),
    "weights too many": (_set("networks/9.bias", torch.zeros(3)), "other networks' weights"),
    "weights of another shape": (_set("networks/0.bias", torch.zeros(4)), "other networks'"),
    "weights of another type": (
        _set("networks/0.bias", torch.zeros(3, dtype=torch.int64)), "other networks' weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_other_networks_weights_are_refused(name, written, tmp_path):
    change, complaint = TENSORS[name]
    path = rewritten(written, tmp_path / "c.safetensors", change_tensors=change)
    with pytest.raises(UserError, match=complaint) as caught:
        restored(path)
    assert (caught.value.subject, caught.value.field) == (str(path), "resume")
    assert Overwrite("start over") in every(caught.value.remedy)


FILES = {
    "nothing": b"",
    "text": b"hello" * 100,
    "a header that is too long": b"\xff" * 8 + b"{}",
    "a header that is no JSON": (1000).to_bytes(8, "little") + b"[" * 1000,
    "a deep header": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "a pickle": b"\x80\x04cos\nsystem\n(S'false'\ntR.",
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_checkpoint_is_refused(name, tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(FILES[name])
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(path, IDENTITY)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        read_checkpoint(tmp_path, IDENTITY)
    with pytest.raises(UserError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none.safetensors", IDENTITY)


@given(st.data())
def test_changed_bytes_never_go_unnoticed(written, tmp_path, data):
    content = bytearray(written.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    try:
        found = restored(path)
    except UserError:
        return
    assert same(found[1], restored(written)[1])
    assert found[0].model_dump_json() == restored(written)[0].model_dump_json()


def test_nothing_is_unpickled(written, tmp_path, monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.load", never)
    monkeypatch.setattr("pickle.loads", never)
    monkeypatch.setattr("torch.load", never)
    restored(written)


# --- Advice that works -----------------------------------------------------------------------


def _spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_s_advice_is_followed(heads, quick, run):
    """Either part of it: start anew with force, or without the file."""
    chosen = quick(targets=("prisma_st",), epochs=1)
    whole, _ = run(heads, chosen, "whole")
    for name in ("forced", "deleted"):
        out, _ = run(heads, chosen, name, stop_after=2)
        _spoil(checkpoint_path(out))
        with pytest.raises(UserError, match="is damaged") as caught:
            run(heads, chosen, name, resume=True)
        anew = Advice("delete this file to start over")
        assert caught.value.remedy == either(Overwrite("start over"), anew)
        if name == "forced":
            run(heads, chosen, name, force=True)
        else:
            assert caught.value.subject is not None
            Path(caught.value.subject).unlink()
            run(heads, chosen, name)
        one, other = load_file(out), load_file(whole)
        assert same(one, other)


@pytest.mark.parametrize("whose", ["sub-01", "sub-02"])
def test_other_scans_are_not_gone_on_with(whose, heads, quick, run, tmp_path):
    """A mended sign of a b-vector leaves all statistics as they were; a validation head's too."""
    own = tmp_path / "heads"
    shutil.copytree(heads, own)
    chosen = quick(targets=("prisma_st",), epochs=1, validation=("sub-02",))
    out, _ = run(own, chosen, stop_after=2)
    (table,) = (own / whose / "ses-prisma" / "dwi").glob("*acq-st_dwi.bvec")
    rows = np.loadtxt(table)
    rows[0] *= -1
    np.savetxt(table, rows)
    with pytest.raises(UserError, match=rf"made with other scans \({whose} on prisma_st\)"):
        run(own, chosen, resume=True)
    assert not out.exists()


def test_a_listener_that_fails_costs_no_step(heads, quick, run):
    """A pipe whose reader has gone, a disk of the log's that is full."""
    chosen = quick(targets=("prisma_st",), epochs=2, steps_per_epoch=5)
    whole, _ = run(heads, chosen, "whole")
    heard: list[str] = []

    def listen(event: Event) -> None:
        heard.append(event.name)
        if heard.count("step") == 7:
            raise BrokenPipeError

    out, _ = run(heads, chosen, stop_after=0)
    with pytest.raises(BrokenPipeError):
        train(heads, out, chosen, device="cpu", resume=True, progress=listen)
    _, events = run(heads, chosen, resume=True)
    assert events[0].resumed_at == 7
    assert same(load_file(out), load_file(whole))


def test_one_model_is_trained_by_one_process(heads, quick, run):
    chosen = quick(targets=("prisma_st",), epochs=1)

    def again(event: Event) -> None:
        if event.name == "step":
            with pytest.raises(UserError, match="another process is working on it"):
                train(heads, model, chosen, device="cpu", force=True)
            model.write_text("of somebody else")

    model, _ = run(heads, chosen, stop_after=0)
    with pytest.raises(UserError, match="appeared while this was trained") as caught:
        train(heads, model, chosen, device="cpu", resume=True, progress=again)
    assert (caught.value.subject, model.read_text()) == (str(model), "of somebody else")
    model.unlink()
    train(heads, model, chosen, device="cpu", resume=True)
    assert [each.name for each in model.parent.iterdir()] == [model.name]


def test_a_run_s_damaged_checkpoint_is_deleted_to_start_anew(heads, quick, tmp_path):
    chosen = quick(targets=("prisma_st",), epochs=1)
    folder = RunFolder.create(tmp_path / "run", heads, chosen, device="cpu")
    steps: list[Event] = []
    run_in_folder(folder, progress=steps.append, cancelled=lambda: len(steps) > 5)
    assert folder.state == "stopped"
    _spoil(folder.checkpoint_path)
    with pytest.raises(UserError, match="delete this file") as caught:
        run_in_folder(folder, resume=True)
    assert caught.value.subject is not None
    Path(caught.value.subject).unlink()
    run_in_folder(folder)
    assert RunFolder.open(folder.path).state == "finished"


def test_each_command_advises_what_it_has():
    advised = {}
    for name in ("train", "run", "evaluate"):
        parser = ArgumentParser()
        COMMANDS[name].add_options(parser)
        advised[name] = USELESS.phrase(OptionWords(parser))
    delete = "delete this file to start over"
    assert advised == {
        "train": f"start over with --force, or {delete}",
        "run": delete,
        "evaluate": delete,
    }


def test_a_finished_run_is_not_said_to_need_a_start(heads, quick, run):
    chosen = quick(targets=("prisma_st",), epochs=1)
    run(heads, chosen)
    with pytest.raises(UserError, match="is finished") as caught:
        run(heads, chosen, resume=True)
    assert caught.value.remedy == Overwrite("train again")
    run(heads, chosen, resume=True, force=True)


# --- run.json --------------------------------------------------------------------------------

RUN = '{"format": "napari-msp run 1", "dataset": "x", "device": "cpu", "settings": {%s}}'

RUNS: dict[str, tuple[str | bytes, str]] = {
    "a list": ("[]", "must be a JSON object"),
    "nothing in it": ("{}", "is no run of this version"),
    "another version": (RUN.replace("run 1", "run 99") % "", "is no run of this version"),
    "no settings": ('{"format": "napari-msp run 1", "dataset": "x", "device": "cpu"}', "settings"),
    "deep": (DEEP, "objects are nested"),
    "deep settings": (RUN % f'"kind": {"[" * 99}{"]" * 99}', "objects are nested"),
    "a huge number": (RUN % f'"seed": {DIGITS}', "5000 digits"),
    "nan": (RUN % '"learning_rate": NaN', "not finite"),
    "beyond numbers": (RUN % '"learning_rate": 1e999', "not finite"),
    "two seeds": (RUN % '"seed": 1, "seed": 2', "'seed' stands for two values"),
    "a text for a number": (RUN % '"seed": "1"', r"settings\.seed"),
    "a number for a text": (RUN % '"kind": 1', r"settings\.kind"),
    "true for a number": (RUN % '"epochs": true', r"settings\.epochs"),
    "a fraction for a number": (RUN % '"epochs": 1.5', r"settings\.epochs"),
    "2**64": (RUN % f'"seed": {2**64}', "20 digits"),
    "a negative seed": (RUN % '"seed": -1', r"settings\.seed"),
    "an unknown setting": (RUN % '"colour": 1', r"settings\.colour"),
    "settings as a list": (RUN.replace("{%s}", "[]"), "settings"),
    "a dataset with a NUL": (RUN.replace('"x"', r'"\u0000"') % "", "character"),
    "half a character": (RUN.replace('"x"', r'"\ud800"') % "", "character"),
    "no UTF-8": (b"\xff\xff\xff", "is not valid JSON"),
    "binary": (bytes(range(256)), "is not valid JSON"),
    "empty": (b"", "is not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_damaged_run_is_one_line(name, tmp_path):
    content, complaint = RUNS[name]
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "run.json").write_bytes(raw)
    with pytest.raises(UserError, match=complaint) as caught:
        RunFolder.open(tmp_path)
    assert caught.value.subject == str(tmp_path / "run.json")
    assert caught.value.remedy is not None
    assert len(str(caught.value)) < 600


@given(st.data())
def test_a_changed_run_is_refused_or_says_the_same(quick, tmp_path, data):
    folder = tmp_path / "run"
    if not folder.exists():
        RunFolder.create(folder, "/heads", quick(), device="cpu")
        (tmp_path / "good").write_bytes((folder / "run.json").read_bytes())
    content = bytearray((tmp_path / "good").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "run.json").write_bytes(content)
    try:
        RunFolder.open(folder)
    except UserError as error:
        assert error.remedy is not None


# --- events.jsonl ----------------------------------------------------------------------------

STARTED = Started("msp", "fast", "cpu", ["sub-01"], [], ["msp x"], 1, 9, 0)
STORY: list[Event] = [
    STARTED,
    Step("msp x", 1, 1, 0.5, 0.1, None, 1.0, 1.0),
    Validated("msp x", 1, 1, 1.0, {"x": float("nan")}),
    Checkpointed(1, "x"),
    Failed.of(UserError("no", "x", "out", either(Overwrite(), Advice("wait")))),
]
STEP = '{"event": "step", "phase": "p", "epoch": 1, "step": %s, "loss": 1.0, "learning_rate": 1.0, '
STEP += '"alpha": null, "throughput": 1.0, "time_left": 1.0}'
REASON = '{"event": "failed", "reason": {"kind": "UserError", "problem": "x", "subject": null, '
REASON += '"field": null, "remedy": %s}}'

LINES: dict[str, str | bytes] = {
    "deep": DEEP,
    "deep remedies": REASON % ('{"kind": "Either", "remedies": [' * 40 + "]}" * 40),
    "a huge number": STEP % DIGITS,
    "2**64": STEP % 2**64,
    "a negative step": STEP % -1,
    "half a step": STEP % 1.5,
    "a text": STEP % '"1"',
    "true": STEP % "true",
    "nothing": STEP % "null",
    "two steps": STEP % '1, "step": 2',
    "a list": "[1]",
    "a number": "5",
    "no kind": "{}",
    "a kind that is a list": '{"event": ["step"]}',
    "the kind of all": '{"event": "event"}',
    "something more": '{"event": "stopped", "step": 1, "path": "x", "more": 1}',
    "something less": '{"event": "stopped", "step": 1}',
    "errors that are none": '{"event": "aligned", "errors": {"x": "y"}}',
    "a reason that is none": '{"event": "failed", "reason": {}}',
    "a remedy of no kind": REASON % '{"kind": "Dance"}',
    "a remedy that is a list": REASON % "[]",
    "a remedy without words": REASON % '{"kind": "Advice", "text": 5}',
    "choices that are none": REASON % '{"kind": "Choose", "parameter": "x", "choices": 5}',
    "remedies that are none": REASON % '{"kind": "Either", "remedies": 5}',
    "a remedy with more": REASON % '{"kind": "Advice", "text": "x", "more": 5}',
    "no UTF-8": b"\xff\xfe\xfd",
    "bytes": bytes([each for each in range(256) if each not in b"\n\r"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_damaged_event_is_named(name, tmp_path):
    line = LINES[name]
    raw = line if isinstance(line, bytes) else line.encode()
    path = tmp_path / "events.jsonl"
    path.write_bytes(STARTED.to_json().encode() + b"\n" + raw + b"\n")
    with pytest.raises(UserError, match="line 2 is damaged") as caught:
        read_events(path)
    assert len(str(caught.value)) < 600
    # As advised.
    path.write_bytes(path.read_bytes().replace(raw + b"\n", b""))
    assert read_events(path) == [STARTED]


def test_events_come_back_as_they_were(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        for event in STORY:
            log.write(event)
    assert repr(read_events(tmp_path / "events.jsonl")) == repr(STORY)  # nan is not itself


@given(st.sampled_from(STORY), st.data())
def test_changed_events_are_read_or_refused(event, data):
    line = bytearray(event.to_json().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = parse_event(bytes(line))
    except ValueError:
        return
    assert parse_event(read.to_json()).to_json() == read.to_json()
    if isinstance(read, Failed):
        assert str(read.error)


@given(st.sampled_from(STORY), ANY, st.data())
def test_events_with_made_up_values_are_read_or_refused(event, value, data):
    content = json.loads(event.to_json())
    where = content
    while isinstance(where, dict) and where and data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(where)))
        if not isinstance(where[name], dict):
            break
        where = where[name]
    if where:
        where[data.draw(st.sampled_from(sorted(where)))] = value
    try:
        read = parse_event(json.dumps(content))
    except ValueError:
        return
    assert not isinstance(read, Failed) or str(read.error)
