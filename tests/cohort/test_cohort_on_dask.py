"""Cohorts on a scheduler and workers that are processes of their own, and what befalls these."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dask_jobs import bad_at_two, deadly, endless, killed_once, means, record
from with_job import run_cohort

from napari_msp.cli import main
from napari_msp.cohort import cluster
from napari_msp.cohort.jobs import CohortResult, How, Task
from napari_msp.errors import UserError
from napari_msp.options import Options

pytestmark = pytest.mark.filterwarnings("ignore::napari_msp.identity.CopiedScan")  # all are one

TESTS = Path(__file__).parent
SOURCE = TESTS.parents[1] / "src"

TARGET = "prisma_st"


class Processes:
    """A scheduler and workers of this machine, which a test may kill."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.all: list[subprocess.Popen[bytes]] = []

    def start(self, what: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        first = [environment.pop("first")] if "first" in environment else []
        path = os.pathsep.join([*first, str(SOURCE), str(TESTS)])
        log = self.folder / f"{what}-{len(self.all)}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{what}", *options,
                 "--scheduler-file", str(self.file)],
                env=os.environ | {"PYTHONPATH": path} | environment,
                cwd=self.folder,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )  # fmt: skip
        self.all.append(process)
        return process

    def scheduler(self, **environment: str) -> str:
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", **environment)
        until(lambda: self.file.exists() and self.file.stat().st_size)  # Dask fills it afterwards
        return str(json.loads(self.file.read_text())["address"])

    def worker(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        return self.start("worker", "--nthreads", "4", *options, **environment)

    def stop(self) -> None:
        """Kill all, nannies with their workers."""
        for process in self.all:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(true, seconds=300.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.fixture
def processes(tmp_path):
    folder = tmp_path / "dask"
    folder.mkdir()
    made = Processes(folder)
    yield made
    made.stop()


@pytest.fixture
def bids(tmp_path, scan):
    root = tmp_path / "bids"
    made = scan(np.diag([2.4, 2.4, 2.4, 1.0]), 30)
    for number in range(1, 7):
        folder = root / f"sub-0{number}/ses-ge/dwi"
        folder.mkdir(parents=True)
        made.write(folder, stem=f"sub-0{number}_ses-ge_acq-st")
    return root


@pytest.fixture
def connected(processes):
    """A scheduler with two workers; those that are killed do not come back."""
    address = processes.scheduler()
    processes.workers = [processes.worker("--no-nanny") for _ in range(2)]
    wait_for_workers(address, 2)
    return address


def wait_for_workers(address, count):
    import distributed

    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=300)


@pytest.mark.slow
class TestProcesses:
    def test_a_cohort(self, connected, bids, one_target_model, tmp_path):
        said, told = [], []
        results = run_cohort(
            bids, tmp_path / "out", one_target_model, TARGET, scheduler=connected,
            job=record, tell=said.append, progress=lambda *each: told.append(each[1:]),
        )  # fmt: skip
        assert [result.status for result in results] == ["done"] * 6
        assert told == [(number, 6) for number in range(1, 7)]
        (line,) = said
        assert line.startswith(f"Dask scheduler {connected}: 2 workers; dashboard http://127.0.0.1")
        # Each worker has four threads, and yet holds one scan at a time.
        marks = [json.loads(path.read_text()) for path in (tmp_path / "running").glob("*.json")]
        assert max(own for _, own in marks) == 1
        assert max(all_ for all_, _ in marks) <= 2

    def test_workers_have_their_part_of_the_memory_and_all_of_their_threads(
        self, processes, bids, one_target_model, tmp_path
    ):
        address = processes.scheduler()
        for _ in range(2):
            processes.worker("--memory-limit", "2GiB")
        wait_for_workers(address, 2)
        out = tmp_path / "out"
        run_cohort(bids, out, one_target_model, TARGET, scheduler=address, job=means)
        found = [json.loads(path.read_text()) for path in out.rglob("means.json")]
        assert len(found) == 6
        for each in found:
            assert 0.25 < each["memory"] < 1.0  # half of what 2 GiB leave beside torch
            assert each["threads"] == [4, 4]
            if sys.platform == "linux":  # other C libraries are left as they are
                assert each["MiB cleared"] < 24  # 64 as Dask starts workers

    def test_a_silent_worker_is_refused(
        self, connected, processes, bids, one_target_model, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(cluster, "SCHEDULER_PATIENCE", 5.0)
        processes.workers[0].send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match="this worker does not answer within 5 s; start it"):
            run_cohort(bids, tmp_path / "out", one_target_model, TARGET, scheduler=connected)

    def test_one_bad_subject(self, connected, bids, one_target_model, tmp_path):
        results = run_cohort(
            bids, tmp_path / "out", one_target_model, TARGET, scheduler=connected, job=bad_at_two
        )
        assert [result.status for result in results] == ["done", "failed", *["done"] * 4]
        assert "sub-02_ses-ge_acq-st_dwi.nii.gz: is odd" in results[1].message()

    def test_a_killed_worker_loses_nothing(self, connected, bids, one_target_model, tmp_path):
        out = tmp_path / "out"
        results = run_cohort(
            bids, out, one_target_model, TARGET, scheduler=connected, job=killed_once
        )
        assert (tmp_path / "killed").exists()
        # What it had written whole is not done again.
        assert [result.status for result in results] == ["done", "skipped", *["done"] * 4]
        assert len(list(out.glob("sub-*/ses-ge/dwi/*_dwi.nii.gz"))) == 6
        assert not list(out.rglob(".napari-msp*"))
        again = run_cohort(bids, out, one_target_model, TARGET, scheduler=connected)
        assert [result.status for result in again] == ["skipped"] * 6

    def test_a_scan_that_kills_its_worker_fails_alone(
        self, processes, bids, one_target_model, tmp_path
    ):
        address = processes.scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1")
        processes.worker(), processes.worker()  # which nannies start again
        wait_for_workers(address, 2)
        results = run_cohort(
            bids, tmp_path / "out", one_target_model, TARGET, scheduler=address, job=deadly
        )
        assert [result.status for result in results] == ["done", "failed", *["done"] * 4]
        assert (
            "2 workers died while processing it; give workers more memory" in results[1].message()
        )

    def test_a_scheduler_that_dies_is_told(
        self, connected, processes, bids, one_target_model, tmp_path
    ):
        def kill():
            until((tmp_path / "began").exists)
            processes.all[0].kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(UserError, match="this Dask scheduler is gone; start it"):
            run_cohort(
                bids, tmp_path / "out", one_target_model, TARGET, scheduler=connected, job=endless
            )
        killer.join()

    @pytest.mark.parametrize(
        ("version", "said"),
        [("9.9", "has napari-msp 9.9, not "), ("", "this worker has no napari-msp")],
    )
    def test_a_worker_that_cannot_is_refused(
        self, version, said, processes, bids, one_target_model, tmp_path
    ):
        first = tmp_path / "first"
        first.mkdir()
        (first / "sitecustomize.py").write_text(
            "import importlib.metadata as metadata\n"
            "real = metadata.version\n"
            "def version(name):\n"
            "    if name != 'napari-msp':\n"
            "        return real(name)\n"
            f"    if not {version!r}:\n"
            "        raise metadata.PackageNotFoundError(name)\n"
            f"    return {version!r}\n"
            "metadata.version = version\n"
        )
        address = processes.scheduler()
        processes.worker("--no-nanny", first=str(first))
        wait_for_workers(address, 1)
        with pytest.raises(UserError, match=f"tcp://.*{said}.*; install napari-msp"):
            run_cohort(bids, tmp_path / "out", one_target_model, TARGET, scheduler=address)
        assert not (tmp_path / "out").exists()

    def test_a_worker_that_comes_late(self, processes, bids, one_target_model, tmp_path):
        address = processes.scheduler()
        said = []

        def tell(line):
            said.append(line)
            processes.worker("--no-nanny")

        results = run_cohort(
            bids, tmp_path / "out", one_target_model, TARGET, scheduler=address,
            job=bad_at_two, tell=tell,
        )  # fmt: skip
        assert [result.status for result in results] == ["done", "failed", *["done"] * 4]
        (line,) = said
        assert line.startswith(f"Dask scheduler {address}: 0 workers; waiting for some; dashboard")


@pytest.mark.parametrize(
    ("limit", "gib"),
    [(None, 64 / 4 / 2), (16 * 2**30, 10 / 2), (5 * 2**30, 2**20 / 2**30)],
)
def test_a_worker_plans_with_its_part_of_the_machine(limit, gib, tmp_path, monkeypatch):
    """Of 64 GiB that are free and four workers; this one has taken 6."""
    monkeypatch.setattr(
        "napari_msp.device.free_memory", lambda shared_by=1: 64 * 2**30 // shared_by
    )
    worker = SimpleNamespace(
        address="tcp://10.0.0.1:5",
        memory_manager=SimpleNamespace(memory_limit=limit),
        monitor=SimpleNamespace(get_process_memory=lambda: 6 * 2**30),
    )
    workers = [*(f"tcp://10.0.0.1:{port}" for port in range(4)), "tcp://10.0.0.2:1"]
    how = How(Options(device="cpu"))
    task = Task(record, "sub-01", "", tmp_path, tmp_path, (TARGET,), tmp_path, how, "msp")
    given = cluster._within_memory(task, worker, cluster._per_host(workers))
    assert given.how == How(Options(device="cpu", memory=gib))
    told = replace(task, how=How(Options(memory=3.0)))
    assert cluster._within_memory(told, worker, {}) is told


class Ended:
    """Stands for a job of Dask's that ended, with a result or without."""

    def __init__(self, status, result):
        self.status, self._result = status, result

    def add_done_callback(self, tell):
        tell(self)

    def exception(self):
        return self._result

    def result(self, timeout):
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def test_what_ends_without_a_result_is_tried_again_three_times(tmp_path):
    """Lost with the worker that had it, cancelled, handed to one without this package."""
    pytest.importorskip("distributed")
    how = How(Options())
    task = Task(record, "sub-01", "scan", tmp_path, tmp_path, (TARGET,), tmp_path, how, "msp")
    good = CohortResult("sub-01", "scan", (TARGET,), "done", 1.0)
    for lost, said in (
        (Ended("finished", TimeoutError()), "scan: was done, but its result did not arrive"),
        (Ended("cancelled", None), "scan: was cancelled by someone else on the cluster"),
        (Ended("error", ModuleNotFoundError(name="napari_msp")), "its worker has no napari_msp"),
    ):
        for ends, expected in (([lost] * 3 + [Ended("finished", good)], ""), ([lost] * 4, said)):
            left = iter(ends)
            client = SimpleNamespace(
                status="running",
                scheduler=SimpleNamespace(ncores=lambda: {}),
                sync=lambda question, callback_timeout: question(),
                submit=lambda *_, left=left, **__: next(left),
            )
            (found,) = cluster.Cluster(client, "", (), print).run([task], None)
            assert expected in found.message()
            assert found.status == ("failed" if expected else "done")
            assert next(left, None) is None


@pytest.fixture
def silent():
    """Something that listens, and is no scheduler."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://here", "silent"])
def test_a_scheduler_that_does_not_answer(
    address, silent, bids, one_target_model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cluster, "SCHEDULER_PATIENCE", 0.3)
    address = silent if address == "silent" else address
    command = ["cohort", bids, tmp_path / "out", "participant", "--model", one_target_model]
    status = main([*map(str, command), "--target", TARGET, "--scheduler", address])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert line.startswith(f"napari-msp: {address}: no Dask scheduler answers within 0.3 s")
    assert line.endswith("check address and firewall, or give a number with --workers")
    assert not (tmp_path / "out").exists()
