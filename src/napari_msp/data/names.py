"""Names of NIfTI images and of the files beside them; known without reading or loading anything."""

from pathlib import Path

from napari_msp.errors import UserError

NIFTI_SUFFIXES = (".nii.gz", ".nii")


def nifti_stem(path: Path) -> str:
    """File name without .nii or .nii.gz.

    >>> nifti_stem(Path("sub-01_dwi.nii.gz"))
    'sub-01_dwi'
    """
    for suffix in NIFTI_SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    raise UserError(f"{path}: is not a NIfTI file; give a .nii or .nii.gz")


def gradient_files(image: Path) -> tuple[Path, Path]:
    """Give where the .bval and .bvec files of an image belong: beside it, by its stem."""
    stem = nifti_stem(image)
    return image.with_name(stem + ".bval"), image.with_name(stem + ".bvec")
