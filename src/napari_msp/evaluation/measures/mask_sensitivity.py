"""How much the global error hangs on where the mask ends."""

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from napari_msp.arrays import MaskArray
from napari_msp.signal.maps import squared_error
from napari_msp.signal.sh_image import SHImage


def mask_sensitivity(prediction: SHImage, truth: SHImage, mask: MaskArray) -> dict[str, float]:
    """Change the mask by one voxel (six neighbours) and measure the SH MSE again.

    Eroded: the outermost voxels are left out. The edge of the field of view is no edge of the
    brain and is not eroded.

    Dilated: images are 0 outside their masks, so a voxel beyond both would be a perfect prediction
    of nothing and is not counted. Voxels that touch the mask and lie in one image's mask only are:
    the other's 0 is what it says there. Without such voxels the change is 0.

    Parameters
    ----------
    prediction, truth
        On one lattice.
    mask
        (X, Y, Z) where errors count; in both masks.

    Returns
    -------
    "mask_eroded" and "mask_dilated", in percent of the SH MSE inside `mask`; nan where that is 0 or
    erosion leaves nothing.
    """
    either = prediction.mask | truth.mask
    errors = squared_error(prediction, truth, mask=either).astype(float)
    eroded = binary_erosion(mask, border_value=1)
    dilated = binary_dilation(mask) & either
    whole = float(errors[mask].mean())

    def change(where: MaskArray) -> float:
        if whole == 0 or not where.any():
            return float("nan")
        return 100 * (float(np.mean(errors[where])) / whole - 1)

    return {"mask_eroded": change(eroded), "mask_dilated": change(dilated)}
