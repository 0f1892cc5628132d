"""What the tests of the signal share."""

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.data.acquisition import load_acquisition
from napari_msp.signal.spherical_harmonics import coefficient_count, coefficient_orders


@pytest.fixture(scope="session")
def slab(slab_path, tmp_path_factory):
    """Some slices of the real slab, written with its gradients and mask; the image's path."""
    folder = tmp_path_factory.mktemp("slab")
    nib.load(slab_path).slicer[:, :, 8:16].to_filename(folder / "slab_dwi.nii.gz")
    mask = nib.load(slab_path.with_name("sub-01_mask.nii.gz"))
    mask.slicer[:, :, 8:16].to_filename(folder / "slab_mask.nii.gz")
    for kind in ("bval", "bvec"):
        table = slab_path.with_name(f"sub-01_dwi.{kind}").read_bytes()
        (folder / f"slab_dwi.{kind}").write_bytes(table)
    return folder / "slab_dwi.nii.gz"


@pytest.fixture(scope="session")
def slab_acquisition(slab):
    return load_acquisition(slab)


@pytest.fixture(scope="session")
def series():
    """Make (n, C) random SH series whose higher orders are weaker, as in tissue."""

    def make(count, order=6, seed=0):
        rng = np.random.default_rng(seed)
        weights = 1 / (1 + coefficient_orders(order)) ** 2
        return rng.normal(size=(count, coefficient_count(order))) * weights

    return make


@pytest.fixture(scope="session")
def turns():
    """Some rotations in general position."""
    return Rotation.random(4, random_state=np.random.default_rng(5)).as_matrix()
