"""What is trained, in which order and by which loss.

Single networks come first, then each target's MSP in unison. Losses are mean squared errors over
in-mask voxels, summed over supervised outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from napari_msp.learning.events import phase_name
from napari_msp.learning.sampling import Batch
from napari_msp.learning.schedule import recipe_for
from napari_msp.learning.settings import TrainingSettings
from napari_msp.networks.base import CHANNELS, SingleNetwork
from napari_msp.networks.msp import MSP, Network
from napari_msp.networks.registry import MULTI_STAGE, build_single
from napari_msp.signal.channels import Standardisation


@dataclass(frozen=True)
class Phase:
    """One optimisation.

    Attributes
    ----------
    name
        Such as "shresnet prisma_st", or "msp prisma_st" for a unison phase.
    target
        Platform whose network is trained.
    unison
        True for an MSP, which starts from the single networks as trained by then.
    """

    name: str
    target: str
    unison: bool


class TrainedNetworks(nn.Module):
    """All networks of a run: one single network a target and, for kind msp, one MSP a target.

    Parameters
    ----------
    settings
        Of the run.
    scales
        Lattice scale of each target, in order.
    standardisation
        Of each platform; some networks compute with it.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        scales: Mapping[str, int],
        standardisation: Mapping[str, Standardisation],
    ) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        recipe = recipe_for(settings)
        kinds = {target: _single_kind(settings, target, scales[target]) for target in scales}

        source = standardisation[settings.input]

        def singles() -> dict[str, SingleNetwork]:
            networks = {}
            for target, kind in kinds.items():
                network = build_single(
                    kind,
                    target=target,
                    scales=scales,
                    width=settings.width,
                    input_skip=recipe.input_skip,
                    shells=len(source.mean) // CHANNELS,
                    trunk=settings.trunk,
                )
                network.set_standardisation(
                    input_mean=source.mean.tolist(),
                    input_deviation=source.deviation.tolist(),
                    target_mean=standardisation[target].mean.tolist(),
                    target_deviation=standardisation[target].deviation.tolist(),
                )
                networks[target] = network
            return networks

        self.singles = nn.ModuleDict(singles())
        self.multi_stage = nn.ModuleDict()
        self.phases = [
            Phase(phase_name(kind, target), target, False) for target, kind in kinds.items()
        ]
        if settings.kind == MULTI_STAGE:
            # Each target's MSP refines first stages of its own, as in the paper.
            for target in scales:
                self.multi_stage[target] = MSP(
                    singles(), target, width=settings.width, branch_start=recipe.branch_start
                )
                self.phases.append(Phase(phase_name(MULTI_STAGE, target), target, True))

    def of(self, phase: Phase) -> Network:
        """Give the network that a phase trains."""
        networks = self.multi_stage if phase.unison else self.singles
        return cast(Network, networks[phase.target])

    def begin(self, phase: Phase) -> None:
        """Let a unison phase start from the trained single networks."""
        if phase.unison:
            multi_stage = cast(MSP, self.multi_stage[phase.target])
            multi_stage.singles.load_state_dict(self.singles.state_dict())

    def finished(self) -> dict[str, Network]:
        """Give the networks that make up the model."""
        networks = self.multi_stage if len(self.multi_stage) else self.singles
        return {target: cast(Network, network) for target, network in networks.items()}


def _single_kind(settings: TrainingSettings, target: str, scale: int) -> str:
    """Name a target's single network; the paper's MSP has SHResNet, DIQT for a finer target."""
    if settings.kind != MULTI_STAGE:
        return settings.kind
    return settings.first_stage.get(target, "shresnet" if scale == 1 else "diqt")


def learned_platforms(network: Network) -> tuple[str, ...]:
    """Give the platforms that a network has a loss on."""
    return tuple(network.singles) if isinstance(network, MSP) else tuple(network.scales)


def masked_error(
    prediction: Tensor, target: Tensor, mask: Tensor, weights: Tensor | None = None
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
    """
    inside = mask.float()
    squares = (prediction.float() - target).square() * inside
    if weights is not None:
        squares = squares * weights.view(-1, 1, 1, 1)
    return squares.sum() / (inside.sum() * prediction.shape[1]).clamp(min=1)


def sh_unit_weights(standardisation: Standardisation) -> Tensor:
    """(28·S,) weights, 1 on average, that turn a standardised error into one of SH units."""
    squares = torch.from_numpy(standardisation.deviation).square()
    return squares / squares.mean()


def training_loss(
    network: Network,
    batch: Batch,
    alpha: float,
    branch_losses: bool,
    weights: Mapping[str, Tensor] | None = None,
    second_weight: float = 1.0,
) -> Tensor:
    """Give the loss of one batch.

    Single networks: Σ L over their supervised outputs. MSP: Σ_i L(ŷ¹_i, y_i) + L(ŷ²_T, y_T) as in
    the paper; with `branch_losses` also L(N_iT(z_i), y_T) of each branch (our choice: branches then
    learn from the first step, while α is still small). `weights` are those of the channels for each
    platform, see `sh_unit_weights`; `second_weight` is that of L(ŷ²_T, y_T) among the others.
    """

    def error(prediction: Tensor, platform: str) -> Tensor:
        inner = _trimmed(prediction, batch.trim[platform])
        chosen = None if weights is None else weights[platform]
        return masked_error(inner, batch.targets[platform], batch.masks[platform], chosen)

    if not isinstance(network, MSP):
        terms = [error(value, platform) for platform, value in network.supervised(batch.input)]
    else:
        outputs = network(batch.input, alpha)
        terms = [error(value, platform) for platform, value in outputs.first.items()]
        terms.append(second_weight * error(outputs.second, network.target))
        if branch_losses:
            terms += [error(value, network.target) for value in outputs.branches.values()]
    return torch.stack(terms).sum()


def _trimmed(prediction: Tensor, trim: int) -> Tensor:
    if trim == 0:
        return prediction
    inner = slice(trim, -trim)
    return prediction[..., inner, inner, inner]
