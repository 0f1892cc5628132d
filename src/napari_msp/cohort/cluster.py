"""Run jobs on Dask: on processes of this machine, or on workers of a running scheduler."""

import asyncio
import ctypes
import importlib.metadata
import logging
import os
import pickle
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from napari_msp.cohort.jobs import CohortResult, Task, run_task
from napari_msp.errors import Advice, Give, Install, Poll, UserError, either, stop_if
from napari_msp.foreign_errors import explain, shortened
from napari_msp.formatting import counted
from napari_msp.processes import without_script

SCHEDULER_PATIENCE = 10.0
"""Seconds within which a scheduler must answer."""

LOOK_EVERY = 1.0
"""Seconds between checks of the workers, and of whether the work is cancelled."""

TELL_EVERY = 60.0
"""Seconds between messages that there is no worker."""

MOST_RETURNS = 3
"""Times that a job is returned because its worker lacks this package, before it has failed."""

LEAST_MEMORY = 2.0**20
"""Memory in bytes for a network if nothing is left: its tiles are then the smallest."""

Tell = Callable[[str], None]

PACKAGE = "napari-msp"


@contextmanager
def connected(scheduler: str, needed: Sequence[Path], tell: Tell) -> Iterator["Cluster"]:
    """Use the workers of a running scheduler for as long as the block runs.

    Parameters
    ----------
    needed
        Files and folders that every worker must be able to read.
    tell
        Function that is given messages about the cluster for the user.

    Raises
    ------
    UserError
        When Dask is missing, the scheduler does not answer, or a worker cannot do the work: it
        lacks this package, has another version of it, or does not see the files.
    """
    with closing(_client(_dask(), scheduler)) as client:
        cluster = Cluster(client, scheduler, needed, tell)
        cluster.check()
        cluster.introduce()
        yield cluster


@contextmanager
def own_workers(count: int, tell: Tell) -> Iterator["Cluster"]:
    """Start worker processes on this machine for as long as the block runs, see `connected`.

    Raises
    ------
    UserError
        When Dask is missing.
    """
    dask = _dask()
    threads = max(1, (os.cpu_count() or 1) // count)
    with without_script():  # all along, as Dask replaces workers that die
        local = dask.LocalCluster(
            n_workers=count,
            threads_per_worker=threads,
            processes=True,
            dashboard_address="127.0.0.1:0",  # any free port: Dask warns if its default is taken
            env={"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            # Nobody looks at their profiles, which grow for an hour.
            config={"distributed.worker.profile.enabled": False},
        )
        try:
            with closing(dask.Client(local, set_as_default=False)) as client:
                cluster = Cluster(client, local.scheduler_address, (), tell)
                cluster.accept()
                cluster.introduce(drawn=find_spec("bokeh") is not None)
                yield cluster
        finally:
            # A worker that ends slowly on a busy machine is no news: its results are here.
            with dask.utils.silence_logging_cmgr(logging.ERROR):
                local.close()


def _dask() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        problem = "several processes need Dask, which is not installed"
        raise UserError(problem, field="workers", remedy=Install("cohort")) from error


def _client(dask: Any, address: str) -> Any:
    """Return a client of the scheduler at an address, if it answers like one."""
    remedy = either(
        Advice("start one with `dask scheduler`, and check address and firewall"),
        Give("workers", "a number"),
    )
    try:
        # The client itself might wait for ever if something else listens there.
        with ThreadPoolExecutor(1) as pool:  # a notebook has an event loop in this thread
            kind = pool.submit(asyncio.run, _ask_who(dask, address)).result().get("type")
        if kind != "Scheduler":
            raise UserError(f"is a Dask {kind}, not a scheduler", address, "scheduler", remedy)
        return dask.Client(address, timeout=SCHEDULER_PATIENCE, set_as_default=False)
    except UserError:
        raise
    except Exception as error:  # something else that listens there may answer anything
        reason = "" if isinstance(error, OSError) else f" ({shortened(str(error))})"
        problem = f"no Dask scheduler answers within {SCHEDULER_PATIENCE:g} s{reason}"
        raise UserError(problem, address, "scheduler", remedy) from error


async def _ask_who(dask: Any, address: str) -> Any:
    """Ask who listens at an address, with a limited wait."""
    secrets = dask.Security().get_connection_args("client")

    async def ask() -> Any:
        async with dask.rpc(address, connection_args=secrets) as answering:
            return await answering.identity()

    return await asyncio.wait_for(ask(), SCHEDULER_PATIENCE)


class Cluster:
    """Workers that run jobs, a few of which are handed out at a time."""

    def __init__(self, client: Any, name: str, needed: Sequence[Path], tell: Tell) -> None:
        self._client, self._name, self._tell = client, name, tell
        self._needed = [str(path) for path in needed]
        self._workers: list[str] = []
        self._looked = 0.0
        self._told = time.monotonic()

    def check(self) -> None:
        """Refuse workers that cannot do the work.

        Raises
        ------
        UserError
            When one cannot.
        """
        self.accept()
        for trouble in self._troubles(self._workers):
            raise trouble

    def accept(self) -> None:
        """Take the present workers as they are; later ones are checked first."""
        self._workers = self._who_works()

    def introduce(self, *, drawn: bool = True) -> None:
        """Report the workers, and the page to watch them on if the scheduler can draw it."""
        who = counted(len(self._workers), "worker")
        dashboard = self._client.dashboard_link
        watch = f"dashboard {dashboard}" if drawn and dashboard else "no dashboard"
        waits = "" if self._workers else "; waiting for some"
        self._tell(f"Dask scheduler {self._name}: {who}{waits}; {watch}")

    def run(self, tasks: Sequence[Task], cancelled: Poll | None) -> Iterator[CohortResult]:
        """Run jobs on the workers; yield each result as it comes.

        Raises
        ------
        UserError
            When the scheduler is gone.
        Cancelled
            When `cancelled` said so; jobs that are running end by themselves.
        """
        waiting, running = deque(tasks), dict[Any, Task]()
        returned: Counter[str] = Counter()
        ended: SimpleQueue[Any] = SimpleQueue()
        try:
            while waiting or running:
                self._look()
                # One job per worker: if a scan kills its worker, no other is suspected with it.
                while waiting and len(running) < max(1, len(self._workers)):
                    task = waiting.popleft()
                    future = self._hand_out(task)
                    running[future] = task
                    future.add_done_callback(ended.put)
                with suppress(Empty):
                    future = ended.get(timeout=LOOK_EVERY)
                    task = running.pop(future)
                    result = self._outcome(future, task, returned[task.scan])
                    if result is not None:
                        yield result
                    else:
                        returned[task.scan] += 1
                        waiting.append(task)
                stop_if(cancelled)
        finally:
            if running and self._client.status == "running":
                self._client.cancel(list(running))

    def _hand_out(self, task: Task) -> Any:
        """Send a job to a worker of Dask's choice; return its future."""
        cloudpickle = import_module("cloudpickle")  # used by Dask itself: it takes every function
        packed = cloudpickle.dumps(_Packed(task, _per_host(self._workers)))
        # A key of its own: a job writes files, so Dask must not answer with a remembered result of
        # the same job.
        return self._client.submit(pickle.loads, packed, key=f"harmonize-{uuid.uuid4().hex}")

    def _outcome(self, future: Any, task: Task, times: int) -> CohortResult | None:
        """Return the result of a job that ended; None if another worker is to try it again."""
        if future.status == "finished":
            # Dask would rerun a job whose result was lost with its worker before it was fetched.
            with suppress(Exception):
                result: CohortResult = future.result(timeout=SCHEDULER_PATIENCE)
                return result
        self._looked = 0.0  # the scheduler may be gone
        failed = future.status == "error"
        lacking = failed and isinstance(future.exception(), ModuleNotFoundError)
        if times < MOST_RETURNS and (lacking or not failed):
            return None
        return task.failed(_explained(future, task))

    def _look(self) -> None:
        """Update the workers; report newcomers that cannot do the work."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        there = self._who_works()
        for trouble in self._troubles([each for each in there if each not in self._workers]):
            self._tell(f"warning: {trouble}")
        if there:
            self._told = now
        elif now - self._told >= TELL_EVERY:
            self._told = now
            self._tell(f"Dask scheduler {self._name}: no worker; waiting for one")
        self._workers = there

    def _who_works(self) -> list[str]:
        """Return the address of each worker.

        Raises
        ------
        UserError
            When the scheduler does not answer: most calls of Dask would wait for it for ever.
        """
        try:
            return list(self._answer(self._client.scheduler.ncores, SCHEDULER_PATIENCE))
        except TimeoutError:  # it is busy; if it were gone the connection would end
            return self._workers

    def _ask(
        self, workers: Sequence[str], function: Callable[..., object], *arguments: object
    ) -> dict[str, object]:
        """Return each worker's result of a function, or its error; a timeout if it does not answer.

        Raises
        ------
        UserError
            When the scheduler, which passes questions on, does not answer.
        """
        # Of Dask's ways to ask, only this one can be awaited worker by worker.
        ask: Callable[..., Awaitable[dict[str, object]]] = self._client._run

        async def one(worker: str) -> dict[str, object]:
            question = ask(function, *arguments, workers=[worker], on_error="return")
            try:
                return await asyncio.wait_for(question, SCHEDULER_PATIENCE)
            except TimeoutError as error:
                return {worker: error}

        async def each() -> list[dict[str, object]]:
            return list(await asyncio.gather(*map(one, workers)))

        answers = self._answer(each)
        return {worker: said for answer in answers for worker, said in answer.items()}

    def _answer(self, question: Callable[[], Awaitable[Any]], patience: float | None = None) -> Any:
        """Wait for the scheduler's answer, for limited time if `patience` is given.

        Raises
        ------
        UserError
            When the scheduler is gone.
        TimeoutError
            When it does not answer.
        """
        reason = None
        if self._client.status == "running":
            try:
                return self._client.sync(question, callback_timeout=patience)
            except TimeoutError:
                raise
            except Exception as error:
                reason = error
        remedy = Advice("start it and run the same again: finished scans are not done twice")
        problem = "this Dask scheduler is gone"
        raise UserError(problem, self._name, "scheduler", remedy) from reason

    def _troubles(self, workers: Sequence[str]) -> list[UserError]:
        """Return errors for workers that cannot do the work."""
        if not workers:
            return []
        # The function is in the standard library, so any worker can be asked, whatever it lacks.
        versions = self._ask(workers, importlib.metadata.version, PACKAGE)
        troubles = {
            worker: trouble
            for worker, version in versions.items()
            if (trouble := _version_trouble(worker, version)) is not None
        }
        share = Advice("let all machines see the folders by the same paths")
        for path in self._needed:
            asked = [worker for worker in versions if worker not in troubles]
            for worker, sees in self._ask(asked, os.path.exists, path).items():
                if sees is False:
                    problem = f"this worker does not see {path}"
                    troubles[worker] = UserError(problem, worker, None, share)
        return list(troubles.values())


def _version_trouble(worker: str, version: object) -> UserError | None:
    """Return what is wrong with a worker's answer to the question for its version, if anything."""
    own = importlib.metadata.version(PACKAGE)
    remedy = Advice(f"install {PACKAGE} {own} where it runs, or stop it")
    match version:
        case importlib.metadata.PackageNotFoundError():
            problem = f"this worker has no {PACKAGE}"
        case TimeoutError():
            problem = f"this worker does not answer within {SCHEDULER_PATIENCE:g} s"
            remedy = Advice("start it again, or stop it")
        case str() if version != own:
            problem = f"this worker has {PACKAGE} {version}, not {own}"
        case _:
            return None
    return UserError(problem, worker, None, remedy)


@dataclass(frozen=True)
class _Packed:
    """A job that runs when it is unpickled.

    Dask's scheduler unpickles all that it passes on. It must not need this package, nor stall
    while it imports torch; so it only sees bytes, and a function of the standard library.
    """

    task: Task
    per_host: Mapping[str, int]

    def __reduce__(self) -> tuple[Callable[..., CohortResult], tuple[Task, Mapping[str, int]]]:
        return _run_alone, (self.task, self.per_host)


_BUSY = threading.Lock()


def _run_alone(task: Task, per_host: Mapping[str, int]) -> CohortResult:
    """Run a job on a worker, one at a time: a job needs memory for a brain, and has its threads."""
    from distributed import get_worker

    worker = get_worker()
    _reuse_memory()
    with _BUSY, _threads_of(worker):
        return run_task(_within_memory(task, worker, per_host))


@cache
def _reuse_memory() -> None:
    """Let this process reuse memory that arrays have freed for later arrays.

    Dask starts workers so that freed memory goes back to the system, which has to clear it before
    the next array gets it: that took 2 of 4.7 s of processor time for a slab. Here as much is kept
    as glibc keeps by default. Other C libraries are left as they are.
    """
    trim_threshold, mmap_threshold = -1, -3  # as <malloc.h> numbers them
    if sys.platform == "linux":
        with suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(mmap_threshold, 32 * 2**20)
            mallopt(trim_threshold, 64 * 2**20)


@contextmanager
def _threads_of(worker: Any) -> Iterator[None]:
    """Let torch and NumPy's BLAS use all threads of their worker: Dask gives each process one.

    `for_each_block` uses as many threads as BLAS may.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threads = worker.state.nthreads
    if threads > torch.get_num_threads():
        torch.set_num_threads(threads)
    with threadpool_limits(threads, user_api="blas"):
        yield


def _per_host(workers: Iterable[str]) -> dict[str, int]:
    """Count the workers of each machine."""
    host: Callable[[str], str] = import_module("distributed.comm").get_address_host
    return dict(Counter(map(host, workers)))


def _within_memory(task: Task, worker: Any, per_host: Mapping[str, int]) -> Task:
    """Limit a job's network to this worker's share of its machine's memory, unless it has a limit.

    A GPU's memory is not shared by Dask: there the network itself looks how much is free.
    """
    from napari_msp.device import choose_device, free_memory
    from napari_msp.inference.passes import SHARE_OF_FREE

    options = task.how.options
    if options.memory is not None:
        return task
    with suppress(UserError):  # the job itself will report that there is no such device
        if choose_device(options.device).type == "cuda":
            return task
    [host] = _per_host([worker.address])
    beside = max(1, per_host.get(host, 1))
    limit = worker.memory_manager.memory_limit
    if limit:  # the worker is killed if it takes more
        left = limit - worker.monitor.get_process_memory()
        free = min(free_memory(shared_by=beside), left)
    else:
        free = free_memory() // beside
    memory = max(free * SHARE_OF_FREE, LEAST_MEMORY) / 2**30
    return replace(task, how=replace(task.how, options=replace(options, memory=memory)))


def _explained(future: Any, task: Task) -> UserError:
    """Return why a job gave no result. Errors inside a job are results, so this is rare."""
    if future.status == "cancelled":
        return UserError("was cancelled by someone else on the cluster", task.scan)
    if future.status != "error":
        return UserError("was done, but its result did not arrive", task.scan)
    lost = future.exception()
    if type(lost).__name__ == "KilledWorker":
        remedy = Advice("give workers more memory, or see in their logs why they died")
        return UserError(
            f"{counted(lost.allowed_failures + 1, 'worker')} died while processing it",
            task.scan,
            None,
            remedy,
        )
    if isinstance(lost, ModuleNotFoundError):
        install = Advice(f"install {PACKAGE} wherever workers run")
        return UserError(f"its worker has no {lost.name}", task.scan, None, install)
    return explain(lost)
