"""Rotate SH series exactly.

A rotation mixes the 2l+1 coefficients of each order among themselves. The mixing matrix is solved
from the basis itself on more directions than coefficients, which is exact for a band-limited
series: no recursion, and reflections cost nothing more, since all orders are even.
"""

from itertools import permutations, product

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.signal.spherical_harmonics import (
    ORDER,
    coefficient_count,
    design_matrix,
    order_of,
    order_slices,
)

EXACT = 1e-10
"""Entries this near to -1, 0 or 1 differ from them by rounding only."""


def rotation_matrix(rotation: FloatArray, order: int = ORDER) -> FloatArray:
    """Give the (C, C) matrix that rotates coefficients by `rotation`.

    For f with coefficients c, the rotated series D @ c is g(u) = f(Rᵀ u): a fibre along v turns
    into one along R v. Where the exact matrix is a signed permutation (grid symmetries that keep
    the z axis) its entries are exactly -1, 0 and 1.

    Parameters
    ----------
    rotation
        (3, 3) orthogonal, proper or not.
    order
        Even SH order.

    Raises
    ------
    ValueError
        When `rotation` is not orthogonal.
    """
    rotation = np.asarray(rotation, dtype=float)
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6):
        raise ValueError("a rotation must be an orthogonal 3 × 3 matrix")
    directions = spread_directions(4 * coefficient_count(order))
    before = design_matrix(directions @ rotation, order)  # the rows of Rᵀ u
    basis = design_matrix(directions, order)
    matrix = np.zeros((coefficient_count(order),) * 2)
    for part in order_slices(order).values():
        matrix[part, part] = np.linalg.lstsq(basis[:, part], before[:, part], rcond=None)[0]
    nearest = np.round(matrix)
    return np.where(np.abs(matrix - nearest) < EXACT, nearest, matrix)


def rotate(coefficients: FloatArray, rotation: FloatArray) -> FloatArray:
    """Rotate (..., C) coefficients by a (3, 3) orthogonal matrix.

    The identity returns the coefficients untouched, bit for bit, and a signed permutation moves
    and negates them without arithmetic.
    """
    matrix = rotation_matrix(rotation, order_of(coefficients.shape[-1]))
    signs = np.round(matrix)
    if np.array_equal(signs, matrix):
        source = np.abs(signs).argmax(axis=1)
        sign = signs[np.arange(len(signs)), source].astype(coefficients.dtype)
        if np.array_equal(source, np.arange(len(source))) and (sign == 1).all():
            return coefficients
        return np.asarray(coefficients[..., source] * sign)
    return np.asarray(coefficients @ matrix.T.astype(coefficients.dtype))


def grid_symmetries() -> list[FloatArray]:
    """List the 48 symmetries of a cubic grid as (3, 3) signed permutation matrices.

    The identity comes first.
    """
    symmetries: list[FloatArray] = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            symmetries.append(np.diag(signs)[:, list(order)])
    return symmetries


def spread_directions(count: int) -> FloatArray:
    """(count, 3) nearly even directions over the half-sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1 - index / count
    azimuth = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)
