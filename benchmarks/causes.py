"""What an MSP's advantage is owed to: with many examples and with few, from three starts.

    python benchmarks/causes.py HEADS --train sub-01 sub-02 --held-out sub-04 sub-05 sub-06

HEADS is a dataset of `napari-msp simulate` with its noise-free twins. For every way of drawing
examples (crops turned by grid symmetries, or never turned, as in the paper) it trains, for the same
steps a target: single networks from three seeds, a wide single network with an MSP's number of
weights, and an MSP with each start of its branches. The table has the SH MSE on the noise-free
twins of the held-out heads, for each target. Nobody is chosen by it.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from simulated import truth_of

from napari_msp.data.dataset import open_dataset
from napari_msp.evaluation.benchmark.trainings import matched_width, weights_of_msp
from napari_msp.evaluation.measures.catalogue import SH_ERRORS, measure_head
from napari_msp.evaluation.measures.pair import Truth
from napari_msp.inference.harmonize import harmonize
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.train import train
from napari_msp.model_file import load_model

KIND, WIDTH, STEPS, FIRST, EPOCH = "shresnet", 0.15, 600, 100, 50
TARGETS = ("prisma_st", "connectom_st")
SEEDS = (0, 1, 2)
STARTS = ("nothing", "input", "first stage")


@dataclass(frozen=True)
class Variant:
    """One training.

    Attributes
    ----------
    name
        Of its row.
    settings
        What is trained.
    """

    name: str
    settings: TrainingSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--held-out", nargs="+", required=True)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--work", type=Path, default=Path("causes"), help="for the models")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/causes.json"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, dict[str, float]]] = {}
    with ProcessPoolExecutor(options.workers, get_context("spawn"), _one_thread) as pool:
        jobs = [
            (augmentation, variant, pool.submit(trained, options.heads, options.work, variant))
            for augmentation in ("symmetries", "none")
            for variant in variants(options.train, options.held_out, augmentation, options.rate)
        ]
        models: dict[tuple[str, str], list[Path]] = {}
        for augmentation, variant, job in jobs:
            models.setdefault((augmentation, variant.name), []).append(job.result())
    for (augmentation, name), paths in models.items():
        rows = found.setdefault(augmentation, {})
        errors = [error_of(options.heads, [path], options.held_out) for path in paths]
        rows[name] = {
            target: float(np.mean([error[target] for error in errors])) for target in TARGETS
        }
        if len(paths) > 1:
            together = error_of(options.heads, paths[: len(TARGETS)], options.held_out)
            rows[f"mean of {len(TARGETS)} singles"] = together
    for augmentation, rows in found.items():
        print(f"crops turned: {augmentation}; SH MSE x 1e5 on noise-free twins")
        for name, row in rows.items():
            print(f"  {name:28}" + "".join(f"{1e5 * row[target]:8.1f}" for target in TARGETS))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")


def variants(
    subjects: Sequence[str], held_out: Sequence[str], augmentation: str, rate: float
) -> list[Variant]:
    """List the trainings; all take `STEPS` steps a target."""

    def settings(kind: str, **others: object) -> TrainingSettings:
        values = {
            "kind": kind,
            "start_from": "nothing",
            "targets": TARGETS,
            "subjects": (*subjects, *held_out),
            "held_out": tuple(held_out),
            "width": WIDTH,
            "batch": 2,
            "steps_per_epoch": EPOCH,
            "epochs": STEPS // EPOCH,
            "learning_rate": rate,
            "augmentation": augmentation,
        }
        return TrainingSettings(**{**values, **others})  # type: ignore[arg-type]

    scales = dict.fromkeys(TARGETS, 1)
    weights = weights_of_msp(dict.fromkeys(TARGETS, KIND), TARGETS[0], scales, WIDTH)
    wide = matched_width(KIND, TARGETS[0], scales, weights)
    unison = {"epochs": FIRST // EPOCH, "unison_epochs": (STEPS - FIRST) // EPOCH}
    stage = dict.fromkeys(TARGETS, KIND)
    return [
        *(Variant("single", settings(KIND, seed=seed)) for seed in SEEDS),
        Variant("single, as many weights", settings(KIND, width=wide)),
        *(
            Variant(
                f"MSP from {start}",
                settings("msp", first_stage=stage, branch_start=start, **unison),
            )
            for start in STARTS
        ),
    ]


def trained(heads: Path, work: Path, variant: Variant) -> Path:
    """Train a variant, unless it is there."""
    settings = variant.settings
    name = f"{variant.name}-{settings.augmentation}-{settings.seed}".replace(" ", "-")
    path = work / f"{name.replace(',', '')}.safetensors"
    if not path.exists():
        train(heads, path, settings, device="cpu", force=True)
    return path


def error_of(heads: Path, models: Sequence[Path], subjects: Sequence[str]) -> dict[str, float]:
    """Give the SH MSE of the mean of some models on the noise-free twins, by target."""
    dataset = open_dataset(heads)
    errors: dict[str, list[float]] = {target: [] for target in TARGETS}
    for subject in subjects:
        scan = dataset.acquisition(subject, "ge_st")
        for target in TARGETS:
            truth = truth_of(dataset, subject, target)
            images = [harmonize(load_model(path), scan, target).sh for path in models]
            mean = np.mean([image.coefficients for image in images], axis=0)
            image = replace(images[0], coefficients=mean)
            measured = measure_head(image, Truth(truth), SH_ERRORS)
            errors[target].append(measured.values["sh_mse"])
    return {target: float(np.mean(values)) for target, values in errors.items()}


def _one_thread() -> None:
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
