"""The input itself, on the target's lattice."""

from collections.abc import Sequence
from typing import Self

from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.alignment import on_lattice
from napari_msp.evaluation.baselines.baseline import Baseline
from napari_msp.signal.sh_image import SHImage


class Interpolation(Baseline):
    """No harmonisation: the input itself, interpolated onto the target lattice."""

    name = "no harmonization"

    def fit(self, inputs: Sequence[SHImage], targets: Sequence[SHImage]) -> Self:
        """Learn nothing."""
        return self

    def predict(self, image: SHImage, lattice: Lattice) -> SHImage:
        """Interpolate linearly."""
        return on_lattice(image, lattice)
