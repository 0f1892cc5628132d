"""What a cohort costs a subject, beside harmonizing it: 1,000 small subjects through two workers.

python benchmarks/cohort.py [SUBJECTS]

Every subject is the same small scan under a name of its own; a job that does nothing shows what
files, checksums, Dask and the table cost, then `harmonize_to_folder` what they cost beside it. The
scheduler and its workers are processes of this machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from napari_msp.cohort import run_cohort
from napari_msp.data.phantom import simulate
from napari_msp.packaged import packaged_model

TARGET = "prisma_st"
SUBJECTS = 1_000


def nothing(*_: Any, **__: Any) -> None:
    """Stand for a job that costs nothing."""


def make_subjects(folder: Path, count: int) -> Path:
    """Link one small scan to many names, as a dataset."""
    heads, bids = folder / "heads", folder / "bids"
    simulate(heads, subjects=1, size="tiny", noise_free=False)
    scan = heads / "sub-01/ses-ge/dwi"
    masks = heads / "derivatives/brainmask/sub-01/ses-ge/dwi"
    for number in range(1, count + 1):
        for source, into in ((scan, bids), (masks, bids / "derivatives/brainmask")):
            there = into / f"sub-{number:06d}/ses-ge/dwi"
            there.mkdir(parents=True)
            for file in source.iterdir():
                os.link(file, there / file.name.replace("sub-01", f"sub-{number:06d}"))
    return bids


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """Start a scheduler and workers as processes; give its address."""
    distributed: Any = import_module("distributed")
    file = folder / "scheduler.json"
    start = [sys.executable, "-m"]
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    worker = ["distributed.cli.dask_worker", "--nthreads", "1"]
    commands = [scheduler, *[worker] * workers]
    processes = [subprocess.Popen([*start, *each, *common], **quiet) for each in commands]
    try:
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(workers)
            address = client.scheduler.address
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def measure(name: str, bids: Path, out: Path, count: int, **how: Any) -> float:
    """Time a cohort; print and give milliseconds a subject."""
    began, computed = time.perf_counter(), time.process_time()
    results = run_cohort(bids, out, packaged_model("MSP"), TARGET, **how)
    took = 1000 * (time.perf_counter() - began) / count
    own = 1000 * (time.process_time() - computed) / count
    kinds = sorted({result.status for result in results})
    inside = 1000 * float(np.mean([result.seconds for result in results]))
    said = f"{took:8.1f} ms a subject, {inside:8.1f} in its job, {own:6.1f} of CPU here"
    print(f"{name:40} {said} ({', '.join(kinds)})", flush=True)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", type=int, nargs="?", default=SUBJECTS)
    count = parser.parse_args().subjects
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bids = make_subjects(folder, count)
        print(f"{count} subjects")
        measure("here, a job that does nothing", bids, folder / "a", count, job=nothing)
        with cluster(folder, 2) as address:
            for name, out, job in (
                ("two workers, a job that does nothing", "b", nothing),
                ("two workers, harmonize", "c", None),
                ("two workers, all finished earlier", "c", None),
            ):
                measure(name, bids, folder / out, count, job=job, scheduler=address)


if __name__ == "__main__":
    main()
