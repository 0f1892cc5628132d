"""Which SH order a gradient scheme supports.

Counting directions is not enough: near-duplicate directions leave the higher orders to the
regularisation.
"""

import warnings

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.errors import UserError
from napari_msp.signal.sh_index import coefficient_count
from napari_msp.signal.spherical_harmonics import design_matrix

CONDITION_LIMIT = 100.0
"""Condition number of the design matrix above which an order is not supported (our choice)."""


class IllConditionedScheme(UserWarning):
    """The gradient scheme hardly determines the higher SH orders."""


def condition_number(directions: FloatArray, order: int) -> float:
    """Give the condition number of the unregularised design matrix of (N, 3) directions."""
    return float(np.linalg.cond(design_matrix(directions, order)))


def supported_order(directions: FloatArray, highest: int = 12) -> int:
    """Give the highest even order that a scheme determines without regularisation.

    That is: no more coefficients than directions, and a condition number of at most
    `CONDITION_LIMIT`.
    """
    supported = 0
    for order in range(2, highest + 1, 2):
        if coefficient_count(order) > len(directions):
            break
        if condition_number(directions, order) > CONDITION_LIMIT:
            break
        supported = order
    return supported


def check_scheme(directions: FloatArray, order: int, what: str) -> None:
    """Refuse too few directions; warn when the scheme is ill-conditioned at `order`.

    Parameters
    ----------
    directions
        (N, 3) unit vectors.
    order
        Even SH order wanted.
    what
        Names the acquisition in messages.

    Raises
    ------
    UserError
        Fewer directions than coefficients: the message names the highest order possible. Or
        directions that determine not even order 2.

    Warns
    -----
    IllConditionedScheme
        The message names the order that the scheme supports.
    """
    count, needed = len(directions), coefficient_count(order)
    if count < needed:
        possible = max(low for low in range(0, order, 2) if coefficient_count(low) <= count)
        raise UserError(
            f"{what}: {count} directions cannot determine the {needed} coefficients of SH order "
            f"{order}; the highest order possible is {possible}"
        )
    condition = condition_number(directions, order)
    if condition > CONDITION_LIMIT:
        supported = supported_order(directions)
        if order > 0 and supported == 0:
            raise UserError(
                f"{what}: its gradient directions hardly differ, so they determine no SH order "
                "above 0; give the scan's own b-vectors with --bvec"
            )
        warnings.warn(
            f"{what}: the gradient scheme is ill-conditioned at SH order {order} (condition "
            f"number {condition:.3g}); it supports order {supported}, the "
            "higher terms come mostly from the regularisation",
            IllConditionedScheme,
            stacklevel=3,
        )
