"""Read and write NIfTI images without losing what their headers say."""

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger as nibabel_logger
from nibabel.spatialimages import HeaderDataError

from napari_msp.arrays import FloatArray, MaskArray
from napari_msp.bids import nifti_stem
from napari_msp.errors import Advice, UserError
from napari_msp.files import atomic_path

DAMAGED = (OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError, zlib.error)
"""What reading a damaged or truncated image may raise. A header that lies about its size asks for
memory that no machine has."""

CHECK_PATH, REPLACE = Advice("check the path"), Advice("replace it")


def open_nifti(path: str | Path) -> nib.Nifti1Image:
    """Open a NIfTI image; its voxels stay on disk until they are asked for.

    Raises
    ------
    UserError
        When the file is missing, is not NIfTI, or its affine cannot be used.
    """
    path = Path(path)
    try:
        with _quiet_nibabel():
            image = nib.load(path)
    except FileNotFoundError as error:
        nifti_stem(path)  # a name of another kind is the likelier mistake
        raise UserError("there is no such file", path, remedy=CHECK_PATH) from error
    except (*DAMAGED, ImageFileError, HeaderDataError) as error:
        nifti_stem(path)
        # What nibabel says of a file's type names the file once more.
        reason = "unknown file type" if isinstance(error, ImageFileError) else error
        raise UserError(
            f"is not a readable NIfTI image ({reason})", path, remedy=REPLACE
        ) from error
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is a subclass
        raise UserError("is not a NIfTI image", path, remedy=Advice("convert it to .nii.gz"))
    if len(image.shape) == 0 or min(image.shape) < 1:
        raise UserError(f"has shape {image.shape}, so no voxel", path, remedy=REPLACE)
    linear = image.affine[:3, :3]
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(linear)) < 1e-9:
        raise UserError(
            "its affine is singular", path, remedy=Advice("correct the header's sform or qform")
        )
    return image


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel's remarks on a header off standard error: what matters becomes an error."""
    level = nibabel_logger.level
    nibabel_logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        nibabel_logger.setLevel(level)


def read_voxels(image: nib.Nifti1Image, path: Path | None = None) -> FloatArray:
    """Read all voxels as float32, scaled as the header says.

    Raises
    ------
    UserError
        When the file ends early or its compression is damaged.
    """
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind == "c":
        raise UserError(
            f"has {kind} voxels, not one real number each", path, remedy=Advice("convert it")
        )
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found so
            return _volume_by_volume(image)
    except DAMAGED as error:
        raise UserError(f"its voxels cannot be read ({error})", path, remedy=REPLACE) from error


def _volume_by_volume(image: nib.Nifti1Image) -> FloatArray:
    """Read without ever keeping the whole image as its file stores it.

    That would cost its size once more, and nibabel would keep Python's lock while it clears so
    much memory: a window would stand still.
    """
    stored = image.dataobj
    if len(image.shape) < 4 or not nib.is_proxy(stored):
        return np.asarray(stored, dtype=np.float32)
    # One open file for all volumes: a compressed one is read through once.
    layout = (stored.shape, stored.dtype, stored.offset, stored.slope, stored.inter)
    volumes = nib.arrayproxy.ArrayProxy(stored.file_like, layout, keep_file_open=True)
    voxels = np.empty(stored.shape, dtype=np.float32, order="F")
    for index in range(stored.shape[-1]):
        voxels[..., index] = volumes[..., index]
    return voxels


def write_nifti(
    path: Path,
    array: FloatArray | MaskArray,
    affine: FloatArray,
    like: nib.Nifti1Image | None = None,
) -> None:
    """Write an image atomically: float32, or uint8 for a mask.

    Parameters
    ----------
    path
        Ends in .nii or .nii.gz.
    array
        (X, Y, Z) or (X, Y, Z, N).
    affine
        (4, 4) voxel-to-scanner affine in mm.
    like
        An image whose sform and qform are kept, also where they say different things; without
        one both are `affine` with code 1 (scanner).
    """
    nifti_stem(Path(path))
    dtype = np.uint8 if array.dtype == np.bool_ else np.float32
    image = nib.Nifti1Image(np.asarray(array, dtype=dtype), affine)
    sform, qform = (1, 1) if like is None else _codes(like)
    to_scanner = affine
    if like is not None and sform and qform:  # the affine is the sform
        to_scanner = like.get_qform() @ np.linalg.inv(like.affine) @ affine
    # An sform may contain a shear that a qform cannot: nibabel then writes the nearest rotation.
    image.set_qform(to_scanner, qform)
    image.set_sform(affine, sform)
    image.header.set_xyzt_units("mm", "sec")
    with atomic_path(Path(path)) as temporary:
        nib.save(image, temporary)


def _codes(image: nib.Nifti1Image) -> tuple[int, int]:
    sform = int(image.header["sform_code"])
    qform = int(image.header["qform_code"])
    return (sform, qform) if sform or qform else (1, 1)
