"""Compare starts on far sets: what is left of the error after tuning; resumable.

    python -m base.search RESULTS.json --start NAME=nothing|MODEL.safetensors ... [--sets ...]
        [--heads 1 2 4] [--targets ...] [--network single|msp] [--steps 300] [--rate 1.5e-3]

Run from benchmarks/, on the sets that `python -m far make FAR` wrote. Results are SH MSE on
noise-free truth, in 1e-5, two heads measured.
"""

import argparse
from pathlib import Path

import torch
from far.sets import CHOOSING

from base.judging import Tuning, msp_from, single_from, study_of, tuned_error
from napari_msp.files import write_json
from napari_msp.strict_json import read_json


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--start", nargs="+", required=True)
    parser.add_argument("--far", type=Path, default=Path("/tmp/far"))
    parser.add_argument("--sets", nargs="+", default=[each.name for each in CHOOSING])
    parser.add_argument("--heads", nargs="+", type=int, default=[1])
    parser.add_argument("--targets", nargs="+", default=["new_st", "strong_st", "strong_sa"])
    parser.add_argument("--network", choices=["single", "msp"], default="single")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--width", type=float, default=0.28)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = read_json(options.results) if options.results.exists() else {}
    for heads in options.heads:
        for name in options.sets:
            for target in options.targets:
                for start in options.start:
                    label, source = start.split("=", 1)
                    key = (
                        f"{name} {target} {heads} {options.network} {label} "
                        f"{options.steps} {options.rate:g}"
                    )
                    if key in results:
                        continue
                    people = [f"sub-{number + 1:02d}" for number in range(heads)]
                    study = study_of(options.far, name, people, options.far / "cache")
                    if options.network == "single":
                        scale = study.scales[target]
                        network = single_from(source, target, scale, options.width, 0)
                    else:
                        network = msp_from(source, target, study.scales, options.width, 0)
                    tuning = Tuning(options.steps, options.rate)
                    found = tuned_error(study, network, target, tuning)
                    results[key] = {what: round(value, 2) for what, value in found.items()}
                    write_json(options.results, results)
                    print(key, results[key], flush=True)


if __name__ == "__main__":
    main()
