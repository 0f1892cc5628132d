"""Write far sets, or check that they are what they were; see `far`."""

import argparse
import sys
from pathlib import Path

from far.digests import KEPT, digest
from far.sets import HEADS, SETS, make_head
from far.writing import write_set
from napari_msp.files import write_json
from napari_msp.strict_json import read_json


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m far", description=__doc__)
    jobs = parser.add_subparsers(dest="job", required=True)
    make = jobs.add_parser("make", help="write sets as BIDS datasets")
    make.add_argument("out", type=Path, help="folder that gets one folder a set")
    check = jobs.add_parser("check", help="make them anew and compare with the digests")
    for job in (make, check):
        job.add_argument("--keep", action="store_true", help="write the digests instead")
        job.add_argument("sets", nargs="*", help="default: all")
    options = parser.parse_args()
    kept = read_json(KEPT) if KEPT.exists() else {}
    changed = 0
    for which in (SETS[name] for name in options.sets or SETS):
        if options.job == "make":
            if (options.out / which.name).exists():
                continue
            found = write_set(options.out / which.name, which)
        else:
            found = [digest(make_head(which, number)) for number in range(HEADS)]
        same = kept.get(which.name) == found
        changed += not same
        print(f"{which.name}: {' '.join(found)} {'as kept' if same else 'NOT as kept'}", flush=True)
        if options.keep:
            kept[which.name] = found
            write_json(KEPT, kept)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
