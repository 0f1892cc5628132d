"""What a few travelling heads teach: base against nothing, MSP against single networks.

    python benchmarks/few_heads.py FOLDER [--parts …] [--minutes M] [--base MODEL] [--sets FAR]

Parts, in this order; run again, each goes on where it stopped, one small file a finished cell:

step-times     a step of every method, alone on one core: what seconds are counted by
rates          the learning rate of each method, on the three choosing sets, one head, 300 steps
curves         one head of one measuring set, every method, from zero steps to the plateau
ten-minutes    0, 1, 2 and 4 heads of every measuring set, as many steps as 600 s of a core allow
biology        what comes through of a weaker bundle, a lesion and a structure that is not there
semireal       a real slab seen through simulated scanners (`semireal.py` writes it), five times

FOLDER/page.md has every table and every goal with what was measured, and is printed; curves.png
beside it shows errors against steps and against seconds. Far sets are made in FOLDER/far unless
`--sets` says where they lie (an hour for all six on one core). The whole takes about two hours on
two cores for the curves, and three for the ten-minute runs with four methods; two processes may
share a FOLDER if their `--methods` differ.
`--smoke` runs all parts on tiny heads for two minutes: it shows that the parts fit, nothing else.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from far.sets import SETS, FarSet
from far.writing import write_set
from few.biology import biology
from few.cells import SCALES, Bench, run_cell, step_times
from few.figure import draw_curves
from few.methods import METHODS, STATISTICS_ONLY, available
from few.plan import GROUPS, PARTS, Plan, at_chosen_rates, cells_of, times_of
from few.report import page

from napari_msp import packaged
from napari_msp.files import write_json, write_text
from napari_msp.strict_json import read_json

SMOKE_EDGE = 13
"""Voxels an axis of heads that only show that everything fits."""

SMOKED = (
    "alignment",
    "IQT",
    STATISTICS_ONLY,
    "SHResNet, from nothing",
    "SHResNet, from base",
    "MSP, from nothing",
    "MSP, from base",
)


def main(arguments: list[str] | None = None) -> int:
    """Do what is not done yet; write the page of what there is."""
    options = parsed(arguments)
    torch.set_num_threads(1)
    plan = plan_of(options)
    bench = bench_of(options, plan)
    bench.folder.mkdir(parents=True, exist_ok=True)
    stop_at = time.monotonic() + 60 * options.minutes

    def stop() -> bool:
        return bool(time.monotonic() > stop_at)

    bench.check()
    finished = True
    for part in options.parts:
        finished &= run_part(part, plan, bench, stop)
    write_page(bench, options, arguments)
    return 0 if finished else 3


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=1e6, help="then stop; run again to go on")
    parser.add_argument("--sets", type=Path, help="folder that `python -m far make` wrote")
    parser.add_argument("--semireal", type=Path, help="dataset that semireal.py wrote")
    parser.add_argument("--base", type=Path, help="model to start from; default: the packaged base")
    parser.add_argument("--wide-base", type=Path, help="one network of as many weights as an MSP")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--targets", nargs="+", choices=list(SCALES), default=list(SCALES))
    parser.add_argument("--choosing", nargs="+", choices=list(SETS), help="sets of the rates")
    parser.add_argument("--measuring", nargs="+", choices=list(SETS), help="sets of all the rest")
    parser.add_argument("--rates", nargs="+", type=float, help="learning rates that are tried")
    parser.add_argument(
        "--rate", type=float, help="that was chosen before: no rates part is needed"
    )
    parser.add_argument("--lengths", nargs="+", type=int, help="steps a target of the curves")
    parser.add_argument("--times", nargs="+", type=float, help="seconds of the semi-real runs")
    parser.add_argument(
        "--groups", nargs="+", type=int, choices=list(GROUPS), help="heads, ten-minute runs"
    )
    parser.add_argument("--repeats", type=int, default=1, help="groups of heads, ten-minute runs")
    parser.add_argument("--out", type=Path, help="page to write besides FOLDER/page.md")
    parser.add_argument("--smoke", action="store_true", help="everything tiny, in two minutes")
    return parser.parse_args(arguments)


def plan_of(options: argparse.Namespace) -> Plan:
    """Give what the options ask for."""
    plan = Plan(
        tuple(options.methods),
        tuple(sorted(options.targets, key=list(SCALES).index)),
        repeats=options.repeats,
    )
    coarse = tuple(each for each in plan.semireal_targets if each in plan.targets)
    plan = replace(
        plan,
        semireal_targets=coarse,
        choosing=tuple(options.choosing or plan.choosing),
        measuring=tuple(options.measuring or plan.measuring),
        rates=tuple(options.rates or plan.rates),
        rate=options.rate or plan.rate,
        groups=tuple(options.groups or plan.groups),
        lengths=tuple(options.lengths or plan.lengths),
        times=tuple(options.times or plan.times),
    )
    if not options.smoke:
        return plan
    return replace(
        plan,
        choosing=plan.choosing[:1],
        measuring=plan.measuring[:1],
        methods=tuple(each for each in plan.methods if each in SMOKED),
        targets=tuple(each for each in plan.targets if each != "strong_st"),
        semireal_targets=("new_st",),
        lengths=(1,),
        rates=(1e-3, 2e-3),
        rate_steps=1,
        seconds=0.2,
        groups=(1, 4),
        times=(0.1,),
    )


def bench_of(options: argparse.Namespace, plan: Plan) -> Bench:
    """Find or make the sets, and find what is started from."""
    folder: Path = options.folder
    sets = options.sets or folder / "far"
    wanted = (*plan.choosing, *plan.measuring)
    for name in wanted:
        if not (sets / name).exists():
            print(f"making {name}", flush=True)
            make_set(sets / name, SETS[name], options.smoke)
    bases = {}
    if options.base is not None:
        bases["base"] = str(options.base.absolute())
    elif packaged.base_model() is not None:
        bases["base"] = "base"
    if options.wide_base is not None:
        bases["wide base"] = str(options.wide_base.absolute())
    found = {name: sets / name for name in wanted}
    if options.semireal is not None:
        found["semireal"] = options.semireal
    bench = Bench(folder, found, bases, scales={name: SCALES[name] for name in plan.targets})
    if not options.smoke:
        return bench
    return replace(bench, batch=1, crop=6, tests=("sub-05",), edge=SMOKE_EDGE)


def make_set(out: Path, which: FarSet, tiny: bool) -> None:
    write_set(out, which, edge=SMOKE_EDGE) if tiny else write_set(out, which)


def run_part(part: str, plan: Plan, bench: Bench, stop: Callable[[], bool]) -> bool:
    """Run the cells of a part that have no row; tell whether all have one now."""
    if part == "step-times":
        for name in available(plan.methods, bench.bases):
            for run in plan.runs(name) if METHODS[name].trained else []:
                if stop():
                    return False
                print(
                    name, run, step_times(bench, METHODS[name], run, plan.choosing[0]), flush=True
                )
        return True
    for cell in cells_of(part, plan, bench):
        if part == "biology":
            if stop():
                return False
            biology(bench, cell)
            continue
        if bench.path(cell).exists():
            continue
        if stop():
            return False
        row = run_cell(bench, cell, times_of(plan, bench, cell.method, cell.targets), stop)
        if row is None:
            print(f"stopped: {cell.key}", flush=True)
            return False
        errors = {
            target: [round(1e5 * head["noise-free"]["sh_mse"], 2) for head in heads.values()]
            for target, heads in row["errors"].items()
        }
        print(f"{cell.key} {row.get('seconds', 0):.0f} s {errors}", flush=True)
    return True


def write_page(bench: Bench, options: argparse.Namespace, arguments: list[str] | None) -> None:
    """Write the tables, with every command that they come from."""
    kept = bench.folder / "commands.json"
    commands = read_json(kept)["commands"] if kept.exists() else []
    given = sys.argv[1:] if arguments is None else arguments
    named = [Path(each).name if "/" in each else each for each in given]  # wherever it lay
    command = shlex.join(["python", "benchmarks/few_heads.py", *named])
    commands = list(dict.fromkeys([*commands, command]))
    write_json(kept, {"commands": commands})
    times = bench.folder / "times.json"
    text = page(bench, commands, read_json(times) if times.exists() else {})
    write_text(bench.folder / "page.md", text)
    draw_curves(at_chosen_rates(bench.rows()), bench.folder / "curves.png")
    if options.out is not None:
        write_text(options.out, text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
