"""What is trained, in which order and by which loss.

Single networks come first, unless all are trained in unison from the first step; then each
target's MSP in unison, or at once those of all targets where they share their first stages. Losses
are mean squared errors over in-mask voxels, summed over supervised outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from napari_msp.learning.events import phase_name
from napari_msp.learning.sampling import Batch
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import BASE, TrainingSettings
from napari_msp.learning.starts import Start
from napari_msp.networks.base import CHANNELS, SingleNetwork, Statistics
from napari_msp.networks.msp import MSP, Network, SharedMSP
from napari_msp.networks.registry import MULTI_STAGE, build_single, network_class, title
from napari_msp.networks.reversible import keep_activations
from napari_msp.signal.channels import Standardisation

SMALL_BATCH = 20_000
"""Voxels of a batch up to which activations are kept: some hundred megabytes at full width."""

Trained = Network | SharedMSP
"""What one optimisation is of."""


@dataclass(frozen=True)
class Phase:
    """A phase of a run: networks that are optimised together, for so many steps.

    Attributes
    ----------
    name
        Such as "shresnet prisma_st", or "msp prisma_st" for a unison phase.
    targets
        Platforms whose networks are trained; several where MSPs share their first stages.
    unison
        True for MSPs, which start from the single networks as trained by then.
    untrained
        Whether it starts from fresh weights.
    """

    name: str
    targets: tuple[str, ...]
    unison: bool
    untrained: bool


class TrainedNetworks(nn.Module):
    """All networks of a run: one single network a target and, for kind msp, an MSP a target.

    MSPs have first stages of their own, as in the paper, or share the single networks.

    Parameters
    ----------
    scales
        Lattice scale of each target, in order.
    standardisation
        Of each platform; some networks compute with it.
    start
        What weights begin as; None: nothing. An MSP that begins as a trained one is tuned as a
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
                network.set_standardisation(**statistics_of(source, standardisation[target]))
                networks[target] = network
            return networks

        self.singles, self.multi_stage = nn.ModuleDict(), nn.ModuleDict()
        self.shared: SharedMSP | None = None
        if multi_stage and recipe.first_stages == "shared" and len(scales) > 1:
            self.shared = SharedMSP.on(singles(), width=width, branch_start=branch_start)
        else:
            self.singles.update(singles())
            # Each target's MSP refines first stages of its own, as in the paper.
            for target in scales if multi_stage else ():
                self.multi_stage[target] = MSP(
                    singles(target), target, width=width, branch_start=branch_start
                )
        for network in self.finished().values():
            if isinstance(network, MSP):
                begun.connect(network)
        if recipe.dense and recipe.batch * recipe.patch**3 <= SMALL_BATCH:
            keep_activations(self)

        self._fresh = [target for target in kinds if target not in begun.platforms]
        # What a start lacks is brought to its level first, unless that was declined.
        fresh_first = bool(begun.platforms) and settings.singles_first != "no"
        self.phases = [
            Phase(phase_name(kinds[target], target), (target,), False, target in self._fresh)
            for target in (self._fresh if multi_stage else kinds)
            if recipe.singles_first or fresh_first or not multi_stage
        ]
        untrained = not self.phases and not begun.platforms
        together = [tuple(scales)] if self.shared else [(each,) for each in self.multi_stage]
        self.phases += [
            Phase(phase_name(MULTI_STAGE, *targets), targets, True, untrained)
            for targets in together
        ]

    def of(self, phase: Phase) -> Trained:
        """Give what a phase trains."""
        if phase.unison and self.shared is not None:
            return self.shared
        singles = self.singles if self.shared is None else self.shared.singles
        return cast(Network, (self.multi_stage if phase.unison else singles)[phase.targets[0]])

    def predicting(self, phase: Phase) -> dict[str, Network]:
        """Give the network of each target that a phase trains."""
        trained = self.of(phase)
        if isinstance(trained, SharedMSP):
            return dict(trained.networks)
        return {phase.targets[0]: trained}

    def begin(self, phase: Phase) -> None:
        """Let a unison phase start from the trained single networks."""
        if phase.unison and self.shared is None:
            multi_stage = cast(MSP, self.of(phase))
            for target in self._fresh:
                multi_stage.singles[target].load_state_dict(self.singles[target].state_dict())

    def finished(self) -> dict[str, Network]:
        """Give the networks that make up the model."""
        if self.shared is not None:
            return dict(self.shared.networks)
        networks = self.multi_stage if len(self.multi_stage) else self.singles
        return {target: cast(Network, network) for target, network in networks.items()}


def _single_kind(settings: TrainingSettings, target: str, scale: int) -> str:
    """Name a target's single network; the paper's MSP has SHResNet, DIQT for a finer target."""
    if settings.kind != MULTI_STAGE:
        return settings.kind
    return settings.first_stage.get(target, first_stage_kind(scale))


def first_stage_kind(scale: int) -> str:
    """Name the single network that an MSP has where none was chosen, by its lattice scale."""
    return "shresnet" if scale == 1 else "diqt"


def _feature_layer(settings: TrainingSettings, kind: str) -> str | None:
    """Name the layer that branches read; None: the last one, as in the paper."""
    if settings.features == "last":
        return None
    layers = cast(type[SingleNetwork], network_class(kind)).feature_layers
    return layers[(len(layers) - 1) // 2]


def advice_on(settings: TrainingSettings, scales: Mapping[str, int], start: Start) -> list[str]:
    """Say where a single network is known to do as well as an MSP, in less time.

    Measured from the packaged base, with one head of another simulator (benchmarks/few_heads.md)
    and with three of its own (benchmarks/table1.md).
    """
    coarse = len(scales) > 1 and max(scales.values()) == 1
    if settings.kind != MULTI_STAGE or start.name != BASE or not coarse:
        return []
    return [
        f"for targets of the input's voxel size {title('shresnet')}s from the base came within 4 % "
        f"of an {title(MULTI_STAGE)} with one simulated head, two of them in four fifths of its "
        f"time, one in two fifths; with three heads the {title(MULTI_STAGE)} erred 10 to 15 % less"
    ]


def learned_platforms(network: Trained) -> tuple[str, ...]:
    """Give the platforms that a network has a loss on."""
    return tuple(network.scales if isinstance(network, SingleNetwork) else network.singles)


def masked_error(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    weights: Tensor | None = None,
    voxels: Tensor | None = None,
) -> Tensor:
    """Give the mean squared error over in-mask voxels and channels.

    Parameters
    ----------
    prediction, target
        (B, 28·S, …).
    mask
        (B, 1, …) bool. A batch without mask has no error.
    weights
        (28·S,) of the channels, 1 on average; None: all alike.
    voxels
        In-mask voxels of the batch that these examples are a share of; None: theirs alone.
    """
    counted = mask.sum() if voxels is None else voxels
    squares = (prediction.to(target.dtype) - target).square() * mask
    if weights is not None:
        squares = squares * weights.view(-1, 1, 1, 1)
    return squares.sum() / (counted * prediction.shape[1]).clamp(min=1)


def statistics_of(source: Standardisation, target: Standardisation) -> Statistics:
    """Give what a network that computes with statistics is told of its input and its target."""
    return {
        "input_mean": source.mean.tolist(),
        "input_deviation": source.deviation.tolist(),
        "target_mean": target.mean.tolist(),
        "target_deviation": target.deviation.tolist(),
    }


def sh_unit_weights(standardisation: Standardisation) -> Tensor:
    """(28·S,) weights, 1 on average, that turn a standardised error into one of SH units."""
    squares = torch.from_numpy(standardisation.deviation).square()
    return squares / squares.mean()


def training_loss(
    network: Trained,
    batch: Batch,
    alpha: float,
    branch_losses: bool,
    weights: Mapping[str, Tensor] | None = None,
    second_weight: float = 1.0,
    voxels: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Give the loss of one batch, or the part of it that a share of the batch makes up.

    Single networks: Σ L over their supervised outputs. MSP: Σ_i L(ŷ¹_i, y_i) + L(ŷ²_T, y_T) as in
    the paper; with `branch_losses` also L(N_iT(z_i), y_T) of each branch (our choice: branches then
    learn from the first step, while α is still small). MSPs that share their first stages have one
    loss, Σ_i L(ŷ¹_i, y_i) + Σ_T L(ŷ²_T, y_T). `weights` are those of the channels for each
    platform, see `sh_unit_weights`; `second_weight` is that of L(ŷ²_T, y_T) among the others;
    `voxels` are each platform's in-mask voxels of the whole batch where this one is a share of it.
    """

    def error(prediction: Tensor, platform: str) -> Tensor:
        inner = _trimmed(prediction, batch.trim[platform])
        chosen = None if weights is None else weights[platform]
        counted = None if voxels is None else voxels[platform]
        return masked_error(inner, batch.targets[platform], batch.masks[platform], chosen, counted)

    if isinstance(network, SingleNetwork):
        terms = [error(value, platform) for platform, value in network.supervised(batch.input)]
        return torch.stack(terms).sum()
    if isinstance(network, SharedMSP):
        stages = network(batch.input, alpha)
    else:
        stages = {network.target: network(batch.input, alpha)}
    first = next(iter(stages.values())).first  # the same of every target
    terms = [error(value, platform) for platform, value in first.items()]
    for target, outputs in stages.items():
        terms.append(second_weight * error(outputs.second, target))
        if branch_losses:
            terms += [error(value, target) for value in outputs.branches.values()]
    return torch.stack(terms).sum()


def _trimmed(prediction: Tensor, trim: int) -> Tensor:
    if trim == 0:
        return prediction
    inner = slice(trim, -trim)
    return prediction[..., inner, inner, inner]
