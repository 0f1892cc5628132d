"""Run many jobs in parallel processes, report progress, and stop when asked.

Each process has a pipe of its own: a pool's pipes are shared, and a process that is killed while it
holds their lock would leave all others waiting for ever.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Protocol

from napari_msp.arrays import shared_by_threads
from napari_msp.errors import Advice, Change, UserError, either
from napari_msp.foreign_errors import explain

TRIES = 2
"""Number of times that a job is started if its process is killed from outside."""

NEARLY = 0.99
"""Largest share shown before all is done, as the remaining work is only estimated."""

PATIENCE = 5.0
"""Seconds that a process has for ending when it is asked to."""

A_SECOND = 12.0
"""Weight of work that takes about a second (measured); used until something is done."""


class Job(Protocol):
    """A unit of work that leaves its result on disk and can be sent to another process."""

    @property
    def name(self) -> str:
        """Description in a few words."""

    @property
    def weight(self) -> float:
        """Approximate duration, relative to other jobs."""

    @property
    def finished(self) -> bool:
        """Whether its result already exists."""

    def run(self, tell: "OnPart" = lambda words, share: None) -> None:
        """Do the job, or continue it where it was stopped; `tell` is called for finished parts."""


@dataclass(frozen=True)
class JobProgress:
    """Progress of many jobs; `job` is done, or begins now; `share` is of all work, 0 to 1."""

    job: str
    share: float
    minutes_left: float

    def __str__(self) -> str:
        left = f"about {self.minutes_left:.0f} min left"
        if self.minutes_left < 1:
            left = "less than a minute left" if self.share < 1 else "done"
        return f"[{self.share:4.0%}] {self.job}; {left}"


OnProgress = Callable[[JobProgress], None]

OnPart = Callable[[str, float], None]
"""Function that takes a finished part in a few words, and the share of the job that is done."""


@dataclass
class Progress:
    """Counter of jobs; `total` is the weight of all, including later ones."""

    report: OnProgress
    total: float

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._done = self._found = self._begun = 0.0
        self._words = ""

    def skip(self, job: Job) -> None:
        """Count a job that was finished before."""
        self._found += job.weight

    def finish(self, job: Job) -> None:
        """Count a job, and report it."""
        self._done += job.weight
        self._say(job.name, self._done)

    def begin(self, words: str, weight: float) -> None:
        """Report what is done from now on; what was begun before counts as done."""
        self._done += self._begun
        self._words, self._begun = words, weight
        self.go_on()

    def go_on(self) -> None:
        """Report the current work again, so that a listener can stop it here."""
        self._say(self._words, self._done)

    def end(self, words: str) -> None:
        """Report that all is done now."""
        self.report(JobProgress(words, 1.0, 0.0))

    def part_of(self, job: Job) -> OnPart:
        """Return a function that reports finished parts of a job."""
        return lambda words, share: self._say(words, self._done + share * job.weight)

    def _say(self, words: str, done: float) -> None:
        left = max(self.total - self._found - done, 0.0)
        pace = (time.monotonic() - self._began) / done if done else 1 / A_SECOND
        share = (done + self._found) / self.total
        self.report(JobProgress(words, min(share, NEARLY), pace * left / 60))


def do_all(jobs: Sequence[Job], workers: int, progress: Progress) -> None:
    """Run the jobs whose results do not exist yet, heaviest first.

    A job whose process was killed from outside, as systems do when memory is short, is started once
    more.

    Parameters
    ----------
    jobs
        Independent jobs.
    workers
        Number of parallel processes; with 1 all jobs run in this process, which then reports parts
        of jobs too.

    Raises
    ------
    UserError
        When a job's process was killed from outside again.
    Exception
        Raised by the first job that fails; running jobs are ended, waiting ones dropped.
    """
    waiting: deque[Job] = deque()
    for job in sorted(jobs, key=lambda each: -each.weight):
        if job.finished:
            progress.skip(job)
        else:
            waiting.append(job)
    if workers == 1:
        for job in waiting:
            job.run(progress.part_of(job))
            progress.finish(job)
        return
    lost: list[Job] = []
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                worker = idle.pop() if idle else _Worker()
                busy.append(worker)
                worker.begin(waiting.popleft())
            ready = {*wait([end for worker in busy for end in worker.ends])}
            for worker in [each for each in busy if ready.intersection(each.ends)]:
                job, done = worker.job, worker.finish()
                busy.remove(worker)
                if done:
                    progress.finish(job)
                    idle.append(worker)
                    continue
                worker.end()
                lost.append(job)
                if lost.count(job) >= TRIES:
                    raise _lost(job, worker.exit_status, workers)
                warnings.warn(
                    f"{job.name}: its process was ended from outside ({worker.exit_status}); "
                    "the job is begun once more",
                    stacklevel=2,
                )
                waiting.appendleft(job)
    finally:
        for worker in busy:
            worker.end()
        for worker in idle:
            worker.end(PATIENCE)


def _lost(job: Job, exit_status: str, workers: int) -> UserError:
    return UserError(
        f"its process was ended from outside {TRIES} times ({exit_status}) while {workers} worked, "
        "perhaps for want of memory",
        job.name,
        remedy=either(Advice("start it again: what is done stays"), Change("workers", "fewer")),
    )


@shared_by_threads
@contextmanager
def without_script() -> Iterator[None]:
    """Start processes that do not import the script which called: it would run again in each.

    What they do is of this package, so they need nothing of it.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class _Worker:
    """A process that runs one job after another, and this end of its pipe."""

    def __init__(self) -> None:
        # A forked child would inherit torch's threads in an undefined state.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other,))
        with without_script():
            self._process.start()
        other.close()  # so that the pipe ends with the process
        self.job: Job

    @property
    def ends(self) -> tuple[Connection, int]:
        """Connection that becomes ready when the job is done, and sentinel of the process."""
        return self._pipe, self._process.sentinel

    @property
    def exit_status(self) -> str:
        """How the process ended, in words."""
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"

    def begin(self, job: Job) -> None:
        """Send a job to the process."""
        self.job = job
        try:
            self._pipe.send(job)
        except OSError:  # it has ended; `finish` will notice
            self._process.join(PATIENCE)

    def finish(self) -> bool:
        """Return whether the job was done; False if the process ended before it could report."""
        try:
            failure, where = self._pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):  # no answer, or half of one
            return False
        if failure is not None:
            failure.add_note(where)
            raise failure
        return True

    def end(self, patience: float = 0) -> None:
        """End the process, after this many seconds whatever it does; an idle one ends by itself."""
        self._pipe.close()
        self._process.join(patience)
        self._process.terminate()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(pipe: Connection) -> None:
    """Run the jobs that come through a pipe, one by one, and send back the error of each."""
    import torch
    from threadpoolctl import threadpool_limits

    # The other cores belong to other processes, and Ctrl-C to the parent, which ends them all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with threadpool_limits(1, user_api="blas"):  # `for_each_block` takes as many threads, too
        while True:
            try:
                job: Job = pipe.recv()
            except (EOFError, OSError):  # the sender has ended
                return
            failure, where = None, ""
            try:
                job.run()
            except Exception as error:
                failure, where = explain(error), "".join(traceback.format_exception(error))
            pipe.send((failure, where))


def _end_with_parent() -> None:
    """End when the parent ends, as nothing would keep others out of the folder any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
