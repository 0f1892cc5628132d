"""What is said of a run: every state, without options of the command line."""

from dataclasses import replace

import pytest

from napari_msp.errors import Advice, Change, ComputeOnCPU, Give, Install, UserError, either
from napari_msp.foreign_errors import explain
from napari_msp.learning.events import (
    Aligned,
    Failed,
    Finished,
    Started,
    StartedFrom,
    Step,
    Stopped,
    Validated,
)
from napari_msp.ui.train import fields
from napari_msp.ui.train.fields import entry_that_helps
from napari_msp.ui.train.history import RunHistory
from napari_msp.ui.train.run_view import against_alignment, failed, how_it_began, how_it_stands

STARTED = Started("msp", "fast", "cpu", ["sub-01"], ["sub-02"], ["msp a"], 12345, 900, 0)
STEP = Step("msp a", 3, 120, 0.1, 1e-3, 0.4, 1000.0, 60.0)


def told(*events):
    history = RunHistory()
    for event in events:
        history.add(event)
    return history


@pytest.mark.parametrize(
    ("state", "last", "resumable", "words"),
    [
        ("finished", Finished("m", 3700.0), False, "Finished after 1 h 1 min of training."),
        (
            "finished",
            Finished("m", 59.7, {}, {"msp prisma_st": "more would gain little"}),
            False,
            "Finished after 1 min 0 s of training. MSP prisma_st: more would gain little.",
        ),
        ("finished", Finished("m", 59.7), False, "Finished after 1 min 0 s of training."),
        (
            "finished",
            Finished(
                "m",
                59.7,
                {},
                {"shresnet a_st": "short", "shresnet b_st": "short", "msp a_st": "long"},
            ),
            False,
            "SHResNet a_st and SHResNet b_st: short. MSP a_st: long.",
        ),
        ("stopped", Stopped(120, "c"), True, "Stopped at step 120 of 900. Resume goes on from"),
        ("stopped", STEP, True, "Ended from outside after step 120 of 900"),
        ("new", STEP, False, "Resume begins anew."),
        (
            "failed",
            Failed.of(UserError("is damaged", "a.bval", remedy=Advice("mend it"))),
            False,
            "Failed: a.bval: is damaged; mend",
        ),
    ],
)
def test_every_state_is_told(state, last, resumable, words):
    said = how_it_stands(state, told(STARTED, STEP), last, resumable)
    assert words in said
    assert said.endswith(".")
    assert ("Resume goes on" in said) == resumable


def test_what_weights_began_as_is_told_also_after_a_resume():
    measured = StartedFrom(
        "base",
        platforms={"a": "b"},
        notes=["a begins as b (as asked)"],
        doubts=["base learned at b = 1000, far from b = 3000 here"],
        errors={"a": 2.8e-4},
        aligned={"a": 5.1e-4},
    )
    history = told(STARTED, measured, STARTED, replace(measured, errors={}, aligned={}))
    assert how_it_began(history.begun) == [
        "Starts from base: a begins as b (as asked).",
        "Before the first step, SH MSE on training heads: a 28.0 × 10⁻⁵ (51.0 × 10⁻⁵ aligned).",
        "Doubtful: base learned at b = 1000, far from b = 3000 here.",
    ]
    assert how_it_began(told(STARTED).begun) == []


def test_a_run_that_nobody_has_begun():
    assert how_it_stands("new", told(), None, False) == "Not begun."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            explain(RuntimeError("CUDA out of memory")),
            "not enough memory; use a smaller “Batch”, or use a smaller “Crop (voxels)”, or "
            "compute on the CPU (“Device” cpu)",
        ),
        (
            UserError("it died", remedy=either(Change("batch", "a smaller"))),
            "use a smaller “Batch”",
        ),
        (
            UserError("the loss is not finite", remedy=Change("learning_rate", "a smaller")),
            "smaller “Learning rate”",
        ),
        (
            UserError("this machine has no GPU", field="device", remedy=ComputeOnCPU()),
            "“Device”: this machine has no GPU; compute on the CPU (“Device” cpu)",
        ),
        (UserError("is missing", "/heads/a.bval", "bval", Give("bval")), "a.bval: is missing. "),
        (UserError("torch is missing", remedy=Install("train")), "pip install"),
        (UserError("is damaged", "/heads/--mask/a.nii"), "a.nii: is damaged"),
    ],
)
def test_failures_name_entries_of_the_form(error, words):
    said = failed(error, resumable=True)
    assert words in said
    assert "--" not in said
    assert "Tile" not in said and "tile" not in said  # Harmonize's
    assert said.endswith("Resume goes on from the last checkpoint.")


def test_a_damaged_checkpoint_is_not_gone_on_from():
    error = UserError("is damaged", "/run/model.checkpoint.safetensors", remedy=Advice("delete it"))
    assert failed(error, resumable=True) == (
        "Failed: model.checkpoint.safetensors: is damaged; delete it."
    )


def test_the_entry_that_helps_is_named():
    assert entry_that_helps(explain(MemoryError()).remedy) == "batch"
    assert entry_that_helps(either(Change("tile", "a smaller"), ComputeOnCPU())) == "device"
    assert entry_that_helps(Give("bval")) == ""
    assert entry_that_helps(None) == ""


def test_errors_stand_beside_those_to_beat():
    history = told(STARTED, Aligned({"a": 5.2e-4, "b": 4e-4}))
    assert against_alignment(history) == ""
    for errors in ({"a": 9e-4}, {"a": 3.9e-4}, {"b": 5e-4}):
        history.add(Validated("msp a", 1, 10, 1.0, errors))
    table = against_alignment(history).replace("&nbsp;", " ")
    first, second = table.split("<tr>")[2:]
    for cell in ("a", "39.0", "52.0", "25 % better"):
        assert f">{cell}<" in first
    for cell in ("b", "50.0", "40.0", "25 % worse"):
        assert f">{cell}<" in second
    assert ">now<" in table and ">SH MSE, 10⁻⁵<" in table


def test_at_the_end_the_errors_are_those_of_the_model():
    """The last epoch is not the one that was kept; held-out subjects go first, as before."""
    history = told(STARTED, Aligned({"a": 5e-4}, {"a": 5e-4, "b": 4e-4}))
    for held_out, chosen in ((4e-4, 2e-4), (9e-4, 8e-4)):
        history.add(Validated("msp a", 1, 10, 1.0, {"a": held_out}, {"a": chosen, "b": chosen}))
    assert ">90.0<" in against_alignment(history)
    history.add(Finished("m", 2.0, {"a": 4e-4}, validation={"a": 2e-4, "b": 2e-4}))
    table = against_alignment(history).replace("&nbsp;", " ")
    assert ">kept<" in table
    first, second = table.split("<tr>")[2:]
    for cell in ("40.0", "20 % better"):
        assert f">{cell}<" in first
    for cell in ("20.0", "50 % better"):
        assert f">{cell}<" in second
    history.add(replace(STARTED, resumed_at=10))
    assert ">now<" in against_alignment(history)


def test_a_number_that_nobody_touched_is_none_of_what_was_changed(monkeypatch):
    monkeypatch.setattr(fields, "PRESETS", {"fast": {"learning_rate": 0.0, "label": None}})
    left = {"learning_rate": "0", "label": ""}  # as entries read them
    assert fields.deviations(left, "fast", left) == []
    assert fields.deviations(left | {"learning_rate": "0.1"}, "fast", left) == ["learning_rate"]
