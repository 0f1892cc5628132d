"""Diffusion tensors from the signal."""

import numpy as np

from napari_msp.arrays import FloatArray

SMALLEST_SIGNAL = 1e-6
"""Floor of a voxel's signals over its largest one, before the logarithm (as MRtrix3)."""

REWEIGHTINGS = 2
"""Times that the tensor fit takes its weights from its own signal (as MRtrix3)."""

VOXELS_AT_ONCE = 20_000
"""Bounds the memory of the tensor fit."""


def fit_tensors(
    signal: FloatArray, b_values: FloatArray, directions: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fit tensors by iteratively reweighted least squares on the logarithm (Veraart 2013).

    Weights are the squared measured signal first, then that of the fit, as in MRtrix3. Unlike a
    start from unweighted least squares this pays no heed to signals near 0, whose logarithm is
    noise. Eigenvalues are not forced above 0.

    Parameters
    ----------
    signal
        (V, N) in any unit.
    b_values, directions
        (N,) in s/mm², and (N, 3) unit vectors.

    Returns
    -------
    (V, 3) eigenvalues in mm²/s, smallest first, and (V, 3, 3) eigenvectors in columns.
    """
    x, y, z = directions.T
    parts = [x * x, x * y, x * z, y * y, y * z, z * z]
    design = np.stack([*(-b_values * part for part in parts), np.ones(len(b_values))], axis=1)
    design *= [1, 2, 2, 1, 2, 1, 1]
    products = np.einsum("ni,nj->nij", design, design).reshape(len(design), -1)
    tensors = np.zeros((len(signal), 6))
    for start in range(0, len(signal), VOXELS_AT_ONCE):
        part = signal[start : start + VOXELS_AT_ONCE]
        largest = np.maximum(part.max(axis=1, keepdims=True), SMALLEST_SIGNAL)
        part = np.maximum(part / largest, SMALLEST_SIGNAL)
        logarithm, weights = np.log(part), np.square(part)
        for step in range(REWEIGHTINGS + 1):
            normal = (weights @ products).reshape(-1, 7, 7)
            right = (weights * logarithm) @ design
            fitted = np.linalg.solve(normal, right[..., None])[..., 0]
            if step < REWEIGHTINGS:
                weights = np.exp(2 * np.minimum(fitted @ design.T, 5.0))
        tensors[start : start + VOXELS_AT_ONCE] = fitted[:, :6]
    values, vectors = np.linalg.eigh(tensors[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3))
    return np.asarray(values), np.asarray(vectors)


def anisotropy(values: FloatArray) -> FloatArray:
    """Give the fractional anisotropy of (V, 3) eigenvalues, kept in [0, 1]."""
    spread = np.square(values - values.mean(axis=-1, keepdims=True)).sum(axis=-1)
    energy = np.maximum(np.square(values).sum(axis=-1), 1e-30)
    return np.asarray(np.clip(np.sqrt(1.5 * spread / energy), 0, 1))
