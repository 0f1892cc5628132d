"""Steps of a training, as one of several processes takes them or one alone: run by tests.

Computed in float64. In float32 Adam turns rounding of gradients that are 0, such as of biases
before BatchNorm, into whole steps: a batch summed in another order is 1e-3 away after ten steps.
"""

import json
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from napari_msp.data.dataset import open_dataset
from napari_msp.learning.distributed import OneProcess, launched
from napari_msp.learning.heads import prepare_study
from napari_msp.learning.loop import TrainingRun
from napari_msp.learning.sampling import Batch
from napari_msp.learning.settings import training_settings
from napari_msp.networks.diqt import ReversibleStack

RUNS: dict[str, dict[str, Any]] = {
    "shresnet": {"kind": "shresnet", "targets": ("prisma_st",), "steps": 12},
    "diqt": {"kind": "diqt", "targets": ("connectom_sa",), "steps": 8},
    "inverted": {"kind": "diqt", "targets": ("connectom_sa",), "steps": 4},
    "shared msp": {"kind": "msp", "targets": ("prisma_st", "connectom_sa"), "steps": 8},
    # 8 patches in steps of 3, 3 and 2; then of 7 and 1, of which one process has none.
    "paper": {"kind": "diqt", "targets": ("prisma_st",), "preset": "paper", "steps": 4},
    "one left": {"kind": "diqt", "targets": ("prisma_st",), "preset": "paper", "steps": 3},
}
"""Settings by name."""


def losses(dataset: Path, name: str, processes: OneProcess) -> list[float]:
    """Give the losses of the first steps."""
    paper = RUNS[name].get("preset") == "paper"
    size = {"voxels_per_head": 4} if paper else {"crop": 5}
    common = {"input": "ge_st", "held_out": ("sub-03",), "width": 0.1, "start_from": "nothing"}
    given = {"batch": 7 if name == "one left" else 3, **common, **size, **RUNS[name]}
    heads = open_dataset(dataset)
    settings = training_settings(heads, **given)
    study = prepare_study(heads, settings, settings.preset == "fast")
    cpu = torch.device("cpu")
    run = TrainingRun(study, Path("none.safetensors"), cpu, lambda _: None, processes=processes)
    run.networks.double()
    processes.join(run.networks)
    if name == "inverted":  # large batches are: they go through BatchNorm once more, backwards
        for module in run.networks.modules():
            if isinstance(module, ReversibleStack):
                module.plain = False
    drawn = run.sampler.batch

    def batch(phase: int, step: int, platforms: Collection[str] | None = None) -> Batch:
        found = drawn(phase, step, platforms)
        targets = {target: value.double() for target, value in found.targets.items()}
        return replace(found, input=found.input.double(), targets=targets)

    run.sampler.batch = batch  # type: ignore[method-assign]
    if run.weights is not None:
        run.weights = {target: value.double() for target, value in run.weights.items()}
    phase = run.networks.phases[0]
    optimisation = run._optimisation(0, run.networks.of(phase))
    steps = given["steps"]
    return [optimisation.step(n, min(1.0, n / steps), 3e-4)[0] for n in range(steps)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with launched() as processes:
        found = {name: losses(Path(sys.argv[1]), name, processes) for name in RUNS}
        print(json.dumps(found))
