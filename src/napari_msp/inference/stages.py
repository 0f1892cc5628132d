"""The stages of an MSP: kept in one pass, and mixed again for any α without running the network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from napari_msp.arrays import FloatArray
from napari_msp.errors import Advice, UserError
from napari_msp.networks import equation
from napari_msp.networks.base import ORDER_SLICES
from napari_msp.networks.msp import MSP, Network
from napari_msp.signal.sh_image import SHImage

if TYPE_CHECKING:
    from napari_msp.inference.harmonize import Prediction


@dataclass(frozen=True, eq=False)
class Stages:
    """Outputs of one pass for one target, on the target's lattice.

    Attributes
    ----------
    prediction
        (B, 28, X, Y, Z) standardised; the last stage.
    first_stage
        (B, 28, X, Y, Z) standardised; None for a single network.
    disagreement
        (B, 4, X, Y, Z) in SH units, of the orders 0, 2, 4, 6: root mean over the order's
        coefficients of the variance of the P-1 terms {ŷ¹_T, N_iT(z_i)}; None where there are fewer
        than two terms.
    branches
        N_iT(z_i) by platform i, each (B, 28, X, Y, Z) standardised; empty where there are none.
    """

    prediction: Tensor
    first_stage: Tensor | None = None
    disagreement: Tensor | None = None
    branches: dict[str, Tensor] = field(default_factory=dict)


def run_stages(network: Network, x: Tensor, alpha: float, deviation: Tensor) -> Stages:
    """Run a network once.

    Parameters
    ----------
    network
        Single network or MSP.
    x
        (B, 28, X, Y, Z) standardised input.
    alpha
        α of eq. (1); single networks have none.
    deviation
        (28,) deviations of the target's standardisation.
    """
    if not isinstance(network, MSP):
        return Stages(cast(Tensor, network(x)))
    outputs = network(x, alpha)
    own = outputs.first[network.target]
    if not outputs.branches:
        return Stages(outputs.second, own)
    disagreement = _disagreement([own, *outputs.branches.values()], deviation)
    return Stages(outputs.second, own, disagreement, outputs.branches)


def _disagreement(terms: list[Tensor], deviation: Tensor) -> Tensor:
    stacked = torch.stack(terms)
    # Tensor.var takes ten times as long along the first axis.
    variance = (stacked - stacked.mean(dim=0)).square().mean(dim=0)
    spread = variance * deviation.square()[:, None, None, None]
    by_order = [spread[:, part].mean(dim=1) for part in ORDER_SLICES]
    return torch.stack(by_order, dim=1).sqrt()


def at_alpha(prediction: Prediction, alpha: float) -> SHImage:
    """Give the prediction that the model would have made with another α.

    Parameters
    ----------
    prediction
        Of an MSP, made with `keep_stages`.
    alpha
        0: the first stage, ŷ¹_T. 1: the mean of the P-1 terms.

    Returns
    -------
    SHImage
        The first stage itself for α = 0, and `prediction.sh` itself for the model's own α.

    Raises
    ------
    UserError
        When the model has no stages.
    ValueError
        When the stages were not kept, or α lies outside [0, 1].
    """
    first = _kept_first_stage(prediction)
    if alpha == prediction.alpha:
        return prediction.sh
    if alpha == 0:
        return first
    branches = [branch.coefficients for branch in prediction.branches.values()]
    mixed = equation.second_stage(first.coefficients, branches, alpha)
    return replace(first, coefficients=mixed)


def contribution(prediction: Prediction, platform: str, alpha: float) -> FloatArray:
    """Give what one branch adds to the first stage, see `napari_msp.networks.equation`.

    Parameters
    ----------
    prediction, alpha
        As for `at_alpha`.
    platform
        Platform i of the branch, one of `prediction.branches`.

    Returns
    -------
    (X, Y, Z, 28) float32 in SH units; 0 outside the mask.

    Raises
    ------
    UserError
        When the model has no stages.
    ValueError
        When the stages were not kept, there is no such branch, or α lies outside [0, 1].
    """
    first, branches = _kept_first_stage(prediction), prediction.branches
    if platform not in branches:
        known = ", ".join(branches) or "none"
        raise ValueError(f"there is no branch of {platform!r}; the branches are {known}")
    branch = branches[platform].coefficients
    return equation.contribution(first.coefficients, branch, len(branches), alpha)


def _kept_first_stage(prediction: Prediction) -> SHImage:
    """Give ŷ¹_T of a prediction whose stages were kept."""
    if prediction.first_stage is None:
        raise UserError(
            "its model has no stages to mix",
            f"prediction of {prediction.target}",
            field="model",
            remedy=Advice("take a model of kind msp"),
        )
    # Terms that disagree are there exactly when there are branches.
    if prediction.disagreement is not None and not prediction.branches:
        raise ValueError("the stages were not kept; harmonize with keep_stages=True")
    return prediction.first_stage
