"""Changes to a head (a bundle of lower FA, a lesion, …), and maps of where they lie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, product

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.special import expit

from napari_msp.arrays import FloatArray, IntArray, MaskArray
from napari_msp.data.lattice import Lattice, resample
from napari_msp.data.phantom.bundles import BUNDLES, Bundle
from napari_msp.data.phantom.head import Diseased, SimulatedHead, grid_of, make_head
from napari_msp.data.phantom.platforms import lattice_for, platform_named
from napari_msp.data.phantom.subjects import Pose, Subject, Tissue, aligned
from napari_msp.errors import Choose, Give, UserError


@dataclass(frozen=True)
class WeakerBundle:
    """Lower the FA of one bundle, on both sides, by letting its fibres disperse more.

    Orientation dispersion rises, mean diffusivity, b=0 signal and the bundle's place stay. The
    tissue's own FA falls by `factor` to first order in b; what a voxel's FA loses depends on what
    else lies in it, so measure the true effect on noise-free twins.

    Attributes
    ----------
    factor
        FA of the bundle's tissue after over before, in [0, 1].
    """

    name: str
    factor: float

    def __post_init__(self) -> None:
        bundle_named(self.name)
        if not 0 <= self.factor <= 1:
            problem = f"{self.factor} is not a valid factor for a bundle's FA"
            raise UserError(problem, self.name, "factor", Give("factor", "a number from 0 to 1"))


@dataclass(frozen=True)
class Lesion:
    """A ball of isotropic diseased tissue in one hemisphere.

    By default it is oedema or glioma: between grey matter and free water in diffusivity and T2.
    0.45e-3 mm²/s and 110 ms make an acute infarct, whose signal no healthy tissue nor any mixture
    of them has (both our choice).

    Attributes
    ----------
    centre
        Position in MNI mm, so the same anatomical place in every head; x > 0 is right.
    radius
        Radius in mm of template space, at which half of `share` is diseased.
    edge
        Length in mm over which it fades out (a logistic's scale).
    share
        Share of the tissue that is diseased in the middle; the rest keeps its fibres.
    diffusivity
        Diffusivity in mm²/s.
    t2
        T2 in ms.
    """

    centre: tuple[float, float, float]
    radius: float = 7.0
    edge: float = 0.8
    share: float = 0.8
    diffusivity: float = 1.4e-3
    t2: float = 160.0

    def share_at(self, points: FloatArray) -> FloatArray:
        """Return the (N,) diseased share of the tissue at (3, N) points of template space."""
        away = np.linalg.norm(points - np.array(self.centre, points.dtype)[:, None], axis=0)
        return np.asarray(self.share * expit((self.radius - away) / self.edge))

    @property
    def mirrored(self) -> "Lesion":
        """The same ball in the other hemisphere; the template is symmetric."""
        x, y, z = self.centre
        return replace(self, centre=(-x, y, z))


@dataclass(frozen=True)
class Atrophy:
    """Less tissue and more fluid: wider ventricles and sulci.

    `ventricles` adds to their relative widening, see `Subject`; `sulci` multiplies the odds of CSF.
    """

    ventricles: float = 0.2
    sulci: float = 1.25


@dataclass(frozen=True)
class Ageing:
    """Ageing by `years`, below 100: lower FA, wider ventricles and sulci (our choice)."""

    years: float

    @property
    def factor(self) -> float:
        """FA of a bundle's tissue after over before: a fifth of a per cent a year."""
        return 1 - 0.002 * self.years

    @property
    def atrophy(self) -> Atrophy:
        """The effect of the years on fluid."""
        return Atrophy(0.004 * self.years, float(np.exp(0.006 * self.years)))


HeadChange = WeakerBundle | Lesion | Atrophy | Ageing
"""Any change to a head."""


def bundle_named(name: str) -> Bundle:
    """Return the bundle of that name."""
    known = {bundle.name: bundle for bundle in BUNDLES}
    if name not in known:
        raise UserError("there is no such bundle", name, "name", Choose("name", tuple(known)))
    return known[name]


def bundles_after(changes: Sequence[HeadChange], tissue: Tissue) -> tuple[Bundle, ...]:
    """Return `BUNDLES` with the coherence that each has after the changes."""
    factors = {bundle.name: 1.0 for bundle in BUNDLES}
    for change in changes:
        if isinstance(change, WeakerBundle):
            factors[change.name] *= change.factor
        elif isinstance(change, Ageing):
            factors = {name: each * change.factor for name, each in factors.items()}
    return tuple(
        bundle
        if factors[bundle.name] == 1.0
        else replace(
            bundle, coherence=coherence_after(bundle.coherence, factors[bundle.name], tissue)
        )
        for bundle in BUNDLES
    )


def subject_after(changes: Sequence[HeadChange], subject: Subject) -> Subject:
    """Return a person after the changes that affect the whole head."""
    for change in changes:
        atrophy = change.atrophy if isinstance(change, Ageing) else change
        if isinstance(atrophy, Atrophy):
            subject = replace(
                subject,
                ventricle_growth=subject.ventricle_growth + atrophy.ventricles,
                csf_gain=subject.csf_gain * atrophy.sulci,
            )
    return subject


def head_after(
    changes: Sequence[HeadChange], head: SimulatedHead, subject: Subject, pose: Pose
) -> SimulatedHead:
    """Put the lesions into a head; they replace healthy tissue share for share."""
    for change in changes:
        if isinstance(change, Lesion):
            template = subject.to_template(pose.to_head(head.points))
            share = change.share_at(template).astype(np.float32)
            left = 1 - share
            earlier = [replace(each, fraction=left * each.fraction) for each in head.diseased]
            new = Diseased(share * head.brain, change.diffusivity, change.t2)
            healthy = {name: left * getattr(head, name) for name in ("grey", "white", "fluid")}
            head = replace(head, **healthy, diseased=(*earlier, new))
    return head


def coherence_after(coherence: float, factor: float, tissue: Tissue) -> float:
    """Return the coherence at which a fibre population's FA is `factor` times what it was.

    Of the mean tensor of stick and zeppelin, trace T and axial minus radial diffusivity a:
    FA² = a² / (T²/3 + 2a²/3). Dispersion scales a with (3 coherence - 1) and leaves T alone.
    """
    f = tissue.intra_fraction
    # In units of the axial diffusivity; tortuosity gives the zeppelin (1 - f) across.
    trace = f + (1 - f) * (1 + 2 * (1 - f))
    parallel = f + (1 - f) * f
    before = parallel * (3 * coherence - 1) / 2
    fa_squared = factor**2 * before**2 / (trace**2 / 3 + 2 * before**2 / 3)
    after = trace * np.sqrt(fa_squared / 3 / (1 - 2 * fa_squared / 3))
    return float((2 * after / parallel + 1) / 3)


def bundle_share(name: str, subject: Subject, lattice: Lattice, size: str = "small") -> FloatArray:
    """Return a bundle's share of the tissue, in an aligned head.

    The share is high in the bundle's core, which consists of little else. It is computed on the
    finest platform's voxels and interpolated linearly to `lattice`.

    Parameters
    ----------
    name
        One of `BUNDLES`.
    size
        Size of the simulated block; beyond it the share is 0.

    Returns
    -------
    (X, Y, Z) float32 in [0, 1].
    """
    wanted = bundle_named(name)
    fine = lattice_for(size, platform_named("connectom_sa"))
    # The bundle's populations are known by their coherence: 1 for its own, else 0.
    marked = tuple(replace(b, coherence=float(b is wanted)) for b in BUNDLES)
    head = make_head(subject, aligned(), grid_of(fine), marked)
    share = np.zeros(len(head.inside), np.float32)
    for fibres in head.fibres[:-1]:  # the last one is of no bundle
        share[fibres.index] += fibres.weight * fibres.coherence
    return resample(head.volume(share * head.white), fine, lattice)


def fibre_populations(
    subject: Subject, pose: Pose, size: str, lattice: Lattice, voxels: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the fibres of a head in some voxels: means over the voxel's box.

    Signal that a scanner's point spread mixes in from outside is ignored.

    Parameters
    ----------
    size
        Size of the simulated block; beyond it the values at its edge are used.
    voxels
        (V, 3) indices of voxels.

    Returns
    -------
    fractions
        (V, B) fractions of the voxel: each of `BUNDLES`, and the short fibres that run to the
        cortex; their sum is the fraction of white matter.
    directions
        (V, B, 3) principal directions in scanner axes.
    """
    fine = lattice_for(size, platform_named("connectom_sa"))
    # A population's coherence stands for its bundle's number here.
    marked = tuple(replace(each, coherence=float(n)) for n, each in enumerate(BUNDLES))
    head = make_head(subject, pose, grid_of(fine), marked)
    *bundles, radial = head.fibres
    numbers = np.concatenate([each.coherence.round().astype(int) for each in bundles])
    index = np.concatenate([each.index for each in bundles])
    weight = np.concatenate([each.weight for each in bundles])
    along = np.concatenate([each.direction for each in bundles], axis=1)
    parts = [
        (index[mine], weight[mine], along[:, mine])
        for mine in (numbers == number for number in range(len(BUNDLES)))
    ]
    parts.append((radial.index, radial.weight, radial.direction))

    def mean(values: FloatArray, index: IntArray) -> FloatArray:
        every = np.zeros(len(head.inside), np.float32)
        every[index] = values
        return _mean_in_voxels(head.volume(every), fine, lattice, voxels)

    fractions = np.zeros((len(voxels), len(parts)))
    tensors = np.zeros((*fractions.shape, 3, 3))
    for number, (index, weight, along) in enumerate(parts):
        share = weight * head.white[index]
        fractions[:, number] = mean(share, index)
        for i, j in combinations_with_replacement(range(3), 2):
            value = mean(share * along[i] * along[j], index)
            tensors[:, number, i, j] = tensors[:, number, j, i] = value
    return fractions, np.linalg.eigh(tensors)[1][..., -1]


def _mean_in_voxels(
    volume: FloatArray, fine: Lattice, lattice: Lattice, voxels: IntArray
) -> FloatArray:
    """Return (V,) means over eight points per voxel, half-way from its centre to its corners."""
    into = np.linalg.inv(fine.affine) @ lattice.affine
    total = np.zeros(len(voxels))
    for corner in product((-0.25, 0.25), repeat=3):
        points = into[:3, :3] @ (voxels + np.array(corner)).T + into[:3, 3:]
        total += map_coordinates(volume, points, order=1, mode="nearest")
    return total / 8


def lesion_mask(lesion: Lesion, subject: Subject, lattice: Lattice) -> MaskArray:
    """Return where at least half of the lesion's share of the tissue is diseased.

    Parameters
    ----------
    lesion
        The lesion; for the region that mirrors it, give `lesion.mirrored`.

    Returns
    -------
    (X, Y, Z) mask.
    """
    voxels = np.indices(lattice.shape, dtype=float).reshape(3, -1)
    points = lattice.affine[:3, :3] @ voxels + lattice.affine[:3, 3:]
    share = lesion.share_at(subject.to_template(points))
    return np.asarray(share >= lesion.share / 2).reshape(lattice.shape)
