"""Rotation-invariant SH features (RISH): the energy of each order."""

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.signal.spherical_harmonics import order_of, order_slices


def rish(coefficients: FloatArray) -> FloatArray:
    """Sum the squared coefficients of each order (Mirzaalian 2016).

    Invariant only for coefficients in an orthonormal basis that were not standardised channel by
    channel.

    Parameters
    ----------
    coefficients
        (..., C) for an even order L.

    Returns
    -------
    (..., L/2 + 1), orders 0, 2, …, L.
    """
    slices = order_slices(order_of(coefficients.shape[-1])).values()
    return np.stack([np.square(coefficients[..., part]).sum(axis=-1) for part in slices], axis=-1)


def scale_orders(coefficients: FloatArray, ratios: FloatArray) -> FloatArray:
    """Multiply every order by a ratio of its own.

    Parameters
    ----------
    coefficients
        (..., C).
    ratios
        (..., L/2 + 1); for RISH harmonisation, the root of target RISH over source RISH.
    """
    slices = order_slices(order_of(coefficients.shape[-1])).values()
    lengths = [part.stop - part.start for part in slices]
    return np.asarray(coefficients * np.repeat(ratios, lengths, axis=-1))
