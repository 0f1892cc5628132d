"""Write what was learned as an ordinary model file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from base.learning import SEED, BaseNetworks, Plan, described
from base.pairs import B_VALUES, SPACINGS, TARGETS, Block, Channels, block_path
from napari_msp.data.phantom.platforms import B_VALUE, SPACING, spread_directions
from napari_msp.files import versions_of
from napari_msp.identity import Person
from napari_msp.learning.settings import TrainingSettings
from napari_msp.model_card import Gradients, ModelCard, SHSettings, Statistics
from napari_msp.model_file import Model, ModelNetwork, save_model
from napari_msp.networks.msp import Network
from napari_msp.signal.spherical_harmonics import REGULARISATION_AT_30

INPUT = "base_input"
"""Stands for any input platform."""

LABEL = (
    "Base to start training from. Learned from simulated heads; it stands for no scanner, and is "
    "not for harmonizing."
)

DIRECTIONS = 30
"""Of the table that stands for the targets'."""


def people(plan: Plan) -> list[Person]:
    """Say whom a base learned from: the heads of its blocks."""
    name = f"napari-msp base, {plan.variety} blocks of seed {SEED}"
    dataset = hashlib.sha256(name.encode()).hexdigest()[:16]
    return [Person(f"block-{index:04d}", dataset) for index in range(plan.blocks)]


def write_model(networks: BaseNetworks, plan: Plan, blocks: Path, path: Path, **run: Any) -> None:
    """Write a model of kind msp, or without a second stage of kind shresnet.

    Statistics of its platforms are means over the first blocks; whoever starts from it has their
    own.
    """
    unison = bool(plan.unison_steps)
    stages = networks.multi_stage if unison else networks.singles
    by_target = {name: cast(Network, stages[name]).cpu() for name in plan.targets}
    some = [
        Block.load(block_path(blocks, plan.variety, index)) for index in range(min(plan.blocks, 16))
    ]
    standardisation = {INPUT: _mean([block.inputs[0] for block in some])}
    standardisation |= {name: _mean([each.targets[name] for each in some]) for name in plan.targets}
    learned = people(plan)
    kind = "msp" if unison else "shresnet"
    settings = TrainingSettings(
        kind=kind,
        input=INPUT,
        targets=plan.targets,
        width=plan.width,
        seed=plan.seed,
        label=LABEL,
        **(_multi_stage_settings(plan) if unison else {}),
    )
    directions = [(float(x), float(y), float(z)) for x, y, z in spread_directions(DIRECTIONS, 1)]
    card = ModelCard(
        kind=kind,
        label=LABEL,
        simulated_only=True,
        input=INPUT,
        voxel_size=SPACING,
        scales={name: TARGETS[name] for name in plan.targets},
        architectures={name: network.config() for name, network in by_target.items()},
        first_stages="shared" if unison else "own",
        alpha=1.0,
        sh=SHSettings(regularisation_at_30=REGULARISATION_AT_30, b_value=B_VALUE),
        standardisation=standardisation,
        gradients={
            name: Gradients(b_values=[B_VALUE] * DIRECTIONS, directions=directions)
            for name in plan.targets
        },
        training={
            "subjects": [person.label for person in learned],
            "taught": {name: [person.label for person in learned] for name in plan.targets},
            "people": [person.to_json() for person in learned],
            "held_out": [],
            "off_lattice": {},
            "settings": settings.model_dump(mode="json"),
            "held_out_sh_mse": {},
            "saw": _saw(plan),
            "plan": described(plan),
            "steps": sum(phase.steps for phase in plan.phases),
            **run,
        },
        versions=versions_of("torch", "numpy", "dipy"),
    )
    save_model(path, Model(card, ModelNetwork(by_target, card.alpha)))


def _saw(plan: Plan) -> dict[str, list[float]]:
    """Say between what its platforms lay."""
    return {"voxel_size": list(SPACINGS[plan.variety]), "b_value": list(B_VALUES[plan.variety])}


def _multi_stage_settings(plan: Plan) -> dict[str, Any]:
    """Return the settings that only a multi-stage network has."""
    return {
        "branch_start": plan.branch_start,
        "first_stages": "shared",
        "first_stage": dict.fromkeys(plan.targets, "shresnet"),
    }


def _mean(channels: Sequence[Channels]) -> Statistics:
    return Statistics(
        mean=np.mean([each.mean for each in channels], axis=0).tolist(),
        deviation=np.mean([each.deviation for each in channels], axis=0).tolist(),
    )
