"""The card of a finished model: what it is, whom it has learned from, and how that went."""

from collections.abc import Mapping
from typing import Any

from napari_msp.files import versions_of
from napari_msp.learning.heads import Study
from napari_msp.model_card import ModelCard, SHSettings, Statistics
from napari_msp.model_file import Model, ModelNetwork
from napari_msp.networks.msp import Network, shares_first_stages
from napari_msp.signal.spherical_harmonics import REGULARISATION_AT_30


def finished_model(
    study: Study,
    networks: Mapping[str, Network],
    held_out_errors: Mapping[str, Mapping[str, float]],
    run: Mapping[str, Any],
) -> Model:
    """Write the card that goes with trained networks.

    Parameters
    ----------
    networks
        Network of each target; moved to the CPU.
    held_out_errors
        Last validation of each phase, by target.
    run
        What else to keep of the run, as plain JSON types.
    """
    networks = {target: network.cpu() for target, network in networks.items()}
    settings = study.settings
    card = ModelCard(
        kind=settings.kind,
        label=settings.label,
        simulated_only=study.simulated,
        input=settings.input,
        b0_weighting=study.b0_weighting,
        voxel_size=study.voxel_size,
        alpha=1.0,
        scales=study.scales,
        architectures={target: network.config() for target, network in networks.items()},
        first_stages="shared" if shares_first_stages(networks.values()) else "own",
        sh=SHSettings(
            regularisation_at_30=REGULARISATION_AT_30,
            b_value=study.b_values[0],
            shells=study.b_values if len(study.b_values) > 1 else (),
        ),
        standardisation={
            name: Statistics(**each.to_json()) for name, each in study.standardisation.items()
        },
        gradients=study.gradients,
        training={
            "subjects": [head.subject for head in study.heads],
            "taught": study.taught,
            "people": [person.to_json() for person in study.people],
            "held_out": [head.subject for head in study.held_out],
            "validation": [head.subject for head in study.validation],
            "off_lattice": {
                head.subject: list(head.off_lattice)
                for head in study.heads + study.validation + study.held_out
                if head.off_lattice
            },
            "settings": settings.model_dump(mode="json"),
            "held_out_sh_mse": dict(held_out_errors),
            **run,
        },
        versions=versions_of("torch", "numpy", "dipy"),
    )
    return Model(card, ModelNetwork(networks, card.alpha))
