"""A job ends exactly once, however it ends, and leaves nothing turning."""

import threading
import warnings

import pytest

from napari_msp.errors import UserError
from napari_msp.ui.jobs import Job


@pytest.fixture
def run(qtbot):
    """Run work to its end; give the names of the endings in order, and what came with them."""

    def run_to_end(work, act=lambda job: None):
        job = Job(work)
        told = []
        job.done.connect(lambda result: told.append(("done", result)))
        job.failed.connect(lambda failure: told.append(("failed", failure)))
        job.cancelled.connect(lambda: told.append(("cancelled", None)))
        with qtbot.waitSignal(job.ended, timeout=20_000):
            job.start()
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
        (UserError("x.nii: is no image; give another"), "user"),
        (MemoryError(), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (RuntimeError("something else"), "unexpected"),
        (KeyError("prisma"), "unexpected"),
    ],
)
def test_no_error_vanishes(run, error, kind):
    def work(control):
        raise error

    ending, failure = run(work)
    assert ending == "failed"
    assert failure.kind == kind
    assert failure.message


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
        warnings.warn("unlike training", UserWarning, stacklevel=1)

    run(work, lambda job: job.warned.connect(told.append))
    assert told == ["unlike training"]


def test_a_destroyed_job_stops_its_work(qtbot):
    stopped = threading.Event()

    def work(control):
        while not control.cancelled():
            control.report("still here")
        stopped.set()

    job = Job(work)
    with qtbot.waitSignal(job.progressed):
        job.start()
    job.deleteLater()
    del job
    qtbot.wait_until(stopped.is_set)
