"""One joint model of two shells against one model a shell, and the two ways to take shells.

    python benchmarks/shells.py FOLDER [--minutes M]

makes seven tiny simulated heads at b = 1200 and 3000 in FOLDER, trains, and writes
`benchmarks/shells.md`. Heads 1 to 4 teach, head 5 chooses each method's learning rate, heads 6 and
7 are measured on their noise-free twins. Every result is kept in FOLDER: run again, it goes on
where it stopped. About twenty minutes on one core.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kept import tiny_heads

from napari_msp import harmonize, load_model, load_scan, train
from napari_msp.data.dataset import open_dataset
from napari_msp.data.phantom.simulate import phantom_digest
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.learning.settings import TrainingSettings

SHELLS = (1200.0, 3000.0)
SEED = 1700
SUBJECTS, VALIDATION, TESTS = 7, "sub-05", ("sub-06", "sub-07")
INPUT, TARGET, OTHER = "ge_st", "prisma_st", "connectom_st"
STEPS = {"shresnet": 200, "msp": 50}
RATES = (2e-3,)
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "one model a shell": ({}, 1),
    "joint, each shell by itself": ({"trunk": "each"}, 1),
    "joint, all at once": ({"trunk": "all"}, 1),
    "joint, all at once, twice the steps": ({"trunk": "all"}, 2),
    "joint, each shell by itself, twice the steps": ({"trunk": "each"}, 2),
    "joint, all at once, four times the steps": ({"trunk": "all"}, 4),
}
LONG = ("joint, each shell by itself, twice the steps", "joint, all at once, four times the steps")
"""Of a single network alone."""

RESULTS = Path(__file__).with_suffix(".md")


def main() -> None:
    """Do what is not done yet, and write the table of what there is."""
    folder, kept, minutes = tiny_heads(__doc__, SUBJECTS, SEED, b_value=SHELLS)
    jobs = [
        (f"{kind}|{method}|{rate:g}|{shell or 'both'}", partial(measured, folder, *cell))
        for cell in cells()
        for kind, method, rate, shell in [cell]
    ]
    if kept.run(jobs, minutes):
        RESULTS.write_text(report(folder / "heads", kept.results))


def cells() -> list[tuple[str, str, float, float | None]]:
    """List what is trained: the network, the method, its rate, and the shell where it has one."""
    return [
        (kind, method, rate, shell)
        for kind in STEPS
        for method in METHODS
        if kind != "msp" or method not in LONG
        for rate in RATES
        for shell in (SHELLS if method == "one model a shell" else (None,))
    ]


def measured(
    folder: Path, kind: str, method: str, rate: float, shell: float | None
) -> dict[str, Any]:
    """Train one model; give its errors by head and shell, its weights and its time."""
    settings, times = METHODS[method]
    out = folder / "model.safetensors"
    began = time.perf_counter()
    train(
        folder / "heads",
        out,
        TrainingSettings(
            start_from="nothing",
            kind=kind,
            width=0.25,
            input=INPUT,
            targets=(TARGET,) if kind == "shresnet" else (TARGET, OTHER),
            subjects=tuple(f"sub-{n:02d}" for n in range(1, 5)),
            b_value=shell or SHELLS,
            batch=2,
            crop=10,
            epochs=1,
            steps_per_epoch=int(STEPS[kind] * times),
            learning_rate=rate,
            **settings,
        ),
        device="cpu",
        force=True,
    )
    seconds = time.perf_counter() - began
    model, dataset = load_model(out), open_dataset(folder / "heads")
    errors: dict[str, dict[str, float]] = {}
    for subject in (VALIDATION, *TESTS):
        prediction = harmonize(model, dataset.acquisition(subject, INPUT), TARGET)
        twin = dataset.noise_free(subject, TARGET)
        assert twin is not None
        errors[subject] = {
            str(name): error(part, twin) for name, part in prediction.by_shell().items()
        }
    weights = sum(each.numel() for each in model.single(TARGET).parameters())
    return {"errors": errors, "weights": weights, "seconds": seconds}


def error(prediction: Any, twin: Any) -> float:
    """Give the SH MSE of one shell against the noise-free twin."""
    from napari_msp import fit_sh

    truth = fit_sh(twin, b_value=float(prediction.shells[0]))
    truth = on_lattice(truth, prediction.sh.lattice)
    inside = truth.mask & prediction.sh.mask
    difference = prediction.sh.coefficients[inside] - truth.coefficients[inside]
    return float(np.square(difference, dtype=float).mean())


def untouched(heads: Path) -> dict[str, float]:
    """Give the error of no harmonization by shell, over the test heads."""
    dataset = open_dataset(heads)
    found: dict[str, list[float]] = {}
    for subject in TESTS:
        twin = dataset.noise_free(subject, TARGET)
        for name, part in load_scan(dataset.scans[subject, INPUT]).by_shell().items():
            found.setdefault(str(name), []).append(error(part, twin))
    return {name: float(np.mean(values)) for name, values in found.items()}


def chosen(results: dict[str, Any], kind: str, method: str) -> dict[str, Any] | None:
    """Give a method's results at the rate that is best on the validation head."""
    found = []
    for rate in RATES:
        start = f"{kind}|{method}|{rate:g}|"
        runs = [value for name, value in results.items() if name.startswith(start)]
        if len(runs) < (len(SHELLS) if method == "one model a shell" else 1):
            return None
        joined: dict[str, dict[str, float]] = {}
        for run in runs:
            for subject, by_shell in run["errors"].items():
                joined.setdefault(subject, {}).update(by_shell)
        found.append(
            {
                "rate": rate,
                "errors": joined,
                "weights": sum(run["weights"] for run in runs),
                "seconds": sum(run["seconds"] for run in runs),
            }
        )
    return min(found, key=lambda each: np.mean(list(each["errors"][VALIDATION].values())))


def report(heads: Path, results: dict[str, Any]) -> str:
    """Write the table."""
    rows = [
        "| | rate | weights | s | b = 1200 | b = 3000 | mean |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    none = untouched(heads)
    values = [1e5 * none[str(int(shell))] for shell in SHELLS]
    rows.append(
        "| no harmonization | | | | "
        + " | ".join(f"{value:.1f}" for value in (*values, np.mean(values)))
        + " |"
    )
    for kind in STEPS:
        for method in METHODS:
            best = chosen(results, kind, method)
            if best is None:
                continue
            by_head = [
                [1e5 * best["errors"][subject][str(int(shell))] for shell in SHELLS]
                for subject in TESTS
            ]
            cells = [
                f"{np.mean(column):.1f} ({' / '.join(f'{value:.1f}' for value in column)})"
                for column in zip(*by_head, strict=True)
            ]
            rows.append(
                f"| {kind}: {method} | {best['rate']:g} | {best['weights']:,} | "
                f"{best['seconds']:.0f} | {' | '.join(cells)} | {np.mean(by_head):.1f} |"
            )
    return TEXT.format(table="\n".join(rows), digest=phantom_digest(), seed=SEED, **STEPS)


TEXT = """\
# Two shells: one joint model, or one model per shell

Written by `python benchmarks/shells.py FOLDER`.

`--trunk each` applies one trunk to each shell; `--trunk all` gives both shells to one network at
once.

- One trunk applied to each shell has the error of two models with as many steps, with half the
  weights (26.6 against 26.6; MSP 30.0 against 30.4).
- A step of it computes two passes, where a network that takes both shells at once computes one.
  With as many passes, the latter is ahead by 2 to 4 % while training is short (25.6 against 26.6;
  MSP 29.3 against 30.0), and behind by 18 % when training is doubled (25.5 against 21.7).

`--trunk each` is therefore the default.

The table has the SH MSE of prisma_st, predicted from ge_st, in 10⁻⁵ SH units², with each head's own
in brackets. Seven tiny simulated heads (seed {seed}, phantom `{digest}`) have b = 1200 and 3000:
four teach, one chooses the learning rate where there are several to choose from, and two are
measured on their noise-free twins. Width 0.25, batches of two crops of 10³; {shresnet} steps for a
single network, {msp} for each phase of an MSP over two targets. Weights and seconds (one core,
shared with others) are of both shells together.

{table}

The machine was busy: do not compare the seconds. There is one seed, one learning rate for all, and
two heads of one block of a brain: another seed or rate may change the numbers by a few per cent.
"""


if __name__ == "__main__":
    main()
