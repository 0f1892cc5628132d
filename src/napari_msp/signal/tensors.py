"""Tensors of many voxels at once, and measures derived from them.

A tensor is a column of (6, V): xx, xy, xz, yy, yz, zz in mm²/s. Blocks of voxels are computed by a
few calls of NumPy, in float64: calling LAPACK for one small matrix at a time takes several times as
long, and float32 would save nothing.
"""

from collections.abc import Callable

import numpy as np

from napari_msp.arrays import FloatArray, for_each_block

SMALLEST_SIGNAL = 1e-6
"""Floor of a voxel's signals over its largest one, before the logarithm (as MRtrix3)."""

REWEIGHTINGS = 2
"""Number of times that the tensor fit is reweighted by its own signal (as MRtrix3)."""

UNDETERMINED = 1e-13
"""Ratio of a pivot to its diagonal below which it is only rounding."""

CLOSE = 1e-3
"""Angle in radians, about (λ₁ - λ₂) / (λ₁ - λ₃), below which the two largest eigenvalues are too
close for the closed form."""

ROUND = 1e-6
"""Spread of eigenvalues over their mean below which rounding shows in the closed form."""

UNKNOWNS = 7
"""A tensor's six parts and the logarithm of the signal at b = 0."""

_ROWS, _COLUMNS = np.triu_indices(UNKNOWNS)

Signals = Callable[[slice], FloatArray]
"""Function that returns (N, B) float64 signals of a block of voxels in any unit, free to change."""


def tensor_design(b_values: FloatArray, directions: FloatArray) -> FloatArray:
    """Return the (N, 7) design matrix of the logarithm of a signal, see `UNKNOWNS`.

    If a direction is 0, the signal is a mean over directions.
    """
    x, y, z = directions.T
    third = np.where(directions.any(axis=1), 0, 1 / 3)
    parts = (x * x + third, 2 * x * y, 2 * x * z, y * y + third, 2 * y * z, z * z + third)
    return np.stack([*(-b_values * part for part in parts), np.ones(len(b_values))], axis=1)


def determines_tensor(b_values: FloatArray, directions: FloatArray) -> bool:
    """Return whether a scheme determines a tensor at all."""
    return bool(np.linalg.matrix_rank(tensor_design(b_values, directions)) == UNKNOWNS)


def fit_tensors(
    signals: Signals | FloatArray,
    b_values: FloatArray,
    directions: FloatArray,
    count: int | None = None,
) -> FloatArray:
    """Fit tensors by iteratively reweighted least squares on the logarithm (Veraart 2013).

    Weights are the squared measured signal first, then that of the fit, as in MRtrix3. Unlike a
    start from unweighted least squares this gives signals near 0, whose logarithm is noise, little
    weight. Eigenvalues are not forced above 0.

    Parameters
    ----------
    signals
        (V, N) signals in any unit, or a function that returns a block of them.
    b_values, directions
        (N,) b-values in s/mm², and (N, 3) unit vectors; 0 for means over directions.
    count
        V, if signals come in blocks.

    Returns
    -------
    (6, V) in mm²/s; nan for voxels with a signal that is not finite.
    """
    if isinstance(signals, np.ndarray):
        rows = signals
        return fit_tensors(
            lambda block: rows[block].T.astype(float), b_values, directions, len(rows)
        )
    assert count is not None
    design = tensor_design(b_values, directions)
    # Columns of equal size, so that a pivot shows how well its unknown is determined.
    sizes = np.abs(design).max(axis=0)
    sizes[sizes == 0] = 1
    design = design / sizes
    products = np.ascontiguousarray((design[:, _ROWS] * design[:, _COLUMNS]).T)
    tensors = np.empty((UNKNOWNS - 1, count))

    def work(block: slice) -> None:
        with np.errstate(all="ignore"):
            tensors[:, block] = _fit(signals(block), design, products)

    for_each_block(work, count)
    tensors /= sizes[:-1, None]
    return tensors


def _fit(signal: FloatArray, design: FloatArray, products: FloatArray) -> FloatArray:
    """Fit (6, B) scaled tensors to an (N, B) signal, which is changed."""
    signal /= np.maximum(signal.max(axis=0), SMALLEST_SIGNAL)
    np.maximum(signal, SMALLEST_SIGNAL, out=signal)
    logarithm = np.log(signal)
    weights = np.square(signal, out=signal)
    for step in range(REWEIGHTINGS + 1):
        fitted = solve_symmetric(products @ weights, design.T @ (weights * logarithm))
        if step < REWEIGHTINGS:
            weights = 2 * design @ fitted
            np.exp(np.minimum(weights, 10.0, out=weights), out=weights)
    return fitted[:-1]


def solve_symmetric(matrices: FloatArray, right: FloatArray) -> FloatArray:
    """Solve small symmetric positive systems by elimination, all of them at once.

    Parameters
    ----------
    matrices
        (n (n + 1) / 2, B) upper triangles, row after row; changed.
    right
        (n, B) right-hand sides; changed.

    Returns
    -------
    (n, B) solutions; the shortest one if a matrix is singular to rounding.
    """
    size = len(right)
    ends = np.cumsum(range(size, 0, -1))
    rows = [matrices[end - size + row : end] for row, end in enumerate(ends)]
    diagonals = np.stack([row[0] for row in rows])
    whole = matrices.copy(), right.copy()
    for place, row in enumerate(rows):
        np.reciprocal(row[0], out=row[0])  # the pivot is only needed as a divisor
        factors = row[1:] * row[0]
        for below in range(place + 1, size):
            rows[below] -= factors[below - place - 1] * row[below - place :]
        right[place + 1 :] -= factors * right[place]
    lost = diagonals
    lost *= np.stack([row[0] for row in rows])
    for place in range(size - 1, -1, -1):
        row = rows[place]
        right[place] -= np.einsum("ib,ib->b", row[1:], right[place + 1 :])
        right[place] *= row[0]
    sound = ((lost > 0) & (lost < 1 / UNDETERMINED)).all(axis=0)
    if not sound.all():
        doubtful = np.flatnonzero(~sound & np.isfinite(whole[1]).all(axis=0))
        right[:, doubtful] = _shortest(whole[0][:, doubtful], whole[1][:, doubtful])
    return right


def _shortest(triangles: FloatArray, right: FloatArray) -> FloatArray:
    """Return the (n, B) shortest solutions of systems that may be singular."""
    size = len(right)
    matrices = np.empty((right.shape[1], size, size))
    rows, columns = np.triu_indices(size)
    matrices[:, rows, columns] = matrices[:, columns, rows] = triangles.T
    inverses = np.linalg.pinv(matrices, rcond=UNDETERMINED, hermitian=True)
    return np.asarray((inverses @ right.T[..., None])[..., 0].T)


# --- Measures of tensors ----------------------------------------------------------------------


def mean_diffusivity(tensors: FloatArray) -> FloatArray:
    """Return (V,) a third of the trace, in mm²/s."""
    xx, _, _, yy, _, zz = tensors
    return np.asarray((xx + yy + zz) / 3)


def anisotropy(tensors: FloatArray) -> FloatArray:
    """Return (V,) fractional anisotropy, clipped to [0, 1]."""
    mean = mean_diffusivity(tensors)
    spread = _spread(tensors, mean)
    energy = np.maximum(spread + 3 * mean * mean, 1e-30)
    return np.asarray(np.clip(np.sqrt(1.5 * spread / energy), 0, 1))


def _spread(tensors: FloatArray, mean: FloatArray) -> FloatArray:
    """Return (V,) sums of the squared eigenvalues' distances from their mean."""
    xx, xy, xz, yy, yz, zz = tensors
    along = np.square(xx - mean) + np.square(yy - mean) + np.square(zz - mean)
    return np.asarray(along + 2 * (xy * xy + xz * xz + yz * yz))


def first_eigenvectors(tensors: FloatArray) -> FloatArray:
    """Return (V, 3) unit eigenvectors of the largest eigenvalue, the largest component above 0.

    Uses the roots of the characteristic cubic (Smith 1961) and the adjugate of T - λ₁, which is
    (λ₁ - λ₂)(λ₁ - λ₃) e₁e₁ᵀ: exact to rounding if λ₁ is apart from λ₂. Elsewhere, in some
    thousandth of the voxels, LAPACK is used. Tensors that are not finite give nan.
    """
    xx, xy, xz, yy, yz, zz = tensors
    mean = mean_diffusivity(tensors)
    with np.errstate(all="ignore"):
        size = np.sqrt(_spread(tensors, mean) / 6)
        scale = 1 / size
        xx, xy, xz, yy, yz, zz = (
            (xx - mean) * scale, xy * scale, xz * scale,
            (yy - mean) * scale, yz * scale, (zz - mean) * scale,
        )  # fmt: skip
        determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz)
        determinant += xz * (xy * yz - yy * xz)
        angle = np.arccos(np.clip(determinant / 2, -1, 1)) / 3
        largest = 2 * np.cos(angle)
        xx, yy, zz = xx - largest, yy - largest, zz - largest
        adjugate = (
            (yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy),
            (xx * zz - xz * xz, xy * xz - yz * xx),
            (xx * yy - xy * xy,),
        )
        (aa, ab, ac), (bb, bc), (cc,) = adjugate
        by_x, by_y = (aa >= bb) & (aa >= cc), bb >= cc
        vectors = np.stack(
            [
                np.where(by_x, aa, np.where(by_y, ab, ac)),
                np.where(by_x, ab, np.where(by_y, bb, bc)),
                np.where(by_x, ac, np.where(by_y, bc, cc)),
            ],
            axis=1,
        )
        vectors /= np.sqrt(np.einsum("vi,vi->v", vectors, vectors))[:, None]
        apart = (np.pi / 3 - angle > CLOSE) & (size > ROUND * np.abs(mean))
    left = np.flatnonzero(~apart & np.isfinite(tensors).all(axis=0))
    if len(left):
        matrices = tensors[:, left][[0, 1, 2, 1, 3, 4, 2, 4, 5]].T.reshape(-1, 3, 3)
        slow = np.linalg.eigh(matrices)[1][..., -1]
        longest = np.take_along_axis(slow, np.abs(slow).argmax(axis=1)[:, None], axis=1)
        vectors[left] = slow * np.sign(longest)
    return vectors
