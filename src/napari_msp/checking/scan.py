"""Everything that can be told of one scan alone."""

from pathlib import Path

import numpy as np

from napari_msp.arrays import FloatArray
from napari_msp.checking.brain import measure_brain
from napari_msp.checking.files import check_gradient_files, check_sidecar
from napari_msp.checking.findings import Finding, errors_as_findings, place_of
from napari_msp.checking.gradients import check_scheme
from napari_msp.checking.intensities import check_intensities
from napari_msp.checking.lattices import check_voxel_sizes
from napari_msp.checking.masks import check_mask, check_mask_given
from napari_msp.checking.mirrored_vectors import quick_tensors
from napari_msp.checking.registration import mean_diffusion_image
from napari_msp.checking.summary import HeadImages, ScanSummary
from napari_msp.data.acquisition import Acquisition
from napari_msp.data.dataset import TravellingHeads
from napari_msp.data.gradients import GradientTable, read_gradients
from napari_msp.data.masks import find_mask
from napari_msp.data.names import gradient_files
from napari_msp.data.nifti import open_nifti


def check_scan(
    dataset: TravellingHeads, subject: str, platform: str, *, with_images: bool
) -> tuple[list[Finding], ScanSummary | None]:
    """Check one scan.

    Parameters
    ----------
    dataset, subject, platform
        Which scan; there is one.
    with_images
        Whether to make the images by which scans are aligned.

    Returns
    -------
    The findings, and what is kept; None when later comparisons cannot use the scan.
    """
    root, path = dataset.root, dataset.scans[subject, platform]
    where = place_of(path, root)
    findings = list(check_sidecar(path, root))
    acquisition = _open(path, root, findings)
    if acquisition is None:
        return findings, None
    findings += check_voxel_sizes(where, acquisition.lattice)
    images = brain = None
    if _voxels_are_readable(acquisition, root, where, findings):
        findings += check_mask(where, acquisition.mask)
        findings += check_intensities(where, acquisition)
        brain = measure_brain(acquisition)
        if with_images:
            images = _head_images(acquisition)
    gradients = acquisition.gradients
    summary = ScanSummary(subject, platform, where, acquisition.lattice, gradients, images, brain)
    return findings, summary


def _open(path: Path, root: Path, findings: list[Finding]) -> Acquisition | None:
    """Open the parts of a scan one by one, so that what is wrong with each is added."""
    where = place_of(path, root)
    image = mask_path = None
    with errors_as_findings(findings, root, where):
        image = open_nifti(path)
    with errors_as_findings(findings, root, where):
        mask_path = find_mask(path)
        findings += check_mask_given(where, mask_path)
    # Without an image its table is still looked at; any affine will do for that.
    affine = np.eye(4) if image is None else image.affine
    gradients = _read_gradients(path, root, affine, findings)
    if gradients is None:
        return None
    findings += check_scheme(where, gradients)
    if image is None or len(gradients.b0_volumes) == 0:
        return None
    with errors_as_findings(findings, root, where):
        return Acquisition(image, gradients, mask_path, path)
    return None


def _read_gradients(
    path: Path, root: Path, affine: FloatArray, findings: list[Finding]
) -> GradientTable | None:
    missing = list(check_gradient_files(path, root))
    findings += missing
    if missing:
        return None
    bval, bvec = gradient_files(path)
    with errors_as_findings(findings, root, place_of(path, root)):
        # The number of volumes is compared by the acquisition, so that a table that belongs to
        # another image is still looked at.
        return read_gradients(bval, bvec, affine)
    return None


def _voxels_are_readable(
    acquisition: Acquisition, root: Path, where: str, findings: list[Finding]
) -> bool:
    """Read voxels and mask, which the acquisition keeps."""
    with errors_as_findings(findings, root, where):
        _ = acquisition.voxels, acquisition.mask
        return True
    return False


def _head_images(acquisition: Acquisition) -> HeadImages | None:
    """Make the images by which scans are aligned, from the lowest shell; None without one."""
    if not acquisition.gradients.shells:
        return None
    shell = acquisition.gradients.shells[0]
    return HeadImages(mean_diffusion_image(acquisition, shell), quick_tensors(acquisition, shell))
