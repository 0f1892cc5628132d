"""Gradient coils whose field is not linear in position."""

from dataclasses import dataclass

import numpy as np

from napari_msp.arrays import FloatArray

RADIUS = 100.0
"""Distance from the isocentre, in mm, at which the coefficients are stated."""

ISOCENTRE = np.array([0.0, -18.0, 8.0])
"""Where the head is centred in the scanner, in MNI mm (the middle of the brain)."""


@dataclass(frozen=True)
class GradientField:
    """Third-order gradient non-linearity (Bammer 2003).

    A transverse coil makes B ∝ x + c · x (4z² - x² - y²) / R², a longitudinal coil
    B ∝ z + c · z (2z² - 3x² - 3y²) / R²: the lowest solid harmonics that the symmetry of the coils
    allows. Their derivatives say what gradient a spin feels.

    Attributes
    ----------
    transverse, longitudinal
        The coefficients c at R = 100 mm.
    """

    transverse: float
    longitudinal: float

    def tensor(self, points: FloatArray) -> FloatArray:
        """Give the (3, 3, N) matrix that turns a nominal gradient into the one at each point.

        Parameters
        ----------
        points
            (3, N) scanner positions in mm.
        """
        x, y, z = (points - ISOCENTRE.astype(points.dtype)[:, None]) / RADIUS
        c, d = self.transverse, self.longitudinal
        felt = np.empty((3, 3, points.shape[1]), dtype=points.dtype)
        felt[0, 0] = 1 + c * (4 * z**2 - 3 * x**2 - y**2)
        felt[1, 1] = 1 + c * (4 * z**2 - x**2 - 3 * y**2)
        felt[2, 2] = 1 + d * (6 * z**2 - 3 * x**2 - 3 * y**2)
        felt[0, 1] = felt[1, 0] = -2 * c * x * y
        felt[2, 0] = 8 * c * x * z
        felt[2, 1] = 8 * c * y * z
        felt[0, 2] = -6 * d * x * z
        felt[1, 2] = -6 * d * y * z
        return felt
