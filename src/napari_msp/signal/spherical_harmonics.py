"""Real symmetric spherical harmonics (SH): basis, fit, energy of each order, profiles, rotation.

Coefficients are in MRtrix3's basis throughout: even orders l = 0, 2, 4, …; m from -l to l; index
l(l+1)/2 + m; orthonormal, directions in scanner (RAS+) axes.
"""

from functools import lru_cache
from itertools import permutations, product
from typing import Final

import numpy as np
from dipy.reconst.shm import real_sh_tournier, smooth_pinv

from napari_msp.arrays import FloatArray, IntArray

ORDER: Final = 6
"""SH order of the method (paper): 28 coefficients."""


def even_orders(order: int = ORDER) -> list[int]:
    """List the orders 0, 2, …, `order`."""
    if order < 0 or order % 2:
        raise ValueError(f"SH order must be even and not negative, not {order}")
    return list(range(0, order + 1, 2))


def coefficient_count(order: int = ORDER) -> int:
    """Count the coefficients up to an even order.

    >>> coefficient_count(6)
    28
    """
    return (order + 1) * (order + 2) // 2


def order_of(count: int) -> int:
    """Return the even order that has `count` coefficients.

    >>> order_of(28)
    6
    """
    order = 0
    while coefficient_count(order) < count:
        order += 2
    if coefficient_count(order) != count:
        raise ValueError(f"{count} is no number of coefficients of an even SH order")
    return order


def order_slices(order: int = ORDER) -> dict[int, slice]:
    """Return each order's slice of the coefficients.

    >>> order_slices(4)
    {0: slice(0, 1, None), 2: slice(1, 6, None), 4: slice(6, 15, None)}
    """
    return {
        degree: slice(coefficient_count(degree - 2), coefficient_count(degree))
        for degree in even_orders(order)
    }


def coefficient_orders(order: int = ORDER) -> IntArray:
    """Return the (C,) order l of each coefficient."""
    degrees = even_orders(order)
    return np.repeat(degrees, [2 * degree + 1 for degree in degrees])


REGULARISATION_AT_30 = 0.006
"""Laplace-Beltrami weight for 30 directions (Descoteaux 2007 uses 0.006)."""


def design_matrix(directions: FloatArray, order: int = ORDER) -> FloatArray:
    """Evaluate the SH basis at directions.

    Parameters
    ----------
    directions
        (N, 3) unit vectors in scanner axes.

    Returns
    -------
    (N, C) values of the C basis functions.
    """
    x, y, z = np.asarray(directions, dtype=float).T
    polar = np.arccos(np.clip(z, -1.0, 1.0))
    azimuth = np.arctan2(y, x)
    values, _, _ = real_sh_tournier(order, polar, azimuth, legacy=False)
    return np.asarray(values, dtype=float)


def default_regularisation(direction_count: int, at_30: float = REGULARISATION_AT_30) -> float:
    """Return λ = `at_30` · N/30: any number of directions is shrunk alike (our choice)."""
    return at_30 * direction_count / 30


def fitting_matrix(directions: FloatArray, order: int, regularisation: float) -> FloatArray:
    """Return the (C, N) matrix that turns a signal into coefficients.

    It minimises |B c - s|² + λ Σ (l(l+1) c_lm)²: least squares with Laplace-Beltrami
    regularisation (Descoteaux 2007), plain least squares for λ = 0.
    """
    degrees = coefficient_orders(order)
    penalty = np.sqrt(regularisation) * degrees * (degrees + 1.0)
    return np.asarray(smooth_pinv(design_matrix(directions, order), penalty), dtype=float)


def rish(coefficients: FloatArray) -> FloatArray:
    """Sum the squared coefficients of each order (Mirzaalian 2016).

    Invariant only for coefficients in an orthonormal basis that are not standardised channel by
    channel.

    Parameters
    ----------
    coefficients
        (..., C) coefficients up to an even order L.

    Returns
    -------
    (..., L/2 + 1) energies of the orders 0, 2, …, L.
    """
    slices = order_slices(order_of(coefficients.shape[-1])).values()
    return np.stack([np.square(coefficients[..., part]).sum(axis=-1) for part in slices], axis=-1)


def scale_orders(coefficients: FloatArray, ratios: FloatArray) -> FloatArray:
    """Multiply each order by its own ratio.

    Parameters
    ----------
    coefficients
        (..., C) coefficients.
    ratios
        (..., L/2 + 1) ratios; for RISH harmonization, the root of target RISH over source RISH.
    """
    slices = order_slices(order_of(coefficients.shape[-1])).values()
    lengths = [part.stop - part.start for part in slices]
    return np.asarray(coefficients * np.repeat(ratios, lengths, axis=-1))


# --- Around a plane --------------------------------------------------------------------------

DIRECTIONS = {
    "R": (1.0, 0.0, 0.0),
    "L": (-1.0, 0.0, 0.0),
    "A": (0.0, 1.0, 0.0),
    "P": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}
"""Anatomical sides in scanner (RAS+) axes."""

PLANE_SIDES = {"axial": ("L", "A"), "coronal": ("L", "S"), "sagittal": ("P", "S")}
"""Sides shown at the right and on top when a plane is viewed as in Figure 3."""


def signal_profile(
    coefficients: FloatArray, plane: str, count: int = 180
) -> tuple[FloatArray, FloatArray]:
    """Evaluate S/S0 all around a plane.

    Parameters
    ----------
    coefficients
        (..., C) SH coefficients in scanner axes.
    plane
        "axial", "coronal" or "sagittal", in scanner axes.

    Returns
    -------
    angles
        (count,) angles in [0, 2π), counter-clockwise from the picture's right, see `PLANE_SIDES`.
    signal
        (..., count) values of S/S0.
    """
    angles, basis = _plane_basis(plane, count, order_of(coefficients.shape[-1]))
    return angles, coefficients @ basis.T


def plane_directions(plane: str, angles: FloatArray) -> FloatArray:
    """Return (N, 3) scanner-axes unit vectors at (N,) angles of a plane, see `signal_profile`."""
    if plane not in PLANE_SIDES:
        raise ValueError(f"there is no plane {plane!r}; choose from {', '.join(PLANE_SIDES)}")
    right, top = (np.array(DIRECTIONS[side]) for side in PLANE_SIDES[plane])
    directions: FloatArray = np.outer(np.cos(angles), right) + np.outer(np.sin(angles), top)
    return directions


@lru_cache(maxsize=16)  # the basis of a plane is needed at each move of the mouse
def _plane_basis(plane: str, count: int, order: int) -> tuple[FloatArray, FloatArray]:
    angles = np.arange(count) * (2 * np.pi / count)
    return angles, design_matrix(plane_directions(plane, angles), order)


# --- Rotation ---------------------------------------------------------------------------------

# A rotation mixes the 2l+1 coefficients of each order among themselves. The mixing matrix is solved
# from the basis itself on more directions than coefficients, which is exact for a band-limited
# series: no recursion, and reflections cost nothing more, since all orders are even.

EXACT = 1e-10
"""Distance from -1, 0 or 1 within which an entry differs from it only by rounding."""


def rotation_matrix(rotation: FloatArray, order: int = ORDER) -> FloatArray:
    """Return the (C, C) matrix that rotates coefficients by `rotation`.

    For f with coefficients c, the rotated series D @ c is g(u) = f(Rᵀ u): a fibre along v turns
    into one along R v. Where the exact matrix is a signed permutation (grid symmetries that keep
    the z axis) its entries are exactly -1, 0 and 1.

    Parameters
    ----------
    rotation
        (3, 3) orthogonal, proper or not.
    order
        Even SH order.
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
    """Return (count, 3) nearly even directions over the half-sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1 - index / count
    azimuth = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)
