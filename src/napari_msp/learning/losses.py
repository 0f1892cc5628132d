"""The losses: mean squared error over in-mask voxels, summed over supervised outputs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from napari_msp.learning.sampling import Batch
from napari_msp.networks.msp import MSP, Network
from napari_msp.signal.channels import Standardisation


def masked_error(
    prediction: Tensor, target: Tensor, mask: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Give the mean squared error over in-mask voxels and channels.

    Parameters
    ----------
    prediction, target
        (B, 28, …).
    mask
        (B, 1, …) bool. A batch without mask has no error.
    weights
        (28,) of the channels, 1 on average; None: all alike.
    """
    inside = mask.float()
    squares = (prediction.float() - target).square() * inside
    if weights is not None:
        squares = squares * weights.view(-1, 1, 1, 1)
    return squares.sum() / (inside.sum() * prediction.shape[1]).clamp(min=1)


def sh_unit_weights(standardisation: Standardisation) -> Tensor:
    """(28,) weights, 1 on average, that turn a standardised error into one of SH units."""
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
