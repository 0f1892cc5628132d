"""The small rigid motion that best lays a prediction on its truth, found from what truth shows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter

from napari_msp.arrays import FloatArray, MaskArray

CHANNELS = 6
"""Coefficients that show where the head lies: orders 0 and 2, which hold the contrast."""

STEPS = 4
"""Gauss-Newton steps; on simulated heads more would move a prediction by less than 0.003 voxel,
and an input that was not harmonized by 0.03."""

LARGEST_MOTION = 1.0
"""Mean displacement in voxels that is undone at most: more is no residual (our choice)."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What shows position in a smoothed truth.

    Attributes
    ----------
    values
        (C, X, Y, Z) smoothed coefficients.
    inside
        (X, Y, Z) voxels that are compared.
    """

    values: FloatArray
    inside: MaskArray

    @cached_property
    def points(self) -> FloatArray:
        """(3, V) voxel indices of what is compared."""
        return np.argwhere(self.inside).T.astype(float)

    @cached_property
    def centred(self) -> FloatArray:
        """(3, V) the same about their mean."""
        points: FloatArray = self.points - self.points.mean(axis=1, keepdims=True)
        return points

    @cached_property
    def _reach(self) -> float:
        """Distance from the centre, in voxels, at which a turn by 1 / reach moves by 1."""
        return max(float(np.sqrt(np.square(self.centred).sum(axis=0).mean())), 1.0)

    @cached_property
    def _slopes(self) -> FloatArray:
        """(CHANNELS · V, 6) change of truth's values with each parameter of a motion."""
        gradients = np.stack(
            [
                np.stack(np.gradient(channel))[:, self.inside]
                for channel in self.values[:CHANNELS].astype(float)
            ]
        )
        turned = np.cross(self.centred, gradients, axisa=0, axisb=1, axisc=1) / self._reach
        slopes: FloatArray = np.concatenate([gradients, turned], axis=1)
        return slopes.transpose(0, 2, 1).reshape(-1, 6)

    @cached_property
    def _solver(self) -> FloatArray:
        """(6, CHANNELS · V) least squares; a truth without contrast asks for no motion."""
        normal = self._slopes.T @ self._slopes
        solver: FloatArray = np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ self._slopes.T
        return solver

    def moved(self, motion: FloatArray) -> FloatArray:
        """(3, V) where the compared points lie after a motion."""
        shift, turn = motion[:3], motion[3:] / self._reach
        points: FloatArray = (
            self.points + shift[:, None] + np.cross(turn, self.centred, axisb=0, axisc=0)
        )
        return points

    def motion_of(self, splines: FloatArray) -> FloatArray:
        """Find the motion that lays an image on truth, by Gauss-Newton on the squared difference.

        Parameters
        ----------
        splines
            (C, X, Y, Z) of the image, smoothed as truth is, see `splines_of`.

        Returns
        -------
        (6,) shift, and rotation vector times the reach, in voxels.
        """
        wanted = self.values[:CHANNELS, self.inside]
        motion: FloatArray = np.zeros(6)
        for _ in range(STEPS):
            difference = sample(splines[:CHANNELS], self.moved(motion)) - wanted
            motion = self._bounded(motion - self._solver @ difference.ravel().astype(float))
        return motion

    def _bounded(self, motion: FloatArray) -> FloatArray:
        distance = float(np.linalg.norm(self.moved(motion) - self.points, axis=0).mean())
        return motion * min(1.0, LARGEST_MOTION / max(distance, 1e-9))


def splines_of(channels: FloatArray) -> FloatArray:
    """Give the cubic spline coefficients of (C, X, Y, Z) channels."""
    return np.stack([spline_filter(c, order=3, mode="mirror", output=np.float32) for c in channels])


def sample(splines: FloatArray, points: FloatArray) -> FloatArray:
    """(C, V) values of cubic splines at (3, V) points in voxels."""
    return np.stack(
        [map_coordinates(c, points, order=3, mode="mirror", prefilter=False) for c in splines]
    )
