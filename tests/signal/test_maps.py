"""FA, colour FA, SH average and squared error."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_msp.data.acquisition import DoubtfulScan, load_acquisition
from napari_msp.errors import UserError
from napari_msp.signal.fitting import fit_sh
from napari_msp.signal.maps import (
    colour_fa,
    fractional_anisotropy,
    sh_average,
    squared_error,
    tensor_maps,
)
from napari_msp.signal.sh_image import SHImage, with_coefficients


def mrtrix_tensor(mrtrix, folder, path):
    """FA (clipped to [0, 1] as ours) and first eigenvector by MRtrix, in scanner axes."""
    stem = path.name.removesuffix(".nii.gz")
    gradients = path.with_name(f"{stem}.bvec"), path.with_name(f"{stem}.bval")
    tensor, fa, vector = (folder / f"{what}.nii.gz" for what in ("tensor", "fa", "vector"))
    mrtrix("dwi2tensor", path, tensor, "-fslgrad", *gradients)
    mrtrix("tensor2metric", tensor, "-fa", fa, "-vector", vector, "-modulate", "none")
    return np.clip(nib.load(fa).get_fdata(), 0, 1), nib.load(vector).get_fdata()


def angles(ours, reference):
    """Degrees between directions without a sign."""
    return np.degrees(np.arccos(np.clip(np.abs((ours * reference).sum(axis=-1)), 0, 1)))


@pytest.mark.reference("MRtrix dwi2tensor")
@pytest.mark.parametrize("noise", [0, 20])
@pytest.mark.parametrize("kind", ["RAS", "LAS", "permuted", "oblique"])
def test_fa_and_first_eigenvector_are_mrtrix_ones(tmp_path, scan, mrtrix, kind, noise):
    path = scan(kind, noise=noise).write(tmp_path)
    acquisition = load_acquisition(path)
    fa, vector = mrtrix_tensor(mrtrix, tmp_path, path)
    mask = acquisition.mask
    np.testing.assert_allclose(fractional_anisotropy(acquisition)[mask], fa[mask], atol=0.01)
    clear = mask & (fa > 0.3)
    assert clear.sum() > 50
    assert angles(tensor_maps(acquisition).direction, vector)[clear].max() < 1


@pytest.mark.reference("MRtrix dwi2tensor")
def test_images_that_count_as_b0_have_their_own_b_values(tmp_path, scan, mrtrix):
    """At b = 0 and b = 50 along a direction: 2 % of MD, were both taken for b = 0."""
    made = scan("oblique", shape=(3, 3, 3))
    made.b_values[1], made.directions[1] = 50, [0, 0.6, 0.8]
    tensor = np.array([[1.4, 0.3, 0], [0.3, 0.5, 0.1], [0, 0.1, 0.4]]) * 1e-3
    along = np.einsum("ni,ij,nj->n", made.directions, tensor, made.directions)
    signal = np.broadcast_to(1000 * np.exp(-made.b_values * along), made.image.shape)
    image = nib.Nifti1Image(signal.astype(np.float32), made.image.affine)
    path = replace(made, image=image).write(tmp_path)
    with pytest.warns(DoubtfulScan, match="a b-value 25 s/mm² lower") as warned:
        acquisition = load_acquisition(path)
    assert len(warned) == 1
    maps = tensor_maps(acquisition)
    mask = acquisition.mask
    fa, _ = mrtrix_tensor(mrtrix, tmp_path, path)
    np.testing.assert_allclose(maps.fa[mask], fa[mask], atol=1e-5)
    np.testing.assert_allclose(maps.md[mask], np.trace(tensor) / 3, rtol=1e-5)
    # An SH series knows their mean b-value alone, and no direction.
    through_sh = tensor_maps(fit_sh(acquisition, regularisation=0)).md[mask]
    measured = np.log((1 + np.exp(-50 * along[1])) / 2) + 1200 * np.trace(tensor) / 3
    np.testing.assert_allclose(through_sh, measured / 1175, rtol=2e-3)


@pytest.mark.reference("MRtrix dwi2tensor")
def test_fa_and_first_eigenvector_of_the_slab_are_mrtrix_ones(
    tmp_path, slab, slab_acquisition, mrtrix
):
    fa, vector = mrtrix_tensor(mrtrix, tmp_path, slab)
    # Where b=0 has no signal there is no tensor to agree on.
    mask = slab_acquisition.mask & (slab_acquisition.b0 > 0)
    difference = np.abs(fractional_anisotropy(slab_acquisition) - fa)[mask]
    assert difference.max() < 0.01
    # FA of 1 stands for tensors with a negative eigenvalue, whose order is anyone's choice.
    clear = mask & (fa > 0.2) & (fa < 1)
    off = angles(tensor_maps(slab_acquisition).direction, vector)[clear]
    assert np.mean(off > 1) < 1e-3


def stick(direction, folder, scan, fraction=1.0):
    """An acquisition of one fibre direction (or part of it, the rest isotropic) everywhere."""
    made = scan("RAS", shape=(3, 3, 3))
    along = np.square(made.directions[made.weighted] @ direction)
    signal = np.full(made.image.shape, 1000.0)
    diffusion = fraction * np.exp(-1200 * (0.2e-3 + 1.5e-3 * along))
    signal[..., 2:] *= diffusion + (1 - fraction) * np.exp(-1200 * 0.8e-3)
    image = nib.Nifti1Image(signal.astype(np.float32), made.image.affine)
    return replace(made, image=image).load(folder)


def test_fa_of_a_single_tensor_is_that_of_its_eigenvalues(tmp_path, scan):
    acquisition = stick(np.array([0.0, 0.6, 0.8]), tmp_path, scan)
    values = np.array([1.7, 0.2, 0.2])
    spread = np.square(values - values.mean()).sum()
    expected = np.sqrt(1.5 * spread / np.square(values).sum())
    mask = acquisition.mask
    np.testing.assert_allclose(fractional_anisotropy(acquisition)[mask], expected, atol=1e-3)


@pytest.mark.parametrize(("axis", "colour"), [(0, "red"), (1, "green"), (2, "blue")])
def test_scanner_axes_have_their_colours(tmp_path, scan, axis, colour):
    acquisition = stick(np.eye(3)[axis], tmp_path, scan)
    for source in (acquisition, fit_sh(acquisition)):
        colours = colour_fa(source)[acquisition.mask]
        assert (colours.argmax(axis=1) == ["red", "green", "blue"].index(colour)).all()
        fa = fractional_anisotropy(source)[acquisition.mask]
        np.testing.assert_allclose(np.linalg.norm(colours, axis=1), fa, rtol=1e-5)


def test_colour_fa_is_the_direction_times_fa_and_0_outside(tmp_path, scan):
    acquisition = scan("oblique", noise=10).load(tmp_path)
    fa, direction = fractional_anisotropy(acquisition), tensor_maps(acquisition).direction
    colours = colour_fa(acquisition)
    np.testing.assert_allclose(colours, np.abs(direction) * fa[..., None], atol=1e-6)
    assert (colours[~acquisition.mask] == 0).all()
    assert colours.shape == (8, 7, 6, 3)


def test_the_sh_route_gives_less_fa_along_the_same_direction(tmp_path, scan):
    acquisition = stick(np.array([0.48, 0.6, 0.64]), tmp_path, scan, fraction=0.6)
    image = fit_sh(acquisition)
    mask = acquisition.mask
    measured, by_sh = fractional_anisotropy(acquisition), fractional_anisotropy(image)
    assert (by_sh[mask] < measured[mask]).all()
    assert (by_sh[mask] > 0.8 * measured[mask]).all()
    off = angles(tensor_maps(image).direction, tensor_maps(acquisition).direction)
    assert off[mask].max() < 1


def test_a_signal_of_0_is_no_obstacle(tmp_path, scan):
    made = scan("RAS")
    signal = made.image.get_fdata()
    signal[2, 2, 2, 5] = 0
    signal[3, 3, 3, 2:] = 0
    signal[4, 4, 4] = 0
    image = nib.Nifti1Image(signal.astype(np.float32), made.image.affine)
    acquisition = replace(made, image=image).load(tmp_path)
    with pytest.warns(DoubtfulScan, match="2 of 252 voxels"):
        fa = fractional_anisotropy(acquisition)
    assert np.isfinite(fa).all()
    assert fa[2, 2, 2] > 0
    assert fa[3, 3, 3] == fa[4, 4, 4] == 0
    assert fa.max() <= 1


def test_one_shell_of_several_gives_the_fa(tmp_path, scan):
    both = scan(b_values=(700.0, 1200.0), noise=5).load(tmp_path)
    low, high = (fractional_anisotropy(both, b_value=b) for b in (700, 1200))
    assert np.abs(low - high)[both.mask].max() > 0.01
    with pytest.raises(UserError, match="several shells"):
        fractional_anisotropy(both)


def test_sh_average_is_the_mean_of_the_first_six(tmp_path, scan):
    image = fit_sh(scan().load(tmp_path))
    by_hand = sum(image.coefficients[..., i].astype(float) for i in range(6)) / 6
    np.testing.assert_allclose(sh_average(image), by_hand, atol=1e-6)


def test_an_sh_image_without_a_b_value_has_no_tensor():
    image = SHImage(np.ones((2, 2, 2, 28), np.float32), np.eye(4), np.ones((2, 2, 2), bool))
    with pytest.raises(UserError, match="BValue"):
        fractional_anisotropy(image)


class TestSquaredError:
    @pytest.fixture
    def image(self, tmp_path, scan):
        return fit_sh(scan().load(tmp_path))

    def test_is_the_mean_over_coefficients_inside_both_masks(self, image):
        rng = np.random.default_rng(0)
        other = with_coefficients(image, image.coefficients + rng.normal(size=(8, 7, 6, 28)))
        fewer = image.mask.copy()
        fewer[4] = False
        other = replace(other, mask=fewer)
        by_hand = (image.coefficients.astype(float) - other.coefficients) ** 2
        expected = np.where(image.mask & fewer, by_hand.mean(axis=-1), 0)
        np.testing.assert_allclose(squared_error(image, other), expected, rtol=1e-5)

    def test_of_maps_is_over_channels(self, image):
        ours, truth = sh_average(image), sh_average(image) + 0.5
        np.testing.assert_allclose(squared_error(ours, truth), 0.25, rtol=1e-5)
        masked = squared_error(ours, truth, image.mask)
        np.testing.assert_array_equal(masked[~image.mask], 0)
        colours = np.zeros((2, 2, 2, 3), np.float32)
        np.testing.assert_allclose(squared_error(colours, np.add(colours, [0, 0, 3])), 3)

    def test_of_different_lattices_is_refused(self, image):
        moved = replace(image, affine=image.affine @ np.diag([2.0, 2, 2, 1]))
        with pytest.raises(ValueError, match="different lattices"):
            squared_error(image, moved)
