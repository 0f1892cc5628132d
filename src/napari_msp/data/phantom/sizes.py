"""How much of a head is simulated."""

import numpy as np

from napari_msp.data.lattice import Lattice
from napari_msp.data.phantom.platforms import Platform
from napari_msp.errors import UserError

SPACING = 2.4
"""Voxel size of the standard protocol in mm (Tax 2019)."""

SIZES: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    # A block of the right hemisphere with callosum, ventricle, corona radiata and cortex.
    "tiny": ((32, 20, 14), (-4.8, -34.0, 10.0)),
    # A slab through basal ganglia, ventricles and centrum semiovale.
    "small": ((66, 82, 16), (-78.0, -115.2, 1.2)),
    # The whole brain.
    "full": ((66, 82, 68), (-78.0, -115.2, -76.8)),
}
"""Shape of the 2.4 mm lattice and centre of its first voxel in mm (RAS+), for each size."""


def lattice_for(size: str, platform: Platform) -> Lattice:
    """Give a platform's lattice in RAS+ order.

    Raises
    ------
    UserError
        When there is no such size.
    """
    if size not in SIZES:
        raise UserError(f"size {size}: there is no such size; give one of {', '.join(SIZES)}")
    shape, origin = SIZES[size]
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = origin
    standard = Lattice(shape, affine)
    return standard if platform.scale == 1 else standard.refined(platform.scale)
