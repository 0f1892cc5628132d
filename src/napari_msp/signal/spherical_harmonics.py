"""Real symmetric spherical harmonics (SH): basis, fit and evaluation.

Coefficients are in MRtrix3's basis throughout: orthonormal, directions in scanner (RAS+) axes.
"""

import numpy as np
from dipy.reconst.shm import real_sh_tournier, smooth_pinv

from napari_msp.arrays import FloatArray
from napari_msp.signal.sh_index import ORDER, coefficient_orders

REGULARISATION_AT_30 = 0.006
"""Laplace-Beltrami weight for 30 directions (Descoteaux 2007 uses 0.006)."""


def design_matrix(directions: FloatArray, order: int = ORDER) -> FloatArray:
    """Evaluate the basis.

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
    """Give λ = λ_30 · N/30, so that every number of directions is shrunk alike (our choice)."""
    return at_30 * direction_count / 30


def fitting_matrix(directions: FloatArray, order: int, regularisation: float) -> FloatArray:
    """Give the (C, N) matrix that turns a signal into coefficients.

    It minimises |B c - s|² + λ Σ (l(l+1) c_lm)²: least squares with Laplace-Beltrami
    regularisation (Descoteaux 2007), plain least squares for λ = 0.
    """
    degrees = coefficient_orders(order)
    penalty = np.sqrt(regularisation) * degrees * (degrees + 1.0)
    return np.asarray(smooth_pinv(design_matrix(directions, order), penalty), dtype=float)
