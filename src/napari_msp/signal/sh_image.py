"""SH images: coefficients with the metadata needed to use them, and their files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, Final, Protocol, Self

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import read_sidecar, sidecar_path
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.gradients import image_to_scanner_axes
from napari_msp.data.lattice import Lattice, direction_cosines
from napari_msp.data.nifti import open_nifti, read_voxels, usable, write_nifti
from napari_msp.errors import Advice, UserError
from napari_msp.files import write_json
from napari_msp.formatting import counted
from napari_msp.signal.spherical_harmonics import order_of, rotation_matrix

BASIS: Final = "mrtrix3"

LARGEST_COEFFICIENT = 100.0
"""Limit above which coefficients are not of S/S0, whose own stay below sqrt(4π) but for noise
(our choice)."""


REFERENCES = ("xyz", "ijk", "bvec")
"""Axes that BEP016 lets directions refer to: the scanner's, the image's, and FSL's."""


@dataclass(frozen=True, eq=False, repr=False)
class SHImage:
    """SH coefficients of the b0-normalised signal.

    Attributes
    ----------
    coefficients
        (X, Y, Z, C) float32, MRtrix3 basis, scanner (RAS+) axes; 0 outside the mask.
    affine
        (4, 4) voxel-to-scanner affine in mm.
    mask
        (X, Y, Z) brain mask: bool, or numbers of which non-zero is inside.
    b_value
        b-value of the signal in s/mm²; None if the file did not say.
    regularisation
        Laplace-Beltrami weight λ of the fit; None if unknown.
    rescaled_from
        Measured b-value if the signal was rescaled to `b_value` by (S/S0)^(b_value/b).
    b0_weighting
        Mean b-value in s/mm² of the b=0 images that the signal was divided by, if these were
        weighted: only the decay from there on is in the signal. Rescaled like the signal.
    """

    coefficients: FloatArray
    affine: FloatArray
    mask: MaskArray
    b_value: float | None = None
    regularisation: float | None = None
    rescaled_from: float | None = None
    b0_weighting: float = 0.0

    def __post_init__(self) -> None:
        coefficients, mask = np.asarray(self.coefficients), np.asarray(self.mask)
        affine = np.asarray(self.affine, dtype=float)
        if coefficients.ndim != 4 or coefficients.shape[:3] != mask.shape:
            what = f"coefficients of shape {coefficients.shape}"
            raise ValueError(f"{what} do not go with a mask of shape {mask.shape}")
        if affine.shape != (4, 4) or not usable(affine):
            raise ValueError("the affine must be (4, 4), finite, and span a volume")
        if coefficients.dtype.kind not in "fiub":
            raise ValueError(f"coefficients are real numbers, and these are {coefficients.dtype}")
        if coefficients.dtype.kind != "f" or not coefficients.dtype.isnative:
            coefficients = coefficients.astype(np.float32)
        for name in ("b_value", "regularisation", "rescaled_from", "b0_weighting"):
            if (value := getattr(self, name)) is not None:
                if not isinstance(value, Real) or not 0 <= float(value) < np.inf:  # nan, too
                    raise ValueError(f"{name} must be a number from 0 on, not {value!r}")
                vars(self)[name] = float(value)
        # Integers would index voxels where a mask selects them.
        mask = mask.astype(bool, copy=False)
        vars(self).update(coefficients=coefficients, mask=mask, affine=affine)
        _ = self.order  # a number of coefficients that fits no order is an error at once

    @cached_property
    def order(self) -> int:
        """Highest SH order."""
        return order_of(self.coefficients.shape[3])

    @cached_property
    def lattice(self) -> Lattice:
        """Lattice of its voxels, in stored order."""
        return Lattice.of(self.mask.shape, self.affine)

    def __repr__(self) -> str:
        size = " × ".join(str(each) for each in self.mask.shape)
        shell = "unknown b-value" if self.b_value is None else f"b = {self.b_value:.0f} s/mm²"
        return f"<SHImage of order {self.order}, {size} voxels, {shell}>"

    def save(self, path: str | Path) -> None:
        """Write an image that MRtrix3 reads, with a JSON sidecar; see `write_sh`."""
        write_sh(path, usable_sh(self, str(path)))

    def sidecar(self) -> dict[str, Any]:
        """Return the JSON sidecar (fields after BIDS' draft for diffusion derivatives, BEP016)."""
        weighted = {"BValueOfB0": self.b0_weighting} if self.b0_weighting else {}
        return {
            "Model": {"Description": "Real symmetric spherical harmonics of S/S0"},
            "OrientationEncoding": {
                "Type": "sh",
                "Reference": "xyz",
                "SphericalHarmonicBasis": "MRtrix3",
                "SphericalHarmonicDegree": self.order,
            },
            "BValue": self.b_value,
            "LaplaceBeltramiWeight": self.regularisation,
            "BValueRescaledFrom": self.rescaled_from,
            **weighted,
        }


def write_sh(
    path: str | Path,
    image: SHImage,
    extra: dict[str, Any] | None = None,
    like: nib.Nifti1Image | None = None,
) -> None:
    """Write an SH image (float32 NIfTI) and its JSON sidecar.

    Parameters
    ----------
    path
        File name that ends in .nii or .nii.gz; the sidecar gets the same stem.
    extra
        More fields for the sidecar.
    like
        Image whose sform and qform codes are kept.
    """
    path = Path(path)
    write_nifti(path, image.coefficients, image.affine, like=like)
    write_json(sidecar_path(path), {**image.sidecar(), **(extra or {})})


def load_sh(path: str | Path) -> SHImage:
    """Read an SH image in MRtrix3's basis, from this package or from `amp2sh`.

    The mask is where any coefficient differs from 0. Coefficients along the image's axes, which a
    sidecar may state, are turned into scanner axes.

    Raises
    ------
    UserError
        When the file is not an SH image of S/S0, or its sidecar names another basis or axes, or is
        malformed.
    """
    path = Path(path)
    image = open_nifti(path)
    coefficients = read_voxels(image, path)
    try:
        order_of(coefficients.shape[3] if coefficients.ndim == 4 else -1)
    except ValueError as error:
        problem = f"its shape {coefficients.shape} is not that of an SH image"
        raise UserError(problem, path, remedy=Advice("give one with 28 volumes")) from error
    sidecar = read_sidecar(path)
    encoding = sidecar.get("OrientationEncoding")
    known = encoding if isinstance(encoding, dict) else {}
    basis, reference = known.get("SphericalHarmonicBasis", BASIS), known.get("Reference", "xyz")
    if str(known.get("Type", "sh")).lower() != "sh":
        remedy = Advice("give an SH image")
        raise UserError(f"its orientation encoding is {known['Type']}, not sh", path, remedy=remedy)
    if str(basis).lower() != BASIS:
        remedy = Advice("first convert it to MRtrix3's basis")
        raise UserError(f"is in the SH basis {basis}", path, remedy=remedy)
    if reference not in REFERENCES:
        remedy = Advice("first turn it to scanner axes (xyz)")
        raise UserError(f"its axes are {reference}, which is not supported", path, remedy=remedy)
    refuse_unusable(coefficients, str(path))
    if reference != "xyz":
        axes = direction_cosines(image.affine)
        if reference == "bvec":
            axes = image_to_scanner_axes(np.eye(3), image.affine).T
        turn = rotation_matrix(axes, order_of(coefficients.shape[3]))
        coefficients = (coefficients @ turn.T).astype(np.float32)
    return SHImage(
        coefficients,
        image.affine,
        np.any(coefficients != 0, axis=-1),
        b_value=_number(sidecar, "BValue", path),
        regularisation=_number(sidecar, "LaplaceBeltramiWeight", path),
        rescaled_from=_number(sidecar, "BValueRescaledFrom", path),
        b0_weighting=_number(sidecar, "BValueOfB0", path) or 0.0,
    )


class AnyScan(Protocol):
    """A `Scan` or `Prediction`, of a room above: functions of the signal take it, too."""

    @property
    def acquisition(self) -> Acquisition | None:
        """The DWI; None for an SH image."""

    @property
    def shell(self) -> float | Sequence[float] | None:
        """b-value of the chosen shell in s/mm², or those of several; None: all."""

    @property
    def sh(self) -> SHImage:
        """The SH image of the only shell."""

    @property
    def b_value(self) -> float | None:
        """b-value of the only shell in s/mm²."""

    def at_shell(self, b_value: float | None = None) -> Self:
        """Return the scan of one shell; None: the only one."""


def usable_sh(image: SHImage | AnyScan, name: str) -> SHImage:
    """Return an SH image, or a scan's, that is safe to compute with: 0 outside its mask.

    Raises
    ------
    UserError
        When coefficients inside are not finite, or too large for a signal over its b=0 image.
    TypeError
        When it is not an SH image.
    """
    image = getattr(image, "sh", image)
    if not isinstance(image, SHImage):
        raise TypeError(f"{type(image).__name__} is no SH image: give a scan, or load_sh(path)")
    if _largest(image.coefficients) <= LARGEST_COEFFICIENT:
        return image
    inside = with_coefficients(image, image.coefficients)
    refuse_unusable(inside.coefficients, name)
    return inside


def refuse_unusable(coefficients: FloatArray, name: str) -> None:
    """Refuse unusable (X, Y, Z, C) coefficients.

    Raises
    ------
    UserError
        When some are not finite, or too large for a signal over its b=0 image.
    """
    largest = _largest(coefficients)
    if largest <= LARGEST_COEFFICIENT:
        return
    broken = ~np.isfinite(coefficients).all(axis=-1)
    if broken.any():
        first = ", ".join(map(str, np.argwhere(broken)[0]))
        problem = f"has NaN or infinite coefficients in {counted(int(broken.sum()), 'voxel')}"
        remedy = Advice("repair the image")
        raise UserError(f"{problem} (the first is {first})", name, remedy=remedy)
    problem = f"has coefficients up to {largest:.3g}"
    remedy = Advice("divide the signal by its b=0 image before fitting")
    why = "so the signal was not divided by its b=0 image"
    raise UserError(f"{problem}, {why}", name, remedy=remedy)


def _largest(coefficients: FloatArray) -> float:
    """Return the largest absolute value; nan if one is nan."""
    return float(max(coefficients.max(initial=0), -coefficients.min(initial=0)))


def _number(sidecar: dict[str, Any], field: str, path: Path) -> float | None:
    value = sidecar.get(field)
    if value is None:
        return None
    # Written so that nan is refused too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
        problem = f"{field} is {value!r}, not a number"
        raise UserError(problem, sidecar_path(path), remedy=Advice("correct it"))
    return float(value)


def with_coefficients(image: SHImage, coefficients: FloatArray) -> SHImage:
    """Return the same image with other coefficients, set to 0 outside the mask."""
    masked = np.where(image.mask[..., None], coefficients, 0).astype(np.float32)
    return replace(image, coefficients=masked)
