"""A row that runs a job: it shows how far the work is, and every ending reaches whoever waits."""

import threading

import pytest

from napari_msp.errors import UserError
from napari_msp.ui.background import Step
from napari_msp.ui.waiting import JobRow


@pytest.fixture
def row(qtbot):
    made = JobRow()
    made.heard = []
    for name in ("reported", "done", "failed"):
        getattr(made, name).connect(lambda value, name=name: made.heard.append((name, value)))
    made.cancelled.connect(lambda: made.heard.append(("cancelled", None)))
    qtbot.addWidget(made)
    made.show()
    return made


def test_steps_are_shown_and_other_reports_passed_on(row, qtbot):
    go = threading.Event()

    def work(control):
        control.report(Step("tile 1 of 4", 1, 4))
        control.report("a picture")
        assert go.wait(5)
        return 42

    row.run(work, "Starting")
    assert row.running
    assert row.words.text() == "Starting"
    qtbot.wait_until(lambda: row.words.text() == "tile 1 of 4")
    assert row.bar.value() == 1
    with qtbot.wait_signal(row.ended):
        go.set()
    assert row.heard == [("reported", "a picture"), ("done", 42)]
    assert not row.running


def test_the_button_cancels_the_work(row, qtbot):
    def work(control):
        while True:
            control.check()

    row.run(work)
    with qtbot.wait_signal(row.ended):
        row.cancel.click()
    assert row.heard == [("cancelled", None)]


def test_an_error_arrives_as_it_was_raised(row, qtbot):
    error = UserError("is broken", "a.nii")

    def work(control):
        raise error

    with qtbot.wait_signal(row.ended):
        row.run(work)
    assert row.heard == [("failed", error)]
    row.end()
    assert row.state == "idle"
