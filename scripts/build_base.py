"""Make the packaged base model anew: simulate what it learns from, train, write the model file.

    python scripts/build_base.py [--work /tmp/base-model] [--out MODEL.safetensors]

Run again after it was stopped, it goes on from what lies in its working folder. How it was chosen,
and what it gains, stands in benchmarks/base.md.
"""

import argparse
import sys
import time
from dataclasses import fields
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE / "benchmarks"))

from base.learning import Plan, learn  # noqa: E402
from base.model import write_model  # noqa: E402

PACKAGED = HERE / "src" / "napari_msp" / "models" / "base.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/base-model"))
    parser.add_argument("--out", type=Path, default=PACKAGED)
    parser.add_argument("--plan", nargs="*", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    plan = plan_of(options.plan)
    began = time.perf_counter()
    networks = learn(plan, options.work / "blocks", options.work / "checkpoints")
    write_model(networks, plan, options.work / "blocks", options.out)
    minutes = (time.perf_counter() - began) / 60
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, {minutes:.0f} minutes now")


def plan_of(given: list[str]) -> Plan:
    """Read what differs from the packaged base's plan."""
    kinds = {each.name: type(getattr(Plan(), each.name)) for each in fields(Plan)}
    changed = {}
    for entry in given:
        name, value = entry.split("=", 1)
        changed[name] = kinds[name](value)
    return Plan(**changed)


if __name__ == "__main__":
    main()
