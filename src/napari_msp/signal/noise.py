"""Predictions of volumes from others of their kind, and the noise that remains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import GradientTable
from napari_msp.signal.spherical_harmonics import (
    coefficient_count,
    coefficient_orders,
    default_regularisation,
    design_matrix,
)

LEAST_PER_COEFFICIENT = 2
"""Directions per SH coefficient from which a fit can leave one volume out (our choice)."""

LEAST_KEPT = 1.5
"""The same when volumes are left out because they moved (our choice)."""

HIGHEST_ORDER = 4
"""Highest SH order of the fit (our choice): order 6 would follow the noise of 30 directions."""

LAMBDA_AT_30 = 0.0006
"""Laplace-Beltrami weight for 30 directions: a tenth of the usual one, as bias matters more here
than noise, but enough for schemes with near-duplicate directions (our choice)."""

SPREAD_SHELL = 100.0
"""Range of b-values in s/mm² from which a shell's fit includes a slope over b (our choice)."""


@dataclass(frozen=True, eq=False)
class Group:
    """Volumes of one kind, by their indices: those of b=0, or of one shell.

    Attributes
    ----------
    b_value
        Mean b-value in s/mm²; 0 for b=0.
    design
        (N, C) design matrix of the signal.
    penalty
        (C,) weight of each squared coefficient.
    """

    b_value: float
    volumes: IntArray
    design: FloatArray
    penalty: FloatArray

    @property
    def name(self) -> str:
        """Name, such as "b = 1200"."""
        return f"b = {self.b_value:.0f}"

    @property
    def fewest(self) -> int:
        """Smallest number of other volumes to predict one from."""
        count, columns = len(self.volumes), int(self.design.shape[1])
        return min(count, max(2, (count + 1) // 2, round(LEAST_KEPT * columns)))

    def others(self, kept: MaskArray | None = None, stiffness: float = 1.0) -> FloatArray:
        """Return the matrix that predicts each volume from the others.

        Parameters
        ----------
        kept
            (N,) mask of volumes to predict from; None: all. Each is left out of its own prediction.
        stiffness
            Factor of the penalty: a stiffer fit follows the contrast of directions less.

        Returns
        -------
        (N, N) with zeros on the diagonal: predictions are `values @ matrix.T`. Not finite if no
        volume is left to predict from.
        """
        weights = np.ones(len(self.volumes)) if kept is None else kept.astype(float)
        smoother = self.smoother(weights, stiffness)
        leverage = np.diag(smoother)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (smoother - np.diag(leverage)) / (1 - leverage)[:, None]

    def smoother(self, weights: FloatArray | None = None, stiffness: float = 1.0) -> FloatArray:
        """Return the (N, N) matrix of the fit: fitted values are `values @ matrix.T`."""
        if weights is None:
            weights = np.ones(len(self.volumes))
        weighted = self.design * weights[:, None]
        normal = self.design.T @ weighted + stiffness * np.diag(self.penalty)
        return np.asarray(self.design @ np.linalg.pinv(normal) @ weighted.T)


def groups_of(table: GradientTable) -> list[Group]:
    """List the kinds of volumes: b=0 first, then the shells."""
    found = [_group(table, 0.0, table.b0_volumes)] if len(table.b0_volumes) else []
    return found + [_group(table, shell.b_value, shell.volumes) for shell in table.shells]


def _group(table: GradientTable, b_value: float, volumes: IntArray) -> Group:
    count = len(volumes)
    possible = range(HIGHEST_ORDER, 0, -2) if b_value else ()
    needed = {each: LEAST_PER_COEFFICIENT * coefficient_count(each) for each in possible}
    order = next((each for each in needed if count >= needed[each]), 0)
    if order == 0:
        return Group(b_value, volumes, np.ones((count, 1)), np.zeros(1))
    design = design_matrix(table.directions[volumes], order)
    degrees = coefficient_orders(order)
    penalty = default_regularisation(count, LAMBDA_AT_30) * (degrees * (degrees + 1.0)) ** 2
    strengths = table.b_values[volumes]
    if np.ptp(strengths) > SPREAD_SHELL:
        slope = (strengths / strengths.mean() - 1)[:, None]
        design, penalty = np.hstack([design, slope]), np.append(penalty, 0.0)
    return Group(b_value, volumes, design, penalty)


# --- Noise -----------------------------------------------------------------------------------

SAMPLE = 100_000
"""Largest number of in-mask voxels in which CNR and noise are measured."""

FEWEST_FREE = 3.0
"""Degrees of freedom that a fit's residuals must have before noise is estimated from them."""


def noise_of(
    inside: FloatArray, groups: Sequence[Group]
) -> tuple[float | None, Literal["b=0", "residuals"] | None]:
    """Estimate the standard deviation of one volume's noise, and return what it is from.

    From repeated b=0 volumes, like eddy_quad's SNR: the root mean square over voxels of the
    standard deviation between them. With only one, from the residuals of the lowest shell's fit:
    their median over voxels, as edges that moved would weigh too much.
    """
    for group in groups:
        if not group.b_value and len(group.volumes) > 1:
            noise = float(np.sqrt(inside[group.volumes].var(axis=0, ddof=1, dtype=float).mean()))
            if noise > 0:
                return noise, "b=0"
    for group in groups:
        fitted = fit_group(inside, group) if group.b_value else None
        if fitted is not None:
            noise = float(np.median(fitted[1]))
            return (noise, "residuals") if noise > 0 else (None, None)
    return None, None


def contrast_to_noise(inside: FloatArray, group: Group) -> float | None:
    """Return a shell's CNR, see `ScanQuality`; None where a fit would leave no residuals."""
    fitted = fit_group(inside, group)
    if fitted is None:
        return None
    predicted, noise = fitted
    known = noise > 0
    return float((predicted.std(axis=0)[known] / noise[known]).mean()) if known.any() else None


def fit_group(inside: FloatArray, group: Group) -> tuple[FloatArray, FloatArray] | None:
    """Fit a shell; return the (M, V) fitted signal and the (V,) deviation of the residuals."""
    smoother = group.smoother()
    count = len(group.volumes)
    # Degrees of freedom of the residuals of a linear smoother (Hastie 1990).
    free = count - 2 * np.trace(smoother) + (smoother**2).sum()
    if group.design.shape[1] == 1 or free < FEWEST_FREE:
        return None
    values = inside[group.volumes]
    fitted: FloatArray = smoother.astype(np.float32) @ values
    noise: FloatArray = np.sqrt(np.square(values - fitted).sum(axis=0) / free)
    return fitted, noise


def signal_to_noise(acquisition: Acquisition) -> float | None:
    """Return the mean b=0 signal in the mask over the noise of one volume; None if unknown."""
    every = 1 + int(acquisition.mask.sum()) // SAMPLE
    x, y, z = (axis[::every] for axis in np.nonzero(acquisition.mask))
    inside = np.ascontiguousarray(acquisition.voxels[x, y, z].T)
    noise, _ = noise_of(inside, groups_of(acquisition.gradients))
    return float(acquisition.b0[acquisition.mask].mean(dtype=float)) / noise if noise else None
