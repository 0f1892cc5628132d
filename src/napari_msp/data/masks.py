"""Find, check or make the brain mask of an acquisition."""

import glob
import os
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.data.lattice import Lattice
from napari_msp.data.names import NIFTI_SUFFIXES, nifti_stem
from napari_msp.data.nifti import open_nifti, read_voxels
from napari_msp.errors import UserError


def find_mask(dwi: Path) -> Path | None:
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
        When derivatives hold several: the choice is the user's.
    """
    stem = nifti_stem(dwi)
    bare = stem.removesuffix("_dwi")
    beside = [f"{stem}_mask", f"{bare}_mask", f"{bare}_desc-brain_mask"]
    for name in beside:
        for suffix in NIFTI_SUFFIXES:
            if (dwi.parent / (name + suffix)).exists():
                return dwi.parent / (name + suffix)
    root = dataset_root(dwi)
    if root is None:
        return None
    folder = glob.escape(str(_absolute(dwi).parent.relative_to(root)))
    found = [
        path
        for suffix in NIFTI_SUFFIXES
        for path in sorted(
            (root / "derivatives").glob(f"*/{folder}/{glob.escape(bare)}_desc-brain_mask{suffix}")
        )
    ]
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in found)
        raise UserError(f"{dwi}: several masks are in derivatives ({names}); give one with --mask")
    return found[0] if found else None


def dataset_root(path: Path) -> Path | None:
    """Give the folder of the BIDS dataset that holds `path`: the parent of its `sub-` folder."""
    for folder in _absolute(path).parents:
        if folder.name.startswith("sub-"):
            return folder.parent
    return None


def _absolute(path: Path) -> Path:
    """Make a path absolute, links not followed: DataLad keeps images elsewhere and links to them.

    The names that tell what an image is are those of the link.
    """
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def read_mask(path: Path, lattice: Lattice) -> MaskArray:
    """Read a mask (anything above 0 is inside) that must lie on `lattice`.

    Raises
    ------
    UserError
        When it lies elsewhere or is empty.
    """
    image = open_nifti(path)
    values = read_voxels(image, path)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise UserError(f"{path}: a mask has three axes, this has {values.ndim}; give another")
    x, y, z = values.shape
    if not lattice.matches(Lattice((x, y, z), image.affine)):
        raise UserError(
            f"{path}: its voxels are not the image's ({x} × {y} × {z} against "
            f"{' × '.join(map(str, lattice.shape))}, or another affine); resample it to the image"
        )
    mask = np.nan_to_num(values) > 0
    if not mask.any():
        raise UserError(f"{path}: no voxel is inside; give a mask of the brain")
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
        raise UserError(
            f"{image.get_filename()}: no brain was found in the b=0 image; give one with --mask"
        )
    return found
