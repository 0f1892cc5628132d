"""What a cohort costs a subject: a thousand small ones, through two workers.

python benchmarks/cohort.py [SUBJECTS]

Every subject is the same few voxels with noise of its own. A job that does nothing shows what
files, Dask and the table cost. Then three in ten are harmonized in one process, which is killed
in the middle, and by another that goes on; all of them by two workers, processes of this machine
as their scheduler is; and the page of a review is written. The first job of each worker imports
torch, which a cohort pays once: it is measured apart, with as many subjects as there are workers.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_msp.cohort import CohortResult, run_cohort, summarise_cohort
from napari_msp.data.phantom.simulate import simulate
from napari_msp.packaged import packaged_model
from napari_msp.review.predictions import open_review
from napari_msp.review.report import review_report

TARGET = "prisma_st"
SUBJECTS = 1_000
WORKERS = 2
EDGE = 8
"""Of a scan, in voxels."""


def nothing(*_: Any, **__: Any) -> None:
    """Stand for a job that costs nothing."""


def make_subjects(folder: Path, count: int) -> Path:
    """Write one small scan under many names, each with noise of its own, as a dataset."""
    heads, bids = folder / "heads", folder / "bids"
    simulate(heads, subjects=1, size="tiny", noise_free=False)
    random = np.random.default_rng(0)
    for inside in (Path(), Path("derivatives/brainmask")):
        source = heads / inside / "sub-01/ses-ge/dwi"
        middles = {}
        for path in source.glob("*.nii.gz"):
            image: Any = nib.load(path)
            middle = tuple(slice((n - EDGE) // 2, (n + EDGE) // 2) for n in image.shape[:3])
            middles[path.name] = image.slicer[middle]
        for number in range(1, count + 1):
            subject = f"sub-{number:06d}"
            there = bids / inside / subject / "ses-ge/dwi"
            there.mkdir(parents=True)
            for file in source.iterdir():
                named = there / file.name.replace("sub-01", subject)
                if file.name not in middles:
                    os.link(file, named)
                    continue
                image = middles[file.name]
                values = np.asarray(image.dataobj)
                if values.ndim == 4:
                    values = values + random.integers(0, 3, values.shape, values.dtype)
                nib.save(nib.Nifti1Image(values, image.affine, image.header), named)
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
    unwatched = os.environ | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
    processes = [
        subprocess.Popen([*start, *each, *common], env=unwatched, **quiet) for each in commands
    ]
    try:
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(WORKERS)
            yield client
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


Spent = Callable[[], dict[str, float]]
"""Gives the seconds of processor time that each kind of process has taken until now."""


def measure(name: str, bids: Path, out: Path, spent: Spent, **how: Any) -> None:
    """Run a cohort; print milliseconds a subject.

    Parameters
    ----------
    name
        Of the row.
    bids, out, **how
        As for `run_cohort`.
    spent
        By whom.
    """
    before, began = spent(), time.perf_counter()
    results = run_cohort(bids, out, packaged_model("MSP"), TARGET, **how)
    took, count = time.perf_counter() - began, len(results)
    after = spent()
    hands = 1 if how.get("scheduler") is None and how.get("workers", 1) == 1 else WORKERS
    inside = float(np.mean([result.seconds for result in results]))
    each = 1000 * took / count
    beside = each - 1000 * inside / hands
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(r.status for r in results).items())
    computed = ", ".join(f"{who} {1000 * (after[who] - before[who]) / count:.1f}" for who in after)
    said = f"{each:7.1f} ms a subject, {1000 * inside:7.1f} in its job, {beside:6.1f} beside jobs"
    print(f"{name:40} {said}; processor: {computed} ({kinds})", flush=True)


def largest() -> float:
    """Give the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def taken() -> float:
    """Give the memory that this process has, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def in_the_middle(bids: Path, out: Path, whose: list[str]) -> None:
    """Have a process harmonize, and kill it when it has done half of them."""
    command = [sys.executable, "-m", "napari_msp", "cohort", str(bids), str(out), "participant"]
    command += ["--model", "msp-teaching", "--target", TARGET, "--participant-label", *whose]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list(out.glob("sub-*"))) < len(whose) // 2 and process.poll() is None:
            time.sleep(0.2)
        process.kill()


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
        labels = [f"{number:06d}" for number in range(1, count + 1)]
        few, some = labels[:WORKERS], labels[: max(1, count * 3 // 10)]
        print(f"{count} subjects, {WORKERS} workers; load {os.getloadavg()[0]:.1f}")
        # Whoever asks reads the model, with torch, once.
        measure("first: torch and the model", bids, folder / "first", here, participants=few[:1])
        measure("here, a job that does nothing", bids, folder / "a", here, job=nothing)
        before = largest()
        in_the_middle(bids, folder / "b", some)
        whose: dict[str, Any] = {"participants": some}
        measure("here, harmonize what a kill left", bids, folder / "b", here, **whose)
        print(f"most memory: {largest():.0f} MiB, {before:.0f} before the first of them")
        measure("here, all finished earlier", bids, folder / "b", here, **whose)
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
                bids, folder / "c", all_of_them, job=nothing, participants=few, **through,
            )  # fmt: skip
            measure("… nothing", bids, folder / "d", all_of_them, job=nothing, **through)

            def look(_: CohortResult, done: int, total: int) -> None:
                if done in {10, total // 10, total // 2, total}:
                    print(f"memory after {done}:", *map(round, client.run(taken).values()), "MiB")

            measure("… harmonize", bids, folder / "e", all_of_them, progress=look, **through)
            print("most memory:", *(f"{each:.0f} MiB" for each in client.run(largest).values()))
        review(folder / "e")


def review(out: Path) -> None:
    """Write what the level of the group does; print what it takes."""
    began, before = time.perf_counter(), time.process_time()
    said = list(summarise_cohort(out).lines())
    page = review_report(open_review(out))
    took, computed = time.perf_counter() - began, time.process_time() - before
    print(
        f"group: {len(said)} lines, {page.stat().st_size / 2**20:.1f} MiB of HTML; {took:.1f} s, "
        f"{computed:.1f} of the processor; most memory {largest():.0f} MiB"
    )


if __name__ == "__main__":
    main()
