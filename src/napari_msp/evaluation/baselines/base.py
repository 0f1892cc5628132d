"""What all baselines share, the simplest of them, which learns nothing, and their names.

Another package adds one by an entry point whose name is the baseline's::

    [project.entry-points."napari_msp.baselines"]
    ComBat = "my_package:ComBat"

Its class is a `Baseline` of that name.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self

from napari_msp.data.lattice import Lattice
from napari_msp.errors import Choose, UserError
from napari_msp.evaluation.comparison import on_lattice
from napari_msp.plugins import UPDATE, listed, loaded
from napari_msp.signal.sh_image import SHImage


class Baseline(ABC):
    """Learns from training subjects, then predicts a target platform on any lattice.

    Attributes
    ----------
    name
        Of its row in a table.
    summary
        What it does, in one sentence for reports.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> Self:
        """Learn from the images of the training subjects on both platforms; give itself.

        Parameters
        ----------
        inputs, targets
            Of the same subjects in the same order; each platform on its own lattice.

        Raises
        ------
        ValueError
            When they are not pairs.
        """

    @abstractmethod
    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Predict the target platform's image on `lattice`.

        Parameters
        ----------
        image
            Of the input platform, on any lattice.

        Raises
        ------
        RuntimeError
            When called before `fit`.
        """


class Interpolation(Baseline):
    """No harmonisation: the input itself, interpolated onto the target lattice."""

    name = "no harmonization"
    summary = "The input itself, interpolated to the target's lattice."

    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> Self:
        """Learn nothing."""
        return self

    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Interpolate linearly."""
        return on_lattice(image, lattice)


class LearnedBaseline(Baseline):
    """A baseline that must learn before it predicts, on a lattice that follows from the input's."""

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
        """Map the image, then interpolate linearly where its lattice is another.

        The result claims the target platform's b-value and λ.
        """
        if self._like is None:
            raise RuntimeError("fit the baseline first")
        mapped = on_lattice(self._map(image), lattice)
        return replace(mapped, b_value=self._like.b_value, regularisation=self._like.regularisation)

    @abstractmethod
    def _learn(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> None:
        """Learn from pairs of images."""

    @abstractmethod
    def _map(self, image: SHImage) -> SHImage:
        """Predict on a lattice of its own choice, after `_learn`."""


# --- Names -------------------------------------------------------------------------------------

GROUP = "napari_msp.baselines"
"""Entry points of other packages' baselines."""

_HERE = "napari_msp.evaluation.baselines"

OWN = {
    "no harmonization": f"{_HERE}.base:Interpolation",
    "alignment": f"{_HERE}.alignment:StatisticalAlignment",
    "alignment by region": f"{_HERE}.alignment:RegionalAlignment",
    "alignment by voxel": f"{_HERE}.alignment:VoxelAlignment",
    "linear RISH": f"{_HERE}.linear_rish:LinearRISH",
    "IQT": f"{_HERE}.patch_regression:PatchRegression",
}
"""This package's own, in the order of a table."""


def baseline_names() -> tuple[str, ...]:
    """Give the names of all baselines: ours first, then other packages'."""
    return tuple(listed(GROUP, OWN))


def baseline_class(name: str) -> type[Baseline]:
    """Give the class of a baseline.

    Raises
    ------
    UserError
        When there is none of that name, or the package that it comes from is broken.
    """
    found = listed(GROUP, OWN).get(name)
    if found is None:
        raise UserError(
            "there is no such method", name, "methods", Choose("methods", baseline_names())
        )
    baseline = loaded(found, Baseline)  # type: ignore[type-abstract]
    if baseline.name != name:
        raise UserError(f"is called {baseline.name!r}, not {name!r}", found.value, remedy=UPDATE)
    return baseline
