"""One pass of a network, with everything that is looked at afterwards."""

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from napari_msp.networks import MSP, Network
from napari_msp.networks.base import ORDER_SLICES


@dataclass(frozen=True)
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
    terms = torch.stack([own, *outputs.branches.values()])
    # Tensor.var takes ten times as long along the first axis.
    variance = (terms - terms.mean(dim=0)).square().mean(dim=0)
    spread = variance * deviation.square()[:, None, None, None]
    by_order = [spread[:, part].mean(dim=1) for part in ORDER_SLICES]
    disagreement = torch.stack(by_order, dim=1).sqrt()
    return Stages(outputs.second, own, disagreement, outputs.branches)
