"""From an acquisition to its SH image, and from an SH image back to a signal."""

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.data.acquisition import Acquisition
from napari_msp.errors import UserError
from napari_msp.signal.conditioning import check_scheme
from napari_msp.signal.sh_image import SHImage
from napari_msp.signal.sh_index import ORDER, coefficient_count
from napari_msp.signal.spherical_harmonics import (
    default_regularisation,
    design_matrix,
    fitting_matrix,
)


def fit_sh(
    acquisition: Acquisition,
    *,
    b_value: float | None = None,
    order: int = ORDER,
    regularisation: float | None = None,
    rescale_to: float | None = None,
) -> SHImage:
    """Fit SH to the b0-normalised signal of one shell.

    Parameters
    ----------
    acquisition
        Any orientation; the fit is made in scanner axes.
    b_value
        Shell to use, in s/mm²; None: the only one.
    order
        Even SH order.
    regularisation
        Laplace-Beltrami weight λ; None: `default_regularisation`.
    rescale_to
        b-value in s/mm² to which the signal is brought first by (S/S0)^(rescale_to/b): exact for
        mono-exponential decay, approximate in tissue.

    Returns
    -------
    SHImage
        float32 coefficients in the acquisition's stored order; 0 outside the mask.

    Raises
    ------
    UserError
        When the shell has fewer directions than coefficients, or there is no b=0 signal in the
        mask.

    Warns
    -----
    IllConditionedScheme
        When the scheme does not determine the higher orders.
    """
    shell = acquisition.shell(b_value)
    directions = acquisition.directions(shell)
    check_scheme(directions, order, acquisition.name)
    if regularisation is None:
        regularisation = default_regularisation(len(directions))
    mask = acquisition.mask
    if not (acquisition.b0[mask] > 0).any():
        raise UserError(
            f"{acquisition.name}: its b=0 image is nowhere above 0 inside the mask; check the "
            "image and its mask"
        )
    signal = acquisition.normalised(shell)[mask]
    if rescale_to is not None:
        signal = signal ** (rescale_to / shell.b_value)
    coefficients = np.zeros((*mask.shape, coefficient_count(order)), dtype=np.float32)
    coefficients[mask] = signal @ fitting_matrix(directions, order, regularisation).T
    return SHImage(
        coefficients,
        acquisition.affine,
        mask,
        b_value=shell.b_value if rescale_to is None else rescale_to,
        regularisation=regularisation,
        rescaled_from=None if rescale_to is None else shell.b_value,
    )


def evaluate(image: SHImage, directions: FloatArray) -> FloatArray:
    """Evaluate an SH image: the normalised signal along (N, 3) scanner directions.

    Returns
    -------
    (X, Y, Z, N) float32; 0 outside the mask.
    """
    matrix = design_matrix(directions, image.order)
    signal = np.zeros((*image.mask.shape, len(directions)), dtype=np.float32)
    signal[image.mask] = image.coefficients[image.mask] @ matrix.T
    return signal
