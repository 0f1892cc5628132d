"""Good manners on a device: memory given back, flags and threads as they were."""

import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from napari_msp.device import (
    DEVICES,
    choose_device,
    copied_to,
    exact_arithmetic,
    free_memory,
    leave_a_core,
)
from napari_msp.errors import PYTHON, Choose, UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_says_what_is(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError) as caught:
        choose_device(name)
    assert (caught.value.problem, caught.value.field) == (f"this machine has no {name}", "device")
    assert caught.value.remedy == Choose("device", ("auto", "cpu"))
    # What a Python user reads.
    assert caught.value.phrase(PYTHON).endswith("choose from auto, cpu with device=")


@pytest.mark.parametrize("name", ["abacus", "cpu:x", ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UserError, match="there is no device") as caught:
        choose_device(name)
    assert caught.value.remedy == Choose("device", DEVICES)


def flags():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic


def test_a_copy_computes_the_same_and_is_emptied_afterwards():
    network = nn.Conv3d(2, 3, 3)
    x = torch.randn(1, 2, 5, 5, 5)
    with torch.no_grad(), copied_to(network, CPU) as copy:
        assert torch.equal(copy(x), network(x))
        assert copy.weight is not network.weight
    assert copy.weight.is_meta
    assert network.weight.device == CPU


def test_a_failure_that_is_kept_keeps_no_tensor():
    kept = []

    def fail():
        large = torch.zeros(1000)
        kept.append(weakref.ref(large))
        raise MemoryError

    with pytest.raises(MemoryError) as caught, copied_to(nn.Identity(), CPU):
        fail()
    assert kept[0]() is None
    assert caught.tb.tb_next is not None  # the lines are still there to be read


def test_exact_until_the_last_job_ends():
    """Jobs that overlap, ending in the order they began."""
    before = flags()
    torch.backends.cudnn.allow_tf32 = True
    try:
        wanted = flags()
        one, other = exact_arithmetic(), exact_arithmetic()
        one.__enter__()
        other.__enter__()
        assert flags() == (False, False, True)
        one.__exit__(None, None, None)
        assert flags() == (False, False, True)
        other.__exit__(None, None, None)
        assert flags() == wanted
    finally:
        torch.backends.cudnn.allow_tf32 = before[1]


def test_two_jobs_run_one_model_at_once(make_model, small_scan, tmp_path):
    """Each is polled and computes as if it were alone."""
    from napari_msp.inference.harmonize import harmonize

    acquisition, model = small_scan().load(tmp_path), make_model()
    expected = harmonize(model, acquisition, "prisma_st").sh.coefficients
    met, found = threading.Barrier(2, timeout=60), []

    def work():
        first_poll = threading.Event()

        def cancelled():
            if not first_poll.is_set():  # both are inside their network from here on
                first_poll.set()
                met.wait()
            return False

        found.append(harmonize(model, acquisition, "prisma_st", cancelled=cancelled))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for prediction in found:
        assert (prediction.sh.coefficients == expected).all()


@pytest.mark.parametrize(
    ("cores", "threads", "expected"), [(8, 8, 7), (8, 3, 3), (2, 2, 1), (1, 1, 1)]
)
def test_a_core_is_left(cores, threads, expected, monkeypatch):
    monkeypatch.setattr("napari_msp.device._cores", lambda: cores)
    torch.set_num_threads(threads)
    with pytest.raises(KeyError), leave_a_core():
        assert torch.get_num_threads() == expected
        raise KeyError
    assert torch.get_num_threads() == threads


def test_a_core_is_left_in_a_worker_thread(monkeypatch):
    """OpenMP counts for each thread: the block must hold where the work is done."""
    monkeypatch.setattr("napari_msp.device._cores", lambda: 2)
    torch.set_num_threads(2)
    seen = []

    def work():
        with leave_a_core():
            seen.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1]


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMORY_OF_64_GB = "MemTotal: 90000000 kB\nMemAvailable:   64000000 kB\nSwapFree: 1 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64_000_000 * 1024),
        # A job's own group is roomy, that around it is not; cached files can be let go.
        (
            {
                "proc/self/cgroup": "0::/batch/job-7\n",
                "sys/fs/cgroup/batch/job-7/memory.max": "max",
                "sys/fs/cgroup/batch/job-7/memory.current": "5",
                "sys/fs/cgroup/batch/memory.max": "9000",
                "sys/fs/cgroup/batch/memory.current": "4000",
                "sys/fs/cgroup/batch/memory.stat": "anon 3000\ninactive_file 700\n",
            },
            5700,
        ),
        # A container sees its group as the root, and version 1.
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "8000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 1000\n",
            },
            6000,
        ),
        # No limit is the largest number there; what is over its limit has nothing left.
        (
            {
                "proc/self/cgroup": "4:memory:/a\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "3000",
            },
            64_000_000 * 1024,
        ),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "3000",
                "sys/fs/cgroup/memory.current": "4000",
            },
            0,
        ),
    ],
)
def test_free_memory_heeds_every_limit(files, expected, tmp_path):
    files = {"proc/meminfo": MEMORY_OF_64_GB} | files
    assert free_memory(written(tmp_path, files)) == expected


def test_what_the_machine_has_is_shared_and_limits_are_not(tmp_path):
    root = written(tmp_path, {"proc/meminfo": MEMORY_OF_64_GB})
    assert free_memory(root, shared_by=4) == 16_000_000 * 1024
    limits = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "8000",
        "sys/fs/cgroup/memory.current": "3000",
    }
    assert free_memory(written(tmp_path, limits), shared_by=4) == 5000


def test_free_memory_of_this_machine_is_some():
    assert 2**20 < free_memory() < 2**50
