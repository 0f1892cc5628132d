"""Gradient tables: schemes, b-values, and b-vectors that are mirrored along one axis."""

from collections.abc import Iterator, Sequence

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.checking.report import Finding
from napari_msp.checking.summary import HeadImages, ScanSummary
from napari_msp.data.acquisition import B_VALUE_TOLERANCE, Acquisition, no_b0
from napari_msp.data.gradients import GradientTable, Shell
from napari_msp.data.lattice import direction_cosines
from napari_msp.errors import Advice, Give
from napari_msp.signal.fitting import CONDITION_LIMIT, condition_number, supported_order
from napari_msp.signal.spherical_harmonics import ORDER, coefficient_count

FLIP_MARGIN = 0.05
"""By how much mirroring b-vectors must improve the agreement of fibre directions (mean |cosine|,
0.5 for unrelated ones) before it is believed (our choice)."""

FLIP_VOXELS = 3000
"""The most anisotropic voxels, in which fibre directions are compared (our choice)."""

MIRRORS = {"x": [-1.0, 1.0, 1.0], "y": [1.0, -1.0, 1.0], "z": [1.0, 1.0, -1.0]}
"""Factors of the three components of b-vectors, which go along the image's axes."""


def check_scheme(where: str, gradients: GradientTable) -> Iterator[Finding]:
    """Look whether the signal can be normalised and its harmonics fitted."""
    if not gradients.shells:
        advice = Advice("give a DWI")
        yield Finding("error", where, "has no diffusion-weighted volume", advice, "no DWI")
    if len(gradients.b0_volumes) == 0:
        error = no_b0(gradients, where)
        yield Finding("error", where, error.problem, error.remedy)
    needed = coefficient_count(ORDER)
    # A shell that cannot be fitted matters less where another one can.
    enough = any(len(shell.volumes) >= needed for shell in gradients.shells)
    for shell in gradients.shells:
        directions = gradients.directions[shell.volumes]
        if len(directions) < needed:
            problem = (
                f"b = {shell.b_value:.0f} has {len(directions)} directions, SH order {ORDER} needs "
                f"{needed}"
            )
            remedy = Advice("take another shell" if enough else "leave the scan out")
            yield Finding("warning" if enough else "error", where, problem, remedy, "directions")
            continue
        condition = condition_number(directions, ORDER)
        if condition > CONDITION_LIMIT:
            problem = (
                f"the scheme of b = {shell.b_value:.0f} is ill-conditioned at SH order {ORDER} "
                f"(condition number {condition:.0f}, it supports order "
                f"{supported_order(directions)}): higher terms come from the regularisation"
            )
            yield Finding("warning", where, problem, Advice("distrust them"), "conditioning")


def check_b_values(scans: Sequence[ScanSummary], input_platform: str) -> Iterator[Finding]:
    """Compare every scan with the b-value that the input platform has."""
    common = common_b_value(scans, input_platform)
    if common is None:
        return
    for scan in scans:
        if not scan.gradients.shells:
            continue  # found already, as a scan that is no DWI
        values = [shell.b_value for shell in scan.gradients.shells]
        listed = ", ".join(f"{value:.0f}" for value in values)
        near = any(abs(value - common) <= B_VALUE_TOLERANCE * common for value in values)
        if not near:
            problem = (
                f"has b = {listed} s/mm² where the input platform has {common:.0f}: training "
                "refuses that"
            )
            remedy = Advice("leave the scan out, or take the shell that the others have")
            yield Finding("error", scan.where, problem, remedy, "b-value")
        elif len(values) > 1 and scan.platform == input_platform:
            problem = f"has several shells (b = {listed} s/mm²), of which training takes one"
            yield Finding(
                "warning", scan.where, problem, Give("b_value", f"{common:.0f}"), "shells"
            )


def common_b_value(scans: Sequence[ScanSummary], input_platform: str) -> float | None:
    """Give the median b-value of the input's scans with one shell, else of all such scans."""
    single = [scan for scan in scans if len(scan.gradients.shells) == 1]
    of_input = [scan for scan in single if scan.platform == input_platform]
    values = [scan.gradients.shells[0].b_value for scan in of_input or single]
    return float(np.median(values)) if values else None


# --- Mirrored b-vectors: fibres of one subject then run in two directions ---------------------


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
        problem = (
            f"fibres agree better with {source.platform} when one table's b-vectors are mirrored "
            f"in {best} (mean |cosine| {mirrored[best]:.2f} against {as_given:.2f})"
        )
        remedy = Advice("check which of the two tables is wrong and negate that component")
        yield Finding("error", where, problem, remedy, "mirrored")


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
