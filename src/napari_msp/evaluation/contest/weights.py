"""How wide a single network must be to hold as many weights as an MSP."""

from collections.abc import Mapping
from functools import cache
from typing import cast

from torch import nn

from napari_msp.networks.msp import MSP
from napari_msp.networks.registry import build_single

STEPS = 40
"""Halvings of the interval of widths; far more than an even number of channels needs."""


def weights_of_msp(
    first_stage: Mapping[str, str], target: str, scales: Mapping[str, int], width: float
) -> int:
    """Count the weights of an MSP for one target.

    Parameters
    ----------
    first_stage
        Kind of the single network of each target.
    target, scales, width
        As for `MSP` and `build_single`.
    """
    singles = {
        platform: build_single(kind, target=platform, scales=scales, width=width)
        for platform, kind in first_stage.items()
    }
    return _count(MSP(singles, target, width=width))


def matched_width(kind: str, target: str, scales: Mapping[str, int], weights: int) -> float:
    """Give the width at which a single network has about so many weights, at most full width.

    Widths come in even numbers of channels, so the match is to some per cent; of the two nearest
    the one with more weights is taken: the control shall not be the smaller.
    """
    return _matched_width(kind, target, tuple(scales.items()), weights)


@cache
def _matched_width(
    kind: str, target: str, scales: tuple[tuple[str, int], ...], weights: int
) -> float:
    """Search once for all seeds and rates: some forty networks are built for it, in seconds."""

    def count(width: float) -> int:
        return _count(build_single(kind, target=target, scales=dict(scales), width=width))

    low, high = 0.0, 1.0
    if count(high) <= weights:
        return high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if count(middle) >= weights else (middle, high)
    return high


def _count(network: object) -> int:
    return sum(parameter.numel() for parameter in cast(nn.Module, network).parameters())
