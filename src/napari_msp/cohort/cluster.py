"""Jobs on Dask: on processes of this machine, or on workers of a scheduler that runs already."""

import asyncio
import importlib.metadata
import os
import pickle
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from napari_msp.cohort.jobs import CohortResult, Poll, Task, run_task
from napari_msp.errors import (
    Advice,
    Cancelled,
    Give,
    Install,
    UserError,
    either,
    explain,
    shortened,
)
from napari_msp.formatting import counted

SCHEDULER_PATIENCE = 10.0
"""Seconds within which a scheduler must answer."""

LOOK_EVERY = 1.0
"""Seconds between looks at who works, and at whether the work is cancelled."""

TELL_EVERY = 60.0
"""Seconds between remarks that nobody works."""

MOST_RETURNS = 3
"""Times that a job goes back because its worker lacks this package, before it has failed."""

Tell = Callable[[str], None]

PACKAGE = "napari-msp"


@contextmanager
def open_cluster(
    workers: int, scheduler: str | None, needed: Sequence[Path], tell: Tell
) -> Iterator["Cluster"]:
    """Connect to a scheduler, or start workers of our own, for as long as the block runs.

    Parameters
    ----------
    workers
        Processes to start where no scheduler is named.
    scheduler
        Address of one.
    needed
        What every worker must be able to read.
    tell
        Gets what a person should know of the cluster, in words.

    Raises
    ------
    UserError
        When Dask is missing, the scheduler does not answer, or a worker cannot do the work: it
        lacks this package, has another version of it, or does not see the files.
    """
    try:
        dask: Any = import_module("distributed")
    except ImportError as error:
        problem = "several processes need Dask, which is not installed"
        raise UserError(problem, field="workers", remedy=Install("cohort")) from error
    local = None
    if scheduler is None:
        threads = max(1, (os.cpu_count() or 1) // workers)
        local = dask.LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=True,
            dashboard_address=None,
            env={"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
    try:
        client = _connected(dask, scheduler if local is None else local)
        try:
            cluster = Cluster(client, scheduler or "this machine", needed, tell)
            if scheduler is not None:
                cluster.introduce()
            yield cluster
        finally:
            client.close()
    finally:
        if local is not None:
            local.close()


def _connected(dask: Any, address: Any) -> Any:
    """Give a client of a cluster, or of what answers at an address as a scheduler does."""
    if not isinstance(address, str):
        return dask.Client(address, set_as_default=False)
    remedy = either(
        Advice("start one with `dask scheduler`, and check address and firewall"),
        Give("workers", "a number"),
    )
    try:
        # The client itself may wait for ever for something else that listens there.
        with ThreadPoolExecutor(1) as pool:  # a notebook has an event loop in this thread
            kind = pool.submit(asyncio.run, _ask_who(dask, address)).result().get("type")
        if kind != "Scheduler":
            raise UserError(f"is a Dask {kind}, no scheduler", address, "scheduler", remedy)
        return dask.Client(address, timeout=SCHEDULER_PATIENCE, set_as_default=False)
    except UserError:
        raise
    except Exception as error:  # what else listens there may answer anything
        reason = "" if isinstance(error, OSError) else f" ({shortened(str(error))})"
        problem = f"no Dask scheduler answers within {SCHEDULER_PATIENCE:g} s{reason}"
        raise UserError(problem, address, "scheduler", remedy) from error


async def _ask_who(dask: Any, address: str) -> Any:
    """Ask who listens at an address, and wait so long and no longer."""
    secrets = dask.Security().get_connection_args("client")

    async def ask() -> Any:
        async with dask.rpc(address, connection_args=secrets) as answering:
            return await answering.identity()

    return await asyncio.wait_for(ask(), SCHEDULER_PATIENCE)


class Cluster:
    """Workers that do jobs, a few of them handed out at a time.

    Parameters
    ----------
    client
        Connected to Dask's scheduler.
    name
        What to call it.
    needed, tell
        As for `open_cluster`.
    """

    def __init__(self, client: Any, name: str, needed: Sequence[Path], tell: Tell) -> None:
        self._client, self._name, self._tell = client, name, tell
        self._needed = [str(path) for path in needed]
        self._threads: dict[str, int] = {}
        self._looked = 0.0
        self._told = time.monotonic()

    def introduce(self) -> None:
        """Say who works, and where to watch them; refuse workers that cannot.

        Raises
        ------
        UserError
            When one cannot.
        """
        self._threads = self._workers()
        for trouble in self._troubles(list(self._threads)):
            raise trouble
        who = counted(len(self._threads), "worker")
        dashboard = self._client.dashboard_link
        watch = f"dashboard {dashboard}" if dashboard else "no dashboard"
        waits = "" if self._threads else "; waiting for some"
        self._tell(f"Dask scheduler {self._name}: {who}{waits}; {watch}")

    def run(self, tasks: Sequence[Task], cancelled: Poll | None) -> Iterator[CohortResult]:
        """Have jobs done; give each result as it comes.

        Raises
        ------
        UserError
            When the scheduler is gone.
        Cancelled
            When `cancelled` said so; jobs that are running end by themselves.
        """
        cloudpickle = import_module("cloudpickle")  # as Dask itself: it takes every function
        waiting, running = deque(tasks), dict[Any, Task]()
        returned: Counter[str] = Counter()
        finished: SimpleQueue[Any] = SimpleQueue()
        try:
            while waiting or running:
                self._look()
                # One a worker: if a scan kills its worker, no other is suspected with it.
                while waiting and len(running) < max(1, len(self._threads)):
                    task = waiting.popleft()
                    # A key of its own: a job writes files, so a result that Dask remembers of
                    # the same job says nothing.
                    packed = cloudpickle.dumps(_Packed(task))
                    key = f"harmonize-{uuid.uuid4().hex}"
                    future = self._client.submit(pickle.loads, packed, key=key)
                    running[future] = task
                    future.add_done_callback(finished.put)
                try:
                    future = finished.get(timeout=LOOK_EVERY)
                except Empty:
                    pass
                else:
                    task = running.pop(future)
                    if future.status == "finished":
                        yield future.result()
                    elif self._goes_back(future, returned[task.scan]):
                        returned[task.scan] += 1
                        waiting.append(task)
                    else:
                        reason = _explained(future, task)
                        yield CohortResult(task.subject, task.scan, "failed", 0.0, reason)
                if cancelled is not None and cancelled():
                    raise Cancelled
        finally:
            if running and self._client.status == "running":
                self._client.cancel(list(running))

    def _goes_back(self, future: Any, times: int) -> bool:
        """Return whether a job without a result is tried again, by another worker perhaps."""
        self._looked = 0.0  # the scheduler may be gone
        lacking = future.status == "error" and isinstance(future.exception(), ModuleNotFoundError)
        return times < MOST_RETURNS and (lacking or future.status != "error")

    def _look(self) -> None:
        """See who works now; newcomers that cannot are told of."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        there = self._workers()
        for trouble in self._troubles([each for each in there if each not in self._threads]):
            self._tell(f"warning: {trouble}")
        if there:
            self._told = now
        elif now - self._told >= TELL_EVERY:
            self._told = now
            self._tell(f"Dask scheduler {self._name}: no worker; waiting for one")
        self._threads = there

    def _workers(self) -> dict[str, int]:
        """Give the threads of each worker by its address.

        Raises
        ------
        UserError
            When the scheduler does not answer: most calls of Dask would wait for it for ever.
        """
        client, reason = self._client, None
        if client.status == "running":
            try:
                known = client.sync(client.scheduler.ncores, callback_timeout=SCHEDULER_PATIENCE)
                return dict(known)
            except TimeoutError:  # it is busy; when it is gone the connection ends
                return self._threads
            except Exception as error:
                reason = error
        remedy = Advice("start it and run the same again: finished scans are not done twice")
        problem = "this Dask scheduler is gone"
        raise UserError(problem, self._name, "scheduler", remedy) from reason

    def _troubles(self, workers: Sequence[str]) -> list[UserError]:
        """Say which workers cannot do the work."""
        if not workers:
            return []
        # Of the standard library, which every worker has: it can be asked whatever it lacks.
        versions = self._client.run(
            importlib.metadata.version, PACKAGE, workers=list(workers), on_error="return"
        )
        own = importlib.metadata.version(PACKAGE)
        install = Advice(f"install {PACKAGE} {own} where it runs, or stop it")
        troubles = []
        for worker, version in versions.items():
            if isinstance(version, importlib.metadata.PackageNotFoundError):
                troubles.append(UserError(f"this worker has no {PACKAGE}", worker, None, install))
            elif isinstance(version, str) and version != own:
                problem = f"this worker has {PACKAGE} {version}, not {own}"
                troubles.append(UserError(problem, worker, None, install))
        wanting = {each.subject for each in troubles}
        share = Advice("let all machines see the folders by the same paths")
        for path in self._needed:
            asked = [worker for worker in versions if worker not in wanting]
            seen = self._client.run(os.path.exists, path, workers=asked, on_error="return")
            for worker, sees in seen.items():
                if sees is False:
                    wanting.add(worker)
                    troubles.append(
                        UserError(f"this worker does not see {path}", worker, None, share)
                    )
        return troubles


@dataclass(frozen=True)
class _Packed:
    """A job that is done when it is unpickled.

    Dask's scheduler opens all that it hands on. It must not need this package, nor stand still
    while it imports torch; of this it sees bytes, and a function of the standard library.
    """

    task: Task

    def __reduce__(self) -> tuple[Callable[[Task], CohortResult], tuple[Task]]:
        return _run_alone, (self.task,)


_BUSY = threading.Lock()


def _run_alone(task: Task) -> CohortResult:
    """Do a job on a worker, one at a time: a job is as large as a brain, and has its threads."""
    with _BUSY:
        _use_threads()
        return run_task(task)


def _use_threads() -> None:
    """Let torch have the threads of its worker: Dask gives each process one."""
    from distributed import get_worker

    torch = sys.modules.get("torch")
    if torch is not None:
        threads = get_worker().state.nthreads
        if threads > torch.get_num_threads():
            torch.set_num_threads(threads)


def _explained(future: Any, task: Task) -> UserError:
    """Say why a job gave no result. What goes wrong inside of one is a result, so this is rare."""
    if future.status != "error":
        return UserError("was cancelled by somebody else on the cluster", task.scan)
    lost = future.exception()
    if type(lost).__name__ == "KilledWorker":
        remedy = Advice("give workers more memory, or see in their logs why they died")
        return UserError(
            f"{counted(lost.allowed_failures + 1, 'worker')} died of it", task.scan, None, remedy
        )
    if isinstance(lost, ModuleNotFoundError):
        install = Advice(f"install {PACKAGE} wherever workers run")
        return UserError(f"its worker lacks {lost.name}", task.scan, None, install)
    return explain(lost)
