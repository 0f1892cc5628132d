"""Do many jobs in processes beside each other, say how far they are, and stop when asked.

Each process has a pipe of its own. A pool's are shared, and a process that is killed while it holds
their lock leaves all others waiting for ever.
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

from napari_msp.errors import Advice, Change, UserError, either
from napari_msp.foreign_errors import explain

TRIES = 2
"""How often a job is begun whose process is ended from outside."""

NEARLY = 0.99
"""Share that is never passed before all is done: what is to come is known only about."""

PATIENCE = 5.0
"""Seconds that a process has to end in when it is asked to."""

A_SECOND = 12.0
"""Weight of what takes about a second (measured); counts until something is done."""


class Job(Protocol):
    """Something that leaves its result on disk, and can be sent to another process."""

    @property
    def name(self) -> str:
        """What it does, in a few words."""

    @property
    def weight(self) -> float:
        """About how long it takes, relative to the others."""

    @property
    def finished(self) -> bool:
        """Whether its result is there already."""

    def run(self, tell: "OnPart" = lambda words, share: None) -> None:
        """Do it, or go on with it where it was stopped; tell of parts that are done."""


@dataclass(frozen=True)
class Finished:
    """How far a benchmark is; `job` is done, or begins now; `share` is of all work, 0 to 1."""

    job: str
    share: float
    minutes_left: float

    def __str__(self) -> str:
        left = f"about {self.minutes_left:.0f} min left"
        if self.minutes_left < 1:
            left = "less than a minute left" if self.share < 1 else "done"
        return f"[{self.share:4.0%}] {self.job}; {left}"


OnProgress = Callable[[Finished], None]

OnPart = Callable[[str, float], None]
"""Takes what was done, in a few words, and the share of the job that is done."""


@dataclass
class Progress:
    """Counts a benchmark's jobs; `total` is the weight of all, also of what comes later."""

    on_progress: OnProgress
    total: float

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._done = self._found = self._begun = 0.0
        self._words = ""

    def skip(self, job: Job) -> None:
        """Count a job that was finished before."""
        self._found += job.weight

    def finish(self, job: Job) -> None:
        """Count a job, and say so."""
        self._done += job.weight
        self._say(job.name, self._done)

    def begin(self, words: str, weight: float) -> None:
        """Say what is done from now on; what was begun before is done, and counts."""
        self._done += self._begun
        self._words, self._begun = words, weight
        self.go_on()

    def go_on(self) -> None:
        """Say once more what is done now, so that who listens can end it here."""
        self._say(self._words, self._done)

    def end(self, words: str) -> None:
        """Say that with this all is done."""
        self.on_progress(Finished(words, 1.0, 0.0))

    def part_of(self, job: Job) -> OnPart:
        """Give what says so of a part of a job."""
        return lambda words, share: self._say(words, self._done + share * job.weight)

    def _say(self, words: str, done: float) -> None:
        left = max(self.total - self._found - done, 0.0)
        pace = (time.monotonic() - self._began) / done if done else 1 / A_SECOND
        share = (done + self._found) / self.total
        self.on_progress(Finished(words, min(share, NEARLY), pace * left / 60))


def do_all(jobs: Sequence[Job], workers: int, progress: Progress) -> None:
    """Do the jobs whose results are not there yet, heaviest first.

    A job whose process was ended from outside, as systems do where memory is short, is begun once
    more.

    Parameters
    ----------
    jobs
        That do not depend on each other.
    workers
        Processes beside each other; with 1 everything is done in this one, which tells of parts of
        a job too.

    Raises
    ------
    UserError
        When a job's process was ended from outside again.
    Exception
        What the first job to fail raised; jobs under way are ended, those that wait are dropped.
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
    """A process that does one job after the other, and this end of its pipe."""

    def __init__(self) -> None:
        # A forked child would inherit torch's threads in whatever state they are in.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other,))
        with without_script():
            self._process.start()
        other.close()  # so that the pipe ends with the process
        self.job: Job

    @property
    def ends(self) -> tuple[Connection, int]:
        """What becomes ready when the job is done or the process has ended."""
        return self._pipe, self._process.sentinel

    @property
    def exit_status(self) -> str:
        """How the process ended."""
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"

    def begin(self, job: Job) -> None:
        """Let the process do a job."""
        self.job = job
        try:
            self._pipe.send(job)
        except OSError:  # it has ended, which is seen in a moment
            self._process.join(PATIENCE)

    def finish(self) -> bool:
        """Return whether the job was done; False when the process ended before it could say so."""
        try:
            failure, where = self._pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):  # nothing, or half of an answer
            return False
        if failure is not None:
            failure.add_note(where)
            raise failure
        return True

    def end(self, patience: float = 0) -> None:
        """End the process, whatever it does after so many seconds; an idle one ends by itself."""
        self._pipe.close()
        self._process.join(patience)
        self._process.terminate()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(pipe: Connection) -> None:
    """Do what comes through a pipe, one job after the other, and send back what each raised."""
    import torch
    from threadpoolctl import threadpool_limits

    # The other cores are other processes', and Ctrl-C is for the one that ends them all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with threadpool_limits(1, user_api="blas"):  # as many threads has `for_each_block`, too
        while True:
            try:
                job: Job = pipe.recv()
            except (EOFError, OSError):  # whoever sent them is done
                return
            failure, where = None, ""
            try:
                job.run()
            except Exception as error:
                failure, where = explain(error), "".join(traceback.format_exception(error))
            pipe.send((failure, where))


def _end_with_parent() -> None:
    """Leave the folder to whoever comes next: nobody keeps others out of it any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
