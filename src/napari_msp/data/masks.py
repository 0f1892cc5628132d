"""Find, check or make the brain mask of an acquisition."""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import NIFTI_SUFFIXES, bare_stem, dataset_root, in_derivatives, nifti_stem
from napari_msp.data.lattice import Lattice
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import Advice, Give, UserError


def find_mask(dwi: str | Path) -> Path | None:
    """Look for a mask beside an image, then in the derivatives of its BIDS dataset.

    Beside `sub-01_dwi.nii.gz` these names count: `sub-01_dwi_mask`, `sub-01_mask`,
    `sub-01_desc-brain_mask`. In `derivatives/<any>/` the last one counts, under the image's own
    folder.

    Returns
    -------
    Its path, or None where there is none.

    Raises
    ------
    UserError
        When derivatives contain several: the choice is the user's.
    """
    dwi = Path(dwi)
    beside = mask_beside(dwi)
    if beside is not None:
        return beside
    found = [
        path
        for suffix in NIFTI_SUFFIXES
        for path in in_derivatives(dwi, f"_desc-brain_mask{suffix}")
    ]
    if len(found) > 1:
        root = dataset_root(dwi)
        assert root is not None
        names = ", ".join(str(path.relative_to(root)) for path in found)
        raise UserError(
            f"several masks are in derivatives ({names})", dwi, "mask", Give("mask", "one")
        )
    return found[0] if found else None


def mask_beside(dwi: Path, *further: str) -> Path | None:
    """Look for a mask beside an image.

    Parameters
    ----------
    *further
        Stems that count too, after those that `find_mask` lists.
    """
    stem, bare = nifti_stem(dwi), bare_stem(dwi)
    names = (f"{stem}_mask", f"{bare}_mask", f"{bare}_desc-brain_mask", *further)
    paths = (dwi.parent / (name + suffix) for name in names for suffix in NIFTI_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def read_mask(path: str | Path, lattice: Lattice) -> MaskArray:
    """Read a mask (anything above 0 is inside) that must lie on `lattice`.

    Raises
    ------
    UserError
        When it lies elsewhere or is empty.
    """
    image = open_nifti(path)
    return check_mask(read_voxels(image, Path(path)), lattice, str(path), image.affine)


def check_mask(
    values: FloatArray | MaskArray, lattice: Lattice, name: str, affine: FloatArray | None = None
) -> MaskArray:
    """Give where there is brain, after checking that a mask belongs to an image.

    Parameters
    ----------
    values
        (X, Y, Z), or (X, Y, Z, 1); anything above 0 is inside.
    lattice
        Of the image.
    name
        Of the mask, for messages.
    affine
        (4, 4) of the mask; None: the image's own.

    Raises
    ------
    UserError
        When it lies elsewhere or is empty.
    """
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise UserError(
            f"a mask has three axes, this has {values.ndim}", name, "mask", Advice("give another")
        )
    x, y, z = values.shape
    if not lattice.matches(Lattice((x, y, z), lattice.affine if affine is None else affine)):
        problem = (
            f"its voxels are not the image's ({x} × {y} × {z} against "
            f"{' × '.join(map(str, lattice.shape))}, or another affine)"
        )
        raise UserError(problem, name, "mask", Advice("resample it to the image"))
    mask: MaskArray = np.nan_to_num(np.asarray(values, dtype=np.float32)) > 0
    if not mask.any():
        raise UserError("no voxel is inside", name, "mask", Advice("give a mask of the brain"))
    return mask


def estimate_mask(b0: FloatArray, image: nib.Nifti1Image) -> MaskArray:
    """Segment the brain on the mean b=0 image with DIPY's `median_otsu`.

    Raises
    ------
    UserError
        When it finds no brain.
    """
    from dipy.segment.mask import median_otsu

    _, mask = median_otsu(b0, median_radius=4, numpass=4)
    found: MaskArray = np.asarray(mask, dtype=bool)
    if not found.any():
        problem = "no brain was found in the b=0 image"
        raise UserError(problem, image.get_filename() or "acquisition", "mask", Give("mask", "one"))
    return found


def smooth_in_mask(
    values: FloatArray, mask: MaskArray, width: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Smooth between in-mask voxels only, by a Gaussian, so that no background leaks in.

    Parameters
    ----------
    values
        (X, Y, Z).
    mask
        (X, Y, Z).
    width
        Standard deviation in voxels, one or one an axis.

    Returns
    -------
    smoothed
        (X, Y, Z), continued beyond the mask, and far from it the mean inside.
    weight
        (X, Y, Z) share of the Gaussian that lies in the mask.
    """
    mean = values[mask].mean(dtype=float)
    offset = np.where(mask, values - mean, 0).astype(values.dtype)
    weight = gaussian_filter(mask.astype(values.dtype), width, mode="constant")
    # Far outside the weights vanish; there the mean stands in.
    smoothed = mean + gaussian_filter(offset, width, mode="constant") / (weight + 1e-6)
    return smoothed.astype(values.dtype, copy=False), weight
