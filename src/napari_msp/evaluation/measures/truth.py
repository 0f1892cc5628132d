"""A truth that many predictions are measured against: what it costs is paid once."""

from dataclasses import dataclass
from functools import cached_property

from napari_msp.arrays import FloatArray
from napari_msp.evaluation.measures.robust import smoothed_as_compared
from napari_msp.evaluation.measures.tissue import Tissue, tissue_of_maps
from napari_msp.signal.maps import Maps
from napari_msp.signal.sh_image import SHImage


@dataclass(frozen=True, eq=False)
class Truth:
    """An image, with what every measurement against it needs.

    Attributes
    ----------
    image
        Never resampled.
    given_tissue
        On the image's lattice, such as that of its noise-free twin; None: found from the image.
    """

    image: SHImage
    given_tissue: Tissue | None = None

    def __post_init__(self) -> None:
        given = self.given_tissue
        if given is not None and given.white.shape != self.image.mask.shape:
            raise ValueError(
                f"tissue of shape {given.white.shape} does not go with a truth of shape "
                f"{self.image.mask.shape}"
            )

    @cached_property
    def mapped(self) -> Maps:
        """The image with its maps."""
        return Maps(self.image)

    @cached_property
    def tissue(self) -> Tissue:
        """White matter, grey matter and fluid."""
        return self.given_tissue or tissue_of_maps(self.mapped.tensor, self.image.mask)

    @cached_property
    def smoothed(self) -> FloatArray:
        """(C, X, Y, Z) coefficients, see `robust_error`."""
        return smoothed_as_compared(self.image)
