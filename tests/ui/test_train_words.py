"""What is said of a run: every state, without options of the command line."""

import pytest

from napari_msp.errors import Advice, UserError
from napari_msp.inference.failures import explain
from napari_msp.learning.events import Aligned, Failed, Finished, Started, Step, Stopped, Validated
from napari_msp.ui.train.history import RunHistory
from napari_msp.ui.train.run_view import against_alignment, failed, how_it_stands

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
        ("finished", Finished("m", 59.7), False, "Finished after 1 min 0 s of training."),
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


def test_a_run_that_nobody_has_begun():
    assert how_it_stands("new", told(), None, False) == "Not begun."


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (explain(MemoryError()).message, "smaller batch or crop (Advanced)"),
        ("it died; train with a smaller --batch or --crop", "a smaller “Batch” or “Crop (voxels)”"),
        ("the loss is not finite; use a smaller --learning-rate", "smaller “Learning rate”"),
        ("--device cuda: this machine has none; use --device auto", "use “Device” auto"),
    ],
)
def test_failures_name_entries_of_the_form(message, words):
    said = failed(message, resumable=True)
    assert words in said
    assert "--" not in said
    assert said.endswith("Resume goes on from the last checkpoint.")


def test_errors_stand_beside_those_to_beat():
    history = told(STARTED, Aligned({"a": 5.2e-4, "b": 4e-4}))
    assert against_alignment(history) == ""
    for errors in ({"a": 9e-4}, {"a": 3.9e-4}, {"b": 5e-4}):
        history.add(Validated("msp a", 1, 10, 1.0, errors))
    table = against_alignment(history).replace("&nbsp;", " ")
    first, second = table.split("<tr>")[2:]
    for cell in ("a", "3.9e-4", "5.2e-4", "25 % better"):
        assert f">{cell}<" in first
    for cell in ("b", "5.0e-4", "4.0e-4", "25 % worse"):
        assert f">{cell}<" in second
