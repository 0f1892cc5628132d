"""A run that is given a time: how many steps fit, decided once."""

import time

import pytest
from weights import same_weights

from napari_msp.errors import UserError
from napari_msp.learning.lengths import (
    LEAST,
    Lengths,
    Pace,
    TookLonger,
    seconds_of,
    tell_if_longer,
)
from napari_msp.learning.phases import Phase
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import TrainingSettings, put_over
from napari_msp.model_file import load_model


def fitted(unison, paces, seconds, passed):
    """Fit phases, of 3,000 steps or in unison of 2,000, into a time: epoch, steps, unison steps."""
    settings = TrainingSettings(minutes=seconds / 60, singles_first="yes")
    phases = [Phase(str(number), (), each, True) for number, each in enumerate(unison)]
    return Lengths(settings, recipe_for(settings), 7, phases).fitted(paces, seconds, passed)


def test_what_fits_by_hand():
    """Of 100 s, 10 have passed; 0.9 of the rest are for three phases and 30 validations each."""
    paces = [Pace(0.01, 0.1), Pace(0.02, 0.1), Pace(0.06, 0.2)]
    epoch, steps, unison = fitted((False, False, True), paces, 100, 10)
    assert steps == int((81 - 30 * 0.4) / (0.01 + 0.02 + 0.06 * 2 / 3))
    assert unison == round(steps * 2 / 3)
    assert epoch == -(-steps // 30)
    whole = steps * (0.01 + 0.02) + unison * 0.06 + 30 * 0.4
    assert 0.98 * 81 < whole <= 81


def test_phases_that_begin_as_a_model_are_predicted_once_more():
    """Before their first step, out of the same 90 s."""
    epoch, steps, _ = fitted([False], [Pace(0.1, 5.0, before=True)], 100, 0)
    epochs = int((90 / 4 - 5) / 5)
    assert steps == int((90 - 5 - epochs * 5) / 0.1)
    assert epoch == -(-steps // epochs)


def test_an_epoch_goes_by_phases_that_there_are():
    epoch, _, unison = fitted([True], [Pace(0.1, 0.0)], 100, 0)
    assert epoch == -(-unison // 30)


def test_slow_validations_are_fewer():
    epoch, steps, _ = fitted([False], [Pace(0.1, 5.0)], 100, 0)
    assert steps == int((90 - 4 * 5) / 0.1)
    assert epoch == -(-steps // 4)


def test_too_little_time_is_refused_with_what_would_do():
    with pytest.raises(UserError, match=f"not even {LEAST} steps") as caught:
        fitted([False], [Pace(6.0, 0.0)], 30, 3)
    assert caught.value.field == "minutes"
    assert "at least 1.2" in str(caught.value.remedy)  # 60 s, by 0.9, and those 3: 1.16 minutes
    assert fitted([False], [Pace(6.0, 0.0)], 1.2 * 60, 3)[1] >= LEAST


def test_a_slow_job_is_timed_once():
    numbers = []
    assert seconds_of(numbers.append, longest=-1) >= 0
    assert numbers == [0, 1]
    numbers.clear()
    seconds_of(numbers.append, longest=1e9)
    assert numbers == [*range(11)]


def test_a_moment_in_which_the_machine_is_busy_costs_no_steps():
    """Of a few steps the first was slow, and a run of five minutes had 22 steps for two of them."""
    ends = iter([0.0, 9.0, 10.0, 11.0, 12.0, 40.0])
    assert seconds_of(lambda _: None, 30, lambda: next(ends)) == 1.0


def test_a_run_that_took_longer_says_so():
    tell_if_longer(60, 65)
    with pytest.warns(TookLonger, match=r"took 1\.5 minutes instead of the 1\.0 given$"):
        tell_if_longer(60, 90)


@pytest.mark.parametrize("length", ["steps", "unison_steps", "epochs", "unison_epochs"])
def test_a_time_and_a_length_contradict_each_other(length):
    with pytest.raises(ValueError, match=f"given in {length.removeprefix('unison_')} already"):
        TrainingSettings.model_validate({length: 3, "minutes": 2.0})


def test_a_time_divides_itself_into_epochs():
    with pytest.raises(ValueError, match=r"steps_per_epoch\n.*given in minutes already"):
        TrainingSettings.model_validate({"steps_per_epoch": 3, "minutes": 2.0})
    assert put_over({"steps_per_epoch": 40}, {"minutes": 2}) == {"minutes": 2}


def test_a_time_takes_the_place_of_a_lectures_epochs():
    given = {"epochs": 3, "unison_epochs": 6, "seed": 1}
    assert put_over(given, {"minutes": 2}) == {"seed": 1, "minutes": 2}
    assert put_over({"minutes": 2}, {"steps": 9}) == {"steps": 9}
    assert put_over(given, {"minutes": None}) == given | {"minutes": None}
    lecture = TrainingSettings(preset="lecture", minutes=2)
    assert (lecture.minutes, lecture.epochs, lecture.steps_per_epoch) == (2, None, None)
    assert (lecture.preset, lecture.width) == ("lecture", 0.2)


def test_a_lecture_of_one_network_has_what_this_has():
    """Unison phases are an MSP's alone; what is read again is what was written."""
    lecture = TrainingSettings(preset="lecture", kind="shresnet")
    assert (lecture.epochs, lecture.unison_epochs, lecture.first_stages) == (3, None, "preset")
    written = lecture.model_copy(update={"batch": None}).model_dump_json()
    assert TrainingSettings.model_validate_json(written, strict=True).batch is None


def test_timing_changes_nothing_and_is_done_once(heads, quick, run, monkeypatch):
    """As many steps that are asked for give the same weights, and resuming goes on with them."""
    given = {"targets": ("prisma_st",), "held_out": (), "crop": 5, "epochs": None}
    given["singles_first"] = "yes"
    in_time = quick("msp", **given, steps_per_epoch=None, minutes=1)
    monkeypatch.setattr("napari_msp.learning.loop.seconds_of", lambda job, *_: [job(0), 1.5][1])
    whole, events = run(heads, in_time, "whole")
    monkeypatch.setattr("napari_msp.learning.loop.seconds_of", lambda job, *_: 1 / 0)
    ends = [event for event in events if event.name == "step"]
    single = sum(event.alpha is None for event in ends)
    unison = len(ends) - single
    assert LEAST <= single < 40
    assert unison == round(single * 2 / 3)
    lengths = {"steps": single, "unison_steps": unison, "steps_per_epoch": None}
    asked, _ = run(heads, quick("msp", **given | lengths), "asked")
    assert same_weights(whole, asked)


def test_what_is_measured_first_counts(heads, quick, run, monkeypatch):
    """The line to beat comes before steps are counted; nothing is timed once all time is gone."""
    order: list[object] = []

    fitted = Lengths.fitted

    def fitting(lengths, paces, seconds, passed):
        order.append([pace.step for pace in paces])
        return fitted(lengths, paces, seconds, passed)

    def aligning(*_):
        order.append("aligned")
        return 1.0

    def timing(*_):
        order.append("timed")
        time.sleep(0.002)
        return 7.0

    loop = "napari_msp.learning.loop"
    monkeypatch.setattr(Lengths, "fitted", fitting)
    monkeypatch.setattr(f"{loop}.alignment_error", aligning)
    monkeypatch.setattr(f"{loop}.seconds_of", timing)
    length = {"epochs": None, "steps_per_epoch": None, "minutes": 1e-5, "crop": 5}
    with pytest.raises(UserError, match="not even 10 steps"):
        run(heads, quick(**length))
    assert order == ["aligned", "aligned", "timed", [7.0, 7.0]]


def test_resumed_it_is_as_long_as_at_first(heads, quick, run, monkeypatch):
    settings = quick(
        targets=("prisma_st",), held_out=(), crop=5, epochs=None, steps_per_epoch=None, minutes=1
    )
    monkeypatch.setattr("napari_msp.learning.loop.seconds_of", lambda job, *_: 5.0)
    _, before = run(heads, settings, stop_after=5)
    monkeypatch.setattr("napari_msp.learning.loop.seconds_of", lambda job, *_: 1 / 0)
    out, after = run(heads, settings, resume=True)
    assert before[0].steps == after[0].steps
    fit = f"{before[0].steps} steps fit 1 min at the speed measured at the start"
    assert before[0].advice[0] == after[0].advice[0] == fit
    assert after[0].resumed_at == 5
    assert load_model(out).training["steps"] == before[0].steps
    assert [e.step for e in before + after if e.name == "step"] == [*range(1, before[0].steps + 1)]
