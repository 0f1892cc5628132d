"""Put a prediction on truth's own lattice.

It is always the prediction that is resampled. Resampling truth would smooth its noise and flatter
every prediction.
"""

from dataclasses import replace

from napari_msp.arrays import MaskArray
from napari_msp.data.lattice import CanonicalGrid, Lattice, resample_in_mask, resample_mask
from napari_msp.errors import Advice, UserError
from napari_msp.signal.sh_image import SHImage

SMALLEST_OVERLAP = 0.5
"""Share of the smaller brain that must lie in the other one (our choice; a slab may be compared
with a whole brain)."""


def on_lattice(image: SHImage, lattice: Lattice) -> SHImage:
    """Give an SH image on another lattice; `placement` says what that takes.

    Coefficients are in scanner axes, so they need no rotation. Voxels that only stand in another
    order are reordered, bit for bit; all others are interpolated linearly between in-mask voxels.

    Parameters
    ----------
    image
        (X, Y, Z, C) on any lattice.
    lattice
        Where it is wanted.

    Returns
    -------
    SHImage
        With the lattice's shape and affine; 0 outside the mask.
    """
    if image.lattice.matches(lattice):
        return replace(image, affine=lattice.affine)
    if image.lattice.canonical.matches(lattice.canonical):
        grid, wanted = image.grid, CanonicalGrid(lattice.shape, lattice.affine)
        return replace(
            image,
            coefficients=wanted.to_stored(grid.to_canonical(image.coefficients)),
            mask=wanted.to_stored(grid.to_canonical(image.mask)),
            affine=lattice.affine,
        )
    mask = resample_mask(image.mask, image.lattice, lattice)
    coefficients = resample_in_mask(image.coefficients, image.mask, image.lattice, lattice)
    coefficients[~mask] = 0
    return replace(image, coefficients=coefficients, mask=mask, affine=lattice.affine)


def placement(source: Lattice, target: Lattice) -> str:
    """Say in words what `on_lattice` does between two lattices.

    Returns
    -------
    "as stored", "reordered", or "interpolated linearly from … mm to … mm".
    """
    if source.matches(target):
        return "as stored"
    if source.canonical.matches(target.canonical):
        return "reordered"
    return f"interpolated linearly from {_sizes(source)} to {_sizes(target)}"


def common_mask(prediction: SHImage, truth: SHImage, what: str = "prediction") -> MaskArray:
    """Give the voxels in both masks of two images on one lattice.

    Parameters
    ----------
    what
        Names the prediction in the error.

    Raises
    ------
    UserError
        When the brains hardly overlap: they are not one head in one position.
    """
    both = prediction.mask & truth.mask
    smaller = min(int(prediction.mask.sum()), int(truth.mask.sum()))
    # A brain that lies wholly off the lattice leaves an empty mask, and that is no overlap either.
    if smaller == 0 or both.sum() < SMALLEST_OVERLAP * smaller:
        share = 0 if smaller == 0 else round(100 * float(both.sum()) / smaller)
        raise UserError(
            f"its brain overlaps the reference's by {share} %",
            what,
            remedy=Advice("give images of one head, registered to each other"),
        )
    return both


def _sizes(lattice: Lattice) -> str:
    return " × ".join(f"{size:.2f}" for size in lattice.voxel_sizes) + " mm"
