"""A peer: convert SH coefficients between the bases that users meet."""

from collections.abc import Callable

import numpy as np
from dipy.reconst.shm import (
    convert_sh_descoteaux_tournier,
    convert_sh_from_legacy,
    convert_sh_to_legacy,
)

from napari_msp.arrays import FloatArray

# DIPY offers one bridge (legacy descoteaux07 <-> MRtrix3) and one step between each basis and its
# legacy form; every conversion is a walk over these.
_TO_MRTRIX3: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mrtrix3": lambda c: c,
    "tournier07_legacy": lambda c: convert_sh_from_legacy(c, "tournier07"),
    "descoteaux07_legacy": convert_sh_descoteaux_tournier,
    "descoteaux07": lambda c: convert_sh_descoteaux_tournier(
        convert_sh_to_legacy(c, "descoteaux07")
    ),
}
_FROM_MRTRIX3: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mrtrix3": lambda c: c,
    "tournier07_legacy": lambda c: convert_sh_to_legacy(c, "tournier07"),
    "descoteaux07_legacy": convert_sh_descoteaux_tournier,
    "descoteaux07": lambda c: convert_sh_from_legacy(
        convert_sh_descoteaux_tournier(c), "descoteaux07"
    ),
}
BASES = tuple(_TO_MRTRIX3)


def convert_basis(coefficients: FloatArray, source: str, target: str) -> FloatArray:
    """Give the coefficients of the same function in another basis.

    Parameters
    ----------
    coefficients
        (..., C).
    source, target
        One of `BASES`. "mrtrix3" is DIPY's tournier07 with `legacy=False`; DIPY's default is
        still "descoteaux07_legacy".

    Raises
    ------
    ValueError
        For an unknown basis.
    """
    for basis in (source, target):
        if basis not in BASES:
            raise ValueError(f"unknown SH basis {basis!r}; choose from {', '.join(BASES)}")
    common = _TO_MRTRIX3[source](np.asarray(coefficients))
    return np.asarray(_FROM_MRTRIX3[target](common))
