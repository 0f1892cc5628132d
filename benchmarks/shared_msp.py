"""First stages of each target's own against one set for all, at equal seconds for all targets.

    python benchmarks/shared_msp.py FOLDER [--minutes M]

makes five tiny simulated heads in FOLDER, trains, and writes `benchmarks/shared_msp.md`. Heads 1
and 2 teach; heads 3 and 4 are what forms are chosen by, on their noise-free twins; head 5 is not
touched. Every form gets the steps that fit `SECONDS` of one core's time for all its targets
together, at the time that a step of each of its phases takes (measured beforehand, as processor
time, so that other work on the machine counts little). Every result is kept in FOLDER: run again,
it goes on where it stopped. About twenty minutes on one core.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from kept import tiny_heads
from simulated import truth_of

from napari_msp import harmonize, load_model, train
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.phantom.simulate import phantom_digest
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.learning import schedule
from napari_msp.learning.events import Event, Step

SEED, SUBJECTS = 7, 5
TRAINING, VALIDATION = ("sub-01", "sub-02"), ("sub-03", "sub-04")
INPUT, TARGETS = "ge_st", ("prisma_st", "connectom_st", "connectom_sa")
COMMON: dict[str, Any] = {"batch": 2, "crop": 8, "input": INPUT, "start_from": "nothing"}
SECONDS = 30.0
"""Of one core, for a whole training."""

SHARE = 2 / 3
"""Steps in unison for one of the single networks' before them, as in the fast preset."""

OWN, SHARED = {"first_stages": "own"}, {"first_stages": "shared"}
FIRST, AT_ONCE = {"singles_first": "yes"}, {"singles_first": "no"}
TOGETHER = SHARED | AT_ONCE
FORMS: dict[str, dict[str, Any]] = {
    "own, singles first": OWN | FIRST,
    "shared, in unison from the first step": TOGETHER,
    "shared, singles first": SHARED | FIRST,
    "single networks alone": {"kind": "single"},
    "shared, in unison, branches from nothing": TOGETHER | {"branch_start": "nothing"},
    "shared, in unison, branches from the input": TOGETHER | {"branch_start": "input"},
    "shared, in unison, α raised over half of it": TOGETHER | {"alpha_ramp": 0.5},
    "shared, in unison, features of the middle": TOGETHER | {"features": "middle"},
    "own, in unison from the first step": OWN | AT_ONCE,
}
"""Settings of each; "kind" single: SHResNet and DIQT by themselves; "alpha_ramp" is a recipe's."""

AGAIN = tuple(FORMS)[:4]
CELLS = [(name, 0.15, 0) for name in FORMS]
CELLS += [(name, 0.15, 1) for name in AGAIN[:3]]
CELLS += [(name, 0.28, 0) for name in AGAIN]
RESULTS = Path(__file__).with_suffix(".md")


def main() -> None:
    """Do what is not done yet, and write the table of what there is."""
    folder, kept, minutes = tiny_heads(__doc__, SUBJECTS, SEED)

    def cell(form: str, width: float, seed: int) -> dict[str, Any]:
        times = f"{form}|{width}"
        if times not in kept.results:
            kept.results[times] = trained(folder, form, width, 0, 5, 5)[1]
        return measured(folder, form, width, seed, kept.results[times])

    jobs = [("|".join(map(str, each)), partial(cell, *each)) for each in CELLS]
    kept.run(jobs, minutes)
    RESULTS.write_text(report(folder / "heads", kept.results))


def trained(
    folder: Path, form: str, width: float, seed: int, steps: int, unison: int
) -> tuple[dict[str, Path], dict[str, float]]:
    """Train a form; give the model of each target, and the seconds of a step of each phase."""
    values = COMMON | FORMS[form] | {"width": width, "seed": seed}
    ramp = values.pop("alpha_ramp", schedule.FAST.alpha_ramp)
    jobs = {"model": values | {"targets": TARGETS, "unison_steps": unison}}
    if values.get("kind") == "single":
        coarse, fine = TARGETS[:2], TARGETS[2:]
        jobs = {
            "coarse": values | {"kind": "shresnet", "targets": coarse},
            "fine": values | {"kind": "diqt", "targets": fine},
        }
    models: dict[str, Path] = {}
    times: dict[str, float] = {}
    for name, job in jobs.items():
        clock = Clock()
        out = folder / f"{name}.safetensors"
        with alpha_ramp(ramp):
            train(
                folder / "heads",
                out,
                subjects=TRAINING,
                steps=steps,
                device="cpu",
                force=True,
                progress=clock,
                **job,
            )
        models |= dict.fromkeys(job["targets"], out)
        times |= clock.times()
    return models, times


class Clock:
    """Takes the processor time between steps."""

    def __init__(self) -> None:
        self._last = time.process_time()
        self._taken: dict[str, list[float]] = {}

    def __call__(self, event: Event) -> None:
        """Take note of a step."""
        now = time.process_time()
        if isinstance(event, Step):
            self._taken.setdefault(event.phase, []).append(now - self._last)
        self._last = now

    def times(self) -> dict[str, float]:
        """Give the median of each phase."""
        return {phase: median(taken[1:] or taken) for phase, taken in self._taken.items()}


@contextmanager
def alpha_ramp(part: float) -> Iterator[None]:
    """Let α rise over a part of the unison phase while the block runs."""
    before = schedule.FAST
    schedule.FAST = replace(before, alpha_ramp=part)
    try:
        yield
    finally:
        schedule.FAST = before


def lengths(times: dict[str, float]) -> tuple[int, int]:
    """Give the steps of single networks and in unison that take `SECONDS`."""
    first = sum(t for phase, t in times.items() if not phase.startswith("msp"))
    unison = sum(t for phase, t in times.items() if phase.startswith("msp"))
    if not unison:
        return round(SECONDS / first), 1
    if not first:
        return 1, round(SECONDS / unison)
    steps = SECONDS / (first + SHARE * unison)
    return round(steps), round(SHARE * steps)


def measured(
    folder: Path, form: str, width: float, seed: int, times: dict[str, float]
) -> dict[str, Any]:
    """Train one form for its seconds; give its errors by target, and its steps."""
    steps, unison = lengths(times)
    models, taken = trained(folder, form, width, seed, steps, unison)
    dataset = open_dataset(folder / "heads")
    loaded = {path: load_model(path) for path in set(models.values())}
    errors = {
        target: [error(dataset, subject, target, loaded[path]) for subject in VALIDATION]
        for target, path in models.items()
    }
    weights = sum(each.numel() for model in loaded.values() for each in model.network.parameters())
    seconds = sum(t * (unison if p.startswith("msp") else steps) for p, t in taken.items())
    return {
        "errors": errors,
        "steps": [steps if len(taken) > 1 or unison == 1 else 0, unison if unison > 1 else 0],
        "weights": weights,
        "seconds": round(seconds, 1),
    }


def error(dataset: TravellingHeads, subject: str, target: str, model: Any) -> float:
    """Give the SH MSE against the noise-free twin, on its own lattice."""
    prediction = harmonize(model, dataset.acquisition(subject, INPUT), target, device="cpu").sh
    truth = truth_of(dataset, subject, target)
    moved = on_lattice(prediction, truth.lattice)
    inside = truth.mask & moved.mask
    difference = moved.coefficients[inside] - truth.coefficients[inside]
    return float(np.square(difference, dtype=float).mean())


def report(heads: Path, results: dict[str, Any]) -> str:
    """Write the table; ratios are geometric means over targets."""
    rows = []
    for form, width, seed in CELLS:
        cell = results.get(f"{form}|{width}|{seed}")
        if cell is None:
            continue
        base = results.get(f"own, singles first|{width}|{seed}")
        means = {target: float(np.mean(cell["errors"][target])) for target in TARGETS}
        each = [
            f"{1e5 * means[target]:.1f} "
            f"({' / '.join(f'{1e5 * value:.1f}' for value in cell['errors'][target])})"
            for target in TARGETS
        ]
        ratio = ""
        if base is not None:
            logs = [np.log(means[t] / np.mean(base["errors"][t])) for t in TARGETS]
            ratio = f"{np.exp(np.mean(logs)):.2f}"
        steps = " + ".join(f"{each:,}" for each in cell["steps"] if each)
        taken = f"{cell['weights']:,} | {steps} | {cell['seconds']:.0f}"
        rows.append(f"| {form} | {width:g} | {seed} | {taken} | {' | '.join(each)} | {ratio} |")
    return TEXT.format(
        seed=SEED,
        phantom=phantom_digest(),
        seconds=SECONDS,
        rows="\n".join(rows),
        columns=" | ".join(COLUMNS),
        lines=" | ".join(("---", *["--:"] * (len(COLUMNS) - 1))),
    )


TEXT = """# First stages for each target, or one set for all

Written by `python benchmarks/shared_msp.py FOLDER`.

The fast preset trains one set of first stages that all targets share, in unison from the first
step. The paper's form copies first stages for each target and trains single networks first
(`--first-stages own --singles-first yes`; `--preset paper` and `evaluate` train it).

- At equal seconds the paper's form is behind the single networks alone. It pays for every copy in
  each step, and so has had the fewest steps.
- One set for all targets does not have this cost. Training it in unison from the first step is
  ahead of training single networks first.
- Branches that start from nothing need longer than this.

The table has the SH MSE of tiny simulated heads (seed {seed}, phantom `{phantom}`) in 10⁻⁵ SH
units², with each head's own in brackets. Two heads teach; two others, on whose noise-free twins the
errors are measured, choose the form. The ratio is to "own, singles first" of the same width and
seed, as the geometric mean of three targets. Fast preset, batches of two crops of 8³. Every form
has the steps that fit {seconds:g} s of one core for all targets together: of each single network,
then in unison. s is the processor time that they took.

| {columns} |
| {lines} |
{rows}

There is one budget of half a minute, which is too short for every form, one learning rate for all,
one seed, and two heads of one block of a brain: another seed may change the numbers by a few per
cent. The script lists more forms, which were not tried here: other starts of branches, how α rises,
earlier features, and a larger width.
"""
COLUMNS = ("first stages", "width", "seed", "weights", "steps", "s", *TARGETS, "ratio")

if __name__ == "__main__":
    main()
