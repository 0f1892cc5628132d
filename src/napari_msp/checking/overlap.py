"""How far two masks of one head agree."""

from napari_msp.checking.summary import HeadImages
from napari_msp.data.lattice import resample_mask


def dice(source: HeadImages, target: HeadImages) -> float:
    """Give the Dice coefficient of two masks on the lattice of `source`.

    Twice the shared voxels over the sum of both: 1 for equal masks, 0 for masks that do not meet.
    """
    mask = source.brain.mask
    other = resample_mask(target.brain.mask, target.brain.lattice, source.brain.lattice)
    total = int(mask.sum() + other.sum())
    return 2 * int((mask & other).sum()) / total if total else 0.0
