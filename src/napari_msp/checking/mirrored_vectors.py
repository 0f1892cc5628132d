"""b-vectors that are mirrored along one axis: fibres of one subject then run in two directions."""

from collections.abc import Iterator

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.checking.findings import Finding
from napari_msp.checking.summary import HeadImages, ScanSummary
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import Shell
from napari_msp.data.lattice import direction_cosines

FLIP_MARGIN = 0.05
"""By how much mirroring b-vectors must improve the agreement of fibre directions (mean |cosine|,
0.5 for unrelated ones) before it is believed (our choice)."""

FLIP_VOXELS = 3000
"""The most anisotropic voxels, in which fibre directions are compared (our choice)."""

MIRRORS = {"x": [-1.0, 1.0, 1.0], "y": [1.0, -1.0, 1.0], "z": [1.0, 1.0, -1.0]}
"""Factors of the three components of b-vectors, which go along the image's axes."""


def quick_tensors(acquisition: Acquisition, shell: Shell) -> FloatArray:
    """Fit diffusion tensors by linear least squares, quick and good enough for directions.

    Returns
    -------
    (X, Y, Z, 6) float32: xx, yy, zz, xy, xz, yz in scanner axes, times b; 0 outside the mask.
    """
    mask = acquisition.mask
    x, y, z = acquisition.directions(shell).T
    design = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    b0 = np.maximum(acquisition.b0[mask], 1e-6)[:, None]
    ratio = np.clip(acquisition.voxels[mask][:, shell.volumes] / b0, 1e-3, 1.0)
    tensors = np.zeros((*mask.shape, 6), dtype=np.float32)
    tensors[mask] = -np.log(ratio) @ np.linalg.pinv(design).T
    return tensors


def check_mirrored_vectors(
    where: str, source: ScanSummary, target: ScanSummary
) -> Iterator[Finding]:
    """Compare fibre directions of two scans with and without mirrored b-vectors.

    Says nothing when one of them has no images.
    """
    if source.images is None or target.images is None:
        return
    fibres, others = _fibre_pairs(source.images, target.images)
    if len(fibres) == 0:
        return
    axes = direction_cosines(target.lattice.affine)

    def agreement(factors: list[float]) -> float:
        turned = others @ (axes @ np.diag(factors) @ axes.T).T
        return float(np.abs((turned * fibres).sum(axis=1)).mean())

    as_given = agreement([1.0, 1.0, 1.0])
    mirrored = {axis: agreement(factors) for axis, factors in MIRRORS.items()}
    best = max(mirrored, key=lambda axis: mirrored[axis])
    if mirrored[best] > as_given + FLIP_MARGIN:
        yield Finding(
            "error",
            where,
            f"fibres agree better with {source.platform} when one table's b-vectors are mirrored "
            f"in {best} (mean |cosine| {mirrored[best]:.2f} against {as_given:.2f}); check "
            "which of the two tables is wrong and negate that component",
            flag="mirrored",
        )


def _fibre_pairs(source: HeadImages, target: HeadImages) -> tuple[FloatArray, FloatArray]:
    """Give (N, 3) fibre directions of both scans in the most anisotropic voxels that they share."""
    indices = np.argwhere(source.brain.mask)
    to_target = np.linalg.inv(target.brain.lattice.affine) @ source.brain.lattice.affine
    nearest = np.rint(indices @ to_target[:3, :3].T + to_target[:3, 3]).astype(int)
    on_image = ((nearest >= 0) & (nearest < target.brain.lattice.shape)).all(axis=1)
    indices, nearest = indices[on_image], nearest[on_image]
    shared = target.brain.mask[tuple(nearest.T)]
    strength, fibres = _principal(source.tensors[tuple(indices[shared].T)])
    other_strength, others = _principal(target.tensors[tuple(nearest[shared].T)])
    anisotropic = np.argsort(strength * other_strength)[-FLIP_VOXELS:]
    return fibres[anisotropic], others[anisotropic]


def _principal(tensors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give (N,) linear anisotropy in [0, 1] and (N, 3) first eigenvectors of (N, 6) tensors."""
    xx, yy, zz, xy, xz, yz = np.moveaxis(tensors.astype(float), -1, 0)
    matrices = np.moveaxis(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), -1, 0)
    values, vectors = np.linalg.eigh(matrices)
    values = np.maximum(values, 1e-9)
    linear = (values[:, 2] - values[:, 1]) / values.sum(axis=1)
    return linear, vectors[:, :, 2]
