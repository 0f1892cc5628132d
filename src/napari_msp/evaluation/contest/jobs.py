"""Do many jobs in processes beside each other, tell how far they are, and stop when asked."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

from napari_msp.errors import UserError

Tell = Callable[[str], None]


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


@dataclass
class Progress:
    """What is told of a contest's jobs.

    Attributes
    ----------
    tell
        Is given one line a finished job.
    total
        Weight of all jobs of the contest, also of those that come later.
    """

    tell: Tell
    total: float

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._done = self._found = 0.0

    def skip(self, job: Job) -> None:
        """Count a job that was finished before."""
        self._found += job.weight

    def finish(self, job: Job) -> None:
        """Count a job, and tell of it."""
        self._done += job.weight
        left = self.total - self._found - self._done
        minutes = (time.monotonic() - self._began) * max(left, 0.0) / self._done / 60
        share = (self._done + self._found) / self.total
        self.tell(f"[{min(share, 1.0):4.0%}] {job.name}; about {minutes:.0f} min left")


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
            f"a process was ended from outside while {workers} worked, perhaps for want of memory; "
            "go on with the same command, if need be with fewer --workers"
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
