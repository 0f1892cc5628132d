"""What is left of the error after tuning on few heads of a far set, from a base or from nothing."""

import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from base.learning import channels_last
from napari_msp.data.dataset import open_dataset
from napari_msp.learning.heads import Study, prepare_study
from napari_msp.learning.optimisation import sh_unit_weights, training_loss
from napari_msp.learning.sampling import sampler_for
from napari_msp.learning.schedule import learning_rate, recipe_for
from napari_msp.learning.settings import TrainingSettings
from napari_msp.learning.validation import alignment_error, validate
from napari_msp.model_file import load_model
from napari_msp.networks.msp import MSP, Network
from napari_msp.networks.registry import build, build_single
from napari_msp.signal.channels import into_grid
from napari_msp.signal.fitting import fit_sh

MEASURED = ("sub-05", "sub-06")
"""Heads of a far set that nothing is learned from."""

MATCHES = {
    "base": {"new_st": "base_st", "strong_st": "base_st2", "strong_sa": "base_sa"},
    "teaching": {"new_st": "prisma_st", "strong_st": "connectom_st", "strong_sa": "connectom_sa"},
}
"""Which platform of a base each far platform starts from."""


def study_of(far: Path, name: str, heads: Sequence[str], cache: Path) -> Study:
    """Load heads to learn from and to measure on; truth is the noise-free twin."""
    kept = cache / f"{name}-{'-'.join(heads)}.pickle"
    if kept.exists():
        with kept.open("rb") as stream:
            study: Study = pickle.load(stream)
            return study
    dataset = open_dataset(far / name)
    settings = TrainingSettings(
        kind="shresnet", subjects=(*heads, *MEASURED), held_out=MEASURED, width=0.28
    )
    study = prepare_study(dataset, settings)
    judged = []
    for head in study.held_out:
        truths = {}
        for target in study.scales:
            twin = dataset.noise_free(head.subject, target)
            assert twin is not None
            truths[target] = into_grid(fit_sh(twin))
        judged.append(replace(head, truths=truths))
    study = replace(study, held_out=judged)
    cache.mkdir(parents=True, exist_ok=True)
    with kept.open("wb") as stream:
        pickle.dump(study, stream)
    return study


def single_from(start: str, target: str, scale: int, width: float, seed: int) -> Network:
    """Give the single network to tune: from nothing, or a model's first stage.

    Parameters
    ----------
    start
        "nothing", or a model's path.
    target, scale
        Platform of the far set.
    width, seed
        Of a network from nothing.
    """
    if start == "nothing":
        torch.manual_seed(seed)
        return build_single(
            "shresnet", target=target, scales={target: scale}, width=width, input_skip=True
        )
    model = load_model(start)
    source = matched(model.targets)[target]
    network = model.single(source)
    found = network.singles[source] if isinstance(network, MSP) else network
    config = found.config() | {"target": target, "scales": [[target, scale]]}  # type: ignore[operator]
    single = build(config)
    single.load_state_dict(found.state_dict())
    return single


def msp_from(start: str, target: str, scales: Mapping[str, int], width: float, seed: int) -> MSP:
    """Give the MSP to tune: from nothing, or a model's, its platforms renamed."""
    if start == "nothing":
        torch.manual_seed(seed)
        singles: dict[str, Any] = {
            name: build_single(
                "shresnet", target=name, scales={name: scale}, width=width, input_skip=True
            )
            for name, scale in scales.items()
        }
        return MSP(singles, target, width=width, branch_start="nothing")
    model = load_model(start)
    names = {source: name for name, source in matched(model.targets).items()}
    source = matched(model.targets)[target]
    found = model.single(source)
    assert isinstance(found, MSP)
    config = found.config()
    for single in config["singles"]:
        new = names[single["target"]]
        single |= {"target": new, "scales": [[new, scales[new]]]}
    network = build(config | {"target": target})
    assert isinstance(network, MSP)

    def renamed(key: str) -> str:
        part, platform, rest = key.split(".", 2)
        return f"{part}.{names[platform]}.{rest}"

    network.load_state_dict({renamed(key): value for key, value in found.state_dict().items()})
    return network


def matched(targets: Sequence[str]) -> Mapping[str, str]:
    """Say which of a model's targets each far platform starts from."""
    return MATCHES["base" if "base_st" in targets else "teaching"]


@dataclass(frozen=True)
class Tuning:
    """How a network is tuned."""

    steps: int = 300
    rate: float = 1.5e-3
    seed: int = 0


def tuned_error(study: Study, network: Network, target: str, tuning: Tuning) -> dict[str, float]:
    """Tune a network and measure it on noise-free truth, in 1e-5 SH units squared.

    Returns
    -------
    Errors at zero steps and at the end, alignment's error, and the seconds of the steps.
    """
    device = torch.device("cpu")
    before = validate(study, network, device)[target].error
    settings = study.settings.model_copy(update={"learning_rate": tuning.rate, "seed": tuning.seed})
    if isinstance(network, MSP):
        settings = settings.model_copy(update={"branch_start": network.branch_start})
    recipe = recipe_for(settings)
    sampler = sampler_for(replace(study, settings=settings), recipe)
    weights = {name: sh_unit_weights(study.standardisation[name]) for name in study.scales}
    channels_last(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    network.train()
    began = time.perf_counter()
    for step in range(tuning.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step, tuning.steps, 1)
        batch = sampler.batch(0, step)
        batch = replace(batch, input=batch.input.contiguous(memory_format=torch.channels_last_3d))
        optimiser.zero_grad(set_to_none=True)
        loss = training_loss(
            network, batch, 1.0, recipe.branch_losses, weights, recipe.second_weight
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.largest_gradient)
        optimiser.step()
    seconds = time.perf_counter() - began
    after = validate(study, network, device)[target].error if tuning.steps else before
    return {
        "alignment": 1e5 * alignment_error(study, target),
        "zero": 1e5 * before,
        "end": 1e5 * after,
        "seconds": seconds,
    }
