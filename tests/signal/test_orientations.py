"""One acquisition, stored in many ways, is one SH image."""

from dataclasses import replace
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msp.data.acquisition import load_acquisition
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import colour_fa

ORIENTATIONS = [
    np.array(list(zip(axes, signs, strict=True)))
    for axes in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def name(orientation):
    return "".join("+-"[int(sign < 0)] + "xyz"[int(axis)] for axis, sign in orientation)


@pytest.fixture(scope="module", params=["RAS", "oblique"])
def made(request, scan):
    return scan(request.param, noise=10)


@pytest.fixture(scope="module")
def canonical(made, tmp_path_factory):
    """SH coefficients and colour FA in closest-canonical order."""
    return images(made, tmp_path_factory.mktemp("canonical"))


def images(made, folder):
    acquisition = made.load(folder)
    lattice = acquisition.lattice
    sh = lattice.to_canonical(fit_sh(acquisition).coefficients)
    return sh, lattice.to_canonical(colour_fa(acquisition))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=name)
def test_any_storage_order_gives_the_same_images(tmp_path, made, canonical, orientation):
    sh, colours = images(made.stored_along(orientation), tmp_path)
    np.testing.assert_allclose(sh, canonical[0], atol=1e-5)
    np.testing.assert_allclose(colours, canonical[1], atol=1e-4)


def test_an_oblique_grid_gives_the_same_coefficients_voxel_by_voxel(tmp_path, scan):
    """The same signal along the same scanner directions, on a grid that is turned."""
    straight = scan("RAS", noise=10)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", [20, 30, -40], degrees=True).as_matrix()
    oblique = replace(
        straight,
        image=nib.Nifti1Image(straight.image.dataobj, turned @ straight.image.affine),
        mask=nib.Nifti1Image(straight.mask.dataobj, turned @ straight.mask.affine),
    )
    coefficients = {}
    for kind, made in (("straight", straight), ("oblique", oblique)):
        (tmp_path / kind).mkdir()
        coefficients[kind] = fit_sh(made.load(tmp_path / kind)).coefficients
    np.testing.assert_allclose(coefficients["oblique"], coefficients["straight"], atol=1e-5)
    vectors = [np.loadtxt(tmp_path / kind / "sub-01_dwi.bvec") for kind in coefficients]
    assert np.abs(vectors[0] - vectors[1]).max() > 0.3  # though the files differ


@pytest.mark.reference("MRtrix mrconvert")
@pytest.mark.parametrize("strides", ["1,2,3,4", "-1,-2,3,4", "3,-1,2,4", "-2,3,-1,4"])
def test_storage_orders_written_by_mrtrix_give_the_same_images(
    tmp_path, made, canonical, mrtrix, strides
):
    path = made.write(tmp_path)
    target, files = tmp_path / "mr_dwi.nii.gz", [tmp_path / f"mr_dwi.{e}" for e in ("bvec", "bval")]
    own = tmp_path / "sub-01_dwi.bvec", tmp_path / "sub-01_dwi.bval"
    mrtrix(
        *("mrconvert", path, target, "-strides", strides, "-fslgrad", *own),
        *("-export_grad_fsl", *files),
    )
    mrtrix(
        "mrconvert",
        tmp_path / "sub-01_mask.nii.gz",
        tmp_path / "mr_mask.nii.gz",
        "-strides",
        strides.removesuffix(",4"),
    )
    acquisition = load_acquisition(target)
    sh = acquisition.lattice.to_canonical(fit_sh(acquisition).coefficients)
    np.testing.assert_allclose(sh, canonical[0], atol=1e-5)
