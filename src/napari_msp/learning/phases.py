"""The phases of a run: what each one trains, their order, and the model that comes of them.

Single networks come first, unless everything is trained in unison from the first step; then each
target's MSP in unison, or all targets' together if they share their first stages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from napari_msp.files import versions_of
from napari_msp.learning.events import Started, phase_name
from napari_msp.learning.heads import Study
from napari_msp.learning.optimisation import Trained
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import BASE, TrainingSettings
from napari_msp.learning.starts import Start
from napari_msp.model_card import ModelCard, SHSettings, Statistics
from napari_msp.model_file import Model, ModelNetwork
from napari_msp.networks.base import CHANNELS, SingleNetwork
from napari_msp.networks.diqt import keep_activations
from napari_msp.networks.msp import MSP, Network, SharedMSP, shares_first_stages
from napari_msp.networks.registry import MULTI_STAGE, build_single, network_class, title
from napari_msp.signal.channels import Standardisation
from napari_msp.signal.spherical_harmonics import REGULARISATION_AT_30

SMALL_BATCH = 20_000
"""Voxels of a batch up to which activations are kept: some hundred megabytes at full width."""


@dataclass(frozen=True)
class Phase:
    """A phase of a run: networks that are optimised together, for a number of steps.

    Attributes
    ----------
    name
        Name, such as "shresnet prisma_st", or "msp prisma_st" for a unison phase.
    targets
        Platforms whose networks are trained; several if MSPs share their first stages.
    unison
        Whether it trains MSPs, which start from the single networks trained before.
    untrained
        Whether it starts from fresh weights.
    """

    name: str
    targets: tuple[str, ...]
    unison: bool
    untrained: bool


class TrainedNetworks(nn.Module):
    """All networks of a run: one single network per target and, for kind msp, an MSP per target.

    MSPs have their own first stages, as in the paper, or share the single networks.

    Parameters
    ----------
    start
        Start of the weights; None: nothing. An MSP that begins as a trained one is tuned as a
        whole: tuning single networks first would change the features that its branches read.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        scales: Mapping[str, int],
        standardisation: Mapping[str, Standardisation],
        start: Start | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        recipe = recipe_for(settings)
        multi_stage = settings.kind == MULTI_STAGE
        begun = start or Start(settings)
        kinds = {
            target: begun.kind_of(target) or _single_kind(settings, target, scales[target])
            for target in scales
        }
        source = standardisation[settings.input]
        branch_start, width = recipe.branch_start, settings.width or "paper"
        shells = len(source.mean) // CHANNELS

        def singles(within: str = "") -> dict[str, SingleNetwork]:
            networks = {}
            for target, kind in kinds.items():
                layer = _feature_layer(settings, kind)
                network = begun.single(target, within or target, shells, layer) or build_single(
                    kind,
                    target=target,
                    scales=scales,
                    width=width,
                    input_skip=recipe.input_skip,
                    shells=shells,
                    trunk=settings.trunk,
                    feature_layer=layer,
                )
                network.set_standardisation(source, standardisation[target])
                networks[target] = network
            return networks

        self.singles, self.multi_stage = nn.ModuleDict(), nn.ModuleDict()
        self.shared: SharedMSP | None = None
        if multi_stage and recipe.first_stages == "shared" and len(scales) > 1:
            self.shared = SharedMSP.on(singles(), width=width, branch_start=branch_start)
        else:
            self.singles.update(singles())
            # Each target's MSP refines its own first stages, as in the paper.
            for target in scales if multi_stage else ():
                self.multi_stage[target] = MSP(
                    singles(target), target, width=width, branch_start=branch_start
                )
        for network in self.finished().values():
            if isinstance(network, MSP):
                begun.connect(network)
        if recipe.keeps_activations and recipe.batch * recipe.patch**3 <= SMALL_BATCH:
            keep_activations(self)

        self._fresh = [target for target in kinds if target not in begun.platforms]
        # Networks that the start lacks are first trained to its level, unless that was declined.
        fresh_first = bool(begun.platforms) and settings.singles_first != "no"
        singles_first = recipe.singles_first or fresh_first or not multi_stage
        self.phases = self._in_order(kinds if singles_first else {}, begun)

    def _in_order(self, kinds: Mapping[str, str], begun: Start) -> list[Phase]:
        """Return the phases: single networks of these kinds by target, then the unison phases."""
        multi_stage = self.shared is not None or len(self.multi_stage) > 0
        alone = [
            Phase(phase_name(kind, target), (target,), False, target in self._fresh)
            for target, kind in kinds.items()
            if target in self._fresh or not multi_stage
        ]
        untrained = not alone and not begun.platforms
        shared = None if self.shared is None else tuple(self.shared.networks)
        together = [shared] if shared else [(each,) for each in self.multi_stage]
        return alone + [
            Phase(phase_name(MULTI_STAGE, *targets), targets, True, untrained)
            for targets in together
        ]

    def of(self, phase: Phase) -> Trained:
        """Return the network that a phase trains."""
        if phase.unison and self.shared is not None:
            return self.shared
        singles = self.singles if self.shared is None else self.shared.singles
        return cast(Network, (self.multi_stage if phase.unison else singles)[phase.targets[0]])

    def begin(self, phase: Phase) -> None:
        """Start a unison phase from the trained single networks."""
        if phase.unison and self.shared is None:
            multi_stage = cast(MSP, self.of(phase))
            for target in self._fresh:
                multi_stage.singles[target].load_state_dict(self.singles[target].state_dict())

    def finished(self) -> dict[str, Network]:
        """Return the networks that make up the model."""
        if self.shared is not None:
            return dict(self.shared.networks)
        networks = self.multi_stage if len(self.multi_stage) else self.singles
        return {target: cast(Network, network) for target, network in networks.items()}


def _single_kind(settings: TrainingSettings, target: str, scale: int) -> str:
    """Return a target's single network; the paper's MSP has SHResNet, DIQT for a finer target."""
    if settings.kind != MULTI_STAGE:
        return settings.kind
    return settings.first_stage.get(target, first_stage_kind(scale))


def first_stage_kind(scale: int) -> str:
    """Return the default single network of an MSP, by its lattice scale."""
    return "shresnet" if scale == 1 else "diqt"


def _feature_layer(settings: TrainingSettings, kind: str) -> str | None:
    """Return the layer that branches read; None: the last one, as in the paper."""
    if settings.features == "last":
        return None
    layers = cast(type[SingleNetwork], network_class(kind)).feature_layers
    return layers[(len(layers) - 1) // 2]


def advice_on(settings: TrainingSettings, scales: Mapping[str, int], start: Start) -> list[str]:
    """Return advice where a single network is known to do about as well as an MSP, in less time.

    Measured from the packaged base, with one head of another simulator (three datasets, two
    targets, 3,000 steps each: benchmarks/few_heads.md) and with three of its own
    (benchmarks/table1.md).
    """
    coarse = len(scales) > 1 and max(scales.values()) == 1
    if settings.kind != MULTI_STAGE or start.name != BASE or not coarse:
        return []
    msp, single = title(MULTI_STAGE), title("shresnet")
    return [
        f"for targets of the input's voxel size, an {msp} from the base erred 3 % less than "
        f"{single}s in the mean of six cases with one simulated head (2 % more to 9 % less; in "
        f"colour FA 3 to 12 % less), and 10 to 15 % less with three heads; two {single}s take four "
        "fifths of its time, one two fifths"
    ]


def describe_run(
    study: Study, networks: TrainedNetworks, start: Start, device: torch.device, **progress: Any
) -> Started:
    """Describe what a run begins with.

    Parameters
    ----------
    **progress
        Fields of `Started`: its phases and steps, and further facts.
    """
    finished = nn.ModuleList(networks.finished().values())
    return Started(
        kind=study.settings.kind,
        preset=study.settings.preset,
        device=str(device),
        subjects=study.subjects,
        held_out=[head.subject for head in study.held_out],
        validation=[head.subject for head in study.validation],
        taught=study.taught,
        parameters=sum(each.numel() for each in finished.parameters()),
        start=start.name,
        **progress,
    )


# --- The card of a finished model -------------------------------------------------------------


def make_model(study: Study, networks: Mapping[str, Network], run: Mapping[str, Any]) -> Model:
    """Make the model of trained networks, with its card.

    Parameters
    ----------
    networks
        Network of each target; moved to the CPU.
    run
        Facts about the run to keep, as plain JSON types.
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
            "subjects": study.subjects,
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
            **run,
        },
        versions=versions_of("torch", "numpy", "dipy"),
    )
    return Model(card, ModelNetwork(networks, card.alpha))
