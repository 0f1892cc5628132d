"""Do many jobs in processes beside each other, say how far they are, and stop when asked."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

from napari_msp.errors import Advice, Change, UserError, either


class Job(Protocol):
    """Something that leaves its result on disk, and can be sent to another process."""

    @property
    def name(self) -> str:
        """What it does, in a few words."""
        ...

    @property
    def weight(self) -> float:
        """About how long it takes, relative to the others."""
        ...

    @property
    def finished(self) -> bool:
        """Whether its result is there already."""
        ...

    def run(self) -> None:
        """Do it, or go on with it where it was stopped."""
        ...


@dataclass(frozen=True)
class Finished:
    """How far a benchmark is after a job.

    Attributes
    ----------
    job
        What was done, in a few words.
    share
        Of all work, from 0 to 1.
    minutes_left
        About how long the rest takes.
    """

    job: str
    share: float
    minutes_left: float

    def __str__(self) -> str:
        return f"[{self.share:4.0%}] {self.job}; about {self.minutes_left:.0f} min left"


OnProgress = Callable[[Finished], None]


@dataclass
class Progress:
    """Counts a benchmark's jobs.

    Attributes
    ----------
    on_progress
        Is called after every job.
    total
        Weight of all jobs of the benchmark, also of those that come later.
    """

    on_progress: OnProgress
    total: float

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._done = self._found = 0.0

    def skip(self, job: Job) -> None:
        """Count a job that was finished before."""
        self._found += job.weight

    def finish(self, job: Job) -> None:
        """Count a job, and say so."""
        self._done += job.weight
        left = self.total - self._found - self._done
        minutes = (time.monotonic() - self._began) * max(left, 0.0) / self._done / 60
        share = (self._done + self._found) / self.total
        self.on_progress(Finished(job.name, min(share, 1.0), minutes))


def do_all(jobs: Sequence[Job], workers: int, progress: Progress) -> None:
    """Do the jobs whose results are not there yet, heaviest first.

    Parameters
    ----------
    jobs
        That do not depend on each other.
    workers
        Processes beside each other; with 1 everything is done in this one.

    Raises
    ------
    UserError
        When a process was ended from outside, as systems do where memory is short.
    Exception
        What the first job to fail raised; jobs under way are ended, those that wait are dropped.
    """
    waiting = []
    for job in sorted(jobs, key=lambda each: -each.weight):
        if job.finished:
            progress.skip(job)
        else:
            waiting.append(job)
    if workers == 1:
        for job in waiting:
            job.run()
            progress.finish(job)
        return
    # A forked child would inherit torch's threads in whatever state they are in.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread)
    try:
        running: dict[Future[None], Job] = {pool.submit(job.run): job for job in waiting}
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                future.result()
                progress.finish(job)
    except BrokenProcessPool as error:
        raise UserError(
            f"a process was ended from outside while {workers} worked, perhaps for want of memory",
            remedy=either(Advice("start it again: what is done stays"), Change("workers", "fewer")),
        ) from error
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


def _one_thread() -> None:
    """Leave the other cores to the other processes, and Ctrl-C to the one that ends them all."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
