"""Turns of b-vectors: evidence from fibres, axis orders, and descriptions.

A fault of the frame of b-vectors (axes swapped, cycled or negated, an image turned without its
vectors) turns every fitted tensor by one orthogonal matrix, and changes nothing else. Evidence for
such a turn is therefore a sum over voxels that is quadratic in the matrix twice over: kept as 81
numbers per block of the brain, it scores any turn at once.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from napari_msp.arrays import FloatArray, IntArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import B0_MAXIMUM, Shell, image_to_scanner_axes
from napari_msp.data.lattice import direction_cosines, voxel_sizes
from napari_msp.signal.fitting import supported_order
from napari_msp.signal.spherical_harmonics import grid_symmetries

BLOCK = 15.0
"""Edge in mm of the brain's blocks whose spread gives a score's uncertainty (our choice)."""

NO_TURN: FloatArray = np.eye(3)

FIBRE_VOXELS = 20_000
"""Largest number of voxels in which fibres are compared: more take time, and the anatomy's own
variety, not noise, limits the result (our choice)."""

LEAST_LINEAR = 0.1
"""Linear anisotropy below which a voxel has no meaningful fibre direction (our choice)."""

STARTS = 4
"""Number of best axis orders from which the best turn is searched (our choice)."""

AXES = "xyz"


AXIS_ORDERS = tuple(each for each in grid_symmetries() if np.linalg.det(each) > 0)
"""(3, 3) axis orders, the unchanged first. Of an order and its negative, the proper one."""


def angle(turn: FloatArray, other: FloatArray = NO_TURN) -> float:
    """Return the angle in degrees between two proper rotations."""
    return float(np.degrees(Rotation.from_matrix(turn @ other.T).magnitude()))


@dataclass(frozen=True, eq=False)
class TurnEvidence:
    """Evidence of fibres about turns, in the axes of a .bvec file.

    Attributes
    ----------
    blocks
        (B, 81): the score of a turn Q is Σ Q_ij Q_kl blocks_ijkl, summed over blocks.
    weights
        (B,) weights of the blocks.
    """

    blocks: FloatArray
    weights: FloatArray

    @staticmethod
    def of(
        outer: FloatArray, inner: FloatArray, weights: FloatArray, points: FloatArray
    ) -> "TurnEvidence":
        """Sum outer_ik · inner_jl, the parts of Σ Q_ij Q_kl …, over the blocks of a brain.

        Parameters
        ----------
        outer, inner
            (N, 3, 3) factors of the fixed and of the turned quantity.
        """
        _, block = np.unique(np.floor(points / BLOCK).astype(int), axis=0, return_inverse=True)
        block = block.ravel()
        parts = np.einsum("nik,njl->nijkl", outer, inner).reshape(-1, 81)
        sums = [np.bincount(block, part).astype(float) for part in parts.T]
        return TurnEvidence(np.stack(sums, axis=1), np.bincount(block, weights).astype(float))

    @cached_property
    def total(self) -> FloatArray:
        """(81,) sum over all blocks."""
        return np.asarray(self.blocks.sum(axis=0))

    def score(self, turn: FloatArray) -> float:
        """Return the score of a turn; higher is better."""
        return float(self.total @ _squared(turn))

    def advantage(self, turn: FloatArray, other: FloatArray = NO_TURN) -> float:
        """Return by how many standard errors one turn scores higher than another."""
        if np.allclose(turn, other):
            return 0.0
        gain = self.blocks @ (_squared(turn) - _squared(other))
        # Variance of a ratio of sums (Cochran 1977): blocks' different sizes are no uncertainty.
        spread = gain - gain.sum() / self.weights.sum() * self.weights
        error = float(np.sqrt((spread**2).sum()))
        return float(gain.sum()) / error if error > 0 else 0.0

    @cached_property
    def best(self) -> FloatArray:
        """(3, 3) proper rotation that corrects the given b-vectors best."""
        scores = [self.score(order) for order in AXIS_ORDERS]
        starts = [NO_TURN, *(AXIS_ORDERS[i] for i in np.argsort(scores)[::-1][:STARTS])]
        return max((self._refined(start) for start in starts), key=self.score)

    @cached_property
    def uncertainty(self) -> float:
        """Standard error of the best turn in degrees, by leaving out each tenth of the blocks."""
        if len(self.blocks) < 2:
            return 180.0
        folds = np.arange(len(self.blocks)) % 10
        parts = [
            TurnEvidence(self.blocks[folds != fold], self.weights[folds != fold])
            for fold in np.unique(folds)
        ]
        angles = np.array([angle(part._refined(self.best), self.best) for part in parts])
        return float(np.sqrt((len(parts) - 1) / len(parts) * (angles**2).sum()))

    def _refined(self, start: FloatArray) -> FloatArray:
        scale = abs(self.score(start)) or 1.0

        def loss(vector: FloatArray) -> float:
            return -self.score(_turned(start, vector)) / scale

        found: FloatArray = minimize(loss, np.zeros(3), method="BFGS").x
        return _turned(start, found)


def _squared(turn: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,kl->ijkl", turn, turn).ravel())


def _turned(start: FloatArray, vector: FloatArray) -> FloatArray:
    return np.asarray(Rotation.from_rotvec(vector).as_matrix() @ start)


# --- Fibres ---------------------------------------------------------------------------------


def linear_tensors(ratio: FloatArray, directions: FloatArray) -> FloatArray:
    """Fit diffusion tensors by linear least squares, fast and good enough for directions.

    Parameters
    ----------
    ratio
        (N, M) signal over b=0.
    directions
        (M, 3) unit vectors.

    Returns
    -------
    (N, 6): xx, yy, zz, xy, xz, yz times b, in the axes of the directions.
    """
    x, y, z = directions.T
    design = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    return np.asarray(-np.log(np.clip(ratio, 1e-3, 1.0)) @ np.linalg.pinv(design).T)


def quick_tensors(acquisition: Acquisition, shell: Shell) -> FloatArray:
    """Fit a tensor to every voxel of the mask.

    Returns
    -------
    (X, Y, Z, 6) float32 in scanner axes; 0 outside the mask.
    """
    mask = acquisition.mask
    b0 = np.maximum(acquisition.b0[mask], 1e-6)[:, None]
    tensors = np.zeros((*mask.shape, 6), dtype=np.float32)
    ratio = acquisition.voxels[mask][:, shell.volumes] / b0
    tensors[mask] = linear_tensors(ratio, acquisition.directions(shell))
    return tensors


def determine_tensors(directions: FloatArray) -> bool:
    """Return whether (N, 3) directions determine a tensor; if not, fibres are not known."""
    return supported_order(directions, 2) == 2


def coherence_of(
    acquisition: Acquisition, b_values: FloatArray, vectors: FloatArray, shell: Shell
) -> TurnEvidence | None:
    """Score turns by a scan's fibres: minus how fast directions change along fibres.

    The score is relative to the mean over all axes: -1 for unrelated axes, towards 0 for right
    ones. Everything is in the axes of the .bvec file.
    """
    mask, voxels = acquisition.mask, acquisition.voxels
    if not determine_tensors(vectors[shell.volumes]):
        return None
    b0 = voxels[..., b_values <= B0_MAXIMUM].mean(axis=-1)
    inner = np.argwhere(binary_erosion(mask & (b0 > 0)))  # all six neighbours are inside, too
    if len(inner) > 3 * FIBRE_VOXELS:
        chosen = np.random.default_rng(0).choice(len(inner), 3 * FIBRE_VOXELS, replace=False)
        inner = inner[np.sort(chosen)]
    directions = vectors[shell.volumes]

    def fibres_at(index: IntArray) -> tuple[FloatArray, FloatArray]:
        at = tuple(index.T)
        signal = voxels[at][:, shell.volumes]
        return principal(linear_tensors(signal / b0[at][:, None], directions))

    linear, fibres = fibres_at(inner)
    kept = linear > LEAST_LINEAR
    step = max(1, int(kept.sum()) // FIBRE_VOXELS)
    inner, fibres, weight = inner[kept][::step], fibres[kept][::step], linear[kept][::step]
    if len(inner) < 2:
        return None
    gradient = np.zeros((len(inner), 3, 6))
    for axis, size in enumerate(voxel_sizes(acquisition.affine)):
        ahead, behind = inner.copy(), inner.copy()
        ahead[:, axis] += 1
        behind[:, axis] -= 1
        change = dyads(fibres_at(ahead)[1]) - dyads(fibres_at(behind)[1])
        gradient[:, axis] = change / (2 * size)
    # From voxel axes to those of the file, which differ by a sign only.
    to_file = image_to_scanner_axes(np.eye(3), acquisition.affine) @ direction_cosines(
        acquisition.affine
    )
    gradient = np.einsum("ij,njc->nic", to_file, gradient)
    change = np.einsum("nic,njc->nij", gradient, gradient)
    along = np.einsum("ni,nj->nij", fibres, fibres)
    counts = weight * np.trace(change, axis1=1, axis2=2) / 3
    if counts.sum() == 0:
        return None
    change = -(weight / counts.sum())[:, None, None] * change
    points = inner * voxel_sizes(acquisition.affine)
    return TurnEvidence.of(change, along, counts, points)


def principal(tensors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (N,) linear anisotropy in [0, 1] and (N, 3) first eigenvectors of (N, 6) tensors."""
    xx, yy, zz, xy, xz, yz = np.moveaxis(tensors.astype(float), -1, 0)
    matrices = np.moveaxis(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), -1, 0)
    values, vectors = np.linalg.eigh(matrices)
    values = np.maximum(values, 1e-9)
    linear = (values[:, 2] - values[:, 1]) / values.sum(axis=1)
    return linear, vectors[:, :, 2]


def dyads(fibres: FloatArray) -> FloatArray:
    """Return (N, 6) forms of (N, 3) unit vectors that ignore their sign but keep distances."""
    x, y, z = fibres.T
    root = np.sqrt(2)
    return np.stack([x * x, y * y, z * z, root * x * y, root * x * z, root * y * z], axis=1)


# --- Words -------------------------------------------------------------------------------------


def nearest_order(turn: FloatArray) -> FloatArray:
    """Return the signed axis order that is nearest to a turn."""
    return max(AXIS_ORDERS, key=lambda order: float((order * turn).sum()))


def snap_to_axes(turn: FloatArray, accuracy: float) -> FloatArray:
    """Return the axis order within `accuracy` of a turn, else the turn."""
    order = nearest_order(turn)
    return order if angle(turn, order) <= accuracy else turn


def as_said(turn: FloatArray) -> FloatArray:
    """Return a turn or its negative, equivalent for fibres: the one with fewer minus signs."""
    order = nearest_order(turn)
    return turn if (order < -0.5).sum() <= (order > 0.5).sum() else -turn


def describe(turn: FloatArray, to_scanner: FloatArray) -> str:
    """Write what is wrong with b-vectors that a turn corrects.

    Parameters
    ----------
    turn
        (3, 3) proper rotation in the axes of the .bvec file.
    to_scanner
        (3, 3) orthogonal matrix from those axes to the scanner's.
    """
    order = nearest_order(turn)
    rest = turn @ order.T
    said = [] if np.allclose(order, NO_TURN) else [_order_in_words(order)]
    if angle(rest) > 0.05:
        said.append(_rotation_in_words(to_scanner @ rest @ to_scanner.T))
    return " and ".join(said)


def _order_in_words(order: FloatArray) -> str:
    """Write it: "x and y are swapped: (x, y, z) of the .bvec file should read (y, x, -z)"."""
    signed = as_said(order)
    source = np.abs(signed).argmax(axis=1)
    negative = [signed[i, source[i]] < 0 for i in range(3)]
    moved = [AXES[i] for i in range(3) if source[i] != i]
    if not moved:
        [axis] = (AXES[i] for i in range(3) if negative[i])
        what = f"{axis} is mirrored"
    else:
        what = f"{moved[0]} and {moved[1]} are swapped" if len(moved) == 2 else "axes are cycled"
        if any(negative):
            what += " and one is mirrored"
    read = ", ".join(("-" if negative[i] else "") + AXES[source[i]] for i in range(3))
    return f"{what}: (x, y, z) of the .bvec file should read ({read})"


def _rotation_in_words(rotation: FloatArray) -> str:
    vector = Rotation.from_matrix(rotation).as_rotvec(degrees=True)
    degrees = float(np.linalg.norm(vector))
    axis = vector / degrees
    names = ("left-right", "front-back", "foot-head")
    nearest = int(np.abs(axis).argmax())
    if abs(axis[nearest]) > np.cos(np.radians(15)):
        about = f"the {names[nearest]} axis"
    else:
        parts = [f"{part:.2f}" for part in np.round(axis * np.sign(axis[nearest]), 2) + 0.0]
        about = f"the axis ({', '.join(parts)}) of right, front and top"
    return f"turned by {degrees:.0f}° about {about}"
