"""Measure this package beside its peers, and compare with the ratios that were kept.

    make bench [QUICK=1] [ONLY=maps] [KEEP=1]
    PYTHONPATH=benchmarks python -m bench [--quick] [--only NAME ...] [--keep] [--threads N]

Prints each ratio beside the one that was kept, and names those that fell beyond their spread: the
exit status is then 1. What is not in benchmarks/RESULTS.md yet is written into it; with --keep,
what is there is replaced. A peer that is not installed is said, and its rows stay.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench import machine
from bench.comparing import Setting
from bench.running import Bench

SUBJECTS = (
    "maps",
    "inference",
    "training",
    "start",
)
"""Modules of this package with a `SUBJECT`, in the order of the page."""

FOLDER = Path(__file__).parents[1]
RESULTS = FOLDER / "results" / "bench.json"
PAGE = FOLDER / "RESULTS.md"

THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MRTRIX_NTHREADS")
"""Variables by which libraries and programs are told how many threads to use."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="smaller inputs: minutes")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="subjects, parts of names; in order"
    )
    parser.add_argument("--keep", action="store_true", help="replace what was kept")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="default: all cores")
    options = parser.parse_args(arguments)
    # Before NumPy and torch are imported, which is when they read it.
    os.environ |= dict.fromkeys(THREADED, str(options.threads))
    subjects = [import_module(f"bench.{name}").SUBJECT for name in SUBJECTS]
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(options.quick, options.threads, Path(folder))
        bench = Bench(subjects, setting, RESULTS, PAGE, keep=options.keep)
        return bench.run(options.only)


if __name__ == "__main__":
    sys.exit(main())
