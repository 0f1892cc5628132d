"""Effects of biology put into simulated heads, and the share that survives a harmonization.

A head is scanned again with one change and the same noise. The true effect is the change of a map
between the target's noise-free twins, the recovered one that between predictions from the input's
scans, both means over the same voxels. Only the measured head is changed: methods have learned from
unchanged ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.dataset import TravellingHeads, open_dataset
from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.changes import (
    Ageing,
    Atrophy,
    HeadChange,
    Lesion,
    WeakerBundle,
    bundle_share,
    lesion_mask,
)
from napari_msp.data.phantom.platforms import platform_named
from napari_msp.data.phantom.scan import simulate_subject
from napari_msp.data.phantom.simulate import DatasetRecipe, write_scan
from napari_msp.data.phantom.subjects import Pose, Subject
from napari_msp.errors import Advice, UserError
from napari_msp.evaluation.statistics import Interval, ratio_interval
from napari_msp.signal.maps import Maps
from napari_msp.signal.sh_image import SHImage

BUNDLE = "corticospinal tract"
"""Name of a bundle that runs through every size of simulated head."""

CORE = 0.4
"""Share of the tissue from which a voxel belongs to a bundle's core (our choice)."""

LESION = Lesion((26.0, -14.0, 26.0), radius=7.0)
"""A lesion in the right corona radiata."""

WHOLLY_TISSUE_MD, FREE_WATER_MD = 0.9e-3, 3.0e-3
"""Mean diffusivities between which a voxel goes from tissue to fluid, in mm²/s (our choice)."""


SAME = 1e-3
"""SH units by which a voxel of an unchanged head may differ: above rounding, below noise."""


def _fluid(maps: Maps) -> FloatArray:
    """Return the (X, Y, Z) share of fluid that the mean diffusivity indicates."""
    share = (maps["md"] - WHOLLY_TISSUE_MD) / (FREE_WATER_MD - WHOLLY_TISSUE_MD)
    return np.asarray(np.clip(share, 0, 1))


def _core(subject: Subject, lattice: Lattice, size: str) -> MaskArray:
    return np.asarray(bundle_share(BUNDLE, subject, lattice, size) > CORE)


def _everywhere(subject: Subject, lattice: Lattice, size: str) -> MaskArray:
    return np.ones(lattice.shape, dtype=bool)


def _years(number: int) -> int:
    """Return the years by which a head ages: 10 to 40, by its number from 0."""
    return 10 + 10 * (number % 4)


@dataclass(frozen=True)
class Effect:
    """A change that is put into heads, and its measurement.

    Attributes
    ----------
    change
        Function that returns the change of a head, by its number from 0.
    compute
        Function that computes the map in which the effect is measured.
    region
        Function that returns the voxels, by subject, lattice in the subject's space, and block
        size.
    per
        Function that returns the divisor of a head's effect, by its number.
    """

    name: str
    unit: str
    explanation: str
    change: Callable[[int], HeadChange]
    compute: Callable[[Maps], FloatArray]
    region: Callable[[Subject, Lattice, str], MaskArray]
    per: Callable[[int], float] = lambda number: 1.0


_ALL = (
    Effect(
        "weaker bundle",
        "FA",
        f"The FA of the {BUNDLE} lowered by 5 %: mean FA in its core.",
        lambda number: WeakerBundle(BUNDLE, 0.95),
        lambda maps: maps["fa"],
        _core,
    ),
    Effect(
        "lesion",
        "mm²/s",
        "A ball of oedema of 7 mm radius in white matter: mean diffusivity inside.",
        lambda number: LESION,
        lambda maps: maps["md"],
        lambda subject, lattice, size: lesion_mask(LESION, subject, lattice),
    ),
    Effect(
        "atrophy",
        "share of brain",
        "Ventricles and sulci wider: share of fluid in the brain, by the mean diffusivity.",
        lambda number: Atrophy(),
        _fluid,
        _everywhere,
    ),
    Effect(
        "age trend",
        "FA a year",
        f"Heads 10 to 40 years older, all bundles weaker and fluid more: slope of FA in the core "
        f"of the {BUNDLE}.",
        lambda number: Ageing(_years(number)),
        lambda maps: maps["fa"],
        _core,
        per=_years,
    ),
)

EFFECTS: Mapping[str, Effect] = {each.name: each for each in _ALL}
"""Effects by name, in the order of the table."""


@contextmanager
def changed_head(
    recipe: DatasetRecipe, number: int, change: HeadChange, platforms: Sequence[str]
) -> Iterator[TravellingHeads]:
    """Scan a changed head, with the noise of the unchanged one; deleted after use."""
    with TemporaryDirectory() as folder:
        for scan in simulate_subject(
            number,
            tuple(platform_named(name) for name in platforms),
            recipe.size,
            recipe.seed,
            b_value=recipe.b_values,
            misalignment=recipe.misalignment,
            changes=[change],
        ):
            write_scan(Path(folder), scan, noise=recipe.noise)
        yield open_dataset(folder)


def region_of(
    effect: Effect, recipe: DatasetRecipe, number: int, platform: str, lattice: Lattice
) -> MaskArray:
    """Return the (X, Y, Z) mask where an effect is measured in a head's scan on a platform."""
    subject, pose = recipe.lies(number, platform)
    in_head = Lattice(lattice.shape, _to_head(pose) @ lattice.affine)
    return effect.region(subject, in_head, recipe.size)


def _to_head(pose: Pose) -> FloatArray:
    """Return the (4, 4) affine from the scanner to the head."""
    matrix = np.eye(4)
    matrix[:3, :3] = pose.rotation.T
    matrix[:3, 3] = -pose.rotation.T @ pose.shift
    return matrix


def check_same_head(before: SHImage, after: SHImage, change: HeadChange, subject: str) -> None:
    """Refuse a head other than the dataset's own, whose description does not match its scans.

    The dataset's truth is compared with that of the changed head: their lattices, and after a
    lesion, which leaves most of a head unchanged, their values.
    """
    same = before.lattice.matches(after.lattice)
    if same and isinstance(change, Lesion):
        both = before.mask & after.mask
        apart = np.abs(after.coefficients[both] - before.coefficients[both]).max(axis=-1)
        same = bool(np.median(apart) < SAME)
    if not same:
        problem = "is not the simulated head that the dataset's description states"
        raise UserError(problem, subject, "biology", Advice("simulate heads again"))


def effect_in(effect: Effect, before: Maps, after: Maps, where: MaskArray, number: int) -> float:
    """Return the change of the effect's map between two images of a head; nan without a voxel."""
    if not where.any():
        return float("nan")
    change = effect.compute(after)[where].astype(float) - effect.compute(before)[where]
    return float(change.mean()) / effect.per(number)


@dataclass(frozen=True)
class Recovery:
    """Share of a true effect that was recovered, 1 being all; the interval is over heads."""

    ratio: float
    interval: Interval | None


def recovery(
    true: Sequence[float] | FloatArray, recovered: Sequence[float] | FloatArray
) -> Recovery:
    """Compare recovered with true effects, head by head.

    Parameters
    ----------
    true
        (N,) effects in the target's noise-free twins; they do not average to 0.
    recovered
        (N,) effects in the predictions of the same heads.
    """
    pairs = np.array([true, recovered], dtype=float)
    if pairs.ndim != 2 or not pairs.shape[1]:
        raise ValueError("give the true and the recovered effect of a head or more")
    if not np.isfinite(pairs).all() or pairs[0].mean() == 0:
        raise ValueError("effects must be finite, and there must be a true one")
    ratio = float(pairs[1].mean() / pairs[0].mean())
    return Recovery(ratio, ratio_interval(pairs[1], pairs[0]))
