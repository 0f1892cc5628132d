"""Work in threads: a job ends exactly once, only the newest is heard of, and waiting can end."""

import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from weakref import ref

import pytest
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QPushButton, QWidget

from napari_msp.data.acquisition import DoubtfulScan
from napari_msp.errors import Cancelled, OutOfMemory, Unexpected, UserError
from napari_msp.ui.background import (
    BackgroundJob,
    JobRow,
    Latest,
    _run,
    _Signals,
    _Waiting,
    wait_for,
)
from napari_msp.ui.reading import Report, abandonable
from napari_msp.ui.widgets.form import stacked
from napari_msp.ui.widgets.message import MessageLine


@pytest.fixture
def run(qtbot):
    """Run work to its end; give the names of the endings in order, and what came with them."""

    def run_to_end(work, act=lambda job: None):
        job = BackgroundJob()
        told = []
        job.done.connect(lambda result: told.append(("done", result)))
        job.failed.connect(lambda failure: told.append(("failed", failure)))
        job.cancelled.connect(lambda: told.append(("cancelled", None)))
        with qtbot.waitSignal(job.ended):
            job.run(work)
            assert job.running
            act(job)
        assert not job.running
        qtbot.wait(20)
        assert len(told) == 1
        return told[0]

    return run_to_end


def test_a_result_arrives_in_the_main_thread(run):
    main = threading.current_thread()

    def work(control):
        assert threading.current_thread() is not main
        return 42

    assert run(work) == ("done", 42)


def test_reports_arrive_in_order(run):
    seen = []

    def work(control):
        for number in range(5):
            control.report(number)

    run(work, lambda job: job.progressed.connect(seen.append))
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("x.nii: is no image; give another"), UserError),
        (MemoryError(), OutOfMemory),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfMemory),
        (RuntimeError("something else"), Unexpected),
        (KeyError("prisma"), Unexpected),
    ],
)
def test_no_error_vanishes(run, error, kind):
    def work(control):
        raise error

    ending, failure = run(work)
    assert ending == "failed"
    assert type(failure) is kind
    noted = "\n".join(getattr(failure, "__notes__", ()))
    assert ("Traceback" in noted) == (kind is Unexpected)  # a bug's details, and only a bug's
    assert str(failure)


def test_cancel_ends_work_that_polls(run):
    def work(control):
        while True:
            control.check()

    assert run(work, lambda job: job.cancel()) == ("cancelled", None)


def test_a_result_that_comes_after_cancel_is_dropped(run):
    go = threading.Event()

    def work(control):
        go.wait()
        return "too late"

    def act(job):
        job.cancel()
        go.set()

    assert run(work, act) == ("cancelled", None)


def test_warnings_are_told(run):
    told = []

    def work(control):
        warnings.warn("unclosed file", ResourceWarning, stacklevel=1)
        warnings.warn("of another plugin", UserWarning, stacklevel=1)
        warnings.warn("unlike training", DoubtfulScan, stacklevel=1)

    run(work, lambda job: job.warned.connect(told.append))
    assert told == ["unlike training"]


def test_a_destroyed_job_stops_its_work(qtbot):
    stopped = threading.Event()

    def work(control):
        while not control.cancelled():
            control.report("still here")
        stopped.set()

    job = BackgroundJob()
    with qtbot.waitSignal(job.progressed):
        job.run(work)
    job.deleteLater()
    del job
    qtbot.wait_until(stopped.is_set)


def test_work_that_outlives_the_window_ends_in_silence(qtbot):
    line = _Signals()
    line.deleteLater()
    qtbot.wait_until(lambda: _deleted(line))
    _run(lambda control: control.report("still here"), line, lambda: False)


def _deleted(line):
    try:
        line.objectName()
    except RuntimeError:
        return True
    return False


@pytest.fixture
def heard(qtbot):
    def listen(latest):
        told = []
        latest.done.connect(lambda result: told.append(("done", result)))
        latest.failed.connect(lambda failure: told.append(("failed", str(failure))))
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

    with qtbot.wait_signal(latest.rested):
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


ENDS = """
import time
from qtpy.QtWidgets import QApplication
application = QApplication([])
from napari_msp.ui.background import BackgroundJob
job = BackgroundJob()
job.run(lambda control: [time.sleep(0.01) for _ in range(40)])
"""


def test_a_script_that_ends_meanwhile_waits_for_the_thread():
    ended = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")  # else Python aborts: its half has gone


def test_the_result_of_abandonable_work_is_given():
    assert abandonable(lambda: 42, lambda: None) == 42


def test_the_error_of_abandonable_work_is_raised():
    def work():
        raise KeyError("prisma")

    with pytest.raises(KeyError, match="prisma"):
        abandonable(work, lambda: None)


def test_work_is_abandoned_while_it_goes_on():
    go, ended = threading.Event(), threading.Event()

    def work():
        go.wait()
        ended.set()

    def check():
        raise Cancelled

    with pytest.raises(Cancelled):
        abandonable(work, check)
    assert not ended.is_set()
    go.set()
    assert ended.wait(10)


# --- A row that shows a job --------------------------------------------------------------------


class Form:
    """A form that starts work, as `JobRow` knows it."""

    def __init__(self):
        self.button, self.switched = QPushButton("Load"), []

    def set_running(self, running):
        self.switched.append(running)


@pytest.fixture
def row(qtbot):
    form, place, message = Form(), QWidget(), MessageLine()
    made = JobRow(form, message)
    made.form, made.place, made.message, made.heard = form, place, message, []
    made.begin = partial(
        made.run,
        done=lambda result: made.heard.append(("done", result, form.switched)),
        failed=lambda error: made.heard.append(("failed", error, form.switched)),
        cancelled=lambda: "Cancelled; nothing was loaded.",
    )
    made.reported.connect(lambda report: made.heard.append(("reported", report)))
    stacked(place, form.button, made.message, made)
    qtbot.addWidget(place)
    place.show()
    return made


def test_steps_are_shown_and_other_reports_passed_on(row, qtbot):
    go = threading.Event()

    def work(control):
        control.report(Report("tile 1 of 4", 1, 4))
        control.report("a picture")
        warnings.warn(DoubtfulScan("has an odd header"), stacklevel=1)
        assert go.wait(5)
        return 42

    row.message.show_message("error", "of the work before")
    row.begin(work, "Starting")
    assert row.job.running
    assert row.form.switched == [True]
    assert not row.message.text
    assert row.words.text() == "Starting"
    qtbot.wait_until(lambda: row.words.text() == "tile 1 of 4")
    assert row.bar.value() == 1
    with qtbot.wait_signal(row.job.ended):
        go.set()
    assert row.heard == [("reported", "a picture"), ("done", 42, [True, False])]
    assert row.warnings == ["has an odd header"]
    assert row.state == "idle"
    assert not row.job.running


def test_a_result_is_not_kept_longer_than_its_receiver_keeps_it(row, qtbot):
    class Scan:
        """Takes much memory."""

    seen = []
    with qtbot.wait_signal(row.job.ended):
        row.run(lambda control: Scan(), done=lambda scan: seen.append(ref(scan)), failed=print)
    qtbot.wait_until(lambda: bool(seen) and seen[0]() is None, timeout=2000)


def test_the_button_cancels_the_work_and_gives_the_focus_back(row, qtbot):
    def work(control):
        while True:
            control.check()

    row.begin(work)
    assert row.window().focusWidget() is row.cancel
    with qtbot.wait_signal(row.job.ended):
        row.cancel.click()
    assert row.message.text == "Cancelled; nothing was loaded."
    assert row.heard == []
    assert row.form.switched == [True, False]
    assert row.window().focusWidget() is row.form.button


def test_an_error_arrives_as_it_was_raised(row, qtbot):
    error = UserError("is broken", "a.nii")

    def work(control):
        raise error

    with qtbot.wait_signal(row.job.ended):
        row.begin(work)
    assert row.heard == [("failed", error, [True, False])]
    assert row.state == "idle"
    assert row.state == "idle"


def test_the_dialog_of_several_files_goes_soon_after_the_last(qtbot):
    window = QWidget()
    qtbot.addWidget(window)
    window.show()
    wait_for(lambda control: None, "Opening")
    wait_for(lambda control: time.sleep(0.4), "Opening")
    (dialog,) = window.findChildren(_Waiting)
    assert dialog.isVisible()
    qtbot.wait_until(lambda: not dialog.isVisible(), timeout=1500)
    assert window.findChildren(_Waiting) == [dialog]  # it knows of them still


def test_files_dropped_together_have_one_dialog_and_are_cancelled_together(qtbot):
    window = QWidget()
    qtbot.addWidget(window)
    window.show()
    shown, go = [], threading.Event()

    def slow(control):
        control.say("reading")
        while not control.cancelled() and not go.wait(0.01):
            pass
        control.check()

    def look(act):
        (dialog,) = window.findChildren(_Waiting)
        shown.append((dialog, dialog.windowTitle()))
        act(dialog)

    QTimer.singleShot(600, lambda: look(lambda dialog: go.set()))
    wait_for(slow, "Opening")
    go.clear()
    QTimer.singleShot(100, lambda: look(lambda dialog: dialog.row.request_cancel()))
    for _ in range(3):
        with pytest.raises(Cancelled):
            wait_for(slow, "Opening")
    (first, _), (second, title) = shown
    assert first is second
    assert title == "MSP Harmonization: file 2"
    qtbot.wait_until(lambda: not window.findChildren(_Waiting))
