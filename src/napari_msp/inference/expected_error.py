"""What error to expect of a prediction: its features, and what a calibrated model makes of them."""

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.inference.prepared_input import PreparedInput
from napari_msp.signal.expected_error import (
    Check,
    ErrorModel,
    energies,
    error_features,
    smoothed,
)
from napari_msp.signal.grid_frame import GridImage, to_stored_order
from napari_msp.signal.sh_image import SHImage


def features_of(
    prepared: PreparedInput, sh: SHImage, b0: FloatArray, check: Check = lambda: None
) -> FloatArray:
    """Describe the in-mask voxels of a prediction, see `error_features`.

    Parameters
    ----------
    prepared
        What was harmonized.
    sh, b0
        Of the prediction, in stored order.
    check
        Called again and again; may raise to end the work.

    Returns
    -------
    (N, 26) float32, voxels in the order of `sh.mask`.
    """
    image = prepared.image
    smooth = smoothed(energies(image.coefficients), image.mask, 1.0, check)
    lattice = sh.lattice.canonical
    on_target = GridImage(smooth, image.mask, image.lattice).resampled(lattice)
    energy = to_stored_order(on_target.coefficients, lattice, prepared.acquisition.affine)[0]
    voxel = float(image.lattice.voxel_sizes.mean() / lattice.voxel_sizes.mean())
    return error_features(sh.coefficients, sh.mask, energy, b0, voxel, check)


def expected_error(
    model: ErrorModel,
    prepared: PreparedInput,
    sh: SHImage,
    b0: FloatArray,
    check: Check = lambda: None,
) -> FloatArray:
    """(X, Y, Z) float32 squared error to expect, in SH units squared; 0 outside the mask.

    Parameters
    ----------
    model
        As a calibration fitted it for the target.
    prepared, sh, b0, check
        As for `features_of`.
    """
    expected = np.zeros(sh.mask.shape, dtype=np.float32)
    expected[sh.mask] = model(features_of(prepared, sh, b0, check), check)
    return expected
