"""What aligning the heads gains a network that learns from them.

    python benchmarks/aligned_training.py FOLDER [--minutes M]

makes tiny simulated heads in FOLDER: never moved, moved between scans, and the latter aligned by
`align`; trains an MSP and a single network on each, with equal steps and from equal weights; and
measures them on held-out heads that never moved, against their noise-free twins. Results are kept
in FOLDER: run again, it goes on where it stopped. `--report` prints the tables of what there is.
"""

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept

from napari_msp import (
    Prediction,
    SHImage,
    align,
    fit_sh,
    fractional_anisotropy,
    harmonize,
    load_model,
    train,
)
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.dataset import open_dataset
from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.simulate import phantom_digest, write_scan
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.learning.settings import TrainingSettings

INPUT, TARGETS = "ge_st", ("prisma_st", "connectom_st")
TAUGHT, TESTS = 4, 3
"""Heads of a dataset: the first ones teach, the last ones are measured."""

SEEDS = (1701, 1702)
"""Of the heads, and of weights, sampling and augmentation."""

MOVES = (4.0, 1.0)
"""Shift in mm of each scan but the input's, in a random way; it turns by as much at 60 mm from the
centre. Lying down anew moves a head by the larger one or more, a poor registration leaves the
smaller one."""

STEPS = {"shresnet": 120, "msp": 40}
"""A single network's, and those of each phase of an MSP over both targets."""

HEAD = """\
phantom {digest}

| network | taught by heads | SH MSE | FA error | SH MSE over never moved's |
| --- | --- | --: | --: | --: |
"""

Errors = dict[str, dict[str, float]]
"""SH MSE and mean absolute error of FA, by head and target."""


def main() -> None:
    """Do what is not done yet, and print the tables of what there is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60, help="begin nothing after that")
    parser.add_argument("--report", action="store_true", help="do nothing but print")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = Kept(options.folder / "results.json")
    if not options.report:
        jobs = [
            (name, partial(trained, options.folder, seed, way, kind))
            for name, seed, way, kind in trainings()
        ]
        kept.run(jobs, options.minutes, lambda each: averages(each).round(2))
    print(report(kept.results))


def trainings() -> list[tuple[str, int, str, str]]:
    """List what is trained: its name, the heads' seed and how they lie, and the network."""
    first, *others = [[f"{how} {move:g} mm" for how in ("moved", "aligned")] for move in MOVES]
    return [
        (f"{kind}|{way}|{seed}", seed, way, kind)
        for ways in (["never moved", *first], *others)
        for seed in SEEDS
        for way in ways
        for kind in STEPS
    ]


def dataset(folder: Path, seed: int, way: str) -> Path:
    """Make heads that lie as is said, where they are not there yet; give their folder."""
    path = folder / f"{way.replace(' ', '-')}-{seed}"
    if path.exists():
        return path
    if way.startswith("aligned"):
        moved = dataset(folder, seed, way.replace("aligned", "moved"))
        align(moved, path, input=INPUT)
        return path
    misalignment = 0.0 if way == "never moved" else float(way.split()[1])
    count = TAUGHT + (TESTS if misalignment == 0 else 0)
    platforms = tuple(platform_named(name) for name in (INPUT, *TARGETS))
    for index in range(count):
        for scan in simulate_subject(index, platforms, "tiny", seed, misalignment=misalignment):
            write_scan(path, scan)
    return path


def trained(folder: Path, seed: int, way: str, kind: str) -> Errors:
    """Train one network a target, or one MSP over both; give its errors on the test heads."""
    out = folder / "model.safetensors"
    errors: Errors = {}
    for targets in [TARGETS] if kind == "msp" else [(each,) for each in TARGETS]:
        settings = TrainingSettings(
            start_from="nothing",
            kind=kind,
            width=0.25,
            input=INPUT,
            targets=targets,
            subjects=tuple(f"sub-{index + 1:02d}" for index in range(TAUGHT)),
            batch=2,
            crop=10,
            epochs=1,
            steps_per_epoch=STEPS[kind],
            learning_rate=2e-3,
            seed=seed,
        )
        train(dataset(folder, seed, way), out, settings, device="cpu", force=True)
        model, still = load_model(out), open_dataset(dataset(folder, seed, "never moved"))
        for index in range(TAUGHT, TAUGHT + TESTS):
            subject = f"sub-{index + 1:02d}"
            for target in targets:
                prediction = harmonize(model, still.acquisition(subject, INPUT), target)
                twin = still.noise_free(subject, target)
                assert twin is not None
                errors[f"{subject} {target}"] = measured(prediction, twin)
    return errors


def measured(prediction: Prediction, twin: Acquisition) -> dict[str, float]:
    """Compare with the noise-free scan on its lattice, FA through the SH series for both."""
    truth, found = fit_sh(twin), prediction.sh
    assert isinstance(truth, SHImage)
    assert isinstance(found, SHImage)
    found = on_lattice(found, truth.lattice)
    inside = truth.mask & found.mask
    square = np.square(found.coefficients - truth.coefficients, dtype=float)[inside]
    fa = np.abs(fractional_anisotropy(found) - fractional_anisotropy(truth))[inside]
    return {"sh": float(square.mean()), "fa": float(fa.mean(dtype=float))}


def averages(errors: Errors) -> Any:
    """Give (2,) mean SH MSE in 1e-5 and error of FA in 1e-3."""
    return np.mean([[1e5 * each["sh"], 1e3 * each["fa"]] for each in errors.values()], axis=0)


def report(results: dict[str, Errors]) -> str:
    """Write a table a network: a dataset's mean over heads and targets, and what was gained."""
    rows = []
    for kind, title in (("msp", "MSP"), ("shresnet", "single network")):
        for way in dict.fromkeys(way for _, _, way, _ in trainings()):
            runs = {seed: results.get(f"{kind}|{way}|{seed}") for seed in SEEDS}
            known = {seed: errors for seed, errors in runs.items() if errors is not None}
            if not known:
                continue
            means = np.array([averages(errors) for errors in known.values()])
            cells = [
                f"{column.mean():.1f} ({' / '.join(f'{value:.1f}' for value in column)})"
                for column in means.T
            ]
            rows.append(
                f"| {title} | {way} | {cells[0]} | {cells[1]} | {gain(results, kind, way)} |"
            )
    head = "| network | taught by heads | SH MSE | FA error | SH MSE over never moved's |\n"
    return f"phantom {phantom_digest()}\n\n{head}| --- | --- | --: | --: | --: |\n" + "\n".join(
        rows
    )


def gain(results: dict[str, Errors], kind: str, way: str) -> str:
    """Give the mean ratio of SH MSE to that of never-moved heads, and its range over test heads."""
    ratios = []
    for seed in SEEDS:
        errors, still = (results.get(f"{kind}|{each}|{seed}") for each in (way, "never moved"))
        if errors is None or still is None:
            continue
        ratios += [errors[name]["sh"] / still[name]["sh"] for name in errors]
    if way == "never moved" or not ratios:
        return ""
    return f"{np.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)})"


if __name__ == "__main__":
    main()
