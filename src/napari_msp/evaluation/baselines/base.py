"""Base of all baselines, the simplest one, which learns nothing, and the names of all.

Another package adds a baseline by an entry point of the baseline's name::

    [project.entry-points."napari_msp.baselines"]
    CovBat = "my_package:CovBat"

The class is a `Baseline` of that name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice, resample, resample_mask, scanner_points
from napari_msp.errors import Change, Choose, Give, UserError, either
from napari_msp.evaluation.line_up import on_lattice
from napari_msp.plugins import UPDATE, list_plugins, load_plugin
from napari_msp.signal.sh_image import SHImage

WIDTH = 4.0
"""Standard deviation in mm of the Gaussian over places (our choice): about the distance between
the same place in two brains. It averages over some 200 voxels of 2.4 mm."""

SPACING = 2.0
"""Voxel size of the common lattice in mm; a field smoothed by `WIDTH` needs no finer one."""

MARGIN = 2 * WIDTH
"""Distance in mm by which the common lattice extends beyond the brains."""

PRIOR = 0.1
"""Weight of the whole image's statistics, as a share of one subject's at the same place (our
choice): they dominate where hardly anyone has brain."""


TRAVELLING = "travelling heads"
"""Data that a row needs: the same people, scanned on both platforms."""

COHORTS = "cohorts: any people on each platform"
"""Data that a row needs: similar people on each platform, not necessarily the same."""


class Baseline(ABC):
    """A method that learns from training subjects, then predicts a target platform on any lattice.

    Attributes
    ----------
    name
        Name of its row in a table.
    summary
        One sentence for reports on what it does.
    needs
        Data that it learns from, in a few words for reports.
    gives
        Result that it gives, in a few words for reports.
    least_heads
        Smallest number of training subjects.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs: ClassVar[str] = TRAVELLING
    gives: ClassVar[str] = "image"
    least_heads: ClassVar[int] = 1

    @classmethod
    def hindrance(cls, heads: int) -> UserError | None:
        """Return why it cannot learn from this number of heads; None: it can."""
        if heads >= cls.least_heads:
            return None
        problem = f"needs {cls.least_heads} heads or more to learn from, not {heads}"
        remedy = either(Change("methods", "other"), Give("train", "more subjects"))
        return UserError(problem, cls.name, "methods", remedy)

    @abstractmethod
    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> Self:
        """Learn from the training subjects' images on both platforms; return itself.

        Parameters
        ----------
        inputs, targets
            Images of the same subjects in the same order; each platform on its own lattice.
        """

    @abstractmethod
    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Predict the target platform's image on `lattice` from the input's, on any lattice."""


class Interpolation(Baseline):
    """No harmonization: the input itself, interpolated onto the target lattice."""

    name = "no harmonization"
    summary = "The input itself, interpolated to the target's voxel grid."
    needs = "nothing"
    least_heads = 0

    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> Self:
        """Learn nothing."""
        return self

    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Interpolate linearly."""
        return on_lattice(image, lattice)


class LearnedBaseline(Baseline):
    """A baseline that has to learn first, and predicts on a lattice that follows the input's."""

    def __init__(self) -> None:
        self._like: SHImage | None = None

    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> Self:
        """Learn from the training subjects; see `Baseline.fit`."""
        if not inputs or len(inputs) != len(targets):
            raise ValueError(
                f"a baseline learns from pairs: {len(inputs)} inputs and {len(targets)} targets "
                "given"
            )
        self._learn(inputs, targets)
        self._like = targets[0]
        return self

    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Map the image, then interpolate linearly if the wanted lattice is another.

        The result takes over the target platform's b-value, weighting of b=0 and λ.
        """
        if self._like is None:
            raise RuntimeError("fit the baseline first")
        mapped = on_lattice(self._map(image), lattice)
        return replace(
            mapped,
            b_value=self._like.b_value,
            regularisation=self._like.regularisation,
            b0_weighting=self._like.b0_weighting,
        )

    @abstractmethod
    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Learn from pairs of images."""

    @abstractmethod
    def _map(self, image: SHImage) -> SHImage:
        """Predict on a lattice of its own choice, after `_learn`."""


# --- Names -------------------------------------------------------------------------------------

GROUP = "napari_msp.baselines"
"""Entry-point group of other packages' baselines."""

_HERE = "napari_msp.evaluation.baselines"

OWN = {
    "no harmonization": f"{_HERE}.base:Interpolation",
    "alignment": f"{_HERE}.alignment:StatisticalAlignment",
    "alignment by region": f"{_HERE}.alignment:RegionalAlignment",
    "alignment by voxel": f"{_HERE}.alignment:VoxelAlignment",
    "ComBat": f"{_HERE}.combat:ComBat",
    "linear RISH": f"{_HERE}.linear_rish:LinearRISH",
    "IQT": f"{_HERE}.patch_regression:PatchRegression",
}
"""This package's own baselines, in the order of a table."""


def baseline_names() -> tuple[str, ...]:
    """Return the names of all baselines: ours first, then other packages'."""
    return tuple(list_plugins(GROUP, OWN))


def baseline_class(name: str) -> type[Baseline]:
    """Return the class of a baseline."""
    found = list_plugins(GROUP, OWN).get(name)
    if found is None:
        remedy = Choose("methods", baseline_names())
        raise UserError("there is no such method", name, "methods", remedy)
    baseline = load_plugin(found, Baseline)  # type: ignore[type-abstract]
    if baseline.name != name:
        raise UserError(f"is called {baseline.name!r}, not {name!r}", found.value, remedy=UPDATE)
    return baseline


@dataclass(frozen=True)
class CommonSpace:
    """A lattice around the centre of all brains, for local statistics from few subjects.

    It is the scanner's space, shifted so that every brain's centre of gravity lies at the origin;
    a scan that covers another part of the brain than the others is therefore misplaced. Heads are
    not rotated: a rigid motion estimated between two people follows their anatomy (it turned
    simulated slabs, in which no head was turned, by 5 to 19°). A Gaussian over neighbouring places
    covers the rest. `lattice` is in mm from the centre.
    """

    lattice: Lattice

    @classmethod
    def of(cls, images: Sequence[SHImage], spacing: float = SPACING) -> "CommonSpace":
        """Span all brains and a margin, with a voxel size of `spacing` mm."""
        points = np.concatenate([scanner_points(i.mask, i.affine) - _centre(i) for i in images])
        low, high = points.min(axis=0) - MARGIN, points.max(axis=0) + MARGIN
        shape = np.ceil((high - low) / spacing) + 1
        affine = np.diag([spacing] * 3 + [1.0])
        affine[:3, 3] = low
        return cls(Lattice.of(shape, affine))

    def local_mean(
        self,
        images: Sequence[SHImage],
        inputs: Sequence[SHImage],
        channels: Callable[[SHImage], FloatArray],
        prior: FloatArray,
    ) -> FloatArray:
        """Average channels over subjects and neighbouring places.

        Parameters
        ----------
        images
            Images of one platform.
        inputs
            The same subjects' input images, whose brains define the centres.
        channels
            Returns an image's (X, Y, Z, K) channels; they count inside its mask.
        prior
            (K,) means over whole images.

        Returns
        -------
        (X, Y, Z, K) float32 means on the common lattice.
        """
        total = np.zeros((*self.lattice.shape, len(prior) + 1), dtype=np.float32)
        for image, own_input in zip(images, inputs, strict=True):
            total += self.to_common_space(image, own_input, channels)
        return self.mean_around(total, prior)

    def to_common_space(
        self, image: SHImage, own_input: SHImage, channels: Callable[[SHImage], FloatArray]
    ) -> FloatArray:
        """Return (X, Y, Z, 1 + K) the amount of brain at each place, and channels times it."""
        weight = image.mask[..., None].astype(np.float32)
        weighted = np.concatenate([weight, channels(image) * weight], axis=-1)
        return resample(weighted, _moved(image.lattice, -_centre(own_input)), self.lattice)

    def mean_around(self, total: FloatArray, prior: FloatArray, width: float = WIDTH) -> FloatArray:
        """Return the (X, Y, Z, K) mean of `to_common_space` sums over `width` mm around places."""
        widths = [*(width / self.lattice.voxel_sizes), 0.0]
        total = gaussian_filter(total, widths, mode="constant", truncate=3.0)
        mean = (total[..., 1:] + PRIOR * prior) / (total[..., :1] + PRIOR)
        return np.asarray(mean, dtype=np.float32)

    def covered(self, inputs: Sequence[SHImage]) -> MaskArray:
        """Return the (X, Y, Z) mask of places where any subject has brain."""
        inside = np.zeros(self.lattice.shape, dtype=bool)
        for image in inputs:
            inside |= resample_mask(
                image.mask, _moved(image.lattice, -_centre(image)), self.lattice
            )
        return inside

    def at(self, image: SHImage, field: FloatArray) -> FloatArray:
        """Return (X, Y, Z, K) values of a field at an image's voxels; 0 beyond the field."""
        return resample(field, self.lattice, _moved(image.lattice, -_centre(image)))


def _centre(image: SHImage) -> FloatArray:
    """Return the (3,) centre of gravity of the brain in scanner mm."""
    return np.asarray(scanner_points(image.mask, image.affine).mean(axis=0))


def _moved(lattice: Lattice, shift: FloatArray) -> Lattice:
    """Return a lattice moved by (3,) mm."""
    affine = np.array(lattice.affine, dtype=float)
    affine[:3, 3] += shift
    return Lattice(lattice.shape, affine)
