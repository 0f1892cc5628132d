"""Jobs of a cohort for workers that are processes of their own: quick to import there."""

import json
import os
import signal
import threading
import time

import numpy as np

from napari_msp.errors import UserError


def record(dwi, model, targets, out, **options):
    """Leave a mark; what is said of the job itself is in the folder `about`."""
    with running(out):
        time.sleep(0.1)


def means(dwi, model, targets, out, **options):
    """Leave what the job may take: GiB, threads of torch and of BLAS, and what it is spared.

    That is whether its worker keeps no profile, and has the memory of an array for the next one.
    """
    import torch
    from distributed import get_worker
    from threadpoolctl import threadpool_info

    blas = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    out.mkdir(parents=True)
    before = mib_cleared()
    for _ in range(8):
        np.ones(2**20)  # 8 MiB
    found = {
        "memory": options["options"].memory,
        "threads": [torch.get_num_threads(), max(blas)],
        "profiled": "profile" in get_worker().periodic_callbacks,
        "MiB cleared": mib_cleared() - before,
    }
    (out / "means.json").write_text(json.dumps(found))


def mib_cleared():
    import resource  # there is none on Windows

    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return pages * resource.getpagesize() / 2**20


def bad_at_two(dwi, model, targets, out, **options):
    if "sub-02" in dwi.name:
        raise UserError("is odd", dwi)


def killed_once(dwi, model, targets, out, **options):
    """Harmonize; with sub-02's first worker that is killed before it can say so."""
    from napari_msp.inference.outputs import harmonize_to_folder

    first = out.parents[3] / "killed"
    harmonize_to_folder(dwi, model, targets, out, **options)
    if "sub-02" in dwi.name and not first.exists():
        first.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(dwi, model, targets, out, **options):
    if "sub-02" in dwi.name:
        os.kill(os.getpid(), signal.SIGKILL)


def endless(dwi, model, targets, out, **options):
    (out.parents[3] / "began").touch()
    time.sleep(60)


class running:  # noqa: N801 - reads as what it is
    """How many jobs run at once in all processes, and in this one."""

    def __init__(self, out):
        self.folder = out.parents[3] / "running"
        self.mark = self.folder / f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"

    def __enter__(self):
        self.folder.mkdir(exist_ok=True)
        self.mark.touch()
        there = [path.name for path in self.folder.iterdir() if path.suffix != ".json"]
        own = [name for name in there if name.startswith(f"{os.getpid()}-")]
        self.mark.with_suffix(".json").write_text(json.dumps([len(there), len(own)]))

    def __exit__(self, *_):
        self.mark.unlink()
