"""The outputs of a model's parts, each of which can stand in the prediction's cell."""

from __future__ import annotations

from dataclasses import dataclass

from napari_msp.data.lattice import Lattice
from napari_msp.evaluation.placement import on_lattice
from napari_msp.signal.sh_image import SHImage
from napari_msp.ui.comparing.staged import Staged
from napari_msp.ui.records import Record

SECOND = "second"
"""The part that is the prediction itself."""

BRANCH = "branch:"


@dataclass(frozen=True, eq=False)
class StageParts:
    """What a prediction can show of itself.

    Attributes
    ----------
    alpha
        The model's own.
    image
        The prediction, on the comparison's lattice.
    scan
        What it was made from.
    staged
        Its stages; None for a model without any.
    """

    alpha: float
    image: SHImage
    scan: Record | None
    staged: Staged | None

    @property
    def lattice(self) -> Lattice:
        """The comparison's."""
        return self.image.lattice

    def output(self, part: str, alpha: float) -> SHImage:
        """Give a part's output on the comparison's lattice.

        Parameters
        ----------
        part
            As in the diagram: "input", "first", "branch:<platform>", "second".
        alpha
            Of equation (1).
        """
        if part == "input" and self.scan is not None:
            return on_lattice(self.scan.image, self.lattice)
        if self.staged is None or self.words(part, alpha) == "":
            return self.image
        if part == "first":
            return self.staged.first.image
        if part.startswith(BRANCH):
            return self.staged.branches[part.removeprefix(BRANCH)].image
        return self.staged.image(alpha)

    def words(self, part: str, alpha: float) -> str:
        """Say what is shown; "" for the prediction as the model made it."""
        if part == "input":
            return "input"
        if part == "first":
            return "first stage"
        if part.startswith(BRANCH):
            return f"branch {part.removeprefix(BRANCH)}"
        own = self.staged is None or alpha == self.alpha
        return "" if own else f"α={alpha:.2f}"
