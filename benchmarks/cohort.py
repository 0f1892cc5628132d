"""What a cohort costs a subject, beside harmonizing it: 1,000 small subjects through two workers.

python benchmarks/cohort.py [SUBJECTS]

Every subject is the same few voxels under a name of its own; a job that does nothing shows what
files, Dask and the table cost, then harmonizing what they cost beside it. The scheduler and its
workers are processes of this machine. The first job of each worker imports torch, which a cohort
pays once: it is measured apart, with as many subjects as there are workers.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_msp.cohort import run_cohort
from napari_msp.data.phantom import simulate
from napari_msp.packaged import packaged_model

TARGET = "prisma_st"
SUBJECTS = 1_000
WORKERS = 2
EDGE = 8
"""Of a scan, in voxels."""


def nothing(*_: Any, **__: Any) -> None:
    """Stand for a job that costs nothing."""


def make_subjects(folder: Path, count: int) -> Path:
    """Link one small scan to many names, as a dataset."""
    heads, bids = folder / "heads", folder / "bids"
    simulate(heads, subjects=1, size="tiny", noise_free=False)
    masks = Path("derivatives/brainmask")
    for inside in (Path(), masks):
        source = heads / inside / "sub-01/ses-ge/dwi"
        for path in source.glob("*.nii.gz"):
            image: Any = nib.load(path)
            middle = tuple(slice((n - EDGE) // 2, (n + EDGE) // 2) for n in image.shape[:3])
            nib.save(image.slicer[middle], path)
        for subject in (f"sub-{number:06d}" for number in range(1, count + 1)):
            there = bids / inside / subject / "ses-ge/dwi"
            there.mkdir(parents=True)
            for file in source.iterdir():
                os.link(file, there / file.name.replace("sub-01", subject))
    return bids


@contextmanager
def cluster(folder: Path) -> Iterator[Any]:
    """Start a scheduler and workers as processes; give a client of it."""
    distributed: Any = import_module("distributed")
    file = folder / "scheduler.json"
    start = [sys.executable, "-m"]
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    worker = ["distributed.cli.dask_worker", "--nthreads", "1"]
    commands = [scheduler, *[worker] * WORKERS]
    processes = [subprocess.Popen([*start, *each, *common], **quiet) for each in commands]
    try:
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(WORKERS)
            yield client
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def measure(
    name: str, bids: Path, out: Path, spent: Callable[[], dict[str, float]], **how: Any
) -> None:
    """Run a cohort; print milliseconds a subject.

    Parameters
    ----------
    name
        Of the row.
    bids, out, **how
        As for `run_cohort`.
    spent
        Gives the seconds of processor time that each kind of process has taken until now.
    """
    before, began = spent(), time.perf_counter()
    results = run_cohort(bids, out, packaged_model("MSP"), TARGET, **how)
    took, count = time.perf_counter() - began, len(results)
    after = spent()
    hands = 1 if how.get("scheduler") is None and how.get("workers", 1) == 1 else WORKERS
    inside = float(np.mean([result.seconds for result in results]))
    each = 1000 * took / count
    beside = each - 1000 * inside / hands
    kinds = ", ".join(sorted({result.status for result in results}))
    computed = ", ".join(f"{who} {1000 * (after[who] - before[who]) / count:.1f}" for who in after)
    said = f"{each:7.1f} ms a subject, {1000 * inside:7.1f} in its job, {beside:6.1f} beside jobs"
    print(f"{name:40} {said}; processor: {computed} ({kinds})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", type=int, nargs="?", default=SUBJECTS)
    count = parser.parse_args().subjects
    warnings.simplefilter("ignore")

    def here() -> dict[str, float]:
        return {"here": time.process_time()}

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bids = make_subjects(folder, count)
        few = [f"{number:06d}" for number in range(1, WORKERS + 1)]
        print(f"{count} subjects, {WORKERS} workers; load {os.getloadavg()[0]:.1f}")
        # Whoever asks reads the model, with torch, once.
        measure("first: torch and the model", bids, folder / "first", here, participants=few[:1])
        measure("here, a job that does nothing", bids, folder / "a", here, job=nothing)
        with cluster(folder) as client:

            def all_of_them() -> dict[str, float]:
                workers = client.run(time.process_time).values()
                return here() | {
                    "workers": sum(workers),
                    "scheduler": client.run_on_scheduler(time.process_time),
                }

            through: dict[str, Any] = {"scheduler": client.scheduler.address}
            measure(
                "scheduler, first jobs: torch",
                bids, folder / "b", all_of_them, job=nothing, participants=few, **through,
            )  # fmt: skip
            for name, out, job in (
                ("scheduler, a job that does nothing", "c", nothing),
                ("scheduler, harmonize", "d", None),
                ("scheduler, all finished earlier", "d", None),
            ):
                measure(name, bids, folder / out, all_of_them, job=job, **through)
        more: dict[str, Any] = {"job": nothing, "workers": WORKERS}
        measure("--workers, with their start", bids, folder / "e", here, **more)


if __name__ == "__main__":
    main()
