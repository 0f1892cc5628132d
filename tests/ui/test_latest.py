"""Of many pieces of work only the newest one is heard of."""

import threading

import pytest

from napari_msp.errors import UserError
from napari_msp.ui.latest import Latest


@pytest.fixture
def heard(qtbot):
    def listen(latest):
        told = []
        latest.done.connect(lambda result: told.append(("done", result)))
        latest.failed.connect(lambda failure: told.append(("failed", failure.message)))
        latest.progressed.connect(lambda step: told.append(("progressed", step)))
        return told

    return listen


def test_work_that_was_replaced_is_not_heard_of(qtbot, heard):
    latest, begun, go = Latest(), threading.Event(), threading.Event()
    told = heard(latest)

    def slow(control):
        begun.set()
        go.wait(5)
        control.report("late")
        return "slow"

    latest.ask(slow)
    assert begun.wait(5)
    latest.ask(lambda control: "never begun")
    latest.ask(lambda control: "newest")
    go.set()
    with qtbot.wait_signal(latest.rested):
        pass
    assert told == [("done", "newest")]
    assert not latest.running


def test_work_may_be_let_finish(qtbot, heard):
    latest, go = Latest(finish=True), threading.Event()
    told = heard(latest)
    latest.ask(lambda control: go.wait(5) and "first")
    latest.ask(lambda control: "passed over")
    latest.ask(lambda control: "last")
    go.set()
    with qtbot.wait_signal(latest.rested):
        pass
    assert told == [("done", "first"), ("done", "last")]


def test_a_failure_is_told_once_and_work_goes_on(qtbot, heard):
    latest = Latest()
    told = heard(latest)

    def fail(control):
        raise UserError("a.nii: is broken; mend it")

    with qtbot.wait_signal(latest.rested, timeout=20_000):
        latest.ask(fail)
    with qtbot.wait_signal(latest.rested):
        latest.ask(lambda control: "well")
    assert told == [("failed", "a.nii: is broken; mend it"), ("done", "well")]


def test_stopped_work_is_silent(qtbot, heard):
    latest, begun, go = Latest(), threading.Event(), threading.Event()
    told = heard(latest)

    def slow(control):
        begun.set()
        go.wait(5)
        return "slow"

    latest.ask(slow)
    assert begun.wait(5)
    latest.ask(lambda control: "next")
    latest.stop()
    go.set()
    with qtbot.wait_signal(latest.rested):
        pass
    assert told == []
