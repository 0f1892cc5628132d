"""Fibre peaks by constrained spherical deconvolution (CSD), matched with truth's; bundle tracking.

The deconvolved signal is that of an SH image on evenly spread directions; by linearity it equals
that of the written DWI, on whatever directions, as long as they determine the order. One response,
measured in SH images too, serves all rows of a target: the fit's regularisation reduces an order
in the response as in the image, and the deconvolution undoes both.

Deconvolution and tracking are DIPY's (Tournier 2007), imported only where they run: they bring
DIPY's file readers and fetchers, for which opening a window should not wait.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.data.lattice import direction_cosines
from napari_msp.errors import Advice, UserError
from napari_msp.signal.maps import Maps, TensorMaps
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.spherical_harmonics import (
    coefficient_count,
    design_matrix,
    order_of,
    order_slices,
    rotate,
    spread_directions,
)

DIRECTIONS = 60
"""Number of directions on which a series of order 6 is sampled (our choice: over twice 28)."""

RESPONSE_VOXELS, RESPONSE_SHARE = 300, 0.03
"""Number of voxels of the highest FA that make a response (MRtrix3's `dwi2response fa` takes 300),
and their largest share of the brain, which limits them in a block (our choice)."""

RIM = 3
"""Voxels at the mask's edge that are not used for a response (as in `dwi2response fa`)."""

MOST_PEAKS = 4
"""Largest number of peaks per voxel; a fifth would be noise."""

COUNTED, SEEN = 0.2, 0.1
"""Shares of the voxel's largest peak from which a peak counts, and from which it can match one
that counts in the other image (our choice), so that a peak at the threshold is no error."""

LEAST_APART = 25.0
"""Smallest angle in degrees between two peaks of a voxel (DIPY's default)."""

FARTHEST_MATCH = 30.0
"""Largest angle in degrees between matching peaks (our choice)."""

WIDE = 60.0
"""Angle in degrees from which fibres cross widely; closer ones often merge (our choice)."""

WEAK = 0.3
"""Share of the two largest peaks below which the second is weak (our choice)."""


def response_of(images: Sequence[SHImage]) -> FloatArray:
    """Measure the signal of a single fibre population.

    Return (L/2 + 1,) coefficients of S/S0 for m = 0, like the lines of MRtrix3's response files:
    the mean over images of the median over the voxels of highest FA, well inside the mask, each
    turned to its principal direction. (A mean over voxels would follow the few whose tensor is
    noise.) Images are of one platform and one order.
    """
    found = [each for each in map(_response, images) if each is not None]
    if not found:
        raise UserError(
            "no voxel shows the signal of a single fibre",
            remedy=Advice("give scans with white matter"),
        )
    return np.asarray(np.mean(found, axis=0))


def _response(image: SHImage) -> FloatArray | None:
    tensor = Maps(image).tensor
    within = binary_erosion(image.mask, iterations=RIM, border_value=1)
    if within.sum() < image.mask.sum() / 4:  # the image is a small or thin piece
        within = image.mask
    inside = np.argwhere(within & (tensor.md > 0))
    if not len(inside):
        return None
    fa = tensor.fa[tuple(inside.T)]
    count = max(1, min(RESPONSE_VOXELS, round(RESPONSE_SHARE * len(inside))))
    best = tuple(inside[np.argsort(-fa, kind="stable")[:count]].T)
    # By the addition theorem, the series averaged around an axis.
    turned = image.coefficients[best] * design_matrix(tensor.direction[best], image.order)
    return np.array(
        [
            np.sqrt(4 * np.pi / (2 * order + 1)) * np.median(turned[:, part].sum(axis=1))
            for order, part in order_slices(image.order).items()
        ]
    )


def fibre_distributions(image: SHImage, response: FloatArray, voxels: IntArray) -> FloatArray:
    """Deconvolve the signal of (V, 3) voxels by a response, see `response_of`.

    Return (V, C) SH coefficients in MRtrix3's basis, scanner axes, like `dwi2fod csd` of S/S0, of
    the response's order, or the image's if that is lower.
    """
    from dipy.core.gradients import gradient_table
    from dipy.reconst.csdeconv import AxSymShResponse, ConstrainedSphericalDeconvModel

    order = min(image.order, 2 * (len(response) - 1))
    directions = spread_directions(DIRECTIONS)
    table = gradient_table(
        np.concatenate([[0.0], np.full(DIRECTIONS, image.b_value or 1000.0)]),
        bvecs=np.concatenate([np.zeros((1, 3)), directions]),
    )
    kernel = AxSymShResponse(1.0, response[: order // 2 + 1])
    with warnings.catch_warnings(action="ignore", category=PendingDeprecationWarning):  # DIPY's own
        model = ConstrainedSphericalDeconvModel(table, kernel, sh_order_max=order, tau=0.0)
    signal = image.coefficients[tuple(voxels.T)] @ design_matrix(directions, image.order).T
    signal = np.concatenate([np.ones((len(signal), 1)), signal], axis=1)
    if not len(voxels):
        return np.zeros((0, coefficient_count(order)))
    with warnings.catch_warnings():
        # If the set of negative directions alternates between two, either will do.
        warnings.filterwarnings("ignore", message="maximum number of iterations")
        found = model.fit(signal.astype(float)).shm_coeff
    # DIPY's basis is MRtrix3's with m and -m exchanged.
    parts = order_slices(order).values()
    exchanged = [index for part in parts for index in range(part.stop - 1, part.start - 1, -1)]
    return np.asarray(found)[:, exchanged]


@dataclass(frozen=True, eq=False)
class Peaks:
    """Fibre directions of some voxels, largest first.

    Attributes
    ----------
    directions
        (V, P, 3) unit vectors in scanner axes, whose signs have no meaning; 0 if there is none.
    sizes
        (V, P) amplitudes, or volume fractions of known populations; 0 if there is none.
    """

    directions: FloatArray
    sizes: FloatArray


def peaks_of(distributions: FloatArray) -> Peaks:
    """Find peaks of (V, C) fibre distributions from `SEEN` on, at most `MOST_PEAKS` in a voxel."""
    from dipy.data import default_sphere as sphere
    from dipy.direction.peaks import peak_directions

    order = order_of(distributions.shape[1])
    values = distributions @ design_matrix(sphere.vertices, order).T
    directions = np.zeros((len(values), MOST_PEAKS, 3))
    for voxel, amplitudes in enumerate(values):
        found, _, _ = peak_directions(
            amplitudes, sphere, relative_peak_threshold=SEEN, min_separation_angle=LEAST_APART
        )
        directions[voxel, : len(found)] = found[:MOST_PEAKS]
    there = directions.any(axis=-1)
    owners = np.nonzero(there)[0]
    sizes = np.zeros(there.shape)
    directions[there], sizes[there] = _refined(directions[there], distributions[owners], order)
    return Peaks(directions, sizes)


REACH = 3.0
"""Radius in degrees of the neighbourhood used to place a peak between the sphere's points."""


def _refined(
    directions: FloatArray, distributions: FloatArray, order: int
) -> tuple[FloatArray, FloatArray]:
    """Move (N, 3) peaks to the top of the paraboloid through their neighbourhood, twice.

    Return (N, 3) unit vectors, and (N,) amplitudes there.
    """
    step = np.radians(REACH)
    u, v = (each.ravel() for each in np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"))
    # Columns 1, u, v, u², uv, v² at nine points.
    solve = np.linalg.pinv(np.stack([u**0, u, v, u**2, u * v, v**2], axis=1))
    for _ in range(2):
        across = np.eye(3)[np.abs(directions).argmin(axis=1)]
        first = _unit(np.cross(directions, across))
        second = np.cross(directions, first)
        around = _unit(
            directions[:, None]
            + step * (u[:, None] * first[:, None] + v[:, None] * second[:, None])
        )
        basis = design_matrix(around.reshape(-1, 3), order)
        basis = basis.reshape(*around.shape[:2], distributions.shape[1])
        _, a, b, aa, ab, bb = solve @ np.einsum("nkc,nc->kn", basis, distributions)
        determinant = 4 * aa * bb - ab**2
        is_top = (determinant > 0) & (aa < 0)
        safe = np.where(is_top, determinant, 1.0)
        moves = np.stack([ab * b - 2 * bb * a, ab * a - 2 * aa * b]) / safe
        moves = np.where(is_top, np.clip(moves, -2, 2), 0) * step
        directions = _unit(directions + moves[0][:, None] * first + moves[1][:, None] * second)
    return directions, np.einsum("nc,nc->n", design_matrix(directions, order), distributions)


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def peaks_of_populations(fractions: FloatArray, directions: FloatArray) -> Peaks:
    """Return the true peaks of known populations, each merged with close smaller ones.

    `fractions` are (V, B) shares of the voxel; `directions` are (V, B, 3) unit vectors.
    """
    merged = np.zeros((len(fractions), MOST_PEAKS, 3))
    sizes = np.zeros((len(fractions), MOST_PEAKS))
    left = fractions.astype(float)
    rows = np.arange(len(fractions))
    nearest = np.cos(np.radians(LEAST_APART))
    for rank in range(MOST_PEAKS):
        leader = directions[rows, left.argmax(axis=1)]
        cosine = np.einsum("vi,vbi->vb", leader, directions)
        mine = np.where(np.abs(cosine) >= nearest, left, 0)
        mean = np.einsum("vb,vbi->vi", mine * np.sign(cosine), directions)
        sizes[:, rank] = mine.sum(axis=1)
        there = sizes[:, rank] > 0
        merged[there, rank] = _unit(mean[there])
        left -= mine
    order = np.argsort(-sizes, axis=1, kind="stable")
    return Peaks(
        np.take_along_axis(merged, order[..., None], axis=1), np.take_along_axis(sizes, order, 1)
    )


# --- Peaks beside truth's ---------------------------------------------------------------------

MOST_VOXELS = 1000
"""Number of voxels of a head that are deconvolved: a second's work (our choice)."""


@dataclass(frozen=True, eq=False)
class TruePeaks:
    """True peaks in some voxels of a lattice.

    Attributes
    ----------
    voxels
        (V, 3) indices of the voxels.
    response
        (L/2 + 1,) response by which predictions are deconvolved, see `response_of`.
    known
        Whether the peaks are the simulated populations, whose sizes are volume fractions, not
        amplitudes.
    """

    voxels: IntArray
    peaks: Peaks
    response: FloatArray
    known: bool = False

    @classmethod
    def of(cls, image: SHImage, response: FloatArray, where: MaskArray) -> "TruePeaks":
        """Find the peaks of an image in (X, Y, Z) voxels, at most `MOST_VOXELS`."""
        voxels = some_of(where)
        return cls(voxels, peaks_of(fibre_distributions(image, response, voxels)), response)

    def errors_of(self, prediction: SHImage, where: MaskArray) -> "PeakErrors":
        """Find and match a prediction's peaks, in those voxels that lie in (X, Y, Z) too."""
        inside = where[tuple(self.voxels.T)]
        voxels = self.voxels[inside]
        truth = Peaks(self.peaks.directions[inside], self.peaks.sizes[inside])
        found = peaks_of(fibre_distributions(prediction, self.response, voxels))
        return PeakErrors.of(found, truth)


def some_of(where: MaskArray, most: int = MOST_VOXELS) -> IntArray:
    """Return (V, 3) indices of a mask's voxels, or of `most` that are spread evenly among them."""
    voxels = np.argwhere(where)
    if len(voxels) > most:
        voxels = voxels[np.linspace(0, len(voxels) - 1, most).round().astype(int)]
    return voxels


@dataclass(frozen=True, eq=False)
class PeakErrors:
    """Peaks matched with truth's, each at most once, the closest first.

    Attributes
    ----------
    truth, found
        Peaks of the same voxels.
    partner
        (V, P) number of the found peak within `FARTHEST_MATCH` of each true one; -1 if there is
        none.
    angle
        (V, P) degrees to it; nan if there is none.
    """

    truth: Peaks
    found: Peaks
    partner: IntArray
    angle: FloatArray

    @classmethod
    def of(cls, found: Peaks, truth: Peaks) -> "PeakErrors":
        """Match found peaks with true ones."""
        cosine = np.abs(np.einsum("vpi,vqi->vpq", truth.directions, found.directions))
        apart = np.degrees(np.arccos(np.clip(cosine, 0, 1)))
        both = truth.sizes[:, :, None] * found.sizes[:, None] > 0
        apart[~both | (apart > FARTHEST_MATCH)] = np.inf
        partner = np.full(truth.sizes.shape, -1)
        angle = np.full(truth.sizes.shape, np.nan)
        rows = np.arange(len(apart))
        for _ in range(min(apart.shape[1:])):
            pairs = apart.reshape(len(apart), np.prod(apart.shape[1:]))
            p, q = np.unravel_index(pairs.argmin(axis=1), apart.shape[1:])
            hit = np.isfinite(apart[rows, p, q])
            voxel, p, q = rows[hit], p[hit], q[hit]
            partner[voxel, p], angle[voxel, p] = q, apart[voxel, p, q]
            apart[voxel, p, :] = np.inf
            apart[voxel, :, q] = np.inf
        return cls(truth, found, partner, angle)

    @property
    def missed(self) -> float:
        """True peaks that are not found, in percent of all true ones."""
        counted = _counted(self.truth)
        return _percent((counted & (self.partner < 0)).sum(), counted.sum())

    @property
    def false(self) -> float:
        """Found peaks that match no true one, in percent of the true ones."""
        answered = np.zeros(self.found.sizes.shape, dtype=bool)
        voxel, p = np.nonzero(self.partner >= 0)
        answered[voxel, self.partner[voxel, p]] = True
        return _percent((_counted(self.found) & ~answered).sum(), _counted(self.truth).sum())

    def mean_angle(self, rank: int) -> float:
        """Return the mean angle in degrees between truth's peaks of a rank and their matches."""
        angles = self.angle[_counted(self.truth)[:, rank] & (self.partner[:, rank] >= 0), rank]
        return float(angles.mean()) if len(angles) else float("nan")

    def size_error(self, rank: int) -> float:
        """Return the mean absolute error of matched peaks' amplitude, in % of truth's mean."""
        where = _counted(self.truth)[:, rank] & (self.partner[:, rank] >= 0)
        true, found = self.truth.sizes[where, rank], self._matched_sizes(rank)[where]
        return _percent(np.abs(found - true).sum(), true.sum())

    @property
    def share_error(self) -> float:
        """Mean absolute error of the second peak's share of both, where both are matched."""
        where = _counted(self.truth)[:, 1] & (self.partner[:, :2] >= 0).all(axis=1)
        if not where.any():
            return float("nan")
        first, second = (self._matched_sizes(rank)[where] for rank in (0, 1))
        return float(np.abs(second / (first + second) - _second_share(self.truth)[where]).mean())

    def missed_seconds(self, where: MaskArray) -> float:
        """Return the share of truth's second peaks in (V,) voxels that is missed, in percent."""
        there = where & _counted(self.truth)[:, 1]
        return _percent((there & (self.partner[:, 1] < 0)).sum(), there.sum())

    @property
    def wide(self) -> MaskArray:
        """(V,) whether truth's first two peaks are `WIDE` degrees apart or more."""
        one, other = self.truth.directions[:, 0], self.truth.directions[:, 1]
        cosine = np.abs(np.einsum("vi,vi->v", one, other))
        return np.asarray(cosine <= np.cos(np.radians(WIDE)))

    @property
    def weak(self) -> MaskArray:
        """(V,) whether truth's second peak is less than `WEAK` of both."""
        return np.asarray(_second_share(self.truth) < WEAK)

    def _matched_sizes(self, rank: int) -> FloatArray:
        """Return (V,) found amplitudes at truth's peaks of a rank."""
        partner = np.maximum(self.partner[:, rank], 0)
        return np.asarray(self.found.sizes[np.arange(len(partner)), partner])


def _counted(peaks: Peaks) -> MaskArray:
    """Return the (V, P) mask of peaks that count."""
    largest = peaks.sizes.max(axis=1, initial=0.0, keepdims=True)
    return np.asarray((peaks.sizes > 0) & (peaks.sizes >= COUNTED * largest))


def _second_share(peaks: Peaks) -> FloatArray:
    both = peaks.sizes[:, :2].sum(axis=1)
    return np.asarray(peaks.sizes[:, 1] / np.where(both > 0, both, 1))


def _percent(part: float, whole: float) -> float:
    return 100 * float(part) / float(whole) if whole else float("nan")


# --- A bundle ---------------------------------------------------------------------------------

SEEDS = 200
"""Number of seeds from which a bundle is tracked (our choice)."""

FEWEST_SEEDS = 20
"""Smallest number of seeds that make a bundle (our choice)."""

SEED_FA = 0.3
"""FA of truth from which a voxel may hold a seed (our choice)."""

LEFT_RIGHT = 30.0
"""Degrees from the left-right axis within which fibres count as commissural (our choice)."""

SHARPEST_TURN = 45.0
"""Largest turn of a streamline in degrees per step of half a voxel (our choice)."""


@dataclass(frozen=True, eq=False)
class TrackingSeeds:
    """Starting points of a bundle, the same for all images, so that only fibres differ.

    Seeds are (S, 3) voxels, `ahead` (S, 3) directions there in scanner axes; streamlines may run in
    the (X, Y, Z) white matter. For the response see `response_of`.
    """

    seeds: IntArray
    ahead: FloatArray
    white: MaskArray
    response: FloatArray

    @classmethod
    def of(
        cls, image: SHImage, tensor: TensorMaps, white: MaskArray, response: FloatArray
    ) -> "TrackingSeeds":
        """Seed an image's left-right fibres, mostly the callosum; no seeds if there are few."""
        along = np.abs(tensor.direction[..., 0]) >= np.cos(np.radians(LEFT_RIGHT))
        seeds = some_of(image.mask & along & (tensor.fa >= SEED_FA), SEEDS)
        seeds = seeds if len(seeds) >= FEWEST_SEEDS else seeds[:0]
        return cls(seeds, tensor.direction[tuple(seeds.T)].astype(float), white, response)


def visited_by(bundle: TrackingSeeds, image: SHImage) -> MaskArray:
    """Return the (X, Y, Z) voxels that a bundle visits: tracked both ways from each seed.

    Tracking is deterministic and follows the image's fibre distributions on the bundle's lattice.
    """
    from dipy.data import default_sphere
    from dipy.tracking.stopping_criterion import BinaryStoppingCriterion
    from dipy.tracking.tracker import deterministic_tracking

    white = np.ascontiguousarray(bundle.white & image.mask)
    visited = np.zeros(white.shape, dtype=bool)
    voxels = np.argwhere(white)
    if not len(bundle.seeds) or not len(voxels):
        return visited
    # Streamlines run in voxel axes; a mirrored order mirrors directions, too.
    axes = direction_cosines(image.affine)
    found = fibre_distributions(image, bundle.response, voxels)
    followed = np.zeros((*white.shape, found.shape[1]))
    followed[tuple(voxels.T)] = rotate(found, axes.T)
    sizes = image.lattice.voxel_sizes
    lines = deterministic_tracking(
        np.ascontiguousarray(bundle.seeds, dtype=float),
        BinaryStoppingCriterion(white),
        np.eye(4),
        seed_directions=np.ascontiguousarray(bundle.ahead @ axes),
        sh=followed,
        basis_type="tournier07",
        legacy=False,  # MRtrix3's basis
        sphere=default_sphere,
        step_size=float(sizes.min()) / 2,
        voxel_size=sizes,
        max_angle=SHARPEST_TURN,
        min_len=0,
        nbr_threads=1,
        random_seed=1,
    )
    for line in lines:
        at = np.round(line).astype(int)
        inside = ((at >= 0) & (at < white.shape)).all(axis=1)
        visited[tuple(at[inside].T)] = True
    return visited & white
