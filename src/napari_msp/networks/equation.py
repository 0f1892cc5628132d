"""Equation (1) of the MSP paper, implemented only here.

ŷ²_T = (1-α) ŷ¹_T + α/(P-1) · (ŷ¹_T + Σ_{i≠T} N_iT(z_i))

Of P platforms P-1 are targets, so there are P-1 terms: the target's own first stage ŷ¹_T, and a
branch N_iT(z_i) for each other target i. The functions accept NumPy arrays and torch tensors,
standardised or in SH units: undoing the standardisation is affine, the same for all terms of one
target, and the weights sum to one.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Image = TypeVar("Image")
"""A NumPy array or a torch tensor."""


def second_stage(first: Image, branches: Sequence[Image], alpha: float) -> Image:
    """Return ŷ²_T.

    Parameters
    ----------
    first
        ŷ¹_T.
    branches
        N_iT(z_i) of every other target.
    alpha
        α: 0 gives the first stage, 1 the mean of the P-1 terms.

    Raises
    ------
    ValueError
        For an α outside [0, 1].
    """
    total: Any = first
    for branch in branches:
        total = total + branch
    mixed = share_of_term(len(branches), alpha) * total
    if alpha < 1.0:
        mixed += (1.0 - alpha) * first  # type: ignore[operator]  # in place: images are large
    found: Image = mixed
    return found


def contribution(first: Image, branch: Image, branches: int, alpha: float) -> Image:
    """Return the contribution of one of several branches: α/(P-1) · (N_iT(z_i) - ŷ¹_T).

    The first stage and the contributions of all branches sum to ŷ²_T.
    """
    difference: Any = branch - first  # type: ignore[operator]
    added: Image = share_of_term(branches, alpha) * difference
    return added


def weights(target: str, branches: Iterable[str], alpha: float) -> dict[str, float]:
    """Return the weight of each term by platform; they sum to 1.

    The target's is that of ŷ¹_T, every other platform's that of its branch.

    >>> weights("b", ["a"], 0.5)
    {'a': 0.25, 'b': 0.75}
    """
    others = tuple(branches)
    share = share_of_term(len(others), alpha)
    return {**dict.fromkeys(others, share), target: 1.0 - alpha + share}


def share_of_term(branches: int, alpha: float) -> float:
    """Return α/(P-1), the weight of every branch.

    Raises
    ------
    ValueError
        For an α outside [0, 1]; also refuses nan.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    return alpha / (branches + 1)
